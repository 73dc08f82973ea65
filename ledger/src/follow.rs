//! Records read as they are committed, by who wants each of them once and in order: an index, a sink.
//!
//! Owns the way from one record to the next: a [`Cursor`] is a number of a leaf and the place in the segments where its line begins. A [`Follower`] starts at any cursor that a follower has given (or at
//! [`Cursor::START`]) and gives the records after it, one at a time, up to the end that it is told at each call. Whoever follows keeps the cursor with what it made of the records, in one transaction: then nothing is
//! taken twice and nothing is left out. Of the memory a follower holds the longest record and a block.
//!
//! Refuses threads and clocks. What is committed is the caller's to know: inside the process that writes it is [`Store::end`](crate::store::Store::end), told after each commit (`chaperone-ledger` has it in a `watch` channel,
//! `WriterThread::committed`, which a follower waits on); for a directory at rest it is [`end_of`].
//!
//! Invariant: no byte after the end is looked at; what is given is whole lines. A cursor that does not fit the directory (of another ledger, or ahead of an older copy that was put back) is an error as far as that shows
//! here: its place is no line's beginning, or lies after the end. That its number fits its place is not looked at.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    content::{KeyId, Keys},
    leaf::Leaf,
    line::{MAX_LINE_BYTES, Stored, is_begun_anew},
    store::{layout::RECORDS, segments},
};

mod held;
mod lines;

use held::{Given, held};
pub use held::{Held, held_at};
pub use lines::Lines;

/// Bytes that are read at a time.
const BLOCK: usize = 256 * 1024;

/// A place in the segments. Places are ordered as records are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Place {
    /// Number of the segment.
    pub segment: u64,
    /// Bytes of it that come before.
    pub offset: u64,
}

/// Where a follower stands: before this leaf, whose line begins (or will begin) there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// Number of the leaf; so many records come before.
    pub leaf: u64,
    /// Where its line begins. The end of a segment and the beginning of the next are both right.
    pub place: Place,
}

impl Cursor {
    /// Before the first record.
    pub const START: Self = Self {
        leaf: 0,
        place: Place {
            segment: 0,
            offset: 0,
        },
    };
}

/// A committed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed<'a> {
    /// Number of its leaf.
    pub leaf: u64,
    /// Where its line begins.
    pub place: Place,
    /// Bytes of its line in the segment, without its newline.
    pub length: usize,
    /// The record as it was written, with its content as far as that is there, without a newline. Empty where it was deleted.
    pub line: &'a [u8],
    /// Its leaf, where it was deleted.
    pub deleted: Option<&'a Leaf>,
    /// The key that opened its content, where it was sealed and is there.
    pub key: Option<KeyId>,
}

/// Why there is no next record.
#[derive(Debug, Error)]
pub enum FollowError {
    /// The disk.
    #[error("{file}: {error}")]
    Io {
        /// What was read.
        file: String,
        /// Why it was not.
        error: io::Error,
    },
    /// A line has none of the forms that lines have there.
    #[error("segment {:08}, byte {}: no record, no leaf, and no content that is sealed", .0.segment, .0.offset)]
    NotALine(Place),
    /// The cursor is of another directory, or the directory is an older copy.
    #[error("segment {:08}, byte {}: the cursor is ahead of the records", .0.segment, .0.offset)]
    Ahead(Place),
    /// The cursor is of another directory.
    #[error("segment {:08}, byte {}: no record begins here", .0.segment, .0.offset)]
    NotABeginning(Place),
    /// A segment ends before the end that was told, or in the middle of a line.
    #[error("segment {:08}, byte {}: the segment ends where a record should be", .0.segment, .0.offset)]
    Short(Place),
    /// What is there is no record.
    #[error("segment {:08}, byte {}: a line of more than {MAX_LINE_BYTES} bytes", .0.segment, .0.offset)]
    TooLong(Place),
}

/// Reads records in order.
#[derive(Debug)]
pub struct Follower {
    records: PathBuf,
    cursor: Cursor,
    /// The cursor's segment, once it was opened.
    file: Option<File>,
    /// Bytes of it from the cursor on, after `taken` that were given already.
    buffer: Vec<u8>,
    taken: usize,
    keys: Keys,
    /// The last record that was given.
    given: Given,
}

impl Follower {
    /// Follows the ledger in this directory from there. Nothing is opened yet.
    #[must_use]
    pub fn new(dir: &Path, cursor: Cursor) -> Self {
        Self {
            records: dir.join(RECORDS),
            cursor,
            file: None,
            buffer: Vec::new(),
            taken: 0,
            keys: Keys::of(dir),
            given: Given::default(),
        }
    }

    /// Where it stands: before the record that comes next.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The next record, if there is one before this end. The cursor is after it then.
    ///
    /// # Errors
    /// [`FollowError`]. The cursor is where it was; a call after an error reads the disk anew.
    pub fn next(&mut self, end: Place) -> Result<Option<Followed<'_>>, FollowError> {
        match self.look(end) {
            Ok(Some(length)) => Ok(Some(self.give(length))),
            Ok(None) => Ok(None),
            Err(error) => {
                self.forget();
                Err(error)
            }
        }
    }

    /// Has the next record in the buffer, and read. The length of its line, without the newline.
    fn look(&mut self, end: Place) -> Result<Option<usize>, FollowError> {
        let Some(length) = self.find(end)? else {
            return Ok(None);
        };
        let at = self.cursor.place;
        let line = self.rest().get(..length).unwrap_or_default();
        let held = held(&self.keys, line).map_err(|error| self.unreadable(error))?;
        self.given = match held {
            Ok(given) => given,
            Err(_) => return Err(FollowError::NotALine(at)),
        };
        Ok(Some(length))
    }

    fn unreadable(&self, error: io::Error) -> FollowError {
        unreadable(
            &segments::path(&self.records, self.cursor.place.segment),
            error,
        )
    }

    /// Has the next line in the buffer. Its length, without the newline.
    fn find(&mut self, end: Place) -> Result<Option<usize>, FollowError> {
        let mut looked = 0_usize;
        loop {
            let at = self.cursor.place;
            if at == end {
                return Ok(None);
            }
            if at > end {
                return Err(FollowError::Ahead(at));
            }
            if self.file.is_none() {
                self.file = Some(self.open()?);
                continue;
            }
            let rest = self.rest();
            let newline = memchr::memchr(b'\n', rest.get(looked..).unwrap_or_default());
            if let Some(newline) = newline {
                let length = self.check(looked.saturating_add(newline), end)?;
                if !self.begins_anew(length)? {
                    return Ok(Some(length));
                }
                looked = 0;
                continue;
            }
            looked = rest.len();
            if looked > MAX_LINE_BYTES {
                return Err(FollowError::TooLong(at));
            }
            if self.fill(end)? == 0 {
                if looked > 0 || at.segment >= end.segment {
                    return Err(FollowError::Short(at));
                }
                self.cursor.place = Place {
                    segment: at.segment.saturating_add(1),
                    offset: 0,
                };
                self.forget();
            }
        }
    }

    /// Whether this line says that the segment was written anew, and is no record. The cursor is after it then.
    fn begins_anew(&mut self, length: usize) -> Result<bool, FollowError> {
        let Cursor { leaf, place } = self.cursor;
        let line = self.rest().get(..length).unwrap_or_default();
        if place.offset > 0 || !is_begun_anew(line) {
            return Ok(false);
        }
        if Stored::read(line) != Ok(Stored::Begins(leaf)) {
            return Err(FollowError::NotABeginning(place));
        }
        self.taken = self.taken.saturating_add(length).saturating_add(1);
        self.cursor.place = after(place, length);
        Ok(true)
    }

    /// A line that would end after the end is none that was committed.
    fn check(&self, length: usize, end: Place) -> Result<usize, FollowError> {
        let at = self.cursor.place;
        if length > MAX_LINE_BYTES {
            return Err(FollowError::TooLong(at));
        }
        if after(at, length) > end {
            return Err(FollowError::Short(at));
        }
        Ok(length)
    }

    fn give(&mut self, length: usize) -> Followed<'_> {
        let Cursor { leaf, place } = self.cursor;
        let from = self.taken;
        self.taken = from.saturating_add(length).saturating_add(1);
        self.cursor = Cursor {
            leaf: leaf.saturating_add(1),
            place: after(place, length),
        };
        let own = self.buffer.get(from..from.saturating_add(length));
        let (line, deleted) = match &self.given.held {
            None => (own.unwrap_or_default(), None),
            Some(Held::Record(line)) => (line.as_slice(), None),
            Some(Held::Deleted(leaf)) => (&[][..], Some(leaf)),
        };
        Followed {
            leaf,
            place,
            length,
            line,
            deleted,
            key: self.given.key,
        }
    }

    /// What was read and not given.
    fn rest(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or_default()
    }

    /// Reads a block more, not beyond the end. How many bytes came.
    fn fill(&mut self, end: Place) -> Result<usize, FollowError> {
        let at = self.cursor.place;
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let there = self.buffer.len();
        let from = at
            .offset
            .saturating_add(u64::try_from(there).unwrap_or(u64::MAX));
        let left = match at.segment == end.segment {
            true => end.offset.saturating_sub(from),
            false => u64::MAX,
        };
        let wanted = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        self.buffer.resize(there.saturating_add(wanted), 0);
        let read = self.read(from, there);
        self.buffer
            .truncate(there.saturating_add(*read.as_ref().unwrap_or(&0)));
        read
    }

    fn read(&mut self, from: u64, into: usize) -> Result<usize, FollowError> {
        let Some(file) = &self.file else {
            return Ok(0);
        };
        let buffer = self.buffer.get_mut(into..).unwrap_or_default();
        let path = segments::path(&self.records, self.cursor.place.segment);
        read_some(file, buffer, from).map_err(|error| unreadable(&path, error))
    }

    /// The cursor's segment, if a line begins at the cursor. In one that was written anew the cursor's place is looked for by its number.
    fn open(&mut self) -> Result<File, FollowError> {
        let path = segments::path(&self.records, self.cursor.place.segment);
        let file = File::open(&path).map_err(|error| unreadable(&path, error))?;
        let moved = self
            .moved(&file)
            .map_err(|error| unreadable(&path, error))?;
        self.cursor.place = moved.ok_or(FollowError::Short(self.cursor.place))?;
        let at = self.cursor.place;
        let length = file.metadata().map(|metadata| metadata.len());
        if at.offset > length.map_err(|error| unreadable(&path, error))? {
            return Err(FollowError::Short(at));
        }
        if let Some(before) = at.offset.checked_sub(1) {
            let mut byte = [0];
            let read = read_some(&file, &mut byte, before);
            if read.map_err(|error| unreadable(&path, error))? != 1 {
                return Err(FollowError::Short(at));
            }
            if byte != *b"\n" {
                return Err(FollowError::NotABeginning(at));
            }
        }
        Ok(file)
    }

    /// Where the cursor's line begins now. None where the segment ends before.
    fn moved(&self, file: &File) -> io::Result<Option<Place>> {
        let Cursor { leaf, place } = self.cursor;
        if place.offset == 0 {
            return Ok(Some(place));
        }
        let mut block = vec![0; BLOCK];
        let mut read = read_some(file, &mut block, 0)?;
        if !is_begun_anew(block.get(..read).unwrap_or_default()) {
            return Ok(Some(place));
        }
        // The line that says so, and each record before.
        let (mut offset, mut lines) = (0_u64, None);
        while read > 0 {
            let bytes = block.get(..read).unwrap_or_default();
            for newline in memchr::memchr_iter(b'\n', bytes) {
                lines = match lines {
                    None => {
                        let line = bytes.get(..newline).unwrap_or_default();
                        let Ok(Stored::Begins(first)) = Stored::read(line) else {
                            return Ok(None);
                        };
                        leaf.checked_sub(first)
                    }
                    Some(left) => u64::checked_sub(left, 1),
                };
                match lines {
                    None => return Ok(None),
                    Some(0) => {
                        let line = u64::try_from(newline).unwrap_or(u64::MAX);
                        let offset = offset.saturating_add(line).saturating_add(1);
                        return Ok(Some(Place { offset, ..place }));
                    }
                    Some(_) => {}
                }
            }
            offset = offset.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            read = read_some(file, &mut block, offset)?;
        }
        Ok(None)
    }

    fn forget(&mut self) {
        self.file = None;
        self.buffer.clear();
        self.taken = 0;
    }
}

/// Where a directory's records end, as far as whole lines tell: for a ledger that nobody writes to. Of one that runs, the last of these may not be synced yet.
///
/// # Errors
/// [`FollowError::Io`].
pub fn end_of(dir: &Path) -> Result<Place, FollowError> {
    let records = dir.join(RECORDS);
    let numbers = segments::list(&records).map_err(|error| unreadable(&records, error))?;
    let Some(segment) = numbers.last().copied() else {
        return Ok(Place::default());
    };
    let path = segments::path(&records, segment);
    let bytes = fs::read(&path).map_err(|error| unreadable(&path, error))?;
    Ok(Place {
        segment,
        offset: u64::try_from(segments::whole(&bytes)).unwrap_or(u64::MAX),
    })
}

fn after(place: Place, length: usize) -> Place {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    Place {
        offset: place.offset.saturating_add(length).saturating_add(1),
        ..place
    }
}

/// Fills the buffer, or as much of it as the file has.
fn read_some(file: &File, buffer: &mut [u8], from: u64) -> io::Result<usize> {
    let mut read = 0_usize;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        let at = from.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        match file.read_at(rest, at) {
            Ok(0) => break,
            Ok(more) => read = read.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn unreadable(file: &Path, error: io::Error) -> FollowError {
    FollowError::Io {
        file: file.display().to_string(),
        error,
    }
}

#[cfg(test)]
mod tests;
