//! The promise of record version `chaperone.dev/v1`: golden files that today's writer must reproduce byte for byte, that the verifier accepts, and
//! that fit the published schema. A new field gets a new golden file; a golden file that exists never changes. `BLESS=1` writes files that are not there yet.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "golden/events.rs"]
mod events;

use std::{collections::BTreeSet, fs, path::Path};

use chaperone_crds::{
    chain::{Chain, StreamId},
    record::{Event, Record},
    verify::{Start, verify},
};
use events::golden_streams;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden(name: &str) -> Vec<u8> {
    let path = root().join(format!("tests/golden/{name}.jsonl"));
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn write(stream: u8, events: &[Event]) -> Vec<u8> {
    let mut chain = Chain::new(StreamId::from_random([stream; 16]));
    let mut out = Vec::new();
    for (at, event) in (1_764_000_000_000_001_i64..).step_by(1_234_567).zip(events) {
        let time = jiff::Timestamp::from_microsecond(at).unwrap();
        chain.append(event, time, &mut out);
    }
    out
}

fn schema() -> Value {
    let path = root().join("../docs/audit-record.schema.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn golden_values() -> Vec<Value> {
    golden_streams()
        .iter()
        .flat_map(|(name, ..)| {
            golden(name)
                .split(|b| *b == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect::<Vec<Value>>()
        })
        .collect()
}

#[test]
fn the_writer_reproduces_the_golden_files() {
    for (name, stream, events) in golden_streams() {
        let written = write(stream, &events);
        let path = root().join(format!("tests/golden/{name}.jsonl"));
        if std::env::var_os("BLESS").is_some() && !path.exists() {
            fs::write(&path, &written).unwrap();
        }
        assert!(golden(name) == written, "{name}.jsonl differs");
    }
}

#[test]
fn the_verifier_accepts_the_golden_files() {
    for (name, ..) in golden_streams() {
        let report = verify(&golden(name)[..], Start::Open).unwrap();
        assert!(report.is_intact(), "{name}: {report}");
        assert!(report.streams[0].closed, "{name}: {report}");
    }
}

#[test]
fn a_golden_record_reads_and_serialises_to_the_same_bytes() {
    for (name, ..) in golden_streams() {
        for line in golden(name)
            .split(|b| *b == b'\n')
            .filter(|line| !line.is_empty())
        {
            let record: Record = serde_json::from_slice(line).unwrap();
            assert_eq!(
                serde_json::to_string(&record).unwrap(),
                std::str::from_utf8(line).unwrap()
            );
        }
    }
}

#[test]
fn every_golden_record_fits_the_published_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for value in golden_values() {
        if let Err(error) = validator.validate(&value) {
            panic!("{value}: {error}");
        }
    }
    assert!(!validator.is_valid(&serde_json::json!({"v": "chaperone.dev/v1"})));
}

#[test]
fn the_golden_records_use_every_property_of_the_schema() {
    let mut used = BTreeSet::new();
    golden_values().iter().for_each(|v| keys(v, &mut used));
    let missing: Vec<_> = properties().difference(&used).cloned().collect();
    assert!(missing.is_empty(), "no golden record has {missing:?}");
}

#[test]
fn the_reference_names_every_property_of_the_schema() {
    let reference = fs::read_to_string(root().join("../docs/audit-record.md")).unwrap();
    let missing: Vec<_> = properties()
        .into_iter()
        .filter(|p| {
            !reference.contains(&format!("`{p}`")) && !reference.contains(&format!(".{p}`"))
        })
        .collect();
    assert!(missing.is_empty(), "docs/audit-record.md lacks {missing:?}");
}

/// The budget for metadata records, in bytes of the line with its newline.
const METADATA_RECORD_BYTES: usize = 700;

#[test]
fn the_commonest_record_keeps_within_its_budget() {
    let events: Vec<_> = std::iter::repeat_n(events::by_default(), 10_000).collect();
    let written = write(0x44, &events);
    let last = written
        .split_inclusive(|b| *b == b'\n')
        .next_back()
        .unwrap();
    assert!(last.len() <= METADATA_RECORD_BYTES, "{}", last.len());
}

/// Names of all properties, of the record and of its parts.
fn properties() -> BTreeSet<String> {
    let schema = schema();
    let parts = schema["$defs"].as_object().unwrap().values();
    parts
        .chain([&schema])
        .filter_map(|part| part["properties"].as_object())
        .flat_map(|properties| properties.keys().cloned())
        .collect()
}

fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                into.insert(key.clone());
                keys(value, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|v| keys(v, into)),
        _ => {}
    }
}
