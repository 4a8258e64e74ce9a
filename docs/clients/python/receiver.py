"""Receives the callbacks of Millrace, each settlement once: Python 3.10 or newer, no packages. Copy what you need.

    receiver.py PORT FOLDER

CALLBACK_SECRET is the secret of the callbacks; two, separated by a comma, while one replaces the other.
"""

import base64
import hashlib
import hmac
import os
import pathlib
import re
import sys
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

# The greatest difference between a signature's time and now, in seconds. It limits how long a message can be reused.
TOLERANCE = 300
LONGEST_BODY = 100_000


def read_secret(secret: str) -> bytes:
    key = base64.b64decode(secret.strip().removeprefix("whsec_"), validate=True)
    if len(key) < 24:
        raise ValueError("a secret is whsec_ and at least 24 bytes in base64")
    return key


def sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def verify(headers: Message, body: bytes, keys: list[bytes], now: float) -> bool:
    """Whether the holder of one of the keys signed exactly these bytes a short time ago."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(now - int(timestamp)) > TOLERANCE:
        return False
    given = [entry.encode() for entry in headers.get("webhook-signature", "").split(" ")]
    expected = [sign(key, message_id, timestamp, body).encode() for key in keys]
    return any(hmac.compare_digest(one, other) for one in given for other in expected)


class Inbox:
    """Stores each message once. The folder stands for your database: insert the id there under a unique key, in the
    same transaction as everything that the message causes."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.lock = folder, threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def store(self, message_id: str, body: bytes) -> bool:
        """Returns false if the message is stored already."""
        path = self.folder / f"{quote(message_id, safe='')}.json"
        with self.lock:
            if path.exists():
                return False
            unfinished = path.with_suffix(".new")
            with open(unfinished, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
            return True


class Receiver(BaseHTTPRequestHandler):
    keys: list[bytes]
    inbox: Inbox
    # In seconds; a client that sends nothing ends with it.
    timeout = 30

    def do_POST(self) -> None:
        self.send_response(self.receive())
        self.end_headers()

    def receive(self) -> int:
        """Returns 204 once a message is stored. After any other status, Millrace sends it again."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > LONGEST_BODY:
            return 413
        body = self.rfile.read(int(length))
        if not verify(self.headers, body, self.keys, time.time()):
            return 401
        if self.inbox.store(self.headers["webhook-id"], body):
            print("received", body.decode(), flush=True)
        return 204


def main(port: str, folder: str) -> None:
    Receiver.keys = [read_secret(secret) for secret in os.environ["CALLBACK_SECRET"].split(",")]
    Receiver.inbox = Inbox(pathlib.Path(folder))
    # Connections that wait to be accepted. Each worker of Millrace opens up to 16 at once; the default is 5.
    ThreadingHTTPServer.request_queue_size = 128
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
