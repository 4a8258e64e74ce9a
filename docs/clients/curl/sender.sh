#!/bin/sh
# Sends transactions to Millrace and waits for their settlement: a POSIX shell, curl, openssl and od.
# curl cannot receive callbacks: poll, or copy the receiver of another language.
#
#     sh sender.sh send FILE    sends the transactions of a file: one a line, as JSON
#     sh sender.sh poll ID...   waits until each transaction is settled, and prints its status
#
# Variables: MILLRACE_URL; WEBHOOK_SECRET to send; MILLRACE_API_KEY to poll, if the server wants a key for reading.
set -eu

# They take about three minutes, and longer if the server asks for it.
attempts=12
url=${MILLRACE_URL:-http://127.0.0.1:8000}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

fail() {
  echo "failed: $1" >&2
  exit 1
}

hex() { od -An -vtx1 | tr -d ' \n'; }

# Encodes each byte of an id, for a URL or a header.
encode() { printf %s "$1" | hex | sed 's/../%&/g'; }

# Signs an id, a timestamp and a body, joined by dots. While openssl runs, the list of processes shows its key.
sign() {
  printf 'v1,'
  printf %s "$1" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A
}

# The value of a header of the last response.
header() { tr -d '\r' <"$work/headers" | grep -i "^$1:" | sed 's/^[^:]*: *//' | tail -n 1; }

# The seconds that Retry-After asks for, at most a day. It is a number or a date, which not every `date` can read.
retry_after() {
  after=$(header Retry-After | sed 's/^0*//')
  case $after in
    '') after=0 ;;
    *[!0-9]*) after=$(($(date -d "$after" +%s 2>/dev/null || echo $(($(date +%s) + 60))) - $(date +%s))) ;;
    ??????*) after=86400 ;;
  esac
  if [ "$after" -lt 0 ]; then after=0; fi
  if [ "$after" -gt 86400 ]; then after=86400; fi
  echo "$after"
}

# Waits $1 seconds, and a random part of $2 milliseconds.
pause() {
  random=$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')
  milliseconds=$(($1 * 1000 + random * $2 / 65536))
  sleep "$((milliseconds / 1000)).$(printf %03d $((milliseconds % 1000)))"
}

# Tries a request until its response is final. $1 is the function that makes it again for each try, because a signature
# expires: it prints the status, and leaves headers and body in files.
request() {
  attempt=1 ceiling=500
  while :; do
    : >"$work/headers" >"$work/body"
    status=$("$1") || status=000 # No response: the server may have the request nevertheless.
    case $status in
      2??) return 0 ;;
      000 | 408 | 425 | 429 | 5??) ;;
      *) break ;;
    esac
    if [ "$attempt" -eq "$attempts" ]; then break; fi
    pause "$(retry_after)" "$ceiling"
    attempt=$((attempt + 1)) ceiling=$((ceiling < 30000 ? ceiling * 2 : 60000))
  done
  fail "status $status in try $attempt: $(cat "$work/body")"
}

post() {
  at=$(date +%s)
  printf %s "$body" | curl -sS --max-time 90 -o "$work/body" -D "$work/headers" -w '%{http_code}' --data-binary @- \
    -H 'Content-Type: application/json' -H "webhook-id: $message_id" -H "webhook-timestamp: $at" \
    -H "webhook-signature: $(sign "$message_id.$at.$body")" "$url/v1/webhooks/transactions"
}

# Sends a transaction. However often it is sent, the server records it once: its id is the key.
send() {
  body=$1
  # Reads an id without quotes and backslashes.
  id=$(printf %s "$body" | sed -n 's/.*"transaction_id" *: *"\([^"\\]*\)".*/\1/p')
  message_id=$(encode "$id")
  request post
  fields=$(header Idempotency-Conflict)
  if [ -n "$fields" ]; then fail "$id is recorded before with another $fields; the first one stands"; fi
  if [ -n "$(header Idempotency-Replayed)" ]; then echo "$id replayed"; else echo "$id accepted"; fi
}

# The key is no argument of curl, because the list of processes shows arguments.
get() {
  printf 'header = "X-API-Key: %s"\n' "${MILLRACE_API_KEY-}" |
    curl -sS --max-time 90 -o "$work/body" -D "$work/headers" -w '%{http_code}' -K - \
      "$url/v1/transactions/$(encode "$id")?wait=60"
}

# Waits until a transaction is PROCESSED or FAILED. The server holds each response for up to 60 s.
poll() {
  id=$1
  while :; do
    request get
    state=$(sed -n 's/.*"status" *: *"\([A-Z]*\)".*/\1/p' "$work/body")
    if [ "$state" != PROCESSING ]; then break; fi
    pause 0 1500
  done
  echo "$id $state"
}

case $1 in
  send)
    key=$(printf %s "${WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | hex)
    if [ ${#key} -lt 48 ]; then fail 'WEBHOOK_SECRET is whsec_ and at least 24 bytes in base64'; fi
    while IFS= read -r line || [ -n "$line" ]; do
      if [ -n "$line" ]; then send "$line"; fi
    done <"$2"
    ;;
  poll)
    shift
    for each in "$@"; do poll "$each"; done
    ;;
esac
