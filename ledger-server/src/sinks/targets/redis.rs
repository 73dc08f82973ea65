//! Redis Streams: one entry for each record.
//!
//! Contract: a batch is acknowledged once the server has added each record of it; what that is worth after a crash of the server is its `appendfsync`'s to say. An entry's ID is `LEAF-1`, the record's number in the log, and
//! IDs of a stream only grow, so that what comes again is found there and not added twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chaperone_sinks::{dial::Dialer, settings::Redis};
use redis::{
    AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind, Value,
    aio::MultiplexedConnection, cmd,
};
use tokio::{task::AbortHandle, time::timeout};

use super::Maker;
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target, Then};

/// How long the server may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(45);
/// How long the server may take to say who we are.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A stream of a server.
pub(super) struct RedisTarget {
    dialer: Dialer,
    login: RedisConnectionInfo,
    key: String,
    max_length: Option<u64>,
    session: Option<Session>,
}

struct Session {
    connection: MultiplexedConnection,
    driver: AbortHandle,
    /// The newest ID of the stream: asked after a connection, then known.
    newest: Option<Id>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// An entry's ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u64, u64);

impl Id {
    fn of(record: &Outgoing) -> Self {
        Self(record.leaf, 1)
    }

    fn parse(text: &str) -> Option<Self> {
        let (leaf, part) = text.split_once('-')?;
        Some(Self(leaf.parse().ok()?, part.parse().ok()?))
    }

    fn text(self) -> String {
        format!("{}-{}", self.0, self.1)
    }
}

impl RedisTarget {
    /// Reads the settings.
    pub(super) fn new(redis: &Redis, maker: &Maker) -> Result<Self, Failure> {
        let tls = match &redis.tls {
            Some(tls) => Some(Arc::new(tls.client_config(None)?)),
            None => None,
        };
        let mut login = RedisConnectionInfo::default();
        if let Some(username) = &redis.username {
            login = login.set_username(username);
        }
        if let Some(password) = &redis.password {
            login = login.set_password(&password.0);
        }
        Ok(Self {
            dialer: Dialer {
                host: redis.host.clone(),
                port: redis.port,
                tls,
                net: maker.net.clone(),
            },
            login,
            key: redis.key.clone(),
            max_length: redis.max_length,
            session: None,
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        // After a failure a session is not used again: where the stream ends is asked anew.
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.begin().await?,
        };
        let mut new = batch;
        if let (Some(first), Some(newest)) = (batch.first(), session.newest)
            && newest >= Id::of(first)
        {
            self.is_ours(&mut session, first).await?;
            let there = batch.partition_point(|record| Id::of(record) <= newest);
            new = batch.get(there..).unwrap_or_default();
        }
        if let Some(last) = new.last() {
            self.add(&mut session, new).await?;
            session.newest = Some(Id::of(last));
        }
        self.session = Some(session);
        Ok(Answer::default())
    }

    async fn begin(&self) -> Result<Session, Failure> {
        let stream = self.dialer.dial().await?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER_TIMEOUT));
        let connected =
            MultiplexedConnection::new_with_config(&self.login, Box::pin(stream), config);
        let connected = timeout(HELLO_TIMEOUT, connected).await.map_err(|_| {
            let why = format!("no answer within {} s", HELLO_TIMEOUT.as_secs());
            Failure::soon("timeout", why)
        })?;
        let (connection, driver) = connected.map_err(|error| failure(&error))?;
        let mut session = Session {
            connection,
            driver: tokio::spawn(driver).abort_handle(),
            newest: None,
        };
        session.newest = self.newest(&mut session).await?;
        Ok(session)
    }

    /// The newest ID that the stream ever had; none of one that is not there.
    async fn newest(&self, session: &mut Session) -> Result<Option<Id>, Failure> {
        let mut ask = cmd("XINFO");
        ask.arg("STREAM").arg(&self.key);
        let answer: Result<HashMap<String, Value>, _> =
            ask.query_async(&mut session.connection).await;
        let answer = match answer {
            Err(error) if error.detail().is_some_and(|d| d.contains("no such key")) => {
                return Ok(None);
            }
            answer => answer.map_err(|error| failure(&error))?,
        };
        let newest = match answer.get("last-generated-id") {
            Some(Value::BulkString(id)) => std::str::from_utf8(id).ok().and_then(Id::parse),
            Some(Value::SimpleString(id)) => Id::parse(id),
            _ => None,
        };
        let nonsense = || Failure::new(Then::Rarely, "protocol", "XINFO STREAM names no last ID");
        newest.map(Some).ok_or_else(nonsense)
    }

    /// A stream that is ahead of the batch must have its first record: else its IDs are another's, and what we skipped would be lost.
    async fn is_ours(&self, session: &mut Session, first: &Outgoing) -> Result<(), Failure> {
        let id = Id::of(first).text();
        let mut ask = cmd("XRANGE");
        ask.arg(&self.key).arg(&id).arg(&id);
        let found: Vec<(String, HashMap<String, String>)> = ask
            .query_async(&mut session.connection)
            .await
            .map_err(|error| failure(&error))?;
        let seq = first.about.seq.to_string();
        let is_ours = found.first().is_some_and(|(_, fields)| {
            fields.get("stream") == Some(&first.about.stream) && fields.get("seq") == Some(&seq)
        });
        match is_ours {
            true => Ok(()),
            false => {
                let why = format!(
                    "the stream {} has IDs after {id} that are not this log's: give the sink another key, or delete the stream",
                    self.key
                );
                Err(Failure::new(Then::Rarely, "settings", why))
            }
        }
    }

    /// An entry right after the newest, whose ID leaves room for the log's next: IDs of the log end with 1.
    async fn try_one(&self, record: &Outgoing) -> Result<Answer, Failure> {
        let mut session = self.begin().await?;
        let Some(Id(leaf, _)) = session.newest else {
            let why = "connected and known, but the stream has no entry yet, and one now would have the first record's place: try again once that is there";
            return Err(Failure::new(Then::Rarely, "settings", why));
        };
        let mut add = cmd("XADD");
        add.arg(&self.key)
            .arg(format!("{leaf}-*"))
            .arg("stream")
            .arg(&record.about.stream)
            .arg("seq")
            .arg(record.about.seq)
            .arg("record")
            .arg(&record.line);
        let added: Result<(), RedisError> = add.query_async(&mut session.connection).await;
        added.map_err(|error| failure(&error))?;
        Ok(Answer::default())
    }

    /// One after the other: in a pipeline the next could be added after one that was not, whose ID is then behind the newest for ever. In a transaction neither could be, but servers of version 7.0 whose default
    /// user is off drop transactions when they load their file of appended commands.
    async fn add(&self, session: &mut Session, records: &[Outgoing]) -> Result<(), Failure> {
        for record in records {
            let mut add = cmd("XADD");
            add.arg(&self.key);
            if let Some(most) = self.max_length {
                add.arg("MAXLEN").arg("~").arg(most);
            }
            add.arg(Id::of(record).text())
                .arg("stream")
                .arg(&record.about.stream)
                .arg("seq")
                .arg(record.about.seq)
                .arg("record")
                .arg(&record.line);
            let added: Result<(), RedisError> = add.query_async(&mut session.connection).await;
            added.map_err(|error| failure(&error))?;
        }
        Ok(())
    }
}

impl Target for RedisTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }

    fn test<'a>(&'a mut self, record: &'a Outgoing) -> Sending<'a> {
        Box::pin(self.try_one(record))
    }
}

/// What follows from an error.
fn failure(error: &RedisError) -> Failure {
    let (then, reason) = match error.kind() {
        ErrorKind::AuthenticationFailed => (Then::Rarely, "unauthorized"),
        ErrorKind::Server(ServerErrorKind::NoPerm) => (Then::Rarely, "unauthorized"),
        _ if error.is_timeout() => (Then::Soon, "timeout"),
        _ if error.is_io_error() => (Then::Soon, "connect"),
        _ => match error.code() {
            Some("WRONGTYPE") => (Then::Rarely, "settings"),
            Some("NOAUTH" | "WRONGPASS") => (Then::Rarely, "unauthorized"),
            _ => (Then::Soon, "server-error"),
        },
    };
    Failure::new(then, reason, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_as_the_server_orders_them_and_nonsense_is_none() {
        assert_eq!(Id::parse("12-1"), Some(Id(12, 1)));
        assert!(Id(9, 1) < Id(10, 0) && Id(10, 0) < Id(10, 1));
        for text in ["", "-", "1", "1-", "-1", "1-x", "99999999999999999999-1"] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
