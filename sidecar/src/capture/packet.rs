//! The head of an IP packet: who, to whom, over what.
//!
//! Owns reading IPv4 (RFC 791) and IPv6 (RFC 8200) headers far enough to name a
//! gap. Refuses anything deeper. Invariant: any bytes give a head or nothing,
//! never a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most IPv6 extension headers that are followed. Real packets have two or
/// three; the limit keeps the walk short.
const MAX_EXTENSIONS: usize = 8;

/// Shortest IPv4 header, bytes.
const IPV4_HEADER: usize = 20;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Transport protocol of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// ICMP or ICMPv6.
    Icmp,
    /// Any other, by its IANA protocol number (IPv6: next header).
    Other(u8),
}

impl Transport {
    /// Name for records and metrics: `udp`, `icmp` or `other`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Other(_) => "other",
        }
    }
}

/// What the head of a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Transport protocol.
    pub transport: Transport,
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// Source and destination port, where the transport has them and this is
    /// the first fragment.
    pub ports: Option<(u16, u16)>,
}

/// Reads the head of an IP packet. `None`: it is none, or it ends too early.
pub fn head(packet: &[u8]) -> Option<Head> {
    match packet.first()? >> 4 {
        4 => ipv4(packet),
        6 => ipv6(packet),
        _ => None,
    }
}

fn ipv4(packet: &[u8]) -> Option<Head> {
    let length = usize::from(packet.first()? & 0x0f).checked_mul(4)?;
    if length < IPV4_HEADER {
        return None;
    }
    let fragment_offset = be16(packet, 6)? & 0x1fff;
    let protocol = *packet.get(9)?;
    let body = if fragment_offset == 0 {
        packet.get(length..)
    } else {
        None
    };
    Some(Head {
        transport: if protocol == 1 {
            Transport::Icmp
        } else {
            transport(protocol)
        },
        source: Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?).into(),
        destination: Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?).into(),
        ports: body.and_then(|body| ports(protocol, body)),
    })
}

fn ipv6(packet: &[u8]) -> Option<Head> {
    let source = Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?);
    let destination = Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?);
    let (protocol, body) = skip_extensions(*packet.get(6)?, packet.get(40..)?);
    Some(Head {
        transport: if protocol == 58 {
            Transport::Icmp
        } else {
            transport(protocol)
        },
        source: source.into(),
        destination: destination.into(),
        ports: body.and_then(|body| ports(protocol, body)),
    })
}

/// The upper-layer protocol, and its header if that is in these bytes.
fn skip_extensions(mut next: u8, bytes: &[u8]) -> (u8, Option<&[u8]>) {
    let mut rest = Some(bytes);
    for _ in 0..MAX_EXTENSIONS {
        let length = match (next, rest) {
            (HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS, Some(header)) => header
                .get(1)
                .map(|units| (usize::from(*units).saturating_add(1)).saturating_mul(8)),
            (FRAGMENT, Some(header)) => match be16(header, 2) {
                // Only the first fragment has the upper-layer header.
                Some(offset) if offset & 0xfff8 == 0 => Some(8),
                _ => None,
            },
            _ => break,
        };
        let Some(following) = rest.and_then(|header| header.first()) else {
            break;
        };
        next = *following;
        rest = length.and_then(|length| rest?.get(length..));
    }
    (next, rest)
}

fn transport(protocol: u8) -> Transport {
    match protocol {
        17 => Transport::Udp,
        other => Transport::Other(other),
    }
}

/// UDP, TCP, SCTP, DCCP and UDP-Lite all begin with both ports.
fn ports(protocol: u8, body: &[u8]) -> Option<(u16, u16)> {
    match protocol {
        6 | 17 | 33 | 132 | 136 => Some((be16(body, 0)?, be16(body, 2)?)),
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7]);
        packet.extend(body);
        packet
    }

    fn v6(next: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        packet.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(body);
        packet
    }

    #[test]
    fn udp_has_addresses_and_ports() {
        let head = head(&v4(17, 0, &[0x10, 0x00, 0x01, 0xbb])).unwrap();
        assert_eq!(head.transport, Transport::Udp);
        assert_eq!(head.source.to_string(), "10.0.0.1");
        assert_eq!(head.destination.to_string(), "192.0.2.7");
        assert_eq!(head.ports, Some((4096, 443)));
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        assert_eq!(head(&v4(17, 0x0001, &[1, 2, 3, 4])).unwrap().ports, None);
        let fragment = [17, 0, 0, 8, 0, 0, 0, 0, 1, 2, 3, 4];
        let later = head(&v6(44, &fragment)).unwrap();
        assert_eq!((later.transport, later.ports), (Transport::Udp, None));
    }

    #[test]
    fn ipv6_extension_headers_are_skipped() {
        let body = [
            60, 0, 0, 0, 0, 0, 0, 0, 17, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2,
        ];
        assert_eq!(head(&v6(0, &body)).unwrap().ports, Some((1, 2)));
    }

    #[test]
    fn icmp_of_both_families_is_icmp_and_nothing_else_is() {
        assert_eq!(head(&v4(1, 0, &[8, 0])).unwrap().transport, Transport::Icmp);
        assert_eq!(head(&v6(58, &[128, 0])).unwrap().transport, Transport::Icmp);
        assert_eq!(
            head(&v4(58, 0, &[])).unwrap().transport,
            Transport::Other(58)
        );
        assert_eq!(head(&v4(2, 0, &[])).unwrap().transport, Transport::Other(2));
    }

    #[test]
    fn a_header_that_is_cut_or_lies_is_nothing() {
        assert_eq!(head(&[]), None);
        assert_eq!(head(&[0x45; 19]), None);
        assert_eq!(head(&[0x44; 40]), None, "header length below 20");
        assert_eq!(head(&[0x60; 39]), None);
        assert_eq!(head(&[0x00; 40]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(version in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
                                  rest in proptest::collection::vec(any::<u8>(), 0..160)) {
            let mut packet = vec![version];
            packet.extend(rest);
            head(&packet);
        }
    }
}
