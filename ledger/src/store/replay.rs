//! Records read again, from the first on, as if they had come just now: by a start, and by whoever follows a directory that another fills.
//!
//! Owns how far it is. Refuses to change records. Invariants: what was read is judged, each record once and in order; after an error of the disk the same is read again, and nothing is placed twice.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use chaperone_crds::chain::StreamId;
use jiff::Timestamp;

use super::{
    Config, Onward, OpenError, Refused,
    head::Head,
    judge::{Judge, Split},
    layout::RECORDS,
    log::Log,
    recover::at,
    sealer, segments,
    shelf::Keeper,
    streams::Known,
};
use crate::{
    content::Day,
    follow::Place,
    leaf::Leaf,
    line::{BadLine, MAX_LINE_BYTES, Sealed, Stored},
};

/// A record as it is read, without its content.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// Its stream.
    pub stream: &'a StreamId,
    /// Its number.
    pub seq: u64,
    /// When, as it stands there. Empty where the record was deleted.
    pub time: &'a str,
    /// Whether it ends its stream.
    pub closes: bool,
    /// What is hashed of it, without its newline. Empty where it was deleted.
    pub line: &'a [u8],
}

/// What is shown each record as it is read.
pub(super) type Each<'a> = &'a mut dyn FnMut(Kept<'_>) -> Option<Onward>;

/// What a directory's records say, as far as they were read.
#[derive(Debug)]
pub struct Replay {
    records: PathBuf,
    keeper: Keeper,
    /// The ledger's own stream.
    own: StreamId,
    read: Read,
    /// Streams that go on without some of their records, and with which one.
    onward: HashMap<StreamId, u64>,
    /// Where the next line begins.
    at: Place,
    /// Leaves of its segment that come before.
    before: u64,
    /// That segment has other bytes now.
    is_moved: bool,
}

/// What was learnt of them.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) log: Log,
    /// The session that each stream's records count to.
    pub(super) sessions: HashMap<StreamId, String>,
    /// The day of the ledger's own newest record.
    pub(super) told: Option<Day>,
}

impl Replay {
    /// Nothing was read. The directory's files are kept so.
    #[must_use]
    pub fn new(config: &Config, keeper: Keeper) -> Self {
        Self {
            records: config.dir.join(RECORDS),
            own: StreamId::of_ledger(config.origin.as_str()),
            read: Read {
                log: Log::new(config.dir.clone(), keeper.clone()),
                sessions: HashMap::new(),
                told: None,
            },
            keeper,
            onward: HashMap::new(),
            at: Place::default(),
            before: 0,
            is_moved: false,
        }
    }

    /// The directory's files are kept otherwise from here on.
    #[must_use]
    pub fn kept(mut self, keeper: Keeper) -> Self {
        self.read.log.tiles.keep(keeper.clone());
        self.keeper = keeper;
        self
    }

    /// Records that were read.
    #[must_use]
    pub fn leaves(&self) -> u64 {
        self.read.log.tree.size()
    }

    /// A segment was written anew: the same leaves, in other bytes.
    pub fn rewritten(&mut self, segment: u64) {
        self.is_moved |= segment == self.at.segment;
    }

    /// Reads on, some `bytes` or a line at a time, as far as this end, which is that of a line. Whether it is there.
    ///
    /// # Errors
    /// [`OpenError`]. After one of the disk it may be called again.
    pub fn read(
        &mut self,
        end: Place,
        bytes: u64,
        each: &mut dyn FnMut(Kept<'_>) -> Option<Onward>,
    ) -> Result<bool, OpenError> {
        if self.at >= end && !self.is_moved {
            return Ok(true);
        }
        let path = segments::path(&self.records, self.at.segment);
        self.find(&path)?;
        let chunk = self.chunk(&path, end, bytes).map_err(at(&path))?;
        self.lines(&chunk.bytes, each)?;
        let tiles = &mut self.read.log.tiles;
        if let Some(tile) = tiles.compare_full().map_err(at("tile"))? {
            return Err(OpenError::Tile(tile));
        }
        if tiles.is_long() {
            tiles.write_full().map_err(at("tile"))?;
        }
        if chunk.is_last && self.at.segment < end.segment {
            let segment = self.at.segment.saturating_add(1);
            self.at = Place { segment, offset: 0 };
            self.before = 0;
        }
        Ok(self.at >= end)
    }

    pub(super) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    pub(super) fn end(self) -> Read {
        self.read
    }

    /// Where the next line begins in a segment that has other bytes now.
    fn find(&mut self, path: &Path) -> Result<(), OpenError> {
        if !self.is_moved {
            return Ok(());
        }
        let bytes = fs::read(path).map_err(at(path))?;
        let (mut offset, mut leaves) = (0_usize, 0_u64);
        while leaves < self.before {
            let line = line(&bytes, offset).ok_or_else(|| {
                at(path)(io::Error::other(
                    "written anew, the segment has fewer records",
                ))
            })?;
            let is_leaf = !matches!(Stored::read(line), Ok(Stored::Begins(_)));
            leaves = leaves.saturating_add(u64::from(is_leaf));
            offset = after(offset, line);
        }
        self.at.offset = u64::try_from(offset).unwrap_or(u64::MAX);
        self.is_moved = false;
        Ok(())
    }

    /// Whole lines from here on: some bytes, or one line, and none behind the end.
    fn chunk(&self, path: &Path, end: Place, bytes: u64) -> io::Result<Chunk> {
        let file = File::open(path)?;
        let to = match self.at.segment < end.segment {
            true => file.metadata()?.len(),
            false => end.offset,
        };
        let left = to.checked_sub(self.at.offset);
        let left = left.ok_or_else(|| io::Error::other("shorter than what was read of it"))?;
        // So many bytes have a newline among them, if they are lines.
        let longest = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let longest = left.min(longest.saturating_add(1));
        let mut wanted = left.min(bytes);
        loop {
            let mut chunk = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
            file.read_exact_at(&mut chunk, self.at.offset)?;
            let newline = memchr::memrchr(b'\n', &chunk);
            if wanted < left
                && let Some(newline) = newline
            {
                chunk.truncate(newline.saturating_add(1));
            } else if wanted < longest {
                wanted = longest;
                continue;
            }
            return Ok(Chunk {
                bytes: chunk,
                is_last: wanted == left,
            });
        }
    }

    fn lines(&mut self, bytes: &[u8], each: Each<'_>) -> Result<(), OpenError> {
        let mut offset = 0_usize;
        while offset < bytes.len() {
            let Place {
                segment,
                offset: from,
            } = self.at;
            let damaged = |fault| OpenError::Damaged {
                segment,
                offset: from,
                fault: Box::new(fault),
            };
            let line = line(bytes, offset).ok_or_else(|| damaged(Refused::Form))?;
            self.line(line, each).map_err(damaged)?;
            let next = after(offset, line);
            let length = u64::try_from(next.saturating_sub(offset)).unwrap_or(u64::MAX);
            self.at.offset = self.at.offset.saturating_add(length);
            offset = next;
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], each: Each<'_>) -> Result<(), Refused> {
        let is_first = self.at.offset == 0;
        match Stored::read(line).map_err(none)? {
            Stored::Begins(leaf) if is_first && leaf == self.leaves() => return Ok(()),
            Stored::Begins(_) => return Err(none(BadLine::Begins)),
            Stored::Deleted(leaf) => {
                let (stream, seq) = (leaf.stream.clone(), leaf.seq);
                self.place_deleted(leaf)?;
                each(Kept {
                    stream: &stream,
                    seq,
                    time: "",
                    closes: false,
                    line: b"",
                });
            }
            Stored::Record(line) | Stored::Sealed(Sealed { detached: line, .. }) => {
                let head = self.place(line)?;
                if let Some(session) = sealer::session(line) {
                    self.read.sessions.insert(head.stream.clone(), session);
                }
                let told = head.time.parse::<Timestamp>();
                if let Some(time) = told.ok().filter(|_| head.stream == self.own) {
                    self.read.told = Some(Day::of(time));
                }
                let kept = Kept {
                    stream: &head.stream,
                    seq: head.seq,
                    time: &head.time,
                    closes: head.closes,
                    line,
                };
                if let Some(Onward { stream, from }) = each(kept) {
                    self.onward.insert(stream, from);
                }
            }
        }
        self.before = self.before.saturating_add(1);
        Ok(())
    }

    /// Where the line stands.
    fn place(&mut self, line: &[u8]) -> Result<Head, Refused> {
        // Content that stands open in a segment is no part of a record's own line.
        let line = Split::of(line);
        let head =
            Head::parse(&line.detached).map_err(|fault| Refused::NotARecord { line: 1, fault })?;
        let (known, from) = self.comes(&head.stream, head.seq)?;
        let mut judge = Judge::new(&head.stream, &known, from);
        judge.take(&head, line, &self.read.log.tiles)?;
        for record in judge.fresh {
            self.read.log.place(record.leaf, record.closes);
        }
        Ok(head)
    }

    /// Where the leaf of a deleted record stands.
    fn place_deleted(&mut self, leaf: Leaf) -> Result<(), Refused> {
        let stream = leaf.stream.clone();
        let (known, from) = self.comes(&stream, leaf.seq)?;
        let mut judge = Judge::new(&stream, &known, from);
        judge.deleted(leaf)?;
        for record in judge.fresh {
            self.read.log.place(record.leaf, record.closes);
        }
        Ok(())
    }

    /// Where the stream ends, whose record of this number comes next; and whether it goes on with it.
    fn comes(&mut self, stream: &StreamId, seq: u64) -> Result<(Known, Option<u64>), Refused> {
        let known = self.read.log.streams.get(stream);
        // The runs of a long stream are not copied for each of its lines: here nothing may be there twice.
        let known = known.map(Known::end).unwrap_or_default();
        let from = self.onward.remove(stream);
        if seq != known.next && from != Some(seq) {
            return Err(Refused::Hole {
                expected: known.next,
                found: seq,
            });
        }
        Ok((known, from))
    }
}

/// Whole lines of a segment.
struct Chunk {
    bytes: Vec<u8>,
    /// Nothing of what is to be read of the segment comes after them.
    is_last: bool,
}

/// The line that begins there, without its newline, if it has one.
fn line(bytes: &[u8], from: usize) -> Option<&[u8]> {
    let rest = bytes.get(from..)?;
    rest.get(..memchr::memchr(b'\n', rest)?)
}

/// Where the line after this one begins.
fn after(from: usize, line: &[u8]) -> usize {
    from.saturating_add(line.len()).saturating_add(1)
}

fn none(fault: BadLine) -> Refused {
    Refused::Line(fault.to_string())
}
