//! CONNECT and extended CONNECT in a stream: a tunnel that passes unread, or WebSocket, which is read.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use chaperone_crds::record::DecisionInfo;
use h2::SendStream;

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
        tunnel::StreamIo,
    },
    link::Link,
    wire::Wire,
};

impl Exchange<'_> {
    /// A tunnel or WebSocket, if the upstream opens one.
    pub(super) async fn connect(
        mut self: Box<Self>,
        mut download: Download,
        mut to_upstream: SendStream<Bytes>,
        since: Instant,
        opening: Option<Box<Opening>>,
    ) {
        let opened = tokio::select! {
            opened = download.open(&mut self.respond, self.offer.as_ref()) => opened,
            () = self.context.link.cut_off() => Err(Ended::Stopping),
        };
        let result = match opened {
            Ok(Answered::Tunnel(from_upstream, to_agent, deflate)) => {
                let reset = match &opening {
                    Some(_) => h2::Reason::CANCEL,
                    None => h2::Reason::CONNECT_ERROR,
                };
                let agent = StreamIo::new(self.body, to_agent, reset);
                let upstream = StreamIo::new(from_upstream, to_upstream, reset);
                let progress = download.finish();
                note(&mut self.evidence, progress, since);
                self.evidence.complete();
                self.evidence.end(self.context.link).await;
                let link = self.context.link;
                let agent = Wire::new(agent, BytesMut::new());
                let upstream = Wire::new(upstream, BytesMut::new());
                // On the heap: few streams are one of these.
                return match opening {
                    Some(opening) => {
                        let opening = Opening {
                            deflate,
                            ..*opening
                        };
                        Box::pin(talk(link, agent, upstream, opening)).await;
                    }
                    None => Box::pin(pass(link, agent, upstream, self.tunnel)).await,
                };
            }
            Ok(Answered::Passed) => Ok(()),
            Err(ended) => Err(ended),
        };
        to_upstream.send_reset(match &result {
            Ok(()) => h2::Reason::CANCEL,
            Err(ended) => ended.upstream_reset(),
        });
        let progress = download.finish();
        self.conclude(result, progress, since).await;
    }

    /// What a WebSocket handshake leads to if the upstream accepts it.
    pub(super) fn opening(&self, subject: Subject) -> Option<Box<Opening>> {
        self.offer.as_ref()?;
        let request = self.head.view(self.context.secure);
        let opening = Opening::of(&request, subject, self.evidence.said(), None);
        Some(Box::new(opening))
    }
}

async fn talk(
    link: &Link,
    mut agent: Wire<StreamIo>,
    mut upstream: Wire<StreamIo>,
    opening: Opening,
) {
    websocket::serve(link, &mut agent, &mut upstream, opening).await;
}

async fn pass(
    link: &Link,
    mut agent: Wire<StreamIo>,
    mut upstream: Wire<StreamIo>,
    decision: Option<DecisionInfo>,
) {
    let Some(decision) = decision else { return };
    gap::tunnel(link, &mut agent, &mut upstream, decision).await;
}
