//! The reading end of the spool: whole lines, committed bytes only.

use std::{fs::File, io, os::unix::fs::FileExt};

use chaperone_crds::chain::MAX_RECORD_BYTES;

use super::{Position, Spool, segment_path};

/// Whole lines from one segment.
#[derive(Debug)]
pub(in crate::audit) struct Batch {
    /// The lines, each with its newline.
    pub(in crate::audit) bytes: Vec<u8>,
    /// How many.
    pub(in crate::audit) records: u64,
    /// Behind the last line.
    pub(in crate::audit) end: Position,
}

/// What there is at a position.
#[derive(Debug)]
pub(in crate::audit) enum Read {
    /// Records.
    Batch(Batch),
    /// None; this is the position from which to ask again.
    Nothing(Position),
}

impl Spool {
    /// At most `max_records` lines in at most `max_bytes`; one line at least, if there is one.
    ///
    /// # Errors
    /// The system's, or `InvalidData` if a segment holds no lines.
    pub(in crate::audit) fn read(
        &self,
        from: Position,
        max_records: u64,
        max_bytes: usize,
    ) -> io::Result<Read> {
        let (from, available) = self.available(from);
        if available == 0 {
            return Ok(Read::Nothing(from));
        }
        let file = File::open(segment_path(&self.dir, from.segment))?;
        let mut bytes = chunk(&file, from.offset, available, max_bytes)?;
        let mut wanted = usize::try_from(max_records.max(1)).unwrap_or(usize::MAX);
        if memchr::memchr(b'\n', &bytes).is_none() {
            bytes = chunk(&file, from.offset, available, MAX_RECORD_BYTES + 1)?;
            wanted = 1;
        }
        let (records, end) = memchr::memchr_iter(b'\n', &bytes)
            .take(wanted)
            .fold((0_u64, 0), |(count, _), at| (count + 1, at + 1));
        if records == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("segment {} holds no line at {}", from.segment, from.offset),
            ));
        }
        bytes.truncate(end);
        Ok(Read::Batch(Batch {
            end: Position {
                segment: from.segment,
                offset: from.offset.saturating_add(end as u64),
                records: from.records.saturating_add(records),
            },
            bytes,
            records,
        }))
    }

    /// The position, moved to the next segment if it is at the end of one, and the committed bytes that follow it there.
    fn available(&self, from: Position) -> (Position, u64) {
        let index = self.index();
        let mut at = from;
        for (segment, size) in index.segments.range(from.segment..) {
            if *segment != at.segment {
                at = Position {
                    segment: *segment,
                    ..Position::default()
                };
            }
            let available = size.bytes.saturating_sub(at.offset);
            if available > 0 {
                return (at, available);
            }
        }
        (at, 0)
    }
}

fn chunk(file: &File, offset: u64, available: u64, most: usize) -> io::Result<Vec<u8>> {
    let length = usize::try_from(available).unwrap_or(usize::MAX).min(most);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}
