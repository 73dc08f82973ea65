//! Waiting for bytes without a buffer to put them in: most of a connection's life is spent so, and thousands may wait at once.
//!
//! Invariant: a wire that waits here with nothing unread holds no buffer.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::io::ReadBuf;

use crate::wire::{Io, Wire};

/// Bytes of the first read after a wait, on the stack: a request's head fits mostly. What is longer is read on into a buffer.
const FIRST_BYTES: usize = 4096;

/// As [`Wire::fill`], for a wait that may be long.
///
/// # Errors
/// The stream's own.
pub(crate) async fn fill<S: Io>(wire: &mut Wire<S>) -> io::Result<usize> {
    if !wire.unread.is_empty() {
        return wire.fill().await;
    }
    poll_fn(|cx| poll_fill(wire, cx)).await
}

fn poll_fill<S: Io>(wire: &mut Wire<S>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    let mut room = [const { MaybeUninit::uninit() }; FIRST_BYTES];
    let mut first = ReadBuf::uninit(&mut room);
    let read = Pin::new(&mut wire.stream).poll_read(cx, &mut first);
    if read.is_pending() && wire.unread.capacity() > 0 {
        wire.unread = BytesMut::new();
    }
    ready!(read)?;
    wire.unread.extend_from_slice(first.filled());
    Poll::Ready(Ok(first.filled().len()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_wait_gives_its_buffer_back_and_reads_all_the_same() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let mut wire = Wire::new(near, BytesMut::with_capacity(1 << 16));
        let mut waiting = Box::pin(fill(&mut wire));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(waiting);
        assert_eq!(wire.unread.capacity(), 0);
        far.write_all(&[7; 10_000]).await.unwrap();
        assert_eq!(fill(&mut wire).await.unwrap(), FIRST_BYTES);
        assert_eq!(fill(&mut wire).await.unwrap(), 10_000 - FIRST_BYTES);
        drop(far);
        wire.unread.clear();
        assert_eq!(fill(&mut wire).await.unwrap(), 0);
    }
}
