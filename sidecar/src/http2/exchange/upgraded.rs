//! Stream 1 of a connection that was upgraded from HTTP/1.1: its request was judged and sent before, its response comes here.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use chaperone_crds::resources::{Level, Mode};
use h2::{SendStream, client::ResponseFuture, server::SendResponse};
use http::{Request, Version};

use super::{Context, note, tell};
use crate::{
    http::record::Evidence,
    http2::{
        download::{Download, Plan},
        ended::Ended,
        upstream::Upstream,
    },
    link::Link,
    shared::Active,
    wire::{Io, Wire},
};

/// A request of HTTP/1.1 that the upstream has answered with 101, and so will answer in HTTP/2. It had no body.
pub(crate) struct Upgraded {
    /// What it was judged by.
    pub(crate) active: Arc<Active>,
    pub(crate) evidence: Evidence,
    /// When it was sent.
    pub(crate) since: Instant,
    /// Payload of a SETTINGS frame: what its `HTTP2-Settings` held.
    pub(crate) settings: Vec<u8>,
}

impl Upgraded {
    /// Records that there is no response, and nobody to be told.
    pub(crate) async fn broken(mut self, link: &Link, why: &str) {
        self.evidence.failed(why);
        self.evidence.end(link).await;
    }
}

/// Stream 1 on its way.
pub(crate) struct First {
    pub(crate) upgraded: Upgraded,
    response: ResponseFuture,
    /// The request's side, which is over. Kept to reset the stream.
    to_upstream: SendStream<Bytes>,
}

impl First {
    /// Begins HTTP/2 on an upstream connection that has the request of stream 1: `wire` takes its head out.
    ///
    /// # Errors
    /// The request back, and in words why the upstream's connection is over.
    pub(crate) async fn begin(
        upstream: &Upstream<'_>,
        wire: Wire<Box<dyn Io>>,
        upgraded: Upgraded,
    ) -> Result<Self, (Upgraded, String)> {
        let begin = async {
            let mut sender = upstream.begin(wire).await.map_err(|e| e.to_string())?;
            let sent = sender.send_request(unsent(), true);
            sent.map_err(|error| error.to_string())
        };
        match begin.await {
            Ok((response, to_upstream)) => Ok(Self {
                upgraded,
                response,
                to_upstream,
            }),
            Err(error) => Err((upgraded, format!("the upstream broke off: {error}"))),
        }
    }
}

/// A head that never leaves. Of version 1.1, for which the codec makes the scheme up, so that no name is needed: names would change the state of HPACK.
fn unsent() -> Request<()> {
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_11;
    request
}

/// Passes the response on.
pub(crate) async fn run(context: &Context<'_>, first: First, mut respond: SendResponse<Bytes>) {
    let First {
        upgraded,
        response,
        mut to_upstream,
    } = first;
    let Upgraded {
        active,
        mut evidence,
        since,
        ..
    } = upgraded;
    let plan = Plan {
        masks: evidence.response_masks(),
        strict: active.mode() == Mode::Enforce,
        continued: false,
        // The offer of a call whose messages are read is withheld.
        call: None,
    };
    let sample = evidence.sample(&active, Level::RequestResponse);
    let mut download = Download::new(response, plan, sample);
    let mut to_agent = None;
    let result = tokio::select! {
        result = download.pass(&mut respond, &mut to_agent) => result,
        () = context.link.cut_off() => Err(Ended::Stopping),
    };
    if let Err(ended) = &result {
        to_upstream.send_reset(ended.upstream_reset());
    }
    let progress = download.finish();
    let answered = progress.head.is_some();
    note(&mut evidence, progress, since);
    match result {
        Ok(()) => evidence.complete(),
        Err(ended) if answered => {
            evidence.failed(&ended.to_string());
            respond.send_reset(ended.agent_reset());
        }
        Err(ended) => tell(context, &active, &mut evidence, &mut respond, false, &ended),
    }
    evidence.end(context.link).await;
}
