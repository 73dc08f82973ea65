//! Why the store says no.

use std::io;

use chaperone_crds::chain::StreamId;
use thiserror::Error;

use super::{MAX_BATCH_BYTES, MAX_STREAMS, MAX_WAITING_BYTES, NotARecord, ReadError};
use crate::{checkpoint::CheckpointError, note::NoteError};

/// Why a batch was not taken. Nothing of it was.
#[derive(Debug, Error)]
pub enum Refused {
    /// It has no line, or the last one lacks its newline, or it is too long.
    #[error(
        "a batch is one line or more, each with its newline, of {MAX_BATCH_BYTES} bytes at most"
    )]
    Form,
    /// A line of it is no record.
    #[error("line {line} of the batch is no record: {fault}")]
    NotARecord {
        /// Its number in the batch, from 1.
        line: u64,
        /// Why.
        fault: NotARecord,
    },
    /// A line of it is of another stream.
    #[error("record {seq} is of stream {found}")]
    OtherStream {
        /// Its number in its stream.
        seq: u64,
        /// Its stream.
        found: StreamId,
    },
    /// Records between are missing.
    #[error("record {found} came where record {expected} was expected")]
    Hole {
        /// What should have come.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// It does not carry the hash of the one before.
    #[error("record {seq} does not carry the hash of the one before it")]
    Broken {
        /// Its number.
        seq: u64,
    },
    /// The stream has other bytes under this number.
    #[error("record {seq} is there already, with other bytes")]
    Differs {
        /// Its number.
        seq: u64,
    },
    /// A stream that begins with something else.
    #[error("the stream does not begin with a stream.open")]
    NotOpened,
    /// The stream was closed.
    #[error("record {seq} comes after the stream's close")]
    Closed {
        /// Its number.
        seq: u64,
    },
    /// Too much waits for a commit.
    #[error("{MAX_WAITING_BYTES} bytes wait for a commit already")]
    Busy,
    /// There is no room for a new stream.
    #[error("the ledger has {MAX_STREAMS} streams already")]
    TooManyStreams,
    /// What is there could not be read for comparison.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its content could not be sealed.
    #[error("content cannot be sealed now: {0}")]
    Seal(io::Error),
    /// A line of a segment has none of the forms that lines have there.
    #[error("{0}")]
    Line(String),
}

/// Why there is no new checkpoint.
#[derive(Debug, Error)]
pub enum SignError {
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The keys.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// Why a checkpoint with more signatures was not kept.
#[derive(Debug, Error)]
pub enum CosignError {
    /// The disk.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is none of this log.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
