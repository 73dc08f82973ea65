//! Paths and queries as policy sees them.
//!
//! A server may decode and simplify a path in its own way; a rule on `/admin` must not be passed by `/%61dmin`. So a path is decoded once, and
//! repeated slashes become one. What two servers read in two ways is a fault: `.` and `..` segments, escapes that are not UTF-8.

use std::borrow::Cow;

use super::facts::{Fault, Pairs};

/// Most query parameters that are looked at. More is a fault: a rule should not pay for what no real client sends.
const MAX_PARAMETERS: usize = 256;

/// Decodes escapes once (an encoded slash stays `%2F`), joins repeated slashes.
///
/// # Errors
/// A fault where the path has `.` or `..` segments, broken escapes, or is not UTF-8 once decoded.
pub(super) fn normalize(path: &str) -> Result<Cow<'_, str>, Fault> {
    if !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path, true)?;
    let mut normal = String::with_capacity(decoded.len());
    for c in decoded.chars() {
        if !(c == '/' && normal.ends_with('/')) {
            normal.push(c);
        }
    }
    if normal
        .split('/')
        .any(|segment| matches!(segment, "." | ".."))
    {
        return Err("http.path has . or .. segments, which servers resolve in different ways");
    }
    Ok(Cow::Owned(normal))
}

/// Splits a query into decoded names and values; `+` is a space.
///
/// # Errors
/// A fault for broken escapes, values that are not UTF-8, and more than [`MAX_PARAMETERS`].
pub(super) fn query(query: &str) -> Result<Pairs, Fault> {
    let mut pairs = Pairs::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        if pairs.len() >= MAX_PARAMETERS {
            return Err("http.query has too many parameters to be judged");
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        pairs.push((form(name)?, form(value)?));
    }
    Ok(pairs)
}

fn form(text: &str) -> Result<String, Fault> {
    decode(&text.replace('+', " "), false)
}

fn decode(text: &str, keep_slash: bool) -> Result<String, Fault> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = (rest.next().and_then(hex), rest.next().and_then(hex));
        let (Some(high), Some(low)) = (high, low) else {
            return Err("the URL has a % that is not followed by two hexadecimal digits");
        };
        match (high << 4) | low {
            b'/' if keep_slash => bytes.extend_from_slice(b"%2F"),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| "the URL is not UTF-8 once decoded")
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_decoded_once_and_its_slashes_joined() {
        let cases = [
            ("/v1/items", "/v1/items"),
            ("/%61dmin", "/admin"),
            ("//admin///x", "/admin/x"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%2fb", "/a%2Fb"),
            ("/%2561", "/%61"),
            ("/.well-known/x", "/.well-known/x"),
            ("/caf%C3%A9", "/café"),
        ];
        for (raw, expected) in cases {
            assert_eq!(normalize(raw).unwrap(), expected, "{raw}");
        }
    }

    #[test]
    fn a_path_that_servers_read_in_two_ways_is_a_fault() {
        for raw in [
            "/a/../b",
            "/a/./b",
            "/%2e%2e/b",
            "/..",
            "/a%",
            "/a%4",
            "/%zz",
            "/%ff",
        ] {
            assert!(normalize(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_query_is_split_and_decoded() {
        let pairs = query("a=1&b=x+y%26z&flag&=v&").unwrap();
        let expected = [("a", "1"), ("b", "x y&z"), ("flag", ""), ("", "v")];
        assert_eq!(
            pairs,
            expected.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec()
        );
        assert!(query(&"a&".repeat(MAX_PARAMETERS + 1)).is_err());
        assert!(query("a=%").is_err());
    }
}
