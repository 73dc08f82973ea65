//! Why a delivery failed, and what follows from it.

use std::{io, time::Duration};

use chaperone_crds::{chain::StreamId, render::RenderError};
use chaperone_sinks::ClientError;
use thiserror::Error;

/// A failed delivery. The batch was not acknowledged.
#[derive(Debug, Error)]
pub(super) enum SinkError {
    /// Settings that cannot work.
    #[error("unusable settings: {0}")]
    Settings(String),
    /// A record that cannot be written in the sink's format.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The file or standard output.
    #[error("writing: {0}")]
    Write(io::Error),
    /// The spool.
    #[error("reading the spool: {0}")]
    Spool(io::Error),
    /// The file of a token.
    #[error("the token {path}: {source}")]
    Token {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// What the ledger answered makes no sense.
    #[error("the ledger's answer makes no sense: {0}")]
    Answer(String),
    /// The spool has a line that is no record.
    #[error("the spool has a line that is no record: {0}")]
    NotARecord(chaperone_crds::head::NotARecord),
    /// The ledger lacks records that the spool's cursor is past.
    #[error("the ledger expects record {expected} of stream {stream}, and was sent {from}")]
    Behind {
        /// Of which stream.
        stream: StreamId,
        /// What the ledger expects.
        expected: u64,
        /// Where the batch begins.
        from: u64,
    },
    /// The exchange with the endpoint.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl SinkError {
    /// The metric's label.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Settings(_) => "settings",
            Self::Render(_) => "render",
            Self::Write(_) => "write",
            Self::Spool(_) => "spool",
            Self::Token { .. } => "token",
            Self::Answer(_) => "answer",
            Self::NotARecord(_) => "not-a-record",
            Self::Behind { .. } => "behind",
            Self::Client(error) => error.reason(),
        }
    }

    /// True where repeating soon cannot help: someone has to change something. The records wait meanwhile.
    pub(super) fn needs_a_person(&self) -> bool {
        match self {
            Self::Settings(_)
            | Self::Render(_)
            | Self::Answer(_)
            | Self::NotARecord(_)
            | Self::Behind { .. } => true,
            Self::Client(error) => error.needs_a_person(),
            _ => false,
        }
    }

    /// True where a smaller batch may help.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_too_large())
    }

    /// True where older records of the spool may help.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self, Self::Behind { .. })
    }

    /// What the endpoint asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Client(error) => error.retry_after(),
            _ => None,
        }
    }
}
