//! What the API server holds, kept at hand by watches.
//!
//! Owns the watches. Refuses to let one object that cannot be read stall the others. Invariant: after [`Stores::synced`], every store has
//! listed at least once.

use std::{fmt::Debug, sync::Arc, time::Duration};

use chaperone_crds::{
    pod::{DESCRIPTORS_LABEL, INJECTED_LABEL},
    resources::{AgentPolicy, AuditSink, ClusterAgentPolicy},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use kube::{
    Api, Client, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        utils::Backoff,
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::metrics::Metrics;

/// First and longest pause of a watch that failed. The usual backoff grows to half a minute, and an edit must not wait that long after
/// the API server is back; two replicas with some eight watches each are no burden.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(4));

/// All stores. Clones share them.
#[derive(Clone)]
pub struct Stores {
    /// `AgentPolicy` of all namespaces.
    pub policies: Store<DeserializeGuard<AgentPolicy>>,
    /// `ClusterAgentPolicy`.
    pub cluster_policies: Store<DeserializeGuard<ClusterAgentPolicy>>,
    /// `AuditSink`.
    pub sinks: Store<DeserializeGuard<AuditSink>>,
    /// Namespaces.
    pub namespaces: Store<Namespace>,
    /// Pods with the label of injected pods.
    pub pods: Store<Pod>,
    /// Secrets of the operator's own namespace.
    pub secrets: Store<Secret>,
    /// ConfigMaps of the operator's own namespace with descriptor sets.
    pub descriptors: Store<ConfigMap>,
    /// Told at each change of anything.
    pub changed: Arc<Notify>,
    /// Told at each change of a Secret.
    pub secrets_changed: Arc<Notify>,
}

impl Stores {
    /// Starts all watches.
    #[must_use]
    pub fn start(client: &Client, namespace: &str, metrics: &Metrics) -> Self {
        let changed = Arc::new(Notify::new());
        let secrets_changed = Arc::new(Notify::new());
        let everything = Watch {
            metrics: metrics.clone(),
            changed: vec![Arc::clone(&changed)],
        };
        let secrets = Watch {
            metrics: metrics.clone(),
            changed: vec![Arc::clone(&changed), Arc::clone(&secrets_changed)],
        };
        let all = watcher::Config::default;
        let described = all().labels(&format!("{DESCRIPTORS_LABEL}=true"));
        let injected = all().labels(&format!("{INJECTED_LABEL}=true"));
        Self {
            policies: everything.start(Api::all(client.clone()), all(), "watch_policies"),
            cluster_policies: everything.start(
                Api::all(client.clone()),
                all(),
                "watch_cluster_policies",
            ),
            sinks: everything.start(Api::all(client.clone()), all(), "watch_sinks"),
            namespaces: everything.start(Api::all(client.clone()), all(), "watch_namespaces"),
            pods: everything.start(Api::all(client.clone()), injected, "watch_pods"),
            secrets: secrets.start(
                Api::namespaced(client.clone(), namespace),
                all(),
                "watch_secrets",
            ),
            descriptors: everything.start(
                Api::namespaced(client.clone(), namespace),
                described,
                "watch_descriptors",
            ),
            changed,
            secrets_changed,
        }
    }

    /// Resolves once every store has listed. False if a watch ended, which it never does while the process runs.
    pub async fn synced(&self) -> bool {
        self.policies.wait_until_ready().await.is_ok()
            && self.cluster_policies.wait_until_ready().await.is_ok()
            && self.sinks.wait_until_ready().await.is_ok()
            && self.namespaces.wait_until_ready().await.is_ok()
            && self.pods.wait_until_ready().await.is_ok()
            && self.secrets.wait_until_ready().await.is_ok()
            && self.descriptors.wait_until_ready().await.is_ok()
    }

    /// A Secret of the operator's own namespace.
    #[must_use]
    pub fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets
            .get(&reflector::ObjectRef::new(name).within(namespace))
    }

    /// An injected pod.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods
            .get(&reflector::ObjectRef::new(name).within(namespace))
    }

    /// A namespace.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.get(&reflector::ObjectRef::new(name))
    }
}

/// Pauses between the attempts of a watch: doubling up to a short one, from the start again once an attempt succeeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(PAUSES.0)
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = pause.saturating_mul(2).min(PAUSES.1);
        Some(pause)
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

struct Watch {
    metrics: Metrics,
    changed: Vec<Arc<Notify>>,
}

impl Watch {
    /// Watches one kind of object from a task of its own, with backoff on errors.
    fn start<K>(&self, api: Api<K>, config: watcher::Config, stage: &'static str) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (store, writer) = reflector::store();
        let (metrics, changed) = (self.metrics.clone(), self.changed.clone());
        let events = watcher(api, config)
            .backoff(Patience::default())
            .modify(|object: &mut K| object.meta_mut().managed_fields = None)
            .reflect(writer);
        tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(_) => changed.iter().for_each(|changed| changed.notify_one()),
                    Err(error) => {
                        metrics.failed(stage);
                        tracing::warn!(%error, stage, "watch failed, it is tried again");
                    }
                }
            }
        });
        store
    }
}

#[cfg(test)]
impl Stores {
    /// Stores that hold these pods and namespaces and nothing else, for ever.
    pub(crate) fn fixed(pods: Vec<Pod>, namespaces: Vec<Namespace>) -> Self {
        fn filled<K>(objects: Vec<K>) -> Store<K>
        where
            K: Resource<DynamicType = ()> + Clone + 'static,
        {
            let (store, mut writer) = reflector::store();
            writer.apply_watcher_event(&watcher::Event::Init);
            for object in objects {
                writer.apply_watcher_event(&watcher::Event::InitApply(object));
            }
            writer.apply_watcher_event(&watcher::Event::InitDone);
            store
        }
        Self {
            policies: filled(Vec::new()),
            cluster_policies: filled(Vec::new()),
            sinks: filled(Vec::new()),
            namespaces: filled(namespaces),
            pods: filled(pods),
            secrets: filled(Vec::new()),
            descriptors: filled(Vec::new()),
            changed: Arc::default(),
            secrets_changed: Arc::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again() {
        let mut patience = Patience::default();
        let pauses: Vec<_> = patience.by_ref().take(5).map(|p| p.as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 4000]);
        patience.reset();
        assert_eq!(patience.next(), Some(PAUSES.0));
    }
}
