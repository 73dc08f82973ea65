//! Questions about records and sessions. docs/search.md has them for users.
//!
//! Owns who may ask what, and what of it is recorded; how answers are written is `answers`. Invariant: an answer leaves only once a record of who asked it is on disk.

mod answers;
mod custody;
mod gaps;
mod ledgered;
mod proof;
mod trial;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use chaperone_crds::{chain::StreamId, record::ReadInfo};
use chaperone_index::{
    query::{DEFAULT_LIMIT, Query, SESSION_NAMES, parameters},
    store::{Answer, Found, Limits, Scope, Session, SessionKind, SessionQuery, Sessions},
};
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use crate::{
    authenticate::{Reader, Sight},
    refusal::{Code, Refusal},
};

pub(crate) use answers::held;
pub(super) use answers::{proof, record, records, session, session_records, sessions};
pub(super) use custody::{erase, hold, holds, release};
pub(crate) use custody::{is_held, no_such_hold};
pub(super) use gaps::gaps;
pub(super) use ledgered::Reads;
pub(super) use trial::test;

/// Bytes of records of an answer; the last record may pass it.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Streams of an answer whose first records are looked up.
const MAX_OPENS: usize = 200;

/// First records of streams, by name.
pub(crate) type Opens = BTreeMap<String, Vec<u8>>;
/// Parameters by name.
pub(crate) type Words = BTreeMap<String, String>;

/// A question that may be asked: by whom, about which namespace, in which words.
struct Question {
    reader: Arc<Reader>,
    namespace: Option<String>,
    what: &'static str,
    words: Words,
    /// An answer's room, held until its last byte has left.
    room: OwnedSemaphorePermit,
}

/// How far an answer looks.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Records of the log that the index knows of.
    pub(crate) indexed: u64,
    /// Records of the log.
    pub(crate) committed: u64,
    /// Where to go on.
    pub(crate) cursor: Option<String>,
}

/// An answer that may leave: that it was given is on disk.
pub(crate) struct Told<T> {
    /// What was found.
    pub(crate) answer: T,
    /// How far that looks.
    pub(crate) extent: Extent,
    /// The answer's room: to be held until its last byte has left.
    pub(crate) room: OwnedSemaphorePermit,
}

impl Api {
    /// Records that have all that the words say; where they say for how long, it is waited for some.
    pub(crate) async fn records(
        &self,
        token: &str,
        mut words: Words,
    ) -> Result<Told<Vec<Found>>, Refusal> {
        if let Some(most) = watch::patience(&mut words)? {
            return self.wait(token, words, most).await;
        }
        let query = read(&words)?;
        let question = self
            .question(token, Sight::LIST_RECORDS, "records", words)
            .await?;
        let limits = limits();
        let answer = self
            .search
            .ask(move |reader| reader.search(&query, &Scope::All, limits))
            .await?;
        self.tell(question, answer).await
    }

    /// The same, with the first record of each stream, which says who the pod is.
    pub(crate) async fn records_with_opens(
        &self,
        token: &str,
        words: Words,
    ) -> Result<Told<(Vec<Found>, Opens)>, Refusal> {
        let query = read(&words)?;
        let question = self
            .question(token, Sight::LIST_RECORDS, "records", words)
            .await?;
        let limits = limits();
        let (answer, opens) = self
            .search
            .ask(move |reader| {
                let answer = reader.search(&query, &Scope::All, limits)?;
                let streams: BTreeSet<_> = answer.found.iter().map(|f| f.stream.clone()).collect();
                let mut opens = Opens::new();
                for stream in streams.into_iter().take(MAX_OPENS) {
                    if let Some(open) = reader.record(&stream, 0)? {
                        opens.insert(stream.to_string(), open.line);
                    }
                }
                Ok((answer, opens))
            })
            .await?;
        let count = answer.found.len().saturating_add(opens.len());
        self.enter(&question, count as u64).await?;
        let extent = self.extent(answer.indexed, answer.cursor.map(|c| c.to_string()));
        Ok(question.told((answer.found, opens), extent))
    }

    /// One record; of the words only `namespace` may be there.
    pub(crate) async fn record(
        &self,
        token: &str,
        stream: &str,
        seq: &str,
        mut words: Words,
    ) -> Result<Told<Found>, Refusal> {
        only(&words, &["namespace"])?;
        let id: StreamId = super::parse(stream)?;
        let number: u64 = seq
            .parse()
            .map_err(|_| malformed("the number of a record is a number"))?;
        words.insert("stream".to_owned(), id.to_string());
        words.insert("seq".to_owned(), number.to_string());
        let question = self
            .question(token, Sight::GET_RECORDS, "record", words)
            .await?;
        let (found, deleted, indexed) = self
            .search
            .ask(move |reader| {
                let found = reader.record(&id, number)?;
                let deleted = match found {
                    Some(_) => None,
                    None => reader.deleted(&id, number)?,
                };
                Ok((found, deleted, reader.indexed()?))
            })
            .await?;
        let found = found.filter(|found| question.is_about(&found.whose.namespace));
        self.enter(&question, u64::from(found.is_some())).await?;
        let found = found.ok_or_else(|| {
            if let Some(leaf) = deleted {
                let why = format!("this record was deleted: records of kind ledger.erased say when and why, and what is left of it is its leaf, {leaf}");
                return Refusal::new(Code::Deleted, why);
            }
            let committed = self.search.committed();
            let why = format!("there is no such record among the first {indexed} of {committed}");
            Refusal::new(Code::NotFound, why)
        })?;
        Ok(question.told(found, self.extent(indexed, None)))
    }

    /// Sessions.
    pub(crate) async fn sessions(
        &self,
        token: &str,
        words: Words,
    ) -> Result<Told<Vec<Session>>, Refusal> {
        let query = read_sessions(&words)?;
        let question = self
            .question(token, Sight::LIST_SESSIONS, "sessions", words)
            .await?;
        let limits = limits();
        let Sessions {
            found,
            indexed,
            cursor,
        } = self
            .search
            .ask(move |reader| reader.sessions(&query, limits))
            .await?;
        self.enter(&question, found.len() as u64).await?;
        let extent = self.extent(indexed, cursor.map(|cursor| cursor.to_string()));
        Ok(question.told(found, extent))
    }

    /// One session.
    pub(crate) async fn session(
        &self,
        token: &str,
        id: &str,
        mut words: Words,
    ) -> Result<Told<Session>, Refusal> {
        only(&words, &["namespace", "kind"])?;
        let (name, namespace, kind) = (
            id.to_owned(),
            words.get("namespace").cloned(),
            kind(&words)?,
        );
        words.insert("id".to_owned(), id.to_owned());
        let question = self
            .question(token, Sight::GET_SESSIONS, "session", words)
            .await?;
        let (found, indexed) = self
            .search
            .ask(move |reader| {
                let found = reader.session(&name, namespace.as_deref(), kind)?;
                Ok((found, reader.indexed()?))
            })
            .await?;
        self.enter(&question, u64::from(found.is_some())).await?;
        let found = found.ok_or_else(|| self.no_session(indexed))?;
        Ok(question.told(found, self.extent(indexed, None)))
    }

    /// Records of a session.
    pub(crate) async fn session_records(
        &self,
        token: &str,
        id: &str,
        mut words: Words,
    ) -> Result<Told<Vec<Found>>, Refusal> {
        let kind = kind(&words)?;
        let mut plain = words.clone();
        // Here it names the session's kind; records' kinds are asked for at /v1/records.
        plain.remove("kind");
        let query = read(&plain)?;
        words.insert("id".to_owned(), id.to_owned());
        let question = self
            .question(token, Sight::LIST_RECORDS, "session", words)
            .await?;
        let (name, namespace) = (id.to_owned(), question.namespace.clone());
        let limits = limits();
        let answer = self
            .search
            .ask(move |reader| {
                let Some(session) = reader.session(&name, namespace.as_deref(), kind)? else {
                    return Ok(Err(reader.indexed()?));
                };
                let scope = reader.scope(&session)?;
                reader.search(&query, &scope, limits).map(Ok)
            })
            .await?;
        match answer {
            Ok(answer) => self.tell(question, answer).await,
            Err(indexed) => {
                self.enter(&question, 0).await?;
                Err(self.no_session(indexed))
            }
        }
    }

    /// Who asks, if they may.
    async fn may(
        &self,
        token: &str,
        sight: Sight,
        what: &'static str,
        namespace: Option<&str>,
    ) -> Result<Arc<Reader>, Refusal> {
        let reader = self.authenticator.reader(token, sight, namespace).await?;
        // Before a refusal too, which costs a record as well.
        self.reads.admit(&reader)?;
        if !reader.is_allowed {
            self.reads.refused(self, &reader, what, namespace).await?;
            return Err(forbidden(&reader, sight, namespace));
        }
        Ok(reader)
    }

    /// A question of who may ask it.
    async fn question(
        &self,
        token: &str,
        sight: Sight,
        what: &'static str,
        words: Words,
    ) -> Result<Question, Refusal> {
        let namespace = words.get("namespace").cloned();
        let reader = self.may(token, sight, what, namespace.as_deref()).await?;
        let room = self.reads.room()?;
        Ok(Question {
            reader,
            namespace,
            what,
            words,
            room,
        })
    }

    /// Records that it was asked, and how much of an answer there is.
    async fn enter(&self, question: &Question, records: u64) -> Result<(), Refusal> {
        let read = ReadInfo {
            query: question.words.clone(),
            records,
            ..question.reader.info(question.what)
        };
        self.ledger(read).await
    }

    async fn tell(&self, question: Question, answer: Answer) -> Result<Told<Vec<Found>>, Refusal> {
        let Answer {
            found,
            indexed,
            cursor,
        } = answer;
        self.enter(&question, found.len() as u64).await?;
        let extent = self.extent(indexed, cursor.map(|cursor| cursor.to_string()));
        Ok(question.told(found, extent))
    }

    fn extent(&self, indexed: u64, cursor: Option<String>) -> Extent {
        Extent {
            indexed,
            // Counted after the index was: never less.
            committed: self.search.committed().max(indexed),
            cursor,
        }
    }

    fn no_session(&self, indexed: u64) -> Refusal {
        let committed = self.search.committed().max(indexed);
        let why =
            format!("there is no such session among the first {indexed} of {committed} records");
        Refusal::new(Code::NotFound, why)
    }
}

impl Question {
    fn is_about(&self, namespace: &str) -> bool {
        self.namespace
            .as_deref()
            .is_none_or(|wanted| wanted == namespace)
    }

    fn told<T>(self, answer: T, extent: Extent) -> Told<T> {
        Told {
            answer,
            extent,
            room: self.room,
        }
    }
}

/// The parameters, each once.
pub(crate) fn words(query: Option<&str>) -> Result<Words, Refusal> {
    let mut words = BTreeMap::new();
    for (name, value) in parameters(query.unwrap_or_default()).map_err(malformed)? {
        let shown: String = name.chars().take(64).collect();
        if words.insert(name, value).is_some() {
            return Err(malformed(format!("{shown:?} is there more than once")));
        }
    }
    Ok(words)
}

fn read(words: &Words) -> Result<Query, Refusal> {
    let pairs = words
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    Query::parse(pairs).map_err(malformed)
}

/// A question about sessions takes few of the parameters, read as they are for records.
fn read_sessions(words: &Words) -> Result<SessionQuery, Refusal> {
    only(words, &SESSION_NAMES)?;
    let mut plain = words.clone();
    let cursor = plain.remove("cursor").map(|text| {
        let wrong = || malformed("cursor is what an answer before gave as its cursor");
        text.parse::<u64>().map_err(|_| wrong())
    });
    let query = read(&plain)?;
    Ok(SessionQuery {
        namespace: query.namespace,
        since: query.since,
        until: query.until,
        limit: query.limit.min(DEFAULT_LIMIT),
        cursor: cursor.transpose()?,
    })
}

fn kind(words: &Words) -> Result<Option<SessionKind>, Refusal> {
    match words.get("kind").map(String::as_str) {
        None => Ok(None),
        Some("agent") => Ok(Some(SessionKind::Agent)),
        Some("stream") => Ok(Some(SessionKind::Stream)),
        Some(_) => Err(malformed("a session's kind is agent or stream")),
    }
}

pub(super) fn only(words: &Words, names: &[&str]) -> Result<(), Refusal> {
    match words.keys().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(other) => {
            let other: String = other.chars().take(64).collect();
            let names = names.join(", ");
            Err(malformed(format!(
                "the parameters here are {names}, not {other:?}"
            )))
        }
    }
}

fn limits() -> Limits {
    Limits {
        bytes: ANSWER_BYTES,
        ..Limits::default()
    }
}

fn malformed(why: impl ToString) -> Refusal {
    Refusal::new(Code::Malformed, why.to_string())
}

fn forbidden(reader: &Reader, sight: Sight, namespace: Option<&str>) -> Refusal {
    let (name, verb, resource) = (&reader.user.name, sight.verb, sight.resource);
    let why = match namespace {
        Some(namespace) => {
            format!("{name} may not {verb} {resource} of chaperone.dev in namespace {namespace}")
        }
        None => format!(
            "{name} may not {verb} {resource} of chaperone.dev in all namespaces: name one with namespace="
        ),
    };
    Refusal::new(Code::Forbidden, why)
}
