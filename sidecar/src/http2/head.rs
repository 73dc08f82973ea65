//! The head of an HTTP/2 request, read once (RFC 9113 §8.3.1).
//!
//! Refuses heads that name two places, or none: what is judged must be what the upstream reads. Field names and values, pseudo-header fields and their order were checked by
//! the codec before. Invariant: the head that goes upstream has the authority, path and fields that the view showed.

use chaperone_crds::{decide::HeaderFields, record::MaskedInfo};
use h2::ext::Protocol;
use http::{
    HeaderMap, Method, Request, Uri, Version,
    header::{self, HeaderName, HeaderValue},
    request::Parts,
    uri,
};

use crate::{
    body::{
        BodyFilter, Changed, Edit, Leaving, MASKED_REQUEST_FIELDS, Outgoing, Unreadable,
        readable_only, strong_again,
    },
    http::view::{Proxied, RequestView, scheme},
    http1::Authority,
    websocket::Offer,
};

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// Neither `:authority` nor `host`.
    #[error("the request names no authority")]
    NoAuthority,
    /// An authority that is none.
    #[error("the authority is not a host with an optional port")]
    Authority,
    /// More than one `host`.
    #[error("there is more than one host field")]
    HostRepeated,
    /// `host` is not `:authority`.
    #[error("the host field is not the authority of the request")]
    HostDiffers,
    /// A path that does not begin with a slash.
    #[error("the path does not begin with a slash")]
    Path,
    /// More than one `content-length`.
    #[error("there is more than one content-length field")]
    LengthRepeated,
    /// A field that a server which takes `_` for `-` reads as one of framing.
    #[error("a field name looks like that of a framing field")]
    Lookalike,
    /// A body where none may be (RFC 9110 §9.3.8).
    #[error("TRACE has no body")]
    BodyNotAllowed,
}

impl HeadError {
    /// The word in records.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NoAuthority => "host-missing",
            Self::Authority => "host-invalid",
            Self::HostRepeated => "host-repeated",
            Self::HostDiffers => "host-mismatch",
            Self::Path => "target",
            Self::LengthRepeated => "content-length",
            Self::Lookalike => "framing_lookalike",
            Self::BodyNotAllowed => "body_not_allowed",
        }
    }
}

/// Names of framing fields as servers behind a translation to CGI's variables might read them (RFC 3875 §4.1.18).
const LOOKALIKES: [&str; 2] = ["content_length", "transfer_encoding"];

/// Fields as policy and records read them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) HeaderMap);

impl HeaderFields for Fields {
    fn fields(&self) -> Box<dyn Iterator<Item = (&str, &[u8])> + '_> {
        Box::new(
            self.0
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_bytes())),
        )
    }
}

/// What a request became on its way out.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    /// Filters the body.
    pub(crate) filter: Option<Box<BodyFilter>>,
    /// Why the body leaves unmasked where it should have been masked (Audit).
    pub(crate) unmasked: Option<Unreadable>,
    /// What masks found in the head.
    pub(crate) findings: Vec<MaskedInfo>,
}

/// Why a request is not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    /// Its body must be masked and cannot be read.
    #[error(transparent)]
    Unreadable(Unreadable),
    /// What would take the place of a match or a token cannot stand in a head.
    #[error("the request head cannot be edited")]
    Edit,
}

/// A request head that names one place.
#[derive(Debug)]
pub(crate) struct Head {
    method: Method,
    scheme: uri::Scheme,
    authority: uri::Authority,
    /// Host of the authority, as written.
    host: String,
    path: Option<uri::PathAndQuery>,
    protocol: Option<Protocol>,
    fields: Fields,
    body_size: Option<u64>,
}

impl Head {
    /// Reads a head. `secure`: it came over TLS. `ended`: no body follows.
    ///
    /// # Errors
    /// As [`HeadError`].
    pub(crate) fn read(mut parts: Parts, secure: bool, ended: bool) -> Result<Self, HeadError> {
        let uri = parts.uri.into_parts();
        let authority = authority(uri.authority, &parts.headers)?;
        let host = Authority::parse(authority.as_str())
            .ok_or(HeadError::Authority)?
            .host
            .to_owned();
        let protocol = parts.extensions.remove::<Protocol>();
        let tunnel = parts.method == Method::CONNECT && protocol.is_none();
        let path = uri.path_and_query.filter(|_| !tunnel);
        let written = path.as_ref().map_or("/", uri::PathAndQuery::as_str);
        let asterisk = written == "*" && parts.method == Method::OPTIONS;
        if !written.starts_with('/') && !asterisk {
            return Err(HeadError::Path);
        }
        if LOOKALIKES
            .iter()
            .any(|name| parts.headers.contains_key(*name))
        {
            return Err(HeadError::Lookalike);
        }
        if parts.method == Method::TRACE && !ended {
            return Err(HeadError::BodyNotAllowed);
        }
        Ok(Self {
            body_size: body_size(&parts.headers, ended)?,
            method: parts.method,
            scheme: match secure {
                true => uri::Scheme::HTTPS,
                false => uri::Scheme::HTTP,
            },
            authority,
            host,
            path,
            protocol,
            fields: Fields(parts.headers),
        })
    }

    /// What judging and recording see of it. The scheme is the connection's: what the agent writes there proves nothing.
    pub(crate) fn view(&self, secure: bool) -> RequestView<'_> {
        RequestView {
            method: self.method.as_str(),
            scheme: scheme(secure),
            host: Some(&self.host),
            path: self.path.as_ref().map_or("", uri::PathAndQuery::path),
            query: self.path.as_ref().and_then(uri::PathAndQuery::query),
            fields: &self.fields,
            body_size: self.body_size,
            proxied: self.named_port().map(|port| Proxied { port, scheme: None }),
        }
    }

    /// The port of the place that a proxy is asked for: of CONNECT without a protocol (RFC 9113 §8.5).
    fn named_port(&self) -> Option<u16> {
        let plain = self.is_connect() && self.protocol.is_none();
        let authority = Authority::parse(self.authority.as_str()).filter(|_| plain);
        authority.and_then(|authority| authority.port)
    }

    /// Whether it asks for a tunnel: CONNECT, extended (RFC 8441) or not.
    pub(crate) fn is_connect(&self) -> bool {
        self.method == Method::CONNECT
    }

    /// The offer of a WebSocket handshake (RFC 8441).
    pub(crate) fn offer(&self) -> Option<Offer> {
        if self.protocol.as_ref()?.as_str() != "websocket" {
            return None;
        }
        let values = |name: &str| {
            let all = self.fields.0.get_all(name).into_iter();
            all.map(HeaderValue::as_bytes)
        };
        Offer::extended(
            values("sec-websocket-version"),
            values("sec-websocket-extensions"),
        )
    }

    /// Value of `Content-Type`; empty where there is none.
    pub(crate) fn content_type(&self) -> &str {
        let value = self.fields.0.get(header::CONTENT_TYPE);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Whether the answer to it has no body.
    pub(crate) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether the agent waits for 100 Continue (RFC 9110 §10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        self.fields
            .0
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }

    /// Edits the fields so that the answer can be read. `masked`: masks apply to it. `continued`: the agent was told 100 Continue. `offer`: of WebSocket, whose extensions that are not
    /// read are not offered.
    pub(crate) fn edit(&mut self, masked: bool, continued: bool, offer: Option<&Offer>) {
        let fields = &mut self.fields.0;
        if masked {
            narrow(fields);
        }
        if continued {
            fields.remove(header::EXPECT);
        }
        if let Some(offer) = offer {
            let offered = offer.extensions.as_ref();
            match offered.and_then(|offered| HeaderValue::from_str(offered).ok()) {
                Some(offered) => {
                    fields.insert(header::SEC_WEBSOCKET_EXTENSIONS, offered);
                }
                None => {
                    fields.remove(header::SEC_WEBSOCKET_EXTENSIONS);
                }
            }
        }
    }

    /// Masks what leaves, and makes tokens values again where policy says so. Returns the filter for the body.
    ///
    /// # Errors
    /// A body that must be masked and cannot be read, in Enforce; or a value that no head can hold, in words.
    pub(crate) fn rewrite(
        &mut self,
        outgoing: &Outgoing,
        strict: bool,
    ) -> Result<Rewritten, Unsent> {
        let body = match self.body_size {
            Some(0) => Leaving::Pass,
            // What follows is no body.
            _ if self.is_connect() => Leaving::Pass,
            _ => outgoing.body(&self.fields, strict),
        };
        let path = self.path.as_ref().map(uri::PathAndQuery::as_str);
        if let Some(path) = path.and_then(|path| outgoing.path(path)) {
            self.path = Some(path.parse().map_err(|_| Unsent::Edit)?);
        }
        let (changed, findings) = outgoing.fields(&self.fields);
        replace(&mut self.fields.0, changed).map_err(|_| Unsent::Edit)?;
        match body {
            Leaving::Pass => Ok(Rewritten {
                findings,
                ..Rewritten::default()
            }),
            Leaving::PassUnread(why) => Ok(Rewritten {
                filter: None,
                unmasked: Some(why),
                findings,
            }),
            Leaving::Refuse(why) => Err(Unsent::Unreadable(why)),
            Leaving::Filter(edits, filter) => {
                for edit in edits {
                    if let Edit::Remove(name) = edit {
                        self.fields.0.remove(name.as_str());
                    }
                }
                self.fields.0.remove(header::CONTENT_LENGTH);
                Ok(Rewritten {
                    filter: Some(filter),
                    unmasked: None,
                    findings,
                })
            }
        }
    }

    /// The request as it goes upstream. The view is gone by then, so fields are moved.
    pub(crate) fn take_request(&mut self) -> Result<Request<()>, http::Error> {
        let mut parts = uri::Parts::default();
        parts.authority = Some(self.authority.clone());
        if let Some(path) = &self.path {
            parts.path_and_query = Some(path.clone());
            parts.scheme = Some(self.scheme.clone());
        }
        let mut request = Request::new(());
        *request.version_mut() = Version::HTTP_2;
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.headers_mut() = std::mem::take(&mut self.fields.0);
        if let Some(protocol) = self.protocol.take() {
            request.extensions_mut().insert(protocol);
        }
        Ok(request)
    }
}

/// Replaces fields by others of the same names.
///
/// # Errors
/// A value that no head can hold.
pub(crate) fn replace(fields: &mut HeaderMap, changed: Changed) -> Result<(), http::Error> {
    for (name, values) in changed {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        fields.remove(&name);
        for value in values {
            fields.append(&name, HeaderValue::from_bytes(&value)?);
        }
    }
    Ok(())
}

/// Asks for an answer that masks can read: whole, and under codings that are read. Entity tags that were weakened on the way in match again.
fn narrow(fields: &mut HeaderMap) {
    let joined: Vec<&[u8]> = fields
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let readable = readable_only(&joined.join(&b", "[..]));
    if let Some(readable) = readable.and_then(|value| HeaderValue::from_bytes(&value).ok()) {
        fields.insert(header::ACCEPT_ENCODING, readable);
    }
    for name in MASKED_REQUEST_FIELDS {
        fields.remove(name);
    }
    let tags = fields.get(header::IF_MATCH).map(HeaderValue::as_bytes);
    let strong = tags.and_then(strong_again);
    if let Some(strong) = strong.and_then(|value| HeaderValue::from_bytes(&value).ok()) {
        fields.insert(header::IF_MATCH, strong);
    }
}

/// `:authority`, which `host` must not contradict; or `host` where there is none (RFC 9113 §8.3.1).
fn authority(
    named: Option<uri::Authority>,
    fields: &HeaderMap,
) -> Result<uri::Authority, HeadError> {
    let mut hosts = fields.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadError::HostRepeated);
    }
    match (named, host) {
        (Some(authority), None) => Ok(authority),
        (Some(authority), Some(host)) => {
            let same = host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes());
            same.then_some(authority).ok_or(HeadError::HostDiffers)
        }
        (None, Some(host)) => {
            uri::Authority::try_from(host.as_bytes()).map_err(|_| HeadError::Authority)
        }
        (None, None) => Err(HeadError::NoAuthority),
    }
}

/// Length of the body, where the head says it. The codec holds the body to it.
fn body_size(fields: &HeaderMap, ended: bool) -> Result<Option<u64>, HeadError> {
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(HeadError::LengthRepeated);
    }
    if ended {
        return Ok(Some(0));
    }
    Ok(length
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: http::request::Builder) -> Result<Head, HeadError> {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Head::read(parts, true, true)
    }

    #[test]
    fn a_head_is_forwarded_as_it_was_judged() {
        let request = Request::get("https://api.example.com:8443/a%2Fb?c=d").header("x-a", "1");
        let mut head = read(request).unwrap();
        let view = head.view(true);
        assert_eq!(
            (
                view.method,
                view.scheme,
                view.host,
                view.path,
                view.query,
                view.body_size
            ),
            (
                "GET",
                "https",
                Some("api.example.com"),
                "/a%2Fb",
                Some("c=d"),
                Some(0)
            )
        );
        let sent = head.take_request().unwrap();
        assert_eq!(sent.uri(), "https://api.example.com:8443/a%2Fb?c=d");
        assert_eq!(sent.headers()["x-a"], "1");
    }

    #[test]
    fn a_host_field_stands_in_for_an_authority_and_never_contradicts_it() {
        let only_host = Request::get("/a").header("host", "api.example.com");
        let mut head = read(only_host).unwrap();
        assert_eq!(
            head.take_request().unwrap().uri(),
            "https://api.example.com/a"
        );
        let get = || Request::get("https://api.example.com/a");
        assert!(read(get().header("host", "API.example.com")).is_ok());
        for (request, error) in [
            (
                get().header("host", "other.example.com"),
                HeadError::HostDiffers,
            ),
            (
                get()
                    .header("host", "api.example.com")
                    .header("host", "api.example.com"),
                HeadError::HostRepeated,
            ),
            (Request::get("/a"), HeadError::NoAuthority),
            (
                Request::get("https://user@api.example.com/a"),
                HeadError::Authority,
            ),
            (
                get()
                    .header("content-length", "1")
                    .header("content-length", "1"),
                HeadError::LengthRepeated,
            ),
        ] {
            assert_eq!(read(request).unwrap_err(), error);
        }
    }

    #[test]
    fn connect_has_an_authority_alone_and_extended_connect_a_path_too() {
        let mut plain = read(Request::connect("db.example.com:5432")).unwrap();
        assert_eq!((plain.view(true).path, plain.is_connect()), ("", true));
        assert_eq!(plain.take_request().unwrap().uri(), "db.example.com:5432");
        let extended = Request::connect("https://api.example.com/chat")
            .extension(Protocol::from_static("websocket"));
        let mut extended = read(extended).unwrap();
        assert_eq!(extended.view(true).path, "/chat");
        let sent = extended.take_request().unwrap();
        assert_eq!(
            sent.extensions().get::<Protocol>().unwrap().as_str(),
            "websocket"
        );
    }
}
