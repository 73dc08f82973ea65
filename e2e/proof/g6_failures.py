"""Group 6: parts die; running pods carry on, and no evidence is lost."""

import json
import subprocess
import time

from . import cluster
from .cluster import SYSTEM, kubectl, pods, restart_daemon, run
from .cluster import world_scripts as world
from .harness import check, nonce, note, same, test, wait_for
from .install import CHAPERONE, NO_DELETE, apply_policy, delete_policy, enforced, policy, reached, start_agent
from .records import find, verify, wait_record

KILLS = 20
FILES = "https://files.example.com"
OPERATOR = ("deployment/chaperone-operator", "-n", SYSTEM)


def still_ruled(agent):
    """Requests pass and are judged as before."""
    same("200", agent.curl("-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/hello.txt").out, "a GET")
    same("403", agent.curl("-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/scratch/none").out, "a DELETE")


def deny_all_works(agent, name):
    """A new policy reaches the pod."""
    apply_policy(policy(agent.namespace, name, "Enforce", [{"name": "all", "match": {"hosts": ["files.example.com"]}, "action": "Deny"}]), timeout=60)
    same("403", agent.curl("-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/hello.txt").out, "a GET under the new policy")
    delete_policy(agent.namespace, name)
    wait_for("the policy is gone from the pod", lambda: agent.curl("-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/hello.txt").out == "200")


def restart_count(agent):
    return next(s["restartCount"] for s in agent.get()["status"]["initContainerStatuses"] if s["name"] == "chaperone-sidecar")


@test("one operator replica killed: webhooks answer and policies go on")
def _():
    agent = enforced()
    victim = pods(SYSTEM, "app.kubernetes.io/component=operator")[0]["metadata"]["name"]
    kubectl("delete", "pod", victim, "-n", SYSTEM, "--force", "--grace-period=0").succeeded()
    still_ruled(agent)
    deny_all_works(agent, "one-replica")
    kubectl("rollout", "status", *OPERATOR, "--timeout=60s").succeeded()


@test("both operator replicas away: running pods carry on under the last good policies; afterwards their streams return")
def _():
    agent = enforced()
    before = restart_count(agent)
    kubectl("scale", *OPERATOR, "--replicas=0").succeeded()
    wait_for("no operator is left", lambda: not pods(SYSTEM, "app.kubernetes.io/component=operator"), 60)
    try:
        still_ruled(agent)
    finally:
        kubectl("scale", *OPERATOR, "--replicas=2").succeeded()
        kubectl("rollout", "status", *OPERATOR, "--timeout=90s").succeeded()
    started = time.monotonic()
    deny_all_works(agent, "both-replicas")
    note(f"both operators away and back: a new policy applied {time.monotonic() - started:.1f} s after they were ready")
    same(before, restart_count(agent), "restarts of the sidecar")


@test("the API server restarted: running pods carry on, and streams return")
def _():
    agent = enforced()
    before = restart_count(agent)
    restart_daemon("apiserver")
    still_ruled(agent)
    deny_all_works(agent, "api-server")
    same(before, restart_count(agent), "restarts of the sidecar")


@test("the collector away for a while: records wait in the spool and arrive")
def _():
    agent, word = enforced(), nonce()
    world.stop("sink")
    try:
        for index in range(20):
            agent.curl("-o", "/dev/null", f"{FILES}/hello.txt?{word}-{index}.").succeeded("a request during the outage")
        same([], find(f"{word}-0."), "records that arrived during the outage")
    finally:
        world.start_sink()
    wait_for("all records arrive", lambda: all(find(f"{word}-{index}.") for index in range(20)), 40)


# Four workers ask for numbered files; each complete answer is printed.
LOAD = """import http.client, sys, threading, time
end, lock, word = time.time() + float(sys.argv[1]), threading.Lock(), sys.argv[2]
def work(worker):
    connection, index = None, 0
    while time.time() < end:
        index += 1
        name = f"{word}-{worker}-{index}."
        try:
            connection = connection or http.client.HTTPSConnection("files.example.com", timeout=5)
            connection.request("GET", f"/hello.txt?{name}")
            response = connection.getresponse()
            if response.read() and response.status == 200:
                with lock: print(name, flush=True)
        except Exception:
            connection = None; time.sleep(0.02)
        time.sleep(0.01)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]"""


def kill_sidecar(agent):
    pid = wait_for("the sidecar runs", agent.sidecar_pid, 30, 0.1)
    before = restart_count(agent)
    run("kill", "-KILL", str(pid)).succeeded()
    wait_for("the sidecar's container is restarted", lambda: restart_count(agent) > before and agent.sidecar_pid(), 45, 0.2)


@test("the sidecar killed 20 times under load: the chain verifies, and no record is missing between its first and its last")
def _():
    agent, word = start_agent("loaded", policies=[policy("loaded", "guard", "Enforce", [NO_DELETE])]), nonce()
    load = subprocess.Popen([cluster._program("kubectl"), "exec", "-n", "loaded", agent.name, "-c", "agent", "--", "python3", "-uc", LOAD, "600", word],
                            stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    started = time.monotonic()
    for _ in range(KILLS):
        kill_sidecar(agent)
        wait_for("requests pass again", lambda: agent.curl("-f", "-o", "/dev/null", f"{FILES}/hello.txt").code == 0, 20)
    seconds = time.monotonic() - started
    agent.sh("pkill -f http.client")
    answered = load.communicate(timeout=20)[0].split()
    check(len(answered) > KILLS * 5, f"the load was {len(answered)} requests")
    end = nonce()
    agent.curl(f"{FILES}/hello.txt?{end}").succeeded()
    wait_record(end, kind="http", timeout=30)
    verify(CHAPERONE).succeeded("chaperone verify")
    places = sorted(r["seq"] for r in find(agent__pod=agent.name))
    same(list(range(len(places))), places, "sequence numbers at the collector")
    same(1, len({r["stream"] for r in find(agent__pod=agent.name)}), "streams of the pod")
    same(KILLS, len(find(kind="stream.resume", agent__pod=agent.name)), "recorded restarts")
    recorded = {r["operation"]["resource"].rsplit("?", 1)[-1] for r in find(word, kind="http", agent__pod=agent.name)}
    lost = [name for name in answered if name not in recorded]
    note(f"{KILLS} kills in {seconds:.0f} s: {len(answered)} answered requests, {len(lost)} without a record (their sidecar died before it had written it)")
    check(len(lost) <= KILLS * 8, f"{len(lost)} answered requests have no record: {lost[:10]}")


@test("what a killed sidecar had written to its standard output has also reached the collector")
def _():
    found = pods("loaded", "app=agent")[0]["metadata"]["name"]
    log = kubectl("logs", "-n", "loaded", found, "-c", "chaperone-sidecar", "--previous").out
    places = [(r["stream"], r["seq"]) for r in (json.loads(line) for line in log.splitlines() if line.startswith('{"v":'))]
    check(places, "the killed sidecar wrote records to its standard output")
    collected = {(r["stream"], r["seq"]) for r in find(agent__pod=found)}
    same([], [p for p in places if p not in collected], "records that the collector lacks")


@test("between a sidecar's death and its return nothing leaves the pod unread")
def _():
    agent = enforced()
    word = nonce()
    script = f"""for i in $(seq 60); do curl -s -k --max-time 1 -o /dev/null 'http://files.example.com/hello.txt?{word}-'$i.; done"""
    probing = subprocess.Popen([cluster._program("kubectl"), "exec", "-n", "enforced", agent.name, "-c", "agent", "--", "bash", "-c", script])
    kill_sidecar(agent)
    probing.wait(90)
    wait_for("the sidecar works again", lambda: agent.curl(f"{FILES}/hello.txt").code == 0, 30)
    arrived = {line.split("?", 1)[1].split(" ")[0] for line in reached(word)}
    end = nonce()
    agent.curl(f"{FILES}/hello.txt?{end}").succeeded()
    wait_record(end, kind="http")
    unrecorded = [a for a in arrived if not find(a, kind="http")]
    check(len(unrecorded) <= 1, f"requests that arrived without a record (one may have been under way when the sidecar died): {unrecorded} of {len(arrived)}")
