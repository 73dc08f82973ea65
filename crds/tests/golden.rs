//! The promise of the record's versions: golden files that the verifier accepts, that read to what was written, and that fit the published schema; those of the version that is written (in `golden/v2`) today's writer must reproduce
//! byte for byte. A new field gets a new golden file; a golden file that exists never changes. `BLESS=1` writes files that are not there yet.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "golden/events.rs"]
mod events;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use chaperone_crds::{
    bodies::{self, Parts, Salt},
    chain::{Chain, StreamId},
    record::{Event, Record},
    verify::{Start, verify},
};
use events::golden_streams;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the files of the version that is written stand.
const WRITTEN: &str = "tests/golden/v2";
/// Where all stand.
const FOLDERS: [&str; 2] = ["tests/golden", WRITTEN];

fn golden(name: &str) -> Vec<u8> {
    let path = root().join(format!("{WRITTEN}/{name}.jsonl"));
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All golden files of all versions, by path.
fn all() -> Vec<(PathBuf, Vec<u8>)> {
    let folders = FOLDERS.iter().map(|folder| root().join(folder));
    let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = files.map(|file| file.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|end| end == "jsonl"));
    let mut all: Vec<_> = paths
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    assert!(all.len() > golden_streams().len(), "{}", all.len());
    all
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|b| *b == b'\n').filter(|line| !line.is_empty())
}

/// Known, so that a file can be written again.
const SALT: Salt = Salt::from_random([0x5a; 16]);

fn write(stream: u8, events: &[Event]) -> Vec<u8> {
    let mut chain = Chain::new(StreamId::from_random([stream; 16]));
    let mut out = Vec::new();
    for (at, event) in (1_764_000_000_000_001_i64..).step_by(1_234_567).zip(events) {
        let time = jiff::Timestamp::from_microsecond(at).unwrap();
        chain.append(event, time, || Some(SALT), &mut out);
    }
    out
}

fn schema() -> Value {
    let path = root().join("../docs/audit-record.schema.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn golden_values() -> Vec<Value> {
    let read = |line| serde_json::from_slice(line).unwrap();
    all()
        .iter()
        .flat_map(|(_, file)| lines(file).map(read).collect::<Vec<Value>>())
        .collect()
}

#[test]
fn the_writer_reproduces_the_golden_files() {
    for (name, stream, events) in golden_streams() {
        let written = write(stream, &events);
        let path = root().join(format!("{WRITTEN}/{name}.jsonl"));
        if std::env::var_os("BLESS").is_some() && !path.exists() {
            fs::write(&path, &written).unwrap();
        }
        assert!(golden(name) == written, "{name}.jsonl differs");
    }
}

#[test]
fn the_verifier_accepts_the_golden_files() {
    for (path, file) in all() {
        let report = verify(&file[..], Start::Open).unwrap();
        assert!(report.is_intact(), "{path:?}: {report}");
        assert!(report.streams[0].closed, "{path:?}: {report}");
        assert_eq!(report.deleted_content(), 0, "{path:?}");
    }
}

#[test]
fn a_stream_is_proved_with_its_content_and_without() {
    for (path, file) in all() {
        let without: Vec<u8> = lines(&file)
            .flat_map(|line| [&*bodies::detached(line), b"\n"].concat())
            .collect();
        let report = verify(&without[..], Start::Open).unwrap();
        assert!(report.is_intact(), "{path:?}: {report}");
        let is_written = path.starts_with(root().join(WRITTEN));
        let had = lines(&file).filter(|line| Record::read(line).unwrap().bodies.is_some());
        assert_eq!(report.deleted_content() as usize, had.count(), "{path:?}");
        assert!(is_written || without == file, "{path:?}");
        assert!(!String::from_utf8(without).unwrap().contains("\"salt\""));
        for (line, cut) in lines(&file).zip(lines(&file).map(bodies::detached)) {
            let Parts::With { tail, .. } = bodies::parts(line) else {
                assert_eq!(*cut, *line);
                continue;
            };
            assert_eq!(bodies::attach(&cut, tail).as_deref(), Some(line));
            let (record, gone) = (Record::read(line).unwrap(), Record::read(&cut).unwrap());
            assert!(gone.is_content_deleted() && !record.is_content_deleted());
            assert!(record.event.content().count() > 0);
            assert_eq!(gone.event.content().count(), 0);
        }
    }
}

#[test]
fn both_versions_read_to_the_same_events() {
    let mut older = 0;
    for (path, file) in all() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let streams = golden_streams();
        let (_, _, events) = streams.iter().find(|(other, ..)| *other == name).unwrap();
        let read = lines(&file).map(|line| Record::read(line).unwrap().event);
        assert_eq!(read.collect::<Vec<_>>(), *events, "{path:?}");
        older += usize::from(!path.starts_with(root().join(WRITTEN)));
    }
    assert_eq!(older, 18, "files of version 1");
}

#[test]
fn a_golden_record_reads_and_serialises_to_the_same_bytes() {
    for (name, ..) in golden_streams() {
        for line in lines(&golden(name)) {
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
