//! A ledger of several replicas: what it commits is in PostgreSQL, and once a segment is closed in a bucket; each replica's directory is a copy.
//!
//! Owns who leads, and how a copy is made and kept fresh. Refuses to know what the files mean: which bytes are committed, and in which order, is the store's. Invariants: a commit is durable in the database before it counts; it
//! fails once another replica leads, whatever the clocks of the two say, because the database looks at the leader's epoch in the same transaction; a copy never has what was not committed when a store is opened on it. docs/shared-store.md is the user's side.

mod archive;
mod copy;
mod database;
mod import;
mod index;
mod lead;
mod objects;
mod pass;
mod plan;
mod recall;
mod settings;
mod shelf;

pub use import::import;
pub use lead::{Led, Shared, Standby};
pub use settings::{SharedArgs, SharedSettings};

/// What failed, and why: a person reads it.
type Failed = anyhow::Error;
