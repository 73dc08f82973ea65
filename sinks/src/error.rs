//! Why an exchange with an endpoint failed, and what follows from it.

use std::{io, time::Duration};

use thiserror::Error;

/// A failed exchange.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Settings that cannot work.
    #[error("unusable settings: {0}")]
    Settings(String),
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
    /// An answer that was needed and did not come whole.
    #[error("the answer ended early, or is longer than it may be")]
    Partial,
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

impl ClientError {
    /// The metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Settings(_) => "settings",
            Self::Resolve { .. } => "resolve",
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Timeout(_) => "timeout",
            Self::Http(_) | Self::Partial => "http",
            Self::Status { status: 429, .. } => "throttled",
            Self::Status {
                status: 401 | 403, ..
            } => "unauthorized",
            Self::Status { status: 500.., .. } => "server-error",
            Self::Status { .. } => "refused",
        }
    }

    /// True where repeating soon cannot help: someone has to change something.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::Settings(_) => true,
            Self::Status { status, .. } => !matches!(status, 408 | 413 | 429 | 500..),
            _ => false,
        }
    }

    /// True where a smaller batch may help.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Status { status: 413, .. })
    }

    /// What the endpoint asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
