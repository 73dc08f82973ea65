//! The URL of a sink, taken apart once.

use hyper::{Uri, header::HeaderValue};

use crate::ClientError;

/// Where batches go.
#[derive(Debug)]
pub struct Endpoint {
    /// Whether it is reached over TLS.
    pub is_tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Value of `Host`.
    pub authority: HeaderValue,
    /// Path and query: the request's target.
    pub target: Uri,
}

impl Endpoint {
    /// Takes an `https://` or `http://` URL apart.
    ///
    /// # Errors
    /// [`ClientError::Settings`], without credentials that the URL may hold.
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let bad = |why: &str| ClientError::Settings(format!("url {url:?}: {why}"));
        let uri: Uri = url.parse().map_err(|e| bad(&format!("{e}")))?;
        let (is_tls, usual_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(bad("must start with https:// or http://")),
        };
        let authority = uri.authority().ok_or_else(|| bad("has no host"))?;
        if authority.as_str().contains('@') {
            // Not repeated in the message: it holds a credential.
            let why = "the url holds a user; use a bearer token instead";
            return Err(ClientError::Settings(why.to_owned()));
        }
        let target = uri.path_and_query().map_or("/", |p| p.as_str());
        Ok(Self {
            is_tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(usual_port),
            authority: HeaderValue::from_str(authority.as_str())
                .map_err(|_| bad("has a host that is no header value"))?,
            target: target
                .parse()
                .map_err(|_| bad("has a path that is no request target"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, tls, host, port, target) in [
            (
                "https://logs.example.com",
                true,
                "logs.example.com",
                443,
                "/",
            ),
            (
                "http://10.0.0.7:9000/in?t=a",
                false,
                "10.0.0.7",
                9000,
                "/in?t=a",
            ),
            ("https://[::1]:8443/x", true, "::1", 8443, "/x"),
        ] {
            let e = Endpoint::parse(url).unwrap();
            assert_eq!((e.is_tls, &*e.host, e.port), (tls, host, port), "{url}");
            assert_eq!(e.target.to_string(), target);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for url in [
            "",
            "logs.example.com",
            "ftp://x/",
            "https://",
            "https://a:b@c/",
        ] {
            let error = Endpoint::parse(url).unwrap_err();
            assert_eq!(error.reason(), "settings", "{url}");
            assert!(!error.to_string().contains("a:b@"), "{error}");
        }
    }
}
