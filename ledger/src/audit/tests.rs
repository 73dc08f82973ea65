//! Ledgers as the store writes them, and each way to falsify one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use chaperone_crds::{
    bodies::unsalted,
    chain::{Chain, StreamId},
    pod::PodIdentity,
    record::{AgentRef, CloseInfo, Event, EventKind, IdentityInfo},
};

use super::*;
use crate::testing::{Folder, ORIGIN, id, key};
use crate::{
    cosignature::Time,
    key::{Algorithm, SigningKey},
    note::countersign,
    store::{Config, Store},
};

/// Records of the first stream; more than two tiles.
const MANY: u64 = 600;

trait Segments {
    fn segment(&self, number: u64) -> PathBuf;
    fn edit(&self, file: &Path, edit: impl FnOnce(&mut Vec<u8>));
}

impl Segments for Folder {
    fn segment(&self, number: u64) -> PathBuf {
        segments::path(&self.0.join(layout::RECORDS), number)
    }

    fn edit(&self, file: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(file).unwrap();
        edit(&mut bytes);
        fs::write(file, bytes).unwrap();
    }
}

fn witness() -> SigningKey {
    let name = "witness.example/w1".parse().unwrap();
    SigningKey::from_seed(name, Algorithm::CosignatureV1, [9; 32])
}

/// The lines of a whole stream, of which each says `note`.
fn lines(stream: u8, count: u64, note: &str) -> Vec<Vec<u8>> {
    let mut chain = Chain::new(id(stream));
    let now = "2026-11-24T10:00:00Z".parse().unwrap();
    (0..count)
        .map(|seq| {
            let kind = match seq {
                0 => EventKind::StreamOpen,
                last if last == count - 1 => EventKind::StreamClose,
                _ => EventKind::Dns,
            };
            let mut event = Event::new(kind, AgentRef::default());
            event.error = Some(note.to_owned());
            event.close = (kind == EventKind::StreamClose).then(|| CloseInfo {
                records: count,
                reason: "terminated".to_owned(),
            });
            let mut line = Vec::new();
            chain.append(&event, now, unsalted, &mut line);
            line
        })
        .collect()
}

/// A ledger of two streams in several segments, and the checkpoint of its middle.
fn ledger() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let mut store = Store::open(Config {
        dir: folder.0.clone(),
        origin: ORIGIN.parse().unwrap(),
        keys: vec![key(5).verifier().clone()],
        segment_bytes: 64 * 1024,
        checkpoint_seconds: 10,
    })
    .unwrap();
    let (first, second) = (lines(1, MANY, "one"), lines(2, 40, "two"));
    let mut kept = Vec::new();
    for (batch, number) in first.chunks(50).zip(0..) {
        let _ = store.stage(&id(1), &batch.concat()).unwrap();
        store.commit().unwrap();
        if number == 5 {
            let _ = store.stage(&id(2), &second.concat()).unwrap();
            kept = store.checkpoint(&[&key(5)], Time::new(1).unwrap()).unwrap();
        }
    }
    store.checkpoint(&[&key(5)], Time::new(2).unwrap()).unwrap();
    (folder, kept)
}

fn trust(kept: &[u8]) -> Trust {
    Trust {
        keys: vec![key(5).verifier().clone(), witness().verifier().clone()],
        kept: vec![kept.to_vec()],
    }
}

fn verdict(folder: &Folder, kept: &[u8]) -> Verdict {
    verify(&folder.0, &trust(kept)).unwrap()
}

/// Asserts that the ledger is found at fault, in these words.
fn at_fault(folder: &Folder, kept: &[u8], words: &[&str]) {
    let verdict = verdict(folder, kept);
    let text = verdict.to_string();
    assert!(!verdict.is_intact(), "{text}");
    assert!(text.ends_with("NOT INTACT"), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn a_ledger_as_it_was_written_is_intact() {
    let (folder, kept) = ledger();
    let verdict = verdict(&folder, &kept);
    assert!(verdict.is_intact(), "{verdict}");
    assert_eq!(
        (verdict.leaves, verdict.unsigned, verdict.torn),
        (MANY + 40, 0, 0)
    );
    assert_eq!(verdict.kept, [340]);
    let text = verdict.to_string();
    assert!(text.contains("signed by ledger.example/prod\n"), "{text}");
    assert!(
        text.ends_with("640 records in 2 streams, 0 after the checkpoint: intact"),
        "{text}"
    );
}

#[test]
fn an_empty_ledger_with_a_checkpoint_is_intact_and_one_without_proves_nothing() {
    let folder = Folder::new();
    let mut store = Store::open(Config {
        dir: folder.0.clone(),
        origin: ORIGIN.parse().unwrap(),
        keys: vec![key(5).verifier().clone()],
        segment_bytes: 4096,
        checkpoint_seconds: 10,
    })
    .unwrap();
    let trust = Trust {
        keys: vec![key(5).verifier().clone()],
        kept: Vec::new(),
    };
    let before = verify(&folder.0, &trust).unwrap();
    assert!(matches!(before.faults[..], [Fault::NoCheckpoint]));
    store.checkpoint(&[&key(5)], Time::new(1).unwrap()).unwrap();
    let after = verify(&folder.0, &trust).unwrap();
    assert!(after.is_intact(), "{after}");
}

#[test]
fn what_is_not_signed_yet_is_told_apart_and_so_is_a_torn_end() {
    let (folder, kept) = ledger();
    let newest = folder.segment(
        segments::list(&folder.0.join(layout::RECORDS))
            .unwrap()
            .pop()
            .unwrap(),
    );
    let more = lines(3, 3, "three").concat();
    folder.edit(&newest, |bytes| bytes.extend(&more));
    let verdict_of_more = verdict(&folder, &kept);
    assert!(verdict_of_more.is_intact(), "{verdict_of_more}");
    assert_eq!(verdict_of_more.unsigned, 3);
    for torn in [
        &b"{\"v\":\"chap"[..],
        b"\0\0\0\0\n\0\0",
        &more[..more.len() - 1],
    ] {
        let copy = folder.copy();
        let newest = copy.0.join(newest.strip_prefix(&folder.0).unwrap());
        copy.edit(&newest, |bytes| bytes.extend(torn));
        let verdict = verdict(&copy, &kept);
        assert!(verdict.faults.is_empty(), "{verdict}");
        assert!(verdict.torn > 0, "{verdict}");
    }
}

#[test]
fn a_witness_is_named_with_its_time() {
    let (folder, kept) = ledger();
    let file = folder.0.join(layout::CHECKPOINT);
    let time = Time::new(1_764_000_000).unwrap();
    let note = countersign(&fs::read(&file).unwrap(), &witness(), time).unwrap();
    fs::write(&file, note).unwrap();
    let text = verdict(&folder, &kept).to_string();
    let words =
        "signed by ledger.example/prod and witness.example/w1 (seen at 1764000000 s since 1970)";
    assert!(text.contains(words), "{text}");
}

#[test]
fn every_bit_of_every_record_is_proved() {
    let (folder, kept) = ledger();
    // One byte in each hundred: the whole would take minutes.
    for number in [0, 1] {
        let length = fs::metadata(folder.segment(number)).unwrap().len();
        for place in (0..length).step_by(997) {
            let copy = folder.copy();
            let place = usize::try_from(place).unwrap();
            copy.edit(&copy.segment(number), |bytes| bytes[place] ^= 1);
            at_fault(&copy, &kept, &["FAULT"]);
        }
    }
}

/// All files of a folder, by their paths in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all.sort();
    all
}

/// What a verdict and a start make of a flipped bit: each must see it.
#[test]
fn every_byte_of_every_file_of_a_small_ledger_is_seen_by_the_proof_and_by_a_start() {
    let folder = Folder::new();
    let config = Config {
        dir: folder.0.clone(),
        origin: ORIGIN.parse().unwrap(),
        keys: vec![key(5).verifier().clone()],
        segment_bytes: 600,
        checkpoint_seconds: 10,
    };
    let mut store = Store::open(config.clone()).unwrap();
    for line in lines(1, 4, "one") {
        let _ = store.stage(&id(1), &line).unwrap();
        store.commit().unwrap();
    }
    let note = store.checkpoint(&[&key(5)], Time::new(1).unwrap()).unwrap();
    drop(store);
    let trust = trust(&note);
    let (mut flipped, mut unseen) = (0, Vec::new());
    for file in files(&folder.0) {
        let whole = fs::read(&file).unwrap();
        // Texts have bits that could mean nothing, such as the last ones of base64; of what is hashed one bit of each byte will do.
        let text = file.extension().is_none() && whole.is_ascii() && !whole.is_empty();
        let step = if text { 1 } else { 9 };
        for bit in (0..whole.len() * 8).step_by(step) {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &bytes).unwrap();
            flipped += 1;
            if verify(&folder.0, &trust).is_ok_and(|verdict| verdict.is_intact()) {
                unseen.push((file.clone(), bit, "proof"));
            }
            // A start computes partial tiles anew, which belong to one checkpoint only.
            let partial = file
                .components()
                .any(|part| part.as_os_str().to_string_lossy().ends_with(".p"));
            if !partial && bit % 8 == bit / 8 % 8 && Store::open(config.clone()).is_ok() {
                unseen.push((file.clone(), bit, "start"));
            }
            fs::write(&file, &whole).unwrap();
        }
    }
    assert!(flipped > 2_000, "{flipped}");
    assert!(unseen.is_empty(), "{unseen:?}");
}

#[test]
fn a_record_changed_together_with_its_chain_is_named_by_the_tiles() {
    let (folder, kept) = ledger();
    // Whoever holds the disk writes one stream anew, with a sound chain.
    let forged = lines(2, 40, "TWO");
    for number in segments::list(&folder.0.join(layout::RECORDS)).unwrap() {
        folder.edit(&folder.segment(number), |bytes| {
            let lines = bytes.split_inclusive(|b| *b == b'\n').map(|line| {
                let head = Head::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
                if head.stream != id(2) {
                    return line.to_vec();
                }
                forged[usize::try_from(head.seq).unwrap()].clone()
            });
            *bytes = lines.collect::<Vec<_>>().concat();
        });
    }
    at_fault(
        &folder,
        &kept,
        &[
            ": intact\n",
            "records were changed, removed or moved",
            "a checkpoint that was kept elsewhere of 340 records has the root",
            "tile/0/001 has another record as leaf 300 than record 0 of stream",
        ],
    );
}

#[test]
fn records_tiles_segments_and_checkpoints_that_are_gone_or_others_are_named() {
    let (folder, kept) = ledger();
    let newest = *segments::list(&folder.0.join(layout::RECORDS))
        .unwrap()
        .last()
        .unwrap();
    let remove = |path: &str| {
        let copy = folder.copy();
        fs::remove_file(copy.0.join(path)).unwrap();
        copy
    };
    at_fault(&remove("checkpoint"), &kept, &["there is no checkpoint"]);
    at_fault(
        &remove("records/00000001.jsonl"),
        &kept,
        &["segment 00000001 is missing"],
    );
    at_fault(&remove("tile/0/001"), &kept, &["tile/0/001 is missing"]);
    at_fault(
        &remove("tile/entries/000"),
        &kept,
        &["tile/entries/000 is missing"],
    );
    at_fault(
        &remove("tile/1/000.p/2"),
        &kept,
        &["tile/1/000.p/2 is missing"],
    );

    // The end is cut, and with it the newest checkpoint: only the one kept elsewhere tells.
    let copy = remove(&format!("records/{newest:08}.jsonl"));
    at_fault(&copy, &kept, &["records were lost or removed"]);
    let copy = folder.copy();
    fs::write(copy.0.join(layout::CHECKPOINT), &kept).unwrap();
    for number in 1..=newest {
        fs::remove_file(copy.segment(number)).unwrap();
    }
    at_fault(
        &copy,
        &kept,
        &["a checkpoint that was kept elsewhere has 340 records"],
    );

    // A line is there twice, and one is of no record.
    let copy = folder.copy();
    copy.edit(&copy.segment(0), |bytes| {
        let first = bytes
            .split_inclusive(|b| *b == b'\n')
            .next()
            .unwrap()
            .to_vec();
        bytes.splice(0..0, first);
    });
    at_fault(
        &copy,
        &kept,
        &["record 0 is there twice", "records were changed"],
    );
    let copy = folder.copy();
    copy.edit(&copy.segment(0), |bytes| {
        bytes.splice(0..0, *b"{}\n").for_each(drop)
    });
    at_fault(&copy, &kept, &["segment 00000000, byte 0 is no record"]);
    let copy = folder.copy();
    copy.edit(&copy.segment(0), |bytes| bytes.truncate(bytes.len() - 1));
    at_fault(&copy, &kept, &["the segment ends within a line"]);
}

#[test]
fn a_checkpoint_of_an_unknown_key_or_of_another_log_is_none() {
    let (folder, kept) = ledger();
    let other = Trust {
        keys: vec![key(6).verifier().clone()],
        kept: Vec::new(),
    };
    let verdict = verify(&folder.0, &other).unwrap();
    assert!(
        matches!(verdict.faults[..], [Fault::Checkpoint(_)]),
        "{verdict}"
    );
    assert!(verdict.head.is_none());
    let refused = verify(
        &folder.0,
        &Trust {
            kept: vec![kept],
            ..other
        },
    )
    .unwrap_err();
    assert!(
        matches!(refused, Unreadable::Kept { number: 1, .. }),
        "{refused}"
    );
    fs::write(folder.0.join(layout::IDENTITY), b"{}").unwrap();
    assert!(matches!(
        verify(&folder.0, &trust(&[])),
        Err(Unreadable::Identity(_))
    ));
}

/// A ledger in which stream 1 goes on at record 5 after record 2, and `says` is the stream in which a record announces that.
fn onward(says: &StreamId) -> Verdict {
    let folder = Folder::new();
    let mut store = Store::open(Config {
        dir: folder.0.clone(),
        origin: ORIGIN.parse().unwrap(),
        keys: vec![key(5).verifier().clone()],
        segment_bytes: 64 * 1024,
        checkpoint_seconds: 10,
    })
    .unwrap();
    let all = lines(1, 8, "one");
    let _ = store.stage(&id(1), &all[..3].concat()).unwrap();
    let mut chain = Chain::new(says.clone());
    let mut announcing = Vec::new();
    let mut identity = Event::new(EventKind::StreamIdentity, AgentRef::default());
    identity.identity = Some(IdentityInfo {
        stream: id(1).to_string(),
        workload: PodIdentity::default(),
        image_ids: Vec::new(),
        from: Some(5),
    });
    for event in [
        Event::new(EventKind::StreamOpen, AgentRef::default()),
        identity,
    ] {
        let now = "2026-11-24T10:00:00Z".parse().unwrap();
        chain.append(&event, now, unsalted, &mut announcing);
    }
    let _ = store.stage(says, &announcing).unwrap();
    let rest = all[5..].concat();
    let _ = store.stage_from(&id(1), &rest, Some(5)).unwrap();
    let note = store.checkpoint(&[&key(5)], Time::new(1).unwrap());
    verdict(&folder, &note.unwrap())
}

#[test]
fn records_that_are_missing_are_a_fault_unless_the_ledger_itself_said_so() {
    let announced = onward(&StreamId::of_ledger(ORIGIN));
    assert!(
        announced.is_intact() && !announced.is_complete(),
        "{announced}"
    );
    let text = announced.to_string();
    assert!(
        text.contains(", 2 MISSING (the first: record 3): intact"),
        "{text}"
    );
    assert!(
        text.ends_with("INCOMPLETE: 2 records are missing"),
        "{text}"
    );
    let forged = onward(&id(2));
    assert!(!forged.is_intact(), "{forged}");
    assert!(
        forged.to_string().contains("records 3 to 4 are missing"),
        "{forged}"
    );
}
