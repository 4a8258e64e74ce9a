"""Sends webhooks at a rate and waits until each is PROCESSED:

    client.py URL PREFIX COUNT RATE LOG [STOP]

Appends a line to LOG for each webhook: id, status (0: no response), milliseconds. Ends after COUNT webhooks, or when the file STOP
exists. Exit status 1 if a webhook got no 202, or was not PROCESSED within a minute after the last one.
"""

import http.client
import itertools
import json
import os
import sys
import threading
import time
from urllib.parse import urlsplit

URL, PREFIX, COUNT, RATE, LOG = sys.argv[1:6]
STOP = sys.argv[6] if len(sys.argv) > 6 else ""
CLIENTS = 8
BEGAN = time.monotonic()
numbers = itertools.count()
lock = threading.Lock()
sent = {}


class Client:
    """One kept connection, which is opened again after an error."""

    def __init__(self):
        self.connection = http.client.HTTPConnection(urlsplit(URL).netloc, timeout=30)

    def request(self, method, path, body=None):
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            self.connection.request(method, path, body, headers)
            response = self.connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            return 0, repr(error).encode()


def send(log):
    client = Client()
    while True:
        number = next(numbers)
        if number >= int(COUNT):
            return
        time.sleep(max(0, BEGAN + number / float(RATE) - time.monotonic()))
        if STOP and os.path.exists(STOP):
            return
        name = f"{PREFIX}_{number}"
        body = {"transaction_id": name, "source_account": "a", "destination_account": "b", "amount": 1, "currency": "EUR"}
        began = time.monotonic()
        status, text = client.request("POST", "/v1/webhooks/transactions", json.dumps(body))
        duration = (time.monotonic() - began) * 1000
        with lock:
            sent[name] = (status, duration)
            log.write(f"{name} {status} {duration:.1f}\n")
            log.flush()
        if status != 202:
            print(f"{name}: {status} {text[:300]!r}", file=sys.stderr)


def is_processed(client, name, end):
    while True:
        status, text = client.request("GET", f"/v1/transactions/{name}?wait=20")
        if status == 200 and json.loads(text)["status"] != "PROCESSING" or time.monotonic() > end:
            return status == 200 and json.loads(text)["status"] == "PROCESSED"
        if status != 200:
            time.sleep(0.2)


with open(LOG, "a") as log:
    threads = [threading.Thread(target=send, args=[log]) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
accepted = [name for name, (status, _) in sent.items() if status == 202]
client, end = Client(), time.monotonic() + 60
unprocessed = [name for name in accepted if not is_processed(client, name, end)]
if unprocessed:
    print(f"not processed: {unprocessed[:5]}", file=sys.stderr)
refused = len(sent) - len(accepted)
slowest = max((duration for _, duration in sent.values()), default=0)
print(f"{len(accepted) - len(unprocessed)} of {len(sent)} webhooks PROCESSED, {refused} refused, slowest {slowest:.0f} ms")
sys.exit(not sent or bool(refused or unprocessed))
