//! What can be wrong with a log, in words.

use thiserror::Error;

/// What is wrong with a stream. Only the first fault of a stream is told: what follows a broken chain proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The stream's first record here is not number 0.
    #[error("the stream starts at record {first}: records 0 to {} are missing", .first.saturating_sub(1))]
    StartsLate {
        /// The first number that is there.
        first: u64,
    },
    /// Record 0 is not `stream.open`.
    #[error("record 0 is {kind:?}, not stream.open")]
    NotOpened {
        /// What it is.
        kind: String,
    },
    /// Records are missing.
    #[error("{} missing", range(*.from, *.to))]
    Gap {
        /// First missing number.
        from: u64,
        /// Last missing number.
        to: u64,
    },
    /// A record comes after its successor.
    #[error("record {seq} comes after its successor: records were reordered")]
    OutOfOrder {
        /// The record that came late.
        seq: u64,
    },
    /// A record's bytes do not hash to what its successor carries.
    #[error("record {seq} was altered: its bytes do not hash to what record {} carries in prev", .seq.saturating_add(1))]
    Altered {
        /// The altered record.
        seq: u64,
    },
    /// A record's texts of bodies are not those that it was written with.
    #[error("record {seq} was altered: its bodies are not what its bodiesSha256 says")]
    Content {
        /// The altered record.
        seq: u64,
    },
    /// Record 0 does not carry 64 zeros.
    #[error("record 0 was altered: its prev is not 64 zeros")]
    NotGenesis,
    /// Two different records have the same number.
    #[error("record {seq} is there twice, with different bytes")]
    Conflict {
        /// The number.
        seq: u64,
    },
    /// A copy is there that nothing ties to its original: the originals are too far back and the copies do not run up to known ones.
    #[error("record {seq} is there twice, and nothing proves that the copies are equal")]
    UnprovenCopy {
        /// The number.
        seq: u64,
    },
    /// A record is there twice in a log that has each once.
    #[error("record {seq} is there twice, where each should be once")]
    Again {
        /// The number.
        seq: u64,
    },
    /// A record follows `stream.close`.
    #[error("record {seq} comes after the stream's close")]
    AfterClose {
        /// The record.
        seq: u64,
    },
    /// `stream.close` counts other records than there are.
    #[error("record {seq} closes the stream and counts {counted} records, but its number says {}", .seq.saturating_add(1))]
    CloseCount {
        /// Number of the close.
        seq: u64,
        /// What it counts; absent where it has no count.
        counted: u64,
    },
    /// A record of another version.
    #[error("record {seq} has version {version:?}, which this verifier does not know")]
    Version {
        /// The record.
        seq: u64,
        /// Its version.
        version: String,
    },
    /// `prev` is no hash.
    #[error("record {seq} was altered: its prev is not 64 lower-case hex digits")]
    BadPrev {
        /// The record.
        seq: u64,
    },
}

impl Fault {
    /// Number of the first record that is missing or cannot be trusted.
    #[must_use]
    pub fn first_bad(&self) -> u64 {
        match self {
            Self::StartsLate { .. } | Self::NotOpened { .. } | Self::NotGenesis => 0,
            Self::Gap { from, .. } => *from,
            Self::OutOfOrder { seq }
            | Self::Altered { seq }
            | Self::Content { seq }
            | Self::Conflict { seq }
            | Self::UnprovenCopy { seq }
            | Self::Again { seq }
            | Self::AfterClose { seq }
            | Self::CloseCount { seq, .. }
            | Self::Version { seq, .. }
            | Self::BadPrev { seq } => *seq,
        }
    }
}

fn range(from: u64, to: u64) -> String {
    if from == to {
        format!("record {from} is")
    } else {
        format!("records {from} to {to} are")
    }
}

/// What is wrong with a line that is no record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineFault {
    /// It is no JSON object with the fields of a record.
    #[error("not a record: {0}")]
    NotARecord(String),
    /// It is longer than [`MAX_RECORD_BYTES`](crate::chain::MAX_RECORD_BYTES).
    #[error("not a record: the line is longer than any record may be")]
    TooLong,
    /// The file ends within a line.
    #[error("torn: the file ends within a record")]
    Torn,
    /// It belongs to a stream beyond [`MAX_STREAMS`](crate::verify::MAX_STREAMS).
    #[error("not judged: too many streams in one file")]
    TooManyStreams,
}
