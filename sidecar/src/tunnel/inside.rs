//! The story of what is inside a CONNECT: told by its first bytes, like any connection.
//!
//! Invariant: nothing inside passes unread without leave for bytes of an unknown protocol, both to the place that CONNECT named and to the proxy, which is where they go.

use std::{sync::Arc, time::Instant};

use chaperone_crds::{record::Outcome, resources::Protocol};
use futures::future::BoxFuture;

use super::Tunnel;
use crate::{
    detect::Detected,
    first::{First, first_bytes},
    gap::{self, Gap, Reason},
    http, http2,
    link::Link,
    tls,
    wire::{Io, Wire},
};

/// Tells it. On the heap and without its type: what is inside may be HTTP again. A CONNECT inside a CONNECT is not read, so it goes no deeper.
pub(crate) fn serve<'a, A: Io + 'a>(
    agent: &'a mut Wire<A>,
    upstream: Wire<Box<dyn Io>>,
    tunnel: Tunnel,
) -> BoxFuture<'a, ()> {
    let unread = agent.unread.split();
    let agent: Wire<Box<dyn Io + 'a>> = Wire::new(Box::new(&mut agent.stream), unread);
    Box::pin(tell(agent, upstream, tunnel))
}

async fn tell<'a>(
    mut agent: Wire<Box<dyn Io + 'a>>,
    mut upstream: Wire<Box<dyn Io>>,
    tunnel: Tunnel,
) {
    let tunnel = Arc::new(tunnel);
    let link = &Link {
        destination: tunnel.destination(),
        tried: Vec::new(),
        tunnel: Some(tunnel.clone()),
        sni: None,
        certificate: None,
        since: Instant::now(),
        ..tunnel.proxy.clone()
    };
    match first_bytes(link, &mut agent, Some(&mut upstream)).await {
        First::Speaks(Detected::Tls) => {
            tunnel.put(upstream);
            tls::serve(link, agent).await;
        }
        First::Speaks(Detected::Http) => http::serve(link, &mut agent, Some(upstream), false).await,
        First::Speaks(Detected::Http2) => http2::serve(link, agent, Some(upstream), false).await,
        First::Speaks(_) | First::ServerFirst => unread(link, &tunnel, agent, upstream).await,
        First::Silent => link.record_unused("tcp").await,
    }
}

async fn unread(
    link: &Link,
    tunnel: &Tunnel,
    mut agent: Wire<Box<dyn Io + '_>>,
    mut upstream: Wire<Box<dyn Io>>,
) {
    let gap = Gap {
        protocol: "tcp",
        reason: Reason::Tunnel,
        detail: Some(format!("CONNECT {}", tunnel.authority())),
        decision: link.unread_decision(&link.now(), Protocol::Tcp),
    };
    if gap.decision.action == Outcome::Deny {
        upstream.stream.break_off();
        return gap::refuse(link, &mut agent, gap).await;
    }
    gap::pass(link, &mut agent, &mut upstream, gap).await;
}
