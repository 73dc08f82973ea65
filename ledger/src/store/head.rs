//! What a record is placed by, of those that the ledger takes.

use chaperone_crds::{
    chain::{RecordHash, StreamId},
    head::{self, Content, Place},
    record::RECORD_VERSION,
};
use thiserror::Error;

/// The fields of a record that place it.
pub(super) struct Head {
    pub(super) stream: StreamId,
    pub(super) seq: u64,
    pub(super) prev: RecordHash,
    /// When, as it stands there.
    pub(super) time: String,
    /// Whether it begins its stream.
    pub(super) opens: bool,
    /// Whether it ends it.
    pub(super) closes: bool,
    /// What it counts, where it ends it and counts wrong.
    pub(super) miscount: Option<u64>,
}

/// Why a line is no record that the ledger takes.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotARecord {
    /// It is none at all.
    #[error(transparent)]
    Form(#[from] head::NotARecord),
    /// It is of a version that this ledger does not read.
    #[error("its version is {0:?}, not {RECORD_VERSION:?}")]
    Version(String),
    /// Its texts of bodies are not those that it was written with.
    #[error("its bodies are not what its bodiesSha256 says")]
    Content,
    /// Blanks follow its JSON: in a segment only sealed content stands there, and a start would not know the line.
    #[error("its line does not end with the brace that ends it")]
    End,
    /// It carries no hash.
    #[error("its prev is no hash")]
    Prev,
    /// It ends its stream, and counts other records than the stream has.
    #[error("it closes its stream and counts {found} records, where {expected} were expected")]
    Count {
        /// Records up to itself.
        expected: u64,
        /// What it counts; 0 where it does not.
        found: u64,
    },
}

impl NotARecord {
    /// A line that is longer than any record.
    pub(super) const TOO_LONG: Self = Self::Form(head::NotARecord::TooLong);
}

impl Head {
    /// Reads a line without its newline and its content.
    pub(super) fn parse(line: &[u8]) -> Result<Self, NotARecord> {
        let head = head::Head::parse(line)?;
        if !line.ends_with(b"}") {
            return Err(NotARecord::End);
        }
        if let Some(version) = head.foreign_version {
            return Err(NotARecord::Version(version));
        }
        // What is cut off is what was written; so what is still there is not.
        if head.content == Content::There {
            return Err(NotARecord::Content);
        }
        Ok(Self {
            stream: head.stream,
            seq: head.seq,
            prev: head.prev.ok_or(NotARecord::Prev)?,
            time: head.time,
            opens: head.place == Place::Opens,
            closes: head.place.closes(),
            miscount: head.place.miscount(head.seq),
        })
    }

    /// Whether it may be taken anew: a verdict over a log with a close that counts wrong is that the log is not intact. One that was taken before this was asked stays where it is.
    pub(super) fn counts(&self) -> Result<(), NotARecord> {
        match self.miscount {
            None => Ok(()),
            Some(found) => Err(NotARecord::Count {
                expected: self.seq.saturating_add(1),
                found,
            }),
        }
    }
}
