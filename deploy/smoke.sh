#!/bin/sh
# Smoke test: sends one webhook to a running Millrace and waits until it is PROCESSED.
#
#   sh deploy/smoke.sh http://localhost:8000
#
# Set API_KEY if TRANSACTIONS_READ=key, which is the default with ENV=prod.
set -eu
url=${1:?usage: smoke.sh URL}
id=smoke_$(date +%s)_$$
body="{\"transaction_id\":\"$id\",\"source_account\":\"a\",\"destination_account\":\"b\",\"amount\":\"12.50\",\"currency\":\"EUR\"}"

accepted=$(curl -sS -o /dev/null -w '%{http_code}' "$url/v1/webhooks/transactions" -H 'Content-Type: application/json' -d "$body")
if [ "$accepted" != 202 ]; then
  echo "the webhook returned $accepted instead of 202" >&2
  exit 1
fi
# The request returns as soon as the transaction is settled, or after 60 s.
settled=$(curl -sS -m 70 ${API_KEY:+-H "X-API-Key: $API_KEY"} "$url/v1/transactions/$id?wait=60")
case $settled in
  *'"status":"PROCESSED"'*) echo "$id was accepted and PROCESSED" ;;
  *)
    echo "the webhook was accepted but not processed: $settled" >&2
    exit 1
    ;;
esac
