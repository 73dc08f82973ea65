//! The rules as a value, and the one function that decides them.
//!
//! Owns what is captured, exempt, refused and logged. Refuses I/O: the value is
//! encoded by `encode` and written as nft text by `render`.
//!
//! Invariants: a packet that leaves is exempt, an answer to an inbound
//! connection, neighbour discovery, or logged while somebody reads the log; in
//! [`CaptureMode::Enforce`] the last of these is also allowed by name.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::{CaptureConfig, CaptureMode, DatagramKind, Datagrams, Exempt};

/// Name of the table, in family `inet`.
pub(super) const TABLE: &str = "chaperone";

/// Name of the table that lives as long as somebody reads the packet log.
pub(super) const WATCH_TABLE: &str = "chaperone_watch";

/// Firewall mark of packets that somebody will read of, should they be logged. An agent
/// can't set it: `SO_MARK` needs `NET_ADMIN` or `NET_RAW`.
pub(super) const WATCHED: u32 = 0x4368_7761;

/// Log prefix of packets that passed unread.
pub(super) const PREFIX_PASSED: &str = "chaperone:passed";

/// Log prefix of packets that were refused.
pub(super) const PREFIX_REFUSED: &str = "chaperone:refused";

/// Conntrack mark of a flow whose first packet has been logged. Distinct from
/// every firewall mark in use; only this table's rules set it.
const CT_LOGGED: u32 = 0x4368_6171;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMPV6: u8 = 58;

/// `ct state invalid,untracked` (NF_CT_STATE_INVALID_BIT, _UNTRACKED_BIT of
/// `linux/netfilter/nf_conntrack_common.h`).
pub(super) const CT_INVALID_OR_UNTRACKED: u32 = 0x41;

/// Priority of a chain whose marks `filter_output` sees.
const BEFORE_FILTER: i32 = -10;

const DNS: u16 = 53;
const QUIC: u16 = 443;

/// A table in family `inet`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Its name.
    pub table: &'static str,
    /// Whether it goes with the socket that made it.
    pub owned: bool,
    /// NFLOG group that [`Action::Log`] sends to.
    pub log_group: u16,
    /// Base chains.
    pub chains: Vec<Chain>,
}

/// A base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Name, unique in the table.
    pub name: &'static str,
    /// What its verdicts may do.
    pub kind: ChainKind,
    /// Where packets enter it.
    pub hook: Hook,
    /// Order among chains of one hook; lower first.
    pub priority: i32,
    /// Verdict for packets that no rule decides.
    pub policy: Policy,
    /// Rules, first match with a final verdict wins.
    pub rules: Vec<Rule>,
}

/// nftables chain type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees every packet.
    Filter,
    /// Sees the first packet of each flow and rewrites its addresses.
    Nat,
}

/// Netfilter hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that arrive, before routing.
    Prerouting,
    /// Packets for this namespace.
    Input,
    /// Packets from this namespace.
    Output,
    /// Packets that leave, after routing.
    Postrouting,
}

/// Verdict at the end of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Let pass.
    Accept,
    /// Discard.
    Drop,
}

/// All matches must hold; then the actions happen in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Conditions.
    pub matches: Vec<Match>,
    /// Consequences.
    pub actions: Vec<Action>,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The packet's firewall mark.
    Mark(u32),
    /// Somebody reads the packet log: [`watching`] marked the packet.
    Watched,
    /// User id that owns the packet's socket. Never holds for packets without
    /// an open socket.
    SocketUid(u32),
    /// Arrived on the loopback interface.
    FromLoopback,
    /// Arrived on any other interface.
    FromOutside,
    /// Leaves by any other interface than loopback.
    ToOutside,
    /// The destination is an address of this namespace, loopback included.
    LocalDestination,
    /// Transport protocol number.
    Protocol(u8),
    /// Transport protocol and inclusive range of destination ports.
    DestinationPort(u8, RangeInclusive<u16>),
    /// Transport protocol and source port.
    SourcePort(u8, u16),
    /// A TCP segment without the SYN flag.
    TcpWithoutSyn,
    /// Inclusive range of ICMPv6 types.
    Icmpv6Type(RangeInclusive<u8>),
    /// Destination network.
    Destination(IpNet),
    /// Mark of the packet's flow.
    FlowMark(u32),
    /// The packet's flow has any other mark.
    FlowMarkNot(u32),
    /// The packet answers the side that opened the flow.
    Reply,
    /// The flow's destination was rewritten: it came by redirection.
    Redirected,
    /// Conntrack has no flow for the packet.
    NoFlow,
}

/// One consequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Let pass; final within this hook's chain.
    Accept,
    /// Leave the chain; its policy applies.
    Return,
    /// Discard silently.
    Drop,
    /// Send the flow to this local port.
    Redirect(u16),
    /// Copy the packet's head to the NFLOG group, with this prefix.
    Log(&'static str),
    /// Discard, and tell the sender.
    Reject(Reject),
    /// Mark the flow.
    SetFlowMark(u32),
    /// Keep conntrack away from the packet.
    NoTrack,
    /// Say that somebody reads the packet log.
    Watch,
}

/// How a sender learns of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// TCP reset.
    TcpReset,
    /// ICMP or ICMPv6 port unreachable: clients give up at once.
    PortUnreachable,
    /// ICMP or ICMPv6 administratively prohibited.
    AdminProhibited,
}

/// Decides the rules for a configuration.
pub fn ruleset(config: &CaptureConfig) -> Ruleset {
    let mut chains = Vec::new();
    if let Some(exempt) = config.exempt {
        chains.push(raw_output(exempt));
        chains.push(raw_prerouting());
    }
    chains.push(nat_output(config));
    chains.push(filter_output(config));
    chains.push(filter_input(config));
    chains.push(filter_postrouting());
    Ruleset {
        table: TABLE,
        owned: false,
        log_group: config.log_group,
        chains,
    }
}

/// Decides the rules that hold while somebody reads the packet log of `log_group`.
///
/// What passes unread is recorded by whoever reads the log, so it passes only while somebody does. The lasting table outlives the sidecar and can't know; this one goes with the reader's
/// socket, and only packets that it marked may pass there. Any other mark is left as it is: the sidecar's own means more.
pub fn watching(log_group: u16) -> Ruleset {
    Ruleset {
        table: WATCH_TABLE,
        owned: true,
        log_group,
        chains: vec![Chain {
            name: "watch_output",
            kind: ChainKind::Filter,
            hook: Hook::Output,
            priority: BEFORE_FILTER,
            policy: Policy::Accept,
            rules: vec![
                // Never decided by this mark, and far more of them.
                rule([Match::Protocol(TCP)], [Action::Accept]),
                rule([Match::Mark(0)], [Action::Watch]),
            ],
        }],
    }
}

/// Keeps the sidecar's own DNS queries out of conntrack.
///
/// An agent's query and the sidecar's may use the same source port towards the
/// same resolver, one shortly after the other. With a flow remembered from the
/// first, the second would inherit its fate: the sidecar's query redirected to
/// itself, or the agent's sent out unread.
fn raw_output(exempt: Exempt) -> Chain {
    Chain {
        name: "raw_output",
        kind: ChainKind::Filter,
        hook: Hook::Output,
        priority: -300,
        policy: Policy::Accept,
        rules: vec![rule(
            exempted(exempt)
                .into_iter()
                .chain([Match::DestinationPort(UDP, DNS..=DNS)]),
            [Action::NoTrack],
        )],
    }
}

/// The other half of [`raw_output`]: were the answers tracked, an agent's later
/// query on that port would look like a reply, and replies may leave.
fn raw_prerouting() -> Chain {
    Chain {
        name: "raw_prerouting",
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: -300,
        policy: Policy::Accept,
        rules: vec![rule(
            [Match::FromOutside, Match::SourcePort(UDP, DNS)],
            [Action::NoTrack],
        )],
    }
}

fn nat_output(config: &CaptureConfig) -> Chain {
    let (tcp, dns) = (config.ports.tcp, config.ports.dns);
    let mut rules = Vec::new();
    if let Some(exempt) = config.exempt {
        rules.push(rule(exempted(exempt), [Action::Return]));
    }
    // Before the rule for local addresses: a resolver at 127.0.0.53 counts too.
    for protocol in [UDP, TCP] {
        rules.push(rule(
            [Match::DestinationPort(protocol, DNS..=DNS)],
            [Action::Redirect(dns)],
        ));
    }
    rules.push(rule([Match::LocalDestination], [Action::Return]));
    rules.push(rule([Match::Protocol(TCP)], [Action::Redirect(tcp)]));
    Chain {
        name: "nat_output",
        kind: ChainKind::Nat,
        hook: Hook::Output,
        priority: -100,
        policy: Policy::Accept,
        rules,
    }
}

fn filter_output(config: &CaptureConfig) -> Chain {
    let mut rules = Vec::new();
    if let Some(exempt) = config.exempt {
        rules.push(rule(
            exempted(exempt),
            [Action::SetFlowMark(exempt.mark), Action::Accept],
        ));
        // What the kernel still sends for a closed socket (last data, FIN,
        // RST) has no uid. The flow's mark stands in for it, but never for a
        // SYN: a new connection must show mark and uid itself.
        rules.push(rule(
            [Match::FlowMark(exempt.mark), Match::TcpWithoutSyn],
            [Action::Accept],
        ));
    }
    rules.push(rule([Match::Reply], [Action::Accept]));
    rules.push(rule([Match::LocalDestination], [Action::Accept]));
    // Router and neighbour discovery (RFC 4861) and MLDv2 reports (RFC 3810):
    // without them IPv6 does not work at all.
    for types in [133..=136, 143..=143] {
        rules.push(rule([Match::Icmpv6Type(types)], [Action::Accept]));
    }
    // TCP was redirected, so its destination is local. What remains has no
    // valid flow and must not leave.
    rules.push(rule([Match::Protocol(TCP)], [Action::Drop]));
    rules.push(rule(
        [Match::DestinationPort(UDP, QUIC..=QUIC)],
        [
            Action::Log(PREFIX_REFUSED),
            Action::Reject(Reject::PortUnreachable),
        ],
    ));
    match config.mode {
        // What is not watched is dropped without a word: the sidecar is about to be back.
        CaptureMode::Audit => rules.extend(pass_and_log(&[])),
        CaptureMode::Enforce => {
            rules.extend(config.denied.iter().map(deny));
            rules.extend(config.allowed.iter().flat_map(allow));
            rules.push(rule(
                [],
                [
                    Action::Log(PREFIX_REFUSED),
                    Action::Reject(Reject::AdminProhibited),
                ],
            ));
        }
    }
    Chain {
        name: "filter_output",
        kind: ChainKind::Filter,
        hook: Hook::Output,
        priority: 0,
        policy: Policy::Drop,
        rules,
    }
}

/// A socket that is bound to an interface takes its packets there although they were redirected to an address of this namespace: the sidecar would not see them, the
/// network would. No packet to such an address has business outside, and only after routing can they be told.
fn filter_postrouting() -> Chain {
    Chain {
        name: "filter_postrouting",
        kind: ChainKind::Filter,
        hook: Hook::Postrouting,
        priority: 0,
        policy: Policy::Accept,
        rules: vec![rule(
            [Match::ToOutside, Match::LocalDestination],
            [Action::Log(PREFIX_REFUSED), Action::Drop],
        )],
    }
}

/// Who may reach the sidecar's ports: the pod by redirection, others for health
/// and metrics only. The pod's traffic to itself arrives on `lo`, whichever of
/// its addresses it uses.
fn filter_input(config: &CaptureConfig) -> Chain {
    let ports = config.ports;
    let at = |protocol, port: u16| Match::DestinationPort(protocol, port..=port);
    let mut rules = vec![rule([Match::Reply], [Action::Accept])];
    for (protocol, port) in [(TCP, ports.tcp), (TCP, ports.dns), (UDP, ports.dns)] {
        let refusal = if protocol == TCP {
            Reject::TcpReset
        } else {
            Reject::PortUnreachable
        };
        rules.push(rule(
            [Match::FromLoopback, at(protocol, port), Match::Redirected],
            [Action::Accept],
        ));
        rules.push(rule([at(protocol, port)], [Action::Reject(refusal)]));
    }
    rules.push(rule(
        [Match::FromLoopback, at(TCP, ports.health)],
        [Action::Reject(Reject::TcpReset)],
    ));
    Chain {
        name: "filter_input",
        kind: ChainKind::Filter,
        hook: Hook::Input,
        priority: 0,
        policy: Policy::Accept,
        rules,
    }
}

fn allow(allowed: &Datagrams) -> Vec<Rule> {
    pass_and_log(&covers(allowed))
}

fn deny(denied: &Datagrams) -> Rule {
    rule(
        covers(denied),
        [
            Action::Log(PREFIX_REFUSED),
            Action::Reject(Reject::AdminProhibited),
        ],
    )
}

fn covers(datagrams: &Datagrams) -> [Match; 2] {
    let protocol = match (datagrams.protocol, datagrams.network) {
        (DatagramKind::Udp { first, last }, _) => Match::DestinationPort(UDP, first..=last),
        (DatagramKind::Icmp, IpNet::V4(_)) => Match::Protocol(ICMP),
        (DatagramKind::Icmp, IpNet::V6(_)) => Match::Protocol(ICMPV6),
    };
    [Match::Destination(datagrams.network.trunc()), protocol]
}

/// Lets packets pass while somebody reads the log, and logs the first of each
/// flow, or each one where there is no flow to remember it by.
fn pass_and_log(conditions: &[Match]) -> Vec<Rule> {
    let when = |extra: Vec<Match>| {
        let watched = conditions.iter().cloned().chain([Match::Watched]);
        watched.chain(extra)
    };
    vec![
        rule(
            when(vec![Match::NoFlow]),
            [Action::Log(PREFIX_PASSED), Action::Accept],
        ),
        rule(
            when(vec![Match::FlowMarkNot(CT_LOGGED)]),
            [Action::Log(PREFIX_PASSED), Action::SetFlowMark(CT_LOGGED)],
        ),
        rule(when(vec![]), [Action::Accept]),
    ]
}

fn exempted(exempt: Exempt) -> [Match; 2] {
    [Match::Mark(exempt.mark), Match::SocketUid(exempt.uid)]
}

fn rule(
    matches: impl IntoIterator<Item = Match>,
    actions: impl IntoIterator<Item = Action>,
) -> Rule {
    Rule {
        matches: matches.into_iter().collect(),
        actions: actions.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaperone_crds::pod::{EGRESS_MARK, SIDECAR_UID};

    fn rules(config: &CaptureConfig) -> Vec<Rule> {
        ruleset(config)
            .chains
            .into_iter()
            .flat_map(|chain| chain.rules)
            .collect()
    }

    #[test]
    fn the_mark_never_counts_without_the_uid() {
        for rule in rules(&CaptureConfig::pod(CaptureMode::Enforce)) {
            let has = |condition: &Match| rule.matches.contains(condition);
            assert_eq!(
                has(&Match::Mark(EGRESS_MARK)),
                has(&Match::SocketUid(SIDECAR_UID)),
                "{rule:?}"
            );
            if has(&Match::FlowMark(EGRESS_MARK)) {
                assert!(has(&Match::TcpWithoutSyn), "{rule:?}");
            }
        }
    }

    #[test]
    fn without_an_exemption_no_rule_lets_anybody_out() {
        for rule in rules(&CaptureConfig::isolated(CaptureMode::Enforce)) {
            assert!(!rule.matches.iter().any(|condition| matches!(
                condition,
                Match::Mark(_) | Match::SocketUid(_) | Match::FlowMark(_)
            )));
        }
    }

    #[test]
    fn dns_is_redirected_before_local_destinations_return() {
        let nat = nat_output(&CaptureConfig::pod(CaptureMode::Audit));
        let position = |condition| {
            nat.rules
                .iter()
                .position(|rule| rule.matches.contains(&condition))
                .unwrap()
        };
        assert!(
            position(Match::DestinationPort(UDP, DNS..=DNS)) < position(Match::LocalDestination)
        );
        assert!(
            position(Match::DestinationPort(TCP, DNS..=DNS)) < position(Match::LocalDestination)
        );
    }

    #[test]
    fn enforce_ends_in_a_refusal_and_audit_passes_what_is_watched_only() {
        let last = |mode| {
            filter_output(&CaptureConfig::pod(mode))
                .rules
                .pop()
                .unwrap()
        };
        assert_eq!(
            last(CaptureMode::Enforce),
            rule(
                [],
                [
                    Action::Log(PREFIX_REFUSED),
                    Action::Reject(Reject::AdminProhibited)
                ]
            )
        );
        assert_eq!(
            last(CaptureMode::Audit),
            rule([Match::Watched], [Action::Accept])
        );
        for mode in [CaptureMode::Audit, CaptureMode::Enforce] {
            assert_eq!(
                filter_output(&CaptureConfig::pod(mode)).policy,
                Policy::Drop
            );
        }
    }
}
