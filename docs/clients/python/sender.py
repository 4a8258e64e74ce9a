"""Sends transactions to Millrace and waits for their settlement: Python 3.10 or newer, no packages. Copy what you need.

    sender.py send FILE    sends the transactions of a file: one a line, as JSON
    sender.py poll ID...   waits until each transaction is settled, and prints its status

Variables: MILLRACE_URL; WEBHOOK_SECRET to send; MILLRACE_API_KEY to poll, if the server wants a key for reading.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import random
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

# They take about three minutes, and longer if the server asks for it.
ATTEMPTS = 12


class Failed(Exception):
    """The server refused the request, or all tries failed."""


def read_secret(secret: str) -> bytes:
    key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    if len(key) < 24:
        raise ValueError("a secret is whsec_ and at least 24 bytes in base64")
    return key


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def retry_after(value: str) -> float:
    """The seconds that a Retry-After header asks for, at most a day. It is a number or a date."""
    try:
        seconds = float(value) if value.isdecimal() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 5.0
    return min(max(seconds, 0.0), 86_400.0)


def retry(make: Callable[[], Request]) -> tuple[Message, bytes]:
    """Tries a request until its response is final. `make` makes it again for each try, because a signature expires."""
    pause = 0.0
    for attempt in range(ATTEMPTS):
        time.sleep(pause)
        try:
            with urlopen(make(), timeout=90) as response:
                return response.headers, response.read()
        except HTTPError as error:
            problem = f"status {error.code}: {error.read().decode(errors='replace')}"
            if error.code < 500 and error.code not in (408, 425, 429):
                raise Failed(problem) from error
            pause = retry_after(error.headers.get("Retry-After", "0"))
        except (OSError, HTTPException) as error:
            # The server may have the request nevertheless.
            problem, pause = f"no response: {error}", 0.0
        # Backoff with full jitter, after the pause that the server asks for.
        pause += random.uniform(0, min(60, 0.5 * 2**attempt))
    raise Failed(f"{ATTEMPTS} tries failed, the last one with {problem}")


def send(url: str, key: bytes, body: bytes) -> str:
    """Sends a transaction. However often it is sent, the server records it once: its id is the key."""
    transaction_id = json.loads(body)["transaction_id"]
    message_id = quote(transaction_id, safe="")

    def make() -> Request:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": sign(key, message_id, timestamp, body),
        }
        return Request(f"{url}/v1/webhooks/transactions", body, headers)

    headers, _ = retry(make)
    if "Idempotency-Conflict" in headers:
        fields = headers["Idempotency-Conflict"]
        raise Failed(f"{transaction_id} is recorded before with another {fields}; the first one stands")
    return f"{transaction_id} {'replayed' if 'Idempotency-Replayed' in headers else 'accepted'}"


def wait_until_settled(url: str, api_key: str, transaction_id: str) -> Any:
    """Returns a transaction once it is PROCESSED or FAILED. The server holds each response for up to 60 s."""
    path = f"{url}/v1/transactions/{quote(transaction_id, safe='')}?wait=60"
    while True:
        _, body = retry(lambda: Request(path, headers={"X-API-Key": api_key} if api_key else {}))
        # A float would change some amounts.
        transaction = json.loads(body, parse_float=Decimal)
        if transaction["status"] != "PROCESSING":
            return transaction
        time.sleep(random.uniform(0.5, 1.5))


def main(command: str, *arguments: str) -> None:
    url = os.environ.get("MILLRACE_URL", "http://127.0.0.1:8000")
    if command == "send":
        key = read_secret(os.environ["WEBHOOK_SECRET"])
        for line in filter(bytes.strip, pathlib.Path(arguments[0]).read_bytes().splitlines()):
            print(send(url, key, line), flush=True)
    elif command == "poll":
        for transaction_id in arguments:
            transaction = wait_until_settled(url, os.environ.get("MILLRACE_API_KEY", ""), transaction_id)
            print(transaction_id, transaction["status"], flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Failed as failure:
        sys.exit(f"failed: {failure}")
