//! Why an exchange failed before the agent saw anything of a response, and what it is told.

use super::{download::DownloadError, upload::UploadError};
use crate::{
    body::{CodingError, Unreadable},
    commit::Unheld,
};

/// Why there is no response to pass on.
pub(crate) enum Failure {
    /// The upstream cannot be reached, or the request not be made ready for it.
    Upstream(&'static str, String),
    /// It may not leave before its record is held, and that is not.
    Unheld(Unheld),
    /// The request must be masked and cannot be read.
    Unreadable(Unreadable),
    /// The request did not go out whole.
    Upload(UploadError),
    /// No response came, or one that is refused.
    Download(DownloadError),
}

/// What is told of a failure.
pub(crate) struct Told {
    /// Status of the answer. `None`: nobody is there to hear it.
    pub(crate) status: Option<u16>,
    /// Label for metrics and records.
    pub(crate) reason: &'static str,
    /// In words.
    pub(crate) message: String,
    /// Whether it is Chaperone that refuses.
    pub(crate) refused: bool,
}

impl Failure {
    /// The cause, where neither direction brought a response.
    pub(crate) fn of(upload: Option<UploadError>, download: DownloadError) -> Self {
        match upload {
            Some(error) => Self::Upload(error),
            None => Self::Download(download),
        }
    }

    /// Whether the upstream ended the connection without a byte of an answer. On a connection that carried a request before, that is how an idle one ends: clients then
    /// repeat the request by themselves (RFC 9112 §9.3.1), if they see the end and no answer.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(
            self,
            Self::Upload(UploadError::Upstream(_)) | Self::Download(DownloadError::NoAnswer)
        )
    }

    /// Whether it is a body that policy denies or nobody can read.
    pub(crate) fn is_unread(&self) -> bool {
        match self {
            Self::Unreadable(_) | Self::Upload(UploadError::Coding(_)) => true,
            Self::Download(error) => error.is_unread(),
            Self::Upstream(..) | Self::Unheld(_) | Self::Upload(_) => false,
        }
    }

    /// What is told of it.
    pub(crate) fn told(self) -> Told {
        let (status, reason, message, refused) = match self {
            Self::Upstream(reason, message) => (Some(502), reason, message, false),
            Self::Unheld(Unheld { why, .. }) => {
                (Some(503), why.reason(), why.to_string(), why.is_refusal())
            }
            Self::Unreadable(why) => (Some(415), why.request_reason(), why.to_string(), true),
            Self::Upload(error) => {
                let (status, reason, refused) = match &error {
                    UploadError::Malformed(_) => (Some(400), "malformed-body", true),
                    UploadError::Coding(CodingError::Message(_)) => {
                        (Some(400), "unreadable-request", true)
                    }
                    UploadError::Coding(_) => (Some(400), "undecodable-request", true),
                    UploadError::TooSlow => (Some(408), "body-timeout", true),
                    UploadError::Edit(_) => (Some(502), "edit", false),
                    UploadError::Agent(_) => (None, "agent-gone", false),
                    UploadError::Upstream(_) => (Some(502), "upstream-reset", false),
                };
                (status, reason, error.to_string(), refused)
            }
            Self::Download(error) => {
                let status = match &error {
                    DownloadError::Agent(_) => None,
                    DownloadError::Stopping => Some(503),
                    _ => Some(502),
                };
                (
                    status,
                    error.reason(),
                    error.to_string(),
                    error.is_refusal(),
                )
            }
        };
        Told {
            status,
            reason,
            message,
            refused,
        }
    }
}
