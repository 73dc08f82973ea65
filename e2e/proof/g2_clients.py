"""Group 2: common clients trust Chaperone unasked, and what they do is recorded exactly."""


from .cluster import INET_IP6, WORLD
from .harness import check, holds, nonce, run, same, test
from .install import audited, claude, tool_results
from .records import wait_record

HELLO = "hello from files.example.com\n"
FILES = "https://files.example.com"


def exactly(record, method, url, status, sent=0, received=None):
    """The record says who did what, where, and what came of it."""
    agent = audited()
    http = record["http"]
    same((method, url, status), (record["operation"]["verb"], record["operation"]["resource"], http["status"]), "method, URL and status")
    same(sent, http["requestBytes"], "bytes of the request's body")
    if received is not None:
        same(received, http["responseBytes"], "bytes of the response's body")
    same(True, http["complete"], "complete")
    same(("audited", agent.name), (record["agent"]["namespace"], record["agent"]["pod"]), "agent")
    same("Allow", record["decision"]["action"], "action")
    same("Audit", record["decision"]["mode"], "mode")


def fetches_hello(client, run_client):
    """A client gets a file; its output has the file's text and the record is exact."""
    url = f"{FILES}/hello.txt?{client}={nonce()}"
    done = run_client(url).succeeded(client)
    holds(HELLO.strip(), done.out, f"what {client} printed")
    record = wait_record(kind="http", operation__resource=url)
    exactly(record, "GET", url, 200, received=len(HELLO))
    same("files.example.com", record["destination"]["host"], "destination")


@test("curl")
def _():
    fetches_hello("curl", lambda url: audited().curl(url))


@test("curl that sends a body, with its length or in chunks")
def _():
    for headers in ((), ("-H", "Transfer-Encoding: chunked")):
        url = f"{FILES}/accept?post={nonce()}"
        audited().curl("-f", "-d", "eleven byte", *headers, url).succeeded("curl")
        exactly(wait_record(kind="http", operation__resource=url), "POST", url, 200, sent=11, received=9)


@test("curl over plain HTTP")
def _():
    url = f"http://files.example.com/hello.txt?plain={nonce()}"
    holds(HELLO.strip(), audited().curl(url).succeeded().out, "output")
    exactly(wait_record(kind="http", operation__resource=url), "GET", url, 200, received=len(HELLO))


@test("curl over IPv6")
def _():
    url = f"{FILES}/hello.txt?six={nonce()}"
    audited().curl("-6", url).succeeded("curl -6")
    record = wait_record(kind="http", operation__resource=url)
    exactly(record, "GET", url, 200, received=len(HELLO))
    same(INET_IP6, record["destination"]["ip"], "address")


@test("wget, which takes no variable and has to be told the bundle")
def _():
    fetches_hello("wget", lambda url: audited().sh(f"wget -qO- --ca-certificate=$SSL_CERT_FILE '{url}'"))


@test("Python's requests")
def _():
    fetches_hello("requests", lambda url: audited().python("import requests, sys; r = requests.get(sys.argv[1]); r.raise_for_status(); print(r.text)", url))


@test("Python's urllib")
def _():
    fetches_hello("urllib", lambda url: audited().python("import urllib.request, sys; print(urllib.request.urlopen(sys.argv[1]).read().decode())", url))


@test("node's fetch")
def _():
    script = "const r = await fetch(process.argv[1]); if (!r.ok) throw r.status; console.log(await r.text())"
    fetches_hello("node", lambda url: audited().run("node", "--input-type=module", "-e", script, url))


@test("Java's HttpClient")
def _():
    # h2c upgrade headers and all: java.net.http asks for HTTP/2 by default.
    fetches_hello("java", lambda url: audited().run("java", "-cp", "/opt/java", "Get", "GET", url))


@test("openssl s_client over TLS 1.2 and over TLS 1.3")
def _():
    for version in ("-tls1_2", "-tls1_3"):
        url = f"/hello.txt?s={nonce()}"
        request = f"GET {url} HTTP/1.1\\r\\nHost: files.example.com\\r\\nConnection: close\\r\\n\\r\\n"
        done = audited().sh(f"printf '{request}' | openssl s_client -quiet {version} -verify_return_error -CAfile $SSL_CERT_FILE -connect files.example.com:443 -servername files.example.com -ign_eof")
        holds("hello from", done.out, f"output with {version} ({done!r})")
        exactly(wait_record(kind="http", operation__resource=FILES + url), "GET", FILES + url, 200, received=len(HELLO))


@test("git clone and git push")
def _():
    word = nonce()
    script = f"""set -e; cd "$(mktemp -d)"; git clone -q https://git.example.com/project.git .
git -c user.name=a -c user.email=a@localhost commit -q --allow-empty -m {word}; git push -q origin HEAD:refs/heads/{word}"""
    audited().sh(script).succeeded("git")
    holds(word, run("git", "-C", WORLD / "git/project.git", "branch").out, "branches of the served repository")
    base = "https://git.example.com/project.git"
    for method, url in (("GET", f"{base}/info/refs?service=git-upload-pack"), ("POST", f"{base}/git-upload-pack"),
                        ("GET", f"{base}/info/refs?service=git-receive-pack"), ("POST", f"{base}/git-receive-pack")):
        record = wait_record(kind="http", operation__verb=method, operation__resource=url, agent__pod=audited().name)
        same(200, record["http"]["status"], f"status of {method} {url}")
        same("Allow", record["decision"]["action"], "action")


@test("Claude Code itself, and what it runs")
def _():
    word = nonce()
    (WORLD / f"files/scratch/report-{word}.txt").write_text("a report\n")
    holds("tried to delete", claude(audited(), "read-and-delete", run=word).succeeded("Claude Code").out, "its last words")
    results = tool_results(word)
    same(3, len(results), "tool results")
    holds("ada.lovelace@example.com", results[0], "the customer list, which nothing masks here")
    url = f"{FILES}/customers.json?run={word}"
    exactly(wait_record(kind="http", operation__resource=url), "GET", url, 200)
    url = f"{FILES}/scratch/summary-{word}.txt"
    exactly(wait_record(kind="http", operation__resource=url), "PUT", url, 201, sent=len("three customers\n"))
    same("three customers\n", (WORLD / f"files/scratch/summary-{word}.txt").read_text(), "the stored summary")
    model = wait_record(kind="http", operation__resource="https://api.anthropic.com/v1/messages?beta=true", agent__pod=audited().name)
    same(200, model["http"]["status"], "status of the model API")
    check(model["session"]["id"], "the record has Claude's session id")


@test("a large file arrives whole, and quickly enough to be streamed")
def _():
    url = f"{FILES}/big.bin?{nonce()}"
    done = audited().sh(f"curl -sS '{url}' | sha256sum").succeeded()
    expected = run("sha256sum", WORLD / "files/big.bin").out.split()[0]
    same(expected, done.out.split()[0], "SHA-256")
    exactly(wait_record(kind="http", operation__resource=url), "GET", url, 200, received=(WORLD / "files/big.bin").stat().st_size)


@test("a large upload arrives whole")
def _():
    word = nonce()
    audited().sh(f"head -c 20000000 /dev/urandom > /tmp/up; curl -sSf -T /tmp/up {FILES}/scratch/{word}.bin").succeeded("curl -T")
    sent = audited().sh("sha256sum < /tmp/up; rm /tmp/up").out
    same(sent, run("sha256sum", stdin=(WORLD / f"files/scratch/{word}.bin").read_bytes()).out, "SHA-256")
    url = f"{FILES}/scratch/{word}.bin"
    exactly(wait_record(kind="http", operation__resource=url), "PUT", url, 201, sent=20_000_000)


@test("DNS queries are recorded with their answers")
def _():
    audited().sh("dig +short files.example.com A; dig +short nowhere.example.com A").succeeded("dig")
    record = wait_record(kind="dns", operation__resource="files.example.com", operation__verb="A", agent__namespace="audited")
    same("NOERROR", record["dns"]["rcode"], "response code")
    check(record["dns"]["answers"], "it has the answers")
    same("NXDOMAIN", wait_record(kind="dns", operation__resource="nowhere.example.com")["dns"]["rcode"], "response code of a name that is not")
