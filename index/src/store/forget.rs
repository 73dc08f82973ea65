//! Forgetting in place what was deleted: content whose key is gone, and records of which the leaf alone is left.
//!
//! Owns how that is found and in which steps it goes. What was deleted is not told, it is looked for: keys that opened content and are there no more, and segments whose lines stand elsewhere than the rows say. What each step
//! finds is written down in the file, in one transaction with what it did, so that a stop at any point breaks nothing off. Questions are answered meanwhile: a row whose record moved finds it by its number, and what the index
//! still proposes of what is gone is in no record any more. Invariants: at the end the file says what one made anew would say, and neither it nor its WAL has a byte of what is forgotten.

use std::collections::{BTreeSet, HashSet};

use chaperone_crds::chain::StreamId;
use chaperone_ledger::{
    content::{Day, KeyId, Keys},
    follow::{Cursor, FollowError, Followed, Follower, Place},
};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Index, IndexError,
    read::{COLUMNS, Names, Row, Segments, row_of},
    restored,
    rethread::rethread,
    schema, stored, sums,
};

/// Streams of a step.
const STEP_STREAMS: i64 = 100;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgot {
    /// There is more to do.
    Some,
    /// A reader keeps a step from being done; it is tried again.
    Waits,
    /// Nothing is left to be forgotten.
    All,
}

/// What is written down in `forget`.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Segments that were written anew: the rows stand where they stood before.
    Segment,
    /// Streams that lost records: which session the others count to may be another then.
    Stream,
    /// Parts that are to be made anew.
    Part,
    /// Names of sessions and hosts.
    Names,
}

/// What an index looks at once it is opened, and whenever something was deleted.
#[derive(Debug)]
pub(super) struct Looks {
    /// Keys and segments.
    pub(super) deleted: bool,
    /// What the WAL has.
    pub(super) wal: bool,
}

impl Default for Looks {
    fn default() -> Self {
        Self {
            deleted: true,
            wal: true,
        }
    }
}

impl Index {
    /// Says that something was deleted: [`forget`](Self::forget) looks for it.
    pub fn deleted(&mut self) {
        self.looks = Looks::default();
        // It may have a segment open that is not the one of that name any more.
        self.follower = Follower::new(&self.dir, self.follower.cursor());
    }

    /// Does a step of forgetting what was deleted, in one transaction. `end` is that of the committed records.
    ///
    /// # Errors
    /// [`IndexError`]. Nothing of the step was done then.
    pub fn forget(&mut self, end: Place) -> Result<Forgot, IndexError> {
        let cursor = self.follower.cursor();
        let forgot = self.step(end);
        // Rows that are kept in memory may be gone.
        self.known.forget();
        if forgot.is_err() {
            self.follower = Follower::new(&self.dir, cursor);
        }
        forgot
    }

    fn step(&mut self, end: Place) -> Result<Forgot, IndexError> {
        if self.looks.deleted {
            self.look_for_keys()?;
            self.look_for_segments()?;
            self.looks.deleted = false;
        } else if let Some(segment) = self.next(What::Segment)? {
            self.place(restored(segment)?, end)?;
        } else if let Some(stream) = self.next(What::Stream)? {
            self.rethread(stream)?;
        } else if let Some(part) = self.next(What::Part)? {
            self.redo(restored(part)?, end)?;
        } else if self.next(What::Names)?.is_some() {
            self.rename()?;
        } else if self.looks.wal {
            if !sums::scrub(&self.db, &self.path, 0)? {
                return Ok(Forgot::Waits);
            }
            self.looks.wal = false;
        } else {
            return Ok(Forgot::All);
        }
        self.checkpoint()?;
        Ok(Forgot::Some)
    }

    /// Notes the parts that have content whose key is gone.
    fn look_for_keys(&self) -> Result<(), IndexError> {
        let keys = Keys::of(&self.dir);
        let mut of_day: (Option<Day>, HashSet<KeyId>) = (None, HashSet::new());
        let mut gone = Vec::new();
        let mut statement = self
            .db
            .prepare_cached("SELECT key, first, last FROM content ORDER BY key")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let key: KeyId = name
                .parse()
                .map_err(|_| IndexError::Stale(format!("{name:?} names no key")))?;
            if of_day.0 != Some(key.day()) {
                let entries = keys.entries(key.day()).map_err(|error| {
                    let file = format!("keys of {}", key.day());
                    FollowError::Io { file, error }
                })?;
                let ids = entries.into_iter().map(|entry| entry.id).collect();
                of_day = (Some(key.day()), ids);
            }
            if !of_day.1.contains(&key) {
                gone.push((name, restored(row.get(1)?)?, restored(row.get(2)?)?));
            }
        }
        drop(rows);
        let transaction = self.db.unchecked_transaction()?;
        for (key, first, last) in gone {
            for part in schema::part_of(first)..=schema::part_of(last) {
                note(&transaction, What::Part, stored(part))?;
            }
            transaction
                .prepare_cached("DELETE FROM content WHERE key = ?")?
                .execute([key])?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Notes the segments that were written anew: each time what goes out of one is longer than what comes in at its beginning, so that the last line stands elsewhere.
    fn look_for_segments(&self) -> Result<(), IndexError> {
        let (segments, mut names) = (Segments::of(&self.dir), Names::default());
        let numbers: Vec<i64> = {
            let mut statement = self
                .db
                .prepare_cached("SELECT segment FROM segments ORDER BY segment DESC")?;
            let numbers = statement.query_map([], |row| row.get(0))?;
            numbers.collect::<Result<_, _>>()?
        };
        let mut moved = Vec::new();
        for number in numbers {
            let number = restored(number)?;
            let Some((_, last)) = self.leaves_of(number)? else {
                continue;
            };
            let unknown = || IndexError::Stale(format!("leaf {last} has no row"));
            let row = row_of(&self.db, last)?.ok_or_else(unknown)?;
            let (stream, _) = names
                .stream(&self.db, row.stream)?
                .ok_or_else(|| row.stale())?;
            let is_there = segments.is_at(&row, &stream).map_err(|error| {
                let file = format!("segment {number:08}");
                FollowError::Io { file, error }
            })?;
            if !is_there {
                moved.push(number);
            }
        }
        let transaction = self.db.unchecked_transaction()?;
        for segment in moved {
            note(&transaction, What::Segment, stored(segment))?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// The first and the last leaf of a segment that the index knows.
    fn leaves_of(&self, segment: u64) -> Result<Option<(u64, u64)>, IndexError> {
        let at = |sql: &str| -> Result<Option<u64>, IndexError> {
            let mut statement = self.db.prepare_cached(sql)?;
            let leaf: Option<i64> = statement
                .query_row([stored(segment)], |row| row.get(0))
                .optional()?;
            leaf.map(restored).transpose()
        };
        let first = at("SELECT leaf FROM segments WHERE segment = ?")?;
        let next = at("SELECT leaf FROM segments WHERE segment > ? ORDER BY segment LIMIT 1")?;
        let last = next.unwrap_or(self.follower.cursor().leaf).checked_sub(1);
        Ok(first.zip(last).filter(|(first, last)| first <= last))
    }

    /// Places the rows of a segment that was written anew, and notes what it lost.
    fn place(&mut self, segment: u64, end: Place) -> Result<(), IndexError> {
        let Some((first, last)) = self.leaves_of(segment)? else {
            return done(&self.db, What::Segment, stored(segment));
        };
        let rows = rows(&self.db, first, last)?;
        let begin = Place { segment, offset: 0 };
        let mut follower = Follower::new(
            &self.dir,
            Cursor {
                leaf: first,
                place: begin,
            },
        );
        let transaction = self.db.unchecked_transaction()?;
        let (mut names, mut parts) = (Names::default(), BTreeSet::new());
        for row in &rows {
            let record = follower.next(end)?.ok_or_else(|| row.stale())?;
            let stream = names.stream(&transaction, row.stream)?;
            let (stream, _) = stream.ok_or_else(|| row.stale())?;
            if record.place.segment != segment || !is_of(&record, row, &stream) {
                return Err(row.stale());
            }
            if (record.place, record.length) != (row.place, row.length) {
                let length = i64::try_from(record.length).unwrap_or(i64::MAX);
                transaction
                    .prepare_cached("UPDATE records SET offset = ?, length = ? WHERE leaf = ?")?
                    .execute([stored(record.place.offset), length, stored(row.leaf)])?;
            }
            let is_lost = record.deleted.is_some() && (row.time.is_some() || row.thread.is_some());
            if is_lost {
                transaction
                    .prepare_cached("UPDATE records SET time = NULL, thread = NULL WHERE leaf = ?")?
                    .execute([stored(row.leaf)])?;
                note(&transaction, What::Stream, row.stream)?;
                parts.insert(schema::part_of(row.leaf));
            }
        }
        if !parts.is_empty() {
            note(&transaction, What::Names, 0)?;
        }
        for part in parts {
            note(&transaction, What::Part, stored(part))?;
        }
        done(&transaction, What::Segment, stored(segment))?;
        let mut cursor = self.follower.cursor();
        let is_within = last.checked_add(1) == Some(cursor.leaf) && cursor.place.segment == segment;
        if is_within {
            cursor.place = follower.cursor().place;
            transaction
                .prepare_cached("UPDATE meta SET offset = ?")?
                .execute([stored(cursor.place.offset)])?;
        }
        transaction.commit()?;
        self.follower = Follower::new(&self.dir, cursor);
        Ok(())
    }

    /// Has the records of some streams that lost others count to the sessions that they count to now.
    fn rethread(&self, first: i64) -> Result<(), IndexError> {
        let segments = Segments::of(&self.dir);
        let transaction = self.db.unchecked_transaction()?;
        let streams: Vec<i64> = {
            let mut statement = transaction.prepare_cached(
                "SELECT id FROM forget WHERE what = ? AND id >= ? ORDER BY id LIMIT ?",
            )?;
            let wanted = [What::Stream.number(), first, STEP_STREAMS];
            let ids = statement.query_map(wanted, |row| row.get(0))?;
            ids.collect::<Result<_, _>>()?
        };
        for stream in streams {
            rethread(&transaction, &segments, stream)?;
            done(&transaction, What::Stream, stream)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Removes sessions that have no record any more, and writes the tables that have names anew: a page may keep bytes of a row that it had before.
    fn rename(&self) -> Result<(), IndexError> {
        let transaction = self.db.unchecked_transaction()?;
        transaction.execute_batch(
            "DELETE FROM sessions WHERE records = 0;
             DELETE FROM session_streams WHERE session NOT IN (SELECT id FROM sessions);
             CREATE TEMP TABLE kept AS SELECT * FROM sessions;
             DELETE FROM sessions;
             INSERT INTO sessions SELECT * FROM temp.kept ORDER BY id;
             DROP TABLE temp.kept;
             CREATE TEMP TABLE kept AS SELECT * FROM session_hosts;
             DELETE FROM session_hosts;
             INSERT INTO session_hosts SELECT * FROM temp.kept ORDER BY session, part, host;
             DROP TABLE temp.kept;",
        )?;
        done(&transaction, What::Names, 0)?;
        transaction.commit()?;
        Ok(())
    }

    /// The first that is written down.
    fn next(&self, what: What) -> Result<Option<i64>, IndexError> {
        let id = self
            .db
            .prepare_cached("SELECT min(id) FROM forget WHERE what = ?")?
            .query_row([what.number()], |row| row.get(0))?;
        Ok(id)
    }
}

impl What {
    fn number(self) -> i64 {
        match self {
            Self::Stream => 0,
            Self::Part => 1,
            Self::Names => 2,
            Self::Segment => 3,
        }
    }
}

/// Writes down what is to be done.
pub(super) fn note(db: &Connection, what: What, id: i64) -> Result<(), IndexError> {
    db.prepare_cached("INSERT OR IGNORE INTO forget VALUES (?, ?)")?
        .execute([what.number(), id])?;
    Ok(())
}

/// It was done.
pub(super) fn done(db: &Connection, what: What, id: i64) -> Result<(), IndexError> {
    db.prepare_cached("DELETE FROM forget WHERE what = ? AND id = ?")?
        .execute([what.number(), id])?;
    Ok(())
}

/// The rows of these leaves, in order.
pub(super) fn rows(db: &Connection, first: u64, last: u64) -> Result<Vec<Row>, IndexError> {
    let sql =
        format!("SELECT {COLUMNS} FROM records r WHERE r.leaf BETWEEN ? AND ? ORDER BY r.leaf");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params![stored(first), stored(last)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Row::read(row)?);
    }
    Ok(found)
}

/// Whether this is the row's record, or its leaf.
pub(super) fn is_of(record: &Followed<'_>, row: &Row, stream: &StreamId) -> bool {
    record.leaf == row.leaf
        && match record.deleted {
            Some(leaf) => leaf.stream == *stream && leaf.seq == row.seq,
            None => chaperone_crds::head::Head::parse(record.line)
                .is_ok_and(|head| head.stream == *stream && head.seq == row.seq),
        }
}
