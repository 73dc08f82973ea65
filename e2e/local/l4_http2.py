"""Group 4: HTTP/2, with the conformance suite h2spec and the clients that people have."""

import json
import os
import re

from .stage import CACHE, ROOT, STATE, go_program, interpreter, issue, run, serve, sh, test

TLS, CLEAR, GRPC = 4430, 8030, 4450
H2SPEC = "v2.2.1+incompatible"  # the newest that the Go module proxy has: 145 cases
URL, CLEAR_URL = f"https://test.example.com:{TLS}/hello.txt", f"http://test.example.com:{CLEAR}/hello.txt"
RUNNING = {}


# --- servers and clients ---------------------------------------------------------------------------------------


def nghttpd():
    """nghttp2's server, over TLS and in clear text with prior knowledge."""
    if "nghttpd" in RUNNING:
        return
    root = STATE / "http2"
    root.mkdir()
    (root / "hello.txt").write_text("hello over h2\n")
    (root / "customers.txt").write_text("grace@navy.example 574-11-0203\n")
    (root / "index.html").write_text("index\n")
    (root / "large.bin").write_bytes(os.urandom(1 << 20) * 32)
    certificate, key = issue("test.example.com")
    serve("nghttpd", "-d", root, "--echo-upload", TLS, key, certificate, port=TLS)
    serve("nghttpd", "-d", root, "--echo-upload", "--no-tls", CLEAR, port=CLEAR)
    RUNNING["nghttpd"] = True


def h2spec():
    """The conformance suite, built once."""
    program = CACHE / f"h2spec-{H2SPEC}"
    if not program.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GOBIN": str(STATE / "go")}
        sh("go", "install", f"github.com/summerwind/h2spec/cmd/h2spec@{H2SPEC}", env=environment)
        (STATE / "go/h2spec").rename(program)
    return program


def python():
    return interpreter("httpx[http2]==0.28.1", "h2==4.4.1", "grpcio==1.85.3")


def conform(*arguments, mode):
    got = run(mode, h2spec(), "-h", "test.example.com", "-o", "3", *arguments, timeout=600)
    summary = re.search(r"(\d+) tests?, (\d+) passed, (\d+) skipped, (\d+) failed", got.out)
    assert summary, got.out[-2000:] + got.err
    return [int(number) for number in summary.groups()], got


# --- conformance -----------------------------------------------------------------------------------------------


@test
def every_case_of_h2spec_passes_over_tls_and_in_clear_text():
    nghttpd()
    for what in (["-p", TLS, "-t", "-k"], ["-p", CLEAR]):
        (cases, passed, skipped, failed), got = conform(*map(str, what), mode="Audit")
        failures = got.out[got.out.find("Failures:"):]
        print(f"      h2spec {' '.join(map(str, what))}: {passed} of {cases} passed, {skipped} skipped, {failed} failed", flush=True)
        assert cases >= 145 and passed == cases, failures[-4000:]


# --- real clients ----------------------------------------------------------------------------------------------


@test
def curl_speaks_http_2_over_tls_and_with_prior_knowledge():
    nghttpd()
    for url, options in ((URL, ["--http2"]), (CLEAR_URL, ["--http2-prior-knowledge"])):
        got = run("Enforce", "curl", "-sS", *options, "-w", "%{http_version}", url)
        assert got.out == "hello over h2\n2", (url, got.out, got.err)
        record = got.exchange("GET", "/hello.txt")
        assert record["http"]["status"] == 200 and record["http"]["responseBytes"] == 14, record
        denied = run("Enforce", "curl", "-sS", *options, "-X", "DELETE", "-w", "%{http_version} %{http_code}", url)
        assert denied.out.endswith("2 403") and "Deleting is for people." in denied.out, denied.out + denied.err
        assert denied.exchange("DELETE")["decision"]["rule"] == "no-delete"


@test
def text_is_masked_over_http_2():
    nghttpd()
    got = run("Enforce", "curl", "-sS", "--http2", URL.replace("hello", "customers"))
    assert got.out == "[masked:email] [masked:usSsn]\n", got.out + got.err
    assert "574-11-0203" not in got.log.read_text()


@test
def large_bodies_pass_both_ways_over_http_2():
    nghttpd()
    large = STATE / "http2/large.bin"
    url = URL.replace("hello.txt", "large.bin")
    got = run("Enforce", "curl", "-sS", "--http2", "-o", STATE / "downloaded", url)
    assert (STATE / "downloaded").read_bytes() == large.read_bytes(), got.err
    got = run("Enforce", "curl", "-sS", "--http2", "--data-binary", f"@{large}", "-o", STATE / "echoed", URL)
    assert (STATE / "echoed").read_bytes() == large.read_bytes(), got.err
    assert got.exchange("POST")["http"]["requestBytes"] == large.stat().st_size


@test
def nghttp_multiplexes_with_priorities():
    nghttpd()
    got = run("Enforce", "nghttp", "-n", "-m", "50", "--stat", URL)
    assert got.code == 0 and len(got.only("http")) == 50, got.out[-500:] + got.err
    assert {record["http"]["status"] for record in got.only("http")} == {200}


@test
def node_speaks_http_2():
    nghttpd()
    script = f"""const client = require('http2').connect('{URL}');
const one = path => new Promise((done, fail) => {{ const r = client.request({{':path': path}}); let t = ''; r.on('data', d => t += d).on('end', () => done(t)).on('error', fail); }});
Promise.all(Array.from({{length: 20}}, () => one('/hello.txt'))).then(all => {{ console.log(new Set(all).size, all[0]); client.close(); }});"""
    got = run("Enforce", "node", "-e", script)
    assert got.out == "1 hello over h2\n\n", got.out + got.err
    assert len(got.only("http")) == 20, got.records


@test
def httpx_speaks_http_2():
    nghttpd()
    script = f"""import httpx, os
with httpx.Client(http2=True) as client:
    for _ in range(3):
        r = client.get('{URL}')
    print(r.http_version, r.text, end='')
    print(client.delete('{URL}').status_code)"""
    got = run("Enforce", python(), "-c", script)
    assert got.out == "HTTP/2 hello over h2\n403\n", got.out + got.err


GO = """package main

import ("fmt"; "io"; "net/http"; "os"; "sync")

func main() {
	var wait sync.WaitGroup
	for i := 0; i < 20; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			response, err := http.Get(os.Args[1])
			if err != nil { fmt.Println(err); os.Exit(1) }
			body, err := io.ReadAll(response.Body)
			if err != nil || response.ProtoMajor != 2 || string(body) != "hello over h2\\n" { fmt.Println(err, response.Proto, string(body)); os.Exit(1) }
		}()
	}
	wait.Wait()
	fmt.Println("ok")
}
"""


@test
def go_speaks_http_2():
    nghttpd()
    got = run("Enforce", go_program("get", GO), URL)
    assert got.out == "ok\n", got.out + got.err
    assert len(got.only("http")) == 20, got.records


@test
def java_speaks_http_2_and_offers_to_upgrade_in_clear_text():
    nghttpd()
    got = run("Enforce", "java", ROOT / "e2e/images/agent/Get.java", "GET", URL)
    assert got.out.startswith("200") and "hello over h2" in got.out, got.out + got.err
    got = run("Enforce", "java", ROOT / "e2e/images/agent/Get.java", "GET", "http://files.example.com/hello.txt")
    assert got.out.startswith("200") and "hello from files" in got.out, got.out + got.err


UPGRADES, LENIENT = 8038, 8039
APP = """async def app(scope, receive, send):
    text = f"{scope['method']} over {scope['http_version']} grace@navy.example"
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'text/plain')]})
    await send({'type': 'http.response.body', 'body': text.encode()})
"""
MASKED = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: masked, namespace: local}
spec:
  mode: Enforce
  rules:
    - {name: no-delete, match: {methods: [DELETE]}, action: Deny}
  masks:
    - {name: pii, detectors: [email]}
"""
# Two requests on one connection: the first is upgraded, the second is a stream of its own.
JAVA_TWICE = """import java.net.URI;
import java.net.http.*;

public final class Twice {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest.Builder builder = HttpRequest.newBuilder(URI.create(arguments[0]));
        for (HttpRequest request : new HttpRequest[] {builder.GET().build(), builder.DELETE().build()}) {
            HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(response.version() + " " + response.statusCode() + " " + response.body().split("\\n")[0]);
        }
    }
}
"""

# Java says Content-Length: 0, before which Hypercorn ignores the offer.
UPGRADER = """import base64, socketserver, sys
import h2.config, h2.connection, h2.events

class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        text = b""
        while b"\\r\\n\\r\\n" not in text:
            text += self.request.recv(4096)
        head, rest = text.split(b"\\r\\n\\r\\n", 1)
        fields = {k.strip().lower(): v.strip() for k, v in (line.split(b":", 1) for line in head.split(b"\\r\\n")[1:])}
        c = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        c.initiate_upgrade_connection(fields[b"http2-settings"])
        self.request.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: h2c\\r\\n\\r\\n" + c.data_to_send())
        self.answer(c, 1)
        while rest or (rest := self.request.recv(65536)):
            for event in c.receive_data(rest):
                if isinstance(event, h2.events.RequestReceived):
                    self.answer(c, event.stream_id)
            rest = b""
            self.request.sendall(c.data_to_send())

    def answer(self, c, stream):
        c.send_headers(stream, [(":status", "200"), ("content-type", "text/plain")])
        c.send_data(stream, b"GET over 2 grace@navy.example", end_stream=True)
        self.request.sendall(c.data_to_send())

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, address_family = True, True, 10

Server(("::", int(sys.argv[1])), Handler).serve_forever()
"""


def hypercorn():
    """Servers that take the offer of HTTP/2: Hypercorn, and Python's h2 behind a few lines."""
    if "hypercorn" in RUNNING:
        return
    (STATE / "upgrades.py").write_text(APP)
    serve(interpreter("hypercorn==0.18.0", "wsproto==1.3.2", "h2==4.4.1"), "-m", "hypercorn", "--bind", f"[::]:{UPGRADES}", "upgrades:app", port=UPGRADES, cwd=STATE)
    (STATE / "upgrader.py").write_text(UPGRADER)
    serve(python(), STATE / "upgrader.py", LENIENT, port=LENIENT)
    RUNNING["hypercorn"] = True


def got_over_2(got, url, text="GET over 2 [masked:email]"):
    record = got.exchange("GET")
    assert record["http"]["status"] == 200 and record["http"].get("complete", True) and record["operation"]["resource"] == url, record
    assert record["masked"][0]["count"] == 1 and not got.only("gap"), got.records
    assert text in got.out, (got.out, got.err)


@test
def clients_that_upgrade_to_http_2_are_read_judged_and_masked():
    hypercorn()
    url = f"http://test.example.com:{UPGRADES}/"
    got = run("Enforce", "curl", "-sS", "--http2", "-w", " %{http_version}", url, policy=MASKED)
    got_over_2(got, url, "GET over 2 [masked:email] 2")
    # Two transfers on one connection.
    got = run("Enforce", "curl", "-sS", "--http2", "-w", " %{http_version}\n", url, url, policy=MASKED)
    assert got.out == "GET over 2 [masked:email] 2\n" * 2 and len(got.only("http")) == 2, (got.out, got.err)
    got = run("Enforce", "nghttp", "-u", url, policy=MASKED)
    got_over_2(got, url)
    (STATE / "Twice.java").write_text(JAVA_TWICE)
    url = f"http://test.example.com:{LENIENT}/"
    got = run("Enforce", "java", STATE / "Twice.java", url, policy=MASKED)
    got_over_2(got, url, "HTTP_2 200 GET over 2 [masked:email]")
    assert "HTTP_2 403" in got.out, got.out


@test
def clients_whose_offer_of_http_2_is_not_taken_get_their_answer():
    hypercorn()
    url = f"http://test.example.com:{UPGRADES}/"
    # A body would be sent in HTTP/1.1 while its answer comes in HTTP/2: the offer is withheld.
    got = run("Enforce", "curl", "-sS", "--http2", "-d", "text", "-w", " %{http_version}", url, policy=MASKED)
    assert got.out == "POST over 1.1 [masked:email] 1.1", (got.out, got.err)
    got = run("Enforce", "curl", "-sS", "--http2", "http://files.example.com/hello.txt")
    assert got.out == "hello from files.example.com\n", got.out + got.err


# --- gRPC ------------------------------------------------------------------------------------------------------

GRPC_SERVER = """import sys
from concurrent import futures
import grpc

def watch(request, context):
    for number in range(5):
        yield b"%d" % number

def chat(requests, context):
    for request in requests:
        yield request.upper()

def fail(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such order")

methods = {
    "Get": grpc.unary_unary_rpc_method_handler(lambda request, context: b"got " + request),
    "Delete": grpc.unary_unary_rpc_method_handler(lambda request, context: b"deleted"),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Watch": grpc.unary_stream_rpc_method_handler(watch),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("acme.v1.Orders", methods)])
key, certificate = (open(path, "rb").read() for path in sys.argv[2:4])
server.add_secure_port("[::]:" + sys.argv[1], grpc.ssl_server_credentials([(key, certificate)]))
server.add_insecure_port("[::]:" + sys.argv[4])
server.start()
server.wait_for_termination()
"""

GRPC_CLIENT = """import json, sys
import grpc

target, secure = sys.argv[1], sys.argv[2] == "tls"
channel = grpc.secure_channel(target, grpc.ssl_channel_credentials()) if secure else grpc.insecure_channel(target)
call = lambda name: "/acme.v1.Orders/" + name
said = {
    "get": channel.unary_unary(call("Get"))(b"7", timeout=20).decode(),
    "watch": [m.decode() for m in channel.unary_stream(call("Watch"))(b"", timeout=20)],
    "chat": [m.decode() for m in channel.stream_stream(call("Chat"))(iter([b"a", b"b", b"c"]), timeout=20)],
}
for name in ("Delete", "Fail"):
    try:
        said[name] = channel.unary_unary(call(name))(b"7", timeout=20).decode()
    except grpc.RpcError as error:
        said[name] = [error.code().name, error.details()]
print(json.dumps(said))
"""

GRPC_POLICY = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: calls, namespace: local}
spec:
  mode: Enforce
  rules:
    - name: no-delete
      when: grpc.service == "acme.v1.Orders" && grpc.method == "Delete"
      action: Deny
      message: Deleting is for people.
"""


@test
def grpc_calls_pass_are_counted_and_denied_in_grpcs_words():
    certificate, key = issue("grpc.test.example.com")
    (STATE / "server.py").write_text(GRPC_SERVER)
    serve(python(), STATE / "server.py", GRPC, key, certificate, GRPC + 1, port=GRPC)
    for port, how in ((GRPC, "tls"), (GRPC + 1, "clear")):
        got = run("Enforce", python(), "-c", GRPC_CLIENT, f"grpc.test.example.com:{port}", how, policy=GRPC_POLICY)
        assert got.code == 0, (how, got.out, got.err)
        assert json.loads(got.out) == {
            "get": "got 7",
            "watch": ["0", "1", "2", "3", "4"],
            "chat": ["A", "B", "C"],
            "Delete": ["PERMISSION_DENIED", "Deleting is for people. (policy local/calls, rule no-delete)"],
            "Fail": ["NOT_FOUND", "no such order"],
        }, (how, got.out)
        calls = {record["grpc"]["method"]: record["grpc"] for record in got.only("http")}
        assert calls["Get"] == {"service": "acme.v1.Orders", "method": "Get", "status": 0, "requestMessages": 1, "requestMessageBytes": 1, "responseMessages": 1, "responseMessageBytes": 5}, calls
        assert (calls["Chat"]["requestMessages"], calls["Chat"]["responseMessages"]) == (3, 3), calls
        assert (calls["Watch"]["responseMessages"], calls["Fail"]["status"], calls["Delete"]["status"]) == (5, 5, 7), calls
