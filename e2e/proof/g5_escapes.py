"""Group 5: ways out, tried from inside as root. Each fails, or is a recorded gap where Audit lets it pass."""

import json

from .cluster import (AGENT_IMAGE, INET_IP, INET_IP6, WORLD, Agent, apply, kubectl, pod, pod_spec, run)
from .harness import check, holds, lacks, nonce, same, test, wait_for
from .install import apply_policy, audited, delete_policy, enforced, policy, reached
from .records import wait_record

FILES = "https://files.example.com"

UDP = """import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(2)
try:
    s.sendto(sys.argv[3].encode(), (sys.argv[1], int(sys.argv[2]))); print('echo', s.recv(100).decode())
except OSError as error:
    print('none', error)"""


def arrived(word):
    """Whether the datagram or line with this word reached the world."""
    log = WORLD / "log/raw.log"
    return word in (log.read_text() if log.exists() else "")


def send_udp(agent, ip, port=7007):
    word = nonce()
    return word, agent.python(UDP, ip, str(port), word).succeeded().out


@test("UDP: Audit passes it and records the flow as a gap")
def _():
    for ip in (INET_IP, INET_IP6):
        word, out = send_udp(audited(), ip)
        holds(f"echo {word}", out, f"what came back from {ip}")
        gap = wait_record(kind="gap", gap__reason="datagram", agent__pod=audited().name, destination__ip=ip)
        same((7007, "Allow"), (gap["destination"]["port"], gap["decision"]["action"]), "port and action")


@test("UDP: Enforce refuses it and records that, over IPv4 and IPv6")
def _():
    for ip in (INET_IP, INET_IP6):
        word, out = send_udp(enforced(), ip)
        holds("none", out, f"what came back from {ip}")
        check(not arrived(word), f"the datagram reached {ip}")
        gap = wait_record(kind="gap", gap__reason="datagram", agent__pod=enforced().name, destination__ip=ip)
        same("Deny", gap["decision"]["action"], "action")


@test("UDP: Enforce passes it where a rule allows the address")
def _():
    rule = {"name": "echo", "match": {"protocols": ["udp"], "hosts": [INET_IP], "ports": [7007]}, "action": "Allow"}
    apply_policy(policy("enforced", "echo", "Enforce", [rule]))
    try:
        word, out = send_udp(enforced(), INET_IP)
        holds(f"echo {word}", out, "what came back")
    finally:
        delete_policy("enforced", "echo")
    word, out = send_udp(enforced(), INET_IP)
    holds("none", out, "what came back once the rule is gone")


@test("QUIC's port is refused in both modes, so that clients fall back to TCP")
def _():
    for agent in (audited(), enforced()):
        word, out = send_udp(agent, INET_IP, 443)
        holds("none", out, f"what came back in {agent.namespace}")
        wait_record(kind="gap", gap__reason="quic", agent__pod=agent.name)


@test("ICMP: Audit passes it as a gap, Enforce refuses it")
def _():
    # A copy has no file capability: Debian's ping asks for NET_RAW, which no container has, and can do without.
    ping = f"cp /usr/bin/ping /tmp/ping; /tmp/ping -c 1 -W 2 {INET_IP}"
    audited().sh(ping).succeeded("ping in Audit")
    wait_record(kind="gap", agent__pod=audited().name, operation__protocol="icmp")
    enforced().sh(ping).failed("ping in Enforce")


@test("raw and packet sockets can't be opened")
def _():
    script = """import socket
for family, kind, protocol in ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_INET, socket.SOCK_RAW, 255), (socket.AF_INET6, socket.SOCK_RAW, 58), (socket.AF_PACKET, socket.SOCK_RAW, 768)):
    try: socket.socket(family, kind, protocol); print('open')
    except PermissionError: print('refused')"""
    for agent in (audited(), enforced()):
        same(["refused"] * 4, agent.python(script).succeeded().out.split(), f"raw sockets in {agent.namespace}")


@test("the firewall mark can't be set, and the sidecar's uid alone does not exempt")
def _():
    script = """import os, socket
s = socket.socket()
try: s.setsockopt(socket.SOL_SOCKET, 36, 0x43686170); print('marked')
except PermissionError: print('refused')"""
    same("refused", enforced().python(script).succeeded().out.strip(), "setting the mark")
    word = nonce()
    path = WORLD / f"files/scratch/{word}.txt"
    path.write_text("still here\n")
    script = """import os, subprocess, sys
os.setgid(64646); os.setuid(64646)
sys.exit(subprocess.call(['curl', '-sS', '--max-time', '8', '-X', 'DELETE', '-w', '%{http_code}', sys.argv[1]]))"""
    done = enforced().python(script, f"{FILES}/scratch/{word}.txt")
    lacks("204", done.out, "a DELETE as the sidecar's uid")
    check(path.exists(), "the file is still there")


@test("the rules can't be listed, flushed or deleted from the agent's container")
def _():
    for command in ("nft list ruleset", "nft flush ruleset", "nft delete table inet chaperone", "ip link set eth0 down", "ip route add 1.2.3.4 via 10.244.0.1"):
        done = enforced().sh(command)
        check(done.code != 0 or not done.out.strip(), f"{command}: {done!r}")
    same("403", enforced().curl("-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/scratch/none").out, "a DELETE afterwards")


@test("the sidecar can't be seen, signalled or asked from the agent's container")
def _():
    agent = enforced()
    lacks("chaperone-sidecar", agent.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out.replace("cat", ""), "processes")
    agent.sh("kill -9 -1; true")
    own = agent.get()["status"]["podIP"]
    for address in ("127.0.0.1", "[::1]", own):
        for port, path in ((15020, "/metrics"), (15020, "/healthz")):
            done = agent.curl("--max-time", "4", f"http://{address}:{port}{path}")
            check(done.code != 0 or "chaperone_" not in done.out, f"{address}:{port}{path} answered: {done!r}")
    for port in (15001, 15053):
        done = agent.curl("--max-time", "4", "-w", "%{http_code}", f"http://127.0.0.1:{port}/")
        check("200" not in done.out, f"port {port} answered: {done!r}")


@test("direct connections to an address with a false name are refused: another Host than SNI in both modes")
def _():
    for agent in (audited(), enforced()):
        word = nonce()
        done = agent.curl("-w", "%{http_code}", "-H", "Host: files.example.com", f"https://api.anthropic.com/hello.txt?{word}")
        holds("421", done.out, f"SNI api.anthropic.com, Host files in {agent.namespace}")
        same([], reached(word), "requests that arrived")
        same("Deny", wait_record(word, kind="http", agent__pod=agent.name)["decision"]["action"], "action")


@test("in clear text a Host whose address is another is refused in Enforce, a would-deny in Audit")
def _():
    for agent, seen in ((audited(), "200"), (enforced(), "403 421")):
        word = nonce()
        done = agent.curl("-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: kubernetes.default.svc.cluster.local", f"http://{INET_IP}/hello.txt?{word}")
        holds(done.out.strip(), seen, f"status in {agent.namespace}")
        record = wait_record(word, kind="http", agent__pod=agent.name)
        if agent is audited():
            same(True, record["decision"].get("wouldDeny"), "wouldDeny")
        else:
            same([], reached(word), "requests that arrived")


@test("a server certificate for another name than the SNI is refused in Enforce")
def _():
    done = enforced().curl("-k", "-w", "%{http_code}", "--connect-to", f"::{INET_IP}:443", "https://prometheus.example.com/hello.txt")
    lacks("hello from", done.out, "the answer")


@test("DNS to any server is answered by the sidecar's resolver")
def _():
    done = enforced().sh(f"dig +short +time=2 +tries=1 @{INET_IP} files.example.com A; dig +short +tcp +time=2 +tries=1 @{INET_IP} files.example.com A")
    same([INET_IP, INET_IP], done.out.split(), "answers of a server that is none")


@test("IPv6 is captured as IPv4 is")
def _():
    word = nonce()
    done = enforced().curl("-6", "-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/scratch/{word}")
    same("403", done.out, "a DELETE over IPv6")
    same(INET_IP6, wait_record(word, kind="http")["destination"]["ip"], "address in the record")


def refused_pod(change, word, what):
    """A pod with this change is refused with a sentence that has the word and says what to change."""
    spec = pod_spec()
    change(spec)
    done = apply(pod("enforced", "escape", spec))
    if done.code == 0:
        kubectl("delete", "pod", "escape", "-n", "enforced", "--force")
    done.failed(f"a pod with {what}")
    holds(word, done.err, f"the refusal of {what}")
    lacks("panic", done.err, "the refusal")


def container_change(**more):
    return lambda spec: spec["containers"][0].update(more)


def security(**context):
    return container_change(securityContext=context)


def volume(source, path="/mnt", **mount):
    def change(spec):
        spec["volumes"] = [{"name": "v"} | source]
        spec["containers"][0]["volumeMounts"] = [{"name": (({"name": "v"}) | source)["name"], "mountPath": path} | mount]

    return change


@test("pods that could undo capture are refused, each with what to change")
def _():
    enforced()
    token = {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "chaperone.dev/operator"}}]}}
    cases = [
        (lambda s: s.update(hostNetwork=True), "hostNetwork", "hostNetwork"),
        (lambda s: s.update(hostPID=True), "hostPID", "hostPID"),
        (lambda s: s.update(shareProcessNamespace=True), "shareProcessNamespace", "shareProcessNamespace"),
        (lambda s: s["securityContext"].update(runAsUser=64646), "64646", "the sidecar's uid for the pod"),
        (security(runAsUser=64646), "64646", "the sidecar's uid for a container"),
        (security(privileged=True), "privileged", "privileged"),
        (security(capabilities={"add": ["NET_ADMIN"]}), "NET_ADMIN", "NET_ADMIN"),
        (security(capabilities={"add": ["SYS_ADMIN"]}), "SYS_ADMIN", "SYS_ADMIN"),
        (container_change(name="chaperone-sidecar"), "chaperone-sidecar", "the sidecar's name"),
        (volume(token), "audience", "a token of the sidecar's audience"),
        (volume({"name": "chaperone-token", "emptyDir": {}}), "chaperone-token", "the sidecar's volume name"),
    ]
    for change, word, what in cases:
        refused_pod(change, word, what)


@test("a container can't mount the sidecar's volumes")
def _():
    enforced()
    for name in ("chaperone-token", "chaperone-spool"):
        refused_pod(container_change(volumeMounts=[{"name": name, "mountPath": "/mnt"}]), name, f"a mount of {name}")


@test("an ephemeral container with the sidecar's uid or NET_ADMIN is refused; a restricted one is captured")
def _():
    agent = enforced()

    def debug(name, context):
        found = agent.get()
        extra = {"name": name, "image": AGENT_IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "60"], "securityContext": context}
        found["spec"].setdefault("ephemeralContainers", []).append(extra)
        return kubectl("replace", "--raw", f"/api/v1/namespaces/enforced/pods/{agent.name}/ephemeralcontainers", "-f", "-", stdin=json.dumps(found))

    dropped = {"drop": ["NET_ADMIN", "NET_RAW"]}
    holds("64646", debug("as-sidecar", {"runAsUser": 64646, "capabilities": dropped}).failed("debug as the sidecar").err, "the refusal")
    holds("NET_ADMIN", debug("admin", {"capabilities": {"add": ["NET_ADMIN"]}}).failed("debug with NET_ADMIN").err, "the refusal")
    debug("plain", {"capabilities": dropped}).succeeded("debug with dropped capabilities")
    inside = Agent("enforced", agent.name, "plain")
    wait_for("the ephemeral container runs", lambda: inside.run("true").code == 0, 30)
    word = nonce()
    # It has no trust variables; it is captured all the same.
    same("403", inside.curl("-k", "-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/scratch/{word}").out, "a DELETE from it")


@test("a running pod's sidecar, label or annotations can't be changed")
def _():
    agent = enforced()
    name = ("pod", agent.name, "-n", "enforced")
    kubectl("label", *name, "chaperone.dev/injected-").failed("removing the label")
    kubectl("label", *name, "--overwrite", "chaperone.dev/injected=false").failed("changing the label")
    patch = {"spec": {"initContainers": [{"name": "chaperone-sidecar", "image": AGENT_IMAGE}]}}
    holds("sidecar", kubectl("patch", *name, "--type=strategic", "-p", json.dumps(patch)).failed("changing the sidecar's image").err, "the refusal")


@test("DNS: a name that a rule denies is refused with the rule's name, and a would-deny in Audit")
def _():
    rule = {"name": "no-names", "match": {"protocols": ["dns"], "hosts": ["*.evil.example.com"]}, "action": "Deny", "message": "Not these."}
    for agent, mode in ((audited(), "Audit"), (enforced(), "Enforce")):
        word = nonce()
        apply_policy(policy(agent.namespace, "names", mode, [rule]))
        try:
            out = agent.sh(f"dig +time=2 +tries=1 {word}.evil.example.com A").out
        finally:
            delete_policy(agent.namespace, "names")
        decision = wait_record(word, kind="dns", agent__pod=agent.name)["decision"]
        if mode == "Enforce":
            holds("REFUSED", out, "the status that dig shows")
            holds("rule no-names: Not these.", out, "the extended error that dig shows")
            same(("Deny", "no-names"), (decision["action"], decision["rule"]), "action and rule")
        else:
            lacks("REFUSED", out, "the status that dig shows")
            same(("Allow", True), (decision["action"], decision.get("wouldDeny")), "action and wouldDeny")


@test("DNS: data in names is refused in Enforce after few kilobytes, and a would-deny in Audit")
def _():
    script = """import random, socket, string, sys
random.seed(sys.argv[1]); refused = 0
for _ in range(180):
    label = ''.join(random.choice(string.ascii_lowercase + '234567') for _ in range(60))
    query = b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + bytes([60]) + label.encode() + b'\\6' + sys.argv[1][:6].encode() + b'\\7example\\0\\0\\1\\0\\1'
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(6); s.sendto(query, ('192.0.2.53', 53))
    try: refused += s.recv(512)[3] & 15 == 5
    except OSError: pass
print(refused)"""
    for agent, least in ((audited(), 0), (enforced(), 30)):
        refused = int(agent.python(script, nonce()).succeeded().out)
        check(refused >= least and (least or not refused), f"{refused} of 180 names refused in {agent.namespace}")
        decision = wait_record(kind="dns", agent__pod=agent.name, decision__reason="dns-tunnel")["decision"]
        same("Deny" if least else "Allow", decision["action"], "action")


@test("the cloud's metadata address is closed in Enforce and a would-deny in Audit")
def _():
    for agent in (audited(), enforced()):
        word = nonce()
        agent.curl("--max-time", "15", f"http://169.254.169.254/latest/meta-data/{word}")
        decision = wait_record(word, kind="http", agent__pod=agent.name)["decision"]
        same("metadata-address", decision["reason"], "reason")
        if agent is enforced():
            same("Deny", decision["action"], "action")
        else:
            same(True, decision.get("wouldDeny"), "wouldDeny")


@test("SCTP, DCCP, UDP-Lite and Multipath TCP do not leave in Enforce")
def _():
    script = """import socket, sys
for kind, protocol in ((socket.SOCK_STREAM, 132), (socket.SOCK_SEQPACKET, 132), (6, 33), (socket.SOCK_DGRAM, 136)):
    try:
        s = socket.socket(socket.AF_INET, kind, protocol); s.settimeout(2); s.connect((sys.argv[1], 7007)); s.send(sys.argv[2].encode()); print('sent')
    except OSError as error: print('none', error)"""
    word = nonce()
    enforced().python(script, INET_IP, word).succeeded()
    check(not arrived(word), "the word arrived")


@test("a user namespace gives no rights over the pod's network")
def _():
    mark = "import socket; socket.socket().setsockopt(1, 36, 0x43686170); print('marked')"
    for agent in (audited(), enforced()):
        for command in ("nft flush ruleset", "ip link set eth0 down", f'python3 -c "{mark}"'):
            done = agent.sh(f"unshare -Ur {command} && echo DONE")
            lacks("DONE", done.out, f"{command} in a user namespace of {agent.namespace}")


@test("loopback in its other forms reaches no port of the sidecar, and it has no abstract sockets")
def _():
    agent = enforced()
    for address in ("127.0.0.2", "127.255.255.254", "0.0.0.0", "[::]", "[::ffff:127.0.0.1]"):
        for port in (15001, 15020, 15053):
            agent.curl("--max-time", "4", f"http://{address}:{port}/metrics").failed(f"{address}:{port}")
    lacks("@", agent.sh("cat /proc/net/unix").out, "sockets of the pod's network namespace")


@test("with the sidecar stopped there is no network")
def _():
    agent = enforced()
    pid = agent.sidecar_pid()
    word = nonce()
    run("kill", "-STOP", str(pid)).succeeded()
    try:
        for url in (f"{FILES}/hello.txt?{word}", f"http://{INET_IP}/hello.txt?{word}"):
            agent.curl("--max-time", "3", "-k", url).failed(f"{url} without the sidecar")
        same("none", agent.python(UDP, INET_IP, "7007", word).out.split()[0], "UDP without the sidecar")
        same([], reached(word), "requests that arrived")
        check(not arrived(word), "a datagram arrived")
    finally:
        run("kill", "-CONT", str(pid)).succeeded()
    wait_for("the sidecar works again", lambda: agent.curl(f"{FILES}/hello.txt").code == 0, 30)
