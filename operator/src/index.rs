//! Which policies rule which pod: a pure function from what the API server holds to one plan per pod.
//!
//! Owns selection, merging and holding back. Refuses to weaken: a pod that a broken policy selects gets no plan, so that its sidecar keeps
//! the last good one. Invariant: equal worlds give equal plans and equal revisions, on every replica and after every restart.

pub mod certificates;
mod policies;
pub mod sinks;
pub mod size;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use chaperone_crds::{
    control::{ClientCertificate, PodConfig, SinkConfig},
    grpc::DescriptorSet,
    pod::PodIdentity,
    snapshot::{PolicyRef, Revision, Snapshot},
    tokenize::MaskKey,
};

use jiff::Timestamp;

use self::certificates::Certificates;
use crate::mask_secret::MaskSecret;

pub use policies::PolicyEntry;

/// Labels of a namespace.
pub type Labels = BTreeMap<String, String>;

/// What the API server holds.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// All policies, compiled.
    pub policies: Vec<PolicyEntry>,
    /// All sinks with their credentials.
    pub sinks: Arc<Vec<SinkConfig>>,
    /// Who writes to the ledger, where there is one.
    pub ledger: Option<LedgerWriters>,
    /// Audited namespaces with their labels.
    pub namespaces: BTreeMap<String, Labels>,
    /// Injected pods.
    pub pods: Vec<PodIdentity>,
    /// PEM of further roots.
    pub extra_roots: Arc<str>,
    /// What mask keys are derived from; `None` until it is known.
    pub mask_secret: Option<MaskSecret>,
    /// What messages of gRPC services are made of.
    pub descriptors: Arc<Vec<DescriptorSet>>,
    /// Client certificates that policies name.
    pub certificates: Certificates,
    /// The time, for what is said of certificates; plans do not depend on it.
    pub now: Timestamp,
}

/// The pods that write to the ledger.
#[derive(Clone, Debug)]
pub struct LedgerWriters {
    /// All sinks, the ledger among them.
    pub sinks: Arc<Vec<SinkConfig>>,
    /// Uids of the pods whose sidecar has a token for it. Others lack the ledger among their sinks: their records would wait for ever, and a sidecar of a version without ledgers could not read its configuration.
    pub pods: BTreeSet<String>,
}

/// What one sidecar runs by. Snapshots, sinks and roots are shared between pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Revision of the snapshot.
    pub revision: Revision,
    /// Who the pod is.
    pub identity: PodIdentity,
    /// Its policies.
    pub snapshot: Arc<Snapshot>,
    /// Its sinks.
    pub sinks: Arc<Vec<SinkConfig>>,
    /// PEM of further roots.
    pub extra_roots: Arc<str>,
    /// The key of its namespace.
    pub mask_key: Option<MaskKey>,
    /// What messages of gRPC services are made of.
    pub descriptors: Arc<Vec<DescriptorSet>>,
    /// Client certificates that its policies ask for.
    pub client_certificates: Arc<Vec<ClientCertificate>>,
}

/// What is true of one policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyOutcome {
    /// The generation that was looked at.
    pub generation: i64,
    /// Short hash of the spec.
    pub revision: Revision,
    /// Why it cannot be applied.
    pub error: Option<String>,
    /// What keeps its client certificates from being presented, one sentence each.
    pub certificates: Vec<String>,
    /// Pods that it selects and that have no ledger to wait for, where it asks for `audit.commit: Ledger`.
    pub without_ledger: usize,
    /// Uids of the pods that it selects.
    pub pods: Vec<String>,
}

/// One plan per pod, and what is true of each policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Index {
    /// By pod uid: the plan, or why there is none.
    pub pods: BTreeMap<String, Result<Arc<Plan>, String>>,
    /// By policy.
    pub policies: BTreeMap<PolicyRef, PolicyOutcome>,
}

/// What the same policies make, once for all pods that they select. Where one of these has a namespace, all these pods are in it.
#[derive(Clone)]
struct Merged {
    revision: Revision,
    snapshot: Arc<Snapshot>,
    client_certificates: Arc<Vec<ClientCertificate>>,
    /// Their bytes in a configuration.
    certificate_bytes: usize,
}

/// Selects, merges and compiles. `compile` says whether a merged snapshot can run.
pub fn index(world: &World, mut compile: impl FnMut(&Snapshot) -> Result<(), String>) -> Index {
    let mut merged: HashMap<Vec<usize>, Result<Merged, String>> = HashMap::new();
    let shared = size::Shared::of(world.most_sinks(), &world.extra_roots, &world.descriptors);
    let mut result = Index {
        pods: BTreeMap::new(),
        policies: world
            .policies
            .iter()
            .map(|policy| policy.outcome(&world.certificates, world.now))
            .collect(),
    };
    for pod in &world.pods {
        let Some(namespace) = world.namespaces.get(&pod.namespace) else {
            continue;
        };
        let selecting: Vec<usize> = (0..world.policies.len())
            .filter(|index| world.policies[*index].selects(pod, namespace))
            .collect();
        for policy in &selecting {
            let policy = &world.policies[*policy];
            if let Some(outcome) = result.policies.get_mut(&policy.reference) {
                outcome.pods.push(pod.uid.clone());
                let waits = policy.waits_for_ledger() && !world.writes_to_ledger(&pod.uid);
                outcome.without_ledger = outcome.without_ledger.saturating_add(usize::from(waits));
            }
        }
        let merged = merged
            .entry(selecting)
            .or_insert_with_key(|selecting| merge(world, selecting, &pod.namespace, &mut compile));
        let plan = merged.clone().and_then(|merged| {
            shared.check(pod, merged.certificate_bytes)?;
            Ok(Arc::new(plan(world, pod, merged)))
        });
        result.pods.insert(pod.uid.clone(), plan);
    }
    result
}

fn plan(world: &World, pod: &PodIdentity, merged: Merged) -> Plan {
    let secret = world.mask_secret.as_ref();
    Plan {
        revision: merged.revision,
        identity: pod.clone(),
        snapshot: merged.snapshot,
        sinks: Arc::clone(world.sinks_of(&pod.uid)),
        extra_roots: Arc::clone(&world.extra_roots),
        mask_key: secret.map(|secret| secret.key_of(&pod.namespace)),
        descriptors: Arc::clone(&world.descriptors),
        client_certificates: merged.client_certificates,
    }
}

fn merge(
    world: &World,
    selecting: &[usize],
    namespace: &str,
    compile: &mut impl FnMut(&Snapshot) -> Result<(), String>,
) -> Result<Merged, String> {
    let mut policies = Vec::with_capacity(selecting.len());
    for entry in selecting
        .iter()
        .filter_map(|index| world.policies.get(*index))
    {
        match &entry.content {
            Ok(policy) => policies.push(policy.as_ref().clone()),
            Err(error) => return Err(format!("{}: {error}", entry.reference)),
        }
    }
    let snapshot = Snapshot::new(policies);
    let size = serde_json::to_vec(&snapshot).map_or(usize::MAX, |bytes| bytes.len());
    size::check_snapshot(size)?;
    compile(&snapshot)?;
    let certificates = certificates::resolve(&snapshot, namespace, &world.certificates);
    Ok(Merged {
        revision: snapshot.revision(),
        snapshot: Arc::new(snapshot),
        certificate_bytes: size::certificate_bytes(&certificates),
        client_certificates: Arc::new(certificates),
    })
}

impl World {
    fn sinks_of(&self, uid: &str) -> &Arc<Vec<SinkConfig>> {
        let writers = self.ledger.as_ref().filter(|l| l.pods.contains(uid));
        writers.map_or(&self.sinks, |ledger| &ledger.sinks)
    }

    fn writes_to_ledger(&self, uid: &str) -> bool {
        self.ledger.as_ref().is_some_and(|l| l.pods.contains(uid))
    }

    /// The sinks of the pod that has most, for what fits.
    fn most_sinks(&self) -> &[SinkConfig] {
        let ledger = self.ledger.as_ref();
        ledger.map_or(&self.sinks, |ledger| &ledger.sinks)
    }
}

impl Plan {
    /// The message to the sidecar.
    #[must_use]
    pub fn config(&self) -> PodConfig {
        PodConfig {
            revision: self.revision.clone(),
            identity: self.identity.clone(),
            snapshot: self.snapshot.as_ref().clone(),
            sinks: self.sinks.as_ref().clone(),
            extra_roots: self.extra_roots.to_string(),
            mask_key: self.mask_key.clone(),
            grpc_descriptors: self.descriptors.as_ref().clone(),
            client_certificates: self.client_certificates.as_ref().clone(),
        }
    }
}

#[cfg(test)]
#[path = "index/tests.rs"]
pub(crate) mod tests;
