"""Group 7: what masks and detectors see of real clients' requests and of the answers that they get."""

from .stage import ENFORCE, STATE, go_program, issue, run, serve, test

HOST, PORT, TRAILERS = "dlp.test.example.com", 8471, 8472
KEY = "AKIAIOSFODNN7EXAMPLE"
NO_KEYS = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: local, namespace: local}
spec:
  mode: Enforce
  rules:
    - name: no-keys
      match: {protocols: [http]}
      when: '"awsAccessKey" in http.detected || (has(http.body) && has(http.body.drop))'
      action: Deny
      message: Keys stay here.
"""
SERVER = """
import http.server, socket, ssl, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/landed/ana@example.com?to=ana@example.com#of=ana@example.com")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"2\\r\\nok\\r\\n0\\r\\nX-Owner: ana@example.com\\r\\n\\r\\n")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

server = Server(("::", int(sys.argv[1])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
SERVING = []


def url(path):
    if not SERVING:
        script = STATE / "dlp-server.py"
        script.write_text(SERVER)
        SERVING.append(serve("python3", script, PORT, *issue(HOST), port=PORT))
    return f"https://{HOST}:{PORT}{path}"


@test
def a_request_that_carries_a_key_is_refused_wherever_it_stands_and_compressed_too():
    status = "curl -sS -o /dev/null -w '%{http_code} '"
    denied = [
        f"{status} '{url('/')}?k=%41{KEY[1:]}'",
        f"{status} -H 'X-Note: {KEY}' {url('/')}",
        f"{status} --data 'note={KEY}' {url('/')}",
        f"""echo 'note: {KEY}' | gzip | {status} -H 'Content-Encoding: gzip' --data-binary @- {url('/')}""",
        f"""echo '{{"drop": 1}}' | gzip | {status} -H 'Content-Type: application/json' -H 'Content-Encoding: gzip' --data-binary @- {url('/')}""",
        f"{status} -H 'Content-Encoding: gzip' --data 'no gzip' {url('/')}",
    ]
    allowed = [
        f"{status} -H 'Authorization: AWS {KEY}:x' {url('/')}",
        f"""echo '{{"keep": 1}}' | gzip | {status} -H 'Content-Type: application/json' -H 'Content-Encoding: gzip' --data-binary @- {url('/')}""",
    ]
    got = run("Enforce", "bash", "-c", "\n".join(denied + allowed), policy=NO_KEYS)
    assert got.out.split() == ["403"] * len(denied) + ["200"] * len(allowed), got.out + got.err
    assert KEY not in got.log.read_text()
    python = f"""
import urllib.request as u, urllib.error
try:
    u.urlopen(u.Request("{url('/')}", data=b"key {KEY}"))
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""
    got = run("Enforce", "python3", "-c", python, policy=NO_KEYS)
    assert got.out.startswith("403") and "Keys stay here." in got.out, got.out + got.err


@test
def what_a_redirect_carries_and_trailers_are_masked_and_the_redirect_leads_where_it_led():
    policy = ENFORCE.replace("MODE", "Enforce")
    got = run("Enforce", "bash", "-c", f"curl -sS -i {url('/redirect')}; curl -sS -D - {url('/image')}", policy=policy)
    assert "/landed/ana@example.com?to=%5Bmasked%3Aemail%5D#of=%5Bmasked%3Aemail%5D" in got.out, got.out + got.err
    assert "x-owner: [masked:email]" in got.out and got.out.rstrip().endswith(("ok", "[masked:email]")), got.out


GO = """package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	if os.Args[1] == "serve" {
		log.Fatal(http.ListenAndServeTLS(os.Args[2], os.Args[3], os.Args[4], http.HandlerFunc(tell)))
	}
	transport := &http.Transport{ForceAttemptHTTP2: true}
	if os.Args[1] == "HTTP/1.1" {
		transport = &http.Transport{TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	}
	// Of unknown length: trailers follow chunks.
	request, _ := http.NewRequest("POST", os.Args[2], io.MultiReader(strings.NewReader("a "), strings.NewReader("body")))
	request.Header.Set("Content-Type", "text/plain")
	request.Trailer = http.Header{"X-Owner": {"ana@example.com"}, "X-Paid-By": {"card 4111 1111 1111 1111"}, "X-Sum": {"42"}}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		log.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	fmt.Print(string(body), err)
}

func tell(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	seen := fmt.Sprint(r.Proto, " ", string(body), " ", err, " ", r.Trailer)
	fmt.Fprint(w, seen)
}
"""
# The server's answer is read as it is: only what leaves is masked.
LEAVING = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: local, namespace: local}
spec:
  mode: MODE
  masks:
    - name: pii
      detectors: [email, creditCard]
      direction: DIRECTION
"""


@test
def gos_request_trailers_arrive_masked_over_http_1_and_2_and_the_record_says_so():
    program = go_program("trailers", GO)
    serve(program, "serve", f":{TRAILERS}", *issue(f"trailers.{HOST}"), port=TRAILERS)
    to = f"https://trailers.{HOST}:{TRAILERS}/"
    for protocol in ("HTTP/1.1", "HTTP/2.0"):
        for mode in ("Audit", "Enforce"):
            policy = LEAVING.replace("MODE", mode)
            got = run(mode, program, protocol, to, policy=policy.replace("DIRECTION", "Request"))
            expected = f"{protocol} a body <nil> map[X-Owner:[[masked:email]] X-Paid-By:[card [masked:creditCard]] X-Sum:[42]]<nil>"
            assert got.out == expected, (protocol, mode, got.out, got.err)
            masked = {found["detector"]: (found["mask"], found["count"]) for found in got.exchange("POST")["masked"]}
            assert masked == {"email": ("pii", 1), "creditCard": ("pii", 1)}, masked
            assert "ana@example.com" not in got.log.read_text() and "4111" not in got.log.read_text()
            # A mask of answers leaves them as they are.
            got = run(mode, program, protocol, to, policy=policy.replace("DIRECTION", "Response").replace("email, creditCard", "usSsn"))
            assert "X-Owner:[ana@example.com]" in got.out and "masked" not in got.exchange("POST"), (protocol, mode, got.out, got.err)
