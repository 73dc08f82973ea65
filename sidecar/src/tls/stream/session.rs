//! A TLS session without its I/O: what comes in, what is to go out, and how the peer ended.
//!
//! Owns what a session must keep between reads: the beginning of a record or handshake message that is not whole, and plaintext that a reader had no room for. Mostly there is neither, and then
//! it holds no buffer. Invariants: what was read is used at once, as far as it goes, so that what is kept is less than a record or handshake message; rustls sees what is kept at each call,
//! changed by nobody, since it remembers places in it; after a failure it sees nothing any more.

use std::io::{self, IoSlice};

use bytes::{Buf, BytesMut};
use rustls::{
    CommonState, Error, InvalidMessage,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use tokio::io::ReadBuf;

use super::scratch::{Outgoing, Scratch};

/// Most plaintext of a record (RFC 8446 §5.1), and of a write: what a peer that does not read makes the sidecar hold.
const FRAGMENT_BYTES: usize = 16 * 1024;
/// More than a record is longer than its plaintext: header, nonce, tag and type take 30 at most (RFC 5246 §6.2.3.3, RFC 8446 §5.2).
const RECORD_OVERHEAD: usize = 64;
/// Room for what rustls may send before the plaintext: an update of keys, an alert.
const AHEAD_BYTES: usize = 256;
/// Most bytes of a message that is not whole: a handshake message of 64 KiB, as rustls bounds it, or a record.
const UNREAD_BYTES: usize = 64 * 1024;
/// Bytes of a record's header (RFC 8446 §5.1).
const HEADER_BYTES: usize = 5;

/// One side of TLS: rustls has a type for each.
pub trait Side: Send + Unpin {
    /// What rustls keeps for this side.
    type Data;

    /// What was agreed.
    fn common(&self) -> &CommonState;

    /// The next step, given all bytes that came in and were not used.
    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn common(&self) -> &CommonState {
        self
    }

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn common(&self) -> &CommonState {
        self
    }

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// How the peer's bytes ended.
#[derive(Debug)]
enum End {
    /// By close_notify: all was said.
    Closed,
    /// Without: anything may be missing.
    Truncated,
    /// They are no TLS, or an alert.
    Failed(Error),
}

/// A session.
pub(super) struct Session<C> {
    side: C,
    unread: Vec<u8>,
    plain: BytesMut,
    end: Option<End>,
}

impl<C: Side> Session<C> {
    /// A session of which nothing was said.
    pub(super) fn new(side: C) -> Self {
        Self {
            side,
            unread: Vec::new(),
            plain: BytesMut::new(),
            end: None,
        }
    }

    pub(super) fn side(&self) -> &C {
        &self.side
    }

    /// What came in and was not used: it goes before what comes in next.
    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Bytes of its buffers.
    #[cfg(test)]
    pub(super) fn holds(&self) -> usize {
        self.unread.capacity() + self.plain.capacity()
    }

    /// Bytes that the record is short of which has begun, as far as its header says.
    pub(super) fn missing(&self) -> usize {
        match self.unread.as_slice() {
            [_, _, _, high, low, ..] => usize::from(u16::from_be_bytes([*high, *low]))
                .saturating_add(HEADER_BYTES)
                .saturating_sub(self.unread.len()),
            _ => 0,
        }
    }

    /// Whether it is established, or how it failed.
    pub(super) fn established(&self) -> Result<bool, io::Error> {
        match &self.end {
            Some(End::Failed(error)) => Err(invalid(error)),
            _ if !self.side.common().is_handshaking() => Ok(true),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer went away in the handshake",
            )),
            None => Ok(false),
        }
    }

    /// Whether the peer's bytes are no TLS, or an alert.
    pub(super) fn failed(&self) -> io::Result<()> {
        match &self.end {
            Some(End::Failed(error)) => Err(invalid(error)),
            _ => Ok(()),
        }
    }

    /// Moves plaintext that a reader had no room for. Whether there is anything to say to the reader: plaintext, or that the end was reached.
    ///
    /// # Errors
    /// `InvalidData` with rustls' error; `UnexpectedEof` where an end without close_notify was reached.
    pub(super) fn deliver(&mut self, room: &mut ReadBuf<'_>) -> io::Result<bool> {
        if !self.plain.is_empty() {
            let count = self.plain.len().min(room.remaining());
            room.put_slice(self.plain.get(..count).unwrap_or_default());
            self.plain.advance(count);
            if self.plain.is_empty() {
                self.plain = BytesMut::new();
            }
            return Ok(true);
        }
        match &self.end {
            None => Ok(false),
            Some(End::Closed) => Ok(true),
            Some(End::Truncated) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer closed the connection without close_notify",
            )),
            Some(End::Failed(error)) => Err(invalid(error)),
        }
    }

    /// Nothing comes in any more.
    pub(super) fn truncate(&mut self) {
        self.end.get_or_insert(End::Truncated);
    }

    /// Uses what came in: `incoming` is what is [`unread`](Self::unread), and what follows. Plaintext goes into `room` as far as it fits.
    pub(super) fn receive(
        &mut self,
        incoming: &mut [u8],
        room: &mut ReadBuf<'_>,
        out: &mut Outgoing,
    ) {
        if self.end.is_some() {
            return;
        }
        let plain = &mut self.plain;
        let keep = |bytes: &[u8]| {
            let fits = match plain.is_empty() {
                true => bytes.len().min(room.remaining()),
                false => 0,
            };
            let (now, later) = bytes.split_at(fits);
            room.put_slice(now);
            plain.extend_from_slice(later);
        };
        let mut ran = run(&mut self.side, incoming, keep, out, |_, _| ());
        let rest = incoming.get(ran.used..).unwrap_or_default();
        if rest.len() > UNREAD_BYTES {
            ran.end = Some(End::Failed(InvalidMessage::HandshakePayloadTooLarge.into()));
        }
        self.keep(rest, ran.end);
    }

    fn keep(&mut self, rest: &[u8], end: Option<End>) {
        // After a truncation too rustls sees it again whenever something is written.
        let is_over = matches!(end, Some(End::Closed | End::Failed(_)));
        self.unread.clear();
        match is_over || rest.is_empty() {
            true => self.unread = Vec::new(),
            false => self.unread.extend_from_slice(rest),
        }
        self.end = end;
    }

    /// Encrypts the beginning of `parts`, and says how many bytes of it.
    ///
    /// # Errors
    /// When nothing can be sent any more.
    pub(super) fn send(&mut self, parts: &[IoSlice<'_>], out: &mut Outgoing) -> io::Result<usize> {
        let encrypt =
            |traffic: WriteTraffic<'_, _>, out: &mut Outgoing| encrypt(traffic, parts, out);
        match self.writing(out, encrypt)? {
            Some(Ok(count)) => Ok(count),
            Some(Err(error)) => {
                drain(&mut self.side, |_| {}, out);
                Err(io::Error::new(io::ErrorKind::BrokenPipe, error))
            }
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Says close_notify, unless the session has failed.
    pub(super) fn close(&mut self, out: &mut Outgoing) {
        let close = |mut traffic: WriteTraffic<'_, _>, out: &mut Outgoing| {
            let mut want = AHEAD_BYTES;
            loop {
                match traffic.queue_close_notify(out.room(want)) {
                    Ok(count) => return out.add(count),
                    Err(EncryptError::InsufficientSize(size)) if size.required_size > want => {
                        want = size.required_size;
                    }
                    Err(_) => return,
                }
            }
        };
        // What has failed has said why.
        let _ = self.writing(out, close);
    }

    /// Has `write` done where the session is ready for it; `None` where it will not be.
    fn writing<R>(
        &mut self,
        out: &mut Outgoing,
        write: impl FnOnce(WriteTraffic<'_, C::Data>, &mut Outgoing) -> R,
    ) -> io::Result<Option<R>> {
        self.failed()?;
        let mut unread = std::mem::take(&mut self.unread);
        let plain = &mut self.plain;
        let keep = |bytes: &[u8]| plain.extend_from_slice(bytes);
        let ran = run(&mut self.side, &mut unread, keep, out, write);
        let end = self.end.take().or(ran.end);
        if ran.used == 0 && end.is_none() {
            self.unread = unread;
        } else {
            self.keep(unread.get(ran.used..).unwrap_or_default(), end);
        }
        self.failed()?;
        Ok(ran.written)
    }
}

/// What came of a [`run`].
struct Ran<R> {
    /// Bytes of what came in that were used.
    used: usize,
    written: Option<R>,
    end: Option<End>,
}

/// Takes step after step until more must come in. Plaintext goes to `keep`, what is to be sent to `out`; `write` is called at the end where the session may send plaintext.
fn run<C: Side, R>(
    side: &mut C,
    incoming: &mut [u8],
    mut keep: impl FnMut(&[u8]),
    out: &mut Outgoing,
    write: impl FnOnce(WriteTraffic<'_, C::Data>, &mut Outgoing) -> R,
) -> Ran<R> {
    let (mut used, mut closed) = (0_usize, false);
    let ended = |used, closed: bool, written| Ran {
        used,
        written,
        end: closed.then_some(End::Closed),
    };
    loop {
        let rest = incoming.get_mut(used..).unwrap_or_default();
        let UnbufferedStatus { mut discard, state } = side.step(rest);
        let failed = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
                match traffic.next_record() {
                    Some(Ok(record)) => {
                        keep(record.payload);
                        discard = discard.saturating_add(record.discard);
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                }
            },
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                encode(|room| message.encode(room), out);
                None
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                // What was encoded is sent in its order, before anything that is encoded later.
                transmit.done();
                None
            }
            Ok(ConnectionState::PeerClosed) => {
                closed = true;
                None
            }
            Ok(ConnectionState::WriteTraffic(traffic)) => {
                let written = write(traffic, out);
                return ended(used.saturating_add(discard), closed, Some(written));
            }
            Ok(ConnectionState::BlockedHandshake) => {
                return ended(used.saturating_add(discard), closed, None);
            }
            Ok(ConnectionState::Closed) => {
                return ended(used.saturating_add(discard), true, None);
            }
            // Early data, which is offered and accepted nowhere, and states that are not known yet.
            Ok(_) => Some(Error::General("an unexpected state of TLS".into())),
            Err(error) => Some(error),
        };
        used = used.saturating_add(discard);
        if let Some(error) = failed {
            drain(side, keep, out);
            return Ran {
                used,
                written: None,
                end: Some(End::Failed(error)),
            };
        }
    }
}

/// Gets what a session that has failed has to say yet: an alert. Nothing that came in is looked at again.
fn drain<C: Side>(side: &mut C, mut keep: impl FnMut(&[u8]), out: &mut Outgoing) {
    while side.common().wants_write() {
        match side.step(&mut []).state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(Ok(record)) = traffic.next_record() {
                    keep(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut message)) => {
                encode(|room| message.encode(room), out);
            }
            _ => return,
        }
    }
}

/// Appends one message.
fn encode(mut message: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>, out: &mut Outgoing) {
    let mut want = AHEAD_BYTES;
    loop {
        match message(out.room(want)) {
            Ok(count) => return out.add(count),
            Err(EncodeError::InsufficientSize(size)) if size.required_size > want => {
                want = size.required_size;
            }
            Err(_) => return,
        }
    }
}

/// Encrypts the beginning of `parts` as one record: a long part where it lies, short ones together.
fn encrypt<D>(
    mut traffic: WriteTraffic<'_, D>,
    parts: &[IoSlice<'_>],
    out: &mut Outgoing,
) -> Result<usize, EncryptError> {
    let mut parts = parts.iter().map(|part| &**part).filter(|p| !p.is_empty());
    let first = parts.next().unwrap_or_default();
    let (mut rest, mut parts) = (first, parts.peekable());
    if first.len() >= FRAGMENT_BYTES || parts.peek().is_none() {
        let now = first.get(..FRAGMENT_BYTES).unwrap_or(first);
        return seal(&mut traffic, now, out);
    }
    let mut record = Scratch::of(FRAGMENT_BYTES);
    let mut filled = 0_usize;
    loop {
        let room = record.get_mut(filled..FRAGMENT_BYTES).unwrap_or_default();
        let (now, later) = rest.split_at(rest.len().min(room.len()));
        let room = room.get_mut(..now.len()).unwrap_or_default();
        room.copy_from_slice(now);
        filled = filled.saturating_add(now.len());
        match parts.next_if(|_| later.is_empty()) {
            Some(next) => rest = next,
            None => break,
        }
    }
    seal(&mut traffic, record.get(..filled).unwrap_or_default(), out)
}

/// Encrypts a record, and says how long its plaintext is.
fn seal<D>(
    traffic: &mut WriteTraffic<'_, D>,
    plain: &[u8],
    out: &mut Outgoing,
) -> Result<usize, EncryptError> {
    let mut want = plain.len().saturating_add(RECORD_OVERHEAD + AHEAD_BYTES);
    loop {
        match traffic.encrypt(plain, out.room(want)) {
            Ok(count) => {
                out.add(count);
                return Ok(plain.len());
            }
            Err(EncryptError::InsufficientSize(size)) if size.required_size > want => {
                want = size.required_size;
            }
            Err(error) => return Err(error),
        }
    }
}

fn invalid(error: &Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.clone())
}
