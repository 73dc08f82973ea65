//! What stands in place of a match.

use chaperone_crds::detect::{MaskWith, Rule};

/// Letters and digits that `Last4` shows.
const SHOWN: usize = 4;
/// Fewest letters and digits of which some are shown: four of five would be no mask.
const MIN_TO_SHOW: usize = 8;

/// Appends the replacement of `found`. `whole` says that `found` is all of the match; else it is redacted, since its last
/// characters are not known yet.
pub(super) fn replace(rule: &Rule, found: &[u8], whole: bool, out: &mut Vec<u8>) {
    match rule.with {
        MaskWith::Last4 if whole => last4(found, out),
        _ => {
            out.extend_from_slice(b"[masked:");
            out.extend_from_slice(rule.detector.as_bytes());
            out.push(b']');
        }
    }
}

/// Replaces letters, digits and non-ASCII characters by `*`, but the last four letters or digits. Separators stay, and so do
/// escapes (`\u0040`, `%40`), which must remain valid.
fn last4(found: &[u8], out: &mut Vec<u8>) {
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
            (
                "Gr\u{f6}\u{df}e-123456",
                "****e-**3456".replacen('e', "*", 1).as_str(),
            ),
        ] {
            let mut out = Vec::new();
            last4(found.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), masked, "{found}");
        }
    }
}
