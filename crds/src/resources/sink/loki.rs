//! `spec.loki`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, SecretRef};

/// Grafana Loki, by its push API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.url.startsWith('https://') || (has(self.allowInsecure) && self.allowInsecure)").message("url must start with https:// (or set allowInsecure: true for http://)"),
    validation = Rule::new("!(has(self.passwordSecret) && has(self.bearerTokenSecret))").message("set passwordSecret or bearerTokenSecret, or none"),
    validation = Rule::new("has(self.username) == has(self.passwordSecret)").message("username and passwordSecret go together")
)]
pub struct LokiSink {
    /// Where Loki is: `https://HOST:3100`, with a path before its own `/loki/api/v1/push` where a proxy has one.
    #[schemars(length(min = 8, max = 2048), regex(pattern = r"^https?://[^\s?#]+$"))]
    pub url: String,
    /// Tenant, sent as `X-Scope-OrgID`. Default: none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 150), regex(pattern = r"^[A-Za-z0-9!_.*'()-]+$"))]
    pub tenant: Option<String>,
    /// Labels that each entry has besides `service_name`, `namespace`, `kind` and `decision`, at most ten, such as `cluster: prod`. Names are letters, digits and `_`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Put `stream`, `seq`, `pod`, `leaf` and `level` beside each entry as structured metadata, which Loki takes from version 3 on. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured_metadata: Option<bool>,
    /// User that the ledger is there, with `passwordSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^:]+$"))]
    pub username: Option<String>,
    /// Key of a Secret in Chaperone's namespace whose value is the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretKeyRef>,
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
