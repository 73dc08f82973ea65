#!/usr/bin/env python3
"""A stand-in for Anthropic's Messages API that plays scenario files, so that the real Claude Code CLI can be led by a script.

Arguments: SOCKET SCENARIOS LOG. Listens on the unix socket SOCKET (nginx ends TLS before it), plays the files in the folder SCENARIOS and writes
each request to the file LOG, one JSON object a line: {"time", "method", "path", "headers", "body"}.

A scenario is a JSON file: {"description": "...", "turns": [{"text": "...", "bash": "..."}, ...]}. A turn with `bash` asks Claude Code to run that
command; one without ends the session. The prompt chooses the scenario and sets its variables: `[scenario NAME key=value ...]`; `{key}` in a turn
stands for the value. Nothing is remembered between requests: the turn is the number of tool results that the request already has.
"""

import gzip
import http.server
import json
import os
import re
import socketserver
import sys
import threading
import time
import urllib.parse
import uuid
from pathlib import Path

MARKER = re.compile(r"\[scenario ([a-z0-9-]+)((?: [a-z]+=\S+)*)\]")


def play(scenarios, request):
    """The turn that answers this request: {"text", "bash"?}."""
    found = MARKER.search(json.dumps(request.get("messages", []), ensure_ascii=False))
    if not found or not request.get("tools"):
        return {"text": "ok"}
    turns = json.loads((scenarios / f"{found[1]}.json").read_text())["turns"]
    turn = turns[min(count_results(request), len(turns) - 1)]
    values = dict(pair.split("=", 1) for pair in found[2].split())
    return {key: fill(text, values) for key, text in turn.items()}


def fill(text, values):
    for key, value in values.items():
        text = text.replace("{" + key + "}", value)
    return text


def count_results(request):
    return sum(
        block.get("type") == "tool_result"
        for message in request["messages"]
        if isinstance(message.get("content"), list)
        for block in message["content"]
    )


def content_blocks(turn):
    blocks = [{"type": "text", "text": turn["text"]}]
    if "bash" in turn:
        tool_input = {"command": turn["bash"], "description": turn["text"][:60]}
        blocks.append({"type": "tool_use", "id": "toolu_" + uuid.uuid4().hex[:24], "name": "Bash", "input": tool_input})
    return blocks


def message(request, turn):
    return {
        "id": "msg_" + uuid.uuid4().hex[:24],
        "type": "message",
        "role": "assistant",
        "model": request.get("model", "claude"),
        "content": content_blocks(turn),
        "stop_reason": "tool_use" if "bash" in turn else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    }


def stream_events(answer):
    """The answer as the events of a streaming response, in the order of the API's documentation."""
    yield {"type": "message_start", "message": answer | {"content": [], "stop_reason": None}}
    for index, block in enumerate(answer["content"]):
        if block["type"] == "text":
            empty, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty, delta = block | {"input": {}}, {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 10}}
    yield {"type": "message_stop"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lock = threading.Lock()

    def do_GET(self):
        self.write_log({})
        self.answer(404, {"type": "error", "error": {"type": "not_found_error", "message": self.path}})

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        try:
            request = json.loads(body or b"{}")
        except ValueError:
            self.write_log({"unreadable": repr(body[:200])})
            self.answer(400, {"type": "error", "error": {"type": "invalid_request_error", "message": "not JSON"}})
            return
        self.write_log(request)
        path = urllib.parse.urlsplit(self.path).path
        if path == "/v1/messages/count_tokens":
            self.answer(200, {"input_tokens": 10})
        elif path == "/v1/messages":
            self.answer_message(request)
        else:
            self.answer(404, {"type": "error", "error": {"type": "not_found_error", "message": path}})

    def answer_message(self, request):
        answer = message(request, play(self.server.scenarios, request))
        if not request.get("stream"):
            self.answer(200, answer)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in stream_events(answer):
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def write_log(self, body):
        line = {"time": time.time(), "method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
        with self.lock:
            self.server.log.write(json.dumps(line) + "\n")
            self.server.log.flush()

    def address_string(self):
        return "nginx"

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def main(socket_path, scenarios, log):
    Path(socket_path).unlink(missing_ok=True)
    server = Server(socket_path, Handler)
    os.chmod(socket_path, 0o666)
    server.scenarios = Path(scenarios)
    server.log = open(log, "a")
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
