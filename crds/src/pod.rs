//! The injected pod: names, numbers and variables that the webhooks put there and check, and that the sidecar expects.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Namespace label that turns injection on, with value `enabled`.
pub const NAMESPACE_LABEL: &str = "chaperone.dev/audit";
/// Value of [`NAMESPACE_LABEL`] that turns injection on.
pub const NAMESPACE_LABEL_VALUE: &str = "enabled";
/// Label of ConfigMaps in Chaperone's namespace that hold descriptor sets of gRPC services; value `true`.
pub const DESCRIPTORS_LABEL: &str = "chaperone.dev/grpc-descriptors";
/// Label that the webhook puts on injected pods, with value `true`.
pub const INJECTED_LABEL: &str = "chaperone.dev/injected";
/// Label, with value `true`, of Secrets in Chaperone's namespace that policies may name as client certificates. No other Secret there is ever sent to a sidecar for a policy.
pub const CLIENT_CERTIFICATE_LABEL: &str = "chaperone.dev/client-certificate";
/// Annotation of such a Secret: the namespaces whose `AgentPolicies` may name it, separated by commas.
pub const CERTIFICATE_NAMESPACES_ANNOTATION: &str = "chaperone.dev/client-certificate-namespaces";
/// Annotation: version of the sidecar that was injected.
pub const VERSION_ANNOTATION: &str = "chaperone.dev/sidecar-version";
/// Annotation: trust variables that the user had set and that were kept, comma-separated `container/NAME`.
pub const KEPT_ENV_ANNOTATION: &str = "chaperone.dev/kept-env";
/// Pod condition through which a replica reports which revision a sidecar runs. Its message is the revision.
pub const APPLIED_CONDITION: &str = "chaperone.dev/PolicyApplied";

/// Name of the sidecar container.
pub const SIDECAR_NAME: &str = "chaperone-sidecar";
/// Uid and gid of the sidecar. No other container may run as it: uid and mark together exempt a packet from capture.
pub const SIDECAR_UID: u32 = 64646;
/// Firewall mark of the sidecar's own packets.
pub const EGRESS_MARK: u32 = 0x4368_6170;
/// Port of the capture listener, loopback only.
pub const CAPTURE_PORT: u16 = 15001;
/// Port of the DNS resolver, loopback only.
pub const DNS_PORT: u16 = 15053;
/// Port of health and metrics.
pub const HEALTH_PORT: u16 = 15020;
/// Name of [`HEALTH_PORT`] in the pod, by which Prometheus finds it. Port names have at most 15 characters.
pub const HEALTH_PORT_NAME: &str = "chaperone-http";
/// NFLOG group of datagrams that passed unread or were refused.
pub const NFLOG_GROUP: u16 = 15;

/// Volume of the trust bundle.
pub const TRUST_VOLUME: &str = "chaperone-trust";
/// Where every container finds the trust bundle.
pub const TRUST_DIR: &str = "/var/run/chaperone/trust";
/// Volume of the spool, sidecar only.
pub const SPOOL_VOLUME: &str = "chaperone-spool";
/// Where the sidecar finds its spool.
pub const SPOOL_DIR: &str = "/var/lib/chaperone/spool";
/// Volume of the projected token, sidecar only.
pub const TOKEN_VOLUME: &str = "chaperone-token";
/// Where the sidecar finds its tokens: `token` for the operator, [`LEDGER_TOKEN_FILE`] for the ledger.
pub const TOKEN_DIR: &str = "/var/run/secrets/chaperone.dev";
/// File in [`TOKEN_DIR`]: the token for the ledger.
pub const LEDGER_TOKEN_FILE: &str = "ledger-token";
/// Audience of the sidecar's token for the operator. No other projected token may have it.
pub const TOKEN_AUDIENCE: &str = "chaperone.dev/operator";
/// Audience of the tokens that the ledger takes: the sidecar's for writing, others' for reading.
pub const LEDGER_AUDIENCE: &str = "chaperone.dev/ledger";

/// File in the trust volume: Mozilla roots, extra roots and Chaperone's root.
pub const BUNDLE_FILE: &str = "ca-bundle.pem";
/// File in the trust volume: Chaperone's root and extra roots only, for variables that add to a client's own roots.
pub const ADDED_ROOTS_FILE: &str = "chaperone-ca.pem";
/// File in the trust volume: the bundle as a PKCS#12 trust store for Java.
pub const TRUSTSTORE_FILE: &str = "truststore.p12";
/// Password of the trust store. It protects nothing: the store holds public certificates.
pub const TRUSTSTORE_PASSWORD: &str = "changeit";

/// Environment of the sidecar: URL of the operator's control port.
pub const ENV_OPERATOR_URL: &str = "CHAPERONE_OPERATOR_URL";
/// Environment of the sidecar: PEM of the root that the operator's certificate chains to.
pub const ENV_OPERATOR_CA: &str = "CHAPERONE_OPERATOR_CA";
/// Environment of the sidecar: most bytes that its spool may hold.
pub const ENV_SPOOL_BYTES: &str = "CHAPERONE_SPOOL_BYTES";
/// Environment of the sidecar: the addresses of the pod's node, separated by commas, as the kubelet fills in [`HOST_IPS_FIELD`].
pub const ENV_HOST_IPS: &str = "CHAPERONE_HOST_IPS";
/// Field of the pod that the downward API has for [`ENV_HOST_IPS`] (Kubernetes 1.29 and later).
pub const HOST_IPS_FIELD: &str = "status.hostIPs";

/// Variables that name a bundle which replaces the client's roots.
pub const REPLACING_VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];
/// Variables that name certificates which are added to the client's roots.
pub const ADDING_VARIABLES: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];
/// Variable of options for every JVM; ours are appended to what is there.
pub const JAVA_VARIABLE: &str = "JAVA_TOOL_OPTIONS";

/// Environment that makes the clients of a container trust the bundle in `trust_dir`: (name, value).
#[must_use]
pub fn trust_environment(trust_dir: &str) -> Vec<(&'static str, String)> {
    let bundle = format!("{trust_dir}/{BUNDLE_FILE}");
    let added = format!("{trust_dir}/{ADDED_ROOTS_FILE}");
    let mut variables: Vec<_> = REPLACING_VARIABLES
        .iter()
        .map(|v| (*v, bundle.clone()))
        .collect();
    variables.extend(ADDING_VARIABLES.iter().map(|v| (*v, added.clone())));
    variables.push((JAVA_VARIABLE, java_options(trust_dir)));
    variables
}

/// JVM options that name the trust store in `trust_dir`.
#[must_use]
pub fn java_options(trust_dir: &str) -> String {
    format!(
        "-Djavax.net.ssl.trustStore={trust_dir}/{TRUSTSTORE_FILE} -Djavax.net.ssl.trustStoreType=PKCS12 \
         -Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD}"
    )
}

/// Who a pod is, as the API server says. For `chaperone run`: the command, with host name as node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodIdentity {
    /// Namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Pod uid.
    pub uid: String,
    /// Service account.
    pub service_account: String,
    /// Node.
    pub node: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Images of the pod's containers, without the sidecar's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}
