"""Group 11: what runs out. What cannot be served fails; nothing passes unrecorded, and all goes on once there is room."""

import json
import shutil
import subprocess

from .l6_abuse import AGENT, MASKS, started
from .stage import STATE, command_line, environment, run, sh, test, verify

# Descriptors of the sidecar: enough for 8 connections, see `most_connections` of sidecar/src/listen.rs.
DESCRIPTORS = 280
# Bytes of the small disk, and of it what is free at first: room for the trust bundle and a few hundred records.
DISK, FREE = 64 << 20, 2 << 20
# Bytes of records that may wait (`DEFAULT_QUEUE_BYTES` of sidecar/src/audit.rs).
QUEUE = 8 << 20


@test
def out_of_descriptors_connections_are_dropped_others_served_and_what_is_answered_is_recorded():
    started()
    script = AGENT + """
held, answers, dropped = [], 0, 0
for _ in range(60):
    s = connect(); s.settimeout(10); held.append(s)
    try: s.sendall(get("/small")); said = s.recv(4096)
    except OSError: said = b""
    if said.startswith(b"HTTP/1.1 200"): answers += 1
    else: assert said == b"", said; dropped += 1
for s in held: s.close()
time.sleep(1); answered()
print(answers, dropped)
"""
    got = run("Enforce", "python3", "-c", script, policy=MASKS, prefix=["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"])
    assert got.code == 0, got.err
    answers, dropped = map(int, got.out.split())
    assert answers >= 1 and dropped >= 1 and answers + dropped == 60, got.out
    # One more once they were closed.
    assert len(got.only("http")) == answers + 1, (answers, len(got.only("http")))
    assert verify(got.log).returncode == 0


@test
def on_a_full_disk_requests_wait_and_go_on_recorded_once_there_is_room():
    started()
    disk = STATE / "disk"
    disk.mkdir()
    sh("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk)
    try:
        filler, log = disk / "filler", disk / "audit.jsonl"
        filler.write_bytes(bytes(DISK - FREE))
        script = AGENT + f"""
s = connect(); s.settimeout(5)
request = get("/small?" + "x" * 8000)
count, stalled, kept = 0, False, b""
def whole():
    global kept
    while not kept.endswith(b"\\r\\n0\\r\\n\\r\\n"):  # masked, so in chunks
        data = s.recv(4096); assert data; kept += data
    assert kept.startswith(b"HTTP/1.1 200"), kept
    kept = b""
while count < 2000 and not stalled:
    s.sendall(request); count += 1
    try: whole()
    except TimeoutError: stalled = True
tell(count if stalled else "never")
sys.stdin.readline(); s.settimeout(60)
whole()
for _ in range(3): answered(); count += 1
tell(count)
"""
        words, _ = command_line("Enforce", "python3", "-c", script, policy=MASKS)
        words[words.index("--audit") + 1] = str(log)
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**environment(), "TMPDIR": str(disk)})
        served = process.stdout.readline().strip()
        filler.unlink()
        out, err = process.communicate("\n", timeout=120)
        assert served.isdigit() and process.returncode == 0, (served, err)
        records = [json.loads(line) for line in log.read_text().splitlines()]
        assert len([r for r in records if r["kind"] == "http"]) == int(out), (out, len(records))
        assert verify(log).returncode == 0, verify(log).stdout
        # What was answered before requests had to wait fits the disk and the queue: no more than that can be without a record on disk.
        waiting = int(served) * log.stat().st_size / len(records)
        assert waiting < FREE + QUEUE, waiting
    finally:
        sh("umount", "-l", disk, check=False)
        shutil.rmtree(disk, ignore_errors=True)
