//! Body framing as a push decoder: it is shown bytes, and says which are payload.
//!
//! Holds no payload. A driver that changes nothing forwards the bytes it showed; one that masks
//! takes the payload ranges and frames them anew. Refuses chunked syntax that peers read
//! differently (RFC 9112 §7.1): padded or signed sizes, bare LF, extensions without bound,
//! trailers that frame or route.

use std::ops::Range;

use super::BodyFraming;
use super::headers::Headers;
use super::limits;

mod chunked;
mod trailers;

use chunked::Chunked;

/// A body that cannot be read in exactly one way, or ended early. Forward nothing more: close
/// both sides, so that the peer sees a truncated message and not a complete one (RFC 9112 §8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk size is not plain hexadecimal digits, ended by CRLF or `;`.
    #[error("a chunk size is not plain hexadecimal digits")]
    ChunkSize,
    /// A chunk size above [`limits::MAX_LENGTH`], or padded beyond 16 digits.
    #[error("a chunk size does not fit 63 bits in 16 digits")]
    ChunkTooLarge,
    /// A chunk line longer than [`limits::MAX_CHUNK_LINE`].
    #[error("a chunk line is longer than {} bytes", limits::MAX_CHUNK_LINE)]
    ChunkLineTooLong,
    /// A control or bare LF in a chunk extension.
    #[error("a chunk extension holds a control character")]
    ChunkExtension,
    /// A chunk line, or a chunk's data, is not followed by CRLF.
    #[error("a chunk is not followed by CRLF")]
    ChunkEnd,
    /// A trailer section above [`limits::MAX_TRAILER_BYTES`] or [`limits::MAX_TRAILERS`].
    #[error(
        "the trailer section is larger than {} bytes",
        limits::MAX_TRAILER_BYTES
    )]
    TrailerTooLarge,
    /// A trailer line that is not a field.
    #[error("a trailer line is malformed")]
    Trailer,
    /// A trailer that frames, routes, authenticates or describes content (RFC 9110 §6.5.1).
    #[error("a trailer field is one that may only stand in the head")]
    TrailerForbidden,
    /// The connection ended before the body did (RFC 9112 §8).
    #[error("the connection ended before the body did")]
    Truncated,
}

impl BodyError {
    /// A stable label for metrics and records.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ChunkSize => "chunk_size",
            Self::ChunkTooLarge => "chunk_too_large",
            Self::ChunkLineTooLong => "chunk_line_too_long",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkEnd => "chunk_end",
            Self::TrailerTooLarge => "trailer_too_large",
            Self::Trailer => "trailer",
            Self::TrailerForbidden => "trailer_forbidden",
            Self::Truncated => "truncated",
        }
    }
}

/// What one [`BodyDecoder::decode`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that belong to this body and need not be shown again.
    pub consumed: usize,
    /// The payload within them; empty where they were framing only.
    pub payload: Range<usize>,
    /// Whether the body is complete. Bytes after `consumed` belong to the next message.
    pub done: bool,
}

/// What one [`BodyDecoder::pump`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belong to this body: all, unless it is complete.
    pub consumed: usize,
    /// Whether the body is complete.
    pub done: bool,
}

/// Follows one body to its end.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    payload_bytes: u64,
    trailers: Headers,
}

#[derive(Debug)]
enum State {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Done,
    Failed(BodyError),
}

impl BodyDecoder {
    /// A decoder for a body framed so. Already done where there is nothing to read.
    pub fn new(framing: BodyFraming) -> Self {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Done,
            BodyFraming::Length(length) => State::Length(length),
            BodyFraming::Chunked => State::Chunked(Chunked::default()),
            BodyFraming::UntilClose => State::UntilClose,
        };
        Self {
            state,
            payload_bytes: 0,
            trailers: Headers::default(),
        }
    }

    /// Reads on, up to the end of the next run of payload. Call again with the rest of the input
    /// until it is used up or the body is done; every byte is consumed otherwise, so nothing has
    /// to be kept by the caller.
    ///
    /// # Errors
    /// The framing is broken. The decoder stays in that error.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let decoded = match &mut self.state {
            State::Done => Decoded {
                consumed: 0,
                payload: 0..0,
                done: true,
            },
            State::Failed(error) => return Err(*error),
            State::UntilClose => Decoded {
                consumed: input.len(),
                payload: 0..input.len(),
                done: false,
            },
            State::Length(left) => take_length(left, input),
            State::Chunked(chunked) => match chunked.decode(input, &mut self.trailers) {
                Ok(decoded) => decoded,
                Err(error) => {
                    self.state = State::Failed(error);
                    return Err(error);
                }
            },
        };
        if decoded.done {
            self.state = State::Done;
        }
        self.payload_bytes = self
            .payload_bytes
            .saturating_add(decoded.payload.len() as u64);
        Ok(decoded)
    }

    /// Reads all of the input that belongs to this body and gives each run of payload to `sink`.
    /// To pass a body on unchanged, forward `input[..consumed]` after this returned.
    ///
    /// # Errors
    /// As for [`BodyDecoder::decode`]; `sink` may have seen payload that precedes the error.
    pub fn pump(
        &mut self,
        input: &[u8],
        mut sink: impl FnMut(&[u8]),
    ) -> Result<Progress, BodyError> {
        let mut rest = input;
        loop {
            let decoded = self.decode(rest)?;
            if let Some(payload) = rest.get(decoded.payload).filter(|p| !p.is_empty()) {
                sink(payload);
            }
            rest = rest.get(decoded.consumed..).unwrap_or_default();
            if decoded.done || rest.is_empty() {
                let consumed = input.len().saturating_sub(rest.len());
                return Ok(Progress {
                    consumed,
                    done: decoded.done,
                });
            }
        }
    }

    /// Whether the body is complete. A body until close is so only after [`BodyDecoder::eof`].
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Says that the connection ended.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] where the body was not complete, or the error it already met.
    pub fn eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(error) => Err(error),
            State::Length(_) | State::Chunked(_) => Err(BodyError::Truncated),
        }
    }

    /// Bytes of payload seen so far.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Bytes still to come, where the length says so: a driver may move them without looking
    /// and account for them with [`BodyDecoder::skip`].
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            State::Chunked(_) | State::UntilClose | State::Failed(_) => None,
        }
    }

    /// Accounts for bytes of a body with a known length that were moved without being shown;
    /// at most [`BodyDecoder::remaining`] of them count.
    pub fn skip(&mut self, bytes: u64) {
        if let State::Length(left) = &mut self.state {
            let taken = bytes.min(*left);
            *left = left.saturating_sub(taken);
            self.payload_bytes = self.payload_bytes.saturating_add(taken);
            if *left == 0 {
                self.state = State::Done;
            }
        }
    }

    /// The trailer fields of a chunked body, empty until it is done.
    pub fn trailers(&self) -> &Headers {
        &self.trailers
    }
}

fn take_length(left: &mut u64, input: &[u8]) -> Decoded {
    let take = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(input.len());
    *left = left.saturating_sub(take as u64);
    Decoded {
        consumed: take,
        payload: 0..take,
        done: *left == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_its_bytes_and_leaves_the_next_message() {
        let mut body = BodyDecoder::new(BodyFraming::Length(5));
        assert_eq!(
            body.decode(b"abc").unwrap(),
            Decoded {
                consumed: 3,
                payload: 0..3,
                done: false
            }
        );
        assert_eq!(body.remaining(), Some(2));
        assert_eq!(body.eof(), Err(BodyError::Truncated));
        assert_eq!(
            body.decode(b"deGET /").unwrap(),
            Decoded {
                consumed: 2,
                payload: 0..2,
                done: true
            }
        );
        assert_eq!(
            (body.eof(), body.payload_bytes(), body.is_done()),
            (Ok(()), 5, true)
        );
    }

    #[test]
    fn skipped_bytes_count_and_can_end_the_body() {
        let mut body = BodyDecoder::new(BodyFraming::Length(5));
        body.skip(3);
        assert_eq!((body.remaining(), body.is_done()), (Some(2), false));
        body.skip(9);
        assert_eq!((body.payload_bytes(), body.is_done()), (5, true));
    }

    #[test]
    fn a_body_until_close_ends_with_the_connection() {
        let mut body = BodyDecoder::new(BodyFraming::UntilClose);
        let progress = body.pump(b"abc", |_| {}).unwrap();
        assert_eq!(
            progress,
            Progress {
                consumed: 3,
                done: false
            }
        );
        assert!(!body.is_done());
        assert_eq!((body.eof(), body.is_done()), (Ok(()), true));
    }

    #[test]
    fn no_body_is_done_at_once() {
        for framing in [BodyFraming::None, BodyFraming::Length(0)] {
            let mut body = BodyDecoder::new(framing);
            assert!(body.is_done());
            assert_eq!(
                body.pump(b"GET", |_| {}).unwrap(),
                Progress {
                    consumed: 0,
                    done: true
                }
            );
        }
    }
}
