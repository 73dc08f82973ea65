//! Why a head was refused. One variant per cause, so that a metric label, the answer's status and
//! a sentence for the record follow from it.

use super::limits;

/// A head that cannot be read in exactly one way (RFC 9112 §2.2, §11).
///
/// The connection carries nothing trustworthy after it: answer and close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// More bytes than [`limits::MAX_HEAD_BYTES`] without an end.
    #[error("the head is larger than {} bytes", limits::MAX_HEAD_BYTES)]
    TooLarge,
    /// More fields than [`limits::MAX_HEADERS`].
    #[error("the head has more than {} header fields", limits::MAX_HEADERS)]
    TooManyHeaders,
    /// Neither HTTP/1.0 nor HTTP/1.1 (RFC 9112 §2.3).
    #[error("the protocol version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// The method is not a token (RFC 9110 §9.1).
    #[error("the method is not a token")]
    Method,
    /// The method is longer than [`limits::MAX_METHOD_BYTES`] (RFC 9112 §3).
    #[error("the method is longer than {} bytes", limits::MAX_METHOD_BYTES)]
    MethodTooLong,
    /// The request target fits none of the four forms (RFC 9112 §3.2).
    #[error("the request target is not valid for this method")]
    Target,
    /// The status line does not parse (RFC 9112 §4).
    #[error("the status line is malformed")]
    StatusLine,
    /// A line ends in a bare LF or holds a bare CR (RFC 9112 §2.2).
    #[error("a line of the head does not end in CRLF, or holds a CR of its own")]
    LineEnding,
    /// A field line begins with whitespace: obs-fold or a smuggled line (RFC 9112 §5.2, §2.2).
    #[error("a header line begins with whitespace (obsolete line folding)")]
    ObsFold,
    /// Whitespace between field name and colon (RFC 9112 §5.1).
    #[error("there is whitespace between a header name and its colon")]
    SpaceBeforeColon,
    /// A field line begins with the colon.
    #[error("a header name is empty")]
    EmptyName,
    /// A field name is not a token (RFC 9110 §5.1).
    #[error("a header name holds a character that is not allowed in it")]
    Name,
    /// A field value holds NUL or another control (RFC 9110 §5.5).
    #[error("a header value holds a control character")]
    Value,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 §6.1).
    #[error("both Content-Length and Transfer-Encoding are present")]
    FramingConflict,
    /// More than one `Content-Length`, even with equal values (RFC 9112 §6.3).
    #[error("Content-Length is present more than once")]
    ContentLengthRepeated,
    /// `Content-Length` is not plain digits, or above [`limits::MAX_LENGTH`] (RFC 9110 §8.6).
    #[error("Content-Length is not a plain number of bytes")]
    ContentLength,
    /// More than one `Transfer-Encoding` (RFC 9112 §6.1).
    #[error("Transfer-Encoding is present more than once")]
    TransferEncodingRepeated,
    /// A transfer coding other than `chunked`, applied once (RFC 9112 §7).
    #[error("the transfer coding is not exactly `chunked`")]
    TransferCoding,
    /// `Transfer-Encoding` in HTTP/1.0, where it means nothing (RFC 9112 §6.1).
    #[error("Transfer-Encoding is present in an HTTP/1.0 message")]
    TransferEncodingInHttp10,
    /// A name such as `Content_Length`, which gateways in the CGI tradition read as the real one.
    #[error("a header name imitates Content-Length or Transfer-Encoding with underscores")]
    FramingLookalike,
    /// `Connection` names a field that later hops need for framing or routing (RFC 9110 §7.6.1).
    #[error("Connection names Host, Content-Length or Transfer-Encoding as hop-by-hop")]
    ConnectionDropsFraming,
    /// A body where the message cannot have one: CONNECT, 1xx, 204 (RFC 9112 §6.1, §6.3).
    #[error("the message announces a body that its method or status does not allow")]
    BodyNotAllowed,
    /// HTTP/1.1 without `Host` (RFC 9112 §3.2).
    #[error("an HTTP/1.1 request has no Host")]
    HostMissing,
    /// More than one `Host` (RFC 9112 §3.2).
    #[error("Host is present more than once")]
    HostRepeated,
    /// `Host` is not a host with an optional port (RFC 9110 §7.2).
    #[error("Host is not a host name or address with an optional port")]
    HostInvalid,
    /// The target's authority is not the one in `Host` (RFC 9112 §3.2.2).
    #[error("the request target and Host name different authorities")]
    HostMismatch,
}

impl HeadError {
    /// A stable label for metrics and records.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "head_too_large",
            Self::TooManyHeaders => "too_many_headers",
            Self::Version => "version",
            Self::Method => "method",
            Self::MethodTooLong => "method_too_long",
            Self::Target => "target",
            Self::StatusLine => "status_line",
            Self::LineEnding => "line_ending",
            Self::ObsFold => "obs_fold",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::EmptyName => "empty_name",
            Self::Name => "header_name",
            Self::Value => "header_value",
            Self::FramingConflict => "framing_conflict",
            Self::ContentLengthRepeated => "content_length_repeated",
            Self::ContentLength => "content_length",
            Self::TransferEncodingRepeated => "transfer_encoding_repeated",
            Self::TransferCoding => "transfer_coding",
            Self::TransferEncodingInHttp10 => "transfer_encoding_http10",
            Self::FramingLookalike => "framing_lookalike",
            Self::ConnectionDropsFraming => "connection_drops_framing",
            Self::BodyNotAllowed => "body_not_allowed",
            Self::HostMissing => "host_missing",
            Self::HostRepeated => "host_repeated",
            Self::HostInvalid => "host_invalid",
            Self::HostMismatch => "host_mismatch",
        }
    }

    /// The status that answers a request refused for this cause: 400, 431 (RFC 6585 §5), 501
    /// (RFC 9112 §3, §6.1) or 505. A response refused for any cause is the agent's 502.
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyHeaders => 431,
            Self::MethodTooLong | Self::TransferCoding => 501,
            Self::Version => 505,
            _ => 400,
        }
    }
}
