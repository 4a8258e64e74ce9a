"""Stands in for Jaeger: receives traces by OTLP/HTTP, and names the services that sent some."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVICES = set()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        # A protobuf message, in which texts are as they are.
        SERVICES.update(name.decode() for name in re.findall(rb"service\.name.{1,8}?(millrace[a-z-]*)", body, re.DOTALL))
        self.respond(b"")

    def do_GET(self):
        self.respond(json.dumps({"data": sorted(SERVICES)}).encode())

    def respond(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


threading.Thread(target=ThreadingHTTPServer(("", 16686), Handler).serve_forever).start()
ThreadingHTTPServer(("", 4318), Handler).serve_forever()
