//! Capture: the kernel rules that bring every byte a pod sends to the sidecar,
//! and the sockets that live with those rules.
//!
//! Owns the `inet chaperone` nftables table, the reader of its packet log, the
//! original destination of a redirected connection, and the sockets that may
//! leave directly. It runs no binary and links no C library: messages are
//! encoded here and sent over netlink.
//!
//! Refuses to decide anything about a connection; that is for its callers.
//!
//! Invariant: the table is replaced in one atomic batch and belongs to the
//! network namespace, not to this process. There is no moment without rules
//! while they are replaced, and when the sidecar dies they stay: a dead sidecar
//! means no network. What may pass unread does so only while a second table is
//! there, `inet chaperone_watch`, which the kernel removes with the process
//! that reads the packet log. Both IP families are always covered, because a family
//! left out because it looked unused would be the way out once it is not.

mod batch;
mod encode;
mod netlink;
pub mod nflog;
pub mod packet;
mod render;
mod ruleset;
mod socket;

pub use batch::{CaptureError, install, remove};
pub use nflog::{DatagramGap, GapReader, LOG_DELAY, LogEvent};
pub use packet::Transport;
pub use ruleset::{
    Action, Chain, ChainKind, Hook, Match, Policy, Reject, Rule, Ruleset, ruleset, watching,
};
pub use socket::{DIAL_TIMEOUT, OriginalDst, OriginalDstError, dial, original_dst, set_mark};

use chaperone_crds::pod::{
    CAPTURE_PORT, DNS_PORT, EGRESS_MARK, HEALTH_PORT, NFLOG_GROUP, SIDECAR_UID,
};
use ipnet::IpNet;

/// What happens to datagrams that the sidecar can't read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureMode {
    /// They pass; the first packet of each flow is logged. QUIC is refused all
    /// the same, so that clients fall back to TCP, which can be read.
    Audit,
    /// They are logged and refused unless a destination is in
    /// [`CaptureConfig::allowed`].
    Enforce,
}

/// Who may leave directly. A packet needs both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exempt {
    /// Firewall mark that the packet's socket carries.
    pub mark: u32,
    /// User id that owns the packet's socket, as seen by the user namespace
    /// that owns the network namespace.
    pub uid: u32,
}

/// Ports that the sidecar listens on, in the captured network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Redirected TCP.
    pub tcp: u16,
    /// Redirected DNS, UDP and TCP.
    pub dns: u16,
    /// Health and metrics.
    pub health: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            tcp: CAPTURE_PORT,
            dns: DNS_PORT,
            health: HEALTH_PORT,
        }
    }
}

/// A destination that policy opens for traffic that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagrams {
    /// Addresses, IPv4 or IPv6.
    pub network: IpNet,
    /// What may go there.
    pub protocol: DatagramKind,
}

/// Protocol of an [`Datagrams`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// UDP to ports `first..=last`. Port 443 (QUIC) stays refused.
    Udp {
        /// Lowest port.
        first: u16,
        /// Highest port, at least `first`.
        last: u16,
    },
    /// ICMP for an IPv4 network, ICMPv6 for an IPv6 network.
    Icmp,
}

/// Everything the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureConfig {
    /// What happens to datagrams that can't be read.
    pub mode: CaptureMode,
    /// Destinations open in [`CaptureMode::Enforce`]; at most
    /// [`MAX_ALLOWED`] entries.
    pub allowed: Vec<Datagrams>,
    /// Destinations that stay refused in [`CaptureMode::Enforce`] although
    /// `allowed` covers them; they count towards [`MAX_ALLOWED`] as well.
    pub denied: Vec<Datagrams>,
    /// The sidecar's ports.
    pub ports: Ports,
    /// Who leaves directly. `None` when the sidecar dials from another network
    /// namespace, so that nothing in this one leaves unread.
    pub exempt: Option<Exempt>,
    /// NFLOG group that gaps go to.
    pub log_group: u16,
}

/// Most entries of [`CaptureConfig::allowed`]. Three rules each, about 2 KiB
/// together, so a full batch stays within the netlink send buffer that any
/// system grants (416 KiB).
pub const MAX_ALLOWED: usize = 128;

impl CaptureConfig {
    /// The rules of a pod whose sidecar shares its network namespace.
    pub fn pod(mode: CaptureMode) -> Self {
        Self {
            mode,
            allowed: Vec::new(),
            denied: Vec::new(),
            ports: Ports::default(),
            exempt: Some(Exempt {
                mark: EGRESS_MARK,
                uid: SIDECAR_UID,
            }),
            log_group: NFLOG_GROUP,
        }
    }

    /// The rules of a network namespace that nothing leaves directly: the
    /// sidecar listens in it and dials from another one.
    pub fn isolated(mode: CaptureMode) -> Self {
        Self {
            exempt: None,
            ..Self::pod(mode)
        }
    }
}
