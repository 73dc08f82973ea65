//! Numbers: payment cards and United States social security numbers. Both begin with three digits in a row, so most text is
//! passed by looking at every third byte.

use std::ops::RangeInclusive;

use super::bytes::{Step, before, is_word, slice, word_may_begin};
use super::{Builtin, Found, phone};

/// Least digits of a group of a card number. Dates (`2024-01-15`) have shorter ones.
const GROUP_DIGITS: usize = 3;
/// ISO/IEC 7812-1 section 4.1: digits of a card number.
const CARD_DIGITS: RangeInclusive<usize> = 13..=19;
/// Longest escape that ends in digits, less its first two bytes: how far into a run of digits a number may begin.
const ESCAPE_DIGITS: usize = 4;

/// The detectors that are asked for, in order of precedence, each with its rule.
#[derive(Debug, Default)]
pub(super) struct Digits {
    pub(super) detectors: Vec<(Builtin, usize)>,
}

impl Digits {
    /// The first number that begins at or after `from`.
    pub(super) fn next(&self, text: &[u8], from: usize, eof: bool) -> Found {
        number_starts(text, from)
            .find_map(|start| self.judge(text, start, eof))
            .unwrap_or(Found::Undecided(text.len()))
    }

    fn judge(&self, text: &[u8], start: usize, eof: bool) -> Option<Found> {
        for &(detector, rule) in &self.detectors {
            let step = match detector {
                Builtin::CreditCard => credit_card(text, start, eof),
                Builtin::Phone => phone::dashed(text, start, eof),
                _ => ssn(text, start, eof),
            };
            if let Some(found) = step.found(start, rule) {
                return Some(found);
            }
        }
        None
    }
}

/// Where numbers of three or more digits may begin, from `from` on.
pub(super) fn number_starts(text: &[u8], from: usize) -> impl Iterator<Item = usize> + '_ {
    let mut at = from;
    std::iter::from_fn(move || {
        let (start, end) = next_run(text, at)?;
        at = end;
        Some(start..end.min(start + ESCAPE_DIGITS + 1))
    })
    .flatten()
    .filter(|&start| word_may_begin(text, start))
}

/// The next run of three or more digits, or of any number of digits at the end of the text.
fn next_run(text: &[u8], from: usize) -> Option<(usize, usize)> {
    let is_digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = from;
    while let Some(probe) = text.get(at + 2) {
        if !probe.is_ascii_digit() {
            at += 3;
            continue;
        }
        let mut start = at + 2;
        while start > from && is_digit(start - 1) {
            start -= 1;
        }
        let mut end = at + 3;
        while is_digit(end) {
            end += 1;
        }
        if end - start >= GROUP_DIGITS || end == text.len() {
            return Some((start, end));
        }
        at = end;
    }
    let mut start = text.len();
    while start > at && before(text, start).is_some_and(|b| b.is_ascii_digit()) {
        start -= 1;
    }
    (start < text.len()).then_some((start, text.len()))
}

/// Judges a card number that begins at `start`: the longest that passes Luhn.
fn credit_card(text: &[u8], start: usize, eof: bool) -> Step {
    if !matches!(text.get(start), Some(b'2'..=b'6')) {
        return Step::No;
    }
    card(text, start, eof, &CARD_DIGITS, |digits| {
        luhn_of(digits.iter().map(|digit| digit - b'0'))
    })
}

/// Judges a number in groups that begins at `start`: the longest of `lengths` digits that `is_card` takes, given ASCII digits.
pub(super) fn card(
    text: &[u8],
    start: usize,
    eof: bool,
    lengths: &RangeInclusive<usize>,
    is_card: impl Fn(&[u8]) -> bool,
) -> Step {
    let mut digits = [0_u8; *CARD_DIGITS.end()];
    let mut count = 0;
    let mut best = None;
    let mut at = start;
    loop {
        let group = at;
        while let Some(digit) = text.get(at).filter(|b| b.is_ascii_digit()) {
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
        let ends = text.get(at).is_none_or(|&byte| !is_word(byte));
        if at - group < GROUP_DIGITS || !ends {
            break;
        }
        if lengths.contains(&count) && is_card(slice(&digits, 0, count)) {
            best = Some(at);
        }
        match text.get(at) {
            Some(b' ' | b'-') => at += 1,
            _ => break,
        }
    }
    best.map_or(Step::No, Step::closed)
}

/// ISO/IEC 7812-1 annex B.
pub(crate) fn luhn(digits: &[u8]) -> bool {
    luhn_of(digits.iter().copied())
}

fn luhn_of(digits: impl DoubleEndedIterator<Item = u8>) -> bool {
    let sum: u32 = digits
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Judges a social security number that begins at `start`. Ranges: Social Security Administration, POMS RM 10201.035.
fn ssn(text: &[u8], start: usize, eof: bool) -> Step {
    const SHAPE: &[u8; 11] = b"ddd-dd-dddd";
    for (offset, &shape) in SHAPE.iter().enumerate() {
        match text.get(start + offset) {
            None => return Step::short(eof),
            Some(byte) if shape == b'd' && byte.is_ascii_digit() => {}
            Some(&byte) if byte == shape && shape == b'-' => {}
            Some(_) => return Step::No,
        }
    }
    let end = start + SHAPE.len();
    let part = |from: usize, to: usize| slice(text, start + from, start + to);
    let area = part(0, 3);
    let issued = !(area == b"000"
        || area == b"666"
        || area.starts_with(b"9")
        || part(4, 6) == b"00"
        || part(7, 11) == b"0000");
    match text.get(end) {
        _ if !issued => Step::No,
        None if !eof => Step::More,
        Some(&byte) if is_word(byte) => Step::No,
        _ => Step::closed(end),
    }
}
