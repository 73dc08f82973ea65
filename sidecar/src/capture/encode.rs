//! Rules as nftables expressions.
//!
//! Owns the translation of each [`Match`] and [`Action`] into the register
//! machine of `linux/netfilter/nf_tables.h`: load into register 1, compare,
//! go on or leave the rule. Encodes the same expressions as the `nft` tool, so
//! that it can print the rules back.
//!
//! Refuses validation: the model can't express a rule that has no encoding.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use nix::libc::{
    NF_ACCEPT, NF_DROP, NFT_CMP_EQ, NFT_CMP_GTE, NFT_CMP_LTE, NFT_CMP_NEQ, NFT_CT_DIRECTION,
    NFT_CT_MARK, NFT_CT_STATE, NFT_CT_STATUS, NFT_META_IIFNAME, NFT_META_L4PROTO, NFT_META_MARK,
    NFT_META_NFPROTO, NFT_META_OIFNAME, NFT_META_SKUID, NFT_PAYLOAD_NETWORK_HEADER,
    NFT_PAYLOAD_TRANSPORT_HEADER, NFT_REJECT_ICMPX_ADMIN_PROHIBITED, NFT_REJECT_ICMPX_PORT_UNREACH,
    NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_TCP_RST, NFT_RETURN,
};

use super::netlink::Attributes;
use super::ruleset::{Action, CT_INVALID_OR_UNTRACKED, ICMPV6, Match, Reject, Rule, TCP, WATCHED};

/// Bytes of each logged packet that reach the reader: IPv6 header, a few
/// extension headers, ports.
pub(super) const SNAPLEN: u32 = 128;

/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;
/// `NFT_REG_1`, and `NFT_REG_VERDICT` for verdicts.
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6` of `linux/netfilter.h`.
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
/// `RTN_LOCAL` of `linux/rtnetlink.h`.
const RTN_LOCAL: u32 = 2;
/// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_DADDR`.
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_FLAG_DADDR: u32 = 2;
/// `NF_NAT_RANGE_PROTO_SPECIFIED` of `linux/netfilter/nf_nat.h`.
const NAT_RANGE_PROTO_SPECIFIED: u32 = 2;
/// `IPS_DST_NAT` of `linux/netfilter/nf_conntrack_common.h`.
const IPS_DST_NAT: u32 = 1 << 5;
/// `IP_CT_DIR_REPLY`.
const DIRECTION_REPLY: u8 = 1;
/// Size of an interface name, bytes; nftables compares all of them.
const IFNAMSIZ: usize = 16;

/// Transport header offsets, bytes.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;
const TCP_FLAGS: u32 = 13;
const TCP_SYN: u8 = 2;
/// Network header offsets, bytes.
const IPV4_DESTINATION: u32 = 16;
const IPV6_DESTINATION: u32 = 24;

/// Writes a rule's expressions, the content of `NFTA_RULE_EXPRESSIONS`.
pub(super) fn expressions(rule: &Rule, log_group: u16, out: &mut Attributes) {
    for condition in &rule.matches {
        encode_match(condition, out);
    }
    for action in &rule.actions {
        encode_action(*action, log_group, out);
    }
}

/// Kernel modules that a rule needs, for the error that says what is missing.
pub(super) fn modules(rule: &Rule) -> Vec<&'static str> {
    let mut needed = Vec::new();
    for condition in &rule.matches {
        match condition {
            Match::LocalDestination => needed.push("nft_fib_inet"),
            Match::FlowMark(_)
            | Match::FlowMarkNot(_)
            | Match::Reply
            | Match::Redirected
            | Match::NoFlow => needed.push("nft_ct"),
            _ => {}
        }
    }
    for action in &rule.actions {
        match action {
            Action::Redirect(_) => needed.push("nft_redir"),
            Action::Log(_) => needed.extend(["nft_log", "nfnetlink_log"]),
            Action::Reject(_) => needed.push("nft_reject_inet"),
            Action::SetFlowMark(_) | Action::NoTrack => needed.push("nft_ct"),
            Action::Accept | Action::Return | Action::Drop | Action::Watch => {}
        }
    }
    needed.dedup();
    needed
}

fn encode_match(condition: &Match, out: &mut Attributes) {
    match condition {
        Match::Mark(mark) => {
            meta(NFT_META_MARK, out);
            compare(NFT_CMP_EQ, &mark.to_ne_bytes(), out);
        }
        Match::Watched => {
            meta(NFT_META_MARK, out);
            compare(NFT_CMP_EQ, &WATCHED.to_ne_bytes(), out);
        }
        Match::SocketUid(uid) => {
            meta(NFT_META_SKUID, out);
            compare(NFT_CMP_EQ, &uid.to_ne_bytes(), out);
        }
        Match::FromLoopback => interface(NFT_META_IIFNAME, NFT_CMP_EQ, out),
        Match::FromOutside => interface(NFT_META_IIFNAME, NFT_CMP_NEQ, out),
        Match::ToOutside => interface(NFT_META_OIFNAME, NFT_CMP_NEQ, out),
        Match::LocalDestination => {
            expression("fib", out, |data| {
                data.be32(1, REGISTER)
                    .be32(2, FIB_RESULT_ADDRTYPE)
                    .be32(3, FIB_FLAG_DADDR);
            });
            compare(NFT_CMP_EQ, &RTN_LOCAL.to_ne_bytes(), out);
        }
        Match::Protocol(number) => protocol(*number, out),
        Match::DestinationPort(number, ports) => {
            protocol(*number, out);
            transport(DESTINATION_PORT, 2, out);
            within(ports.start().to_be_bytes(), ports.end().to_be_bytes(), out);
        }
        Match::SourcePort(number, port) => {
            protocol(*number, out);
            transport(SOURCE_PORT, 2, out);
            compare(NFT_CMP_EQ, &port.to_be_bytes(), out);
        }
        Match::TcpWithoutSyn => {
            protocol(TCP, out);
            transport(TCP_FLAGS, 1, out);
            mask(&[TCP_SYN], out);
            compare(NFT_CMP_EQ, &[0], out);
        }
        Match::Icmpv6Type(types) => icmpv6_type(types, out),
        Match::Destination(network) => destination(network, out),
        Match::FlowMark(mark) => flow(NFT_CT_MARK, NFT_CMP_EQ, &mark.to_ne_bytes(), out),
        Match::FlowMarkNot(mark) => flow(NFT_CT_MARK, NFT_CMP_NEQ, &mark.to_ne_bytes(), out),
        Match::Reply => flow(NFT_CT_DIRECTION, NFT_CMP_EQ, &[DIRECTION_REPLY], out),
        Match::Redirected => flow_bits(NFT_CT_STATUS, IPS_DST_NAT, out),
        Match::NoFlow => flow_bits(NFT_CT_STATE, CT_INVALID_OR_UNTRACKED, out),
    }
}

fn encode_action(action: Action, log_group: u16, out: &mut Attributes) {
    match action {
        Action::Accept => verdict(NF_ACCEPT, out),
        Action::Drop => verdict(NF_DROP, out),
        Action::Return => verdict(NFT_RETURN, out),
        Action::Redirect(port) => {
            immediate(&port.to_be_bytes(), out);
            expression("redir", out, |data| {
                data.be32(1, REGISTER).be32(3, NAT_RANGE_PROTO_SPECIFIED);
            });
        }
        Action::Log(prefix) => expression("log", out, |data| {
            data.be16(1, log_group).text(2, prefix).be32(3, SNAPLEN);
        }),
        Action::Reject(Reject::TcpReset) => reject(NFT_REJECT_TCP_RST, 0, out),
        Action::Reject(Reject::PortUnreachable) => {
            reject(NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH, out);
        }
        Action::Reject(Reject::AdminProhibited) => {
            reject(
                NFT_REJECT_ICMPX_UNREACH,
                NFT_REJECT_ICMPX_ADMIN_PROHIBITED,
                out,
            );
        }
        Action::SetFlowMark(mark) => {
            immediate(&mark.to_ne_bytes(), out);
            expression("ct", out, |data| {
                data.be32(2, constant(NFT_CT_MARK)).be32(4, REGISTER);
            });
        }
        Action::NoTrack => expression("notrack", out, |_| {}),
        Action::Watch => {
            immediate(&WATCHED.to_ne_bytes(), out);
            expression("meta", out, |data| {
                data.be32(2, constant(NFT_META_MARK)).be32(3, REGISTER);
            });
        }
    }
}

fn interface(key: i32, operator: i32, out: &mut Attributes) {
    let mut name = [0_u8; IFNAMSIZ];
    name[..2].copy_from_slice(b"lo");
    meta(key, out);
    compare(operator, &name, out);
}

fn icmpv6_type(types: &RangeInclusive<u8>, out: &mut Attributes) {
    meta(NFT_META_NFPROTO, out);
    compare(NFT_CMP_EQ, &[NFPROTO_IPV6], out);
    protocol(ICMPV6, out);
    transport(0, 1, out);
    within([*types.start()], [*types.end()], out);
}

fn destination(network: &IpNet, out: &mut Attributes) {
    let (family, offset, address, netmask) = match network {
        IpNet::V4(v4) => (
            NFPROTO_IPV4,
            IPV4_DESTINATION,
            v4.network().octets().to_vec(),
            v4.netmask().octets().to_vec(),
        ),
        IpNet::V6(v6) => (
            NFPROTO_IPV6,
            IPV6_DESTINATION,
            v6.network().octets().to_vec(),
            v6.netmask().octets().to_vec(),
        ),
    };
    meta(NFT_META_NFPROTO, out);
    compare(NFT_CMP_EQ, &[family], out);
    if network.prefix_len() == 0 {
        return;
    }
    let length = u32::from(network.max_prefix_len() / 8);
    payload(NFT_PAYLOAD_NETWORK_HEADER, offset, length, out);
    if network.prefix_len() < network.max_prefix_len() {
        mask(&netmask, out);
    }
    compare(NFT_CMP_EQ, &address, out);
}

fn protocol(number: u8, out: &mut Attributes) {
    meta(NFT_META_L4PROTO, out);
    compare(NFT_CMP_EQ, &[number], out);
}

fn within<const N: usize>(first: [u8; N], last: [u8; N], out: &mut Attributes) {
    if first == last {
        compare(NFT_CMP_EQ, &first, out);
    } else {
        compare(NFT_CMP_GTE, &first, out);
        compare(NFT_CMP_LTE, &last, out);
    }
}

fn flow(key: i32, operator: i32, value: &[u8], out: &mut Attributes) {
    load_flow(key, out);
    compare(operator, value, out);
}

fn flow_bits(key: i32, bits: u32, out: &mut Attributes) {
    load_flow(key, out);
    mask(&bits.to_ne_bytes(), out);
    compare(NFT_CMP_NEQ, &0_u32.to_ne_bytes(), out);
}

fn load_flow(key: i32, out: &mut Attributes) {
    expression("ct", out, |data| {
        data.be32(1, REGISTER).be32(2, constant(key));
    });
}

fn meta(key: i32, out: &mut Attributes) {
    expression("meta", out, |data| {
        data.be32(1, REGISTER).be32(2, constant(key));
    });
}

fn transport(offset: u32, length: u32, out: &mut Attributes) {
    payload(NFT_PAYLOAD_TRANSPORT_HEADER, offset, length, out);
}

fn payload(base: i32, offset: u32, length: u32, out: &mut Attributes) {
    expression("payload", out, |data| {
        data.be32(1, REGISTER)
            .be32(2, constant(base))
            .be32(3, offset)
            .be32(4, length);
    });
}

fn compare(operator: i32, value: &[u8], out: &mut Attributes) {
    expression("cmp", out, |data| {
        data.be32(1, REGISTER)
            .be32(2, constant(operator))
            .nested(3, |cell| {
                cell.bytes(1, value);
            });
    });
}

fn mask(bits: &[u8], out: &mut Attributes) {
    let length = u32::try_from(bits.len()).expect("a mask is 16 bytes at most");
    expression("bitwise", out, |data| {
        data.be32(1, REGISTER)
            .be32(2, REGISTER)
            .be32(3, length)
            .nested(4, |cell| {
                cell.bytes(1, bits);
            })
            .nested(5, |cell| {
                cell.bytes(1, &vec![0; bits.len()]);
            });
    });
}

fn immediate(value: &[u8], out: &mut Attributes) {
    expression("immediate", out, |data| {
        data.be32(1, REGISTER).nested(2, |cell| {
            cell.bytes(1, value);
        });
    });
}

fn verdict(code: i32, out: &mut Attributes) {
    expression("immediate", out, |data| {
        data.be32(1, VERDICT).nested(2, |cell| {
            cell.nested(2, |verdict| {
                verdict.bytes(1, &code.to_be_bytes());
            });
        });
    });
}

fn reject(kind: i32, code: i32, out: &mut Attributes) {
    let code = u8::try_from(code).expect("ICMP codes of the kernel's header are small");
    expression("reject", out, |data| {
        data.be32(1, constant(kind)).bytes(2, &[code]);
    });
}

fn expression(name: &str, out: &mut Attributes, fill: impl FnOnce(&mut Attributes)) {
    out.nested(LIST_ELEMENT, |element| {
        element.text(1, name).nested(2, fill);
    });
}

fn constant(value: i32) -> u32 {
    u32::try_from(value).expect("constants of the kernel's header are not negative")
}
