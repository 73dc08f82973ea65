//! The pages of a column of Parquet, looked at before the library unfolds them: it makes room for what a page says that it has.
//!
//! Owns Thrift's compact protocol as far as heads of pages need it (parquet.thrift, PageHeader). Refuses kinds of pages and encodings that no sink writes.

use std::ops::Range;

use super::{MAX_RECORDS, MAX_UNFOLDED_BYTES};

/// Deepest that a head may be nested; it is 3 at most.
const MAX_DEPTH: u8 = 8;

/// Kinds of pages (PageType).
const DATA_PAGE: i64 = 0;
const DICTIONARY_PAGE: i64 = 2;
/// Encodings that a sink's writer uses (Encoding): of values, plain or by a dictionary, under its old number and its new.
const ENCODINGS: [i64; 3] = [0, 2, 8];

/// What a head says.
#[derive(Debug, Default)]
struct Head {
    kind: Option<i64>,
    unfolded: Option<i64>,
    packed: Option<i64>,
    values: Option<i64>,
    /// Its values are written as a sink's writer does.
    is_usual: bool,
}

/// Whether the pages of the column in these bytes of the file are none that a sink does not write.
pub(super) fn check(file: &[u8], column: Range<usize>) -> Result<(), String> {
    let mut rest = Bytes(file.get(column).ok_or("a column is not within it")?);
    let mut unfolded = 0_usize;
    while !rest.0.is_empty() {
        let head = rest.head().ok_or("the head of a page cannot be read")?;
        let (length, values) = head.sizes().ok_or("a page is none that a sink writes")?;
        unfolded = unfolded.saturating_add(length);
        if unfolded > MAX_UNFOLDED_BYTES || values > MAX_RECORDS {
            return Err(super::TOO_MUCH.to_owned());
        }
        let packed = head.packed.and_then(|length| usize::try_from(length).ok());
        let packed = packed.ok_or("a page has no length")?;
        rest.take(packed).ok_or("a page ends beyond its column")?;
    }
    Ok(())
}

impl Head {
    /// Bytes that it unfolds to, and its values.
    fn sizes(&self) -> Option<(usize, usize)> {
        let is_known = matches!(self.kind?, DATA_PAGE | DICTIONARY_PAGE);
        let (unfolded, values) = (self.unfolded?, self.values?);
        let sizes = (
            usize::try_from(unfolded).ok()?,
            usize::try_from(values).ok()?,
        );
        (is_known && self.is_usual).then_some(sizes)
    }
}

/// What is left of some bytes.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// A PageHeader. A field that is there twice has the last one's value, as to the library.
    fn head(&mut self) -> Option<Head> {
        let mut head = Head::default();
        let mut last = 0;
        while let Some((id, kind)) = self.field(&mut last)? {
            match (id, kind) {
                (1, 5) => head.kind = Some(self.number()?),
                // The most, and not the last: none may be too long.
                (2, 5) => head.unfolded = head.unfolded.max(Some(self.number()?)),
                (3, 5) => head.packed = Some(self.number()?),
                // DataPageHeader and DictionaryPageHeader begin alike: values, and how they are written.
                (5 | 7, 12) => self.values(&mut head)?,
                (_, kind) => self.skip(kind, 0)?,
            }
        }
        Some(head)
    }

    fn values(&mut self, head: &mut Head) -> Option<()> {
        let mut last = 0;
        while let Some((id, kind)) = self.field(&mut last)? {
            match (id, kind) {
                (1, 5) => head.values = head.values.max(Some(self.number()?)),
                (2, 5) => {
                    let encoding = self.number()?;
                    head.is_usual = ENCODINGS.contains(&encoding).then_some(true)?;
                }
                (_, kind) => self.skip(kind, 1)?,
            }
        }
        Some(())
    }

    /// The next field's number and type; none where the struct ends.
    fn field(&mut self, last: &mut i64) -> Option<Option<(i64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *last = match byte >> 4 {
            0 => self.number()?,
            more => last.checked_add(i64::from(more))?,
        };
        Some(Some((*last, byte & 0x0f)))
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match kind {
            // A boolean is its type.
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.number()?),
            7 => drop(self.take(8)?),
            8 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.take(length)?;
            }
            9 | 10 => self.skip_list(depth)?,
            12 => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, depth.checked_add(1)?)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn skip_list(&mut self, depth: u8) -> Option<()> {
        let byte = self.byte()?;
        let count = match byte >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        for _ in 0..count {
            match byte & 0x0f {
                // In a list a boolean is a byte.
                1 | 2 => drop(self.byte()?),
                kind => self.skip(kind, depth.checked_add(1)?)?,
            }
        }
        Some(())
    }

    /// A zigzag number.
    fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        let half = i64::try_from(value >> 1).ok()?;
        Some(if value & 1 == 0 { half } else { !half })
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{1: 0, 2: unfolded, 3: 3, 5: {1: values, 2: 0, 3: 3, 4: 3}}`, and three bytes.
    fn page(unfolded: u8, values: u8) -> Vec<u8> {
        let mut page = vec![0x15, 0, 0x15, unfolded * 2, 0x15, 6, 0x2c];
        page.extend([0x15, values * 2, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0]);
        page.extend(b"abc");
        page
    }

    #[test]
    fn pages_are_followed_to_the_end_of_their_column() {
        let pages = [page(9, 2), page(3, 1)].concat();
        let length = pages.len();
        assert_eq!(check(&pages, 0..length), Ok(()));
        let refused = |range| check(&pages, range).unwrap_err();
        assert!(refused(0..length + 1).contains("not within it"));
        assert!(refused(0..length - 1).contains("beyond its column"));
        assert!(refused(1..length).contains("page"));
        for cut in 1..page(9, 2).len() - 3 {
            assert!(refused(0..cut).contains("head of a page"), "{cut}");
        }
    }

    #[test]
    fn what_no_sink_writes_is_refused() {
        let edited = |at: usize, byte: u8| {
            let mut page = page(9, 2);
            page[at] = byte;
            let length = page.len();
            check(&page, 0..length)
        };
        assert!(edited(1, 6).is_err(), "a page of version 2");
        assert!(edited(10, 10).is_err(), "a delta encoding");
        assert!(edited(10, 0).is_ok());
        assert!(edited(3, 1).is_err(), "a length below zero");
        let mut long = vec![0x15, 0, 0x15];
        long.extend([0xfe, 0xff, 0xff, 0xff, 0x0f]);
        long.extend(page(0, 1).get(4..).unwrap());
        let length = long.len();
        let refused = check(&long, 0..length).unwrap_err();
        assert!(
            refused.contains("more than an object may have"),
            "{refused}"
        );
    }
}
