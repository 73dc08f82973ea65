//! Bytes that the proxy writes itself: heads from parts, chunks of re-framed bodies, refusals.

use std::io::Write as _;
use std::num::NonZeroUsize;

use bytes::{BufMut, Bytes, BytesMut};

use super::Version;
use super::head::is_tchar;
use super::headers::{HeaderEditError, Headers, check_field};

/// Fields for one hop alone (RFC 9110 §7.6.1), besides those that `Connection` names.
/// `Transfer-Encoding` and `Trailer` are left out on purpose: they go with the body.
const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "upgrade",
];

/// Whether a field is meant for this hop alone and does not frame the body.
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Writes a head from parts. Fields are checked one by one, so that no value can begin a line.
#[derive(Debug)]
pub struct HeadWriter<'a> {
    out: &'a mut BytesMut,
}

impl<'a> HeadWriter<'a> {
    /// Begins a request head.
    ///
    /// # Errors
    /// The method is no token ([`HeaderEditError::Name`]), or the target is empty or holds a
    /// space or control ([`HeaderEditError::Value`]); nothing is written then.
    pub fn request(
        out: &'a mut BytesMut,
        method: &str,
        target: &str,
        version: Version,
    ) -> Result<Self, HeaderEditError> {
        if method.is_empty() || !method.bytes().all(is_tchar) {
            return Err(HeaderEditError::Name);
        }
        if target.is_empty() || target.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(HeaderEditError::Value);
        }
        for part in [method, " ", target, " ", version.as_str(), "\r\n"] {
            out.put_slice(part.as_bytes());
        }
        Ok(Self { out })
    }

    /// Begins a response head with the usual reason phrase of its status.
    pub fn response(out: &'a mut BytesMut, status: u16, version: Version) -> Self {
        // Writing into a `BytesMut` does not fail: it grows.
        let _ = write!(
            (&mut *out).writer(),
            "{} {:03} {}\r\n",
            version.as_str(),
            status,
            reason_phrase(status)
        );
        Self { out }
    }

    /// Adds a field line.
    ///
    /// # Errors
    /// The name is no token or the value holds a control; nothing is written then.
    pub fn field(&mut self, name: &str, value: &[u8]) -> Result<(), HeaderEditError> {
        check_field(name, value)?;
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(b": ");
        self.out.put_slice(value);
        self.out.put_slice(b"\r\n");
        Ok(())
    }

    /// Ends the head with its empty line.
    pub fn finish(self) {
        self.out.put_slice(b"\r\n");
    }
}

/// The usual reason phrase, or an empty one (RFC 9110 §15). Not information: clients go by the
/// number.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        204 => "No Content",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// A whole response with a JSON body, written by the proxy itself.
///
/// `request_method` is the method that it answers: HEAD gets the same head and no body, so that
/// the connection stays in step (RFC 9110 §9.3.2). `keep_alive` says whether the proxy reads on
/// after it; the client is told either way. It may do so only where the request's body was read
/// to its end, or there was none.
pub fn error_response(status: u16, json: &[u8], keep_alive: bool, request_method: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(json.len().saturating_add(192));
    let connection = if keep_alive { "keep-alive" } else { "close" };
    // Writing into a `BytesMut` does not fail: it grows.
    let _ = write!(
        (&mut out).writer(),
        "HTTP/1.1 {:03} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: {connection}\r\n\r\n",
        status,
        reason_phrase(status),
        json.len(),
    );
    if request_method != "HEAD" {
        out.put_slice(json);
    }
    out.freeze()
}

/// Writes the line before a chunk of this many bytes; `\r\n` follows the data (RFC 9112 §7.1).
/// A chunk of zero bytes would end the body, hence the type.
pub fn write_chunk_header(out: &mut BytesMut, len: NonZeroUsize) {
    // Writing into a `BytesMut` does not fail: it grows.
    let _ = write!(out.writer(), "{len:x}\r\n");
}

/// Writes payload as one chunk, or nothing where it is empty.
pub fn write_chunk(out: &mut BytesMut, payload: &[u8]) {
    let Some(len) = NonZeroUsize::new(payload.len()) else {
        return;
    };
    write_chunk_header(out, len);
    out.put_slice(payload);
    out.put_slice(b"\r\n");
}

/// Ends a chunked body: the last chunk, the trailers given, and the empty line.
pub fn write_last_chunk(out: &mut BytesMut, trailers: &Headers) {
    out.put_slice(b"0\r\n");
    trailers.write_to(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_from_parts_refuse_what_would_break_a_line() {
        let mut out = BytesMut::new();
        let mut head = HeadWriter::request(&mut out, "GET", "/a", Version::Http11).unwrap();
        head.field("Host", b"a").unwrap();
        assert_eq!(head.field("X", b"a\nb"), Err(HeaderEditError::Value));
        assert_eq!(head.field("X:", b"a"), Err(HeaderEditError::Name));
        head.finish();
        assert_eq!(out, &b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"[..]);
        for (method, target) in [
            ("", "/"),
            ("G T", "/"),
            ("GET", ""),
            ("GET", "/ x"),
            ("GET", "/\r"),
        ] {
            assert!(HeadWriter::request(&mut out, method, target, Version::Http11).is_err());
        }
    }

    #[test]
    fn a_response_head_names_its_status() {
        let mut out = BytesMut::new();
        HeadWriter::response(&mut out, 100, Version::Http11).finish();
        assert_eq!(out, &b"HTTP/1.1 100 Continue\r\n\r\n"[..]);
    }

    #[test]
    fn a_refusal_of_head_has_no_body() {
        let get = error_response(403, b"{}", true, "GET");
        assert!(get.ends_with(b"Connection: keep-alive\r\n\r\n{}"));
        let head = error_response(403, b"{}", false, "HEAD");
        assert!(head.ends_with(b"Connection: close\r\n\r\n"));
        let (parsed, _) = super::super::parse_response(&get, "GET").unwrap().unwrap();
        assert_eq!(parsed.status(), 403);
    }

    #[test]
    fn empty_payload_writes_no_chunk_that_would_end_the_body() {
        let mut out = BytesMut::new();
        write_chunk(&mut out, b"");
        write_chunk(&mut out, &[b'a'; 26]);
        write_last_chunk(&mut out, &Headers::default());
        let expected = format!("1a\r\n{}\r\n0\r\n\r\n", "a".repeat(26));
        assert_eq!(out, expected.as_bytes());
    }
}
