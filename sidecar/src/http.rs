//! The story of the HTTP requests on one connection: read a head, tell its exchange, and go on while both sides keep the connection.
//!
//! Invariant: one request at a time. Pipelined requests wait in the buffer, so that answers keep their order and each is judged by the policies in force when its turn comes.

mod answer;
mod download;
mod exchange;
mod judge;
mod record;
mod redact;
mod sample;
mod upload;

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::{
    connection::Link,
    gap::{self, Reason},
    http1::{HeadError, RequestHead, parse_request},
    wire::{Io, Wire},
};

use self::exchange::Next;

/// Longest time between the first and the last byte of a request's head. Clients send heads at once; a slow one holds a connection for nothing.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The upstream side of an HTTP connection, once it is dialled.
pub type Upstream = Option<Wire<Box<dyn Io>>>;

/// Serves requests until either side ends the connection. `upstream` is there already where TLS needed it first.
pub async fn serve<A: Io>(link: &Link, mut agent: Wire<A>, mut upstream: Upstream) {
    let result = if link.sni.is_some() || upstream.is_some() {
        "https"
    } else {
        "http"
    };
    link.shared
        .metrics
        .connections
        .with_label_values(&[result])
        .inc();
    let secure = upstream.is_some();
    loop {
        let head = match read_head(link, &mut agent, upstream.as_mut()).await {
            Ok(Some(head)) => head,
            Ok(None) => return close(&mut agent).await,
            Err(error) => return refuse_head(link, &mut agent, secure, error).await,
        };
        match exchange::run(link, &mut agent, &mut upstream, secure, head).await {
            Next::Request => {}
            Next::Close => return close(&mut agent).await,
            Next::Abort => return,
            Next::Tunnel(decision) => {
                if let Some(upstream) = upstream {
                    gap::pass(
                        link,
                        agent,
                        upstream,
                        "tcp",
                        Reason::Tunnel,
                        None,
                        *decision,
                    )
                    .await;
                }
                return;
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
    let waited = tokio::time::timeout(HEAD_TIMEOUT, async {
        while parse_request(&agent.unread).is_ok_and(|head| head.is_none()) {
            if agent.fill().await.unwrap_or(0) == 0 {
                return;
            }
        }
    });
    let _ = waited.await;
    let method = parse_request(&agent.unread)
        .ok()
        .flatten()
        .map(|(head, _)| head.method().to_owned());
    let answer = answer::failed(status, reason, message, method.as_deref().unwrap_or("GET"));
    let _ = agent.send(&answer).await;
    close(agent).await;
}

/// The next head. `None` when the connection ends between requests, or the upstream ended it.
async fn read_head<A: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    mut upstream: Option<&mut Wire<Box<dyn Io>>>,
) -> Result<Option<RequestHead>, HeadError> {
    let mut stopping = link.shared.stopping.clone();
    let mut deadline = None;
    let mut pace = ParsePace::default();
    loop {
        if pace.is_worth_it(&agent.unread)
            && let Some((head, used)) = parse_request(&agent.unread)?
        {
            let _ = agent.unread.split_to(used);
            return Ok(Some(head));
        }
        let idle = agent.unread.is_empty();
        if !idle {
            deadline.get_or_insert_with(|| tokio::time::Instant::now() + HEAD_TIMEOUT);
        }
        let read = tokio::select! {
            read = agent.fill() => read,
            // Between requests an upstream has nothing to say: bytes or an end both mean that the connection is over.
            () = upstream_ends(upstream.as_deref_mut()), if idle => return Ok(None),
            _ = stopping.wait_for(|stop| *stop), if idle => return Ok(None),
            () = expires(deadline) => return Ok(None),
        };
        if read.unwrap_or(0) == 0 {
            return Ok(None);
        }
    }
}

/// When a head that came in parts is parsed again: when an empty line may have come, or twice the bytes. An agent that sends byte by byte must not make the sidecar read
/// all of them at each byte.
#[derive(Default)]
struct ParsePace {
    seen: usize,
    next: usize,
}

impl ParsePace {
    fn is_worth_it(&mut self, unread: &[u8]) -> bool {
        let fresh = unread
            .get(self.seen.saturating_sub(2)..)
            .unwrap_or_default();
        let ended = fresh
            .windows(2)
            .any(|pair| pair == b"\n\r" || pair == b"\n\n");
        self.seen = unread.len();
        let worth = !unread.is_empty() && (ended || unread.len() >= self.next);
        if worth {
            self.next = unread.len().saturating_mul(2);
        }
        worth
    }
}

async fn upstream_ends(upstream: Option<&mut Wire<Box<dyn Io>>>) {
    match upstream {
        Some(upstream) => {
            let _ = upstream.fill().await;
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

async fn refuse_head<A: Io>(link: &Link, agent: &mut Wire<A>, secure: bool, error: HeadError) {
    record::malformed(link, secure, &error).await;
    let answer = answer::failed(error.status(), error.reason(), &error.to_string(), "GET");
    let _ = agent.send(&answer).await;
    close(agent).await;
}

/// Ends a connection in good order: what was sent arrives, and TLS says goodbye.
async fn close<A: Io>(agent: &mut Wire<A>) {
    let _ = tokio::time::timeout(Duration::from_secs(1), agent.stream.shutdown()).await;
}
