//! What renderings have in common: parts of a record in the types that other schemas ask for.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::record::{EventKind, Outcome, Record};

/// Fields of an object; what has no value is absent.
#[derive(Default)]
pub(super) struct Fields(pub(super) Map<String, Value>);

impl Fields {
    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn maybe(&mut self, name: &str, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.put(name, value);
        }
        self
    }

    /// An object within; none if it would be empty.
    pub(super) fn within(&mut self, name: &str, fields: Fields) -> &mut Self {
        if !fields.0.is_empty() {
            self.put(name, fields.0);
        }
        self
    }
}

/// `stream/seq`: names a record among all.
pub(super) fn id(record: &Record) -> String {
    format!("{}/{}", record.stream, record.seq)
}

/// The record's time, if it is one.
pub(super) fn time(record: &Record) -> Option<Timestamp> {
    record.time.parse().ok()
}

/// An address, if the text is one.
pub(super) fn ip(text: &str) -> Option<String> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_string())
}

/// `address:port`, taken apart.
pub(super) fn socket(text: &str) -> Option<(String, u16)> {
    let socket: SocketAddr = text.parse().ok()?;
    Some((socket.ip().to_string(), socket.port()))
}

/// What became of the operation, as far as the record knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Success,
    Failure,
    Unknown,
}

pub(super) fn fate(record: &Record) -> Fate {
    let event = &record.event;
    if event.kind == EventKind::Begin {
        return Fate::Unknown;
    }
    let denied = denied(record);
    let status = event.http.as_ref().and_then(|http| http.status);
    let refused = status.is_some_and(|status| status >= 400);
    let cut = event.http.as_ref().is_some_and(|http| !http.complete);
    let grpc = event.grpc.as_ref().and_then(|grpc| grpc.status);
    let rcode = event.dns.as_ref().is_some_and(|dns| dns.rcode != "NOERROR");
    let unread = event.read.as_ref().is_some_and(|read| read.refused > 0);
    let failed = event.kind == EventKind::Connection || event.error.is_some() || unread;
    if denied || refused || cut || failed || rcode || grpc.is_some_and(|status| status != 0) {
        Fate::Failure
    } else {
        Fate::Success
    }
}

pub(super) fn denied(record: &Record) -> bool {
    let decision = record.event.decision.as_ref();
    decision.is_some_and(|decision| decision.action == Outcome::Deny)
}

/// What happened, for a person: `GET https://…`, or the kind.
pub(super) fn message(record: &Record) -> String {
    let event = &record.event;
    if let Some(operation) = &event.operation {
        return format!("{} {}", operation.verb, operation.resource);
    }
    if let Some(read) = &event.read {
        return format!("{} read {}", read.user, read.what);
    }
    if let Some(pod) = &event.pod {
        return format!(
            "pod {}/{} {}",
            event.agent.namespace, event.agent.pod, pod.state
        );
    }
    if let Some(checkpoint) = &event.checkpoint {
        let (origin, size) = (&checkpoint.origin, checkpoint.size);
        return format!("checkpoint of {origin} over {size} records");
    }
    event.kind.as_str().to_owned()
}

/// A URL taken apart as it is written, without decoding; `None` for what has no scheme and authority.
pub(super) struct Url<'u> {
    pub(super) scheme: &'u str,
    pub(super) host: &'u str,
    pub(super) port: Option<u16>,
    pub(super) path: &'u str,
    pub(super) query: Option<&'u str>,
}

impl<'u> Url<'u> {
    pub(super) fn split(text: &'u str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme_like = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if scheme.is_empty() || !scheme.chars().all(scheme_like) {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let authority = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let (host, port) = split_port(authority);
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        (!host.is_empty()).then_some(Self {
            scheme,
            host,
            port,
            path,
            query,
        })
    }
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    let (host, port) = match authority.rsplit_once(':') {
        // The last colon of a bare IPv6 address stands inside its brackets.
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    (host.trim_matches(['[', ']']), port)
}
