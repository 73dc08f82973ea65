//! The one writer.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use chaperone_crds::{chain::StreamId, head::Head};
use chaperone_ledger::{
    content::KeyId,
    follow::{Cursor, FollowError, Follower, Place},
    leaf::Leaf,
};
use rusqlite::{Connection, params};
use serde_json::Value;

use super::{
    IndexError,
    batch::Batch,
    forget::{Looks, What, note},
    read::Segments,
    restored, schema, stored,
    streams::Known,
    sums,
};
use crate::{
    facts::{Facts, Whose},
    terms,
};

/// Most records of a transaction, and most bytes of them: what a writer holds in memory.
pub const MAX_BATCH_RECORDS: u64 = 20_000;
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// The index, open for writing. One at a time; who opens it sees to that.
#[derive(Debug)]
pub struct Index {
    pub(super) db: Connection,
    pub(super) path: PathBuf,
    pub(super) dir: PathBuf,
    pub(super) follower: Follower,
    /// The ledger's own stream: what it says is about others, and counts to no session.
    own: StreamId,
    pub(super) known: Known,
    /// What it has to look at for what is to be forgotten.
    pub(super) looks: Looks,
}

/// How it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// As it was left.
    Whole,
    /// It was not there.
    New,
    /// It could not be used, and was made anew: why.
    Rebuilt(String),
}

impl Index {
    /// Opens the index of the ledger in `dir` at `path`. One that cannot be used is made anew: another version or origin, a file that is none, a cursor that does not fit the records up to `end`.
    ///
    /// # Errors
    /// [`IndexError`], if it can be neither used nor made.
    pub fn open(
        path: &Path,
        dir: &Path,
        origin: &str,
        end: Place,
    ) -> Result<(Self, Opened), IndexError> {
        let is_new = !path.exists();
        match Self::try_open(path, dir, origin, end) {
            Ok(index) if is_new => Ok((index, Opened::New)),
            Ok(index) => Ok((index, Opened::Whole)),
            Err(error) if error.is_broken() => {
                Self::scrub(path)?;
                let index = Self::try_open(path, dir, origin, end)?;
                Ok((index, Opened::Rebuilt(error.to_string())))
            }
            Err(error) => Err(error),
        }
    }

    fn try_open(path: &Path, dir: &Path, origin: &str, end: Place) -> Result<Self, IndexError> {
        if path.exists() {
            sums::check(path)?;
        }
        let mut db = Connection::open(path)?;
        schema::for_writing(&db)?;
        if schema::version(&db)? == 0 {
            let transaction = db.transaction()?;
            schema::create(&transaction, origin)?;
            transaction.commit()?;
        }
        let cursor = cursor(&db, origin)?;
        let own = StreamId::of_ledger(origin);
        let index = Self {
            follower: Follower::new(dir, cursor),
            path: path.to_owned(),
            dir: dir.to_owned(),
            db,
            own,
            known: Known::default(),
            looks: Looks::default(),
        };
        index.compare(dir, cursor, end)?;
        Ok(index)
    }

    /// Whether the last record of the index is where it says, and the cursor right after it. A copy of the ledger that was put back may be older, or have gone on with other records.
    fn compare(&self, dir: &Path, cursor: Cursor, end: Place) -> Result<(), IndexError> {
        let stale = |why: &str| Err(IndexError::Stale(why.to_owned()));
        if cursor.place > end {
            return stale("it is ahead of them");
        }
        let Some(last) = cursor.leaf.checked_sub(1) else {
            return match cursor == Cursor::START {
                true => Ok(()),
                false => stale("its cursor has no record before it"),
            };
        };
        match super::read::ends(&self.db, &Segments::of(dir), last)? {
            Some(after) if after == cursor.place => Ok(()),
            _ => stale("its last record is not theirs"),
        }
    }

    /// Where it stands: records before are in it.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        self.follower.cursor()
    }

    /// Bytes on disk, with the WAL.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sizes = files(&self.path).map(|file| fs::metadata(file).map_or(0, |m| m.len()));
        sizes.iter().sum()
    }

    /// Takes the next records up to this end, in one transaction of at most [`MAX_BATCH_RECORDS`]. How many.
    ///
    /// # Errors
    /// [`IndexError`]. Nothing of the batch was taken then; the cursor is where it was.
    pub fn take(&mut self, end: Place) -> Result<u64, IndexError> {
        let before = self.follower.cursor();
        let taken = self.try_take(end);
        if taken.is_err() {
            self.follower = Follower::new(&self.dir, before);
            self.known.forget();
        }
        taken
    }

    fn try_take(&mut self, end: Place) -> Result<u64, IndexError> {
        let transaction = self.db.unchecked_transaction()?;
        let before = self.follower.cursor().place;
        let mut batch = Batch::default();
        let (mut records, mut bytes) = (0_u64, 0_usize);
        while records < MAX_BATCH_RECORDS && bytes < MAX_BATCH_BYTES {
            let Some(record) = self.follower.next(end)? else {
                break;
            };
            let row = Row {
                leaf: record.leaf,
                place: record.place,
                length: record.length,
                line: record.line,
                key: record.key,
            };
            row.begin(&transaction, &mut batch)?;
            let is_moved = row.place.segment == before.segment && row.place != before;
            if records == 0 && is_moved && before.offset > 0 {
                // Written anew since the rows before were put.
                note(&transaction, What::Segment, stored(before.segment))?;
            }
            records = records.saturating_add(1);
            if let Some(leaf) = record.deleted {
                row.put_deleted(&transaction, leaf, &mut self.known, &mut batch)?;
                continue;
            }
            row.put(&transaction, &mut self.known, &self.own, &mut batch)?;
            bytes = bytes.saturating_add(record.line.len());
        }
        if records > 0 {
            batch.put(&transaction)?;
            let Cursor { leaf, place } = self.follower.cursor();
            transaction
                .prepare_cached("UPDATE meta SET leaf = ?, segment = ?, offset = ?")?
                .execute([stored(leaf), stored(place.segment), stored(place.offset)])?;
        }
        transaction.commit()?;
        self.checkpoint()?;
        Ok(records)
    }

    /// Copies the WAL into the file once it is long. While something is being forgotten it may have what goes, and is written over.
    pub(super) fn checkpoint(&self) -> Result<(), IndexError> {
        match self.looks.wal {
            true => sums::scrub(&self.db, &self.path, sums::WAL_BYTES).map(drop),
            false => sums::checkpoint(&self.db, &self.path, sums::WAL_BYTES),
        }
    }

    /// Copies all that waits in the WAL into the file.
    ///
    /// # Errors
    /// [`IndexError`]. What waits stays where it is then.
    pub fn settle(&self) -> Result<(), IndexError> {
        sums::checkpoint(&self.db, &self.path, 0)
    }

    /// Writes zeros over an index that no process has open for writing, and removes it: on a disk that writes in place nothing of what it knew is left.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn scrub(path: &Path) -> Result<(), IndexError> {
        for file in files(path) {
            match chaperone_ledger::store::scrub(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&file, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes zeros over the file, removes it and begins anew.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn rebuild(self, origin: &str) -> Result<Self, IndexError> {
        let Self { path, dir, db, .. } = self;
        drop(db);
        Self::scrub(&path)?;
        Self::try_open(&path, &dir, origin, Place::default())
    }
}

/// One record on its way into the tables.
struct Row<'l> {
    leaf: u64,
    place: Place,
    /// Bytes of its line in the segment.
    length: usize,
    line: &'l [u8],
    /// The key that opened its content.
    key: Option<KeyId>,
}

impl Row<'_> {
    /// What a record needs that is the first of its part, or of its segment.
    fn begin(&self, db: &Connection, batch: &mut Batch) -> Result<(), IndexError> {
        let part = schema::part_of(self.leaf);
        if batch.begins_part(part) {
            schema::create_words(db, part)?;
        }
        if batch.begins_segment(self.place.segment) {
            db.prepare_cached("INSERT OR IGNORE INTO segments VALUES (?, ?)")?
                .execute([stored(self.place.segment), stored(self.leaf)])?;
        }
        Ok(())
    }

    fn put(
        &self,
        db: &Connection,
        known: &mut Known,
        own: &StreamId,
        batch: &mut Batch,
    ) -> Result<(), IndexError> {
        // The ledger has read each line's head before it took it.
        let head = Head::parse(self.line)
            .map_err(|why| IndexError::Stale(format!("leaf {} is no record: {why}", self.leaf)))?;
        // What cannot be read whole (deeper than a reader goes) is found by stream and number alone.
        let record: Value = serde_json::from_slice(self.line).unwrap_or_default();
        let facts = Facts::of(&record);
        let uuid = head.stream.as_str();
        let is_own = head.stream == *own;
        if is_own {
            learn(db, known, &record, self.leaf)?;
        }
        let stream = known.stream(db, uuid)?;
        let whose = stream.whose.unwrap_or_else(|| Whose::of(&facts));
        // A stream that only goes on does not make a session longer.
        let thread = match is_own || facts.is_heartbeat() {
            true => None,
            false => Some(known.thread(db, uuid, &whose.namespace, facts.session)?),
        };
        let terms = terms::of(&record, &facts, &whose, uuid, thread);
        put_words(db, self.leaf, &terms)?;
        self.put_place(db, (stream.id, head.seq), facts.time, thread, batch)?;
        batch.add(self.leaf, thread, self.key, &facts);
        Ok(())
    }

    /// A record that was deleted is found by its place alone, and by nothing that it said.
    fn put_deleted(
        &self,
        db: &Connection,
        leaf: &Leaf,
        known: &mut Known,
        batch: &mut Batch,
    ) -> Result<(), IndexError> {
        let stream = known.stream(db, leaf.stream.as_str())?;
        self.put_place(db, (stream.id, leaf.seq), None, None, batch)
    }

    fn put_place(
        &self,
        db: &Connection,
        (stream, seq): (i64, u64),
        time: Option<i64>,
        thread: Option<i64>,
        batch: &mut Batch,
    ) -> Result<(), IndexError> {
        let length = i64::try_from(self.length).unwrap_or(i64::MAX);
        db.prepare_cached("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)")?
            .execute(params![
                stored(self.leaf),
                stream,
                stored(seq),
                stored(self.place.segment),
                stored(self.place.offset),
                length,
                time,
                thread
            ])?;
        if batch.begins_run(stream, seq) {
            db.prepare_cached("INSERT INTO runs VALUES (?, ?, ?)")?
                .execute([stream, stored(seq), stored(self.leaf)])?;
        }
        Ok(())
    }
}

/// Puts the words of a leaf into its part.
pub(super) fn put_words(db: &Connection, leaf: u64, terms: &str) -> Result<(), IndexError> {
    let words = schema::words(schema::part_of(leaf));
    let sql = format!("INSERT INTO {words} (rowid, terms) VALUES (?, ?)");
    db.prepare_cached(&sql)?
        .execute(params![stored(leaf), terms])?;
    Ok(())
}

/// Whose a stream is, where this record of the ledger's own says it.
fn learn(db: &Connection, known: &mut Known, record: &Value, leaf: u64) -> Result<(), IndexError> {
    let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
    let Some(stream) = text("/identity/stream") else {
        return Ok(());
    };
    let own = |pointer: &str| text(pointer).unwrap_or_default().to_owned();
    let whose = Whose {
        namespace: own("/identity/workload/namespace"),
        pod: own("/identity/workload/pod"),
        service_account: own("/identity/workload/serviceAccount"),
    };
    let uid = own("/identity/workload/uid");
    known.name(db, stream, leaf, &whose, &uid)
}

/// The cursor of a file of this version and log.
fn cursor(db: &Connection, origin: &str) -> Result<Cursor, IndexError> {
    let version = schema::version(db)?;
    if version != schema::VERSION {
        let wanted = schema::VERSION;
        return Err(IndexError::Stale(format!(
            "it is of version {version}, not {wanted}"
        )));
    }
    let (found, leaf, segment, offset): (String, i64, i64, i64) = db.query_row(
        "SELECT origin, leaf, segment, offset FROM meta",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    if found != origin {
        return Err(IndexError::Stale(format!("it is of {found:?}")));
    }
    Ok(Cursor {
        leaf: restored(leaf)?,
        place: Place {
            segment: restored(segment)?,
            offset: restored(offset)?,
        },
    })
}

/// The file and what SQLite keeps beside it.
fn files(path: &Path) -> [PathBuf; 4] {
    ["", "-wal", "-shm", ".sums"].map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    })
}

fn failed(file: &Path, error: io::Error) -> IndexError {
    let file = file.display().to_string();
    IndexError::Follow(FollowError::Io { file, error })
}
