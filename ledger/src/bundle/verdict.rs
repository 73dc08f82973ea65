//! What is to be said of a bundle, in words.

use std::{collections::BTreeMap, fmt};

use chaperone_crds::{chain::StreamId, pod::PodIdentity};
use thiserror::Error;

use super::Subject;
use crate::{
    audit::TreeHead,
    checkpoint::{CheckpointError, Origin},
    listed,
};

/// What is to be said of a bundle.
#[derive(Debug)]
pub struct Verdict {
    /// Of which log it is.
    pub origin: Origin,
    /// What it is about.
    pub subject: Subject,
    /// The signed head, where a known key has signed it.
    pub head: Option<TreeHead>,
    /// What is there of each stream.
    pub streams: BTreeMap<StreamId, Shown>,
    /// Whose streams are, by the ledger's own word.
    pub whose: Vec<Whose>,
    /// Policies that took effect, as the streams' own records say.
    pub policies: Vec<Policies>,
    /// What is wrong; at most the first hundred.
    pub faults: Vec<Fault>,
    /// How much is wrong.
    pub fault_count: u64,
}

/// Whose a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// The stream.
    pub stream: String,
    /// Its pod, as TokenReview and the API server said.
    pub workload: PodIdentity,
}

/// Policies that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies {
    /// Their revision, which decisions name.
    pub revision: String,
    /// `namespace/name@generation`.
    pub policies: Vec<String>,
    /// Their text is in the record, and is that of the revision.
    pub has_text: bool,
}

/// What is there of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Number of the first record.
    pub first: u64,
    /// Number of the last record.
    pub last: u64,
    /// Records of the subject.
    pub records: u64,
    /// Records about something else.
    pub context: u64,
    /// Records of which there is the leaf alone.
    pub withheld: u64,
    /// Of the records that are shown, those whose texts of bodies were deleted.
    pub deleted_content: u64,
}

/// What is wrong with a bundle.
#[derive(Debug, Error)]
pub enum Fault {
    /// What is there as a checkpoint is none of the log's.
    #[error("the checkpoint: {0}")]
    Checkpoint(CheckpointError),
    /// There is none.
    #[error("there is no checkpoint")]
    NoCheckpoint,
    /// A line of the leaves is none, or comes before its time.
    #[error("line {number} of {file} is no leaf, or not after the one before it")]
    Leaf {
        /// Its number, from 1.
        number: u64,
        /// Of which file.
        file: String,
    },
    /// A leaf is not in the tree.
    #[error("leaf {index}, {leaf}, is not in the tree that is signed: {reason}")]
    NotIncluded {
        /// Its number.
        index: u64,
        /// What it names.
        leaf: String,
        /// Why.
        reason: String,
    },
    /// Leaves of a stream that should follow each other do not.
    #[error("stream {stream}: record {after} is missing, record {found} follows")]
    Hole {
        /// The stream.
        stream: StreamId,
        /// The number that should have come.
        after: u64,
        /// The number that came.
        found: u64,
    },
    /// A record that its leaf does not have.
    #[error("line {line} of {file} is {fault}")]
    Record {
        /// Its number in the file, from 1.
        line: u64,
        /// Of which file.
        file: String,
        /// Why.
        fault: String,
    },
    /// There is nothing to prove.
    #[error("it has no record: nothing is proved")]
    Empty,
}

impl Verdict {
    /// True when the checkpoint is signed by a known key, every leaf is in its tree, every record is its leaf's, and no stream has a hole.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.fault_count == 0
    }

    /// Records of the subject.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.streams.values().map(|shown| shown.records).sum()
    }
}

impl fmt::Display for Verdict {
    /// One line for each stream, the checkpoint, each fault, and a last one with the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (stream, shown) in &self.streams {
            write!(
                f,
                "stream {stream}: records {} to {}: {} shown",
                shown.first, shown.last, shown.records
            )?;
            if shown.context > 0 {
                write!(f, ", {} about something else", shown.context)?;
            }
            if shown.withheld > 0 {
                write!(
                    f,
                    ", {} withheld, of which the hashes are here",
                    shown.withheld
                )?;
            }
            if shown.deleted_content > 0 {
                write!(f, ", content of {} deleted", shown.deleted_content)?;
            }
            writeln!(f)?;
        }
        for Whose { stream, workload } in &self.whose {
            let PodIdentity {
                namespace,
                pod,
                uid,
                service_account,
                node,
                ..
            } = workload;
            writeln!(
                f,
                "stream {stream} is of pod {namespace}/{pod} (uid {uid}), service account {service_account}, node {node}, says the ledger"
            )?;
        }
        for Policies {
            revision,
            policies,
            has_text,
        } in &self.policies
        {
            let text = if *has_text {
                "with their text"
            } else {
                "without their text"
            };
            writeln!(
                f,
                "policies of revision {revision}: {}, {text}",
                policies.join(", ")
            )?;
        }
        if let Some(head) = &self.head {
            writeln!(f, "ledger {}: {head}", self.origin)?;
        }
        listed::write(f, &self.faults, self.fault_count)?;
        write!(
            f,
            "{}: {} records, {}",
            self.subject,
            self.records(),
            if self.is_intact() {
                "each in the ledger that was signed, none missing between: intact"
            } else {
                "NOT INTACT"
            },
        )
    }
}
