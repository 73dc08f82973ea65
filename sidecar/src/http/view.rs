//! A request and a response as judging and recording see them, whatever version of HTTP carried them.
//!
//! Owns no bytes: views borrow from the version's own heads. Invariant: what policy judges and what the record says are the same view.

use chaperone_crds::decide::HeaderFields;

use crate::http1::{BodyFraming, Headers, RequestHead, ResponseHead, Scheme, Target};

/// The head of a request.
#[derive(Clone, Copy)]
pub(crate) struct RequestView<'a> {
    /// Method, as sent.
    pub(crate) method: &'a str,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// Host that the request names, as written, without port. `None`: it names none.
    pub(crate) host: Option<&'a str>,
    /// Path, as sent; empty for CONNECT, `*` for OPTIONS of the server itself.
    pub(crate) path: &'a str,
    /// Query, as sent, without its question mark.
    pub(crate) query: Option<&'a str>,
    /// Header fields.
    pub(crate) fields: &'a dyn HeaderFields,
    /// Length of the body in bytes, where it is known.
    pub(crate) body_size: Option<u64>,
    /// The place that it is for, where it has a form that proxies are sent.
    pub(crate) proxied: Option<Proxied>,
}

/// What a form of target for proxies names besides the host: a whole URL, or CONNECT (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// Port.
    pub(crate) port: u16,
    /// Scheme of the URL; `None` for CONNECT.
    pub(crate) scheme: Option<&'static str>,
}

impl<'a> RequestView<'a> {
    /// The view of an HTTP/1 head. `secure`: it came over TLS.
    pub(crate) fn of_http1(head: &'a RequestHead, secure: bool) -> Self {
        let (path, query) = match head.target() {
            Target::Origin { path, query } | Target::Absolute { path, query, .. } => (path, query),
            Target::Authority(_) => ("", None),
            Target::Asterisk => ("*", None),
        };
        Self {
            method: head.method(),
            scheme: scheme(secure),
            host: head.authority().map(|authority| authority.host),
            path,
            query,
            fields: head.headers(),
            body_size: match head.framing() {
                BodyFraming::None => Some(0),
                BodyFraming::Length(length) => Some(length),
                BodyFraming::Chunked | BodyFraming::UntilClose => None,
            },
            proxied: proxied(&head.target()),
        }
    }
}

/// The head of a response.
#[derive(Clone, Copy)]
pub(crate) struct ResponseView<'a> {
    /// Status code.
    pub(crate) status: u16,
    /// Header fields.
    pub(crate) fields: &'a dyn HeaderFields,
}

impl<'a> ResponseView<'a> {
    /// The view of an HTTP/1 head.
    pub(crate) fn of_http1(head: &'a ResponseHead) -> Self {
        Self {
            status: head.status(),
            fields: head.headers(),
        }
    }
}

fn proxied(target: &Target<'_>) -> Option<Proxied> {
    match target {
        Target::Absolute {
            scheme: written,
            authority,
            ..
        } => Some(Proxied {
            port: authority.port.unwrap_or(written.default_port()),
            scheme: Some(scheme(*written == Scheme::Https)),
        }),
        Target::Authority(authority) => authority.port.map(|port| Proxied { port, scheme: None }),
        Target::Origin { .. } | Target::Asterisk => None,
    }
}

/// The scheme that a connection has.
pub(crate) fn scheme(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

/// The first value of this name, where it is UTF-8.
pub(crate) fn field<'a>(fields: &'a dyn HeaderFields, name: &str) -> Option<&'a str> {
    fields
        .first(name)
        .and_then(|value| std::str::from_utf8(value).ok())
}

impl HeaderFields for Headers {
    fn fields(&self) -> Box<dyn Iterator<Item = (&str, &[u8])> + '_> {
        Box::new(self.iter())
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        self.get(name)
    }
}
