#!/usr/bin/env python3
"""A collector of audit records for tests: an HTTP sink's other end.

Takes POSTs of newline-delimited JSON (gzip or plain), appends the lines to a file, syncs it, and only then answers 200. So whatever a
sidecar believes to be acknowledged is in the file. Any path is taken; GET /healthz answers 200, GET /records the file.

    sink.py --file records.jsonl --port 9000
    sink.py --file records.jsonl --port 9443 --cert tls.crt --key tls.key --bearer TOKEN --fail-rate 0.2
    sink.py --file records.jsonl --port 9443 --cert tls.crt --key tls.key --client-ca clients.crt

--fail-rate P: of all POSTs, about P fail: half are refused with 503 before anything is kept, half are kept and the connection is cut before
the answer, so that the sender must send them again.
"""

import argparse
import gzip
import os
import random
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_BODY = 64 * 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    options = None
    lock = threading.Lock()

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer(200, b"ok\n")
        if self.path == "/records":
            with open(self.options.file, "rb") as file:
                return self.answer(200, file.read())
        return self.answer(404, b"POST records, or GET /healthz or /records\n")

    def do_POST(self):
        lines, problem = self.read_lines()
        if problem:
            self.close_connection = True
            return self.answer(*problem)
        if self.options.bearer and self.headers.get("Authorization") != "Bearer " + self.options.bearer:
            return self.answer(401, b"wrong or no bearer token\n")
        fate = random.random()
        if fate < self.options.fail_rate / 2:
            return self.answer(503, b"failing as asked (--fail-rate)\n")
        self.keep(lines)
        if fate < self.options.fail_rate:
            self.close_connection = True
            return None
        return self.answer(200, b"")

    def read_lines(self):
        """The body, unpacked; or what to answer instead."""
        try:
            length = int(self.headers["Content-Length"])
        except (TypeError, ValueError):
            return None, (411, b"Content-Length is missing\n")
        if length > MAX_BODY:
            return None, (413, b"too large\n")
        body = self.rfile.read(length)
        if len(body) < length:
            return None, (400, b"the body ended early\n")
        try:
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
        except (OSError, EOFError) as error:
            return None, (400, f"gzip: {error}\n".encode())
        if body and not body.endswith(b"\n"):
            return None, (400, b"the last line has no newline\n")
        return body, None

    def keep(self, lines):
        with self.lock, open(self.options.file, "ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *args):
        if self.options.verbose:
            super().log_message(form, *args)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", required=True, help="file that records are appended to")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=9000, help="0: any; the one chosen is printed")
    parser.add_argument("--cert", help="server certificate chain (PEM): serve HTTPS")
    parser.add_argument("--key", help="its key (PEM)")
    parser.add_argument("--client-ca", help="require a client certificate of this CA (PEM)")
    parser.add_argument("--bearer", help="require this bearer token")
    parser.add_argument("--fail-rate", type=float, default=0.0, help="0 to 1")
    parser.add_argument("--verbose", action="store_true", help="log requests to standard error")
    return parser.parse_args()


def main():
    options = Handler.options = arguments()
    open(options.file, "ab").close()
    ThreadingHTTPServer.daemon_threads = True
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    if options.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.cert, options.key)
        if options.client_ca:
            context.load_verify_locations(options.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        # The handshake runs on the connection's own thread, at its first read.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"listening on {server.server_address[0]}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
