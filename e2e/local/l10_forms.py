"""Group 10: every form of HTTP/1 passes as if Chaperone were not there: what each side sees is compared with and without it."""

import functools
import json
import subprocess
import sys
import time
from pathlib import Path

from .stage import MACHINE, ROOT, command_line, environment, go_program, interpreter, run, serve, test, verify

PEERS = Path(__file__).with_name("http1_peers.py")
HOST, PORT, NODE = "test.example.com", 8060, 8061
URL = f"http://{HOST}:{PORT}"
MIB, GIB = 1 << 20, 1 << 30
# Bytes that the sidecar may grow while bodies pass that are far larger.
GROWTH = 8 * MIB
# No masks: they change answers on purpose. Unread protocols may pass, as an upgrade needs.
POLICY = f"""apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {{name: forms, namespace: local}}
spec:
  mode: MODE
  rules:
    - name: chat
      match: {{protocols: [tcp], hosts: [{HOST}]}}
      action: Allow
"""


@functools.cache
def served():
    serve(sys.executable, PEERS, "serve", PORT, port=PORT)


def directly(*command):
    words = ["ip", "netns", "exec", MACHINE, *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment())


def under(mode, *command, **options):
    return run(mode, *command, policy=POLICY.replace("MODE", mode), timeout=120, **options)


@functools.cache
def seen(mode):
    """What the client of `http1_peers.py` saw of each form: without Chaperone where there is no mode."""
    served()
    command = [sys.executable, PEERS, "ask", HOST, PORT]
    got = under(mode, *command) if mode else directly(*command)
    assert got.returncode == 0 if mode is None else got.code == 0, got.stderr if mode is None else got.err
    return json.loads(got.stdout if mode is None else got.out), got


def same_to_both(*command):
    """Runs a client without Chaperone and in both modes: its output must be the same, and its exchanges recorded."""
    served()
    plain = directly(*command)
    assert plain.returncode == 0 and plain.stdout, plain.stderr
    for mode in ("Audit", "Enforce"):
        got = under(mode, *command)
        assert got.code == 0 and got.out == plain.stdout, f"{mode}: {got.out}{got.err}\nwithout: {plain.stdout}"
        assert got.only("http") and verify(got.log).returncode == 0, got.records
    return plain.stdout


# --- forms -----------------------------------------------------------------------------------------------------


@test
def each_form_of_http_1_is_seen_by_client_and_server_as_without_chaperone():
    plain, _ = seen(None)
    broken = {name: said for name, said in plain.items() if isinstance(said, str)}
    assert not broken, f"without Chaperone: {broken}"
    for mode in ("Audit", "Enforce"):
        through, _ = seen(mode)
        others = [f"{name}\n        without: {plain[name]}\n        through: {through[name]}"[:1200] for name in plain if plain[name] != through[name]]
        assert not others, f"{mode}: {len(others)} of {len(plain)} forms differ\n      " + "\n      ".join(others)


@test
def each_request_of_each_form_is_recorded_once():
    _, got = seen("Enforce")
    assert verify(got.log).returncode == 0
    verbs = [record["operation"]["verb"] for record in got.only("http")]
    resources = [record["operation"]["resource"] for record in got.only("http")]
    for path, count in {"/trailers": 2, "/expects": 2, "/refuses": 1, "/early": 2, "/upgrade": 1, "/duplex": 1, "/old-kept": 4, "/first": 1, "/second": 1, "/nothing": 2}.items():
        assert resources.count(URL + path) == count, (path, resources.count(URL + path))
    assert verbs.count("BREW") == 1 and verbs.count("HEAD") == 2, verbs
    assert all(record["decision"]["action"] == "Allow" for record in got.only("http")), got.only("http")


# --- clients that people have ----------------------------------------------------------------------------------


def python():
    return interpreter("requests==2.34.2", "httpx==0.28.1", "aiohttp==3.14.5")


@test
def curl_sees_the_same_with_expectations_trailers_heads_and_hints():
    for options in (["-H", "Expect: 100-continue", "-d", "hello", f"{URL}/expects"], ["-i", f"{URL}/trailers"], ["-I", f"{URL}/head"], ["-i", f"{URL}/early"], ["-i", "-0", f"{URL}/old-kept"],
                    ["-i", "-H", "Transfer-Encoding: chunked", "-d", "in chunks", f"{URL}/echo"], ["-i", f"{URL}/a", f"{URL}/nothing", f"{URL}/b"]):
        same_to_both("curl", "-sS", *options)


@test
def requests_httpx_and_aiohttp_see_the_same():
    scripts = {
        # Python's own client, which is below requests, takes 102 and 103 for answers: no hints for it.
        "requests": """import requests
with requests.Session() as s:
    tell = lambda r: print(r.status_code, sorted(r.headers.items()), r.text)
    for path in ("/a", "/trailers", "/nothing", "/old"): tell(s.get(URL + path))
    tell(s.post(URL + "/echo", data=iter([b"in ", b"chunks"]))); tell(s.head(URL + "/head"))""",
        "httpx": """import httpx
with httpx.Client() as s:
    tell = lambda r: print(r.status_code, sorted(r.headers.items()), r.text)
    for path in ("/a", "/early", "/nothing", "/old"): tell(s.get(URL + path))
    tell(s.post(URL + "/echo", content=iter([b"in ", b"chunks"]))); tell(s.head(URL + "/head"))""",
        "aiohttp": """import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession() as s:
        async def tell(asked):
            async with asked as r: print(r.status, sorted(r.headers.items()), await r.text())
        for path in ("/a", "/trailers", "/nothing", "/old"): await tell(s.get(URL + path))
        await tell(s.post(URL + "/expects", data=b"hello", expect100=True)); await tell(s.head(URL + "/head"))
asyncio.run(main())""",
    }
    for script in scripts.values():
        same_to_both(python(), "-c", f"URL = '{URL}'\n{script}")


@test
def node_is_told_of_early_hints_trailers_and_upgrades():
    script = f"""const http = require('http');
const one = (path, headers = {{}}) => new Promise((done, fail) => {{
  const said = []; const r = http.get('{URL}' + path, {{headers}});
  r.on('information', i => said.push(i.statusCode, i.headers.link)).on('error', fail);
  r.on('upgrade', (m, s, head) => {{ s.end(); let t = head.toString(); s.on('data', d => t += d).on('end', () => done([...said, m.statusCode, t])); }});
  r.on('response', m => {{ let t = 0; m.on('data', d => t += d.length).on('end', () => done([...said, m.statusCode, t, m.trailers])); }}); }});
(async () => {{ for (const path of ['/early', '/trailers', '/nothing', '/old']) console.log(JSON.stringify(await one(path)));
  console.log(JSON.stringify(await one('/upgrade', {{connection: 'Upgrade', upgrade: 'acme-chat'}}))); process.exit(); }})();"""
    out = same_to_both("node", "-e", script)
    assert out.startswith('[102,"</style.css>; rel=preload",103,') and '"x-sum":"42"' in out and "bye" in out, out


@test
def hints_that_node_writes_reach_node_and_curl():
    server = f"""require('http').createServer((q, s) => {{ s.writeEarlyHints({{link: '</a.css>; rel=preload'}}); s.setHeader('Date', 'then'); setTimeout(() => s.end('late'), 50); }}).listen({NODE}, '::')"""
    serve("node", "-e", server, port=NODE)
    out = same_to_both("curl", "-sS", "-i", f"http://{HOST}:{NODE}/")
    assert out.startswith("HTTP/1.1 103 Early Hints") and out.endswith("late"), out


GO = """package main

import ("fmt"; "io"; "net/http"; "net/http/httptrace"; "net/textproto"; "os"; "strings")

func main() {
	for _, path := range []string{"/a", "/early", "/trailers", "/nothing", "/old"} {
		request, _ := http.NewRequest("GET", os.Args[1]+path, nil)
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error { fmt.Println(code, header); return nil }}
		show(http.DefaultClient.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace))))
	}
	request, _ := http.NewRequest("POST", os.Args[1]+"/echo", io.MultiReader(strings.NewReader("in "), strings.NewReader("chunks")))
	request.Trailer = http.Header{"X-Sum": {"42"}}
	show(http.DefaultClient.Do(request))
}

func show(response *http.Response, err error) {
	if err != nil { fmt.Println(err); os.Exit(1) }
	body, err := io.ReadAll(response.Body)
	fmt.Println(response.Status, response.ContentLength, response.Header, len(body), string(body[:min(len(body), 300)]), err, response.Trailer)
}
"""


@test
def go_sees_the_same_with_hints_and_trailers_both_ways():
    out = same_to_both(go_program("forms", GO), URL)
    assert "103 map[Link" in out and "X-Sum" in out, out


@test
def javas_client_sees_the_same():
    out = same_to_both("java", ROOT / "e2e/images/agent/Get.java", "GET", f"{URL}/trailers")
    assert out.startswith("200"), out


# --- bodies larger than memory ---------------------------------------------------------------------------------

LARGE = """import socket, sys
sys.path.insert(0, %r)
from http1_peers import Client
count, step = int(sys.argv[2]), 1 << 20
def down(count):
    c = Client("test.example.com", %d); c.ask("GET", "/down", f"X-Count: {count}")
    c.line(); c.fields(); left, room = count - len(c.kept), bytearray(step)
    while left:
        got = c.sock.recv_into(room); assert got; left -= got
def up(count):
    c = Client("test.example.com", %d); c.ask("POST", "/up", f"Content-Length: {count}"); zeros = bytes(step)
    for _ in range(count // step): c.say(zeros)
    assert str(count) in c.answer()[2]
way = {"down": down, "up": up}[sys.argv[1]]
way(64 * step); print("warm", flush=True); sys.stdin.readline(); way(count); print("done", flush=True)
""" % (str(PEERS.parent), PORT, PORT)


def high_water(process):
    """The most bytes that the process ever had in memory."""
    return int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


@test
def bodies_of_4_gib_pass_both_ways_in_bounded_memory():
    served()
    for way in ("down", "up"):
        words, log = command_line("Enforce", sys.executable, "-c", LARGE, way, 4 * GIB, policy=POLICY.replace("MODE", "Enforce"))
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment())
        assert process.stdout.readline() == "warm\n"
        before, began = high_water(process), time.monotonic()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        grown = high_water(process) - before
        process.communicate(timeout=60)
        print(f"      4 GiB {way}: {time.monotonic() - began:.0f} s, {grown / MIB:.1f} MiB more memory", flush=True)
        assert process.returncode == 0 and grown <= GROWTH, (way, grown)
        record = [r for r in map(json.loads, log.read_text().splitlines()) if r["kind"] == "http"][-1]
        assert record["http"]["responseBytes" if way == "down" else "requestBytes"] == 4 * GIB, record
