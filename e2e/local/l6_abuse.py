"""Group 6: peers that dally, flood and lie, and an end under load: memory stays bounded, others are served, and nothing answered goes unrecorded."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from .stage import STATE, command_line, environment, run, serve, test, verify

PORT = 8090
URL = f"http://test.example.com:{PORT}"
MIB = 1024 * 1024
# Masks text of any kind, and records bodies: the most that a response can cost.
MASKS = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: masks, namespace: local}
spec:
  mode: Enforce
  masks: [{name: pii, detectors: [email, creditCard, usSsn, privateKey]}]
  audit: {level: RequestResponse}
"""
# Answers /large with text without end, /bomb with a body that unfolds to gigabytes, anything else at once.
SERVER = """
import gzip, http.server, socket, zlib
zeros = zlib.compressobj(9, zlib.DEFLATED, 31)
once = b"".join([zeros.compress(bytes(1 << 20)) for _ in range(2048)] + [zeros.flush()])
BOMB = gzip.compress(once, 9)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize = "HTTP/1.1", 1 << 16
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        if self.path == "/large":
            self.send_header("Content-Length", str(1 << 40))
            self.end_headers()
            try:
                while True: self.wfile.write(b"some text, again and again\\n" * 512)
            except OSError: return
        if self.path == "/bomb":
            self.send_header("Content-Encoding", "gzip, gzip")
        body = BOMB if self.path == "/bomb" else b"ok"
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 512
    daemon_threads = True
Server(("::", PORT), Handler).serve_forever()
""".replace("PORT", str(PORT))
# What every script of an abusive agent begins with.
AGENT = f"""
import socket, sys, threading, time, urllib.request
def connect():
    s = socket.create_connection(("test.example.com", {PORT})); return s
def get(path): return b"GET %s HTTP/1.1\\r\\nHost: test.example.com:{PORT}\\r\\n\\r\\n" % path.encode()
def answered():
    began = time.monotonic()
    assert urllib.request.urlopen("{URL}/small").read() == b"ok"
    return time.monotonic() - began
def tell(what): print(what, flush=True)
"""


def started():
    if not (STATE / "abuse.py").exists():
        (STATE / "abuse.py").write_text(SERVER)
        serve("python3", STATE / "abuse.py", port=PORT)


class Abuse:
    """An abusive agent under Chaperone, and the memory of the sidecar beside it."""

    def __init__(self, script, policy=MASKS):
        started()
        words, self.log = command_line("Enforce", "python3", "-c", AGENT + script, policy=policy)
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())

    def memory(self):
        """Bytes of the sidecar that are in memory. `ip netns exec` has become it."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    def line(self):
        line = self.process.stdout.readline().strip()
        assert line, self.process.communicate(timeout=30)[1]
        return line

    def end(self):
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        proof = verify(self.log)
        assert proof.returncode == 0, proof.stdout
        return out

    def records(self, kind):
        return [r for r in map(json.loads, self.log.read_text().splitlines()) if r["kind"] == kind]


def grows(script, most, policy=MASKS):
    """Runs a script that warms up, says so, abuses, says so, and ends; how much memory the abuse took."""
    abuse = Abuse(script, policy)
    abuse.line()
    before = abuse.memory()
    slowest = float(abuse.line())
    grown = abuse.memory() - before
    abuse.end()
    assert slowest < 10, f"another request took {slowest} s meanwhile"
    assert grown <= most, f"{grown // MIB} MiB more"
    return abuse


@test
def a_hundred_agents_that_hardly_read_take_bounded_memory_and_others_are_served():
    script = """
answered(); tell("warm")
held = []
for _ in range(100):
    s = connect(); s.sendall(get("/large")); held.append(s)
for _ in range(4):
    time.sleep(1)
    for s in held: s.recv(1)
tell(max(answered() for _ in range(5)))
"""
    # Measured: 0.33 MiB each in a build that is not optimised, under masks and with bodies recorded.
    grows(script, 60 * MIB)


@test
def heads_that_come_byte_by_byte_take_little_memory_and_others_are_served():
    script = """
answered(); tell("warm")
held = [connect() for _ in range(200)]
for byte in get("/small")[:20]:
    for s in held: s.sendall(bytes([byte]))
    time.sleep(0.1)
tell(max(answered() for _ in range(5)))
"""
    grows(script, 200 * MIB // 16)


@test
def a_thousand_open_connections_take_little_memory_and_others_are_served():
    script = """
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
answered(); tell("warm")
held = []
for _ in range(1000):
    s = connect(); s.sendall(get("/small")); held.append(s)
for s in held: assert s.recv(4096).startswith(b"HTTP/1.1 200")
tell(max(answered() for _ in range(5)))
"""
    abuse = grows(script, 1000 * MIB // 16)
    assert len(abuse.records("http")) == 1006


@test
def a_body_that_unfolds_without_end_is_cut_and_takes_little_memory():
    script = """
answered(); tell("warm")
def bomb():
    s = connect(); s.sendall(get("/bomb"))
    try:
        while s.recv(65536): pass
    except ConnectionResetError: pass
thread = threading.Thread(target=bomb); thread.start()
slowest = 0
while thread.is_alive(): slowest = max(slowest, answered()); time.sleep(0.2)
tell(slowest)
"""
    abuse = grows(script, 48 * MIB)
    bomb = [r for r in abuse.records("http") if r["operation"]["resource"].endswith("/bomb")]
    assert len(bomb) == 1 and "unfolds" in bomb[0].get("error", ""), bomb


@test
def a_sidecar_that_is_told_to_stop_under_load_has_recorded_all_that_was_answered():
    script = """
import http.client, signal
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
counts = []
def load():
    count, c = 0, http.client.HTTPConnection("test.example.com", %d, timeout=10)
    while not stop.is_set():
        c.request("GET", "/small"); assert c.getresponse().read() == b"ok"; count += 1
    counts.append(count)
threads = [threading.Thread(target=load) for _ in range(4)]
for t in threads: t.start()
tell("loaded")
for t in threads: t.join()
tell(sum(counts))
""" % PORT
    abuse = Abuse(script)
    abuse.line()
    time.sleep(2)
    os.kill(abuse.process.pid, signal.SIGTERM)
    answered = int(abuse.line())
    abuse.end()
    assert answered > 50 and len(abuse.records("http")) == answered, (answered, len(abuse.records("http")))
    assert abuse.records("stream.close")


@test
def a_command_that_ends_at_a_signal_leaves_a_closed_stream_and_its_status():
    started()
    got = run("Audit", "bash", "-c", f"curl -sS {URL}/small; kill -TERM $PPID; exec sleep 20")
    assert got.code == 128 + signal.SIGTERM, (got.code, got.err)
    assert got.only("stream.close"), got.records
