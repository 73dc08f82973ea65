//! Response heads (RFC 9112 §4).

use std::mem::MaybeUninit;

use bytes::{BufMut, BytesMut};

use super::error::HeadError;
use super::fields::Fields;
use super::head::{bounded, explain, need_more, require_crlf};
use super::headers::{HeaderEditError, Headers};
use super::limits::MAX_HEADERS;
use super::span::Span;
use super::{BodyFraming, Version};

/// Fields that hold a digest of the body as the origin wrote it (RFC 9530, RFC 1864): they are
/// false once the body is masked.
const BODY_DIGESTS: [&str; 4] = ["Content-MD5", "Digest", "Content-Digest", "Repr-Digest"];

/// A response head that has exactly one reading.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    headers: Headers,
    status: u16,
    start_line: Span,
    version: Version,
    framing: BodyFraming,
    keep_alive: bool,
    upgrade: Option<Span>,
    tunnel: bool,
}

/// Parses a response head from the beginning of `buf`; `request_method` is the method it answers,
/// which decides whether a body follows (RFC 9112 §6.3).
///
/// Returns as [`super::parse_request`] does, except that no empty line may precede a response.
/// After a head that [`ResponseHead::is_interim`], another one answers the same request.
///
/// # Errors
/// As for requests; whatever the cause, the agent's answer is 502.
pub fn parse_response(
    buf: &[u8],
    request_method: &str,
) -> Result<Option<(ResponseHead, usize)>, HeadError> {
    let buf = bounded(buf);
    if matches!(buf.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::LineEnding);
    }
    let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut response, buf, &mut slots);
    let used = match parsed {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) => return need_more(buf),
        Err(error) => return Err(explain(error, buf)),
    };
    let raw = buf.get(..used).unwrap_or_default();
    let head = ResponseHead::from_parsed(raw, &response, request_method)?;
    Ok(Some((head, used)))
}

impl ResponseHead {
    fn from_parsed(
        raw: &[u8],
        response: &httparse::Response<'_, '_>,
        request_method: &str,
    ) -> Result<Self, HeadError> {
        require_crlf(raw)?;
        let version = match response.version {
            Some(0) => Version::Http10,
            Some(1) => Version::Http11,
            _ => return Err(HeadError::Version),
        };
        let status = response
            .code
            .filter(|code| *code >= 100)
            .ok_or(HeadError::StatusLine)?;
        let fields = Fields::read(version, response.headers)?;
        let framing = response_framing(status, request_method, &fields)?;
        let line_end = memchr::memchr(b'\r', raw).unwrap_or_default();
        Ok(Self {
            headers: Headers::from_parsed(raw, response.headers),
            status,
            start_line: Span::of(raw, raw.get(..line_end).unwrap_or_default()),
            version,
            framing,
            keep_alive: fields.persistent(version) && framing != BodyFraming::UntilClose,
            upgrade: fields
                .upgrade_offered(version)
                .map(|value| Span::of(raw, value)),
            tunnel: status == 101 || opens_tunnel(status, request_method),
        })
    }

    /// The status code, 100 to 999. Codes above 599 are no status of HTTP, but are seen and
    /// handled as 5xx by clients (RFC 9110 §15).
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase as written, often empty; any bytes but controls (RFC 9112 §4).
    pub fn reason(&self) -> &[u8] {
        let line = self.start_line.bytes(self.headers.store());
        line.get("HTTP/1.1 200 ".len()..).unwrap_or_default()
    }

    /// The version of the response.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where the response's body ends (RFC 9112 §6.3).
    pub fn framing(&self) -> BodyFraming {
        self.framing
    }

    /// Whether the server keeps the connection open after this response.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether another head for the same request follows: 1xx other than 101
    /// (RFC 9110 §15.2).
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Whether HTTP/1.x ends with this head: a 101, or the 2xx of a CONNECT (RFC 9112 §6.3
    /// rule 2). All that follows belongs to the other protocol. A 101 that the request did not
    /// ask for is to be refused.
    pub fn switches(&self) -> bool {
        self.tunnel
    }

    /// The protocol switched to, as written in `Upgrade`, if `Connection` names it.
    pub fn upgrade(&self) -> Option<&str> {
        self.upgrade.map(|span| span.text(self.headers.store()))
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The header fields, to edit what goes to the agent; see [`super::RequestHead::headers_mut`].
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// Makes this the last response of the connection (RFC 9112 §9.6).
    ///
    /// # Errors
    /// Only where earlier edits have used up the room for more.
    pub fn set_close(&mut self) -> Result<(), HeaderEditError> {
        self.keep_alive = false;
        self.headers.set_close()
    }

    /// Prepares the head for a body whose length will change: digests go, and the body becomes
    /// chunked, or runs until close for an HTTP/1.0 client, which knows no chunks
    /// (RFC 9112 §7, §6.1). Responses without a body stay as they are. Returns the framing to
    /// write. Parse the upstream's body by the framing from before this call.
    ///
    /// # Errors
    /// Only where earlier edits have used up the room for more.
    pub fn reframe(&mut self, client: Version) -> Result<BodyFraming, HeaderEditError> {
        if self.framing == BodyFraming::None {
            return Ok(self.framing);
        }
        for digest in BODY_DIGESTS {
            self.headers.remove(digest);
        }
        self.headers.remove("Content-Length");
        if client == Version::Http11 && self.version == Version::Http11 {
            self.framing = BodyFraming::Chunked;
            self.headers.set("Transfer-Encoding", b"chunked")?;
        } else {
            self.framing = BodyFraming::UntilClose;
            self.headers.remove("Transfer-Encoding");
            self.set_close()?;
        }
        Ok(self.framing)
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
        out.put_slice(self.start_line.bytes(self.headers.store()));
        out.put_slice(b"\r\n");
        self.headers.write_to(out);
    }
}

fn opens_tunnel(status: u16, request_method: &str) -> bool {
    request_method == "CONNECT" && (200..300).contains(&status)
}

/// RFC 9112 §6.3. Stricter where clients are known to differ: 1xx and 204 that announce a body
/// are refused, since §6.1 and RFC 9110 §8.6 forbid it and some clients would wait for it.
fn response_framing(
    status: u16,
    request_method: &str,
    fields: &Fields<'_>,
) -> Result<BodyFraming, HeadError> {
    let announced = fields.announced();
    if status < 200 || status == 204 {
        return match announced {
            None | Some(BodyFraming::Length(0)) => Ok(BodyFraming::None),
            Some(_) => Err(HeadError::BodyNotAllowed),
        };
    }
    // Rules 1 and 2: what is announced describes another response, or must be ignored.
    if request_method == "HEAD" || status == 304 || opens_tunnel(status, request_method) {
        return Ok(BodyFraming::None);
    }
    Ok(announced.unwrap_or(BodyFraming::UntilClose))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, method: &str) -> Result<ResponseHead, HeadError> {
        let parsed = parse_response(text.as_bytes(), method)?;
        let (head, used) = parsed.expect("complete");
        assert_eq!(used, text.len());
        Ok(head)
    }

    #[test]
    fn the_end_of_a_body_follows_method_status_and_fields() {
        let cases = [
            ("GET", "200", "", BodyFraming::UntilClose),
            (
                "GET",
                "200",
                "Content-Length: 3\r\n",
                BodyFraming::Length(3),
            ),
            (
                "GET",
                "200",
                "Transfer-Encoding: Chunked\r\n",
                BodyFraming::Chunked,
            ),
            ("HEAD", "200", "Content-Length: 3\r\n", BodyFraming::None),
            (
                "HEAD",
                "200",
                "Transfer-Encoding: chunked\r\n",
                BodyFraming::None,
            ),
            ("GET", "304", "Content-Length: 3\r\n", BodyFraming::None),
            ("GET", "204", "", BodyFraming::None),
            ("GET", "204", "Content-Length: 0\r\n", BodyFraming::None),
            ("GET", "100", "", BodyFraming::None),
            ("CONNECT", "200", "Content-Length: 3\r\n", BodyFraming::None),
            (
                "CONNECT",
                "407",
                "Content-Length: 3\r\n",
                BodyFraming::Length(3),
            ),
        ];
        for (method, status, fields, framing) in cases {
            let head = parse(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n"), method).unwrap();
            assert_eq!(head.framing(), framing, "{method} {status} {fields}");
        }
    }

    #[test]
    fn a_body_announced_where_none_may_be_is_refused() {
        for (status, field) in [
            ("204", "Content-Length: 1"),
            ("204", "Transfer-Encoding: chunked"),
            ("103", "Content-Length: 9"),
        ] {
            let text = format!("HTTP/1.1 {status} X\r\n{field}\r\n\r\n");
            assert_eq!(
                parse(&text, "GET").unwrap_err(),
                HeadError::BodyNotAllowed,
                "{text}"
            );
        }
    }

    #[test]
    fn interim_and_switching_responses_are_told_apart() {
        let early = parse("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "GET").unwrap();
        assert!(early.is_interim() && !early.switches());
        let upgrade = "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        let switched = parse(upgrade, "GET").unwrap();
        assert!(!switched.is_interim() && switched.switches());
        assert_eq!(switched.upgrade(), Some("websocket"));
        assert!(
            parse("HTTP/1.1 200 OK\r\n\r\n", "CONNECT")
                .unwrap()
                .switches()
        );
        assert!(!parse("HTTP/1.1 200 OK\r\n\r\n", "GET").unwrap().switches());
    }

    #[test]
    fn reason_and_start_line_are_kept_as_written() {
        for (line, reason) in [
            ("HTTP/1.1 200 Fine \u{e9}", "Fine \u{e9}"),
            ("HTTP/1.0 404", ""),
            ("HTTP/1.1 200 ", ""),
        ] {
            let text = format!("{line}\r\nContent-Length: 1\r\n\r\n");
            let mut head = parse(&text, "GET").unwrap();
            assert_eq!(head.reason(), reason.as_bytes());
            head.set_close().unwrap();
            let mut out = BytesMut::new();
            head.write_to(&mut out);
            let expected = format!("{line}\r\nContent-Length: 1\r\nConnection: close\r\n\r\n");
            assert_eq!(out, expected.as_bytes());
        }
    }

    #[test]
    fn reframing_makes_the_body_chunked_and_drops_its_digests() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nDigest: x\r\nETag: \"a\"\r\n\r\n";
        let mut head = parse(text, "GET").unwrap();
        assert_eq!(head.reframe(Version::Http11), Ok(BodyFraming::Chunked));
        let mut out = BytesMut::new();
        head.write_to(&mut out);
        let expected = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(out, expected.as_bytes());
    }

    #[test]
    fn reframing_for_http_1_0_closes_and_leaves_bodiless_answers_alone() {
        let mut head = parse("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "GET").unwrap();
        assert_eq!(head.reframe(Version::Http10), Ok(BodyFraming::UntilClose));
        assert!(!head.keep_alive() && head.headers().has_token("connection", "close"));
        let mut head = parse("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD").unwrap();
        assert_eq!(head.reframe(Version::Http11), Ok(BodyFraming::None));
        assert!(head.raw().is_some());
    }

    #[test]
    fn status_lines_that_are_none_are_refused() {
        let cases = [
            ("HTTP/1.1 099 X\r\n\r\n", HeadError::StatusLine),
            ("HTTP/1.1 20 X\r\n\r\n", HeadError::StatusLine),
            ("HTTP/1.1 2000 X\r\n\r\n", HeadError::StatusLine),
            ("HTTP/1.1  200 X\r\n\r\n", HeadError::StatusLine),
            ("HTTP/1.1 200 a\u{1}\r\n\r\n", HeadError::StatusLine),
            ("HTTP/2.0 200 X\r\n\r\n", HeadError::Version),
            ("SSH-2.0-OpenSSH_9\r\n", HeadError::Version),
            ("\r\nHTTP/1.1 200 X\r\n\r\n", HeadError::LineEnding),
        ];
        for (text, error) in cases {
            let refused = parse_response(text.as_bytes(), "GET").unwrap_err();
            assert_eq!(refused, error, "{text}");
        }
    }
}
