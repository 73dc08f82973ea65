"""Group 4: policies are edited with kubectl and enforced in running pods; bad ones are refused or reported."""

import json
import re
import subprocess
import threading

from . import cluster
from .cluster import E2E, ROOT, NODE_IP, STATE, apply, get, in_node, kubectl, must_apply
from .harness import check, holds, nonce, note, same, test, wait_for
from .install import apply_policy, delete_policy, enforced, policy
from .records import wait_record

EDITS = 50
FILES = "https://files.example.com"

# Asks again and again on one connection and prints each change of the status: "time status".
WATCH = """import http.client, sys, time
connection, last, end = http.client.HTTPSConnection("files.example.com", timeout=10), None, time.time() + float(sys.argv[1])
while time.time() < end:
    connection.request("GET", sys.argv[2])
    response = connection.getresponse(); response.read()
    if response.status != last:
        last = response.status
        print(time.time(), last, flush=True)
    time.sleep(0.004)
"""


def toggle(action):
    return {"name": "toggle", "match": {"protocols": ["http"], "hosts": ["files.example.com"]}, "when": "http.path == '/accept'", "action": action}


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(q * (len(ordered) - 1)))]


@test("fifty edits of a rule are each enforced in the running pod")
def _():
    agent = enforced()
    apply_policy(policy("enforced", "toggle", "Enforce", [toggle("Allow")]))
    seconds = EDITS * 0.5 + 25
    watching = subprocess.Popen([cluster._program("kubectl"), "exec", "-n", "enforced", agent.name, "-c", "agent", "--", "python3", "-uc", WATCH, str(seconds), "/accept"],
                                stdout=subprocess.PIPE, text=True)
    changes = []
    reader = threading.Thread(target=lambda: changes.extend(line.split() for line in watching.stdout), daemon=True)
    reader.start()
    try:
        edits = run_edits()
        wait_for("as many changes as edits", lambda: len(changes) > len(edits), 15)
    finally:
        watching.terminate()
        reader.join(10)
        delete_policy("enforced", "toggle")
    delays = measure(edits, changes)
    check(max(delays) < 10, f"the slowest edit took {max(delays):.2f} s")
    note(f"apply to enforced over {len(delays)} edits, from the API server's answer: p50 {quantile(delays, 0.5) * 1000:.0f} ms, "
         f"p99 {quantile(delays, 0.99) * 1000:.0f} ms")


def run_edits():
    pki = STATE / "pki"
    # A rule list is replaced whole by a merge patch.
    patches = [{"spec": {"rules": [toggle(action)]}} for action in ("Deny", "Allow")]
    order = {"server": f"{NODE_IP}:6443", "ca": str(pki / "ca.crt"), "cert": str(pki / "admin.crt"), "key": str(pki / "admin.key"), "edits": EDITS, "pause": 0.5,
             "path": "/apis/chaperone.dev/v1alpha1/namespaces/enforced/agentpolicies/toggle", "patches": patches}
    done = in_node("python3", E2E / "proof/edits.py", stdin=json.dumps(order), timeout=120).succeeded("editing")
    return [json.loads(line) for line in done.out.splitlines()]


def measure(edits, changes):
    """Seconds from each edit's acceptance to the first answer under it (never below zero: it may be enforced before the API server's answer)."""
    same("200", changes[0][1], "the status before the first edit")
    delays = []
    for index, edit in enumerate(edits):
        at, status = changes[index + 1]
        same("403" if index % 2 == 0 else "200", status, f"status after edit {index}")
        delays.append(max(0.0, float(at) - edit["accepted"]))
    return delays


@test("the samples are accepted by kubectl apply as they are")
def _():
    for sample in sorted([*(ROOT / "config/samples").glob("*.yaml"), E2E / "world/demo/policy.yaml"]):
        kubectl("apply", "--dry-run=server", "-n", "enforced", "-f", "-", stdin=without_namespace(sample)).succeeded(f"applying {sample.name}")


def without_namespace(sample):
    """The namespaces that samples name need not exist here."""
    return re.sub(r", namespace: \w+|^  namespace: \w+\n", "", sample.read_text(), flags=re.MULTILINE)


@test("status counts the selected pods and those that run the policy, with the revision and the generation it is about")
def _():
    agent = enforced()
    apply_policy(policy("enforced", "counted", "Audit", selector={"matchLabels": {"app": "agent"}}))
    found = get("agentpolicy", "counted", "-n", "enforced")
    same({"selected": 1, "applied": 1}, found["status"]["pods"], "pods")
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    same("True", ready["status"], "Ready")
    condition = next(c for c in agent.get()["status"]["conditions"] if c["type"] == "chaperone.dev/PolicyApplied")
    same("True", condition["status"], "the pod's condition")
    holds(condition["message"], [r["config"]["revision"] for r in [wait_record(kind="config", config__revision=condition["message"], agent__pod=agent.name)]],
          "the revision in the records")
    table = kubectl("get", "agp", "-n", "enforced", "counted").out
    for column in ("MODE", "READY", "PODS", "APPLIED"):
        holds(column, table, "kubectl get")
    delete_policy("enforced", "counted")


@test("a policy with a typo is refused with policy, rule, line, column and a caret, and what ruled before still rules")
def _():
    broken = policy("enforced", "typo", "Enforce", [{"name": "slip", "when": 'http.method == "GET" &&\n  htpp.path == "/x"', "action": "Deny"}])
    done = apply(broken).failed("kubectl apply")
    for part in ("enforced/typo", "slip", "line 2, column 3", "htpp", "^"):
        holds(part, done.err, "the refusal")
    same(None, get("agentpolicy", "typo", "-n", "enforced"), "the refused policy")
    same("403", enforced().curl("-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/scratch/none").out, "what ruled before")


@test("an expression that yields no bool, an unknown field, and one that is nested beyond reason are refused")
def _():
    for when, word in (('http.method', "true or false"), ('http.verb == "GET"', "verb"), ("(" * 400 + "true" + ")" * 400, "")):
        done = apply(policy("enforced", "bad", "Audit", [{"name": "bad", "when": when, "action": "Deny"}])).failed(f"applying {when[:40]}")
        holds(word, done.err, "the refusal")


@test("what the schema can refuse, it refuses: unknown fields, wrong words, a udp rule with an expression")
def _():
    def refused(spec, word):
        done = apply({"apiVersion": "chaperone.dev/v1alpha1", "kind": "AgentPolicy", "metadata": {"name": "bad", "namespace": "enforced"}, "spec": spec})
        holds(word, done.failed(f"applying {spec}").err, "the refusal")

    enforced()
    refused({"mod": "Enforce"}, "mod")
    refused({"mode": "enforce"}, "supported values")
    refused({"rules": [{"name": "a", "action": "Deny", "match": {"protocols": ["udp"], "hosts": ["10.0.0.1"]}, "when": "true"}]}, "udp")
    refused({"masks": [{"name": "empty"}]}, "detectors, patterns")
    done = apply({"apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "bad"}, "spec": {"http": {"url": "http://sink.example.com/"}}})
    holds("allowInsecure", done.failed("applying the sink").err, "the refusal of a sink in clear text")


@test("a policy that became impossible is reported in its status, and the other policies rule on")
def _():
    # Only a policy that was stored without the webhook can be impossible.
    enforced()
    webhook = get("validatingwebhookconfiguration", "chaperone")
    kubectl("delete", "validatingwebhookconfiguration", "chaperone").succeeded()
    try:
        must_apply(policy("enforced", "impossible", "Enforce", [{"name": "slip", "when": "htpp.path == '/x'", "action": "Deny"}]))
    finally:
        webhook["metadata"] = {k: v for k, v in webhook["metadata"].items() if k in ("name", "labels", "annotations")}
        must_apply(webhook)

    def reported():
        found = get("agentpolicy", "impossible", "-n", "enforced").get("status", {})
        return next((c for c in found.get("conditions", []) if c["type"] == "Ready" and c["status"] == "False"), None)

    try:
        holds("htpp", wait_for("Ready is False", reported, 20)["message"], "the condition's message")
        same("403", enforced().curl("-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/scratch/none").out, "the other policy")
        same("200", enforced().curl("-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/hello.txt").out, "what nobody denies")
    finally:
        delete_policy("enforced", "impossible")


@test("a download that is under way when the policy changes is finished under the decision it got")
def _():
    url = f"{FILES}/slow/middle.bin?{nonce()}"
    script = f"curl -sS -o /dev/null -w '%{{http_code}} %{{size_download}}' '{url}' & sleep 1; echo started; wait"
    running = subprocess.Popen([cluster._program("kubectl"), "exec", "-n", "enforced", enforced().name, "-c", "agent", "--", "bash", "-c", script],
                               stdout=subprocess.PIPE, text=True)
    same("started\n", running.stdout.readline(), "the download")
    apply_policy(policy("enforced", "closed", "Enforce", [{"name": "all", "match": {"hosts": ["files.example.com"]}, "action": "Deny"}]))
    try:
        same("403", enforced().curl("-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/hello.txt").out, "a new request")
        same("200 2000000", running.communicate(timeout=30)[0], "the download")
    finally:
        delete_policy("enforced", "closed")
