"""Group 11: a sidecar that is killed, for its memory or by hand, while nobody restarts it."""

import os
import signal
import subprocess
import time
from pathlib import Path

from . import cluster
from .cluster import EXISTING, INET_IP, STATE, container_pid
from .g5_escapes import arrived
from .g6_failures import restart_count
from .harness import check, nonce, note, run, same, test, wait_for
from .install import CHAPERONE, policy, reached, start_agent
from .records import find, verify, wait_record

# Flows that may be under way to their record when the sidecar is killed.
LOST_WITH_THE_SIDECAR = 4
LIMIT_BYTES = 40 * 1024 * 1024
# A rule that reads bodies makes the sidecar hold each until it is whole: 1 MB a request.
READS_BODIES = {"name": "bodies", "match": {"hosts": ["files.example.com"], "methods": ["PUT"]}, "when": "http.body.x == 1", "action": "Deny"}

# Sends requests of which the last byte is missing, one each tenth of a second, once it is told to.
HOG = """import os, socket, sys, time
while not os.path.exists('/tmp/go'): time.sleep(0.05)
held = []
try:
    for index in range(60):
        s = socket.create_connection((sys.argv[1], 80), 5); s.settimeout(5)
        head = f'PUT /scratch/{sys.argv[2]}-{index} HTTP/1.1\\r\\nHost: files.example.com\\r\\nContent-Type: application/json\\r\\nContent-Length: 1000000\\r\\n\\r\\n'
        s.sendall(head.encode() + b' ' * 999999); held.append(s); time.sleep(0.1)
    time.sleep(10)
except OSError as error: print('ended by', error)"""

# Tries TCP and UDP again and again; a line each time: number, begin, end, what came back.
PROBE = """import http.client, socket, sys, time
address, word, until = sys.argv[1], sys.argv[2], time.time() + 45
def get(host, name):
    connection = http.client.HTTPConnection(host, timeout=1)
    connection.request('GET', f'/hello.txt?{name}'); return connection.getresponse().status
def udp(name):
    # A port of its own for each: the same one again within conntrack's time is the same flow.
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(0.2); s.bind(('', 20000 + index)); s.sendto(name.encode(), (address, 7007)); return s.recv(99) and 'echo'
index = 0
while time.time() < until:
    index += 1; begin = time.time(); seen = []
    for kind, attempt in (('tcp', lambda n: get(address, n)), ('udp', udp)):
        try: seen.append(str(attempt(f'{word}-{kind}-{index}.')))
        except OSError: seen.append('none')
    print(index, begin, time.time(), *seen, flush=True); time.sleep(0.1)"""


def memory_files(pid):
    """What limits the memory of a process's container, of cgroup v2 or v1; the second one counts swap too."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers and (group := Path("/sys/fs/cgroup" + path) / "memory.max").exists():
            return [group]
        if "memory" in controllers.split(","):
            group = Path("/sys/fs/cgroup/memory" + path)
            return [f for f in (group / "memory.limit_in_bytes", group / "memory.memsw.limit_in_bytes") if f.exists()]
    raise AssertionError(f"process {pid} has no cgroup that limits memory")


def begin(agent, script, *arguments):
    command = [cluster._program("kubectl"), "exec", "-n", agent.namespace, agent.name, "-c", "agent", "--", "python3", "-uc", script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def rules_of(agent):
    """The packet filter in the agent's network, as the node sees it."""
    status = next(s for s in agent.get()["status"]["containerStatuses"] if s["name"] == "agent")
    pid = container_pid(status["containerID"].removeprefix("containerd://"))
    return lambda: run("nsenter", f"--net=/proc/{pid}/ns/net", "nft", "list", "table", "inet", "chaperone").succeeded("listing the rules").out


def killed_for_memory(agent, pid):
    """Has the kernel kill the sidecar. Returns when it was down: (from, to)."""
    for file in memory_files(pid):
        file.write_text(str(LIMIT_BYTES))
    agent.sh("touch /tmp/go").succeeded()
    return down_while_the_kubelet_sleeps(agent, pid, lambda: None)


def down_while_the_kubelet_sleeps(agent, pid, kill):
    """The sidecar dies and nobody restarts it for some seconds. Returns when it was down: (from, to)."""
    kubelet = int((STATE / "pid/kubelet").read_text())
    rules = rules_of(agent)
    before = rules()
    os.kill(kubelet, signal.SIGSTOP)
    try:
        check(Path(f"/proc/{pid}/exe").exists(), "the sidecar lives until the kubelet sleeps")
        kill()
        wait_for("the sidecar dies", lambda: not is_alive(pid), 20, 0.05)
        since = time.time()
        time.sleep(4)
        same(before, rules(), "the packet filter's rules while the sidecar is dead")
        return since, time.time()
    finally:
        os.kill(kubelet, signal.SIGCONT)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@test("a sidecar that the kernel kills for its memory: no network until the kubelet has restarted it, then records go on in one chain, and nothing passed unrecorded")
def _():
    check(not EXISTING, "the kubelet is stopped only in the cluster of our own")
    agent, word = start_agent("hungry", policies=[policy("hungry", "bodies", "Enforce", [READS_BODIES])]), nonce()
    pid, before = agent.sidecar_pid(), restart_count(agent)
    probe, hog = begin(agent, PROBE, INET_IP, word), begin(agent, HOG, INET_IP, f"{word}-held")
    wait_for("the first probes arrive", lambda: len(reached(f"{word}-tcp-")) > 3)
    since, until = killed_for_memory(agent, pid)
    wait_for("the kubelet restarts it", lambda: restart_count(agent) > before and agent.sidecar_pid(), 60)
    ended = next(s for s in agent.get()["status"]["initContainerStatuses"] if s["name"] == "chaperone-sidecar")["lastState"]["terminated"]
    same(("OOMKilled", 137), (ended["reason"], ended["exitCode"]), "how the sidecar's container ended")
    attempts = [line.split() for line in probe.communicate(timeout=90)[0].splitlines()]
    hog.communicate(timeout=30)
    was_cut_off(attempts, word, since, until)
    is_recorded(agent, word)


def was_cut_off(attempts, word, since, until):
    down = [a for a in attempts if float(a[1]) > since and float(a[2]) < until]
    check(len(down) > 5, f"{len(down)} attempts while the sidecar was dead, of {len(attempts)}")
    same({("none", "none")}, {tuple(a[3:]) for a in down}, "what came back while the sidecar was dead")
    for index in (a[0] for a in down):
        same([], reached(f"{word}-tcp-{index}."), "requests that arrived while the sidecar was dead")
        check(not arrived(f"{word}-udp-{index}."), "a datagram arrived while the sidecar was dead")
    back = next((float(a[2]) for a in attempts if float(a[1]) > until and a[3] == "200"), None)
    check(back, "requests pass again")
    note(f"a sidecar killed: {len(down)} attempts in {until - since:.1f} s without it, none left; requests pass {back - until:.1f} s after the kubelet woke")


def is_recorded(agent, word):
    end = nonce()
    agent.curl(f"https://files.example.com/hello.txt?{end}").succeeded()
    wait_record(end, kind="http", agent__pod=agent.name)
    same([], reached(f"{word}-held"), "requests that arrived of those that were held")
    seen = [line.split("?", 1)[1].split(" ")[0] for line in reached(f"{word}-tcp-")]
    unrecorded = [name for name in seen if not find(name, kind="http", agent__pod=agent.name)]
    check(len(unrecorded) <= 1, f"requests that arrived without a record (one may have been under way): {unrecorded} of {len(seen)}")
    places = sorted(r["seq"] for r in find(agent__pod=agent.name))
    same(list(range(len(places))), places, "sequence numbers at the collector")
    same((1, 1), (len({r["stream"] for r in find(agent__pod=agent.name)}), len(find(kind="stream.resume", agent__pod=agent.name))), "streams and recorded restarts")
    verify(CHAPERONE).succeeded("chaperone verify")


@test("a sidecar killed in Audit: the datagrams that pass it unread stop with it, and each flow that left is a gap")
def _():
    check(not EXISTING, "the kubelet is stopped only in the cluster of our own")
    agent, word = start_agent("datagrams"), nonce()
    pid, before = agent.sidecar_pid(), restart_count(agent)
    probe = begin(agent, PROBE, INET_IP, word)
    wait_for("the first datagrams arrive", lambda: arrived(f"{word}-udp-3."))
    since, until = down_while_the_kubelet_sleeps(agent, pid, lambda: os.kill(pid, signal.SIGKILL))
    wait_for("the kubelet restarts it", lambda: restart_count(agent) > before and agent.sidecar_pid(), 60)
    attempts = [line.split() for line in probe.communicate(timeout=90)[0].splitlines()]
    was_cut_off(attempts, word, since, until)
    after = [a for a in attempts if float(a[1]) > until and a[4] == "echo"]
    check(len(after) > 5, f"{len(after)} datagrams were answered after the restart")
    left = [a for a in attempts if arrived(f"{word}-udp-{a[0]}.")]
    end = nonce()
    agent.curl(f"https://files.example.com/hello.txt?{end}").succeeded()
    wait_record(end, kind="http", agent__pod=agent.name)
    gaps = len(find(kind="gap", gap__reason="datagram", agent__pod=agent.name))
    # The kernel gathers what it logs for a twentieth of a second, and the sidecar what it writes for another: what is under way when it is killed is lost. Some ten flows begin in a second here,
    # and on a busy machine everything takes longer.
    check(gaps >= len(left) - LOST_WITH_THE_SIDECAR, f"{len(left)} flows of datagrams left, {gaps} are recorded")
    note(f"{len(left)} flows of datagrams left, {gaps} are recorded")
    verify(CHAPERONE).succeeded("chaperone verify")
