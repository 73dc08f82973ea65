//! How a stream ended before its response was whole, and what that means for both sides.

use std::io;

use h2::Reason;

use super::head::Unsent;
use crate::{
    body::{CodingError, Unreadable},
    commit::Unheld,
    http::{download::DownloadError, held::BODY_TIMEOUT},
};

/// Why there is no whole response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The agent reset the stream.
    #[error("the agent reset the stream ({})", word(*.0))]
    AgentReset(Reason),
    /// The agent's connection ended.
    #[error("the agent ended the connection: {0}")]
    AgentGone(h2::Error),
    /// A rule waits for the request's body, and it takes too long.
    #[error("the request body, which a rule reads, took longer than {} s", BODY_TIMEOUT.as_secs())]
    TooSlow,
    /// No connection to the upstream.
    #[error("cannot reach the upstream: {0}")]
    Unreachable(io::Error),
    /// The request cannot be made ready for the upstream.
    #[error("the request cannot be sent: {0}")]
    Unsendable(String),
    /// The request must be masked and cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The request's body is not what its content coding says, and must be read.
    #[error("the request cannot be decoded: {0}")]
    Undecodable(#[from] CodingError),
    /// The upstream reset the stream.
    #[error("the upstream reset the stream ({})", word(*.0))]
    UpstreamReset(Reason),
    /// The upstream said goodbye before it looked at the request (RFC 9113 §6.8).
    #[error("the upstream closed the connection and did not process the request")]
    Unprocessed,
    /// The upstream's connection broke.
    #[error("the upstream broke off: {0}")]
    UpstreamGone(h2::Error),
    /// The upstream broke the protocol.
    #[error("the upstream's response is malformed: {0}")]
    Malformed(h2::Error),
    /// The response is refused.
    #[error(transparent)]
    Refused(#[from] DownloadError),
    /// It may not leave before its record is held, and that is not.
    #[error(transparent)]
    Unheld(Unheld),
    /// The sidecar stops.
    #[error("the sidecar stopped before the response was whole")]
    Stopping,
}

impl From<Unsent> for Ended {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Unreadable(why) => Self::Unreadable(why),
            Unsent::Edit => Self::Unsendable(unsent.to_string()),
        }
    }
}

impl Ended {
    /// From what the agent's side of a stream says.
    pub(crate) fn by_agent(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::AgentReset(reason),
            _ => Self::AgentGone(error),
        }
    }

    /// From what the upstream's side of a stream says. A GOAWAY from the upstream reaches only streams beyond those that it processes.
    pub(crate) fn by_upstream(error: h2::Error) -> Self {
        match error.reason() {
            Some(_) if error.is_go_away() && error.is_remote() => Self::Unprocessed,
            Some(reason) if error.is_reset() && error.is_remote() => Self::UpstreamReset(reason),
            Some(_) => Self::Malformed(error),
            None => Self::UpstreamGone(error),
        }
    }

    /// What the agent is told where it has no response yet: a status, and whether it is Chaperone that refuses. `None`: a reset, which says it better.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::AgentReset(_) | Self::AgentGone(_) => None,
            Self::UpstreamReset(_) | Self::Unprocessed => None,
            Self::TooSlow => Some(408),
            Self::Unreadable(_) => Some(415),
            Self::Undecodable(_) => Some(400),
            Self::Stopping | Self::Unheld(_) => Some(503),
            Self::Unreachable(_)
            | Self::Unsendable(_)
            | Self::UpstreamGone(_)
            | Self::Malformed(_)
            | Self::Refused(_) => Some(502),
        }
    }

    /// The word in answers, records and metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::AgentReset(_) | Self::AgentGone(_) => "agent-gone",
            Self::TooSlow => "body-timeout",
            Self::Unreachable(_) => "upstream-unreachable",
            Self::Unsendable(_) => "edit",
            Self::Unreadable(why) => why.request_reason(),
            Self::Undecodable(CodingError::Message(_)) => "unreadable-request",
            Self::Undecodable(_) => "undecodable-request",
            Self::UpstreamReset(_) | Self::Unprocessed | Self::UpstreamGone(_) => "upstream-reset",
            Self::Malformed(_) => "malformed-response",
            Self::Refused(error) => error.reason(),
            Self::Unheld(unheld) => unheld.why.reason(),
            Self::Stopping => "stopping",
        }
    }

    /// Whether it is Chaperone that refuses.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::TooSlow | Self::Malformed(_) | Self::Unreadable(_) | Self::Undecodable(_) => true,
            Self::Refused(error) => error.is_refusal(),
            Self::Unheld(unheld) => unheld.why.is_refusal(),
            _ => false,
        }
    }

    /// Whether it is a body that policy denies or nobody can read.
    pub(crate) fn is_unread(&self) -> bool {
        match self {
            Self::Unreadable(_) | Self::Undecodable(_) => true,
            Self::Refused(error) => error.is_unread(),
            _ => false,
        }
    }

    /// How the agent's stream is reset.
    pub(crate) fn agent_reset(&self) -> Reason {
        match self {
            Self::UpstreamReset(reason) => *reason,
            Self::Unprocessed => Reason::REFUSED_STREAM,
            _ => Reason::INTERNAL_ERROR,
        }
    }

    /// How the upstream's stream is reset.
    pub(crate) fn upstream_reset(&self) -> Reason {
        match self {
            Self::AgentReset(reason) => *reason,
            _ => Reason::CANCEL,
        }
    }
}

/// The name that RFC 9113 §7 gives an error code.
pub(crate) fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::NO_ERROR => "NO_ERROR",
        Reason::PROTOCOL_ERROR => "PROTOCOL_ERROR",
        Reason::INTERNAL_ERROR => "INTERNAL_ERROR",
        Reason::FLOW_CONTROL_ERROR => "FLOW_CONTROL_ERROR",
        Reason::SETTINGS_TIMEOUT => "SETTINGS_TIMEOUT",
        Reason::STREAM_CLOSED => "STREAM_CLOSED",
        Reason::FRAME_SIZE_ERROR => "FRAME_SIZE_ERROR",
        Reason::REFUSED_STREAM => "REFUSED_STREAM",
        Reason::CANCEL => "CANCEL",
        Reason::COMPRESSION_ERROR => "COMPRESSION_ERROR",
        Reason::CONNECT_ERROR => "CONNECT_ERROR",
        Reason::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
        Reason::INADEQUATE_SECURITY => "INADEQUATE_SECURITY",
        Reason::HTTP_1_1_REQUIRED => "HTTP_1_1_REQUIRED",
        _ => "unknown code",
    }
}
