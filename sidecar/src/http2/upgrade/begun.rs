//! A stream from an agent that goes on in HTTP/2 after a 101: its preface is read as [`begin`] says, everything behind it as it is.
//!
//! Reading happens in the codec's own time, so that the server's SETTINGS leave first: an agent may wait for them before it says anything (RFC 7540 §3.2).
//! Invariant: nothing is yielded before the agent's preface and SETTINGS are there, whole and taken.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::begin;
use crate::{prefixed::Prefixed, wire::Io};

/// Bytes that are read at once while the preface is under way: with its SETTINGS it mostly takes less than 100.
const READ_BYTES: usize = 1024;

/// Reads `inner` from the agent's preface on.
pub(crate) struct Begun<S> {
    /// Once the preface is there, with what is to be yielded before anything else.
    inner: Prefixed<S>,
    /// Settings of the request, until the preface is there.
    settings: Option<Vec<u8>>,
    /// What came of the preface.
    held: BytesMut,
}

impl<S> Begun<S> {
    /// Around a stream of which `unread` was read already. `settings`: of the request.
    pub(crate) fn new(inner: S, unread: BytesMut, settings: Vec<u8>) -> Self {
        Self {
            inner: Prefixed::new(BytesMut::new(), inner),
            settings: Some(settings),
            held: unread,
        }
    }
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// Reads until the preface is there, or the stream ends.
    fn poll_preface(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(settings) = &self.settings {
            let begun = begin(settings, &self.held);
            if let Some(begun) = begun.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))? {
                self.inner.put_back(begun);
                (self.settings, self.held) = (None, BytesMut::new());
                break;
            }
            let mut room = [0; READ_BYTES];
            let mut room = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut room))?;
            if room.filled().is_empty() {
                let why = "the agent ended the connection after the upgrade";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, why)));
            }
            self.held.extend_from_slice(room.filled());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_preface(cx))?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
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

impl<S: Io> Io for Begun<S> {
    fn break_off(&mut self) {
        self.inner.get_mut().break_off();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_preface_is_read_the_same_however_it_is_cut() {
        let own = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &[0, 0, 6, 4, 0, 0, 0, 0, 0],
            &[2; 6],
        ];
        let sent = [&own.concat()[..], &[7; 3000]].concat();
        let expected = begin(&[1; 6], &sent).unwrap().unwrap();
        for size in [1, 2, 23, 24, 25, 33, 39, 40, 1024, sent.len()] {
            for early in [0, 10, 39, 45] {
                let (mut agent, side) = tokio::io::duplex(50);
                let mut side = Begun::new(side, sent[..early].into(), vec![1; 6]);
                let rest = sent[early..].to_vec();
                let sending = tokio::spawn(async move {
                    for part in rest.chunks(size) {
                        agent.write_all(part).await.unwrap();
                    }
                });
                let mut out = Vec::new();
                side.read_to_end(&mut out).await.unwrap();
                sending.await.unwrap();
                assert_eq!(out, expected, "{size} {early}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_preface_and_an_end_in_it_are_errors_and_yield_nothing() {
        for (sent, kind) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], io::ErrorKind::InvalidData),
            (b"PRI * HTTP", io::ErrorKind::UnexpectedEof),
            (b"", io::ErrorKind::UnexpectedEof),
        ] {
            let mut side = Begun::new(sent, BytesMut::new(), Vec::new());
            let mut out = Vec::new();
            let error = side.read_to_end(&mut out).await.unwrap_err();
            assert_eq!((error.kind(), out.len()), (kind, 0), "{sent:?}");
        }
    }
}
