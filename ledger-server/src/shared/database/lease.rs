//! Who leads, and who follows.

use super::{Database, get, number, told};
use crate::shared::Failed;

/// How long a lease is good without being renewed, in seconds.
const LEASE_SECONDS: i32 = 10;
/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::shared) struct Leader {
    /// Counts the leaders that there were.
    pub(in crate::shared) epoch: u64,
    /// Name of its pod.
    pub(in crate::shared) holder: String,
    /// Address of its API.
    pub(in crate::shared) address: String,
    /// Whether its lease is good.
    pub(in crate::shared) is_there: bool,
}

impl Database {
    /// Who leads.
    pub(in crate::shared) async fn leader(&mut self) -> Result<Leader, Failed> {
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
    pub(in crate::shared) async fn acquire(
        &mut self,
        holder: &str,
        address: &str,
    ) -> Result<Option<u64>, Failed> {
        let take = "UPDATE chaperone_ledger_lease SET epoch = epoch + 1, holder = $1, address = $2, until = clock_timestamp() + make_interval(secs => $3) \
                    WHERE until <= now() OR (holder = $1 AND address = $2) RETURNING epoch";
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
    pub(in crate::shared) async fn renew(&mut self, epoch: u64) -> Result<bool, Failed> {
        let renew = "UPDATE chaperone_ledger_lease SET until = clock_timestamp() + make_interval(secs => $2) WHERE epoch = $1";
        let seconds = f64::from(LEASE_SECONDS);
        let client = &self.connection().await?.client;
        let renewed = client.execute(renew, &[&number(epoch), &seconds]).await;
        renewed.map(|rows| rows == 1).map_err(told)
    }

    /// Lets go of the lease, so that another replica need not wait.
    pub(in crate::shared) async fn release(&mut self, epoch: u64) -> Result<(), Failed> {
        let release = "UPDATE chaperone_ledger_lease SET until = '-infinity' WHERE epoch = $1";
        let client = &self.connection().await?.client;
        client
            .execute(release, &[&number(epoch)])
            .await
            .map(drop)
            .map_err(told)
    }

    /// Says that the replica of this address is there.
    pub(in crate::shared) async fn seen(&mut self, address: &str) -> Result<(), Failed> {
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
    pub(in crate::shared) async fn replicas(&mut self) -> Result<Vec<String>, Failed> {
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
}
