//! Directories as former versions left them: today's code must open them, come to the same tree, prove them, and go on. A directory under `golden` never changes; another format of files gets another one. `BLESS=1` writes what is not
//! there yet.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Once,
};

use chaperone_crds::{
    bodies,
    chain::{Chain, RecordHash, StreamId},
    record::{AgentRef, CloseInfo, Event, EventKind, Record},
};
use chaperone_ledger::{
    audit::{self, Trust},
    bundle::{self, Subject},
    cosignature::Time,
    follow::{Cursor, Follower, end_of},
    key::{Algorithm, SigningKey},
    store::{Config, Store, Sweeper},
};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

const ORIGIN: &str = "ledger.example/golden";
/// Of format 1: two segments, a full tile, a stream that was closed and one that was not.
const ROOT: &str = "golden/format-1.root";
/// Of format 2: the same and more of it, with content that is sealed, content that was deleted, and records that were.
const ROOT_2: &str = "golden/format-2.root";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

fn key() -> SigningKey {
    SigningKey::from_seed(ORIGIN.parse().unwrap(), Algorithm::Ed25519, [1; 32])
}

fn config(dir: PathBuf) -> Config {
    Config {
        dir,
        origin: ORIGIN.parse().unwrap(),
        keys: vec![key().verifier().clone()],
        segment_bytes: 40_000,
        checkpoint_seconds: 1,
    }
}

fn id(number: u8) -> StreamId {
    StreamId::from_random([number; 16])
}

/// The next records of a stream, one batch.
fn batch(chain: &mut Chain, kinds: &[EventKind]) -> Vec<u8> {
    let mut out = Vec::new();
    for kind in kinds {
        let mut event = Event::new(*kind, AgentRef::default());
        event.close = (*kind == EventKind::StreamClose).then(|| CloseInfo {
            records: chain.next_seq() + 1,
            reason: "terminated".to_owned(),
        });
        let seconds = 1_795_946_400 + i64::try_from(chain.next_seq()).unwrap();
        chain.append(
            &event,
            Timestamp::from_second(seconds).unwrap(),
            bodies::unsalted,
            &mut out,
        );
    }
    out
}

fn write(dir: PathBuf) -> String {
    let mut store = Store::open(config(dir)).unwrap();
    let (mut one, mut two) = (Chain::new(id(1)), Chain::new(id(2)));
    let take = |store: &mut Store, chain: &mut Chain, kinds: &[EventKind]| {
        let lines = batch(chain, kinds);
        let staged = store.stage(chain.stream(), &lines).unwrap();
        let committed = store.commit().unwrap();
        assert!(staged.receipt(committed).is_some());
    };
    take(&mut store, &mut one, &[EventKind::StreamOpen]);
    take(&mut store, &mut two, &[EventKind::StreamOpen]);
    take(&mut store, &mut one, &[EventKind::Dns; 150]);
    take(&mut store, &mut two, &[EventKind::Http; 120]);
    take(&mut store, &mut two, &[EventKind::StreamClose]);
    let time = Time::new(1_795_946_999).unwrap();
    store.checkpoint(&[&key()], time).unwrap();
    store.root().to_string()
}

/// The next record of a stream, an operation with content.
fn with_content(chain: &mut Chain, text: &str) -> Vec<u8> {
    let mut line = batch(&mut chain.clone(), &[EventKind::Http]);
    line.truncate(line.len() - 2);
    let salt = "00112233445566778899aabbccddeeff";
    let tail = format!(r#"{{"salt":"{salt}","http.requestBody":{{"text":"{text}"}}}}"#);
    let digest = hex::encode(Sha256::digest(&tail));
    let more = format!(r#","bodiesSha256":"{digest}","bodies":{tail}}}"#);
    line.extend_from_slice(more.as_bytes());
    let next = chain.next_seq() + 1;
    *chain = Chain::resume(chain.stream().clone(), next, RecordHash::of(&line));
    line.push(b'\n');
    line
}

/// Three streams in two segments: the content of one is deleted, the records of another, and the third has all.
fn write_2(dir: PathBuf) -> String {
    let mut store = Store::open(config(dir.clone())).unwrap();
    store.at(Timestamp::from_second(1_795_946_400).unwrap());
    for stream in 1..=3 {
        let mut chain = Chain::new(id(stream));
        let mut lines = batch(&mut chain, &[EventKind::StreamOpen]);
        for number in 0..40 {
            lines.extend(with_content(
                &mut chain,
                &format!("text {number} of {stream}"),
            ));
        }
        lines.extend(batch(&mut chain, &[EventKind::StreamClose]));
        let staged = store.stage(&id(stream), &lines).unwrap();
        assert!(staged.receipt(store.commit().unwrap()).is_some());
    }
    let mut chain = Chain::new(id(4));
    let lines = batch(&mut chain, &[EventKind::StreamOpen]);
    let _ = store.stage(&id(4), &lines).unwrap();
    let time = Time::new(1_795_946_999).unwrap();
    store.checkpoint(&[&key()], time).unwrap();
    for day in store.key_days().unwrap() {
        let entries = store.keys_of(day).unwrap().into_iter();
        let keys = entries.filter(|entry| entry.stream == id(1));
        store
            .destroy(day, &keys.map(|entry| entry.id).collect())
            .unwrap();
    }
    let newest = store.end().place.segment;
    let mut sweeper = Sweeper::new(&dir, StreamId::of_ledger(ORIGIN));
    sweeper.look(newest, || {}).unwrap();
    for segment in 0..newest {
        sweeper.rewrite(segment, &[id(2)].into()).unwrap();
    }
    store.root().to_string()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A copy that may be changed.
struct Folder(PathBuf);

impl Folder {
    fn of(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("formats-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        copy(&golden("golden/format-1"), &path);
        Self(path)
    }

    fn of_format_2(name: &str) -> Self {
        let folder = Self::of(name);
        fs::remove_dir_all(&folder.0).unwrap();
        copy(&golden("golden/format-2"), &folder.0);
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn bless() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let dir = golden("golden/format-1");
        if std::env::var_os("BLESS").is_some() && !dir.exists() {
            let root = write(dir.clone());
            fs::remove_file(dir.join("lock")).unwrap();
            fs::write(golden(ROOT), format!("{root}\n")).unwrap();
        }
        let dir = golden("golden/format-2");
        if std::env::var_os("BLESS").is_some() && !dir.exists() {
            let root = write_2(dir.clone());
            fs::remove_file(dir.join("lock")).unwrap();
            fs::write(golden(ROOT_2), format!("{root}\n")).unwrap();
        }
    });
}

#[test]
fn a_ledger_of_format_1_is_opened_proved_and_goes_on() {
    bless();
    let folder = Folder::of("open");
    let mut store = Store::open(config(folder.0.clone())).unwrap();
    let root = fs::read_to_string(golden(ROOT)).unwrap();
    assert_eq!(store.root().to_string(), root.trim());
    assert_eq!(store.committed().leaves(), 273);
    assert_eq!((store.next_seq(&id(1)), store.next_seq(&id(2))), (151, 122));
    assert_eq!(
        (store.is_closed(&id(1)), store.is_closed(&id(2))),
        (false, true)
    );
    let checkpoint = fs::read(folder.0.join("checkpoint")).unwrap();
    let trust = Trust {
        keys: vec![key().verifier().clone()],
        kept: vec![checkpoint],
    };
    let verdict = audit::verify(&folder.0, &trust).unwrap();
    assert!(verdict.is_intact() && verdict.is_complete(), "{verdict}");

    // What today's version adds is proved to go on from it.
    let mut chain = store.chain(&id(1));
    let lines = batch(&mut chain, &[EventKind::StreamHeartbeat; 300]);
    let staged = store.stage(&id(1), &lines).unwrap();
    assert!(staged.receipt(store.commit().unwrap()).is_some());
    let later = Time::new(1_795_947_999).unwrap();
    store.checkpoint(&[&key()], later).unwrap();
    drop(store);
    let verdict = audit::verify(&folder.0, &trust).unwrap();
    assert!(verdict.is_intact() && verdict.is_complete(), "{verdict}");
    assert_eq!((verdict.leaves, verdict.kept), (573, vec![273]));
    // Whoever knows the former format alone refuses it now, and loses nothing by that.
    let identity = fs::read_to_string(folder.0.join("ledger.json")).unwrap();
    assert!(identity.contains("\"format\":2"), "{identity}");
}

#[test]
fn a_ledger_of_format_2_is_opened_proved_and_goes_on() {
    bless();
    let folder = Folder::of_format_2("open-2");
    let mut store = Store::open(config(folder.0.clone())).unwrap();
    let root = fs::read_to_string(golden(ROOT_2)).unwrap();
    assert_eq!(store.root().to_string(), root.trim());
    assert!(store.is_closed(&id(2)));
    let checkpoint = fs::read(folder.0.join("checkpoint")).unwrap();
    let trust = Trust {
        keys: vec![key().verifier().clone()],
        kept: vec![checkpoint],
    };
    let verdict = audit::verify(&folder.0, &trust).unwrap();
    assert!(verdict.is_intact() && verdict.is_complete(), "{verdict}");
    assert_eq!(verdict.leaves, 127);
    assert_eq!((verdict.contents.there, verdict.contents.gone), (40, 40));
    assert_eq!(verdict.streams.deleted(), 41);
    let mut follower = Follower::new(&folder.0, Cursor::START);
    let (mut with, mut deleted) = (0, 0);
    while let Some(record) = follower.next(store.end().place).unwrap() {
        deleted += usize::from(record.deleted.is_some());
        let has = matches!(bodies::parts(record.line), bodies::Parts::With { .. });
        with += usize::from(has);
    }
    assert_eq!((with, deleted), (40, 41));

    let mut chain = store.chain(&id(4));
    store.at(Timestamp::from_second(1_795_946_500).unwrap());
    let lines = with_content(&mut chain, "more");
    let staged = store.stage(&id(4), &lines).unwrap();
    assert!(staged.receipt(store.commit().unwrap()).is_some());
    let later = Time::new(1_795_947_999).unwrap();
    store.checkpoint(&[&key()], later).unwrap();
    let verdict = audit::verify(&folder.0, &trust).unwrap();
    assert!(verdict.is_intact() && verdict.is_complete(), "{verdict}");
    assert_eq!(verdict.contents.there, 41);
}

#[test]
fn what_is_left_of_streams_is_exported_and_proves_itself() {
    bless();
    let folder = Folder::of_format_2("bundles");
    let keys = [key().verifier().clone()];
    for (stream, records, withheld, contents) in [(1, 42, 0, 0), (2, 1, 41, 0), (3, 42, 0, 40)] {
        let into = folder.0.join(format!("bundle-{stream}"));
        let subject = Subject::Stream(id(stream));
        let made = bundle::export(&folder.0, &into, &subject, &keys, false).unwrap();
        assert_eq!(
            (made.records, made.withheld),
            (records, withheld),
            "{stream}"
        );
        let verdict = bundle::verify(&into, &keys).unwrap();
        assert!(verdict.is_intact(), "{stream}: {verdict}");
        let lines = fs::read(into.join("records.jsonl")).unwrap();
        let with = lines
            .split(|b| *b == b'\n')
            .filter(|line| matches!(bodies::parts(line), bodies::Parts::With { .. }));
        assert_eq!(with.count(), contents, "{stream}");
    }
}

#[test]
fn records_of_format_1_are_followed_and_read() {
    bless();
    let folder = Folder::of("follow");
    let end = end_of(&folder.0).unwrap();
    assert!(end.segment >= 1, "more than one segment");
    let mut follower = Follower::new(&folder.0, Cursor::START);
    let mut kinds = std::collections::BTreeMap::new();
    while let Some(record) = follower.next(end).unwrap() {
        let record: Record = serde_json::from_slice(record.line).unwrap();
        *kinds.entry(record.event.kind.as_str()).or_insert(0) += 1;
    }
    let expected = [
        ("dns", 150),
        ("http", 120),
        ("stream.close", 1),
        ("stream.open", 2),
    ];
    assert_eq!(kinds, expected.into());
}

#[test]
fn a_format_that_is_not_known_is_refused_by_its_number() {
    bless();
    let folder = Folder::of("unknown");
    let identity = format!("{{\"format\":3,\"origin\":\"{ORIGIN}\"}}");
    fs::write(folder.0.join("ledger.json"), identity).unwrap();
    let refused = Store::open(config(folder.0.clone()))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("format") && refused.contains('3'),
        "{refused}"
    );
}
