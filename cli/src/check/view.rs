//! What a check knows of a cluster: plain values, fetched once and judged by `findings`.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// Something that was looked at, or why it could not be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen<T> {
    /// It was seen.
    Yes(T),
    /// It may not be seen: what the API server said.
    No(String),
}

/// A cluster as Chaperone sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClusterView {
    /// When it was looked at.
    pub(crate) now: Timestamp,
    /// Version of this command.
    pub(crate) version: String,
    /// Chaperone's own namespace.
    pub(crate) namespace: String,
    /// Chaperone's custom resource definitions.
    pub(crate) crds: Seen<Vec<Crd>>,
    /// The operator's Deployment.
    pub(crate) operator: Seen<Option<Operator>>,
    /// Chaperone's webhooks.
    pub(crate) webhooks: Seen<Vec<Webhook>>,
    /// What the operator's replicas present on their webhook port. Empty where there is nothing to judge them by.
    pub(crate) serving: Seen<Vec<Serving>>,
    /// The ledger.
    pub(crate) ledger: Seen<Option<Ledger>>,
    /// Labelled namespaces.
    pub(crate) namespaces: Seen<Vec<String>>,
    /// Unfinished pods of the labelled namespaces.
    pub(crate) pods: Seen<Vec<AgentPod>>,
    /// Policies of both kinds.
    pub(crate) policies: Seen<Vec<Policy>>,
    /// AuditSinks.
    pub(crate) sinks: Seen<Vec<Sink>>,
}

/// A custom resource definition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Crd {
    pub(crate) name: String,
    pub(crate) served: Vec<String>,
    pub(crate) established: bool,
}

/// The operator's Deployment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operator {
    pub(crate) name: String,
    /// Label `app.kubernetes.io/version`.
    pub(crate) version: Option<String>,
    pub(crate) desired: i32,
    pub(crate) ready: i32,
    pub(crate) updated: i32,
    /// Service accounts whose pods are not injected, as `namespace/name`.
    pub(crate) exempt: Vec<String>,
    /// Whether records go to standard output where no AuditSink says so.
    pub(crate) default_sink: bool,
    /// Whether it sends agents' records to a ledger.
    pub(crate) ledger: bool,
}

/// The ledger as its StatefulSet and pod have it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ledger {
    /// Name of the StatefulSet.
    pub(crate) name: String,
    /// Whether its records are lost with its pod.
    pub(crate) ephemeral: bool,
    pub(crate) pod: LedgerPod,
    /// What it says of missing evidence, or why it does not. `None`: it was not asked, or does not know.
    pub(crate) evidence: Option<Result<Evidence, String>>,
}

/// What the ledger knows of missing evidence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Evidence {
    /// Whether it sees which pods run.
    pub(crate) is_watching: bool,
    /// Pods by reason.
    pub(crate) incomplete: BTreeMap<String, u64>,
}

/// The ledger's pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LedgerPod {
    /// Not ready, and why, as far as the API server says.
    Waiting(String),
    /// Ready, and what it presents. `None`: there is nothing to judge it by.
    Ready(Option<Serving>),
}

/// One webhook of a webhook configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Webhook {
    pub(crate) name: String,
    pub(crate) failure_policy: Option<String>,
    pub(crate) ca_bundle: CaBundle,
}

/// A webhook's `caBundle`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CaBundle {
    Absent,
    Unreadable(String),
    Certificates(Vec<Certificate>),
}

/// What matters of a certificate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Certificate {
    pub(crate) subject: String,
    pub(crate) not_after: Timestamp,
}

/// A replica and the certificate that it presents, or why that cannot be trusted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Serving {
    pub(crate) pod: String,
    pub(crate) result: Result<Certificate, String>,
}

/// A pod in a labelled namespace that has not finished.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AgentPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) service_account: String,
    /// `None`: no sidecar.
    pub(crate) sidecar: Option<Sidecar>,
}

/// The sidecar of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sidecar {
    pub(crate) version: Option<String>,
    pub(crate) ready: bool,
    pub(crate) restarts: i32,
    /// Whether it has a token for the ledger.
    pub(crate) ledger_token: bool,
    /// Condition `chaperone.dev/PolicyApplied`.
    pub(crate) applied: Option<Condition>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) status: bool,
    pub(crate) message: String,
}

/// A policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    /// `AgentPolicy agents/coding` or `ClusterAgentPolicy base`.
    pub(crate) name: String,
    pub(crate) status: Status,
    pub(crate) selected: i64,
    pub(crate) applied: i64,
}

/// An AuditSink.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sink {
    pub(crate) name: String,
    pub(crate) status: Status,
    /// Whether the ledger delivers it.
    pub(crate) by_ledger: bool,
    /// Condition `Delivering`, if it is true or false; the ledger writes it.
    pub(crate) delivering: Option<Condition>,
}

/// What the operator says of a resource.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    /// Whether it is about the spec that is there now.
    pub(crate) current: bool,
    /// Condition `Ready`.
    pub(crate) ready: Option<Condition>,
}
