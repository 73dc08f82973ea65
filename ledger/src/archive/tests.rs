//! A log as a sink puts it into objects, and each way to falsify them.

use chaperone_crds::{
    bodies::unsalted,
    chain::Chain,
    record::{AgentRef, CheckpointInfo, Event, EventKind},
    verify::Line,
};

use super::*;
use crate::{
    checkpoint::Checkpoint,
    cosignature::Time,
    testing::{ORIGIN, id, key},
    tile::Builder,
};

/// Records of the log, and of an object.
const RECORDS: u64 = 300;
const EACH: u64 = 40;

/// What is in the log, line by line; and the checkpoint over all.
struct Log {
    lines: Vec<Vec<u8>>,
    last: Vec<u8>,
}

/// How an object is changed before it is read.
type Edit<'a> = &'a dyn Fn(&mut Vec<Put>);

/// An object as it is in the bucket.
#[derive(Clone)]
struct Put {
    leaf: u64,
    first: String,
    lines: Vec<Vec<u8>>,
    /// Of Parquet: the rows' own numbers.
    leaves: Option<Vec<u64>>,
}

/// Two streams and the ledger's own, which has a checkpoint every 50 records, of some records before.
fn log() -> Log {
    let own = StreamId::of_ledger(ORIGIN);
    let mut chains = [Chain::new(own), Chain::new(id(1)), Chain::new(id(2))];
    let mut opened = [false; 3];
    let (mut builder, mut lines, mut last) = (Builder::default(), Vec::new(), Vec::new());
    for leaf in 0..RECORDS {
        let which = match leaf % 50 {
            0 => 0,
            other => 1 + usize::try_from(other % 2).unwrap(),
        };
        let is_open = std::mem::replace(&mut opened[which], true);
        let kind = match (is_open, which) {
            (false, _) => EventKind::StreamOpen,
            (true, 0) => EventKind::LedgerCheckpoint,
            (true, _) => EventKind::Dns,
        };
        let mut event = Event::new(kind, AgentRef::default());
        if kind == EventKind::LedgerCheckpoint {
            event.checkpoint = Some(CheckpointInfo {
                note: String::from_utf8(last.clone()).unwrap(),
                ..CheckpointInfo::default()
            });
        }
        let mut line = Vec::new();
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        chains[which].append(&event, now, unsalted, &mut line);
        line.pop();
        let hash = Looked::at(Line::Whole(&line)).leaf.unwrap();
        let _ = builder.push(hash);
        lines.push(line);
        if leaf % 10 == 5 || leaf + 1 == RECORDS {
            last = signed(leaf + 1, &builder, 5);
        }
    }
    Log { lines, last }
}

fn signed(size: u64, builder: &Builder, seed: u8) -> Vec<u8> {
    let checkpoint = Checkpoint::new(ORIGIN.parse().unwrap(), size, builder.root());
    let key = key(seed);
    checkpoint.sign(&[&key], Time::new(1).unwrap()).unwrap()
}

fn first(line: &[u8]) -> String {
    let looked = Looked::at(Line::Whole(line));
    let (stream, seq) = looked.id().unwrap();
    format!("{stream}-{seq}")
}

fn object(log: &Log, from: u64, to: u64) -> Put {
    let at = |leaf: u64| usize::try_from(leaf).unwrap();
    let lines = log.lines[at(from)..at(to)].to_vec();
    Put {
        leaf: from,
        first: first(&lines[0]),
        lines,
        leaves: None,
    }
}

fn objects(log: &Log) -> Vec<Put> {
    let starts = (0..RECORDS).step_by(usize::try_from(EACH).unwrap());
    starts
        .map(|from| object(log, from, (from + EACH).min(RECORDS)))
        .collect()
}

fn trust(seed: u8, kept: &[&[u8]]) -> Trust {
    Trust {
        keys: vec![key(seed).verifier().clone()],
        kept: kept.iter().map(|note| note.to_vec()).collect(),
    }
}

fn judged(objects: &[Put], trust: &Trust, part: bool) -> Verdict {
    let mut judge = Judge::new(trust, part).unwrap();
    for (put, place) in objects.iter().zip(1..) {
        let leaves = put.leaves.clone();
        let rows = put.lines.iter().enumerate().map(|(number, line)| Row {
            leaf: leaves.as_ref().map(|leaves| leaves[number]),
            looked: Looked::at(Line::Whole(line)),
        });
        judge.take(Object {
            name: &format!("object {}", put.leaf),
            leaf: put.leaf,
            first: &put.first,
            records: rows.collect(),
            fault: None,
            next: objects.get(place).map(|next| next.leaf),
        });
    }
    judge.finish()
}

/// What is said of edited objects, with the key and the checkpoint over all.
fn edited(edit: Edit<'_>) -> (Verdict, String) {
    let log = log();
    let mut objects = objects(&log);
    edit(&mut objects);
    let verdict = judged(&objects, &trust(5, &[&log.last]), false);
    let text = verdict.to_string();
    (verdict, text)
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn a_whole_copy_is_proved_by_checkpoints_kept_elsewhere_and_on_record() {
    let (verdict, text) = edited(&|_| {});
    assert!(verdict.is_intact() && verdict.is_complete(), "{text}");
    has(
        &text,
        &[
            "checkpoint of 300 records",
            "kept elsewhere: all of these records are here",
            "300 records in 3 streams and 8 objects, 0 after the checkpoint: intact",
        ],
    );
    let log = log();
    let verdict = judged(&objects(&log), &trust(5, &[]), false);
    let text = verdict.to_string();
    assert!(verdict.is_intact() && verdict.is_complete(), "{text}");
    has(
        &text,
        &[
            "checkpoint of 246 records",
            "on record",
            "54 after the checkpoint: intact",
        ],
    );
    let verdict = judged(&objects(&log), &Trust::default(), false);
    let text = verdict.to_string();
    assert!(verdict.is_intact() && verdict.is_complete(), "{text}");
    has(&text, &["give the ledger's public key"]);
}

#[test]
fn what_is_missing_is_named_and_is_no_fault_of_what_is_there() {
    let (verdict, text) = edited(&|objects| {
        objects.remove(2);
    });
    assert!(verdict.is_intact() && !verdict.is_complete(), "{text}");
    has(
        &text,
        &[
            "MISSING (the first: record 40)",
            "MISSING: 40 records of leaves 40 to 119; object 40 has the others",
            "not the whole log: chains only, from leaf 40 on",
            "the checkpoint of 300 records is not reached",
            ": intact, INCOMPLETE: 40 records are missing",
        ],
    );
    // The last are missed by the checkpoint alone.
    let (verdict, text) = edited(&|objects| {
        objects.pop();
    });
    assert!(verdict.is_intact() && !verdict.is_complete(), "{text}");
    has(
        &text,
        &[
            "checkpoint of 300 records is not reached",
            "intact, INCOMPLETE",
        ],
    );
    // Rows that say their numbers say which are missing.
    let (verdict, text) = edited(&|objects| {
        for put in objects.iter_mut() {
            put.leaves = Some((put.leaf..).take(put.lines.len()).collect());
        }
        objects[1].lines.remove(10);
        objects[1].leaves.as_mut().unwrap().remove(10);
    });
    assert!(verdict.is_intact() && !verdict.is_complete(), "{text}");
    has(
        &text,
        &[
            "MISSING: 1 records, leaves 50 to 50",
            "chains only, from leaf 50 on",
        ],
    );
}

#[test]
fn a_copy_that_begins_later_is_a_part() {
    let log = log();
    let later = &objects(&log)[2..];
    let verdict = judged(later, &trust(5, &[]), false);
    let text = verdict.to_string();
    assert!(verdict.is_intact() && !verdict.is_complete(), "{text}");
    has(
        &text,
        &[
            "MISSING: 80 records, leaves 0 to 79",
            "not the whole log: chains only",
        ],
    );
    let verdict = judged(later, &Trust::default(), true);
    assert!(verdict.is_intact() && verdict.is_complete(), "{verdict}");
    // A part has no holes.
    let mut holed = later.to_vec();
    holed.remove(2);
    let verdict = judged(&holed, &Trust::default(), true);
    assert!(!verdict.is_complete(), "{verdict}");
}

#[test]
fn a_record_that_was_changed_is_named() {
    let edit = |line: &mut Vec<u8>| {
        let text = String::from_utf8(line.clone()).unwrap();
        *line = text.replace("10:00:00", "11:00:00").into_bytes();
    };
    let (verdict, text) = edited(&|objects| edit(&mut objects[1].lines[11]));
    assert!(!verdict.is_intact(), "{text}");
    has(
        &text,
        &[
            "FIRST BAD RECORD 25: record 25 was altered",
            "the checkpoint on record of 96 records has the root",
            "records after the first 46 were changed",
            "NOT INTACT",
        ],
    );
    // The last of its stream, which no chain shows.
    let (verdict, text) = edited(&|objects| edit(objects[7].lines.last_mut().unwrap()));
    assert!(
        verdict.streams.is_intact() && !verdict.is_intact(),
        "{text}"
    );
    has(
        &text,
        &[
            "kept elsewhere of 300 records has the root",
            "after the first 246",
        ],
    );
}

#[test]
fn objects_that_overlap_are_the_same_or_a_fault() {
    let log = log();
    let again = |from, to| object(&log, from, to);
    let (verdict, text) = edited(&|objects| {
        objects.insert(2, again(60, 130));
        objects.insert(1, again(10, 30));
    });
    assert!(verdict.is_intact() && verdict.is_complete(), "{text}");
    has(
        &text,
        &["300 records in 3 streams and 10 objects, 90 of them again"],
    );
    let (verdict, text) = edited(&|objects| {
        let mut other = again(60, 130);
        let text = String::from_utf8(other.lines[5].clone()).unwrap();
        other.lines[5] = text.replace("10:00:00", "11:00:00").into_bytes();
        objects.insert(2, other);
    });
    assert!(!verdict.is_intact(), "{text}");
    has(
        &text,
        &[
            "object 60, leaf 65: record 32 of stream",
            "was there before, and is another here",
        ],
    );
}

#[test]
fn another_key_proves_nothing() {
    let log = log();
    let verdict = judged(&objects(&log), &trust(6, &[]), false);
    let text = verdict.to_string();
    assert!(!verdict.is_intact(), "{text}");
    has(
        &text,
        &[
            "5 checkpoints on record are signed by none of the keys given",
            "FAULT: there is no checkpoint to compare with",
        ],
    );
    let trust = trust(6, &[&log.last]);
    let refused = Judge::new(&trust, false).unwrap_err();
    assert_eq!(refused.number, 1);
}

#[test]
fn what_is_no_record_and_what_is_not_as_it_is_named_is_a_fault() {
    let (verdict, text) = edited(&|objects| objects[1].lines[3] = b"{}".to_vec());
    assert!(!verdict.is_intact(), "{text}");
    has(&text, &["object 40, leaf 43: not a record"]);
    let (verdict, text) = edited(&|objects| objects[1].first = "somebody-7".to_owned());
    assert!(!verdict.is_intact(), "{text}");
    has(
        &text,
        &["object 40: it does not begin with the record of its name"],
    );
    let (verdict, text) = edited(&|objects| objects[1].lines.clear());
    assert!(!verdict.is_intact(), "{text}");
    has(&text, &["object 40: it is empty", "40 records are missing"]);
    // Moved: the names of two objects are exchanged, each with the record that it begins with.
    let (verdict, text) = edited(&|objects| {
        let (second, third) = (objects[1].clone(), objects[2].clone());
        objects[1] = Put { leaf: 40, ..third };
        objects[2] = Put { leaf: 80, ..second };
    });
    assert!(!verdict.is_intact(), "{text}");
    let verdict = judged(&[], &trust(5, &[]), false);
    assert!(!verdict.is_intact());
    has(&verdict.to_string(), &["no records: nothing is proved"]);
}
