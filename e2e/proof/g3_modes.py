"""Group 3: Audit lets pass and records; Enforce refuses, masks, and says so."""

import json

from .cluster import INET_IP, WORLD, kubectl, must_apply
from .harness import check, holds, lacks, nonce, same, test, wait_for
from .install import NO_DELETE, PII, apply_policy, audited, claude, cluster_policy, delete_policy, enforced, policy, reached, tool_results
from .records import find, raw, wait_record

FILES = "https://files.example.com"
MESSAGE = NO_DELETE["message"]
PERSONAL = ["ada.lovelace@example.com", "4111 1111 1111 1111", "5555555555554444", "536-22-8145"]
UNKNOWN_CA, WORLD_CA = "/tmp/unknown-ca.pem", "/tmp/world-ca.pem"


def scratch():
    """A file on the server that a test may delete: (path on this machine, URL)."""
    name = f"{nonce()}.txt"
    path = WORLD / "files/scratch" / name
    path.write_text("still here\n")
    return path, f"{FILES}/scratch/{name}"


@test("Audit: a DELETE that a rule would deny passes, and the record says so with policy and rule")
def _():
    path, url = scratch()
    same("204", audited().curl("-X", "DELETE", "-w", "%{http_code}", url).succeeded().out, "status")
    check(not path.exists(), "the file is gone")
    decision = wait_record(kind="http", operation__resource=url)["decision"]
    same(("Allow", True), (decision["action"], decision.get("wouldDeny")), "action and wouldDeny")
    same(("audited/watch", "no-delete"), (decision.get("policy"), decision.get("rule")), "policy and rule")


@test("Enforce: the DELETE is refused with a JSON body that names policy and rule, the file is still there and the server never saw it")
def _():
    path, url = scratch()
    done = enforced().curl("-X", "DELETE", "-w", "\n%{http_code}", url).succeeded()
    body, status = done.out.rsplit("\n", 1)
    same("403", status, "status")
    holds(MESSAGE, body, "the body")
    holds("enforced/guard", body, "the body")
    holds("no-delete", body, "the body")
    json.loads(body)
    same("still here\n", path.read_text(), "the file")
    same([], [line for line in reached(path.name) if "DELETE" in line], "DELETEs that arrived")
    record = wait_record(kind="http", operation__resource=url)
    decision = record["decision"]
    same(("Deny", "Enforce", "enforced/guard", "no-delete"), tuple(decision.get(k) for k in ("action", "mode", "policy", "rule")), "the decision")
    same((403, MESSAGE), (record["http"]["status"], decision["message"]), "what the agent was told")


@test("Enforce: after a refusal the connection is still usable")
def _():
    _, url = scratch()
    done = enforced().curl("-X", "DELETE", "-d", "some body", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n", url,
                           "--next", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}\n", f"{FILES}/hello.txt")
    same(["403 1", "200 0"], done.succeeded().out.splitlines(), "status and new connections of both requests")


@test("Enforce: Claude Code reads in its tool result why it was refused, and sees personal data masked")
def _():
    word = nonce()
    path = WORLD / f"files/scratch/report-{word}.txt"
    path.write_text("a report\n")
    claude(enforced(), "read-and-delete", run=word).succeeded("Claude Code")
    results = tool_results(word)
    same(3, len(results), "tool results")
    for value in PERSONAL:
        lacks(value, results[0], "the customer list as Claude saw it")
    holds("Grace", results[0], "the customer list as Claude saw it")
    holds(MESSAGE, results[2], "the tool result of the DELETE")
    holds("HTTP 403", results[2], "the tool result of the DELETE")
    same("a report\n", path.read_text(), "the report")


@test("a masked body reaches the agent masked, and its record is masked and counts what was found")
def _():
    url = f"{FILES}/customers.json?mask={nonce()}"
    seen = enforced().curl(url).succeeded().out
    for value in PERSONAL:
        lacks(value, seen, "what the agent got")
    same(3, len(json.loads(seen)["customers"]), "customers in the masked body, which is still JSON")
    holds("1234567812345678", seen, "a number that is no card")
    record = wait_record(kind="http", operation__resource=url)
    for value in PERSONAL:
        lacks(value, json.dumps(record), "the record")
    holds("Grace", record["http"]["responseBody"]["text"], "the body in the record")
    counts = {(m["mask"], m["detector"]): m["count"] for m in record["masked"]}
    same({("pii", "email"): 3, ("pii", "creditCard"): 2, ("pii", "usSsn"): 3}, {k: v for k, v in counts.items() if k[0] == "pii"}, "what was masked")


@test("a value that is cut across chunks is masked all the same")
def _():
    seen = enforced().curl("http://files.example.com:8082/pieces").succeeded().out
    for value in ("ada.lovelace@example.com", "4111 1111 1111 1111", "1111 1111"):
        lacks(value, seen, "what the agent got")
    same(True, json.loads(seen)["ok"], "the end of the body")


@test("a compressed answer is masked too, in both modes, and its record shows the text")
def _():
    apply_policy(policy("audited", "masks-only", masks=[PII]))
    try:
        for agent in (enforced(), audited()):
            url = f"{FILES}/zipped/customers.json?z={nonce()}"
            seen = agent.curl("--compressed", url).succeeded().out
            record = json.dumps(wait_record(kind="http", operation__resource=url))
            holds("masked:", seen, "what the agent got")
            for value in PERSONAL:
                lacks(value, seen, "what the agent got")
                lacks(value, record, "the record")
    finally:
        delete_policy("audited", "masks-only")


@test("Authorization, cookies and API keys are never in a record, at any level")
def _():
    secrets = [nonce() for _ in range(4)]
    url = f"{FILES}/hello.txt?t={nonce()}"
    audited().curl("-H", f"Authorization: Bearer {secrets[0]}", "-H", f"Cookie: session={secrets[1]}", "-H", f"X-Api-Key: {secrets[2]}", url).succeeded()
    audited().curl("-o", "/dev/null", f"{FILES}/hello.txt?access_token={secrets[3]}").succeeded()
    headers = {k.lower() for k in wait_record(kind="http", operation__resource=url)["http"]["requestHeaders"]}
    holds("user-agent", headers, "recorded headers")
    for secret in secrets:
        lacks(secret, raw(), "all that was collected")


def give_roots(agent):
    agent.write(UNKNOWN_CA, (WORLD / "pki/unknown-ca.pem").read_text())
    agent.write(WORLD_CA, (WORLD / "pki/ca.pem").read_text())


@test("an upstream that only the agent can verify: Audit passes it unread and names extraRoots, Enforce refuses it")
def _():
    url = "https://files.example.com:8443/hello.txt"
    for agent in (audited(), enforced()):
        give_roots(agent)
    holds("hello from", audited().curl("--cacert", UNKNOWN_CA, url).succeeded().out, "what the agent got in Audit")
    gap = wait_record(kind="gap", gap__reason="unverifiable-upstream", agent__pod=audited().name)
    holds("extraRoots", gap["gap"]["detail"], "the gap's detail")
    same(8443, gap["destination"]["port"], "port")
    done = enforced().curl("--cacert", UNKNOWN_CA, url)
    lacks("hello from", done.out, "what the agent got in Enforce")
    refused = enforced().curl("-w", "%{http_code}", url)
    lacks("hello from", refused.out, "what the agent got in Enforce")
    check(find(agent__pod=enforced().name, destination__port=8443) or wait_record(agent__pod=enforced().name, destination__port=8443), "it is recorded")


@test("a client that pins its root: Audit lets the next connection pass as a gap, Enforce refuses every one")
def _():
    for agent in (audited(), enforced()):
        give_roots(agent)
    url = "https://git.example.com/project.git/info/refs?service=git-upload-pack"
    pinned = ["--cacert", WORLD_CA, "--capath", "/nowhere", "-o", "/dev/null", "-w", "%{http_code}", url]
    audited().curl(*pinned).failed("the first pinned connection")
    same("200", audited().curl(*pinned).succeeded("the next pinned connection").out, "status of the next one")
    wait_record(kind="gap", gap__reason="pinned-client", agent__pod=audited().name)
    for _ in range(3):
        enforced().curl(*pinned).failed("a pinned connection in Enforce")


@test("a host that the policy names for passthrough is not read, which is a recorded gap")
def _():
    apply_policy(policy("enforced", "passthrough", "Enforce", tls={"passthrough": ["db.example.com"]}))
    try:
        give_roots(enforced())
        same("200", enforced().curl("--cacert", WORLD_CA, "-o", "/dev/null", "-w", "%{http_code}", "https://db.example.com/hello.txt").succeeded().out, "status")
        gap = wait_record(kind="gap", gap__reason="passthrough", agent__pod=enforced().name)
        same("db.example.com", gap["destination"]["sni"], "SNI")
    finally:
        delete_policy("enforced", "passthrough")


@test("the cluster's API server is reached with its own CA in both modes, as a recorded gap")
def _():
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    for agent in (audited(), enforced()):
        script = f'curl -sSf --max-time 10 --cacert {account}/ca.crt -H "Authorization: Bearer $(cat {account}/token)" https://kubernetes.default.svc/version'
        holds("gitVersion", agent.sh(script).succeeded(f"asking the API server from {agent.namespace}").out, "its answer")
        wait_record(kind="gap", gap__reason="api-server", agent__pod=agent.name)


def send_raw(agent, data, port=80):
    """Sends these bytes to the file server as they are; returns what comes back within 3 s, and an empty text where it closes."""
    script = """import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5); s.settimeout(3); s.sendall(sys.argv[3].encode().decode('unicode_escape').encode('latin-1'))
got = b''
try:
    while data := s.recv(65536):
        got += data
except (TimeoutError, ConnectionError): pass
print(got.decode('latin-1'))"""
    return agent.python(script, INET_IP, str(port), data.encode("unicode_escape").decode()).succeeded("sending raw bytes").out


@test("ambiguous requests (Content-Length with Transfer-Encoding, folded header, bare CR, two Hosts) get 400 and a record, in both modes")
def _():
    head = "GET /hello.txt?w={} HTTP/1.1\r\nHost: files.example.com\r\n"
    attempts = {
        "CL+TE": head.replace("GET", "POST") + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "obs-fold": head + "X-A: b\r\n folded\r\n\r\n",
        "bare CR": head + "X-A: b\rX-B: c\r\n\r\n",
        "two Hosts": head + "Host: git.example.com\r\n\r\n",
        "space before colon": head + "Content-Length : 5\r\n\r\nhello",
    }
    for agent in (audited(), enforced()):
        before = len(find(agent__pod=agent.name, decision__reason="malformed"))
        for what, request in attempts.items():
            word = nonce()
            answer = send_raw(agent, request.format(word))
            check(answer.startswith("HTTP/1.1 400 "), f"{what} in {agent.namespace}: {answer[:300]!r}")
            same([], reached(word), f"{what}: requests that arrived")
        wait_for(f"{len(attempts)} records of malformed requests in {agent.namespace}",
                 lambda: len(find(agent__pod=agent.name, decision__reason="malformed")) >= before + len(attempts))


@test("a header section that is too large is refused and recorded")
def _():
    word = nonce()
    script = "head -c 300000 /dev/zero | tr '\\0' x > /tmp/large; (printf 'X-Large: '; cat /tmp/large) > /tmp/header"
    audited().sh(script).succeeded()
    status = audited().curl("-o", "/dev/null", "-w", "%{http_code}", "-H", "@/tmp/header", f"{FILES}/hello.txt?w={word}").out
    check(status in ("400", "431"), f"status: {status}")
    same([], reached(word), "requests that arrived")


@test("an upstream that resets half-way: the agent sees the break, and the record says incomplete")
def _():
    url = f"http://files.example.com:8083/reset?{nonce()}"
    audited().curl("-o", "/dev/null", url).failed("curl")
    same(False, wait_record(kind="http", operation__resource=url)["http"]["complete"], "complete")


@test("a connection that is left half-open costs the others nothing")
def _():
    script = """import socket, sys
held = [socket.create_connection((sys.argv[1], 80), 5) for _ in range(50)]
for s in held: s.sendall(b'GET /hello.txt HTTP/1.1\\r\\nHost: files.exa')
import urllib.request; print(urllib.request.urlopen('https://files.example.com/hello.txt', timeout=5).read())"""
    holds("hello from", audited().python(script, INET_IP).succeeded().out, "another request's answer")


@test("a protocol that Chaperone does not read: Audit passes it as a gap, Enforce refuses it unless a rule allows the destination")
def _():
    # In Enforce a client that says nothing is waited for; here it does at last.
    say = "exec 3<>/dev/tcp/db.example.com/2525; read -t 2 -u 3 line; echo HELO >&3; read -t 2 -u 3 more; echo \"$line $more\""
    holds("220 db.example.com", audited().sh(say).out, "the banner in Audit")
    gap = wait_record(kind="gap", gap__reason="opaque", agent__pod=audited().name, destination__port=2525)
    same("Allow", gap["decision"]["action"], "action in Audit")
    lacks("220", enforced().sh(say).out, "the banner in Enforce")
    gap = wait_record(kind="gap", gap__reason="opaque", agent__pod=enforced().name, destination__port=2525)
    same("Deny", gap["decision"]["action"], "action in Enforce")
    rule = {"name": "mail", "match": {"protocols": ["tcp"], "hosts": ["db.example.com"], "ports": [2525]}, "action": "Allow"}
    apply_policy(policy("enforced", "mail", "Enforce", [rule]))
    try:
        holds("220 db.example.com", enforced().sh(say).out, "the banner in Enforce with a rule")
    finally:
        delete_policy("enforced", "mail")


@test("a cluster policy's Deny is final, and an expression over the body decides")
def _():
    rule = {"name": "no-secret-plan", "match": {"hosts": ["files.example.com"], "methods": ["POST"]}, "when": 'has(http.body.plan) && http.body.plan == "secret"',
            "action": "Deny", "message": "That plan is not for sharing."}
    must_apply(cluster_policy("company", "Enforce", [rule], namespaceSelector={"matchLabels": {"kubernetes.io/metadata.name": "enforced"}}))
    apply_policy(policy("enforced", "lift", "Enforce", [{"name": "all", "action": "Allow"}]))
    try:
        post = lambda body: enforced().curl("-w", "%{http_code}", "-H", "Content-Type: application/json", "-d", body, f"{FILES}/accept").out
        wait_for("the cluster policy is enforced", lambda: "not for sharing" in post('{"plan": "secret"}'), 15)
        holds("200", post('{"plan": "open"}'), "another body's answer")
    finally:
        kubectl("delete", "clusteragentpolicy", "company")
        delete_policy("enforced", "lift")
