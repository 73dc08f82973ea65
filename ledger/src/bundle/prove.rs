//! Proving a bundle, with nothing but itself and a key that is known.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use super::{
    ABOUT, ABOUT_LEAVES, FORMAT, IDENTITY, Identity, LEAVES, Named, RECORDS, Subject,
    verdict::{Fault, Policies, Shown, Verdict, Whose},
};
use crate::{
    audit::{TreeHead, Unreadable, directory},
    checkpoint::{self, Checkpoint, Origin, decimal},
    key::VerifierKey,
    leaf::{Leaf, MAX_LEAF_BYTES},
    tile::{Included, Source, Tile},
};
use chaperone_crds::{
    chain::{MAX_RECORD_BYTES, RecordHash, StreamId},
    head::{Content, Head},
    record::Record,
    snapshot::Snapshot,
    verify::{Line, Seen, each_line},
};

/// Most faults that a verdict lists; further ones are counted.
const MAX_LISTED: usize = 100;
/// Longest line of leaves: a number, a space, a leaf, a newline.
const MAX_LINE_BYTES: usize = 20 + 1 + MAX_LEAF_BYTES + 1;
/// Longest `bundle.json`, in bytes.
const MAX_IDENTITY_BYTES: u64 = 64 * 1024;

/// Whether this is a bundle.
#[must_use]
pub fn is_bundle(dir: &Path) -> bool {
    dir.join(IDENTITY).is_file()
}

/// Reads everything in the folder and judges it.
///
/// # Errors
/// [`Unreadable`]. Bad content is no error: the verdict says it.
pub fn verify(dir: &Path, keys: &[VerifierKey]) -> Result<Verdict, Unreadable> {
    let (origin, subject) = identity(dir)?;
    let mut proof = Proof::new(origin, subject);
    match directory::note(dir)? {
        None => proof.fault(Fault::NoCheckpoint),
        Some(note) => match checkpoint::open(&note, &proof.verdict.origin, keys) {
            Err(fault) => proof.fault(Fault::Checkpoint(fault)),
            Ok(signed) => {
                proof.verdict.head = Some(TreeHead::of(&signed));
                proof.leaves(dir, &signed.checkpoint)?;
                proof.records(dir)?;
                proof.about(dir, &signed.checkpoint)?;
            }
        },
    }
    Ok(proof.verdict)
}

fn identity(dir: &Path) -> Result<(Origin, Subject), Unreadable> {
    let path = dir.join(IDENTITY);
    let failed = |error| directory::unreadable(&path, error);
    let mut bytes = Vec::new();
    let file = directory::open(&path).map_err(failed)?;
    file.take(MAX_IDENTITY_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    serde_json::from_slice::<Identity>(&bytes)
        .ok()
        .filter(|identity| identity.format == FORMAT)
        .and_then(|identity| Some((identity.origin.parse().ok()?, identity.subject)))
        .ok_or_else(|| Unreadable::Identity(path.display().to_string()))
}

/// A stream's leaves while they are read.
struct Known {
    shown: Shown,
    hashes: HashMap<u64, (RecordHash, bool)>,
}

/// A bundle while it is read.
struct Proof {
    verdict: Verdict,
    streams: BTreeMap<StreamId, Known>,
}

impl Proof {
    fn new(origin: Origin, subject: Subject) -> Self {
        Self {
            verdict: Verdict {
                origin,
                subject,
                head: None,
                streams: BTreeMap::new(),
                whose: Vec::new(),
                policies: Vec::new(),
                faults: Vec::new(),
                fault_count: 0,
            },
            streams: BTreeMap::new(),
        }
    }

    fn fault(&mut self, fault: Fault) {
        self.verdict.fault_count = self.verdict.fault_count.saturating_add(1);
        if self.verdict.faults.len() < MAX_LISTED {
            self.verdict.faults.push(fault);
        }
    }

    /// Reads the leaves, shows that each is in the tree, and that each stream has all between its first and last.
    fn leaves(&mut self, dir: &Path, signed: &Checkpoint) -> Result<(), Unreadable> {
        self.included(dir, LEAVES, signed, Self::place)
    }

    /// Reads the leaves of a file, and shows that each is in the tree.
    fn included(
        &mut self,
        dir: &Path,
        file: &str,
        signed: &Checkpoint,
        mut take: impl FnMut(&mut Self, Leaf),
    ) -> Result<(), Unreadable> {
        let path = dir.join(file);
        let failed = |error| directory::unreadable(&path, error);
        let mut lines = BufReader::new(directory::open(&path).map_err(failed)?);
        let folder = Folder(dir);
        let mut included = Included::new(&folder, signed);
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let (mut line, mut after) = (String::new(), None);
        for number in 1.. {
            line.clear();
            let read = (&mut lines).take(limit).read_line(&mut line);
            match read {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                    return Err(failed(error));
                }
                Err(_) => line.clear(),
                Ok(_) => {}
            }
            let parsed = parse(&line).filter(|(index, _)| after.is_none_or(|after| *index > after));
            let Some((index, leaf)) = parsed else {
                // What follows a line that is none may be anything.
                let file = file.to_owned();
                self.fault(Fault::Leaf { number, file });
                break;
            };
            after = Some(index);
            if let Err(reason) = included.show(index, &leaf) {
                let (leaf, reason) = (leaf.to_string(), reason.to_string());
                self.fault(Fault::NotIncluded {
                    index,
                    leaf,
                    reason,
                });
            }
            take(self, leaf);
        }
        Ok(())
    }

    /// Reads what the records are about. A bundle of an earlier version has none of it.
    fn about(&mut self, dir: &Path, signed: &Checkpoint) -> Result<(), Unreadable> {
        let path = dir.join(ABOUT);
        if !path.exists() {
            return Ok(());
        }
        let mut known = HashMap::new();
        self.included(dir, ABOUT_LEAVES, signed, |_, leaf| {
            known.insert((leaf.stream, leaf.seq), leaf.record);
        })?;
        self.each_record(&path, ABOUT, |_, head, hash, _| {
            match known.remove(&(head.stream.clone(), head.seq)) {
                Some(leaf) if leaf == hash => Ok(()),
                Some(_) => Err("not the bytes that its leaf has".to_owned()),
                None => Err("there twice, or without a leaf".to_owned()),
            }
        })
    }

    /// What a record that is shown to be the ledger's says of others.
    fn explain(&mut self, head: &Head, line: &[u8]) -> Result<(), String> {
        let Ok(record) = Record::read(line) else {
            return Ok(());
        };
        if let Some(config) = record.event.config {
            let snapshot = Snapshot::of_record(&config);
            if config.snapshot.is_some() && snapshot.is_none() {
                return Err("with policies that are not those of its revision".to_owned());
            }
            let has_text = snapshot.is_some();
            self.verdict.policies.push(Policies {
                revision: config.revision.to_string(),
                policies: config.policies,
                has_text,
            });
        }
        let own = StreamId::of_ledger(self.verdict.origin.as_str());
        if let Some(identity) = record.event.identity.filter(|_| head.stream == own) {
            self.verdict.whose.push(Whose {
                stream: identity.stream,
                workload: identity.workload,
            });
        }
        Ok(())
    }

    fn place(&mut self, leaf: Leaf) {
        let (stream, seq) = (leaf.stream, leaf.seq);
        let known = self.streams.entry(stream.clone()).or_insert_with(|| Known {
            shown: Shown {
                first: seq,
                last: seq,
                records: 0,
                context: 0,
                withheld: 0,
                deleted_content: 0,
            },
            hashes: HashMap::new(),
        });
        let after = match known.hashes.is_empty() {
            true => seq,
            false => known.shown.last.saturating_add(1),
        };
        known.shown.last = known.shown.last.max(seq);
        known.hashes.insert(seq, (leaf.record, false));
        if seq != after {
            self.fault(Fault::Hole {
                stream,
                after,
                found: seq,
            });
        }
    }

    /// Reads the records and shows that each is its leaf's.
    fn records(&mut self, dir: &Path) -> Result<(), Unreadable> {
        self.each_record(&dir.join(RECORDS), RECORDS, Self::record)?;
        self.finish();
        Ok(())
    }

    /// Reads the records of a file. What `place` does not refuse may explain others.
    fn each_record(
        &mut self,
        path: &Path,
        file: &str,
        mut place: impl FnMut(&mut Self, &Head, RecordHash, Option<&str>) -> Result<(), String>,
    ) -> Result<(), Unreadable> {
        let failed = |error| directory::unreadable(path, error);
        let opened = directory::open(path).map_err(failed)?;
        let look = |line: Line<'_>| {
            let seen = Seen::of(line);
            let (session, about) = match (&seen, line) {
                (Seen::Record(head, _), Line::Whole(bytes) | Line::Last(bytes)) => {
                    let named = Named::of(head, bytes);
                    (named.session, named.about.map(|_| bytes.to_vec()))
                }
                _ => (None, None),
            };
            (seen, session, about)
        };
        let mut number = 0_u64;
        each_line(
            opened,
            MAX_RECORD_BYTES,
            look,
            |_, (seen, session, about)| {
                number = number.saturating_add(1);
                let placed = match seen {
                    Seen::Record(head, hash) => {
                        let placed = place(self, &head, hash, session.as_deref());
                        placed
                            .and_then(|()| about.map_or(Ok(()), |line| self.explain(&head, &line)))
                    }
                    Seen::Nothing | Seen::Deleted(..) => Err("empty".to_owned()),
                    Seen::Fault(fault) => Err(fault.to_string()),
                };
                if let Err(fault) = placed {
                    self.fault(Fault::Record {
                        line: number,
                        file: file.to_owned(),
                        fault,
                    });
                }
            },
        )
        .map_err(failed)
    }

    fn record(
        &mut self,
        head: &Head,
        hash: RecordHash,
        session: Option<&str>,
    ) -> Result<(), String> {
        let name = || format!("record {} of stream {}", head.seq, head.stream);
        let known = self.streams.get_mut(&head.stream);
        let known = known.ok_or_else(|| format!("{}, of which there is no leaf", name()))?;
        let before = head
            .seq
            .checked_sub(1)
            .and_then(|seq| known.hashes.get(&seq));
        if before.is_some_and(|(before, _)| head.prev != Some(*before)) {
            return Err(format!(
                "{}, which does not carry the hash of the one before it",
                name()
            ));
        }
        match known.hashes.get_mut(&head.seq) {
            None => Err(format!("{}, of which there is no leaf", name())),
            Some((leaf, _)) if *leaf != hash => Err(format!(
                "{}, but not with the bytes that its leaf has",
                name()
            )),
            Some((_, true)) => Err(format!("{} for the second time", name())),
            Some((_, there)) => {
                *there = true;
                let of_subject = self.verdict.subject.has(&head.stream, session);
                let count = match of_subject {
                    true => &mut known.shown.records,
                    false => &mut known.shown.context,
                };
                *count = count.saturating_add(1);
                if head.content == Content::Deleted {
                    known.shown.deleted_content = known.shown.deleted_content.saturating_add(1);
                }
                Ok(())
            }
        }
    }

    fn finish(&mut self) {
        let streams = std::mem::take(&mut self.streams);
        for (stream, known) in streams {
            let withheld = known.hashes.values().filter(|(_, there)| !there).count();
            let shown = Shown {
                withheld: u64::try_from(withheld).unwrap_or(u64::MAX),
                ..known.shown
            };
            self.verdict.streams.insert(stream, shown);
        }
        if self.verdict.records() == 0 {
            self.fault(Fault::Empty);
        }
    }
}

/// The tiles of the folder.
struct Folder<'a>(&'a Path);

impl Source for Folder<'_> {
    type Error = io::Error;

    fn read(&self, tile: Tile) -> io::Result<Vec<u8>> {
        directory::tile(self.0, tile)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn parse(line: &str) -> Option<(u64, Leaf)> {
    let (index, entry) = line.strip_suffix('\n')?.split_once(' ')?;
    Some((decimal(index).ok()?, entry.parse().ok()?))
}
