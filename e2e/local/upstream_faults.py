"""Upstreams whose TLS is at fault, as `openssl s_server` and a few bad servers make them, and what becomes of them under Chaperone.

A fault must reach curl as the same kind of error as without Chaperone where the agent may judge for itself (Audit), and be refused in words where it may not (Enforce).
Owns the certificates, the servers and the table.
"""

import socket
import struct
import subprocess
import sys
import threading
import time

HOST = "faults.test.example.com"
# curl's exit codes that mean one thing to who reads them: which of two it is depends on when the alert arrives.
KINDS = {0: "well", 7: "refused", 28: "slow", 35: "handshake", 51: "certificate", 60: "certificate", 52: "broken", 55: "broken", 56: "broken", 18: "broken"}
# Seconds that each curl has. Many, for a busy machine; fewer where the server stays silent and they are waited out.
PATIENCE, SILENCE = 40, 5
# Curls at once: a busy machine runs them one after the other anyway.
AT_ONCE = 6
# What `openssl s_server` serves at its level 0, faults included.
WEAK = ["-cipher", "ALL:@SECLEVEL=0"]
FIRST_PORT = 9100

CONFIG = """[ca]
default_ca = here
[here]
database = DIR/index.txt
new_certs_dir = DIR
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
x509_extensions = none
[any]
commonName = supplied
[none]
"""


class Pki:
    """Authorities and certificates below one folder."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "index.txt").touch()
        (folder / "ca.cnf").write_text(CONFIG.replace("DIR", str(folder)))
        self.authority("root")
        self.authority("stranger")
        self.authority("intermediate", under="root")
        self.authority("only-allowed", under="root", extra="nameConstraints=critical,permitted;DNS:test.example.com\n")
        self.authority("only-others", under="root", extra="nameConstraints=critical,permitted;DNS:other.test.example.com\n")
        # RFC 5280: an authority says in basicConstraints that it is one; a leaf that signs is none.
        self.leaf("no-authority", san="DNS:" + HOST)

    def openssl(self, *words):
        done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
        assert done.returncode == 0, f"openssl {' '.join(map(str, words))}: {done.stderr}"

    def key(self, name, kind="ec"):
        options = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else [f"rsa:{kind}"]
        self.openssl("req", "-newkey", *options, "-nodes", "-subj", f"/CN={name}", "-keyout", self.folder / f"{name}.key", "-out", self.folder / f"{name}.csr")

    def sign(self, name, under, extensions, digest="sha256", start="20200101000000Z", end="20491231000000Z", subject=None):
        file = self.folder / f"{name}.ext"
        file.write_text(extensions)
        signer = ["-selfsign", "-keyfile", self.folder / f"{name}.key"] if under is None else ["-cert", self.folder / f"{under}.pem", "-keyfile", self.folder / f"{under}.key"]
        self.openssl("ca", "-batch", "-notext", "-config", self.folder / "ca.cnf", *signer, "-in", self.folder / f"{name}.csr", "-out", self.folder / f"{name}.pem",
                     "-startdate", start, "-enddate", end, "-md", digest, "-extfile", file, *(["-subj", subject] if subject else []))

    def authority(self, name, under=None, extra=""):
        self.key(name)
        self.sign(name, under, f"basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n{extra}")

    def leaf(self, name, san=f"DNS:{HOST}", under="root", usage="serverAuth", key="ec", chain=(), revoked=False, **options):
        self.key(name, key)
        extensions = "basicConstraints=CA:FALSE\n" + (f"extendedKeyUsage={usage}\n" if usage else "") + (f"subjectAltName={san}\n" if san else "")
        self.sign(name, under, extensions, **options)
        if revoked:
            self.openssl("ca", "-config", self.folder / "ca.cnf", "-cert", self.folder / "root.pem", "-keyfile", self.folder / "root.key", "-revoke", self.folder / f"{name}.pem")
        (self.folder / f"{name}.chain").write_text("".join((self.folder / f"{link}.pem").read_text() for link in (name, *chain)))


class Fault:
    """One row of the table. `direct`: the kind of error that curl has without Chaperone. `enforce`: `read` where there is nothing to refuse, else the record's reason."""

    def __init__(self, name, direct, enforce, host=HOST, serve=(), bad=None, curl=(), audit=None, **leaf):
        self.name, self.direct, self.enforce, self.host, self.serve, self.bad, self.curl, self.leaf = name, direct, enforce, host, list(serve), bad, list(curl), leaf
        # Where it differs from `direct` in Audit, with the reason in the row.
        self.audit = audit or direct
        self.port = 0


UNVERIFIABLE, HANDSHAKE, CLIENT = "unverifiable-upstream", "upstream-handshake", "client-certificate"
DEMANDS = ["-Verify", "1", "-verify_return_error"]
WITH_CERTIFICATE = ["--cert", "CLIENT.pem", "--key", "CLIENT.key"]

FAULTS = [
    Fault("well", "well", "read"),
    Fault("well over TLS 1.2", "well", "read", serve=["-tls1_2"]),
    Fault("well under an intermediate", "well", "read", under="intermediate", chain=["intermediate"]),
    Fault("well with RSA 2048", "well", "read", key=2048),
    Fault("expired", "certificate", UNVERIFIABLE, start="20200101000000Z", end="20210101000000Z"),
    Fault("not yet valid", "certificate", UNVERIFIABLE, start="20480101000000Z"),
    Fault("wrong host", "certificate", UNVERIFIABLE, san="DNS:other.test.example.com"),
    Fault("self-signed", "certificate", UNVERIFIABLE, under=None),
    Fault("untrusted root", "certificate", UNVERIFIABLE, under="stranger"),
    Fault("untrusted root in the chain", "certificate", UNVERIFIABLE, under="stranger", chain=["stranger"]),
    Fault("incomplete chain", "certificate", UNVERIFIABLE, under="intermediate"),
    Fault("signed by a leaf", "certificate", UNVERIFIABLE, under="no-authority", chain=["no-authority"]),
    # Neither asks whether a certificate is revoked: docs/security.md says why.
    Fault("revoked", "well", "read", revoked=True),
    Fault("SHA-1", "certificate", UNVERIFIABLE, digest="sha1", serve=WEAK),
    Fault("RSA of 1024 bits", "certificate", UNVERIFIABLE, key=1024, serve=WEAK),
    Fault("wildcard", "well", "read", host=f"a.{HOST}", san=f"DNS:*.{HOST}"),
    Fault("wildcard for two labels", "certificate", UNVERIFIABLE, host=f"a.b.{HOST}", san=f"DNS:*.{HOST}"),
    Fault("wildcard for the domain itself", "certificate", UNVERIFIABLE, san=f"DNS:*.{HOST}"),
    # curl takes part of a label for a wildcard, as RFC 6125 lets it; webpki does not, and the agent judges.
    Fault("wildcard in a label", "certificate", UNVERIFIABLE, host=f"abc.{HOST}", san=f"DNS:a*.{HOST}"),
    Fault("address", "well", "read", host="ADDRESS", san="IP:ADDRESS"),
    Fault("address as a name", "certificate", UNVERIFIABLE, host="ADDRESS", san="DNS:ADDRESS"),
    Fault("other address", "certificate", UNVERIFIABLE, host="ADDRESS", san="IP:192.0.2.1"),
    # curl still takes a CN where there is no SAN; webpki does not, and the agent judges.
    Fault("CN only", "well", UNVERIFIABLE, san=None, subject=f"/CN={HOST}"),
    Fault("for clients only", "certificate", UNVERIFIABLE, usage="clientAuth"),
    Fault("name constraints satisfied", "well", "read", under="only-allowed", chain=["only-allowed"]),
    Fault("name constraints violated", "certificate", UNVERIFIABLE, under="only-others", chain=["only-others"]),
    # CBC with RSA key exchange: curl still speaks it, rustls does not, and the agent negotiates for itself.
    Fault("old cipher", "well", HANDSHAKE, key=2048, serve=["-tls1_2", "-cipher", "AES128-SHA"]),
    Fault("no common cipher", "handshake", HANDSHAKE, serve=["-tls1_2", "-cipher", "ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0"]),
    Fault("no common group", "handshake", HANDSHAKE, serve=["-tls1_3", "-groups", "brainpoolP256r1:ffdhe8192"], curl=["--curves", "X25519"]),
    Fault("TLS 1.1 only", "handshake", HANDSHAKE, serve=["-tls1_1", *WEAK]),
    Fault("TLS 1.0 only", "handshake", HANDSHAKE, serve=["-tls1", *WEAK]),
    Fault("client certificate missing, TLS 1.2", "handshake", CLIENT, serve=["-tls1_2", *DEMANDS]),
    Fault("client certificate missing, TLS 1.3", "broken", CLIENT, serve=["-tls1_3", *DEMANDS]),
    Fault("client certificate there, TLS 1.2", "well", CLIENT, serve=["-tls1_2", *DEMANDS], curl=WITH_CERTIFICATE),
    Fault("client certificate there, TLS 1.3", "well", CLIENT, serve=["-tls1_3", *DEMANDS], curl=WITH_CERTIFICATE),
    Fault("client certificate asked for and not needed", "well", "read", serve=["-verify", "1"]),
    Fault("reset in the handshake", "handshake", HANDSHAKE, bad="reset"),
    Fault("end in the handshake", "handshake", HANDSHAKE, bad="end"),
    Fault("garbage for a ServerHello", "handshake", HANDSHAKE, bad="garbage"),
    Fault("HTTP for a ServerHello", "handshake", HANDSHAKE, bad="http"),
    Fault("an alert for a ServerHello", "handshake", HANDSHAKE, bad="alert"),
    Fault("slow handshake", "well", "read", bad="slow"),
    Fault("silent server", "slow", "slow", bad="silent"),
    Fault("closed port", "refused", "upstream-unreachable", bad="closed", audit="handshake"),
]


class Servers:
    """All servers of the table, in a network namespace."""

    def __init__(self, folder, address, spawn):
        """`spawn` starts a command there."""
        self.folder, self.address, self.spawn = folder, address, spawn
        self.pki = Pki(folder / "pki")
        self.pki.leaf("client", usage="clientAuth", san="DNS:agent.example.com")
        for number, fault in enumerate(FAULTS):
            fault.port = FIRST_PORT + number
            self.start(fault, f"leaf-{number}")

    def start(self, fault, leaf):
        fill = lambda text: text.replace("ADDRESS", self.address) if isinstance(text, str) else text
        fault.host = fill(fault.host)
        if fault.bad is None:
            self.pki.leaf(leaf, **{key: fill(value) for key, value in fault.leaf.items()})
            files = self.pki.folder
            self.spawn("openssl", "s_server", "-accept", f"{self.address}:{fault.port}", "-key", files / f"{leaf}.key", "-cert", files / f"{leaf}.pem", "-cert_chain", files / f"{leaf}.chain",
                       "-CAfile", files / "root.pem", "-no_dhe", "-www", *fault.serve, port=fault.port)
        elif fault.bad != "closed":
            behind = next((f.port for f in FAULTS if f.name == "well"), 0)
            self.spawn(sys.executable, "-u", __file__, fault.bad, self.address, fault.port, behind, port=fault.port)

    def script(self, out, *options):
        """A shell script that asks all servers at once and leaves each exit code, status and body in `out`."""
        out.mkdir()
        out.chmod(0o777)
        lines = []
        for number, fault in enumerate(FAULTS):
            words = [word.replace("CLIENT", str(self.pki.folder / "client")) for word in fault.curl]
            url = f"https://{fault.host}:{fault.port}/"
            lines.append(f"(curl -sS -4 -m {SILENCE if fault.direct == 'slow' else PATIENCE} -o {out}/{number}.body -w '%{{http_code}}' {' '.join([*options, *words])} {url} >{out}/{number}.status 2>{out}/{number}.error; echo $? >{out}/{number}.exit) &")
            if (number + 1) % AT_ONCE == 0:
                lines.append("wait")
        return "\n".join([*lines, "wait"])

    def heard(self, out, number):
        read = lambda kind: (out / f"{number}.{kind}").read_text(errors="replace").strip() if (out / f"{number}.{kind}").exists() else ""
        code = int(read("exit"))
        return KINDS.get(code, f"curl {code}"), read("status"), read("body"), read("error")


# --- servers that are no TLS servers ----------------------------------------------------------------------------


def serve(what, address, port, behind):
    listener = socket.create_server((address, port))
    while True:
        client, _ = listener.accept()
        threading.Thread(target=answer, args=(what, client, (address, behind)), daemon=True).start()


def answer(what, client, behind):
    if what == "slow":
        time.sleep(2)
        server = socket.create_connection(behind)
        threading.Thread(target=copy, args=(server, client), daemon=True).start()
        return copy(client, server)
    client.recv(65536)
    if what == "reset":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif what == "garbage":
        client.sendall(bytes(range(256)))
    elif what == "http":
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    elif what == "alert":
        client.sendall(b"\x15\x03\x03\x00\x02\x02\x28")
    elif what == "silent":
        time.sleep(60)
    client.close()


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        # A close alone would not end what the other thread waits for.
        target.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
