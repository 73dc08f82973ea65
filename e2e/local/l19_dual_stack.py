"""Group 19: names with addresses of both families whose server listens on one only. Without Chaperone a client's own next attempt finds it."""

import json

from .stage import INTERNET_IP, INTERNET_IP6, ROOT, STATE, go_program, issue, run, serve, test

HOST = "dual.test.example.com"
# A port of a server that speaks first, in a protocol that is not read, at the IPv4 address only.
UNREAD = 9707
# Ports of the server that is at one family only: TLS with HTTP/2, clear text, clear text of HTTP/2.
V4, V6 = (9701, 9702, 9703), (9704, 9705, 9706)
SERVING = []

# A client that dials IPv6 first where the machine would not.
PYTHON = """
import socket, sys, urllib.request
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda *a, **k: sorted(resolve(*a, **k), key=lambda found: found[0] != socket.AF_INET6)
print(urllib.request.urlopen(sys.argv[1]).read().decode())
"""
GO = """package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	answer, err := http.Get(os.Args[1])
	if err != nil {
		panic(err)
	}
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(string(body))
}
"""


# Greets, and says back what it is told.
GREETER = """
import socketserver, sys
class Greeter(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 ready\\r\\n")
        self.wfile.write(self.rfile.readline())
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer((sys.argv[1], int(sys.argv[2])), Greeter).serve_forever()
"""
# Tries one address after the other, IPv6 first.
TALKER = """
import socket, sys
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda *a, **k: sorted(resolve(*a, **k), key=lambda found: found[0] != socket.AF_INET6)
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as peer, peer.makefile("rwb") as lines:
    if sys.argv[3] == "listen":
        print(lines.readline())
    lines.write(b"\\x05\\x01 hello\\n")
    lines.flush()
    print(lines.read())
"""


def nginx():
    if SERVING:
        return
    folder = STATE / "dual"
    folder.mkdir()
    certificate, key = issue(HOST)
    listen = lambda address, tls, clear, h2c: f"""
    server {{
        listen {address}:{tls} ssl http2;
        listen {address}:{clear};
        listen {address}:{h2c} http2;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        location / {{ default_type text/plain; return 200 "for ada@example.com at $server_addr"; }}
    }}"""
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = folder / "nginx.conf"
    conf.write_text(f"daemon off; master_process off; user root; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; {temporary}"
                    f"{listen(INTERNET_IP, *V4)}{listen(f'[{INTERNET_IP6}]', *V6)} }}\n")
    SERVING.append(serve("nginx", "-c", conf, port=V4[0]))


def policy(mode, *denied):
    rules = [{"name": "not-there", "match": {"protocols": ["http"], "hosts": [address]}, "action": "Deny"} for address in denied]
    spec = {"mode": mode, "rules": rules, "masks": [{"name": "pii", "detectors": ["email"]}]}
    return json.dumps({"apiVersion": "chaperone.dev/v1alpha1", "kind": "AgentPolicy", "metadata": {"name": "dual", "namespace": "local"}, "spec": spec})


CLIENTS = {
    "curl": lambda url: ["curl", "-sS", "-m", "20", url],
    "go": lambda url: [go_program("dual", GO), url],
    "node": lambda url: ["node", "-e", f"fetch('{url}').then(r => r.text()).then(console.log)"],
    "java": lambda url: ["java", ROOT / "e2e/images/agent/Get.java", "GET", url],
}
IPV6_FIRST = {
    "python": lambda url: ["python3", "-c", PYTHON, url],
    "java": lambda url: ["java", "-Djava.net.preferIPv6Addresses=true", ROOT / "e2e/images/agent/Get.java", "GET", url],
}
CASES = [
    *((name, command, ports, there, other) for name, command in CLIENTS.items() for ports, there, other in ((V4, INTERNET_IP, INTERNET_IP6), (V6, INTERNET_IP6, INTERNET_IP))),
    *((f"{name}, IPv6 first", command, V4, INTERNET_IP, INTERNET_IP6) for name, command in IPV6_FIRST.items()),
]


@test
def a_server_of_one_address_family_is_found_by_clients_that_dial_the_other_first():
    nginx()
    fell_back = set()
    for mode in ("Audit", "Enforce"):
        for name, command, (tls, clear, _), there, other in CASES:
            for url in (f"https://{HOST}:{tls}/", f"http://{HOST}:{clear}/"):
                got = run(mode, *command(url), policy=policy(mode))
                assert f"for [masked:email] at {there}" in got.out, f"{name} {mode} {url}: {got.out} {got.err}"
                destination = got.exchange("GET")["destination"]
                assert destination["ip"] == there and destination.get("originalIp") in (None, other), f"{name} {mode} {url}: {destination}"
                if "originalIp" in destination:
                    fell_back.add(name)
    # Whichever family a client prefers, one of the two servers is not there.
    assert fell_back == {name for name, *_ in CASES}, fell_back


@test
def http_2_in_clear_text_finds_it_too():
    nginx()
    # curl dials IPv6 first.
    got = run("Enforce", "curl", "-sS", "-m", "20", "--http2-prior-knowledge", f"http://{HOST}:{V4[2]}/", policy=policy("Enforce"))
    assert f"for [masked:email] at {INTERNET_IP}" in got.out, got.out + got.err
    destination = got.exchange("GET")["destination"]
    assert (destination["ip"], destination["originalIp"]) == (INTERNET_IP, INTERNET_IP6), destination


@test
def a_protocol_that_is_not_read_finds_it_whoever_speaks_first():
    nginx()
    serve("python3", "-c", GREETER, INTERNET_IP, UNREAD, port=UNREAD)
    for manner in ("listen", "talk"):
        got = run("Audit", "python3", "-c", TALKER, HOST, UNREAD, manner, policy=policy("Audit"))
        assert "hello" in got.out and "220 ready" in got.out, (manner, got.out, got.err)
        gaps = [record["destination"] for record in got.only("gap") if record["operation"]["protocol"] == "tcp"]
        assert gaps and all((place["ip"], place["originalIp"]) == (INTERNET_IP, INTERNET_IP6) for place in gaps), (manner, got.records)


@test
def a_rule_about_the_address_that_is_dialled_in_its_place_holds():
    nginx()
    status = ["curl", "-sS", "-o", "/dev/null", "-m", "20", "-w", "%{http_code}"]
    for more, port, scheme in (((), V4[0], "https"), ((), V4[1], "http"), (("--http2-prior-knowledge",), V4[2], "http")):
        url = f"{scheme}://{HOST}:{port}/"
        got = run("Enforce", *status, *more, url, policy=policy("Enforce", f"{INTERNET_IP}/32"))
        record = got.exchange("GET")
        assert (got.out, record["decision"]["rule"], record["destination"]["ip"]) == ("403", "not-there", INTERNET_IP), (url, got.out, record)
        # One about the address that the agent dialled holds where that is what is judged first: in clear text.
        got = run("Enforce", *status, *more, url, policy=policy("Enforce", f"{INTERNET_IP6}/128"))
        assert got.out == ("200" if scheme == "https" else "403"), (url, got.out, got.err)


@test
def a_client_that_asks_for_one_family_only_is_told_the_truth():
    nginx()
    got = run("Audit", "curl", "-sS", "-4", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}", f"http://{HOST}:{V6[1]}/", policy=policy("Audit"))
    assert got.out == "502" and "originalIp" not in got.exchange("GET")["destination"], (got.out, got.records)
    got = run("Audit", "curl", "-sS", "-4", "-m", "20", f"https://{HOST}:{V6[0]}/", policy=policy("Audit"))
    assert got.code != 0 and not got.only("http"), (got.out, got.records)
