//! Why a request is refused: a closed list of codes, and words for a person.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use chaperone_ledger::store::Refused;
use chaperone_server::reviews::TokenRefused;
use serde::Serialize;

/// What `Retry-After` says, in seconds: most of what it is for is over in less.
const RETRY_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// The codes. docs/ledger.md says what each means to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request or a line of the batch cannot be read.
    Malformed,
    /// No token, or none that names a user.
    Unauthenticated,
    /// The user may not.
    Forbidden,
    /// The stream is another pod's.
    NotYours,
    /// There is no such thing.
    NotFound,
    /// The body took too long.
    Slow,
    /// Records between are missing.
    Hole,
    /// Other bytes are there under this number.
    Differs,
    /// The chain does not fit.
    Broken,
    /// A stream begins with a `stream.open`.
    NotOpened,
    /// The stream is closed.
    Closed,
    /// The batch is too large.
    TooLarge,
    /// The body is of another type.
    MediaType,
    /// Too much waits.
    Busy,
    /// The disk does not take records.
    Storage,
    /// The API server does not answer.
    Unavailable,
    /// The index is being made, or made anew.
    Indexing,
    /// The question costs too much.
    TooSlow,
    /// Several sessions have this name.
    Ambiguous,
    /// It was there, and was deleted.
    Deleted,
    /// A legal hold keeps it.
    Held,
    /// Something of this name is there.
    Exists,
    /// The process ends.
    Stopping,
    /// No more streams.
    Full,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind.
    pub code: Code,
    /// Why.
    pub message: String,
    /// Number of the record that should have come, of a hole.
    pub expected: Option<u64>,
}

impl Code {
    /// The word in the answer and the metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotYours => "not-yours",
            Self::NotFound => "not-found",
            Self::Slow => "slow",
            Self::Hole => "hole",
            Self::Differs => "differs",
            Self::Broken => "broken",
            Self::NotOpened => "not-opened",
            Self::Closed => "closed",
            Self::TooLarge => "too-large",
            Self::MediaType => "media-type",
            Self::Busy => "busy",
            Self::Storage => "storage",
            Self::Unavailable => "unavailable",
            Self::Indexing => "indexing",
            Self::TooSlow => "too-slow",
            Self::Ambiguous => "ambiguous",
            Self::Deleted => "deleted",
            Self::Held => "held",
            Self::Exists => "exists",
            Self::Stopping => "stopping",
            Self::Full => "full",
        }
    }

    /// The answer's status.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::NotYours => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Deleted => StatusCode::GONE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Hole
            | Self::Differs
            | Self::Broken
            | Self::NotOpened
            | Self::Closed
            | Self::Held
            | Self::Exists
            | Self::Ambiguous => StatusCode::CONFLICT,
            Self::TooSlow => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Busy | Self::Storage | Self::Unavailable | Self::Indexing | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}

impl Refusal {
    /// A refusal with these words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            expected: None,
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let code = match &refused {
            Refused::Form | Refused::NotARecord { .. } | Refused::OtherStream { .. } => {
                Code::Malformed
            }
            Refused::Hole { .. } => Code::Hole,
            Refused::Broken { .. } => Code::Broken,
            Refused::Differs { .. } => Code::Differs,
            Refused::NotOpened => Code::NotOpened,
            Refused::Closed { .. } => Code::Closed,
            Refused::Busy => Code::Busy,
            Refused::TooManyStreams => Code::Full,
            Refused::Read(_) | Refused::Seal(_) | Refused::Line(_) => Code::Storage,
        };
        let expected = match &refused {
            Refused::Hole { expected, .. } => Some(*expected),
            _ => None,
        };
        Self {
            code,
            message: refused.to_string(),
            expected,
        }
    }
}

impl From<TokenRefused> for Refusal {
    fn from(refused: TokenRefused) -> Self {
        let code = match refused {
            TokenRefused::NoToken | TokenRefused::BadToken(_) => Code::Unauthenticated,
            TokenRefused::Unavailable => Code::Unavailable,
        };
        let message = match refused {
            TokenRefused::BadToken(why) => format!("the token is refused: {why}"),
            other => other.to_string(),
        };
        Self::new(code, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            code: &'static str,
            message: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            expected: Option<u64>,
        }
        let status = self.code.status();
        let body = Body {
            code: self.code.as_str(),
            message: self.message,
            expected: self.expected,
        };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS);
        }
        response
    }
}
