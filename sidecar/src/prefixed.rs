//! A stream whose first bytes were read before: they are read again first.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// `prefix`, then what `inner` yields. Writes go to `inner`.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: BytesMut,
    inner: S,
}

impl<S> Prefixed<S> {
    /// Puts `prefix` back before `inner`.
    pub fn new(prefix: BytesMut, inner: S) -> Self {
        Self { prefix, inner }
    }

    /// Puts bytes back before whatever comes next. What was put back before and not read yet is gone.
    pub(crate) fn put_back(&mut self, prefix: BytesMut) {
        self.prefix = prefix;
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The stream below, to set what holds for it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.prefix.len().min(buf.remaining());
        if let Some(bytes) = self.prefix.get(..count) {
            buf.put_slice(bytes);
        }
        self.prefix.advance(count);
        if self.prefix.is_empty() {
            // The stream may live long, and never needs the buffer again.
            self.prefix = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn the_prefix_comes_first_and_once() {
        let mut stream = Prefixed::new(BytesMut::from(&b"abc"[..]), &b"def"[..]);
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!((&two[..], &rest[..]), (&b"ab"[..], &b"cdef"[..]));
    }

    #[tokio::test]
    async fn a_prefix_longer_than_a_read_is_read_whole_whatever_a_read_takes() {
        let all: Vec<u8> = (0..30_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let (prefix, inner) = all.split_at(20_000);
        for room in [1, 7, 4096, 20_000, 65_536] {
            let mut stream = Prefixed::new(BytesMut::from(prefix), inner);
            let (mut heard, mut part) = (Vec::new(), vec![0; room]);
            loop {
                // A read without room takes nothing, and ends nothing.
                assert_eq!(stream.read(&mut []).await.unwrap(), 0);
                match stream.read(&mut part).await.unwrap() {
                    0 => break,
                    read => heard.extend_from_slice(&part[..read]),
                }
            }
            assert!(heard == all, "{room}");
            assert_eq!(stream.prefix.capacity(), 0);
        }
    }
}
