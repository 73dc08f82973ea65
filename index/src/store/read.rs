//! Readers, and how one record is found and looked at.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chaperone_crds::{chain::StreamId, head::Head};
use chaperone_ledger::{
    content::Keys,
    follow::{FollowError, Held, Lines, Place, held_at},
    leaf::Leaf,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use serde_json::Value;

use super::{IndexError, restored, schema, stored};
use crate::facts::{Facts, Whose};

/// Steps of SQLite between two looks at the clock: some 50 microseconds.
const STEPS: i32 = 10_000;

/// How much a question may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may take.
    pub time: Duration,
    /// Bytes of records of an answer; the first record may pass it.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(2),
            bytes: 16 * 1024 * 1024,
        }
    }
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its leaf.
    pub leaf: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its number there.
    pub seq: u64,
    /// Whose it is.
    pub whose: Whose,
    /// Its line, as it was written as far as its content is there, without the newline.
    pub line: Vec<u8>,
}

/// The records, and the keys of their content.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    keys: Keys,
    /// The lines of the segment that was last found to have been written anew.
    lines: RefCell<Option<Lines>>,
}

impl Segments {
    pub(super) fn of(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            keys: Keys::of(dir),
            lines: RefCell::default(),
        }
    }

    /// The row's record, or its leaf. A segment may have been written anew since the row was, or be just now: then its line is looked for by its number.
    pub(super) fn held(&self, row: &Row, stream: &StreamId) -> Result<Held, IndexError> {
        /// More often than a segment is replaced while one record is read.
        const TRIES: usize = 4;
        let failed = |error: io::Error| -> IndexError {
            let file = format!("segment {:08}", row.place.segment);
            match error.kind() {
                io::ErrorKind::NotFound => row.stale(),
                _ => FollowError::Io { file, error }.into(),
            }
        };
        if let Some(held) = self
            .at(row, stream, (row.place, row.length))
            .map_err(failed)?
        {
            return Ok(held);
        }
        for _ in 0..TRIES {
            let lines = self.lines.take();
            let known = lines.filter(|lines| lines.segment() == row.place.segment);
            let (lines, is_fresh) = match known {
                Some(lines) => (lines, false),
                None => {
                    let read = Lines::read(&self.dir, row.place.segment).map_err(failed)?;
                    (read.ok_or_else(|| row.stale())?, true)
                }
            };
            let Some(there) = lines.of(row.leaf) else {
                match is_fresh {
                    true => return Err(row.stale()),
                    false => continue,
                }
            };
            if let Some(held) = self.at(row, stream, there).map_err(failed)? {
                self.lines.replace(Some(lines));
                return Ok(held);
            }
        }
        Err(row.stale())
    }

    /// Whether the row's line stands just where the row says.
    pub(super) fn is_at(&self, row: &Row, stream: &StreamId) -> io::Result<bool> {
        Ok(self.at(row, stream, (row.place, row.length))?.is_some())
    }

    /// What stands there, if it is the row's.
    fn at(
        &self,
        row: &Row,
        stream: &StreamId,
        (place, length): (Place, usize),
    ) -> io::Result<Option<Held>> {
        let held = held_at(&self.dir, &self.keys, place, length)?;
        Ok(held.filter(|held| match held {
            Held::Deleted(leaf) => leaf.stream == *stream && leaf.seq == row.seq,
            Held::Record(line) => {
                Head::parse(line).is_ok_and(|head| head.stream == *stream && head.seq == row.seq)
            }
        }))
    }
}

/// Reads the index and, for what it proposes, the records.
#[derive(Debug)]
pub struct Reader {
    pub(super) db: Connection,
    pub(super) segments: Segments,
    deadline: Deadline,
}

impl Reader {
    /// Opens the index of the ledger in `dir` at `path`, which a writer has made.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn open(path: &Path, dir: &Path) -> Result<Self, IndexError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(path, flags)?;
        schema::for_reading(&db)?;
        let version = schema::version(&db)?;
        if version != schema::VERSION {
            return Err(IndexError::Stale(format!("it is of version {version}")));
        }
        let deadline = Deadline::new();
        let watched = deadline.clone();
        db.progress_handler(STEPS, Some(move || watched.is_over()))?;
        Ok(Self {
            db,
            segments: Segments::of(dir),
            deadline,
        })
    }

    /// Leaves that the index knows of.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn indexed(&self) -> Result<u64, IndexError> {
        let leaf = self
            .db
            .prepare_cached("SELECT leaf FROM meta")?
            .query_row([], |row| row.get(0))?;
        restored(leaf)
    }

    /// The record of this stream and number.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn record(&self, stream: &StreamId, seq: u64) -> Result<Option<Found>, IndexError> {
        self.limit(Limits::default().time);
        let Some(row) = self.row_at(stream, seq)? else {
            return Ok(None);
        };
        let read = Names::default().read(&self.db, &self.segments, &row)?;
        let found = read.map(|read| read.found);
        Ok(found.filter(|found| found.stream == *stream && found.seq == seq))
    }

    /// The leaf of a record of this stream and number that was deleted.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn deleted(&self, stream: &StreamId, seq: u64) -> Result<Option<Leaf>, IndexError> {
        self.limit(Limits::default().time);
        let Some(row) = self.row_at(stream, seq)? else {
            return Ok(None);
        };
        Ok(match self.segments.held(&row, stream)? {
            Held::Deleted(leaf) if leaf.stream == *stream && leaf.seq == seq => Some(leaf),
            _ => None,
        })
    }

    /// The row of a record by its stream and number.
    fn row_at(&self, stream: &StreamId, seq: u64) -> Result<Option<Row>, IndexError> {
        let run: Option<(i64, i64)> = self
            .db
            .prepare_cached(RUN)?
            .query_row(params![stream.as_str(), stored(seq)], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let Some((first, leaf)) = run else {
            return Ok(None);
        };
        let further = seq.checked_sub(restored(first)?);
        let leaf = further.and_then(|further| restored(leaf).ok()?.checked_add(further));
        leaf.map_or(Ok(None), |leaf| row_of(&self.db, leaf))
    }

    /// Has SQLite give up after this time. When that is.
    pub(super) fn limit(&self, time: Duration) -> Instant {
        let now = Instant::now();
        let until = now.checked_add(time).unwrap_or(now);
        self.deadline.set(until);
        until
    }
}

/// When SQLite gives up: microseconds after the reader was opened.
#[derive(Clone, Debug)]
struct Deadline {
    opened: Instant,
    micros: Arc<AtomicU64>,
}

impl Deadline {
    fn new() -> Self {
        Self {
            opened: Instant::now(),
            micros: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }

    fn set(&self, until: Instant) {
        let micros = until.saturating_duration_since(self.opened).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.micros.store(micros, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.opened.elapsed().as_micros() >= u128::from(self.micros.load(Ordering::Relaxed))
    }
}

/// The beginning of the run that a record of a stream may be in.
pub(super) const RUN: &str = "SELECT seq, leaf FROM runs WHERE stream = (SELECT id FROM streams WHERE uuid = ?1) AND seq <= ?2 ORDER BY seq DESC LIMIT 1";

/// A row of `records`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) leaf: u64,
    pub(super) stream: i64,
    pub(super) seq: u64,
    pub(super) place: Place,
    pub(super) length: usize,
    pub(super) time: Option<i64>,
    pub(super) thread: Option<i64>,
}

/// The columns of a [`Row`], in its order.
pub(super) const COLUMNS: &str =
    "r.leaf, r.stream, r.seq, r.segment, r.offset, r.length, r.time, r.thread";

impl Row {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> Result<Self, IndexError> {
        let number = |column: usize| restored(row.get(column)?);
        Ok(Self {
            leaf: number(0)?,
            stream: row.get(1)?,
            seq: number(2)?,
            place: Place {
                segment: number(3)?,
                offset: number(4)?,
            },
            length: usize::try_from(number(5)?).unwrap_or(usize::MAX),
            time: row.get(6)?,
            thread: row.get(7)?,
        })
    }

    pub(super) fn stale(&self) -> IndexError {
        IndexError::Stale(format!("leaf {} is not where it says", self.leaf))
    }

    /// Where its line ends.
    pub(super) fn end(&self) -> Place {
        let length = u64::try_from(self.length).unwrap_or(u64::MAX);
        Place {
            offset: self.place.offset.saturating_add(length).saturating_add(1),
            ..self.place
        }
    }
}

/// A record, read from the segments by its row.
pub(super) struct Read {
    pub(super) found: Found,
    pub(super) json: Value,
}

/// Streams by their rows, as far as one question has met them.
#[derive(Default)]
pub(super) struct Names(HashMap<i64, (StreamId, Option<Whose>)>);

impl Names {
    /// Reads a record, and holds it against its row. None where it was deleted.
    pub(super) fn read(
        &mut self,
        db: &Connection,
        segments: &Segments,
        row: &Row,
    ) -> Result<Option<Read>, IndexError> {
        let known = self.stream(db, row.stream)?;
        let (stream, whose) = known.ok_or_else(|| row.stale())?;
        let line = match segments.held(row, &stream)? {
            Held::Record(line) => line,
            Held::Deleted(_) => return Ok(None),
        };
        let json: Value = serde_json::from_slice(&line).unwrap_or_default();
        let whose = whose.unwrap_or_else(|| Whose::of(&Facts::of(&json)));
        let found = Found {
            leaf: row.leaf,
            stream,
            seq: row.seq,
            whose,
            line,
        };
        Ok(Some(Read { found, json }))
    }

    pub(super) fn stream(
        &mut self,
        db: &Connection,
        id: i64,
    ) -> Result<Option<(StreamId, Option<Whose>)>, IndexError> {
        if let Some(known) = self.0.get(&id) {
            return Ok(Some(known.clone()));
        }
        let found: Option<(String, bool, Whose)> = db
            .prepare_cached(
                "SELECT uuid, is_named, namespace, pod, service_account FROM streams WHERE id = ?",
            )?
            .query_row([id], |row| {
                let whose = Whose {
                    namespace: row.get(2)?,
                    pod: row.get(3)?,
                    service_account: row.get(4)?,
                };
                Ok((row.get(0)?, row.get(1)?, whose))
            })
            .optional()?;
        let known = found.and_then(|(uuid, is_named, whose)| {
            Some((uuid.parse().ok()?, is_named.then_some(whose)))
        });
        if let Some(known) = &known {
            self.0.insert(id, known.clone());
        }
        Ok(known)
    }
}

/// Where the line of a leaf ends, if it is where its row says.
pub(super) fn ends(
    db: &Connection,
    segments: &Segments,
    leaf: u64,
) -> Result<Option<Place>, IndexError> {
    let Some(row) = row_of(db, leaf)? else {
        return Ok(None);
    };
    Names::default().read(db, segments, &row)?;
    Ok(Some(row.end()))
}

pub(super) fn row_of(db: &Connection, leaf: u64) -> Result<Option<Row>, IndexError> {
    let sql = format!("SELECT {COLUMNS} FROM records r WHERE r.leaf = ?");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([stored(leaf)])?;
    rows.next()?.map(Row::read).transpose()
}
