//! What request and response heads share: the bound, strict line ends, and naming the cause when
//! the tokenizer says no.

use super::error::HeadError;
use super::limits::MAX_HEAD_BYTES;

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
pub(super) fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Whether a byte may stand in a field value (RFC 9110 §5.5): visible, space, tab, obs-text.
pub(super) fn is_value_byte(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

/// The part of a buffer that a head may occupy.
pub(super) fn bounded(buf: &[u8]) -> &[u8] {
    buf.get(..MAX_HEAD_BYTES).unwrap_or(buf)
}

/// The answer for a head without an end so far: more bytes, unless the bound leaves no room.
pub(super) fn need_more<T>(bounded: &[u8]) -> Result<Option<T>, HeadError> {
    if bounded.len() >= MAX_HEAD_BYTES {
        Err(HeadError::TooLarge)
    } else {
        Ok(None)
    }
}

/// Refuses a LF without its CR. The tokenizer takes LF as a line end (RFC 9112 §2.2 allows it to),
/// which lets two hops disagree on where lines end; it refuses a CR without its LF by itself.
pub(super) fn require_crlf(head: &[u8]) -> Result<(), HeadError> {
    for lf in memchr::memchr_iter(b'\n', head) {
        let before = lf.checked_sub(1).and_then(|cr| head.get(cr));
        if before != Some(&b'\r') {
            return Err(HeadError::LineEnding);
        }
    }
    Ok(())
}

/// Names the cause of a tokenizer error. Looks at the first offending byte only, so that the
/// answer is the same for every prefix that contains it.
pub(super) fn explain(error: httparse::Error, buf: &[u8]) -> HeadError {
    match error {
        httparse::Error::Version => HeadError::Version,
        httparse::Error::Status => HeadError::StatusLine,
        httparse::Error::NewLine => HeadError::LineEnding,
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
        httparse::Error::Token => explain_request_line(buf),
        httparse::Error::HeaderName => explain_lines(buf).unwrap_or(HeadError::Name),
        httparse::Error::HeaderValue => explain_lines(buf).unwrap_or(HeadError::Value),
    }
}

fn explain_request_line(buf: &[u8]) -> HeadError {
    match buf.iter().position(|&b| !is_tchar(b)) {
        Some(end) if end > 0 && buf.get(end) == Some(&b' ') => HeadError::Target,
        _ => HeadError::Method,
    }
}

fn explain_lines(buf: &[u8]) -> Option<HeadError> {
    buf.split(|&b| b == b'\n').skip(1).find_map(explain_line)
}

/// The first error of one field line, given without its LF.
fn explain_line(line: &[u8]) -> Option<HeadError> {
    if line.is_empty() || line == b"\r" {
        return None;
    }
    // A line of token characters alone ended in a LF where its colon should be.
    let Some(colon) = line.iter().position(|&b| !is_tchar(b)) else {
        return Some(HeadError::Name);
    };
    match (colon, line.get(colon)) {
        (0, Some(b':')) => return Some(HeadError::EmptyName),
        (0, Some(b' ' | b'\t')) => return Some(HeadError::ObsFold),
        (_, Some(b':')) => {}
        (_, Some(b' ' | b'\t')) => return Some(HeadError::SpaceBeforeColon),
        _ => return Some(HeadError::Name),
    }
    let value = line.get(colon.saturating_add(1)..).unwrap_or_default();
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    match value.iter().find(|&&b| !is_value_byte(b)) {
        Some(b'\r') => Some(HeadError::LineEnding),
        Some(_) => Some(HeadError::Value),
        None => None,
    }
}

/// Splits a list value at its commas, dropping whitespace and empty elements (RFC 9110 §5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_lf_is_refused_wherever_it_stands() {
        assert!(require_crlf(b"GET / HTTP/1.1\r\n\r\n").is_ok());
        for head in [&b"\n"[..], b"GET / HTTP/1.1\n\r\n", b"GET / HTTP/1.1\r\n\n"] {
            assert_eq!(require_crlf(head), Err(HeadError::LineEnding));
        }
    }

    #[test]
    fn a_list_drops_whitespace_and_empty_elements() {
        let items: Vec<_> = list(b" close ,, \tupgrade,").collect();
        assert_eq!(items, [&b"close"[..], b"upgrade"]);
    }
}
