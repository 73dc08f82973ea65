"""Group 7: a real Prometheus scrapes the operator and the sidecars."""

import json
import shutil
import subprocess

from .cluster import E2E, SYSTEM, WORLD, Agent, get, in_inet, in_node, is_ready, kubectl, must_apply, pod, pods, run
from .cluster import world_scripts as world
from .harness import lacks, note, same, test, wait_for
from .install import audited, enforced

CONFIG = """global: {{scrape_interval: 2s}}
scrape_configs:
  - job_name: sidecars
    file_sd_configs: [{{files: ["{folder}/sidecars.json"], refresh_interval: 1s}}]
  - job_name: operators
    file_sd_configs: [{{files: ["{folder}/operators.json"], refresh_interval: 1s}}]
"""


def start_prometheus():
    """A Prometheus in the world's namespace. Debian's is built without discovery in Kubernetes: it gets the pods' addresses as files."""
    if not shutil.which("prometheus"):
        subprocess.run(["bash", "-c", f". {E2E}/cluster/lib.sh; need_commands prometheus=prometheus"], check=True)
    folder = WORLD / "prometheus"
    folder.mkdir(exist_ok=True)
    write_targets(folder / "sidecars.json", "chaperone-http", [audited().get(), enforced().get()])
    write_targets(folder / "operators.json", "metrics", operators())
    (folder / "prometheus.yml").write_text(CONFIG.format(folder=folder))
    world.start("prometheus", "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:9090")


def write_targets(file, port_name, found):
    """What discovery would find: for each pod the port that has this name."""
    groups = []
    for item in found:
        spec = item["spec"]
        ports = [p for c in spec.get("initContainers", []) + spec["containers"] for p in c.get("ports", []) if p["name"] == port_name]
        same(1, len(ports), f"ports named {port_name} of {item['metadata']['name']}")
        groups.append({"targets": [f"{host(item)}:{ports[0]['containerPort']}"], "labels": {"pod": item["metadata"]["name"]}})
    file.write_text(json.dumps(groups))


def operators():
    return pods(SYSTEM, "app.kubernetes.io/component=operator")


def host(found):
    address = found["status"]["podIP"]
    return f"[{address}]" if ":" in address else address


def query(expression):
    """Instant query: [({label: value}, number)]."""
    done = in_inet("curl", "-sS", "--noproxy", "*", "-G", "--data-urlencode", f"query={expression}", "http://127.0.0.1:9090/api/v1/query")
    if done.code:
        return []
    return [(r["metric"], float(r["value"][1])) for r in json.loads(done.out)["data"]["result"]]


def metrics_of(found, port):
    return in_node("curl", "-sSf", "--noproxy", "*", f"http://{host(found)}:{port}/metrics").succeeded("reading metrics").out


@test("Prometheus scrapes every sidecar and both operators")
def _():
    start_prometheus()
    names = {p["metadata"]["name"] for p in operators()}
    same(2, len(names), "operators")
    wait_for("both operators are scraped", lambda: {m["pod"] for m, v in query('up{job="operators"}') if v == 1} == names, 40)
    agents = {audited().name, enforced().name}
    wait_for("the agents' sidecars are scraped", lambda: agents <= {m["pod"] for m, v in query('up{job="sidecars"}') if v == 1}, 40)


@test("what happened can be counted: requests, refusals and gaps by sidecar, connected sidecars by operator")
def _():
    enforced().curl("-X", "DELETE", "-o", "/dev/null", "https://files.example.com/scratch/none").succeeded()
    for expression in (f'sum(chaperone_http_requests_total{{pod="{audited().name}"}}) > 0', f'sum(chaperone_denials_total{{pod="{enforced().name}"}}) > 0',
                       "sum(chaperone_operator_connected_sidecars) >= 2", "sum(chaperone_operator_leader) == 1"):
        wait_for(expression, lambda e=expression: query(e), 20)


@test("promtool finds nothing to say about the metrics of sidecars and operators")
def _():
    for text in (metrics_of(audited().get(), 15020), metrics_of(operators()[0], 8080)):
        done = run("promtool", "check", "metrics", stdin=text)
        same("", (done.out + done.err).strip(), "what promtool says")
        same(0, done.code, "its exit code")


@test("no metric has a path, a host or a session for a label")
def _():
    text = metrics_of(enforced().get(), 15020)
    for word in ("files.example.com", "/hello.txt", "scratch"):
        lacks(word, text, "the sidecar's metrics")


@test("a fresh sidecar runs in little memory (measured)")
def _():
    audited()
    must_apply(pod("audited", "idle"))
    wait_for("the pod is ready", lambda: is_ready(get("pod", "idle", "-n", "audited")), 60)
    sizes = [resident(Agent("audited", "idle")), resident(audited())]
    note("resident memory of a sidecar: {:.1f} MiB fresh, {:.1f} MiB after its tests".format(*sizes))
    kubectl("delete", "pod", "idle", "-n", "audited", "--wait=false")


def resident(agent):
    """MiB."""
    return int(run("awk", "/VmRSS/ { print $2 }", f"/proc/{agent.sidecar_pid()}/status").succeeded().out) / 1024
