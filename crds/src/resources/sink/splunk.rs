//! `spec.splunk`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, SecretRef};

/// An HTTP Event Collector of Splunk.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.url.startsWith('https://') || (has(self.allowInsecure) && self.allowInsecure)").message("url must start with https:// (or set allowInsecure: true for http://)")
)]
pub struct SplunkSink {
    /// Where the collector is: `https://HOST:8088`, with a path before its own `/services/collector` where a proxy has one.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#]+$"))]
    pub url: String,
    /// Key of a Secret in Chaperone's namespace whose value is the collector's token.
    pub token_secret: SecretKeyRef,
    /// Index that events go to. Default: the token's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9_][a-z0-9_-]*$"))]
    pub index: Option<String>,
    /// Source type of the events. Default chaperone:record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub sourcetype: Option<String>,
    /// Wait until Splunk says that a batch is indexed (indexer acknowledgement, which the token must have). With false a batch counts as soon as the collector has it in its memory. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledge: Option<bool>,
    /// Allow a plain http:// URL. Records and the token then cross the network in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// Name of a kubernetes.io/tls Secret in Chaperone's namespace: client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretRef>,
    /// PEM certificates that the collector's certificate may chain to, besides the Mozilla roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}
