"""Group 14: the ledger with a shared store: a volume's log moves into a database, replicas take over from each other, and the log stays whole. It runs last: the ledger has no volume afterwards."""

import atexit
import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .cluster import EXISTING, SETTINGS, STATE, SYSTEM, WORLD, create_namespace, get, in_inet, is_ready, job, kubectl, must_apply, pods, wait_ready, world_scripts
from .g13_ledger import URL, command_line, published
from .harness import check, holds, nonce, run, same, test, wait_for
from .install import LABEL, image, start_agent, upgrade

SELECTOR = "app.kubernetes.io/component=ledger"
PASSWORD = "correct horse"
WHO = ["--as", "auditors/auditor"]
LEADER = "SELECT holder FROM chaperone_ledger_lease WHERE until > now()"


class Database:
    """Debian's PostgreSQL among the servers of the world, as db.example.com, over TLS."""

    def __init__(self):
        self.bin = max(Path("/usr/lib/postgresql").iterdir(), key=lambda p: int(p.name)) / "bin"
        self.folder = Path(tempfile.mkdtemp(prefix="chaperone-e2e-postgres-"))
        for ending in ("crt", "key"):
            shutil.copy(WORLD / f"pki/world.{ending}", self.folder / ending)
        (self.folder / "password").write_text(PASSWORD)
        run("chown", "-R", "postgres:postgres", self.folder).succeeded()
        run("chmod", "-R", "go-rwx", self.folder).succeeded()
        self.data = self.folder / "data"
        self.run("initdb", "-U", "postgres", "-A", "scram-sha-256", "--no-sync", f"--pwfile={self.folder}/password", "-D", self.data)
        with open(self.data / "postgresql.conf", "a") as file:
            file.write(f"listen_addresses = '*'\nunix_socket_directories = ''\nssl = on\nssl_cert_file = '{self.folder}/crt'\nssl_key_file = '{self.folder}/key'\n")
        with open(self.data / "pg_hba.conf", "w") as file:
            file.write("hostssl all all all scram-sha-256\n")
        self.start()

    def run(self, program, *words):
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "env", "-C", self.folder]
        # Its servers would hold a pipe open.
        with open(os.devnull, "w") as nothing:
            done = subprocess.run([str(w) for w in (*world_scripts.NETNS, *as_postgres, self.bin / program, *words)], stdout=nothing, stderr=nothing, timeout=60)
        same(0, done.returncode, program)

    def start(self):
        self.run("pg_ctl", "start", "-w", "-D", self.data, "-l", self.folder / "log")

    def crash(self):
        self.run("pg_ctl", "stop", "-m", "immediate", "-D", self.data)

    def query(self, statement):
        where = f"host={SETTINGS['INET_IP'] or '127.0.0.1'} dbname=postgres user=postgres sslmode=require"
        done = in_inet("env", f"PGPASSWORD={PASSWORD}", "psql", "-XqAt", "-c", statement, where)
        return done.succeeded(statement).out.split()

    def end(self):
        """By pid: the world may be gone by then. The ledger has its volume again at the next installation."""
        if EXISTING or (STATE / "bin/kubectl").exists():
            kubectl("delete", "statefulset/chaperone-ledger", "-n", SYSTEM, "--ignore-not-found")
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        # Whoever takes the world down may have ended it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
        wait_for("the database ends", lambda: not Path(f"/proc/{pid}").exists())
        shutil.rmtree(self.folder)


@functools.cache
def database():
    made = Database()
    atexit.register(made.end)
    return made


def store():
    return {"host": "db.example.com", "database": "postgres", "user": "postgres", "caBundle": (WORLD / "pki/ca.pem").read_text(),
            "passwordSecret": {"name": "ledger-db", "key": "password"}}


def shared_values():
    file = WORLD / "shared.json"
    file.write_text(json.dumps({"ledger": {"shared": {"replicas": 2, "postgres": store()}}}))
    return ["-f", file]


def volume(name, **source):
    return {"name": name} | source


@functools.cache
def moved():
    """A ledger of two replicas with the log that a volume had, moved as docs/shared-store.md says; and an agent that was there before."""
    database()
    agent = start_agent("grown", LABEL)
    word = nonce()
    agent.curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
    create_namespace("auditors")
    kubectl("create", "serviceaccount", "auditor", "-n", "auditors").succeeded()
    for kind, role in (("evidence", "chaperone-evidence-reader"), ("log", "chaperone-log-reader")):
        must_apply({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"e2e-shared-{kind}"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                    "subjects": [{"kind": "ServiceAccount", "name": "auditor", "namespace": "auditors"}]})
    found(word)
    kubectl("scale", "statefulset", "chaperone-ledger", "-n", SYSTEM, "--replicas=0").succeeded()
    wait_for("the ledger's pod is gone", lambda: not get("pods", "-n", SYSTEM, "-l", SELECTOR)["items"], 60, 1)
    must_apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ledger-db", "namespace": SYSTEM}, "stringData": {"password": PASSWORD}},
               {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "share", "namespace": SYSTEM}, "data": {"store.yaml": json.dumps({"postgres": store()})}})
    mounts = [("data", "/var/lib/chaperone"), ("key", "/key"), ("share", "/share"), ("ledger-db", "/secrets/ledger-db")]
    spec = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
        "containers": [{"name": "share", "image": image("chaperone-ledger"), "imagePullPolicy": "IfNotPresent",
                        "args": ["share", "--dir=/var/lib/chaperone/ledger", "--key-file=/key/skey", "--shared=/share/store.yaml", "--shared-secrets=/secrets"],
                        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts]}],
        "volumes": [volume("data", persistentVolumeClaim={"claimName": "data-chaperone-ledger-0"}), volume("key", secret={"secretName": "chaperone-ledger-key"}),
                    volume("share", configMap={"name": "share"}), volume("ledger-db", secret={"secretName": "ledger-db"})],
    }
    must_apply(job(SYSTEM, "share", spec))
    kubectl("wait", "-n", SYSTEM, "--for=condition=complete", "--timeout=90s", "job/share").succeeded("the job: " + kubectl("logs", "-n", SYSTEM, "job/share").out)
    holds("are shared now", kubectl("logs", "-n", SYSTEM, "job/share").out, "what the job says")
    kubectl("delete", "job/share", "configmap/share", "statefulset/chaperone-ledger", "-n", SYSTEM).succeeded()
    upgrade(*shared_values()).succeeded("helm upgrade")
    wait_ready(SYSTEM, SELECTOR)
    found(word)
    return agent


def found(word):
    """The record with this word, as the ledger's search has it."""

    def ask():
        done = command_line("search", "-n", "grown", *WHO, "--kind", "http", "-o", "json", word)
        return [json.loads(line) for line in done.out.splitlines()] if done.code == 0 else None

    return wait_for(f"a record with {word} is found", ask, 90, 1)


def verified():
    keys = [w for key in published()["vkey"].split() for w in ("--key", key)]

    def ask():
        done = command_line("verify", "--ledger", "cluster", *WHO, "-n", "grown", *keys)
        return done if done.code == 0 else None

    holds(": intact", wait_for("the log proves itself", ask, 60, 2).out.splitlines()[-1], "the verdict")


def works(agent):
    """The agent goes on, its record is taken, and the log is whole."""
    word = nonce()
    agent.curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
    found(word)
    verified()


def leader():
    """The pod that leads."""
    return wait_for("a replica leads", lambda: database().query(LEADER), 60, 1)[0]


@test("a ledger that has a volume becomes replicas with a shared store, with its log, and agents go on")
def _():
    agent = moved()
    same(2, len(pods(SYSTEM, SELECTOR)), "replicas")
    claims = get("statefulset", "chaperone-ledger", "-n", SYSTEM)["spec"].get("volumeClaimTemplates")
    check(not claims, f"the set has claims: {claims}")
    works(agent)


@test("both replicas are ready, one leads, and chaperone check finds nothing wrong with them")
def _():
    moved()
    names = [p["metadata"]["name"] for p in pods(SYSTEM, SELECTOR) if is_ready(p)]
    same(["chaperone-ledger-0", "chaperone-ledger-1"], sorted(names), "ready replicas")
    check(leader() in names, f"{leader()} leads")
    said = command_line("check").out
    check("records are lost with" not in said and "emptyDir" not in said, f"chaperone check says\n{said}")


@test("the pod that leads is killed: the other takes over, and nothing that was acknowledged is missing")
def _():
    agent, before = moved(), leader()
    word = nonce()
    agent.curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
    found(word)
    kubectl("delete", "pod", before, "-n", SYSTEM, "--force", "--grace-period=0").succeeded()
    wait_for("another leads", lambda: [l for l in database().query(LEADER) if l != before] or wait_ready(SYSTEM, SELECTOR), 60, 1)
    works(agent)
    found(word)
    wait_ready(SYSTEM, SELECTOR)


@test("an upgrade replaces the replicas one by one, and agents go on meanwhile")
def _():
    agent = moved()
    upgrade(*shared_values(), "--set", "ledger.podAnnotations.round=two").succeeded("helm upgrade")
    works(agent)


@test("a database that crashes is waited for: records stay with the agents, and arrive when it is back")
def _():
    agent, word = moved(), nonce()
    database().crash()
    try:
        agent.curl("-o", "/dev/null", f"{URL}?{word}").succeeded("curl")
    finally:
        database().start()
    found(word)
    verified()
