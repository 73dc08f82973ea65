//! The story of one connection, from capture to record.
//!
//! Reads top to bottom: where the agent meant to go, what it speaks, and which of three ends it takes: read and judged (`http`, inside `tls` or not), passed unread as a
//! recorded gap (`gap`), or refused. Invariant: whatever left the pod, or was kept from leaving it, a record says so.

use std::{
    borrow::Cow,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use chaperone_crds::record::{EventKind, Outcome};
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{
    capture::OriginalDst,
    detect::Detected,
    first::{First, first_bytes, first_bytes_of_agent},
    gap, http, http2, isolate,
    link::{Attempt, builtin},
    shared::Shared,
    tls,
    wire::{Io, Wire},
};

pub use crate::link::Link;

/// Tells the story of one captured connection. One that says nothing and ends leaves no record: nothing of it left the pod.
pub async fn serve(shared: Arc<Shared>, stream: TcpStream, destination: OriginalDst) {
    let Some(link) = begin(shared, destination.addr()) else {
        // No policy yet: no traffic.
        return;
    };
    let socket = stream.as_fd().try_clone_to_owned().ok();
    guard(&link, socket, pin!(tell(&link, stream))).await;
}

/// What is known of a connection when it comes. `None` while there is no policy.
pub fn begin(shared: Arc<Shared>, destination: SocketAddr) -> Option<Link> {
    let active = shared.active.load_full()?;
    Some(Link {
        shared,
        active,
        destination,
        tried: Vec::new(),
        tunnel: None,
        sni: None,
        certificate: None,
        since: Instant::now(),
    })
}

/// Runs the story of a connection. If it panics, `socket` (a copy of the agent's, whose own went with the story) is reset, and a record and a metric say so; everyone else goes on.
pub async fn guard<F: Future<Output = ()>>(
    link: &Link,
    socket: Option<OwnedFd>,
    story: Pin<&mut F>,
) {
    let Err(panicked) = isolate::contain(story).await else {
        return;
    };
    if let Some(socket) = socket {
        // An orderly end would pass half an answer for a whole one.
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    }
    link.shared.metrics.panics.inc();
    link.count_connection("failed");
    let mut event = link.event(EventKind::Connection, "tcp");
    event.decision = Some(builtin(&link.now(), Outcome::Deny, "internal-error", ""));
    event.error = Some(panicked.to_string());
    link.shared.recorder.record(event).await;
}

async fn tell(link: &Link, stream: TcpStream) {
    let mut agent = Wire::new(stream, bytes::BytesMut::new());
    match first_bytes(link, &mut agent, None::<&mut Wire<TcpStream>>).await {
        First::Speaks(spoken) => speaks(link, agent, spoken).await,
        First::ServerFirst => Box::pin(server_first(link, agent)).await,
        First::Silent => {}
    }
}

/// The agent has spoken first. What is larger than HTTP/1's waiting for a request lies on the heap, since every connection's task keeps room for the largest.
async fn speaks(link: &Link, mut agent: Wire<TcpStream>, spoken: Detected) {
    match spoken {
        Detected::Tls => tls::serve(link, agent).await,
        Detected::Http => http::serve(link, &mut agent, None, false).await,
        Detected::Http2 => Box::pin(http2::serve(link, agent, None, false)).await,
        Detected::More | Detected::Unknown => {
            Box::pin(gap::opaque(link, &mut agent, None::<&mut Wire<TcpStream>>)).await;
        }
    }
}

/// The agent is silent. Where policy lets unread bytes pass, the upstream is dialled to see who speaks first: an agent that only dallies before its request is read like
/// any other.
async fn server_first(link: &Link, mut agent: Wire<TcpStream>) {
    if !link.may_pass_unread() {
        return gap::opaque(link, &mut agent, None::<&mut Wire<TcpStream>>).await;
    }
    let (there, mut upstream) = match reach_unread(link).await {
        Ok(reached) => reached,
        Err(_) if link.may_be_elsewhere() => return Box::pin(not_here(link, agent)).await,
        Err(error) => return unreachable(link, agent, &error).await,
    };
    match first_bytes(&there, &mut agent, Some(&mut upstream)).await {
        First::Speaks(spoken @ (Detected::Tls | Detected::Http | Detected::Http2)) => {
            // Their stories dial for themselves.
            drop(upstream);
            speaks(link, agent, spoken).await;
        }
        First::Speaks(_) | First::ServerFirst => {
            gap::opaque(&there, &mut agent, Some(&mut upstream)).await;
        }
        First::Silent => there.record_unused("tcp").await,
    }
}

/// Dials one address after the other that all names of the destination have, as far as policy lets unread bytes go there. Returns the link to the last.
async fn reach_unread(link: &Link) -> io::Result<(Cow<'_, Link>, Wire<Box<dyn Io>>)> {
    let names = link.known_names();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let mut there = Cow::Borrowed(link);
    loop {
        match there.attempt(&names).await? {
            Attempt::Connected(upstream) => return Ok((there, upstream)),
            Attempt::Next(next) if next.may_pass_unread() => there = Cow::Owned(*next),
            Attempt::Next(_) => return Err(io::ErrorKind::HostUnreachable.into()),
        }
    }
}

/// The destination took no connection, and not all its names have another address. A request that names it may yet reach one; bytes that are not read stay here.
async fn not_here(link: &Link, mut agent: Wire<TcpStream>) {
    match first_bytes_of_agent(link, &mut agent).await {
        First::Speaks(spoken @ (Detected::Tls | Detected::Http | Detected::Http2)) => {
            speaks(link, agent, spoken).await;
        }
        First::Speaks(_) | First::ServerFirst => {
            let error = io::ErrorKind::HostUnreachable.into();
            unreachable(link, agent, &error).await;
        }
        First::Silent => {}
    }
}

async fn unreachable(link: &Link, mut agent: Wire<TcpStream>, error: &io::Error) {
    agent.stream.break_off();
    link.record_failure("tcp", "upstream-unreachable", error.to_string())
        .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<'a, F: Future>(_: impl Fn(&'a Link, TcpStream) -> F) -> usize {
        size_of::<F>()
    }

    fn size_of_all<F: Future>(_: impl Fn(Arc<Shared>, TcpStream, OriginalDst) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_wall_around_a_connection_keeps_room_for_its_state_once() {
        let (story, all) = (size(tell), size_of_all(serve));
        assert!(all < story + story / 2, "{all} bytes around {story}");
    }
}
