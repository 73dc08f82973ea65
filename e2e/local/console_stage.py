"""What the console's tests stand on: a ledger with a session in it, an API server that knows three users, and headless Chromium. All on loopback."""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .stage import CACHE, ROOT, STATE, interpreter, sh

SELENIUM = "selenium==4.47.0"
AXE = "axe-core@4.14.1"
# Screenshots, kept after the run.
ARTEFACTS = Path(os.environ.get("CHAPERONE_ARTEFACTS", CACHE / "artefacts")) / "console"
ORIGIN = "ledger.test/console"
POD = "claude-0"

# What an agent could write to get at whoever looks.
HOSTILE = "</pre></td><script>window.owned=1</script><img src=//evil.example/x onerror=window.owned=2><svg onload=window.owned=3>\u202e\U000e0041 \" autofocus onfocus=\"window.owned=4"

POLICY = {
    "apiVersion": "chaperone.dev/v1alpha1", "kind": "AgentPolicy", "metadata": {"name": "coding", "namespace": "agents", "generation": 4},
    "spec": {"mode": "Enforce", "rules": [{"name": "no-delete", "match": {"protocols": ["http"]}, "when": 'http.method == "DELETE" && !http.path.startsWith("/drafts/")', "action": "Deny", "message": "Deleting is for people."}]},
}


# --- an API server ---------------------------------------------------------------------------------------------


class ApiServer(BaseHTTPRequestHandler):
    """`reader` may see all, `team` and the provider's group `audit` what is in namespace agents, `pod` writes; every other token is nobody's."""

    def do_POST(self):
        spec = json.loads(self.rfile.read(int(self.headers["content-length"])))["spec"]
        if self.place().endswith("/tokenreviews"):
            user = {"username": spec["token"], "groups": ["system:authenticated"]}
            if spec["token"] == "pod":
                user = {"username": "system:serviceaccount:agents:coder", "extra": {"authentication.kubernetes.io/pod-name": [POD], "authentication.kubernetes.io/pod-uid": ["u1"]}}
            known = spec["token"] in ("reader", "team", "pod")
            self.answer({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {}, "status": {"authenticated": known, "audiences": spec["audiences"], "user": user}})
        else:
            resource = spec.get("resourceAttributes") or {}
            is_team = spec["user"] == "team" or "oidc:audit" in (spec.get("groups") or [])
            allowed = spec["user"] == "reader" or is_team and resource.get("namespace") == "agents"
            self.answer({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {}, "status": {"allowed": allowed}})

    def do_GET(self):
        if self.place().endswith(f"/pods/{POD}"):
            containers = {"initContainers": [{"name": "chaperone-sidecar"}], "containers": [{"name": "agent", "image": "claude:1"}]}
            self.answer({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": POD, "namespace": "agents", "uid": "u1"}, "spec": {"serviceAccountName": "coder", "nodeName": "n", **containers}})
        elif self.place().endswith("/agentpolicies/coding"):
            self.answer(POLICY)
        else:
            self.answer({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404}, 404)

    def place(self):
        return self.path.split("?")[0]

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# --- records ---------------------------------------------------------------------------------------------------


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Stream:
    """Records of one stream, each with the hash of the one before."""

    def __init__(self):
        self.name, self.seq, self.prev, self.time = str(uuid.uuid4()), 0, "0" * 64, time.time() - 600

    def line(self, kind, deleted=False, **fields):
        """The next record. Texts of bodies stand at its end, or are left out as deleted ones are."""
        self.time += 0.7
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.time)) + f".{int(self.time % 1 * 1e6):06}Z"
        head = {"v": "chaperone.dev/v2", "stream": self.name, "seq": self.seq, "prev": self.prev, "time": stamp, "kind": kind}
        agent = {"namespace": "agents", "pod": POD, "serviceAccount": "coder"}
        http = fields.get("http", {})
        texts = {f"http.{name}": {"text": http[name].pop("text")} for name in ("requestBody", "responseBody") if "text" in http.get(name, {})}
        proved = line = compact({**head, "agent": agent, **fields})
        if texts:
            tail = compact({"salt": os.urandom(16).hex(), **texts})
            proved = line[:-1] + f',"bodiesSha256":"{hashlib.sha256(tail).hexdigest()}"}}'.encode()
            line = proved if deleted else proved[:-1] + b',"bodies":' + tail + b"}"
        self.prev, self.seq = hashlib.sha256(proved).hexdigest(), self.seq + 1
        return line

    def http(self, verb, url, status=200, decision=None, **more):
        host = re.match(r"https?://([^/]+)", url)
        decided = {"action": "Allow", "mode": "Enforce", "revision": "dd56de4137951d9c", "reason": "default", **(decision or {})}
        http = {"status": status, "requestBytes": 300, "responseBytes": 1200, **more.pop("http", {})}
        return self.line("http", destination={"host": host[1] if host else "x.example", "ip": "203.0.113.7", "port": 443}, operation={"protocol": "http", "verb": verb, "resource": url},
                         decision=decided, http=http, timing={"totalUs": 120345, "decideUs": 3}, **more)


def session(stream):
    """A session with all that the pages show."""
    identity = {"namespace": "agents", "pod": POD, "uid": "u1", "serviceAccount": "coder", "node": "n"}
    denied = {"action": "Deny", "policy": "agents/coding", "rule": "no-delete", "reason": "rule", "message": "Deleting is for people."}
    yield stream.line("stream.open", open={"identity": identity, "version": "0.1.0"})
    yield stream.line("config", config={"revision": "dd56de4137951d9c", "mode": "Enforce", "policies": ["agents/coding@3", "baseline@1"]})
    yield stream.line("dns", operation={"protocol": "dns", "verb": "A", "resource": "api.anthropic.com"}, dns={"rcode": "NOERROR", "answers": ["203.0.113.7"]})
    for turn in range(1, 4):
        ask = {"model": "claude", "messages": [{"role": "user", "content": f"Turn {turn}: tell [masked:email] and the card [hash:creditCard:00ff12ab] about tok_iban_abcdefgh234"}]}
        yield stream.http("POST", "https://api.anthropic.com/v1/messages", session={"id": "7f3c1a9e-run"}, masked=[{"mask": "agents/pii", "detector": "email", "count": 1}, {"mask": "builtin", "detector": "authorization", "count": 1}], http={
            "contentType": "text/event-stream", "requestHeaders": {"authorization": "[masked:credential]", "content-type": "application/json"}, "requestBody": {"text": json.dumps(ask)},
            "responseHeaders": {"content-type": "text/event-stream"}, "responseBody": {"text": 'event: message_start\ndata: {"type":"message_start"}\n\nevent: message_stop\ndata: {}\n\n', "truncated": turn == 3}})
        yield stream.http("GET", f"https://api.example.com/users/{turn}")
        yield stream.http("DELETE", f"https://api.example.com/users/{turn}", 403, denied)
    yield stream.http("PUT", "https://trial.example.com/x", decision={"wouldDeny": True, "mode": "Audit", "policy": "agents/coding", "rule": "gone", "reason": "rule"})
    yield stream.line("gap", destination={"host": "pinned.example.com", "ip": "203.0.113.8", "port": 443}, operation={"protocol": "tls", "verb": "connect", "resource": "pinned.example.com:443"},
                      decision={"action": "Allow", "mode": "Audit", "revision": "dd56de4137951d9c", "reason": "default"}, gap={"reason": "passthrough", "detail": HOSTILE, "sentBytes": 10, "receivedBytes": 20})
    yield stream.http("GET", f"javascript:window.owned=5//{HOSTILE}", 200, {"message": HOSTILE}, error=HOSTILE, session={"id": HOSTILE},
                      http={"requestHeaders": {"x-evil": HOSTILE}, "requestBody": {"text": HOSTILE}, "responseBody": {"text": HOSTILE * 2000}})
    yield stream.http("POST", "https://api.example.com/deleted", deleted=True, http={"requestBody": {"text": "what nobody shall read any more"}})


# --- the ledger ------------------------------------------------------------------------------------------------


class Ledger:
    """The program, with one session in it."""

    def __init__(self, *more, port=0, environment=()):
        target = json.loads(sh("cargo", "metadata", "--no-deps", "--format-version=1", cwd=ROOT).stdout)["target_directory"]
        sh("cargo", "build", "--quiet", "--locked", "--workspace", "--bin", "chaperone-ledger", cwd=ROOT)
        self.program, self.folder = Path(target) / "debug/chaperone-ledger", STATE / "console"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.api_server = ThreadingHTTPServer(("127.0.0.1", 0), ApiServer)
        threading.Thread(target=self.api_server.serve_forever, daemon=True).start()
        self.vkey = sh(self.program, "generate-key", "--origin", ORIGIN, "--out", self.folder / "skey").stdout.strip()
        crt, key = self.folder / "tls.crt", self.folder / "tls.key"
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", crt)
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                  "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.api_server.server_port}"}}], "users": [{"name": "u", "user": {}}]}
        (self.folder / "kubeconfig").write_text(json.dumps(config))
        self.environment = {**os.environ, "KUBECONFIG": str(self.folder / "kubeconfig"), **dict(environment)}
        self.environment.pop("KUBERNETES_SERVICE_HOST", None)
        self.words = [self.program, "serve", "--origin", ORIGIN, "--status-listen", "127.0.0.1:0", "--checkpoint-seconds", "1", "--dir", self.folder / "data",
                      "--key-file", self.folder / "skey", "--certificate", crt, "--certificate-key", key, *more]
        self.port = port
        self.start()
        try:
            self.begin()
        except BaseException:
            self.stop()
            raise

    def start(self):
        """Starts it, at the port that it had before, and waits until it takes records."""
        words = [*self.words, "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(list(map(str, words)), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = []
        for line in self.process.stdout:
            said.append(line)
            if "the ledger takes records" in line:
                self.port = int(json.loads(line)["fields"]["listen"].rsplit(":", 1)[1])
                break
        else:
            self.stop()
            raise AssertionError("".join(said))
        threading.Thread(target=lambda output: [None for _ in output], args=[self.process.stdout], daemon=True).start()
        self.url = f"https://localhost:{self.port}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def begin(self):
        """Gives it the session and waits until that is found."""
        self.stream = Stream()
        self.lines = list(session(self.stream))
        self.post(self.stream, self.lines)
        deadline = time.monotonic() + 60
        while len(self.ask("/v1/records?namespace=agents&limit=1000")["records"]) < len(self.lines):
            assert time.monotonic() < deadline, "the index stays behind"
            time.sleep(0.5)

    def request(self, path, token, data=None):
        context = ssl.create_default_context(cafile=self.folder / "tls.crt")
        request = urllib.request.Request(self.url + path, data, {"authorization": f"Bearer {token}", "content-type": "application/x-ndjson"})
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            return json.load(answer)

    def ask(self, path, token="reader"):
        return self.request(path, token)

    def post(self, stream, lines):
        self.request(f"/v1/streams/{stream.name}/records", "pod", b"\n".join(lines) + b"\n")

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.api_server.shutdown()
        self.api_server.server_close()


@contextlib.contextmanager
def ledger(*more, port=0, environment=()):
    running = Ledger(*more, port=port, environment=environment)
    try:
        yield running
    finally:
        running.stop()


# --- the browser -----------------------------------------------------------------------------------------------


def axe():
    """The source of axe-core, got once."""
    place = CACHE / f"axe-{hashlib.sha256(AXE.encode()).hexdigest()[:16]}"
    if not (place / "ready").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text("{}")
        sh("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", place, AXE)
        (place / "ready").touch()
    return (place / "node_modules/axe-core/axe.min.js").read_text()


def selenium():
    """The client of the driver's protocol, got once; here its words for elements and keys."""
    python = interpreter(SELENIUM)
    site = next((python.parent.parent / "lib").glob("python*/site-packages"))
    if str(site) not in sys.path:
        sys.path.append(str(site))
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    return By, Keys


@contextlib.contextmanager
def browser(dark=False, scripts=True):
    """Chromium of Debian by its own driver. Without `scripts` pages run none."""
    selenium()
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium and driver, "chromium and chromium-driver are missing: make setup"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = STATE / f"chromium-{uuid.uuid4().hex}"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1000", f"--user-data-dir={profile}", "--disable-background-networking", "--no-first-run"):
        options.add_argument(word)
    options.accept_insecure_certs = True
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    try:
        running = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver, env=environment))
    except WebDriverException as error:
        raise AssertionError(f"chromium does not start: {error.msg}") from error
    try:
        running.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
        yield running
    except WebDriverException as error:
        raise AssertionError(f"{type(error).__name__}: {error.msg}") from error
    finally:
        running.quit()
        shutil.rmtree(profile, ignore_errors=True)


def log_in(running, url, token="team", then=None):
    """As somebody does who has a keyboard only: the page's own order of focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    _, Keys = selenium()
    running.get(f"{url}{then or '/console/'}")
    # The link to the content, the name of the place, the token.
    for _ in range(10):
        ActionChains(running).send_keys(Keys.TAB).perform()
        if running.switch_to.active_element.get_attribute("id") == "token":
            break
    ActionChains(running).send_keys(token + Keys.ENTER).perform()
    wait(lambda: "/console/login" not in running.current_url, "the login does not lead on")


def wait(condition, why, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


def picture(running, name):
    """A picture of the whole page."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    size = running.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 6000), "scale": 1}
    data = running.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})["data"]
    (ARTEFACTS / f"{name}.png").write_bytes(base64.b64decode(data))


def faults_of_access(running):
    """What axe-core finds that is serious or critical, by the rules of WCAG 2.2 AA and good practice."""
    running.execute_script(axe())
    found = running.execute_async_script("""const done = arguments[arguments.length - 1];
        axe.run(document, {resultTypes: ["violations"]}).then(r => done(r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html.slice(0, 200)).slice(0, 3)])), e => done([["critical", String(e), []]]))""")
    return [fault for fault in found if fault[0] in ("serious", "critical")]


def requests_of(running):
    """Addresses that were asked for since this was asked last."""
    entries = [json.loads(entry["message"])["message"] for entry in running.get_log("performance")]
    return [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
