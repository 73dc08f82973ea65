//! The proof of a ledger's directory, or of a copy of one: without its lock, without changing it, and without believing anything in it but what a known key has signed.
//!
//! Owns the verdict over records, tree, checkpoints and tiles together; the verdict over each stream is `chaperone_crds::verify`. Refuses to mend. Memory is bounded per stream.
//!
//! A directory may be verified while the ledger writes it: records and tiles beyond the checkpoint are told apart, and a torn line at the very end is none yet.

pub(crate) mod directory;
mod tiles;
mod verdict;

use std::{
    io::{self, Read as _},
    path::Path,
};

use chaperone_crds::{
    bodies::{self, Parts},
    chain::{RecordHash, StreamId},
    head::{self, Head},
    record::{EventKind, Record},
    verify::{Line, LineFault, Seen, Verifier, each_line},
};
use thiserror::Error;

pub use tiles::TileFault;
pub use verdict::{At, Contents, Fault, Head as TreeHead, Verdict};

use crate::{
    checkpoint::{self, Checkpoint, CheckpointError, Origin},
    content::{Content, Keys},
    key::VerifierKey,
    leaf,
    line::{MAX_LINE_BYTES, Stored},
    merkle::{self, Hash},
    store::{MAX_STREAMS, Onward, layout, segments},
};
use tiles::Compared;

/// What the directory is compared with.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Keys of the log, and of witnesses.
    pub keys: Vec<VerifierKey>,
    /// Checkpoints of this log that were kept elsewhere, as notes: the tree must have each as its beginning.
    pub kept: Vec<Vec<u8>>,
}

/// Why there is no verdict.
#[derive(Debug, Error)]
pub enum Unreadable {
    /// The disk.
    #[error("{file}: {error}")]
    Io {
        /// What was to be read.
        file: String,
        /// Why it was not.
        error: io::Error,
    },
    /// `ledger.json` is not what a ledger writes.
    #[error("{0} is not a ledger's: it should be {{\"format\":2,\"origin\":\"…\"}}")]
    Identity(String),
    /// A checkpoint that was given is none of this log.
    #[error("checkpoint {number} of those given: {fault}")]
    Kept {
        /// Which, from 1.
        number: usize,
        /// Why.
        fault: CheckpointError,
    },
}

/// Whether this is a ledger's directory.
#[must_use]
pub fn is_ledger(dir: &Path) -> bool {
    dir.join(layout::IDENTITY).is_file()
}

/// Reads everything in the directory and judges it.
///
/// # Errors
/// [`Unreadable`]. Bad content is no error: the verdict says it.
pub fn verify(dir: &Path, trust: &Trust) -> Result<Verdict, Unreadable> {
    let origin = directory::identity(dir)?;
    let mut inspection = Inspection::new(dir, &origin);
    for (note, number) in trust.kept.iter().zip(1..) {
        let kept = checkpoint::open(note, &origin, &trust.keys)
            .map_err(|fault| Unreadable::Kept { number, fault })?;
        inspection.expect(&kept.checkpoint, true);
    }
    match directory::note(dir)? {
        None => inspection.faults.push(Fault::NoCheckpoint),
        Some(note) => match checkpoint::open(&note, &origin, &trust.keys) {
            Err(fault) => inspection.faults.push(Fault::Checkpoint(fault)),
            Ok(signed) => {
                inspection.expect(&signed.checkpoint, false);
                inspection.head = Some(TreeHead::of(&signed));
            }
        },
    }
    inspection.tiles.optional = inspection.head.as_ref().is_none_or(|head| head.size == 0);
    let records = dir.join(layout::RECORDS);
    let numbers =
        segments::list(&records).map_err(|error| directory::unreadable(&records, error))?;
    let newest = numbers.last().copied();
    for (number, wanted) in numbers.into_iter().zip(0..) {
        if number != wanted {
            inspection.faults.push(Fault::MissingSegment(wanted));
            break;
        }
        inspection.segment(&records, number, newest == Some(number))?;
    }
    inspection.finish()
}

/// A tree that must be the beginning of this one.
struct Expected {
    size: u64,
    root: Hash,
    /// It was kept elsewhere.
    kept: bool,
    computed: Option<Hash>,
}

/// What was looked at of a line, by any thread.
struct Looked {
    seen: Seen,
    /// Entry in the tree and its hash, of a record.
    leaf: Option<(String, Hash)>,
    /// What it says of another stream, if it is whose that is.
    onward: Option<Onward>,
    /// What is there of its content, where it has some.
    content: Option<Content>,
    /// It begins a segment that was written anew: the number of the leaf that comes next.
    begins: Option<u64>,
    /// It has a zero byte, which no record has: bytes that never came.
    zero: bool,
    /// It lacks its newline.
    unfinished: bool,
}

impl Looked {
    fn at(line: Line<'_>, keys: &Keys) -> Self {
        let bytes = match line {
            Line::Whole(bytes) | Line::Last(bytes) => bytes,
            Line::TooLong => &[],
        };
        let stored = Stored::read(bytes);
        let record = stored.as_ref().ok().and_then(Stored::record);
        let mut seen = match (&stored, line) {
            (_, Line::TooLong) => Seen::of(line),
            (Ok(Stored::Deleted(leaf)), _) => {
                Seen::Deleted(leaf.stream.clone(), leaf.seq, leaf.record)
            }
            (Ok(Stored::Begins(_)), _) => Seen::Nothing,
            (Err(fault), _) => Seen::Fault(LineFault::NotARecord(fault.to_string())),
            (Ok(_), Line::Last(_)) => Seen::of(Line::Last(record.unwrap_or_default())),
            (Ok(_), _) => Seen::of(Line::Whole(record.unwrap_or_default())),
        };
        let content = content(stored.as_ref().ok(), keys);
        if let (Seen::Record(head, _), Some(Content::There(_))) = (&mut seen, &content) {
            // It is sealed beside its record.
            head.content = head::Content::There;
        }
        let leaf = match &seen {
            Seen::Record(head, hash) => Some(entry(&head.stream, head.seq, *hash)),
            Seen::Deleted(stream, seq, hash) => Some(entry(stream, *seq, *hash)),
            _ => None,
        };
        let onward = match &seen {
            Seen::Record(head, _) => onward(head, record.unwrap_or_default()),
            _ => None,
        };
        Self {
            seen,
            onward,
            content,
            begins: match stored {
                Ok(Stored::Begins(leaf)) => Some(leaf),
                _ => None,
            },
            // Only what is no record may have one.
            zero: leaf.is_none() && bytes.contains(&0),
            leaf,
            unfinished: matches!(line, Line::Last(_)),
        }
    }
}

/// What is there of a record's content. Keys that cannot be read open nothing.
fn content(stored: Option<&Stored<'_>>, keys: &Keys) -> Option<Content> {
    match stored? {
        Stored::Sealed(sealed) => Some(keys.open(sealed).unwrap_or(Content::Gone)),
        Stored::Record(line) => match bodies::parts(line) {
            Parts::Detached { .. } => Some(Content::Gone),
            Parts::With { .. } => Some(Content::There(Vec::new())),
            Parts::Whole(_) => None,
        },
        Stored::Deleted(_) | Stored::Begins(_) => None,
    }
}

/// What a record of the ledger's own says of a stream that goes on without some of its records.
pub(crate) fn onward(head: &Head, line: &[u8]) -> Option<Onward> {
    if head.place.kind() != EventKind::StreamIdentity.as_str() {
        return None;
    }
    let record = Record::read(line).ok()?;
    let identity = record.event.identity?;
    Some(Onward {
        stream: identity.stream.parse().ok()?,
        from: identity.from?,
    })
}

fn entry(stream: &StreamId, seq: u64, record: RecordHash) -> (String, Hash) {
    let entry = leaf::entry(stream, seq, record);
    let hash = merkle::leaf_hash(entry.as_bytes());
    (entry, hash)
}

/// The directory while it is read.
struct Inspection<'a> {
    origin: Origin,
    /// The ledger's own stream.
    own: StreamId,
    head: Option<TreeHead>,
    expected: Vec<Expected>,
    verifier: Verifier,
    keys: Keys,
    contents: Contents,
    tiles: Compared<'a>,
    faults: Vec<Fault>,
    /// Bytes at the very end that are no record yet.
    torn: u64,
    /// A line was no record: what follows has no place in the tree.
    lost_count: bool,
}

impl<'a> Inspection<'a> {
    fn new(dir: &'a Path, origin: &Origin) -> Self {
        Self {
            origin: origin.clone(),
            own: StreamId::of_ledger(origin.as_str()),
            head: None,
            expected: Vec::new(),
            verifier: Verifier::exactly_once(MAX_STREAMS),
            keys: Keys::of(dir),
            contents: Contents::default(),
            tiles: Compared::new(dir),
            faults: Vec::new(),
            torn: 0,
            lost_count: false,
        }
    }

    fn expect(&mut self, checkpoint: &Checkpoint, kept: bool) {
        self.expected.push(Expected {
            size: checkpoint.size,
            root: checkpoint.root,
            kept,
            computed: (checkpoint.size == 0).then(Hash::of_nothing),
        });
    }

    fn segment(&mut self, dir: &Path, number: u64, newest: bool) -> Result<(), Unreadable> {
        let path = segments::path(dir, number);
        let failed = |error| directory::unreadable(&path, error);
        let file = directory::open(&path).map_err(failed)?;
        // Of the newest only what was there when it was opened: the ledger may go on.
        let length = file.metadata().map_err(failed)?.len();
        let mut torn_from = None;
        let keys = std::mem::replace(&mut self.keys, Keys::of(dir));
        let read = each_line(
            file.take(length),
            MAX_LINE_BYTES,
            |line| Looked::at(line, &keys),
            |offset, looked| {
                if torn_from.is_none() && newest && (looked.zero || looked.unfinished) {
                    torn_from = Some(offset);
                }
                if torn_from.is_none() {
                    self.line(
                        At {
                            segment: number,
                            offset,
                        },
                        looked,
                    );
                }
            },
        );
        self.keys = keys;
        read.map_err(failed)?;
        self.torn = torn_from.map_or(0, |from| length.saturating_sub(from));
        Ok(())
    }

    fn line(&mut self, at: At, looked: Looked) {
        if let Some(leaf) = looked.begins {
            // Where lines are lost nobody knows which comes next.
            if !self.lost_count && (at.offset > 0 || leaf != self.tiles.size()) {
                self.no_record(
                    at,
                    "a beginning of a segment that does not begin here".to_owned(),
                );
            }
            return;
        }
        match &looked.content {
            None => {}
            Some(Content::There(_)) => self.contents.there = self.contents.there.saturating_add(1),
            Some(Content::Gone) => self.contents.gone = self.contents.gone.saturating_add(1),
            Some(Content::Damaged) => self.faults.push(Fault::Content(at)),
        }
        match (&looked.seen, looked.leaf) {
            _ if looked.unfinished => {
                self.no_record(at, "the segment ends within a line".to_owned());
            }
            (_, Some((entry, hash))) => self.grow(at, entry, hash),
            (Seen::Fault(fault), _) => self.no_record(at, fault.to_string()),
            _ => self.no_record(at, "an empty line".to_owned()),
        }
        // Only the ledger's own stream is believed.
        let is_own = matches!(&looked.seen, Seen::Record(head, _) if head.stream == self.own);
        self.verifier.take(looked.seen);
        if let Some(Onward { stream, from }) = looked.onward.filter(|_| is_own) {
            self.verifier.announce(stream, from);
        }
    }

    fn no_record(&mut self, at: At, fault: String) {
        if !self.lost_count {
            self.faults.push(Fault::NotARecord { at, fault });
        }
        self.lost_count = true;
    }

    fn grow(&mut self, at: At, entry: String, hash: Hash) {
        if self.lost_count {
            return;
        }
        self.tiles.push(at, entry, hash, &mut self.faults);
        let size = self.tiles.size();
        for expected in &mut self.expected {
            if expected.size == size {
                expected.computed = Some(self.tiles.root());
            }
        }
        if self.head.as_ref().is_some_and(|head| head.size == size) {
            self.tiles.at_checkpoint(size, &mut self.faults);
        }
    }

    fn finish(mut self) -> Result<Verdict, Unreadable> {
        for expected in &self.expected {
            let there = self.tiles.size();
            let (size, kept) = (expected.size, expected.kept);
            match expected.computed {
                Some(computed) if computed == expected.root => {}
                Some(computed) => self.faults.push(Fault::Contradicted {
                    size,
                    kept,
                    computed,
                    signed: expected.root,
                }),
                None if self.lost_count => {}
                None => self.faults.push(Fault::Lost { size, kept, there }),
            }
        }
        let signed = self.head.as_ref().map_or(0, |head| head.size);
        Ok(Verdict {
            origin: self.origin,
            unsigned: self.tiles.size().saturating_sub(signed),
            leaves: self.tiles.size(),
            root: self.tiles.root(),
            head: self.head,
            kept: self
                .expected
                .iter()
                .filter(|e| e.kept)
                .map(|e| e.size)
                .collect(),
            streams: self.verifier.finish(),
            contents: self.contents,
            torn: self.torn,
            faults: self.faults,
        })
    }
}

#[cfg(test)]
mod tests;
