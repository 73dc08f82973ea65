//! Moves closed segments from the tables to the bucket, and removes objects that nothing points to.
//!
//! Invariants: a segment goes from the tables in the transaction in which its object is pointed to, which is in the bucket by then; every object that may be there is noted before it is put, so that none is forgotten by a stop.

use std::{sync::Arc, time::Duration};

use super::{Failed, database::Database, objects::Objects};
use crate::metrics::Metrics;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(5);

/// Does so for as long as this epoch lasts.
pub(super) async fn run(
    mut database: Database,
    objects: Arc<Objects>,
    epoch: u64,
    metrics: Metrics,
) {
    loop {
        if let Err(error) = look(&mut database, &objects, epoch, &metrics).await {
            metrics.shared_error("archive");
            let error = format!("{error:#}");
            tracing::warn!(error, "closed segments wait in the database");
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn look(
    database: &mut Database,
    objects: &Objects,
    epoch: u64,
    metrics: &Metrics,
) -> Result<(), Failed> {
    let waiting = database.unarchived().await?;
    let mut left = i64::try_from(waiting.len()).unwrap_or(i64::MAX);
    metrics.segments_waiting.set(left);
    for (file, version) in waiting {
        let bytes = database.bytes(&file).await?;
        let object = objects.keep(database, &file, bytes).await?;
        let length = object.length;
        if database.archive(epoch, &file, version, &object).await? {
            tracing::debug!(file, length, "a segment is in the bucket");
        }
        left = left.saturating_sub(1);
        metrics.segments_waiting.set(left);
    }
    for name in database.left().await? {
        objects.remove(&name).await?;
        database.gone(&name).await?;
    }
    Ok(())
}
