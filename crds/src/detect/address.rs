//! IP addresses: IPv4 in dotted decimal, IPv6 in the forms of RFC 4291 section 2.2.
//!
//! Found from a dot or a colon between two digits outwards.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Found;
use super::bytes::{Step, before, is_word, run_end, slice, word_may_begin};

/// Longest dotted address.
const V4_BYTES: usize = 15;
/// Longest IPv6 address: with a dotted tail.
const V6_BYTES: usize = 45;
/// Bytes before an address in which `version` is looked for.
const VERSION_BYTES: usize = 12;

/// The first IPv4 address that begins at or after `from`.
pub(super) fn next_v4(rule: usize, text: &[u8], from: usize, eof: bool) -> Found {
    let mut at = from;
    while let Some(found) = memchr::memchr(b'.', slice(text, at, text.len())) {
        let dot = at + found;
        at = dot + 1;
        let is_digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
        if dot == 0 || !is_digit(dot - 1) || (dot + 1 < text.len() && !is_digit(dot + 1)) {
            continue;
        }
        // Digits before may be the end of an escape, as in `%20`.
        let run = run_start(text, from, dot, 3, |byte| byte.is_ascii_digit());
        let Some(start) = (run..dot).find(|&start| word_may_begin(text, start)) else {
            continue;
        };
        if let Some(found) = v4(text, start, eof).found(start, rule) {
            return found;
        }
    }
    let open = run_start(text, from, text.len(), 3, |byte| byte.is_ascii_digit());
    Found::Undecided(if eof { text.len() } else { open })
}

/// First index of the run of `class` that ends at `end`, at most `longest` before it.
fn run_start(text: &[u8], from: usize, end: usize, longest: usize, class: fn(u8) -> bool) -> usize {
    let floor = from.max(end.saturating_sub(longest));
    let length = slice(text, floor, end)
        .iter()
        .rev()
        .take_while(|&&byte| class(byte))
        .count();
    end - length
}

fn v4(text: &[u8], start: usize, eof: bool) -> Step {
    if before(text, start) == Some(b'.') {
        return Step::No;
    }
    let end = run_end(text, start, start + V4_BYTES + 2, |byte| {
        byte.is_ascii_digit() || byte == b'.'
    });
    if end == text.len() && end < start + V4_BYTES + 2 && !eof {
        return Step::More;
    }
    if text.get(end) == Some(&b'-') {
        // A range of addresses, or the revision of a version: 1.2.3.4-1ubuntu1.
        let part = run_end(text, end + 1, end + 5, |byte| byte.is_ascii_alphanumeric());
        match text.get(part) {
            None if !eof && part < end + 5 => return Step::More,
            Some(b'.') => {}
            _ if part == end + 1 => {}
            _ => return Step::No,
        }
    }
    let run = slice(text, start, end);
    // A full stop may follow.
    let address = run.strip_suffix(b".").unwrap_or(run);
    let ends = text.get(end).is_none_or(|&byte| !is_word(byte));
    match std::str::from_utf8(address).map(str::parse::<Ipv4Addr>) {
        Ok(Ok(ip)) if ends && names_a_host(ip) && !is_version(text, start) => {
            Step::closed(start + address.len())
        }
        _ => Step::No,
    }
}

/// Not "this network", loopback, or what is reserved, masks among it.
fn names_a_host(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    !matches!(first, 0 | 127 | 240..)
}

/// After a product's name and a slash (`Chrome/120.0.0.0`), or the word version.
fn is_version(text: &[u8], start: usize) -> bool {
    let head = slice(text, start.saturating_sub(VERSION_BYTES), start);
    if let [.., letter, b'/'] = head
        && letter.is_ascii_alphabetic()
    {
        return true;
    }
    let end = head
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'"' | b'\'' | b':' | b'=' | b'>' | b'\\'))
        .map_or(0, |last| last + 1);
    slice(head, 0, end)
        .get(end.saturating_sub(7)..)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"version"))
}

/// The first IPv6 address that begins at or after `from`.
pub(super) fn next_v6(rule: usize, text: &[u8], from: usize, eof: bool) -> Found {
    let mut at = from;
    while let Some(found) = memchr::memchr(b':', slice(text, at, text.len())) {
        let colon = at + found;
        at = colon + 1;
        let next = text.get(colon + 1);
        let is_before = before(text, colon).is_some_and(is_v6);
        let is_double = next == Some(&b':');
        if next.is_some_and(|&byte| !is_v6(byte)) || !(is_before || is_double || next.is_none()) {
            continue;
        }
        let start = v6_start(text, colon);
        match v6(text, start, eof) {
            Step::No => at = at.max(run_end(text, start, text.len(), is_v6)),
            Step::Yes { .. } if start < from => {}
            step => {
                if let Some(found) = step.found(start.max(from), rule) {
                    return found;
                }
            }
        }
    }
    Found::Undecided(if eof {
        text.len()
    } else {
        v6_start(text, text.len()).max(from)
    })
}

fn is_v6(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || byte == b':'
}

/// Where the run that ends at `end` begins, after what is the end of an escape; wherever the search goes on.
fn v6_start(text: &[u8], end: usize) -> usize {
    let start = run_start(text, 0, end, V6_BYTES, is_v6);
    let escape = match before(text, start) {
        Some(b'\\') if matches!(text.get(start), Some(b'b' | b'f')) => 1,
        Some(b'%') => 2,
        _ => 0,
    };
    (start + escape).min(end)
}

fn v6(text: &[u8], start: usize, eof: bool) -> Step {
    let limit = start + V6_BYTES + 1;
    let end = run_end(text, start, limit, |byte| is_v6(byte) || byte == b'.');
    if end == text.len() && end < limit && !eof {
        return Step::More;
    }
    if !word_may_begin(text, start) || matches!(before(text, start), Some(b'.' | b':')) {
        return Step::No;
    }
    let run = slice(text, start, end);
    let run = run.strip_suffix(b".").unwrap_or(run);
    let run = match run {
        [head @ .., b':'] if !head.ends_with(b":") => head,
        run => run,
    };
    let ends = text.get(end).is_none_or(|&byte| !is_word(byte));
    match std::str::from_utf8(run).map(str::parse::<Ipv6Addr>) {
        Ok(Ok(ip)) if ends && is_told(run, ip) => Step::closed(start + run.len()),
        _ => Step::No,
    }
}

/// Not loopback or unspecified; not a name of a program such as `add::face`, nor eight bytes in hex.
fn is_told(run: &[u8], ip: Ipv6Addr) -> bool {
    let is_eight_bytes = run.len() == 23
        && run
            .split(|&byte| byte == b':')
            .all(|group| group.len() == 2);
    let has_digit = run.iter().any(u8::is_ascii_digit);
    has_digit && !is_eight_bytes && !ip.is_loopback() && !ip.is_unspecified()
}
