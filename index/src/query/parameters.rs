//! The query part of a URL, taken apart, and a value as it stands there.

use std::fmt::Write as _;

use super::{BadQuery, NAMES};

/// Longest query part, in bytes.
pub const MAX_QUERY_BYTES: usize = 16 * 1024;

/// Reads names and values (`application/x-www-form-urlencoded`, as the URL standard has it): pairs at `&`, a value after the first `=`, `+` for a space, `%` and two hex digits for a byte of UTF-8.
///
/// # Errors
/// [`BadQuery::Encoding`], [`BadQuery::TooLong`].
pub fn parameters(query: &str) -> Result<Vec<(String, String)>, BadQuery> {
    if query.len() > MAX_QUERY_BYTES {
        return Err(BadQuery::TooLong);
    }
    // One more than there are names is enough to be one too many.
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .take(NAMES.len().saturating_add(1))
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

/// A value as a URL's query has it: all but unreserved characters (RFC 3986, section 2.3) as bytes.
#[must_use]
pub fn encoded(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn decode(text: &str) -> Result<String, BadQuery> {
    let wrong = || BadQuery::Encoding(text.chars().take(64).collect());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next(), rest.next()].map(|d| d.and_then(hex_digit));
                let [Some(high), Some(low)] = digits else {
                    return Err(wrong());
                };
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn hex_digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_part_is_decoded_as_browsers_and_curl_write_it() {
        let pairs = |query| parameters(query).unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            pairs("q=%22a+b%22&host=*.example.com&&x"),
            [
                pair("q", "\"a b\""),
                pair("host", "*.example.com"),
                pair("x", "")
            ]
        );
        assert_eq!(
            pairs("a=b=c%3D&%C3%A9=%c3%89"),
            [pair("a", "b=c="), pair("é", "É")]
        );
        assert!(pairs("").is_empty());
        for wrong in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=%+1"] {
            assert!(
                matches!(parameters(wrong), Err(BadQuery::Encoding(_))),
                "{wrong}"
            );
        }
        assert_eq!(parameters(&"a".repeat(20_000)), Err(BadQuery::TooLong));
        assert_eq!(pairs(&"a=b&".repeat(1_000)).len(), NAMES.len() + 1);
    }

    #[test]
    fn any_value_comes_back_as_it_was_sent() {
        for value in [
            "\"pull request\" a*",
            "a&b=c+d%20#?/",
            "grün → 日本",
            "\u{0}\n",
        ] {
            let pairs = parameters(&format!("q={}", encoded(value))).unwrap();
            assert_eq!(pairs, [("q".to_owned(), value.to_owned())]);
        }
    }
}
