//! The lines of a segment: their forms, one reader of them, and how each is written.
//!
//! Owns what a line may be. Refuses to open what is sealed, which is `content`'s. Invariant: the forms are told apart by their bytes alone. A record's line is a JSON object and ends in `}`; what stands after a sealed record's
//! object has none; the others begin with a word that no JSON text begins with.

use std::fmt::Write as _;

use chaperone_crds::chain::MAX_RECORD_BYTES;
use thiserror::Error;

use crate::{
    checkpoint::decimal,
    content::{BadKeyId, KeyId},
    leaf::{BadLeaf, Leaf},
};

/// Longest line of a segment, in bytes: the longest record with all of its content sealed, which base64 makes a third longer where it does not get shorter by compression, and what stands around it.
pub(crate) const MAX_LINE_BYTES: usize = MAX_RECORD_BYTES / 3 * 4 + 8 * 1024;
/// What stands between a record and its sealed content.
const SEALED: &[u8] = b" sealed/1 ";
/// The first word of the line that begins a segment which was written anew.
const BEGINS: &str = "chaperone-segment/1 ";
/// The first word of a leaf.
const LEAF: &[u8] = b"chaperone-record/";

/// A line of a segment, without its newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored<'a> {
    /// A record: all of it, or without the content that it had.
    Record(&'a [u8]),
    /// A record without its content, and that sealed.
    Sealed(Sealed<'a>),
    /// The leaf of a record that was deleted.
    Deleted(Leaf),
    /// The first line of a segment that was written anew: number of the leaf whose line comes next.
    Begins(u64),
}

/// A record whose content is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed<'a> {
    /// The record's line without its content.
    pub(crate) detached: &'a [u8],
    /// The key that opens it.
    pub(crate) key: KeyId,
    /// What it opens, in base64.
    pub(crate) sealed: &'a [u8],
}

/// A line that is none of these.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum BadLine {
    /// It begins as a leaf does.
    #[error(transparent)]
    Leaf(#[from] BadLeaf),
    /// It begins as a segment does.
    #[error(
        "a segment that was written anew begins with `{BEGINS}` and the number of its first leaf"
    )]
    Begins,
    /// Something else than sealed content stands after a record.
    #[error("what stands after the record is no `sealed/1`, a key and content in base64")]
    Sealed,
    /// Its key has no name of a key.
    #[error(transparent)]
    Key(#[from] BadKeyId),
    /// It is longer than any line.
    #[error("it is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
}

impl<'a> Stored<'a> {
    /// Reads a line. What is no JSON is a record all the same here: whoever reads the record says so.
    pub(crate) fn read(line: &'a [u8]) -> Result<Self, BadLine> {
        if line.len() > MAX_LINE_BYTES {
            return Err(BadLine::TooLong);
        }
        if line.starts_with(LEAF) {
            return Ok(Self::Deleted(text(line).parse()?));
        }
        if let Some(number) = line.strip_prefix(BEGINS.as_bytes()) {
            let number = decimal(text(number)).map_err(|_| BadLine::Begins)?;
            return Ok(Self::Begins(number));
        }
        let end = memchr::memrchr(b'}', line).map_or(0, |brace| brace.saturating_add(1));
        match line.split_at_checked(end) {
            Some((detached, rest)) if end > 0 && !rest.is_empty() => {
                Sealed::read(detached, rest).map(Self::Sealed)
            }
            _ => Ok(Self::Record(line)),
        }
    }

    /// The record's line as it is hashed, as far as this is known without a key. None of what is no record.
    pub(crate) fn record(&self) -> Option<&'a [u8]> {
        match self {
            Self::Record(line) => Some(line),
            Self::Sealed(sealed) => Some(sealed.detached),
            Self::Deleted(_) | Self::Begins(_) => None,
        }
    }
}

impl<'a> Sealed<'a> {
    fn read(detached: &'a [u8], rest: &'a [u8]) -> Result<Self, BadLine> {
        let rest = rest.strip_prefix(SEALED).ok_or(BadLine::Sealed)?;
        let space = memchr::memchr(b' ', rest).ok_or(BadLine::Sealed)?;
        let (key, sealed) = rest.split_at_checked(space).ok_or(BadLine::Sealed)?;
        let sealed = sealed.strip_prefix(b" ").ok_or(BadLine::Sealed)?;
        if sealed.is_empty() || sealed.contains(&b' ') {
            return Err(BadLine::Sealed);
        }
        Ok(Self {
            detached,
            key: text(key).parse()?,
            sealed,
        })
    }
}

/// Writes a record whose content is sealed, without a newline.
pub(crate) fn sealed(detached: &[u8], key: &KeyId, content: &str, out: &mut Vec<u8>) {
    let mut name = String::new();
    // Writing to a String cannot fail.
    let _ = write!(name, "{key} ");
    for part in [detached, SEALED, name.as_bytes(), content.as_bytes()] {
        out.extend_from_slice(part);
    }
}

/// The first line of a segment that is written anew, without a newline.
pub(crate) fn begins(leaf: u64) -> String {
    format!("{BEGINS}{leaf}")
}

/// Whether a segment that begins so was written anew, as far as its first word tells.
pub(crate) fn is_begun_anew(line: &[u8]) -> bool {
    line.starts_with(BEGINS.as_bytes())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::id;

    const KEY: &str = "20261129-00112233445566aa";

    fn leaf() -> Leaf {
        Leaf {
            stream: id(1),
            seq: 7,
            record: chaperone_crds::chain::RecordHash::of(b"x"),
        }
    }

    #[test]
    fn each_form_reads_as_it_was_written() {
        let record = br#"{"v":"2","text":"} sealed/1 20261129-00112233445566aa QUJD"}"#;
        assert_eq!(Stored::read(record), Ok(Stored::Record(record)));
        let key: KeyId = KEY.parse().unwrap();
        let mut line = Vec::new();
        sealed(record, &key, "QUJD", &mut line);
        let read = Stored::read(&line).unwrap();
        let expected = Sealed {
            detached: record,
            key,
            sealed: b"QUJD",
        };
        assert_eq!(read, Stored::Sealed(expected));
        assert_eq!(read.record(), Some(&record[..]));
        let text = leaf().to_string();
        assert_eq!(Stored::read(text.as_bytes()), Ok(Stored::Deleted(leaf())));
        assert_eq!(Stored::read(begins(41).as_bytes()), Ok(Stored::Begins(41)));
        assert!(is_begun_anew(begins(41).as_bytes()));
    }

    #[test]
    fn what_is_none_of_them_is_refused() {
        for line in [
            "{} ",
            "{}x",
            "{} sealed/1",
            "{} sealed/1 20261129-00112233445566aa",
            "{} sealed/1 20261129-00112233445566aa ",
            "{} sealed/1 20261129-00112233445566aa QUJD ",
            "{} sealed/1 20261129-00112233445566aa QUJD QUJD",
            "{} sealed/1 20261329-00112233445566aa QUJD",
            "{} sealed/2 20261129-00112233445566aa QUJD",
            "chaperone-record/1 x",
            "chaperone-record/2",
            "chaperone-segment/1 x",
            "chaperone-segment/1 01",
        ] {
            assert!(Stored::read(line.as_bytes()).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_one_form_or_none(line in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Stored::Sealed(read)) = Stored::read(&line) {
                let mut again = Vec::new();
                sealed(read.detached, &read.key, std::str::from_utf8(read.sealed).unwrap_or_default(), &mut again);
                prop_assert!(again == line || std::str::from_utf8(read.sealed).is_err());
            }
        }
    }
}
