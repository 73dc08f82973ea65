//! Deciding: a pure function of a compiled snapshot, an agent and one operation.
//!
//! Owns what an operation looks like to policy and what a decision says. Refuses to guess: what cannot be evaluated is an error, and an error
//! never helps the agent (see "Merge semantics" in ARCHITECTURE.md). Invariant: the same snapshot, agent and operation give the same decision.
//!
//! The data path asks in two steps, because a body is read only when a rule needs it:
//!
//! 1. [`CompiledSnapshot::candidates`](crate::compile::CompiledSnapshot::candidates) looks up the rules whose `match` fits;
//! 2. if [`Candidates::needs_body`], the data path buffers the body up to [`MAX_JUDGED_BODY_BYTES`];
//! 3. [`Candidates::decide`] evaluates `when` and merges.

#[cfg(test)]
pub(crate) mod fixtures;
mod index;
mod merge;
mod metadata;
mod opens;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, sync::Arc};

pub use index::Candidates;
pub(crate) use index::RuleIndex;
pub use metadata::is_metadata_address;

use crate::{record::Outcome, resources::Protocol, snapshot::PolicyRef};

/// Most bytes of a request body that are held for a rule that reads `http.body` or `http.detected`. What is longer cannot be judged: an error, which in Enforce denies.
/// One MiB: a long model conversation fits, and a hundred connections at once stay within a sidecar's memory.
pub const MAX_JUDGED_BODY_BYTES: usize = 1024 * 1024;

/// One thing that an agent means to do, as policy sees it. Borrows from the data path; nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Protocol.
    pub protocol: Protocol,
    /// HTTP method, DNS query type, or `connect`.
    pub verb: &'a str,
    /// URL, name asked, or `address:port`.
    pub resource: &'a str,
    /// Where it goes.
    pub destination: Destination<'a>,
    /// The request, when `protocol` is [`Protocol::Http`].
    pub http: Option<HttpView<'a>>,
    /// The message, when the operation is one on a WebSocket connection; `http` is then the handshake that opened it.
    pub ws: Option<WsView<'a>>,
    /// The message, when the operation is one of a gRPC call; `http` is then the request that began it.
    pub grpc: Option<GrpcView<'a>>,
    /// The query, when `protocol` is [`Protocol::Dns`].
    pub dns: Option<DnsView<'a>>,
}

impl Operation<'_> {
    /// Whether it is a message in what was let pass before: on a WebSocket connection, or of a gRPC call.
    #[must_use]
    pub fn is_message(&self) -> bool {
        self.ws.is_some() || self.grpc.is_some()
    }
}

/// One DNS query. `destination.host` is the name as well; address and port play no part, for the sidecar's own resolver answers.
#[derive(Clone, Copy, Debug)]
pub struct DnsView<'a> {
    /// Name asked, in lower case, without the final dot.
    pub name: &'a str,
    /// Type asked: `A`, `AAAA`, `TXT`, …
    pub kind: &'a str,
    /// Names that the client may be on its way to with this query, by its search list and by RFC 8552's underscored labels: an Allow rule for one of them lets the query
    /// pass too. A Deny rule is about `name` alone.
    pub towards: &'a [String],
}

/// Where an operation goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// Name that the agent used, without port. Any case; one trailing dot is ignored.
    pub host: Option<&'a str>,
    /// Address that the agent connected to.
    pub ip: IpAddr,
    /// Port; 0 where the protocol has none.
    pub port: u16,
    /// Server name of the TLS ClientHello.
    pub sni: Option<&'a str>,
}

/// One HTTP request.
#[derive(Clone, Copy)]
pub struct HttpView<'a> {
    /// Method, as sent.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host without port.
    pub host: &'a str,
    /// Path as sent, without the query. Policy sees it decoded and normalised.
    pub path: &'a str,
    /// Query as sent, without the question mark; empty where there is none.
    pub query: &'a str,
    /// Header fields.
    pub headers: &'a dyn HeaderFields,
    /// Value of `Content-Type`.
    pub content_type: Option<&'a str>,
    /// Length of the body in bytes, where the head says it.
    pub body_size: Option<u64>,
    /// The body, or why it is not there.
    pub body: BodyView<'a>,
    /// The fields behind the body, where it was read. Detectors search them; expressions do not see them among the headers, for the upstream does not either (RFC 9110 §6.5.1).
    pub trailers: &'a dyn HeaderFields,
}

/// No fields.
pub const NO_FIELDS: &dyn HeaderFields = &NONE;
const NONE: [(&str, &str); 0] = [];

impl fmt::Debug for HttpView<'_> {
    /// Prints no header and no body: they may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpView")
            .field("method", &self.method)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// The body of a request.
#[derive(Clone, Copy)]
pub enum BodyView<'a> {
    /// No rule asked for it, so it was not buffered.
    NotRead,
    /// All of it, its content codings undone; empty when the request has none.
    Complete(&'a [u8]),
    /// It is in a content coding that is not read, or not what its coding says.
    Unreadable,
    /// It is longer than [`MAX_JUDGED_BODY_BYTES`], or it ended early.
    TooLarge,
}

/// One message on a WebSocket connection.
#[derive(Clone, Copy)]
pub struct WsView<'a> {
    /// Who sends it.
    pub direction: WsDirection,
    /// Whether it is bytes and no text.
    pub binary: bool,
    /// What it says.
    pub message: MessageView<'a>,
}

/// Who sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WsDirection {
    /// The agent, to the upstream.
    Send,
    /// The upstream, to the agent.
    Receive,
}

impl WsDirection {
    /// The word in policies and records: `send`, `receive`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
        }
    }
}

/// What a message says.
#[derive(Clone, Copy)]
pub enum MessageView<'a> {
    /// All of a text message.
    Text(&'a str),
    /// A binary message of this many bytes.
    Binary(u64),
    /// It is longer than [`MAX_JUDGED_BODY_BYTES`].
    TooLarge,
}

impl fmt::Debug for WsView<'_> {
    /// Prints no text: it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WsView")
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

/// One message of a gRPC call.
#[derive(Clone, Copy)]
pub struct GrpcView<'a> {
    /// Who sends it.
    pub direction: WsDirection,
    /// What it says.
    pub message: GrpcMessage<'a>,
}

/// What a message of a gRPC call says.
#[derive(Clone, Copy)]
pub enum GrpcMessage<'a> {
    /// All of it, as JSON.
    Json(&'a str),
    /// Why it cannot be read: a sentence that holds no value of it.
    Unreadable(&'static str),
}

impl fmt::Debug for GrpcView<'_> {
    /// Prints no message: it may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcView")
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

/// The header fields of a request, in order. The data path implements it for its own head type.
pub trait HeaderFields: Send + Sync {
    /// All fields: name in any case, and value as sent.
    fn fields(&self) -> Box<dyn Iterator<Item = (&str, &[u8])> + '_>;

    /// The first value of this name, in any case.
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.fields()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

impl HeaderFields for Vec<(String, Vec<u8>)> {
    fn fields(&self) -> Box<dyn Iterator<Item = (&str, &[u8])> + '_> {
        Box::new(self.iter().map(|(n, v)| (n.as_str(), v.as_slice())))
    }
}

impl<const N: usize> HeaderFields for [(&str, &str); N] {
    fn fields(&self) -> Box<dyn Iterator<Item = (&str, &[u8])> + '_> {
        Box::new(self.iter().map(|(n, v)| (*n, v.as_bytes())))
    }
}

/// What policy says of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub outcome: Outcome,
    /// True when the operation passes although the policies, all enforced, would deny it. `policy`, `rule` and `reason` then name what would.
    pub would_deny: bool,
    /// The policy that decided. `None`: no policy had anything to say.
    pub policy: Option<Arc<PolicyRef>>,
    /// The rule that decided. `None`: a default.
    pub rule: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
    /// What the rule wants the agent to be told.
    pub message: Option<Arc<str>>,
    /// The first rule that could not be evaluated, and why: `policy team/web, rule no-delete: …`. Holds no value of the operation.
    pub error: Option<String>,
}

/// Why a decision came out as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A rule matched.
    Rule,
    /// No rule matched: the default action of a policy, or Allow where no policy says anything.
    Default,
    /// A Deny rule could not be evaluated, which counts as a match.
    EvaluationError,
    /// Bytes of a protocol that Chaperone does not read, and no rule allows the destination.
    Opaque,
    /// An address of a cloud's metadata service, and no rule allows that address or name itself.
    MetadataAddress,
}

impl Reason {
    /// The word in records: `rule`, `default`, `evaluation-error`, `opaque`, `metadata-address`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Default => "default",
            Self::EvaluationError => "evaluation-error",
            Self::Opaque => "opaque",
            Self::MetadataAddress => "metadata-address",
        }
    }
}
