//! `spec.elasticsearch`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, SecretRef};

/// An index or a data stream of Elasticsearch or OpenSearch, filled by the bulk API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.url.startsWith('https://') || (has(self.allowInsecure) && self.allowInsecure)").message("url must start with https:// (or set allowInsecure: true for http://)"),
    validation = Rule::new("[has(self.passwordSecret), has(self.apiKeySecret), has(self.bearerTokenSecret)].filter(x, x).size() <= 1").message("set one of passwordSecret, apiKeySecret, bearerTokenSecret, or none"),
    validation = Rule::new("has(self.username) == has(self.passwordSecret)").message("username and passwordSecret go together")
)]
pub struct ElasticsearchSink {
    /// Where the cluster is: `https://HOST:9200`, with a path before its own where a proxy has one.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#]+$"))]
    pub url: String,
    /// Index, alias or data stream. An index is made if nothing of that name is there and the ledger may. Default chaperone-records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[a-z0-9][a-z0-9._-]*$"))]
    pub index: Option<String>,
    /// User that the ledger is there, with `passwordSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^:]+$"))]
    pub username: Option<String>,
    /// Key of a Secret in Chaperone's namespace whose value is the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretKeyRef>,
    /// Key of a Secret in Chaperone's namespace whose value is an API key as Elasticsearch encodes it, sent as `Authorization: ApiKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret: Option<SecretKeyRef>,
    /// Key of a Secret in Chaperone's namespace whose value is sent as `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_secret: Option<SecretKeyRef>,
    /// Allow a plain http:// URL. Records and credentials then cross the network in clear.
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
