"""An HTTP/2 server that breaks the protocol, one way a path: what h2spec does to servers, done to clients. `python http2_faults.py PORT LOG` serves in clear text with prior knowledge.

A connection's first request is `/before`, answered in good order; then `/CASE` gets what `CASES` has for it. What the client says to that (the first RST_STREAM or GOAWAY, by its code) is
appended to LOG, a JSON line a case. `/before` and `/after` are answered like by any server.
"""

import json
import socket
import struct
import sys
import threading
from collections import namedtuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CODES = ["NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
         "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"]
# Bytes that a flood may come to. What is not stopped before is not stopped by a bound on work, but by the one who reads.
FLOOD = 16 << 20
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, PRIORITISED = 1, 4, 8, 32


def frame(kind, flags, stream, payload=b""):
    """A frame of whatever is given (RFC 9113 §4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A field that no table of HPACK learns (RFC 7541 §6.2.2), names and values as they are."""
    def text(octets):
        return bytes([len(octets)]) + octets if len(octets) < 127 else b"\x7f" + integer(len(octets) - 127) + octets
    return b"\x00" + text(name) + text(value)


def integer(number):
    octets = b""
    while number >= 128:
        octets, number = octets + bytes([number % 128 | 128]), number // 128
    return octets + bytes([number])


def block(*fields):
    return b"".join(literal(*field) for field in fields)


OK = (b":status", b"200")
GOOD = block(OK, (b"content-type", b"text/plain"))


def head(stream, *fields, flags=END_HEADERS):
    return frame(HEADERS, flags, stream, block(*fields))


def body(stream, octets=b"fine", flags=END_STREAM):
    return frame(DATA, flags, stream, octets)


def answer(stream):
    return frame(HEADERS, END_HEADERS, stream, GOOD) + body(stream)


def whole(*before):
    """An answer in good order after what must be ignored."""
    return lambda stream: b"".join(part(stream) if callable(part) else part for part in before) + answer(stream)


def endless(make, count=None):
    """Again and again, up to `FLOOD` bytes; a list, so that it is written piece by piece."""
    def flood(stream):
        one = make(stream)
        pieces = max(1, 65536 // len(one))
        return [one * pieces] * (count or FLOOD // (len(one) * pieces))
    return flood


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def continued(stream, pieces, ends=True):
    """A header block of good fields in a HEADERS frame and this many CONTINUATION frames."""
    fields = block(*[(b"x-part-%d" % number, b"y" * 20) for number in range(pieces)])
    size = len(fields) // pieces
    cut = [fields[at * size:(at + 1) * size] for at in range(pieces - 1)] + [fields[(pieces - 1) * size:]]
    frames = [frame(HEADERS, 0, stream, GOOD)] + [frame(CONTINUATION, 0, stream, piece) for piece in cut[:-1]]
    return b"".join(frames) + frame(CONTINUATION, END_HEADERS if ends else 0, stream, cut[-1])


u32 = lambda number: struct.pack(">I", number)

# `section` is one of RFC 9113 unless another is named; `comes` one of COMES, or the frame that the server hears; `make` gives what is sent, for a stream's number.
Case = namedtuple("Case", "section comes make")
# What comes of a case: in words; whether the agent has the whole answer; what the server hears; whether the agent's connection serves another request.
COMES = {
    "answered": ("answered as if nothing were", True, None, True),
    "answered, RST_STREAM STREAM_CLOSED": ("answered; what is too late is refused (STREAM_CLOSED)", True, "RST_STREAM STREAM_CLOSED", True),
    "answered, then leaves": ("answered, and the agent is told to go elsewhere", True, None, False),
    "reset": ("the stream is reset with the server's code", False, None, True),
    "refused": ("the stream is reset with REFUSED_STREAM, which clients repeat elsewhere", False, None, False),
    "refused alone": ("an error on this stream alone", False, None, True),
    "ends": ("an error; the connection is over", False, None, False),
}


def comes(case):
    """What comes of a case, as in COMES."""
    if case.comes in COMES:
        return COMES[case.comes]
    frame_type, code = case.comes.split()
    if frame_type == "RST_STREAM":
        return f"an error on this stream alone ({code})", False, case.comes, True
    return f"an error; the connection is ended ({code})", False, case.comes, False


CASES = {
    # Frames and their sizes.
    "frame-larger-than-announced": Case("4.2", "GOAWAY FRAME_SIZE_ERROR", lambda s: head(s, OK) + body(s, b"x" * 16385)),
    "headers-frame-larger-than-announced": Case("4.2", "GOAWAY FRAME_SIZE_ERROR", lambda s: frame(HEADERS, END_HEADERS, s, GOOD + literal(b"x-long", b"y" * 16400))),
    "frame-cut-by-the-end": Case("4.1", "ends", lambda s: head(s, OK) + body(s)[:-2] + b""),
    "unknown-frame-type": Case("4.1, 5.5", "answered", whole(lambda s: frame(0x16, 0xFF, s, b"unknown"), frame(0xEE, 0, 0, b""))),
    "undefined-flags": Case("4.1", "answered", lambda s: frame(HEADERS, END_HEADERS | 0x50, s, GOOD) + frame(DATA, END_STREAM | 0xF4 & ~PADDED, s, b"fine")),
    "reserved-bit-set": Case("4.1", "answered", lambda s: frame(HEADERS, END_HEADERS, s | 1 << 31, GOOD) + body(s)),
    "unknown-frame-in-a-header-block": Case("5.5, 6.10", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, 0, s, GOOD) + frame(0x16, 0, s, b"unknown") + frame(CONTINUATION, END_HEADERS, s) + body(s)),
    "http-1-in-the-place-of-frames": Case("3.4", "GOAWAY FRAME_SIZE_ERROR", lambda s: b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
    # DATA.
    "data-on-stream-0": Case("6.1", "GOAWAY PROTOCOL_ERROR", lambda s: body(0)),
    "data-before-headers": Case("8.1", "GOAWAY PROTOCOL_ERROR", lambda s: body(s)),
    "data-on-an-idle-stream": Case("5.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK) + body(s + 2)),
    "data-on-a-stream-of-the-servers": Case("5.1.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK) + body(2)),
    "data-after-the-end": Case("5.1", "answered, RST_STREAM STREAM_CLOSED", lambda s: answer(s) + body(s)),
    "data-padded-beyond-its-end": Case("6.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK) + frame(DATA, PADDED, s, b"\x09fine")),
    "data-padding-is-taken-off": Case("6.1", "answered", lambda s: head(s, OK) + frame(DATA, PADDED | END_STREAM, s, b"\x03fine\0\0\0")),
    "data-padded-without-a-length": Case("6.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK) + frame(DATA, PADDED, s)),
    "data-beyond-the-streams-window": Case("6.9.1", "RST_STREAM FLOW_CONTROL_ERROR", lambda s: head(s, OK) + body(s, b"x" * 16384, 0) * 40),
    "empty-data-without-end": Case("10.5", "GOAWAY ENHANCE_YOUR_CALM", lambda s: [head(s, OK), *endless(lambda _: body(s, b"", 0))(s)]),
    # HEADERS and their blocks.
    "headers-on-stream-0": Case("6.2", "GOAWAY PROTOCOL_ERROR", lambda s: head(0, OK)),
    "headers-on-an-idle-stream": Case("5.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s + 2, OK)),
    "headers-on-a-stream-of-the-servers": Case("5.1.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(2, OK)),
    "headers-after-the-end": Case("5.1", "answered, RST_STREAM STREAM_CLOSED", lambda s: answer(s) + head(s, OK)),
    "headers-padded-beyond-their-end": Case("6.2", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS | PADDED, s, b"\xff" + GOOD)),
    "headers-with-half-a-priority": Case("6.2", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS | PRIORITISED, s, b"\0\0")),
    "headers-that-depend-on-themselves": Case("5.3.2", "RST_STREAM PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS | PRIORITISED, s, u32(s) + b"\x10" + GOOD) + body(s)),
    "hpack-index-0": Case("4.3; RFC 7541 6.1", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS, s, b"\x80")),
    "hpack-index-beyond-the-table": Case("4.3; RFC 7541 2.3.3", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS, s, b"\x88\xff\xff\x7f")),
    "hpack-integer-that-overflows": Case("4.3; RFC 7541 5.1", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS, s, b"\xff" + b"\xff" * 12 + b"\x7f")),
    "hpack-text-that-is-cut": Case("4.3; RFC 7541 5.2", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS, s, b"\x88\x00\x05abc")),
    "hpack-huffman-with-eos": Case("4.3; RFC 7541 5.2", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS, s, b"\x88\x00\x84\xff\xff\xff\xff\x01a")),
    "hpack-table-larger-than-allowed": Case("4.3.1; RFC 7541 6.3", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS, s, b"\x3f\xff\xff\x7f\x88")),
    "hpack-table-size-after-a-field": Case("4.3.1; RFC 7541 4.2", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, END_HEADERS, s, b"\x88\x20")),
    # CONTINUATION.
    "continuation-missing": Case("6.10", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, 0, s, GOOD) + body(s)),
    "continuation-of-another-stream": Case("6.10", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, 0, s, GOOD) + frame(CONTINUATION, END_HEADERS, s + 2)),
    "continuation-after-a-ping": Case("6.10", "GOAWAY PROTOCOL_ERROR", lambda s: frame(HEADERS, 0, s, GOOD) + frame(PING, 0, 0, b"8 octets") + frame(CONTINUATION, END_HEADERS, s)),
    "continuation-of-nothing": Case("6.10", "GOAWAY PROTOCOL_ERROR", lambda s: frame(CONTINUATION, END_HEADERS, s, GOOD)),
    "continuation-after-the-block": Case("6.10", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK) + frame(CONTINUATION, END_HEADERS, s, literal(b"x-late", b"1"))),
    "continuation-in-four-pieces": Case("6.10", "answered", lambda s: continued(s, 4) + body(s)),
    "continuation-flood": Case("10.5; CVE-2024-27316", "GOAWAY ENHANCE_YOUR_CALM", lambda s: [frame(HEADERS, 0, s, GOOD), *endless(lambda _: frame(CONTINUATION, 0, s, literal(b"x", b"y" * 60)))(s)]),
    "continuation-flood-of-empty-frames": Case("10.5; CVE-2024-27316", "GOAWAY ENHANCE_YOUR_CALM", lambda s: [frame(HEADERS, 0, s, GOOD), *endless(lambda _: frame(CONTINUATION, 0, s))(s)]),
    "header-list-larger-than-announced": Case("6.5.2", "GOAWAY ENHANCE_YOUR_CALM", lambda s: continued(s, 2000) + body(s)),
    # Fields.
    "field-name-in-capitals": Case("8.2.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK, (b"X-Loud", b"1")) + body(s)),
    "field-name-with-a-space": Case("8.2.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK, (b"x loud", b"1")) + body(s)),
    "field-name-that-is-empty": Case("8.2.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK, (b"", b"1")) + body(s)),
    "field-name-with-a-colon": Case("8.2.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK, (b"x:y", b"1")) + body(s)),
    "field-value-with-a-line-end": Case("8.2.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK, (b"x-split", b"1\r\nx-evil: 1")) + body(s)),
    "field-value-with-a-nul": Case("8.2.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK, (b"x-nul", b"a\0b")) + body(s)),
    "field-connection": Case("8.2.2", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, (b"connection", b"keep-alive")) + body(s)),
    "field-transfer-encoding": Case("8.2.2", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, (b"transfer-encoding", b"chunked")) + body(s)),
    "field-upgrade": Case("8.2.2", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, (b"upgrade", b"h2c")) + body(s)),
    "field-keep-alive": Case("8.2.2", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, (b"keep-alive", b"timeout=5")) + body(s)),
    "field-proxy-connection": Case("8.2.2", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, (b"proxy-connection", b"close")) + body(s)),
    "pseudo-field-missing": Case("8.3.2", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, (b"content-type", b"text/plain")) + body(s)),
    "pseudo-field-twice": Case("8.3.2", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, OK) + body(s)),
    "pseudo-field-after-others": Case("8.3", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, (b"x-first", b"1"), OK) + body(s)),
    "pseudo-field-of-requests": Case("8.3", "answered", lambda s: head(s, OK, (b":path", b"/")) + body(s)),
    "pseudo-field-unknown": Case("8.3", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK, (b":wonder", b"1")) + body(s)),
    "status-of-two-digits": Case("8.3.2", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, (b":status", b"20")) + body(s)),
    "status-of-letters": Case("8.3.2", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, (b":status", b"abc")) + body(s)),
    "status-that-is-empty": Case("8.3.2", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, (b":status", b"")) + body(s)),
    "status-101": Case("8.6", "refused alone", whole(lambda s: head(s, (b":status", b"101")))),
    "interim-answer-that-ends-the-stream": Case("8.1", "refused alone", lambda s: head(s, (b":status", b"103"), flags=END_HEADERS | END_STREAM)),
    "interim-answers-without-end": Case("8.1, 10.5", "RST_STREAM CANCEL", endless(lambda s: head(s, (b":status", b"103"), (b"link", b"</a>")))),
    "trailers-with-a-pseudo-field": Case("8.1", "answered", lambda s: head(s, OK) + body(s, flags=0) + head(s, OK, flags=END_HEADERS | END_STREAM)),
    "trailers-that-do-not-end-the-stream": Case("8.1", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK) + body(s, flags=0) + head(s, (b"x-sum", b"1"))),
    "trailers-in-capitals": Case("8.2.1", "GOAWAY PROTOCOL_ERROR", lambda s: head(s, OK) + body(s, flags=0) + head(s, (b"X-Sum", b"1"), flags=END_HEADERS | END_STREAM)),
    "length-more-than-came": Case("8.1.1", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, (b"content-length", b"10")) + body(s)),
    "length-less-than-came": Case("8.1.1", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, (b"content-length", b"2")) + body(s)),
    "length-with-no-body": Case("8.1.1", "refused alone", lambda s: head(s, OK, (b"content-length", b"2"), flags=END_HEADERS | END_STREAM)),
    "length-twice-and-different": Case("8.1.1", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, (b"content-length", b"4"), (b"content-length", b"5")) + body(s)),
    "length-that-is-no-number": Case("8.1.1", "RST_STREAM PROTOCOL_ERROR", lambda s: head(s, OK, (b"content-length", b"+4")) + body(s)),
    # PUSH_PROMISE, though push is off.
    "push-promise": Case("6.6, 8.4", "GOAWAY PROTOCOL_ERROR", lambda s: frame(PUSH_PROMISE, END_HEADERS, s, u32(2) + block((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/x"))) + answer(s)),
    "push-promise-on-stream-0": Case("6.6", "GOAWAY PROTOCOL_ERROR", lambda s: frame(PUSH_PROMISE, END_HEADERS, 0, u32(2) + GOOD)),
    # SETTINGS.
    "settings-on-a-stream": Case("6.5", "GOAWAY PROTOCOL_ERROR", lambda s: frame(SETTINGS, 0, s)),
    "settings-of-five-octets": Case("6.5", "GOAWAY PROTOCOL_ERROR", lambda s: frame(SETTINGS, 0, 0, b"12345")),
    "settings-acknowledged-with-a-payload": Case("6.5", "GOAWAY PROTOCOL_ERROR", lambda s: frame(SETTINGS, 1, 0, b"123456")),
    "settings-with-push-2": Case("6.5.2", "GOAWAY PROTOCOL_ERROR", lambda s: settings((2, 2))),
    "settings-with-push-1": Case("6.5.2", "answered", lambda s: settings((2, 1)) + answer(s)),
    "settings-with-a-window-of-2-to-31": Case("6.5.2", "GOAWAY PROTOCOL_ERROR", lambda s: settings((4, 1 << 31))),
    "settings-with-frames-too-small": Case("6.5.2", "GOAWAY PROTOCOL_ERROR", lambda s: settings((5, 16383))),
    "settings-with-frames-too-large": Case("6.5.2", "GOAWAY PROTOCOL_ERROR", lambda s: settings((5, 1 << 24))),
    "settings-unknown": Case("6.5.2", "answered", whole(settings((0xFF, 7)))),
    "settings-with-a-window-of-0": Case("6.9.2", "answered", whole(settings((4, 0)))),
    "settings-acknowledged-unasked": Case("6.5.3", "GOAWAY PROTOCOL_ERROR", whole(frame(SETTINGS, 1, 0) * 3)),
    "settings-flood": Case("10.5; CVE-2019-9515", "answered", lambda s: [*endless(lambda _: settings((4, 65535)), 64)(s), answer(s)]),
    # PING.
    "ping-of-seven-octets": Case("6.7", "GOAWAY PROTOCOL_ERROR", lambda s: frame(PING, 0, 0, b"7octets")),
    "ping-on-a-stream": Case("6.7", "GOAWAY PROTOCOL_ERROR", lambda s: frame(PING, 0, s, b"8 octets")),
    "ping-answered-unasked": Case("6.7", "answered", whole(frame(PING, 1, 0, b"8 octets"))),
    "ping-is-answered": Case("6.7", "answered", whole(frame(PING, 0, 0, b"8 octets"))),
    "ping-flood": Case("10.5; CVE-2019-9512", "answered", lambda s: [*endless(lambda _: frame(PING, 0, 0, b"8 octets"), 64)(s), answer(s)]),
    # WINDOW_UPDATE.
    "window-update-of-0": Case("6.9", "GOAWAY PROTOCOL_ERROR", lambda s: frame(WINDOW_UPDATE, 0, s, u32(0))),
    "window-update-of-0-for-the-connection": Case("6.9", "GOAWAY PROTOCOL_ERROR", lambda s: frame(WINDOW_UPDATE, 0, 0, u32(0))),
    "window-update-of-three-octets": Case("6.9", "GOAWAY PROTOCOL_ERROR", lambda s: frame(WINDOW_UPDATE, 0, 0, b"123")),
    "window-update-that-overflows-a-stream-with-nothing-to-send": Case("6.9.1", "answered", whole(lambda s: frame(WINDOW_UPDATE, 0, s, u32((1 << 31) - 1)))),
    "window-update-that-overflows-the-connection": Case("6.9.1", "GOAWAY FLOW_CONTROL_ERROR", lambda s: frame(WINDOW_UPDATE, 0, 0, u32((1 << 31) - 1))),
    "window-update-on-an-idle-stream": Case("5.1", "GOAWAY PROTOCOL_ERROR", lambda s: frame(WINDOW_UPDATE, 0, s + 2, u32(1))),
    "window-update-flood": Case("10.5", "answered", lambda s: [*endless(lambda _: frame(WINDOW_UPDATE, 0, s, u32(1)), 8)(s), answer(s)]),
    # RST_STREAM and PRIORITY.
    "reset-on-stream-0": Case("6.4", "GOAWAY PROTOCOL_ERROR", lambda s: frame(RST_STREAM, 0, 0, u32(8))),
    "reset-on-an-idle-stream": Case("6.4", "GOAWAY PROTOCOL_ERROR", lambda s: frame(RST_STREAM, 0, s + 2, u32(8))),
    "reset-of-three-octets": Case("6.4", "GOAWAY PROTOCOL_ERROR", lambda s: frame(RST_STREAM, 0, s, b"123")),
    "reset-with-an-unknown-code": Case("7", "reset", lambda s: frame(RST_STREAM, 0, s, u32(0xBEEF))),
    "reset-in-the-middle-of-a-body": Case("6.4", "reset", lambda s: head(s, OK) + body(s, flags=0) + frame(RST_STREAM, 0, s, u32(2))),
    "reset-without-an-error-before-the-end": Case("8.1", "reset", lambda s: head(s, OK) + body(s, flags=0) + frame(RST_STREAM, 0, s, u32(0))),
    "priority-of-four-octets": Case("6.3", "GOAWAY PROTOCOL_ERROR", lambda s: frame(PRIORITY, 0, s, b"1234")),
    "priority-on-stream-0": Case("6.3", "GOAWAY PROTOCOL_ERROR", lambda s: frame(PRIORITY, 0, 0, b"12345")),
    "priority-is-ignored": Case("5.3.2", "answered", whole(lambda s: frame(PRIORITY, 0, s, u32(0) + b"\x10"))),
    # GOAWAY.
    "goaway-on-a-stream": Case("6.8", "GOAWAY PROTOCOL_ERROR", lambda s: frame(GOAWAY, 0, s, u32(s) + u32(0))),
    "goaway-of-seven-octets": Case("6.8", "GOAWAY PROTOCOL_ERROR", lambda s: frame(GOAWAY, 0, 0, b"7octets")),
    "goaway-that-leaves-the-stream-out": Case("6.8", "refused", lambda s: frame(GOAWAY, 0, 0, u32(0) + u32(0))),
    "goaway-then-the-answer": Case("6.8", "answered, then leaves", lambda s: frame(GOAWAY, 0, 0, u32(s) + u32(0) + b"words") + answer(s)),
    "goaway-that-grows": Case("6.8", "GOAWAY PROTOCOL_ERROR", lambda s: frame(GOAWAY, 0, 0, u32(s) + u32(0)) + frame(GOAWAY, 0, 0, u32(s + 100) + u32(0)) + answer(s)),
    "goaway-with-an-error-and-an-end": Case("6.8", "ends", lambda s: frame(GOAWAY, 0, 0, u32(s) + u32(2)) + b""),
    # Ends.
    "end-without-a-word": Case("5.4.1", "ends", lambda s: b""),
    "end-in-the-middle-of-a-body": Case("8.1", "ends", lambda s: head(s, OK, (b"content-length", b"10")) + body(s, flags=0)),
}
# After these the server ends its connection.
ENDS = {"frame-cut-by-the-end", "goaway-with-an-error-and-an-end", "end-without-a-word", "end-in-the-middle-of-a-body"}


class Peer:
    """One connection."""

    def __init__(self, connection, log):
        import hpack  # of the server's interpreter alone; the proof reads the table above
        self.socket, self.log, self.unread, self.decoder, self.writing = connection, log, b"", hpack.Decoder(), threading.Lock()

    def exactly(self, count):
        while len(self.unread) < count:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.unread += data
        taken, self.unread = self.unread[:count], self.unread[count:]
        return taken

    def next_frame(self):
        head = self.exactly(9)
        return head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, self.exactly(int.from_bytes(head[:3], "big"))

    def serve(self):
        assert self.exactly(len(PREFACE)) == PREFACE
        self.send([settings()])
        case = None
        while True:
            kind, flags, stream, payload = self.next_frame()
            if kind == SETTINGS and not flags & 1:
                self.send([frame(SETTINGS, 1, 0)])
            elif kind == HEADERS:
                assert flags & END_HEADERS and not flags & (PADDED | PRIORITISED), flags
                path = dict(self.decoder.decode(payload))[":path"][1:]
                if path not in CASES:
                    self.send([answer(stream)])
                    continue
                case = path
                self.misbehave(case, stream)
            elif case and kind in (RST_STREAM, GOAWAY):
                code = int.from_bytes(payload[:4] if kind == RST_STREAM else payload[4:8], "big")
                if kind == GOAWAY and code == 0:
                    continue  # it says goodbye
                self.say(case, f"{'RST_STREAM' if kind == RST_STREAM else 'GOAWAY'} {CODES[code]}")

    def misbehave(self, case, stream):
        what = CASES[case].make(stream)
        if isinstance(what, list):
            # Beside, so that what the client says meanwhile is read.
            threading.Thread(target=self.send, args=(what,), daemon=True).start()
        else:
            self.send([what])
        if case in ENDS:
            self.socket.shutdown(socket.SHUT_WR)

    def send(self, pieces):
        try:
            for piece in pieces:
                with self.writing:
                    self.socket.sendall(piece)
        except OSError:
            pass  # stopped; why is still to be read

    def say(self, case, what):
        self.log.write(json.dumps({"case": case, "said": what}) + "\n")
        self.log.flush()


def serve(connection, log):
    try:
        Peer(connection, log).serve()
    except (EOFError, OSError):
        pass
    finally:
        connection.close()


def main(port, log):
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    with open(log, "a") as file:
        while True:
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(connection, file), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
