//! Logs as the store writes them, served out of memory, and each way to falsify one.

use std::{cell::RefCell, collections::BTreeMap, fs};

use chaperone_crds::{
    bodies::unsalted,
    chain::{Chain, RecordHash},
    record::{AgentRef, Event, EventKind},
};

use super::*;
use crate::{
    audit::directory,
    cosignature::Time,
    store::{Config, Store},
    testing::{Folder, ORIGIN, id, key},
    tile::{NotIncluded, write_entry},
};

/// Leaves of the older checkpoint and of the newer one.
const OLD: u64 = 300;
const NEW: u64 = 700;

/// What is served: a ledger's directory, with some of its tiles exchanged.
struct Served {
    folder: Folder,
    other: RefCell<BTreeMap<Tile, Vec<u8>>>,
}

impl Source for Served {
    type Error = String;

    fn read(&self, tile: Tile) -> Result<Vec<u8>, String> {
        if let Some(other) = self.other.borrow().get(&tile) {
            return Ok(other.clone());
        }
        let bytes = directory::tile(&self.folder.0, tile).map_err(|error| error.to_string())?;
        bytes.ok_or_else(|| "not found".to_owned())
    }
}

impl Served {
    fn note(&self) -> Vec<u8> {
        fs::read(self.folder.path("checkpoint")).unwrap()
    }

    fn exchange(&self, tile: Tile, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read(tile).unwrap();
        edit(&mut bytes);
        self.other.borrow_mut().insert(tile, bytes);
    }
}

/// A log of two streams by turns, and the checkpoint of its beginning.
fn log() -> (Served, Vec<u8>) {
    let folder = Folder::new();
    let mut store = Store::open(Config {
        dir: folder.0.clone(),
        origin: ORIGIN.parse().unwrap(),
        keys: vec![key(5).verifier().clone()],
        segment_bytes: 64 * 1024,
        checkpoint_seconds: 10,
    })
    .unwrap();
    let mut chains = [1, 2].map(|number| Chain::new(id(number)));
    let mut first = None;
    for leaf in 0..NEW {
        let which = usize::try_from(leaf % 2).unwrap();
        let kind = match leaf {
            0 | 1 => EventKind::StreamOpen,
            _ => EventKind::Dns,
        };
        let mut line = Vec::new();
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        chains[which].append(
            &Event::new(kind, AgentRef::default()),
            now,
            unsalted,
            &mut line,
        );
        let stream = id(u8::try_from(which).unwrap() + 1);
        let _ = store.stage(&stream, &line).unwrap();
        store.commit().unwrap();
        if leaf + 1 == OLD {
            store.checkpoint(&[&key(5)], Time::new(1).unwrap()).unwrap();
            first = Some(fs::read(folder.path("checkpoint")).unwrap());
        }
    }
    store.checkpoint(&[&key(5)], Time::new(2).unwrap()).unwrap();
    let other = RefCell::default();
    (Served { folder, other }, first.unwrap())
}

fn trust(kept: &[&[u8]]) -> Trust {
    Trust {
        keys: vec![key(5).verifier().clone()],
        kept: kept.iter().map(|note| note.to_vec()).collect(),
    }
}

fn tile(row: Row, index: u64) -> Tile {
    Tile::within(row, index, NEW).unwrap()
}

fn entry(served: &Served, index: u64) -> Leaf {
    let width = u64::from(WIDTH);
    let tile = tile(Row::Entries, index / width);
    let bytes = served.read(tile).unwrap();
    let entries = read_entries(&bytes, tile.width).unwrap();
    let entry = entries[usize::try_from(index % width).unwrap()];
    std::str::from_utf8(entry).unwrap().parse().unwrap()
}

#[test]
fn all_entries_are_the_tree_that_was_signed_and_no_number_is_missing() {
    let (served, old) = log();
    let (note, trust) = (served.note(), trust(&[&old]));
    let log = Log::open(&served, &note, &trust).unwrap();
    let mut read = Vec::new();
    let verdict = log.whole(&[], |leaves| read.push(leaves)).unwrap();
    assert!(verdict.is_intact(), "{verdict}");
    assert_eq!((verdict.missing(), read), (0, vec![256, 512, 700]));
    let half = Numbers {
        first: 0,
        next: NEW / 2,
        missing: 0,
    };
    assert_eq!(verdict.streams.into_values().collect::<Vec<_>>(), [half; 2]);
    assert_eq!((verdict.kept, verdict.head.size), (vec![OLD], NEW));
}

#[test]
fn a_beginning_is_proved_without_entries() {
    let (served, old) = log();
    let (note, now) = (served.note(), trust(&[&old]));
    let log = Log::open(&served, &note, &now).unwrap();
    let verdict = log.beginnings().unwrap();
    assert!(verdict.is_intact() && !verdict.is_whole, "{verdict}");

    let back = trust(&[&note]);
    let log = Log::open(&served, &old, &back).unwrap();
    for verdict in [log.beginnings().unwrap(), log.whole(&[], |_| {}).unwrap()] {
        assert!(!verdict.is_intact(), "the log went back: {verdict}");
    }
    // Another history of the same size.
    let origin = ORIGIN.parse().unwrap();
    let fork = Checkpoint::new(origin, OLD, crate::merkle::leaf_hash(b"other"));
    let fork = fork.sign(&[&key(5)], Time::new(1).unwrap()).unwrap();
    let fork = trust(&[&fork]);
    let log = Log::open(&served, &note, &fork).unwrap();
    for verdict in [log.beginnings().unwrap(), log.whole(&[], |_| {}).unwrap()] {
        assert!(!verdict.is_intact(), "{verdict}");
    }
}

#[test]
fn leaves_are_shown_to_be_where_they_are() {
    let (served, _) = log();
    let (note, trust) = (served.note(), trust(&[]));
    let log = Log::open(&served, &note, &trust).unwrap();
    let mut included = log.included();
    for index in [0, 255, 256, 511, 512, 699] {
        let leaf = entry(&served, index);
        assert_eq!(included.show(index, &leaf), Ok(()), "{index}");
        assert!(included.show(index ^ 1, &leaf).is_err(), "{index}");
        let record = RecordHash::of(b"other");
        let other = Leaf { record, ..leaf };
        assert!(included.show(index, &other).is_err(), "{index}");
    }
    let leaf = entry(&served, 0);
    for outside in [NEW, u64::MAX] {
        let shown = included.show(outside, &leaf);
        assert!(matches!(shown, Err(NotIncluded::Not(_))), "{shown:?}");
    }
    // A hash that is not on the way vouches for nothing.
    served.exchange(tile(Row::Hashes(0), 1), |bytes| bytes[40] ^= 1);
    let leaf = entry(&served, 256);
    let shown = log.included().show(256, &leaf);
    assert!(matches!(shown, Err(NotIncluded::Not(_))), "{shown:?}");
}

#[test]
fn what_was_changed_is_found_and_what_is_not_served_is_no_verdict() {
    let (served, _) = log();
    let (note, trust) = (served.note(), trust(&[]));
    let log = Log::open(&served, &note, &trust).unwrap();
    let whole = |row: Row, index, bytes: Vec<u8>| {
        served.other.borrow_mut().insert(tile(row, index), bytes);
        let verdict = log.whole(&[], |_| {}).unwrap();
        served.other.borrow_mut().clear();
        verdict
    };
    let bundle = |edit: &dyn Fn(usize, Leaf) -> Leaf| {
        let mut bytes = Vec::new();
        for (place, index) in (256..512).enumerate() {
            let leaf = edit(place, entry(&served, index));
            write_entry(&mut bytes, leaf.to_string().as_bytes()).unwrap();
        }
        bytes
    };
    assert!(whole(Row::Entries, 1, bundle(&|_, leaf| leaf)).is_intact());
    let record = RecordHash::of(b"other");
    let changed = bundle(&|place, leaf| match place {
        7 => Leaf { record, ..leaf },
        _ => leaf,
    });
    let verdict = whole(Row::Entries, 1, changed);
    assert!(matches!(
        verdict.faults[..],
        [Fault::Contradicted { size: NEW, .. }]
    ));

    // A record twice and another not at all; and one left out from there on.
    let again = bundle(&|place, leaf| match place {
        8 => Leaf {
            seq: leaf.seq - 1,
            ..leaf
        },
        _ => leaf,
    });
    let verdict = whole(Row::Entries, 1, again);
    assert!(
        matches!(
            verdict.faults[0],
            Fault::Again {
                seq: 131,
                next: 132,
                ..
            }
        ),
        "{verdict}"
    );
    let later = bundle(&|place, leaf| match place % 2 {
        0 => Leaf {
            seq: leaf.seq + 1_000,
            ..leaf
        },
        _ => leaf,
    });
    let verdict = whole(Row::Entries, 1, later);
    assert_eq!(verdict.missing(), 1_000);
    assert!(
        verdict.to_string().contains("lacks 1000 records"),
        "{verdict}"
    );

    for none in [b"".to_vec(), vec![0; 512], b"\x00\x01x".to_vec()] {
        let verdict = whole(Row::Entries, 1, none);
        assert!(
            matches!(verdict.faults[..], [Fault::Entries { .. }]),
            "{verdict}"
        );
    }
    fs::remove_dir_all(served.folder.path("tile/entries")).unwrap();
    assert!(matches!(
        log.whole(&[], |_| {}),
        Err(Unserved::Source { .. })
    ));
}

#[test]
fn a_checkpoint_of_nobody_that_is_known_opens_nothing() {
    let (served, old) = log();
    let note = served.note();
    let nobody = Trust::default();
    assert!(matches!(
        Log::open(&served, &note, &nobody).err(),
        Some(NotOpened::Checkpoint(_))
    ));
    let strange = trust(&[&old[1..]]);
    assert!(matches!(
        Log::open(&served, &note, &strange).err(),
        Some(NotOpened::Kept { number: 1, .. })
    ));
    for note in [&b""[..], b"\n", b"x\xff\n1\n"] {
        assert!(Log::open(&served, note, &trust(&[])).is_err());
    }
}
