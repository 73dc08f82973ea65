//! `AuditSink`: where records go.

// `KubeSchema` repeats each struct inside a function, where `pub` reaches nothing.
#![allow(unreachable_pub)]
// Printer columns repeat `type_`, which clippy takes for one attribute given twice.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::filter::MAX_FILTER_BYTES;

/// Spec of an `AuditSink`: exactly one of `stdout`, `file`, `http`.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "chaperone.dev",
    version = "v1alpha1",
    kind = "AuditSink",
    plural = "auditsinks",
    singular = "auditsink",
    shortname = "asink",
    category = "chaperone",
    status = "SinkStatus",
    derive = "PartialEq",
    doc = "AuditSink says where sidecars ship their audit records. Every sink receives every record that its filter lets pass.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of an AuditSink has at most 63 characters"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.http.url"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.stdout), has(self.file), has(self.http)].filter(x, x).size() == 1").message("set exactly one of stdout, file, http")
)]
pub struct AuditSinkSpec {
    /// Write records to the sidecar's standard output, one JSON object a line, so that the cluster's log collector takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StdoutSink>,
    /// Append records to a file in the sidecar's spool volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSink>,
    /// POST records: as newline-delimited JSON, or as CloudEvents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSink>,
    /// How records are written: `Native` (the record's own line), `CloudEvents` (1.0, structured mode, JSON), `OCSF` (1.8) or `ECS` (Elastic Common Schema). Each holds the record's line. Default Native.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// CEL expression over `record`, a record as docs/audit-record.md describes it, such as `record.decision.action == "Deny"`. Records for which it is false do not reach this sink. Those of a stream's frame (`stream.*` and `config`) always do, and so do those that it cannot be evaluated on. What reaches a filtered sink is no whole chain. Default: every record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_FILTER_BYTES))]
    pub filter: Option<String>,
}

/// How records are written: `Native` (the record's own line), `CloudEvents` (1.0, structured mode, JSON), `OCSF` (1.8) or `ECS` (Elastic Common Schema). Each holds the record's line. Default Native.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// The record's own line, byte for byte.
    #[default]
    Native,
    /// CloudEvents 1.0, structured mode, JSON.
    CloudEvents,
    /// Open Cybersecurity Schema Framework 1.8.
    #[serde(rename = "OCSF")]
    Ocsf,
    /// Elastic Common Schema.
    #[serde(rename = "ECS")]
    Ecs,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Native, Self::CloudEvents, Self::Ocsf, Self::Ecs];
}

impl std::fmt::Display for Format {
    /// As it is written in a sink.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Native => "Native",
            Self::CloudEvents => "CloudEvents",
            Self::Ocsf => "OCSF",
            Self::Ecs => "ECS",
        })
    }
}

/// Standard output has no settings.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StdoutSink {}

/// A file in the sidecar's spool volume.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSink {
    /// Name of the file, without folders. It lies in the sidecar's spool volume, which the agent cannot see.
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    )]
    pub name: String,
}

/// An HTTP endpoint that takes batches of records.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.url.startsWith('https://') || (has(self.allowInsecure) && self.allowInsecure)").message("url must start with https:// (or set allowInsecure: true for http://)"),
    validation = Rule::new("!(has(self.bearerTokenSecret) && has(self.tlsSecret))").message("set bearerTokenSecret or tlsSecret, not both")
)]
pub struct HttpSink {
    /// Where batches are sent: POST, gzip, `Content-Type: application/x-ndjson` unless `format` says otherwise. Any 2xx answer acknowledges the batch.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// Allow a plain http:// URL. Records then cross the network in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// Key of a Secret in Chaperone's namespace whose value is sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret: Option<SecretKeyRef>,
    /// Name of a kubernetes.io/tls Secret in Chaperone's namespace: client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretRef>,
    /// PEM certificates that the endpoint's certificate may chain to, besides the Mozilla roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
    /// Most records in one batch, 1 to 10000. Default 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub batch_size: Option<u32>,
}

/// A key of a Secret in Chaperone's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A Secret in Chaperone's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What the operator reports about a sink.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the sink's settings and Secrets are usable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
