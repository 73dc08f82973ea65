//! A leaf of the tree: a line that names a record by its place and its hash.
//!
//! Owns its one form. Refuses the record itself: who holds the leaf learns where a record stands, and nothing that it says. `docs/ledger-format.md` says why.

use std::{fmt, str::FromStr};

use chaperone_crds::chain::{RecordHash, StreamId};
use thiserror::Error;

use crate::{
    checkpoint::decimal,
    merkle::{self, Hash},
};

/// The first word of each leaf: what it is, and in which version of its form.
const WORD: &str = "chaperone-record/1";
/// Longest leaf, in bytes: the word, a UUID, 20 digits, 64 digits, three spaces.
pub const MAX_LEAF_BYTES: usize = WORD.len() + 36 + 20 + 64 + 3;

/// A record's place and hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Its stream.
    pub stream: StreamId,
    /// Its number in the stream.
    pub seq: u64,
    /// SHA-256 over its line.
    pub record: RecordHash,
}

/// A text that is no [`Leaf`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "a leaf is `{WORD} STREAM NUMBER HASH`: a UUID, a decimal number, 64 lower-case hex digits"
)]
pub struct BadLeaf;

impl Leaf {
    /// The leaf's hash in the tree.
    #[must_use]
    pub fn hash(&self) -> Hash {
        merkle::leaf_hash(entry(&self.stream, self.seq, self.record).as_bytes())
    }
}

/// The leaf of a record, as it stands in the tree.
pub(crate) fn entry(stream: &StreamId, seq: u64, record: RecordHash) -> String {
    let mut entry = String::with_capacity(MAX_LEAF_BYTES);
    // Writing to a String cannot fail.
    let _ = write(&mut entry, stream, seq, record);
    entry
}

fn write(
    out: &mut impl fmt::Write,
    stream: &StreamId,
    seq: u64,
    record: RecordHash,
) -> fmt::Result {
    write!(out, "{WORD} {stream} {seq} {record}")
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, &self.stream, self.seq, self.record)
    }
}

impl FromStr for Leaf {
    type Err = BadLeaf;

    fn from_str(text: &str) -> Result<Self, BadLeaf> {
        let mut words = text.splitn(4, ' ');
        if words.next() != Some(WORD) {
            return Err(BadLeaf);
        }
        let mut word = || words.next().ok_or(BadLeaf);
        Ok(Self {
            stream: word()?.parse().map_err(|_| BadLeaf)?,
            seq: decimal(word()?).map_err(|_| BadLeaf)?,
            record: word()?.parse().map_err(|_| BadLeaf)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "chaperone-record/1 7d9f1c1e-6f0a-4c53-9d5b-0b8a3c1f2e4d 41233 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_leaf_has_one_form() {
        let leaf: Leaf = LINE.parse().unwrap();
        assert_eq!(
            (leaf.seq, leaf.record),
            (41233, RecordHash::of(b"")),
            "{leaf:?}"
        );
        assert_eq!(leaf.to_string(), LINE);
        assert_eq!(leaf.hash(), merkle::leaf_hash(LINE.as_bytes()));
        for other in [
            "",
            &LINE.to_uppercase(),
            &LINE.replace("/1", "/2"),
            &LINE.replace(" 41233", " 041233"),
            &LINE.replace(" 41233", " +41233"),
            &LINE.replace(" 41233", " 99999999999999999999"),
            &LINE.replace(' ', "  "),
            &format!("{LINE}\n"),
            &format!("{LINE} "),
            &LINE[..LINE.len() - 1],
        ] {
            assert_eq!(other.parse::<Leaf>(), Err(BadLeaf), "{other:?}");
        }
    }

    #[test]
    fn the_longest_leaf_has_the_longest_number() {
        let longest = LINE.replace("41233", &u64::MAX.to_string());
        assert_eq!(longest.parse::<Leaf>().unwrap().seq, u64::MAX);
        assert_eq!(longest.len(), MAX_LEAF_BYTES);
    }
}
