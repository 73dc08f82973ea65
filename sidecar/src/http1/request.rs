//! Request heads (RFC 9112 §3).

use std::mem::MaybeUninit;

use bytes::{BufMut, BytesMut};

use super::error::HeadError;
use super::fields::Fields;
use super::head::{bounded, explain, need_more, require_crlf};
use super::headers::{HeaderEditError, Headers};
use super::limits::{MAX_HEADERS, MAX_METHOD_BYTES};
use super::span::Span;
use super::target::{Authority, Scheme, Target};
use super::{BodyFraming, Version};

/// A request head that has exactly one reading.
#[derive(Debug, Clone)]
pub struct RequestHead {
    headers: Headers,
    method: Span,
    target_text: Span,
    target: Form,
    authority: Option<Place>,
    version: Version,
    framing: BodyFraming,
    keep_alive: bool,
    expect_continue: bool,
    upgrade: Option<Span>,
}

/// [`Target`] by positions.
#[derive(Debug, Clone, Copy)]
enum Form {
    Origin {
        path: Span,
        query: Option<Span>,
    },
    Absolute {
        scheme: Scheme,
        authority: Place,
        path: Span,
        query: Option<Span>,
    },
    Authority(Place),
    Asterisk,
}

/// [`Authority`] by positions.
#[derive(Debug, Clone, Copy)]
struct Place {
    host: Span,
    port: Option<u16>,
}

/// Parses a request head from the beginning of `buf`.
///
/// `Ok(None)` asks for more bytes; call again with the longer buffer. `Ok(Some((head, used)))`
/// says how many bytes the head took, one empty line before it included (RFC 9112 §2.2); the body
/// begins there. Work is linear in the bytes given, at most [`super::limits::MAX_HEAD_BYTES`].
///
/// # Errors
/// As soon as the bytes given settle that the head is refused, or when it exceeds a bound.
pub fn parse_request(buf: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let Some(skip) = leading_empty_line(buf)? else {
        return Ok(None);
    };
    let buf = bounded(buf.get(skip..).unwrap_or_default());
    let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let used = match request.parse_with_uninit_headers(buf, &mut slots) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return need_more(buf),
        Err(error) => return Err(explain(error, buf)),
    };
    let raw = buf.get(..used).unwrap_or_default();
    let head = RequestHead::from_parsed(raw, &request)?;
    Ok(Some((head, skip.saturating_add(used))))
}

/// Length of the one empty line that may precede a request, as old clients send after a body;
/// `None` while that is open.
fn leading_empty_line(buf: &[u8]) -> Result<Option<usize>, HeadError> {
    let skip = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    match buf.get(skip..) {
        None | Some([]) => Ok(None),
        Some([b'\r']) if skip == 0 => Ok(None),
        Some([b'\r' | b'\n', ..]) => Err(HeadError::LineEnding),
        Some(_) => Ok(Some(skip)),
    }
}

impl RequestHead {
    fn from_parsed(raw: &[u8], request: &httparse::Request<'_, '_>) -> Result<Self, HeadError> {
        require_crlf(raw)?;
        let version = match request.version {
            Some(0) => Version::Http10,
            Some(1) => Version::Http11,
            _ => return Err(HeadError::Version),
        };
        let method = request.method.ok_or(HeadError::Method)?;
        if method.len() > MAX_METHOD_BYTES {
            return Err(HeadError::MethodTooLong);
        }
        let target_text = request.path.ok_or(HeadError::Target)?;
        let target = Target::parse(method, target_text)?;
        let fields = Fields::read(version, request.headers)?;
        if fields.connection_drops_framing() {
            return Err(HeadError::ConnectionDropsFraming);
        }
        let host = read_host(version, &fields)?;
        if let Some(host) = &host {
            target.agree_with(host)?;
        }
        let authority = match target {
            Target::Absolute { authority, .. } | Target::Authority(authority) => Some(authority),
            Target::Origin { .. } | Target::Asterisk => host,
        };
        Ok(Self {
            headers: Headers::from_parsed(raw, request.headers),
            method: Span::of(raw, method.as_bytes()),
            target_text: Span::of(raw, target_text.as_bytes()),
            target: Form::of(raw, &target),
            authority: authority.map(|a| Place::of(raw, &a)),
            version,
            framing: request_framing(method, &fields)?,
            keep_alive: fields.persistent(version),
            expect_continue: fields.awaits_continue(version),
            upgrade: fields
                .upgrade_offered(version)
                .map(|value| Span::of(raw, value)),
        })
    }

    /// The method as written. Methods are case-sensitive (RFC 9110 §9.1), yet some servers fold
    /// case: a rule that denies should not be avoidable by `delete`.
    pub fn method(&self) -> &str {
        self.method.text(self.headers.store())
    }

    /// The target in its form.
    pub fn target(&self) -> Target<'_> {
        self.target.borrow(self.headers.store())
    }

    /// The target as written.
    pub fn target_text(&self) -> &str {
        self.target_text.text(self.headers.store())
    }

    /// The place that the request is for: the target's authority where it has one, else `Host`.
    /// They agree where both are there. `None` only for HTTP/1.0 without `Host`.
    pub fn authority(&self) -> Option<Authority<'_>> {
        self.authority
            .map(|place| place.borrow(self.headers.store()))
    }

    /// The version of the request.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where the request's body ends (RFC 9112 §6.3); never [`BodyFraming::UntilClose`].
    pub fn framing(&self) -> BodyFraming {
        self.framing
    }

    /// Whether the client keeps the connection open after the answer (RFC 9112 §9.3).
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    /// A final answer without that 100 leaves open whether the body follows: close after it.
    pub fn expect_continue(&self) -> bool {
        self.expect_continue
    }

    /// The protocols that the client offers to switch to, as written in the first `Upgrade`, if
    /// `Connection` names it (RFC 9110 §7.8). A 101 without this is to be refused; `h2c` switches
    /// to a protocol that must be read as well, or not let through.
    pub fn upgrade(&self) -> Option<&str> {
        self.upgrade.map(|span| span.text(self.headers.store()))
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The header fields, to edit what goes upstream. The head's readings (`framing`,
    /// `keep_alive`, `authority`) keep what was read: do not edit the fields behind them.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// Where the path begins in the target as written; `None` where it has none.
    pub fn path_start(&self) -> Option<usize> {
        let written = self.target_text();
        match self.target() {
            Target::Origin { .. } => Some(0),
            Target::Absolute { .. } => {
                let authority = written.find("://")?.saturating_add(3);
                let path = written.get(authority..)?.find(['/', '?'])?;
                Some(authority.saturating_add(path))
            }
            Target::Authority(_) | Target::Asterisk => None,
        }
    }

    /// Replaces the target that goes upstream. The head's reading of it ([`RequestHead::target`]) keeps what was read.
    ///
    /// # Errors
    /// It holds a space or control, or the head would grow too large.
    pub fn set_target_text(&mut self, target: &str) -> Result<(), HeaderEditError> {
        if target.is_empty() || target.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(HeaderEditError::Value);
        }
        self.target_text = self.headers.keep(target)?;
        Ok(())
    }

    /// Frames the body that goes upstream in chunks, which HTTP/1.0 does not know; the one that comes is framed as before.
    ///
    /// # Errors
    /// Only where earlier edits have used up the room for more.
    pub fn send_in_chunks(&mut self) -> Result<(), HeaderEditError> {
        self.headers.remove("content-length");
        self.headers.set("Transfer-Encoding", b"chunked")
    }

    /// Makes this the last request of the connection (RFC 9112 §9.6).
    ///
    /// # Errors
    /// Only where earlier edits have used up the room for more.
    pub fn set_close(&mut self) -> Result<(), HeaderEditError> {
        self.keep_alive = false;
        self.headers.set_close()
    }

    /// The head as it was read, if nobody edited it: it can be sent from here without a copy.
    pub fn raw(&self) -> Option<&[u8]> {
        self.headers.raw()
    }

    /// Appends the head to `out`: as read if nobody edited it, else line by line.
    pub fn write_to(&self, out: &mut BytesMut) {
        if let Some(raw) = self.raw() {
            return out.put_slice(raw);
        }
        out.put_slice(self.method().as_bytes());
        out.put_slice(b" ");
        out.put_slice(self.target_text().as_bytes());
        out.put_slice(b" ");
        out.put_slice(self.version.as_str().as_bytes());
        out.put_slice(b"\r\n");
        self.headers.write_to(out);
    }
}

/// Exactly one valid `Host` in HTTP/1.1, at most one in HTTP/1.0 (RFC 9112 §3.2).
fn read_host<'a>(
    version: Version,
    fields: &Fields<'a>,
) -> Result<Option<Authority<'a>>, HeadError> {
    if fields.host_repeated {
        return Err(HeadError::HostRepeated);
    }
    let Some(value) = fields.host else {
        return if version == Version::Http10 {
            Ok(None)
        } else {
            Err(HeadError::HostMissing)
        };
    };
    let text = std::str::from_utf8(value).map_err(|_| HeadError::HostInvalid)?;
    Authority::parse(text)
        .map(Some)
        .ok_or(HeadError::HostInvalid)
}

/// RFC 9112 §6.3 rules 5 to 8 for requests. CONNECT has no content (RFC 9110 §9.3.6): bytes after
/// its head belong to the tunnel, so an announced body would be read in two ways. TRACE must have none
/// (§9.3.8), and servers that know it look for none.
fn request_framing(method: &str, fields: &Fields<'_>) -> Result<BodyFraming, HeadError> {
    match (method, fields.announced()) {
        ("CONNECT" | "TRACE", Some(BodyFraming::Length(0)) | None) => Ok(BodyFraming::None),
        ("CONNECT" | "TRACE", Some(_)) => Err(HeadError::BodyNotAllowed),
        (_, announced) => Ok(announced.unwrap_or(BodyFraming::None)),
    }
}

impl Form {
    fn of(raw: &[u8], target: &Target<'_>) -> Self {
        let span = |text: &str| Span::of(raw, text.as_bytes());
        match *target {
            Target::Origin { path, query } => Self::Origin {
                path: span(path),
                query: query.map(span),
            },
            Target::Absolute {
                scheme,
                authority,
                path,
                query,
            } => Self::Absolute {
                scheme,
                authority: Place::of(raw, &authority),
                path: span(path),
                query: query.map(span),
            },
            Target::Authority(authority) => Self::Authority(Place::of(raw, &authority)),
            Target::Asterisk => Self::Asterisk,
        }
    }

    fn borrow(self, store: &[u8]) -> Target<'_> {
        match self {
            Self::Origin { path, query } => Target::Origin {
                path: path.text(store),
                query: query.map(|q| q.text(store)),
            },
            Self::Absolute {
                scheme,
                authority,
                path,
                query,
            } => Target::Absolute {
                scheme,
                authority: authority.borrow(store),
                path: path.text(store),
                query: query.map(|q| q.text(store)),
            },
            Self::Authority(place) => Target::Authority(place.borrow(store)),
            Self::Asterisk => Target::Asterisk,
        }
    }
}

impl Place {
    fn of(raw: &[u8], authority: &Authority<'_>) -> Self {
        Self {
            host: Span::of(raw, authority.host.as_bytes()),
            port: authority.port,
        }
    }

    fn borrow(self, store: &[u8]) -> Authority<'_> {
        Authority {
            host: self.host.text(store),
            port: self.port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RequestHead {
        let (head, used) = parse_request(text.as_bytes()).unwrap().unwrap();
        assert_eq!(used, text.len());
        head
    }

    #[test]
    fn a_plain_get_is_read_and_written_back_byte_for_byte() {
        let text = "GET /a?b=c HTTP/1.1\r\nhOsT:   x.internal:81  \r\nX-A:\r\nX-a: \"q\"\r\n\r\n";
        let head = parse(text);
        assert_eq!(head.method(), "GET");
        assert_eq!(
            head.target(),
            Target::Origin {
                path: "/a",
                query: Some("b=c")
            }
        );
        assert_eq!(
            head.authority(),
            Some(Authority {
                host: "x.internal",
                port: Some(81)
            })
        );
        assert_eq!(head.framing(), BodyFraming::None);
        assert!(head.keep_alive() && !head.expect_continue());
        let mut out = BytesMut::new();
        head.write_to(&mut out);
        assert_eq!(out, text.as_bytes());
        assert_eq!(head.raw(), Some(text.as_bytes()));
    }

    #[test]
    fn an_edited_head_keeps_its_start_line_and_other_lines() {
        let mut head =
            parse("GET http://a HTTP/1.1\r\nHOST: a:80\r\nAccept-Encoding: compress\r\n\r\n");
        head.headers_mut().narrow_accept_encoding().unwrap();
        head.set_close().unwrap();
        let mut out = BytesMut::new();
        head.write_to(&mut out);
        let expected = "GET http://a HTTP/1.1\r\nHOST: a:80\r\nAccept-Encoding: identity\r\n\
                        Connection: close\r\n\r\n";
        assert_eq!(out, expected.as_bytes());
        assert!(!head.keep_alive());
        assert_eq!(head.raw(), None);
        assert_eq!(head.target().path(), "/");
    }

    #[test]
    fn one_empty_line_before_a_request_is_skipped_and_a_second_refused() {
        let text = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        let (head, used) = parse_request(text).unwrap().unwrap();
        assert_eq!(used, text.len() - 4);
        assert!(head.raw().unwrap().starts_with(b"GET"));
        assert_eq!(
            parse_request(b"\r\n\r\nGET").unwrap_err(),
            HeadError::LineEnding
        );
        assert_eq!(parse_request(b"\nGET").unwrap_err(), HeadError::LineEnding);
        assert!(parse_request(b"\r").unwrap().is_none());
    }

    #[test]
    fn an_upgrade_counts_only_where_connection_names_it() {
        let with =
            parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(with.upgrade(), Some("websocket"));
        let without = parse("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(without.upgrade(), None);
    }

    #[test]
    fn http_1_0_closes_by_default_and_needs_no_host() {
        let head = parse("GET / HTTP/1.0\r\n\r\n");
        assert!(!head.keep_alive());
        assert_eq!(head.authority(), None);
        assert!(parse("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive());
    }

    #[test]
    fn connect_names_its_authority_and_has_no_body() {
        let head = parse("CONNECT a.b:443 HTTP/1.1\r\nHost: a.b\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            head.authority(),
            Some(Authority {
                host: "a.b",
                port: Some(443)
            })
        );
        assert_eq!(head.framing(), BodyFraming::None);
    }

    #[test]
    fn a_head_at_the_bound_is_refused_as_soon_as_the_bound_is_reached() {
        let mut buf = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
        buf.resize(super::super::limits::MAX_HEAD_BYTES - 1, b'a');
        assert!(parse_request(&buf).unwrap().is_none());
        buf.push(b'a');
        assert_eq!(parse_request(&buf).unwrap_err(), HeadError::TooLarge);
        buf.extend_from_slice(b"\r\n\r\n");
        assert_eq!(parse_request(&buf).unwrap_err(), HeadError::TooLarge);
    }
}
