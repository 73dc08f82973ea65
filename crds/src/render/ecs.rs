//! The Elastic Common Schema, version 9.4.
//!
//! Where a record says something that the schema has no field for, it stands under `chaperone`, which is the record itself.

use serde_json::{Value, json};

use super::{
    object,
    parts::{Fate, Fields, Url, denied, fate, id, ip, message, socket, time},
};
use crate::{
    chain::RecordHash,
    record::{BodyInfo, EventKind, Record},
};

/// How every event begins.
pub(super) const BEGINNING: &str = "{\"@timestamp\":";
const VERSION: &str = "9.4.0";

/// `chaperone` comes last and is the record's line, byte for byte.
pub(super) fn render(record: &Record, line: &str) -> String {
    let mut fields = Fields::default();
    fields
        .put("ecs", json!({"version": VERSION}))
        .put("message", message(record))
        .within("event", event(record, line))
        .within("orchestrator", orchestrator(record))
        .within("observer", observer(record))
        .within("user", user(record))
        .within("source", source(record))
        .within("destination", destination(record))
        .within("network", network(record))
        .within("rule", rule(record))
        .within("related", related(record));
    let tls = record
        .event
        .destination
        .as_ref()
        .and_then(|d| d.sni.as_ref());
    if let Some(name) = tls {
        fields.put("tls", json!({"client": {"server_name": name}}));
    }
    if let Some(error) = &record.event.error {
        fields.put("error", json!({"message": error}));
    }
    let operation = record.event.operation.as_ref();
    if operation.is_some_and(|operation| operation.protocol == "http") {
        http(record, &mut fields);
    }
    if operation.is_some_and(|operation| operation.protocol == "dns") {
        fields.within("dns", dns(record));
    }
    let time = time(record).map_or_else(
        || "1970-01-01T00:00:00Z".to_owned(),
        |_| record.time.clone(),
    );
    object(
        &format!("{BEGINNING}{}", Value::from(time)),
        fields.0,
        Some(("chaperone", line)),
    )
}

fn event(record: &Record, line: &str) -> Fields {
    let (category, mut types) = sorts(record.event.kind);
    if record.event.decision.is_some() {
        types.push(if denied(record) { "denied" } else { "allowed" });
    }
    let outcome = match fate(record) {
        Fate::Success => "success",
        Fate::Failure => "failure",
        Fate::Unknown => "unknown",
    };
    let timing = record.event.timing;
    let nanoseconds = timing.map(|timing| timing.total_us.saturating_mul(1000));
    let decision = record.event.decision.as_ref();
    let mut event = Fields::default();
    event
        .put("kind", "event")
        .put("category", [category])
        .put("type", types)
        .put("action", record.event.kind.as_str())
        .put("outcome", outcome)
        .put("id", id(record))
        .put("sequence", record.seq)
        .put("module", "chaperone")
        .put("dataset", "chaperone.audit")
        .put("provider", "chaperone")
        .maybe("reason", decision.map(|decision| decision.reason.clone()))
        .maybe("duration", nanoseconds)
        .put("hash", RecordHash::of(line.as_bytes()).to_string());
    event
}

/// `event.category`, and the beginning of `event.type`.
fn sorts(kind: EventKind) -> (&'static str, Vec<&'static str>) {
    match kind {
        EventKind::StreamOpen | EventKind::StreamResume => ("process", vec!["start"]),
        EventKind::StreamClose => ("process", vec!["end"]),
        EventKind::StreamIdentity
        | EventKind::StreamHeartbeat
        | EventKind::LedgerPod
        | EventKind::LedgerCheckpoint => ("process", vec!["info"]),
        EventKind::LedgerRead => ("api", vec!["access"]),
        EventKind::LedgerErased => ("process", vec!["deletion"]),
        EventKind::LedgerHold | EventKind::LedgerRelease => ("configuration", vec!["change"]),
        EventKind::Config => ("configuration", vec!["change"]),
        EventKind::Begin => ("network", vec!["start"]),
        EventKind::Http | EventKind::WsMessage | EventKind::Dns => ("network", vec!["protocol"]),
        EventKind::WsClose => ("network", vec!["end"]),
        EventKind::Gap => ("network", vec!["connection"]),
        EventKind::Connection => ("network", vec!["connection", "error"]),
    }
}

fn orchestrator(record: &Record) -> Fields {
    let agent = &record.event.agent;
    let mut orchestrator = Fields::default();
    orchestrator
        .put("type", "kubernetes")
        .put("namespace", agent.namespace.clone())
        .put("resource", json!({"type": "pod", "name": agent.pod}));
    orchestrator
}

fn observer(record: &Record) -> Fields {
    let open = record.event.open.as_ref();
    let mut observer = Fields::default();
    observer
        .put("vendor", "Chaperone")
        .put("product", "Chaperone")
        .put("type", "proxy")
        .maybe("version", open.map(|open| open.version.clone()))
        .maybe("hostname", open.map(|open| open.identity.node.clone()));
    observer
}

fn user(record: &Record) -> Fields {
    let agent = &record.event.agent;
    let mut user = Fields::default();
    if let Some(read) = &record.event.read {
        let id = Some(read.uid.clone()).filter(|uid| !uid.is_empty());
        user.put("name", read.user.clone()).maybe("id", id);
        return user;
    }
    if !agent.service_account.is_empty() {
        let id = format!(
            "system:serviceaccount:{}:{}",
            agent.namespace, agent.service_account
        );
        user.put("name", agent.service_account.clone())
            .put("domain", agent.namespace.clone())
            .put("id", id);
    }
    user
}

fn source(record: &Record) -> Fields {
    let mut source = Fields::default();
    source
        .put("address", record.event.agent.pod.clone())
        .maybe("bytes", bytes(record).0);
    source
}

fn destination(record: &Record) -> Fields {
    let mut fields = Fields::default();
    let Some(destination) = &record.event.destination else {
        return fields;
    };
    let address = destination.host.as_ref().unwrap_or(&destination.ip);
    fields
        .put("address", address.clone())
        .maybe("domain", destination.host.clone())
        .maybe("ip", ip(&destination.ip))
        .put("port", destination.port)
        .maybe("bytes", bytes(record).1);
    fields
}

/// Bytes from the agent, and to it, where the record knows.
fn bytes(record: &Record) -> (Option<u64>, Option<u64>) {
    let event = &record.event;
    if let Some(http) = &event.http {
        return (Some(http.request_bytes), Some(http.response_bytes));
    }
    if let Some(ws) = &event.ws {
        return (Some(ws.sent_bytes), Some(ws.received_bytes));
    }
    match &event.gap {
        Some(gap) => (gap.sent_bytes, gap.received_bytes),
        None => (None, None),
    }
}

fn network(record: &Record) -> Fields {
    let mut network = Fields::default();
    let Some(operation) = &record.event.operation else {
        return network;
    };
    network.put("direction", "egress");
    match operation.protocol.as_str() {
        protocol @ ("tcp" | "udp" | "icmp") => network.put("transport", protocol),
        protocol => network.put("protocol", protocol),
    };
    let packets = record.event.gap.as_ref().and_then(|gap| gap.packets);
    network.maybe("packets", packets);
    network
}

fn rule(record: &Record) -> Fields {
    let mut rule = Fields::default();
    if let Some(decision) = &record.event.decision {
        rule.maybe("name", decision.rule.clone())
            .maybe("ruleset", decision.policy.clone())
            .put("version", decision.revision.to_string())
            .maybe("description", decision.message.clone());
    }
    rule
}

fn related(record: &Record) -> Fields {
    let destination = record.event.destination.as_ref();
    let dns = record.event.dns.as_ref();
    let mut ips: Vec<String> = Vec::new();
    ips.extend(destination.and_then(|d| ip(&d.ip)));
    ips.extend(destination.and_then(|d| ip(d.original_ip.as_deref()?)));
    ips.extend(
        destination
            .and_then(|d| socket(d.proxy.as_deref()?))
            .map(|(ip, _)| ip),
    );
    ips.extend(
        dns.into_iter()
            .flat_map(|dns| dns.answers.iter().chain(&dns.withheld))
            .filter_map(|a| ip(a)),
    );
    let mut hosts: Vec<String> = Vec::new();
    hosts.extend(destination.and_then(|d| d.host.clone()));
    hosts.extend(destination.and_then(|d| d.sni.clone()));
    let mut related = Fields::default();
    for (name, mut values) in [("ip", ips), ("hosts", hosts)] {
        values.sort();
        values.dedup();
        if !values.is_empty() {
            related.put(name, values);
        }
    }
    let account = match &record.event.read {
        Some(read) => &read.user,
        None => &record.event.agent.service_account,
    };
    if !account.is_empty() {
        related.put("user", [account.as_str()]);
    }
    related
}

fn http(record: &Record, fields: &mut Fields) {
    let event = &record.event;
    let operation = event.operation.clone().unwrap_or_default();
    let mut url = Fields::default();
    url.put("original", operation.resource.clone());
    if let Some(parts) = Url::split(&operation.resource) {
        url.put("scheme", parts.scheme)
            .put("domain", parts.host)
            .maybe("port", parts.port)
            .put("path", parts.path)
            .maybe("query", parts.query);
    }
    fields.within("url", url);
    let Some(http) = &event.http else {
        return;
    };
    let header = |name: &str| http.request_headers.as_ref()?.get(name).cloned();
    if let Some(agent) = header("user-agent") {
        fields.put("user_agent", json!({"original": agent}));
    }
    let mut request = Fields::default();
    request
        .put("method", operation.verb.clone())
        .within("body", body(http.request_bytes, http.request_body.as_ref()))
        .maybe(
            "id",
            event.session.as_ref().and_then(|s| s.request_id.clone()),
        );
    let mut response = Fields::default();
    if let Some(status) = http.status {
        response
            .put("status_code", status)
            .maybe("mime_type", http.content_type.clone())
            .within(
                "body",
                body(http.response_bytes, http.response_body.as_ref()),
            );
    }
    let mut exchange = Fields::default();
    exchange
        .within("request", request)
        .within("response", response);
    fields.within("http", exchange);
}

fn body(bytes: u64, body: Option<&BodyInfo>) -> Fields {
    let mut fields = Fields::default();
    fields
        .put("bytes", bytes)
        .maybe("content", body.and_then(|body| body.text.clone()));
    fields
}

fn dns(record: &Record) -> Fields {
    let mut fields = Fields::default();
    if let Some(operation) = &record.event.operation {
        fields.put(
            "question",
            json!({"name": operation.resource, "type": operation.verb}),
        );
    }
    let Some(dns) = &record.event.dns else {
        fields.put("type", "query");
        return fields;
    };
    let addresses: Vec<String> = dns.answers.iter().filter_map(|a| ip(a)).collect();
    let answers: Vec<Value> = dns.answers.iter().map(|a| json!({"data": a})).collect();
    fields
        .put("type", "answer")
        .put("response_code", dns.rcode.clone());
    if !answers.is_empty() {
        fields.put("answers", answers);
    }
    if !addresses.is_empty() {
        fields.put("resolved_ip", addresses);
    }
    fields
}
