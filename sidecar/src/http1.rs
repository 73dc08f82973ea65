//! HTTP/1.0 and HTTP/1.1 on the wire: heads, body framing and the bytes to write back.
//!
//! Owns the message syntax of RFC 9112 and those parts of RFC 9110 that decide where a message
//! ends. Everything here is a function of bytes: no sockets, no clocks, no tasks.
//!
//! Refuses what two parsers could read in two ways: a message framed twice, a length that is not
//! plain digits, a transfer coding other than `chunked`, folded lines, bare CR or LF, a missing or
//! second `Host`, a target that contradicts it. An ambiguous message is an error, never a guess,
//! because the next hop may guess otherwise (RFC 9112 §11.2, request smuggling).
//!
//! Invariant: a head that parses has one meaning, and a head that nobody edits is forwarded byte
//! for byte (case, order, spacing). Parsing a prefix never yields a different answer than parsing
//! the whole: it yields `None` until the bytes that settle the matter are there.
//!
//! # Using it
//!
//! ```
//! use chaperone_sidecar::http1::{BodyDecoder, parse_request};
//!
//! let wire = b"POST /v1/items HTTP/1.1\r\nHost: api.internal\r\nContent-Length: 2\r\n\r\n{}";
//! let (head, used) = parse_request(wire).unwrap().expect("the head is complete");
//! assert_eq!(head.method(), "POST");
//!
//! let mut body = BodyDecoder::new(head.framing());
//! let mut seen = Vec::new();
//! let progress = body.pump(&wire[used..], |payload| seen.extend_from_slice(payload)).unwrap();
//! assert!(progress.done);
//! assert_eq!(seen, b"{}");
//! ```

mod body;
mod encode;
mod error;
mod fields;
mod head;
mod headers;
pub mod limits;
mod request;
mod response;
mod span;
mod target;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod smuggling;

pub use body::{BodyDecoder, BodyError, Decoded, Progress};
pub use encode::{
    HeadWriter, error_response, is_hop_by_hop, reason_phrase, write_chunk, write_chunk_header,
    write_last_chunk,
};
pub use error::HeadError;
pub use headers::{HeaderEditError, Headers};
pub use request::{RequestHead, parse_request};
pub use response::{ResponseHead, parse_response};
pub use target::{Authority, Scheme, Target};

/// The protocol version of a message (RFC 9112 §2.3). Others are refused with 505.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `HTTP/1.0`: no chunked coding, closes by default.
    Http10,
    /// `HTTP/1.1`: persistent by default.
    Http11,
}

impl Version {
    /// As it stands in a start line: `HTTP/1.0` or `HTTP/1.1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// Where the body of a message ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// No body: the message ends with its head.
    None,
    /// Exactly this many bytes, from `Content-Length`.
    Length(u64),
    /// Chunks up to the zero-size one and its trailer section (RFC 9112 §7.1).
    Chunked,
    /// Everything up to the close of the connection. Responses only.
    UntilClose,
}
