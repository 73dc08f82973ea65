//! CONNECT and extended CONNECT in a stream: a tunnel, whose inside is read where it leads to a place; WebSocket, which is read; or bytes that pass unread.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use chaperone_crds::record::DecisionInfo;
use h2::{SendStream, client::SendRequest};
use http::Request;

use super::{Exchange, note};
use crate::{
    gap,
    http::{
        judge::Subject,
        websocket::{self, Opening},
    },
    http2::{
        download::{Answered, Download},
        ended::Ended,
        tunnel::{StreamIo, Streams},
    },
    link::Link,
    tunnel::{Tunnel, Way, inside},
    websocket::Deflate,
    wire::{Io, Wire},
};

/// What a CONNECT leads to where the upstream agrees.
pub(super) enum Towards {
    /// WebSocket.
    WebSocket(Box<Opening>),
    /// A place behind a proxy: host and port.
    Place(String, u16),
    /// The same, with a way to have another tunnel to it.
    Tunnel(Box<Tunnel>),
    /// Bytes that are not read, or no tunnel at all.
    Unread,
}

impl Towards {
    /// Adds how another tunnel is had, now that the request is as it is sent.
    pub(super) fn through(
        self,
        link: &Link,
        sender: &SendRequest<Bytes>,
        request: &Request<()>,
    ) -> Self {
        match self {
            Self::Place(host, port) => {
                let streams = Streams::new(sender.clone(), request.clone());
                let way = Way::Http2(Box::new(streams));
                Self::Tunnel(Box::new(Tunnel::new(host, port, link.clone(), way)))
            }
            other => other,
        }
    }

    /// What stands for a reset of TCP: CONNECT_ERROR for CONNECT (RFC 9113 §8.5), CANCEL for WebSocket (RFC 8441 §5).
    fn reset(&self) -> h2::Reason {
        match self {
            Self::WebSocket(_) => h2::Reason::CANCEL,
            _ => h2::Reason::CONNECT_ERROR,
        }
    }
}

impl Exchange<'_> {
    /// The port of the place whose tunnel is read. Inside a tunnel a second one is not.
    pub(super) fn connects(&self) -> Option<u16> {
        let link = &self.link;
        let proxied = self.head.view(self.context.secure).proxied;
        proxied
            .filter(|_| link.tunnel.is_none())
            .map(|proxied| proxied.port)
    }

    /// What the request leads to, as the agent wrote it. Called before the head is edited.
    pub(super) fn towards(&self, subject: Subject) -> Towards {
        if self.offer.is_some() {
            let request = self.head.view(self.context.secure);
            let opening = Opening::of(&request, subject, self.evidence.said(), None);
            return Towards::WebSocket(Box::new(opening));
        }
        match self.connects() {
            Some(port) => Towards::Place(subject.host, port),
            None => Towards::Unread,
        }
    }

    /// A tunnel or WebSocket, if the upstream opens one.
    pub(super) async fn connect(
        mut self: Box<Self>,
        mut download: Download,
        mut to_upstream: SendStream<Bytes>,
        since: Instant,
        towards: Towards,
    ) {
        let link = self.link.clone();
        let link: &Link = &link;
        let opened = tokio::select! {
            opened = download.open(&mut self.respond, self.offer.as_ref()) => opened,
            () = link.cut_off() => Err(Ended::Stopping),
        };
        let result = match opened {
            Ok(Answered::Tunnel(from_upstream, to_agent, deflate)) => {
                let agent = StreamIo::new(self.body, to_agent, towards.reset());
                let upstream = StreamIo::new(from_upstream, to_upstream, towards.reset());
                let progress = download.finish();
                note(&mut self.evidence, progress, since);
                self.evidence.complete();
                self.evidence.end(link).await;
                let agent = Wire::new(agent, BytesMut::new());
                let upstream = Wire::new(upstream, BytesMut::new());
                // On the heap: few streams are one of these.
                return Box::pin(follow(link, agent, upstream, towards, deflate, self.tunnel))
                    .await;
            }
            Ok(Answered::Passed) => Ok(()),
            Err(ended) => Err(ended),
        };
        to_upstream.send_reset(match &result {
            Ok(()) => h2::Reason::CANCEL,
            Err(ended) => ended.upstream_reset(),
        });
        let progress = download.finish();
        self.conclude(result, progress, since, None).await;
    }
}

/// What follows, to its end. `decision`: what policy says of bytes that are not read.
async fn follow(
    link: &Link,
    mut agent: Wire<StreamIo>,
    mut upstream: Wire<StreamIo>,
    towards: Towards,
    deflate: Option<Deflate>,
    decision: Option<DecisionInfo>,
) {
    match (towards, decision) {
        (Towards::WebSocket(opening), _) => {
            let opening = Opening {
                deflate,
                ..*opening
            };
            websocket::serve(link, &mut agent, &mut upstream, opening).await;
        }
        (Towards::Tunnel(tunnel), _) => {
            let upstream = Wire::new(Box::new(upstream.stream) as Box<dyn Io>, upstream.unread);
            inside::serve(&mut agent, upstream, *tunnel).await;
        }
        (Towards::Place(..) | Towards::Unread, Some(decision)) => {
            gap::tunnel(link, &mut agent, &mut upstream, decision).await;
        }
        (Towards::Place(..) | Towards::Unread, None) => {}
    }
}
