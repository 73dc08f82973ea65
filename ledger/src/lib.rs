//! The evidence path: what makes records provable to someone who trusts neither the sidecar nor the cluster.
//!
//! Owns the tree over records and all that is published of it: leaves, tiles, checkpoints, signatures, proofs; the directory that keeps records and tree (`store`), and its
//! proof (`audit`, `bundle`; `served` where it is only served, `archive` where a sink has put it), and who reads on as it grows (`follow`); only these touch files. `docs/ledger-format.md` is the format. Refuses sockets and clocks.
//! Invariant: what is read of others' bytes is bounded, and every function here is total: it answers or names an error, for any sizes and any bytes.

pub mod archive;
pub mod audit;
pub mod bundle;
pub mod checkpoint;
pub mod content;
pub mod cosignature;
pub mod follow;
pub mod gaps;
pub mod key;
pub mod leaf;
mod line;
mod listed;
pub mod merkle;
pub mod note;
pub mod proof;
pub mod served;
pub mod store;
pub mod tile;
pub mod witness;

#[cfg(test)]
mod testing;
