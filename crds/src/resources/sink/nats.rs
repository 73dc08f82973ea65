//! `spec.nats`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{SecretKeyRef, SecretRef};

/// A stream of NATS JetStream.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!(has(self.allowInsecure) && self.allowInsecure && (has(self.tlsSecret) || has(self.caBundle)))").message("allowInsecure: true means no TLS: leave out tlsSecret and caBundle, or allowInsecure"),
    validation = Rule::new("[has(self.passwordSecret), has(self.tokenSecret), has(self.nkeySecret), has(self.credentialsSecret)].filter(x, x).size() <= 1").message("set one of passwordSecret, tokenSecret, nkeySecret, credentialsSecret, or none"),
    validation = Rule::new("has(self.username) == has(self.passwordSecret)").message("username and passwordSecret go together")
)]
pub struct NatsSink {
    /// Name or address of the server, or a name with the addresses of all servers of a cluster.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^\s/\[\]]+$"))]
    pub host: String,
    /// Port. Default 4222.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// Beginning of the subjects: a record is published as `SUBJECT.NAMESPACE.KIND`. Default chaperone.records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 128),
        regex(pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")
    )]
    pub subject: Option<String>,
    /// Name of the stream that must take the records. It is not made. Default: whichever takes the subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\s.*>/\\]+$"))]
    pub stream: Option<String>,
    /// User that the ledger is there, with `passwordSecret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username: Option<String>,
    /// Key of a Secret in Chaperone's namespace whose value is the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<SecretKeyRef>,
    /// Key of a Secret in Chaperone's namespace whose value is a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret: Option<SecretKeyRef>,
    /// Key of a Secret in Chaperone's namespace whose value is the seed of a user's NKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nkey_secret: Option<SecretKeyRef>,
    /// Key of a Secret in Chaperone's namespace whose value is a credentials file: a user's JWT and its seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretKeyRef>,
    /// Connect without TLS. Records and passwords then cross the network in clear.
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
