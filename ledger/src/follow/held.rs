//! What a line of a segment holds, as far as it opens.

use std::{fs::File, io, path::Path};

use super::{Place, read_some};
use crate::{
    content::{Content, KeyId, Keys},
    leaf::Leaf,
    line::{BadLine, MAX_LINE_BYTES, Stored, is_begun_anew},
    store::{layout::RECORDS, segments},
};

/// What a place in the segments holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// A record, as it was written as far as its content is there.
    Record(Vec<u8>),
    /// The leaf of a record that was deleted.
    Deleted(Leaf),
}

/// What a line holds.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Where that is not the line itself: it was sealed, or deleted.
    pub(super) held: Option<Held>,
    /// What opened its content.
    pub(super) key: Option<KeyId>,
}

/// What the line of so many bytes holds that begins there. `None` if there is no such line.
///
/// # Errors
/// The system's; a segment that is not there is [`io::ErrorKind::NotFound`].
pub fn held_at(dir: &Path, keys: &Keys, place: Place, length: usize) -> io::Result<Option<Held>> {
    if length > MAX_LINE_BYTES {
        return Ok(None);
    }
    let file = File::open(segments::path(&dir.join(RECORDS), place.segment))?;
    if place.offset > file.metadata()?.len() {
        return Ok(None);
    }
    let mut line = vec![0; length.saturating_add(1)];
    let read = read_some(&file, &mut line, place.offset)?;
    let is_whole = read == line.len() && memchr::memchr(b'\n', &line) == Some(length);
    line.truncate(length);
    if !is_whole || is_begun_anew(&line) {
        return Ok(None);
    }
    match held(keys, &line)? {
        Ok(given) => Ok(Some(given.held.unwrap_or(Held::Record(line)))),
        Err(_) => Ok(None),
    }
}

/// What a line holds.
pub(super) fn held(keys: &Keys, line: &[u8]) -> io::Result<Result<Given, BadLine>> {
    let stored = match Stored::read(line) {
        Ok(stored) => stored,
        Err(fault) => return Ok(Err(fault)),
    };
    let (held, key) = match stored {
        Stored::Record(_) => (None, None),
        Stored::Begins(_) => return Ok(Err(BadLine::Begins)),
        Stored::Deleted(leaf) => (Some(Held::Deleted(leaf)), None),
        // What does not open is no content; `audit` says which of it should.
        Stored::Sealed(sealed) => match keys.open(&sealed)? {
            Content::There(line) => (Some(Held::Record(line)), Some(sealed.key)),
            Content::Gone | Content::Damaged => {
                (Some(Held::Record(sealed.detached.to_vec())), None)
            }
        },
    };
    Ok(Ok(Given { held, key }))
}
