//! Content that is sealed, keys that are destroyed, segments that are written anew.

use std::collections::{BTreeSet, HashMap, HashSet};

use chaperone_crds::{bodies, record::SessionInfo};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::{
    audit::{self, Trust},
    content::{Day, Keys},
    follow::{Cursor, Follower, Held, Lines, held_at},
};

const DAY: &str = "2026-11-24T10:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A record of this stream, with content where it is given some.
fn record(
    chain: &mut Chain,
    kind: EventKind,
    session: Option<&str>,
    text: Option<&str>,
) -> Vec<u8> {
    let mut event = Event::new(kind, AgentRef::default());
    event.session = session.map(|id| SessionInfo {
        id: Some(id.to_owned()),
        ..SessionInfo::default()
    });
    let mut line = Vec::new();
    let seq = chain.next_seq();
    chain.append(&event, at(DAY), bodies::unsalted, &mut line);
    assert_eq!(line.pop(), Some(b'\n'));
    if let Some(text) = text {
        assert_eq!(line.pop(), Some(b'}'));
        let salt = hex::encode(&Sha256::digest(&line)[..16]);
        let tail = format!(r#"{{"salt":"{salt}","http.requestBody":{{"text":"{text}"}}}}"#);
        let digest = hex::encode(Sha256::digest(&tail));
        let more = format!(r#","bodiesSha256":"{digest}","bodies":{tail}}}"#);
        line.extend_from_slice(more.as_bytes());
        assert!(matches!(bodies::parts(&line), bodies::Parts::With { .. }));
        *chain = Chain::resume(chain.stream().clone(), seq + 1, RecordHash::of(&line));
    }
    line.push(b'\n');
    line
}

fn send(store: &mut Store, lines: &[Vec<u8>], stream: u8) {
    assert_eq!(take(store, stream, lines).added, lines.len() as u64);
}

fn root(store: &Store) -> String {
    store.root().to_string()
}

/// What a follower is given: lines, empty where the record was deleted.
fn followed(folder: &Folder, from: Cursor, end: Cursor) -> Vec<Vec<u8>> {
    let mut follower = Follower::new(&folder.0, from);
    let mut lines = Vec::new();
    let keys = Keys::of(&folder.0);
    while let Some(record) = follower.next(end.place).unwrap() {
        assert_eq!(record.leaf, from.leaf + lines.len() as u64);
        let held = held_at(&folder.0, &keys, record.place, record.length).unwrap();
        match record.deleted {
            None => assert_eq!(held, Some(Held::Record(record.line.to_vec()))),
            Some(leaf) => assert_eq!(held, Some(Held::Deleted(leaf.clone()))),
        }
        // Who knows the leaf alone finds the line too, where the segment was written anew.
        if let Some(all) = Lines::read(&folder.0, record.place.segment).unwrap() {
            assert_eq!(all.of(record.leaf), Some((record.place, record.length)));
        }
        assert_eq!(record.key.is_some(), is_opened(record.line));
        lines.push(record.line.to_vec());
    }
    lines
}

/// Whether a record has its content.
fn is_opened(line: &[u8]) -> bool {
    memchr::memmem::find(line, b"\"bodies\":{").is_some()
}

fn verdict(folder: &Folder) -> audit::Verdict {
    let trust = Trust {
        keys: vec![key(5).verifier().clone()],
        kept: Vec::new(),
    };
    let verdict = audit::verify(&folder.0, &trust).unwrap();
    assert!(verdict.is_intact() && verdict.is_complete(), "{verdict}");
    verdict
}

/// Whether these bytes are in any file of the directory.
fn is_anywhere(folder: &Folder, wanted: &str) -> bool {
    fn look(dir: &std::path::Path, wanted: &[u8]) -> bool {
        fs::read_dir(dir).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => look(&path, wanted),
                false => memchr::memmem::find(&fs::read(&path).unwrap(), wanted).is_some(),
            }
        })
    }
    look(&folder.0, wanted.as_bytes())
}

/// Destroys the keys of a session, as its entries have it.
fn destroy(store: &mut Store, stream: u8, session: Option<&str>) -> usize {
    let mut count = 0;
    for day in store.key_days().unwrap() {
        let entries = store.keys_of(day).unwrap().into_iter();
        let keys = entries.filter(|e| e.stream == id(stream) && e.session.as_deref() == session);
        let keys: HashSet<_> = keys.map(|entry| entry.id).collect();
        count += keys.len();
        if !keys.is_empty() {
            store.destroy(day, &keys).unwrap();
        }
    }
    count
}

fn sweeper(folder: &Folder, store: &Store) -> Sweeper {
    let mut sweeper = Sweeper::new(&folder.0, id(9));
    sweeper.look(store.end().place.segment, || {}).unwrap();
    sweeper
}

#[test]
fn content_is_sealed_on_disk_and_given_whole_to_who_has_the_key() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    store.at(at(DAY));
    let mut chain = Chain::new(id(1));
    let lines = [
        record(&mut chain, EventKind::StreamOpen, None, None),
        record(&mut chain, EventKind::Http, Some("s"), Some("much secrecy")),
        record(&mut chain, EventKind::Http, None, Some("and more of it")),
        record(&mut chain, EventKind::Dns, None, None),
    ];
    send(&mut store, &lines, 1);
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    assert!(!is_anywhere(&folder, "secrecy") && !is_anywhere(&folder, "more of it"));
    let plain: Vec<_> = lines.iter().map(|l| l[..l.len() - 1].to_vec()).collect();
    assert_eq!(followed(&folder, Cursor::START, store.end()), plain);
    // What is sent again, with its content or without, is known.
    assert_eq!(take(&mut store, 1, &lines[1..]).added, 0);
    let mut detached = bodies::detached(&plain[2]).into_owned();
    detached.push(b'\n');
    assert_eq!(take(&mut store, 1, &[detached]).added, 0);
    // One key for what counts to the session, which names itself once.
    let day: Day = "20261124".parse().unwrap();
    assert_eq!(store.key_days().unwrap(), [day]);
    let keys = store.keys_of(day).unwrap();
    assert_eq!(keys.len(), 1);
    assert_eq!(keys[0].session.as_deref(), Some("s"));
    let found = verdict(&folder);
    assert_eq!((found.contents.there, found.contents.gone), (2, 0));
    let before = root(&store);
    drop(store);
    // The same tree, and the session is known on.
    let mut store = open(&folder).unwrap();
    store.at(at(DAY));
    assert_eq!(root(&store), before);
    let more = record(&mut chain, EventKind::Http, None, Some("later"));
    send(&mut store, &[more], 1);
    let keys = store.keys_of(day).unwrap();
    assert!(keys.iter().all(|key| key.session.as_deref() == Some("s")));
}

#[test]
fn content_whose_key_is_destroyed_is_gone_everywhere_and_nothing_else_is() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    store.at(at(DAY));
    let (mut one, mut two) = (Chain::new(id(1)), Chain::new(id(2)));
    send(
        &mut store,
        &[record(&mut one, EventKind::StreamOpen, None, None)],
        1,
    );
    send(
        &mut store,
        &[record(&mut two, EventKind::StreamOpen, None, None)],
        2,
    );
    for _ in 0..12 {
        let a = record(&mut one, EventKind::Http, Some("a"), Some("alpha alpha"));
        let b = record(&mut one, EventKind::Http, Some("b"), Some("beta beta"));
        send(&mut store, &[a, b], 1);
        let c = record(&mut two, EventKind::Http, Some("a"), Some("gamma gamma"));
        send(&mut store, &[c], 2);
    }
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    let (before, end) = (root(&store), store.end());
    assert!(end.place.segment >= 2, "several segments");
    let whole = followed(&folder, Cursor::START, end);
    // A cursor in the middle of a segment that is written anew later.
    let mut middle = Follower::new(&folder.0, Cursor::START);
    for _ in 0..5 {
        middle.next(end.place).unwrap();
    }
    let middle = middle.cursor();
    let size = |folder: &Folder| folder.records().len();
    let full = size(&folder);
    assert_eq!(destroy(&mut store, 1, Some("a")), 1);
    assert!(!folder.0.join("keys/20261124.jsonl.tmp").exists());
    let gone = |lines: &[Vec<u8>], text: &str| {
        let text = text.as_bytes();
        lines
            .iter()
            .filter(|l| memchr::memmem::find(l, text).is_some())
            .count()
    };
    let swept: Vec<Swept> = {
        let lines = followed(&folder, Cursor::START, end);
        assert_eq!(
            (
                gone(&lines, "alpha"),
                gone(&lines, "beta"),
                gone(&lines, "gamma")
            ),
            (0, 12, 12)
        );
        let found = verdict(&folder);
        assert_eq!((found.contents.there, found.contents.gone), (24, 12));
        let mut sweeper = sweeper(&folder, &store);
        let segments: Vec<u64> = sweeper.known().keys().copied().collect();
        let stale = |sweeper: &Sweeper, segment| sweeper.is_stale(segment).unwrap();
        let swept = segments
            .iter()
            .filter(|n| stale(&sweeper, **n))
            .copied()
            .collect::<Vec<_>>();
        let swept = swept
            .iter()
            .map(|n| sweeper.rewrite(*n, &BTreeSet::new()).unwrap())
            .collect();
        assert!(segments.iter().all(|n| !stale(&sweeper, *n)));
        swept
    };
    assert!(
        swept
            .iter()
            .all(|swept| swept.contents > 0 && swept.records == 0)
    );
    assert!(size(&folder) < full, "{} of {full}", size(&folder));
    let after = followed(&folder, Cursor::START, end);
    assert_eq!(
        (
            gone(&after, "alpha"),
            gone(&after, "beta"),
            gone(&after, "gamma")
        ),
        (0, 12, 12)
    );
    let detached: Vec<_> = whole
        .iter()
        .map(|line| match gone(std::slice::from_ref(line), "alpha") {
            0 => line.clone(),
            _ => bodies::detached(line).into_owned(),
        })
        .collect();
    assert_eq!(after, detached);
    // Who stood within goes on where it stood.
    assert_eq!(followed(&folder, middle, end), detached[5..]);
    assert_eq!(verdict(&folder).contents.gone, 12);
    drop(store);
    let mut store = open(&folder).unwrap();
    assert_eq!(root(&store), before);
    // More of the session gets another key.
    store.at(at(DAY));
    let more = record(&mut one, EventKind::Http, Some("a"), Some("alpha again"));
    send(&mut store, &[more], 1);
    let lines = followed(&folder, Cursor::START, store.end());
    assert_eq!(gone(&lines, "alpha again"), 1);
}

#[test]
fn records_are_deleted_and_the_tree_stays() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    store.at(at(DAY));
    for stream in 1..=2 {
        let mut chain = Chain::new(id(stream));
        let mut lines = vec![record(&mut chain, EventKind::StreamOpen, None, None)];
        for _ in 0..15 {
            lines.push(record(&mut chain, EventKind::Http, None, Some("forgotten")));
        }
        lines.push(record(&mut chain, EventKind::Dns, None, None));
        let mut event = Event::new(EventKind::StreamClose, AgentRef::default());
        event.close = Some(chaperone_crds::record::CloseInfo {
            records: chain.next_seq() + 1,
            reason: "terminated".to_owned(),
        });
        let mut line = Vec::new();
        chain.append(&event, at(DAY), bodies::unsalted, &mut line);
        lines.push(line);
        for line in lines {
            send(&mut store, &[line], stream);
        }
    }
    let mut chain = Chain::new(id(3));
    send(
        &mut store,
        &[record(&mut chain, EventKind::StreamOpen, None, None)],
        3,
    );
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    let (before, end) = (root(&store), store.end());
    let mut sweeper = sweeper(&folder, &store);
    let all: Vec<u64> = sweeper.known().keys().copied().collect();
    let gone = BTreeSet::from([id(1)]);
    let swept: u64 = all
        .iter()
        .map(|n| sweeper.rewrite(*n, &gone).unwrap().records)
        .sum();
    assert_eq!(swept, 17, "all but the close");
    assert_eq!(
        all.iter()
            .map(|n| sweeper.rewrite(*n, &gone).unwrap().records)
            .sum::<u64>(),
        0
    );
    let lines = followed(&folder, Cursor::START, end);
    assert_eq!(lines.iter().filter(|line| line.is_empty()).count(), 17);
    assert_eq!(verdict(&folder).streams.deleted(), 17);
    drop(store);
    let store = open(&folder).unwrap();
    assert_eq!(root(&store), before);
    assert!(store.is_closed(&id(1)) && store.is_closed(&id(2)) && !store.is_closed(&id(3)));
    // A leaf that is another, and a beginning that is elsewhere, stop the start.
    drop(store);
    let path = segments::path(&folder.0.join("records"), 0);
    let text = fs::read_to_string(&path).unwrap();
    for other in [
        text.replacen("chaperone-segment/1 0", "chaperone-segment/1 1", 1),
        text.replacen(" 1 ", " 2 ", 1),
        text.lines()
            .skip(2)
            .map(|line| format!("{line}\n"))
            .collect(),
    ] {
        fs::write(&path, other).unwrap();
        assert!(open(&folder).is_err());
        let trust = Trust {
            keys: vec![key(5).verifier().clone()],
            kept: Vec::new(),
        };
        assert!(!audit::verify(&folder.0, &trust).unwrap().is_intact());
    }
}

#[test]
fn content_that_was_changed_is_seen() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let mut chain = Chain::new(id(1));
    let lines = [
        record(&mut chain, EventKind::StreamOpen, None, None),
        record(&mut chain, EventKind::Http, None, Some("what was said")),
    ];
    send(&mut store, &lines, 1);
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    drop(store);
    let mut bytes = fs::read(folder.newest()).unwrap();
    let last = bytes.len() - 8;
    bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
    fs::write(folder.newest(), bytes).unwrap();
    let trust = Trust {
        keys: vec![key(5).verifier().clone()],
        kept: Vec::new(),
    };
    let found = audit::verify(&folder.0, &trust).unwrap();
    assert!(
        matches!(found.faults[..], [audit::Fault::Content(_)]),
        "{found}"
    );
    // Without keys nobody can say: it counts as gone.
    fs::remove_dir_all(folder.0.join("keys")).unwrap();
    assert_eq!(verdict(&folder).contents.gone, 1);
}

#[test]
fn a_sweep_that_is_broken_off_leaves_the_old_segment_or_the_new_one() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    store.at(at(DAY));
    let mut chain = Chain::new(id(1));
    send(
        &mut store,
        &[record(&mut chain, EventKind::StreamOpen, None, None)],
        1,
    );
    for _ in 0..20 {
        let line = record(&mut chain, EventKind::Http, Some("s"), Some("words words"));
        send(&mut store, &[line], 1);
    }
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    let before = root(&store);
    destroy(&mut store, 1, Some("s"));
    let old = folder.copy();
    let mut sweeper = sweeper(&folder, &store);
    sweeper.rewrite(0, &BTreeSet::from([id(1)])).unwrap();
    drop(store);
    let new = fs::read(segments::path(&folder.0.join("records"), 0)).unwrap();
    // What a crash leaves beside the old one, and a file of keys half-written.
    for part in [0, 1, new.len() / 2, new.len()] {
        let left = old.0.join("records/00000000.jsonl.tmp");
        fs::write(&left, &new[..part]).unwrap();
        let keys = old.0.join("keys/20261124.jsonl.tmp");
        fs::write(&keys, b"{\"id\":\"2026").unwrap();
        let torn = old.0.join("keys/20261125.jsonl");
        fs::write(&torn, b"{\"id\":\"2026").unwrap();
        verdict(&old);
        let store = open(&old).unwrap();
        assert_eq!(root(&store), before);
        assert!(!left.exists() && !keys.exists());
        assert_eq!(fs::read(&torn).unwrap(), b"");
    }
    assert_eq!(root(&open(&folder).unwrap()), before);
}

#[test]
fn a_day_begins_a_segment_and_a_file_of_keys() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let mut chain = Chain::new(id(1));
    let today = Timestamp::now();
    let hours = |hours| {
        today
            .checked_add(jiff::SignedDuration::from_hours(hours))
            .unwrap()
    };
    store.at(today);
    send(
        &mut store,
        &[record(&mut chain, EventKind::StreamOpen, None, None)],
        1,
    );
    send(
        &mut store,
        &[record(&mut chain, EventKind::Http, Some("s"), Some("x"))],
        1,
    );
    assert_eq!(store.end().place.segment, 0);
    store.at(hours(24));
    send(
        &mut store,
        &[record(&mut chain, EventKind::Http, Some("s"), Some("y"))],
        1,
    );
    assert_eq!(store.end().place.segment, 1);
    // A clock that went back begins nothing.
    store.at(today);
    send(
        &mut store,
        &[record(&mut chain, EventKind::Dns, None, None)],
        1,
    );
    assert_eq!(store.end().place.segment, 1);
    assert_eq!(
        store.key_days().unwrap(),
        [Day::of(today), Day::of(hours(24))]
    );
}

/// What the model does next.
#[derive(Clone, Debug)]
enum Act {
    Send {
        stream: u8,
        session: u8,
        text: bool,
    },
    /// Destroys keys of a session.
    Erase {
        stream: u8,
        session: u8,
    },
    /// Writes all segments anew that may be, and deletes the records of this stream.
    Sweep {
        stream: Option<u8>,
    },
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let send = (0_u8..3, 0_u8..3, any::<bool>()).prop_map(|(stream, session, text)| Act::Send {
        stream,
        session,
        text,
    });
    let erase = (0_u8..3, 0_u8..3).prop_map(|(stream, session)| Act::Erase { stream, session });
    let sweep = prop::option::of(0_u8..3).prop_map(|stream| Act::Sweep { stream });
    prop::collection::vec(
        prop_oneof![20 => send, 1 => erase, 1 => sweep, 1 => Just(Act::Restart)],
        1..120,
    )
}

/// What the model has of a record.
#[derive(Clone)]
struct Kept {
    stream: u8,
    session: u8,
    line: Vec<u8>,
    is_deleted: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_store_that_is_swept_is_its_model(acts in acts()) {
        let folder = Folder::new();
        let mut store = open(&folder).unwrap();
        store.at(at(DAY));
        let mut chains: HashMap<u8, Chain> = HashMap::new();
        let mut model: Vec<Kept> = Vec::new();
        for act in acts {
            match act {
                Act::Send { stream, session, text } => {
                    let chain = chains.entry(stream).or_insert_with(|| Chain::new(id(stream)));
                    let kind = if chain.next_seq() == 0 { EventKind::StreamOpen } else { EventKind::Http };
                    let text = text.then(|| format!("words {}", model.len()).repeat(8));
                    let mut line = record(chain, kind, Some(&format!("s{session}")), text.as_deref());
                    send(&mut store, &[line.clone()], stream);
                    line.pop();
                    model.push(Kept { stream, session, line, is_deleted: false });
                }
                Act::Erase { stream, session } => {
                    destroy(&mut store, stream, Some(&format!("s{session}")));
                    for kept in &mut model {
                        if (kept.stream, kept.session) == (stream, session) {
                            kept.line = bodies::detached(&kept.line).into_owned();
                        }
                    }
                }
                Act::Sweep { stream } => {
                    let gone: BTreeSet<_> = stream.into_iter().map(id).collect();
                    let mut sweeper = sweeper(&folder, &store);
                    let segments: Vec<_> = sweeper.known().clone().into_iter().collect();
                    for (segment, summary) in segments {
                        sweeper.rewrite(segment, &gone).unwrap();
                        let from = usize::try_from(summary.first).unwrap();
                        let leaves = usize::try_from(summary.leaves).unwrap();
                        for kept in &mut model[from..from + leaves] {
                            kept.is_deleted |= Some(kept.stream) == stream;
                        }
                    }
                }
                Act::Restart => {
                    let before = root(&store);
                    store.checkpoint(&[&key(5)], time(1)).unwrap();
                    drop(store);
                    store = open(&folder).unwrap();
                    store.at(at(DAY));
                    prop_assert_eq!(root(&store), before);
                }
            }
        }
        store.checkpoint(&[&key(5)], time(1)).unwrap();
        let expected: Vec<_> = model.iter().map(|kept| match kept.is_deleted {
            true => Vec::new(),
            false => kept.line.clone(),
        }).collect();
        prop_assert_eq!(followed(&folder, Cursor::START, store.end()), expected);
        if !model.is_empty() {
            verdict(&folder);
        }
    }
}
