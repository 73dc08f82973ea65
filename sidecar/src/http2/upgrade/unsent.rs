//! A stream towards an upstream that has the request of stream 1 already: its head is taken out of what the codec writes.
//!
//! Invariant: nothing is read before that head was written, so that no setting of the upstream can have changed how the codec wrote it; from then on bytes pass as they are.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{FRAME_HEAD_BYTES, HEADERS, PREFACE};
use crate::wire::Io;

/// Most bytes that wait to be written. What the codec writes before its first request is the preface and two or three frames.
const MAX_WAITING_BYTES: usize = 16 * 1024;

/// Where the writer is.
enum At {
    /// In the preface, or in a frame that passes: so many bytes of it are to come.
    Passing(usize),
    /// In a frame's head, of which this came.
    Head([u8; FRAME_HEAD_BYTES], usize),
    /// In the payload of the head that does not leave.
    Dropping(usize),
    /// Behind it.
    Behind,
}

/// Takes the first HEADERS frame out of what is written to `inner`.
pub(crate) struct Unsent<S> {
    inner: S,
    at: At,
    /// Bytes that leave before any others.
    waiting: BytesMut,
    reader: Option<Waker>,
}

impl<S> Unsent<S> {
    /// Around a stream on which a client's preface is written next.
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            at: At::Passing(PREFACE.len()),
            waiting: BytesMut::new(),
            reader: None,
        }
    }

    fn is_behind(&self) -> bool {
        matches!(self.at, At::Behind)
    }

    /// Follows the frames in `bytes` and keeps those that leave.
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = match &mut self.at {
                At::Passing(left) | At::Dropping(left) => (*left).min(bytes.len()),
                At::Head(_, came) => FRAME_HEAD_BYTES.saturating_sub(*came).min(bytes.len()),
                At::Behind => bytes.len(),
            };
            let (now, rest) = bytes.split_at(used);
            self.step(now);
            bytes = rest;
        }
    }

    /// Takes bytes that belong to one part.
    fn step(&mut self, now: &[u8]) {
        match &mut self.at {
            At::Behind => self.waiting.extend_from_slice(now),
            At::Passing(left) => {
                self.waiting.extend_from_slice(now);
                *left = left.saturating_sub(now.len());
                if *left == 0 {
                    self.at = At::Head([0; FRAME_HEAD_BYTES], 0);
                }
            }
            At::Dropping(left) => {
                *left = left.saturating_sub(now.len());
                if *left == 0 {
                    self.go_behind();
                }
            }
            At::Head(head, came) => {
                for (to, byte) in head.iter_mut().skip(*came).zip(now) {
                    *to = *byte;
                }
                *came = came.saturating_add(now.len());
                if *came >= FRAME_HEAD_BYTES {
                    let head = *head;
                    self.begin_frame(head);
                }
            }
        }
    }

    fn begin_frame(&mut self, head: [u8; FRAME_HEAD_BYTES]) {
        let [high, middle, low, kind, ..] = head;
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if kind != HEADERS {
            self.waiting.extend_from_slice(&head);
        }
        match (kind, length) {
            (HEADERS, 0) => self.go_behind(),
            (HEADERS, length) => self.at = At::Dropping(length),
            (_, 0) => self.at = At::Head([0; FRAME_HEAD_BYTES], 0),
            (_, length) => self.at = At::Passing(length),
        }
    }

    fn go_behind(&mut self) {
        self.at = At::Behind;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl<S: AsyncWrite + Unpin> Unsent<S> {
    /// Writes what waits.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unsent<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_behind() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unsent<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_waiting(cx))?;
        if self.is_behind() {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        }
        let taken = buf.get(..MAX_WAITING_BYTES).unwrap_or(buf);
        self.follow(taken);
        let taken = taken.len();
        if let Poll::Ready(Err(error)) = self.poll_waiting(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_behind() && self.waiting.is_empty() {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        }
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| &**buf))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl<S: Io> Io for Unsent<S> {
    fn break_off(&mut self) {
        self.inner.break_off();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::{super::STREAM_ONE, *};

    #[tokio::test]
    async fn the_first_head_never_leaves_however_it_is_written() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
        let update = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        let ping_of_nothing = [0, 0, 0, 6, 0, 0, 0, 0, 0];
        let before = [PREFACE, &settings, &update, &ping_of_nothing].concat();
        let behind = [&STREAM_ONE[..], b"another head"].concat();
        let all = [&before[..], &STREAM_ONE, &behind].concat();
        for size in 1..all.len() {
            let (to, mut from) = tokio::io::duplex(7);
            let mut to = Unsent::new(to);
            let parts = all.clone();
            let sent = tokio::spawn(async move {
                for part in parts.chunks(size) {
                    to.write_all(part).await.unwrap();
                }
                to.shutdown().await.unwrap();
            });
            let mut out = Vec::new();
            from.read_to_end(&mut out).await.unwrap();
            sent.await.unwrap();
            assert_eq!(out, [&before[..], &behind].concat(), "{size}");
        }
    }

    #[tokio::test]
    async fn nothing_is_read_before_the_head_is_written() {
        let (here, mut there) = tokio::io::duplex(64);
        there.write_all(b"early").await.unwrap();
        let mut here = Unsent::new(here);
        let mut buf = [0; 5];
        let read = here.read_exact(&mut buf);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), read).await;
        assert!(waited.is_err());
        here.write_all(PREFACE).await.unwrap();
        here.write_all(&STREAM_ONE).await.unwrap();
        here.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"early");
    }
}
