//! Telephone numbers: international ones with a plus (ITU-T E.164), and those of the North American Numbering Plan.

use super::Found;
use super::bytes::{Step, before, is_word, slice, word_may_begin};

/// ITU-T E.164 section 6.2.1: digits of an international number; the least is what the smallest plans have.
const DIGITS: std::ops::RangeInclusive<usize> = 8..=15;
/// Digits of a number with country code 1.
const NANP_DIGITS: usize = 11;
/// Most bytes between two groups: `) ` and ` (`.
const SEPARATOR_BYTES: usize = 2;

/// Country codes of two digits (ITU-T E.164 annex, position of 1 November 2016, and later changes).
const CODES_2: &[u8] = b"20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 70 71 72 73 74 75 76 77 78 79 81 82 84 86 90 91 92 93 94 95 98";
/// Ranges of three digits that hold country codes.
const CODES_3: &[u8] = b"21 22 23 24 25 26 29 35 37 38 42 50 59 67 68 69 80 85 87 88 96 97 99";

/// The first number with a plus, or with its area code in parentheses, that begins at or after `from`.
pub(super) fn next(rule: usize, text: &[u8], from: usize, eof: bool) -> Found {
    let mut at = from;
    while let Some(found) = memchr::memchr2(b'+', b'(', slice(text, at, text.len())) {
        let start = at + found;
        at = start + 1;
        let step = match text.get(start) {
            _ if !word_may_begin(text, start) => Step::No,
            Some(b'+') => international(text, start, eof),
            _ => parenthesised(text, start, eof),
        };
        if let Some(found) = step.found(start, rule) {
            return found;
        }
    }
    Found::Undecided(text.len())
}

/// Judges `+` and 8 to 15 digits in groups.
fn international(text: &[u8], start: usize, eof: bool) -> Step {
    let mut digits = [0_u8; *DIGITS.end()];
    let mut count = 0;
    let mut at = start + 1;
    let mut best = None;
    loop {
        let group = at;
        while let Some(digit) = text.get(at).filter(|byte| byte.is_ascii_digit()) {
            let Some(place) = digits.get_mut(count) else {
                return best.map_or(Step::No, Step::closed);
            };
            *place = *digit;
            count += 1;
            at += 1;
        }
        if at == text.len() && !eof {
            return Step::More;
        }
        if at == group || !has_country(slice(&digits, 0, count)) {
            break;
        }
        let ends = text.get(at).is_none_or(|&byte| !is_word(byte));
        if !ends {
            break;
        }
        if is_whole(slice(&digits, 0, count)) {
            best = Some(at);
        }
        match separators(text, at, eof) {
            Some(0) => break,
            Some(length) => at += length,
            None => return Step::More,
        }
    }
    best.map_or(Step::No, Step::closed)
}

/// Bytes between two groups of digits; 0 when no group follows, `None` when the text ends too soon to say.
fn separators(text: &[u8], at: usize, eof: bool) -> Option<usize> {
    let length = slice(text, at, text.len().min(at + SEPARATOR_BYTES))
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'-' | b'.' | b'(' | b')'))
        .count();
    match text.get(at + length) {
        None if !eof => None,
        Some(byte) if byte.is_ascii_digit() => Some(length),
        _ => Some(0),
    }
}

fn has_country(digits: &[u8]) -> bool {
    let among = |codes: &[u8], code: &[u8]| codes.chunks(3).any(|entry| entry.starts_with(code));
    match digits {
        [b'1', ..] => true,
        [b'7'] => true,
        [one @ b'2'..=b'9'] => *one != b'0',
        [_, _, ..] => among(CODES_2, slice(digits, 0, 2)) || among(CODES_3, slice(digits, 0, 2)),
        _ => false,
    }
}

fn is_whole(digits: &[u8]) -> bool {
    match digits {
        [b'1', national @ ..] => digits.len() == NANP_DIGITS && is_nanp(national),
        _ => DIGITS.contains(&digits.len()),
    }
}

/// Ten digits whose area code and exchange can be given out (NANPA: `[2-9][0-8]X`, `[2-9]XX`, neither ending in 11).
fn is_nanp(digits: &[u8]) -> bool {
    match digits {
        [a, b, c, d, e, f, _, _, _, _] => {
            matches!(a, b'2'..=b'9')
                && *b != b'9'
                && !(*b == b'1' && *c == b'1')
                && matches!(d, b'2'..=b'9')
                && !(*e == b'1' && *f == b'1')
        }
        _ => false,
    }
}

/// Judges `(AAA) EEE-NNNN`, also without the space, or with a dot.
fn parenthesised(text: &[u8], start: usize, eof: bool) -> Step {
    let wide = text.get(start + 5) == Some(&b' ');
    let shape: &[u8] = if wide {
        b"(ddd) ddd-dddd"
    } else {
        b"(ddd)ddd-dddd"
    };
    shaped(text, start, shape, eof)
}

/// Judges `AAA-EEE-NNNN` and `AAA.EEE.NNNN`.
pub(super) fn dashed(text: &[u8], start: usize, eof: bool) -> Step {
    if follows_digits(text, start) {
        return Step::No;
    }
    shaped(text, start, b"ddd-ddd-dddd", eof)
}

/// True after digits and a separator, but for the `1` of a long-distance call: then the number has more parts than a telephone's.
fn follows_digits(text: &[u8], start: usize) -> bool {
    let Some(b'-' | b'.') = before(text, start) else {
        return false;
    };
    let digit_at = |back: usize| {
        let at = start.checked_sub(back)?;
        text.get(at).filter(|byte| byte.is_ascii_digit()).copied()
    };
    match digit_at(2) {
        None => false,
        Some(b'1') => digit_at(3).is_some(),
        Some(_) => true,
    }
}

fn shaped(text: &[u8], start: usize, shape: &[u8], eof: bool) -> Step {
    let mut digits = Vec::with_capacity(10);
    let mut separator = None;
    for (offset, &wanted) in shape.iter().enumerate() {
        match text.get(start + offset) {
            None => return Step::short(eof),
            Some(&byte) if wanted == b'd' && byte.is_ascii_digit() => digits.push(byte),
            Some(&byte) if wanted == b'-' && matches!(byte, b'-' | b'.') => {
                if *separator.get_or_insert(byte) != byte {
                    return Step::No;
                }
            }
            Some(&byte) if wanted != b'd' && wanted != b'-' && byte == wanted => {}
            Some(_) => return Step::No,
        }
    }
    let end = start + shape.len();
    let goes_on = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    match (text.get(end), text.get(end + 1)) {
        _ if !is_nanp(&digits) => Step::No,
        (None, _) if !eof => Step::More,
        (Some(b'-' | b'.'), None) if !eof => Step::More,
        (Some(b'-' | b'.'), _) if goes_on(end + 1) => Step::No,
        (Some(&byte), _) if is_word(byte) => Step::No,
        _ => Step::closed(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_common_groupings_are_found() {
        for number in [
            "+14155552671",
            "+1 415-555-2671",
            "+1 (415) 555-2671",
            "+49 30 901820",
            "+49 (0)30 901820",
            "+44 20 7946 0958",
            "+33.1.70.18.99.00",
            "+358-9-12345678",
            "(415) 555-2671",
            "(415)555-2671",
            "+86 10 6552 9988",
        ] {
            let text = format!("call {number}, please");
            let found = next(0, text.as_bytes(), 0, false);
            assert!(
                matches!(found, Found::Match(m) if m.start == 5 && m.end == 5 + number.len()),
                "{text}: {found:?}"
            );
        }
        for number in ["415-555-2671", "415.555.2671"] {
            let text = format!("1-{number}\n");
            assert_eq!(
                dashed(text.as_bytes(), 2, false),
                Step::closed(2 + number.len())
            );
        }
    }

    #[test]
    fn other_numbers_are_not() {
        for text in [
            "+1 415 555 267 x",
            "+12345678 ",
            "+0123456789 ",
            "a+4930901820 ",
            "+49 30, ",
            "+4930901820123456 ",
            "(123) 555-2671 ",
            "(415) 155-2671 ",
            "(415) 555-26710 ",
            "f(415) 555-267 ",
            "+2100 ",
            "+1234567890 lines ",
        ] {
            let text = format!("{text}x ");
            assert_eq!(
                next(0, text.as_bytes(), 0, false),
                Found::Undecided(text.len()),
                "{text}"
            );
        }
        for (text, at) in [
            ("22-415-555-2671 ", 3),
            ("415-555-2671-12 ", 0),
            ("415-555.2671 ", 0),
            ("911-555-2671 ", 0),
        ] {
            assert_eq!(dashed(text.as_bytes(), at, false), Step::No, "{text}");
        }
    }
}
