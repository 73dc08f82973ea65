//! Content of bodies apart from what is proved: where a record's line may be cut, so that content can be deleted and the proof stays.
//!
//! A record that holds content of bodies is the line `HEAD,"bodiesSha256":"<64 hex>","bodies":TAIL}`. `TAIL` is one JSON object that begins with a random salt, and `bodiesSha256` is SHA-256
//! over its bytes: a commitment that hides even a short body once it is gone. What the chain and the ledger hash is the line without its content, `HEAD,"bodiesSha256":"<64 hex>"}`.
//!
//! Owns the one rule of where the cut is. Refuses to parse and serialise again: all pieces are bytes of the line. Invariants, for any bytes: a line has content only where its digest is the
//! content's, so that content which was altered makes another record; a line and the same line without its content have one hash; a JSON object without its content is a JSON object.

use std::{borrow::Cow, sync::LazyLock};

use memchr::memmem::Finder;
use serde::de::IgnoredAny;
use sha2::{Digest, Sha256};

/// What stands before the digest.
const BEFORE_DIGEST: &[u8] = b",\"bodiesSha256\":\"";
/// What stands between digest and content.
const BEFORE_TAIL: &[u8] = b"\",\"bodies\":";
/// What ends a line whose content is gone, after the digest.
const END: &[u8] = b"\"}";
/// How content begins.
const SALT: &[u8] = b"{\"salt\":\"";
/// Digits of a digest.
const DIGITS: usize = 64;

static CUT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(BEFORE_DIGEST));

/// The pieces of a record's line, without its newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts<'a> {
    /// It has no content apart: a record without bodies, one of version 1, or no record that anybody wrote.
    Whole(&'a [u8]),
    /// It had content, which is gone.
    Detached {
        /// All of the line.
        line: &'a [u8],
        /// SHA-256 of the content that it had: 64 lower-case hex digits.
        digest: &'a [u8],
    },
    /// It has content, and this digest is the content's.
    With {
        /// The line's beginning, up to the comma before `"bodiesSha256"`.
        head: &'a [u8],
        /// SHA-256 of `tail`: 64 lower-case hex digits.
        digest: &'a [u8],
        /// The content: one JSON object.
        tail: &'a [u8],
    },
}

/// Finds the pieces of a line. Reads it once, and hashes the content where there is some.
#[must_use]
pub fn parts(line: &[u8]) -> Parts<'_> {
    cut(line)
        .filter(|parts| match parts {
            Parts::With { digest, tail, .. } => commits(digest, tail),
            Parts::Whole(_) | Parts::Detached { .. } => true,
        })
        .unwrap_or(Parts::Whole(line))
}

/// The line without its content: as it is where it has none.
#[must_use]
pub fn detached(line: &[u8]) -> Cow<'_, [u8]> {
    match parts(line) {
        Parts::Whole(line) | Parts::Detached { line, .. } => Cow::Borrowed(line),
        Parts::With { head, digest, .. } => Cow::Owned([head, BEFORE_DIGEST, digest, END].concat()),
    }
}

/// Puts content back into a line that lost it. `None` where the line has lost none, or not this one.
#[must_use]
pub fn attach(detached: &[u8], tail: &[u8]) -> Option<Vec<u8>> {
    let Parts::Detached { digest, line } = parts(detached) else {
        return None;
    };
    let head = line.strip_suffix(END)?;
    let whole = [head, BEFORE_TAIL, tail, b"}"].concat();
    // The digest alone does not say so: somebody may have committed to what is no content.
    let there = matches!(cut(&whole), Some(Parts::With { tail: found, .. }) if found == tail);
    (there && commits(digest, tail)).then_some(whole)
}

/// SHA-256 of the line without its content, which is nowhere put together.
pub(crate) fn hash(line: &[u8]) -> [u8; 32] {
    match parts(line) {
        Parts::Whole(line) | Parts::Detached { line, .. } => Sha256::digest(line).into(),
        Parts::With { head, digest, .. } => Sha256::new()
            .chain_update(head)
            .chain_update(BEFORE_DIGEST)
            .chain_update(digest)
            .chain_update(END)
            .finalize()
            .into(),
    }
}

/// Where the cut would be if the digest is the content's.
fn cut(line: &[u8]) -> Option<Parts<'_>> {
    let shortest = DIGITS.saturating_add(END.len());
    // A quotation mark within a string is escaped: whatever JSON object the line is, this is a name in it. That it is the outermost object's shows what follows.
    let at = CUT.find_iter(line).last()?;
    let (head, rest) = line.split_at_checked(at)?;
    let rest = rest.strip_prefix(BEFORE_DIGEST)?;
    if rest.len() < shortest {
        return None;
    }
    let (digest, rest) = rest.split_at_checked(DIGITS)?;
    if !digest
        .iter()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        return None;
    }
    if rest == END {
        return Some(Parts::Detached { line, digest });
    }
    let tail = rest.strip_prefix(BEFORE_TAIL)?.strip_suffix(b"}")?;
    is_content(tail).then_some(Parts::With { head, digest, tail })
}

/// Whether this is one JSON object that begins as content does, and nothing after it.
fn is_content(tail: &[u8]) -> bool {
    tail.starts_with(SALT)
        && tail.ends_with(b"}")
        && serde_json::from_slice::<IgnoredAny>(tail).is_ok()
}

/// Whether `digest`, in hex, is SHA-256 of `tail`.
fn commits(digest: &[u8], tail: &[u8]) -> bool {
    let mut hex = [0; DIGITS];
    hex::encode_to_slice(Sha256::digest(tail), &mut hex).is_ok() && hex == digest
}

#[cfg(test)]
mod tests;
