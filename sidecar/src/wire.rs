//! Byte streams with what was read from them and not yet used.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    net::TcpStream,
};

use crate::prefixed::Prefixed;

/// Bytes that one read asks for. A compromise between system calls and memory: two such buffers are alive per busy connection.
pub const READ_BYTES: usize = 16 * 1024;
/// Bytes that one read asks for, and one write holds, while a large body streams: fewer system calls and wake-ups of the reader, for memory of a few such buffers on each connection that is
/// busy so.
pub const BULK_BYTES: usize = 128 * 1024;
/// Most bytes that are copied to leave together with others. Beyond, a vectored write is cheaper than the copy.
const COPIED_BYTES: usize = 4 * 1024;

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

impl<T: Io + ?Sized> Io for Box<T> {
    fn break_off(&mut self) {
        (**self).break_off();
    }
}

impl<T: Io + ?Sized> Io for &mut T {
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

/// How much a read asks for: more once reads come back full.
#[derive(Clone, Copy, Debug)]
pub struct Appetite {
    now: usize,
    most: usize,
}

impl Default for Appetite {
    fn default() -> Self {
        Self::up_to(BULK_BYTES)
    }
}

impl Appetite {
    /// Reads of at most `most` bytes.
    #[must_use]
    pub fn up_to(most: usize) -> Self {
        Self {
            now: READ_BYTES.min(most),
            most,
        }
    }

    /// As [`fill`], with a buffer that grows while the peer fills it.
    ///
    /// # Errors
    /// The stream's own.
    pub async fn fill<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut R,
        unread: &mut BytesMut,
    ) -> io::Result<usize> {
        unread.reserve(self.now);
        let read = from.read_buf(unread).await?;
        if read >= self.now {
            self.now = self.now.saturating_mul(2).min(self.most);
        }
        Ok(read)
    }
}

/// The two directions of one stream for futures of one task, which never hold it both at once: the lock is free whenever it is asked for.
#[derive(Debug)]
pub struct Halves<'a, S>(Mutex<&'a mut S>);

impl<'a, S> Halves<'a, S> {
    /// Both directions of `stream`.
    pub fn of(stream: &'a mut S) -> Self {
        Self(Mutex::new(stream))
    }

    /// One of them. Which one is told by what is done with it.
    pub fn half(&self) -> Half<'_, 'a, S> {
        Half(self)
    }
}

/// One direction of a stream.
#[derive(Debug)]
pub struct Half<'h, 'a, S>(&'h Halves<'a, S>);

impl<'a, S> Half<'_, 'a, S> {
    fn stream(&self) -> MutexGuard<'_, &'a mut S> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Half<'_, '_, S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.stream()).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Half<'_, '_, S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self.stream()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.stream()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self.stream()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
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

/// Writes `first`, then `second`, in as few writes as it takes, and flushes. `first` may be used as a buffer.
///
/// # Errors
/// The stream's own.
pub async fn send_both<W: AsyncWrite + Unpin>(
    to: &mut W,
    first: &mut BytesMut,
    second: &[u8],
) -> io::Result<()> {
    if first.is_empty() {
        return send(to, second).await;
    }
    if second.len() <= COPIED_BYTES {
        first.extend_from_slice(second);
        return send(to, first).await;
    }
    let (mut first, mut second) = (&first[..], second);
    while !first.is_empty() {
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        let written = to.write_vectored(&parts).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let (of_first, of_second) = (
            written.min(first.len()),
            written.saturating_sub(first.len()),
        );
        first = first.get(of_first..).unwrap_or_default();
        second = second.get(of_second..).unwrap_or_default();
    }
    send(to, second).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes both parts into a pipe that takes `room` bytes at a time, and returns what came out.
    async fn written(room: usize, first: &[u8], second: &[u8]) -> Vec<u8> {
        let (mut to, mut from) = tokio::io::duplex(room);
        let mut head = BytesMut::from(first);
        let second = second.to_vec();
        let sent = tokio::spawn(async move {
            send_both(&mut to, &mut head, &second).await.unwrap();
        });
        let mut out = Vec::new();
        from.read_to_end(&mut out).await.unwrap();
        sent.await.unwrap();
        out
    }

    #[tokio::test]
    async fn two_parts_arrive_as_one_whatever_a_write_takes() {
        for room in [1, 7, 4096, 1 << 20] {
            for (first, second) in [(0, 10), (10, 0), (10, 10), (300, 20_000), (0, 20_000)] {
                let (first, second) = (vec![b'a'; first], vec![b'b'; second]);
                let out = written(room, &first, &second).await;
                assert_eq!(out, [first, second].concat());
            }
        }
    }

    #[tokio::test]
    async fn a_read_asks_for_more_once_reads_come_back_full() {
        let large = vec![0; 4 * BULK_BYTES];
        let mut from = &large[..];
        let (mut unread, mut appetite) = (BytesMut::new(), Appetite::default());
        for expected in [1, 2, 4, 8, 8, 8].map(|times| times * READ_BYTES) {
            unread.clear();
            unread.reserve(appetite.now);
            let mut asked = AsyncReadExt::take(&mut from, appetite.now as u64);
            assert_eq!(
                appetite.fill(&mut asked, &mut unread).await.unwrap(),
                expected
            );
        }
    }

    #[tokio::test]
    async fn both_halves_work_at_once() {
        let (mut here, mut there) = tokio::io::duplex(16);
        let halves = Halves::of(&mut here);
        let (mut read, mut write) = (halves.half(), halves.half());
        let mut got = [0; 6];
        let (sent, answered, ()) = tokio::join!(
            write.write_all(b"question of more than sixteen bytes"),
            read.read_exact(&mut got),
            async {
                there.write_all(b"answer").await.unwrap();
                let mut asked = [0; 35];
                there.read_exact(&mut asked).await.unwrap();
            }
        );
        sent.unwrap();
        answered.unwrap();
        assert_eq!(&got, b"answer");
    }
}
