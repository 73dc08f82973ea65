//! The one upstream connection of an agent's connection: dialled when a request first needs it, driven by the agent's task.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::client;
use tokio::sync::{OnceCell, mpsc};

use super::limits;
use crate::{
    link::Link,
    prefixed::Prefixed,
    wire::{Io, Wire},
};

type Connection = client::Connection<Prefixed<Box<dyn Io>>, Bytes>;

/// Where streams get their way to the upstream from.
pub(crate) struct Upstream<'a> {
    link: &'a Link,
    sender: OnceCell<client::SendRequest<Bytes>>,
    /// To the task that drives the connection.
    hand_over: mpsc::Sender<Driven>,
}

impl<'a> Upstream<'a> {
    /// Not dialled yet. The connection arrives at the receiver once it is.
    pub(crate) fn new(link: &'a Link) -> (Self, mpsc::Receiver<Driven>) {
        let (hand_over, handed_over) = mpsc::channel(1);
        let upstream = Self {
            link,
            sender: OnceCell::new(),
            hand_over,
        };
        (upstream, handed_over)
    }

    /// Begins HTTP/2 on a connection that is there already.
    ///
    /// # Errors
    /// When the preface cannot be written.
    pub(crate) async fn begin(&self, wire: Wire<Box<dyn Io>>) -> io::Result<()> {
        self.sender
            .get_or_try_init(|| self.handshake(wire))
            .await
            .map(|_| ())
    }

    /// A way to send a request. Dials the destination for the first that asks.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub(crate) async fn sender(&self) -> io::Result<client::SendRequest<Bytes>> {
        let dial = || async {
            let wire = self.link.dial().await?;
            self.handshake(wire).await
        };
        self.sender.get_or_try_init(dial).await.cloned()
    }

    async fn handshake(&self, wire: Wire<Box<dyn Io>>) -> io::Result<client::SendRequest<Bytes>> {
        let io = Prefixed::new(wire.unread, wire.stream);
        let (sender, connection) = limits::client(io).await.map_err(io::Error::other)?;
        let driven = Driven {
            connection,
            sender: Some(sender.clone()),
        };
        // There is room for one, and one is all that is sent; a receiver that is gone has ended the streams too.
        let _ = self.hand_over.try_send(driven);
        Ok(sender)
    }
}

/// What became of the upstream's connection.
pub(crate) enum UpstreamEvent {
    /// It takes no more requests; those under way go on.
    GoesAway,
    /// It is over.
    Over,
}

/// The upstream's connection, to be polled.
pub(crate) struct Driven {
    connection: Connection,
    /// Tells whether it takes requests. `None` once it does not.
    sender: Option<client::SendRequest<Bytes>>,
}

impl Driven {
    /// Moves bytes; ready when requests can no longer be sent.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<UpstreamEvent> {
        if let Poll::Ready(result) = Pin::new(&mut self.connection).poll(cx) {
            if let Err(error) = result {
                tracing::debug!(%error, "the upstream's HTTP/2 connection ended");
            }
            return Poll::Ready(UpstreamEvent::Over);
        }
        if let Some(sender) = &mut self.sender
            && let Poll::Ready(Err(_)) = sender.poll_ready(cx)
        {
            self.sender = None;
            return Poll::Ready(UpstreamEvent::GoesAway);
        }
        Poll::Pending
    }

    /// Whether the upstream takes extended CONNECT (RFC 8441 §3).
    pub(crate) fn takes_extended_connect(&self) -> bool {
        self.sender
            .as_ref()
            .is_some_and(client::SendRequest::is_extended_connect_protocol_enabled)
    }

    /// Says goodbye, once no stream is left.
    pub(crate) async fn close(mut self) {
        self.sender = None;
        let _ = self.connection.await;
    }
}
