//! What operator and sidecar say to each other over the control stream. See ARCHITECTURE.md, "What the parts say to each other".

use serde::{Deserialize, Serialize};

use crate::{
    grpc::DescriptorSet,
    pod::PodIdentity,
    resources::Format,
    snapshot::{CertificateRef, Revision, Snapshot},
    tokenize::MaskKey,
};

/// Seconds between two heartbeats on the stream.
pub const HEARTBEAT_SECONDS: u64 = 10;
/// Seconds of silence after which the sidecar gives a stream up: three heartbeats.
pub const STREAM_SILENCE_SECONDS: u64 = 30;
/// Longest line on the stream, in bytes. A snapshot of 1,000 rules of 2 KiB fits; what is longer is refused.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// One line of the stream `GET /v1/stream`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum ControlMessage {
    /// Everything the sidecar runs by. Replaces what came before.
    Config {
        /// The settings.
        config: Box<PodConfig>,
    },
    /// The operator is alive.
    Heartbeat,
}

/// Everything one sidecar runs by.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodConfig {
    /// Revision of the snapshot.
    pub revision: Revision,
    /// Who this pod is, as the API server says.
    pub identity: PodIdentity,
    /// Policies.
    pub snapshot: Snapshot,
    /// Where records go. Empty: the spool keeps them.
    pub sinks: Vec<SinkConfig>,
    /// PEM certificates that upstreams may chain to, besides the Mozilla roots, and that agents trust too.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub extra_roots: String,
    /// Key of the namespace for `Hash` and `Token`. Absent (from an older operator): both redact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_key: Option<MaskKey>,
    /// What messages of gRPC services are made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc_descriptors: Vec<DescriptorSet>,
    /// Client certificates that upstreams are shown in the agent's place. A reference of a policy that none is for is a certificate that cannot be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub client_certificates: Vec<ClientCertificate>,
}

/// A client certificate and what it is for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificate {
    /// What it is for.
    #[serde(rename = "for")]
    pub use_for: CertificateUse,
    /// The certificate itself.
    pub credential: Credential,
}

/// What a client certificate is for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum CertificateUse {
    /// Policies that name a Secret.
    Policies(CertificateRef),
    /// A host pattern, before what policies say. For `chaperone run`.
    Host(String),
}

/// A client certificate, or why there is none.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Credential {
    /// Chain and key, PEM.
    Usable {
        /// The certificate, then what it chains through.
        chain: String,
        /// Its private key.
        key: String,
    },
    /// There is none.
    Unusable {
        /// Why, as a sentence that says what to do.
        problem: String,
    },
}

impl std::fmt::Debug for Credential {
    /// Never prints the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usable { .. } => f.debug_struct("Usable").finish_non_exhaustive(),
            Self::Unusable { problem } => f
                .debug_struct("Unusable")
                .field("problem", problem)
                .finish(),
        }
    }
}

/// One sink with its credentials resolved.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SinkConfig {
    /// Name of the `AuditSink`.
    pub name: String,
    /// What kind of sink.
    pub target: SinkTarget,
    /// How records are written for it. Absent (from an older operator): as they are.
    #[serde(default, skip_serializing_if = "is_native")]
    pub format: Format,
    /// Which records it gets: an expression over the record. Absent: every record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
}

fn is_native(format: &Format) -> bool {
    *format == Format::Native
}

/// What kind of sink, with its settings.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum SinkTarget {
    /// Standard output of the sidecar.
    Stdout,
    /// A file. In a cluster: a plain name inside the spool volume. For `chaperone run`: any path.
    File {
        /// Where.
        path: String,
    },
    /// HTTP POST of newline-delimited JSON.
    #[serde(rename_all = "camelCase")]
    Http {
        /// Endpoint.
        url: String,
        /// Bearer token.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bearer: Option<String>,
        /// Client certificate chain and key, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_cert: Option<String>,
        /// Client key, PEM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_key: Option<String>,
        /// PEM roots besides the Mozilla ones.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_bundle: Option<String>,
        /// Most records in one batch.
        batch_size: u32,
    },
    /// The ledger.
    #[serde(rename_all = "camelCase")]
    Ledger {
        /// Where it is: `https://HOST[:PORT]`.
        url: String,
        /// PEM roots that its certificate chains to; no others are trusted.
        ca_bundle: String,
        /// File of the sidecar's token for it, read for each request.
        token_file: String,
    },
}

impl std::fmt::Debug for SinkTarget {
    /// Never prints credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("Stdout"),
            Self::File { path } => f.debug_struct("File").field("path", path).finish(),
            Self::Ledger {
                url, token_file, ..
            } => f
                .debug_struct("Ledger")
                .field("url", url)
                .field("token_file", token_file)
                .finish_non_exhaustive(),
            Self::Http {
                url, batch_size, ..
            } => f
                .debug_struct("Http")
                .field("url", url)
                .field("batch_size", batch_size)
                .finish_non_exhaustive(),
        }
    }
}

/// Body of `POST /v1/acks`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    /// The revision that this is about.
    pub revision: Revision,
    /// Whether the sidecar runs it now.
    pub accepted: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Body of `POST /v1/certificates`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CertificateRequest {
    /// PKCS#10 request, PEM. Only its public key is used.
    pub csr: String,
}

/// Answer to `POST /v1/certificates`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct CertificateResponse {
    /// PEM: the pod's intermediate, then Chaperone's root.
    pub chain: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::PolicyKind;

    #[test]
    fn a_client_certificate_crosses_the_stream_and_its_key_is_never_printed() {
        let held = ClientCertificate {
            use_for: CertificateUse::Policies(CertificateRef {
                kind: PolicyKind::AgentPolicy,
                secret: "corp".to_owned(),
            }),
            credential: Credential::Usable {
                chain: "the chain".to_owned(),
                key: "the key".to_owned(),
            },
        };
        let json = serde_json::to_string(&held).unwrap();
        assert_eq!(
            json,
            r#"{"for":{"policies":{"kind":"AgentPolicy","secret":"corp"}},"credential":{"usable":{"chain":"the chain","key":"the key"}}}"#
        );
        assert_eq!(
            serde_json::from_str::<ClientCertificate>(&json).unwrap(),
            held
        );
        assert!(!format!("{held:?}").contains("the key"), "{held:?}");
    }
}
