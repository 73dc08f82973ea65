//! Where the lines of a segment begin that was written anew, for who knows where they were.

use std::{fs::File, io, path::Path};

use super::{BLOCK, Place, is_begun_anew, read_some};
use crate::{
    line::Stored,
    store::{layout::RECORDS, segments},
};

/// The lines of one segment, by their leaves.
#[derive(Debug)]
pub struct Lines {
    segment: u64,
    first: u64,
    /// Where each line begins, and at last where the segment ends.
    begins: Vec<u64>,
}

impl Lines {
    /// Of this segment. `None` of one that was never written anew.
    ///
    /// # Errors
    /// The system's; a segment that is not there is [`io::ErrorKind::NotFound`].
    pub fn read(dir: &Path, segment: u64) -> io::Result<Option<Self>> {
        let file = File::open(segments::path(&dir.join(RECORDS), segment))?;
        let mut block = vec![0; BLOCK];
        let mut read = read_some(&file, &mut block, 0)?;
        let head = block.get(..read).unwrap_or_default();
        let Some(first) = first(head) else {
            return Ok(None);
        };
        let (mut begins, mut at) = (Vec::new(), 0_u64);
        while read > 0 {
            let bytes = block.get(..read).unwrap_or_default();
            let ends = memchr::memchr_iter(b'\n', bytes).map(|newline| newline.saturating_add(1));
            begins
                .extend(ends.map(|end| at.saturating_add(u64::try_from(end).unwrap_or(u64::MAX))));
            at = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            read = read_some(&file, &mut block, at)?;
        }
        Ok(Some(Self {
            segment,
            first,
            begins,
        }))
    }

    /// The segment that they are of.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Where the line of this leaf begins, and how long it is without its newline. `None` where the segment has no such leaf.
    #[must_use]
    pub fn of(&self, leaf: u64) -> Option<(Place, usize)> {
        let number = usize::try_from(leaf.checked_sub(self.first)?).ok()?;
        let offset = *self.begins.get(number)?;
        let next = *self.begins.get(number.checked_add(1)?)?;
        let length = next.checked_sub(offset)?.checked_sub(1)?;
        let place = Place {
            segment: self.segment,
            offset,
        };
        Some((place, usize::try_from(length).ok()?))
    }
}

/// The first leaf of a segment that begins so, where it was written anew.
fn first(head: &[u8]) -> Option<u64> {
    if !is_begun_anew(head) {
        return None;
    }
    let newline = memchr::memchr(b'\n', head)?;
    match Stored::read(head.get(..newline)?) {
        Ok(Stored::Begins(first)) => Some(first),
        _ => None,
    }
}
