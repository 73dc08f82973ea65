"""Group 22: `chaperone observe` of a ledger: what it takes, as it takes it, once, across the ledger's death, and to nobody who may not see it."""

import contextlib
import json
import queue
import signal
import subprocess
import threading
import time

from .console_stage import ledger
from .stage import chaperone, test


class Watched:
    """A running `chaperone observe`, and what it says."""

    def __init__(self, running_ledger, token, *words):
        folder = running_ledger.folder
        (folder / token).write_text(token)
        asked = ["--ledger", running_ledger.url, "--ca", folder / "tls.crt", "--token-file", folder / token, *words]
        self.process = subprocess.Popen(list(map(str, [chaperone(), "observe", *asked])), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.out, self.err = queue.Queue(), queue.Queue()
        for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err)):
            threading.Thread(target=lambda stream=stream, lines=lines: [lines.put(line) for line in stream], daemon=True).start()

    def next(self, lines, seconds=30):
        try:
            return lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"nothing came in {seconds} s; it said {list(self.err.queue)}") from None

    def numbers(self, count):
        return [json.loads(self.next(self.out))["seq"] for _ in range(count)]


@contextlib.contextmanager
def watched(*words):
    running = Watched(*words)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def more(running_ledger, count):
    stream = running_ledger.stream
    lines = [stream.http("GET", f"https://api.example.com/more/{n}") for n in range(count)]
    running_ledger.post(stream, lines)
    return list(range(stream.seq - count, stream.seq))


@test
def what_the_ledger_takes_is_shown_once_also_when_it_dies_between():
    with ledger() as running_ledger, watched(running_ledger, "team", "-n", "agents", "-o", "json", "--kind", "http") as feed:
        # It begins with what comes after its first look: until then records are sent.
        first = []
        deadline = time.monotonic() + 30
        while feed.out.empty():
            assert time.monotonic() < deadline and feed.process.poll() is None, list(feed.err.queue)
            first += more(running_ledger, 1)
            time.sleep(0.3)
        shown = feed.numbers(1)
        expected = first[first.index(shown[0]):]
        for _ in range(3):
            expected += more(running_ledger, 40)
        shown += feed.numbers(len(expected) - 1)
        assert shown == expected, (shown, expected)
        running_ledger.kill()
        assert "the ledger is away, and tried again" in feed.next(feed.err)
        running_ledger.start()
        expected = more(running_ledger, 5)
        assert feed.numbers(5) == expected
        feed.process.send_signal(signal.SIGINT)
        assert feed.process.wait(10) == 0
        assert feed.out.empty(), feed.next(feed.out)


@test
def what_there_was_is_shown_and_told_among_how_many_records():
    with ledger() as running_ledger:
        with watched(running_ledger, "team", "-n", "agents", "--no-follow", "--decision", "deny") as feed:
            assert feed.process.wait(30) == 0
            assert "DELETE https://api.example.com/users/1" in feed.next(feed.out)
            assert "of the ledger" in feed.next(feed.err)
        with watched(running_ledger, "team", "-n", "agents", "--since", "1h", "-o", "json", "--kind", "gap") as feed:
            assert json.loads(feed.next(feed.out))["gap"]["reason"] == "passthrough"
            assert feed.process.poll() is None, "it goes on"


@test
def who_may_not_look_is_told_what_to_do():
    with ledger() as running_ledger:
        for token, words, needle in (("team", [], "name one with namespace="), ("stranger", ["-n", "agents"], "say who asks with --token-file or --as")):
            with watched(running_ledger, token, *words) as feed:
                assert feed.process.wait(30) == 2, "no feed"
                assert needle in feed.next(feed.err)
