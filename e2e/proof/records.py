"""Audit records as they arrived at the collector."""

import json

from .cluster import WORLD
from .harness import check, run, shorten, wait_for

FILE = WORLD / "records/records.jsonl"


class Collected:
    """Reads the collector's file as it grows. Copies (delivered more than once) are left out."""

    def __init__(self):
        self.offset, self.rest, self.records, self.seen = 0, b"", [], set()

    def read(self):
        if not FILE.exists():
            return self.records
        if FILE.stat().st_size < self.offset:
            self.__init__()
        with open(FILE, "rb") as file:
            file.seek(self.offset)
            data = file.read()
        self.offset += len(data)
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            record = with_defaults(json.loads(line))
            place = (record["stream"], record["seq"])
            if place not in self.seen:
                self.seen.add(place)
                self.records.append(record)
        return self.records


def with_defaults(record):
    """A record with fields that are absent because they have their usual value, and with the texts of its bodies at their places, which its line has at its end."""
    for place, text in record.pop("bodies", {}).items():
        if place != "salt":
            part, body = place.split(".")
            record[part][body] |= text
    if "http" in record:
        record["http"] = {"requestBytes": 0, "responseBytes": 0, "complete": True} | record["http"]
    return record


COLLECTED = Collected()


def find(word=None, **fields):
    """Records whose fields are as given: `kind="http"`, `http__status=403`, `agent__namespace="audited"`; `word` must occur in the record's text."""
    return [r for r in COLLECTED.read() if all(field(r, name) == value for name, value in fields.items()) and (word is None or word in json.dumps(r))]


def field(record, path):
    for name in path.split("__"):
        record = record.get(name) if isinstance(record, dict) else None
    return record


def wait_record(word=None, timeout=20, **fields):
    """The first such record, waited for. When it doesn't come, the failure shows the records that have the word."""
    word_near = word or fields.get("operation__resource")
    try:
        return wait_for(f"a record with {word!r} and {fields}", lambda: find(word, **fields), timeout)[0]
    except AssertionError as failure:
        near = find(word_near) if word_near else find(agent__namespace=fields.get("agent__namespace"))[-5:]
        raise type(failure)(f"{failure}\nrecords near: {shorten(json.dumps(near[-5:], indent=1), 4000)}") from None


def raw():
    """All that the collector has, as text."""
    return FILE.read_text() if FILE.exists() else ""


def verify(chaperone, file=FILE):
    """`chaperone verify` on the collected file."""
    check(file.exists(), f"there is no {file}")
    return run(chaperone, "verify", file)
