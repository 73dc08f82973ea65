//! The story of the HTTP requests on one connection: read a head, tell its exchange, and go on while both sides keep the connection.
//!
//! Invariant: one request at a time. Pipelined requests wait in the buffer, so that answers keep their order and each is judged by the policies in force when its turn comes.

pub(crate) mod answer;
mod body;
pub(crate) mod download;
mod exchange;
mod failure;
pub(crate) mod held;
pub(crate) mod judge;
mod pace;
pub(crate) mod record;
mod redact;
mod relay;
pub(crate) mod sample;
mod unfold;
mod upload;
pub(crate) mod view;
pub(crate) mod websocket;

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::{
    gap,
    http1::{HeadError, RequestHead, parse_request},
    http2, idle,
    link::{Link, Stop},
    tunnel::inside,
    wire::{Io, Wire},
};

use self::{
    exchange::{Asked, Next},
    pace::Pace,
};

/// Longest time between the first and the last byte of a request's head. Clients send heads at once; a slow one holds a connection for nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time in which the rest of what an agent sends is read away after the last answer.
const LINGER: Duration = Duration::from_secs(5);
/// Longest time for saying goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// The upstream side of an HTTP connection, once it is dialled.
pub type Upstream = Option<Wire<Box<dyn Io>>>;

/// Why there is no next head.
enum NoHead {
    /// The connection ended between requests, or the upstream ended it.
    Ended,
    /// The agent ended the connection in a head.
    Cut,
    /// The head took longer than [`HEAD_TIMEOUT`].
    Slow,
    /// It is refused.
    Malformed(HeadError),
}

/// Serves requests until either side ends the connection. `secure`: both sides are TLS, and `upstream` is there already.
pub async fn serve<A: Io>(link: &Link, agent: &mut Wire<A>, mut upstream: Upstream, secure: bool) {
    let protocol = if secure { "https" } else { "http" };
    link.count_connection(protocol);
    let mut reused = false;
    let mut stop = link.stop();
    let mut elsewhere: Option<Box<Link>> = None;
    let mut again = None;
    loop {
        let link = elsewhere.as_deref().unwrap_or(link);
        let asked = match again.take() {
            Some(asked) => Ok(asked),
            None => read_head(&mut stop, agent, upstream.as_mut())
                .await
                .map(Asked::from),
        };
        let asked = match asked {
            Ok(asked) => asked,
            Err(NoHead::Ended) => {
                if secure && !reused {
                    link.record_unused(protocol).await;
                }
                return close(agent).await;
            }
            Err(why) => return Box::pin(refuse_head(link, agent, protocol, why)).await,
        };
        let next = exchange::run(link, &mut stop, agent, &mut upstream, secure, reused, asked);
        // On the heap while it lasts, like what may follow: an exchange is larger than all that waits between two.
        match Box::pin(next).await {
            Next::Request => reused = true,
            Next::Elsewhere(to, asked) => {
                again = Some(*asked);
                elsewhere = Some(to);
            }
            Next::Close => return close(agent).await,
            Next::CloseEarly => return close_early(agent).await,
            Next::Abort => return agent.stream.break_off(),
            Next::Connect(tunnel) => {
                let Some(upstream) = upstream else { return };
                return inside::serve(agent, upstream, *tunnel).await;
            }
            Next::WebSocket(opening) => {
                let Some(mut upstream) = upstream else { return };
                return Box::pin(websocket::serve(link, agent, &mut upstream, *opening)).await;
            }
            Next::Http2(upgraded) => {
                let Some(upstream) = upstream else { return };
                let agent = Wire::new(&mut agent.stream, agent.unread.split());
                let served = http2::serve_upgraded(link, agent, upstream, *upgraded);
                return Box::pin(served).await;
            }
            Next::Tunnel(decision) => {
                let Some(mut upstream) = upstream else { return };
                return Box::pin(gap::tunnel(link, agent, &mut upstream, *decision)).await;
            }
        }
    }
}

/// Answers a connection that is refused whole: one request is read, so that the client hears the answer to it.
pub async fn refuse_connection<A: Io>(
    agent: &mut Wire<A>,
    status: u16,
    reason: &str,
    message: &str,
) {
    let deadline = tokio::time::Instant::now() + HEAD_TIMEOUT;
    let mut pace = Pace::default();
    let method = loop {
        if pace.is_worth_it(&agent.unread) {
            match parse_request(&agent.unread) {
                Ok(Some((head, _))) => break head.method().to_owned(),
                Ok(None) => {}
                Err(_) => break "GET".to_owned(),
            }
        }
        match tokio::time::timeout_at(deadline, agent.fill()).await {
            Ok(Ok(read)) if read > 0 => {}
            _ => return close(agent).await,
        }
    };
    let answer = answer::failed(status, reason, message, &method);
    let _ = agent.send(&answer).await;
    close_early(agent).await;
}

/// The next head.
async fn read_head<A: Io>(
    stop: &mut Stop,
    agent: &mut Wire<A>,
    mut upstream: Option<&mut Wire<Box<dyn Io>>>,
) -> Result<RequestHead, NoHead> {
    let mut deadline = None;
    let mut pace = Pace::default();
    loop {
        if pace.is_worth_it(&agent.unread)
            && let Some((head, used)) = parse_request(&agent.unread).map_err(NoHead::Malformed)?
        {
            let _ = agent.unread.split_to(used);
            return Ok(head);
        }
        let idle = agent.unread.is_empty();
        if !idle {
            deadline.get_or_insert_with(|| tokio::time::Instant::now() + HEAD_TIMEOUT);
        }
        let read = tokio::select! {
            biased;
            // A request that is there counts before an end that came after it.
            read = idle::fill(agent) => read,
            // Between requests an upstream has nothing to say: bytes or an end both mean that the connection is over.
            () = upstream_ends(upstream.as_deref_mut()), if idle => return Err(NoHead::Ended),
            () = stop.told(), if idle => return Err(NoHead::Ended),
            () = expires(deadline) => return Err(NoHead::Slow),
        };
        match read {
            Ok(0) | Err(_) if idle => return Err(NoHead::Ended),
            Ok(0) | Err(_) => return Err(NoHead::Cut),
            Ok(_) => {}
        }
    }
}

async fn upstream_ends(upstream: Option<&mut Wire<Box<dyn Io>>>) {
    match upstream {
        Some(upstream) => {
            let _ = idle::fill(upstream).await;
        }
        None => std::future::pending().await,
    }
}

async fn expires(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn refuse_head<A: Io>(link: &Link, agent: &mut Wire<A>, protocol: &str, why: NoHead) {
    let (status, reason, message) = match why {
        NoHead::Malformed(error) => {
            record::malformed(link, protocol, error.reason(), &error.to_string()).await;
            (error.status(), error.reason(), error.to_string())
        }
        NoHead::Slow => {
            let message = format!("the request head took longer than {HEAD_TIMEOUT:?}");
            link.record_failure(protocol, "head-timeout", message.clone())
                .await;
            (408, "head-timeout", message)
        }
        NoHead::Cut | NoHead::Ended => {
            let message = "the agent ended the connection in a request head".to_owned();
            return link.record_failure(protocol, "agent-gone", message).await;
        }
    };
    let answer = answer::failed(status, reason, &message, "GET");
    let _ = agent.send(&answer).await;
    close_early(agent).await;
}

/// Ends a connection in good order: what was sent arrives, and TLS says goodbye.
async fn close<A: Io>(agent: &mut Wire<A>) {
    let _ = tokio::time::timeout(GOODBYE, agent.stream.shutdown()).await;
}

/// Ends a connection whose agent may still be sending. What it sends is read away for a while: a socket that is closed with bytes unread is reset, and a reset can overtake
/// the answer.
async fn close_early<A: Io>(agent: &mut Wire<A>) {
    close(agent).await;
    let gone = async {
        while agent.fill().await.is_ok_and(|read| read > 0) {
            agent.unread.clear();
        }
    };
    let _ = tokio::time::timeout(LINGER, gone).await;
}
