//! Byte classes and edges that detectors share, and what a look at one place says.

use super::{Found, Match};

/// `[A-Za-z0-9_]`. Bytes of non-ASCII characters are no word bytes.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// RFC 4648 section 5.
pub(super) fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// `text[start..end]`, empty when out of range.
pub(super) fn slice(text: &[u8], start: usize, end: usize) -> &[u8] {
    text.get(start..end).unwrap_or_default()
}

/// The byte before `at`.
pub(super) fn before(text: &[u8], at: usize) -> Option<u8> {
    text.get(at.checked_sub(1)?).copied()
}

/// First index from `start`, at most `limit`, whose byte is not in `class`.
pub(super) fn run_end(text: &[u8], start: usize, limit: usize, class: fn(u8) -> bool) -> usize {
    let limit = limit.min(text.len());
    slice(text, start, limit)
        .iter()
        .position(|&byte| !class(byte))
        .map_or(limit.max(start), |length| start + length)
}

/// True when a word may begin at `at`: the text begins there, or the byte before is no word byte, or an escape ends there.
pub(super) fn word_may_begin(text: &[u8], at: usize) -> bool {
    before(text, at).is_none_or(|byte| !is_word(byte)) || escape_before(text, at).is_some()
}

/// Length of the escape that ends at `at`: `\n` and its kin, `%XX`, `\uXXXX`.
///
/// A backslash that is itself escaped is not looked for: taking `\\n` for a line break costs one letter of an address at worst.
pub(super) fn escape_before(text: &[u8], at: usize) -> Option<usize> {
    let head = text.get(..at)?;
    match head {
        [.., b'\\', b'n' | b't' | b'r' | b'b' | b'f'] => Some(2),
        [.., b'\\', b'u', a, b, c, d] if [a, b, c, d].iter().all(|h| h.is_ascii_hexdigit()) => {
            Some(6)
        }
        [.., b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => Some(3),
        _ => None,
    }
}

/// What a detector says of a candidate that begins at a given byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// No match begins here, whatever follows.
    No,
    /// The text ends too soon to say.
    More,
    /// A match, whatever follows.
    Yes {
        /// One past its last byte.
        end: usize,
        /// What belongs to the match beyond `end`.
        tail: super::Tail,
    },
}

impl Step {
    /// A match that ends at `end`.
    pub(super) fn closed(end: usize) -> Step {
        Step::Yes {
            end,
            tail: super::Tail::Closed,
        }
    }

    /// The answer that this is of a match of `rule` that begins at `start`; `None` where none begins there.
    pub(super) fn found(self, start: usize, rule: usize) -> Option<Found> {
        match self {
            Step::No => None,
            Step::More => Some(Found::Undecided(start)),
            Step::Yes { end, tail } => Some(Found::Match(Match {
                start,
                end,
                rule,
                tail,
            })),
        }
    }

    /// What to say where the text ends too soon.
    pub(super) fn short(eof: bool) -> Step {
        if eof { Step::No } else { Step::More }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_may_begin_after_an_escape() {
        for text in [
            "", " ", "\"", "\\n", "x\\t", "\\u003d", "%20", "a=", "\u{e9}",
        ] {
            assert!(word_may_begin(text.as_bytes(), text.len()), "{text:?}");
        }
        for text in ["a", "_", "9", "n", "u003d", "20", "\\u03d", "%2"] {
            assert!(!word_may_begin(text.as_bytes(), text.len()), "{text:?}");
        }
    }
}
