//! TLS over a byte stream, with buffers only while there is something in them: a waiting connection has its keys and nothing else.
//!
//! It is what `tokio_rustls` is, over rustls' unbuffered API: the buffered one keeps 4 KiB to read into for as long as a session lasts. Ciphertext is read into a buffer of the thread
//! ([`scratch`]) and decrypted there, plaintext goes straight to the reader, and what is sent is encrypted into such a buffer too. What the socket does not take at once waits in the stream.
//! Refused: early data. Invariants: an end without close_notify is an error, never an end; plaintext that came before an error is delivered before it; a write is taken only once all before
//! it has left, so that a peer that does not read holds up its writer.

mod scratch;
mod session;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use rustls::{
    ClientConfig, ServerConfig, client::UnbufferedClientConnection, pki_types::ServerName,
    server::UnbufferedServerConnection,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub use self::session::Side;
use self::{
    scratch::{Outgoing, Scratch},
    session::Session,
};
use crate::wire::Io;

/// Least that is asked for at once: records are longer than what is in them, and small ones may come in numbers.
const LEAST_READ_BYTES: usize = 4 * 1024;
/// Most that is asked for at once: two records. With more of them the next peer waits longer for the first one than the system calls take that are saved.
const MOST_READ_BYTES: usize = 32 * 1024;
/// More than records are longer than the plaintext that a reader asks for, in most cases: then one read serves it.
const READ_OVERHEAD: usize = 256;

/// TLS towards a server.
pub type ClientTls<S> = TlsStream<UnbufferedClientConnection, S>;
/// TLS towards a client.
pub type ServerTls<S> = TlsStream<UnbufferedServerConnection, S>;

/// A TLS stream whose handshake is done.
pub struct TlsStream<C, S> {
    io: S,
    session: Session<C>,
    /// What `io` did not take yet.
    unsent: BytesMut,
    /// Whether close_notify was said.
    is_closing: bool,
}

/// Shakes hands as a client.
///
/// # Errors
/// The stream's own; `InvalidData` with a [`rustls::Error`], once its alert was sent as far as the stream took it; `UnexpectedEof`.
pub async fn connect<S: Io>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    io: S,
) -> io::Result<ClientTls<S>> {
    shake(UnbufferedClientConnection::new(config, name), io).await
}

/// Shakes hands as a server.
///
/// # Errors
/// As those of [`connect`].
pub async fn accept<S: Io>(config: Arc<ServerConfig>, io: S) -> io::Result<ServerTls<S>> {
    shake(UnbufferedServerConnection::new(config), io).await
}

async fn shake<C: Side, S: Io>(
    side: Result<C, rustls::Error>,
    io: S,
) -> io::Result<TlsStream<C, S>> {
    let mut stream = TlsStream {
        io,
        session: Session::new(side.map_err(io::Error::other)?),
        unsent: BytesMut::new(),
        is_closing: false,
    };
    // A client has something to say before anything came.
    stream.receive(&mut [], &mut ReadBuf::new(&mut []));
    poll_fn(|cx| stream.poll_handshake(cx)).await?;
    Ok(stream)
}

impl<C, S> TlsStream<C, S> {
    /// What was agreed.
    pub fn session(&self) -> &C
    where
        C: Side,
    {
        self.session.side()
    }
}

impl<C: Side, S: Io> TlsStream<C, S> {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let sent = self.poll_sent(cx);
            let established = self.session.established()?;
            if established {
                return sent;
            }
            if let Poll::Ready(sent) = sent {
                sent?;
            }
            // Also while something is not sent yet: the peer may wait for us to read. What comes with the last of the handshake is kept.
            ready!(self.poll_more(cx, &mut ReadBuf::new(&mut [])))?;
        }
    }

    /// Reads once and uses what came.
    fn poll_more(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let kept = self.session.unread().len();
        let asked = room.remaining().saturating_add(READ_OVERHEAD);
        let asked = asked
            .max(self.session.missing())
            .clamp(LEAST_READ_BYTES, MOST_READ_BYTES);
        let end = kept.saturating_add(asked);
        let mut incoming = Scratch::of(end);
        let mut part = ReadBuf::new(incoming.get_mut(kept..end).unwrap_or_default());
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let came = part.filled().len();
        if came == 0 {
            self.session.truncate();
            return Poll::Ready(Ok(()));
        }
        let before = incoming.get_mut(..kept).unwrap_or_default();
        before.copy_from_slice(self.session.unread());
        let end = kept.saturating_add(came);
        self.receive(incoming.get_mut(..end).unwrap_or_default(), room);
        if self.session.failed().is_err() {
            // The alert, as far as it can be sent now: nobody asks this stream for more.
            let _ = self.poll_sent(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn receive(&mut self, incoming: &mut [u8], room: &mut ReadBuf<'_>) {
        let mut out = Outgoing::new();
        self.session.receive(incoming, room, &mut out);
        self.unsent.extend_from_slice(out.bytes());
    }

    /// Ready once `io` took all that is to be sent, and was flushed.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_taken(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Ready once `io` took all that is to be sent.
    fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.unsent.advance(count),
            }
            if self.unsent.is_empty() {
                self.unsent = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what `io` takes now; the rest waits.
    fn send_now(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => bytes = bytes.get(count..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.unsent.extend_from_slice(bytes);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn poll_parts(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_taken(cx))?;
        let mut out = Outgoing::new();
        let taken = self.session.send(parts, &mut out);
        self.send_now(cx, out.bytes())?;
        Poll::Ready(taken)
    }
}

impl<C: Side, S: Io> AsyncRead for TlsStream<C, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.remaining();
        while before > 0 && buf.remaining() == before {
            if self.session.deliver(buf)? {
                break;
            }
            ready!(self.poll_more(cx, buf))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: Side, S: Io> AsyncWrite for TlsStream<C, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_parts(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.failed()?;
        self.poll_sent(cx)
    }

    /// Says close_notify first.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.is_closing, true) {
            let mut out = Outgoing::new();
            this.session.close(&mut out);
            this.unsent.extend_from_slice(out.bytes());
        }
        ready!(this.poll_taken(cx))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            // The peer was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_parts(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

impl<C: Side, S: Io> Io for TlsStream<C, S> {
    fn break_off(&mut self) {
        self.io.break_off();
    }
}
