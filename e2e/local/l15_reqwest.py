"""Group 15: Rust's reqwest as the agent, over HTTP/1.1 and HTTP/2: content codings, an answer that is read while its request is written, large uploads of unknown length."""

import os
import shutil

from .stage import CACHE, ROOT, STATE, interpreter, issue, run, serve, sh, test

PORT = 4500
RUNNING = set()
SOURCE = ROOT / "e2e/local/reqwest"

APP = """import brotli, gzip, zlib, zstandard
TEXT = b'grace@navy.example in ' + b'all the codings there are, ' * 200
CODINGS = {'identity': lambda text: text, 'gzip': gzip.compress, 'deflate': zlib.compress, 'br': brotli.compress, 'zstd': zstandard.compress}
async def app(scope, receive, send):
    if scope['type'] != 'http':
        return
    coding = scope['query_string'].decode() or 'identity'
    body = b'' if scope['path'] == '/echo' else CODINGS[coding](TEXT)
    # What is echoed is of a type that no mask reads: the beginning of text may wait for more, to be told from what is masked.
    headers = [(b'content-type', b'text/plain' if body else b'application/zip')] + [(b'content-encoding', coding.encode())] * (coding != 'identity')
    await send({'type': 'http.response.start', 'status': 200, 'headers': headers})
    more = scope['path'] == '/echo'
    while more:
        event = await receive()
        if event['type'] != 'http.request':
            return
        more = event.get('more_body', False)
        if event['body']:
            await send({'type': 'http.response.body', 'body': event['body'], 'more_body': True})
    await send({'type': 'http.response.body', 'body': body})
"""


def program():
    """The client, built from its pinned sources."""
    folder = STATE / "reqwest"
    if not folder.exists():
        shutil.copytree(SOURCE, folder)
        sh("cargo", "build", "--quiet", "--locked", cwd=folder, env={**os.environ, "CARGO_TARGET_DIR": str(CACHE / "reqwest-target")})
    return CACHE / "reqwest-target/debug/reqwest-peer"


def hypercorn():
    if RUNNING:
        return
    certificate, key = issue("rust.test.example.com")
    (STATE / "codings.py").write_text(APP)
    python = interpreter("hypercorn==0.18.0", "h2==4.4.1", "brotli==1.2.0", "zstandard==0.25.0")
    serve(python, "-m", "hypercorn", "--certfile", certificate, "--keyfile", key, "--bind", f"[::]:{PORT}", "codings:app", port=PORT, cwd=STATE)
    RUNNING.add("hypercorn")


@test
def reqwest_reads_every_coding_streams_both_ways_and_is_denied_over_both_versions():
    hypercorn()
    masked = "[masked:email] in " + ("all the codings there are, " * 200).strip()
    for version, name in (("1", "1.1"), ("2", "2")):
        got = run("Enforce", program(), f"https://rust.test.example.com:{PORT}", version, timeout=180)
        assert got.code == 0, got.out + got.err
        said = dict(line.split(": ", 1) for line in got.out.splitlines())
        for coding in ("identity", "gzip", "deflate", "br", "zstd"):
            assert said[coding] == f"{name} {masked}", (name, coding, said[coding][:300])
        assert said["streamed"] == "first second third", (name, said["streamed"])
        assert said["uploaded"] == f"{16 << 20} true", (name, said["uploaded"])
        assert (said["at once"], said["denied"]) == ("30 true", "403"), (name, said)
        upload = got.exchange("POST", "/echo")["http"]
        assert upload["requestBytes"] == upload["responseBytes"] == 16 << 20, upload
        assert len(got.only("http")) == 38 and not got.only("gap"), (name, len(got.only("http")))
