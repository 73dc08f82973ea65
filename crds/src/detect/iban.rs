//! International bank account numbers (ISO 13616; lengths from SWIFT's IBAN registry).
//!
//! Each begins with two capitals and two digits, so every second byte is looked at.

use super::Found;
use super::bytes::{Step, is_word, slice, word_may_begin};

/// Characters of a group in print (ISO 13616-1 section 6).
const GROUP: usize = 4;

/// Countries and the length of their numbers.
const LENGTHS: &[u8] = b"AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30";

/// The first number that begins at or after `from`.
pub(super) fn next(rule: usize, text: &[u8], from: usize, eof: bool) -> Found {
    let mut at = from;
    while let Some(&byte) = text.get(at) {
        // Of capital, capital, digit, digit one of the first two is looked at, and then the digit two bytes on.
        let is_digit = text.get(at + 2).is_none_or(u8::is_ascii_digit);
        if byte.is_ascii_uppercase() && is_digit {
            for start in [at.saturating_sub(1), at] {
                if start < from {
                    continue;
                }
                if let Some(found) = step(text, start, eof).found(start, rule) {
                    return found;
                }
            }
        }
        at += 2;
    }
    // The last byte may have been passed over.
    let last = text.len().saturating_sub(1);
    if !eof && last >= from && step(text, last, eof) == Step::More {
        return Found::Undecided(last);
    }
    Found::Undecided(text.len())
}

fn step(text: &[u8], start: usize, eof: bool) -> Step {
    if !word_may_begin(text, start) {
        return Step::No;
    }
    for (offset, test) in [
        u8::is_ascii_uppercase,
        u8::is_ascii_uppercase,
        u8::is_ascii_digit,
        u8::is_ascii_digit,
    ]
    .iter()
    .enumerate()
    {
        match text.get(start + offset) {
            None => return Step::short(eof),
            Some(byte) if test(byte) => {}
            Some(_) => return Step::No,
        }
    }
    match length_of(slice(text, start, start + 2)) {
        Some(length) => body(text, start, length, eof),
        None => Step::No,
    }
}

fn length_of(country: &[u8]) -> Option<usize> {
    let entry = LENGTHS.chunks(4).find(|entry| entry.starts_with(country))?;
    match entry {
        [_, _, tens, ones] => Some(usize::from(tens - b'0') * 10 + usize::from(ones - b'0')),
        _ => None,
    }
}

/// Judges `length` capitals and digits, all in one or in groups of four with single spaces or dashes, by their check digits.
fn body(text: &[u8], start: usize, length: usize, eof: bool) -> Step {
    let separator = text
        .get(start + GROUP)
        .filter(|&&byte| byte == b' ' || byte == b'-');
    let mut at = start;
    let mut remainder = Mod97::default();
    for place in 0..length {
        if separator.is_some() && place > 0 && place % GROUP == 0 {
            match text.get(at) {
                None => return Step::short(eof),
                byte if byte == separator => at += 1,
                Some(_) => return Step::No,
            }
        }
        match text.get(at) {
            None => return Step::short(eof),
            Some(&byte) if byte.is_ascii_uppercase() || byte.is_ascii_digit() => {
                remainder.push(byte, place < GROUP);
            }
            Some(_) => return Step::No,
        }
        at += 1;
    }
    match text.get(at) {
        _ if !remainder.holds() => Step::No,
        None if !eof => Step::More,
        Some(&byte) if is_word(byte) => Step::No,
        _ => Step::closed(at),
    }
}

/// ISO 7064 MOD 97-10, with the first four characters moved to the end.
#[derive(Default)]
struct Mod97 {
    head: u64,
    head_scale: u64,
    rest: u64,
}

impl Mod97 {
    fn push(&mut self, byte: u8, is_head: bool) {
        let (value, scale) = match byte {
            b'0'..=b'9' => (u64::from(byte - b'0'), 10),
            _ => (u64::from(byte - b'A') + 10, 100),
        };
        if is_head {
            self.head_scale = self.head_scale.max(1) * scale % 97;
            self.head = (self.head * scale + value) % 97;
        } else {
            self.rest = (self.rest * scale + value) % 97;
        }
    }

    fn holds(&self) -> bool {
        (self.rest * self.head_scale + self.head) % 97 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_examples_pass_and_their_neighbours_do_not() {
        for iban in [
            "DE89370400440532013000",
            "GB29NWBK60161331926819",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
            "FR1420041010050500013M02606",
            "DE89 3704 0044 0532 0130 00",
            "NO93 8601 1117 947",
        ] {
            for prefix in ["", "a ", "ab ", "\\n", "\""] {
                let text = format!("{prefix}{iban}, ");
                let found = next(0, text.as_bytes(), 0, false);
                assert!(
                    matches!(found, Found::Match(m) if m.start == prefix.len() && m.end == prefix.len() + iban.len()),
                    "{text}: {found:?}"
                );
            }
            for text in [
                format!("x{iban} "),
                format!("{iban}0 "),
                iban.replacen('0', "1", 1) + " ",
            ] {
                assert_eq!(
                    next(0, text.as_bytes(), 0, false),
                    Found::Undecided(text.len()),
                    "{text}"
                );
            }
        }
    }
}
