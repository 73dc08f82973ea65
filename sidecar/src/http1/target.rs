//! The request target and the authorities it may name (RFC 9112 §3.2, RFC 9110 §4.2, §7.2).

use std::net::Ipv6Addr;

use super::error::HeadError;
use super::limits::MAX_HOST_BYTES;

/// The four forms of a request target (RFC 9112 §3.2). Text is as written: nothing is decoded,
/// no dot segments are removed, since what is judged must be what is forwarded. Bytes above 0x7f
/// pass where they are UTF-8, as many clients write them; spaces, controls and `#` are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// `/path?query`: the usual form.
    Origin {
        /// From the leading `/` up to the `?`.
        path: &'a str,
        /// After the `?`, if there is one.
        query: Option<&'a str>,
    },
    /// `http://host/path?query`: what a client sends to a proxy it knows of.
    Absolute {
        /// `http` or `https`; any other is refused.
        scheme: Scheme,
        /// Host and port; user information is refused (RFC 9110 §4.2.4).
        authority: Authority<'a>,
        /// Empty or beginning with `/`. An empty one means `/`.
        path: &'a str,
        /// After the `?`, if there is one.
        query: Option<&'a str>,
    },
    /// `host:port`: CONNECT only, port required.
    Authority(Authority<'a>),
    /// `*`: OPTIONS only.
    Asterisk,
}

/// The scheme of an absolute-form target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `http`, default port 80.
    Http,
    /// `https`, default port 443.
    Https,
}

impl Scheme {
    /// The port that an authority without one means.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A host with an optional port, as in `Host`. The host is a name of letters, digits, `-`, `.`,
/// `_` and `~`, an IPv4 address, or an IPv6 address in its brackets; percent escapes and the
/// other characters that RFC 3986 allows in names are refused, for no real host has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// As written, brackets included: `API.internal`, `10.0.0.1`, `[fd00::1]`.
    pub host: &'a str,
    /// 1 to 65535, if written.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Parses `host [":" port]`, or says no.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inside, after)) => {
                inside.parse::<Ipv6Addr>().ok()?;
                let host = text.get(..inside.len().checked_add(2)?)?;
                if after.is_empty() {
                    (host, None)
                } else {
                    (host, Some(after.strip_prefix(':')?))
                }
            }
            None => {
                let (host, port) = text
                    .split_once(':')
                    .map_or((text, None), |(h, p)| (h, Some(p)));
                (is_name(host).then_some(host)?, port)
            }
        };
        let port = match port {
            Some(digits) => Some(parse_port(digits)?),
            None => None,
        };
        Some(Self { host, port })
    }

    /// Whether two authorities are the same place, an absent port meaning `default_port`.
    pub fn same_as(&self, other: &Authority<'_>, default_port: u16) -> bool {
        self.host.eq_ignore_ascii_case(other.host)
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= MAX_HOST_BYTES
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
}

fn parse_port(digits: &str) -> Option<u16> {
    let plain =
        !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| digits.parse().ok())?
        .filter(|&port| port != 0)
}

impl<'a> Target<'a> {
    /// Parses a target for a method. `text` has no space or control in it: the tokenizer saw to it.
    pub(super) fn parse(method: &str, text: &'a str) -> Result<Self, HeadError> {
        if text.contains('#') {
            return Err(HeadError::Target);
        }
        if method == "CONNECT" {
            let authority = Authority::parse(text).filter(|a| a.port.is_some());
            return authority.map(Self::Authority).ok_or(HeadError::Target);
        }
        if text.starts_with('/') {
            let (path, query) = split_query(text);
            return Ok(Self::Origin { path, query });
        }
        if text == "*" && method == "OPTIONS" {
            return Ok(Self::Asterisk);
        }
        Self::parse_absolute(text).ok_or(HeadError::Target)
    }

    fn parse_absolute(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme {
            s if s.eq_ignore_ascii_case("http") => Scheme::Http,
            s if s.eq_ignore_ascii_case("https") => Scheme::Https,
            _ => return None,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end)?;
        let authority = Authority::parse(authority)?;
        let (path, query) = split_query(rest);
        Some(Self::Absolute {
            scheme,
            authority,
            path,
            query,
        })
    }

    /// The path as written; `/` where an absolute form leaves it empty, and empty for the
    /// authority and asterisk forms.
    pub fn path(&self) -> &'a str {
        match *self {
            Self::Origin { path, .. } => path,
            Self::Absolute { path: "", .. } => "/",
            Self::Absolute { path, .. } => path,
            Self::Authority(_) | Self::Asterisk => "",
        }
    }

    /// The query as written, without its `?`.
    pub fn query(&self) -> Option<&'a str> {
        match *self {
            Self::Origin { query, .. } | Self::Absolute { query, .. } => query,
            Self::Authority(_) | Self::Asterisk => None,
        }
    }

    /// Refuses a target that contradicts the `Host` field (RFC 9112 §3.2.2). For CONNECT a `Host`
    /// without port names the host alone, as many clients send it.
    pub(super) fn agree_with(&self, host: &Authority<'_>) -> Result<(), HeadError> {
        let agrees = match self {
            Self::Origin { .. } | Self::Asterisk => true,
            Self::Absolute {
                scheme, authority, ..
            } => authority.same_as(host, scheme.default_port()),
            Self::Authority(authority) => {
                authority.same_as(host, authority.port.unwrap_or_default())
            }
        };
        if agrees {
            Ok(())
        } else {
            Err(HeadError::HostMismatch)
        }
    }
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_names_or_addresses_with_an_optional_port() {
        let ok = [
            ("a", "a", None),
            ("API_x.internal:8080", "API_x.internal", Some(8080)),
            ("10.0.0.1:1", "10.0.0.1", Some(1)),
            ("[::1]", "[::1]", None),
            ("[fd00::1]:443", "[fd00::1]", Some(443)),
        ];
        for (text, host, port) in ok {
            assert_eq!(
                Authority::parse(text),
                Some(Authority { host, port }),
                "{text}"
            );
        }
        let long = "a".repeat(MAX_HOST_BYTES + 1);
        let refused = [
            "",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:1:2",
            "a b",
            "a,b",
            "u@a",
            "a/b",
            "a\\b",
            "a%2eb",
            "b\u{e4}r",
            "[::1",
            "::1",
            "[::1]x",
            "[::1%eth0]",
            "[]",
            "[a]",
            "a[::1]",
            &long,
        ];
        for text in refused {
            assert_eq!(Authority::parse(text), None, "{text}");
        }
    }

    #[test]
    fn targets_take_the_form_their_method_allows() {
        let origin = Target::parse("GET", "/a%2f../b?x=1?y").unwrap();
        assert_eq!(
            origin,
            Target::Origin {
                path: "/a%2f../b",
                query: Some("x=1?y")
            }
        );
        assert_eq!(Target::parse("OPTIONS", "*"), Ok(Target::Asterisk));
        let authority = Authority {
            host: "db.internal",
            port: Some(5432),
        };
        assert_eq!(
            Target::parse("CONNECT", "db.internal:5432"),
            Ok(Target::Authority(authority))
        );
        let absolute = Target::parse("GET", "HTTP://a:81?q").unwrap();
        assert_eq!((absolute.path(), absolute.query()), ("/", Some("q")));
    }

    #[test]
    fn targets_of_another_form_are_refused() {
        let cases = [
            ("GET", "*"),
            ("GET", "a:80"),
            ("GET", "a/b"),
            ("GET", "?q"),
            ("GET", "/a#b"),
            ("GET", "ftp://a/"),
            ("GET", "http://"),
            ("GET", "http:///x"),
            ("GET", "http://u:p@a/"),
            ("GET", "http://a#b"),
            ("CONNECT", "/"),
            ("CONNECT", "a"),
            ("CONNECT", "http://a:1/"),
            ("CONNECT", "*"),
            ("GET", "http:/a"),
            ("GET", "://a"),
        ];
        for (method, text) in cases {
            assert_eq!(
                Target::parse(method, text),
                Err(HeadError::Target),
                "{method} {text}"
            );
        }
    }
}
