"""Group 14: HTTP/2 with servers that break the protocol: what the agent hears, what the server hears, and that nothing else is touched by it."""

import json
import os
import subprocess
from pathlib import Path

from . import http2_faults
from .stage import ROOT, STATE, command_line, environment, interpreter, serve, test, verify

PORT = 4490
PAGE = ROOT / "docs/http2-upstreams.md"
MIB = 1024 * 1024
POLICY = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: watches, namespace: local}
spec:
  mode: Enforce
"""
# Each case on a connection of its own, between two requests in good order. Where the connection is over, the second goes on a new one. Meanwhile another connection asks again and again.
AGENT = f"""const http2 = require('http2');
const connect = () => {{ const c = http2.connect('http://test.example.com:{PORT}'); c.on('error', () => {{}}); return c; }};
const words = Object.fromEntries(Object.entries(http2.constants).filter(([k]) => k.startsWith('NGHTTP2_') && !k.startsWith('NGHTTP2_ERR')).map(([k, v]) => [k.slice(8), v]));
const codes = Object.fromEntries(['NO_ERROR', 'PROTOCOL_ERROR', 'INTERNAL_ERROR', 'FLOW_CONTROL_ERROR', 'STREAM_CLOSED', 'FRAME_SIZE_ERROR', 'REFUSED_STREAM', 'CANCEL', 'COMPRESSION_ERROR', 'ENHANCE_YOUR_CALM'].map(w => [words[w], w]));
const ask = (client, path, held) => new Promise(done => {{
  let status = null, text = '', trailers = null, ended = false, goaway = null;
  if (client.closed || client.destroyed) return done({{over: true}});
  let r;
  try {{ r = client.request({{':path': path}}); }} catch (e) {{ return done({{over: true}}); }}
  const timer = setTimeout(() => {{ done({{status, text: text.slice(0, 200), hung: true}}); r.close(8); }}, 10000);
  r.on('response', h => status = h[':status']).on('trailers', t => trailers = Object.keys(t)).on('end', () => ended = true).on('error', () => {{}});
  if (held) setTimeout(() => r.on('data', d => text += d), 1000); else r.on('data', d => text += d);
  r.on('close', () => {{ clearTimeout(timer); done({{status, text: text.slice(0, 200), length: text.length, trailers, reset: r.rstCode ? codes[r.rstCode] || String(r.rstCode) : null}}); }});
}});
(async () => {{
  const cases = JSON.parse(process.argv[1]);
  let stop = false, slowest = 0, others = 0;
  const beside = (async () => {{
    const client = connect();
    while (!stop) {{
      const began = Date.now(), got = await ask(client, '/beside');
      if (got.text !== 'fine') {{ console.log(JSON.stringify({{beside: got}})); process.exit(1); }}
      slowest = Math.max(slowest, Date.now() - began); others++;
      await new Promise(r => setTimeout(r, 20));
    }}
    client.close();
  }})();
  console.log('warm');
  for (const name of cases) {{
    const client = connect();
    const before = await ask(client, '/before'), got = await ask(client, '/' + name, name === 'data-beyond-the-streams-window');
    let after = await ask(client, '/after'), same = after.text === 'fine';
    if (!same) {{ const next = connect(); after = await ask(next, '/after'); next.close(); }}
    console.log(JSON.stringify({{name, before: before.text, got, same, after: after.text}}));
    client.destroy();
  }}
  stop = true; await beside;
  console.log(JSON.stringify({{slowest, others}}));
  process.exit(0);
}})();
"""


def played():
    """What the agent heard of each case, what the server heard, and what else there was to see."""
    python, said = interpreter("hpack==4.1.0"), STATE / "http2-faults.jsonl"
    said.touch()
    server = STATE / "http2_faults.py"
    server.write_text(Path(http2_faults.__file__).read_text())
    serve(python, server, PORT, said, port=PORT)
    words, log = command_line("Enforce", "node", "-e", AGENT, json.dumps(list(http2_faults.CASES)), policy=POLICY)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    memory = lambda: int(Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1].split()[0]) * 1024
    heard, most = {}, 0
    for line in process.stdout:
        if line.strip() == "warm":
            before = memory()
            continue
        told = json.loads(line)
        if "name" in told:
            heard[told["name"]] = told
            most = max(most, memory() - before)
        else:
            last = told
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 0, err[-3000:]
    answers = {}
    for line in said.read_text().splitlines():
        one = json.loads(line)
        answers.setdefault(one["case"], one["said"])
    return heard, answers, most, last, log


PAGE_BEGINS = """# Servers that break HTTP/2

What comes of an answer that breaks RFC 9113: what h2spec does to a server, done to Chaperone as the client. A server does each of these on a connection of its own, with Node.js as the agent; then the agent asks
for something else, on the same connection where that is still open. Meanwhile another connection is served throughout. An error is a 502 in words, or a reset where the answer had begun;
each has a record. This page is made from [the cases](../e2e/local/http2_faults.py) by the test that runs them (`e2e/run-local -k l14`; with `UPDATE_DOCS=1` it is written anew).

The codes in brackets are what the server hears. RFC 9113 has a narrower code than PROTOCOL_ERROR for some of these (COMPRESSION_ERROR, FRAME_SIZE_ERROR, FLOW_CONTROL_ERROR); the `h2` crate says the general one, and what ends is
the same. Two malformed heads are answered all the same: a pseudo field that belongs to requests, or that stands in trailers, is left out of what the agent gets.

| what the server sends | RFC 9113 | what comes of it |
|---|---|---|
"""


@test
def the_page_on_servers_that_break_http_2_is_what_the_cases_say():
    rows = [f"| {name.replace('-', ' ')} | {case.section} | {http2_faults.comes(case)[0]} |\n" for name, case in http2_faults.CASES.items()]
    page = PAGE_BEGINS + "".join(rows)
    if "UPDATE_DOCS" in os.environ:
        PAGE.write_text(page)
    assert PAGE.exists() and PAGE.read_text() == page, f"{PAGE} is not what the cases say: run this with UPDATE_DOCS=1"


def wrong(name, heard, said, records):
    """What came otherwise than expected, in words; nothing where all is well."""
    _, answered, frame, stays = http2_faults.comes(http2_faults.CASES[name])
    got, code = heard["got"], heard["got"].get("reset")
    if heard["before"] != "fine" or heard["after"] != "fine":
        return "another request was harmed"
    whole = got["status"] == 200 and got["text"] == "fine" and not code
    failed = got["status"] == 502 or code or (got["status"] is None and not got.get("hung"))
    if whole != answered or not (whole or failed) or (http2_faults.CASES[name].comes == "refused" and code != "REFUSED_STREAM"):
        return "the agent heard something else"
    if heard["same"] != stays or said != frame:
        return "the connection came to something else"
    if len(records) != 1 or (records[0].get("error") is None) != answered:
        return "the record is not of this"
    return None


@test
def a_server_that_breaks_http_2_harms_its_own_stream_or_connection_and_no_other():
    heard, said, most, last, log = played()
    records = {}
    for record in map(json.loads, log.read_text().splitlines()):
        if record["kind"] == "http":
            records.setdefault(record["operation"]["resource"].rsplit("/", 1)[-1], []).append(record)
    assert len(heard) == len(http2_faults.CASES) >= 100, len(heard)
    found = {name: wrong(name, heard[name], said.get(name), records.get(name, [])) for name in http2_faults.CASES}
    faults = [f"{name}: {what}: {heard[name]}, the server heard {said.get(name)}, {len(records.get(name, []))} records" for name, what in found.items() if what]
    print(f"      {len(found) - len(faults)} of {len(found)} cases; {most / MIB:.1f} MiB more at most; {last['others']} other requests, the slowest in {last['slowest']} ms", flush=True)
    assert not faults, "\n".join(faults)
    # Measured: 5 MiB, for all cases together, in a build that is not optimised.
    assert most < 32 * MIB and last["slowest"] < 10_000 and last["others"] > 50, (most, last)
    assert len(records["before"]) == len(heard) and len(records["beside"]) == last["others"]
    assert verify(log).returncode == 0, verify(log).stdout
