"""Group 8: HTTP/2, gRPC and WebSocket from pods: read, judged and masked like HTTP/1.1."""

import json

from .harness import check, holds, lacks, nonce, same, test
from .install import NO_DELETE, PII, WORLD, apply_policy, audited, delete_policy, enforced, policy, reached
from .records import find, wait_record

H2 = "https://files.example.com:9443"
H2C = "http://files.example.com:9080"
MESSAGE = NO_DELETE["message"]
SOCKET = """import asyncio, sys, websockets
async def main(url, *texts):
    async with websockets.connect(url) as socket:
        for text in texts:
            await socket.send(text)
            print(await socket.recv(), flush=True)
try:
    asyncio.run(main(*sys.argv[1:]))
except websockets.ConnectionClosed as closed:
    print("closed", closed.rcvd.code if closed.rcvd else None, closed.rcvd.reason if closed.rcvd else "")
"""
CALL = """import sys, grpc
with open("/var/run/chaperone/trust/ca-bundle.pem", "rb") as roots:
    channel = grpc.secure_channel("files.example.com:9444", grpc.ssl_channel_credentials(roots.read()))
try:
    if sys.argv[1].endswith("Many"):
        print([m.decode() for m in channel.unary_stream(sys.argv[1])(sys.argv[2].encode(), timeout=10)])
    else:
        print(channel.unary_unary(sys.argv[1])(sys.argv[2].encode(), timeout=10).decode())
except grpc.RpcError as error:
    print(error.code().name, error.details())
"""


@test("HTTP/2 over TLS and in clear text arrives as HTTP/2, and its record is exact")
def _():
    for base, option in ((H2, "--http2"), (H2C, "--http2-prior-knowledge")):
        url = f"{base}/hello.txt?two={nonce()}"
        done = audited().curl(option, "-w", "%{http_version}", url).succeeded(f"curl {option}")
        same("hello from files.example.com\n2", done.out, "body and version")
        record = wait_record(kind="http", operation__resource=url)
        same(("GET", 200, 29), (record["operation"]["verb"], record["http"]["status"], record["http"]["responseBytes"]), "method, status, bytes")


@test("HTTP/2: a refusal is told in its stream, and the connection carries the next request")
def _():
    path = WORLD / f"files/scratch/{nonce()}.txt"
    path.write_text("still here\n")
    done = enforced().curl("--http2", "-X", "DELETE", "-w", "\n%{http_code} %{num_connects}\n", f"{H2}/scratch/{path.name}",
                           "--next", "-sS", "--http2", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n", f"{H2}/hello.txt").succeeded()
    holds(MESSAGE, done.out, "the refusal")
    same(["403 1", "200 0"], done.out.splitlines()[-2:], "status and new connections of both requests")
    same("still here\n", path.read_text(), "the file")
    same([], [line for line in reached(path.name) if "DELETE" in line], "DELETEs that arrived")


@test("HTTP/2: personal data is masked")
def _():
    done = enforced().curl("--http2", "--compressed", f"{H2}/customers.json").succeeded()
    holds("Grace", done.out, "the list")
    lacks("ada.lovelace@example.com", done.out, "the list")
    json.loads(done.out)


@test("HTTP/2: Python's httpx with many streams on one connection")
def _():
    word = nonce()
    script = """import asyncio, httpx, os, ssl, sys
async def main(url):
    async with httpx.AsyncClient(http2=True, verify=ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])) as client:
        answers = await asyncio.gather(*(client.get(f"{url}-{n}") for n in range(50)))
        print({(a.status_code, a.http_version, len(a.content)) for a in answers})
asyncio.run(main(sys.argv[1]))"""
    done = audited().python(script, f"{H2}/hello.txt?many={word}").succeeded("httpx")
    same("{(200, 'HTTP/2', 29)}", done.out.strip(), "answers")
    wait_record(kind="http", operation__resource=f"{H2}/hello.txt?many={word}-49")
    records = find(f"many={word}-", kind="http")
    same(50, len({r["operation"]["resource"] for r in records}), "requests recorded")


@test("gRPC: calls and streams pass, with service, method and status in their records")
def _():
    word = nonce()
    same(word, audited().python(CALL, "/demo.Files/Read", word).succeeded("grpc").out.strip(), "unary answer")
    same(str([word] * 3), audited().python(CALL, "/demo.Files/Many", word).succeeded("grpc").out.strip(), "streamed answer")
    holds("NOT_FOUND there is none", audited().python(CALL, "/demo.Files/Fail", word).succeeded("grpc").out, "failed call")
    for method, status in (("Read", 0), ("Many", 0), ("Fail", 5)):
        grpc = wait_record(kind="http", agent__namespace="audited", grpc__service="demo.Files", grpc__method=method)["grpc"]
        same(status, grpc.get("status", 0), f"status of {method}")


@test("gRPC: a call that a rule denies ends with PERMISSION_DENIED and the rule's sentence; another call on the same policy passes")
def _():
    rule = {"name": "no-drop", "match": {"protocols": ["http"]}, "when": 'has(grpc.service) && grpc.service == "demo.Files" && grpc.method == "Drop"', "action": "Deny",
            "message": "Dropping is for people."}
    apply_policy(policy("enforced", "calls", "Enforce", [rule]))
    try:
        holds("PERMISSION_DENIED", enforced().python(CALL, "/demo.Files/Drop", "x").succeeded("grpc").out, "the call")
        holds("Dropping is for people.", enforced().python(CALL, "/demo.Files/Drop", "x").succeeded("grpc").out, "the call")
        same("still here", enforced().python(CALL, "/demo.Files/Read", "still here").succeeded("grpc").out.strip(), "another call")
    finally:
        delete_policy("enforced", "calls")


@test("WebSocket: messages pass both ways and are recorded, over TLS and in clear text")
def _():
    for url in ("ws://files.example.com:8085/", "wss://files.example.com:8446/"):
        word = nonce()
        done = audited().python(SOCKET, url, f"say {word}", "and more").succeeded("websockets")
        same([f"SAY {word.upper()}", "AND MORE"], done.out.split("\n")[:2], "answers")
        record = wait_record(f"say {word}", kind="ws.message")
        same("say " + word, record["message"]["body"]["text"], "the message in its record")


@test("WebSocket: a message that a rule denies closes the connection with 1008, and the server's texts are masked")
def _():
    rule = {"name": "no-plan", "match": {"protocols": ["http"]}, "when": 'ws.direction == "send" && !ws.binary && ws.text.contains("secret plan")', "action": "Deny", "message": "Plans stay here."}
    apply_policy(policy("enforced", "socket", "Enforce", [rule], masks=[PII]))
    try:
        url = "wss://files.example.com:8446/"
        done = enforced().python(SOCKET, url, "mail", "the secret plan", "after").succeeded("websockets")
        lacks("ada.lovelace@example.com", done.out, "what the agent got")
        holds('{"mail":"', done.out, "what the agent got")
        holds("closed 1008", done.out, "what the agent got")
        lacks("AFTER", done.out, "what the agent got")
        record = wait_record(kind="ws.message", decision__rule="no-plan")
        same("Deny", record["decision"]["action"], "action")
    finally:
        delete_policy("enforced", "socket")


@test("HTTP/2 to a name that is not the connection's is refused in every mode")
def _():
    script = """import asyncio, httpx, os, ssl
async def main():
    async with httpx.AsyncClient(http2=True, verify=ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])) as client:
        answer = await client.get("https://files.example.com:9443/hello.txt", headers={"host": "git.example.com"})
        print(answer.status_code)
asyncio.run(main())"""
    for agent in (audited(), enforced()):
        done = agent.python(script)
        check(done.out.strip() in ("421", "400"), f"status: {done!r}")
