//! Netlink framing: messages and attributes written and read as bytes, and the
//! socket that carries them.
//!
//! Owns alignment, lengths and byte order (`linux/netlink.h`: headers in host
//! order, 4-byte alignment). Refuses to know what the messages mean.
//!
//! Invariant: reading never panics. A frame that claims more bytes than there
//! are ends the iteration.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// `nlmsghdr` plus `nfgenmsg`, bytes.
const HEADER: usize = 16;
const NFGENMSG: usize = 4;
const ALIGN: usize = 4;
const NLA_F_NESTED: u16 = 0x8000;
/// `NLA_TYPE_MASK`: the two top bits are flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Longest wait for the kernel's answer, milliseconds. It answers within one;
/// this only keeps a start from hanging.
const ANSWER_TIMEOUT_MS: i64 = 5_000;

/// Bytes of one read. The kernel never builds a larger netfilter message than
/// 32 KiB (`NLMSG_GOODSIZE`, `nlbufsiz`).
pub(super) const READ_BUFFER: usize = 64 * 1024;

/// Attributes being written.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Appends one attribute with these raw bytes.
    pub(super) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(value.len().saturating_add(ALIGN))
            .expect("attributes hold one rule at most, far below 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        pad(&mut self.0);
        self
    }

    /// Appends a number in network byte order, as nftables wants them.
    pub(super) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends a number in network byte order.
    pub(super) fn be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends a zero-terminated string.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Appends an attribute made of attributes.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }
}

/// Appends a whole nfnetlink message to `out`.
pub(super) fn write_message(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    attributes: &Attributes,
) {
    let length = HEADER
        .saturating_add(NFGENMSG)
        .saturating_add(attributes.0.len());
    let length = u32::try_from(length).expect("one message holds one rule, far below 4 GiB");
    out.extend_from_slice(&length.to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&0_u32.to_ne_bytes());
    out.extend_from_slice(&[family, 0]);
    out.extend_from_slice(&resource.to_be_bytes());
    out.extend_from_slice(&attributes.0);
    pad(out);
}

/// A message read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    /// Everything after the `nlmsghdr`.
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after the `nfgenmsg`.
    pub(super) fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.payload.get(NFGENMSG..).unwrap_or_default())
    }
}

/// The messages of one datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let sequence = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
        Some(Message {
            kind,
            sequence,
            payload,
        })
    })
}

/// The attributes of a run of bytes: type without flags, and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & NLA_TYPE_MASK;
        let value = bytes.get(ALIGN..length)?;
        bytes = bytes
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
        Some((kind, value))
    })
}

/// A `NETLINK_NETFILTER` socket.
#[derive(Debug)]
pub(super) struct NetfilterSocket(OwnedFd);

impl NetfilterSocket {
    /// Opens a socket in the current network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::milliseconds(ANSWER_TIMEOUT_MS),
        )?;
        Ok(Self(socket))
    }

    /// Asks for a receive buffer of this many bytes, beyond the system's limit
    /// where the process may.
    pub(super) fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        if setsockopt(&self.0, sockopt::RcvBufForce, &bytes).is_err() {
            setsockopt(&self.0, sockopt::RcvBuf, &bytes)?;
        }
        Ok(())
    }

    /// Sends to the kernel, in one datagram.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // The kernel doubles what is asked for and caps it by its limit; should
        // that not suffice, sending says so.
        setsockopt(&self.0, sockopt::SndBuf, &bytes.len())?;
        send(self.0.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads one datagram of the kernel; datagrams of other processes are
    /// passed over.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        loop {
            let (length, sender) = recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), buffer)?;
            if sender.is_none_or(|address| address.pid() == 0) {
                return Ok(buffer.get(..length).unwrap_or_default());
            }
        }
    }

    /// The descriptor, switched to non-blocking reads.
    pub(super) fn into_nonblocking(self) -> io::Result<OwnedFd> {
        nix::fcntl::fcntl(
            &self.0,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )?;
        Ok(self.0)
    }
}

impl From<OwnedFd> for NetfilterSocket {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsRawFd for NetfilterSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut body = Attributes::default();
        body.text(1, "abc").nested(2, |inner| {
            inner.be32(3, 7);
        });
        let mut bytes = Vec::new();
        write_message(&mut bytes, 5, 0, 9, (1, 10), &body);
        write_message(&mut bytes, 6, 0, 10, (1, 10), &Attributes::default());
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(
            read.iter()
                .map(|m| (m.kind, m.sequence))
                .collect::<Vec<_>>(),
            [(5, 9), (6, 10)]
        );
        let found: Vec<_> = read[0].attributes().collect();
        assert_eq!(found[0], (1, &b"abc\0"[..]));
        assert_eq!(found[1].0, 2);
        assert_eq!(
            attributes(found[1].1).collect::<Vec<_>>(),
            [(3, &[0, 0, 0, 7][..])]
        );
    }

    #[test]
    fn a_length_beyond_the_bytes_ends_the_iteration() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, 5, 0, 9, (1, 10), &Attributes::default());
        bytes[0] = 200;
        assert_eq!(messages(&bytes).count(), 0);
        assert_eq!(
            attributes(&[3, 0, 1, 0]).count(),
            0,
            "shorter than its own header"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            for message in messages(&bytes) {
                prop_assert!(message.attributes().count() <= bytes.len());
            }
            prop_assert!(attributes(&bytes).count() <= bytes.len());
        }
    }
}
