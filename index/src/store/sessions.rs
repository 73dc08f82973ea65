//! Sessions: what one run of an agent did.
//!
//! A record counts to the session that it names itself; one that names none to the session that a record of its stream named before it, for what a model asks for and what comes of it are in different requests; and before any was
//! named to the stream's own, which is a pod's lifetime. Where a session was named later, what came before is its prelude. A name is the agent's word and nothing more: sessions of two namespaces never meet.

use jiff::Timestamp;
use rusqlite::params;
use serde::Serialize;

use super::{
    IndexError,
    batch::MAX_HOSTS,
    read::{Limits, Reader},
    restored,
    search::{Scope, is_interrupted},
    stored,
};

/// Most streams of a session that are told.
const MAX_STREAMS: i64 = 100;

/// Where its name is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// The agent named it.
    Agent,
    /// It is a stream, and has the stream's name.
    Stream,
}

/// A session, as it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its name.
    pub id: String,
    /// Where that is from.
    pub kind: SessionKind,
    /// Whose it is.
    pub namespace: String,
    /// Time of its first record, if a record has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_time: Option<String>,
    /// Time of its last record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_time: Option<String>,
    /// Records that count to it.
    pub records: u64,
    /// What the agent did, of these.
    pub operations: u64,
    /// What was refused, of these.
    pub denied: u64,
    /// What a policy in Audit would have denied, of these.
    pub would_deny: u64,
    /// Exchanges with a model.
    pub turns: u64,
    /// The pods and streams that it is from.
    pub streams: Vec<SessionStream>,
    /// Where to, the most frequent first.
    pub hosts: Vec<SessionHost>,
    /// Its row.
    #[serde(skip)]
    pub row: i64,
}

/// A stream of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStream {
    /// Its name.
    pub stream: String,
    /// The pod that it is from; empty where the ledger has not recorded it.
    pub pod: String,
}

/// A host of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionHost {
    /// The host.
    pub host: String,
    /// Operations that went there.
    pub operations: u64,
}

/// Which sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionQuery {
    /// Of this namespace.
    pub namespace: Option<String>,
    /// Whose last record is not before, in microseconds since 1970.
    pub since: Option<i64>,
    /// Whose first record is before.
    pub until: Option<i64>,
    /// Most of them.
    pub limit: usize,
    /// Where an answer before ended.
    pub cursor: Option<u64>,
}

/// What was found: those that began last come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// The sessions.
    pub found: Vec<Session>,
    /// Leaves that the index knew of.
    pub indexed: u64,
    /// Where to go on.
    pub cursor: Option<u64>,
}

const COLUMNS: &str = "id, namespace, name, is_stream, first_time, last_time, records, operations, denied, would_deny, turns";

impl Reader {
    /// Lists sessions. A session that begins later comes before, so that pages neither repeat nor leave out one.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn sessions(&self, query: &SessionQuery, limits: Limits) -> Result<Sessions, IndexError> {
        self.limit(limits.time);
        let transaction = self.db.unchecked_transaction()?;
        let indexed = self.indexed()?;
        let sql = list_sql(query.namespace.is_some());
        let mut statement = self.db.prepare_cached(&sql)?;
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let before = query.cursor.map_or(i64::MAX, stored);
        let mut rows = statement.query(params![
            query.namespace,
            query.since,
            query.until,
            limit,
            before
        ])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(slow)? {
            found.push(self.told(row)?);
        }
        drop(rows);
        drop(transaction);
        let is_full = found.len() >= query.limit;
        let last = found.last().filter(|_| is_full).map(|session| session.row);
        let cursor = last.map(restored).transpose()?;
        Ok(Sessions {
            found,
            indexed,
            cursor,
        })
    }

    /// The session of this name, in this namespace and of this kind where they are given.
    ///
    /// # Errors
    /// [`IndexError::Ambiguous`] where there are several, and the others.
    pub fn session(
        &self,
        name: &str,
        namespace: Option<&str>,
        kind: Option<SessionKind>,
    ) -> Result<Option<Session>, IndexError> {
        self.limit(Limits::default().time);
        let mut statement = self.db.prepare_cached(&by_name_sql())?;
        let is_stream = kind.map(|kind| kind == SessionKind::Stream);
        let mut rows = statement.query(params![name, namespace, is_stream])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(self.told(row)?);
        }
        match found.len() {
            0 | 1 => Ok(found.pop()),
            many => Err(IndexError::Ambiguous(many)),
        }
    }

    /// Which records are a session's: what counts to it, and what of its streams came before any session.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn scope(&self, session: &Session) -> Result<Scope, IndexError> {
        let mut ids = vec![session.row];
        let sql = "SELECT t.own FROM session_streams s JOIN streams t ON t.id = s.stream WHERE s.session = ?1 AND t.first = ?1 AND t.own IS NOT NULL LIMIT ?2";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([session.row, MAX_STREAMS], |row| row.get(0))?;
        for id in rows {
            ids.push(id?);
        }
        Ok(Scope::Sessions(ids))
    }

    fn told(&self, row: &rusqlite::Row<'_>) -> Result<Session, IndexError> {
        let number = |column: usize| restored(row.get(column)?);
        let id: i64 = row.get(0)?;
        let is_stream: bool = row.get(3)?;
        Ok(Session {
            id: row.get(2)?,
            kind: match is_stream {
                true => SessionKind::Stream,
                false => SessionKind::Agent,
            },
            namespace: row.get(1)?,
            first_time: shown(row.get(4)?),
            last_time: shown(row.get(5)?),
            records: number(6)?,
            operations: number(7)?,
            denied: number(8)?,
            would_deny: number(9)?,
            turns: number(10)?,
            streams: self.streams_of(id)?,
            hosts: self.hosts_of(id)?,
            row: id,
        })
    }

    fn streams_of(&self, session: i64) -> Result<Vec<SessionStream>, IndexError> {
        let sql = "SELECT t.uuid, t.pod FROM session_streams s JOIN streams t ON t.id = s.stream WHERE s.session = ? ORDER BY s.stream LIMIT ?";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([session, MAX_STREAMS], |row| {
            Ok(SessionStream {
                stream: row.get(0)?,
                pod: row.get(1)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn hosts_of(&self, session: i64) -> Result<Vec<SessionHost>, IndexError> {
        let sql = "SELECT host, sum(operations) AS operations FROM session_hosts WHERE session = ? GROUP BY host ORDER BY operations DESC, host LIMIT ?";
        let most = i64::try_from(MAX_HOSTS).unwrap_or(i64::MAX);
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query([session, most])?;
        let mut hosts = Vec::new();
        while let Some(row) = rows.next()? {
            hosts.push(SessionHost {
                host: row.get(0)?,
                operations: restored(row.get(1)?)?,
            });
        }
        Ok(hosts)
    }
}

/// Sessions by when they began, of one namespace or of all.
pub(super) fn list_sql(has_namespace: bool) -> String {
    let namespace = match has_namespace {
        true => "namespace = ?1",
        false => "?1 IS NULL",
    };
    format!(
        "SELECT {COLUMNS} FROM sessions WHERE {namespace} AND is_shown = 1 AND (?2 IS NULL OR last_time >= ?2) AND (?3 IS NULL OR first_time < ?3) AND id < ?5 ORDER BY id DESC LIMIT ?4"
    )
}

pub(super) fn by_name_sql() -> String {
    format!(
        "SELECT {COLUMNS} FROM sessions WHERE name = ?1 AND (?2 IS NULL OR namespace = ?2) AND (?3 IS NULL OR is_stream = ?3) ORDER BY id LIMIT 3"
    )
}

fn slow(error: rusqlite::Error) -> IndexError {
    match is_interrupted(&error) {
        true => IndexError::TooSlow,
        false => error.into(),
    }
}

/// A time as records have it.
fn shown(micros: Option<i64>) -> Option<String> {
    let time = Timestamp::from_microsecond(micros?).ok()?;
    Some(format!("{time:.6}"))
}
