//! The Open Cybersecurity Schema Framework, version 1.8.0: API Activity (6003), DNS Activity (4003), Network Activity (4001) and Application Lifecycle (6002), with the profiles Security
//! Control and, where a class has no `actor` of its own, Host.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    object,
    parts::{Fate, Fields, Url, denied, fate, id, ip, message, socket, time},
};
use crate::record::{DecisionInfo, EventKind, HttpInfo, OperationInfo, Record};

/// How every event begins.
pub(super) const BEGINNING: &str = "{\"class_uid\":";
const VERSION: &str = "1.8.0";
/// Methods that `http_request.http_method` may have.
const METHODS: [&str; 9] = [
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE",
];
/// Value of an `activity_id` that has only a name.
const OTHER: u32 = 99;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Network = 4001,
    Dns = 4003,
    Lifecycle = 6002,
    Api = 6003,
}

/// `raw_data` is the record's line.
pub(super) fn render(record: &Record, line: &str) -> String {
    let class = class(record);
    let (activity, name) = activity(class, record);
    let uid = class as u32;
    let mut fields = Fields::default();
    fields
        .put("category_uid", uid / 1000)
        .put("activity_id", activity)
        .maybe("activity_name", name)
        .put("type_uid", uid * 100 + activity)
        .put("severity_id", severity(record))
        .put("time", time(record).map_or(0, |time| time.as_millisecond()))
        .put("message", message(record))
        .within("metadata", metadata(class, record))
        .within("actor", actor(record))
        .put("raw_data", line)
        .put("raw_data_size", line.len())
        .put(
            "raw_data_hash",
            json!({"algorithm_id": 3, "value": hex::encode(Sha256::digest(line))}),
        );
    status(record, &mut fields);
    if let Some(decision) = &record.event.decision {
        control(record, decision, &mut fields);
    }
    match class {
        Class::Api => api(record, &mut fields),
        Class::Dns => dns(record, &mut fields),
        Class::Network => network(record, &mut fields),
        Class::Lifecycle => lifecycle(record, &mut fields),
    }
    object(&format!("{BEGINNING}{uid}"), fields.0, None)
}

fn class(record: &Record) -> Class {
    use EventKind::{
        Begin, Config, Connection, Dns, Gap, Http, LedgerCheckpoint, LedgerErased, LedgerHold,
        LedgerPod, LedgerRead, LedgerRelease, StreamClose, StreamHeartbeat, StreamIdentity,
        StreamOpen, StreamResume, WsClose, WsMessage,
    };
    let protocol = |name: &str| {
        let operation = record.event.operation.as_ref();
        operation.is_some_and(|operation| operation.protocol == name)
    };
    match record.event.kind {
        Http | WsMessage | WsClose | LedgerRead => Class::Api,
        Dns => Class::Dns,
        Gap | Connection => Class::Network,
        StreamOpen | StreamResume | StreamHeartbeat | StreamClose | StreamIdentity | LedgerPod
        | LedgerCheckpoint | LedgerErased | LedgerHold | LedgerRelease | Config => Class::Lifecycle,
        Begin if protocol("dns") => Class::Dns,
        Begin if protocol("http") => Class::Api,
        Begin => Class::Network,
    }
}

fn activity(class: Class, record: &Record) -> (u32, Option<String>) {
    let event = &record.event;
    let verb = event.operation.as_ref().map_or("", |o| o.verb.as_str());
    let known = |id| (id, None);
    match (class, event.kind) {
        (Class::Api, EventKind::LedgerRead) => known(2),
        (Class::Api, EventKind::Http | EventKind::Begin) if event.grpc.is_none() => match verb {
            "POST" => known(1),
            "GET" | "HEAD" | "OPTIONS" => known(2),
            "PUT" | "PATCH" => known(3),
            "DELETE" => known(4),
            other => (OTHER, Some(other.to_owned())),
        },
        (Class::Api, _) => match &event.grpc {
            Some(call) => (OTHER, Some(call.method.clone())),
            None => (OTHER, Some(verb.to_owned())),
        },
        (Class::Dns, EventKind::Begin) => known(1),
        (Class::Dns, _) => known(6),
        (Class::Network, _) if denied(record) => known(5),
        (Class::Network, EventKind::Connection) => known(4),
        (Class::Network, EventKind::Begin) => known(1),
        (Class::Network, _) => known(6),
        (Class::Lifecycle, EventKind::StreamOpen) => known(3),
        (Class::Lifecycle, EventKind::StreamClose) => known(4),
        (Class::Lifecycle, EventKind::StreamResume) => known(5),
        (Class::Lifecycle, EventKind::StreamIdentity) => {
            (OTHER, Some("Identity of a stream".to_owned()))
        }
        (Class::Lifecycle, EventKind::StreamHeartbeat) => {
            (OTHER, Some("Heartbeat of a stream".to_owned()))
        }
        (Class::Lifecycle, EventKind::LedgerPod) => {
            (OTHER, Some("A pod runs or has ended".to_owned()))
        }
        (Class::Lifecycle, EventKind::LedgerCheckpoint) => {
            (OTHER, Some("Checkpoint of the ledger".to_owned()))
        }
        (Class::Lifecycle, EventKind::LedgerErased) => {
            (OTHER, Some("Evidence is deleted".to_owned()))
        }
        (Class::Lifecycle, EventKind::LedgerHold) => (OTHER, Some("Legal hold".to_owned())),
        (Class::Lifecycle, EventKind::LedgerRelease) => {
            (OTHER, Some("End of a legal hold".to_owned()))
        }
        (Class::Lifecycle, _) => (OTHER, Some("Policies took effect".to_owned())),
    }
}

/// 1 Informational; 2 Low for what passed unread or would have been denied; 3 Medium for what was denied.
fn severity(record: &Record) -> u32 {
    let decision = record.event.decision.as_ref();
    match decision {
        _ if denied(record) => 3,
        Some(decision) if decision.would_deny => 2,
        _ if record.event.kind == EventKind::Gap => 2,
        _ => 1,
    }
}

fn metadata(class: Class, record: &Record) -> Fields {
    let session = record.event.session.as_ref();
    let version = record.event.open.as_ref().map(|open| open.version.clone());
    let mut product = Fields::default();
    product
        .put("name", "Chaperone")
        .put("vendor_name", "Chaperone")
        .maybe("version", version);
    let profiles: &[&str] = match class {
        Class::Api => &["security_control"],
        _ => &["host", "security_control"],
    };
    let mut metadata = Fields::default();
    metadata
        .put("version", VERSION)
        .within("product", product)
        .put("profiles", profiles)
        .put("uid", id(record))
        .put("sequence", record.seq)
        .put("event_code", record.event.kind.as_str())
        .put("log_name", record.stream.clone())
        .put("log_version", record.v.clone())
        .put("original_time", record.time.clone())
        .maybe("correlation_uid", session.and_then(|s| s.id.clone()));
    metadata
}

fn actor(record: &Record) -> Fields {
    let agent = &record.event.agent;
    let mut actor = Fields::default();
    if let Some(read) = &record.event.read {
        let mut user = Fields::default();
        let uid = Some(read.uid.clone()).filter(|uid| !uid.is_empty());
        user.put("name", read.user.clone()).maybe("uid", uid);
        actor.within("user", user);
        return actor;
    }
    actor.put("app_name", format!("{}/{}", agent.namespace, agent.pod));
    if !agent.service_account.is_empty() {
        let uid = format!(
            "system:serviceaccount:{}:{}",
            agent.namespace, agent.service_account
        );
        // 4 is Service.
        actor.put(
            "user",
            json!({"name": agent.service_account, "uid": uid, "type_id": 4}),
        );
    }
    let session = record.event.session.as_ref().and_then(|s| s.id.clone());
    if let Some(session) = session {
        actor.put("session", json!({"uid": session}));
    }
    actor
}

fn status(record: &Record, fields: &mut Fields) {
    let event = &record.event;
    let (id, caption) = match fate(record) {
        Fate::Success => (1, "Success"),
        Fate::Failure => (2, "Failure"),
        Fate::Unknown => (0, "Unknown"),
    };
    let grpc = event.grpc.as_ref().and_then(|grpc| grpc.status);
    let http = event.http.as_ref().and_then(|http| http.status);
    let code = grpc.or(http.map(u32::from)).map(|code| code.to_string());
    let rcode = event.dns.as_ref().map(|dns| dns.rcode.clone());
    let told = event.decision.as_ref().and_then(|d| d.message.clone());
    fields
        .put("status_id", id)
        .put("status", caption)
        .maybe("status_code", code.or(rcode))
        .maybe("status_detail", event.error.clone().or(told));
}

/// The profile Security Control.
fn control(record: &Record, decision: &DecisionInfo, fields: &mut Fields) {
    // Action and disposition: Denied and Blocked; Observed and Detected; Modified and Corrected; Allowed and Allowed.
    let replaced = record.event.masked.iter().any(|m| m.mask != "builtin");
    let (action, disposition) = match () {
        () if denied(record) => (2, 2),
        () if decision.would_deny => (3, 15),
        () if replaced => (4, 11),
        () => (1, 1),
    };
    fields
        .put("action_id", action)
        .put("disposition_id", disposition);
    if let Some(policy) = &decision.policy {
        fields.put(
            "policy",
            json!({"name": policy, "version": decision.revision, "is_applied": !decision.would_deny}),
        );
    }
    if let Some(rule) = &decision.rule {
        fields.put(
            "firewall_rule",
            json!({"name": rule, "type": decision.reason}),
        );
    }
}

fn api(record: &Record, fields: &mut Fields) {
    let event = &record.event;
    if let Some(read) = &event.read {
        let service = format!("{}/{}", event.agent.namespace, event.agent.pod);
        let api = json!({"operation": format!("read {}", read.what), "service": {"name": service}});
        fields
            .put("api", api)
            .put("src_endpoint", json!({"name": read.user}));
        return;
    }
    let operation = event.operation.clone().unwrap_or_default();
    let mut api = Fields::default();
    match &event.grpc {
        Some(call) => api
            .put("operation", call.method.clone())
            .put("service", json!({"name": call.service})),
        None => api.put("operation", operation.verb.clone()).maybe(
            "service",
            destination_name(record).map(|n| json!({"name": n})),
        ),
    };
    let request = event.session.as_ref().and_then(|s| s.request_id.clone());
    api.maybe("request", request.map(|uid| json!({"uid": uid})));
    let grpc = event.grpc.as_ref().and_then(|grpc| grpc.status);
    api.maybe("response", grpc.map(|code| json!({"code": code})));
    fields.within("api", api);
    endpoints(record, fields);
    let http = event.http.as_ref();
    fields.within("http_request", http_request(&operation, http));
    if let Some(http) = http
        && let Some(code) = http.status
    {
        let upstream = event.timing.and_then(|timing| timing.upstream_us);
        let mut response = Fields::default();
        response
            .put("code", code)
            .put("body_length", signed(http.response_bytes))
            .maybe("content_type", http.content_type.clone())
            .maybe("latency", upstream.map(|us| signed(us / 1000)))
            .maybe("http_headers", headers(http.response_headers.as_ref()));
        fields.within("http_response", response);
    }
}

fn http_request(operation: &OperationInfo, http: Option<&HttpInfo>) -> Fields {
    let mut request = Fields::default();
    if METHODS.contains(&operation.verb.as_str()) {
        request.put("http_method", operation.verb.clone());
    }
    let mut url = Fields::default();
    url.put("url_string", operation.resource.clone());
    if let Some(parts) = Url::split(&operation.resource) {
        url.put("scheme", parts.scheme)
            .put("hostname", parts.host)
            .maybe("port", parts.port)
            .put("path", parts.path)
            .maybe("query_string", parts.query);
    }
    request.within("url", url);
    if let Some(http) = http {
        let agent = http.request_headers.as_ref();
        let agent = agent.and_then(|headers| headers.get("user-agent").cloned());
        request
            .put("body_length", signed(http.request_bytes))
            .maybe("http_headers", headers(http.request_headers.as_ref()))
            .maybe("user_agent", agent);
    }
    request
}

fn headers(headers: Option<&std::collections::BTreeMap<String, String>>) -> Option<Value> {
    let headers = headers?.iter();
    Some(
        headers
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect(),
    )
}

fn dns(record: &Record, fields: &mut Fields) {
    endpoints(record, fields);
    if let Some(operation) = &record.event.operation {
        fields.put(
            "query",
            json!({"hostname": operation.resource, "type": operation.verb}),
        );
    }
    if let Some(dns) = &record.event.dns {
        let answers = dns.answers.iter();
        let answers: Vec<_> = answers.map(|address| json!({"rdata": address})).collect();
        fields
            .put("rcode", dns.rcode.clone())
            .put("rcode_id", rcode(&dns.rcode));
        if !answers.is_empty() {
            fields.put("answers", answers);
        }
    }
}

fn rcode(word: &str) -> u32 {
    match word {
        "NOERROR" => 0,
        "FORMERR" => 1,
        "SERVFAIL" => 2,
        "NXDOMAIN" => 3,
        "NOTIMP" => 4,
        "REFUSED" => 5,
        _ => OTHER,
    }
}

fn network(record: &Record, fields: &mut Fields) {
    endpoints(record, fields);
    let operation = record.event.operation.as_ref();
    let protocol = operation.map(|operation| operation.protocol.clone());
    let mut connection = Fields::default();
    // 2 is Outbound.
    connection
        .put("direction_id", 2)
        .maybe("protocol_name", protocol);
    fields.within("connection_info", connection);
    if let Some(gap) = &record.event.gap {
        let mut traffic = Fields::default();
        traffic
            .maybe("bytes_out", gap.sent_bytes.map(signed))
            .maybe("bytes_in", gap.received_bytes.map(signed))
            .maybe("packets", gap.packets.map(signed));
        fields.within("traffic", traffic);
    }
}

fn lifecycle(record: &Record, fields: &mut Fields) {
    let version = record.event.open.as_ref().map(|open| open.version.clone());
    let mut app = Fields::default();
    app.put("name", "Chaperone")
        .put("vendor_name", "Chaperone")
        .maybe("version", version);
    fields.within("app", app);
}

fn endpoints(record: &Record, fields: &mut Fields) {
    let agent = &record.event.agent;
    fields.put(
        "src_endpoint",
        json!({"name": format!("{}/{}", agent.namespace, agent.pod)}),
    );
    let Some(destination) = &record.event.destination else {
        return;
    };
    let mut endpoint = Fields::default();
    endpoint
        .maybe("hostname", destination.host.clone())
        .maybe("ip", ip(&destination.ip))
        .put("port", destination.port);
    if let Some((ip, port)) = destination.proxy.as_deref().and_then(socket) {
        endpoint.put("proxy_endpoint", json!({"ip": ip, "port": port}));
    }
    // An endpoint must say more than a port.
    if endpoint.0.contains_key("hostname") || endpoint.0.contains_key("ip") {
        fields.within("dst_endpoint", endpoint);
    }
}

fn destination_name(record: &Record) -> Option<String> {
    let destination = record.event.destination.as_ref()?;
    Some(
        destination
            .host
            .clone()
            .unwrap_or_else(|| destination.ip.clone()),
    )
}

/// OCSF's integers are signed.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
