//! Finding the rules whose `match` fits an operation, without looking at the others.
//!
//! Owns the index by protocol and host. Invariant: rule numbers are in the order in which the merge wants them (see [`crate::compile`]), and
//! candidates keep that order.

use std::{collections::HashMap, net::IpAddr};

use ipnet::IpNet;

use super::{Decision, Operation, merge};
use crate::{
    compile::{CompiledRule, CompiledSnapshot},
    hosts::{HostPattern, normalize_host},
    pod::PodIdentity,
    resources::{Action, Protocol},
};

/// The rules whose `match` fits one operation.
pub struct Candidates<'s> {
    snapshot: &'s CompiledSnapshot,
    rules: Vec<u32>,
}

impl Candidates<'_> {
    /// Whether a candidate reads `http.body` or `http.detected`, so that the data path must buffer it before [`Self::decide`].
    #[must_use]
    pub fn needs_body(&self) -> bool {
        self.rules().any(CompiledRule::reads_body)
    }

    /// Whether a candidate reads header fields, or a body.
    pub(crate) fn needs_head(&self) -> bool {
        self.rules().any(CompiledRule::reads_head)
    }

    /// Evaluates the candidates and merges what they say. `operation` is the one that they were looked up for, its body now read if they need it.
    #[must_use]
    pub fn decide(&self, agent: &PodIdentity, operation: &Operation<'_>) -> Decision {
        merge::decide(self.snapshot, self.rules(), agent, operation)
    }

    /// How many rules are candidates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether no rule is a candidate, so that only defaults decide.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    fn rules(&self) -> impl Iterator<Item = &CompiledRule> {
        self.rules
            .iter()
            .filter_map(|number| self.snapshot.rules.get(*number as usize))
    }
}

impl CompiledSnapshot {
    /// The rules whose `match` fits: protocol, host, port and method.
    #[must_use]
    pub fn candidates(&self, operation: &Operation<'_>) -> Candidates<'_> {
        let mut rules = self.index.lookup(operation);
        if let Some(dns) = operation.dns {
            let towards = dns.towards.iter().flat_map(|name| self.index.names(name));
            rules.extend(towards.filter(|number| {
                self.rules
                    .get(*number as usize)
                    .is_some_and(|rule| rule.action == Action::Allow)
            }));
            rules.sort_unstable();
            rules.dedup();
        }
        rules.retain(|number| {
            self.rules
                .get(*number as usize)
                .is_some_and(|rule| rule.fits_port_and_method(operation))
        });
        Candidates {
            snapshot: self,
            rules,
        }
    }
}

/// Rule numbers by protocol, then by host.
#[derive(Debug, Default)]
pub(crate) struct RuleIndex {
    http: HostIndex,
    /// Rules on messages of WebSocket connections: those that read `ws`.
    ws: HostIndex,
    /// Rules on messages of gRPC calls: those that read `grpc.message` or `grpc.direction`.
    grpc: HostIndex,
    tls: HostIndex,
    tcp: HostIndex,
    udp: HostIndex,
    icmp: HostIndex,
    /// Rules on dns, and all other Allow rules: a host that one of them names can be resolved.
    dns: HostIndex,
}

impl RuleIndex {
    /// Indexes rules by their place in the slice.
    pub(crate) fn new(rules: &[CompiledRule]) -> Self {
        let mut index = Self::default();
        for (number, rule) in (0_u32..).zip(rules) {
            if rule.reads_ws() {
                index.ws.add(number, &rule.hosts);
                continue;
            }
            if rule.reads_grpc_message() {
                index.grpc.add(number, &rule.hosts);
                continue;
            }
            for protocol in &rule.protocols {
                index.of_mut(*protocol).add(number, &rule.hosts);
            }
            if rule.implies_dns() {
                index.dns.add(number, &rule.hosts);
            }
        }
        index
    }

    fn lookup(&self, operation: &Operation<'_>) -> Vec<u32> {
        let host = operation.destination.host.map(normalize_host);
        let ip = (operation.protocol != Protocol::Dns).then_some(operation.destination.ip);
        let index = match (operation.ws, operation.grpc) {
            (Some(_), _) => &self.ws,
            (None, Some(_)) => &self.grpc,
            (None, None) => self.of(operation.protocol),
        };
        index.lookup(host.as_deref(), ip)
    }

    /// Rules on queries for this name.
    fn names(&self, name: &str) -> Vec<u32> {
        self.dns.lookup(Some(&normalize_host(name)), None)
    }

    fn of(&self, protocol: Protocol) -> &HostIndex {
        match protocol {
            Protocol::Http => &self.http,
            Protocol::Tls => &self.tls,
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Icmp => &self.icmp,
            Protocol::Dns => &self.dns,
        }
    }

    fn of_mut(&mut self, protocol: Protocol) -> &mut HostIndex {
        match protocol {
            Protocol::Http => &mut self.http,
            Protocol::Tls => &mut self.tls,
            Protocol::Tcp => &mut self.tcp,
            Protocol::Udp => &mut self.udp,
            Protocol::Icmp => &mut self.icmp,
            Protocol::Dns => &mut self.dns,
        }
    }
}

#[derive(Debug, Default)]
struct HostIndex {
    any: Vec<u32>,
    exact: HashMap<String, Vec<u32>>,
    below: HashMap<String, Vec<u32>>,
    addresses: HashMap<IpAddr, Vec<u32>>,
    networks: Vec<(IpNet, u32)>,
}

impl HostIndex {
    fn add(&mut self, number: u32, hosts: &[HostPattern]) {
        if hosts.is_empty() {
            self.any.push(number);
        }
        for host in hosts {
            match host {
                HostPattern::Any => self.any.push(number),
                HostPattern::Exact(name) => {
                    self.exact.entry(name.clone()).or_default().push(number);
                }
                HostPattern::Below(name) => {
                    self.below.entry(name.clone()).or_default().push(number);
                }
                HostPattern::Network(net) if net.prefix_len() == net.max_prefix_len() => {
                    self.addresses.entry(net.addr()).or_default().push(number);
                }
                HostPattern::Network(net) => self.networks.push((*net, number)),
            }
        }
    }

    /// Numbers in order, each once. A name that is asked for has no address yet.
    fn lookup(&self, host: Option<&str>, ip: Option<IpAddr>) -> Vec<u32> {
        let mut found = self.any.clone();
        if let Some(host) = host {
            found.extend(self.exact.get(host).into_iter().flatten());
            if !self.below.is_empty() {
                let mut rest = host;
                while let Some((_, parent)) = rest.split_once('.') {
                    found.extend(self.below.get(parent).into_iter().flatten());
                    rest = parent;
                }
            }
        }
        if let Some(ip) = ip.map(|ip| ip.to_canonical()) {
            if !self.addresses.is_empty() {
                found.extend(self.addresses.get(&ip).into_iter().flatten());
            }
            let networks = self.networks.iter();
            let networks = networks.filter(|(net, _)| net.contains(&ip));
            found.extend(networks.map(|(_, number)| *number));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}
