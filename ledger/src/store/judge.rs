//! Whether a batch may be taken: pure judgement over where its stream stands.

use std::borrow::Cow;

use chaperone_crds::{
    bodies::{self, Parts},
    chain::{RecordHash, StreamId},
};

use super::{Refused, head::Head, streams::Known, tiles::Tiles};
use crate::leaf::Leaf;

/// A batch that may be taken.
pub(super) struct Judged<'b> {
    pub(super) fresh: Vec<Fresh<'b>>,
    pub(super) next_seq: u64,
    pub(super) end: u64,
}

/// A record that is new, and its leaf.
pub(super) struct Fresh<'b> {
    pub(super) leaf: Leaf,
    pub(super) closes: bool,
    /// Its line as it is hashed: without its content.
    pub(super) detached: Cow<'b, [u8]>,
    /// Its content, where it has some.
    pub(super) tail: Option<&'b [u8]>,
}

/// A line, as it is judged and as it is kept.
pub(super) struct Split<'b> {
    pub(super) detached: Cow<'b, [u8]>,
    pub(super) tail: Option<&'b [u8]>,
}

impl<'b> Split<'b> {
    pub(super) fn of(line: &'b [u8]) -> Self {
        let parts = bodies::parts(line);
        let tail = match parts {
            Parts::With { tail, .. } => Some(tail),
            Parts::Whole(_) | Parts::Detached { .. } => None,
        };
        Self {
            detached: parts.detached(),
            tail,
        }
    }
}

/// Places the records of one batch, without a change to anything.
pub(super) struct Judge<'a, 'b> {
    stream: &'a StreamId,
    known: &'a Known,
    /// Number of the record with which the stream may go on although some are missing.
    from: Option<u64>,
    /// Number of the record that must come, where one came before.
    expected: Option<u64>,
    pub(super) next: u64,
    tail: RecordHash,
    closed: bool,
    pub(super) fresh: Vec<Fresh<'b>>,
}

impl<'a, 'b> Judge<'a, 'b> {
    pub(super) fn new(stream: &'a StreamId, known: &'a Known, from: Option<u64>) -> Self {
        Self {
            stream,
            known,
            from: from.filter(|from| *from > known.next),
            expected: None,
            next: known.next,
            tail: known.tail,
            closed: known.closed,
            fresh: Vec::new(),
        }
    }

    /// Whether the record is new.
    pub(super) fn take(
        &mut self,
        head: &Head,
        line: Split<'b>,
        tiles: &Tiles,
    ) -> Result<bool, Refused> {
        let seq = head.seq;
        if head.stream != *self.stream {
            let found = head.stream.clone();
            return Err(Refused::OtherStream { seq, found });
        }
        let skips = self.expected.is_none() && self.from == Some(seq);
        if skips && self.closed {
            return Err(Refused::Closed { seq });
        }
        if skips {
            self.next = seq;
            self.tail = head.prev;
        }
        let expected = self.expected.unwrap_or(seq.min(self.next));
        if seq != expected {
            return Err(Refused::Hole {
                expected,
                found: seq,
            });
        }
        self.expected = Some(seq.saturating_add(1));
        let leaf = Leaf {
            stream: head.stream.clone(),
            seq,
            record: RecordHash::of(&line.detached),
        };
        if let Some(index) = self.known.index_of(seq) {
            let there = tiles.leaf_hash(index)?;
            return match there == leaf.hash() {
                true => Ok(false),
                false => Err(Refused::Differs { seq }),
            };
        }
        // It was missing when the stream went on, and comes too late.
        if seq < self.known.next {
            return Err(Refused::Hole {
                expected: self.known.next,
                found: seq,
            });
        }
        self.extend(head, leaf, line)?;
        Ok(true)
    }

    /// Takes the leaf of a record that was deleted: what the record itself would have shown is not asked.
    pub(super) fn deleted(&mut self, leaf: Leaf) -> Result<(), Refused> {
        let seq = leaf.seq;
        if self.closed {
            return Err(Refused::Closed { seq });
        }
        self.push(leaf, false, Split::of(b""));
        Ok(())
    }

    fn extend(&mut self, head: &Head, leaf: Leaf, line: Split<'b>) -> Result<(), Refused> {
        let seq = leaf.seq;
        if self.closed {
            return Err(Refused::Closed { seq });
        }
        if head.prev != self.tail {
            return Err(Refused::Broken { seq });
        }
        if (seq == 0) != head.opens {
            return Err(Refused::NotOpened);
        }
        self.push(leaf, head.closes, line);
        Ok(())
    }

    fn push(&mut self, leaf: Leaf, closes: bool, line: Split<'b>) {
        self.tail = leaf.record;
        self.next = leaf.seq.saturating_add(1);
        self.closed = closes;
        self.fresh.push(Fresh {
            leaf,
            closes,
            detached: line.detached,
            tail: line.tail,
        });
    }

    /// Leaves that must be on disk for the batch to be: up to its last record, wherever that is.
    pub(super) fn last_index(&self, known: &Known, size: u64) -> u64 {
        let fresh = u64::try_from(self.fresh.len()).unwrap_or(u64::MAX);
        let last = self.expected.and_then(|after| after.checked_sub(1));
        match last.and_then(|seq| known.index_of(seq)) {
            Some(index) if fresh == 0 => index.saturating_add(1),
            _ => size.saturating_add(fresh),
        }
    }
}
