//! The store against a model in memory, and against crashes at every byte of the last write.

use std::{fs, path::PathBuf};

use chaperone_crds::{
    bodies::{Salt, detached, unsalted},
    chain::{Chain, RecordHash},
    record::{AgentRef, BodyInfo, CloseInfo, Event, EventKind, MessageInfo},
};
use proptest::prelude::*;

use super::*;
use crate::testing::{Folder, ORIGIN, id, key};
use crate::{
    follow::{self, Follower},
    key::Algorithm,
    leaf::Leaf,
    line::Stored,
    merkle::{consistency_proof, inclusion_proof, root, verify_consistency, verify_inclusion},
    tile::TileTree,
};

mod content;
mod hostile;
mod replay;

trait Records {
    fn newest(&self) -> PathBuf;
    fn records(&self) -> Vec<u8>;
}

impl Records for Folder {
    fn newest(&self) -> PathBuf {
        let records = self.0.join("records");
        segments::path(&records, *segments::list(&records).unwrap().last().unwrap())
    }

    fn records(&self) -> Vec<u8> {
        let records = self.0.join("records");
        let numbers = segments::list(&records).unwrap();
        let read = |n: &u64| fs::read(segments::path(&records, *n)).unwrap();
        numbers.iter().flat_map(read).collect()
    }
}

fn config(folder: &Folder) -> Config {
    Config {
        dir: folder.0.clone(),
        origin: ORIGIN.parse().unwrap(),
        keys: vec![key(5).verifier().clone()],
        segment_bytes: 4096,
        checkpoint_seconds: 10,
    }
}

fn open(folder: &Folder) -> Result<Store, OpenError> {
    Store::open(config(folder))
}

fn time(seconds: u64) -> Time {
    Time::new(seconds).unwrap()
}

/// A stream's opening and a record with a text.
fn with_text() -> [Vec<u8>; 2] {
    let mut chain = Chain::new(id(3));
    let now = "2026-11-24T10:00:00Z".parse().unwrap();
    let mut line = |event: &Event| {
        let mut line = Vec::new();
        let salt = || Some(Salt::from_random([7; 16]));
        chain.append(event, now, salt, &mut line);
        line
    };
    let mut told = Event::new(EventKind::WsMessage, AgentRef::default());
    told.message = Some(MessageInfo {
        body: Some(BodyInfo {
            text: Some("said".to_owned()),
            ..BodyInfo::default()
        }),
        ..MessageInfo::default()
    });
    let open = Event::new(EventKind::StreamOpen, AgentRef::default());
    [line(&open), line(&told)]
}

#[test]
fn a_record_is_the_same_with_its_texts_and_without_and_other_texts_are_refused() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let [opening, told] = with_text();
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
    let altered = text(&told).replace("\"said\"", "\"sung\"").into_bytes();
    let refused =
        |store: &mut Store, batch: &[u8]| store.stage(&id(3), batch).unwrap_err().to_string();
    let said = refused(&mut store, &[&opening[..], &altered].concat());
    assert!(said.contains("its bodies are not what"), "{said}");
    take(&mut store, 3, &[opening.clone(), told.clone()]);
    let bare = [&*detached(told.trim_ascii_end()), b"\n"].concat();
    assert!(!text(&bare).contains("said"));
    let root = store.root();
    for again in [&bare, &told] {
        let answer = take(&mut store, 3, std::slice::from_ref(again));
        assert_eq!((answer.next_seq, answer.added), (2, 0));
    }
    let said = refused(&mut store, &altered);
    assert!(said.contains("its bodies are not what"), "{said}");
    assert_eq!(store.root(), root);
    // Of a record that came without its texts, the hash is the same.
    let other = Folder::new();
    let mut store = open(&other).unwrap();
    take(&mut store, 3, &[opening, bare]);
    assert_eq!(store.root(), root);
}

/// The lines of a whole stream: opened, so many operations, closed.
fn lines(stream: u8, operations: usize) -> Vec<Vec<u8>> {
    let mut chain = Chain::new(id(stream));
    let kinds = [EventKind::StreamOpen]
        .into_iter()
        .chain(std::iter::repeat_n(EventKind::Dns, operations))
        .chain([EventKind::StreamClose]);
    let now = "2026-11-24T10:00:00Z".parse().unwrap();
    kinds
        .map(|kind| {
            let mut line = Vec::new();
            let mut event = Event::new(kind, AgentRef::default());
            event.close = (kind == EventKind::StreamClose).then(|| CloseInfo {
                records: chain.next_seq() + 1,
                ..CloseInfo::default()
            });
            chain.append(&event, now, unsalted, &mut line);
            line
        })
        .collect()
}

/// The line with another text in it.
fn with(line: &[u8], old: &str, new: &str) -> Vec<u8> {
    let text = String::from_utf8(line.to_vec()).unwrap();
    assert!(text.contains(old), "{text}");
    text.replace(old, new).into_bytes()
}

fn take(store: &mut Store, stream: u8, batch: &[Vec<u8>]) -> Receipt {
    let staged = store.stage(&id(stream), &batch.concat()).unwrap();
    let committed = store.commit().unwrap();
    staged.receipt(committed).unwrap()
}

#[test]
fn a_check_says_what_staging_would_and_takes_nothing() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let all = lines(1, 8);
    assert!(store.check(&id(1), &all[..4].concat(), None).is_ok());
    assert!(matches!(
        store.check(&id(1), &all[1..4].concat(), None),
        Err(Refused::Hole { .. })
    ));
    assert_eq!((store.next_seq(&id(1)), store.streams()), (0, 0));
    take(&mut store, 1, &all[..4]);
    assert_eq!((store.next_seq(&id(1)), store.streams()), (4, 1));
}

#[test]
fn a_stream_goes_on_without_what_nobody_has_only_where_that_is_said() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let (early, late) = (lines(1, 8), lines(2, 8));
    take(&mut store, 1, &early[..3]);
    let from = |store: &mut Store, stream, batch: &[Vec<u8>], from| {
        let staged = store.stage_from(&id(stream), &batch.concat(), Some(from));
        staged.map(|staged| staged.receipt(store.commit().unwrap()).unwrap().next_seq)
    };
    // Not where the batch begins elsewhere, and not in the middle of one.
    for (batch, number) in [(&early[5..7], 6), (&early[2..3], 5)] {
        let refused = from(&mut store, 1, batch, number);
        assert!(
            matches!(refused, Err(Refused::Hole { .. }) | Ok(3)),
            "{refused:?}"
        );
    }
    let torn = [early[2].clone(), early[5].clone()];
    let refused = from(&mut store, 1, &torn, 5);
    assert!(matches!(refused, Err(Refused::Hole { .. })), "{refused:?}");
    assert_eq!(from(&mut store, 1, &early[5..7], 5).unwrap(), 7);
    assert_eq!(from(&mut store, 2, &late[4..6], 4).unwrap(), 6);
    // What was missing comes too late; what is there is known; the rest goes on as ever.
    let refused = store.stage(&id(1), &early[3..5].concat()).unwrap_err();
    assert!(matches!(refused, Refused::Hole { expected: 7, .. }));
    let refused = store.stage(&id(2), &late[..2].concat()).unwrap_err();
    assert!(matches!(refused, Refused::Hole { .. }), "{refused}");
    assert_eq!(take(&mut store, 1, &early[1..3]).added, 0);
    assert_eq!(take(&mut store, 1, &early[5..]).added, 3);
    let refused = from(&mut store, 1, &lines(1, 20)[15..16], 15);
    assert!(matches!(refused, Err(Refused::Closed { seq: 15 })));
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    drop(store);

    let refused = open(&folder).unwrap_err();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    // As whoever keeps a record of it says, ahead of what comes next of the stream.
    let mut shown = 0;
    let mut store = Store::open_with(config(&folder), Keeper::default(), &mut |_| {
        shown += 1;
        match shown {
            3 => Some(Onward {
                stream: id(1),
                from: 5,
            }),
            4 => Some(Onward {
                stream: id(2),
                from: 4,
            }),
            _ => None,
        }
    })
    .unwrap();
    assert_eq!((store.next_seq(&id(1)), store.next_seq(&id(2))), (10, 6));
    let refused = store.stage(&id(1), &early[3..5].concat()).unwrap_err();
    assert!(matches!(refused, Refused::Hole { expected: 10, .. }));
    assert_eq!(take(&mut store, 2, &late[5..]).added, 4);
}

#[test]
fn who_opens_a_store_is_shown_its_records_and_can_go_on_with_a_stream() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let (one, two) = (lines(1, 3), lines(2, 3));
    take(&mut store, 1, &one[..3]);
    take(&mut store, 2, &two);
    take(&mut store, 1, &one[3..4]);
    drop(store);
    let mut shown = Vec::new();
    let mut store = Store::open_with(config(&folder), Keeper::default(), &mut |kept| {
        shown.push((kept.stream.clone(), [kept.line, b"\n"].concat()));
        None
    })
    .unwrap();
    let expected = [(1, &one[..3]), (2, &two[..]), (1, &one[3..4])];
    let expected: Vec<_> = expected
        .iter()
        .flat_map(|(stream, lines)| lines.iter().map(|line| (id(*stream), line.clone())))
        .collect();
    assert_eq!(shown, expected);
    let mut chain = store.chain(&id(1));
    let mut line = Vec::new();
    let event = Event::new(EventKind::Dns, AgentRef::default());
    chain.append(
        &event,
        "2026-11-24T10:00:00Z".parse().unwrap(),
        unsalted,
        &mut line,
    );
    assert_eq!(take(&mut store, 1, &[line]).next_seq, 5);
    assert_eq!(store.chain(&id(9)).next_seq(), 0);
}

#[test]
fn a_batch_is_acknowledged_once_it_is_committed_and_never_before() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let all = lines(1, 8);
    let before = store.committed();
    let staged = store.stage(&id(1), &all[..4].concat()).unwrap();
    assert_eq!(staged.clone().receipt(before), None);
    let committed = store.commit().unwrap();
    let receipt = staged.receipt(committed).unwrap();
    assert_eq!((receipt.next_seq, receipt.added), (4, 4));
    assert_eq!(folder.records(), all[..4].concat());
    // What overlaps is taken where the bytes are the same, and written once.
    let receipt = take(&mut store, 1, &all[2..6]);
    assert_eq!((receipt.next_seq, receipt.added), (6, 2));
    let receipt = take(&mut store, 1, &all[1..3]);
    assert_eq!((receipt.next_seq, receipt.added), (6, 0));
    take(&mut store, 1, &all[6..]);
    assert_eq!(folder.records(), all.concat());
    assert_eq!(store.committed().leaves(), 10);
}

#[test]
fn a_copy_of_what_only_waits_is_not_acknowledged_before_it() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let all = lines(1, 2);
    let before = store.committed();
    let first = store.stage(&id(1), &all[..2].concat()).unwrap();
    let copy = store.stage(&id(1), &all[..2].concat()).unwrap();
    assert_eq!(copy.clone().receipt(before), None);
    let committed = store.commit().unwrap();
    assert!(first.receipt(committed).is_some() && copy.receipt(committed).is_some());
}

#[test]
fn who_follows_is_given_what_is_committed_across_segments_and_starts() {
    let folder = Folder::new();
    let all = lines(1, 60);
    let mut follower = Follower::new(&folder.0, Cursor::START);
    let mut found = Vec::new();
    for batch in all.chunks(7) {
        // Opened anew each time: the end is known again before anything is committed.
        let mut store = open(&folder).unwrap();
        let before = store.end();
        let staged = store.stage(&id(1), &batch.concat()).unwrap();
        assert_eq!(store.end(), before, "what waits is not committed");
        assert!(follower.next(before.place).unwrap().is_none());
        assert!(staged.receipt(store.commit().unwrap()).is_some());
        let end = store.end();
        while let Some(record) = follower.next(end.place).unwrap() {
            found.push([record.line, b"\n"].concat());
        }
        assert_eq!(follower.cursor(), end);
        assert_eq!(follow::end_of(&folder.0).unwrap(), end.place);
    }
    assert!(
        follower.cursor().place.segment > 1,
        "segments are short here"
    );
    assert_eq!(found, all);
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_leaves_nothing() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let all = lines(1, 4);
    take(&mut store, 1, &all[..3]);
    let altered = |n: usize| {
        String::from_utf8(all[n].clone())
            .unwrap()
            .replace("10:00:00", "10:00:01")
            .into_bytes()
    };
    let other = lines(2, 4);
    let stage = |store: &mut Store, stream: u8, batch: Vec<u8>| {
        store.stage(&id(stream), &batch).unwrap_err()
    };
    for (stream, batch, wanted) in [
        (1, Vec::new(), "a batch is one line"),
        (
            1,
            all[3][..all[3].len() - 1].to_vec(),
            "a batch is one line",
        ),
        (1, b"\n".to_vec(), "line 1 of the batch is no record"),
        (1, b"{}\n".to_vec(), "line 1 of the batch is no record"),
        (1, other[3].clone(), "is of stream"),
        (
            1,
            all[4].clone(),
            "record 4 came where record 3 was expected",
        ),
        (
            1,
            [&all[3][..], &all[5]].concat(),
            "record 5 came where record 4 was expected",
        ),
        (
            1,
            [&all[2][..], &all[1]].concat(),
            "record 1 came where record 3 was expected",
        ),
        (1, altered(1), "record 1 is there already, with other bytes"),
        (
            1,
            [altered(3), all[4].clone()].concat(),
            "record 4 does not carry the hash",
        ),
        (
            2,
            other[1].clone(),
            "record 1 came where record 0 was expected",
        ),
        (
            1,
            String::from_utf8(all[3].clone())
                .unwrap()
                .replace("chaperone.dev/v2", "chaperone.dev/v9")
                .into_bytes(),
            "its version is",
        ),
        (
            1,
            [
                &all[3][..],
                &all[4],
                &with(&all[5], r#""records":6"#, r#""records":7"#),
            ]
            .concat(),
            "line 3 of the batch is no record: it closes its stream and counts 7 records, where 6 were expected",
        ),
        (
            1,
            [
                &all[3][..],
                &all[4],
                &with(&all[5], r#""close":{"#, r#""closed":{"#),
            ]
            .concat(),
            "counts 0 records, where 6 were expected",
        ),
    ] {
        let refused = stage(&mut store, stream, batch).to_string();
        assert!(refused.contains(wanted), "{refused:?}, not {wanted:?}");
    }
    store.commit().unwrap();
    assert_eq!(folder.records(), all[..3].concat());
    take(&mut store, 1, &all[3..]);
    let mut late = Chain::resume(
        id(1),
        6,
        RecordHash::of(all[5].strip_suffix(b"\n").unwrap()),
    );
    let mut line = Vec::new();
    let now = "2026-11-24T10:00:00Z".parse().unwrap();
    late.append(
        &Event::new(EventKind::Dns, AgentRef::default()),
        now,
        unsalted,
        &mut line,
    );
    let refused = stage(&mut store, 1, line);
    assert!(matches!(refused, Refused::Closed { seq: 6 }), "{refused}");
}

#[test]
fn a_second_process_is_refused_and_so_is_another_log() {
    let folder = Folder::new();
    let store = open(&folder).unwrap();
    assert!(matches!(open(&folder), Err(OpenError::InUse)));
    drop(store);
    let origin = "another.example".parse().unwrap();
    let refused = Store::open(Config {
        origin,
        ..config(&folder)
    });
    assert!(matches!(refused, Err(OpenError::Identity { .. })));
}

#[test]
fn every_record_is_proved_by_the_checkpoint_and_older_ones_are_its_beginning() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let all = lines(1, 600);
    let mut heads = Vec::new();
    for batch in all.chunks(100) {
        take(&mut store, 1, batch);
        let note = store.checkpoint(&[&key(5)], time(1)).unwrap();
        let keys = [key(5).verifier().clone()];
        let signed = crate::checkpoint::open(&note, &ORIGIN.parse().unwrap(), &keys).unwrap();
        heads.push(signed.checkpoint);
    }
    let head = heads.last().unwrap();
    assert_eq!(head.root, store.root());
    drop(store);
    let store = open(&folder).unwrap();
    let tree = TileTree::new(store.tiles(), head.size);
    assert_eq!(root(&tree, head.size).unwrap(), head.root);
    for (line, seq) in all.iter().zip(0..) {
        let index = store.index_of(&id(1), seq).unwrap();
        let record = RecordHash::of(line.strip_suffix(b"\n").unwrap());
        let leaf = Leaf {
            stream: id(1),
            seq,
            record,
        };
        let proof = inclusion_proof(&tree, index, head.size).unwrap();
        verify_inclusion(&leaf.hash(), index, head.size, &head.root, &proof).unwrap();
    }
    for old in &heads {
        let proof = consistency_proof(&tree, old.size, head.size).unwrap();
        verify_consistency(old.size, head.size, &old.root, &head.root, &proof).unwrap();
    }
}

#[test]
fn a_checkpoint_comes_when_it_is_due() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let all = lines(1, 4);
    let key = key(5);
    let tick = |store: &mut Store, now| store.tick(&[&key], time(now)).unwrap().is_some();
    assert!(tick(&mut store, 100), "there was none");
    assert!(!tick(&mut store, 200), "nothing is new");
    take(&mut store, 1, &all[..2]);
    assert!(tick(&mut store, 200));
    take(&mut store, 1, &all[2..4]);
    assert!(!tick(&mut store, 209));
    assert!(tick(&mut store, 210));
    take(&mut store, 1, &all[4..]);
    assert!(tick(&mut store, 50), "the clock went back");
}

#[test]
fn what_contradicts_the_signature_stops_the_start() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let all = lines(1, 20);
    take(&mut store, 1, &all);
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    drop(store);
    // Records that were signed are gone.
    let copy = folder.copy();
    let newest = copy.newest();
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(open(&copy), Err(OpenError::Lost { .. })));
    // The last record is another, which no chain shows.
    let copy = folder.copy();
    let newest = copy.newest();
    let text = fs::read_to_string(&newest).unwrap();
    let at = text.rfind("10:00:00").unwrap();
    let mut bytes = text.into_bytes();
    bytes[at + 7] = b'1';
    fs::write(&newest, bytes).unwrap();
    assert!(matches!(open(&copy), Err(OpenError::Contradicted { .. })));
    // Another signer's checkpoint, and a damaged one.
    let copy = folder.copy();
    let stranger = SigningKey::from_seed(ORIGIN.parse().unwrap(), Algorithm::Ed25519, [6; 32]);
    let head = Checkpoint::new(ORIGIN.parse().unwrap(), 1, Hash::of_nothing());
    fs::write(
        copy.0.join("checkpoint"),
        head.sign(&[&stranger], time(1)).unwrap(),
    )
    .unwrap();
    assert!(matches!(open(&copy), Err(OpenError::Checkpoint(_))));
    fs::write(copy.0.join("checkpoint"), "").unwrap();
    assert!(matches!(open(&copy), Err(OpenError::Checkpoint(_))));
    // A segment between others.
    let copy = folder.copy();
    let mut store = open(&copy).unwrap();
    for stream in 2..4 {
        take(&mut store, stream, &lines(stream, 20));
    }
    drop(store);
    assert!(!copy.newest().ends_with("00000000.jsonl"));
    fs::remove_file(copy.0.join("records/00000000.jsonl")).unwrap();
    assert!(matches!(open(&copy), Err(OpenError::MissingSegment(0))));
}

#[test]
fn every_byte_that_is_another_is_seen_or_cut_nowhere() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    take(&mut store, 1, &lines(1, 3));
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    drop(store);
    let newest = folder.newest();
    let sound = fs::read(&newest).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(&newest, bytes).unwrap();
        assert!(open(&folder).is_err(), "byte {at}");
    }
}

#[test]
fn full_tiles_that_are_missing_are_written_and_others_stop_the_start() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    take(&mut store, 1, &lines(1, 598));
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    drop(store);
    for name in ["tile/0/000", "tile/entries/001"] {
        let path = folder.0.join(name);
        let sound = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        drop(open(&folder).unwrap());
        assert_eq!(fs::read(&path).unwrap(), sound);
        let mut bytes = sound.clone();
        bytes[77] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(open(&folder), Err(OpenError::Tile(_))));
        fs::write(&path, sound).unwrap();
    }
    assert!(folder.0.join("tile/0/002.p/88").is_file());
    let mut store = open(&folder).unwrap();
    take(&mut store, 2, &lines(2, 198));
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    assert!(folder.0.join("tile/0/002").is_file());
    assert!(!folder.0.join("tile/0/002.p").exists());
}

/// Opens what a crash left, and sends again what has no receipt.
fn recovers(folder: &Folder, kept: &[u8], stream: u8, batch: &[Vec<u8>]) {
    let mut store = open(folder).unwrap();
    assert!(
        folder.records().starts_with(kept),
        "what was acknowledged is lost"
    );
    take(&mut store, stream, batch);
    assert_eq!(folder.records(), [kept, &batch.concat()].concat());
}

#[test]
fn a_crash_at_every_byte_of_a_write_loses_and_doubles_nothing() {
    let folder = Folder::new();
    let mut store = open(&folder).unwrap();
    let all = lines(1, 6);
    take(&mut store, 1, &all[..3]);
    store.checkpoint(&[&key(5)], time(1)).unwrap();
    let kept = folder.records();
    take(&mut store, 1, &all[3..6]);
    drop(store);
    let written = fs::read(folder.newest()).unwrap();
    for end in kept.len()..=written.len() {
        for zeros in [0, 5] {
            let copy = folder.copy();
            let mut bytes = written[..end].to_vec();
            bytes.resize(end + zeros, 0);
            fs::write(copy.newest(), bytes).unwrap();
            recovers(&copy, &kept, 1, &all[3..6]);
        }
    }
}

/// What the test does next.
#[derive(Clone, Debug)]
enum Step {
    /// Sends so many records of a stream, some of which it sent before.
    Send {
        stream: u8,
        again: usize,
        count: usize,
        commit: bool,
    },
    Checkpoint,
    /// Ends without notice: what waited is gone, and of the newest segment a part that was not committed is there.
    Crash {
        torn: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let send = (0_u8..3, 0_usize..4, 1_usize..9, any::<bool>()).prop_map(
        |(stream, again, count, commit)| Step::Send {
            stream,
            again,
            count,
            commit,
        },
    );
    let crash = (0_usize..3000).prop_map(|torn| Step::Crash { torn });
    prop::collection::vec(
        prop_oneof![6 => send, 1 => Just(Step::Checkpoint), 2 => crash],
        1..40,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_store_is_its_model(steps in steps()) {
        let folder = Folder::new();
        let streams: Vec<Vec<Vec<u8>>> = (0..3).map(|n| lines(n, 330)).collect();
        let mut store = open(&folder).unwrap();
        // The model: lines in order, how many of each stream, and what waits.
        let (mut kept, mut sent) = (Vec::<u8>::new(), [0_usize; 3]);
        let mut waiting = Vec::<(usize, Vec<u8>)>::new();
        for step in steps {
            match step {
                Step::Send { stream, again, count, commit } => {
                    let n = usize::from(stream);
                    let next = sent[n] + waiting.iter().filter(|(of, _)| *of == n).count();
                    let batch = &streams[n][next.saturating_sub(again)..next + count];
                    let staged = store.stage(&id(stream), &batch.concat()).unwrap();
                    waiting.extend(streams[n][next..next + count].iter().map(|line| (n, line.clone())));
                    if commit {
                        let committed = store.commit().unwrap();
                        let receipt = staged.receipt(committed).unwrap();
                        prop_assert_eq!(receipt.next_seq, (next + count) as u64);
                        prop_assert_eq!(receipt.added, count as u64);
                    } else {
                        continue;
                    }
                }
                Step::Checkpoint => {
                    store.checkpoint(&[&key(5)], time(1)).unwrap();
                }
                Step::Crash { torn } => {
                    drop(store);
                    let mut bytes = fs::read(folder.newest()).unwrap();
                    // What waited came to the disk up to any byte: whole lines of it are kept.
                    let all: Vec<u8> = waiting.iter().flat_map(|(_, line)| line.clone()).collect();
                    let part = &all[..torn.min(all.len())];
                    bytes.extend_from_slice(part);
                    fs::write(folder.newest(), bytes).unwrap();
                    let whole = part.iter().filter(|b| **b == b'\n').count();
                    waiting.truncate(whole);
                    store = open(&folder).unwrap();
                }
            }
            for (n, line) in waiting.drain(..) {
                kept.extend(line);
                sent[n] += 1;
            }
            for (n, sent) in (0..).zip(sent) {
                prop_assert_eq!(store.next_seq(&id(n)), sent as u64);
            }
            prop_assert_eq!(&folder.records(), &kept);
        }
    }
}
