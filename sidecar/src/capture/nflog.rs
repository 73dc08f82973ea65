//! The kernel's packet log as a stream of gaps.
//!
//! Owns one NFLOG group: binding it, reading it, and counting what was lost.
//! Refuses to decide what a gap means. Invariant: nothing is lost silently. The
//! kernel numbers its messages, so a reader that fell behind knows by how many.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{NFNL_SUBSYS_ULOG, NLM_F_ACK, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR};
use nix::sys::socket::{NetlinkAddr, recvfrom};
use tokio::io::Interest;
use tokio::sync::mpsc;

use super::CaptureError;
use super::batch::{failed, install_owned};
use super::encode::SNAPLEN;
use super::netlink::{Attributes, Message, NetfilterSocket, READ_BUFFER, messages, write_message};
use super::packet::{Head, Transport, head};
use super::ruleset::{PREFIX_PASSED, PREFIX_REFUSED, watching};

/// Kernel-side queue of unread log messages, bytes: about 4,000 packets.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Longest that the kernel holds a message back to batch it, 1/100 s.
const FLUSH_AFTER: u32 = 5;

/// How long after a packet its [`DatagramGap`] may come, twice the kernel's
/// own delay: what to wait before the last record is written.
pub const LOG_DELAY: Duration = Duration::from_millis(100);

/// Log messages that may arrive between a request and its answer.
const MAX_BEFORE_ANSWER: usize = 64;

/// `NFULNL_MSG_PACKET`, `NFULNL_MSG_CONFIG` of `linux/netfilter/nfnetlink_log.h`.
const MSG_PACKET: i32 = 0;
const MSG_CONFIG: i32 = 1;
/// `NFULA_*`.
const ATTR_PAYLOAD: u16 = 9;
const ATTR_PREFIX: u16 = 10;
const ATTR_UID: u16 = 11;
const ATTR_SEQUENCE: u16 = 12;

/// A packet that the sidecar could not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatagramGap {
    /// Transport protocol.
    pub transport: Transport,
    /// Sender.
    pub source: IpAddr,
    /// Sender's port, where the transport has ports.
    pub source_port: Option<u16>,
    /// Receiver.
    pub destination: IpAddr,
    /// Receiver's port, where the transport has ports.
    pub destination_port: Option<u16>,
    /// User id that owns the sending socket, where there is one.
    pub uid: Option<u32>,
    /// True when the packet was refused, false when it passed and stands for
    /// its whole flow.
    pub refused: bool,
}

/// What a [`GapReader`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// A packet that the kernel logged.
    Packet(DatagramGap),
    /// This many packets, of which nothing is known: they came faster than they
    /// were read, so that the kernel discarded what it logged, or their head
    /// can't be read.
    Unreported(u64),
}

/// A bound NFLOG group, and the rules that let packets pass unread while it is read.
#[derive(Debug)]
pub struct GapReader {
    // First, so that no packet passes after the log is closed.
    watch: NetfilterSocket,
    descriptor: OwnedFd,
}

impl GapReader {
    /// Binds a group in the current network namespace. Packets logged from here
    /// on wait in the kernel until [`GapReader::run`] reads them. Packets that
    /// pass unread do so from here on, until the reader is gone.
    ///
    /// # Errors
    /// [`CaptureError::LogRefused`] without `CAP_NET_ADMIN` or when another
    /// socket has it;
    /// [`CaptureError::Unowned`] on a kernel before Linux 5.12.
    pub fn bind(group: u16) -> Result<Self, CaptureError> {
        // The kernel closes descriptors of a dead process from the lowest on: this one before the log's.
        let watch = NetfilterSocket::open().map_err(|source| failed("open a socket", source))?;
        let socket = NetfilterSocket::open().map_err(|source| failed("open a socket", source))?;
        socket
            .set_receive_buffer(RECEIVE_BUFFER)
            .map_err(|source| failed("size the packet log's buffer", source))?;
        let mut bind = Attributes::default();
        bind.bytes(1, &[1]);
        configure(&socket, group, &bind)?;
        let mut settings = Attributes::default();
        let mut mode = SNAPLEN.to_be_bytes().to_vec();
        mode.extend([2, 0]);
        settings.bytes(2, &mode).be32(4, FLUSH_AFTER).be16(6, 1);
        configure(&socket, group, &settings)?;
        install_owned(&watching(group), &watch)?;
        let descriptor = socket
            .into_nonblocking()
            .map_err(|source| failed("set up the packet log", source))?;
        Ok(Self { watch, descriptor })
    }

    /// Reads until the receiver of `events` is gone. A full channel slows the
    /// reader; what the kernel then discards is told as a number. Once `closing`
    /// is done nothing passes unread any more, and what passed before is read.
    ///
    /// # Errors
    /// The socket's, should it fail for good.
    pub async fn run(
        self,
        events: mpsc::Sender<LogEvent>,
        closing: impl Future<Output = ()>,
    ) -> io::Result<()> {
        // Any datagram type makes tokio watch the descriptor; reads below are
        // netlink's own.
        let socket = tokio::net::UnixDatagram::from_std(self.descriptor.into())?;
        let mut watch = Some(self.watch);
        let mut closing = std::pin::pin!(closing);
        let mut buffer = vec![0; READ_BUFFER];
        let mut expected = 0;
        loop {
            let read = tokio::select! {
                () = &mut closing, if watch.is_some() => {
                    watch = None;
                    continue;
                }
                () = events.closed() => return Ok(()),
                read = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)) => read,
            };
            let length = match read {
                Ok(length) => length,
                // The kernel discarded messages; their numbers will tell how many.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => continue,
                Err(error) => return Err(error),
            };
            let told = tell(buffer.get(..length).unwrap_or_default(), &mut expected);
            for event in told {
                if events.send(event).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// The attributes of one logged packet that matter here.
#[derive(Default)]
struct Logged<'a> {
    payload: &'a [u8],
    prefix: &'a [u8],
    uid: Option<u32>,
    sequence: Option<u32>,
}

impl<'a> Logged<'a> {
    fn read(message: &Message<'a>) -> Self {
        let number = |value: &[u8]| value.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let mut logged = Self::default();
        for (kind, value) in message.attributes() {
            match kind {
                ATTR_PAYLOAD => logged.payload = value,
                ATTR_PREFIX => logged.prefix = value.strip_suffix(b"\0").unwrap_or(value),
                ATTR_UID => logged.uid = number(value),
                ATTR_SEQUENCE => logged.sequence = number(value),
                _ => {}
            }
        }
        logged
    }

    /// Messages that should have come before this one.
    fn skipped(&self, expected: &mut u32) -> u64 {
        let Some(sequence) = self.sequence else {
            return 0;
        };
        let skipped = sequence.wrapping_sub(*expected);
        *expected = sequence.wrapping_add(1);
        u64::from(skipped)
    }

    fn gap(&self) -> Option<DatagramGap> {
        let refused = match self.prefix {
            prefix if prefix == PREFIX_REFUSED.as_bytes() => true,
            prefix if prefix == PREFIX_PASSED.as_bytes() => false,
            _ => return None,
        };
        let Head {
            transport,
            source,
            destination,
            ports,
        } = head(self.payload)?;
        Some(DatagramGap {
            transport,
            source,
            source_port: ports.map(|(source, _)| source),
            destination,
            destination_port: ports.map(|(_, destination)| destination),
            uid: self.uid,
            refused,
        })
    }
}

/// What one datagram of the log tells, when the message with number `expected` is next: its packets, and how many others there were.
fn tell(datagram: &[u8], expected: &mut u32) -> Vec<LogEvent> {
    let (mut told, mut unreported) = (Vec::new(), 0_u64);
    for logged in packets(datagram) {
        unreported = unreported.saturating_add(logged.skipped(expected));
        match logged.gap() {
            Some(gap) => told.push(LogEvent::Packet(gap)),
            None => unreported = unreported.saturating_add(1),
        }
    }
    if unreported > 0 {
        told.push(LogEvent::Unreported(unreported));
    }
    told
}

/// The packets of one datagram of the log; `None` for one whose head cannot be read.
pub fn gaps(datagram: &[u8]) -> impl Iterator<Item = Option<DatagramGap>> {
    packets(datagram).map(|logged| logged.gap())
}

fn packets(datagram: &[u8]) -> impl Iterator<Item = Logged<'_>> {
    messages(datagram)
        .take_while(|message| i32::from(message.kind) != NLMSG_DONE)
        .filter(|message| i32::from(message.kind) == NFNL_SUBSYS_ULOG << 8 | MSG_PACKET)
        .map(|message| Logged::read(&message))
}

fn receive(descriptor: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (length, sender) = recvfrom::<NetlinkAddr>(descriptor.as_raw_fd(), buffer)?;
    Ok(if sender.is_none_or(|address| address.pid() == 0) {
        length
    } else {
        0
    })
}

fn configure(
    socket: &NetfilterSocket,
    group: u16,
    settings: &Attributes,
) -> Result<(), CaptureError> {
    let mut request = Vec::new();
    write_message(
        &mut request,
        u16::try_from(NFNL_SUBSYS_ULOG << 8 | MSG_CONFIG).expect("two small constants"),
        u16::try_from(NLM_F_REQUEST | NLM_F_ACK).expect("two small constants"),
        1,
        (0, group),
        settings,
    );
    socket
        .send(&request)
        .map_err(|source| failed("bind the packet log", source))?;
    let mut buffer = vec![0; READ_BUFFER];
    // Packets of the group may come before the acknowledgement; none is
    // configured to be copied yet, so none is lost to the record.
    for _ in 0..MAX_BEFORE_ANSWER {
        let answer = socket
            .receive(&mut buffer)
            .map_err(|source| failed("read the kernel's answer", source))?;
        let Some(error) = messages(answer).find(|m| i32::from(m.kind) == NLMSG_ERROR) else {
            continue;
        };
        let code = error
            .payload
            .first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code));
        return match Errno::from_raw(code.saturating_neg()) {
            _ if code == 0 => Ok(()),
            // `nfulnl_recv_config` has one answer for both.
            Errno::EPERM => Err(CaptureError::LogRefused { group }),
            errno @ (Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT) => {
                Err(CaptureError::Unsupported {
                    what: "logging packets over netlink".to_owned(),
                    modules: "nfnetlink_log".to_owned(),
                    source: errno.into(),
                })
            }
            errno => Err(CaptureError::Refused {
                what: format!("binding packet log group {group}"),
                source: errno.into(),
            }),
        };
    }
    Err(failed(
        "read the kernel's answer",
        io::ErrorKind::TimedOut.into(),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn logged(prefix: &str, sequence: u32) -> Vec<u8> {
        let mut packet = vec![
            0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        packet.extend([0, 1, 0, 2]);
        let mut body = Attributes::default();
        body.bytes(ATTR_PAYLOAD, &packet)
            .text(ATTR_PREFIX, prefix)
            .be32(ATTR_UID, 1000)
            .be32(ATTR_SEQUENCE, sequence);
        let mut bytes = Vec::new();
        write_message(&mut bytes, 0x400, 0, 0, (2, 0), &body);
        bytes
    }

    #[test]
    fn the_prefix_tells_refused_from_passed_and_others_are_not_ours() {
        for (prefix, refused) in [
            (PREFIX_REFUSED, Some(true)),
            (PREFIX_PASSED, Some(false)),
            ("other", None),
        ] {
            let bytes = logged(prefix, 0);
            let gap = packets(&bytes).next().unwrap().gap();
            assert_eq!(gap.as_ref().map(|gap| gap.refused), refused);
            assert!(gap.is_none_or(|gap| gap.uid == Some(1000) && gap.destination_port == Some(2)));
        }
    }

    #[test]
    fn a_jump_in_the_numbers_is_a_loss_of_that_many() {
        let mut expected = 0;
        let mut unreported = Vec::new();
        for (sequence, prefix) in [0, 1, 5, 6, 9, 10]
            .into_iter()
            .zip([PREFIX_PASSED; 5].into_iter().chain(["other"]))
        {
            let told = tell(&logged(prefix, sequence), &mut expected);
            unreported.extend(told.into_iter().filter_map(|event| match event {
                LogEvent::Unreported(packets) => Some(packets),
                LogEvent::Packet(_) => None,
            }));
        }
        assert_eq!(unreported, [3, 2, 1]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            noise in proptest::collection::vec(any::<u8>(), 0..256),
            at in any::<prop::sample::Index>(),
            flip in any::<u8>(),
        ) {
            let mut bytes = logged(PREFIX_PASSED, 7);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            bytes.extend(noise);
            for packet in packets(&bytes) {
                packet.gap();
            }
        }
    }
}
