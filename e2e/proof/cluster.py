"""The cluster as the tests use it: kubectl and helm, pods, processes on the node."""

import json
import os
import sys
from pathlib import Path

from .harness import Failure, check, run, wait_for

E2E = Path(__file__).resolve().parent.parent
ROOT = E2E.parent
sys.path.insert(0, str(E2E / "world"))
import world as world_scripts  # noqa: E402  (the path comes first)

SETTINGS = world_scripts.SETTINGS
EXISTING = world_scripts.EXISTING
STATE = Path(SETTINGS["STATE"])
WORLD = world_scripts.WORLD
INET_IP, INET_IP6 = SETTINGS["INET_IP"], SETTINGS["INET_IP6"]
NODE_IP = SETTINGS["NODE_IP"]
SYSTEM = "chaperone-system"
AGENT_IMAGE = f"{os.environ['IMAGE_REGISTRY'] if EXISTING else 'docker.io/local'}/agent:1"


def _program(name):
    return name if EXISTING else str(STATE / "bin" / name)


def kubectl(*arguments, stdin=None, timeout=120):
    return run(_program("kubectl"), *arguments, stdin=stdin, timeout=timeout)


def helm(*arguments, timeout=300):
    return run(_program("helm"), *arguments, timeout=timeout)


def in_inet(*command, **options):
    """Runs a command on this machine where the world is."""
    return run(*world_scripts.NETNS, *command, **options)


def in_node(*command, **options):
    """Runs a command on this machine where the node is."""
    enter = [] if EXISTING else ["nsenter", f"--net=/run/netns/{SETTINGS['NODE_NETNS']}", "--"]
    return run(*enter, *command, **options)


def get(*what):
    """An object, or a list of them, as the API server has it; None when there is none."""
    done = kubectl("get", *what, "-o", "json")
    if done.code and "NotFound" in done.err:
        return None
    return json.loads(done.succeeded(f"kubectl get {' '.join(what)}").out)


def apply(*objects):
    """Applies objects (dicts) and returns the Result, which may be a refusal."""
    return kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def must_apply(*objects):
    return apply(*objects).succeeded("kubectl apply")


def create_namespace(name, labels=None):
    must_apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}})
    wait_for(f"the default service account of {name}", lambda: get("serviceaccount", "default", "-n", name))


def delete_namespaces(*names):
    kubectl("delete", "namespace", "--ignore-not-found", *names, timeout=180).succeeded("deleting namespaces")


def container(name="agent", **more):
    return {"name": name, "image": AGENT_IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "infinity"]} | more


def pod_spec(*containers, **more):
    # With this sysctl ping needs no raw socket, as on most machines.
    ping = {"sysctls": [{"name": "net.ipv4.ping_group_range", "value": "0 2147483647"}]}
    return {"terminationGracePeriodSeconds": 2, "securityContext": ping, "containers": list(containers) or [container()]} | more


def deployment(namespace, name="agent", spec=None, labels=None):
    labels = {"app": name} | (labels or {})
    template = {"metadata": {"labels": labels}, "spec": spec or pod_spec()}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, "strategy": {"type": "Recreate"}}}


def job(namespace, name, spec, backoff=0):
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": namespace},
            "spec": {"backoffLimit": backoff, "template": {"spec": {"restartPolicy": "Never"} | spec}}}


def pod(namespace, name, spec=None, labels=None):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels or {}}, "spec": spec or pod_spec()}


def pods(namespace, selector=""):
    found = get("pods", "-n", namespace, *(["-l", selector] if selector else []))
    return [p for p in found["items"] if not p["metadata"].get("deletionTimestamp")]


def is_ready(found):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found.get("status", {}).get("conditions", []))


def wait_ready(namespace, selector="app=agent", timeout=90):
    """The pods that match, once there are some and all are ready."""

    def ready():
        found = pods(namespace, selector)
        return found if found and all(is_ready(p) for p in found) else None

    try:
        return wait_for(f"pods {selector} of {namespace} are ready", ready, timeout, 0.5)
    except Failure as failure:
        raise Failure(f"{failure}\n{describe(namespace)}") from None


def describe(namespace):
    """What is wrong with a namespace's pods, for a person."""
    lines = [kubectl("get", "pods", "-n", namespace, "-o", "wide").out]
    lines.append(kubectl("get", "events", "-n", namespace, "--sort-by=.lastTimestamp").out[-1500:])
    return "\n".join(lines)


class Agent:
    """A running pod in which tests run commands as the agent would."""

    def __init__(self, namespace, name, container_name="agent"):
        self.namespace, self.name, self.container = namespace, name, container_name

    def run(self, *command, stdin=None, timeout=60):
        tty = ["-i"] if stdin is not None else []
        return kubectl("exec", *tty, "-n", self.namespace, self.name, "-c", self.container, "--", *command, stdin=stdin, timeout=timeout)

    def sh(self, script, timeout=60):
        """Runs a shell script in the pod."""
        return self.run("bash", "-c", script, timeout=timeout)

    def python(self, script, *arguments, timeout=60):
        return self.run("python3", "-c", script, *arguments, timeout=timeout)

    def curl(self, *arguments, timeout=60):
        """curl, silent but for errors, that gives up after 15 s."""
        return self.run("curl", "-sS", "--max-time", "15", *arguments, timeout=timeout)

    def write(self, path, text):
        self.run("sh", "-c", f"cat > {path}", stdin=text).succeeded(f"writing {path}")

    def get(self):
        return get("pod", self.name, "-n", self.namespace)

    def sidecar_log(self):
        return kubectl("logs", "-n", self.namespace, self.name, "-c", "chaperone-sidecar").out

    def sidecar_pid(self):
        """The sidecar's process id on this machine; None while it does not run."""
        for status in self.get()["status"].get("initContainerStatuses", []):
            if status["name"] == "chaperone-sidecar" and "running" in status["state"]:
                return container_pid(status["containerID"].removeprefix("containerd://"))
        return None


def container_pid(container_id):
    tasks = run("ctr", "--address", SETTINGS.get("CONTAINERD", STATE / "containerd.sock"), "--namespace", "k8s.io", "tasks", "ls").succeeded().out
    for line in tasks.splitlines():
        words = line.split()
        if words and words[0] == container_id and words[2] == "RUNNING":
            return int(words[1])
    return None


def restart_daemon(name):
    check(not EXISTING, "daemons are restarted only in the cluster of our own")
    run(E2E / "cluster/restart", name).succeeded(f"restarting {name}")
