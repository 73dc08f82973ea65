//! Streams as the index knows them: whose they are, and which session their records count to.

use std::collections::{HashMap, hash_map::Entry};

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{IndexError, restored, stored};
use crate::facts::Whose;

/// Streams and sessions that are kept in memory; beyond it all are forgotten and read again.
const MAX_KNOWN: usize = 20_000;
/// Longest name of a session, in bytes, that records are counted to; agents' have 36.
pub(super) const MAX_NAME_BYTES: usize = 256;

/// A stream.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) id: i64,
    /// Whose it is, if the ledger has recorded it.
    pub(super) whose: Option<Whose>,
    /// The session that its records without a session of their own count to, before they had one.
    own: Option<i64>,
    /// The first session that a record of it named.
    first: Option<i64>,
    /// The session that records without one count to now.
    thread: Option<i64>,
}

/// Rows that were read or written lately.
#[derive(Debug, Default)]
pub(super) struct Known {
    streams: HashMap<String, Stream>,
    sessions: HashMap<(String, String), i64>,
}

impl Known {
    /// What was of a transaction that did not happen is forgotten with all else.
    pub(super) fn forget(&mut self) {
        self.streams.clear();
        self.sessions.clear();
    }

    /// The stream's row, made where there is none.
    pub(super) fn stream(&mut self, db: &Connection, uuid: &str) -> Result<Stream, IndexError> {
        if let Some(stream) = self.streams.get(uuid) {
            return Ok(stream.clone());
        }
        let stream = match read(db, uuid)? {
            Some(stream) => stream,
            None => {
                db.prepare_cached("INSERT INTO streams (uuid, is_named, namespace, pod, service_account, uid) VALUES (?, 0, '', '', '', '')")?
                    .execute([uuid])?;
                Stream {
                    id: db.last_insert_rowid(),
                    whose: None,
                    own: None,
                    first: None,
                    thread: None,
                }
            }
        };
        self.keep(uuid, stream.clone());
        Ok(stream)
    }

    /// The ledger has recorded, with this leaf, whose a stream is.
    pub(super) fn name(
        &mut self,
        db: &Connection,
        uuid: &str,
        leaf: u64,
        whose: &Whose,
        uid: &str,
    ) -> Result<(), IndexError> {
        let mut stream = self.stream(db, uuid)?;
        if stream.whose.as_ref() != Some(whose) {
            db.prepare_cached("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?, ?)")?
                .execute(params![
                    stream.id,
                    stored(leaf),
                    whose.namespace,
                    whose.pod,
                    whose.service_account
                ])?;
        }
        db.prepare_cached("UPDATE streams SET is_named = 1, namespace = ?, pod = ?, service_account = ?, uid = ? WHERE id = ?")?
            .execute(params![whose.namespace, whose.pod, whose.service_account, uid, stream.id])?;
        stream.whose = Some(whose.clone());
        self.keep(uuid, stream);
        Ok(())
    }

    /// The session that a record of this stream counts to: the one that it names, else the one that a record before it named, else the stream's own.
    pub(super) fn thread(
        &mut self,
        db: &Connection,
        uuid: &str,
        namespace: &str,
        named: Option<&str>,
    ) -> Result<i64, IndexError> {
        let mut stream = self.stream(db, uuid)?;
        let named = named.filter(|name| name.len() <= MAX_NAME_BYTES);
        let session = match (named, stream.thread) {
            (None, Some(thread)) => return Ok(thread),
            (None, None) => {
                let own = session_of(db, namespace, uuid, true)?;
                stream.own = Some(own);
                own
            }
            (Some(name), _) => self.session(db, namespace, name)?,
        };
        if named.is_some() && stream.first.is_none() {
            stream.first = Some(session);
            // What came before is the prelude of the first session, and none for itself.
            db.prepare_cached("UPDATE sessions SET is_shown = 0 WHERE id = ?")?
                .execute([stream.own])?;
        }
        if stream.thread == Some(session) {
            return Ok(session);
        }
        stream.thread = Some(session);
        db.prepare_cached("UPDATE streams SET own = ?, first = ?, thread = ? WHERE id = ?")?
            .execute(params![stream.own, stream.first, stream.thread, stream.id])?;
        db.prepare_cached("INSERT OR IGNORE INTO session_streams VALUES (?, ?)")?
            .execute([session, stream.id])?;
        self.keep(uuid, stream);
        Ok(session)
    }

    fn session(&mut self, db: &Connection, namespace: &str, name: &str) -> Result<i64, IndexError> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(id) = self.sessions.get(&key) {
            return Ok(*id);
        }
        let id = session_of(db, namespace, name, false)?;
        if self.sessions.len() >= MAX_KNOWN {
            self.sessions.clear();
        }
        self.sessions.insert(key, id);
        Ok(id)
    }

    fn keep(&mut self, uuid: &str, stream: Stream) {
        if self.streams.len() >= MAX_KNOWN {
            self.streams.clear();
        }
        self.streams.insert(uuid.to_owned(), stream);
    }
}

/// The row of a session, made where there is none.
pub(super) fn session_of(
    db: &Connection,
    namespace: &str,
    name: &str,
    is_stream: bool,
) -> Result<i64, IndexError> {
    let there = db
        .prepare_cached(
            "SELECT id FROM sessions WHERE name = ? AND namespace = ? AND is_stream = ?",
        )?
        .query_row(params![name, namespace, is_stream], |row| row.get(0))
        .optional()?;
    match there {
        Some(id) => Ok(id),
        None => create(db, namespace, name, is_stream),
    }
}

/// Whose streams were when a record came: as the ledger had recorded it by then.
#[derive(Debug, Default)]
pub(super) struct Then(HashMap<i64, Vec<(u64, Whose)>>);

impl Then {
    /// Whose the stream was with this leaf, if that was recorded.
    pub(super) fn whose(
        &mut self,
        db: &Connection,
        stream: i64,
        leaf: u64,
    ) -> Result<Option<Whose>, IndexError> {
        let names = match self.0.entry(stream) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(names(db, stream)?),
        };
        let last = names.iter().take_while(|(from, _)| *from <= leaf).last();
        Ok(last.map(|(_, whose)| whose.clone()))
    }
}

/// Whose a stream is, from which leaf on.
fn names(db: &Connection, stream: i64) -> Result<Vec<(u64, Whose)>, IndexError> {
    let mut statement = db.prepare_cached(
        "SELECT leaf, namespace, pod, service_account FROM names WHERE stream = ? ORDER BY leaf",
    )?;
    let mut rows = statement.query([stream])?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        let whose = Whose {
            namespace: row.get(1)?,
            pod: row.get(2)?,
            service_account: row.get(3)?,
        };
        names.push((restored(row.get(0)?)?, whose));
    }
    Ok(names)
}

fn create(
    db: &Connection,
    namespace: &str,
    name: &str,
    is_stream: bool,
) -> Result<i64, IndexError> {
    db.prepare_cached("INSERT INTO sessions (namespace, name, is_stream, is_shown, records, operations, denied, would_deny, turns) VALUES (?, ?, ?, 1, 0, 0, 0, 0, 0)")?
        .execute(params![namespace, name, is_stream])?;
    Ok(db.last_insert_rowid())
}

fn read(db: &Connection, uuid: &str) -> Result<Option<Stream>, IndexError> {
    let stream = db
        .prepare_cached("SELECT id, is_named, namespace, pod, service_account, own, first, thread FROM streams WHERE uuid = ?")?
        .query_row([uuid], |row| {
            let is_named: bool = row.get(1)?;
            let whose = Whose {
                namespace: row.get(2)?,
                pod: row.get(3)?,
                service_account: row.get(4)?,
            };
            Ok(Stream {
                id: row.get(0)?,
                whose: is_named.then_some(whose),
                own: row.get(5)?,
                first: row.get(6)?,
                thread: row.get(7)?,
            })
        })
        .optional()?;
    Ok(stream)
}
