"""Group 10: what policies say of TLS with single servers, in pods: roots, client certificates from Chaperone's namespace, and what is too large to be sent."""

import base64
import hashlib
import json
import ssl

from .cluster import SYSTEM, WORLD, apply, get, kubectl, must_apply
from .harness import check, holds, lacks, same, test, wait_for
from .install import apply_policy, audited, delete_policy, enforced, http_sink, is_applied, policy
from .records import raw, wait_record

URL = "https://files.example.com:7443/"
SECRET, ANNOTATION = "partner-client", "chaperone.dev/client-certificate-namespaces"


def pki(name):
    return (WORLD / "pki" / name).read_text()


def upstreams(namespace, mode):
    """Trusts the authority of the server for its host only, and names the Secret."""
    entry = {"hosts": ["files.example.com"], "caBundle": pki("unknown-ca.pem"), "clientCertificateSecret": {"name": SECRET}}
    return policy(namespace, "partner", mode, tls={"upstreams": [entry]})


def secret(name="agents", namespaces=None, labelled=True):
    encoded = lambda file: base64.b64encode(pki(file).encode()).decode()
    labels = {"chaperone.dev/client-certificate": "true"} if labelled else {}
    annotations = {ANNOTATION: namespaces} if namespaces else {}
    metadata = {"name": SECRET, "namespace": SYSTEM, "labels": labels, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": {"tls.crt": encoded(f"{name}.crt"), "tls.key": encoded(f"{name}.key")}}


def fingerprint(name):
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pki(f"{name}.crt"))).hexdigest()


def ready(kind, name, *where):
    found = get(kind, name, *where)
    return next((c for c in found.get("status", {}).get("conditions", []) if c["type"] == "Ready"), None)


def wait_reason(reason, part, kind="agentpolicy", name="partner", where=("-n", "enforced")):
    def is_so():
        condition = ready(kind, name, *where)
        return condition and condition["reason"] == reason and part in condition["message"]

    wait_for(f"{kind} {name} says {reason}: {part}", is_so)


def ask(agent):
    done = agent.curl("-w", " [%{http_code}]", URL)
    return done.out + done.err


def wait_heard(agent, part):
    wait_for(f"the agent hears {part!r}", lambda: part in (heard := ask(agent)) or check(False, heard))


@test("a client certificate in Chaperone's namespace is presented for the agents of those namespaces that it names, and renewed without a restart")
def _():
    agent, other = enforced(), audited()
    kubectl("delete", "secret", SECRET, "-n", SYSTEM, "--ignore-not-found").succeeded()
    try:
        holds("Secret partner-client", apply(upstreams("enforced", "Enforce")).succeeded().err, "the warning at kubectl apply")
        wait_reason("ClientCertificate", "is not there")
        wait_for("it is applied all the same", lambda: is_applied("enforced", "partner"))
        wait_heard(agent, "is not there")
        holds("[502]", ask(agent), "the answer without a certificate")
        wait_record(kind="gap", gap__reason="unusable-certificate", agent__pod=agent.name)
        must_apply(secret(labelled=False, namespaces="enforced"))
        wait_reason("ClientCertificate", "has no label")
        must_apply(secret(namespaces="somewhere, else"))
        wait_reason("ClientCertificate", "is not permitted to AgentPolicies of namespace enforced")
        wait_heard(agent, "[502]")
        must_apply(secret(namespaces="plain, enforced"))
        wait_heard(agent, "hello CN=agents")
        wait_reason("Applied", "1 of 1")
        record = wait_record(kind="http", agent__pod=agent.name, destination__clientCertificate__subject="CN=agents")
        same(fingerprint("agents"), record["destination"]["clientCertificate"]["sha256"], "the fingerprint in the record")
        rotate(agent)
        not_theirs(other)
        nowhere(agent)
    finally:
        for namespace in ("enforced", "audited"):
            delete_policy(namespace, "partner")
        kubectl("delete", "secret", SECRET, "-n", SYSTEM, "--ignore-not-found")


def rotate(agent):
    applied = lambda: next(c["message"] for c in agent.get()["status"]["conditions"] if c["type"] == "chaperone.dev/PolicyApplied")
    before, revision = agent.sidecar_pid(), applied()
    must_apply(secret("renewed", "enforced"))
    wait_heard(agent, "hello CN=renewed")
    same((before, revision), (agent.sidecar_pid(), applied()), "process and revision of the sidecar")
    record = wait_record(kind="http", agent__pod=agent.name, destination__clientCertificate__subject="CN=renewed")
    same(fingerprint("renewed"), record["destination"]["clientCertificate"]["sha256"], "the fingerprint in the record")


def not_theirs(other):
    """A namespace that the Secret does not name: in Audit the agent talks for itself, and a gap says why."""
    must_apply(upstreams("audited", "Audit"))
    wait_reason("ClientCertificate", "namespace audited", where=("-n", "audited"))
    other.write("/tmp/unknown-ca.pem", pki("unknown-ca.pem"))
    other_asks = lambda: other.curl("--cacert", "/tmp/unknown-ca.pem", "-w", " [%{http_code}]", URL).out
    wait_for("the other agent is told by the server that it has no certificate", lambda: "No required SSL certificate was sent" in other_asks())
    gap = wait_record(kind="gap", gap__reason="unusable-certificate", agent__pod=other.name)
    holds("not permitted", gap["gap"]["detail"], "the gap's detail")


def nowhere(agent):
    """The keys are in the Secret and in memory."""
    seen = {
        "the records": raw(),
        "the sidecar's log": agent.sidecar_log(),
        "the operator's log": kubectl("logs", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator", "--tail=-1").succeeded().out,
        "Events and policies": kubectl("get", "events,agentpolicies", "-A", "-o", "json").succeeded().out,
        "the pod": json.dumps(agent.get()),
        "the agent's files": agent.sh("cat /var/run/chaperone/trust/*.pem; env").out,
    }
    for name in ("agents", "renewed"):
        line = pki(f"{name}.key").splitlines()[1]
        for what, text in seen.items():
            lacks(line, text, what)
            lacks(base64.b64encode(line.encode()).decode()[:40], text, what)


@test("a root that a policy lists for one host is not trusted for another, and agents are not given it")
def _():
    agent = enforced()
    entry = {"hosts": ["files.example.com"], "caBundle": pki("unknown-ca.pem"), "trust": "Only"}
    apply_policy(policy("enforced", "partner", "Enforce", tls={"upstreams": [entry]}))
    try:
        holds("hello from", agent.curl("https://files.example.com:8443/hello.txt").succeeded().out, "the host that is listed")
        # The world's own authority is in extraRoots, and Only leaves it out.
        holds("[502]", agent.curl("-w", " [%{http_code}]", "https://files.example.com/hello.txt").out, "the same host under another authority")
        other = agent.curl("-w", " [%{http_code}]", "https://db.example.com:8443/hello.txt").out
        holds("[502]", other, "another host")
        line = pki("unknown-ca.pem").splitlines()[2]
        lacks(line, agent.sh("cat /var/run/chaperone/trust/*.pem").out, "the agent's trust bundle")
    finally:
        delete_policy("enforced", "partner")


@test("sinks that are too large together are told so, pods keep what they have, and all is well once one is gone")
def _():
    agent = enforced()
    root = pki("unknown-ca.pem")
    bundle = root * (60_000 // len(root))
    names = [f"large-{number}" for number in range(7)]
    try:
        must_apply(*({**http_sink(name), "spec": {"http": {"url": "https://sink.example.com/none", "caBundle": bundle}}} for name in names))
        wait_reason("Invalid", "delete a sink", "auditsink", "large-0", ())
        wait_reason("HeldBack", "delete a sink", "agentpolicy", "guard")
        same("403", agent.curl("-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", "https://files.example.com/scratch/none").out, "a DELETE meanwhile")
    finally:
        kubectl("delete", "auditsinks", *names, "--ignore-not-found").succeeded()
    wait_reason("Applied", "1 of 1", "agentpolicy", "guard")
