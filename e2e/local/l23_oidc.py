"""Group 23: login to the console by an OpenID provider: the real flow of oidc-provider (a certified one) in headless Chromium, and answers that nobody asked for."""

import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

from .console_stage import browser, faults_of_access, ledger, picture, selenium, wait
from .stage import CACHE, ROOT, STATE, sh, test

PROVIDER = "oidc-provider@9.13.3"
SECRET = "a secret of the client"


def installed():
    """The provider's package, got once, with our program beside it."""
    program = ROOT / "e2e/local/oidc_provider.mjs"
    place = CACHE / f"oidc-{hashlib.sha256(PROVIDER.encode()).hexdigest()[:16]}"
    if not (place / "ready").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text("{}")
        sh("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", place, PROVIDER)
        (place / "ready").touch()
    shutil.copy(program, place / program.name)
    return place / program.name


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextlib.contextmanager
def provided(*more):
    """A ledger whose console knows a provider."""
    folder, port = STATE / "oidc", free_port()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    key, crt, secret = folder / "tls.key", folder / "tls.crt", folder / "secret"
    sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost",
       "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", crt)
    secret.write_text(SECRET + "\n")
    back = f"https://localhost:{port}/console/oidc/callback"
    process = subprocess.Popen(["node", installed(), key, crt, SECRET, back], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        issuer = f"https://localhost:{int(process.stdout.readline())}"
        flags = ["--oidc-issuer-url", issuer, "--oidc-client-id", "console", "--oidc-client-secret-file", secret, "--oidc-ca-file", crt,
                 "--oidc-username-claim", "email", "--oidc-groups-claim", "groups", *more]
        with ledger(*flags, port=port) as running:
            running.issuer = issuer
            yield running
    finally:
        process.kill()
        process.wait()


def log_in(running, url, name, then):
    By, Keys = selenium()
    running.get(url + then)
    running.find_element(By.PARTIAL_LINK_TEXT, "Log in with").click()
    field = running.find_element(By.NAME, "login")
    field.send_keys(name)
    running.find_element(By.NAME, "password").send_keys("any" + Keys.ENTER)
    wait(lambda: running.find_elements(By.XPATH, "//button[text()='Continue']"), "the provider does not ask for consent")
    running.find_element(By.XPATH, "//button[text()='Continue']").click()


def get(running_ledger, path, cookie=None):
    """Status, fields and body, without following redirects."""
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    context = ssl.create_default_context(cafile=running_ledger.folder / "tls.crt")
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), Stay)
    request = urllib.request.Request(running_ledger.url + path, headers={"cookie": cookie} if cookie else {})
    try:
        answer = opener.open(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, answer.headers, answer.read().decode()


@test
def who_logs_in_by_the_provider_sees_what_rbac_lets_that_user_see():
    By, _ = selenium()
    with provided() as running_ledger, browser(scripts=False) as running:
        running.get(f"{running_ledger.url}/console/login")
        assert running_ledger.issuer in running.find_element(By.TAG_NAME, "main").text
        picture(running, "login-provider")
        log_in(running, running_ledger.url, "ann", "/console/sessions?namespace=agents")
        wait(lambda: running.current_url == f"{running_ledger.url}/console/sessions?namespace=agents", "the login does not lead on")
        assert running.find_elements(By.LINK_TEXT, "7f3c1a9e-run"), running.find_element(By.TAG_NAME, "main").text
        assert "oidc:ann@example.com" in running.find_element(By.TAG_NAME, "header").text
        running.get(f"{running_ledger.url}/console/sessions")
        assert "oidc:ann@example.com may not list sessions" in running.find_element(By.TAG_NAME, "main").text
        # The reading stands on record, under that name.
        users = lambda: {r["record"]["read"]["user"] for r in running_ledger.ask("/v1/records?kind=ledger.read&limit=1000")["records"]}
        wait(lambda: time.sleep(0.5) or "oidc:ann@example.com" in users(), "no record says that she read")
        running.find_element(By.XPATH, "//button[text()='Log out']").click()
        running.get(f"{running_ledger.url}/console/sessions?namespace=agents")
        assert "/console/login" in running.current_url, running.current_url


@test
def who_has_no_right_or_no_verified_name_is_told():
    By, _ = selenium()
    with provided() as running_ledger:
        for name, needle in (("bob", "oidc:bob@example.com may not list sessions"), ("eve", "the provider has not verified the e-mail address")):
            with browser() as running:
                log_in(running, running_ledger.url, name, "/console/sessions?namespace=agents")
                wait(lambda: "localhost:%d" % running_ledger.port in running.current_url and needle in running.find_element(By.TAG_NAME, "main").text, needle)
                assert not faults_of_access(running)


@test
def answers_to_questions_that_this_browser_did_not_ask_are_refused():
    with provided() as running_ledger:
        status, head, _ = get(running_ledger, "/console/oidc/login?then=https://evil.example/")
        place, cookie = head["location"], head["set-cookie"].split(";")[0]
        assert status == 303 and place.startswith(running_ledger.issuer), (status, place)
        for word in ("response_type=code", "code_challenge_method=S256", "nonce=", "client_id=console"):
            assert word in place, place
        assert "SameSite=Lax" in head["set-cookie"] and "HttpOnly" in head["set-cookie"] and cookie.startswith("__Host-")
        state = place.split("state=")[1].split("&")[0]
        # Another browser has the address; then the right one comes too late, for an answer is taken once.
        for own in (None, cookie[:-1] + ("0" if cookie[-1] != "0" else "1"), cookie):
            status, head, body = get(running_ledger, f"/console/oidc/callback?code=x&state={state}", own)
            assert status == 401 and "was not begun in this browser" in body and "__Host-chaperone-console" not in str(head), (status, body)
        for query, needle in (("error=access_denied&error_description=%3Cscript%3E", "the provider says no: access_denied &lt;script&gt;"), ("code=made-up", "does not take its code back"),
                              ("code=made-up&iss=https://evil.example", "another provider answered"), ("", "the provider gave no code")):
            _, head, _ = get(running_ledger, "/console/oidc/login")
            state, cookie = head["location"].split("state=")[1].split("&")[0], head["set-cookie"].split(";")[0]
            status, head, body = get(running_ledger, f"/console/oidc/callback?state={state}&{query}", cookie)
            assert status == 401 and needle in body and "__Host-chaperone-console=" not in str(head), (status, query, body)


@test
def without_a_provider_there_is_no_such_login_and_one_that_is_away_leaves_tokens():
    with ledger() as running_ledger:
        assert get(running_ledger, "/console/oidc/login")[0] == 404
        assert "Log in with" not in get(running_ledger, "/console/login")[2]
    with provided() as running_ledger:
        gone = free_port()
        running_ledger.kill()
        at = running_ledger.words.index("--oidc-issuer-url") + 1
        running_ledger.words[at] = f"https://localhost:{gone}"
        running_ledger.start()
        status, _, body = get(running_ledger, "/console/oidc/login")
        assert status == 503 and "the OpenID provider does not answer" in body and "Token" in body, (status, body)
