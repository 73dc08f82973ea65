//! PostgreSQL: one row for each record.
//!
//! Contract: a batch is one statement, acknowledged once the server has committed it (by default that is on its disk). The key is stream and number, so that what comes again changes nothing.

use std::{sync::Arc, time::Duration};

use chaperone_sinks::settings::Postgres;
use tokio::task::AbortHandle;
use tokio_postgres::{
    Client, Config, Error, NoTls, Socket, Statement,
    config::SslMode,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Maker;
use crate::sinks::target::{Answer, Failure, Outgoing, Sending, Target, Then};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may take for one statement; the server breaks it off then.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(45);

/// A table of a database.
pub(super) struct PostgresTarget {
    config: Config,
    tls: Option<Arc<rustls::ClientConfig>>,
    table: String,
    session: Option<Session>,
}

/// A connection whose table is there.
struct Session {
    client: Client,
    insert: Statement,
    driver: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl PostgresTarget {
    /// Reads the settings.
    pub(super) fn new(postgres: &Postgres, maker: &Maker) -> Result<Self, Failure> {
        let tls = match &postgres.tls {
            Some(tls) => Some(Arc::new(tls.client_config(None)?)),
            None => None,
        };
        let mut config = Config::new();
        config
            .host(&postgres.host)
            .port(postgres.port)
            .dbname(&postgres.database)
            .user(&postgres.user)
            .application_name(format!("chaperone/{}", maker.version))
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(STATEMENT_TIMEOUT)
            .ssl_mode(match tls {
                Some(_) => SslMode::Require,
                None => SslMode::Disable,
            });
        if let Some(password) = &postgres.password {
            config.password(&password.0);
        }
        Ok(Self {
            config,
            tls,
            table: quoted(&postgres.table),
            session: None,
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        let session = match self.session.take().filter(|s| !s.client.is_closed()) {
            Some(session) => session,
            None => self.begin().await?,
        };
        let result = insert(&session, batch).await;
        if !session.client.is_closed() {
            self.session = Some(session);
        }
        result.map(|_| Answer::default()).map_err(|e| failure(&e))
    }

    async fn begin(&self) -> Result<Session, Failure> {
        match &self.tls {
            Some(tls) => {
                let tls = MakeRustlsConnect::new(tls.as_ref().clone());
                self.connect(tls).await
            }
            None => self.connect(NoTls).await,
        }
    }

    async fn connect<T>(&self, tls: T) -> Result<Session, Failure>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let (client, connection) = self.config.connect(tls).await.map_err(|e| failure(&e))?;
        let driver = tokio::spawn(async move {
            // The statement's own future tells its failure.
            let _ = connection.await;
        });
        let driver = driver.abort_handle();
        let prepared = prepare(&client, &self.table).await;
        match prepared {
            Ok(insert) => Ok(Session {
                client,
                insert,
                driver,
            }),
            Err(error) => {
                driver.abort();
                Err(failure(&error))
            }
        }
    }
}

impl Target for PostgresTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }
}

/// Bounds statements, and makes the table if it is not there. One that is there is taken as it is: it may have more columns, partitions, indexes.
async fn prepare(client: &Client, table: &str) -> Result<Statement, Error> {
    // Not a parameter of the connection: poolers refuse those.
    let bound = format!("SET statement_timeout = {}", STATEMENT_TIMEOUT.as_millis());
    client.batch_execute(&bound).await?;
    let there = client
        .query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])
        .await?;
    if !there.try_get::<_, bool>(0)? {
        client.batch_execute(&definition(table)).await?;
    }
    client.prepare(&insertion(table)).await
}

/// `json`, not `jsonb`: it keeps the text as it is, so that records can be proved, and takes every character that a record may have.
fn definition(table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (stream uuid NOT NULL, seq bigint NOT NULL, leaf bigint NOT NULL, time timestamptz NOT NULL, kind text NOT NULL, \
         namespace text NOT NULL, pod text NOT NULL, record json NOT NULL, PRIMARY KEY (stream, seq))"
    )
}

fn insertion(table: &str) -> String {
    format!(
        "INSERT INTO {table} (stream, seq, leaf, time, kind, namespace, pod, record) \
         SELECT stream::uuid, seq, leaf, time::timestamptz, kind, namespace, pod, record::json \
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]) AS new (stream, seq, leaf, time, kind, namespace, pod, record) \
         ON CONFLICT DO NOTHING"
    )
}

async fn insert(session: &Session, batch: &[Outgoing]) -> Result<u64, Error> {
    let texts = |f: fn(&Outgoing) -> &str| -> Vec<&str> { batch.iter().map(f).collect() };
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let seqs: Vec<i64> = batch.iter().map(|r| number(r.about.seq)).collect();
    let leaves: Vec<i64> = batch.iter().map(|r| number(r.leaf)).collect();
    session
        .client
        .execute(
            &session.insert,
            &[
                &texts(|r| &r.about.stream),
                &seqs,
                &leaves,
                &texts(|r| &r.about.time),
                &texts(|r| &r.about.kind),
                &texts(|r| &r.about.agent.namespace),
                &texts(|r| &r.about.agent.pod),
                &texts(|r| &r.line),
            ],
        )
        .await
}

/// A name as an identifier: `schema.table` as two.
fn quoted(table: &str) -> String {
    let parts = table.split('.');
    let parts: Vec<_> = parts
        .map(|part| format!("\"{}\"", part.replace('"', "\"\"")))
        .collect();
    parts.join(".")
}

/// What follows from an error, by the class of its code (PostgreSQL, Appendix A).
fn failure(error: &Error) -> Failure {
    let Some(database) = error.as_db_error() else {
        // Without a code it is the connection's.
        let cause = std::error::Error::source(error).map_or_else(String::new, |e| format!(": {e}"));
        return Failure::soon("connect", format!("{error}{cause}"));
    };
    let code = database.code().code();
    let (then, reason) = match code.get(..2).unwrap_or_default() {
        // Data exception, integrity constraint violation: these rows are not wanted.
        "22" | "23" => (Then::Refused, "refused"),
        "54" => (Then::Fewer, "refused"),
        "28" => (Then::Rarely, "unauthorized"),
        // No such database, no such table or column, no privilege.
        "3D" | "3F" | "42" => (Then::Rarely, "settings"),
        // Broken off by a person, or by the time that a statement may take.
        "57" if code == "57014" => (Then::Soon, "timeout"),
        _ => (Then::Soon, "server-error"),
    };
    // The detail of an error may have what the row says; the message has names only.
    Failure::new(then, reason, format!("{} ({code})", database.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_an_identifier_and_nothing_else() {
        assert_eq!(quoted("audit.records"), "\"audit\".\"records\"");
        assert_eq!(quoted("x\"; DROP TABLE y"), "\"x\"\"; DROP TABLE y\"");
    }
}
