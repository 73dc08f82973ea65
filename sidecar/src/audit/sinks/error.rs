//! Why a delivery failed, and what follows from it.

use std::{io, time::Duration};

use chaperone_crds::{chain::StreamId, render::RenderError};
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
    #[error(
        "the ledger expects record {expected} of stream {stream}, and the oldest that is left here is {from}"
    )]
    Behind {
        /// Of which stream.
        stream: StreamId,
        /// What the ledger expects.
        expected: u64,
        /// Where the batch begins.
        from: u64,
    },
    /// No address for the endpoint's name.
    #[error("resolving {host}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No connection.
    #[error("connecting: {0}")]
    Connect(io::Error),
    /// No TLS session.
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The connection broke.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// An answer other than 2xx.
    #[error("the endpoint answered {status}: {text}")]
    Status {
        /// Status code.
        status: u16,
        /// What it asked for in `Retry-After`.
        retry_after: Option<Duration>,
        /// Beginning of the answer's body.
        text: String,
    },
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
            Self::Resolve { .. } => "resolve",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Timeout(_) => "timeout",
            Self::Http(_) => "http",
            Self::Status { status: 429, .. } => "throttled",
            Self::Status {
                status: 401 | 403, ..
            } => "unauthorized",
            Self::Status { status: 500.., .. } => "server-error",
            Self::Status { .. } => "refused",
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
            Self::Status { status, .. } => !matches!(status, 408 | 413 | 429 | 500..),
            _ => false,
        }
    }

    /// True where a smaller batch may help.
    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Status { status: 413, .. })
    }

    /// True where older records of the spool may help.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self, Self::Behind { .. })
    }

    /// What the endpoint asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
