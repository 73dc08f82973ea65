//! Checking proofs (RFC 9162 sections 2.1.3.2 and 2.1.4.2).

use thiserror::Error;

use super::hash::{Hash, node_hash};

/// Most hashes of a proof: one for each level of a tree of 2^64 leaves, and the older root's own subtree.
pub const MAX_PROOF: usize = 65;

/// Why a proof shows nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Unproven {
    /// The leaf is not in the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    NoSuchLeaf {
        /// The leaf.
        index: u64,
        /// Leaves of the tree.
        size: u64,
    },
    /// The older tree is larger than the newer one.
    #[error("a tree of {old} leaves does not grow into one of {new}")]
    Shrinks {
        /// Leaves of the older tree.
        old: u64,
        /// Leaves of the newer tree.
        new: u64,
    },
    /// Trees of these sizes have proofs of another length.
    #[error("the proof has {hashes} hashes, which is not what trees of these sizes need")]
    Length {
        /// Hashes of the proof.
        hashes: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to the root {computed}, not to {claimed}")]
    Root {
        /// What they lead to.
        computed: Hash,
        /// What was claimed.
        claimed: Hash,
    },
}

/// Shows that the leaf with this hash is number `index` of the tree of `size` leaves with this root.
///
/// # Errors
/// [`Unproven`].
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    root: &Hash,
    proof: &[Hash],
) -> Result<(), Unproven> {
    if index >= size {
        return Err(Unproven::NoSuchLeaf { index, size });
    }
    let length = Unproven::Length {
        hashes: proof.len(),
    };
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(length);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            climb_to_left_child(&mut node, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    lead(hash, root)
}

/// Shows that the tree of `old` leaves is the beginning of the tree of `new` leaves. An empty tree is the beginning of any.
///
/// # Errors
/// [`Unproven`].
pub fn verify_consistency(
    old: u64,
    new: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), Unproven> {
    if old > new {
        return Err(Unproven::Shrinks { old, new });
    }
    let length = Unproven::Length {
        hashes: proof.len(),
    };
    if old == 0 || old == new {
        if !proof.is_empty() {
            return Err(length);
        }
        if old == 0 {
            lead(Hash::of_nothing(), old_root)?;
        }
        return match (old == new, new) {
            (true, _) => lead(*old_root, new_root),
            (false, _) => Ok(()),
        };
    }
    // Where the older tree is perfect, its root is the first hash, and is left out of the proof.
    let (first, rest) = match (old.is_power_of_two(), proof.split_first()) {
        (true, _) => (old_root, proof),
        (false, Some(split)) => split,
        (false, None) => return Err(length),
    };
    let (mut node, mut last) = (old - 1, new - 1);
    let skipped = node.trailing_ones();
    // 64 ones would need an older tree of 2^64 leaves.
    node >>= skipped;
    last >>= skipped;
    let (mut older, mut newer) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return Err(length);
        }
        if node & 1 == 1 || node == last {
            older = node_hash(sibling, &older);
            newer = node_hash(sibling, &newer);
            climb_to_left_child(&mut node, &mut last);
        } else {
            newer = node_hash(&newer, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(length);
    }
    lead(older, old_root)?;
    lead(newer, new_root)
}

/// Up to where the node is a right child, or the leftmost: above it nothing is to its right, so those levels have no sibling.
fn climb_to_left_child(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}

fn lead(computed: Hash, claimed: &Hash) -> Result<(), Unproven> {
    match computed == *claimed {
        true => Ok(()),
        false => Err(Unproven::Root {
            computed,
            claimed: *claimed,
        }),
    }
}
