//! Where each stream stands, and where its records are in the tree.

use std::collections::HashMap;

use chaperone_crds::chain::{RecordHash, StreamId};

use crate::leaf::Leaf;

/// No leaf: no tree grows to it.
const NOWHERE: u64 = u64::MAX;

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Streams(HashMap<StreamId, Known>);

/// One stream.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Number of the next record.
    pub(super) next: u64,
    /// Hash of the last one.
    pub(super) tail: RecordHash,
    /// Nothing comes after its close.
    pub(super) closed: bool,
    /// Records that are neighbours in the tree too: number of the first, and its leaf. One for each batch at most. Where records are missing: number of the first, and [`NOWHERE`].
    runs: Vec<(u64, u64)>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            next: 0,
            tail: RecordHash::GENESIS,
            closed: false,
            runs: Vec::new(),
        }
    }
}

impl Streams {
    pub(super) fn get(&self, stream: &StreamId) -> Option<&Known> {
        self.0.get(stream)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The stream's next record is this leaf.
    pub(super) fn place(&mut self, leaf: Leaf, index: u64, closes: bool) {
        let known = self.0.entry(leaf.stream).or_default();
        if known.next < leaf.seq {
            known.runs.push((known.next, NOWHERE));
        }
        let neighbour = known
            .runs
            .last()
            .is_some_and(|(seq, at)| index.checked_sub(*at) == leaf.seq.checked_sub(*seq));
        if !neighbour {
            known.runs.push((leaf.seq, index));
        }
        known.next = leaf.seq.saturating_add(1);
        known.tail = leaf.record;
        known.closed = closes;
    }
}

impl Known {
    /// Where the stream ends, without where its records are.
    pub(super) fn end(&self) -> Self {
        Self {
            runs: Vec::new(),
            ..*self
        }
    }

    /// The leaf of a record that the stream has.
    pub(super) fn index_of(&self, seq: u64) -> Option<u64> {
        if seq >= self.next {
            return None;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= seq);
        let (first, index) = self.runs.get(after.checked_sub(1)?)?;
        if *index == NOWHERE {
            return None;
        }
        index.checked_add(seq.checked_sub(*first)?)
    }
}
