#!/usr/bin/env python3
"""Small clients for what wrk, h2load and curl do not measure. Prints one line of JSON.

    client.py events URL COUNT           µs from an event's writing to its reading: median and 99th percentile
    client.py hold URL COUNT             opens COUNT connections, asks each once, says "ready", and holds them until its input ends
"""

import json
import socket
import ssl
import statistics
import sys
import time
from urllib.parse import urlsplit


def dial(url):
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if parts.scheme == "https":
        # As wrk does: what is measured is the proxy, and each has a certificate of its own.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = context.wrap_socket(connection, server_hostname=parts.hostname)
    return connection, parts


def ask(connection, parts):
    connection.sendall(f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())


def events(url, count):
    connection, parts = dial(f"{url}{count}")
    ask(connection, parts)
    delays, pending = [], b""
    while len(delays) < count:
        data = connection.recv(65536)
        now = time.monotonic_ns()
        if not data:
            break
        pending += data
        *whole, pending = split_events(pending)
        delays += [(now - at) / 1000 for at in whole]
    delays.sort()
    print(json.dumps({"events": len(delays), "p50": statistics.median(delays), "p99": delays[int(len(delays) * 0.99)]}))


def split_events(data):
    """The times of the whole events in `data`, then what is left."""
    times = []
    while (end := data.find(b"\n\n")) >= 0:
        event, data = data[:end], data[end + 2:]
        at = event.find(b'"at": "')
        if at >= 0:
            times.append(int(event[at + 7:event.index(b'",', at)], 16))
    return [*times, data]


def hold(url, count):
    held = []
    for _ in range(count):
        connection, parts = dial(url)
        ask(connection, parts)
        if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
            sys.exit("a connection was not served")
        held.append(connection)
    print("ready", flush=True)
    sys.stdin.read()


def main():
    what, url, count = sys.argv[1:]
    {"events": events, "hold": hold}[what](url, int(count))


main()
