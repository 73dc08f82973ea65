"""Group 9: the chart upgrades, tests itself, and goes without a trace."""


from .cluster import SYSTEM, get, helm, kubectl, must_apply, pod, pod_spec, pods
from .harness import holds, nonce, same, test
from .install import CHAPERONE, CHART, RELEASE, enforced, upgrade
from .records import verify, wait_record
from .cluster import WORLD

FILES = "https://files.example.com"


@test("rendering the chart twice gives the same bytes")
def _():
    first, second = (helm("template", RELEASE, CHART, "-n", SYSTEM, "-f", WORLD / "values.json").succeeded().out for _ in range(2))
    same(first, second, "the rendered chart")


@test("a value that does not exist is refused by the schema")
def _():
    holds("replica", helm("template", RELEASE, CHART, "--set", "operator.replica=3").failed("helm template").err, "the refusal")


@test("helm upgrade replaces the operator and leaves running agents alone")
def _():
    agent = enforced()
    before = {p["metadata"]["uid"] for p in pods(SYSTEM, "app.kubernetes.io/component=operator")}
    upgrade("--set", "logLevel=debug").succeeded("helm upgrade")
    after = {p["metadata"]["uid"] for p in pods(SYSTEM, "app.kubernetes.io/component=operator")}
    same(set(), before & after, "operator pods of before the upgrade")
    same("200", agent.curl("-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/hello.txt").out, "a GET of a running agent")
    same(0, sum(s["restartCount"] for s in agent.get()["status"]["containerStatuses"]), "restarts of the agent")


@test("helm test passes")
def _():
    kubectl("delete", "namespace", "late", "--ignore-not-found")
    helm("test", RELEASE, "-n", SYSTEM, "--timeout", "100s").succeeded("helm test")


@test("helm uninstall: labelled namespaces can create pods, running agents carry on, and only what must stay is left")
def _():
    agent = enforced()
    helm("uninstall", RELEASE, "-n", SYSTEM, "--wait", "--timeout", "90s").succeeded("helm uninstall")
    must_apply(pod("enforced", "after", pod_spec()))
    found = get("pod", "after", "-n", "enforced")
    same([], found["spec"].get("initContainers", []), "init containers of a pod made afterwards")
    same("403", agent.curl("-X", "DELETE", "-o", "/dev/null", "-w", "%{http_code}", f"{FILES}/scratch/none").out, "a DELETE of a running agent")
    kinds = "deployments,statefulsets,services,serviceaccounts,configmaps,roles,rolebindings,poddisruptionbudgets,networkpolicies"
    ours = [f"{o['kind']}/{o['metadata']['name']}" for o in get(kinds, "-n", SYSTEM)["items"] if "chaperone" in o["metadata"]["name"]]
    same(["ConfigMap/chaperone-ledger", "ConfigMap/chaperone-ledger-checkpoint"], sorted(ours), "what is left in the namespace: public key and newest checkpoint of the evidence")
    wide = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations"
    same([], [o["metadata"]["name"] for o in get(wide)["items"] if "chaperone" in o["metadata"]["name"]], "what is left in the cluster")
    same(3, len([c for c in get("crds")["items"] if c["spec"]["group"] == "chaperone.dev"]), "resource definitions, which stay with the policies")


@test("installed again, it works as before, with the root that running agents trust")
def _():
    agent = enforced()
    upgrade().succeeded("helm install")
    kubectl("delete", "pod", "after", "-n", "enforced", "--wait=false")
    must_apply(pod("enforced", "again", pod_spec()))
    same("chaperone-sidecar", get("pod", "again", "-n", "enforced")["spec"]["initContainers"][0]["name"], "first init container")
    word = nonce()
    agent.curl("-f", "-o", "/dev/null", f"{FILES}/hello.txt?{word}").succeeded("a GET of the old agent")
    wait_record(word, kind="http")


@test("a pod that is deleted closes its stream, and all that was collected verifies")
def _():
    agent = enforced()
    kubectl("delete", "pod", agent.name, "-n", "enforced").succeeded()
    wait_record(kind="stream.close", agent__pod=agent.name, timeout=30)
    verify(CHAPERONE).succeeded("chaperone verify")
