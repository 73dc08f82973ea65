//! What a record is placed by.

use std::borrow::Cow;

use chaperone_crds::{
    chain::{MAX_RECORD_BYTES, RecordHash, StreamId},
    record::{EventKind, RECORD_VERSION},
};
use serde::Deserialize;
use thiserror::Error;

/// The fields of a record that place it.
pub(super) struct Head {
    pub(super) stream: StreamId,
    pub(super) seq: u64,
    pub(super) prev: RecordHash,
    /// Whether it begins its stream.
    pub(super) opens: bool,
    /// Whether it ends it.
    pub(super) closes: bool,
}

/// Why a line is no record.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotARecord {
    /// It is longer than any record.
    #[error("it is longer than {MAX_RECORD_BYTES} bytes")]
    TooLong,
    /// It is no JSON, or fields are missing.
    #[error("{0}")]
    Json(String),
    /// It is of a version that this ledger does not read.
    #[error("its version is {0:?}, not {RECORD_VERSION:?}")]
    Version(String),
    /// It names no stream.
    #[error("its stream is no UUID")]
    Stream,
    /// It carries no hash.
    #[error("its prev is no hash")]
    Prev,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    v: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    seq: u64,
    #[serde(borrow)]
    prev: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
}

impl Head {
    /// Reads a line, without its newline.
    pub(super) fn parse(line: &[u8]) -> Result<Self, NotARecord> {
        if line.len() > MAX_RECORD_BYTES {
            return Err(NotARecord::TooLong);
        }
        let raw: Raw<'_> =
            serde_json::from_slice(line).map_err(|e| NotARecord::Json(e.to_string()))?;
        if raw.v != RECORD_VERSION {
            let version = raw.v.chars().take(64).collect();
            return Err(NotARecord::Version(version));
        }
        Ok(Self {
            stream: raw.stream.parse().map_err(|_| NotARecord::Stream)?,
            seq: raw.seq,
            prev: raw.prev.parse().map_err(|_| NotARecord::Prev)?,
            opens: raw.kind == EventKind::StreamOpen.as_str(),
            closes: raw.kind == EventKind::StreamClose.as_str(),
        })
    }
}
