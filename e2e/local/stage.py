"""The stage of the proof: two network namespaces, a machine and the internet; servers in the one, commands under Chaperone in the other."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MACHINE, INTERNET = f"chaperone-m{os.getpid()}", f"chaperone-i{os.getpid()}"
MACHINE_IP, INTERNET_IP, INTERNET_IP6 = "198.18.7.1", "198.18.7.2", "fd00:7::2"
# Everything under test.example.com is there for tests to serve as they like.
NAMES = ["files.example.com", "git.example.com", "api.anthropic.com", "sink.example.com", "test.example.com"]
# What is costly to get, kept between runs.
CACHE = Path(os.environ.get("CHAPERONE_CACHE", Path.home() / ".cache/chaperone"))
STATE = Path(tempfile.mkdtemp(prefix="chaperone-local-"))
WORLD = STATE / "world"
CA = WORLD / "pki/ca.pem"
TESTS = []  # functions; their names are sentences
SERVERS = []
PROGRAM = []  # the built `chaperone`

ENFORCE = """apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: local, namespace: local}
spec:
  mode: MODE
  rules:
    - name: no-delete
      match: {protocols: [http]}
      when: http.method == "DELETE"
      action: Deny
      message: Deleting is for people.
  masks:
    - name: pii
      detectors: [email, creditCard, usSsn]
  audit: {level: RequestResponse}
"""


def test(function):
    TESTS.append(function)
    return function


# --- the stage -------------------------------------------------------------------------------------------------


def sh(*command, check=True, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def interpreter(*packages):
    """A Python with these packages, made once."""
    versions = f"{sys.version_info.major}.{sys.version_info.minor} {' '.join(packages)}"
    place = CACHE / f"python-{hashlib.sha256(versions.encode()).hexdigest()[:16]}"
    if not (place / "ready").exists():
        venv.create(place, with_pip=True, clear=True)
        sh(place / "bin/pip", "install", "--quiet", *packages)
        (place / "ready").touch()
    return place / "bin/python"


def go_program(name, text):
    """A Go program, built from its text."""
    folder = STATE / f"go-{name}"
    if not (folder / name).exists():
        folder.mkdir()
        (folder / "main.go").write_text(text)
        (folder / "go.mod").write_text(f"module {name}\n\ngo 1.22\n")
        sh("go", "build", "-o", name, ".", cwd=folder)
    return folder / name


def build():
    print("building chaperone", file=sys.stderr)
    target = json.loads(sh("cargo", "metadata", "--no-deps", "--format-version=1", cwd=ROOT).stdout)["target_directory"]
    # With a test beside it dependencies have the features that `cargo test --workspace` builds them with, and are there already.
    if subprocess.run(["cargo", "build", "--quiet", "--locked", "--workspace", "--bin", "chaperone", "--test", "commands"], cwd=ROOT).returncode:
        sys.exit("chaperone does not build")
    PROGRAM.append(Path(target) / "debug/chaperone")
    # Here, for no way leads out of the namespaces.
    sh(sys.executable, ROOT / "e2e/world/world.py", "packages", env={**os.environ, "CLUSTER": "existing"})


def chaperone():
    """The program under test."""
    return PROGRAM[0]


def strike_stages_left():
    """Stages of runs that were killed."""
    for name in sh("ip", "netns", "list").stdout.split():
        left = re.fullmatch(r"chaperone-[mi](\d+)", name)
        if left and not Path(f"/proc/{left[1]}").exists():
            for pid in sh("ip", "netns", "pids", name, check=False).stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            sh("ip", "netns", "del", name)
            shutil.rmtree(f"/etc/netns/{name}", ignore_errors=True)


def make_stage():
    strike_stages_left()
    for name in (MACHINE, INTERNET):
        sh("ip", "netns", "add", name)
        sh("ip", "-n", name, "link", "set", "lo", "up")
    sh("ip", "link", "add", "veth-m", "netns", MACHINE, "type", "veth", "peer", "name", "veth-i", "netns", INTERNET)
    for name, device, addresses in (
        (MACHINE, "veth-m", [f"{MACHINE_IP}/24", "fd00:7::1/64"]),
        (INTERNET, "veth-i", [f"{INTERNET_IP}/24", f"{INTERNET_IP6}/64"]),
    ):
        for address in addresses:
            sh("ip", "-n", name, "addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
        sh("ip", "-n", name, "link", "set", device, "up")
    # `ip netns exec` puts these in the place of the machine's own.
    etc = Path(f"/etc/netns/{MACHINE}")
    etc.mkdir(parents=True)
    (etc / "resolv.conf").write_text(f"nameserver {INTERNET_IP}\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    names = [f"--address=/{name}/{address}" for name in NAMES for address in (INTERNET_IP, INTERNET_IP6)]
    SERVERS.append(subprocess.Popen(
        ["ip", "netns", "exec", INTERNET, "dnsmasq", "-k", "--no-resolv", "--no-hosts", "--user=root", f"--listen-address={INTERNET_IP}", "--bind-interfaces", "--pid-file", *names],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True))
    world("up")


def world(what):
    environment = {**os.environ, "CLUSTER": "existing", "WORLD_IP": INTERNET_IP, "WORLD_IP6": INTERNET_IP6, "CHAPERONE_WORLD": str(WORLD)}
    sh("ip", "netns", "exec", INTERNET, sys.executable, ROOT / "e2e/world/world.py", what, env=environment)


def serve(*command, port=None, **options):
    """Starts a server on the internet for the rest of the run, and waits until its TCP port is open."""
    log = open(STATE / f"server-{len(SERVERS)}.log", "w")
    words = ["ip", "netns", "exec", INTERNET, *map(str, command)]
    server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **options)
    SERVERS.append(server)
    deadline = time.monotonic() + 60
    while port and sh("ip", "netns", "exec", INTERNET, "bash", "-c", f"exec 3<>/dev/tcp/{INTERNET_IP}/{port}", check=False).returncode:
        assert server.poll() is None and time.monotonic() < deadline, f"{command[0]} does not serve: {Path(log.name).read_text()[-2000:]}"
        time.sleep(0.05)
    return server


def issue(name, *names, ca="ca", **options):
    """A certificate of the world's authority (`unknown-ca`: of one that nobody trusts) for these names; the paths of certificate and key. `options` are of the program that signs."""
    pki = WORLD / "pki"
    key, request, certificate, extensions = (STATE / f"{name}.{end}" for end in ("key", "csr", "crt", "ext"))
    extensions.write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in names or [name]) + "\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
    sh("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    sh("openssl", "x509", "-req", "-in", request, "-CA", pki / f"{ca}.pem", "-CAkey", pki / f"{ca}.key", "-CAcreateserial", "-days", "30", "-extfile", extensions, "-out", certificate, **options)
    return certificate, key


def stop_servers():
    for server in SERVERS:
        try:
            os.killpg(server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        server.wait()


def strike_stage():
    stop_servers()
    world("down")
    for name in (MACHINE, INTERNET):
        sh("ip", "netns", "del", name, check=False)
    shutil.rmtree(f"/etc/netns/{MACHINE}", ignore_errors=True)
    shutil.rmtree(STATE, ignore_errors=True)


# --- running under Chaperone -----------------------------------------------------------------------------------


def joined(record):
    """A record with the texts of its bodies at their places, which its line has at its end."""
    for place, text in record.pop("bodies", {}).items():
        if place != "salt":
            part, body = place.split(".")
            record[part][body] |= text
    return record


class Run:
    """What came of one command under Chaperone."""

    def __init__(self, done, log):
        self.code, self.out, self.err, self.log = done.returncode, done.stdout, done.stderr, log
        self.records = [joined(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []

    def only(self, kind):
        return [record for record in self.records if record["kind"] == kind]

    def exchange(self, verb, part=""):
        found = [r for r in self.only("http") if r["operation"]["verb"] == verb and part in r["operation"]["resource"]]
        assert found, f"no record of {verb} {part}; there are {[(r['kind'], r.get('operation')) for r in self.records]}; stderr: {self.err}"
        return found[-1]


def command_line(mode, *command, policy=None, extra_roots=True, prefix=(), flags=()):
    number = len(list(STATE.glob("*.jsonl")))
    log = STATE / f"{number}.jsonl"
    log.touch()
    log.chmod(0o666)
    file = STATE / f"{number}.yaml"
    file.write_text(policy if policy is not None else ENFORCE.replace("MODE", mode))
    # True: the world's own authority.
    roots = ["--extra-roots", CA if extra_roots is True else extra_roots] if extra_roots else []
    words = ["ip", "netns", "exec", MACHINE, *prefix, chaperone(), "run", "--policy", file, "--audit", log, *roots, *flags, "--", *command]
    return [str(word) for word in words], log


def environment():
    kept = {name: value for name, value in os.environ.items() if not re.search("CERT|CA_BUNDLE|CAINFO|PROXY|ROOTS", name.upper())}
    return {**kept, "HOME": str(STATE), "GIT_CONFIG_NOSYSTEM": "1"}


def run(mode, *command, timeout=60, **options):
    words, log = command_line(mode, *command, **options)
    return Run(subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=environment()), log)


def verify(log):
    return sh(chaperone(), "verify", log, check=False)
