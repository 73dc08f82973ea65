//! PostgreSQL: one row for each record.
//!
//! Contract: a batch is one statement, acknowledged once the server has committed it (by default that is on its disk). The key is stream and number, so that what comes again changes nothing.

use chaperone_sinks::settings::Postgres;
use tokio_postgres::{Client, Error, Statement};

use super::Maker;
use crate::{
    postgres::{Connection, Connector},
    sinks::target::{Answer, Failure, Outgoing, Sending, Target, Then},
};

/// A table of a database.
pub(super) struct PostgresTarget {
    connector: Connector,
    table: String,
    session: Option<Session>,
}

/// A connection whose table is there.
struct Session {
    connection: Connection,
    insert: Statement,
}

impl PostgresTarget {
    /// Reads the settings.
    pub(super) fn new(postgres: &Postgres, maker: &Maker) -> Result<Self, Failure> {
        Ok(Self {
            connector: Connector::new(postgres, &maker.version)?,
            table: quoted(&postgres.table),
            session: None,
        })
    }

    async fn deliver(&mut self, batch: &[Outgoing]) -> Result<Answer, Failure> {
        let is_open = |session: &Session| !session.connection.client.is_closed();
        let session = match self.session.take().filter(is_open) {
            Some(session) => session,
            None => self.begin().await.map_err(|e| failure(&e))?,
        };
        let result = insert(&session, batch).await;
        self.session = Some(session).filter(is_open);
        result.map(|_| Answer::default()).map_err(|e| failure(&e))
    }

    async fn begin(&self) -> Result<Session, Error> {
        let connection = self.connector.connect().await?;
        let insert = prepare(&connection.client, &self.table).await?;
        Ok(Session { connection, insert })
    }
}

impl Target for PostgresTarget {
    fn send<'a>(&'a mut self, batch: &'a [Outgoing]) -> Sending<'a> {
        Box::pin(self.deliver(batch))
    }
}

/// Makes the table if it is not there. One that is there is taken as it is: it may have more columns, partitions, indexes.
async fn prepare(client: &Client, table: &str) -> Result<Statement, Error> {
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
        .connection
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
