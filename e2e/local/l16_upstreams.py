"""Group 16: what policies say of TLS with single servers: roots of their own, versions, and client certificates that Chaperone presents (nginx, openssl s_server)."""

import hashlib
import json
import ssl
import textwrap

from .stage import INTERNET_IP, STATE, run, serve, test
from .upstream_faults import Pki

HOST, OTHER = "mtls.test.example.com", "other.test.example.com"
NGINX, NGINX_H2, NGINX_OLD, OPENSSL, OPENSSL_OLD = 9601, 9602, 9603, 9604, 9605
BODY = "for ada@example.com from $ssl_client_s_dn over $ssl_protocol"
MADE = {}


# --- servers ---------------------------------------------------------------------------------------------------


def pki():
    """Authorities of servers and of clients, their certificates, and the servers that verify them."""
    if MADE:
        return MADE["pki"]
    made = Pki(STATE / "upstreams")
    made.authority("clients")
    made.leaf("server", san=f"DNS:{HOST},DNS:{OTHER}")
    made.leaf("agent", under="clients", usage="clientAuth", san=None)
    made.leaf("late", under="clients", usage="clientAuth", san=None, start="20200101000000Z", end="20210101000000Z")
    made.leaf("foreign", under="stranger", usage="clientAuth", san=None)
    for file in made.folder.iterdir():
        file.chmod(0o644)
    for folder in (STATE, made.folder):
        folder.chmod(0o755)
    MADE["pki"] = made
    nginx(made.folder)
    for port, version in ((OPENSSL, "-tls1_3"), (OPENSSL_OLD, "-tls1_2")):
        serve("openssl", "s_server", "-accept", f"{INTERNET_IP}:{port}", "-cert", made.folder / "server.pem", "-key", made.folder / "server.key", "-CAfile", made.folder / "clients.pem",
              "-Verify", "1", "-verify_return_error", "-www", version, port=port)
    return made


def nginx(folder):
    server = lambda port, more, version="TLSv1.2 TLSv1.3": f"""
    server {{
        listen {port} ssl{' http2' if port == NGINX_H2 else ''};
        listen [::]:{port} ssl{' http2' if port == NGINX_H2 else ''};
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        ssl_protocols {version};
        {more}
        location / {{ default_type text/plain; return 200 "{BODY}"; }}
    }}"""
    verify = f"ssl_client_certificate {folder}/clients.pem; ssl_verify_client on;"
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    conf = folder / "nginx.conf"
    conf.write_text(f"daemon off; master_process off; user root; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off; {temporary}"
                    f"{server(NGINX, verify)}{server(NGINX_H2, verify)}{server(NGINX_OLD, '', 'TLSv1.2')} }}\n")
    serve("nginx", "-c", conf, port=NGINX)


def policy(mode, *entries, rules=()):
    """A policy with these entries; JSON, which YAML is."""
    masks = [{"name": "pii", "detectors": ["email"]}]
    spec = {"mode": mode, "masks": masks, "rules": list(rules), "tls": {"upstreams": list(entries)}, "audit": {"level": "RequestResponse"}}
    return json.dumps({"apiVersion": "chaperone.dev/v1alpha1", "kind": "AgentPolicy", "metadata": {"name": "upstreams", "namespace": "local"}, "spec": spec})


def root(name="root"):
    return (pki().folder / f"{name}.pem").read_text()


def trusted(*hosts, **more):
    return {"hosts": list(hosts), "caBundle": root(), **more}


def pair(what, name="agent"):
    return f"{what}={pki().folder}/{name}.pem,{pki().folder}/{name}.key"


def fingerprint(name="agent"):
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(root(name))).hexdigest()


def curl(*urls, more=()):
    return ["curl", "-sS", "-4", "-m", "20", "-w", " [%{http_code}]\n", *more, *urls]


# --- client certificates ---------------------------------------------------------------------------------------


CLIENTS = {
    "curl": lambda url: curl(url),
    "curl over HTTP/2": lambda url: curl(url.replace(str(NGINX), str(NGINX_H2)), more=["--http2"]),
    "python": lambda url: ["python3", "-c", f"import urllib.request; print(urllib.request.urlopen('{url}').read().decode())"],
    "node": lambda url: ["node", "-e", f"fetch('{url}').then(r => r.text()).then(console.log)"],
    # It would present its own if it were asked, and could not be read then.
    "curl with its own certificate": lambda url: curl(url, more=["--cert", str(pki().folder / "foreign.pem"), "--key", str(pki().folder / "foreign.key")]),
}


@test
def a_client_certificate_that_the_sidecar_holds_is_presented_for_agents_that_have_none():
    secret = {"hosts": [HOST], "clientCertificateSecret": {"name": "corp"}}
    by_flag = ["--client-certificate", pair(HOST)]
    by_policy = ["--client-certificate-secret", pair("corp")]
    for mode in ("Audit", "Enforce"):
        for name, command in CLIENTS.items():
            for flags, entries in ((by_flag, ()), (by_policy, (secret,))):
                done = run(mode, *command(f"https://{HOST}:{NGINX}/"), policy=policy(mode, trusted(HOST), *entries), extra_roots=False, flags=flags)
                assert "for [masked:email] from CN=agent over TLSv1.3" in done.out, f"{name} {mode}: {done.out} {done.err}"
                record = done.exchange("GET")
                assert record["destination"]["clientCertificate"] == {"subject": "CN=agent", "sha256": fingerprint()}, record
                assert record["http"]["status"] == 200 and record["masked"], record
                key = (pki().folder / "agent.key").read_text().splitlines()[1]
                assert key not in done.log.read_text() and key not in done.err, "the key is not to be seen"


@test
def a_request_under_a_client_certificate_is_judged_like_any_other():
    rules = [{"name": "no-delete", "match": {"methods": ["DELETE"]}, "action": "Deny"}]
    done = run("Enforce", *curl(f"https://{HOST}:{NGINX}/", more=["-X", "DELETE"]), policy=policy("Enforce", trusted(HOST), rules=rules), extra_roots=False, flags=["--client-certificate", pair(HOST)])
    assert "[403]" in done.out and "no-delete" in done.out, done.out
    record = done.exchange("DELETE")
    assert record["destination"]["clientCertificate"]["subject"] == "CN=agent", record


@test
def openssl_servers_take_the_certificate_or_refuse_it_in_words():
    for port in (OPENSSL, OPENSSL_OLD):
        for mode in ("Audit", "Enforce"):
            ask = lambda name: run(mode, *curl(f"https://{HOST}:{port}/"), policy=policy(mode, trusted(HOST)), extra_roots=False, flags=["--client-certificate", pair(HOST, name)])
            well = ask("agent")
            assert "[200]" in well.out and well.exchange("GET")["destination"]["clientCertificate"]["sha256"] == fingerprint(), f"{port} {mode}: {well.out} {well.err}"
            refused = ask("foreign")
            gap = refused.only("gap")[0]
            assert gap["gap"]["reason"] == "client-certificate" and "refuses the client certificate CN=foreign" in gap["gap"]["detail"], gap
            if mode == "Enforce":
                assert "[502]" in refused.out and "refuses the client certificate" in refused.out, refused.out
            else:
                assert "[200]" not in refused.out and gap["decision"]["action"] == "Allow", refused.out


@test
def a_run_does_not_begin_with_a_certificate_that_cannot_be_presented():
    secret = {"hosts": [HOST], "clientCertificateSecret": {"name": "corp"}}
    mixed = f"{HOST}={pki().folder}/agent.pem,{pki().folder}/foreign.key"
    for flags, entries, why in (
        ([], (secret,), "add --client-certificate-secret corp=CERT,KEY"),
        (["--client-certificate-secret", pair("other")], (), "no policy names this Secret"),
        (["--client-certificate", pair(HOST, "late")], (), "CN=late expired on 2021-01-01"),
        (["--client-certificate", mixed], (), "its key is not that of its certificate"),
        (["--client-certificate", f"{HOST}=/nowhere,/nowhere"], (), "cannot read /nowhere"),
        (["--client-certificate", pair("*")], (), "to every server that asks"),
        (["--client-certificate", pair("a b")], (), "cannot stand in a host name"),
    ):
        done = run("Enforce", "true", policy=policy("Enforce", trusted(HOST), *entries), extra_roots=False, flags=flags)
        assert done.code == 125 and why in done.err, f"{flags}: {done.code} {done.err}"


# --- roots and versions ----------------------------------------------------------------------------------------


@test
def a_root_that_a_policy_lists_for_one_host_vouches_for_no_other_at_the_same_address():
    urls = [f"https://{HOST}:{NGINX_OLD}/", f"https://{OTHER}:{NGINX_OLD}/"]
    for mode in ("Audit", "Enforce"):
        done = run(mode, *curl(*urls), policy=policy(mode, trusted(HOST)), extra_roots=False)
        assert "for [masked:email] from  over TLSv1.2" in done.out, f"{done.out} {done.err}"
        gaps = {record["destination"]["host"]: record for record in done.only("gap")}
        assert list(gaps) == [OTHER] and gaps[OTHER]["gap"]["reason"] == "unverifiable-upstream", gaps
        assert "tls.upstreams" in gaps[OTHER]["gap"]["detail"], gaps
        assert ("[502]" in done.out) == (mode == "Enforce"), done.out
    # Python and node, whose own roots do not have it: through Chaperone they need none.
    for name in ("python", "node"):
        done = run("Enforce", *CLIENTS[name](urls[0]), policy=policy("Enforce", trusted("*.test.example.com", trust="Only")), extra_roots=False)
        assert "for [masked:email]" in done.out, f"{name}: {done.out} {done.err}"


@test
def only_the_listed_roots_count_where_a_policy_says_so():
    pki()
    entry = {"hosts": [HOST], "caBundle": root("stranger"), "trust": "Only"}
    done = run("Enforce", *curl(f"https://{HOST}:{NGINX_OLD}/"), policy=policy("Enforce", entry), extra_roots=pki().folder / "root.pem")
    assert "[502]" in done.out and "caBundle only" in done.out, f"{done.out} {done.err}"


@test
def a_server_that_speaks_older_versions_only_is_refused_or_a_gap_that_says_so():
    lowest = {"hosts": ["*"], "minVersion": "TLS1.3"}
    for mode in ("Audit", "Enforce"):
        done = run(mode, *curl(f"https://{HOST}:{NGINX_OLD}/"), policy=policy(mode, trusted(HOST), lowest), extra_roots=False)
        gap = done.only("gap")[0]["gap"]
        assert gap["reason"] == "upstream-handshake" and "asks for TLS1.3 at least" in gap["detail"], gap
        assert ("[502]" in done.out) == (mode == "Enforce"), f"{done.out} {done.err}"
        newer = run(mode, *curl(f"https://{HOST}:{NGINX}/"), policy=policy(mode, trusted(HOST), lowest), extra_roots=False, flags=["--client-certificate", pair(HOST)])
        assert "over TLSv1.3" in newer.out, f"{newer.out} {newer.err}"


@test
def a_policy_whose_bundle_is_none_is_refused_with_a_caret():
    broken = root().replace("MI", "!!", 1)
    done = run("Enforce", "true", policy=policy("Enforce", {"hosts": [HOST], "caBundle": root() + broken}), extra_roots=False)
    line = len(root().splitlines()) + 1
    assert done.code == 125 and f"tls.upstreams[0].caBundle, line {line}, column 1: " in done.err, done.err
    assert "-----BEGIN CERTIFICATE-----\n  ^" in textwrap.dedent(done.err), done.err
