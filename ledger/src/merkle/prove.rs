//! Making proofs (RFC 9162 sections 2.1.3.1 and 2.1.4.1).

use thiserror::Error;

use super::hash::{Hash, node_hash};

/// Whoever has the hashes of complete subtrees: tiles, or a test's leaves.
pub trait Subtrees {
    /// Why a hash could not be had.
    type Error;

    /// The hash of the complete subtree with 2^`level` leaves that begins at leaf `index` × 2^`level`.
    ///
    /// # Errors
    /// The source's.
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Self::Error>;
}

/// Why there is no proof.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProveError<E> {
    /// The leaf is not in the tree.
    #[error("leaf {index} is not in a tree of {size} leaves")]
    NoSuchLeaf {
        /// The leaf asked for.
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
    /// A hash could not be had.
    #[error(transparent)]
    Source(#[from] E),
}

/// The root of the first `size` leaves.
///
/// # Errors
/// The source's.
pub fn root<S: Subtrees>(source: &S, size: u64) -> Result<Hash, S::Error> {
    match size {
        0 => Ok(Hash::of_nothing()),
        _ => span(source, 0, size),
    }
}

/// The hashes that lead from leaf `index` to the root of the first `size` leaves, the leaf's sibling first.
///
/// # Errors
/// [`ProveError`].
pub fn inclusion_proof<S: Subtrees>(
    source: &S,
    index: u64,
    size: u64,
) -> Result<Vec<Hash>, ProveError<S::Error>> {
    if index >= size {
        return Err(ProveError::NoSuchLeaf { index, size });
    }
    let mut proof = Vec::new();
    let (mut low, mut high) = (0, size);
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            proof.push(span(source, middle, high)?);
            high = middle;
        } else {
            proof.push(span(source, low, middle)?);
            low = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The hashes that show that the first `old` of `new` leaves are the older tree. Empty where the older tree is empty or the same.
///
/// # Errors
/// [`ProveError`].
pub fn consistency_proof<S: Subtrees>(
    source: &S,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, ProveError<S::Error>> {
    if old > new {
        return Err(ProveError::Shrinks { old, new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let mut proof = Vec::new();
    let (mut low, mut high) = (0, new);
    while high != old {
        let middle = low + split(high - low);
        if old <= middle {
            proof.push(span(source, middle, high)?);
            high = middle;
        } else {
            proof.push(span(source, low, middle)?);
            low = middle;
        }
    }
    // A subtree that begins at leaf 0 is the older tree itself, whose root the verifier has.
    if low > 0 {
        proof.push(span(source, low, high)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The largest power of two below `width`, which is at least 2.
fn split(width: u64) -> u64 {
    1 << (width - 1).ilog2()
}

/// The hash of the leaves from `low` to before `high`. `low` is a multiple of the smallest power of two that holds them all, as it is wherever a tree is split.
fn span<S: Subtrees>(source: &S, low: u64, high: u64) -> Result<Hash, S::Error> {
    let mut at = low;
    let mut peaks = Vec::new();
    while at < high {
        let level = (high - at).ilog2();
        let narrow = u8::try_from(level).expect("64 bits have levels up to 63");
        peaks.push(source.subtree(narrow, at >> level)?);
        at += 1 << level;
    }
    let folded = peaks.into_iter().rev();
    let hash = folded.reduce(|right, left| node_hash(&left, &right));
    Ok(hash.unwrap_or_else(Hash::of_nothing))
}
