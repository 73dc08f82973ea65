//! A tree that grows by one leaf after another, of which only the roots of its perfect subtrees are kept: one for each bit of its size.

use super::hash::{Hash, node_hash};

/// The left edge to the newest leaf, as roots of perfect subtrees, the largest first. At most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    size: u64,
    peaks: Vec<Hash>,
}

impl Range {
    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash. A tree of 2^64 - 1 leaves takes no more.
    ///
    /// Returns whether it was taken.
    #[must_use = "a leaf that was not taken is not in the tree"]
    pub fn push(&mut self, leaf: Hash) -> bool {
        let Some(size) = self.size.checked_add(1) else {
            return false;
        };
        // Each trailing one of the old size is a perfect subtree that the new leaf completes into the next larger one.
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self
                .peaks
                .pop()
                .expect("each one bit of the size has a peak");
            hash = node_hash(&left, &hash);
        }
        self.peaks.push(hash);
        self.size = size;
        true
    }

    /// The root (RFC 6962 section 2.1).
    #[must_use]
    pub fn root(&self) -> Hash {
        let folded = self.peaks.iter().rev().copied();
        folded
            .reduce(|right, left| node_hash(&left, &right))
            .unwrap_or_else(Hash::of_nothing)
    }
}
