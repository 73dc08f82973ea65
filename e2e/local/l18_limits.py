"""Group 18: what an agent's machine can run out of: ports towards an upstream, patience with peers that say nothing, and a clock that only goes forward."""

import json
import os
import subprocess
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

from .l6_abuse import AGENT, MASKS, MIB, PORT as ABUSE_PORT, Abuse, grows, started
from .stage import INTERNET, MACHINE, STATE, command_line, environment, issue, serve, sh, test, verify

# Ports that the machine has for its connections while they run out.
FIRST, PORTS = 21000, 24
CLOCK, DEAF = 4510, 8110
HOUR = 3600
# Tells programs another time of day, and leaves the monotonic clock alone.
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), "libfaketime is missing")


def ports_of_the_machine(*bounds):
    words = ["ip", "netns", "exec", MACHINE, "sysctl", "-n"]
    if bounds:
        sh(*words, "-q", "-w", "net.ipv4.ip_local_port_range=" + " ".join(map(str, bounds)))
    return sh(*words, "net.ipv4.ip_local_port_range").stdout.split()


@test
def without_ports_towards_an_upstream_requests_fail_in_words_others_are_served_and_all_goes_on():
    started()
    script = AGENT + f"""
import re
served, failed, held = 0, 0, []
def said(s):
    data = b""
    while b"\\r\\n\\r\\n" not in data: data += s.recv(4096)
    return data
for _ in range({3 * PORTS}):
    s = socket.create_connection(("198.18.7.2", {ABUSE_PORT})); s.settimeout(10); s.sendall(get("/small")); held.append(s)
    answer = said(s)
    if answer.startswith(b"HTTP/1.1 200"): served += 1
    else: assert answer.startswith(b"HTTP/1.1 502"), answer; failed += 1
assert urllib.request.urlopen("http://files.example.com/hello.txt").read().startswith(b"hello")
tell(served); tell(failed)
sys.stdin.readline()
for s in held: s.close()
s = socket.create_connection(("198.18.7.2", {ABUSE_PORT})); s.settimeout(10); s.sendall(get("/small")); tell(said(s)[:12].decode())
"""
    before = ports_of_the_machine()
    words, log = command_line("Enforce", "python3", "-c", script, policy=MASKS)
    ports_of_the_machine(FIRST, FIRST + PORTS - 1)
    try:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
        served, failed = process.stdout.readline().strip(), process.stdout.readline().strip()
    finally:
        ports_of_the_machine(*before)
    out, err = process.communicate("\n", timeout=60)
    # Ports run out towards one address at a time: when none is left towards the first, the name's other address is dialled.
    assert process.returncode == 0 and (served, failed) == (str(2 * PORTS), str(PORTS)), (served, failed, err)
    assert out.strip() == "HTTP/1.1 200", out
    records = [json.loads(line) for line in log.read_text().splitlines()]
    told = [r for r in records if r["kind"] == "http" and r["http"].get("status") == 502]
    assert len(told) == PORTS and all("cannot reach the upstream" in r["error"] for r in told), told[:1]
    assert verify(log).returncode == 0


@test
def thousands_of_connections_that_say_nothing_are_ended_take_little_memory_and_others_are_served():
    script = """
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
answered(); tell("warm")
held = [connect() for _ in range(3000)]
for s in held[:1000]: s.shutdown(socket.SHUT_WR)
tell(max(answered() for _ in range(10)))
ended = 0
for s in held:
    s.settimeout(30)
    try: assert s.recv(1) == b""
    except ConnectionResetError: pass
    ended += 1
tell(ended); tell(answered() < 5)
"""
    abuse = Abuse(script)
    abuse.line()
    before = abuse.memory()
    slowest = float(abuse.line())
    grown = abuse.memory() - before
    assert (abuse.line(), abuse.line()) == ("3000", "True")
    abuse.end()
    # Measured: 11 MiB, in a build that is not optimised.
    assert grown < 3000 * MIB // 64 and slowest < 10, (grown / MIB, slowest)
    # What might have been waiting for a server that speaks first is told of; who ended without a word has asked for nothing.
    refused = [r for r in abuse.records("gap") if (r["decision"]["action"], r["decision"]["reason"]) == ("Deny", "opaque")]
    assert len(refused) == 2000, len(refused)


@test
def hundreds_of_requests_to_an_upstream_that_is_deaf_or_not_there_leave_others_alone():
    started()
    # Takes connections and never says a word; and beside it a port whose packets vanish.
    (STATE / "deaf.py").write_text(f"""import socket
server = socket.create_server(("::", {DEAF}), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
held = []
while True: held.append(server.accept())
""")
    serve("prlimit", "--nofile=8192:8192", "python3", STATE / "deaf.py", port=DEAF)
    sh("ip", "netns", "exec", INTERNET, "nft", f"add table inet vanish; add chain inet vanish in {{ type filter hook input priority 0; }}; add rule inet vanish in tcp dport {DEAF + 1} drop")
    script = f"""
import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
answered(); tell("warm")
def ask(port):
    s = socket.create_connection(("test.example.com", port)); s.settimeout(30)
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: test.example.com\\r\\n\\r\\n"); return s
deaf, lost = [ask({DEAF}) for _ in range(400)], [ask({DEAF + 1}) for _ in range(400)]
tell(max(answered() for _ in range(10)))
for s in lost: assert s.recv(4096).startswith(b"HTTP/1.1 502"), "lost"
for s in deaf: s.close()
"""
    try:
        abuse = grows(script, 800 * MIB // 16)
    finally:
        sh("ip", "netns", "exec", INTERNET, "nft", "delete table inet vanish")
    ended = Counter(r.get("error") for r in abuse.records("http") if not r["operation"]["resource"].endswith("/small"))
    assert ended["cannot reach the upstream: timed out"] == 400 and sum(ended.values()) == 800 and None not in ended, ended


CLOCKED = f"""import http.client, json, ssl, sys, time
def connect():
    c = http.client.HTTPSConnection("clock.test.example.com", {CLOCK}, timeout=20); c.connect(); return c
def ask(c):
    c.request("GET", "/"); return c.getresponse().read().decode()
kept = connect()
for line in sys.stdin:
    began = time.monotonic()
    said = dict(clock=time.time(), kept=ask(kept))
    try: said["anew"] = ask(connect())
    except OSError as error: said["anew"] = repr(error)
    print(json.dumps(dict(said, seconds=time.monotonic() - began)), flush=True)
"""
SERVER = f"""import http.server, socket, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *_): pass
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(*sys.argv[1:])
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(("::", {CLOCK}), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@test
def a_clock_that_is_stepped_an_hour_either_way_spoils_neither_records_nor_certificates_nor_waits():
    # The world's own certificates are as new as this run: one that was there before the clock's lowest.
    certificate, key = issue("clock.test.example.com", env={**os.environ, "LD_PRELOAD": str(FAKETIME), "FAKETIME": "-2d"})
    (STATE / "clocked.py").write_text(SERVER)
    serve("python3", STATE / "clocked.py", certificate, key, port=CLOCK)
    clock = STATE / "clock"
    clock.write_text("+0")
    faked = {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    words, log = command_line("Enforce", "python3", "-c", CLOCKED, prefix=["env", *(f"{name}={value}" for name, value in faked.items())])
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    steps, told = [0, HOUR, 0, -HOUR, HOUR, -HOUR], []
    for step in steps:
        clock.write_text(f"{step:+d}")
        process.stdin.write("\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, process.communicate(timeout=60)[1]
        told.append((json.loads(line), time.time()))
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 0, err
    records = [json.loads(line) for line in log.read_text().splitlines()]
    clocks = [instant(r["time"]) for r in records]
    assert max(clocks) - min(clocks) > 2 * HOUR - 60 and clocks != sorted(clocks), "the sidecar's clock was not stepped"
    for step, (heard, now) in zip(steps, told):
        assert abs(heard["clock"] - now - step) < 60, (step, heard)
        assert heard["kept"] == heard["anew"] == "ok" and heard["seconds"] < 10, (step, heard)
    assert [r["seq"] for r in records] == list(range(len(records))), "records are in the order of what happened"
    assert all(r["timing"]["totalUs"] < 10_000_000 for r in records if r["kind"] == "http"), "what took long by the clock took no time"
    assert len([r for r in records if r["kind"] == "http"]) == 2 * len(steps)
    assert verify(log).returncode == 0, verify(log).stdout


def instant(text):
    return datetime.fromisoformat(text).timestamp()
