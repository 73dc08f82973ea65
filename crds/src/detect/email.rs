//! E-mail addresses: the shapes of RFC 5321 section 4.1.2 that people use.
//!
//! Found from the at sign outwards: text has few of them, so most of it is passed at the speed of `memchr`.

use aho_corasick::AhoCorasick;

use super::Found;
use super::bytes::{Step, before, escape_before, run_end, slice};

/// RFC 5321 section 4.5.3.1.1, octets, counted as written.
const LOCAL_BYTES: usize = 64;
/// RFC 5321 section 4.5.3.1.2, octets.
const DOMAIN_BYTES: usize = 255;
/// At signs in disguise.
const ESCAPED_AT: [&str; 3] = ["%40", "\\u0040", "&#64;"];
/// Longest beginning of a disguised at sign, bytes.
const PARTIAL_AT_BYTES: usize = 5;

/// How the at sign is written. The two are searched apart, so that candidates come in the order in which they begin.
#[derive(Debug)]
pub(super) enum Sign {
    Plain,
    Escaped(AhoCorasick),
}

impl Sign {
    /// A search for `%40` and its kin.
    pub(super) fn escaped() -> Sign {
        // Three short literals cannot exceed the automaton's limits.
        let literals = AhoCorasick::new(ESCAPED_AT).expect("short literals build");
        Sign::Escaped(literals)
    }

    /// The first address that begins at or after `from`.
    pub(super) fn next(&self, rule: usize, text: &[u8], from: usize, eof: bool) -> Found {
        let mut at = from;
        while let Some((sign, sign_end)) = self.find(text, at) {
            at = sign_end;
            let start = local_start(text, from, sign);
            if start == sign {
                continue;
            }
            if let Some(found) = domain(text, sign_end, eof).found(start, rule) {
                return found;
            }
        }
        Found::Undecided(if eof {
            text.len()
        } else {
            open_local(text, from)
        })
    }

    fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let rest = slice(text, from, text.len());
        match self {
            Sign::Plain => memchr::memchr(b'@', rest).map(|at| (from + at, from + at + 1)),
            Sign::Escaped(literals) => literals
                .find(rest)
                .map(|m| (from + m.start(), from + m.end())),
        }
    }
}

/// Length of the at sign that `text` begins with, however it is written.
pub(super) fn at_sign(text: &[u8]) -> Option<usize> {
    if text.first() == Some(&b'@') {
        return Some(1);
    }
    let escape = ESCAPED_AT
        .iter()
        .find(|at| text.starts_with(at.as_bytes()))?;
    Some(escape.len())
}

/// True when `text` is a beginning of a disguised at sign.
pub(super) fn open_at_sign(text: &[u8]) -> bool {
    ESCAPED_AT.iter().any(|at| at.as_bytes().starts_with(text))
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+' | b'-')
}

/// Where the local part that ends at `sign` begins, not before `from`; `sign` itself when there is none.
fn local_start(text: &[u8], from: usize, sign: usize) -> usize {
    let floor = from.max(sign.saturating_sub(LOCAL_BYTES));
    let mut start = sign;
    while start > floor {
        let length = match escape_before(text, start) {
            Some(length) if is_escaped_plus(slice(text, start - length, start)) => length,
            Some(_) => break,
            None if before(text, start).is_some_and(is_local) => 1,
            None => break,
        };
        if start - floor < length {
            break;
        }
        start -= length;
    }
    let punctuation = slice(text, start, sign)
        .iter()
        .take_while(|byte| matches!(byte, b'.' | b'+' | b'-'))
        .count();
    start + punctuation
}

fn is_escaped_plus(escape: &[u8]) -> bool {
    escape.eq_ignore_ascii_case(b"%2b") || escape.eq_ignore_ascii_case(b"\\u002b")
}

/// First byte of what may still become a local part: a lower bound for every address that begins in `text` and whose at sign is
/// not, or not wholly, there yet.
fn open_local(text: &[u8], from: usize) -> usize {
    let floor = from.max(
        text.len()
            .saturating_sub(LOCAL_BYTES.saturating_add(PARTIAL_AT_BYTES)),
    );
    let open = slice(text, floor, text.len())
        .iter()
        .rev()
        .take_while(|&&byte| is_local(byte) || matches!(byte, b'%' | b'\\' | b'&' | b'#'))
        .count();
    text.len() - open
}

/// Judges the domain that begins at `start`: dotted labels, the last of letters (or `xn--`), as many as can be had.
fn domain(text: &[u8], start: usize, eof: bool) -> Step {
    let limit = start + DOMAIN_BYTES;
    let mut best = None;
    let mut at = start;
    loop {
        let end = run_end(text, at, limit, is_label);
        if end == text.len() && end < limit && !eof {
            return Step::More;
        }
        let label = slice(text, at, end);
        if label.is_empty() || label.starts_with(b"-") {
            break;
        }
        if at > start {
            best = top_level(label).map(|length| at + length).or(best);
        }
        if end >= limit || text.get(end) != Some(&b'.') {
            break;
        }
        at = end + 1;
    }
    match best {
        Some(end) if !is_picture(slice(text, start, end)) => Step::closed(end),
        _ => Step::No,
    }
}

/// `2x.png`, as in `icon@2x.png`: pictures for screens of high density.
fn is_picture(domain: &[u8]) -> bool {
    const ENDINGS: [&[u8]; 6] = [b"png", b"jpg", b"jpeg", b"webp", b"gif", b"svg"];
    match domain {
        [b'1'..=b'4', b'x', b'.', ending @ ..] => ENDINGS.contains(&ending),
        _ => false,
    }
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-'
}

/// How much of a label can be a top-level domain.
fn top_level(label: &[u8]) -> Option<usize> {
    if label
        .get(..4)
        .is_some_and(|p| p.eq_ignore_ascii_case(b"xn--"))
    {
        return Some(label.len());
    }
    let letters = label.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    let ends = label.get(letters).is_none_or(|&byte| byte == b'-');
    (letters >= 2 && ends).then_some(letters)
}
