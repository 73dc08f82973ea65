//! Rules: `match` and `when` of one policy.

use std::sync::Arc;

use super::{Part, Report, Trouble, expression::Expression};
use crate::{
    cel_env::Facts,
    decide::Operation,
    hosts::{HostPattern, normalize_host},
    resources::{Action, Match, PolicyRule, Protocol},
    snapshot::Policy,
};

/// What a rule is about when it does not say. Datagrams are the packet filter's: an Allow must name them, a Deny without `when` covers them.
const READ_PROTOCOLS: [Protocol; 3] = [Protocol::Http, Protocol::Tls, Protocol::Tcp];
/// What a Deny rule without `when` and `methods` is about when it does not say. One about every destination is about `dns` too; one that names hosts leaves their
/// names resolvable, so that the agent is told why in the protocol that it speaks.
const ALL_PROTOCOLS: [Protocol; 5] = [
    Protocol::Http,
    Protocol::Tls,
    Protocol::Tcp,
    Protocol::Udp,
    Protocol::Icmp,
];

/// Shortest prefixes of networks that count as naming an address: 169.254.0.0/16 does, 0.0.0.0/0 does not.
const LEAST_PREFIX_V4: u8 = 16;
/// As [`LEAST_PREFIX_V4`], for IPv6.
const LEAST_PREFIX_V6: u8 = 32;

/// One rule, compiled.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    /// Place of its policy in the snapshot; 0 before that is known.
    pub(crate) policy: u32,
    pub(crate) name: Arc<str>,
    pub(crate) action: Action,
    pub(crate) message: Option<Arc<str>>,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) ports: Vec<u16>,
    pub(crate) methods: Vec<String>,
    pub(crate) when: Option<Expression>,
}

impl CompiledRule {
    /// Whether port and method fit; protocol and host are the index's.
    pub(crate) fn fits_port_and_method(&self, operation: &Operation<'_>) -> bool {
        if operation.protocol == Protocol::Dns {
            return true;
        }
        let port = operation.destination.port;
        let method = operation.http.map(|http| http.method);
        (self.ports.is_empty() || self.ports.contains(&port))
            && (self.methods.is_empty() || method.is_some_and(|method| self.has_method(method)))
    }

    /// An Allow rule on other protocols: what it allows must be resolvable, so it allows queries for the hosts that it names, whatever else it asks for.
    pub(crate) fn implies_dns(&self) -> bool {
        self.action == Action::Allow && !self.protocols.contains(&Protocol::Dns)
    }

    /// Whether the rule names this operation's address: itself, or a network that is not much larger. A rule on everything does not.
    pub(crate) fn names_address(&self, operation: &Operation<'_>) -> bool {
        let ip = operation.destination.ip.to_canonical();
        let least = if ip.is_ipv4() {
            LEAST_PREFIX_V4
        } else {
            LEAST_PREFIX_V6
        };
        self.hosts.iter().any(|pattern| match pattern {
            HostPattern::Network(net) => net.prefix_len() >= least && net.contains(&ip),
            HostPattern::Any | HostPattern::Exact(_) | HostPattern::Below(_) => false,
        })
    }

    /// Whether the rule names this operation's host, itself or the domain that it is below.
    pub(crate) fn names_host(&self, operation: &Operation<'_>) -> bool {
        let host = operation.destination.host.map(normalize_host);
        self.hosts.iter().any(|pattern| match pattern {
            HostPattern::Any | HostPattern::Network(_) => false,
            named => host.as_deref().is_some_and(|host| named.matches_name(host)),
        })
    }

    /// Without regard to case: there are servers that take `delete` for `DELETE`.
    fn has_method(&self, method: &str) -> bool {
        self.methods
            .iter()
            .any(|known| known.eq_ignore_ascii_case(method))
    }

    /// Whether `when` reads `http.body` or `http.detected`.
    pub(crate) fn reads_body(&self) -> bool {
        self.when.as_ref().is_some_and(Expression::reads_body)
    }

    /// Whether `when` reads header fields, or a body.
    pub(crate) fn reads_head(&self) -> bool {
        self.when.as_ref().is_some_and(Expression::reads_head)
    }

    /// Whether it is about messages of WebSocket connections.
    pub(crate) fn reads_ws(&self) -> bool {
        self.when.as_ref().is_some_and(Expression::reads_ws)
    }

    /// Whether it is about messages of gRPC calls.
    pub(crate) fn reads_grpc_message(&self) -> bool {
        let reads = |when: &Expression| when.reads_grpc_message() && !when.reads_ws();
        self.when.as_ref().is_some_and(reads)
    }

    /// Whether `when` is true.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub(crate) fn matches(&self, facts: &Facts<'_>) -> Result<bool, String> {
        if facts.operation.protocol == Protocol::Dns && self.implies_dns() {
            return Ok(true);
        }
        self.when
            .as_ref()
            .map_or(Ok(true), |when| when.evaluate(facts))
    }
}

/// Compiles the rules of a policy; what is wrong goes into the report.
pub(super) fn compile(policy: &Policy, report: &mut Report<'_>) -> Vec<CompiledRule> {
    report.duplicates(policy.rules.iter().map(|rule| Part::Rule(&rule.name)));
    policy
        .rules
        .iter()
        .map(|rule| compile_rule(rule, report))
        .collect()
}

fn compile_rule(rule: &PolicyRule, report: &mut Report<'_>) -> CompiledRule {
    let name = Part::Rule(&rule.name);
    let matches = rule.matches.clone().unwrap_or_default();
    let when = rule.when.as_ref().and_then(|source| {
        Expression::compile(source)
            .map_err(|troubles| {
                for trouble in troubles {
                    report.add(name, "when", trouble);
                }
            })
            .ok()
    });
    check_protocols(rule, &matches, when.as_ref(), report);
    CompiledRule {
        policy: 0,
        name: Arc::from(rule.name.as_str()),
        action: rule.action,
        message: rule.message.as_deref().map(Arc::from),
        protocols: protocols(rule, &matches, when.as_ref()),
        hosts: match_host(name, "match.hosts", &matches.hosts, report),
        ports: matches.ports,
        methods: matches.methods,
        when,
    }
}

fn protocols(rule: &PolicyRule, matches: &Match, when: Option<&Expression>) -> Vec<Protocol> {
    let reads_http = when.is_some_and(|when| when.reads_http() || when.reads_ws());
    let reads_dns = when.is_some_and(Expression::reads_dns);
    if !matches.protocols.is_empty() {
        let mut protocols = matches.protocols.clone();
        protocols.sort_unstable();
        protocols.dedup();
        protocols
    } else if reads_http || !matches.methods.is_empty() {
        vec![Protocol::Http]
    } else if reads_dns {
        vec![Protocol::Dns]
    } else if rule.action == Action::Deny && rule.when.is_none() {
        let mut protocols = ALL_PROTOCOLS.to_vec();
        let everything = matches.hosts.is_empty() || matches.hosts.iter().any(|host| host == "*");
        if everything && matches.ports.is_empty() {
            protocols.push(Protocol::Dns);
        }
        protocols
    } else {
        READ_PROTOCOLS.to_vec()
    }
}

/// What the protocols of a rule do not go with.
fn check_protocols(
    rule: &PolicyRule,
    matches: &Match,
    when: Option<&Expression>,
    report: &mut Report<'_>,
) {
    let name = Part::Rule(&rule.name);
    let written = || {
        let names: Vec<_> = matches.protocols.iter().map(|p| p.as_str()).collect();
        names.join(", ")
    };
    let others = matches.protocols.iter().any(|p| *p != Protocol::Http);
    let not_dns = matches.protocols.iter().any(|p| *p != Protocol::Dns);
    if matches.protocols.contains(&Protocol::Dns) {
        check_dns(name, matches, &written(), report);
    }
    let reads_dns = when.is_some_and(Expression::reads_dns);
    let reads_http = when.is_some_and(Expression::reads_http) || !matches.methods.is_empty();
    if reads_dns && (not_dns || reads_http) {
        let message = "when reads dns, which only queries have; make it a rule with protocols: [dns], and a second one for the other protocols";
        report.add(name, "match.protocols", Trouble::at(&written(), 0, message));
    }
    if others && !matches.methods.is_empty() {
        let message = "methods are HTTP's; write protocols: [http], or make a second rule for the other protocols";
        report.add(
            name,
            "match.methods",
            Trouble::at(&matches.methods.join(", "), 0, message),
        );
    }
    if others && when.is_some_and(Expression::reads_http) {
        let message = "when reads http, which only HTTP requests have; write protocols: [http], or make a second rule for the other protocols";
        report.add(name, "match.protocols", Trouble::at(&written(), 0, message));
    }
    if when.is_some_and(Expression::reads_ws) {
        check_messages(rule, others, &written(), report);
    }
    if let Some(when) = when.filter(|when| when.reads_grpc_message()) {
        check_grpc_messages(rule, when, report);
    }
    let datagrams = matches
        .protocols
        .iter()
        .any(|p| matches!(p, Protocol::Udp | Protocol::Icmp));
    if datagrams {
        check_datagrams(rule, matches, &written(), report);
    }
    if matches.protocols.contains(&Protocol::Icmp) && !matches.ports.is_empty() {
        let message = "ICMP has no ports; leave ports out, or make a second rule for icmp";
        report.add(name, "match.ports", Trouble::at(&written(), 0, message));
    }
}

/// A query has a name and a type: neither port nor address, for it is the sidecar's resolver that answers.
fn check_dns(name: Part<'_>, matches: &Match, written: &str, report: &mut Report<'_>) {
    if !matches.ports.is_empty() {
        let message = "a rule on dns is about the name asked and has no ports; leave ports out, or make a second rule for dns";
        report.add(name, "match.ports", Trouble::at(written, 0, message));
    }
    let only_dns = matches.protocols.iter().all(|p| *p == Protocol::Dns);
    for (number, host) in matches.hosts.iter().enumerate() {
        if only_dns && matches!(HostPattern::parse(host), Ok(HostPattern::Network(_))) {
            let message = "a rule on dns is about the name asked, which has no address yet; write names, such as *.example.com";
            report.add(
                name,
                format!("match.hosts[{number}]"),
                Trouble::at(host, 0, message),
            );
        }
    }
}

/// A rule that reads `ws` is about messages, which the handshake's decision lets pass: only a Deny says more.
fn check_messages(rule: &PolicyRule, others: bool, written: &str, report: &mut Report<'_>) {
    let name = Part::Rule(&rule.name);
    if others {
        let message = "when reads ws, which only messages of WebSocket connections have; write protocols: [http], or make a second rule for the other protocols";
        report.add(name, "match.protocols", Trouble::at(written, 0, message));
    }
    if rule.action == Action::Allow {
        let source = rule.when.as_deref().unwrap_or_default();
        let message = "a rule that reads ws must deny: messages pass where their handshake passed; write a Deny with the opposite condition";
        report.add(name, "action", Trouble::at(source, 0, message));
    }
}

/// A rule that reads `grpc.message` is about messages, which the decision on the call lets pass: only a Deny says more.
fn check_grpc_messages(rule: &PolicyRule, when: &Expression, report: &mut Report<'_>) {
    let name = Part::Rule(&rule.name);
    let source = rule.when.as_deref().unwrap_or_default();
    if rule.action == Action::Allow {
        let message = "a rule that reads grpc.message must deny: messages pass where their call passed; write a Deny with the opposite condition";
        report.add(name, "action", Trouble::at(source, 0, message));
    }
    if when.reads_ws() || when.reads_body() {
        let message = "a rule is about messages of gRPC calls (grpc.message), of WebSocket (ws), or about whole bodies (http.body, http.detected); make one rule for each";
        report.add(name, "when", Trouble::at(source, 0, message));
    }
}

/// A rule on datagrams becomes rules of the packet filter, which knows addresses and ports only.
fn check_datagrams(rule: &PolicyRule, matches: &Match, written: &str, report: &mut Report<'_>) {
    let name = Part::Rule(&rule.name);
    if let Some(source) = &rule.when {
        let message = "a rule on udp or icmp is enforced by the packet filter and cannot have when; make a second rule for the other protocols";
        report.add(name, "when", Trouble::at(source, 0, message));
    }
    if matches.hosts.is_empty() {
        let message = "a rule on udp or icmp needs match.hosts with addresses or CIDRs, such as 10.0.0.0/8, or * for all";
        report.add(name, "match.protocols", Trouble::at(written, 0, message));
    }
    for (number, host) in matches.hosts.iter().enumerate() {
        if matches!(
            HostPattern::parse(host),
            Ok(HostPattern::Exact(_) | HostPattern::Below(_))
        ) {
            let message = "a rule on udp or icmp is enforced by the packet filter, which knows no names; write an address or a CIDR";
            report.add(
                name,
                format!("match.hosts[{number}]"),
                Trouble::at(host, 0, message),
            );
        }
    }
}

/// Parses a list of destinations, `match.hosts` or the like.
pub(super) fn match_host(
    part: Part<'_>,
    field: &str,
    hosts: &[String],
    report: &mut Report<'_>,
) -> Vec<HostPattern> {
    let mut parsed = Vec::with_capacity(hosts.len());
    for (number, host) in hosts.iter().enumerate() {
        match HostPattern::parse(host) {
            Ok(pattern) => parsed.push(pattern),
            Err(error) => report.add(
                part,
                format!("{field}[{number}]"),
                Trouble::at(host, error.offset, error.message),
            ),
        }
    }
    parsed
}
