//! The one upstream connection of an agent's connection: dialled when a request first needs it, driven by the agent's task.

use std::{
    borrow::Cow,
    io,
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::client;
use tokio::sync::{OnceCell, mpsc};

use super::limits;
use crate::{
    link::{Attempt, Link},
    prefixed::Prefixed,
    wire::{Io, Wire},
};

type Connection = client::Connection<Prefixed<Box<dyn Io>>, Bytes>;

/// Where streams get their way to the upstream from.
pub(crate) struct Upstream<'a> {
    link: &'a Link,
    /// The address that was dialled, and the way there.
    sender: OnceCell<(IpAddr, client::SendRequest<Bytes>)>,
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

    /// The link, going where it was dialled once that is known.
    pub(crate) fn place(&self) -> Cow<'a, Link> {
        match self.sender.get() {
            Some((ip, _)) if *ip != self.link.destination.ip() => {
                Cow::Owned(self.link.towards(*ip))
            }
            _ => Cow::Borrowed(self.link),
        }
    }

    /// Begins HTTP/2 on a connection that is there already, which goes where the link goes.
    ///
    /// # Errors
    /// When the preface cannot be written.
    pub(crate) async fn begin(
        &self,
        wire: Wire<Box<dyn Io>>,
    ) -> io::Result<client::SendRequest<Bytes>> {
        let begin = || self.handshake(self.link.destination.ip(), wire);
        let begun = self.sender.get_or_try_init(begin).await;
        begun.map(|(_, sender)| sender.clone())
    }

    /// A way to send a request that was judged as going where `link` goes, by `name`. Dials for the first that asks.
    ///
    /// # Errors
    /// When it cannot be reached there.
    pub(crate) async fn sender(
        &self,
        link: &Link,
        name: Option<&str>,
    ) -> Result<client::SendRequest<Bytes>, NoWay> {
        let dial = || async {
            match link.attempt(name.as_slice()).await? {
                Attempt::Connected(wire) => Ok(self.handshake(link.destination.ip(), wire).await?),
                Attempt::Next(next) => Err(NoWay::Elsewhere(next)),
            }
        };
        let (ip, sender) = self.sender.get_or_try_init(dial).await?;
        match *ip == link.destination.ip() {
            true => Ok(sender.clone()),
            false => Err(NoWay::Elsewhere(Box::new(link.towards(*ip)))),
        }
    }

    async fn handshake(
        &self,
        ip: IpAddr,
        wire: Wire<Box<dyn Io>>,
    ) -> io::Result<(IpAddr, client::SendRequest<Bytes>)> {
        let io = Prefixed::new(wire.unread, wire.stream);
        let (sender, connection) = limits::client(io).await.map_err(io::Error::other)?;
        let driven = Driven {
            connection,
            sender: Some(sender.clone()),
        };
        // There is room for one, and one is all that is sent; a receiver that is gone has ended the streams too.
        let _ = self.hand_over.try_send(driven);
        Ok((ip, sender))
    }
}

/// Why there is no way to send a request.
pub(crate) enum NoWay {
    /// The upstream cannot be reached.
    Unreachable(io::Error),
    /// It is to be tried at another address, or was reached there.
    Elsewhere(Box<Link>),
}

impl From<io::Error> for NoWay {
    fn from(error: io::Error) -> Self {
        Self::Unreachable(error)
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
