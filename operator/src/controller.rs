//! The policy controller: at each change, what the API server holds becomes one plan per pod.
//!
//! Owns the way from stores to plans, and what need not be compiled twice. Runs on every replica alike and writes nothing to the API server.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use chaperone_crds::{
    control::SinkConfig,
    pod::PodIdentity,
    resources::{AuditSink, Deliverer},
    snapshot::{PolicyKind, PolicyRef, Revision},
};
use chaperone_server::workload::identity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, core::DeserializeGuard};
use tokio::sync::watch;

use crate::{
    certificates::Root,
    check, compile,
    descriptors::Packed,
    health::{Fact, Health},
    index::{
        Index, LedgerWriters, PolicyEntry, World,
        certificates::{CertificateSecret, Certificates},
        index,
        sinks::{self, SinkOutcome},
        size,
    },
    injected::has_ledger_token,
    mask_secret::{MASK_SECRET, MaskSecret},
    plans::Plans,
    settings::Settings,
    stores::Stores,
};

/// How long a change waits for others that come with it: well below a blink, above the gaps within one `kubectl apply`.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// How often the file of further roots is read.
const ROOTS_INTERVAL: Duration = Duration::from_secs(30);
/// Largest file of further roots, in bytes: the whole Mozilla set has 250 KiB.
const MAX_ROOTS_BYTES: u64 = 512 * 1024;

/// What the leader reports from.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Plans and policies.
    pub index: Index,
    /// Sinks.
    pub sinks: Vec<SinkOutcome>,
}

/// The controller of one replica.
pub struct Controller {
    stores: Stores,
    settings: Arc<Settings>,
    plans: Plans,
    authority: Root,
    outcome: watch::Sender<Arc<Outcome>>,
    compiled: HashMap<PolicyRef, Compiled>,
    snapshots: HashMap<Revision, Result<(), String>>,
    extra_roots: Arc<str>,
    mask_secret: Option<MaskSecret>,
    descriptors: Packed,
    certificates: HashMap<String, ReadSecret>,
}

/// A Secret that was read as a client certificate, and which version of it that was. `None`: it is not labelled as one.
struct ReadSecret {
    version: Option<String>,
    read: Option<Arc<CertificateSecret>>,
}

/// A policy that was compiled, and which version of the resource that was.
struct Compiled {
    uid: Option<String>,
    generation: i64,
    entry: PolicyEntry,
}

impl Controller {
    /// A controller that publishes to `plans`, and what hears its outcomes.
    #[must_use]
    pub fn new(
        stores: Stores,
        settings: Arc<Settings>,
        plans: Plans,
        authority: Root,
    ) -> (Self, watch::Receiver<Arc<Outcome>>) {
        let (outcome, receiver) = watch::channel(Arc::default());
        let controller = Self {
            stores,
            settings,
            plans,
            authority,
            outcome,
            compiled: HashMap::new(),
            snapshots: HashMap::new(),
            extra_roots: Arc::from(""),
            mask_secret: None,
            descriptors: Packed::default(),
            certificates: HashMap::new(),
        };
        (controller, receiver)
    }

    /// Runs for ever. The stores must have listed: plans from half a world would weaken pods.
    pub async fn run(mut self, health: &Health) {
        let changed = Arc::clone(&self.stores.changed);
        let mut authority = self.authority.clone();
        // Without the root nobody could be sent to the ledger, and a sink that goes takes its cursor with it.
        if authority.wait_for(Option::is_some).await.is_err() {
            return;
        }
        authority.mark_unchanged();
        let mut roots = tokio::time::interval(ROOTS_INTERVAL);
        loop {
            // The first tick comes at once, so the roots are read before the first plan is made.
            tokio::select! {
                biased;
                _ = roots.tick() => self.read_roots().await,
                () = changed.notified() => tokio::time::sleep(DEBOUNCE).await,
                Ok(()) = authority.changed() => {}
            }
            self.reconcile();
            health.set(Fact::Synced, true);
        }
    }

    fn reconcile(&mut self) {
        let (sinks, sink_outcomes) = self.resolve_sinks();
        self.read_mask_secret();
        let policies = self.compile_policies();
        let pods = self.pods();
        let world = World {
            ledger: self.ledger_writers(&sinks, &pods),
            pods: pods.iter().map(|pod| identity(pod)).collect(),
            certificates: self.read_certificates(&policies),
            now: Timestamp::now(),
            policies,
            sinks: Arc::new(sinks),
            namespaces: self.audited_namespaces(),
            extra_roots: Arc::clone(&self.extra_roots),
            mask_secret: self.mask_secret.clone(),
            descriptors: self.descriptors.read(&self.stores.descriptors.state()),
        };
        let snapshots = &mut self.snapshots;
        let index = index(&world, |snapshot| {
            snapshots
                .entry(snapshot.revision())
                .or_insert_with(|| compile::snapshot(snapshot))
                .clone()
        });
        let used: Vec<_> = index
            .pods
            .values()
            .flatten()
            .map(|plan| &plan.revision)
            .collect();
        snapshots.retain(|revision, result| result.is_ok() && used.contains(&revision));
        self.plans.publish(&index);
        self.outcome.send_replace(Arc::new(Outcome {
            index,
            sinks: sink_outcomes,
        }));
    }

    /// All policies; each version of a resource is compiled once.
    fn compile_policies(&mut self) -> Vec<PolicyEntry> {
        let mut before = std::mem::take(&mut self.compiled);
        for resource in self.stores.policies.state() {
            let reference = reference(PolicyKind::AgentPolicy, resource.as_ref());
            let entry = reuse(&mut before, &reference, resource.as_ref(), |policy| {
                PolicyEntry::namespaced(policy, compile::policy)
            });
            self.compiled.insert(reference, entry);
        }
        for resource in self.stores.cluster_policies.state() {
            let reference = reference(PolicyKind::ClusterAgentPolicy, resource.as_ref());
            let entry = reuse(&mut before, &reference, resource.as_ref(), |policy| {
                PolicyEntry::cluster(policy, compile::policy)
            });
            self.compiled.insert(reference, entry);
        }
        self.compiled
            .values()
            .map(|compiled| compiled.entry.clone())
            .collect()
    }

    fn resolve_sinks(&self) -> (Vec<SinkConfig>, Vec<SinkOutcome>) {
        let resources = self.stores.sinks.state();
        let readable: Vec<&AuditSink> = resources
            .iter()
            .filter_map(|resource| resource.0.as_ref().ok())
            .collect();
        let secret = |name: &str| {
            let found = self.stores.secret(&self.settings.namespace, name)?;
            Some(found.as_ref().clone())
        };
        let (sinks, mut outcomes) = sinks::resolve(&readable, secret, self.settings.default_sink);
        if let Some(problem) = size::sinks_problem(&sinks) {
            // Which one is to go, only a person knows.
            let sent = outcomes.iter_mut().filter(|o| o.by == Deliverer::Sidecar);
            for outcome in sent {
                outcome.problems.push(problem.clone());
            }
        }
        let unreadable = resources.iter().filter_map(|resource| {
            let error = resource.0.as_ref().err()?;
            Some(SinkOutcome {
                name: resource.name_any(),
                generation: error.metadata.generation.unwrap_or_default(),
                problems: vec![format!("this version of Chaperone cannot read it: {error}")],
                by: Deliverer::Sidecar,
            })
        });
        outcomes.extend(unreadable);
        (sinks, outcomes)
    }

    /// The Secrets that policies name; each version of one is read once.
    fn read_certificates(&mut self, policies: &[PolicyEntry]) -> Certificates {
        let mut before = std::mem::take(&mut self.certificates);
        let policies = policies
            .iter()
            .filter_map(|entry| entry.content.as_ref().ok());
        for reference in policies.flat_map(|policy| policy.client_certificates()) {
            let name = reference.secret;
            let Some(secret) = self.stores.secret(&self.settings.namespace, &name) else {
                continue;
            };
            let version = secret.resource_version();
            let same = |read: &ReadSecret| read.version == version;
            let known = self
                .certificates
                .remove(&name)
                .or_else(|| before.remove(&name));
            let read = known.filter(same).unwrap_or_else(|| ReadSecret {
                version: version.clone(),
                read: CertificateSecret::read(&secret).map(Arc::new),
            });
            self.certificates.insert(name, read);
        }
        let usable = self.certificates.iter();
        usable
            .filter_map(|(name, secret)| Some((name.clone(), secret.read.clone()?)))
            .collect()
    }

    fn audited_namespaces(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let namespaces = self.stores.namespaces.state().into_iter();
        namespaces
            .filter(|namespace| {
                let labels = namespace.metadata.labels.as_ref();
                self.settings.audits(&namespace.name_any(), labels)
            })
            .map(|namespace| (namespace.name_any(), namespace.labels().clone()))
            .collect()
    }

    /// Injected pods that have not ended and are not exempt: others acknowledge nothing, and policies would wait for them.
    fn pods(&self) -> Vec<Arc<Pod>> {
        let pods = self.stores.pods.state().into_iter();
        pods.filter(|pod| check::is_injected(pod) && !has_ended(pod))
            .filter(|pod| {
                let PodIdentity {
                    namespace,
                    service_account,
                    ..
                } = identity(pod);
                !self.settings.exempts(&namespace, Some(&service_account))
            })
            .collect()
    }

    /// Which of these pods write to the ledger, beside these sinks. None: there is no ledger.
    fn ledger_writers(&self, sinks: &[SinkConfig], pods: &[Arc<Pod>]) -> Option<LedgerWriters> {
        let url = self.settings.ledger_url()?;
        let authority = self.authority.borrow().clone()?;
        let writers = pods.iter().filter(|pod| has_ledger_token(pod));
        Some(LedgerWriters {
            sinks: Arc::new(sinks::with_ledger(sinks, url, authority.root_pem())),
            pods: writers.map(|pod| pod.uid().unwrap_or_default()).collect(),
        })
    }

    /// One that is gone or broken is not followed: sidecars would forget tokens that are about.
    fn read_mask_secret(&mut self) {
        let found = self.stores.secret(&self.settings.namespace, MASK_SECRET);
        if let Some(secret) = found.and_then(|secret| MaskSecret::read(&secret)) {
            self.mask_secret = Some(secret);
        }
    }

    async fn read_roots(&mut self) {
        let Some(path) = &self.settings.extra_roots_file else {
            return;
        };
        match read_roots(path.clone()).await {
            Ok(roots) => self.extra_roots = Arc::from(roots),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "extra roots cannot be read, the former stay")
            }
        }
    }
}

fn has_ended(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn reference<K: kube::Resource>(kind: PolicyKind, resource: &DeserializeGuard<K>) -> PolicyRef
where
    DeserializeGuard<K>: ResourceExt,
{
    PolicyRef {
        kind,
        namespace: resource.namespace().unwrap_or_default(),
        name: resource.name_any(),
    }
}

/// The entry of a resource: the one from before if the resource is still the same.
fn reuse<K>(
    before: &mut HashMap<PolicyRef, Compiled>,
    reference: &PolicyRef,
    resource: &DeserializeGuard<K>,
    compile: impl FnOnce(&K) -> PolicyEntry,
) -> Compiled
where
    K: kube::Resource,
    DeserializeGuard<K>: ResourceExt,
{
    let uid = resource.uid();
    let generation = kube::Resource::meta(resource)
        .generation
        .unwrap_or_default();
    match before.remove(reference) {
        Some(compiled) if compiled.uid == uid && compiled.generation == generation => compiled,
        _ => Compiled {
            uid,
            generation,
            entry: match &resource.0 {
                Ok(policy) => compile(policy),
                Err(error) => PolicyEntry::unreadable(reference.clone(), generation, &error.error),
            },
        },
    }
}

async fn read_roots(path: PathBuf) -> std::io::Result<String> {
    let size = tokio::fs::metadata(&path).await?.len();
    if size > MAX_ROOTS_BYTES {
        let message = format!("the file has {size} bytes, at most {MAX_ROOTS_BYTES} can be");
        return Err(std::io::Error::other(message));
    }
    tokio::fs::read_to_string(&path).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn identity_is_what_the_api_server_says_without_the_sidecar() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "agents", "name": "claude-0", "uid": "u", "labels": {"app": "claude"}},
            "spec": {
                "serviceAccountName": "coder", "nodeName": "node-1",
                "initContainers": [{"name": "chaperone-sidecar", "image": "sidecar"}],
                "containers": [{"name": "agent", "image": "claude:1"}, {"name": "tools", "image": "tools:2"}]
            }
        }))
        .unwrap();
        let identity = identity(&pod);
        assert_eq!(identity.pod, "claude-0");
        assert_eq!(identity.service_account, "coder");
        assert_eq!(identity.node, "node-1");
        assert_eq!(identity.images, ["claude:1", "tools:2"]);
    }

    #[tokio::test]
    async fn a_roots_file_that_is_missing_is_an_error_and_not_an_empty_one() {
        assert!(read_roots("/nonexistent/roots.pem".into()).await.is_err());
    }
}
