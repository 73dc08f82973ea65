#!/usr/bin/env python3
"""The part of the measured server that nginx is not: timed events, a sink for uploads, and git. nginx passes /origin/ on to it, unbuffered.

    origin.py SOCKET GIT_REPOSITORY

Events carry the clock at which they were written (CLOCK_MONOTONIC, one for all network namespaces), so that a reader can tell how long each took.
"""

import os
import socket
import subprocess
import sys
import threading
import time

# Seconds between two events: far enough apart that each waits for nobody.
EVENT_EVERY = 0.003
BLOCK = 256 * 1024


def read_head(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, rest = data.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    fields = dict((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:]))
    method, target, _ = lines[0].split(" ", 2)
    return method, target.removeprefix("/origin"), fields, rest


def body(connection, fields, rest):
    """The request's body in blocks. nginx sends a length, or chunks where git did."""
    if fields.get("transfer-encoding") == "chunked":
        stream = connection.makefile("rb")
        pending = rest + b""
        while True:
            while b"\r\n" not in pending:
                pending += stream.read1(BLOCK)
            size, pending = pending.split(b"\r\n", 1)
            size = int(size.split(b";")[0], 16)
            while len(pending) < size + 2:
                pending += stream.read1(BLOCK)
            if size == 0:
                return
            yield pending[:size]
            pending = pending[size + 2:]
    left = int(fields.get("content-length", 0)) - len(rest)
    if rest:
        yield rest
    block = memoryview(bytearray(BLOCK))
    while left > 0:
        got = connection.recv_into(block)
        if not got:
            return
        left -= got
        yield block[:got]


def head(content_type, length=None):
    framing = f"Content-Length: {length}\r\n" if length is not None else ""
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nCache-Control: no-cache\r\n{framing}Connection: close\r\n\r\n".encode()


def events(connection, count):
    connection.sendall(head("text/event-stream"))
    for number in range(count):
        time.sleep(EVENT_EVERY)
        connection.sendall(f"id: {number}\ndata: {{\"at\": \"{time.monotonic_ns():x}\", \"text\": \"a word and another\"}}\n\n".encode())


def upload(connection, blocks):
    size = sum(len(block) for block in blocks)
    connection.sendall(head("text/plain", len(str(size))) + str(size).encode())


def git(connection, target, fields, blocks, repository):
    if target.startswith("/git/info/refs"):
        refs = subprocess.run(["git", "upload-pack", "--http-backend-info-refs", repository], stdout=subprocess.PIPE, env=git_environment(fields)).stdout
        service = b"# service=git-upload-pack\n"
        answer = b"%04x" % (len(service) + 4) + service + b"0000" + refs
        if "version=2" in fields.get("git-protocol", ""):
            answer = refs
        connection.sendall(head("application/x-git-upload-pack-advertisement", len(answer)) + answer)
        return
    pack = subprocess.Popen(["git", "upload-pack", "--stateless-rpc", repository], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=git_environment(fields))
    for block in blocks:
        pack.stdin.write(block)
    pack.stdin.close()
    connection.sendall(head("application/x-git-upload-pack-result"))
    while block := pack.stdout.read1(BLOCK):
        connection.sendall(block)
    pack.wait()


def git_environment(fields):
    return os.environ | {"GIT_PROTOCOL": fields.get("git-protocol", ""), "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


def serve(connection, repository):
    with connection:
        request = read_head(connection)
        if request is None:
            return
        _, target, fields, rest = request
        blocks = body(connection, fields, rest)
        try:
            if target.startswith("/events/"):
                events(connection, int(target.rsplit("/", 1)[1]))
            elif target.startswith("/git/"):
                git(connection, target, fields, blocks, repository)
            else:
                upload(connection, blocks)
        except OSError:
            # Whoever asked went away.
            pass


def main():
    path, repository = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o666)
    listener.listen(64)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, repository), daemon=True).start()


main()
