//! The two ends of a captured connection: where it meant to go, and the socket
//! that goes there.
//!
//! Owns reading the original destination and dialling with the mark that the
//! rules exempt. Refuses a connection that nothing redirected: its "original
//! destination" would be the sidecar itself.

use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream};

/// Longest wait for a TCP connection to be established. Shorter than most
/// clients' own, so that they hear the reason from the sidecar.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle time before the first keepalive probe, and between probes. A peer that
/// vanished is noticed within three minutes, well before NAT tables forget.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// The address that a redirected connection was opened to. IPv4 addresses are
/// never in their IPv6-mapped form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginalDst(SocketAddr);

impl OriginalDst {
    /// Wraps an address that is known by other means than the socket.
    pub fn new(address: SocketAddr) -> Self {
        Self(unmapped(address))
    }

    /// The address.
    pub fn addr(self) -> SocketAddr {
        self.0
    }
}

impl Display for OriginalDst {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

/// Why a connection has no original destination.
#[derive(Debug, thiserror::Error)]
pub enum OriginalDstError {
    /// The connection was opened to the sidecar's own port.
    #[error("the connection was opened to {listener} itself, not redirected to it")]
    NotRedirected {
        /// The sidecar's address.
        listener: SocketAddr,
    },
    /// The kernel knows none, or the socket is closed.
    #[error("no original destination")]
    Socket(#[from] io::Error),
}

/// Where a redirected connection meant to go (`SO_ORIGINAL_DST`,
/// `IP6T_SO_ORIGINAL_DST`).
///
/// # Errors
/// As [`OriginalDstError`].
pub fn original_dst(stream: &TcpStream) -> Result<OriginalDst, OriginalDstError> {
    let listener = unmapped(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let found = match listener {
        SocketAddr::V4(_) => socket.original_dst_v4()?,
        SocketAddr::V6(_) => socket.original_dst_v6()?,
    };
    let found = found
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let original = OriginalDst::new(found);
    if original.addr() == listener {
        return Err(OriginalDstError::NotRedirected { listener });
    }
    Ok(original)
}

/// Connects over TCP, from a socket that carries `mark` before its first packet
/// leaves. Without delay (`TCP_NODELAY`), with keepalive, within
/// [`DIAL_TIMEOUT`].
///
/// # Errors
/// The system's own, so that the agent can be told the truth;
/// [`io::ErrorKind::TimedOut`] after the timeout;
/// [`io::ErrorKind::PermissionDenied`] when the process may not set marks.
pub async fn dial(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    set_mark(&socket, mark)?;
    let stream = tokio::time::timeout(DIAL_TIMEOUT, socket.connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// Sets a socket's firewall mark (`SO_MARK`), if one is given.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] without `CAP_NET_ADMIN` or `CAP_NET_RAW`.
pub fn set_mark(socket: &impl AsFd, mark: Option<u32>) -> io::Result<()> {
    match mark {
        Some(mark) => SockRef::from(socket).set_mark(mark),
        None => Ok(()),
    }
}

fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => ip
            .to_ipv4_mapped()
            .map_or(address, |ip| SocketAddr::new(ip.into(), address.port())),
        IpAddr::V4(_) => address,
    }
}
