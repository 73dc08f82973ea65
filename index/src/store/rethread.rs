//! Which session a stream's records count to, found out again once it has lost some.
//!
//! The same as when the records came, as if those that are gone had never been: the session that a record names, else the one that was named before, else the stream's own. Records are read until one names the session that it
//! counted to before; what follows counts to the same as ever.

use std::collections::BTreeSet;

use chaperone_crds::chain::StreamId;
use chaperone_ledger::follow::Held;
use rusqlite::{Connection, params};
use serde_json::Value;

use super::{
    IndexError,
    forget::{What, note},
    read::{COLUMNS, Names, Row, Segments},
    restored, schema, stored,
    streams::{MAX_NAME_BYTES, Then, session_of},
};
use crate::facts::{Facts, Whose};

/// A stream on the way.
struct Walk<'a> {
    db: &'a Connection,
    segments: &'a Segments,
    stream: StreamId,
    id: i64,
    then: Then,
    own: Option<i64>,
    first: Option<i64>,
    thread: Option<i64>,
    /// All that its records count to.
    threads: BTreeSet<i64>,
    /// What follows counts to the same as before.
    is_settled: bool,
}

pub(super) fn rethread(db: &Connection, segments: &Segments, id: i64) -> Result<(), IndexError> {
    let unknown = || IndexError::Stale(format!("there is no stream {id}"));
    let (stream, _) = Names::default().stream(db, id)?.ok_or_else(unknown)?;
    let mut walk = Walk {
        db,
        segments,
        stream,
        id,
        then: Then::default(),
        own: None,
        first: None,
        thread: None,
        threads: BTreeSet::new(),
        is_settled: false,
    };
    let runs = runs(db, id)?;
    let nexts = runs.iter().skip(1).map(|(seq, _)| *seq).chain([u64::MAX]);
    for ((seq, leaf), next) in runs.iter().zip(nexts) {
        for row in run(db, id, (*seq, *leaf), next)? {
            walk.step(&row)?;
        }
    }
    walk.end()
}

impl Walk<'_> {
    fn step(&mut self, row: &Row) -> Result<(), IndexError> {
        let Some(before) = row.thread else {
            // It may be one that is gone, and have named a session.
            self.is_settled &= row.time.is_some();
            return Ok(());
        };
        let thread = match self.is_settled {
            true => before,
            false => match self.count(row, before)? {
                Some(thread) => thread,
                None => return Ok(()),
            },
        };
        self.thread = Some(thread);
        self.threads.insert(thread);
        if thread != before {
            self.db
                .prepare_cached("UPDATE records SET thread = ? WHERE leaf = ?")?
                .execute([thread, stored(row.leaf)])?;
            note(self.db, What::Part, stored(schema::part_of(row.leaf)))?;
        }
        Ok(())
    }

    /// The session that a record counts to. None of one that is gone since the segment was looked at.
    fn count(&mut self, row: &Row, before: i64) -> Result<Option<i64>, IndexError> {
        let Held::Record(line) = self.segments.held(row, &self.stream)? else {
            return Ok(None);
        };
        let json: Value = serde_json::from_slice(&line).unwrap_or_default();
        let facts = Facts::of(&json);
        let whose = self.then.whose(self.db, self.id, row.leaf)?;
        let namespace = whose.unwrap_or_else(|| Whose::of(&facts)).namespace;
        let named = facts.session.filter(|name| name.len() <= MAX_NAME_BYTES);
        let thread = match (named, self.thread) {
            (None, Some(thread)) => thread,
            (None, None) => {
                let own = session_of(self.db, &namespace, self.stream.as_str(), true)?;
                *self.own.insert(own)
            }
            (Some(name), _) => {
                let session = session_of(self.db, &namespace, name, false)?;
                self.first.get_or_insert(session);
                self.is_settled = session == before;
                session
            }
        };
        Ok(Some(thread))
    }

    fn end(self) -> Result<(), IndexError> {
        self.db
            .prepare_cached("UPDATE streams SET own = ?, first = ?, thread = ? WHERE id = ?")?
            .execute(params![self.own, self.first, self.thread, self.id])?;
        self.db
            .prepare_cached("UPDATE sessions SET is_shown = ? WHERE id = ?")?
            .execute(params![self.first.is_none(), self.own])?;
        self.db
            .prepare_cached("DELETE FROM session_streams WHERE stream = ?")?
            .execute([self.id])?;
        for thread in self.threads {
            self.db
                .prepare_cached("INSERT INTO session_streams VALUES (?, ?)")?
                .execute([thread, self.id])?;
        }
        Ok(())
    }
}

/// The beginnings of a stream's runs: number and leaf.
fn runs(db: &Connection, stream: i64) -> Result<Vec<(u64, u64)>, IndexError> {
    let mut statement =
        db.prepare_cached("SELECT seq, leaf FROM runs WHERE stream = ? ORDER BY seq")?;
    let mut rows = statement.query([stream])?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next()? {
        runs.push((restored(row.get(0)?)?, restored(row.get(1)?)?));
    }
    Ok(runs)
}

/// The rows of a run, before the next begins.
fn run(
    db: &Connection,
    stream: i64,
    (seq, leaf): (u64, u64),
    next: u64,
) -> Result<Vec<Row>, IndexError> {
    let sql = format!("SELECT {COLUMNS} FROM records r WHERE r.leaf >= ? ORDER BY r.leaf");
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([stored(leaf)])?;
    let (mut found, mut expected) = (Vec::new(), seq);
    while let Some(row) = rows.next()? {
        let row = Row::read(row)?;
        if row.stream != stream || row.seq != expected || expected >= next {
            break;
        }
        expected = expected.saturating_add(1);
        found.push(row);
    }
    Ok(found)
}
