//! The standing answer to "whose evidence is missing?": pods are watched and put on record, what the records come to is shown as metrics and Events.
//!
//! Owns who is told. The judgement is `chaperone_ledger::gaps`, over records alone. Refuses to say that all is well while it does not see pods: an answer says since when it does. Invariant: what is known of a pod is on
//! disk, so that neither a restart nor the pod's end makes it forgotten.

mod sighting;
mod tell;
mod watch;
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chaperone_ledger::gaps::{Answer, Roster, Scope};
use chaperone_server::audited::ServiceAccount;
use jiff::Timestamp;
use kube::Client;

use crate::{metrics::Metrics, writer::WriterHandle};

/// Answers. Clones answer the same.
#[derive(Clone, Debug, Default)]
pub struct Gaps {
    roster: Arc<Mutex<Roster>>,
    /// Since when pods are seen without interruption.
    watching_since: Arc<Mutex<Option<Timestamp>>>,
}

/// Whose pods are looked at.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The ledger's own namespace.
    pub own: String,
    /// Service accounts whose pods have no sidecar on purpose.
    pub exempt: Vec<ServiceAccount>,
    /// Name of the ledger's pod, for Events.
    pub pod_name: String,
}

impl Gaps {
    /// What the writer teaches.
    #[must_use]
    pub fn roster(&self) -> Arc<Mutex<Roster>> {
        Arc::clone(&self.roster)
    }

    /// What is wrong now.
    #[must_use]
    pub fn answer(&self, scope: &Scope<'_>) -> Answer {
        let watching_since = *self.watching();
        self.known().answer(scope, watching_since, Timestamp::now())
    }

    /// Starts the watch, if pods are to be watched, and who tells of what is missing. Both run for ever.
    pub fn start(
        &self,
        client: Client,
        watched: Option<Watched>,
        writer: WriterHandle,
        metrics: Metrics,
    ) {
        let events = watched
            .as_ref()
            .map(|watched| tell::recorder(client.clone(), watched));
        tokio::spawn(tell::run(events, self.clone(), metrics));
        if let Some(watched) = watched {
            tokio::spawn(watch::run(client, watched, self.clone(), writer));
        }
    }

    fn known(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watching(&self) -> MutexGuard<'_, Option<Timestamp>> {
        let watching = self.watching_since.lock();
        watching.unwrap_or_else(PoisonError::into_inner)
    }
}
