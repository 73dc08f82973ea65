//! What a ledger is sent, and what it finds on its disk.

use std::fs;

use chaperone_crds::chain::StreamId;
use chaperone_ledger::{
    follow::{Cursor, Follower, Lines, Place},
    store::{Config, Keeper, Replay, SEGMENT_BYTES, Store},
};

use crate::{evidence::Dir, parts};

fn config(dir: &Dir) -> Config {
    Config {
        dir: dir.path().to_owned(),
        origin: "ledger.test/log".parse().expect("a name of a log"),
        keys: Vec::new(),
        segment_bytes: SEGMENT_BYTES,
        checkpoint_seconds: 60,
    }
}

/// Two batches of one stream, named by the first line of the first. What is taken of them is there when the ledger opens its directory again, each record once, as it was sent.
pub(crate) fn ingest(bytes: &[u8]) {
    let Some(stream) = stream(bytes) else {
        return;
    };
    let dir = Dir::new();
    let mut store = Store::open(config(&dir)).expect("an empty folder is opened");
    let (first, second) = parts(bytes);
    // The cut has taken the first one's last newline.
    let newline: &[u8] = if second.is_empty() { b"" } else { b"\n" };
    let first = [first, newline].concat();
    let mut added = 0;
    for batch in [first.as_slice(), second] {
        let Ok(staged) = store.stage(&stream, batch) else {
            continue;
        };
        let committed = store.commit().expect("memory takes records");
        let receipt = staged.receipt(committed).expect("it is committed");
        added += receipt.added;
        assert_eq!(receipt.next_seq, added, "no hole and no copy");
    }
    let (root, end) = (store.root(), store.end());
    drop(store);
    let again = Store::open(config(&dir)).expect("what was taken is no obstacle");
    assert_eq!((again.root(), again.end()), (root, end));
    assert_eq!(again.next_seq(&stream), added);
    let mut follower = Follower::new(dir.path(), Cursor::START);
    let is_sent = |line: &[u8]| {
        let mut lines = first.split(|b| *b == b'\n');
        let mut more = second.split(|b| *b == b'\n');
        lines.any(|sent| sent == line) || more.any(|sent| sent == line)
    };
    let mut there = 0;
    while let Some(record) = follower.next(end.place).expect("records can be read") {
        assert!(is_sent(record.line), "a record is another");
        there += 1;
    }
    assert_eq!(there, added);
}

/// The stream that a line names.
fn stream(bytes: &[u8]) -> Option<StreamId> {
    const NAME: &[u8] = b"\"stream\":\"";
    let at = bytes.windows(NAME.len()).position(|part| part == NAME)?;
    let name = bytes.get(at + NAME.len()..)?.split(|b| *b == b'"').next()?;
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// A segment as a crash, a bad disk or a hand left it: it is read step by step as at once, by whoever follows as by a start, and a start that takes it takes it again.
pub(crate) fn segment(bytes: &[u8]) {
    let dir = Dir::new();
    fs::create_dir(dir.path().join("records")).expect("there is room for a folder");
    fs::write(dir.path().join("records/00000000.jsonl"), bytes).expect("there is room for a file");
    let end = Place {
        segment: 0,
        offset: u64::try_from(bytes.len()).expect("a length is 64 bits"),
    };
    let at_once = replay(&dir, end, u64::MAX);
    for step in [1, 100] {
        assert_eq!(replay(&dir, end, step), at_once);
    }
    let followed = follow(&dir, end);
    if at_once.1.is_none() {
        assert_eq!(
            followed,
            Some(at_once.0),
            "a start took what nobody can follow"
        );
        let lines = Lines::read(dir.path(), 0).expect("the segment can be read");
        if let (Some(lines), Some(last)) = (lines, at_once.0.checked_sub(1)) {
            assert!(lines.of(last).is_some() && lines.of(last + 1).is_none());
        }
    }
    let Ok(store) = Store::open(config(&dir)) else {
        return;
    };
    let (root, committed) = (store.root(), store.committed());
    drop(store);
    let again = Store::open(config(&dir)).expect("what was opened is opened again");
    assert_eq!((again.root(), again.committed()), (root, committed));
}

/// How many records were read, and what stopped it.
fn replay(dir: &Dir, end: Place, step: u64) -> (u64, Option<String>) {
    let mut replay = Replay::new(&config(dir), Keeper::default());
    loop {
        match replay.read(end, step, &mut |_| None) {
            Ok(true) => return (replay.leaves(), None),
            Ok(false) => {}
            Err(error) => return (replay.leaves(), Some(error.to_string())),
        }
    }
}

/// How many records who follows is given, if all of it can be followed.
fn follow(dir: &Dir, end: Place) -> Option<u64> {
    let mut follower = Follower::new(dir.path(), Cursor::START);
    let mut given = 0;
    loop {
        match follower.next(end) {
            Ok(Some(_)) => given += 1,
            Ok(None) => return Some(given),
            Err(_) => return None,
        }
    }
}
