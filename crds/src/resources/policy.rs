//! `AgentPolicy` and `ClusterAgentPolicy`: what agents may do.

// `KubeSchema` repeats each struct inside a function, where `pub` reaches nothing.
#![allow(unreachable_pub)]
// Printer columns repeat `type_`, which clippy takes for one attribute given twice.
#![allow(clippy::duplicated_attributes)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SecretRef;
use crate::detect::{Builtin, CustomPattern, FIELD, HEADER, MaskWith};

/// Longest `when` expression, in bytes. CEL's evaluator recurses: a longer chain of terms could exhaust the stack.
pub const MAX_WHEN_BYTES: usize = 2048;
/// Largest `maxBodyBytes`, in bytes: what one record may hold of one body.
pub const MAX_BODY_BYTES: u32 = 262_144;
/// `maxBodyBytes` where a policy does not say, in bytes.
pub const DEFAULT_BODY_BYTES: u32 = 65_536;

/// Spec of an `AgentPolicy`.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "chaperone.dev",
    version = "v1alpha1",
    kind = "AgentPolicy",
    plural = "agentpolicies",
    singular = "agentpolicy",
    shortname = "agp",
    category = "chaperone",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "AgentPolicy says what the agents it selects in its namespace may do: rules on their traffic, masks on what comes back, and how much of it is recorded.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.selected"),
    printcolumn(
        name = "Applied",
        type_ = "integer",
        json_path = ".status.pods.applied"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentPolicySpec {
    /// Labels of the pods that this policy applies to. Empty or absent: every injected pod of the namespace.
    #[serde(default)]
    pub selector: LabelSelector,
    /// Audit (the default) records what the rules would have denied and lets it pass; Enforce denies it.
    #[serde(default)]
    pub mode: Mode,
    /// What happens to an operation that no rule matches: Allow (the default) or Deny.
    #[serde(default)]
    pub default_action: Action,
    /// Rules, each with a name that records and refusals cite. Order does not matter: any matching Deny wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rules: Vec<PolicyRule>,
    /// Masks on text that comes back to the agent, or leaves it. What they find never reaches a record in clear either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub masks: Vec<Mask>,
    /// How TLS is treated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How much is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
}

/// Spec of a `ClusterAgentPolicy`: an `AgentPolicySpec` plus the namespaces it reaches.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "chaperone.dev",
    version = "v1alpha1",
    kind = "ClusterAgentPolicy",
    plural = "clusteragentpolicies",
    singular = "clusteragentpolicy",
    shortname = "cagp",
    category = "chaperone",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "ClusterAgentPolicy is an AgentPolicy for agents in all namespaces that it selects. What it denies, no AgentPolicy can allow.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Pods", type_ = "integer", json_path = ".status.pods.selected"),
    printcolumn(
        name = "Applied",
        type_ = "integer",
        json_path = ".status.pods.applied"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterAgentPolicySpec {
    /// Labels of the namespaces whose pods this policy may select. Empty or absent: every namespace that Chaperone audits.
    #[serde(default)]
    pub namespace_selector: LabelSelector,
    /// Labels of the pods that this policy applies to. Empty or absent: every injected pod of the selected namespaces.
    #[serde(default)]
    pub selector: LabelSelector,
    /// Audit (the default) records what the rules would have denied and lets it pass; Enforce denies it.
    #[serde(default)]
    pub mode: Mode,
    /// What happens to an operation that no rule matches: Allow (the default) or Deny. A Deny here can only be lifted by an Allow rule of a ClusterAgentPolicy.
    #[serde(default)]
    pub default_action: Action,
    /// Rules, each with a name that records and refusals cite. Order does not matter: any matching Deny wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rules: Vec<PolicyRule>,
    /// Masks on text that comes back to the agent, or leaves it. What they find never reaches a record in clear either.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub masks: Vec<Mask>,
    /// How TLS is treated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How much is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
}

/// Whether denials happen or are only recorded.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
)]
pub enum Mode {
    /// Record what would have been denied; deny nothing.
    #[default]
    Audit,
    /// Deny what the rules deny.
    Enforce,
}

/// What a rule or a default says of an operation.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// The operation may pass.
    #[default]
    Allow,
    /// The operation is refused.
    Deny,
}

/// A protocol that a rule can be about.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// One HTTP request, in clear text or inside intercepted TLS.
    Http,
    /// A TLS connection that passes unread: a passthrough host or the API server of the cluster.
    Tls,
    /// A TCP connection of a protocol that Chaperone does not read.
    Tcp,
    /// A UDP flow other than DNS and QUIC.
    Udp,
    /// ICMP and ICMPv6 messages.
    Icmp,
    /// One DNS query; `hosts` are then the names asked for.
    Dns,
}

impl Protocol {
    /// The name in policies and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Dns => "dns",
        }
    }
}

/// One rule: if the operation is one of `match` and `when` is true, the action applies.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.match) || !has(self.match.protocols) || !self.match.protocols.exists(p, p == 'udp' || p == 'icmp') || (!has(self.when) && has(self.match.hosts))").message("a rule on udp or icmp is enforced by the packet filter: it needs match.hosts (addresses or CIDRs) and cannot have when")
)]
pub struct PolicyRule {
    /// Name of the rule, unique in the policy: lower case letters, digits and dashes. Records and refusals cite it.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Which operations the rule is about. Absent: all.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<Match>,
    /// A CEL expression that must be true for the rule to apply, such as `http.method == "DELETE"`. Absent: true. Variables:
    /// agent, destination, operation, http and grpc where the operation is an HTTP request, and dns where it is a DNS query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub when: Option<String>,
    /// Allow or Deny.
    pub action: Action,
    /// What the agent is told when the rule denies. One sentence that says what to do instead helps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500))]
    pub message: Option<String>,
}

/// Which operations a rule is about. Every list that is given must contain the operation.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// Protocols: http (requests), tls (connections that pass unread), tcp (connections of unknown protocols), udp, icmp, dns (queries, by the name asked). Absent:
    /// http where the rule has methods or reads http; else http, tls and tcp, for a Deny without when also udp and icmp, and if that has no hosts either, dns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 6))]
    pub protocols: Vec<Protocol>,
    /// Destinations: a name (`api.example.com`), names below a domain (`*.example.com`), everything (`*`), an address, or a CIDR (`10.0.0.0/8`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub hosts: Vec<String>,
    /// Destination ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<u16>,
    /// HTTP methods, in upper case. Only for http.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 20),
        inner(length(min = 1, max = 32), regex(pattern = r"^[A-Z][A-Z-]*$"))
    )]
    pub methods: Vec<String>,
}

/// What is masked in text that comes back to the agent, or leaves it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("(has(self.detectors) && size(self.detectors) > 0) || (has(self.patterns) && size(self.patterns) > 0) || (has(self.fields) && size(self.fields) > 0) || (has(self.headers) && size(self.headers) > 0)").message("a mask needs at least one entry in detectors, patterns, fields or headers"),
    validation = Rule::new("!has(self.restoreTo) || (has(self.with) && self.with == 'Token')").message("only tokens can be restored; set with: Token")
)]
pub struct Mask {
    /// Name of the mask, unique in the policy: lower case letters, digits and dashes.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Which exchanges are masked, by host and port. Absent: all.
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<MaskMatch>,
    /// Built-in detectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 13))]
    pub detectors: Vec<Builtin>,
    /// Your own patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub patterns: Vec<CustomPattern>,
    /// Values that are replaced whole, by their place: paths into JSON documents (`$.customer.phone`, `$.items[*].ssn`, `$..password`, `$.a["b c"]`), also in lines of
    /// NDJSON and in events; top-level paths into forms. Objects and arrays too; null stays. JSON inside a string is text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    pub fields: Vec<String>,
    /// Header fields whose values are replaced whole: names in lower case (`set-cookie`), or how they begin (`x-internal-*`). Detectors and patterns look at the values of all others
    /// but those that frame, route, cache or negotiate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), inner(length(min = 1, max = 128)))]
    pub headers: Vec<String>,
    /// Which way: Response (the default), what comes back to the agent; Request, what leaves it (URL, header fields and text bodies, but not its own credentials: Authorization,
    /// Proxy-Authorization, Cookie); Both.
    #[serde(default, skip_serializing_if = "is_response")]
    pub direction: Direction,
    /// What replaces a match: Redact (the default), Last4, Null, Hash or Token.
    #[serde(default)]
    pub with: MaskWith,
    /// Destinations, written as in a rule, at which the tokens of this mask become their values again on the way out. Only with Token.
    /// Absent: none. Whoever these are sees the values, so name only those that have them already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub restore_to: Vec<String>,
}

/// Which way a mask looks.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// At what comes back to the agent.
    #[default]
    Response,
    /// At what leaves it.
    Request,
    /// At both.
    Both,
}

// By reference, as serde calls it.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_response(direction: &Direction) -> bool {
    *direction == Direction::Response
}

impl Mask {
    /// Names of its detectors and patterns, and those of fields and headers where it has some.
    pub fn detector_names(&self) -> impl Iterator<Item = &str> {
        let builtins = self.detectors.iter().map(|detector| detector.name());
        let patterns = self.patterns.iter().map(|pattern| pattern.name.as_str());
        let fields = (!self.fields.is_empty()).then_some(FIELD);
        let headers = (!self.headers.is_empty()).then_some(HEADER);
        builtins.chain(patterns).chain(fields).chain(headers)
    }
}

/// Which responses a mask is about.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaskMatch {
    /// Destinations, written as in a rule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub hosts: Vec<String>,
    /// Destination ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<u16>,
}

/// How TLS is treated.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// Server names whose TLS passes unread, each connection a recorded gap: a name or `*.example.com`. For clients that accept one certificate only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 253)))]
    pub passthrough: Vec<String>,
    /// What holds for TLS with single servers. Where several entries name one server, of all policies: the highest minVersion holds, roots add up, and the first certificate is presented, cluster policies first. No server is
    /// both here and under passthrough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub upstreams: Vec<Upstream>,
}

/// What holds for TLS with some servers.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.caBundle) || has(self.minVersion) || has(self.clientCertificateSecret)").message("say what holds for these hosts: caBundle, minVersion or clientCertificateSecret"),
    validation = Rule::new("!has(self.trust) || self.trust != 'Only' || has(self.caBundle)").message("trust: Only needs a caBundle; without one no server could be verified")
)]
pub struct Upstream {
    /// The servers, by the name that their certificate is verified for: a name or `*.example.com`. An address or CIDR is about connections without a server name. `*` only
    /// with nothing but minVersion.
    #[schemars(length(min = 1, max = 100), inner(length(min = 1, max = 253)))]
    pub hosts: Vec<String>,
    /// PEM certificates that these servers' certificates may chain to. They vouch for no other server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,
    /// Add (the default): caBundle counts besides the roots that hold everywhere. Only: instead of them. What a ClusterAgentPolicy lists as Only, no AgentPolicy can add to.
    #[serde(default)]
    pub trust: Trust,
    /// Lowest version of TLS that is spoken with these servers: TLS1.2 (what holds everywhere) or TLS1.3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// A kubernetes.io/tls Secret in Chaperone's own namespace: the client certificate that Chaperone presents to these servers in the agent's place. It needs the label
    /// `chaperone.dev/client-certificate: "true"`, and for an AgentPolicy the annotation `chaperone.dev/client-certificate-namespaces` with the policy's namespace in its list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret: Option<SecretRef>,
}

/// Whether listed roots count besides the usual ones or instead of them.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Besides the Mozilla roots and the chart's `extraRoots`.
    #[default]
    Add,
    /// Instead of them.
    Only,
}

/// A version of TLS.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "TLS1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "TLS1.3")]
    Tls13,
}

impl TlsVersion {
    /// As policies write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLS1.2",
            Self::Tls13 => "TLS1.3",
        }
    }
}

/// How much is recorded.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Audit {
    /// Metadata (the default): who, what, where, decision, sizes, timing. Request: also request headers and body. RequestResponse: also response headers and body.
    #[serde(default)]
    pub level: Level,
    /// Most bytes of one body that a record keeps, 0 to 262144.
    #[serde(default = "default_body_bytes")]
    #[schemars(range(min = 0, max = 262_144))]
    pub max_body_bytes: u32,
    /// What must hold an operation's record before a byte of it is forwarded. Async (the default): nothing; records are on the sidecar's disk within 50 ms. Disk: the disk, synced. Ledger: the ledger's disk, synced and acknowledged; what it does not acknowledge within 30 s is refused.
    #[serde(default, skip_serializing_if = "Commit::is_default")]
    pub commit: Commit,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            level: Level::default(),
            max_body_bytes: DEFAULT_BODY_BYTES,
            commit: Commit::default(),
        }
    }
}

fn default_body_bytes() -> u32 {
    DEFAULT_BODY_BYTES
}

/// What must hold an operation's record before a byte of it is forwarded.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum Commit {
    /// Nothing: an operation is recorded when it is over, and its record is on disk within 50 ms.
    #[default]
    Async,
    /// The sidecar's disk, synced: a record of kind `begin` is there before the operation leaves.
    Disk,
    /// The ledger's disk, synced: the record of kind `begin` is acknowledged by the ledger before the operation leaves.
    Ledger,
}

impl Commit {
    /// Whether it is what holds where nothing is said. So sidecars that do not know it understand policies that do not use it.
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How much of an operation a record holds.
#[derive(
    Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord,
)]
pub enum Level {
    /// Who, what, where, decision, sizes and timing.
    #[default]
    Metadata,
    /// Also request headers and body.
    Request,
    /// Also response headers and body.
    RequestResponse,
}

/// What the operator reports about a policy.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// The generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: the policy compiles and every selected pod runs it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Pods that the policy selects, and how many of them run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<PodCounts>,
    /// Short hash of the spec that the counts are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// Pods that a policy selects and that run it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodCounts {
    /// Injected pods that the policy selects.
    pub selected: i32,
    /// Selected pods whose sidecar acknowledged the current revision.
    pub applied: i32,
}
