"""Group 1: label, deploy, injected."""

from .cluster import (AGENT_IMAGE, container, get, job, kubectl, must_apply, pod, pod_spec, pods, wait_ready)
from .harness import check, holds, lacks, nonce, same, test, wait_for
from .install import CHAPERONE, audited, plain, start_agent
from .records import FILE, find, verify, wait_record

SIDECAR = "chaperone-sidecar"
URL = "https://files.example.com/hello.txt"


def names(items):
    return [item["name"] for item in items]


def added_capabilities(item):
    return item.get("securityContext", {}).get("capabilities", {})


@test("a pod in a labelled namespace has the sidecar as its first init container, which stays and has a startup probe")
def _():
    spec = audited().get()["spec"]
    first = spec["initContainers"][0]
    same(SIDECAR, first["name"], "the first init container")
    same("Always", first.get("restartPolicy"), "its restart policy")
    same("/startupz", first["startupProbe"]["httpGet"]["path"], "its startup probe")
    security = first["securityContext"]
    same(64646, security["runAsUser"], "its uid")
    same({"drop": ["ALL"], "add": ["NET_ADMIN"]}, security["capabilities"], "its capabilities")
    same(True, security["readOnlyRootFilesystem"], "its root is read-only")


@test("all other containers trust the bundle through their environment, and have neither NET_RAW nor NET_ADMIN")
def _():
    found = audited().get()
    agent = found["spec"]["containers"][0]
    environment = {e["name"]: e.get("value") for e in agent["env"]}
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "JAVA_TOOL_OPTIONS"):
        check(name in environment, f"the agent's environment lacks {name}: {sorted(environment)}")
    mount = next(m for m in agent["volumeMounts"] if m["mountPath"] == "/var/run/chaperone/trust")
    same(True, mount.get("readOnly"), "the trust bundle is mounted read-only")
    same({"NET_ADMIN", "NET_RAW"}, set(added_capabilities(agent)["drop"]), "what the agent's container drops")
    same("true", found["metadata"]["labels"]["chaperone.dev/injected"], "the label of injected pods")


@test("the agent cannot write the trust bundle, and no other container sees the sidecar's token or spool")
def _():
    agent = audited()
    agent.sh("echo x >> /var/run/chaperone/trust/ca-bundle.pem").failed("writing the trust bundle")
    agent.sh("ls /var/run/secrets/chaperone.dev /var/lib/chaperone/spool").failed("listing the sidecar's volumes")


@test("a pod in a namespace without the label is untouched")
def _():
    found = plain().get()
    same([], names(found["spec"].get("initContainers", [])), "init containers")
    lacks("chaperone", str(found["spec"]), "the pod's spec")
    plain().curl("-k", URL).succeeded("curl without Chaperone")


@test("a Job's pod completes although its sidecar would run for ever, and its stream is closed in good order")
def _():
    word = nonce()
    audited()
    init = container("prepare", command=["curl", "-fsS", f"{URL}?init={word}"])
    main = container(command=["sh", "-c", f"curl -fsS '{URL}?main={word}'"])
    must_apply(job("audited", "once", pod_spec(main, initContainers=[init])))
    done = wait_for("the Job is complete", lambda: (get("job", "once", "-n", "audited")["status"].get("succeeded")), 60)
    same(1, done, "succeeded pods of the Job")
    name = pods("audited", "job-name=once")[0]["metadata"]["name"]
    close = wait_record(kind="stream.close", agent__pod=name)
    seen = [r["seq"] for r in find(agent__pod=name)]
    same(close["close"]["records"], len(seen), "records of the closed stream")
    wait_record(f"main={word}", kind="http", agent__pod=name, http__status=200)


@test("an init container's curl is captured")
def _():
    name = pods("audited", "job-name=once")[0]["metadata"]["name"]
    record = wait_record("init=", kind="http", agent__pod=name)
    same(200, record["http"]["status"], "status")


@test("pods of a CronJob and of a StatefulSet are injected too")
def _():
    audited()
    template = {"spec": {"restartPolicy": "Never"} | pod_spec(container(command=["true"]))}
    must_apply({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly", "namespace": "audited"},
                "spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}}})
    kubectl("create", "job", "-n", "audited", "--from=cronjob/nightly", "nightly-now").succeeded()
    must_apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "steady", "namespace": "audited"},
                "spec": {"serviceName": "steady", "selector": {"matchLabels": {"app": "steady"}},
                         "template": {"metadata": {"labels": {"app": "steady"}}, "spec": pod_spec()}}})
    wait_for("the CronJob's Job is complete", lambda: get("job", "nightly-now", "-n", "audited")["status"].get("succeeded"), 60)
    steady = wait_ready("audited", "app=steady")[0]
    for found in [steady, pods("audited", "job-name=nightly-now")[0]]:
        same(SIDECAR, found["spec"]["initContainers"][0]["name"], f"first init container of {found['metadata']['name']}")
    kubectl("delete", "statefulset/steady", "cronjob/nightly", "-n", "audited", "--wait=false")


@test("a trust variable that the user had set is kept, and reported as a warning and an annotation")
def _():
    audited()
    spec = pod_spec(container(command=["true"], env=[{"name": "SSL_CERT_FILE", "value": "/mine.pem"}, {"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx64m"}]))
    done = must_apply(pod("audited", "own-roots", spec | {"restartPolicy": "Never"}))
    holds("SSL_CERT_FILE", done.err, "kubectl's warnings")
    found = get("pod", "own-roots", "-n", "audited")
    environment = {e["name"]: e.get("value") for e in found["spec"]["containers"][0]["env"]}
    same("/mine.pem", environment["SSL_CERT_FILE"], "SSL_CERT_FILE")
    holds("-Xmx64m", environment["JAVA_TOOL_OPTIONS"], "JAVA_TOOL_OPTIONS")
    holds("truststore.p12", environment["JAVA_TOOL_OPTIONS"], "JAVA_TOOL_OPTIONS")
    holds("agent/SSL_CERT_FILE", found["metadata"]["annotations"]["chaperone.dev/kept-env"], "the annotation")


@test("a pod that predates the label is named in an Event that says to restart it")
def _():
    start_agent("late", labels={})
    kubectl("label", "namespace", "late", "chaperone.dev/audit=enabled").succeeded()
    wait_for("an Event about the old pod", lambda: "restart" in kubectl("get", "events", "-n", "late", "-o", "jsonpath={.items[*].message}").out.lower(), 75)
    kubectl("delete", "namespace", "late", "--wait=false")


@test("a stream begins with the pod's full identity, as the API server says it")
def _():
    agent = audited()
    record = wait_record(kind="stream.open", agent__pod=agent.name)
    identity, found = record["open"]["identity"], agent.get()
    same(0, record["seq"], "its place")
    same(found["metadata"]["uid"], identity["uid"], "uid")
    same(found["spec"]["nodeName"], identity["node"], "node")
    same("default", identity["serviceAccount"], "service account")
    same("agent", identity["labels"]["app"], "label app")
    same([AGENT_IMAGE], identity["images"], "images")


@test("chaperone verify proves the collected log, and names the record that was changed")
def _():
    verify(CHAPERONE).succeeded("chaperone verify")
    lines = FILE.read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines[:-1]) if '"kind":"http"' in line and i > 2)
    lines[at] = lines[at].replace('"kind":"http"', '"kind":"dns"', 1)
    changed = FILE.with_name("changed.jsonl")
    changed.write_text("".join(lines))
    done = verify(CHAPERONE, changed)
    same(1, done.code, "exit code for a changed log")
    check(any(ch.isdigit() for ch in done.out + done.err), f"it names the record: {done!r}")
    changed.unlink()
