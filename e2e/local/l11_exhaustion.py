"""Group 11: what runs out. What cannot be served fails; nothing passes unrecorded, and all goes on once there is room."""

from .l6_abuse import AGENT, MASKS, started
from .stage import run, test, verify

# Descriptors of the sidecar: enough for 8 connections, see `most_connections` of sidecar/src/listen.rs.
DESCRIPTORS = 280


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
