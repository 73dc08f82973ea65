//! Runs of letters and digits that look random: what a secret of an unknown kind looks like. Opt-in, since identifiers look so too.
//!
//! Hex is not looked at: nobody can tell a secret in hex from a hash.

use super::bytes::{before, slice};
use super::{Found, Match, Tail};

/// Bytes of a run. Shorter ones are words; longer ones are data, an image for one.
const RUN_BYTES: std::ops::RangeInclusive<usize> = 24..=128;
/// Shannon entropy from which a run is random, bits per byte. A random run of 24 of base64 has 4.2 in the mean, of 40 has 4.8; English in
/// camel case has 3.5 to 4.
const BITS: f32 = 4.1;
/// Fewest of capitals, of small letters and of digits.
const OF_EACH: usize = 2;

/// Longest escape, bytes.
const ESCAPE_BYTES: usize = 6;

/// The first run that begins at or after `from`.
pub(super) fn next(rule: usize, text: &[u8], from: usize, eof: bool) -> Found {
    let mut at = from;
    // A run that is long enough has a byte at every step.
    while let Some(&probe) = text.get(at + RUN_BYTES.start() - 1) {
        if !is_run(probe) {
            at += RUN_BYTES.start();
            continue;
        }
        let probe = at + RUN_BYTES.start() - 1;
        let start = start_of(text, from, probe);
        let end = end_of(text, probe);
        if is_open(text, start, end, eof) {
            return Found::Undecided(start.max(from));
        }
        if let Some(start) = judge(text, start, end).filter(|&start| start >= from) {
            return Found::Match(Match {
                start,
                end,
                rule,
                tail: Tail::Closed,
            });
        }
        at = end;
    }
    let start = start_of(text, from.max(at), text.len());
    let open = is_open(text, start, text.len(), eof);
    Found::Undecided(if open { start.max(from) } else { text.len() })
}

fn is_run(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Where the run that ends at `end` begins. What ends an escape may have left already, so that a search goes on behind it.
fn start_of(text: &[u8], from: usize, end: usize) -> usize {
    let head = slice(text, from.saturating_sub(ESCAPE_BYTES), end);
    let run = head.iter().rev().take_while(|&&byte| is_run(byte)).count();
    end - run
}

fn end_of(text: &[u8], from: usize) -> usize {
    let rest = slice(text, from, text.len());
    let run = rest.iter().take_while(|&&byte| is_run(byte)).count();
    from + run
}

/// A run that reaches the end of the text and may still be one of the wanted length.
fn is_open(text: &[u8], start: usize, end: usize, eof: bool) -> bool {
    !eof && end == text.len()
        && end - start <= *RUN_BYTES.end()
        && before(text, start).is_none_or(|byte| !is_run(byte))
}

/// Where the random part of a whole run begins, if it has one.
fn judge(text: &[u8], start: usize, end: usize) -> Option<usize> {
    if before(text, start).is_some_and(is_run) || end - start > *RUN_BYTES.end() {
        return None;
    }
    // What ends an escape before the run is no part of it: replacing it would break the escape.
    let escape = match (before(text, start), text.get(start)) {
        (Some(b'\\'), Some(b'u')) => 5,
        (Some(b'\\'), _) => 1,
        (Some(b'%'), _) => 2,
        _ => 0,
    };
    let run = slice(text, start + escape, end);
    let found = RUN_BYTES.contains(&run.len())
        && !run.starts_with(b"tok_")
        && is_random(run)
        && !is_hash(text, start + escape, run);
    found.then_some(start + escape)
}

/// A hash that says so: `sha512-` of subresource integrity, `h1:` of Go's sums.
fn is_hash(text: &[u8], start: usize, run: &[u8]) -> bool {
    let digits = run
        .iter()
        .skip(3)
        .take_while(|b| b.is_ascii_digit())
        .count();
    (run.starts_with(b"sha") && run.get(3 + digits) == Some(&b'-'))
        || slice(text, 0, start).ends_with(b"h1:")
}

fn is_random(run: &[u8]) -> bool {
    let count = |class: fn(&u8) -> bool| run.iter().filter(|byte| class(byte)).count();
    count(u8::is_ascii_uppercase) >= OF_EACH
        && count(u8::is_ascii_lowercase) >= OF_EACH
        && count(u8::is_ascii_digit) >= OF_EACH
        && bits(run) >= BITS
}

/// Shannon entropy of the bytes' distribution, bits per byte.
fn bits(run: &[u8]) -> f32 {
    let mut counts = [0_u16; 256];
    for &byte in run {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count = count.saturating_add(1);
        }
    }
    let total = run.len() as f32;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = f32::from(count) / total;
            -share * share.log2()
        })
        .sum()
}
