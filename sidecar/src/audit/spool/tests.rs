//! The spool by itself: recovery from every cut, and what may be deleted when.

use std::fs;

use chaperone_crds::{
    record::{BodyInfo, MessageInfo, Record},
    verify::{Start, verify},
};
use jiff::Timestamp;
use prometheus::Registry;

use super::*;
use crate::audit::{
    AuditError,
    tests::{event, scratch},
};

const LIMIT: u64 = 4096;

fn open(dir: &Path) -> Opened {
    let metrics = AuditMetrics::new(&Registry::new()).unwrap();
    Spool::open(dir, LIMIT, metrics).unwrap()
}

fn opened_stream() -> chaperone_crds::record::Event {
    let mut open = event(0);
    open.kind = chaperone_crds::record::EventKind::StreamOpen;
    open
}

/// Appends and commits; begins a new segment where it is time.
fn add(opened: &mut Opened, events: usize) {
    for number in 0..events {
        let event = match opened.appender.chain().next_seq() {
            0 => opened_stream(),
            _ => event(number),
        };
        opened.appender.append(&event, Timestamp::UNIX_EPOCH);
        opened.appender.commit().unwrap();
        if opened.appender.committed() >= opened.spool.segment_bytes() {
            opened.appender.rotate().unwrap();
        }
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    let mut segments: Vec<_> = files
        .filter(|f| f.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    segments.sort();
    segments
}

fn content(dir: &Path) -> Vec<u8> {
    let segments = segments(dir);
    segments.iter().flat_map(|s| fs::read(s).unwrap()).collect()
}

fn end(opened: &Opened) -> Position {
    match opened.spool.read(Position::default(), u64::MAX, usize::MAX) {
        Ok(Read::Nothing(position)) => position,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_is_continued_after_a_cut_at_any_byte_of_its_last_lines() {
    let original = scratch("cut-original");
    let mut opened = open(&original);
    add(&mut opened, 5);
    drop(opened);
    let newest = segments(&original).pop().unwrap();
    let whole = fs::read(&newest).unwrap();
    for cut in 0..=whole.len() {
        let dir = scratch("cut");
        for file in fs::read_dir(&original).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), dir.join(file.file_name())).unwrap();
        }
        fs::write(dir.join(newest.file_name().unwrap()), &whole[..cut]).unwrap();
        let mut opened = open(&dir);
        assert_eq!(opened.resumed, opened.appender.chain().next_seq() > 0);
        add(&mut opened, 2);
        let report = verify(&content(&dir)[..], Start::Open).unwrap();
        assert!(report.is_intact(), "cut at {cut}: {report}");
    }
}

#[test]
fn a_stream_that_died_before_its_first_record_is_still_to_be_opened() {
    let dir = scratch("unopened");
    let stream = open(&dir).appender.chain().clone();
    let reopened = open(&dir);
    assert!(!reopened.resumed);
    assert_eq!(*reopened.appender.chain(), stream);
}

#[test]
fn the_chain_goes_on_when_every_record_was_delivered_and_deleted() {
    let dir = scratch("all-delivered");
    let mut opened = open(&dir);
    opened.spool.join("sink");
    add(&mut opened, 50);
    opened.appender.rotate().unwrap();
    let next = opened.appender.chain().clone();
    let newest = *opened.spool.index().segments.keys().next_back().unwrap();
    let past = Position {
        segment: newest,
        ..Position::default()
    };
    opened.spool.advance("sink", past);
    assert_eq!(content(&dir), b"");
    drop(opened);
    let reopened = open(&dir);
    assert!(reopened.resumed);
    assert_eq!(*reopened.appender.chain(), next);
    assert_eq!(reopened.spool.join("sink"), past);
}

#[test]
fn segments_go_when_the_slowest_sink_is_past_them() {
    let dir = scratch("slowest");
    let mut opened = open(&dir);
    opened.spool.join("fast");
    opened.spool.join("slow");
    add(&mut opened, 50);
    let all = segments(&dir).len();
    assert!(all > 3);
    let newest = *opened.spool.index().segments.keys().next_back().unwrap();
    opened.spool.advance(
        "fast",
        Position {
            segment: newest,
            ..Position::default()
        },
    );
    assert_eq!(segments(&dir).len(), all);
    assert_eq!(opened.spool.undelivered(), 50);
    opened.spool.advance(
        "slow",
        Position {
            segment: 1,
            ..Position::default()
        },
    );
    assert_eq!(segments(&dir).len(), all - 1);
    opened.spool.leave("slow");
    assert_eq!(segments(&dir).len(), 1);
}

#[test]
fn cursors_of_sinks_that_are_not_set_yet_hold_their_records() {
    let dir = scratch("dormant");
    let mut opened = open(&dir);
    opened.spool.join("sink");
    opened.spool.advance("sink", Position::default());
    drop(opened);
    opened = open(&dir);
    opened.spool.join("other");
    add(&mut opened, 50);
    let newest = *opened.spool.index().segments.keys().next_back().unwrap();
    opened.spool.advance(
        "other",
        Position {
            segment: newest,
            ..Position::default()
        },
    );
    assert!(segments(&dir).len() > 3);
    assert_eq!(opened.spool.undelivered(), 50);
}

#[test]
fn a_cursor_outside_the_spool_starts_at_the_oldest_record() {
    let dir = scratch("outside");
    let mut opened = open(&dir);
    add(&mut opened, 50);
    for (segment, offset) in [(0, u64::MAX), (u64::MAX, 0)] {
        let wild = Position {
            segment,
            offset,
            records: 3,
        };
        cursor::write(&dir, "sink", wild).unwrap();
        drop(opened);
        opened = open(&dir);
        assert_eq!(opened.spool.join("sink"), Position::default());
        assert_eq!(opened.spool.undelivered(), 50);
    }
}

#[test]
fn batches_are_whole_lines_within_their_limits_and_a_long_line_comes_alone() {
    let dir = scratch("batches");
    let mut opened = open(&dir);
    add(&mut opened, 3);
    let read = |from, records, bytes| match opened.spool.read(from, records, bytes) {
        Ok(Read::Batch(batch)) => batch,
        other => panic!("{other:?}"),
    };
    assert_eq!(read(Position::default(), 2, usize::MAX).records, 2);
    let first = read(Position::default(), 100, 1);
    assert_eq!((first.records, first.end.records), (1, 1));
    assert!(first.bytes.ends_with(b"\n"));
    let rest = read(first.end, 100, usize::MAX);
    assert_eq!(rest.records, 2);
    assert_eq!([first.bytes, rest.bytes].concat(), content(&dir));
}

#[test]
fn what_is_not_committed_is_not_read_and_follows_into_a_new_segment() {
    let dir = scratch("uncommitted");
    let mut opened = open(&dir);
    add(&mut opened, 1);
    let before = opened.spool.lag(Position::default());
    opened.appender.append(&event(1), Timestamp::UNIX_EPOCH);
    opened.appender.write().unwrap();
    assert_eq!(opened.spool.lag(Position::default()), before);
    opened.appender.rotate().unwrap();
    opened.appender.commit().unwrap();
    add(&mut opened, 1);
    assert_eq!(segments(&dir).len(), 2);
    let report = verify(&content(&dir)[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.records(), 3);
}

#[test]
fn a_directory_that_cannot_be_one_is_an_error_that_names_it() {
    let dir = scratch("no-dir");
    fs::write(dir.join("file"), "").unwrap();
    let metrics = AuditMetrics::new(&Registry::new()).unwrap();
    let error = Spool::open(&dir.join("file"), LIMIT, metrics).unwrap_err();
    assert!(matches!(error, AuditError::Spool { .. }));
    assert!(error.to_string().contains("no-dir"), "{error}");
}

#[test]
fn an_empty_spool_has_nothing_to_read() {
    let opened = open(&scratch("empty"));
    assert_eq!(end(&opened), Position::default());
}

#[test]
fn texts_have_a_salt_each_that_comes_from_the_system() {
    let dir = scratch("salts");
    let mut opened = open(&dir);
    add(&mut opened, 1);
    for _ in 0..2 {
        let mut told = event(1);
        told.message = Some(MessageInfo {
            body: Some(BodyInfo {
                text: Some("yes".to_owned()),
                ..BodyInfo::default()
            }),
            ..MessageInfo::default()
        });
        opened.appender.append(&told, Timestamp::UNIX_EPOCH);
    }
    opened.appender.commit().unwrap();
    drop(opened);
    let all = content(&dir);
    let mut lines = all.split(|byte| *byte == b'\n').skip(1);
    let mut next = || Record::read(lines.next().unwrap()).unwrap();
    let (one, other) = (next(), next());
    assert_eq!(one.event, other.event);
    assert_ne!(one.bodies_sha256, other.bodies_sha256);
    let salts = [one, other].map(|record| record.bodies.unwrap().salt);
    assert_ne!(salts[0], salts[1]);
    assert!(
        salts
            .iter()
            .all(|salt| salt.len() == 32 && *salt != "0".repeat(32))
    );
    // What goes on after it hashes the last record without its text.
    let mut opened = open(&dir);
    add(&mut opened, 1);
    assert!(verify(&content(&dir)[..], Start::Open).unwrap().is_intact());
}

/// A spool as format 1 left it: two segments, the newest with a torn line, and a sink that has acknowledged half of the first. It never changes; another format gets another folder. `BLESS=1` writes it if it is not there.
#[test]
fn a_spool_of_format_1_goes_on_where_it_was_and_owes_its_sinks_what_it_owed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spool-format-1");
    if std::env::var_os("BLESS").is_some() && !golden.exists() {
        fs::create_dir_all(&golden).unwrap();
        let mut opened = open(&golden);
        opened.spool.join("behind");
        add(&mut opened, 6);
        let first = fs::read_to_string(&segments(&golden)[0]).unwrap();
        let line = first.find('\n').unwrap() + 1;
        let position = Position {
            segment: 0,
            offset: line as u64,
            records: 1,
        };
        opened.spool.advance("behind", position);
        drop(opened);
        let newest = segments(&golden).pop().unwrap();
        let torn = [fs::read(&newest).unwrap(), b"{\"v\":\"chap".to_vec()].concat();
        fs::write(newest, torn).unwrap();
        for file in ["lock", "reserve"] {
            let _ = fs::remove_file(golden.join(file));
        }
    }
    let dir = scratch("format-1");
    for file in fs::read_dir(&golden).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    let mut opened = open(&dir);
    let there = content(&dir);
    assert!(segments(&dir).len() > 1 && there.ends_with(b"}\n"), "cut");
    assert!(opened.resumed);
    assert_eq!(opened.appender.chain().next_seq(), 6);
    let position = opened.spool.join("behind");
    assert_eq!((position.segment, position.records), (0, 1));
    assert_eq!(opened.spool.lag(position), 5);
    add(&mut opened, 3);
    let all = content(&dir);
    assert!(all.starts_with(&there));
    let report = verify(&all[..], Start::Open).unwrap();
    assert!(report.is_intact() && report.records() == 9, "{report}");
}
