//! One side of a tunnel through a stream (CONNECT, RFC 9113 §8.5; extended CONNECT, RFC 8441), read and written like a socket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, client::SendRequest};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flow::release;
use crate::wire::{Io, Wire};

/// A proxy's connection, on which further streams may be opened by a CONNECT like one before.
pub struct Streams {
    sender: SendRequest<Bytes>,
    request: Request<()>,
}

impl Streams {
    /// Opens by this request.
    pub(crate) fn new(sender: SendRequest<Bytes>, request: Request<()>) -> Self {
        Self { sender, request }
    }

    /// Another tunnel. Whoever drives the connection must go on doing it meanwhile.
    ///
    /// # Errors
    /// When the connection is over, or the proxy refuses.
    pub(crate) async fn open(&self) -> io::Result<Wire<Box<dyn Io>>> {
        let sender = self.sender.clone().ready().await;
        let mut sender = sender.map_err(broken)?;
        let (response, to) = sender
            .send_request(self.request.clone(), false)
            .map_err(broken)?;
        let response = response.await.map_err(broken)?;
        let status = response.status();
        if !status.is_success() {
            let told = format!("the proxy answered {}", status.as_u16());
            return Err(io::Error::other(told));
        }
        let stream = StreamIo::new(response.into_body(), to, Reason::CONNECT_ERROR);
        Ok(Wire::new(Box::new(stream), BytesMut::new()))
    }
}

/// A stream's two directions. Credit goes back to the sender as bytes are read.
pub(crate) struct StreamIo {
    from: RecvStream,
    to: SendStream<Bytes>,
    /// Read from the stream and not by the reader.
    unread: Bytes,
    ended: bool,
    /// What stands for a reset of TCP.
    reset: Reason,
}

impl StreamIo {
    /// Takes over both directions. `reset`: what stands for a reset of TCP, CONNECT_ERROR for CONNECT (RFC 9113 §8.5), CANCEL for WebSocket (RFC 8441 §5).
    pub(crate) fn new(from: RecvStream, to: SendStream<Bytes>, reset: Reason) -> Self {
        Self {
            from,
            to,
            unread: Bytes::new(),
            ended: false,
            reset,
        }
    }
}

impl Io for StreamIo {
    fn break_off(&mut self) {
        self.ended = true;
        self.to.send_reset(self.reset);
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match self.from.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
                Poll::Ready(Some(Ok(data))) => self.unread = data,
            }
        }
        let count = self.unread.len().min(buf.remaining());
        if let Some(bytes) = self.unread.get(..count) {
            buf.put_slice(bytes);
        }
        self.unread.advance(count);
        release(&mut self.from, count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.to.reserve_capacity(buf.len());
        if self.to.capacity() == 0 {
            match self.to.poll_capacity(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = buf.len().min(self.to.capacity());
        let bytes = Bytes::copy_from_slice(buf.get(..count).unwrap_or_default());
        match self.to.send_data(bytes, false) {
            Ok(()) => Poll::Ready(Ok(count)),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }

    /// What is sent waits in the stream; the connection's own task flushes it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.ended, true) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(self.to.send_data(Bytes::new(), true).map_err(broken))
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.into_io() {
        Some(error) => error,
        None => io::ErrorKind::ConnectionReset.into(),
    }
}
