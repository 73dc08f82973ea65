//! Addresses at which clouds hand out credentials to whoever asks from a node.
//!
//! Owns the list and the forms in which an IPv6 address carries an IPv4 one. Invariant: an address of the list is closed in Enforce unless an Allow rule names it (see
//! [`super::merge`]); in Audit it is a would-deny.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the agent is told.
pub(super) const CLOSED: &str = "The cloud's metadata service hands out the node's credentials and is closed to agents. A rule that allows this very address opens it.";

/// AWS, Azure, Google, Oracle, OpenStack, DigitalOcean (169.254.169.254); AWS task and pod credentials (169.254.170.2, 169.254.170.23); Alibaba (100.100.100.200); Azure's
/// host agent, which serves certificates of the machine (168.63.129.16).
const V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// AWS (fd00:ec2::254), its pod credentials (fd00:ec2::23), Google (fd20:ce::254), Oracle and OpenStack (fe80::a9fe:a9fe).
const V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// Whether a cloud's metadata or credential service answers at this address, in whichever form it is written: IPv4 mapped or compatible (RFC 4291 section 2.5.5), NAT64 (RFC 6052),
/// 6to4 (RFC 3056).
#[must_use]
pub fn is_metadata_address(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => V4.contains(&ip),
        IpAddr::V6(ip) => V6.contains(&ip) || carried(ip).is_some_and(|ip| V4.contains(&ip)),
    }
}

/// The IPv4 address that an IPv6 address carries to a gateway.
fn carried(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => Some(v4(g, h)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_known_in_every_form() {
        for (text, expected) in [
            ("169.254.169.254", true),
            ("::ffff:169.254.169.254", true),
            ("::169.254.169.254", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("2002:a9fe:a9fe::1", true),
            ("169.254.170.2", true),
            ("169.254.170.23", true),
            ("100.100.100.200", true),
            ("fd00:ec2::254", true),
            ("fe80::a9fe:a9fe", true),
            ("168.63.129.16", true),
            ("169.254.169.253", false),
            ("169.254.1.1", false),
            ("100.100.100.201", false),
            ("fd00:ec2::253", false),
            ("2001:db8::a9fe:a9fe", false),
            ("::1", false),
        ] {
            assert_eq!(
                is_metadata_address(text.parse().unwrap()),
                expected,
                "{text}"
            );
        }
    }
}
