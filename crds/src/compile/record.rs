//! What filters of sinks read: the audit record, part by part.
//!
//! A part of a record that is absent reads as the zero value of its type (CEL's rule for messages), and `has` tells whether it is there. Invariant: the names are those of the record's JSON
//! Schema, all of them but `bodies`, whose texts stand where they belong; a test holds them together.

use super::types::{Field, FieldKind, Object, Ty, field, optional};

/// Who a pod is.
const POD_IDENTITY: &[Field] = &[
    optional("images", FieldKind::TextList),
    optional("labels", FieldKind::TextMap),
    optional("namespace", FieldKind::Text),
    optional("node", FieldKind::Text),
    optional("pod", FieldKind::Text),
    optional("serviceAccount", FieldKind::Text),
    optional("uid", FieldKind::Text),
];

/// Every part, by its path.
pub(crate) const RECORD: &[Object] = &[
    Object {
        name: "record",
        fields: &[
            field("agent", FieldKind::Part),
            optional("begun", FieldKind::Int),
            optional("bodiesSha256", FieldKind::Text),
            optional("checkpoint", FieldKind::Part),
            optional("close", FieldKind::Part),
            optional("config", FieldKind::Part),
            optional("decision", FieldKind::Part),
            optional("destination", FieldKind::Part),
            optional("dns", FieldKind::Part),
            optional("erased", FieldKind::Part),
            optional("error", FieldKind::Text),
            optional("gap", FieldKind::Part),
            optional("grpc", FieldKind::Part),
            optional("hold", FieldKind::Part),
            optional("http", FieldKind::Part),
            optional("identity", FieldKind::Part),
            field("kind", FieldKind::Text),
            optional("masked", FieldKind::List),
            optional("message", FieldKind::Part),
            optional("open", FieldKind::Part),
            optional("operation", FieldKind::Part),
            optional("pod", FieldKind::Part),
            field("prev", FieldKind::Text),
            optional("read", FieldKind::Part),
            field("seq", FieldKind::Int),
            optional("session", FieldKind::Part),
            field("stream", FieldKind::Text),
            field("time", FieldKind::Text),
            optional("timing", FieldKind::Part),
            field("v", FieldKind::Text),
            optional("ws", FieldKind::Part),
        ],
    },
    Object {
        name: "record.agent",
        fields: &[
            field("namespace", FieldKind::Text),
            field("pod", FieldKind::Text),
            optional("serviceAccount", FieldKind::Text),
        ],
    },
    Object {
        name: "record.checkpoint",
        fields: &[
            optional("note", FieldKind::Text),
            optional("origin", FieldKind::Text),
            optional("root", FieldKind::Text),
            optional("size", FieldKind::Int),
        ],
    },
    Object {
        name: "record.close",
        fields: &[
            optional("reason", FieldKind::Text),
            optional("records", FieldKind::Int),
        ],
    },
    Object {
        name: "record.config",
        fields: &[
            optional("mode", FieldKind::Text),
            optional("policies", FieldKind::TextList),
            optional("revision", FieldKind::Text),
            optional("snapshot", FieldKind::Text),
        ],
    },
    Object {
        name: "record.decision",
        fields: &[
            optional("action", FieldKind::Text),
            optional("message", FieldKind::Text),
            optional("mode", FieldKind::Text),
            optional("policy", FieldKind::Text),
            optional("reason", FieldKind::Text),
            optional("revision", FieldKind::Text),
            optional("rule", FieldKind::Text),
            optional("wouldDeny", FieldKind::Bool),
        ],
    },
    Object {
        name: "record.destination",
        fields: &[
            optional("clientCertificate", FieldKind::Part),
            optional("host", FieldKind::Text),
            optional("ip", FieldKind::Text),
            optional("originalIp", FieldKind::Text),
            optional("port", FieldKind::Int),
            optional("proxy", FieldKind::Text),
            optional("sni", FieldKind::Text),
        ],
    },
    Object {
        name: "record.destination.clientCertificate",
        fields: &[
            optional("sha256", FieldKind::Text),
            optional("subject", FieldKind::Text),
        ],
    },
    Object {
        name: "record.dns",
        fields: &[
            optional("answers", FieldKind::TextList),
            optional("rcode", FieldKind::Text),
            optional("withheld", FieldKind::TextList),
        ],
    },
    Object {
        name: "record.erased",
        fields: &[
            optional("cause", FieldKind::Text),
            optional("from", FieldKind::Text),
            optional("keys", FieldKind::Int),
            optional("more", FieldKind::Int),
            optional("namespace", FieldKind::Text),
            optional("reason", FieldKind::Text),
            optional("records", FieldKind::Int),
            optional("rule", FieldKind::Text),
            optional("session", FieldKind::Text),
            optional("sessions", FieldKind::TextList),
            optional("streams", FieldKind::TextList),
            optional("until", FieldKind::Text),
            optional("user", FieldKind::Text),
            optional("what", FieldKind::Text),
        ],
    },
    Object {
        name: "record.gap",
        fields: &[
            optional("detail", FieldKind::Text),
            optional("packets", FieldKind::Int),
            optional("reason", FieldKind::Text),
            optional("receivedBytes", FieldKind::Int),
            optional("sentBytes", FieldKind::Int),
        ],
    },
    Object {
        name: "record.grpc",
        fields: &[
            optional("method", FieldKind::Text),
            optional("requestMessageBytes", FieldKind::Int),
            optional("requestMessages", FieldKind::Int),
            optional("responseMessageBytes", FieldKind::Int),
            optional("responseMessages", FieldKind::Int),
            optional("service", FieldKind::Text),
            optional("status", FieldKind::Int),
        ],
    },
    Object {
        name: "record.hold",
        fields: &[
            optional("everything", FieldKind::Bool),
            optional("from", FieldKind::Text),
            optional("name", FieldKind::Text),
            optional("namespace", FieldKind::Text),
            optional("pod", FieldKind::Text),
            optional("reason", FieldKind::Text),
            optional("session", FieldKind::Text),
            optional("stream", FieldKind::Text),
            optional("until", FieldKind::Text),
            optional("user", FieldKind::Text),
        ],
    },
    Object {
        name: "record.http",
        fields: &[
            optional("complete", FieldKind::Bool),
            optional("contentType", FieldKind::Text),
            optional("newestMessages", FieldKind::Part),
            optional("requestBody", FieldKind::Part),
            optional("requestBytes", FieldKind::Int),
            optional("requestHeaders", FieldKind::TextMap),
            optional("responseBody", FieldKind::Part),
            optional("responseBytes", FieldKind::Int),
            optional("responseHeaders", FieldKind::TextMap),
            optional("status", FieldKind::Int),
        ],
    },
    Object {
        name: "record.http.newestMessages",
        fields: &[
            field("at", FieldKind::Int),
            optional("text", FieldKind::Text),
            optional("truncated", FieldKind::Bool),
        ],
    },
    Object {
        name: "record.http.requestBody",
        fields: &[
            optional("omitted", FieldKind::Text),
            optional("text", FieldKind::Text),
            optional("truncated", FieldKind::Bool),
        ],
    },
    Object {
        name: "record.http.responseBody",
        fields: &[
            optional("omitted", FieldKind::Text),
            optional("text", FieldKind::Text),
            optional("truncated", FieldKind::Bool),
        ],
    },
    Object {
        name: "record.identity",
        fields: &[
            optional("from", FieldKind::Int),
            optional("imageIds", FieldKind::TextList),
            optional("stream", FieldKind::Text),
            optional("workload", FieldKind::Part),
        ],
    },
    Object {
        name: "record.identity.workload",
        fields: POD_IDENTITY,
    },
    Object {
        name: "record.message",
        fields: &[
            optional("binary", FieldKind::Bool),
            optional("body", FieldKind::Part),
            optional("bytes", FieldKind::Int),
            optional("connection", FieldKind::Int),
        ],
    },
    Object {
        name: "record.message.body",
        fields: &[
            optional("omitted", FieldKind::Text),
            optional("text", FieldKind::Text),
            optional("truncated", FieldKind::Bool),
        ],
    },
    Object {
        name: "record.open",
        fields: &[
            optional("identity", FieldKind::Part),
            optional("version", FieldKind::Text),
        ],
    },
    Object {
        name: "record.open.identity",
        fields: POD_IDENTITY,
    },
    Object {
        name: "record.operation",
        fields: &[
            optional("protocol", FieldKind::Text),
            optional("resource", FieldKind::Text),
            optional("verb", FieldKind::Text),
        ],
    },
    Object {
        name: "record.pod",
        fields: &[
            optional("after", FieldKind::Text),
            optional("lacks", FieldKind::Text),
            optional("node", FieldKind::Text),
            optional("since", FieldKind::Text),
            optional("state", FieldKind::Text),
            optional("uid", FieldKind::Text),
        ],
    },
    Object {
        name: "record.read",
        fields: &[
            optional("groups", FieldKind::TextList),
            optional("query", FieldKind::TextMap),
            optional("records", FieldKind::Int),
            optional("refused", FieldKind::Int),
            optional("uid", FieldKind::Text),
            optional("user", FieldKind::Text),
            optional("what", FieldKind::Text),
        ],
    },
    Object {
        name: "record.session",
        fields: &[
            optional("agentId", FieldKind::Text),
            optional("id", FieldKind::Text),
            optional("requestId", FieldKind::Text),
        ],
    },
    Object {
        name: "record.timing",
        fields: &[
            optional("decideUs", FieldKind::Int),
            optional("totalUs", FieldKind::Int),
            optional("upstreamUs", FieldKind::Int),
        ],
    },
    Object {
        name: "record.ws",
        fields: &[
            optional("closedBy", FieldKind::Text),
            optional("code", FieldKind::Int),
            optional("connection", FieldKind::Int),
            optional("receivedBytes", FieldKind::Int),
            optional("receivedMessages", FieldKind::Int),
            optional("sentBytes", FieldKind::Int),
            optional("sentMessages", FieldKind::Int),
        ],
    },
];

/// The type of a field by its path: `record.decision.action`.
pub(crate) fn type_of(path: &str) -> Option<Ty> {
    let (part, name) = path.rsplit_once('.')?;
    let part = RECORD.iter().find(|object| object.name == part)?;
    part.field(name).map(super::types::Field::ty)
}
