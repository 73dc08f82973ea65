//! Evidence bundles: the records of one session or stream with all that proves them, in a folder that needs no ledger and no server.
//!
//! Owns what such a folder holds, making one and proving one. `docs/ledger-format.md` is the format. What lies between a stream's first and last record in it but belongs to something else is
//! withheld by default: its leaf is there, which has its hash and nothing that it says, so that it shows that nothing is missing.

mod about;
mod export;
mod prove;
mod readme;
mod verdict;

use std::{collections::BTreeMap, fmt};

use chaperone_crds::chain::StreamId;
use serde::{Deserialize, Serialize};

use about::Named;
pub use export::{ExportError, Exported, Held, Looked, Shelf, export, export_held};
pub use prove::{is_bundle, verify};
pub use verdict::{Fault, Policies, Shown, Verdict, Whose};

/// The file that says what the folder is.
const IDENTITY: &str = "bundle.json";
/// Record lines, as they were hashed, in the order of the leaves.
const RECORDS: &str = "records.jsonl";
/// Leaves: number in the tree and entry, a line each.
const LEAVES: &str = "leaves.txt";
/// Records that say what the others are about: whose a stream is, which policies were in force.
const ABOUT: &str = "about.jsonl";
/// Their leaves, as those of the records.
const ABOUT_LEAVES: &str = "about.txt";
/// The signed head of the tree.
const CHECKPOINT: &str = "checkpoint";
/// The public keys that it was exported with.
const KEYS: &str = "ledger.vkey";
/// For people.
const README: &str = "README.md";
/// What this code reads and writes.
const FORMAT: u32 = 1;

/// What a bundle is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Subject {
    /// Records whose `session.id` is this.
    Session(String),
    /// All records of a stream.
    Stream(StreamId),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Identity {
    format: u32,
    origin: String,
    subject: Subject,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(id) => write!(f, "session {id}"),
            Self::Stream(id) => write!(f, "stream {id}"),
        }
    }
}

impl Subject {
    /// Whether a record of this stream and session belongs to it.
    fn has(&self, stream: &StreamId, session: Option<&str>) -> bool {
        match self {
            Self::Session(id) => session == Some(id),
            Self::Stream(id) => stream == id,
        }
    }
}

/// First and last record of each stream.
type Spans = BTreeMap<StreamId, (u64, u64)>;

/// Whether this record lies within the span of its stream.
fn within(spans: &Spans, stream: &StreamId, seq: u64) -> bool {
    spans
        .get(stream)
        .is_some_and(|(first, last)| (*first..=*last).contains(&seq))
}

#[cfg(test)]
mod tests;
