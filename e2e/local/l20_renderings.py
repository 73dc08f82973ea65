"""Group 20: records in the formats of others, held to what those publish: CloudEvents to its Python SDK, OCSF to the schema of version 1.8.0, ECS to Elastic's own types.

The events are the golden ones of `crds/tests/renderings.rs`: every golden record in every format."""

import hashlib
import json
import subprocess
import sys

from .stage import CACHE, ROOT, STATE, interpreter, sh, test

RENDERED = ROOT / "crds/tests/golden/rendered"
SDK = "cloudevents==2.2.0"
SCHEMA = ["ocsf-json-schema==1.2.0", "jsonschema==4.26.0"]
ELASTIC = ["@elastic/ecs@9.4.0", "typescript@4.9.5"]

READ_CLOUD_EVENTS = """import json, sys
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
for line in open(sys.argv[1], "rb"):
    event = from_structured_event(HTTPMessage({"content-type": "application/cloudevents+json; charset=utf-8"}, line))
    record = event.get_data()
    print(json.dumps([event.get_id(), event.get_source(), event.get_type(), event.get_subject(), str(event.get_time()), record["stream"], record["seq"], record["kind"]]))
"""

READ_OCSF = """import json, sys
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from jsonschema import Draft202012Validator
ocsf = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.8.0"))
validators = {}
def validator(event):
    profiles = event["metadata"]["profiles"]
    key = event["class_uid"], *profiles
    if key not in validators:
        schema = ocsf.get_class_schema(ocsf.lookup_class_name_from_uid(key[0]), profiles)
        Draft202012Validator.check_schema(schema)
        validators[key] = Draft202012Validator(schema)
    return validators[key]
for line in open(sys.argv[1]):
    event = json.loads(line)
    if sys.argv[2:] == ["broken"]:
        del event["time"]
        event["api_call"] = "no such attribute"
    faults = [f"{'.'.join(map(str, e.absolute_path))}: {e.message}" for e in validator(event).iter_errors(event)]
    print(json.dumps([event["metadata"]["uid"], event["class_uid"], event["type_uid"], faults]))
"""


def lines(name):
    return (RENDERED / f"{name}.jsonl").read_text().splitlines()


def read(program, packages, *words):
    return [json.loads(line) for line in sh(interpreter(*packages), "-c", program, *words).stdout.splitlines()]


@test
def cloud_events_are_read_by_the_python_sdk():
    seen = read(READ_CLOUD_EVENTS, [SDK], RENDERED / "CloudEvents.jsonl")
    assert len(seen) == len(lines("CloudEvents")) > 40
    for ident, source, kind, subject, time, stream, seq, record_kind in seen:
        assert (ident, kind) == (f"{stream}/{seq}", f"dev.chaperone.{record_kind}"), (ident, kind)
        assert source.startswith("/apis/v1/namespaces/") and time.endswith("+00:00"), (source, time)
        assert subject or record_kind.startswith(("stream.", "ledger.")) or record_kind in ("config", "connection", "gap"), record_kind


@test
def records_are_taken_out_of_events_byte_for_byte():
    golden = b"".join(path.read_bytes() for path in sorted([*RENDERED.parent.glob("*.jsonl"), *RENDERED.parent.glob("v2/*.jsonl")]))
    # The commands of docs/sinks.md.
    cut = {name: ["perl", "-pe", f's/^.*?,"{field}":(?=\\{{"v":)//; s/\\}}$//'] for name, field in (("CloudEvents", "data"), ("ECS", "chaperone"))}
    raw = [sys.executable, "-c", "import json, sys\nfor line in sys.stdin: print(json.loads(line)['raw_data'])"]
    for name, command in {**cut, "OCSF": raw}.items():
        with open(RENDERED / f"{name}.jsonl") as events:
            taken = subprocess.run(command, stdin=events, stdout=subprocess.PIPE, check=True).stdout
        assert taken == golden, name


@test
def ocsf_events_fit_the_schema_of_1_8_0():
    seen = read(READ_OCSF, SCHEMA, RENDERED / "OCSF.jsonl")
    assert len(seen) == len(lines("OCSF")) > 40
    assert not [(uid, faults) for uid, _, _, faults in seen if faults], [(uid, faults) for uid, _, _, faults in seen if faults][:5]
    assert {uid for _, uid, _, _ in seen} == {4001, 4003, 6002, 6003}
    for line in map(json.loads, lines("OCSF")):
        assert line["raw_data_hash"]["value"] == hashlib.sha256(line["raw_data"].encode()).hexdigest()
        assert line["type_uid"] == line["class_uid"] * 100 + line["activity_id"]
    # That the schema would tell.
    assert all(len(faults) == 2 for *_, faults in read(READ_OCSF, SCHEMA, RENDERED / "OCSF.jsonl", "broken"))


def elastic():
    """Elastic's types of the schema and a compiler, got once."""
    place = CACHE / f"ecs-{hashlib.sha256(' '.join(ELASTIC).encode()).hexdigest()[:16]}"
    if not (place / "ready").exists():
        place.mkdir(parents=True, exist_ok=True)
        (place / "package.json").write_text("{}")
        sh("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", place, *ELASTIC)
        (place / "ready").touch()
    return place


def compiled(events):
    """What the compiler says of events as values of Elastic's type, which has no other fields than the schema."""
    place = elastic()
    body = "".join(f"export const e{number}: Ecs = {json.dumps(event)};\n" for number, event in enumerate(events))
    source = place / f"events-{STATE.name}.ts"
    source.write_text(f'import {{ Ecs }} from "@elastic/ecs/generated";\n{body}')
    try:
        return sh("node", place / "node_modules/typescript/bin/tsc", "--noEmit", "--strict", "--target", "es2020", "--moduleResolution", "node", source, check=False).stdout
    finally:
        source.unlink()


@test
def ecs_events_have_the_fields_of_the_schema_and_their_types():
    events = [json.loads(line) for line in lines("ECS")]
    assert len(events) > 40
    for event in events:
        record = event.pop("chaperone")
        assert event["event"]["id"] == f"{record['stream']}/{record['seq']}"
    assert compiled(events) == ""
    unknown = compiled([{**events[0], "event": {**events[0]["event"], "mood": "good"}}])
    assert "mood" in unknown, unknown
