"""Brings up what the tests run on: cluster, world, images, the installed chart, the namespaces with their agents."""

import functools
import hashlib
import json
import os
import subprocess
from pathlib import Path

from .cluster import (E2E, EXISTING, ROOT, SYSTEM, WORLD, Agent, container, create_namespace, delete_namespaces, deployment, get, helm, kubectl,
                      must_apply, pod_spec, pods, wait_ready)
from .harness import Failure, say, wait_for

RELEASE = "chaperone"
CHART = ROOT / "charts/chaperone"
LABEL = {"chaperone.dev/audit": "enabled"}
NAMESPACES = ["audited", "enforced", "plain", "escapes", "late", "loaded", "hungry", "grown", "auditors"]
# What Claude Code needs to run unattended; nothing about trust.
CLAUDE = {"HOME": "/root", "IS_SANDBOX": "1", "ANTHROPIC_API_KEY": "sk-ant-test", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1"}


def loudly(*command):
    """Runs one of our scripts with its progress on standard error; returns its standard output's lines."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed")
    return done.stdout.split("\n")[:-1]


def binary(name):
    """A program of this checkout, as it is in the images."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "x86_64-unknown-linux-musl/e2e" / name


CHAPERONE = binary("chaperone")


def prepare():
    """Cluster, images, world, chart. Each step does nothing where it has been done before."""
    loudly(E2E / "cluster/up")
    loudly(E2E / "images/build", "agent")
    archives = loudly(E2E / "images/product")
    loudly(E2E / "images/load", "agent", *archives)
    loudly(E2E / "world/world.py", "down")
    loudly(E2E / "world/world.py", "up")
    say("the namespaces of an earlier run are removed ...")
    delete_policies()
    delete_namespaces(*NAMESPACES)
    say("installing the chart ...")
    install(archives)
    collect_records()


def delete_policies():
    for kind in ("clusteragentpolicies", "auditsinks"):
        kubectl("delete", kind, "--all", "--ignore-not-found")


def image(name):
    return f"{os.environ['IMAGE_REGISTRY'] if EXISTING else 'docker.io/local'}/{name}:e2e"


def values(archives=()):
    """The chart's values for the tests. The annotation changes with images and CA, so that the operator's pods are replaced then."""
    roots = (WORLD / "pki/ca.pem").read_text()
    parts = [*(Path(a).stem.rsplit("-", 1)[-1] for a in archives), hashlib.sha256(roots.encode()).hexdigest()[:12]]
    return {
        "images": {"operator": image("chaperone-operator"), "sidecar": image("chaperone-sidecar"), "ledger": image("chaperone-ledger"), "cli": image("chaperone"), "pullPolicy": "IfNotPresent"},
        "extraRoots": roots,
        "operator": {"podAnnotations": {"parts": " ".join(parts)}},
    }


def install(archives):
    file = WORLD / "values.json"
    file.write_text(json.dumps(values(archives)))
    upgrade().succeeded("helm upgrade --install")


def upgrade(*more):
    try:
        return helm("upgrade", "--install", RELEASE, CHART, "-n", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s",
                    "-f", WORLD / "values.json", *more)
    except Failure as failure:
        raise Failure(f"{failure}\n{explain()}") from None


def collect_records():
    """An AuditSink that ships all records to the collector of the world."""
    must_apply(http_sink("collector"))


def http_sink(name, url="https://sink.example.com/records"):
    return {"apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": name},
            "spec": {"http": {"url": url, "caBundle": (WORLD / "pki/ca.pem").read_text()}}}


# --- policies ------------------------------------------------------------------------------------------------------

NO_DELETE = {"name": "no-delete", "match": {"protocols": ["http"], "hosts": ["files.example.com"], "methods": ["DELETE"]}, "action": "Deny",
             "message": "Files are deleted by people only: ask the owner of the share."}
PII = {"name": "pii", "match": {"hosts": ["files.example.com"]}, "detectors": ["email", "creditCard", "usSsn"], "with": "Redact"}


def policy(namespace, name, mode="Audit", rules=(), **spec):
    return {"apiVersion": "chaperone.dev/v1alpha1", "kind": "AgentPolicy", "metadata": {"name": name, "namespace": namespace},
            "spec": {"mode": mode, "rules": list(rules)} | spec}


def cluster_policy(name, mode="Audit", rules=(), **spec):
    return {"apiVersion": "chaperone.dev/v1alpha1", "kind": "ClusterAgentPolicy", "metadata": {"name": name}, "spec": {"mode": mode, "rules": list(rules)} | spec}


def delete_policy(namespace, name):
    kubectl("delete", "agentpolicy", "-n", namespace, name, "--ignore-not-found").succeeded()


def is_applied(namespace, name):
    """Whether all selected pods run the policy as it is now."""
    found = get("agentpolicy", name, "-n", namespace)
    status = found.get("status", {})
    counts = status.get("pods", {})
    return status.get("observedGeneration") == found["metadata"]["generation"] and counts.get("selected", 0) > 0 and counts["selected"] == counts.get("applied")


def apply_policy(wanted, timeout=20):
    """Applies a namespaced policy and waits until every pod that it selects runs it."""
    must_apply(wanted)
    namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
    try:
        wait_for(f"policy {name} is applied in {namespace}", lambda: is_applied(namespace, name), timeout)
    except Failure as failure:
        raise Failure(f"{failure}: status {json.dumps((get('agentpolicy', name, '-n', namespace) or {}).get('status'))}") from None


# --- agents ----------------------------------------------------------------------------------------------------------


def agent_container(**more):
    return container(env=[{"name": k, "value": v} for k, v in CLAUDE.items()], **more)


def start_agent(namespace, labels=LABEL, policies=()):
    """A namespace with one long-running agent, under these policies."""
    create_namespace(namespace, labels)
    if policies:
        must_apply(*policies)
    must_apply(deployment(namespace, spec=pod_spec(agent_container())))
    found = wait_ready(namespace)
    for wanted in policies:
        wait_for(f"policy {wanted['metadata']['name']} is applied", lambda w=wanted: is_applied(namespace, w["metadata"]["name"]))
    return Agent(namespace, found[0]["metadata"]["name"])


def watch(**audit):
    """A policy in mode Audit that would deny DELETE, at the fullest audit level."""
    return policy("audited", "watch", "Audit", [NO_DELETE], audit={"level": "RequestResponse"} | audit)


@functools.cache
def audited():
    """An agent under that policy."""
    return start_agent("audited", policies=[watch()])


@functools.cache
def enforced():
    """An agent under a policy in mode Enforce that denies DELETE and masks personal data."""
    return start_agent("enforced", policies=[policy("enforced", "guard", "Enforce", [NO_DELETE], masks=[PII], audit={"level": "RequestResponse"})])


@functools.cache
def plain():
    """An agent in a namespace without the label."""
    return start_agent("plain", labels={})


def claude(agent, scenario, **variables):
    """The real Claude Code CLI, led by a scenario. Returns its Result."""
    words = " ".join([scenario, *(f"{k}={v}" for k, v in variables.items())])
    return agent.run("claude", "-p", f"[scenario {words}] Please go on.", "--dangerously-skip-permissions", timeout=90)


def tool_results(run_word):
    """What Claude Code posted back as results of its tools in the session whose prompt has this word, as texts in order."""
    last = []
    for line in (WORLD / "log/messages.jsonl").read_text().splitlines():
        request = json.loads(line)["body"]
        if run_word in json.dumps(request.get("messages", [])):
            last = results_of(request) or last
    return last


def results_of(request):
    results = []
    for message in request["messages"]:
        for block in message["content"] if isinstance(message["content"], list) else []:
            if block.get("type") == "tool_result":
                content = block["content"]
                results.append(content if isinstance(content, str) else "".join(part.get("text", "") for part in content))
    return results


def reached(word):
    """Lines of the world's access log that have this word: what really arrived."""
    return [line for line in (WORLD / "log/access.log").read_text().splitlines() if word in line]


def explain():
    """The state of things, for a failure's report."""
    parts = []
    for found in pods(SYSTEM) if get("namespace", SYSTEM) else []:
        name = found["metadata"]["name"]
        log = kubectl("logs", "-n", SYSTEM, name, "--tail=20").out
        parts.append(f"{name} ({found['status']['phase']}):\n" + "\n".join(line for line in log.splitlines() if '"level":"INFO"' not in line))
    return "\n".join(parts)[-4000:]
