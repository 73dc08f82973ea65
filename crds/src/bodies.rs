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
const BEFORE_SALT: &[u8] = b"{\"salt\":\"";
/// Digits of a digest.
const DIGITS: usize = 64;

static CUT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(BEFORE_DIGEST));

/// What makes the digest of a record's content one that nobody can find by trying contents: 16 random bytes, new for each record, which go when the content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt([u8; Salt::BYTES]);

impl Salt {
    /// Length in bytes.
    pub const BYTES: usize = 16;

    /// Of bytes that nobody can foresee.
    #[must_use]
    pub const fn from_random(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }
}

/// For who writes records that have no content: none is kept without a salt.
#[must_use]
pub const fn unsalted() -> Option<Salt> {
    None
}

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

impl<'a> Parts<'a> {
    /// The line without its content: as it is where it has none. For who has found the pieces already, which costs as much as to parse and hash all of the content.
    #[must_use]
    pub fn detached(self) -> Cow<'a, [u8]> {
        match self {
            Self::Whole(line) | Self::Detached { line, .. } => Cow::Borrowed(line),
            Self::With { head, digest, .. } => {
                Cow::Owned([head, BEFORE_DIGEST, digest, END].concat())
            }
        }
    }
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
    parts(line).detached()
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

/// Whether the line had content that is gone. Looks at its end only.
#[must_use]
pub fn is_detached(line: &[u8]) -> bool {
    gone(line).is_some()
}

/// Gives the record that stands at the end of `out`, from `start` on, its content: pairs of a place, which JSON need not escape, and a text. Returns the hash of the line. What stands there is one JSON
/// object with something in it.
pub(crate) fn put<'a>(
    out: &mut Vec<u8>,
    start: usize,
    salt: Salt,
    content: impl Iterator<Item = (&'static str, &'a str)>,
) -> [u8; 32] {
    // The brace that ends the object.
    out.pop();
    out.extend_from_slice(BEFORE_DIGEST);
    let digest_at = out.len();
    out.extend_from_slice(&[b'0'; DIGITS]);
    let digest_end = out.len();
    out.extend_from_slice(BEFORE_TAIL);
    let tail_at = out.len();
    let mut hex = [0; 2 * Salt::BYTES];
    hex::encode_to_slice(salt.0, &mut hex).expect("16 bytes are 32 hex digits");
    for part in [BEFORE_SALT, &hex, b"\""] {
        out.extend_from_slice(part);
    }
    for (place, text) in content {
        for part in [b",\"", place.as_bytes(), b"\":{\"text\":"] {
            out.extend_from_slice(part);
        }
        serde_json::to_writer(&mut *out, text).expect("a text serialises, and memory takes it");
        out.push(b'}');
    }
    out.push(b'}');
    let digest = Sha256::digest(out.get(tail_at..).unwrap_or_default());
    if let Some(room) = out.get_mut(digest_at..digest_end) {
        hex::encode_to_slice(digest, room).expect("32 bytes are 64 hex digits");
    }
    out.push(b'}');
    Sha256::new()
        .chain_update(out.get(start..digest_end).unwrap_or_default())
        .chain_update(END)
        .finalize()
        .into()
}

/// SHA-256 of the line without its content, which is nowhere put together.
pub(crate) fn hash(parts: Parts<'_>) -> [u8; 32] {
    match parts {
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
    if let Some(digest) = gone(line) {
        return Some(Parts::Detached { line, digest });
    }
    // A quotation mark within a string is escaped: whatever JSON object the line is, this is a name in it. That it is the outermost object's shows what follows.
    let at = CUT.find_iter(line).last()?;
    let (head, rest) = line.split_at_checked(at)?;
    let (digest, rest) = rest.strip_prefix(BEFORE_DIGEST)?.split_at_checked(DIGITS)?;
    let tail = rest.strip_prefix(BEFORE_TAIL)?.strip_suffix(b"}")?;
    (is_digest(digest) && is_content(tail)).then_some(Parts::With { head, digest, tail })
}

/// The digest of content that the line had and has not.
fn gone(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_suffix(END)?;
    let (head, digest) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    (head.ends_with(BEFORE_DIGEST) && is_digest(digest)).then_some(digest)
}

fn is_digest(hex: &[u8]) -> bool {
    hex.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether this is one JSON object that begins as content does, and nothing after it.
fn is_content(tail: &[u8]) -> bool {
    tail.starts_with(BEFORE_SALT)
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
