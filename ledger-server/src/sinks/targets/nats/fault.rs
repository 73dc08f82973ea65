//! What follows from the library's errors.

use async_nats::{
    ConnectError, ConnectErrorKind,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
    },
};

use crate::sinks::target::{Answer, Failure, Then};

/// Longest text of a server that is repeated, in characters.
const SAID_CHARS: usize = 200;

/// A connection that was not made.
pub(super) fn connect(error: &ConnectError) -> Failure {
    let (then, reason) = match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            (Then::Rarely, "unauthorized")
        }
        ConnectErrorKind::ServerParse => (Then::Rarely, "settings"),
        ConnectErrorKind::Tls => (Then::Soon, "tls"),
        ConnectErrorKind::Dns => (Then::Soon, "resolve"),
        ConnectErrorKind::TimedOut => (Then::Soon, "timeout"),
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects if is_tls(error) => {
            (Then::Soon, "tls")
        }
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => (Then::Soon, "connect"),
    };
    Failure::new(then, reason, bounded(&error.to_string()))
}

/// rustls' errors come as those of the socket.
fn is_tls(error: &ConnectError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        source = error.source();
    }
    false
}

/// A message that was not stored: notes it, or fails for all.
pub(super) fn publish(
    error: &PublishError,
    place: usize,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let why = bounded(&error.to_string());
    let code = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .map(jetstream::Error::error_code);
    let (then, reason) = match (error.kind(), code) {
        // Larger than the server or the stream takes.
        (PublishErrorKind::MaxPayloadExceeded, _)
        | (_, Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)) => {
            answer.refused.push((place, why));
            return Ok(());
        }
        (PublishErrorKind::StreamNotFound, _) => {
            let why = "no stream takes the subject: make one, or JetStream is off";
            return Err(Failure::new(Then::Rarely, "settings", why));
        }
        (
            _,
            Some(
                ErrorCode::STREAM_NOT_MATCH
                | ErrorCode::JETSTREAM_NOT_ENABLED
                | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
            ),
        ) => (Then::Rarely, "settings"),
        (PublishErrorKind::TimedOut, _) => (Then::Soon, "timeout"),
        (PublishErrorKind::BrokenPipe, _) => (Then::Soon, "connect"),
        _ => (Then::Soon, "server-error"),
    };
    Err(Failure::new(then, reason, why))
}

/// What a server said, as much of it as is repeated.
pub(super) fn bounded(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(SAID_CHARS).collect()
}
