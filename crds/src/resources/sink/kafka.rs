//! `spec.kafka`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, SecretRef};

/// A topic of Kafka, or of a server with its protocol.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!(has(self.allowInsecure) && self.allowInsecure && (has(self.tlsSecret) || has(self.caBundle)))").message("allowInsecure: true means no TLS: leave out tlsSecret and caBundle, or allowInsecure"),
    validation = Rule::new("has(self.username) == has(self.passwordSecret)").message("username and passwordSecret go together"),
    validation = Rule::new("!has(self.mechanism) || has(self.username)").message("mechanism says how username logs in: add username and passwordSecret, or leave it out")
)]
pub struct KafkaSink {
    /// Brokers that are asked for all others, each as `HOST:PORT`; an IPv6 address stands in brackets. 1 to 16.
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 3, max = 260),
            regex(pattern = r"^([^\s/\[\]:]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")
        )
    )]
    pub brokers: Vec<String>,
    /// Name of the topic, which is the sink's own. It is not made.
    #[schemars(length(min = 1, max = 249), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub topic: String,
    /// User that the ledger is there, with `passwordSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username: Option<String>,
    /// Key of a Secret in Chaperone's namespace whose value is the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretKeyRef>,
    /// How the user logs in: `SCRAM-SHA-512`, `SCRAM-SHA-256` (both prove the password) or `PLAIN` (sends it). Default SCRAM-SHA-512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<SaslMechanism>,
    /// How batches are compressed: `Zstd`, `LZ4` or `None`. Default Zstd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<KafkaCompression>,
    /// Connect without TLS. Records, and with PLAIN the password, then cross the network in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// Name of a kubernetes.io/tls Secret in Chaperone's namespace: client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretRef>,
    /// PEM certificates that the brokers' certificates may chain to, besides the Mozilla roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

/// How the user logs in: `SCRAM-SHA-512`, `SCRAM-SHA-256` (both prove the password) or `PLAIN` (sends it). Default SCRAM-SHA-512.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SaslMechanism {
    /// RFC 5802 with SHA-512.
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// RFC 7677.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 4616.
    #[serde(rename = "PLAIN")]
    Plain,
}

/// How batches are compressed: `Zstd`, `LZ4` or `None`. Default Zstd.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KafkaCompression {
    /// zstd (RFC 8878).
    #[default]
    Zstd,
    /// Frames of LZ4.
    #[serde(rename = "LZ4")]
    Lz4,
    /// Not at all.
    None,
}

impl SaslMechanism {
    /// Its name in SASL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Plain => "PLAIN",
        }
    }
}
