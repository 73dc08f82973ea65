//! The audit record, version `chaperone.dev/v2`: what Chaperone leaves as evidence.
//!
//! An [`Event`] is what the data path knows; a [`Record`] is an event in its place in a stream's hash chain. One record is one line of
//! JSON. Invariant: values that a mask or a built-in secret detector finds, `Authorization`, cookies and API keys never stand in a record in clear: whoever
//! builds an event has masked it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{pod::PodIdentity, resources::Mode, snapshot::Revision};

/// Value of a record's `v`.
pub const RECORD_VERSION: &str = "chaperone.dev/v2";

/// Values of `v` that are read: in version 1 texts of bodies stand within them, and are part of what is hashed.
pub const READ_VERSIONS: [&str; 2] = ["chaperone.dev/v1", RECORD_VERSION];

/// Seconds without a record after which a sidecar writes a `stream.heartbeat`. Part of the format: whoever waits for longer than a few of them knows that a stream is cut off.
pub const HEARTBEAT_SECONDS: u64 = 60;

/// One line of evidence: an event in its place in a stream.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Version of this format: `chaperone.dev/v2`; `chaperone.dev/v1` of older records.
    pub v: String,
    /// Stream that the record belongs to: a UUID, one per pod and sidecar.
    pub stream: String,
    /// Place in the stream, from 0, without gaps.
    pub seq: u64,
    /// SHA-256 of the previous record's line as written, without its newline and without `bodies`, in lower-case hex; 64 zeros for the first.
    pub prev: String,
    /// When the event was complete: RFC 3339, UTC, microseconds.
    pub time: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
    /// SHA-256 over the bytes of `bodies`, in lower-case hex. Absent: the record never had texts of bodies. The line's last member but `bodies`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bodies_sha256: Option<String>,
    /// Texts of bodies, by the place where they belong. The line's last member, and no part of what is hashed: absent beside `bodiesSha256` where they were deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bodies: Option<Bodies>,
}

/// Texts of bodies, apart from what is proved.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct Bodies {
    /// 16 random bytes in hex, new for each record: without them nobody can try texts against `bodiesSha256`.
    pub salt: String,
    /// Of the request.
    #[serde(
        rename = "http.requestBody",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub request: Option<Content>,
    /// Of the newest messages in the request.
    #[serde(
        rename = "http.newestMessages",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub newest: Option<Content>,
    /// Of the response.
    #[serde(
        rename = "http.responseBody",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub response: Option<Content>,
    /// Of the message on a WebSocket connection.
    #[serde(
        rename = "message.body",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub message: Option<Content>,
}

/// What was in one body.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The text, masked.
    pub text: String,
}

impl Record {
    /// Reads a line of any version, with texts of bodies at their places, where plain deserialising leaves them in [`Self::bodies`].
    ///
    /// # Errors
    /// When it is no record that this version knows.
    pub fn read(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line).map(Self::joined)
    }

    /// The record with texts of bodies at their places. Whether these are the texts that were written is the line's hash to show.
    #[must_use]
    pub fn joined(mut self) -> Self {
        let bodies = self.bodies.as_mut();
        let Some([request, newest, response, message]) = bodies.map(Bodies::take) else {
            return self;
        };
        if let Some(http) = &mut self.event.http {
            put(&mut http.request_body, request);
            if let (Some(told), Some(newest)) = (&mut http.newest_messages, newest) {
                told.text = Some(newest.text);
            }
            put(&mut http.response_body, response);
        }
        if let Some(told) = &mut self.event.message {
            put(&mut told.body, message);
        }
        self
    }

    /// Whether it had texts of bodies that were deleted since.
    #[must_use]
    pub fn is_content_deleted(&self) -> bool {
        self.bodies_sha256.is_some() && self.bodies.is_none()
    }
}

impl Bodies {
    fn take(&mut self) -> [Option<Content>; 4] {
        [
            &mut self.request,
            &mut self.newest,
            &mut self.response,
            &mut self.message,
        ]
        .map(Option::take)
    }
}

/// A body that the record does not describe has no text.
fn put(body: &mut Option<BodyInfo>, content: Option<Content>) {
    if let (Some(body), Some(content)) = (body, content) {
        body.text = Some(content.text);
    }
}

/// What happened. `kind` tells which fields are there.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// What kind of event this is.
    pub kind: EventKind,
    /// Whose event it is.
    pub agent: AgentRef,
    /// Where the agent meant to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<DestinationInfo>,
    /// What it meant to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationInfo>,
    /// What Chaperone decided, and by which policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionInfo>,
    /// Number (`seq`) of the record that said that this was about to begin: of kind `begin`, or for a connection that passes unread the first of its two of kind `gap`. Absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// The HTTP exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpInfo>,
    /// The gRPC call that the HTTP exchange was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcInfo>,
    /// The message on a WebSocket connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageInfo>,
    /// The WebSocket connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ws: Option<WsInfo>,
    /// The DNS query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsInfo>,
    /// Traffic that Chaperone did not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<GapInfo>,
    /// What opened a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<OpenInfo>,
    /// Whose stream it is, as the ledger found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityInfo>,
    /// Who read what of the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<ReadInfo>,
    /// A pod that runs where a stream is expected, or that has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodInfo>,
    /// A checkpoint of the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointInfo>,
    /// What of the ledger is about to be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased: Option<ErasedInfo>,
    /// A legal hold, or its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldInfo>,
    /// What closed a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close: Option<CloseInfo>,
    /// Which policies took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigInfo>,
    /// What was masked, by mask and detector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<MaskedInfo>,
    /// Hints for correlation that the agent itself sent. Never authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionInfo>,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    /// What went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Event {
    /// Texts of bodies, with their places in the record, in order.
    pub fn content(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let http = self.http.as_ref();
        let request = http.and_then(|http| http.request_body.as_ref());
        let newest = http.and_then(|http| http.newest_messages.as_ref());
        let response = http.and_then(|http| http.response_body.as_ref());
        let message = self.message.as_ref().and_then(|told| told.body.as_ref());
        [
            (
                "http.requestBody",
                request.and_then(|body| body.text.as_deref()),
            ),
            (
                "http.newestMessages",
                newest.and_then(|newest| newest.text.as_deref()),
            ),
            (
                "http.responseBody",
                response.and_then(|body| body.text.as_deref()),
            ),
            (
                "message.body",
                message.and_then(|body| body.text.as_deref()),
            ),
        ]
        .into_iter()
        .filter_map(|(place, text)| Some((place, text?)))
    }

    /// An event of this kind and agent with nothing else in it.
    #[must_use]
    pub fn new(kind: EventKind, agent: AgentRef) -> Self {
        Self {
            kind,
            agent,
            destination: None,
            operation: None,
            decision: None,
            begun: None,
            http: None,
            grpc: None,
            message: None,
            ws: None,
            dns: None,
            gap: None,
            open: None,
            identity: None,
            read: None,
            pod: None,
            checkpoint: None,
            erased: None,
            hold: None,
            close: None,
            config: None,
            masked: Vec::new(),
            session: None,
            timing: None,
            error: None,
        }
    }
}

/// What kind of event a record is about.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A stream begins.
    #[serde(rename = "stream.open")]
    StreamOpen,
    /// The sidecar's container restarted and continues the stream.
    #[serde(rename = "stream.resume")]
    StreamResume,
    /// Nothing else was recorded for a minute: the stream goes on, and is whole up to here.
    #[serde(rename = "stream.heartbeat")]
    StreamHeartbeat,
    /// A stream ends in good order.
    #[serde(rename = "stream.close")]
    StreamClose,
    /// The ledger says whose a stream is: before the stream's first record, and whenever what the API server says of the pod is new.
    #[serde(rename = "stream.identity")]
    StreamIdentity,
    /// Somebody read evidence from the ledger, or was refused. On disk before the answer leaves.
    #[serde(rename = "ledger.read")]
    LedgerRead,
    /// The ledger saw that a pod runs where a stream is expected of each, or that it has ended.
    #[serde(rename = "ledger.pod")]
    LedgerPod,
    /// A signed checkpoint of the ledger, so that it reaches wherever records go.
    #[serde(rename = "ledger.checkpoint")]
    LedgerCheckpoint,
    /// Something of the ledger is about to be deleted. On disk before it is.
    #[serde(rename = "ledger.erased")]
    LedgerErased,
    /// Somebody has put a legal hold on evidence: nothing deletes it any more.
    #[serde(rename = "ledger.hold")]
    LedgerHold,
    /// Somebody has ended a legal hold.
    #[serde(rename = "ledger.release")]
    LedgerRelease,
    /// Other policies took effect.
    #[serde(rename = "config")]
    Config,
    /// An operation is about to leave. There where policy asks for `audit.commit: Disk`, and then always on disk before the operation's first byte leaves.
    #[serde(rename = "begin")]
    Begin,
    /// One HTTP request and its response.
    #[serde(rename = "http")]
    Http,
    /// One message on a WebSocket connection.
    #[serde(rename = "ws.message")]
    WsMessage,
    /// A WebSocket connection is over.
    #[serde(rename = "ws.close")]
    WsClose,
    /// One DNS query.
    #[serde(rename = "dns")]
    Dns,
    /// A connection or datagram flow that Chaperone did not read: passed or refused.
    #[serde(rename = "gap")]
    Gap,
    /// A connection that ended before any operation: upstream unreachable, handshake failed, malformed bytes.
    #[serde(rename = "connection")]
    Connection,
}

/// Whose event it is. The stream's first record has the full identity.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AgentRef {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Service account.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account: String,
}

impl From<&PodIdentity> for AgentRef {
    fn from(identity: &PodIdentity) -> Self {
        Self {
            namespace: identity.namespace.clone(),
            pod: identity.pod.clone(),
            service_account: identity.service_account.clone(),
        }
    }
}

/// Where the agent meant to go.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DestinationInfo {
    /// Name that the agent used: Host, SNI, or a name that the resolver gave this address for; for the API server and the node's kubelet always their own. Absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Address that the connection went to: the one that the agent connected to, unless `originalIp` is there.
    pub ip: String,
    /// Address that the agent connected to, where it took no connection and another address of the same name was dialled in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_ip: Option<String>,
    /// Port.
    pub port: u16,
    /// Server name of the TLS ClientHello. In kind `http` only where it is not `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// `address:port` of the HTTP proxy that the agent goes through. `host` and `port` are then what it asks the proxy for; `ip` is the proxy's unless it asks for an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Client certificate that Chaperone presented in the agent's place to the server that it connected to. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CertificateInfo>,
}

/// A certificate.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateInfo {
    /// Its subject, such as `CN=agents, O=Example`; at most 256 characters.
    pub subject: String,
    /// SHA-256 of its DER bytes, in 64 hexadecimal digits.
    pub sha256: String,
}

/// What the agent meant to do.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OperationInfo {
    /// Protocol: http, tls, tcp, udp, icmp, dns.
    pub protocol: String,
    /// HTTP method, DNS query type, or `connect`.
    pub verb: String,
    /// URL as the agent meant it, name asked, or `address:port`; masked.
    pub resource: String,
}

/// Allow or Deny, as it took effect.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It passed.
    Allow,
    /// It was refused.
    Deny,
}

/// What Chaperone decided, and by what.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DecisionInfo {
    /// What happened.
    pub action: Outcome,
    /// True when a policy in mode Audit would have denied what passed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub would_deny: bool,
    /// Whether the pod was in Audit or Enforce.
    pub mode: Mode,
    /// Policy that decided (`namespace/name`, or `name` of a cluster policy). Absent: the default, or a built-in rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Rule that decided. Absent: the policy's default action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Revision of the snapshot that decided.
    pub revision: Revision,
    /// Why, as a word of a closed list: rule, default, evaluation-error, host-mismatch, malformed, opaque, and so on.
    pub reason: String,
    /// What the agent was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One HTTP exchange. Method and URL are the operation's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpInfo {
    /// Status that the agent received. Absent: none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of the request's body. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub request_bytes: u64,
    /// Bytes of the response's body as the upstream sent it. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub response_bytes: u64,
    /// False when the exchange ended before the response was complete. Absent: true.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub complete: bool,
    /// Content type of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Request headers, masked; from level Request on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_headers: Option<BTreeMap<String, String>>,
    /// Request body, masked, cut at maxBodyBytes; from level Request on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_body: Option<BodyInfo>,
    /// The newest messages of a conversation with a model, where `requestBody` is cut before they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_messages: Option<NewestInfo>,
    /// Response headers, masked; at level RequestResponse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_headers: Option<BTreeMap<String, String>>,
    /// Response body, masked, cut at maxBodyBytes; at level RequestResponse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_body: Option<BodyInfo>,
}

/// The gRPC call of an HTTP exchange.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GrpcInfo {
    /// Full name of the service.
    pub service: String,
    /// Name of the method.
    pub method: String,
    /// Status code that the agent received: 0 is OK, 7 PERMISSION_DENIED. Absent: none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// Messages from the agent that were sent whole. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub request_messages: u64,
    /// Their bytes, as encoded. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub request_message_bytes: u64,
    /// Messages to the agent that arrived whole. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub response_messages: u64,
    /// Their bytes, as encoded. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub response_message_bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// No text is written where its body is: [`crate::chain`] writes it at the end of the line.
fn stands_apart(_: &Option<String>) -> bool {
    true
}

fn is_true(flag: &bool) -> bool {
    *flag
}

fn yes() -> bool {
    true
}

/// A body, or its beginning.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BodyInfo {
    /// The text, where the bytes are UTF-8. It stands here in records of version 1; since then in `bodies` of the record, and is never written here.
    #[serde(default, skip_serializing_if = "stands_apart")]
    pub text: Option<String>,
    /// Why there is no text: `binary`, the content coding that was not undone, or why a gRPC message cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omitted: Option<String>,
    /// True when the body was longer than what is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// The newest messages of a conversation with a model: those since its last answer, out of a request's body.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct NewestInfo {
    /// The messages, masked, as they stand in the list of messages, a comma between two; cut at maxBodyBytes. It stands in `bodies` of the record, and is never written here.
    #[serde(default, skip_serializing_if = "stands_apart")]
    pub text: Option<String>,
    /// Bytes of the body, as masked, before the first of them.
    pub at: u64,
    /// True when they were longer than what is kept: the first of them are not there, or the last has no end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// One message on a WebSocket connection. Direction and URL are the operation's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MessageInfo {
    /// Number of the connection, as its `ws.close` has it.
    pub connection: u64,
    /// Bytes of the message, decompressed, as its sender wrote it.
    pub bytes: u64,
    /// True for a binary message. Absent: text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
    /// The text, masked, cut at maxBodyBytes: the agent's from level Request on, the upstream's at level RequestResponse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyInfo>,
}

/// A WebSocket connection that is over. Its handshake is a record of kind `http`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct WsInfo {
    /// Number of the connection, counted from 1 since the sidecar's container started.
    pub connection: u64,
    /// Who ended it: agent, upstream, chaperone.
    pub closed_by: String,
    /// Close code that the one who ended it gave (RFC 6455 section 7.4). Absent: it ended without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// Messages from the agent. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sent_messages: u64,
    /// Their bytes, decompressed. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sent_bytes: u64,
    /// Messages from the upstream. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub received_messages: u64,
    /// Their bytes, decompressed. Absent: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub received_bytes: u64,
}

/// One DNS query. Name and type are the operation's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DnsInfo {
    /// Response code: NOERROR, NXDOMAIN, and so on.
    pub rcode: String,
    /// Addresses answered, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
    /// Addresses that the nameserver answered and the agent did not get, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<String>,
}

/// Traffic that Chaperone did not read.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GapInfo {
    /// Why it was not read, as a word of a closed list: passthrough, api-server, pinned-client, unverifiable-upstream, upstream-handshake, client-certificate, unusable-certificate, unread-alpn, opaque, tunnel, datagram, quic, unreported-packets.
    pub reason: String,
    /// More, in words: how to close the gap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Bytes from the agent, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
    /// Bytes to the agent, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// Packets of which nothing else is known (unreported-packets).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
}

/// What opened (or resumed) a stream.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OpenInfo {
    /// Full identity of the pod.
    pub identity: PodIdentity,
    /// Version of the sidecar.
    pub version: String,
}

/// Whose a stream is. Written by the ledger, of what TokenReview and the API server say; nothing of it is the pod's own word.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct IdentityInfo {
    /// The stream that this is about.
    pub stream: String,
    /// The pod that its records come from.
    pub workload: PodIdentity,
    /// What its containers run, as the kubelet reports it: image IDs, most with a digest. Empty before they start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_ids: Vec<String>,
    /// Number of the record with which the stream begins in this ledger, or goes on, because nobody has those before it any more. Absent: none are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// Who read what of the ledger. Written by the ledger, of what TokenReview says of the reader's token.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ReadInfo {
    /// Name of the user.
    pub user: String,
    /// Uid of the user.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups of the user, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What was asked for: records, record, sessions, session, gaps; sink.test where a sink was tried.
    pub what: String,
    /// The question: its parameters, and what the path names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Records (or sessions) in the answer. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub records: u64,
    /// Questions of this user about this namespace that were refused for want of a right since the last such record. Absent: the question was answered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
}

/// A pod of an audited namespace, as the ledger saw it. Written by the ledger, of what the API server says.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodInfo {
    /// What it saw: running (a container besides the sidecar has started), ended (all have, or the pod is gone).
    pub state: String,
    /// Uid of the pod.
    pub uid: String,
    /// Its node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Why no stream can come from it: no-sidecar, no-token, exempt. Absent: one is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
    /// When it began to run, as the API server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Of a pod that ended while the ledger did not look: when it was last known to be there. Absent: the ledger saw it end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A signed checkpoint of the ledger: what the log was when it was signed, and for ever begins with.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointInfo {
    /// Which log.
    pub origin: String,
    /// How many records it had.
    pub size: u64,
    /// Root of the tree over them, in base64.
    pub root: String,
    /// The checkpoint as it was signed: all of it, with its signatures (C2SP tlog-checkpoint).
    pub note: String,
}

/// What of the ledger is about to be deleted, and why. Written by the ledger.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ErasedInfo {
    /// What goes: content (of bodies), records (of which the hashes stay).
    pub what: String,
    /// Why: retention (a rule says so), request (somebody asked for it).
    pub cause: String,
    /// The rule: the namespaces that it names, and for how long it keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Why, in the words of who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The session that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The namespace that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Sessions that something goes of, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<String>,
    /// Streams that something goes of, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<String>,
    /// Sessions and streams beyond these. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: u64,
    /// What goes came to the ledger at this time or later.
    pub from: String,
    /// What goes came to the ledger before this time.
    pub until: String,
    /// Keys of content that are destroyed. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keys: u64,
    /// Records that are deleted. Absent: none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub records: u64,
}

/// A legal hold: what it names is not deleted by anything. Written by the ledger.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HoldInfo {
    /// Its name.
    pub name: String,
    /// Why it was put, or ended.
    pub reason: String,
    /// Who put it, or ended it.
    #[serde(default)]
    pub user: String,
    /// It holds this session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// It holds this stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// It holds this namespace; of a session, the session in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Of the namespace this pod alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// It holds all that there is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everything: bool,
    /// Of that what came to the ledger at this time or later. Absent: since ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Of that what came to the ledger before this time. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What closed a stream.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CloseInfo {
    /// Records in the stream, this one included.
    pub records: u64,
    /// Why: terminated, command-ended.
    pub reason: String,
}

/// Which policies took effect.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ConfigInfo {
    /// Revision of the snapshot.
    pub revision: Revision,
    /// Audit or Enforce.
    pub mode: Mode,
    /// The policies: `namespace/name@generation`, or `name@generation` of a cluster policy.
    pub policies: Vec<String>,
    /// The snapshot itself, as JSON: the text of all policies, whose SHA-256 begins with the revision. Absent where it is longer than 262144 bytes, or where records had to wait when the policies took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
}

/// What one detector of one mask found.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaskedInfo {
    /// Name of the mask; `builtin` for secrets that are always masked in records.
    pub mask: String,
    /// Detector or custom pattern.
    pub detector: String,
    /// How many times.
    pub count: u64,
}

/// Hints for correlation that a Claude client sends.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SessionInfo {
    /// `x-claude-code-session-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `x-claude-code-agent-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// `x-client-request-id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// How long it took, in microseconds.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Timing {
    /// From the first byte of the operation to its end.
    pub total_us: u64,
    /// From the request's head being sent upstream to the response's head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_us: Option<u64>,
    /// Deciding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decide_us: Option<u64>,
}
