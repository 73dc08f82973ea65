//! The tables, and all that is asked of them.
//!
//! Owns the statements. Each change of a file takes the lease's row first, of this leader's epoch: so changes come one after another, their numbers are in the order of their commits, and none is made for a leader of whom another has taken over.

use anyhow::{Context, bail};
use tokio_postgres::{Error, Row, Transaction, types::ToSql};

use super::{
    Failed,
    plan::{Entry, Object},
};
use crate::postgres::{Connection, Connector};

/// What these tables are.
const FORMAT: i32 = 1;
/// How long a lease is good without being renewed, in seconds.
pub(super) const LEASE_SECONDS: i32 = 10;
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

const APPEND: &str = "
WITH leads AS MATERIALIZED (SELECT FROM chaperone_ledger_lease WHERE epoch = $1 FOR NO KEY UPDATE)
INSERT INTO chaperone_ledger_bytes (file, at, bytes) SELECT $2, $3, $4 FROM leads
ON CONFLICT (file, at) DO UPDATE SET bytes = excluded.bytes, change = nextval('chaperone_ledger_change')";

/// Another replica has taken over: nothing of this one counts any more.
#[derive(Debug, thiserror::Error)]
#[error("another replica leads the ledger now")]
pub(super) struct Superseded;

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Leader {
    /// Counts the leaders that there were.
    pub(super) epoch: u64,
    /// Name of its pod.
    pub(super) holder: String,
    /// Address of its API.
    pub(super) address: String,
    /// Whether its lease is good.
    pub(super) is_there: bool,
}

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

    /// Who leads.
    pub(super) async fn leader(&mut self) -> Result<Leader, Failed> {
        let asked = "SELECT epoch, holder, address, until > now() FROM chaperone_ledger_lease";
        let client = &self.connection().await?.client;
        let row = client.query_one(asked, &[]).await.map_err(told)?;
        Ok(Leader {
            epoch: get::<i64>(&row, 0)?.unsigned_abs(),
            holder: get(&row, 1)?,
            address: get(&row, 2)?,
            is_there: get(&row, 3)?,
        })
    }

    /// Takes the lease, if nobody has it, or a process of the same pod that came before. The epoch that began.
    pub(super) async fn acquire(
        &mut self,
        holder: &str,
        address: &str,
    ) -> Result<Option<u64>, Failed> {
        let take = "UPDATE chaperone_ledger_lease SET epoch = epoch + 1, holder = $1, address = $2, until = clock_timestamp() + make_interval(secs => $3) \
                    WHERE until <= now() OR holder = $1 RETURNING epoch";
        let seconds = f64::from(LEASE_SECONDS);
        let client = &self.connection().await?.client;
        let row = client
            .query_opt(take, &[&holder, &address, &seconds])
            .await
            .map_err(told)?;
        row.map(|row| get::<i64>(&row, 0).map(i64::unsigned_abs))
            .transpose()
    }

    /// Has the lease last. False once another replica leads.
    pub(super) async fn renew(&mut self, epoch: u64) -> Result<bool, Failed> {
        let renew = "UPDATE chaperone_ledger_lease SET until = clock_timestamp() + make_interval(secs => $2) WHERE epoch = $1";
        let seconds = f64::from(LEASE_SECONDS);
        let client = &self.connection().await?.client;
        let renewed = client.execute(renew, &[&number(epoch), &seconds]).await;
        renewed.map(|rows| rows == 1).map_err(told)
    }

    /// Lets go of the lease, so that another replica need not wait.
    pub(super) async fn release(&mut self, epoch: u64) -> Result<(), Failed> {
        let release = "UPDATE chaperone_ledger_lease SET until = '-infinity' WHERE epoch = $1";
        let client = &self.connection().await?.client;
        client
            .execute(release, &[&number(epoch)])
            .await
            .map(drop)
            .map_err(told)
    }

    /// Says that the replica of this address is there.
    pub(super) async fn seen(&mut self, address: &str) -> Result<(), Failed> {
        let client = &self.connection().await?.client;
        client
            .execute(
                "INSERT INTO chaperone_ledger_replica (address, seen) VALUES ($1, now()) ON CONFLICT (address) DO UPDATE SET seen = now()",
                &[&address],
            )
            .await
            .map(drop)
            .map_err(told)
    }

    /// Addresses of the replicas that were there a moment ago. Others are forgotten.
    pub(super) async fn replicas(&mut self) -> Result<Vec<String>, Failed> {
        let client = &self.connection().await?.client;
        client
            .execute(
                "DELETE FROM chaperone_ledger_replica WHERE seen < now() - interval '1 minute'",
                &[],
            )
            .await
            .map_err(told)?;
        let rows = client.query("SELECT address FROM chaperone_ledger_replica", &[]);
        let rows = rows.await.map_err(told)?;
        rows.iter().map(|row| get(row, 0)).collect()
    }

    /// Adds bytes to a file, as the leader of this epoch.
    pub(super) async fn append(
        &mut self,
        epoch: u64,
        file: &str,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), Failed> {
        let client = &self.connection().await?.client;
        let insert = client.prepare(APPEND).await.map_err(told)?;
        let with: [&(dyn ToSql + Sync); 4] = [&number(epoch), &file, &number(at), &bytes];
        match client.execute(&insert, &with).await.map_err(told)? {
            0 => Err(Superseded.into()),
            _ => Ok(()),
        }
    }

    /// Puts a file in the place of another, as the leader of this epoch: bytes, or an object that is in the bucket. What has no bytes and no object is not there.
    pub(super) async fn replace(
        &mut self,
        epoch: u64,
        file: &str,
        bytes: &[u8],
        object: Option<&Object>,
    ) -> Result<(), Failed> {
        let change = self.change(epoch).await?;
        leave(&change, file).await?;
        one(
            &change,
            "DELETE FROM chaperone_ledger_bytes WHERE file = $1",
            &[&file],
        )
        .await?;
        let version: i64 = {
            let row = change.query_one("SELECT nextval('chaperone_ledger_change')", &[]);
            get(&row.await.map_err(told)?, 0)?
        };
        point(&change, file, version, version, object).await?;
        if object.is_none() && !bytes.is_empty() {
            one(
                &change,
                "INSERT INTO chaperone_ledger_bytes (file, at, bytes) VALUES ($1, 0, $2)",
                &[&file, &bytes],
            )
            .await?;
        }
        change.commit().await.map_err(told)
    }

    /// Says that a file's bytes are in the bucket, if it still has this version; they go from the tables then. Whether that is so.
    pub(super) async fn archive(
        &mut self,
        epoch: u64,
        file: &str,
        version: u64,
        object: &Object,
    ) -> Result<bool, Failed> {
        let change = self.change(epoch).await?;
        let known = "SELECT version FROM chaperone_ledger_file WHERE file = $1";
        let row = change.query_opt(known, &[&file]).await.map_err(told)?;
        let now: i64 = row.map(|row| get(&row, 0)).transpose()?.unwrap_or_default();
        if now != number(version) {
            return Ok(false);
        }
        one(
            &change,
            "DELETE FROM chaperone_ledger_bytes WHERE file = $1",
            &[&file],
        )
        .await?;
        let row = change.query_one("SELECT nextval('chaperone_ledger_change')", &[]);
        let number: i64 = get(&row.await.map_err(told)?, 0)?;
        point(&change, file, now, number, Some(object)).await?;
        change.commit().await.map_err(told)?;
        Ok(true)
    }

    async fn change(&mut self, epoch: u64) -> Result<Transaction<'_>, Failed> {
        let connection = self.connection().await?;
        let change = connection.client.transaction().await.map_err(told)?;
        let lead = "SELECT FROM chaperone_ledger_lease WHERE epoch = $1 FOR NO KEY UPDATE";
        let leads = change.query_opt(lead, &[&number(epoch)]).await;
        match leads.map_err(told)? {
            Some(_) => Ok(change),
            None => Err(Superseded.into()),
        }
    }

    /// Closed segments whose bytes are in the tables: all of `records/` before the newest. With their versions.
    pub(super) async fn unarchived(&mut self) -> Result<Vec<(String, u64)>, Failed> {
        let asked = "SELECT b.file, coalesce(max(f.version), 0) FROM chaperone_ledger_bytes b LEFT JOIN chaperone_ledger_file f USING (file) \
                     WHERE b.file LIKE 'records/%' AND b.file < (SELECT max(file) FROM chaperone_ledger_bytes WHERE file LIKE 'records/%') GROUP BY b.file ORDER BY b.file";
        let client = &self.connection().await?.client;
        let rows = client.query(asked, &[]).await.map_err(told)?;
        rows.iter()
            .map(|row| Ok((get(row, 0)?, get::<i64>(row, 1)?.unsigned_abs())))
            .collect()
    }

    /// A file's bytes in the tables.
    pub(super) async fn bytes(&mut self, file: &str) -> Result<Vec<u8>, Failed> {
        let asked = "SELECT at, bytes FROM chaperone_ledger_bytes WHERE file = $1 ORDER BY at";
        let client = &self.connection().await?.client;
        let mut all = Vec::new();
        for row in client.query(asked, &[&file]).await.map_err(told)? {
            let (at, bytes): (i64, &[u8]) = (get(&row, 0)?, get(&row, 1)?);
            if u64::try_from(all.len()).ok() != Some(at.unsigned_abs()) {
                bail!("{file} has a hole before byte {at}");
            }
            all.extend_from_slice(bytes);
        }
        Ok(all)
    }

    /// Notes that an object may be in the bucket that nothing points to.
    pub(super) async fn leave(&mut self, object: &str) -> Result<(), Failed> {
        let client = &self.connection().await?.client;
        let note = "INSERT INTO chaperone_ledger_left (object, since) VALUES ($1, now()) ON CONFLICT DO NOTHING";
        let noted = client.execute(note, &[&object]).await;
        noted.map(drop).map_err(told)
    }

    /// Objects that nothing points to, and that nobody can be putting any more: a request is given up after less than that.
    pub(super) async fn left(&mut self) -> Result<Vec<String>, Failed> {
        let client = &self.connection().await?.client;
        let rows = client.query(
            "SELECT object FROM chaperone_ledger_left WHERE since < now() - interval '10 minutes'",
            &[],
        );
        let rows = rows.await.map_err(told)?;
        rows.iter().map(|row| get(row, 0)).collect()
    }

    /// Notes that such an object is gone.
    pub(super) async fn gone(&mut self, object: &str) -> Result<(), Failed> {
        let client = &self.connection().await?.client;
        let gone = "DELETE FROM chaperone_ledger_left WHERE object = $1";
        let gone = client.execute(gone, &[&object]).await;
        gone.map(drop).map_err(told)
    }

    /// Looks at all of it as it is at this moment.
    pub(super) async fn look(&mut self) -> Result<Look<'_>, Failed> {
        let connection = self.connection().await?;
        let look = connection.client.build_transaction();
        let look = look
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true);
        let look = look.start().await.map_err(told)?;
        // A copy that begins reads all of it.
        look.batch_execute("SET LOCAL statement_timeout = 0")
            .await
            .map_err(told)?;
        Ok(Look(look))
    }

    /// Has the database forget what was deleted from its table, as far as it can.
    pub(super) async fn vacuum(&mut self) -> Result<(), Failed> {
        let client = &self.connection().await?.client;
        client
            .batch_execute("VACUUM chaperone_ledger_bytes")
            .await
            .map_err(told)
    }
}

/// The tables as they were at one moment.
pub(super) struct Look<'a>(Transaction<'a>);

impl Look<'_> {
    /// Number of the last change.
    pub(super) async fn newest(&self) -> Result<u64, Failed> {
        let asked = "SELECT greatest((SELECT max(change) FROM chaperone_ledger_file), (SELECT max(change) FROM chaperone_ledger_bytes), 0)";
        let row = self.0.query_one(asked, &[]).await.map_err(told)?;
        Ok(get::<i64>(&row, 0)?.unsigned_abs())
    }

    /// Files that were put anew, or moved to the bucket, after this change.
    pub(super) async fn entries(&self, last: u64) -> Result<Vec<Entry>, Failed> {
        let asked = "SELECT file, version, object, length, stored, sha256 FROM chaperone_ledger_file WHERE change > $1 ORDER BY file";
        let rows = self.0.query(asked, &[&number(last)]).await.map_err(told)?;
        rows.iter().map(entry).collect()
    }

    /// Bytes that came after this change, in their order.
    pub(super) async fn parts(
        &self,
        last: u64,
        mut each: impl FnMut(Part<'_>) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let asked =
            "SELECT file, at, bytes FROM chaperone_ledger_bytes WHERE change > $1 ORDER BY change";
        let rows = self.0.query_raw(asked, [&number(last)]).await;
        let mut rows = std::pin::pin!(rows.map_err(told)?);
        while let Some(row) = futures::StreamExt::next(&mut rows).await {
            let row = row.map_err(told)?;
            each(Part {
                file: get(&row, 0)?,
                at: get::<i64>(&row, 1)?.unsigned_abs(),
                bytes: get(&row, 2)?,
            })?;
        }
        Ok(())
    }
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub(super) file: &'a str,
    pub(super) at: u64,
    pub(super) bytes: &'a [u8],
}

/// The object that a file had is needed no more, and one that it gets is not left.
async fn leave(change: &Transaction<'_>, file: &str) -> Result<(), Failed> {
    one(
        change,
        "INSERT INTO chaperone_ledger_left (object, since) SELECT object, '-infinity' FROM chaperone_ledger_file WHERE file = $1 AND object IS NOT NULL ON CONFLICT DO NOTHING",
        &[&file],
    )
    .await
}

async fn point(
    change: &Transaction<'_>,
    file: &str,
    version: i64,
    number: i64,
    object: Option<&Object>,
) -> Result<(), Failed> {
    let name = object.map(|object| object.name.as_str());
    let length = object.map(|object| self::number(object.length));
    let stored = object.map(|object| self::number(object.stored));
    let sha256 = object.map(|object| object.sha256.as_slice());
    one(
        change,
        "INSERT INTO chaperone_ledger_file (file, version, change, object, length, stored, sha256) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (file) DO UPDATE SET version = excluded.version, change = excluded.change, object = excluded.object, length = excluded.length, stored = excluded.stored, sha256 = excluded.sha256",
        &[&file, &version, &number, &name, &length, &stored, &sha256],
    )
    .await?;
    one(
        change,
        "DELETE FROM chaperone_ledger_left WHERE object = $1",
        &[&name],
    )
    .await
}

async fn one(
    change: &Transaction<'_>,
    statement: &str,
    with: &[&(dyn ToSql + Sync)],
) -> Result<(), Failed> {
    let done = change.execute(statement, with).await;
    done.map(drop).map_err(told)
}

fn entry(row: &Row) -> Result<Entry, Failed> {
    let object = match get::<Option<String>>(row, 2)? {
        None => None,
        Some(name) => {
            let sha256: Vec<u8> = get(row, 5)?;
            Some(Object {
                name,
                length: get::<i64>(row, 3)?.unsigned_abs(),
                stored: get::<i64>(row, 4)?.unsigned_abs(),
                sha256: sha256.try_into().ok().context("a digest has 32 bytes")?,
            })
        }
    };
    Ok(Entry {
        file: get(row, 0)?,
        version: get::<i64>(row, 1)?.unsigned_abs(),
        object,
    })
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
