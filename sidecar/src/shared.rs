//! What all connections share: the policies in force, the keys, the names, and where records go.
//!
//! Invariant: policies are swapped whole. A connection asks for them anew for each operation, so a swap drops nothing and holds from the next operation on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use chaperone_crds::{
    compile::CompiledSnapshot,
    control::PodConfig,
    grpc::Descriptors,
    record::{AgentRef, Event, EventKind},
    resources::Mode,
};
use tokio::sync::watch;

pub use crate::link::Silent;
use crate::{
    audit::Recorder,
    authority::Authority,
    cluster::Cluster,
    dns::Names,
    egress::Egress,
    gap::Reason,
    metrics::Metrics,
    tls::{Asking, Settings},
};

/// How long a client that cannot be read is believed to stay so.
const PINNED_FOR: Duration = Duration::from_secs(600);
/// Most pinned destinations that are remembered; more are forgotten, oldest first.
const MAX_PINNED: usize = 256;

/// The policies in force and what was made from them.
pub struct Active {
    /// The configuration as the operator sent it.
    pub config: PodConfig,
    /// Its policies, compiled.
    pub snapshot: CompiledSnapshot,
    /// What messages of gRPC services are made of.
    pub descriptors: Descriptors,
    /// The pod, as records cite it.
    pub agent: AgentRef,
    /// TLS towards upstreams.
    pub(crate) upstream_tls: Settings,
    /// Upstreams that asked for a client certificate.
    pub(crate) asking: Asking,
}

impl Active {
    /// Audit or Enforce.
    pub fn mode(&self) -> Mode {
        self.snapshot.mode()
    }

    /// An empty event about this pod.
    pub fn event(&self, kind: EventKind) -> Box<Event> {
        Box::new(Event::new(kind, self.agent.clone()))
    }
}

/// What all connections share.
pub struct Shared {
    /// Policies in force; none yet means no traffic.
    pub active: ArcSwapOption<Active>,
    /// Mints leaves.
    pub authority: ArcSwap<Authority>,
    /// Names that addresses were given for.
    pub names: Arc<Names>,
    /// Takes events.
    pub recorder: Recorder,
    /// The way out.
    pub egress: Arc<Egress>,
    /// Counters.
    pub metrics: Metrics,
    /// Where places of the cluster are that have names of their own.
    pub cluster: Cluster,
    /// True once the sidecar stops: idle connections end.
    pub stopping: watch::Receiver<bool>,
    /// Destinations whose clients cannot be read.
    pub pinned: Pinned,
    /// Addresses that lately did not answer.
    pub silent: Silent,
}

/// Destinations whose clients can only talk to them unread, and why: they rejected our certificate, or hold one of their own.
#[derive(Default)]
pub struct Pinned(Mutex<HashMap<String, (Reason, Instant)>>);

impl Pinned {
    /// Remembers a destination.
    pub fn remember(&self, destination: &str, reason: Reason) {
        let mut pinned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pinned.len() >= MAX_PINNED
            && let Some(oldest) = pinned
                .iter()
                .min_by_key(|(_, (_, since))| *since)
                .map(|(name, _)| name.clone())
        {
            pinned.remove(&oldest);
        }
        pinned.insert(destination.to_owned(), (reason, Instant::now()));
    }

    /// Why clients of this destination lately needed it unread, if so.
    pub fn reason(&self, destination: &str) -> Option<Reason> {
        let pinned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (reason, since) = pinned.get(destination)?;
        (since.elapsed() < PINNED_FOR).then_some(*reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_destinations_are_bounded() {
        let pinned = Pinned::default();
        for number in 0..MAX_PINNED + 10 {
            pinned.remember(&format!("host-{number}"), Reason::Pinned);
        }
        assert_eq!(pinned.reason("host-0"), None);
        let last = pinned.reason(&format!("host-{}", MAX_PINNED + 9));
        assert_eq!(last, Some(Reason::Pinned));
        assert!(pinned.0.lock().unwrap().len() <= MAX_PINNED);
    }
}
