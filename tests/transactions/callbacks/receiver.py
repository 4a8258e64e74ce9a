"""A receiver of callbacks, written with the library standardwebhooks of PyPI.

    python3 receiver.py /PATH=SECRET...

A message to a path must be signed with the secret of that path. Prints the port, then each accepted message as a line of JSON.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

WEBHOOKS = {path: Webhook(secret) for path, secret in (argument.split("=", 1) for argument in sys.argv[1:])}


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            message = WEBHOOKS[self.path].verify(body, headers)
        except WebhookVerificationError as error:
            self.respond(401, str(error))
            return
        signed = {name: value for name, value in headers.items() if name.startswith("webhook-")}
        accepted = {"path": self.path, "headers": signed, "body": body.decode(), "message": message}
        print(json.dumps(accepted), flush=True)
        self.respond(204, "")

    def respond(self, status, text):
        self.send_response(status)
        if text:
            self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print("listening on", server.server_address[1], flush=True)
server.serve_forever()
