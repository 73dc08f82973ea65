//! The files: what is added to them, put in their place, moved to the bucket; and what has changed since.

use anyhow::{Context, bail};
use tokio_postgres::{Row, Transaction, types::ToSql};

use super::{Database, Superseded, get, number, told};
use crate::shared::{
    Failed,
    plan::{Entry, Object},
};

const APPEND: &str = "
WITH leads AS MATERIALIZED (SELECT FROM chaperone_ledger_lease WHERE epoch = $1 FOR NO KEY UPDATE)
INSERT INTO chaperone_ledger_bytes (file, at, bytes) SELECT $2, $3, $4 FROM leads
ON CONFLICT (file, at) DO UPDATE SET bytes = excluded.bytes, change = nextval('chaperone_ledger_change')";

impl Database {
    /// Adds bytes to a file, as the leader of this epoch.
    pub(in crate::shared) async fn append(
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
    pub(in crate::shared) async fn replace(
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
    pub(in crate::shared) async fn archive(
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
    pub(in crate::shared) async fn unarchived(&mut self) -> Result<Vec<(String, u64)>, Failed> {
        let asked = "SELECT b.file, coalesce(max(f.version), 0) FROM chaperone_ledger_bytes b LEFT JOIN chaperone_ledger_file f USING (file) \
                     WHERE b.file LIKE 'records/%' AND b.file < (SELECT max(file) FROM chaperone_ledger_bytes WHERE file LIKE 'records/%') GROUP BY b.file ORDER BY b.file";
        let client = &self.connection().await?.client;
        let rows = client.query(asked, &[]).await.map_err(told)?;
        rows.iter()
            .map(|row| Ok((get(row, 0)?, get::<i64>(row, 1)?.unsigned_abs())))
            .collect()
    }

    /// A file's bytes in the tables.
    pub(in crate::shared) async fn bytes(&mut self, file: &str) -> Result<Vec<u8>, Failed> {
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
    pub(in crate::shared) async fn leave(&mut self, object: &str) -> Result<(), Failed> {
        let client = &self.connection().await?.client;
        let note = "INSERT INTO chaperone_ledger_left (object, since) VALUES ($1, now()) ON CONFLICT DO NOTHING";
        let noted = client.execute(note, &[&object]).await;
        noted.map(drop).map_err(told)
    }

    /// Objects that nothing points to, and that nobody can be putting any more: a request is given up after less than that.
    pub(in crate::shared) async fn left(&mut self) -> Result<Vec<String>, Failed> {
        let client = &self.connection().await?.client;
        let rows = client.query(
            "SELECT object FROM chaperone_ledger_left WHERE since < now() - interval '10 minutes'",
            &[],
        );
        let rows = rows.await.map_err(told)?;
        rows.iter().map(|row| get(row, 0)).collect()
    }

    /// Notes that such an object is gone.
    pub(in crate::shared) async fn gone(&mut self, object: &str) -> Result<(), Failed> {
        let client = &self.connection().await?.client;
        let gone = "DELETE FROM chaperone_ledger_left WHERE object = $1";
        let gone = client.execute(gone, &[&object]).await;
        gone.map(drop).map_err(told)
    }

    /// Looks at all of it as it is at this moment.
    pub(in crate::shared) async fn look(&mut self) -> Result<Look<'_>, Failed> {
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
    pub(in crate::shared) async fn vacuum(&mut self) -> Result<(), Failed> {
        let client = &self.connection().await?.client;
        client
            .batch_execute("VACUUM chaperone_ledger_bytes")
            .await
            .map_err(told)
    }
}

/// The tables as they were at one moment.
pub(in crate::shared) struct Look<'a>(Transaction<'a>);

impl Look<'_> {
    /// Number of the last change.
    pub(in crate::shared) async fn newest(&self) -> Result<u64, Failed> {
        let asked = "SELECT greatest((SELECT max(change) FROM chaperone_ledger_file), (SELECT max(change) FROM chaperone_ledger_bytes), 0)";
        let row = self.0.query_one(asked, &[]).await.map_err(told)?;
        Ok(get::<i64>(&row, 0)?.unsigned_abs())
    }

    /// Files that were put anew, or moved to the bucket, after this change.
    pub(in crate::shared) async fn entries(&self, last: u64) -> Result<Vec<Entry>, Failed> {
        let asked = "SELECT file, version, object, length, stored, sha256 FROM chaperone_ledger_file WHERE change > $1 ORDER BY file";
        let rows = self.0.query(asked, &[&number(last)]).await.map_err(told)?;
        rows.iter().map(entry).collect()
    }

    /// Bytes that came after this change, in their order.
    pub(in crate::shared) async fn parts(
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
pub(in crate::shared) struct Part<'a> {
    pub(in crate::shared) file: &'a str,
    pub(in crate::shared) at: u64,
    pub(in crate::shared) bytes: &'a [u8],
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
