//! The Merkle tree of RFC 6962 (section 2.1), as RFC 9162 words its algorithms.
//!
//! Owns hashing, appending, and the proofs in both directions. Refuses storage: proofs are made from whatever gives the hashes of complete subtrees. Invariant: nothing
//! here panics or overflows, whatever sizes and indices are claimed, and a proof is looked at in time linear in its own length.

mod hash;
mod prove;
mod range;
mod verify;

pub use hash::{BadHash, Hash, leaf_hash, node_hash};
pub use prove::{ProveError, Subtrees, consistency_proof, inclusion_proof, root};
pub use range::Range;
pub use verify::{MAX_PROOF, Unproven, verify_consistency, verify_inclusion};

#[cfg(test)]
mod tests;
