"""Peers of the forms of HTTP/1: a server that writes each form byte by byte and says what it was sent, and a client that does the same from the other side.

`python3 http1_peers.py serve PORT` serves; `python3 http1_peers.py ask HOST PORT` plays every form and prints one line of JSON: for each form, what the client saw.
Invariant: what is printed depends on what was said and not on how the bytes arrived in time.
"""

import hashlib
import json
import socket
import sys
import threading
import time

# Fields of one hop: a peer between may set them as it likes.
HOP = {"connection", "keep-alive", "transfer-encoding"}
PIECES = [b"one", b"two", b"three" * 5000]
# As many and as large fields as a head may have beside those that the client sends anyway.
MANY, LARGE = 120, 60 * 1024
# Seconds that a connection is left alone, and that a client waits for bytes.
IDLE, PATIENCE = 5, 20


class Peer:
    """One side of a connection: reads heads, bodies and trailers, and nothing more than it needs."""

    def __init__(self, sock):
        self.sock, self.kept = sock, b""
        sock.settimeout(PATIENCE)

    def fill(self):
        data = self.sock.recv(65536)
        self.kept += data
        return bool(data)

    def line(self):
        while b"\n" not in self.kept:
            if not self.fill():
                raise EOFError(f"ended within a line: {self.kept!r}")
        line, self.kept = self.kept.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")

    def take(self, count):
        while len(self.kept) < count:
            if not self.fill():
                raise EOFError(f"ended {count - len(self.kept)} bytes early")
        taken, self.kept = self.kept[:count], self.kept[count:]
        return taken

    def rest(self):
        while self.fill():
            pass
        taken, self.kept = self.kept, b""
        return taken

    def fields(self):
        found = []
        while line := self.line():
            name, value = line.split(":", 1)
            found.append([name, value.strip()])
        return found

    def chunks(self):
        """The chunks as they come; what follows them is left to `fields`."""
        while size := int(self.line().split(";")[0], 16):
            yield self.take(size)
            self.line()

    def body(self, fields, to_end=False):
        """Body and trailers of a message with these fields."""
        known = {name.lower(): value for name, value in fields}
        if known.get("transfer-encoding") == "chunked":
            body = b"".join(self.chunks())
            return body, self.fields()
        if "content-length" in known:
            return self.take(int(known["content-length"])), []
        return (self.rest() if to_end else b""), []

    def say(self, *parts):
        self.sock.sendall(b"".join(part if isinstance(part, bytes) else part.encode("latin-1") for part in parts))


def shown(body):
    return body.decode("latin-1") if len(body) < 2000 else f"{len(body)} bytes {hashlib.sha256(body).hexdigest()}"


def end_to_end(fields):
    return [[name, value] for name, value in fields if name.lower() not in HOP]


def chunk(data, extension=""):
    return f"{len(data):x}{extension}\r\n".encode() + data + b"\r\n"


# --- the server ------------------------------------------------------------------------------------------------


def account(line, fields, body, trailers):
    """What a request looked like to the server, as the body of an answer."""
    text = json.dumps({"line": line, "fields": end_to_end(fields), "body": shown(body), "trailers": trailers})
    return f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}"


def serve_one(peer):
    while True:
        try:
            line = peer.line()
        except (EOFError, OSError):
            return
        fields = peer.fields()
        path = line.split()[1]
        if path in SPECIAL:
            if SPECIAL[path](peer, fields) == "over":
                return
            continue
        body, trailers = peer.body(fields)
        peer.say(account(line, fields, body, trailers))


def expects(peer, fields):
    assert ["100-continue"] == [value for name, value in fields if name.lower() == "expect"]
    peer.say("HTTP/1.1 100 Continue\r\n\r\n")
    peer.say(account("expected", fields, *peer.body(fields)))


def refuses(peer, fields):
    peer.say("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    return "over"


def early(peer, _):
    for status in ("102 Processing", "103 Early Hints", "103 Early Hints"):
        peer.say(f"HTTP/1.1 {status}\r\nLink: </style.css>; rel=preload\r\n\r\n")
    peer.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")


def upgraded(peer, _):
    peer.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: acme-chat\r\n\r\n", "welcome\n")
    while True:
        try:
            peer.say(peer.line().upper(), "\n")
        except EOFError:
            peer.say("bye\n")
            return "over"


def duplex(peer, _):
    peer.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"begin"))
    for data in peer.chunks():
        peer.say(chunk(data.upper()))
    peer.fields()
    peer.say("0\r\n\r\n")


def down(peer, fields):
    count = int(dict(fields)["X-Count"])
    peer.say(f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {count}\r\n\r\n")
    zeros = bytes(1 << 20)
    for _ in range(count >> 20):
        peer.say(zeros)


def up(peer, fields):
    count = left = int(dict(fields)["Content-Length"])
    left -= len(peer.kept)
    peer.kept, room = b"", bytearray(1 << 20)
    while left:
        left -= peer.sock.recv_into(room)
    peer.say(account("up", [], str(count).encode(), []))


def plain(*parts, over=False):
    def say(peer, _):
        peer.say(*parts)
        if over:
            return "over"
    return say


SPECIAL = {
    "/expects": expects, "/refuses": refuses, "/early": early, "/upgrade": upgraded, "/duplex": duplex, "/down": down, "/up": up,
    "/old": plain("HTTP/1.0 200 OK\r\nServer: old\r\n\r\n", "until the end\n" * 5000, over=True),
    "/old-kept": plain("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\n", "kept"),
    "/until-close": plain("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", "until the end\n" * 5000, over=True),
    "/trailers": plain("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Other\r\n\r\n", *map(chunk, PIECES), "0\r\nX-Sum: 42\r\nX-Other: a, b\r\n\r\n"),
    "/extensions": plain("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(b"signed", ";chunk-signature=abc"), chunk(b" twice", ';a=b;c="d e"'), "0;last\r\n\r\n"),
    "/head": plain("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n"),
    "/head-chunked": plain("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "/nothing": plain("HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n"),
    "/unchanged": plain("HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"a\"\r\n\r\n"),
    "/no-reason": plain("HTTP/1.1 299 \r\nContent-Length: 2\r\n\r\nok"),
    "/many": plain("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", *(f"X-{n}: {n}\r\n" for n in range(MANY)), "\r\nok"),
    "/large": plain("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Large: ", "v" * LARGE, "\r\n\r\nok"),
    "/cookies": plain("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nset-cookie: b=2; Path=/\r\nX-Latin: caf\xe9\r\nX-Empty:\r\n\r\nok"),
}


def serve(port):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
    while True:
        sock, _ = listener.accept()

        def one(sock=sock):
            with sock:
                try:
                    serve_one(Peer(sock))
                except (OSError, EOFError):
                    pass
        threading.Thread(target=one, daemon=True).start()


# --- the client ------------------------------------------------------------------------------------------------


class Client(Peer):
    def __init__(self, host, port):
        super().__init__(socket.create_connection((host, port), PATIENCE))
        self.host = f"{host}:{port}"

    def ask(self, method, path, *fields, body=b"", version="1.1"):
        self.say(f"{method} {path} HTTP/{version}\r\nHost: {self.host}\r\n", *(f"{field}\r\n" for field in fields), "\r\n", body)

    def answer(self, bodiless=False):
        line, fields = self.line(), self.fields()
        status = int(line.split()[1])
        body, trailers = (b"", []) if bodiless or status < 200 or status in (204, 304) else self.body(fields, to_end=True)
        # A relay writes its own version (RFC 9110 §2.5).
        return [line.split(" ", 1)[1], end_to_end(fields), shown(body), trailers]

    def asked(self, method, path, *fields, **options):
        self.ask(method, path, *fields, **options)
        return self.answer(bodiless=method == "HEAD")


CHUNKED = b"".join(map(chunk, PIECES))


def request_trailers(c):
    return c.asked("POST", "/echo", "Transfer-Encoding: chunked", "Trailer: X-Sum", body=CHUNKED + b"0\r\nX-Sum: 42\r\n\r\n")


def request_extensions(c):
    return c.asked("POST", "/echo", "Transfer-Encoding: chunked", body=chunk(b"signed", ";chunk-signature=abc") + chunk(b"!", ';a="b c"') + b"0;last\r\n\r\n")


def pipelined(c):
    paths = ["/a", "/trailers", "/b", "/nothing", "/c", "/early", "/d"]
    c.say("".join(f"GET {path} HTTP/1.1\r\nHost: {c.host}\r\n\r\n" for path in paths))
    answers = []
    while len([a for a in answers if not a[0].startswith("10")]) < len(paths):
        answers.append(c.answer())
    return answers


def pipelined_bodies(c):
    c.say("".join(f"POST /{n} HTTP/1.1\r\nHost: {c.host}\r\nContent-Length: 3\r\n\r\n{n:03}" for n in range(20)))
    return [c.answer() for _ in range(20)]


def expectation(c):
    c.ask("POST", "/expects", "Expect: 100-continue", "Content-Length: 5")
    interim = c.answer()
    c.say("hello")
    return [interim, c.answer()]


def expectation_refused(c):
    return c.asked("POST", "/refuses", "Expect: 100-continue", "Content-Length: 5")


def expectation_not_waited_for(c):
    c.ask("POST", "/expects", "Expect: 100-continue", "Content-Length: 5", body=b"hello")
    return [c.answer(), c.answer()]


def early_hints(c):
    c.ask("GET", "/early")
    return [c.answer() for _ in range(4)] + [c.asked("GET", "/after")]


def upgrade(c):
    c.ask("GET", "/upgrade", "Connection: Upgrade", "Upgrade: acme-chat", body=b"")
    said = [c.answer(), c.line()]
    for word in ("first", "second"):
        c.say(word, "\n")
        said.append(c.line())
    c.sock.shutdown(socket.SHUT_WR)
    return said + [shown(c.rest())]


def half_close(c):
    c.ask("POST", "/echo", "Content-Length: 4", body=b"last")
    c.sock.shutdown(socket.SHUT_WR)
    return [c.answer(), shown(c.rest())]


def half_close_to_end(c):
    c.ask("GET", "/until-close")
    c.sock.shutdown(socket.SHUT_WR)
    return c.answer()


def full_duplex(c):
    c.ask("POST", "/duplex", "Transfer-Encoding: chunked")
    head = [c.line(), end_to_end(c.fields())]
    pieces = c.chunks()
    said = [shown(next(pieces))]
    for word in (b"a", b"b", b"c"):
        c.say(chunk(word))
        said.append(shown(next(pieces)))
    c.say("0\r\n\r\n")
    return [head, said, list(pieces), c.fields(), c.asked("GET", "/after")]


def idle(c):
    first = c.asked("GET", "/first")
    time.sleep(IDLE)
    return [first, c.asked("GET", "/second")]


def byte_by_byte(c):
    for byte in f"POST /echo HTTP/1.1\r\nHost: {c.host}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".encode():
        c.say(bytes([byte]))
        time.sleep(0.002)
    return c.answer()


def old_client_kept(c):
    return [c.asked("GET", "/old-kept", "Connection: keep-alive", version="1.0"), c.asked("GET", "/old-kept", "Connection: keep-alive", version="1.0")]


def many_fields(c):
    return c.asked("GET", "/echo", *(f"X-{n}: {n}" for n in range(MANY)))


def large_field(c):
    return c.asked("GET", "/echo", "X-Large: " + "v" * LARGE)


def odd_fields(c):
    return c.asked("GET", "/echo?a=%20b&&c", "x-lower: 1", "X-UPPER: 2", "X-Empty:", "X-Latin: caf\xe9", "Cookie: a=1", "Cookie: b=2", "X-Twice: 1", "X-Twice: 2")


def answered(path, method="GET", **options):
    return lambda c: c.asked(method, path, **options)


FORMS = {
    "HTTP/1.0 client": answered("/echo", version="1.0"),
    "HTTP/1.0 client, kept": old_client_kept,
    "HTTP/1.0 server, until it closes": answered("/old"),
    "HTTP/1.0 server, kept": lambda c: [c.asked("GET", "/old-kept"), c.asked("GET", "/old-kept")],
    "HTTP/1.1 server, until it closes": answered("/until-close"),
    "several requests in one segment": pipelined,
    "several requests with bodies in one segment": pipelined_bodies,
    "request trailers": request_trailers,
    "response trailers": answered("/trailers"),
    "chunk extensions of a request": request_extensions,
    "chunk extensions of a response": answered("/extensions"),
    "100-continue": expectation,
    "100-continue, refused": expectation_refused,
    "100-continue, not waited for": expectation_not_waited_for,
    "102 and 103 before the answer": early_hints,
    "HEAD with a length": lambda c: [c.asked("HEAD", "/head"), c.asked("GET", "/after")],
    "HEAD with chunks": lambda c: [c.asked("HEAD", "/head-chunked"), c.asked("GET", "/after")],
    "204": lambda c: [c.asked("GET", "/nothing"), c.asked("GET", "/after")],
    "304 with a length": lambda c: [c.asked("GET", "/unchanged"), c.asked("GET", "/after")],
    "a status without a reason": answered("/no-reason"),
    "an unknown method": answered("/echo", method="BREW"),
    "OPTIONS *": answered("*", method="OPTIONS"),
    "upgrade to a protocol that is not known": upgrade,
    "half-close after a request": half_close,
    "half-close, answer until the server closes": half_close_to_end,
    "upload while the answer streams": full_duplex,
    "an idle connection": idle,
    "a request byte by byte": byte_by_byte,
    "120 fields in a request": many_fields,
    "120 fields in an answer": answered("/many"),
    "a field of 60 KiB in a request": large_field,
    "a field of 60 KiB in an answer": answered("/large"),
    "repeated, empty, Latin-1 and lower-case fields of a request": odd_fields,
    "repeated, empty, Latin-1 and lower-case fields of an answer": answered("/cookies"),
}


def ask(host, port):
    said = {}

    def one(name, form):
        try:
            with (client := Client(host, port)).sock:
                said[name] = form(client)
        except (OSError, EOFError, ValueError, AssertionError, StopIteration) as error:
            said[name] = f"{type(error).__name__}: {error}"
    threads = [threading.Thread(target=one, args=item) for item in FORMS.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({name: said[name] for name in FORMS}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        ask(sys.argv[2], int(sys.argv[3]))
