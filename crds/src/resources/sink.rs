//! `AuditSink`: where records go.

// `KubeSchema` repeats each struct inside a function, where `pub` reaches nothing.
#![allow(unreachable_pub)]
// Printer columns repeat `type_`, which clippy takes for one attribute given twice.
#![allow(clippy::duplicated_attributes)]

mod elasticsearch;
mod kafka;
mod loki;
mod nats;
mod s3;
mod splunk;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use elasticsearch::ElasticsearchSink;
pub use kafka::{KafkaCompression, KafkaSink, SaslMechanism};
pub use loki::LokiSink;
pub use nats::NatsSink;
pub use s3::{S3Format, S3Sink};
pub use splunk::SplunkSink;

use crate::filter::MAX_FILTER_BYTES;

/// Spec of an `AuditSink`: exactly one kind.
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
    doc = "AuditSink says where audit records are shipped, by the sidecars or by the ledger. Every sink receives every record that its filter lets pass.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of an AuditSink has at most 63 characters"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.http.url"),
    printcolumn(name = "From", type_ = "string", json_path = ".spec.from"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Delivering", type_ = "string", json_path = ".status.conditions[?(@.type==\"Delivering\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("[has(self.stdout), has(self.file), has(self.http), has(self.otlp), has(self.syslog), has(self.postgres), has(self.redis), has(self.elasticsearch), has(self.splunk), has(self.loki), has(self.nats), has(self.kafka), has(self.s3)].filter(x, x).size() == 1").message("set exactly one of stdout, file, http, otlp, syslog, postgres, redis, elasticsearch, splunk, loki, nats, kafka, s3"),
    validation = Rule::new("!has(self.from) || self.from == 'Ledger' || has(self.stdout) || has(self.file) || has(self.http)").message("sidecars deliver stdout, file and http only: leave out from, or set from: Ledger, and the ledger delivers"),
    validation = Rule::new("!has(self.from) || self.from == 'Sidecar' || !(has(self.stdout) || has(self.file))").message("stdout and file are delivered by the sidecars, and the ledger keeps every record in files already: leave out from, or use another kind with from: Ledger"),
    validation = Rule::new("(has(self.from) ? self.from == 'Ledger' : !(has(self.stdout) || has(self.file) || has(self.http))) || !(has(self.start) || has(self.batch))").message("start and batch are settings of sinks that the ledger delivers: add from: Ledger, or leave them out"),
    validation = Rule::new("!(has(self.http) && has(self.http.batchSize) && has(self.batch) && has(self.batch.records))").message("http.batchSize and batch.records are the same setting: leave out one"),
    validation = Rule::new("!(has(self.s3) && has(self.s3.format) && self.s3.format == 'Parquet' && has(self.format) && self.format != 'Native')").message("Parquet has columns of its own and holds the record itself: leave out format, or s3.format")
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
    /// Send records as OTLP logs, over HTTP or gRPC. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpSink>,
    /// Send records as syslog messages (RFC 5424) over TLS. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syslog: Option<SyslogSink>,
    /// Insert records into a table of a PostgreSQL database. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSink>,
    /// Add records to a stream of a Redis server. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisSink>,
    /// Index records in Elasticsearch or OpenSearch. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elasticsearch: Option<ElasticsearchSink>,
    /// Send records to an HTTP Event Collector of Splunk. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub splunk: Option<SplunkSink>,
    /// Push records to Grafana Loki. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loki: Option<LokiSink>,
    /// Publish records to a stream of NATS JetStream. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsSink>,
    /// Produce records to a topic of Kafka. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSink>,
    /// Put records into objects of a bucket of S3. Delivered by the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Sink>,
    /// Who delivers: `Sidecar` (each from its own spool) or `Ledger` (one connection for all, credentials stay in Chaperone's namespace). Sidecars deliver stdout, file and http, which is the default for these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Deliverer>,
    /// Where a new sink that the ledger delivers begins: `Oldest` (with the oldest record that the ledger has) or `Now` (with what comes after it saw the sink). Means nothing to a sink that has begun. Default Oldest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<SinkStart>,
    /// How many records the ledger sends at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchSettings>,
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

/// Who delivers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deliverer {
    /// Each sidecar, from its own spool.
    Sidecar,
    /// The ledger, from its log.
    Ledger,
}

/// Where a new sink of the ledger begins.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SinkStart {
    /// With the oldest record that the ledger has.
    #[default]
    Oldest,
    /// With what comes after it saw the sink.
    Now,
}

/// How many records are sent at once: a batch leaves as soon as one of these is reached.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchSettings {
    /// Most records, 1 to 50000. Default 500; 5000 for splunk, 50000 for s3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50_000))]
    pub records: Option<u32>,
    /// Most bytes of records as the ledger has them, 1024 to 67108864; a longer record is sent alone. The ledger has them in memory while it sends them. Default 1048576; 4194304 for splunk, 33554432 for s3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub bytes: Option<u32>,
    /// Longest that a record waits for others, in milliseconds, 0 to 300000. Default 500; 300000 for s3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 300_000))]
    pub wait_milliseconds: Option<u32>,
}

impl AuditSinkSpec {
    /// Who delivers: where it says nothing, the sidecars what they can, and the ledger the rest.
    #[must_use]
    pub fn delivered_by(&self) -> Deliverer {
        let is_of_sidecars = self.stdout.is_some() || self.file.is_some() || self.http.is_some();
        self.from.unwrap_or(match is_of_sidecars {
            true => Deliverer::Sidecar,
            false => Deliverer::Ledger,
        })
    }
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

/// A receiver of OTLP logs, such as an OpenTelemetry collector.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.url.startsWith('https://') || (has(self.allowInsecure) && self.allowInsecure)").message("url must start with https:// (or set allowInsecure: true for http://)"),
    validation = Rule::new("!(has(self.bearerTokenSecret) && has(self.tlsSecret))").message("set bearerTokenSecret or tlsSecret, not both")
)]
pub struct OtlpSink {
    /// Where the receiver is: `https://HOST:4318` for HTTP, whose path is /v1/logs where the URL has none; `https://HOST:4317` for gRPC.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s]+$"))]
    pub url: String,
    /// `HTTP` (protobuf) or `GRPC`. Default HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<OtlpProtocol>,
    /// Allow a plain http:// URL. Records then cross the network in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// Key of a Secret in Chaperone's namespace whose value is sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret: Option<SecretKeyRef>,
    /// Name of a kubernetes.io/tls Secret in Chaperone's namespace: client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretRef>,
    /// PEM certificates that the receiver's certificate may chain to, besides the Mozilla roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

/// How OTLP is sent.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum OtlpProtocol {
    /// Protobuf over HTTP.
    #[default]
    Http,
    /// gRPC.
    Grpc,
}

/// A receiver of syslog messages over TLS (RFC 5424, RFC 5425).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!(has(self.allowInsecure) && self.allowInsecure && (has(self.tlsSecret) || has(self.caBundle)))").message("allowInsecure: true means no TLS: leave out tlsSecret and caBundle, or allowInsecure")
)]
pub struct SyslogSink {
    /// Name or address of the receiver.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^\s/\[\]]+$"))]
    pub host: String,
    /// Port. Default 6514.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Facility, 0 to 23. Default 13 (log audit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 23))]
    pub facility: Option<u8>,
    /// Connect without TLS. Records then cross the network in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// Name of a kubernetes.io/tls Secret in Chaperone's namespace: client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretRef>,
    /// PEM certificates that the receiver's certificate may chain to, besides the Mozilla roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

/// A table of a PostgreSQL database.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!(has(self.allowInsecure) && self.allowInsecure && (has(self.tlsSecret) || has(self.caBundle)))").message("allowInsecure: true means no TLS: leave out tlsSecret and caBundle, or allowInsecure")
)]
pub struct PostgresSink {
    /// Name or address of the server.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^\s/\[\]]+$"))]
    pub host: String,
    /// Port. Default 5432.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Name of the database.
    #[schemars(length(min = 1, max = 63))]
    pub database: String,
    /// User that the ledger connects as.
    #[schemars(length(min = 1, max = 63))]
    pub user: String,
    /// Key of a Secret in Chaperone's namespace whose value is the user's password. Absent: the client certificate says who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretKeyRef>,
    /// The table, with or without a schema before it. It is made if it is not there and the user may. Default chaperone_records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 127),
        regex(pattern = r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?$")
    )]
    pub table: Option<String>,
    /// Connect without TLS. Records and the password's proof then cross the network in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// Name of a kubernetes.io/tls Secret in Chaperone's namespace: client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretRef>,
    /// PEM certificates that the server's certificate may chain to, besides the Mozilla roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

/// A stream of a Redis server.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!(has(self.allowInsecure) && self.allowInsecure && (has(self.tlsSecret) || has(self.caBundle)))").message("allowInsecure: true means no TLS: leave out tlsSecret and caBundle, or allowInsecure")
)]
pub struct RedisSink {
    /// Name or address of the server.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^\s/\[\]]+$"))]
    pub host: String,
    /// Port. Default 6379.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Key of the stream, which nobody else writes to. Default chaperone:records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub key: Option<String>,
    /// Most entries that the stream keeps, about, 100000 to 1000000000: the oldest go. Default: all are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100_000, max = 1_000_000_000))]
    pub max_length: Option<u64>,
    /// User that the ledger is there. Default: the server's default user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username: Option<String>,
    /// Key of a Secret in Chaperone's namespace whose value is the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretKeyRef>,
    /// Connect without TLS. Records and the password then cross the network in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// Name of a kubernetes.io/tls Secret in Chaperone's namespace: client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretRef>,
    /// PEM certificates that the server's certificate may chain to, besides the Mozilla roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
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

/// What is reported about a sink: `Ready` by the operator, `Delivering` by the ledger.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SinkStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the sink's settings and Secrets are usable. Delivering (where the ledger delivers): its target acknowledges.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
