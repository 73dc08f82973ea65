//! The rules as nft text, as `nft list ruleset` prints them (it leaves out an
//! address family that the protocol implies; this does not).
//!
//! Owns the reading side of the model: for people, and for the test that asks
//! the kernel what it understood. Nothing is loaded from this text.

use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::encode::SNAPLEN;
use super::ruleset::{
    Action, Chain, ChainKind, Hook, ICMP, ICMPV6, Match, Policy, Reject, Rule, Ruleset, TCP, UDP,
    WATCHED,
};

impl Display for Ruleset {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {} {{", self.table)?;
        if self.owned {
            writeln!(f, "\tflags owner\n")?;
        }
        for (index, chain) in self.chains.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write_chain(f, chain, self.log_group)?;
        }
        writeln!(f, "}}")
    }
}

fn write_chain(f: &mut Formatter<'_>, chain: &Chain, group: u16) -> fmt::Result {
    let kind = match chain.kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    };
    let hook = match chain.hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Output => "output",
        Hook::Postrouting => "postrouting",
    };
    let priority = match chain.priority {
        -300 => "raw".to_owned(),
        -10 => "filter - 10".to_owned(),
        0 => "filter".to_owned(),
        other => other.to_string(),
    };
    let policy = match chain.policy {
        Policy::Accept => "accept",
        Policy::Drop => "drop",
    };
    writeln!(f, "\tchain {} {{", chain.name)?;
    writeln!(
        f,
        "\t\ttype {kind} hook {hook} priority {priority}; policy {policy};"
    )?;
    for rule in &chain.rules {
        writeln!(f, "\t\t{}", rule_text(rule, group))?;
    }
    writeln!(f, "\t}}")
}

fn rule_text(rule: &Rule, group: u16) -> String {
    let matches = rule.matches.iter().map(match_text);
    let actions = rule
        .actions
        .iter()
        .map(|action| action_text(*action, group));
    matches.chain(actions).collect::<Vec<_>>().join(" ")
}

fn match_text(condition: &Match) -> String {
    match condition {
        Match::Mark(mark) => format!("meta mark {mark:#010x}"),
        Match::Watched => format!("meta mark {WATCHED:#010x}"),
        Match::SocketUid(uid) => format!("meta skuid {uid}"),
        Match::FromLoopback => "iifname \"lo\"".to_owned(),
        Match::FromOutside => "iifname != \"lo\"".to_owned(),
        Match::ToOutside => "oifname != \"lo\"".to_owned(),
        Match::LocalDestination => "fib daddr type local".to_owned(),
        Match::Protocol(number) => format!("meta l4proto {}", protocol_text(*number)),
        Match::DestinationPort(number, ports) => {
            format!("{} dport {}", protocol_text(*number), range_text(ports))
        }
        Match::SourcePort(number, port) => format!("{} sport {port}", protocol_text(*number)),
        Match::TcpWithoutSyn => "tcp flags ! syn".to_owned(),
        Match::Icmpv6Type(types) if types == &(143..=143) => {
            "icmpv6 type mld2-listener-report".to_owned()
        }
        Match::Icmpv6Type(types) => format!("icmpv6 type {}", range_text(types)),
        Match::Destination(network) => network_text(network),
        Match::FlowMark(mark) => format!("ct mark {mark:#010x}"),
        Match::FlowMarkNot(mark) => format!("ct mark != {mark:#010x}"),
        Match::Reply => "ct direction reply".to_owned(),
        Match::Redirected => "ct status dnat".to_owned(),
        Match::NoFlow => "ct state invalid,untracked".to_owned(),
    }
}

fn action_text(action: Action, group: u16) -> String {
    match action {
        Action::Accept => "accept".to_owned(),
        Action::Return => "return".to_owned(),
        Action::Drop => "drop".to_owned(),
        Action::Redirect(port) => format!("redirect to :{port}"),
        Action::Log(prefix) => format!("log prefix \"{prefix}\" group {group} snaplen {SNAPLEN}"),
        Action::Reject(Reject::TcpReset) => "reject with tcp reset".to_owned(),
        Action::Reject(Reject::PortUnreachable) => "reject".to_owned(),
        Action::Reject(Reject::AdminProhibited) => "reject with icmpx admin-prohibited".to_owned(),
        Action::SetFlowMark(mark) => format!("ct mark set {mark:#010x}"),
        Action::NoTrack => "notrack".to_owned(),
        Action::Watch => format!("meta mark set {WATCHED:#010x}"),
    }
}

fn protocol_text(number: u8) -> String {
    match number {
        TCP => "tcp".to_owned(),
        UDP => "udp".to_owned(),
        ICMP => "icmp".to_owned(),
        ICMPV6 => "ipv6-icmp".to_owned(),
        other => other.to_string(),
    }
}

fn range_text<T: Display + PartialEq>(range: &RangeInclusive<T>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{}-{}", range.start(), range.end())
    }
}

fn network_text(network: &IpNet) -> String {
    let family = match network {
        IpNet::V4(_) => "ip",
        IpNet::V6(_) => "ip6",
    };
    match network.prefix_len() {
        0 if family == "ip" => "meta nfproto ipv4".to_owned(),
        0 => "meta nfproto ipv6".to_owned(),
        full if full == network.max_prefix_len() => format!("{family} daddr {}", network.addr()),
        _ => format!("{family} daddr {network}"),
    }
}
