//! What can be said of a line by itself, by any thread.

use chaperone_crds::{
    chain::StreamId,
    head::Head,
    record::{EventKind, Record},
    verify::{Line, Seen},
};

use crate::{
    audit::onward,
    leaf,
    merkle::{self, Hash},
    store::Onward,
};

/// A line that was looked at.
#[derive(Debug)]
pub struct Looked {
    pub(super) seen: Seen,
    /// Its hash in the tree, of a record.
    pub(super) leaf: Option<Hash>,
    /// What it says of another stream, if it is the ledger's own.
    pub(super) onward: Option<Onward>,
    /// The checkpoint that it puts on record, if it is the ledger's own.
    pub(super) note: Option<Box<str>>,
}

impl Looked {
    /// Looks at a line.
    #[must_use]
    pub fn at(line: Line<'_>) -> Self {
        let bytes = match line {
            Line::Whole(bytes) | Line::Last(bytes) => bytes,
            Line::TooLong => &[],
        };
        let seen = Seen::of(line);
        let (leaf, onward, note) = match &seen {
            Seen::Record(head, hash) => {
                let entry = leaf::entry(&head.stream, head.seq, *hash);
                (
                    Some(merkle::leaf_hash(entry.as_bytes())),
                    onward(head, bytes),
                    note(head, bytes),
                )
            }
            _ => (None, None, None),
        };
        Self {
            seen,
            leaf,
            onward,
            note,
        }
    }

    /// Stream and number, of a record.
    pub(super) fn id(&self) -> Option<(&StreamId, u64)> {
        match &self.seen {
            Seen::Record(head, _) => Some((&head.stream, head.seq)),
            _ => None,
        }
    }
}

/// The checkpoint of a record of one.
fn note(head: &Head, line: &[u8]) -> Option<Box<str>> {
    if head.place.kind() != EventKind::LedgerCheckpoint.as_str() {
        return None;
    }
    let record = Record::read(line).ok()?;
    Some(record.event.checkpoint?.note.into_boxed_str())
}
