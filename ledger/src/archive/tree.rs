//! The tree over records from the first on, and the checkpoints that it is compared with.
//!
//! Owns a delay: a checkpoint that is on record covers records before it, so leaves wait here until it is no longer likely that one comes which covers so few. Memory is bounded by that.

use std::collections::{BTreeMap, HashSet, VecDeque};

use super::verdict::{Fault, Proved};
use crate::{merkle::Hash, tile::Builder};

/// Leaves that wait, and that are known again: some objects of the most records that a sink puts into one. About 32 MiB.
const WAITING: usize = 1 << 18;
/// Most checkpoints that wait for their leaves; further ones are counted.
const MAX_EXPECTED: usize = 1 << 12;

/// The tree while it grows.
#[derive(Debug, Default)]
pub(super) struct Tree {
    builder: Builder,
    /// Leaves that came last. The last `waiting` of them are not in the tree yet.
    recent: VecDeque<Hash>,
    waiting: usize,
    known: HashSet<Hash>,
    is_stopped: bool,
    /// By size.
    expected: BTreeMap<u64, Vec<Proved>>,
    /// The largest that the tree was found to be like.
    pub(super) proved: Option<Proved>,
    /// Sizes of checkpoints that were kept elsewhere and that the tree does not reach.
    pub(super) unreached: Vec<u64>,
    /// Checkpoints that came too late to be compared.
    pub(super) too_far: u64,
    pub(super) faults: Vec<Fault>,
}

impl Tree {
    /// The tree must be like this when it has that size.
    pub(super) fn expect(&mut self, checkpoint: Proved) {
        let size = checkpoint.head.size;
        // That records are missing is said once.
        if self.is_stopped && size > self.builder.size() {
            return;
        }
        let waits = self.expected.values().map(Vec::len).sum::<usize>();
        if size < self.builder.size() || (waits >= MAX_EXPECTED && !checkpoint.kept) {
            self.too_far = self.too_far.saturating_add(1);
            return;
        }
        self.expected.entry(size).or_default().push(checkpoint);
        self.compare();
    }

    /// Whether this leaf came lately.
    pub(super) fn has(&self, leaf: &Hash) -> bool {
        self.known.contains(leaf)
    }

    /// The next leaf.
    pub(super) fn push(&mut self, leaf: Hash) {
        if self.recent.len() >= WAITING {
            if self.waiting >= self.recent.len() {
                self.grow();
            }
            if let Some(old) = self.recent.pop_front() {
                self.known.remove(&old);
            }
        }
        self.recent.push_back(leaf);
        self.known.insert(leaf);
        if !self.is_stopped {
            self.waiting = self.waiting.saturating_add(1);
        }
    }

    /// What comes next has no place in it.
    pub(super) fn stop(&mut self) {
        if self.is_stopped {
            return;
        }
        while self.waiting > 0 {
            self.grow();
        }
        self.is_stopped = true;
    }

    /// Nothing comes any more.
    pub(super) fn finish(&mut self) {
        self.stop();
        let left = std::mem::take(&mut self.expected);
        let kept = left.into_iter();
        let kept = kept.filter(|(_, all)| all.iter().any(|checkpoint| checkpoint.kept));
        self.unreached = kept.map(|(size, _)| size).collect();
    }

    /// The leaf that waits longest becomes the tree's.
    fn grow(&mut self) {
        let at = self.recent.len().checked_sub(self.waiting);
        let leaf = at.and_then(|at| self.recent.get(at));
        self.waiting = self.waiting.saturating_sub(1);
        if let Some(leaf) = leaf {
            // What becomes full is not kept: only roots are asked for.
            let _ = self.builder.push(*leaf);
            self.compare();
        }
    }

    /// Compares the tree with the checkpoints of its size.
    fn compare(&mut self) {
        let size = self.builder.size();
        let Some(expected) = self.expected.remove(&size) else {
            return;
        };
        let computed = self.builder.root();
        for checkpoint in expected {
            match checkpoint.head.root == computed {
                true => self.proves(checkpoint),
                // All that follow are others too.
                false if self.faults.is_empty() => self.faults.push(Fault::Contradicted {
                    size,
                    kept: checkpoint.kept,
                    computed,
                    signed: checkpoint.head.root,
                    sound: self.proved.as_ref().map_or(0, |proved| proved.head.size),
                }),
                false => {}
            }
        }
    }

    fn proves(&mut self, checkpoint: Proved) {
        let is_new = self
            .proved
            .as_ref()
            .is_none_or(|known| known.head.size <= checkpoint.head.size);
        if is_new && self.faults.is_empty() {
            self.proved = Some(checkpoint);
        }
    }
}
