"""Group 13: the ledger as the chart runs it: every agent's records, whose they are, and that anyone can prove them."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from .cluster import (AGENT_IMAGE, EXISTING, STATE, SYSTEM, WORLD, Agent, apply, create_namespace, delete_namespaces, get, in_node, is_ready, kubectl, must_apply, pod,
                      pod_spec, pods, wait_ready)
from .harness import check, holds, nonce, note, run, same, test, wait_for
from .install import CHAPERONE, LABEL, audited, binary, claude, http_sink, is_applied, plain, upgrade, watch
from .records import FILE, wait_record

URL = "https://files.example.com/hello.txt"
LEDGER = "chaperone-ledger-0"
HOST = f"chaperone-ledger.{SYSTEM}.svc"
AUDIENCE = "chaperone.dev/ledger"
# Checkpoint first: what it is about is in the records that are copied after it.
COPY = """
set -e
rm -rf /copy && mkdir /copy && cd /ledger/ledger
cp checkpoint /copy/ && cp -a ledger.json records tile /copy/
tar -C /copy -czf - . | base64 -w 0
rm -rf /copy
"""
READ = ("-sS", "--max-time", "10", "-w", "\n%{http_code}")


# --- looking at the ledger -------------------------------------------------------------------------------------------


def reader():
    """A pod that sees the ledger's volume, as whoever administers the cluster can have one."""
    name = "ledger-reader"
    if not get("pod", name, "-n", SYSTEM):
        claim = {"name": "ledger", "persistentVolumeClaim": {"claimName": f"data-{LEDGER}", "readOnly": True}}
        mount = {"name": "ledger", "mountPath": "/ledger", "readOnly": True}
        agent = {"name": "agent", "image": AGENT_IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "infinity"], "volumeMounts": [mount]}
        must_apply(pod(SYSTEM, name, {"terminationGracePeriodSeconds": 1, "containers": [agent], "volumes": [claim]}, {"app": name}))
        wait_ready(SYSTEM, f"app={name}")
    return Agent(SYSTEM, name)


def lines():
    """The ledger's records as they lie on its volume, without what bodies said, which is sealed there."""
    done = reader().sh("cat /ledger/ledger/records/*.jsonl").succeeded("reading the ledger's records")
    return [line.split(" sealed/1 ")[0] for line in done.out.splitlines()]


def proved(line):
    """A record's line as it is hashed: without what bodies said. The digest that stays is that of what is cut."""
    return re.sub(r',"bodiesSha256":"([0-9a-f]{64})","bodies":\{.*\}$', r',"bodiesSha256":"\1"}', line)


def records(**fields):
    found = (json.loads(line) for line in lines())
    return [r for r in found if all(r.get(name) == value for name, value in fields.items())]


def arrived(word, timeout=30):
    """The ledger's records that have this word, waited for."""
    return wait_for(f"a record with {word} in the ledger", lambda: [json.loads(line) for line in lines() if word in line], timeout, 0.5)


class Copy:
    """The ledger's directory, copied out while it runs."""

    def __enter__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="chaperone-ledger-"))
        packed = reader().sh(COPY).succeeded("copying the ledger").out
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as archive:
            archive.extractall(self.folder, filter="data")
        return self.folder

    def __exit__(self, *_):
        shutil.rmtree(self.folder)


def published():
    """What the operator publishes of the log: {"origin": ..., "vkey": ...}."""
    return get("configmap", "chaperone-ledger", "-n", SYSTEM)["data"]


def verify(folder, *more, keys=None):
    keys = keys or published()["vkey"].split()
    return run(CHAPERONE, "verify", folder, *[word for key in keys for word in ("--key", key)], *more)


def covered():
    """Waits until a checkpoint is about all records: a copy made then is proved to its end."""

    def whole():
        size = int(reader().sh("sed -n 2p /ledger/ledger/checkpoint").out)
        return size == len(lines())

    wait_for("a checkpoint about all records", whole, 40, 1)


def ledger_is_ready():
    found = get("pod", LEDGER, "-n", SYSTEM)
    return found if found and not found["metadata"].get("deletionTimestamp") and is_ready(found) else None


def operator_log():
    return "".join(kubectl("logs", "-n", SYSTEM, p["metadata"]["name"]).out for p in pods(SYSTEM, "app.kubernetes.io/component=operator"))


def key():
    """The signing key, as a hash."""
    found = get("secret", "chaperone-ledger-key", "-n", SYSTEM)
    return found and hashlib.sha256(found["data"]["skey"].encode()).hexdigest()


def curl_ledger(path, token=None):
    """Status and body of a GET from a pod without sidecar."""
    agent = plain()
    root = get("mutatingwebhookconfiguration", "chaperone")["webhooks"][0]["clientConfig"]["caBundle"]
    agent.write("/tmp/root.pem", base64.b64decode(root).decode())
    headers = ["-H", f"Authorization: Bearer {token}"] if token else []
    body, status = agent.run("curl", *READ, "--cacert", "/tmp/root.pem", *headers, f"https://{HOST}:9445{path}").succeeded("curl").out.rsplit("\n", 1)
    return status, body


def token(account, audience=AUDIENCE):
    return kubectl("create", "token", account, "-n", "auditors", "--audience", audience).succeeded("kubectl create token").out.strip()


def command_line(*words):
    """Runs chaperone where the cluster can be reached, as its administrator."""
    kubeconfig = os.environ.get("KUBECONFIG", "") if EXISTING else STATE / "admin.kubeconfig"
    return in_node("env", f"KUBECONFIG={kubeconfig}", CHAPERONE, *words, timeout=60)


# --- the tests --------------------------------------------------------------------------------------------------------


@test("an agent's records reach the ledger by its pod's own token, byte for byte as they reach another sink")
def _():
    agent, word = audited(), nonce()
    agent.curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
    wait_record(word, kind="http")
    found = arrived(word)
    same([agent.name], sorted({r["agent"]["pod"] for r in found}), "whose the records are")
    stream = found[0]["stream"]
    sent = [line for line in FILE.read_text().splitlines() if f'"stream":"{stream}"' in line]
    check(len(sent) > 2, f"the collector has {len(sent)} records of the stream")
    check(any('"bodies":' in line for line in sent), "the collector has no record with what a body said")
    wait_for("the ledger has every line that the collector has", lambda: not set(map(proved, sent)) - set(lines()), 20, 1)


@test("stream.identity names pod, uid, service account, node and image digests as the API server has them")
def _():
    agent, word = audited(), nonce()
    agent.curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
    stream = arrived(word)[0]["stream"]
    found = agent.get()

    def identities():
        # Digests are known once containers run; the ledger asks again with the first batch after a minute.
        agent.curl("-o", "/dev/null", URL).succeeded("curl")
        those = [r["identity"] for r in records(kind="stream.identity") if r["identity"]["stream"] == stream]
        return those if those and those[-1].get("imageIds") else None

    identity = wait_for("a stream.identity with image digests", identities, 100, 3)[-1]
    last = identity["workload"]
    same((agent.namespace, agent.name, found["metadata"]["uid"]), (last["namespace"], last["pod"], last["uid"]), "the pod")
    same((found["spec"]["serviceAccountName"], found["spec"]["nodeName"]), (last["serviceAccount"], last["node"]), "service account and node")
    same([s["imageID"] for s in found["status"]["containerStatuses"]], identity["imageIds"], "image IDs")
    own = [r["stream"] for r in records(kind="stream.identity")]
    same(1, len(set(own)), "streams of the ledger's own")


@test("the sidecar's token for the ledger is no other container's to read")
def _():
    audited().sh("cat /var/run/secrets/chaperone.dev/ledger-token").failed("reading the token")


@test("a pod that projects a token of the ledger's audience by itself is refused")
def _():
    create_namespace("minting", LABEL)
    try:
        volume = {"name": "mine", "projected": {"sources": [{"serviceAccountToken": {"audience": AUDIENCE, "path": "t"}}]}}
        refused = apply(pod("minting", "minter", pod_spec() | {"volumes": [volume]})).failed("kubectl apply")
        holds(AUDIENCE, refused.err, "the refusal")
        holds("choose another audience", refused.err, "the refusal")
    finally:
        delete_namespaces("minting")


@test("the ledger's pod runs as an ordinary user with a read-only root and no capabilities, and may do in the API server what it needs and no more")
def _():
    found = get("pod", LEDGER, "-n", SYSTEM)
    context, container = found["spec"]["securityContext"], found["spec"]["containers"][0]["securityContext"]
    check(context["runAsNonRoot"] and context["runAsUser"] > 0, f"it runs as {context}")
    same((True, False, {"drop": ["ALL"]}), (container["readOnlyRootFilesystem"], container["allowPrivilegeEscalation"], container["capabilities"]), "its container")
    account = f"--as=system:serviceaccount:{SYSTEM}:chaperone-ledger"
    for verb, what in (("create", "tokenreviews.authentication.k8s.io"), ("create", "subjectaccessreviews.authorization.k8s.io"), ("get", "pods"), ("list", "pods"), ("watch", "namespaces"), ("create", "events.events.k8s.io"), ("list", "auditsinks.chaperone.dev")):
        same("yes", kubectl("auth", "can-i", verb, what, account, "-n", "audited").out.strip(), f"{verb} {what}")
    for verb, what in (("list", "secrets"), ("get", "secrets"), ("create", "pods"), ("get", "configmaps"), ("patch", "pods"), ("update", "auditsinks.chaperone.dev"), ("get", "/metrics")):
        same("no", kubectl("auth", "can-i", verb, what, account, "-n", SYSTEM).out.strip(), f"{verb} {what}")


@test("the log is read with a token of whom RBAC lets read it, and with no other")
def _():
    create_namespace("auditors")
    try:
        for account in ("auditor", "nobody"):
            kubectl("create", "serviceaccount", account, "-n", "auditors").succeeded()
        binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "e2e-auditors"},
                   "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "chaperone-log-reader"},
                   "subjects": [{"kind": "ServiceAccount", "name": "auditor", "namespace": "auditors"}]}
        must_apply(binding)
        status, checkpoint = wait_for("leave to read", lambda: (r := curl_ledger("/checkpoint", token("auditor")))[0] == "200" and r, 15, 1)
        same(published()["origin"], checkpoint.splitlines()[0], "the checkpoint's origin")
        system = get("namespace", "kube-system")["metadata"]["uid"]
        same(f"chaperone.dev/ledger/{system}", published()["origin"], "the origin that nobody chose")
        size = int(checkpoint.splitlines()[1])
        bundle = "/tile/entries/000" if size >= 256 else f"/tile/entries/000.p/{size}"
        same("200", curl_ledger(bundle, token("auditor"))[0], "the log's first entries")
        same("403", curl_ledger(bundle, token("nobody"))[0], "the log's first entries without a binding")
        same("403", curl_ledger("/checkpoint", token("nobody"))[0], "without a binding")
        same("401", curl_ledger("/checkpoint", token("auditor", "https://kubernetes.default.svc.cluster.local"))[0], "with a token for another audience")
        same("401", curl_ledger("/checkpoint")[0], "without token")
        covered()
        with Copy() as folder:
            kept = folder.parent / f"{folder.name}.checkpoint"
            kept.write_text(checkpoint)
            try:
                holds("kept elsewhere", verify(folder, "--checkpoint", kept).succeeded("chaperone verify").out, "the verdict")
            finally:
                kept.unlink()
    finally:
        kubectl("delete", "clusterrolebinding", "e2e-auditors", "--ignore-not-found")
        delete_namespaces("auditors")


@test("records are found by those whom RBAC lets look, in their namespace and no other, and looking is itself recorded")
def _():
    agent, word = audited(), nonce()
    agent.curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
    create_namespace("auditors")
    try:
        for account in ("auditor", "nobody"):
            kubectl("create", "serviceaccount", account, "-n", "auditors").succeeded()
        must_apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "e2e-auditor", "namespace": agent.namespace},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "chaperone-evidence-reader"},
                    "subjects": [{"kind": "ServiceAccount", "name": "auditor", "namespace": "auditors"}]})
        asked = f"/v1/records?namespace={agent.namespace}&kind=http&q={word}"

        def found():
            status, body = curl_ledger(asked, token("auditor"))
            return status == "200" and json.loads(body)["records"]

        there = wait_for("the record is found", found, 30, 1)
        same([(agent.name, 200)], [(r["record"]["agent"]["pod"], r["record"]["http"]["status"]) for r in there], "what is found")
        same("403", curl_ledger(asked, token("nobody"))[0], "without a binding")
        same("403", curl_ledger(f"/v1/records?q={word}", token("auditor"))[0], "in all namespaces")
        session = json.loads(curl_ledger(f"/v1/sessions?namespace={agent.namespace}", token("auditor"))[1])["sessions"]
        check(session, "there are sessions")
        user = "system:serviceaccount:auditors:auditor"
        reads = wait_for("looking is recorded", lambda: [line for line in lines() if '"ledger.read"' in line and user in line and word in line], 20, 1)
        check(reads, "a record of who looked")
    finally:
        kubectl("delete", "rolebinding", "e2e-auditor", "-n", agent.namespace, "--ignore-not-found")
        delete_namespaces("auditors")


@test("an auditor with the command line alone finds, replays, exports and proves what an agent did")
def _():
    agent, word = audited(), nonce()
    agent.curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
    create_namespace("auditors")
    try:
        kubectl("create", "serviceaccount", "auditor", "-n", "auditors").succeeded()
        subjects = [{"kind": "ServiceAccount", "name": "auditor", "namespace": "auditors"}]
        must_apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "e2e-auditor", "namespace": agent.namespace},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "chaperone-evidence-reader"}, "subjects": subjects})
        must_apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "e2e-auditors"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "chaperone-log-reader"}, "subjects": subjects})
        keys = [w for key in published()["vkey"].split() for w in ("--key", key)]
        who = ["--as", "auditors/auditor"]

        def found():
            done = command_line("search", "-n", agent.namespace, *who, "--kind", "http", "-o", "json", word)
            return [json.loads(line) for line in done.out.splitlines()]

        record = wait_for("the record is found", found, 30, 1)[0]
        stream, seq = record["stream"], record["seq"]
        watched = command_line("observe", "-n", agent.namespace, *who, "--since", "10m", "--kind", "http", "--no-follow")
        holds(word, watched.succeeded("chaperone observe").out, "what the ledger took")
        covered()
        asked = ["--ledger", "cluster", *who, "-n", agent.namespace]
        whole = command_line("verify", *asked, *keys, "--record", f"{stream}/{seq}", "--stream", stream)
        holds(f"record {seq} of stream {stream}: is leaf", whole.succeeded("chaperone verify").out, "the verdict")
        holds(": intact", whole.out.splitlines()[-1], "the verdict")
        # Which session it counts to depends on what the pod did before.
        sessions = json.loads(curl_ledger(f"/v1/sessions?namespace={agent.namespace}", token("auditor"))[1])["sessions"]
        names = {s["id"] for s in sessions if any(of["stream"] == stream for of in s["streams"])} | {stream}
        shown = [command_line("replay", name, "-n", agent.namespace, *who, word).out for name in names]
        check(any(word in text for text in shown), f"no session of {names} shows {word} when it is replayed: {shown}")
        with tempfile.TemporaryDirectory(prefix="chaperone-evidence-") as folder:
            bundle = Path(folder) / "bundle"
            command_line("export", *asked, *keys, "--stream", stream, "--into", bundle).succeeded("chaperone export")
            proved = run(CHAPERONE, "verify", bundle, *keys).succeeded("chaperone verify of a bundle").out
            holds("none missing between: intact", proved, "the verdict of the bundle")
            holds("audited/watch@", proved, "the policies that decided")
            holds("with their text", proved, "the policies that decided")
        nobody = command_line("search", "-n", "default", *who, word)
        same(2, nobody.code, "another namespace")
        holds("403", nobody.err, "another namespace")
    finally:
        kubectl("delete", "clusterrolebinding", "e2e-auditors", "--ignore-not-found")
        kubectl("delete", "rolebinding", "e2e-auditor", "-n", agent.namespace, "--ignore-not-found")
        delete_namespaces("auditors")


def replays_in_order(agent, word, order):
    """The session of Claude Code whose prompt has this word is replayed with these words, one after another."""
    model = wait_record(word, kind="http", operation__resource="https://api.anthropic.com/v1/messages?beta=true", agent__pod=agent.name)
    session = model["session"]["id"]
    create_namespace("auditors")
    try:
        kubectl("create", "serviceaccount", "auditor", "-n", "auditors").succeeded()
        must_apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "e2e-auditor", "namespace": agent.namespace},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "chaperone-evidence-reader"},
                    "subjects": [{"kind": "ServiceAccount", "name": "auditor", "namespace": "auditors"}]})

        def shown():
            text = command_line("replay", session, "-n", agent.namespace, "--as", "auditors/auditor", "--body-chars", "2000").succeeded("chaperone replay").out
            at = 0
            for words in order:
                at = text.find(words, at)
                check(at >= 0, f"{words!r} is not there, or not after what comes before it, in:\n{text}")
                at += len(words)
            return text

        wait_for("the whole session is replayed", shown, 30, 1)
    finally:
        kubectl("delete", "rolebinding", "e2e-auditor", "-n", agent.namespace, "--ignore-not-found")
        delete_namespaces("auditors")


@test("a replay of a session of Claude Code shows prompt, calls of tools, their effects and their results in order")
def _():
    agent, word = audited(), nonce()
    (WORLD / f"files/scratch/report-{word}.txt").write_text("a report\n")
    claude(agent, "read-and-delete", run=word).succeeded("Claude Code")
    # In the order of a transcript: what the model was told, what it called, what that did, what it was told of it.
    replays_in_order(agent, word, [
        f"[scenario read-and-delete run={word}] Please go on.", "says      I look at the customer list first.", f"customers.json?run={word}",
        f"GET https://files.example.com/customers.json?run={word}", "result    ", "says      I store a summary.", f"summary-{word}.txt",
        f"PUT https://files.example.com/scratch/summary-{word}.txt", "says      The old report is not needed any more", f"report-{word}.txt",
        "~ +", f"DELETE https://files.example.com/scratch/report-{word}.txt", "result    ", "says      I have read the list"])


@test("a replay shows the turns of Claude Code's conversation also where it is longer than what records keep of a body")
def _():
    agent, word = audited(), nonce()

    def keep(**audit):
        must_apply(watch(**audit))
        wait_for("the policy is applied", lambda: is_applied("audited", "watch"))

    keep(maxBodyBytes=8192)
    try:
        claude(agent, "count-and-read", run=word).succeeded("Claude Code")
        replays_in_order(agent, word, [
            f"[scenario count-and-read run={word}] Please go on.", "says      I count first.", "result    1 2 3 4 ", "(the record has no more)",
            "says      I look at the customer list.", f"GET https://files.example.com/customers.json?run={word}", "result    ", "says      I have counted, and read the list."])
    finally:
        keep()


# New connections to the ledger, of whatever pod, are dropped on the node.
UNREACHABLE = """table inet chaperone_e2e { chain forward { type filter hook forward priority 0; tcp dport 9445 ct state new drop; }; }"""


@test("pods without sidecar, without stream and with one that was not closed are told of and have an Event, and one that ended in good order is not")
def _():
    space = "counted"
    create_namespace(space)
    create_namespace("auditors")
    try:
        must_apply(pod(space, "early", labels={"app": "early"}))
        wait_ready(space, "app=early")
        kubectl("label", "namespace", space, "chaperone.dev/audit=enabled").succeeded()
        in_node("nft", UNREACHABLE).succeeded("nft")
        try:
            must_apply(pod(space, "mute", labels={"app": "mute"}))
            wait_ready(space, "app=mute")
            kubectl("delete", "pod", "mute", "-n", space).succeeded()
        finally:
            in_node("nft", "delete table inet chaperone_e2e")
        must_apply(*(pod(space, name, labels={"app": name}) for name in ("whole", "killed")))
        for name in ("whole", "killed"):
            wait_ready(space, f"app={name}")
            word = nonce()
            Agent(space, name).curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
            arrived(word)
        # It cannot close its stream, and is killed when its grace is over.
        run("kill", "-STOP", str(Agent(space, "killed").sidecar_pid())).succeeded()
        kubectl("delete", "pod", "killed", "-n", space, "--force", "--grace-period=0").succeeded()
        kubectl("delete", "pod", "whole", "-n", space).succeeded()

        kubectl("create", "serviceaccount", "auditor", "-n", "auditors").succeeded()
        must_apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "auditor", "namespace": space},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "chaperone-evidence-reader"},
                    "subjects": [{"kind": "ServiceAccount", "name": "auditor", "namespace": "auditors"}]})
        missing = {"early": "no-sidecar", "killed": "unclosed", "mute": "no-stream"}

        def told():
            status, body = curl_ledger(f"/v1/gaps?namespace={space}", token("auditor"))
            return status == "200" and "watchingSince" in (answer := json.loads(body)) and {g["pod"]: g["reason"] for g in answer["gaps"]} == missing

        wait_for("the ledger tells whose evidence is missing", told, 90, 2)

        def noted():
            events = get("events.events.k8s.io", "-n", space)["items"]
            return {e["regarding"]["name"] for e in events if e["reason"] == "EvidenceMissing"} == set(missing)

        wait_for("each has an Event", noted, 60, 1)
        same("403", curl_ledger("/v1/gaps", token("auditor"))[0], "about all namespaces")
        with Copy() as folder:
            copied = run(CHAPERONE, "audit", "gaps", "--dir", folder, "-n", space, "-o", "json").failed("chaperone audit gaps")
            same(missing, {g["pod"]: g["reason"] for g in json.loads(copied.out)["gaps"]}, "what a copy of the log says")
            holds("of 3 pods evidence is missing", run(CHAPERONE, "audit", "gaps", "--dir", folder, "-n", space).failed("chaperone audit gaps").out, "the text")
    finally:
        delete_namespaces(space, "auditors")


@test("an AuditSink that the ledger feeds gets what passes its filter, once, and its status says that it delivers")
def _():
    agent, word = audited(), nonce()
    sink = http_sink("from-ledger")
    sink["spec"] |= {"from": "Ledger", "start": "Now", "filter": f'record.kind == "http" && record.operation.resource.contains("{word}")'}
    must_apply(sink)
    try:
        def delivering():
            conditions = {c["type"]: c for c in get("auditsink", "from-ledger").get("status", {}).get("conditions", [])}
            return conditions.get("Delivering", {}).get("status") == "True" and conditions.get("Ready", {}).get("status") == "True"

        wait_for("the sink is there", lambda: get("auditsink", "from-ledger").get("status"), 30)
        time.sleep(3)
        agent.curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
        record = wait_for("the record in the ledger", lambda: [line for line in lines() if word in line and '"kind":"http"' in line], 30, 1)[0]
        # From the sidecar, and from the ledger.
        wait_for("the collector has it from both", lambda: [proved(line) for line in FILE.read_text().splitlines()].count(record) == 2, 30, 1)
        wait_for("the sink says that it delivers", delivering, 60, 1)
        other = nonce()
        agent.curl("-o", "/dev/null", f"{URL}?{other}").succeeded("curl")
        wait_record(other, kind="http")
        arrived(other)
        time.sleep(3)
        same(1, len([line for line in FILE.read_text().splitlines() if other in line and '"kind":"http"' in line]), "times that a record which the filter keeps back came")
    finally:
        kubectl("delete", "auditsink", "from-ledger", "--ignore-not-found")


@test("the ledger killed under load three times: nothing is lost and nothing doubled, and a copy of its volume is proved by the public key alone")
def _():
    agent, word, stop = audited(), nonce(), threading.Event()
    sent = []

    def load():
        while not stop.is_set():
            first = len(sent)
            urls = [f"{URL}?{word}-{number}-" for number in range(first, first + 40)]
            agent.curl("-f", *[w for url in urls for w in ("-o", "/dev/null", url)]).succeeded("a request while the ledger is away")
            sent.extend(urls)

    worker = threading.Thread(target=load)
    worker.start()
    away = []
    try:
        for _ in range(3):
            time.sleep(3)
            before = ledger_is_ready()["metadata"]["uid"]
            started = time.monotonic()
            kubectl("delete", "pod", LEDGER, "-n", SYSTEM, "--force", "--grace-period=0").succeeded()
            wait_for("another pod of the ledger is ready", lambda: (p := ledger_is_ready()) and p["metadata"]["uid"] != before, 90, 0.5)
            away.append(time.monotonic() - started)
        time.sleep(3)
    finally:
        stop.set()
        worker.join()
    check(len(sent) > 200, f"only {len(sent)} requests were made")
    arrived(f"{word}-{len(sent) - 1}-", 60)
    counts = Counter(number for line in lines() for number in set(re.findall(rf"\?{word}-(\d+)-", line)))
    same([], [(n, counts[str(n)]) for n in range(len(sent)) if counts[str(n)] != 1][:5], "requests that are not in the ledger exactly once")
    note(f"{len(sent)} requests while the ledger was killed three times (away {', '.join(f'{s:.0f}' for s in away)} s): each is in it once")
    covered()
    with Copy() as folder:
        verdict = verify(folder).succeeded("chaperone verify")
        holds("0 after the checkpoint: intact", verdict.out, "the verdict")
        oldest = sorted(folder.glob("records/*.jsonl"))[0]
        oldest.write_text(oldest.read_text().replace('"status":200', '"status":201', 1))
        holds("NOT INTACT", verify(folder).failed("chaperone verify of a changed copy").out, "the verdict of a changed copy")


@test("the signing key outlives the operator, is put back when it is deleted, and is never made anew")
def _():
    before, public = key(), published()
    kubectl("delete", "secret", "chaperone-ledger-key", "-n", SYSTEM).succeeded()
    wait_for("the key is back", lambda: key() == before, 20)
    kubectl("rollout", "restart", "deployment/chaperone-operator", "-n", SYSTEM).succeeded()
    kubectl("rollout", "status", "deployment/chaperone-operator", "-n", SYSTEM, "--timeout=90s").succeeded()
    same(before, key(), "the key after a restart of the operator")
    kubectl("delete", "configmap", "chaperone-ledger", "-n", SYSTEM).succeeded()
    kubectl("delete", "secret", "chaperone-ledger-serving", "-n", SYSTEM).succeeded()
    wait_for("the public key is published again", lambda: get("configmap", "chaperone-ledger", "-n", SYSTEM), 20)
    same(public, published(), "what is published")
    wait_for("the serving certificate is made again", lambda: get("secret", "chaperone-ledger-serving", "-n", SYSTEM), 20)


@test("a key that is lost while no operator runs is not made anew, and the copy that is put back is the log's")
def _():
    before, public, kept = key(), published(), base64.b64decode(get("secret", "chaperone-ledger-key", "-n", SYSTEM)["data"]["skey"]).decode()
    operator = ("deployment/chaperone-operator", "-n", SYSTEM)
    kubectl("scale", *operator, "--replicas=0").succeeded()
    # One that is about to end would put the key back.
    wait_for("no operator is left", lambda: not get("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator")["items"], 60)
    try:
        kubectl("delete", "secret", "chaperone-ledger-key", "-n", SYSTEM).succeeded()
        kubectl("scale", *operator, "--replicas=2").succeeded()
        kubectl("rollout", "status", *operator, "--timeout=90s").succeeded()
        log = wait_for("the operator says that the key is lost", lambda: "put the key back" in (text := operator_log()) and text, 30, 1)
        holds(public["vkey"].strip(), log, "the operator's log")
        same(None, key(), "a key that was made anew")
    finally:
        kubectl("create", "secret", "generic", "chaperone-ledger-key", "-n", SYSTEM, "--from-file=skey=/dev/stdin", stdin=kept)
    same(before, key(), "the key that was put back")
    kubectl("delete", "pod", LEDGER, "-n", SYSTEM).succeeded()
    wait_for("the ledger opens with it", ledger_is_ready, 60)
    same(public, published(), "what is published")


@test("a new signing key takes the place of the old one by the steps of docs/install.md, and the old one that of the new")
def _():
    origin, (old,) = published()["origin"], published()["vkey"].split()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "skey"
        new = run(binary("chaperone-ledger"), "generate-key", "--origin", origin, "--out", file).succeeded("generate-key").out.strip()
        kubectl("create", "secret", "generic", "next-key", "-n", SYSTEM, f"--from-file=skey={file}").succeeded()

    def signed_by(secrets, keys):
        """The ledger with these keys: what it publishes, what signs its checkpoint, and who proves a copy of it."""
        upgrade(*(("--set", f"ledger.keySecrets={{{','.join(secrets)}}}") if secrets else ())).succeeded("helm upgrade")
        wait_for("the keys are published", lambda: published()["vkey"].split() == keys, 20)
        wait_for("the keys sign", lambda: reader().sh(f"grep -c '^— {origin} ' /ledger/ledger/checkpoint").out.strip() == str(len(keys)), 40, 1)
        covered()
        with Copy() as copy:
            for key in (old, new):
                verdict = verify(copy, keys=[key])
                check((verdict.code == 0) == (key in keys), f"verified with {key}, signed by {keys}: {verdict!r}")

    default = "chaperone-ledger-key"
    try:
        signed_by([default, "next-key"], [old, new])
        signed_by(["next-key"], [new])
    finally:
        signed_by(["next-key", default], [new, old])
        signed_by([], [old])
        kubectl("delete", "secret", "next-key", "-n", SYSTEM)


@test("chaperone check says how the ledger is, and what is wrong while it has no pod")
def _():
    def finding():
        done = command_line("check", "-o", "json")
        found = [f for f in json.loads(done.out)["findings"] if f["check"] == "ledger"]
        return found[0]

    wait_for("the ledger is well", lambda: (f := finding())["level"] == "ok" and "chains to caBundle" in f["message"], 90, 2)
    kubectl("scale", "statefulset/chaperone-ledger", "-n", SYSTEM, "--replicas=0").succeeded()
    try:
        wait_for("the ledger's pod is gone", lambda: not get("pod", LEDGER, "-n", SYSTEM), 60)
        bad = finding()
        same("fail", bad["level"], "the finding")
        holds("records wait", bad["message"], "the finding")
        agent, word = audited(), nonce()
        agent.curl("-f", "-o", "/dev/null", f"{URL}?{word}").succeeded("a request while there is no ledger")
    finally:
        kubectl("scale", "statefulset/chaperone-ledger", "-n", SYSTEM, "--replicas=1").succeeded()
    wait_for("the ledger is ready", ledger_is_ready, 60)
    same(1, len([r for r in arrived(word, 60) if r["kind"] == "http"]), "the request's record in the ledger")
    kubectl("delete", "pod", "ledger-reader", "-n", SYSTEM).succeeded()
