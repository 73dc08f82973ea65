"""Tests, their registry and their run; waiting; running programs. Nothing in here knows Kubernetes or Chaperone."""

import re
import subprocess
import sys
import time
import traceback
import uuid

TESTS = []  # (group, sentence, function), in the order in which they are run
NOTES = []  # measurements to print at the end


class Failure(AssertionError):
    """A test's claim does not hold. The text says what was expected and what was seen."""


def test(sentence):
    """Registers a test; its group is the name of its module, `g3_policy` for example."""

    def register(function):
        TESTS.append((function.__module__.rsplit(".", 1)[-1], sentence, function))
        return function

    return register


def check(condition, text):
    if not condition:
        raise Failure(text)


def same(expected, seen, what):
    check(expected == seen, f"{what}: expected {expected!r}, saw {seen!r}")


def holds(part, whole, what):
    check(part in whole, f"{what}: {part!r} is not in: {shorten(whole)}")


def lacks(part, whole, what):
    check(part not in whole, f"{what}: {part!r} is in: {shorten(whole)}")


def shorten(value, limit=2000):
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"


def note(text):
    """A measurement: printed when it is made and again at the end."""
    NOTES.append(text)
    print(f"       {text}", flush=True)


def nonce():
    """A word that occurs nowhere else, by which a test finds what it caused."""
    return "n" + uuid.uuid4().hex[:10]


def wait_for(what, function, timeout=30.0, every=0.2):
    """Calls `function` until it returns something true, and returns that. A Failure in it counts as not yet."""
    deadline = time.monotonic() + timeout
    last = ""
    while True:
        try:
            value = function()
            if value:
                return value
        except Failure as failure:
            last = f" (last: {shorten(str(failure), 600)})"
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {timeout:g} s{last}")
        time.sleep(every)


class Result:
    """What a program did: `code`, `out`, `err`."""

    def __init__(self, command, code, out, err):
        self.command, self.code, self.out, self.err = command, code, out, err

    def __repr__(self):
        return f"exit code {self.code}\n    stdout: {shorten(self.out.strip(), 1500)}\n    stderr: {shorten(self.err.strip(), 1500)}"

    def succeeded(self, what="the command"):
        check(self.code == 0, f"{what} failed: {self!r}\n    command: {shorten(' '.join(self.command), 400)}")
        return self

    def failed(self, what="the command"):
        check(self.code != 0, f"{what} should have failed: {self!r}")
        return self


def run(*command, stdin=None, timeout=120, env=None):
    """Runs a program to its end. A timeout is a Failure."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=timeout, env=env,
                              text=not isinstance(stdin, bytes), errors=None if isinstance(stdin, bytes) else "replace")
    except subprocess.TimeoutExpired as expired:
        raise Failure(f"no end within {timeout} s: {shorten(' '.join(words), 300)}\n{shorten(str(expired.stdout or ''))}") from None
    out, err = (text if isinstance(text, str) else text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return Result(words, done.returncode, out, err)


def run_all(pattern, explain):
    """Runs the tests that match; `explain` gives more about a failure. Returns (passed, failed)."""
    chosen = [t for t in TESTS if not pattern or re.search(pattern, f"{t[0]} {t[1]}", re.IGNORECASE)]
    failures, last = [], None
    for group, sentence, function in chosen:
        if group != last:
            print(f"\n{group}", flush=True)
            last = group
        started = time.monotonic()
        problem = run_one(function)
        word = "FAILED" if problem else "ok    "
        print(f"{word} {sentence} ({time.monotonic() - started:.1f} s)", flush=True)
        if problem:
            failures.append((group, sentence))
            print(indent(problem), flush=True)
            print(indent(explain()), flush=True)
    summary(failures)
    return len(chosen) - len(failures), len(failures)


def run_one(function):
    try:
        function()
    except Failure as failure:
        line = traceback.extract_tb(failure.__traceback__)[1]
        return f"{failure}\nat {line.filename.rsplit('/', 1)[-1]}:{line.lineno}: {line.line}"
    except Exception:  # a defect of the test itself must not end the run
        return traceback.format_exc()
    return None


def summary(failures):
    print()
    for text in NOTES:
        print(text)
    for group, sentence in failures:
        print(f"failed: {group}: {sentence}")


def indent(text):
    return "\n".join("         " + line for line in text.strip().splitlines())


def say(text):
    print(text, file=sys.stderr, flush=True)
