//! Rules on datagrams, as the packet filter takes them.

use ipnet::IpNet;

use super::{CompiledRule, CompiledSnapshot};
use crate::{
    hosts::HostPattern,
    resources::{Action, Mode, Protocol},
    snapshot::PolicyKind,
};

/// One rule of the packet filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatagramRule {
    /// [`Protocol::Udp`] or [`Protocol::Icmp`] (which covers ICMPv6).
    pub protocol: Protocol,
    /// Allow or Deny.
    pub action: Action,
    /// Destination.
    pub net: IpNet,
    /// Destination ports, for UDP. Empty: all.
    pub ports: Vec<u16>,
}

/// Rules of the policies in mode Enforce, in the order of the merge, so that the first that fits decides. Where a cluster policy has
/// `defaultAction: Deny`, the Allow rules of namespaced policies are left out: they could not lift it.
pub(super) fn rules(snapshot: &CompiledSnapshot) -> Vec<DatagramRule> {
    let cluster_only = snapshot.enforced_defaults.cluster_deny.is_some();
    let mut rules = Vec::new();
    for rule in &snapshot.rules {
        let Some(head) = snapshot.heads.get(rule.policy as usize) else {
            continue;
        };
        let lifts = rule.action == Action::Allow;
        let namespaced = head.reference.kind == PolicyKind::AgentPolicy;
        if head.mode == Mode::Enforce && !(lifts && namespaced && cluster_only) {
            rules.extend(of_rule(rule));
        }
    }
    rules
}

/// Rules with `when` never have datagram protocols.
fn of_rule(rule: &CompiledRule) -> impl Iterator<Item = DatagramRule> {
    let protocols = rule
        .protocols
        .iter()
        .filter(|protocol| matches!(protocol, Protocol::Udp | Protocol::Icmp));
    protocols.flat_map(|protocol| {
        // A rule on ports says nothing about ICMP, which has none.
        let applies = *protocol == Protocol::Udp || rule.ports.is_empty();
        let nets = nets(&rule.hosts).into_iter().filter(move |_| applies);
        nets.map(|net| DatagramRule {
            protocol: *protocol,
            action: rule.action,
            net,
            ports: rule.ports.clone(),
        })
    })
}

/// The addresses of `match.hosts`; names have none here. No hosts, or `*`: all addresses.
fn nets(hosts: &[HostPattern]) -> Vec<IpNet> {
    if hosts.is_empty() || hosts.contains(&HostPattern::Any) {
        return ["0.0.0.0/0", "::/0"]
            .iter()
            .filter_map(|net| net.parse().ok())
            .collect();
    }
    let nets = hosts.iter().filter_map(|host| match host {
        HostPattern::Network(net) => Some(*net),
        _ => None,
    });
    nets.collect()
}
