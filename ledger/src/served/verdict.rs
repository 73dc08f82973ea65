//! What is to be said of a log as it is served, in words.

use std::{collections::BTreeMap, fmt};

use chaperone_crds::chain::{RecordHash, StreamId};
use thiserror::Error;

use crate::{audit::TreeHead, checkpoint::Origin, merkle::Hash, tile::Tile};

/// Most faults that a verdict lists; it is not intact either way.
const MAX_LISTED: usize = 100;

/// What is to be said of what was read.
#[derive(Debug)]
pub struct Verdict {
    /// Which log it is.
    pub origin: Origin,
    /// The checkpoint that it serves.
    pub head: TreeHead,
    /// Sizes of the checkpoints that were kept elsewhere.
    pub kept: Vec<u64>,
    /// The streams, where all entries were read.
    pub streams: BTreeMap<StreamId, Numbers>,
    /// Number and hash of each record of the streams that were asked for, in order.
    pub leaves: BTreeMap<StreamId, Vec<(u64, RecordHash)>>,
    /// All entries were read.
    pub is_whole: bool,
    /// What is wrong; the first hundred at most.
    pub faults: Vec<Fault>,
}

/// Which records the entries say that a stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Number of the first record; not 0 where the stream begins later in this ledger.
    pub first: u64,
    /// Number that comes next.
    pub next: u64,
    /// Numbers between that are not there.
    pub missing: u64,
}

/// What is wrong with a log.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// Entries that are none.
    #[error("{tile}: {fault}")]
    Entries {
        /// Of which bundle.
        tile: Tile,
        /// Why.
        fault: String,
    },
    /// A record that is there twice, or not in its order.
    #[error("stream {stream}: record {seq} where record {next} should be")]
    Again {
        /// The stream.
        stream: StreamId,
        /// The record's number.
        seq: u64,
        /// The number that should have come.
        next: u64,
    },
    /// A tree is another than the one that was signed.
    #[error("{} of {size} records has the root {signed}, the entries that are served have {computed}", name(*.kept))]
    Contradicted {
        /// Leaves of the checkpoint.
        size: u64,
        /// It was kept elsewhere.
        kept: bool,
        /// The root of what is served.
        computed: Hash,
        /// The root that was signed.
        signed: Hash,
    },
    /// A checkpoint that was kept elsewhere has more records than there are.
    #[error(
        "a checkpoint that was kept elsewhere has {size} records, {there} are signed now: the log went back"
    )]
    Lost {
        /// Leaves of the checkpoint.
        size: u64,
        /// Leaves that are signed now.
        there: u64,
    },
    /// A checkpoint that was kept elsewhere is not shown to be the beginning of this log.
    #[error(
        "the checkpoint of {size} records that was kept elsewhere is not a beginning of this log: {fault}"
    )]
    NoBeginning {
        /// Leaves of the checkpoint.
        size: u64,
        /// Why.
        fault: String,
    },
}

impl Numbers {
    /// How many records there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        let span = self.next.saturating_sub(self.first);
        span.saturating_sub(self.missing)
    }
}

fn name(kept: bool) -> &'static str {
    match kept {
        true => "the checkpoint that was kept elsewhere",
        false => "the checkpoint",
    }
}

impl Verdict {
    /// True when what was read is what was signed, and nothing that was kept elsewhere contradicts it.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.faults.is_empty()
    }

    /// Numbers that are missing within streams, where all entries were read.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let missing = self.streams.values().map(|numbers| numbers.missing);
        missing.fold(0, u64::saturating_add)
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        if self.faults.len() < MAX_LISTED {
            self.faults.push(fault);
        }
    }
}

impl fmt::Display for Verdict {
    /// A line for each stream that lacks something, the checkpoint, each fault, and a last one with the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (stream, numbers) in &self.streams {
            if numbers.first > 0 {
                writeln!(f, "stream {stream} begins with record {}", numbers.first)?;
            }
            if numbers.missing > 0 {
                writeln!(
                    f,
                    "stream {stream} lacks {} records before record {}",
                    numbers.missing, numbers.next
                )?;
            }
        }
        writeln!(f, "ledger {}: {}", self.origin, self.head)?;
        for size in &self.kept {
            writeln!(
                f,
                "compared with a checkpoint of {size} records that was kept elsewhere"
            )?;
        }
        for fault in &self.faults {
            writeln!(f, "FAULT: {fault}")?;
        }
        match self.is_whole {
            true => write!(
                f,
                "{} entries of {} streams: ",
                self.head.size,
                self.streams.len()
            )?,
            false if self.is_intact() => f.write_str("the checkpoint: ")?,
            false => f.write_str("the log: ")?,
        }
        f.write_str(match self.is_intact() {
            true => "intact",
            false => "NOT INTACT",
        })?;
        match self.missing() {
            0 => Ok(()),
            missing => write!(f, ", INCOMPLETE: {missing} records are missing"),
        }
    }
}
