"""Group 12: the node and the control plane as destinations of an agent."""

from .cluster import EXISTING, INET_IP, NODE_IP, STATE
from .harness import check, holds, lacks, nonce, same, test, wait_for
from .install import apply_policy, audited, delete_policy, enforced, policy
from .records import find, wait_record

API_SERVER, KUBELET = "kubernetes.default.svc", "kubelet.chaperone.alt"
# The node by its own address, and by the one that it has in the pods' network, which no pod is told.
NODE, NODE_FROM_PODS = NODE_IP, "10.244.0.1"
CODE = ("-w", " [%{http_code}]")
BY_NAME, BY_PORT = {"hosts": [KUBELET]}, {"ports": [10250, 10255]}


def rule(name, match, action="Deny"):
    return {"name": name, "match": match, "action": action}


def under(agent, mode, rules, does, **spec):
    """Does something while the agent's namespace has one more policy."""
    apply_policy(policy(agent.namespace, "node", mode, rules, **spec))
    try:
        does()
    finally:
        delete_policy(agent.namespace, "node")


def ask(agent, url, *options):
    done = agent.curl("-k", *CODE, *options, url)
    return done.out + done.err


def record_of(agent, word=None, **fields):
    """The last such record of the agent. Waits for a new one: call it after `forget`."""
    return wait_for(f"a record with {word!r} and {fields}", lambda: [r for r in find(word, agent__pod=agent.name, **fields) if place(r) not in SEEN])[-1]


SEEN = set()


def place(record):
    return record["stream"], record["seq"]


def forget(agent):
    """From now on only records that come later are new."""
    SEEN.update(place(r) for r in find(agent__pod=agent.name))


@test("the kubelet of the node over TLS: Audit passes it unread as a gap of its name, Enforce refuses it")
def _():
    for agent, seen, action in ((audited(), "Unauthorized [401]", "Allow"), (enforced(), "[502]", "Deny")):
        forget(agent)
        holds(seen, ask(agent, f"https://{NODE}:10250/pods"), f"what {agent.namespace} hears")
        gap = record_of(agent, kind="gap", gap__reason="unverifiable-upstream", destination__port=10250)
        same((KUBELET, NODE, action), (gap["destination"]["host"], gap["destination"]["ip"], gap["decision"]["action"]), "host, address and action")
        holds("extraRoots", gap["gap"]["detail"], "the gap's detail")


@test("the kubelet of the node in clear text is read like any server, and records have its name")
def _():
    for agent in (audited(), enforced()):
        word = nonce()
        holds('"kind":"PodList"', ask(agent, f"http://{NODE}:10255/pods?{word}"), f"what {agent.namespace} hears")
        record = wait_record(word, kind="http", agent__pod=agent.name)
        same((KUBELET, NODE, 10255, 200), (*(record["destination"][k] for k in ("host", "ip", "port")), record["http"]["status"]), "host, address, port and status")


@test("a rule on the kubelet's name or on its ports closes it in Enforce by each address of the node, and is a would-deny in Audit")
def _():
    for name, match in (("by-name", BY_NAME), ("by-port", BY_PORT)):
        under(enforced(), "Enforce", [rule(name, match)], lambda name=name: closed_to(enforced(), name))
        under(audited(), "Audit", [rule(name, match)], lambda name=name: would_be_closed_to(audited(), name))


def closed_to(agent, name):
    for ip in (NODE, NODE_FROM_PODS):
        word = nonce()
        holds("[403]", ask(agent, f"http://{ip}:10255/pods?{word}"), f"{ip} in clear text")
        decision = wait_record(word, kind="http", agent__pod=agent.name)["decision"]
        same(("Deny", name), (decision["action"], decision["rule"]), "action and rule")
        lacks("Unauthorized", ask(agent, f"https://{ip}:10250/pods"), f"{ip} over TLS")


def would_be_closed_to(agent, name):
    for ip in (NODE, NODE_FROM_PODS):
        forget(agent)
        word = nonce()
        holds("[200]", ask(agent, f"http://{ip}:10255/healthz?{word}"), f"{ip} in clear text")
        holds("[401]", ask(agent, f"https://{ip}:10250/pods"), f"{ip} over TLS")
        for record in (wait_record(word, kind="http", agent__pod=agent.name), record_of(agent, kind="gap", destination__ip=ip, destination__port=10250)):
            decision = record["decision"]
            same(("Allow", True, name), (decision["action"], decision.get("wouldDeny"), decision.get("rule")), f"action, wouldDeny and rule of {ip}")


@test("under a default Deny the kubelet's name opens that of the own node, and no other address")
def _():
    agent = enforced()

    def opens():
        holds("ok [200]", ask(agent, f"http://{NODE}:10255/healthz"), "the own node's kubelet")
        holds("[403]", ask(agent, f"http://{NODE_FROM_PODS}:10255/healthz"), "an address that may be any node's")
        holds("[403]", ask(agent, f"http://{INET_IP}:10255/"), "another server at that port")
        holds("[403]", ask(agent, f"http://{NODE}:10249/healthz"), "another port of the node")

    under(agent, "Enforce", [rule("kubelet", BY_NAME, "Allow")], opens, defaultAction="Deny")


@test("a kubelet whose certificate a policy's roots vouch for is read in Enforce, and its rules hold whatever name it is asked by")
def _():
    agent = enforced()
    check(not EXISTING, "the kubelet's own certificate is known in the cluster of our own")
    # The kubelet made its certificate itself, for the node's name, under an authority of its own that it appends.
    authority = "-----BEGIN" + (STATE / "kubelet/pki/kubelet.crt").read_text().split("-----BEGIN")[-1]
    roots = {"upstreams": [{"hosts": ["node1"], "caBundle": authority}]}
    by_name = lambda path: ask(agent, f"https://node1:10250/{path}", "--resolve", f"node1:10250:{NODE}")

    def is_read():
        word = nonce()
        holds("Unauthorized [401]", by_name(f"pods?{word}"), "the kubelet's answer")
        record = wait_record(word, kind="http", agent__pod=agent.name)
        same((KUBELET, "node1", 401), (record["destination"]["host"], record["destination"]["sni"], record["http"]["status"]), "host, SNI and status")

    under(agent, "Enforce", [], is_read, tls=roots)
    under(agent, "Enforce", [rule("no-kubelet", BY_NAME)], lambda: holds("[403]", by_name("pods"), "the answer under the rule"), tls=roots)


def api_server(agent, host, *options):
    """Asks the API server for its version, which it tells anyone."""
    return agent.sh(f"curl -sSk --max-time 10 {' '.join(options)} --connect-to ::$KUBERNETES_SERVICE_HOST:443 https://{host}/version")


# By its names in DNS, by its address, and by the name of another server.
API_NAMES = (API_SERVER, f"{API_SERVER}.cluster.local", "$KUBERNETES_SERVICE_HOST", "files.example.com")


@test("a rule on the API server's name closes it in Enforce by whatever name it is asked, and is a would-deny in Audit")
def _():
    no_api = [rule("no-api", {"hosts": [API_SERVER]})]

    def is_closed():
        for host in API_NAMES:
            forget(enforced())
            lacks("gitVersion", api_server(enforced(), host).failed(f"asking {host}").out, "its answer")
            gap = record_of(enforced(), kind="gap", gap__reason="api-server")
            same((API_SERVER, "Deny", "no-api"), (gap["destination"]["host"], gap["decision"]["action"], gap["decision"]["rule"]), f"host, action and rule by {host}")

    def would_be_closed():
        for host in API_NAMES:
            forget(audited())
            holds("gitVersion", api_server(audited(), host).succeeded(f"asking {host}").out, "its answer")
            gap = record_of(audited(), kind="gap", gap__reason="api-server")
            same((API_SERVER, True, "no-api"), (gap["destination"]["host"], gap["decision"].get("wouldDeny"), gap["decision"]["rule"]), f"host, wouldDeny and rule by {host}")

    under(enforced(), "Enforce", no_api, is_closed)
    under(audited(), "Audit", no_api, would_be_closed)


@test("under a default Deny the name of an allowed server gives no leave to reach the API server")
def _():
    agent = enforced()

    def stays_closed():
        api_server(agent, "files.example.com").failed("the API server by the name of the file server")
        api_server(agent, API_SERVER).failed("the API server by its name")
        same("200", agent.curl("-o", "/dev/null", "-w", "%{http_code}", "https://files.example.com/hello.txt").out, "the file server")

    under(agent, "Enforce", [rule("files", {"hosts": ["files.example.com"]}, "Allow")], stays_closed, defaultAction="Deny")

    def opens():
        holds("gitVersion", api_server(agent, API_SERVER).succeeded().out, "its answer by its name")
        holds("gitVersion", api_server(agent, "$KUBERNETES_SERVICE_HOST").succeeded().out, "its answer by its address")

    under(agent, "Enforce", [rule("api", {"protocols": ["tls"], "hosts": [API_SERVER]}, "Allow")], opens, defaultAction="Deny")
