//! Directories as former versions left them: today's code must open them, come to the same tree, prove them, and go on. A directory under `golden` never changes; another format of files gets another one. `BLESS=1` writes what is not
//! there yet.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Once,
};

use chaperone_crds::{
    chain::{Chain, StreamId},
    record::{AgentRef, CloseInfo, Event, EventKind, Record},
};
use chaperone_ledger::{
    audit::{self, Trust},
    cosignature::Time,
    follow::{Cursor, Follower, end_of},
    key::{Algorithm, SigningKey},
    store::{Config, Store},
};
use jiff::Timestamp;

const ORIGIN: &str = "ledger.example/golden";
/// Of format 1: two segments, a full tile, a stream that was closed and one that was not.
const ROOT: &str = "golden/format-1.root";

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
        chain.append(&event, Timestamp::from_second(seconds).unwrap(), &mut out);
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
    let identity = format!("{{\"format\":2,\"origin\":\"{ORIGIN}\"}}");
    fs::write(folder.0.join("ledger.json"), identity).unwrap();
    let refused = Store::open(config(folder.0.clone()))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("format") && refused.contains('2'),
        "{refused}"
    );
}
