//! What stands in place of a match.

use super::{CompiledMasks, MaskWith, Match, Rule, Tail};
use crate::tokenize::TokenKey;

/// Letters and digits that `Last4` shows.
const SHOWN: usize = 4;
/// Fewest letters and digits of which some are shown: four of five would be no mask.
const MIN_TO_SHOW: usize = 8;

/// What stands in place of a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replacement {
    /// `null` where the match is the whole of a JSON string or number, and nothing where it is a part of a text.
    Null,
    /// These bytes. They hold no quote, backslash or control byte that the match did not hold, so they are safe inside a JSON string.
    Text(Vec<u8>),
}

impl Replacement {
    /// The bytes that take the place of the match inside a text.
    #[must_use]
    pub fn as_text(&self) -> &[u8] {
        match self {
            Self::Null => b"",
            Self::Text(text) => text,
        }
    }

    /// The JSON value that takes the place of the match where the match is the whole of a JSON number, which cannot stay one: `null`, or
    /// a string. A number that a token is written with stays a number if JSON allows it (no leading zero).
    #[must_use]
    pub fn as_json_value(&self) -> Vec<u8> {
        match self {
            Self::Null => b"null".to_vec(),
            Self::Text(text) if is_json_number(text) => text.clone(),
            Self::Text(text) => [b"\"", text.as_slice(), b"\""].concat(),
        }
    }
}

fn is_json_number(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
        && (text.len() == 1 || text.first().is_some_and(|&first| first != b'0'))
}

impl CompiledMasks {
    /// What stands in place of `found`, whose bytes up to its decided end are `bytes`.
    ///
    /// Fails closed: where `with` cannot be done (no key, a match whose end is not there yet, a value too long for a token), the match is
    /// redacted.
    #[must_use]
    pub fn replacement(&self, found: &Match, bytes: &[u8]) -> Replacement {
        if let Some(restore) = &self.restore {
            // The search opened the token already; if it did not, the token stays.
            let value = restore.value(bytes).unwrap_or_else(|| bytes.to_vec());
            return Replacement::Text(value);
        }
        let whole = found.tail == Tail::Closed;
        self.rules().get(found.rule).map_or_else(
            || Replacement::Text(b"[masked]".to_vec()),
            |rule| replacement(rule, self.key(), bytes, whole),
        )
    }
}

fn replacement(rule: &Rule, key: Option<&TokenKey>, bytes: &[u8], whole: bool) -> Replacement {
    let detector = &*rule.detector;
    let text = match (rule.with, key) {
        (MaskWith::Null, _) => return Replacement::Null,
        (MaskWith::Last4, _) if whole => Some(last4(bytes)),
        (MaskWith::Hash, Some(key)) if whole => {
            Some(format!("[hash:{detector}:{}]", key.hash(detector, bytes)).into_bytes())
        }
        (MaskWith::Token, Some(key)) if whole => key.tokenize(detector, bytes),
        _ => None,
    };
    Replacement::Text(text.unwrap_or_else(|| format!("[masked:{detector}]").into_bytes()))
}

/// Replaces letters, digits and non-ASCII characters by `*`, but the last four letters or digits. Separators stay, and so do
/// escapes (`\u0040`, `%40`), which must remain valid.
fn last4(found: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(found.len());
    let mut total = 0;
    walk(found, |piece| total += usize::from(is_shown(piece)));
    let hidden = match total {
        0..MIN_TO_SHOW => total,
        _ => total - SHOWN,
    };
    let mut seen = 0;
    walk(found, |piece| match piece {
        Piece::Byte(byte) if byte.is_ascii_alphanumeric() => {
            seen += 1;
            out.push(if seen > hidden { byte } else { b'*' });
        }
        Piece::Byte(0x80..=0xbf) => {}
        Piece::Byte(0xc0..) => out.push(b'*'),
        Piece::Byte(byte) => out.push(byte),
        Piece::Escape(escape) => out.extend_from_slice(escape),
    });
    out
}

#[derive(Clone, Copy)]
enum Piece<'a> {
    Byte(u8),
    Escape(&'a [u8]),
}

fn is_shown(piece: Piece<'_>) -> bool {
    matches!(piece, Piece::Byte(byte) if byte.is_ascii_alphanumeric())
}

fn walk<'a>(mut text: &'a [u8], mut each: impl FnMut(Piece<'a>)) {
    while let Some((&byte, rest)) = text.split_first() {
        let length = escape_length(text);
        match text.split_at_checked(length) {
            Some((escape, rest)) if length > 0 => {
                each(Piece::Escape(escape));
                text = rest;
            }
            _ => {
                each(Piece::Byte(byte));
                text = rest;
            }
        }
    }
}

/// Length of the escape that `text` begins with, else 0.
fn escape_length(text: &[u8]) -> usize {
    let hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    match text {
        [b'%', a, b, ..] if hex(&[*a, *b]) => 3,
        [b'\\', b'u', a, b, c, d, ..] if hex(&[*a, *b, *c, *d]) => 6,
        [b'\\', _, ..] => 2,
        [b'&', b'#', b'6', b'4', b';', ..] => 5,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_four_stay_and_so_do_separators_and_escapes() {
        for (found, masked) in [
            ("4111 1111-1111 1234", "**** ****-**** 1234"),
            ("123-45-6789", "***-**-6789"),
            ("ada.byron@example.com", "***.*****@******e.com"),
            ("ada%40example.com", "***%40******e.com"),
            ("ada\\u0040example.com", "***\\u0040******e.com"),
            ("EMP-12", "***-**"),
            ("Gr\u{f6}\u{df}e-123456", "*****-**3456"),
        ] {
            let out = last4(found.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), masked, "{found}");
        }
    }

    #[test]
    fn a_whole_json_number_becomes_a_json_value() {
        let text = |text: &str| Replacement::Text(text.into()).as_json_value();
        assert_eq!(text("[masked:creditCard]"), b"\"[masked:creditCard]\"");
        assert_eq!(text("9111111111111111"), b"9111111111111111");
        assert_eq!(text("0111111111111111"), b"\"0111111111111111\"");
        assert_eq!(Replacement::Null.as_json_value(), b"null");
    }
}
