//! The snapshot: all policies that select one pod, as data. `compile` makes it executable; `decide` asks it.
//!
//! Invariant: a snapshot is ordered (cluster policies first, then by namespace and name), so that equal policies give equal bytes and an
//! equal revision.

use std::{collections::BTreeSet, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    record::ConfigInfo,
    resources::{
        Action, AgentPolicySpec, Audit, ClusterAgentPolicySpec, MAX_BODY_BYTES, Mask, Mode,
        PolicyRule, Tls,
    },
};

/// Longest text of a snapshot that is recorded, in bytes: a record holds the most of a body twice.
const MAX_RECORDED_BYTES: usize = MAX_BODY_BYTES as usize;

/// Short hash that names a snapshot: 16 lower-case hex digits.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
)]
#[serde(transparent)]
pub struct Revision(String);

impl Revision {
    /// The revision of these bytes: first 16 hex digits of their SHA-256.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hex = hex::encode(Sha256::digest(bytes));
        hex.truncate(16);
        Self(hex)
    }

    /// The 16 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which kind of resource a policy is; cluster policies are final and come first.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    /// `ClusterAgentPolicy`.
    ClusterAgentPolicy,
    /// `AgentPolicy`.
    AgentPolicy,
}

/// Names one policy.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRef {
    /// Kind of resource.
    pub kind: PolicyKind,
    /// Namespace; empty for cluster policies.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for PolicyRef {
    /// `namespace/name`, or `name` for a cluster policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Names a client certificate: a Secret, and the kind of the policies that ask for it. What a cluster policy may use, an `AgentPolicy` may not be permitted.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRef {
    /// Kind of the policies.
    pub kind: PolicyKind,
    /// Name of the Secret, which lies in Chaperone's namespace.
    pub secret: String,
}

/// One policy, without its selectors: those have done their work.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// Which resource it is.
    #[serde(flatten)]
    pub reference: PolicyRef,
    /// `metadata.generation` of the resource.
    #[serde(default)]
    pub generation: i64,
    /// Audit or Enforce.
    pub mode: Mode,
    /// What happens when no rule matches.
    pub default_action: Action,
    /// Rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<PolicyRule>,
    /// Masks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<Mask>,
    /// TLS settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Audit settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
}

impl Policy {
    /// The policy that an `AgentPolicy` of this namespace and name is.
    #[must_use]
    pub fn namespaced(
        namespace: &str,
        name: &str,
        generation: i64,
        spec: &AgentPolicySpec,
    ) -> Self {
        Self {
            reference: PolicyRef {
                kind: PolicyKind::AgentPolicy,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            generation,
            mode: spec.mode,
            default_action: spec.default_action,
            rules: spec.rules.clone(),
            masks: spec.masks.clone(),
            tls: spec.tls.clone(),
            audit: spec.audit.clone(),
        }
    }

    /// The policy that a `ClusterAgentPolicy` of this name is.
    #[must_use]
    pub fn cluster(name: &str, generation: i64, spec: &ClusterAgentPolicySpec) -> Self {
        Self {
            reference: PolicyRef {
                kind: PolicyKind::ClusterAgentPolicy,
                namespace: String::new(),
                name: name.to_owned(),
            },
            generation,
            mode: spec.mode,
            default_action: spec.default_action,
            rules: spec.rules.clone(),
            masks: spec.masks.clone(),
            tls: spec.tls.clone(),
            audit: spec.audit.clone(),
        }
    }
}

impl Policy {
    /// The client certificates that it asks for, in order; some perhaps more than once.
    pub fn client_certificates(&self) -> impl Iterator<Item = CertificateRef> {
        let upstreams = self.tls.iter().flat_map(|tls| &tls.upstreams);
        let secrets = upstreams.filter_map(|entry| entry.client_certificate_secret.as_ref());
        secrets.map(|secret| CertificateRef {
            kind: self.reference.kind,
            secret: secret.name.clone(),
        })
    }
}

/// All policies that select one pod.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    policies: Vec<Policy>,
}

impl Snapshot {
    /// A snapshot of these policies, put in order.
    #[must_use]
    pub fn new(mut policies: Vec<Policy>) -> Self {
        policies.sort_by(|a, b| a.reference.cmp(&b.reference));
        Self { policies }
    }

    /// The policies, cluster policies first.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The client certificates that its policies ask for.
    #[must_use]
    pub fn client_certificates(&self) -> BTreeSet<CertificateRef> {
        let policies = self.policies.iter();
        policies.flat_map(Policy::client_certificates).collect()
    }

    /// The revision: hash of the snapshot's JSON bytes.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision::of(self.text().as_bytes())
    }

    /// The snapshot as JSON.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("a snapshot has string keys only, so it serialises")
    }

    /// What a record of kind `config` says of it: which policies are in force in this mode, and their text if it is not too long for a record.
    #[must_use]
    pub fn recorded(&self, mode: Mode) -> ConfigInfo {
        let text = self.text();
        let policies = self.policies.iter();
        ConfigInfo {
            revision: Revision::of(text.as_bytes()),
            mode,
            policies: policies
                .map(|policy| format!("{}@{}", policy.reference, policy.generation))
                .collect(),
            snapshot: (text.len() <= MAX_RECORDED_BYTES).then_some(text),
        }
    }

    /// The snapshot that a record of kind `config` has, if it has one and that is what its revision names. What a later version has in it besides is not read.
    #[must_use]
    pub fn of_record(config: &ConfigInfo) -> Option<Self> {
        #[derive(Deserialize)]
        struct Recorded {
            policies: Vec<Policy>,
        }
        let text = config.snapshot.as_ref()?;
        if Revision::of(text.as_bytes()) != config.revision {
            return None;
        }
        let Recorded { policies } = serde_json::from_str(text).ok()?;
        Some(Self { policies })
    }
}
