//! Byte streams with what was read from them and not yet used.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that one read asks for. A compromise between system calls and memory: two such buffers are alive per busy connection.
pub const READ_BYTES: usize = 16 * 1024;

/// Anything that is read and written like a socket.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

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
