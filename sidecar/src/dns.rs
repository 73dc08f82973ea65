//! The resolver that a captured network namespace's DNS is redirected to.
//!
//! Owns forwarding each query that policy lets pass to the real nameservers, telling
//! what was asked and answered, and remembering which names led to which addresses.
//! Refuses to know policies (a [`Judge`] does), to cache answers for clients, and to
//! complete names: search domains and the choice of address family are the client's
//! business.
//!
//! Invariant: no answer reaches the client before its event was taken for the
//! record. A full event channel slows clients down; a closed one stops the
//! resolver.

mod hosts;
mod judge;
pub mod message;
mod names;
mod rebinding;
mod resolv_conf;
mod server;
mod towards;
mod tunnel;
mod upstream;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

pub use hosts::Hosts;
pub use judge::{Beginning, Judge, Ruling};
pub use names::Names;
pub use resolv_conf::{ResolvConf, ResolvConfError};
pub use server::serve;
pub(crate) use towards::towards;
pub(crate) use tunnel::Tunnels;
pub use upstream::{LookupError, Resolver};

/// Most addresses of one answer that its event carries.
pub const MAX_ANSWERS: usize = 16;

/// One query and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsQuery {
    /// Name asked, in lower case, without the final dot. Empty when the query
    /// could not be read.
    pub name: String,
    /// Type asked: `A`, `AAAA`, `TXT`, … Empty when the query could not be read.
    pub query_type: String,
    /// Response code that the client got (RFC 1035 section 4.1.1): `NOERROR`,
    /// `NXDOMAIN`, `SERVFAIL`, …
    pub rcode: &'static str,
    /// Addresses answered for the name, through aliases; at most
    /// [`MAX_ANSWERS`].
    pub answers: Vec<IpAddr>,
    /// Addresses that were kept from the client; at most [`MAX_ANSWERS`].
    pub withheld: Vec<IpAddr>,
    /// What policy said. `None` when the query could not be read, or no policy is
    /// in force.
    pub ruling: Option<Ruling>,
    /// Number of the record that said that it was about to be asked, if there is one.
    pub begun: Option<u64>,
    /// Nameserver that answered; `None` when none did.
    pub server: Option<SocketAddr>,
    /// Who asked.
    pub client: SocketAddr,
    /// Time from the query's arrival until its answer.
    pub elapsed: Duration,
    /// How the client asked.
    pub transport: DnsTransport,
}

/// Transport of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsTransport {
    /// A datagram (RFC 1035 section 4.2.1).
    Udp,
    /// A message with a length in front (RFC 1035 section 4.2.2).
    Tcp,
}

/// Sockets that queries arrive at. Plain ones, so that they can be opened in
/// one network namespace and served from another.
#[derive(Debug)]
pub struct DnsListeners {
    /// For datagrams.
    pub udp: Vec<UdpSocket>,
    /// For connections.
    pub tcp: Vec<TcpListener>,
}

impl DnsListeners {
    /// Opens both transports on 127.0.0.1 and, where the kernel has IPv6, on
    /// ::1, in the current network namespace.
    ///
    /// # Errors
    /// The system's, with the address that could not be bound.
    pub fn bind_loopback(port: u16) -> io::Result<Self> {
        let mut listeners = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        for ip in [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            Ipv6Addr::LOCALHOST.into(),
        ] {
            let address = SocketAddr::new(ip, port);
            match (UdpSocket::bind(address), TcpListener::bind(address)) {
                (Ok(udp), Ok(tcp)) => {
                    listeners.udp.push(udp);
                    listeners.tcp.push(tcp);
                }
                (Err(error), _) | (_, Err(error)) if ip.is_ipv4() || has_ipv6(&error) => {
                    return Err(io::Error::new(
                        error.kind(),
                        format!("can't listen for DNS at {address}: {error}"),
                    ));
                }
                _ => {}
            }
        }
        Ok(listeners)
    }
}

/// Whether this failure to bind ::1 happened on a system that has ::1.
fn has_ipv6(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::AddrNotAvailable
        && error.raw_os_error() != Some(nix::libc::EAFNOSUPPORT)
}
