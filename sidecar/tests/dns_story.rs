//! Queries under policy: what is refused, what is answered without some addresses, and what the records say. A nameserver in memory, no network namespace.

#![allow(clippy::unwrap_used)]

#[path = "support/setup.rs"]
#[allow(dead_code, unreachable_pub)]
mod setup;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use chaperone_crds::record::{EventKind, Outcome, Record};
use chaperone_sidecar::{
    dns::{DnsListeners, Resolver},
    sidecar::serve_names,
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record as Answer, RecordType, rdata::A},
};
use setup::Setup;
use tokio::net::UdpSocket;

/// A pod's DNS under a policy, before a nameserver whose names say their address: `a-192-0-2-1.example`.
struct Story {
    setup: Setup,
    resolver: SocketAddr,
}

impl Story {
    async fn begin(policy: &str) -> Self {
        let nameserver = nameserver().await;
        let (setup, _) = Setup::new(policy, "", "");
        let names = setup.shared.names.clone();
        let resolver = Arc::new(Resolver::with_servers(vec![nameserver], None, names));
        let (udp, tcp) = loop {
            let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            if let Ok(tcp) = std::net::TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let listeners = DnsListeners {
            udp: vec![udp],
            tcp: vec![tcp],
        };
        serve_names(&setup.shared, listeners, resolver);
        Self {
            setup,
            resolver: address,
        }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(format!("{name}.").parse().unwrap(), kind));
        query.set_edns(hickory_proto::op::Edns::new());
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(self.resolver).await.unwrap();
        socket.send(&query.to_vec().unwrap()).await.unwrap();
        let mut buffer = [0; 4096];
        let answer = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer));
        let length = answer.await.expect("the resolver answers").unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    /// Response code and addresses of a query of type A.
    async fn addresses(&self, name: &str) -> (ResponseCode, Vec<String>) {
        let answer = self.ask(name, RecordType::A).await;
        let addresses = answer
            .answers
            .iter()
            .filter_map(|record| match record.data {
                RData::A(address) => Some(address.to_string()),
                _ => None,
            });
        (answer.metadata.response_code, addresses.collect())
    }

    async fn records(self) -> Vec<Record> {
        // The recorder of queries runs on its own.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let records = self.setup.records().await;
        records
            .into_iter()
            .filter(|record| record.event.kind == EventKind::Dns)
            .collect()
    }
}

async fn nameserver() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let mut answer = Message::from_vec(&buffer[..length])
                .unwrap()
                .into_response();
            let name = answer.queries[0].name().clone();
            if answer.queries[0].query_type() == RecordType::A {
                for address in said(&name) {
                    answer.add_answer(Answer::from_rdata(name.clone(), 5, RData::A(A(address))));
                }
            }
            socket
                .send_to(&answer.to_vec().unwrap(), peer)
                .await
                .unwrap();
        }
    });
    address
}

/// Addresses that the labels of a name say.
fn said(name: &Name) -> Vec<Ipv4Addr> {
    let text = name.to_ascii();
    let labels = text.split('.');
    labels
        .filter_map(|label| label.split_once('-')?.1.replace('-', ".").parse().ok())
        .collect()
}

/// Action, wouldDeny, rule and reason of a record.
fn told(record: &Record) -> String {
    let decision = record.event.decision.as_ref().unwrap();
    let action = match (decision.action, decision.would_deny) {
        (Outcome::Deny, _) => "deny",
        (Outcome::Allow, true) => "would-deny",
        (Outcome::Allow, false) => "allow",
    };
    let rule = decision.rule.as_deref().unwrap_or("-");
    format!("{action} {rule} {}", decision.reason)
}

fn policy(mode: &str, rest: &str) -> String {
    format!(
        "{{apiVersion: chaperone.dev/v1alpha1, kind: AgentPolicy, metadata: {{name: p}}, spec: {{mode: {mode}, {rest}}}}}"
    )
}

const NO_TEXT: &str = "rules: [{name: no-text, match: {protocols: [dns], hosts: ['*.example']}, when: 'dns.type == \"TXT\"', action: Deny, message: Ask for addresses.}]";

#[tokio::test]
async fn a_denied_query_is_refused_with_the_rule_in_enforce_and_a_would_deny_in_audit() {
    for (mode, code, expected) in [
        ("Enforce", ResponseCode::Refused, "deny no-text rule"),
        ("Audit", ResponseCode::NoError, "would-deny no-text rule"),
    ] {
        let story = Story::begin(&policy(mode, NO_TEXT)).await;
        let answer = story.ask("x.example", RecordType::TXT).await;
        assert_eq!(answer.metadata.response_code, code, "{mode}");
        let bytes = answer.to_vec().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let why = "denied by policy agents/p, rule no-text: Ask for addresses.";
        assert_eq!(text.contains(why), mode == "Enforce", "{text}");
        assert_eq!(
            story.addresses("a-192-0-2-1.example").await.1,
            ["192.0.2.1"]
        );
        let records = story.records().await;
        assert_eq!(told(&records[0]), expected);
        assert_eq!(told(&records[1]), "allow - default");
    }
}

#[tokio::test]
async fn under_default_deny_what_rules_allow_can_be_resolved_and_nothing_else() {
    let closed = "defaultAction: Deny, rules: [{name: api, match: {hosts: ['*.example'], methods: [GET]}, action: Allow}]";
    let story = Story::begin(&policy("Enforce", closed)).await;
    assert_eq!(
        story.addresses("a-192-0-2-1.example").await.1,
        ["192.0.2.1"]
    );
    let refused = story.addresses("a-192-0-2-1.other").await;
    assert_eq!(refused, (ResponseCode::Refused, Vec::new()));
    let records = story.records().await;
    assert_eq!(told(&records[0]), "allow api rule");
    assert_eq!(told(&records[1]), "deny - default");
}

#[tokio::test]
async fn a_name_that_leads_to_the_pod_itself_or_is_rebound_is_answered_without_those_addresses() {
    for (mode, refused) in [("Enforce", true), ("Audit", false)] {
        let story = Story::begin(&policy(mode, "rules: []")).await;
        let local = story.addresses("a-127-0-0-1.b-192-0-2-1.example").await;
        let expected: &[&str] = if refused {
            &["192.0.2.1"]
        } else {
            &["127.0.0.1", "192.0.2.1"]
        };
        assert_eq!(
            local,
            (
                ResponseCode::NoError,
                expected.iter().map(ToString::to_string).collect()
            )
        );
        // A name that always led to a private address is an internal service.
        assert_eq!(story.addresses("a-10-0-0-1.example").await.1, ["10.0.0.1"]);
        let records = story.records().await;
        let expected = if refused { "deny" } else { "would-deny" };
        assert_eq!(told(&records[0]), format!("{expected} - dns-rebinding"));
        let dns = records[0].event.dns.as_ref().unwrap();
        assert_eq!(dns.withheld == ["127.0.0.1"], refused, "{dns:?}");
        assert_eq!(told(&records[1]), "allow - default");
    }
    let open =
        "rules: [{name: dev, match: {protocols: [dns], hosts: ['*.example']}, action: Allow}]";
    let story = Story::begin(&policy("Enforce", open)).await;
    assert_eq!(
        story.addresses("a-127-0-0-1.example").await.1,
        ["127.0.0.1"]
    );
    assert_eq!(told(&story.records().await[0]), "allow dev rule");
}

#[tokio::test]
async fn queries_that_carry_data_are_refused_in_enforce_unless_a_rule_on_dns_allows_the_domain() {
    let long = format!("{0}.{0}.{0}.evil.example", "a1b2c3d4".repeat(7));
    let open = "rules: [{name: scanner, match: {protocols: [dns], hosts: ['*.evil.example']}, action: Allow}]";
    for (mode, rest, code, expected) in [
        (
            "Enforce",
            "rules: []",
            ResponseCode::Refused,
            "deny - dns-tunnel",
        ),
        (
            "Audit",
            "rules: []",
            ResponseCode::NoError,
            "would-deny - dns-tunnel",
        ),
        ("Enforce", open, ResponseCode::NoError, "allow scanner rule"),
    ] {
        let story = Story::begin(&policy(mode, rest)).await;
        assert_eq!(story.addresses(&long).await.0, code, "{mode} {rest}");
        assert_eq!(told(&story.records().await[0]), expected);
    }
}
