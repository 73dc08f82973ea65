//! Segments written anew without what is to be gone: content whose key was destroyed, and records.
//!
//! Owns how a segment is read for that and replaced. Refuses to decide: who calls says whose records go, and has put on record that they do. Refuses the newest segment, which the store writes. Invariants: the leaves of a segment
//! are the same before and after, and a crash leaves the old segment or the new one; records of the ledger's own stream stay, because they say whose the others are and what was deleted, and so does each `stream.close`, because
//! it says that a stream is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
};

use chaperone_crds::{
    chain::{RecordHash, StreamId},
    head::Head,
};
use jiff::Timestamp;

use super::{layout::RECORDS, sealer::session, segments, shelf::Keeper};
use crate::{
    content::{KeyId, Keys},
    leaf::Leaf,
    line::{self, MAX_LINE_BYTES, Stored},
};

/// Bytes that are read and written at a time.
const BLOCK: usize = 256 * 1024;

/// What a segment holds that may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of its first leaf.
    pub first: u64,
    /// Leaves.
    pub leaves: u64,
    /// Bytes.
    pub bytes: u64,
    /// Keys of content that is sealed in it.
    pub keys: BTreeSet<KeyId>,
    /// Records that may be deleted, by stream.
    pub records: BTreeMap<StreamId, u64>,
    /// Sessions that records in it name, by stream.
    pub sessions: BTreeSet<(StreamId, String)>,
    /// Earliest time that a record in it has.
    pub earliest: Option<Timestamp>,
    /// Time of the last record of the ledger's own in it: by the ledger's clock all before it came no later.
    pub told: Option<Timestamp>,
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records that lost sealed content.
    pub contents: u64,
    /// Records that were deleted.
    pub records: u64,
    /// Bytes that it takes less.
    pub bytes: u64,
}

/// Reads and replaces segments of one ledger.
#[derive(Debug)]
pub struct Sweeper {
    records: PathBuf,
    keeper: Keeper,
    own: StreamId,
    keys: Keys,
    known: BTreeMap<u64, Summary>,
}

impl Sweeper {
    /// Of the ledger in this directory, whose own stream is this.
    #[must_use]
    pub fn new(ledger: &Path, own: StreamId) -> Self {
        Self {
            records: ledger.join(RECORDS),
            keeper: Keeper::default(),
            own,
            keys: Keys::of(ledger),
            known: BTreeMap::new(),
        }
    }

    /// The same, of a ledger whose files are kept so.
    #[must_use]
    pub fn kept_by(self, keeper: Keeper) -> Self {
        Self { keeper, ..self }
    }

    /// Reads the segments before `newest` that were not read yet, in order; calls `between` after each.
    ///
    /// # Errors
    /// The system's, and what is no segment.
    pub fn look(&mut self, newest: u64, mut between: impl FnMut()) -> io::Result<()> {
        let mut first = 0_u64;
        for segment in 0..newest {
            if !self.known.contains_key(&segment) {
                let summary = self.read(segment, first)?;
                self.known.insert(segment, summary);
                between();
            }
            let leaves = self.known.get(&segment).map_or(0, |summary| summary.leaves);
            first = first.saturating_add(leaves);
        }
        Ok(())
    }

    /// What was read, by segment.
    #[must_use]
    pub fn known(&self) -> &BTreeMap<u64, Summary> {
        &self.known
    }

    /// Whether a segment has content that no key opens any more.
    ///
    /// # Errors
    /// The system's.
    pub fn is_stale(&self, segment: u64) -> io::Result<bool> {
        for key in self.known.get(&segment).into_iter().flat_map(|s| &s.keys) {
            if self.keys.key(key)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes a segment anew: without content that no key opens, and with the leaves alone of records of these streams.
    ///
    /// # Errors
    /// The system's; the segment is as it was then.
    pub fn rewrite(&mut self, segment: u64, gone: &BTreeSet<StreamId>) -> io::Result<Swept> {
        let Some(before) = self.known.get(&segment).cloned() else {
            return Err(io::Error::other("a segment that was not looked at"));
        };
        let path = segments::path(&self.records, segment);
        let there = path.with_extension("jsonl.tmp");
        let mut out = BufWriter::with_capacity(BLOCK, File::create(&there)?);
        let mut swept = Swept::default();
        writeln!(out, "{}", line::begins(before.first))?;
        let mut leaves = 0_u64;
        each(&path, |line, stored| {
            if let Stored::Begins(_) = stored {
                return Ok(());
            }
            leaves = leaves.saturating_add(1);
            self.write(line, stored, gone, &mut out, &mut swept)
        })?;
        // Somebody else has changed it: nothing of it is replaced.
        if leaves != before.leaves {
            return Err(io::Error::other(
                "a segment has other records than when it was looked at",
            ));
        }
        let out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let name = format!("{RECORDS}/{}", segments::name(segment));
        self.keeper.replaced(&out, &name, || fs::read(&there))?;
        let after = out.metadata()?.len();
        fs::rename(&there, &path)?;
        self.keeper.named(&self.records)?;
        swept.bytes = before.bytes.saturating_sub(after);
        let summary = self.read(segment, before.first)?;
        self.known.insert(segment, summary);
        Ok(swept)
    }

    fn write(
        &self,
        line: &[u8],
        stored: Stored<'_>,
        gone: &BTreeSet<StreamId>,
        out: &mut impl io::Write,
        swept: &mut Swept,
    ) -> io::Result<()> {
        let Some(record) = stored.record() else {
            return put(out, line);
        };
        if !gone.is_empty() {
            let head = head(record)?;
            if gone.contains(&head.stream) && self.may_go(&head) {
                swept.records = swept.records.saturating_add(1);
                let leaf = Leaf {
                    stream: head.stream,
                    seq: head.seq,
                    record: RecordHash::of(record),
                };
                return put(out, leaf.to_string().as_bytes());
            }
        }
        match stored {
            Stored::Sealed(sealed) if self.keys.key(&sealed.key)?.is_none() => {
                swept.contents = swept.contents.saturating_add(1);
                put(out, sealed.detached)
            }
            _ => put(out, line),
        }
    }

    fn may_go(&self, head: &Head) -> bool {
        head.stream != self.own && !head.place.closes()
    }

    fn read(&self, segment: u64, first: u64) -> io::Result<Summary> {
        let path = segments::path(&self.records, segment);
        let mut summary = Summary {
            first,
            bytes: fs::metadata(&path)?.len(),
            ..Summary::default()
        };
        each(&path, |_, stored| self.sum(&stored, &mut summary))?;
        Ok(summary)
    }

    fn sum(&self, stored: &Stored<'_>, summary: &mut Summary) -> io::Result<()> {
        match stored {
            Stored::Begins(first) if *first == summary.first => return Ok(()),
            Stored::Begins(_) => {
                return Err(io::Error::other("a segment begins with another leaf"));
            }
            Stored::Sealed(sealed) => drop(summary.keys.insert(sealed.key)),
            Stored::Record(_) | Stored::Deleted(_) => {}
        }
        summary.leaves = summary.leaves.saturating_add(1);
        let Some(record) = stored.record() else {
            return Ok(());
        };
        let head = head(record)?;
        let time = head.time.parse::<Timestamp>().ok();
        if head.stream == self.own {
            summary.told = summary.told.max(time);
            return Ok(());
        }
        summary.earliest = summary.earliest.into_iter().chain(time).min();
        if let Some(session) = session(record) {
            summary.sessions.insert((head.stream.clone(), session));
        }
        if self.may_go(&head) {
            let count = summary.records.entry(head.stream).or_default();
            *count = count.saturating_add(1);
        }
        Ok(())
    }
}

/// Removes what a sweep that did not end has left.
pub(super) fn tidy(records: &Path) -> io::Result<()> {
    for entry in fs::read_dir(records)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "tmp") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn head(record: &[u8]) -> io::Result<Head> {
    Head::parse(record).map_err(io::Error::other)
}

fn put(out: &mut impl io::Write, line: &[u8]) -> io::Result<()> {
    out.write_all(line)?;
    out.write_all(b"\n")
}

/// Each line of a segment.
fn each(path: &Path, mut take: impl FnMut(&[u8], Stored<'_>) -> io::Result<()>) -> io::Result<()> {
    let mut file = BufReader::with_capacity(BLOCK, File::open(path)?);
    let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    loop {
        line.clear();
        let bounded = &mut file.by_ref().take(limit.saturating_add(1));
        if bounded.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let whole = line.strip_suffix(b"\n");
        let whole = whole.ok_or_else(|| io::Error::other("a line without its end"))?;
        take(whole, Stored::read(whole).map_err(io::Error::other)?)?;
    }
}
