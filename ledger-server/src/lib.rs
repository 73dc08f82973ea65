//! The ledger as a program: takes records over HTTPS, says only what is on disk, and publishes the log.
//!
//! Owns sockets, clocks and threads around `chaperone_ledger::store`, and who may do what. Refuses the proof core: leaves, tree, tiles and their files are the store's. Invariant: one thread owns the
//! store; an answer of 200 leaves only after the commit that has the records. `docs/ledger.md` is the user's side.

pub mod api;
pub mod authenticate;
pub mod certificate;
pub mod console;
pub mod custody;
pub mod gaps;
pub mod key_file;
pub mod metrics;
pub mod oidc;
mod postgres;
pub mod publish;
mod random;
pub mod refusal;
pub mod retention;
pub mod run;
pub mod search;
pub mod settings;
mod settings_files;
pub mod shared;
pub mod sinks;
pub mod witnesses;
pub mod writer;
