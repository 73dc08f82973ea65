"""What is measured. A case puts one load on one peer and returns values by metric; None where the peer cannot do it."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from stage import BENCH, MASKED, NAME, sh

MIB = 1024 ** 2


def memory(process, field="VmRSS"):
    """Resident memory in MiB."""
    return int(re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024


def reset_peak(process):
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def processor_seconds(process):
    """Time that all threads of a proxy have run, in seconds, to the nanosecond (not by ticks)."""
    total = 0
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            # A thread that ended.
            continue
    return total / 1e9


def to_us(value):
    return float(value[0]) * {"us": 1, "ms": 1000, "s": 1_000_000}[value[1]]


def wrk(peer, url, connections, seconds, *more):
    """Requests a second, latencies in µs, and the proxy's processor time for each request in µs."""
    before = processor_seconds(peer.process) if peer.process else 0
    out = sh(*peer.around(["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", *more, url]))
    used = processor_seconds(peer.process) - before if peer.process else None
    if "Non-2xx" in out:
        raise SystemExit(f"{peer.name}: errors under load: {out}")
    latency = lambda share: to_us(re.search(rf"{share}%\s+([\d.]+)(us|ms|s)", out).groups())
    requests = int(re.search(r"(\d+) requests in", out)[1])
    result = {"rate": float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]), "p50": latency(50), "p99": latency(99)}
    if used is not None and requests:
        result["cpu"] = used * 1e6 / requests
    return result


def keep_alive(kind, connections):
    return lambda peer, seconds: wrk(peer, peer.url(kind) + "/", connections, seconds)


def new_connections(kind):
    """Each request on a connection of its own, and a connection upstream for each."""
    return lambda peer, seconds: wrk(peer, peer.url(kind) + "/", 16, seconds, "-H", "Connection: close")


def multiplexed(peer, seconds):
    """32 streams on one HTTP/2 connection."""
    before = processor_seconds(peer.process) if peer.process else 0
    done = subprocess.run(peer.around(["h2load", "-c1", "-m32", f"-D{seconds}", "--warm-up-time=0", peer.url("h2") + "/"]), capture_output=True, text=True)
    found = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", done.stdout)
    succeeded = re.search(r"(\d+) succeeded, (\d+) failed", done.stdout)
    if not found or not succeeded or int(succeeded[1]) == 0 or "h2" not in done.stdout.partition("Application protocol:")[2].split("\n")[0]:
        return None
    result = {"rate": float(found[1])}
    if peer.process:
        result["cpu"] = (processor_seconds(peer.process) - before) * 1e6 / int(succeeded[1])
    return result


def download(kind, name=NAME):
    def run(peer, _):
        if name == MASKED and not hasattr(peer, "audit"):
            return None
        return transfer(peer, [f"{peer.url(kind, name)}/files/large.txt"], "speed_download")
    return run


def upload(kind):
    return lambda peer, _: transfer(peer, ["-T", peer.stage.state / "files/upload", f"{peer.url(kind)}/origin/upload"], "speed_upload")


def transfer(peer, arguments, speed):
    """MiB/s, how far memory grew meanwhile, and processor time for each MiB in µs."""
    if peer.process:
        reset_peak(peer.process)
        before, used = memory(peer.process), processor_seconds(peer.process)
    out = sh(*peer.around(["curl", "-sSfk", "--http1.1", "-o", "/dev/null", "-w", f"%{{{speed}}} %{{size_download}} %{{size_upload}}", *arguments]))
    rate, *sizes = map(float, out.split())
    result = {"rate": rate / MIB}
    if peer.process:
        result |= {"growth": memory(peer.process, "VmHWM") - before, "cpu": (processor_seconds(peer.process) - used) * 1e6 / (max(sizes) / MIB)}
    return result


def events(kind, name=NAME):
    def run(peer, seconds):
        if name == MASKED and not hasattr(peer, "audit"):
            return None
        count = int(250 * seconds)
        return json.loads(sh(*peer.around([sys.executable, BENCH / "client.py", "events", f"{peer.url(kind, name)}/origin/events/", count])))
    return run


def idle(peer, _):
    """Resident memory of a proxy that has served one request."""
    if not peer.process:
        return None
    sh(*peer.around(["curl", "-sSfk", "-o", "/dev/null", peer.url("https") + "/"]))
    time.sleep(0.5)
    return {"memory": memory(peer.process)}


def held_connections(peer, _):
    """MiB for 1,000 TLS connections that have served one request each and are idle; each has one of its own upstream."""
    count = 1000 if peer.name != "mitmproxy" else 200
    if not peer.process:
        return None
    before = memory(peer.process)
    command = peer.around([sys.executable, BENCH / "client.py", "hold", peer.url("https-once") + "/", count])
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if client.stdout.readline().strip() != "ready":
        client.wait()
        return None
    time.sleep(0.5)
    grown = memory(peer.process) - before
    client.communicate("")
    return {"memory": grown * 1000 / count}


def clone(kind):
    def run(peer, _):
        target = peer.stage.state / "clone"
        began = time.monotonic()
        sh(*peer.around(["git", "-c", "http.sslVerify=false", "clone", "-q", "--bare", f"{peer.url(kind)}/origin/git", target]))
        took = time.monotonic() - began
        shutil.rmtree(target)
        return {"seconds": took}
    return run


def strict(peer, seconds):
    """Under `audit.commit: Disk` each request waits for a synced record. Beside it, in the place of the direct call: what a synced append of the same size takes on that disk."""
    if peer.name == "direct":
        return appends(peer.stage.state / "synced", seconds)
    if not hasattr(peer, "audit"):
        return None
    twin = peer.strict()
    twin.start()
    try:
        return wrk(twin, twin.url("http") + "/", 1, seconds)
    finally:
        twin.stop()


def appends(path, seconds):
    """Latencies of appending a line of a record's size to a file and syncing it, in µs."""
    line, took, end = b"x" * 700 + b"\n", [], time.monotonic() + seconds
    with open(path, "wb", buffering=0) as file:
        while time.monotonic() < end:
            began = time.perf_counter()
            file.write(line)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1e6)
    path.unlink()
    took.sort()
    return {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100]}


# In the order in which they run: memory before anything has used it.
CASES = {
    "idle": idle,
    "held": held_connections,
    "http-1": keep_alive("http", 1),
    "http-32": keep_alive("http", 32),
    "https-1": keep_alive("https", 1),
    "https-32": keep_alive("https", 32),
    "strict": strict,
    "h2": multiplexed,
    "http-new": new_connections("http-once"),
    "https-new": new_connections("https-once"),
    "download": download("http"),
    "download-tls": download("https"),
    "download-masked": download("http", MASKED),
    "upload": upload("http"),
    "upload-tls": upload("https"),
    "events": events("http-once"),
    "events-masked": events("http-once", MASKED),
    "clone": clone("https"),
}

# Title, case, metric, unit, whether less is better, budget: what Chaperone has to reach as (peer or None, factor or value), and what may come to it.
ROWS = [
    ("HTTP, 1 connection: p50", "http-1", "p50", "µs", True, [("haproxy", 1.0), ("envoy", 0.5)]),
    ("HTTP, 1 connection: p99", "http-1", "p99", "µs", True, [("haproxy", 1.0), ("envoy", 0.5)]),
    ("HTTP, 32 connections", "http-32", "rate", "req/s", False, [("haproxy", 0.9), ("envoy", 1.5)]),
    ("… processor time a request", "http-32", "cpu", "µs", True, []),
    ("HTTPS, 1 connection: p50", "https-1", "p50", "µs", True, []),
    ("HTTPS, 1 connection: p99", "https-1", "p99", "µs", True, []),
    ("HTTPS, 32 connections", "https-32", "rate", "req/s", False, [("haproxy", 0.9), ("envoy", 1.5)]),
    ("… processor time a request", "https-32", "cpu", "µs", True, []),
    ("HTTP under `audit.commit: Disk`, 1 connection (direct: a synced append): p50", "strict", "p50", "µs", True, []),
    ("HTTP under `audit.commit: Disk`, 1 connection (direct: a synced append): p99", "strict", "p99", "µs", True, [("direct", 1.0, 2000)]),
    ("HTTP/2 over TLS, 32 streams on 1 connection", "h2", "rate", "req/s", False, []),
    ("… processor time a request", "h2", "cpu", "µs", True, []),
    ("New connections, HTTP", "http-new", "rate", "1/s", False, []),
    ("New connections, HTTPS", "https-new", "rate", "1/s", False, [("haproxy", 1.0)]),
    ("… processor time a connection", "https-new", "cpu", "µs", True, []),
    ("Download, HTTP", "download", "rate", "MiB/s", False, [("haproxy", 1.0), ("envoy", 1.0)]),
    ("Download, HTTPS", "download-tls", "rate", "MiB/s", False, [("haproxy", 1.0), ("envoy", 1.0)]),
    ("Download, masked", "download-masked", "rate", "MiB/s", False, [(None, 300)]),
    ("… memory growth", "download-masked", "growth", "MiB", True, [(None, 8)]),
    ("Upload, HTTP", "upload", "rate", "MiB/s", False, []),
    ("Upload, HTTPS", "upload-tls", "rate", "MiB/s", False, []),
    ("Server-sent event: p50", "events", "p50", "µs", True, []),
    ("Server-sent event: p99", "events", "p99", "µs", True, []),
    ("Server-sent event, masked: p99", "events-masked", "p99", "µs", True, []),
    ("git clone over HTTPS, 64 MiB", "clone", "seconds", "s", True, [("direct", 1.15)]),
    ("Idle memory", "idle", "memory", "MiB", True, [(None, 15)]),
    ("Memory for 1,000 TLS connections", "held", "memory", "MiB", True, [(None, 16)]),
]
