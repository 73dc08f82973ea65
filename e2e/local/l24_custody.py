"""Group 24: what whoever answers for evidence does at the command line: holds, erasure, and proof of what retention has left."""

import glob
import json
import subprocess
import time

from .console_stage import ledger
from .stage import STATE, chaperone, test

FAKETIME = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")


def said(running_ledger, *words, code=0, token="team"):
    """What the program says, and with which status it ends."""
    folder = running_ledger.folder
    (folder / token).write_text(token)
    asked = ["--ledger", running_ledger.url, "--ca", folder / "tls.crt", "--token-file", folder / token]
    done = subprocess.run(list(map(str, [chaperone(), *words, *asked])), capture_output=True, text=True, timeout=120)
    assert code is None or done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def until(condition, why, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except OSError:
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, why
        time.sleep(0.5)


@test
def a_hold_keeps_a_session_from_being_erased_until_it_is_released():
    with ledger() as running_ledger:
        erase = ["erase", "--session", "7f3c1a9e-run", "-n", "agents", "--reason", "a person asked"]
        shown = lambda code=0: said(running_ledger, "replay", "7f3c1a9e-run", "-n", "agents", "--output", "plain", "--body-chars", "2000", code=code)
        assert "Turn 2: tell" in shown(), shown()
        said(running_ledger, "hold", "add", "case-42", "--namespace", "agents", "--reason", "incident 42")
        assert "case-42" in said(running_ledger, "hold", "list", "-n", "agents")
        assert "case-42" in said(running_ledger, *erase, code=2), "the hold is named"
        assert "Turn 2: tell" in shown()
        # Who has no right, and a hold that is there already.
        assert "may not create holds" in said(running_ledger, "hold", "add", "mine", "--everything", "--reason", "x", code=2)
        assert "case-42" in said(running_ledger, "hold", "add", "case-42", "--namespace", "agents", "--reason", "again", code=2)
        said(running_ledger, "hold", "release", "case-42", "--reason", "closed", token="reader")
        assert "case-42" not in said(running_ledger, "hold", "list", token="reader")
        said(running_ledger, *erase)
        # The index is made anew meanwhile, and may not have the session yet.
        text = until(lambda: "content deleted" in shown(None) and shown(), "the replay does not say that content is gone")
        assert "Turn 2: tell" not in text and "https://api.anthropic.com/v1/messages" in text, text
        erased = running_ledger.ask("/v1/records?kind=ledger.erased")["records"]
        assert [r["record"]["erased"]["session"] for r in erased] == ["7f3c1a9e-run"], erased
        stream = running_ledger.stream.name
        proof = said(running_ledger, "verify", "-n", "agents", "--key", running_ledger.vkey, "--stream", stream, token="reader")
        assert "intact" in proof and "content of" in proof, proof


@test
def a_stream_of_which_retention_deleted_records_is_proved_over_the_network():
    assert FAKETIME, "libfaketime is missing: make setup"
    rules = STATE / "retention.yaml"
    rules.write_text("rules: []\n")
    ago = {"LD_PRELOAD": FAKETIME[0], "FAKETIME": "-40d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    with ledger("--retention", rules, "--sweep-seconds", "1", environment=ago) as running_ledger:
        running_ledger.kill()
        for name in ago:
            running_ledger.environment.pop(name)
        running_ledger.start()
        # With another day another segment begins, and the one before may be swept.
        stream = running_ledger.stream
        running_ledger.post(stream, [stream.http("GET", "https://api.example.com/new")])
        shown = lambda: [r["record"]["seq"] for r in running_ledger.ask(f"/v1/records?stream={stream.name}&limit=1000")["records"]]
        until(lambda: len(shown()) == stream.seq, "the index stays behind")
        prove = ["verify", "-n", "agents", "--key", running_ledger.vkey, "--stream", stream.name]
        until(lambda: proved(running_ledger, prove, stream.seq), "no checkpoint has all of the stream")
        rules.write_text("rules: []\ndefault:\n  content: 30d\n  records: 30d\n")
        until(lambda: shown() == [stream.seq - 1], "the records stay")
        answer = until(lambda: proved(running_ledger, prove, stream.seq), "no proof")
        assert answer["intact"], answer
        text = said(running_ledger, *prove, token="reader")
        assert f"{stream.seq - 1} deleted" in text and text.rstrip().endswith("intact"), text


def proved(running_ledger, prove, records):
    """The proof as JSON, once it is of so many records."""
    answer = json.loads(said(running_ledger, *prove, "-o", "json", token="reader"))
    return answer if any(of["records"] == records for of in answer["log"]["streams"]) else None
