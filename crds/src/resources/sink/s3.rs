//! `spec.s3`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretRef;

/// Objects of a bucket of S3, or of a store with its API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.endpoint) || self.endpoint.startsWith('https://') || (has(self.allowInsecure) && self.allowInsecure)").message("endpoint must start with https:// (or set allowInsecure: true for http://)")
)]
pub struct S3Sink {
    /// Name of the bucket. It is not made.
    #[schemars(
        length(min = 3, max = 63),
        regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")
    )]
    pub bucket: String,
    /// Region. Default us-east-1, which stores that know no regions take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9-]+$"))]
    pub region: Option<String>,
    /// Where the store is, if it is not AWS: `https://HOST`. The bucket stands in the path then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 8, max = 2048),
        regex(pattern = r"^https?://[^\s/?#]+/?$")
    )]
    pub endpoint: Option<String>,
    /// Beginning of the objects' names. Default chaperone/ and the sink's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        regex(
            pattern = r"^[A-Za-z0-9!_*'()=-][A-Za-z0-9!_.*'()=-]*(/[A-Za-z0-9!_*'()=-][A-Za-z0-9!_.*'()=-]*)*/?$"
        )
    )]
    pub prefix: Option<String>,
    /// What objects are: `NDJSON` (a record a line, compressed by zstd) or `Parquet` (a row for each record, with columns of what is asked most and the record's line). Default NDJSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<S3Format>,
    /// Name of a Secret in Chaperone's namespace with the keys `access-key-id` and `secret-access-key`, and `session-token` where there is one.
    pub credentials_secret: SecretRef,
    /// Allow a plain http:// endpoint. Records then cross the network in clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// Name of a kubernetes.io/tls Secret in Chaperone's namespace: client certificate for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretRef>,
    /// PEM certificates that the store's certificate may chain to, besides the Mozilla roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

/// What objects are: `NDJSON` (a record a line, compressed by zstd) or `Parquet` (a row for each record, with columns of what is asked most and the record's line). Default NDJSON.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum S3Format {
    /// A record a line, compressed.
    #[default]
    #[serde(rename = "NDJSON")]
    Ndjson,
    /// A row for each record.
    Parquet,
}
