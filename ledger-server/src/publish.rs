//! Checkpoints outside of the ledger's disk, on a timer: as records of the ledger's own, which go wherever records go, and in a ConfigMap.
//!
//! Owns when. Refuses to publish where nothing is new: a checkpoint on record is a record itself, and would otherwise be the reason for the next. Invariant: what is published was signed and is on disk, so the log goes on from it or
//! contradicts it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use chaperone_crds::record::CheckpointInfo;
use chaperone_ledger::{
    checkpoint::{self, Origin},
    key::VerifierKey,
    witness,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use crate::{metrics::Metrics, writer::WriterHandle};

/// Name under which our fields show in `managedFields`.
const MANAGER: &str = "chaperone-ledger";
/// How long after a start the first one is published at the latest.
const FIRST_AFTER: Duration = Duration::from_secs(15);
/// How long the API server may take; the next round tries again.
const SHOW_TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes one ledger's checkpoints.
pub struct Publisher {
    /// The ledger's directory.
    pub dir: PathBuf,
    /// Which log.
    pub origin: Origin,
    /// Its keys.
    pub keys: Vec<VerifierKey>,
    /// How often.
    pub every: Duration,
    /// Namespace and name of a ConfigMap that is there.
    pub config_map: Option<(String, String)>,
}

/// The places, and how far each is.
struct Places {
    recorded: u64,
    /// In the ConfigMap.
    shown: u64,
}

impl Publisher {
    /// Runs until the writer is gone. `others` is the number of the newest record that is no checkpoint, plus 1.
    pub async fn run(
        self,
        client: Client,
        others: watch::Receiver<u64>,
        writer: WriterHandle,
        metrics: Metrics,
    ) {
        let publisher = Arc::new(self);
        let first = Instant::now() + publisher.every.min(FIRST_AFTER);
        let mut rounds = interval_at(first, publisher.every);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut places = Places {
            recorded: 0,
            shown: 0,
        };
        while others.has_changed().is_ok() {
            rounds.tick().await;
            let newest = *others.borrow();
            if newest <= places.recorded.min(places.shown) {
                continue;
            }
            match publisher.newest().await {
                Ok(Some(info)) => {
                    publisher
                        .publish(&info, newest, &mut places, &client, &writer, &metrics)
                        .await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the newest checkpoint cannot be published"
                    );
                }
            }
        }
    }

    async fn publish(
        &self,
        info: &CheckpointInfo,
        newest: u64,
        places: &mut Places,
        client: &Client,
        writer: &WriterHandle,
        metrics: &Metrics,
    ) {
        if is_due(newest, places.recorded, info.size) {
            let recorded = writer.record_checkpoint(info.clone()).await;
            let recorded = recorded.map_err(|refusal| refusal.message);
            tell("record", &recorded, metrics);
            if recorded.is_ok() {
                places.recorded = info.size;
            }
        }
        match &self.config_map {
            None => places.shown = u64::MAX,
            Some((namespace, name)) if is_due(newest, places.shown, info.size) => {
                let shown = timeout(SHOW_TIMEOUT, show(client, namespace, name, info)).await;
                let shown = match shown {
                    Ok(shown) => shown.map_err(|error| error.to_string()),
                    Err(_) => Err("the API server gave no answer in time".to_owned()),
                };
                tell("configmap", &shown, metrics);
                if shown.is_ok() {
                    places.shown = info.size;
                }
            }
            Some(_) => {}
        }
    }

    /// The newest checkpoint on disk, with what witnesses have signed of it so far.
    async fn newest(&self) -> anyhow::Result<Option<CheckpointInfo>> {
        let dir = self.dir.clone();
        let note = tokio::task::spawn_blocking(move || witness::newest(&dir)).await??;
        let Some(note) = note else {
            return Ok(None);
        };
        let signed = checkpoint::open(&note, &self.origin, &self.keys)?.checkpoint;
        Ok(Some(CheckpointInfo {
            origin: signed.origin.to_string(),
            size: signed.size,
            root: signed.root.to_string(),
            note: String::from_utf8(note).context("a note is text")?,
        }))
    }
}

/// Whether a checkpoint of this size says more than the one of size `published` about records that are no checkpoints, of which the newest is at `newest`.
fn is_due(newest: u64, published: u64, size: u64) -> bool {
    newest > published && size > published
}

fn tell(place: &str, result: &Result<(), String>, metrics: &Metrics) {
    let word = match result {
        Ok(()) => "ok",
        Err(error) => {
            tracing::warn!(
                place,
                error,
                "a checkpoint could not be published; it is tried again"
            );
            "failed"
        }
    };
    metrics.publications.with_label_values(&[place, word]).inc();
}

/// Server-side apply: the fields are ours, and whoever else keeps something in the ConfigMap keeps it.
async fn show(
    client: &Client,
    namespace: &str,
    name: &str,
    info: &CheckpointInfo,
) -> kube::Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let applied = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"origin": info.origin, "size": info.size.to_string(), "checkpoint": info.note}
    });
    let params = PatchParams::apply(MANAGER).force();
    api.patch(name, &params, &Patch::Apply(applied)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_published_for_what_is_no_checkpoint_and_then_it_rests() {
        assert!(is_due(10, 0, 10), "the first one");
        // It is on record as leaf 10; the next checkpoint, of 11, has nothing else that is new.
        assert!(!is_due(10, 10, 11));
        assert!(is_due(12, 10, 12));
        // A record came after the newest checkpoint: it waits for the next.
        assert!(!is_due(13, 12, 12));
        assert!(is_due(13, 12, 13));
    }
}
