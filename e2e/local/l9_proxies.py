"""Group 9: agents that go through a real HTTP proxy (squid, tinyproxy), in clear text and over TLS."""

import json
import sys

from .l4_http2 import nghttpd, python
from .stage import INTERNET_IP, ROOT, STATE, issue, run, serve, test

SQUID, SQUID_TLS, TINY, HTTP2, BANNER = 3128, 3129, 3130, 3131, 2222
PROXY, PROXY_TLS = f"http://proxy.test.example.com:{SQUID}", f"https://proxy.test.example.com:{SQUID_TLS}"
HTTPS, HTTP = "https://files.example.com/hello.txt", "http://files.example.com/hello.txt"
HELLO = "hello from files.example.com\n"
CREDENTIALS = ("agent", "proxy-password-1")
RUNNING = set()

LEAVE = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: leave, namespace: local}
spec:
  mode: Enforce
  defaultAction: Deny
  rules:
    - name: through
      match: {hosts: [HOSTS], protocols: [PROTOCOLS]}
      action: Allow
"""


# --- proxies ---------------------------------------------------------------------------------------------------


def resolving(*command):
    """The command, with the internet's resolver."""
    resolv = STATE / "internet-resolv.conf"
    resolv.write_text(f"nameserver {INTERNET_IP}\n")
    return ["unshare", "-m", "sh", "-c", f"mount --bind {resolv} /etc/resolv.conf && exec \"$@\"", "sh", *map(str, command)]


def proxies():
    """squid, in clear text and over TLS, and tinyproxy, which wants a password."""
    if RUNNING:
        return
    certificate, key = issue("proxy.test.example.com")
    squid, tiny = STATE / "squid.conf", STATE / "tinyproxy.conf"
    squid.write_text(f"""http_port {SQUID}
https_port {SQUID_TLS} tls-cert={certificate} tls-key={key}
http_access allow all
cache deny all
access_log none
cache_log stdio:/dev/stderr
pid_filename none
dns_nameservers {INTERNET_IP}
shutdown_lifetime 0 seconds
visible_hostname proxy.test.example.com
""")
    tiny.write_text(f"Port {TINY}\nTimeout 60\nBasicAuth {' '.join(CREDENTIALS)}\nDisableViaHeader Yes\n")
    for path in (STATE, key, certificate):
        path.chmod(0o755)
    serve(*resolving("squid", "-N", "-f", squid), port=SQUID)
    serve(*resolving("tinyproxy", "-d", "-c", tiny), port=TINY)
    RUNNING.add("proxies")


def curl(proxy, *arguments):
    """curl, which has no variable for the roots that it verifies a proxy with."""
    return ["sh", "-c", "exec curl -sS --proxy-cacert \"$CURL_CA_BUNDLE\" \"$@\"", "sh", "-x", proxy, *arguments]


def through(proxy, *command):
    return ["env", f"HTTPS_PROXY={proxy}", f"HTTP_PROXY={proxy}", f"https_proxy={proxy}", f"http_proxy={proxy}", *command]


# --- what passes -----------------------------------------------------------------------------------------------


@test
def what_goes_through_a_proxy_is_read_masked_denied_and_recorded():
    proxies()
    nghttpd()
    masked = "https://test.example.com:4430/customers.txt"
    for proxy in (PROXY, PROXY_TLS):
        for url in (HTTPS, HTTP):
            got = run("Enforce", *curl(proxy, url))
            assert got.out == HELLO, (proxy, url, got.out, got.err)
            record = got.exchange("GET", "/hello.txt")
            assert record["operation"]["resource"] == url, record
            destination = record["destination"]
            assert destination["host"] == "files.example.com" and destination["proxy"].endswith(proxy[-5:]), record
            denied = run("Enforce", *curl(proxy, "-X", "DELETE", "-w", "%{http_code}", url))
            assert denied.out.endswith("403") and "Deleting is for people." in denied.out, (proxy, url, denied.out, denied.err)
        got = run("Enforce", *curl(proxy, "--http2", "-w", "%{http_version}", masked))
        assert got.out == "[masked:email] [masked:usSsn]\n2", (proxy, got.out, got.err)


@test
def a_password_for_the_proxy_reaches_it_and_no_record():
    proxies()
    user, password = CREDENTIALS
    for url in (HTTPS, HTTP):
        got = run("Enforce", "curl", "-sS", "-x", f"http://proxy.test.example.com:{TINY}", "--proxy-user", f"{user}:{password}", url)
        assert got.out == HELLO, (url, got.out, got.err)
        log = got.log.read_text()
        assert "[masked:credential]" in log and "YWdlbnQ6cHJveHk" not in log and password not in log, log
        got = run("Enforce", "curl", "-sS", "-x", f"http://proxy.test.example.com:{TINY}", "-w", "%{http_connect} %{http_code}", url)
        assert "407" in got.out, (url, got.out, got.err)


@test
def clients_that_know_of_a_proxy_go_through_it():
    proxies()
    scripts = {
        "urllib": [sys.executable, "-c", f"import urllib.request; print(urllib.request.urlopen('{HTTPS}').read().decode(), end='')"],
        "httpx": [python(), "-c", f"import httpx; print(httpx.get('{HTTPS}').text, end='')"],
        "git": ["git", "ls-remote", "https://git.example.com/project.git"],
        "curl": ["curl", "-sS", HTTPS],
    }
    for name, command in scripts.items():
        got = run("Enforce", *through(PROXY, *command))
        assert got.code == 0, (name, got.out, got.err)
        assert HELLO == got.out or name == "git", (name, got.out, got.err)
        connect, inside = got.exchange("CONNECT"), got.exchange("GET", "https://")
        assert connect["destination"] == inside["destination"], (name, connect, inside)
    got = run("Enforce", "java", "-Dhttps.proxyHost=proxy.test.example.com", f"-Dhttps.proxyPort={SQUID}", ROOT / "e2e/images/agent/Get.java", "GET", HTTPS)
    assert "hello from files" in got.out and got.exchange("GET", HTTPS)["destination"]["proxy"], (got.out, got.err)


@test
def both_the_target_and_the_proxy_need_leave():
    proxies()
    for hosts, passes in (("files.example.com", False), ("proxy.test.example.com", False), ("files.example.com, proxy.test.example.com", True)):
        for url in (HTTPS, HTTP):
            got = run("Enforce", "curl", "-sS", "-x", PROXY, "-w", " %{http_code}", url, policy=LEAVE.replace("HOSTS", hosts).replace("PROTOCOLS", "http"))
            assert (got.code == 0 and got.out == f"{HELLO} 200") == passes, (hosts, url, got.out, got.err)
            # The first to be refused may be the proxy's name, which nothing lets be resolved.
            denied = [record for record in got.records if record.get("decision", {}).get("action") == "Deny"]
            assert bool(denied) != passes, got.records


# --- what does not ---------------------------------------------------------------------------------------------


@test
def a_tunnel_for_one_host_is_not_used_for_another():
    proxies()
    nghttpd()
    # The name in CONNECT is one, the name in the handshake and in Host another.
    for mode in ("Audit", "Enforce"):
        got = run(mode, "curl", "-sS", "-x", PROXY, "--connect-to", "files.example.com:443:test.example.com:4430", HTTPS)
        assert got.code != 0 and got.only("connection")[-1]["decision"]["reason"] == "host-mismatch", (mode, got.out, got.err, got.records)


BYTES = f"""import socket
s = socket.create_connection(('proxy.test.example.com', {SQUID}))
s.sendall(b'CONNECT test.example.com:{BANNER} HTTP/1.1\\r\\nHost: test.example.com:{BANNER}\\r\\n\\r\\n')
head = b''
while not head.endswith(b'\\r\\n\\r\\n'):
    byte = s.recv(1)
    if not byte: raise SystemExit("the connection ended in the head")
    head += byte
print(s.recv(100).decode(), end='')
"""


@test
def bytes_of_an_unknown_protocol_in_a_tunnel_need_leave_for_both():
    proxies()
    serve(sys.executable, "-c", f"""import socketserver
class Greet(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(b'SSH-2.0-test\\n'); self.request.recv(1)
socketserver.ThreadingTCPServer(('0.0.0.0', {BANNER}), Greet).serve_forever()""", port=BANNER)
    squid_allows = "test.example.com"
    for mode, hosts, passes in (("Audit", None, True), ("Enforce", None, False), ("Enforce", squid_allows, False), ("Enforce", f"{squid_allows}, proxy.test.example.com", True)):
        policy = hosts and LEAVE.replace("HOSTS", hosts).replace("PROTOCOLS", "http, tcp")
        got = run(mode, sys.executable, "-c", BYTES, policy=policy)
        assert (got.out == "SSH-2.0-test\n") == passes, (mode, hosts, got.out, got.err)
        if hosts != squid_allows:
            gap = got.only("gap")[-1]
            assert gap["gap"]["reason"] == "tunnel" and gap["operation"]["resource"] == f"test.example.com:{BANNER}", json.dumps(gap)


# --- over HTTP/2 -----------------------------------------------------------------------------------------------

NODE_PROXY = """const [port, key, cert] = process.argv.slice(2), fs = require('fs'), net = require('net');
const server = require('http2').createSecureServer({key: fs.readFileSync(key), cert: fs.readFileSync(cert)});
server.on('stream', (stream, headers) => {
  const to = new URL('tcp://' + headers[':authority']);
  const socket = net.connect(to.port, to.hostname, () => { stream.respond(); socket.pipe(stream); stream.pipe(socket); });
  socket.on('error', () => stream.close());
  stream.on('error', () => socket.destroy());
});
server.listen(port, '::');
"""
NODE_CLIENT = f"""const proxy = require('http2').connect('https://proxy.test.example.com:{HTTP2}');
const get = (authority, method, done) => {{
  const tunnel = proxy.request({{':method': 'CONNECT', ':authority': authority}});
  tunnel.on('response', headers => {{
    if (headers[':status'] !== 200) return done(headers[':status']);
    const socket = require('tls').connect({{socket: tunnel, servername: authority.split(':')[0]}}, () => {{
      socket.write(`${{method}} /hello.txt HTTP/1.1\\r\\nHost: ${{authority.split(':')[0]}}\\r\\nConnection: close\\r\\n\\r\\n`);
    }});
    let text = '';
    socket.on('data', data => text += data).on('end', () => done(text.split(' ')[1] + ' ' + text.split('\\r\\n\\r\\n')[1].trim()));
    socket.on('error', error => done(error.message));
  }});
  tunnel.on('error', error => done(error.message));
}};
get('files.example.com:443', 'GET', first => get('files.example.com:443', 'DELETE', second => get('www.example.org:443', 'GET', third => {{
  console.log([first, second, third].join('\\n'));
  proxy.close();
}})));
"""
OVER_2 = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: over-2, namespace: local}
spec:
  mode: Enforce
  defaultAction: Deny
  rules:
    - name: through
      match: {hosts: [files.example.com, proxy.test.example.com]}
      action: Allow
    - name: no-delete
      match: {methods: [DELETE]}
      action: Deny
      message: Deleting is for people.
"""


@test
def what_is_inside_a_tunnel_of_http_2_is_read():
    certificate, key = issue("proxy.test.example.com")
    (STATE / "proxy.js").write_text(NODE_PROXY)
    for path in (STATE, key, certificate):
        path.chmod(0o755)
    serve(*resolving("node", STATE / "proxy.js", HTTP2, key, certificate), port=HTTP2)
    got = run("Enforce", "node", "-e", NODE_CLIENT, policy=OVER_2)
    first, second, third = got.out.splitlines()
    assert first == f"200 {HELLO.strip()}", (got.out, got.err)
    assert second.startswith("403 ") and "Deleting is for people." in second, (got.out, got.err)
    assert third == "403", (got.out, got.err)
    record = got.exchange("GET", "/hello.txt")
    assert record["operation"]["resource"] == HTTPS and record["destination"]["proxy"].endswith(f":{HTTP2}"), record
    assert not got.only("gap"), got.records
