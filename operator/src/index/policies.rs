//! A policy as the index takes it: where it reaches, which pods it selects, and what it says, compiled.

use std::sync::Arc;

use chaperone_crds::{
    pod::PodIdentity,
    resources::{AgentPolicy, ClusterAgentPolicy, Commit},
    snapshot::{Policy, PolicyKind, PolicyRef, Revision},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{
    ResourceExt,
    core::{Selector, SelectorExt},
};

use super::{
    Labels, PolicyOutcome,
    certificates::{self, Certificates},
};

/// Where a policy reaches.
#[derive(Clone, Debug, PartialEq)]
enum Reach {
    /// One namespace.
    Namespace(String),
    /// Every audited namespace with such labels.
    Namespaces(Selector),
}

/// One policy of the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyEntry {
    /// Which resource.
    pub reference: PolicyRef,
    /// Its generation.
    pub generation: i64,
    /// Short hash of its spec.
    pub revision: Revision,
    /// The policy, or why it cannot be applied.
    pub content: Result<Arc<Policy>, String>,
    reach: Reach,
    pods: Selector,
}

impl PolicyEntry {
    /// An `AgentPolicy`. `compile` says whether it can be applied.
    pub fn namespaced(
        resource: &AgentPolicy,
        compile: impl FnOnce(&Policy) -> Result<(), String>,
    ) -> Self {
        let namespace = resource.namespace().unwrap_or_default();
        let generation = resource.metadata.generation.unwrap_or_default();
        let name = resource.name_any();
        let policy = Policy::namespaced(&namespace, &name, generation, &resource.spec);
        let reach = Ok(Reach::Namespace(namespace));
        let revision = hash(&resource.spec);
        Self::build(policy, revision, reach, &resource.spec.selector, compile)
    }

    /// A `ClusterAgentPolicy`. `compile` says whether it can be applied.
    pub fn cluster(
        resource: &ClusterAgentPolicy,
        compile: impl FnOnce(&Policy) -> Result<(), String>,
    ) -> Self {
        let generation = resource.metadata.generation.unwrap_or_default();
        let policy = Policy::cluster(&resource.name_any(), generation, &resource.spec);
        let reach = parse(&resource.spec.namespace_selector).map(Reach::Namespaces);
        let revision = hash(&resource.spec);
        Self::build(policy, revision, reach, &resource.spec.selector, compile)
    }

    /// A resource that this version cannot read. It counts as selecting all that it could: what it would deny is not known.
    #[must_use]
    pub fn unreadable(reference: PolicyRef, generation: i64, error: &str) -> Self {
        let reach = match reference.kind {
            PolicyKind::AgentPolicy => Reach::Namespace(reference.namespace.clone()),
            PolicyKind::ClusterAgentPolicy => Reach::Namespaces(Selector::default()),
        };
        Self {
            reference,
            generation,
            revision: hash(&error),
            content: Err(format!("this version of Chaperone cannot read it: {error}")),
            reach,
            pods: Selector::default(),
        }
    }

    /// Whether it selects a pod of an audited namespace with these labels.
    #[must_use]
    pub fn selects(&self, pod: &PodIdentity, namespace: &Labels) -> bool {
        let reaches = match &self.reach {
            Reach::Namespace(name) => *name == pod.namespace,
            Reach::Namespaces(selector) => selector.matches(namespace),
        };
        reaches && self.pods.matches(&pod.labels)
    }

    /// Whether operations wait for the ledger because of it.
    pub(super) fn waits_for_ledger(&self) -> bool {
        let audit = self.content.as_ref().ok().and_then(|p| p.audit.as_ref());
        audit.is_some_and(|audit| audit.commit == Commit::Ledger)
    }

    /// What is true of it before any pod was looked at.
    pub(super) fn outcome(
        &self,
        held: &Certificates,
        now: Timestamp,
    ) -> (PolicyRef, PolicyOutcome) {
        let outcome = PolicyOutcome {
            generation: self.generation,
            revision: self.revision.clone(),
            error: self.content.as_ref().err().cloned(),
            certificates: self.content.as_ref().map_or_else(
                |_| Vec::new(),
                |policy| certificates::problems(policy, held, now),
            ),
            without_ledger: 0,
            pods: Vec::new(),
        };
        (self.reference.clone(), outcome)
    }

    /// A selector that cannot be read counts as one that selects all: see [`Self::unreadable`].
    fn build(
        policy: Policy,
        revision: Revision,
        reach: Result<Reach, String>,
        pods: &LabelSelector,
        compile: impl FnOnce(&Policy) -> Result<(), String>,
    ) -> Self {
        let pods = parse(pods);
        let error = reach.as_ref().err().or(pods.as_ref().err()).cloned();
        let (reference, generation) = (policy.reference.clone(), policy.generation);
        let content = match error {
            Some(error) => Err(error),
            None => compile(&policy).map(|()| Arc::new(policy)),
        };
        Self {
            reference,
            generation,
            revision,
            content,
            reach: reach.unwrap_or_else(|_| Reach::Namespaces(Selector::default())),
            pods: pods.unwrap_or_default(),
        }
    }
}

fn parse(selector: &LabelSelector) -> Result<Selector, String> {
    Selector::try_from(selector.clone()).map_err(|error| format!("selector: {error}"))
}

fn hash(spec: &impl serde::Serialize) -> Revision {
    Revision::of(&serde_json::to_vec(spec).unwrap_or_default())
}
