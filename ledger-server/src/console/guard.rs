//! What a browser is told to refuse, and what is refused of a browser: functions of heads.

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
    response::Response,
};
use chaperone_console::link::ROOT;

/// Nothing but files, forms and answers of this origin; no script, style or picture that stands in the page.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
);
/// The others. The address of a page names sessions and hosts: no other origin is told it. Ours is, because browsers say `Origin: null` of a form otherwise.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
];

/// Adds them to each answer.
pub(super) async fn secure(mut response: Response) -> Response {
    let head = response.headers_mut();
    head.entry(CONTENT_SECURITY_POLICY).or_insert(POLICY);
    for (name, value) in HEADERS {
        head.insert(name, value);
    }
    let never = HeaderValue::from_static("no-store");
    head.entry(CACHE_CONTROL).or_insert(never);
    response
}

/// Whether a request that changes something comes from a page of ours. By `Sec-Fetch-Site`, which no page can set (W3C Fetch Metadata section 2.3); of browsers without it by `Origin`, which has to be there. Besides, the cookie is
/// `SameSite=Strict`: this is the second wall, and the only one before there is a cookie.
pub(super) fn is_same_origin(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if headers.contains_key("sec-fetch-site") {
        return headers
            .get("sec-fetch-site")
            .is_some_and(|v| v == "same-origin");
    }
    match (text(&ORIGIN), text(&HOST)) {
        (Some(origin), Some(host)) => origin
            .strip_prefix("https://")
            .is_some_and(|of| of.eq_ignore_ascii_case(host)),
        _ => false,
    }
}

/// A page of the console, whatever was asked for: a path that is none of ours is the first page.
pub(super) fn within(then: &str) -> String {
    let path = then.split('?').next().unwrap_or_default();
    let is_ours = path.strip_prefix(ROOT).is_some_and(|rest| {
        let is_of_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-');
        rest.starts_with('/') && !rest.starts_with("/log") && rest.bytes().all(is_of_path)
    });
    let is_plain = then.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    match is_ours && is_plain && then.len() <= 8192 {
        true => then.to_owned(),
        false => format!("{ROOT}/sessions"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(pairs: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        is_same_origin(&headers)
    }

    #[test]
    fn forms_come_from_pages_of_ours() {
        let host = ("host", "localhost:9445");
        assert!(says(&[host, ("sec-fetch-site", "same-origin")]));
        assert!(says(&[
            host,
            ("sec-fetch-site", "same-origin"),
            ("origin", "null")
        ]));
        assert!(says(&[host, ("origin", "https://localhost:9445")]));
        for other in ["cross-site", "same-site", "none", ""] {
            let own = ("origin", "https://localhost:9445");
            assert!(!says(&[host, own, ("sec-fetch-site", other)]), "{other}");
        }
        for other in [
            "https://localhost:9446",
            "http://localhost:9445",
            "https://localhost:9445.evil.example",
            "null",
        ] {
            assert!(!says(&[host, ("origin", other)]), "{other}");
        }
        assert!(!says(&[host]) && !says(&[("origin", "https://localhost:9445")]));
    }

    #[test]
    fn a_login_leads_to_pages_of_ours_alone() {
        for own in ["/console/session?id=a%2F..b", "/console/records/x/1"] {
            assert_eq!(within(own), own);
        }
        for other in [
            "",
            "//evil.example",
            "https://evil.example/console/",
            "/consoleevil",
            "/console/../v1",
            "/console/%2e%2e/v1",
            "/console/logout",
            "/console/\\evil",
            "/console/\r\nx: y",
            "/console/ü",
        ] {
            assert_eq!(within(other), "/console/sessions", "{other}");
        }
    }
}
