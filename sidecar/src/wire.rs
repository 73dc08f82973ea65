//! Byte streams with what was read from them and not yet used.

use std::{io, time::Duration};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use crate::prefixed::Prefixed;

/// Bytes that one read asks for. A compromise between system calls and memory: two such buffers are alive per busy connection.
pub const READ_BYTES: usize = 16 * 1024;

/// Anything that is read and written like a socket.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {
    /// Makes the end that follows a reset (RFC 9293 §3.10.7). An orderly end would say that all has been said: a peer that reads until the close would take half of a
    /// message for the whole.
    fn break_off(&mut self);
}

impl Io for TcpStream {
    fn break_off(&mut self) {
        // A socket that cannot be set is closed by its peer already.
        let _ = SockRef::from(&*self).set_linger(Some(Duration::ZERO));
    }
}

impl<S: Io> Io for Prefixed<S> {
    fn break_off(&mut self) {
        self.get_mut().break_off();
    }
}

impl<S: Io> Io for server::TlsStream<S> {
    fn break_off(&mut self) {
        self.get_mut().0.break_off();
    }
}

impl<S: Io> Io for client::TlsStream<S> {
    fn break_off(&mut self) {
        self.get_mut().0.break_off();
    }
}

impl<T: Io + ?Sized> Io for Box<T> {
    fn break_off(&mut self) {
        (**self).break_off();
    }
}

/// In memory there is one kind of end.
impl Io for DuplexStream {
    fn break_off(&mut self) {}
}

/// One end of a connection: a stream, and bytes that came from it and are not used yet.
#[derive(Debug)]
pub struct Wire<S> {
    /// The stream.
    pub stream: S,
    /// Bytes read and not used.
    pub unread: BytesMut,
}

impl<S: Io> Wire<S> {
    /// A wire on which `unread` was read before.
    pub fn new(stream: S, unread: BytesMut) -> Self {
        Self { stream, unread }
    }

    /// Reads more into `unread`; 0 at the end.
    ///
    /// # Errors
    /// The stream's own.
    pub async fn fill(&mut self) -> io::Result<usize> {
        fill(&mut self.stream, &mut self.unread).await
    }

    /// Writes all and flushes.
    ///
    /// # Errors
    /// The stream's own.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        send(&mut self.stream, bytes).await
    }
}

/// Reads more from `from` into `unread`; 0 at the end.
///
/// # Errors
/// The stream's own.
pub async fn fill<R: AsyncRead + Unpin>(from: &mut R, unread: &mut BytesMut) -> io::Result<usize> {
    unread.reserve(READ_BYTES);
    from.read_buf(unread).await
}

/// Writes all and flushes: with TLS, bytes that are not flushed may stay behind.
///
/// # Errors
/// The stream's own.
pub async fn send<W: AsyncWrite + Unpin>(to: &mut W, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}
