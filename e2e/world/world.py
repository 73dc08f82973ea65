#!/usr/bin/env python3
"""world.py packages | up | down: the internet of the tests, in the network namespace that plays it (see docs/development-cluster.md).

`packages` installs what is missing, which takes a network that leads out. `up` starts what does not run yet: nginx over TLS for files.example.com, git.example.com, api.anthropic.com and sink.example.com under a private CA
made for this run, the stand-in Messages API, the collector of audit records, and servers of other protocols. It prints the state folder, in which
all lies: `pki/ca.pem`, `files/` (served, written by PUT and DELETE), `git/`, `log/`, `records/`. `down` ends the processes, by pid, and removes it.

With CLUSTER=existing the servers run on this machine itself; the names must then lead here in that cluster's DNS, to WORLD_IP and WORLD_IP6.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ["files.example.com", "git.example.com", "api.anthropic.com", "sink.example.com", "db.example.com"]
PACKAGES = {"/usr/sbin/nginx": "nginx", "/usr/sbin/fcgiwrap": "fcgiwrap", "/usr/bin/git": "git", "/usr/bin/openssl": "openssl",
            "/usr/lib/python3/dist-packages/websockets": "python3-websockets", "/usr/lib/python3/dist-packages/grpc": "python3-grpcio", "/usr/bin/pg_ctlcluster": "postgresql"}
# Personal data as the masks know it; the card passes Luhn's check.
CUSTOMERS = """{"customers": [
  {"id": 1, "name": "Ada", "mail": "ada.lovelace@example.com", "card": "4111 1111 1111 1111", "ssn": "536-22-8145"},
  {"id": 2, "name": "Alan", "mail": "alan@turing.example", "card": "5555555555554444", "ssn": "219-09-9998"},
  {"id": 3, "name": "Grace", "mail": "grace@navy.example", "order": "1234567812345678", "ssn": "574-11-0203"}
]}
"""
EXISTING = os.environ.get("CLUSTER") == "existing"
BIG_BYTES = 64 * 1024 * 1024


def cluster_settings():
    """What e2e/cluster/lib.sh knows: {"STATE": ..., "INET_NETNS": ..., ...}."""
    script = f'. {HERE}/../cluster/lib.sh; for n in STATE CACHE INET_NETNS NODE_NETNS INET_IP NODE_IP NODE_IP6 INET_IP6; do echo "$n=${{!n}}"; done'
    lines = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout.splitlines()
    settings = dict(line.split("=", 1) for line in lines)
    if EXISTING:
        settings |= {"INET_IP": os.environ.get("WORLD_IP", ""), "INET_IP6": os.environ.get("WORLD_IP6", "")}
    return settings


SETTINGS = cluster_settings()
WORLD = Path(os.environ["CHAPERONE_WORLD"] if "CHAPERONE_WORLD" in os.environ else "/tmp/chaperone-world" if EXISTING else SETTINGS["STATE"] + "/world")
NETNS = [] if EXISTING else ["nsenter", f"--net=/run/netns/{SETTINGS['INET_NETNS']}", "--"]


def say(text):
    print(text, file=sys.stderr)


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def main(arguments):
    if arguments == ["up"]:
        up()
        print(WORLD)
    elif arguments == ["down"]:
        down()
    elif arguments == ["packages"]:
        install_packages()
    else:
        sys.exit("usage: e2e/world/world.py packages|up|down")


def up():
    if not EXISTING and not Path(f"/run/netns/{SETTINGS['INET_NETNS']}").exists():
        sys.exit("no cluster is up: run e2e/cluster/up first")
    install_packages()
    if not (WORLD / "ready").exists():
        shutil.rmtree(WORLD, ignore_errors=True)
        for folder in ("pki", "files", "git", "log", "pid", "records", "tmp"):
            (WORLD / folder).mkdir(parents=True)
        make_certificates()
        make_client_certificates()
        make_files()
        make_repository("project")
        write_nginx_conf()
        (WORLD / "ready").touch()
    python = [sys.executable, "-u"]
    start("fcgiwrap", "/usr/sbin/fcgiwrap", "-c", "2", "-s", f"unix:{WORLD}/fcgiwrap.sock", unlink="fcgiwrap.sock")
    start("messages", *python, HERE / "messages.py", WORLD / "messages.sock", HERE / "scenarios", WORLD / "log/messages.jsonl")
    start("servers", *python, HERE / "servers.py", WORLD / "log/raw.log")
    start("protocols", "/usr/bin/python3", "-u", HERE / "protocols.py", WORLD / "pki/world.crt", WORLD / "pki/world.key")
    start_sink()
    start("nginx", "/usr/sbin/nginx", "-p", WORLD, "-c", WORLD / "nginx.conf")
    wait_until_served()


def down():
    for file in (WORLD / "pid").glob("*"):
        stop(file.name)
    if (WORLD / "ready").exists():
        shutil.rmtree(WORLD)
        say("the world is down")


# --- processes -------------------------------------------------------------------------------------------------


def start(name, *command, unlink=None):
    if is_running(name):
        return
    if unlink:
        (WORLD / unlink).unlink(missing_ok=True)
    with open(WORLD / f"log/{name}.log", "a") as log:
        process = subprocess.Popen([*NETNS, *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (WORLD / "pid" / name).write_text(str(process.pid))


def start_sink():
    start("sink", sys.executable, "-u", HERE.parent / "tools/sink.py", "--host", "127.0.0.1", "--port", "9009", "--file", WORLD / "records/records.jsonl")


def pid_of(name):
    """The process that `start` made, or None. A reused pid does not count: ours have the state folder in their command line."""
    try:
        pid = int((WORLD / "pid" / name).read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    # Before nsenter has become the program, and nginx's master rewrites its own line but keeps the name of its file in it.
    return pid if str(WORLD).encode() in command else None


def is_running(name):
    return pid_of(name) is not None


def stop(name, how=signal.SIGTERM):
    pid = pid_of(name)
    if pid:
        # With its children: fcgiwrap's outlive it.
        os.killpg(pid, how)
        for _ in range(100):
            reap(pid)
            if pid_of(name) is None:
                break
            time.sleep(0.05)
        else:
            os.killpg(pid, signal.SIGKILL)
    (WORLD / "pid" / name).unlink(missing_ok=True)


def reap(pid):
    """Buries the process if it is our child; else nothing happens."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def wait_until_served():
    address = "127.0.0.1" if EXISTING else SETTINGS["INET_IP"]
    addresses = [word for name in NAMES for word in ("--resolve", f"{name}:443:{address}")]
    checks = ["https://files.example.com/customers.json", "https://git.example.com/project.git/info/refs?service=git-upload-pack",
              "https://api.anthropic.com/", "https://sink.example.com/healthz"]
    for url in checks:
        command = [*NETNS, "curl", "-sS", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", WORLD / "pki/ca.pem", *addresses, url]
        deadline = time.monotonic() + 15
        while True:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.stdout in ("200", "404", "405"):
                break
            if time.monotonic() > deadline:
                sys.exit(f"the world does not serve {url}: {done.stdout} {done.stderr.strip()}; logs are in {WORLD}/log")
            time.sleep(0.1)


def install_packages():
    missing = [package for path, package in PACKAGES.items() if not Path(path).exists()]
    if missing:
        run("bash", "-c", f'. {HERE}/../cluster/lib.sh; need_commands "$@"', "_", *(f"{path}={package}" for path, package in PACKAGES.items()))


# --- what is served --------------------------------------------------------------------------------------------


def make_certificates():
    pki = WORLD / "pki"
    for name, ca in (("world", "ca"), ("unknown", "unknown-ca")):
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", f"/O=World/CN={ca} of the tests",
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign", "-keyout", pki / f"{ca}.key", "-out", pki / f"{ca}.pem")
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=files.example.com", "-keyout", pki / f"{name}.key", "-out", pki / f"{name}.csr")
        extensions = pki / "extensions"
        extensions.write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in NAMES) + "\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n")
        run("openssl", "x509", "-req", "-in", pki / f"{name}.csr", "-CA", pki / f"{ca}.pem", "-CAkey", pki / f"{ca}.key", "-CAcreateserial", "-days", "30",
            "-extfile", extensions, "-out", pki / f"{name}.crt")


def make_client_certificates():
    """An authority that nginx knows clients by, and two certificates under it."""
    pki = WORLD / "pki"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("openssl", "req", "-x509", *curve, "-days", "30", "-subj", "/CN=clients", "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", pki / "clients.key", "-out", pki / "clients.pem")
    extensions = pki / "client-extensions"
    extensions.write_text("extendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE\n")
    for name in ("agents", "renewed"):
        run("openssl", "req", *curve, "-subj", f"/CN={name}", "-keyout", pki / f"{name}.key", "-out", pki / f"{name}.csr")
        run("openssl", "x509", "-req", "-in", pki / f"{name}.csr", "-CA", pki / "clients.pem", "-CAkey", pki / "clients.key", "-CAcreateserial", "-days", "30", "-extfile", extensions, "-out", pki / f"{name}.crt")


def make_files():
    files = WORLD / "files"
    (files / "scratch").mkdir()
    (files / "zipped").mkdir()
    (files / "customers.json").write_text(CUSTOMERS)
    (files / "hello.txt").write_text("hello from files.example.com\n")
    (files / "zipped/customers.json").write_text(CUSTOMERS)
    run("gzip", "-k", files / "zipped/customers.json")
    # Bytes that do not compress and are the same in every run.
    (files / "big.bin").write_bytes(random.Random(1).randbytes(BIG_BYTES))
    (files / "middle.bin").write_bytes(random.Random(2).randbytes(2_000_000))


def make_repository(name):
    bare = WORLD / f"git/{name}.git"
    work = WORLD / "tmp/work"
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    for variable in ("AUTHOR", "COMMITTER"):
        environment |= {f"GIT_{variable}_NAME": "world", f"GIT_{variable}_EMAIL": "world@localhost"}
    git = lambda *arguments: run("git", *map(str, arguments), env=environment)
    git("init", "-q", "--bare", "-b", "main", bare)
    git("-C", bare, "config", "http.receivepack", "true")
    git("init", "-q", "-b", "main", work)
    (work / "README.md").write_text("A project that agents work on.\n")
    git("-C", work, "add", ".")
    git("-C", work, "commit", "-q", "-m", "Begin")
    git("-C", work, "push", "-q", bare, "main")
    shutil.rmtree(work)


def write_nginx_conf():
    text = (HERE / "nginx.conf").read_text()
    (WORLD / "nginx.conf").write_text(text.replace("@WORLD@", str(WORLD)).replace("@GIT@", "/usr/lib/git-core"))


if __name__ == "__main__":
    main(sys.argv[1:])
