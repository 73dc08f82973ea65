//! The story of one HTTP/2 connection (RFC 9113), from the agent's preface to the last goodbye.
//!
//! Both sides are the `h2` crate's: it owns frames, header compression and the states of streams. Ours is what passes from one side to the other: one upstream connection for
//! one agent connection, and each stream one exchange that is judged, masked and recorded like a request of HTTP/1. HTTP/2 is never translated to HTTP/1 or back: both sides
//! agreed on it in ALPN, or the agent began it with prior knowledge.
//!
//! Invariant: one task polls both connections and all streams; what one stream does (a denial, a slow reader, a reset) leaves the others alone. Priorities are ignored, which
//! RFC 9113 §5.3 asks for, and nothing is pushed.

mod answer;
mod download;
mod ended;
mod exchange;
mod flow;
mod head;
mod limits;
mod meter;
mod tunnel;
pub(crate) mod upgrade;
mod upstream;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use h2::{Reason, RecvStream, server};
use http::Request;
use tokio::{sync::mpsc, time::Sleep};

pub(crate) use self::exchange::upgraded::Upgraded;
pub use self::meter::{Measured, measure};
pub use self::tunnel::Streams;
use self::{
    ended::word,
    exchange::{Context, upgraded::First},
    limits::MAX_STREAMS,
    meter::{Flood, Meter, Metered},
    upgrade::{Begun, Unsent},
    upstream::{Driven, Upstream, UpstreamEvent},
};
use crate::{
    http::record,
    link::Link,
    prefixed::Prefixed,
    wire::{Io, Wire},
};

/// Longest time between the beginning of a connection and the end of the client's preface.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time for saying goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

type AgentConnection<A> = server::Connection<Metered<Prefixed<A>>, Bytes>;
type Accepted = (Request<RecvStream>, server::SendResponse<Bytes>);

/// What happens on a connection.
enum Happening {
    /// The agent sent a request.
    Request(Box<Accepted>),
    /// The agent's connection is over.
    AgentOver(Option<h2::Error>),
    /// The upstream was dialled.
    Dialled(Box<Driven>),
    /// Of the upstream's connection.
    Upstream(UpstreamEvent),
    /// A stream's story came to its end.
    Told,
    /// The sidecar stops.
    Stopping,
    /// It has waited long enough.
    CutOff,
    /// The agent sends too much, or too slowly.
    Flood(Flood),
}

/// Serves requests until either side ends the connection. `secure`: both sides are TLS, and `upstream` is there already.
pub async fn serve<A: Io>(
    link: &Link,
    agent: Wire<A>,
    upstream: Option<Wire<Box<dyn Io>>>,
    secure: bool,
) {
    let protocol = protocol(secure);
    link.count_connection(protocol);
    let (agent, meter) = match greet(agent).await {
        Ok(greeted) => greeted,
        Err(None) => return link.record_unused(protocol).await,
        Err(Some(error)) => return over(link, protocol, &error).await,
    };
    let (to_upstream, handed_over) = Upstream::new(link);
    if let Some(upstream) = upstream
        && let Err(error) = to_upstream.begin(upstream).await
    {
        return link
            .record_failure(protocol, "upstream-reset", error.to_string())
            .await;
    }
    let context = Context {
        link,
        upstream: to_upstream,
        secure,
    };
    converse(context, agent, meter, handed_over, None).await;
}

/// Goes on in HTTP/2 where a request of HTTP/1.1 was upgraded, in clear text: its response comes on stream 1.
pub(crate) async fn serve_upgraded<A: Io>(
    link: &Link,
    mut agent: Wire<A>,
    upstream: Wire<Box<dyn Io>>,
    upgraded: Upgraded,
) {
    let (to_upstream, handed_over) = Upstream::new(link);
    // What came behind the upstream's 101 is read again, but not before the head of stream 1 is out of the way.
    let stream = Unsent::new(Prefixed::new(upstream.unread, upstream.stream));
    let upstream = Wire::new(Box::new(stream) as Box<dyn Io>, bytes::BytesMut::new());
    let first = match First::begin(&to_upstream, upstream, upgraded).await {
        Ok(first) => Box::new(first),
        Err((upgraded, error)) => {
            agent.stream.break_off();
            return upgraded.broken(link, &error).await;
        }
    };
    let settings = first.upgraded.settings.clone();
    let error = match greet_upgraded(&mut agent, settings).await {
        Ok((agent, meter)) => {
            let context = Context {
                link,
                upstream: to_upstream,
                secure: false,
            };
            return converse(context, agent, meter, handed_over, Some(first)).await;
        }
        Err(error) => error,
    };
    agent.stream.break_off();
    record::malformed(link, protocol(false), "http2", &error).await;
    first.upgraded.broken(link, &error).await;
}

/// Sends our SETTINGS and reads the agent's preface after an upgrade, with stream 1 behind it.
async fn greet_upgraded<A: Io>(
    agent: &mut Wire<A>,
    settings: Vec<u8>,
) -> Result<(AgentConnection<Begun<&mut A>>, Meter), String> {
    let begun = Begun::new(&mut agent.stream, agent.unread.split(), settings);
    let (metered, meter) = Metered::new(Prefixed::new(bytes::BytesMut::new(), begun));
    match tokio::time::timeout(PREFACE_TIMEOUT, limits::server(metered)).await {
        Ok(Ok(agent)) => Ok((agent, meter)),
        Ok(Err(error)) => Err(match error.get_io() {
            Some(error) => error.to_string(),
            None => error.to_string(),
        }),
        Err(_) => Err(format!(
            "no preface within {PREFACE_TIMEOUT:?} of the upgrade"
        )),
    }
}

/// Runs both connections to their end. `first`: what stream 1 is, where a request of HTTP/1.1 was upgraded.
async fn converse<A: Io>(
    context: Context<'_>,
    agent: AgentConnection<A>,
    meter: Meter,
    handed_over: mpsc::Receiver<Driven>,
    first: Option<Box<First>>,
) {
    let secure = context.secure;
    let mut connection = Connection {
        link: context.link,
        agent: Some(agent),
        meter,
        head_timer: None,
        handed_over,
        upstream: None,
        first,
        extended_connect: false,
        stopping: false,
    };
    let served = connection.run(&context).await;
    let link = context.upstream.place();
    drop(context);
    if let Some(first) = connection.first.take() {
        let error = "the agent's HTTP/2 ended before stream 1";
        first.upgraded.broken(&link, error).await;
    }
    if let Some(upstream) = connection.upstream.take() {
        let _ = tokio::time::timeout(GOODBYE, upstream.close()).await;
    }
    let protocol = protocol(secure);
    match served {
        Served::Failed(error) => over(&link, protocol, &error).await,
        Served::Flooded(flood) => flooded(&link, protocol, flood.reason(), flood.message()).await,
        Served::Nothing if secure => link.record_unused(protocol).await,
        Served::Nothing | Served::Requests => {}
    }
}

/// Answers a connection that is refused whole: one request is read, so that the client hears the answer to it.
pub async fn refuse_connection<A: Io>(agent: Wire<A>, status: u16, reason: &str, message: &str) {
    let Ok((mut agent, _)) = greet(agent).await else {
        return;
    };
    let refusing = async {
        while let Some(Ok((_, mut respond))) = agent.accept().await {
            let _ = answer::failed(&mut respond, status, reason, message, false);
            agent.graceful_shutdown();
        }
    };
    let _ = tokio::time::timeout(PREFACE_TIMEOUT, refusing).await;
}

/// The protocol of a connection, as records and metrics name it.
fn protocol(secure: bool) -> &'static str {
    if secure { "https" } else { "http" }
}

/// Reads the agent's preface. `None` in the error: it said nothing.
async fn greet<A: Io>(agent: Wire<A>) -> Result<(AgentConnection<A>, Meter), Option<h2::Error>> {
    let (metered, meter) = Metered::new(Prefixed::new(agent.unread, agent.stream));
    match tokio::time::timeout(PREFACE_TIMEOUT, limits::server(metered)).await {
        Ok(Ok(agent)) => Ok((agent, meter)),
        Ok(Err(error)) if error.is_io() => Err(None),
        Ok(Err(error)) => Err(Some(error)),
        Err(_) => Err(None),
    }
}

/// Records how a connection ended, where that was not in good order.
async fn over(link: &Link, protocol: &'static str, error: &h2::Error) {
    let Some(reason) = error.reason().filter(|_| !error.is_remote()) else {
        // The agent broke off, or says that it does: its streams have told what that meant for them.
        return;
    };
    let message = format!("the HTTP/2 connection is refused ({})", word(reason));
    if reason == Reason::ENHANCE_YOUR_CALM {
        return flooded(link, protocol, "flood", &message).await;
    }
    record::malformed(link, protocol, "http2", &message).await;
}

/// Records a connection that was ended because of what its agent sent.
async fn flooded(link: &Link, protocol: &'static str, reason: &'static str, message: &str) {
    let denials = &link.shared.metrics.denials;
    denials.with_label_values(&[reason]).inc();
    link.record_failure(protocol, reason, message.to_owned())
        .await;
}

/// What a connection came to.
enum Served {
    /// No request.
    Nothing,
    /// Requests, each recorded.
    Requests,
    /// The agent's side failed.
    Failed(h2::Error),
    /// It was ended because of what the agent sent.
    Flooded(Flood),
}

/// Both connections.
struct Connection<'a, A> {
    link: &'a Link,
    /// `None` once it is over.
    agent: Option<AgentConnection<A>>,
    meter: Meter,
    /// Runs while a header block is under way, to the time that it has to end by.
    head_timer: Option<(Instant, Pin<Box<Sleep>>)>,
    handed_over: mpsc::Receiver<Driven>,
    upstream: Option<Driven>,
    /// What stream 1 is, until it is there, where a request of HTTP/1.1 was upgraded.
    first: Option<Box<First>>,
    /// Whether the agent was told that extended CONNECT is taken.
    extended_connect: bool,
    stopping: bool,
}

impl<A: Io> Connection<'_, A> {
    /// Runs both connections and all streams, until the agent's connection and the last stream are over.
    async fn run(&mut self, context: &Context<'_>) -> Served {
        let mut streams = FuturesUnordered::new();
        let mut served = Served::Nothing;
        let link = self.link;
        let mut stopping = link.shared.stopping.clone();
        let mut cut_off = std::pin::pin!(link.cut_off());
        while self.agent.is_some() || !streams.is_empty() {
            let room = streams.len() < MAX_STREAMS as usize;
            let stops = self.stopping;
            let happening = tokio::select! {
                biased;
                happening = poll_fn(|cx| self.poll(room, cx)) => happening,
                Some(()) = streams.next(), if !streams.is_empty() => Happening::Told,
                Ok(_) = stopping.wait_for(|stop| *stop), if !stops => Happening::Stopping,
                () = &mut cut_off => Happening::CutOff,
            };
            match happening {
                Happening::Request(accepted) => {
                    let (request, respond) = *accepted;
                    served = Served::Requests;
                    streams.push(exchange::run(context, self.first.take(), request, respond));
                }
                Happening::AgentOver(error) => {
                    self.agent = None;
                    if let Some(error) = error {
                        served = Served::Failed(error);
                    }
                }
                Happening::Dialled(driven) => self.upstream = Some(*driven),
                Happening::Upstream(event) => self.upstream_event(&event),
                Happening::Told => {}
                Happening::Stopping => {
                    self.stopping = true;
                    self.no_more_requests();
                }
                Happening::CutOff => break,
                Happening::Flood(flood) => {
                    served = Served::Flooded(flood);
                    self.calm().await;
                    break;
                }
            }
        }
        self.drain(&mut streams).await;
        served
    }

    /// Moves bytes on both sides.
    fn poll(&mut self, room: bool, cx: &mut TaskContext<'_>) -> Poll<Happening> {
        if let Poll::Ready(happening) = self.poll_agent(room, cx) {
            return Poll::Ready(happening);
        }
        if self.poll_head_timer(cx).is_ready() {
            return Poll::Ready(Happening::Flood(Flood::SlowHead));
        }
        if let Poll::Ready(Some(driven)) = self.handed_over.poll_recv(cx) {
            return Poll::Ready(Happening::Dialled(Box::new(driven)));
        }
        self.poll_upstream(cx)
    }

    fn poll_agent(&mut self, room: bool, cx: &mut TaskContext<'_>) -> Poll<Happening> {
        let Some(agent) = &mut self.agent else {
            return Poll::Pending;
        };
        if let Some(flood) = self.meter.flood() {
            return Poll::Ready(Happening::Flood(flood));
        }
        if !room {
            // Moves bytes for the streams that there are.
            return agent
                .poll_closed(cx)
                .map(|result| Happening::AgentOver(result.err()));
        }
        agent.poll_accept(cx).map(|accepted| match accepted {
            Some(Ok(accepted)) => Happening::Request(Box::new(accepted)),
            Some(Err(error)) => Happening::AgentOver(Some(error)),
            None => Happening::AgentOver(None),
        })
    }

    fn poll_head_timer(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let Some(ends) = self.meter.head_ends() else {
            self.head_timer = None;
            return Poll::Pending;
        };
        let timer = self.head_timer.take().filter(|(known, _)| *known == ends);
        let timer =
            timer.unwrap_or_else(|| (ends, Box::pin(tokio::time::sleep_until(ends.into()))));
        self.head_timer.insert(timer).1.as_mut().poll(cx)
    }

    fn poll_upstream(&mut self, cx: &mut TaskContext<'_>) -> Poll<Happening> {
        let Some(upstream) = &mut self.upstream else {
            return Poll::Pending;
        };
        let event = upstream.poll(cx);
        if !self.extended_connect
            && upstream.takes_extended_connect()
            && let Some(agent) = &mut self.agent
        {
            // Refused while the agent has not acknowledged the settings before: the next turn asks again.
            self.extended_connect = agent.enable_connect_protocol().is_ok();
            if self.extended_connect {
                // The agent's side was polled before: these settings leave with its next turn.
                cx.waker().wake_by_ref();
            }
        }
        event.map(Happening::Upstream)
    }

    fn upstream_event(&mut self, event: &UpstreamEvent) {
        if matches!(event, UpstreamEvent::Over) {
            self.upstream = None;
            // Nothing is dialled in its place: the agent's next connection is.
            self.handed_over.close();
        }
        self.no_more_requests();
    }

    /// Tells the agent to send further requests elsewhere (RFC 9113 §6.8). Those that cross this on the way are answered with REFUSED_STREAM, which clients repeat.
    fn no_more_requests(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.graceful_shutdown();
        }
    }

    /// Ends the agent's connection with ENHANCE_YOUR_CALM.
    async fn calm(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            let _ = tokio::time::timeout(GOODBYE, poll_fn(|cx| agent.poll_closed(cx))).await;
        }
    }

    /// The sidecar stops, or the connection: streams end by themselves at this moment, and what they say is given a last chance to be heard.
    async fn drain<F: Future<Output = ()>>(&mut self, streams: &mut FuturesUnordered<F>) {
        let rest = async {
            while self.agent.is_some() || !streams.is_empty() {
                tokio::select! {
                    Some(()) = streams.next(), if !streams.is_empty() => {}
                    happening = poll_fn(|cx| self.poll(false, cx)) => match happening {
                        Happening::AgentOver(_) => self.agent = None,
                        Happening::Upstream(UpstreamEvent::Over) => self.upstream = None,
                        _ => {}
                    },
                }
            }
        };
        let _ = tokio::time::timeout(GOODBYE, rest).await;
    }
}
