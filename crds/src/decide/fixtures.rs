//! Policies and operations for tests.

use std::net::IpAddr;

use super::{BodyView, Decision, Destination, DnsView, HeaderFields, HttpView, Operation};
use crate::{
    compile::CompiledSnapshot,
    pod::PodIdentity,
    resources::{AgentPolicySpec, Protocol},
    snapshot::{Policy, PolicyKind, PolicyRef, Snapshot},
};

/// A policy of the namespace `team` from the YAML of its spec.
pub(crate) fn namespaced(name: &str, spec: &str) -> Policy {
    Policy::namespaced("team", name, 1, &parse(spec))
}

/// A cluster policy from the YAML of its spec.
pub(crate) fn cluster(name: &str, spec: &str) -> Policy {
    Policy {
        reference: PolicyRef {
            kind: PolicyKind::ClusterAgentPolicy,
            namespace: String::new(),
            name: name.to_owned(),
        },
        ..namespaced(name, spec)
    }
}

fn parse(spec: &str) -> AgentPolicySpec {
    serde_saphyr::from_str(spec).unwrap_or_else(|error| panic!("{error}\n{spec}"))
}

pub(crate) fn compile(policies: Vec<Policy>) -> CompiledSnapshot {
    CompiledSnapshot::compile(&Snapshot::new(policies)).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn agent() -> PodIdentity {
    PodIdentity {
        namespace: "team".to_owned(),
        pod: "claude-0".to_owned(),
        service_account: "claude".to_owned(),
        labels: [("app", "claude"), ("tier", "test")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        images: vec!["registry.example.com/claude:1".to_owned()],
        ..PodIdentity::default()
    }
}

/// No header fields.
pub(crate) const NO_HEADERS: &dyn HeaderFields = &NoHeaders;
struct NoHeaders;

impl HeaderFields for NoHeaders {
    fn fields(&self) -> Box<dyn Iterator<Item = (&str, &[u8])> + '_> {
        Box::new(std::iter::empty())
    }
}

/// `GET https://HOST/` at 192.0.2.10.
pub(crate) fn get(host: &str) -> Operation<'_> {
    request("GET", host, "/")
}

/// A request over TLS at 192.0.2.10, without query, headers and body.
pub(crate) fn request<'a>(method: &'a str, host: &'a str, path: &'a str) -> Operation<'a> {
    Operation {
        protocol: Protocol::Http,
        verb: method,
        resource: path,
        destination: Destination {
            host: Some(host),
            ip: "192.0.2.10".parse::<IpAddr>().unwrap(),
            port: 443,
            sni: Some(host),
        },
        http: Some(HttpView {
            method,
            scheme: "https",
            host,
            path,
            query: "",
            headers: NO_HEADERS,
            content_type: None,
            body_size: Some(0),
            body: BodyView::NotRead,
            trailers: NO_HEADERS,
        }),
        dns: None,
        ws: None,
        grpc: None,
    }
}

/// A query of type A for a name, on the way to the names in `towards`.
pub(crate) fn asks<'a>(name: &'a str, towards: &'a [String]) -> Operation<'a> {
    Operation {
        verb: "A",
        resource: name,
        destination: Destination {
            host: Some(name),
            ..unread(Protocol::Dns, "0.0.0.0", 0).destination
        },
        dns: Some(DnsView {
            name,
            kind: "A",
            towards,
        }),
        ..unread(Protocol::Dns, "0.0.0.0", 0)
    }
}

/// A connection or datagram that is not read.
pub(crate) fn unread(protocol: Protocol, ip: &str, port: u16) -> Operation<'static> {
    Operation {
        protocol,
        verb: "connect",
        resource: "",
        destination: Destination {
            host: None,
            ip: ip.parse().unwrap(),
            port,
            sni: None,
        },
        http: None,
        dns: None,
        ws: None,
        grpc: None,
    }
}

pub(crate) fn decide(snapshot: &CompiledSnapshot, operation: &Operation<'_>) -> Decision {
    snapshot.candidates(operation).decide(&agent(), operation)
}

/// The decision in one line: `Deny team/web no-delete rule`, `Allow+wouldDeny …`, `-` where there is no policy or rule.
pub(crate) fn line(decision: &Decision) -> String {
    format!(
        "{:?}{} {} {} {}",
        decision.outcome,
        if decision.would_deny {
            "+wouldDeny"
        } else {
            ""
        },
        decision
            .policy
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string),
        decision.rule.as_deref().unwrap_or("-"),
        decision.reason.as_str(),
    )
}
