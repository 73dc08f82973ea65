//! The one writer.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use chaperone_crds::{chain::StreamId, head::Head};
use chaperone_ledger::{
    follow::{Cursor, FollowError, Follower, Place},
    leaf::Leaf,
};
use rusqlite::{Connection, params};
use serde_json::Value;

use super::{IndexError, read::Segments, restored, schema, stored, streams::Known, sums};
use crate::{
    facts::{Facts, Whose},
    terms,
};

/// Most records of a transaction, and most bytes of them: what a writer holds in memory.
pub const MAX_BATCH_RECORDS: u64 = 20_000;
const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// Most hosts that are kept of a session: the first ones.
pub(super) const MAX_HOSTS: i64 = 200;

/// The index, open for writing. One at a time; who opens it sees to that.
#[derive(Debug)]
pub struct Index {
    db: Connection,
    path: PathBuf,
    dir: PathBuf,
    follower: Follower,
    /// The ledger's own stream: what it says is about others, and counts to no session.
    own: StreamId,
    known: Known,
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

/// What a batch adds to a session.
#[derive(Clone, Debug, Default)]
struct Added {
    first: Option<i64>,
    last: Option<i64>,
    records: i64,
    operations: i64,
    denied: i64,
    would_deny: i64,
    turns: i64,
    hosts: HashMap<String, i64>,
}

/// What a batch adds to the tables that have a row for many records.
#[derive(Debug, Default)]
struct Batch {
    sessions: HashMap<i64, Added>,
    blocks: HashMap<u64, (i64, i64)>,
    /// The record before, by stream and number: whether the next is its neighbour.
    before: Option<(i64, u64)>,
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
                remove(path)?;
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
            };
            if let Some(leaf) = record.deleted {
                row.put_deleted(&transaction, leaf, &mut self.known, &mut batch)?;
                records = records.saturating_add(1);
                continue;
            }
            row.put(&transaction, &mut self.known, &self.own, &mut batch)?;
            records = records.saturating_add(1);
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
        sums::checkpoint(&self.db, &self.path, sums::WAL_BYTES)?;
        Ok(records)
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
            match overwrite(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&file, error));
                }
                _ => {}
            }
        }
        remove(path)
    }

    /// Removes the file and begins anew.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn rebuild(self, origin: &str) -> Result<Self, IndexError> {
        let Self { path, dir, db, .. } = self;
        drop(db);
        remove(&path)?;
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
}

impl Row<'_> {
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
            learn(db, known, &record)?;
        }
        let stream = known.stream(db, uuid)?;
        let [namespace, pod, service_account] = facts.agent.map(str::to_owned);
        let whose = stream.whose.unwrap_or(Whose {
            namespace,
            pod,
            service_account,
        });
        // A stream that only goes on does not make a session longer.
        let thread = match is_own || facts.is_heartbeat() {
            true => None,
            false => Some(known.thread(db, uuid, &whose.namespace, facts.session)?),
        };
        let terms = terms::of(&record, &facts, &whose, uuid, thread);
        db.prepare_cached("INSERT INTO words (rowid, terms) VALUES (?, ?)")?
            .execute(params![stored(self.leaf), terms])?;
        self.put_place(db, (stream.id, head.seq), facts.time, thread, batch)?;
        batch.add(self.leaf, thread, &facts);
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

/// Whose a stream is, where this record of the ledger's own says it.
fn learn(db: &Connection, known: &mut Known, record: &Value) -> Result<(), IndexError> {
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
    known.name(db, stream, &whose, &own("/identity/workload/uid"))
}

impl Batch {
    fn begins_run(&mut self, stream: i64, seq: u64) -> bool {
        let before = self.before.replace((stream, seq));
        before.is_none_or(|(other, last)| other != stream || last.checked_add(1) != Some(seq))
    }

    fn add(&mut self, leaf: u64, thread: Option<i64>, facts: &Facts<'_>) {
        if let Some(time) = facts.time {
            let block = leaf.checked_div(schema::BLOCK_LEAVES).unwrap_or_default();
            let times = self.blocks.entry(block).or_insert((time, time));
            *times = (times.0.min(time), times.1.max(time));
        }
        if let Some(thread) = thread {
            self.sessions.entry(thread).or_default().add(facts);
        }
    }

    fn put(self, db: &Connection) -> Result<(), IndexError> {
        for (block, (first, last)) in self.blocks {
            db.prepare_cached("INSERT INTO blocks VALUES (?1, ?2, ?3) ON CONFLICT (block) DO UPDATE SET first = min(first, ?2), last = max(last, ?3)")?
                .execute([stored(block), first, last])?;
        }
        for (session, added) in self.sessions {
            added.put(db, session)?;
        }
        Ok(())
    }
}

impl Added {
    fn add(&mut self, facts: &Facts<'_>) {
        if let Some(time) = facts.time {
            self.first = Some(self.first.map_or(time, |first| first.min(time)));
            self.last = Some(self.last.map_or(time, |last| last.max(time)));
        }
        self.records = self.records.saturating_add(1);
        if !facts.is_operation() {
            return;
        }
        let one = |is: bool| i64::from(is);
        self.operations = self.operations.saturating_add(1);
        self.denied = self
            .denied
            .saturating_add(one(facts.action == Some("Deny")));
        self.would_deny = self.would_deny.saturating_add(one(facts.would_deny));
        self.turns = self.turns.saturating_add(one(facts.is_turn()));
        if let Some(host) = &facts.host {
            let count = self.hosts.entry(host.clone()).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn put(self, db: &Connection, session: i64) -> Result<(), IndexError> {
        db.prepare_cached(
            "UPDATE sessions SET first_time = coalesce(min(first_time, ?2), first_time, ?2), last_time = coalesce(max(last_time, ?3), last_time, ?3), records = records + ?4,
             operations = operations + ?5, denied = denied + ?6, would_deny = would_deny + ?7, turns = turns + ?8 WHERE id = ?1",
        )?
        .execute(params![
            session,
            self.first,
            self.last,
            self.records,
            self.operations,
            self.denied,
            self.would_deny,
            self.turns
        ])?;
        let mut hosts: Vec<_> = self.hosts.into_iter().collect();
        hosts.sort();
        for (host, operations) in hosts {
            let changed = db
                .prepare_cached("UPDATE session_hosts SET operations = operations + ?3 WHERE session = ?1 AND host = ?2")?
                .execute(params![session, host, operations])?;
            if changed == 0 {
                db.prepare_cached("INSERT INTO session_hosts SELECT ?1, ?2, ?3 WHERE (SELECT count(*) FROM session_hosts WHERE session = ?1) < ?4")?
                    .execute(params![session, host, operations, MAX_HOSTS])?;
            }
        }
        Ok(())
    }
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

fn remove(path: &Path) -> Result<(), IndexError> {
    for file in files(path) {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&file, error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn overwrite(path: &Path) -> io::Result<()> {
    /// Bytes that are written at a time.
    const BLOCK: usize = 256 * 1024;
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let mut left = file.metadata()?.len();
    let zeros = vec![0; BLOCK];
    while left > 0 {
        let more = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        file.write_all(zeros.get(..more).unwrap_or_default())?;
        left = left.saturating_sub(u64::try_from(more).unwrap_or(u64::MAX));
    }
    file.sync_data()
}

fn failed(file: &Path, error: io::Error) -> IndexError {
    let file = file.display().to_string();
    IndexError::Follow(FollowError::Io { file, error })
}
