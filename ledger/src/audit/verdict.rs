//! What is to be said of a ledger, in words.

use std::fmt;

use chaperone_crds::verify::Report;
use thiserror::Error;

use super::tiles::TileFault;
use crate::{
    checkpoint::{CheckpointError, Origin, Signed},
    merkle::Hash,
    tile::Tile,
};

/// Where a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Number of the segment.
    pub segment: u64,
    /// Where the line begins in it, in bytes.
    pub offset: u64,
}

/// The newest checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Leaves that it covers.
    pub size: u64,
    /// Their root.
    pub root: Hash,
    /// Who signed it, of those that are known: names, with the time in seconds that a witness gave.
    pub signers: Vec<(String, Option<u64>)>,
}

/// How many records have content, of those that had some.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// It is there, and what the record's digest says.
    pub there: u64,
    /// It was deleted, or no key is here that opens it.
    pub gone: u64,
}

/// What is to be said of everything that was read.
#[derive(Debug)]
pub struct Verdict {
    /// Which log it is.
    pub origin: Origin,
    /// The newest checkpoint, where one is there and signed.
    pub head: Option<Head>,
    /// Sizes of the checkpoints that were kept elsewhere.
    pub kept: Vec<u64>,
    /// Records that have their place in the tree.
    pub leaves: u64,
    /// Root over them.
    pub root: Hash,
    /// Records after the checkpoint, which nothing signed yet.
    pub unsigned: u64,
    /// Bytes at the very end that are no whole record: one was being written, or never acknowledged.
    pub torn: u64,
    /// The streams.
    pub streams: Report,
    /// The records' content.
    pub contents: Contents,
    /// What is wrong with the ledger itself.
    pub faults: Vec<Fault>,
}

/// What is wrong with a ledger.
#[derive(Debug, Error)]
pub enum Fault {
    /// Nothing is signed.
    #[error("there is no checkpoint: nothing says how many records there should be")]
    NoCheckpoint,
    /// What is there as a checkpoint is none of the log's.
    #[error("the checkpoint: {0}")]
    Checkpoint(CheckpointError),
    /// A segment between others is not there.
    #[error("segment {0:08} is missing")]
    MissingSegment(u64),
    /// A line is no record.
    #[error("{at} is no record: {fault}")]
    NotARecord {
        /// Where.
        at: At,
        /// Why.
        fault: String,
    },
    /// Records that were signed are missing.
    #[error("{} has {size} records, {there} are there: records were lost or removed", checkpoint(*.kept))]
    Lost {
        /// Leaves of the checkpoint.
        size: u64,
        /// It was kept elsewhere.
        kept: bool,
        /// Records on disk.
        there: u64,
    },
    /// Records are others than those that were signed.
    #[error("{} of {size} records has the root {signed}, the records there have {computed}: records were changed, removed or moved", checkpoint(*.kept))]
    Contradicted {
        /// Leaves of the checkpoint.
        size: u64,
        /// It was kept elsewhere.
        kept: bool,
        /// The root of what is there.
        computed: Hash,
        /// The root that was signed.
        signed: Hash,
    },
    /// There is a key for it, and it is not what the record says.
    #[error("{0}: the content is not what the record was written with")]
    Content(At),
    /// A tile is at fault.
    #[error("{tile} {fault}")]
    Tile {
        /// Which.
        tile: Tile,
        /// How.
        fault: TileFault,
    },
}

fn checkpoint(kept: bool) -> &'static str {
    match kept {
        true => "a checkpoint that was kept elsewhere",
        false => "the checkpoint",
    }
}

impl Head {
    pub(crate) fn of(signed: &Signed<'_>) -> Self {
        let signers = signed.signatures.iter().map(|signature| {
            let time = signature.time.map(|time| time.seconds());
            (signature.key.name().to_string(), time)
        });
        Self {
            size: signed.checkpoint.size,
            root: signed.checkpoint.root,
            signers: signers.collect(),
        }
    }
}

impl Verdict {
    /// True when the checkpoint is signed, the records are those that it covers, nothing that was kept elsewhere contradicts them, each stream's chain is whole and the tiles are theirs.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        let empty = self.leaves == 0 && self.streams.line_fault_count == 0;
        self.faults.is_empty() && (empty || self.streams.is_intact())
    }
}

impl Verdict {
    /// True when no stream lacks records after its first one here. Those that are missing were said to be when the stream went on without them; where nothing said so the ledger is not intact.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.streams.missing() == 0
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {:08}, byte {}", self.segment, self.offset)
    }
}

impl fmt::Display for Verdict {
    /// One line for each stream, then the tree, then each fault, and a last one with the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stream in &self.streams.streams {
            writeln!(f, "{stream}")?;
        }
        if let Some(head) = &self.head {
            writeln!(f, "ledger {}: {head}", self.origin)?;
        }
        for size in &self.kept {
            writeln!(
                f,
                "compared with a checkpoint of {size} records that was kept elsewhere"
            )?;
        }
        if self.torn > 0 {
            writeln!(
                f,
                "{} bytes at the end are no whole record yet, and were never acknowledged",
                self.torn
            )?;
        }
        if self.contents.gone > 0 {
            let gone = self.contents.gone;
            writeln!(
                f,
                "content of {gone} records was deleted, or no key here opens it: what is proved of them is whole"
            )?;
        }
        if self.streams.deleted() > 0 {
            let deleted = self.streams.deleted();
            writeln!(
                f,
                "{deleted} records were deleted: their hashes are left, and prove the others"
            )?;
        }
        for fault in &self.faults {
            writeln!(f, "FAULT: {fault}")?;
        }
        write!(
            f,
            "{} records in {} streams, {} after the checkpoint: {}",
            self.streams.records(),
            self.streams.streams.len(),
            self.unsigned,
            if self.is_intact() {
                "intact"
            } else {
                "NOT INTACT"
            },
        )?;
        match self.streams.missing() {
            0 => Ok(()),
            missing => write!(f, ", INCOMPLETE: {missing} records are missing"),
        }
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "checkpoint of {} records with root {}, signed by ",
            self.size, self.root
        )?;
        for (place, (name, time)) in self.signers.iter().enumerate() {
            if place > 0 {
                f.write_str(" and ")?;
            }
            f.write_str(name)?;
            if let Some(seconds) = time {
                write!(f, " (seen at {seconds} s since 1970)")?;
            }
        }
        Ok(())
    }
}
