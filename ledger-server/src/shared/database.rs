//! The tables, and the connection to them.
//!
//! Each change of a file takes the lease's row first, of this leader's epoch: so changes come one after another, their numbers are in the order of their commits, and none is made for a leader of whom another has taken over.

mod files;
mod lease;

use anyhow::{Context, bail};
use tokio_postgres::{Error, Row};

use super::Failed;
use crate::postgres::{Connection, Connector};

pub(super) use files::Part;
pub(super) use lease::Leader;

/// What these tables are.
const FORMAT: i32 = 1;
/// A number of ours among the database's advisory locks, so that two replicas do not make the tables at the same time.
const MAKING: i64 = 0x6368_6170_6c64_6772;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS chaperone_ledger_lease (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  format integer NOT NULL, origin text NOT NULL,
  epoch bigint NOT NULL DEFAULT 0, holder text NOT NULL DEFAULT '', address text NOT NULL DEFAULT '',
  until timestamptz NOT NULL DEFAULT '-infinity');
CREATE SEQUENCE IF NOT EXISTS chaperone_ledger_change;
CREATE TABLE IF NOT EXISTS chaperone_ledger_bytes (
  file text NOT NULL, at bigint NOT NULL, bytes bytea NOT NULL,
  change bigint NOT NULL DEFAULT nextval('chaperone_ledger_change'), PRIMARY KEY (file, at));
CREATE INDEX IF NOT EXISTS chaperone_ledger_bytes_change ON chaperone_ledger_bytes (change);
CREATE TABLE IF NOT EXISTS chaperone_ledger_file (
  file text PRIMARY KEY, version bigint NOT NULL, change bigint NOT NULL,
  object text, length bigint, stored bigint, sha256 bytea);
CREATE INDEX IF NOT EXISTS chaperone_ledger_file_change ON chaperone_ledger_file (change);
CREATE TABLE IF NOT EXISTS chaperone_ledger_left (object text PRIMARY KEY, since timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS chaperone_ledger_replica (address text PRIMARY KEY, seen timestamptz NOT NULL);
";

/// Another replica has taken over: nothing of this one counts any more.
#[derive(Debug, thiserror::Error)]
#[error("another replica leads the ledger now")]
pub(super) struct Superseded;

/// The database, connected when it is needed.
#[derive(Debug)]
pub(super) struct Database {
    connector: Connector,
    connection: Option<Connection>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connection")
    }
}

impl Database {
    pub(super) fn new(connector: Connector) -> Self {
        Self {
            connector,
            connection: None,
        }
    }

    /// The same database, by a connection of its own.
    pub(super) fn another(&self) -> Self {
        Self::new(self.connector.clone())
    }

    async fn connection(&mut self) -> Result<&mut Connection, Failed> {
        let is_open = |connection: &Connection| !connection.client.is_closed();
        let connection = match self.connection.take().filter(is_open) {
            Some(connection) => connection,
            None => {
                let connection = self.connector.connect().await.map_err(told)?;
                is_durable(&connection).await?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Makes the tables where they are not there, for the log of this name.
    pub(super) async fn begin(&mut self, origin: &str) -> Result<(), Failed> {
        let connection = self.connection().await?;
        let make = connection.client.transaction().await.map_err(told)?;
        make.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKING])
            .await
            .map_err(told)?;
        make.batch_execute(TABLES)
            .await
            .map_err(told)
            .context("making the tables")?;
        make.execute(
            "INSERT INTO chaperone_ledger_lease (format, origin) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[&FORMAT, &origin],
        )
        .await
        .map_err(told)?;
        let row = make
            .query_one("SELECT format, origin FROM chaperone_ledger_lease", &[])
            .await
            .map_err(told)?;
        let (format, found): (i32, String) = (get(&row, 0)?, get(&row, 1)?);
        if format != FORMAT || found != origin {
            bail!(
                "the database has format {format} of the log {found:?}, not format {FORMAT} of {origin:?}: another log needs a database or a schema of its own"
            );
        }
        make.commit().await.map_err(told)
    }
}
/// A server that does not sync would lose what it says that it has.
async fn is_durable(connection: &Connection) -> Result<(), Failed> {
    let client = &connection.client;
    let row = client.query_one(
        "SELECT current_setting('fsync'), current_setting('synchronous_commit')",
        &[],
    );
    let row = row.await.map_err(told)?;
    if get::<String>(&row, 0)? == "off" {
        bail!("the database has fsync = off and may lose what it has acknowledged; turn it on");
    }
    if get::<String>(&row, 1)? == "off" {
        let on = client.batch_execute("SET synchronous_commit = on");
        on.await.map_err(told)?;
    }
    Ok(())
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Failed> {
    row.try_get(at).map_err(told)
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The library's errors name their kind alone; the cause says what happened.
fn told(error: Error) -> Failed {
    match std::error::Error::source(&error) {
        Some(cause) => anyhow::anyhow!("the database: {error}: {cause}"),
        None => anyhow::anyhow!("the database: {error}"),
    }
}
