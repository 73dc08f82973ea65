//! Traffic that passes unread, or is refused because it could not be read. Never silent: each is a record.

use chaperone_crds::{
    record::{DecisionInfo, EventKind, GapInfo, Outcome},
    resources::Protocol,
};
use tokio::net::TcpStream;

use crate::{
    connection::Link,
    splice::{Spliced, splice},
    wire::{Io, Wire},
};

/// Why traffic passes unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Policy says so for this server name.
    Passthrough,
    /// The API server of the cluster.
    ApiServer,
    /// The client rejected our certificate before.
    Pinned,
    /// The upstream's certificate does not chain to a root that the sidecar knows.
    Unverifiable,
    /// The upstream's handshake failed in another way, so the client may see for itself.
    Handshake,
    /// The client offers no ALPN protocol that the sidecar reads.
    Alpn,
    /// Neither TLS nor HTTP.
    Opaque,
    /// What followed an HTTP upgrade or CONNECT.
    Tunnel,
}

impl Reason {
    /// The word in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::ApiServer => "api-server",
            Self::Pinned => "pinned-client",
            Self::Unverifiable => "unverifiable-upstream",
            Self::Handshake => "upstream-handshake",
            Self::Alpn => "unread-alpn",
            Self::Opaque => "opaque",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A connection of a protocol that the sidecar does not read. `upstream` is there when it was dialled already.
pub async fn opaque<A: Io, U: Io>(link: &Link, agent: Wire<A>, upstream: Option<Wire<U>>) {
    let decision = link.unread_decision(Protocol::Tcp);
    if decision.action == Outcome::Deny {
        return refuse(link, "tcp", Reason::Opaque, None, decision).await;
    }
    match upstream {
        Some(upstream) => pass(link, agent, upstream, "tcp", Reason::Opaque, None, decision).await,
        None => dial_and_pass(link, agent, "tcp", Reason::Opaque, None, decision).await,
    }
}

/// Dials the destination and passes everything.
pub async fn dial_and_pass<A: Io>(
    link: &Link,
    agent: Wire<A>,
    protocol: &'static str,
    reason: Reason,
    detail: Option<String>,
    decision: DecisionInfo,
) {
    match link.shared.egress.dial(link.destination).await {
        Ok(stream) => {
            let upstream: Wire<TcpStream> = Wire::new(stream, bytes::BytesMut::new());
            pass(link, agent, upstream, protocol, reason, detail, decision).await;
        }
        Err(error) => {
            link.record_failure(protocol, "upstream-unreachable", error.to_string())
                .await
        }
    }
}

/// Passes everything, both ways; records that it does, and at the end how much.
pub async fn pass<A: Io, U: Io>(
    link: &Link,
    mut agent: Wire<A>,
    mut upstream: Wire<U>,
    protocol: &'static str,
    reason: Reason,
    detail: Option<String>,
    decision: DecisionInfo,
) {
    link.shared
        .metrics
        .gaps
        .with_label_values(&[reason.as_str()])
        .inc();
    link.shared
        .metrics
        .connections
        .with_label_values(&["gap"])
        .inc();
    let mut event = link.event(EventKind::Gap, protocol);
    event.decision = Some(decision);
    event.gap = Some(GapInfo {
        reason: reason.as_str().to_owned(),
        detail,
        sent_bytes: None,
        received_bytes: None,
    });
    // Recorded before a byte passes, and again at the end with what passed: a tunnel that never ends must not be a silent one.
    link.shared.recorder.record(event.clone()).await;
    let spliced = pass_bytes(&mut agent, &mut upstream).await;
    if let Some(gap) = &mut event.gap {
        gap.sent_bytes = Some(spliced.sent);
        gap.received_bytes = Some(spliced.received);
    }
    event.timing = link.timing();
    link.shared.recorder.record(event).await;
}

/// Passes what was read before, then everything.
pub async fn pass_bytes<A: Io, U: Io>(agent: &mut Wire<A>, upstream: &mut Wire<U>) -> Spliced {
    let before = Spliced {
        sent: agent.unread.len() as u64,
        received: upstream.unread.len() as u64,
    };
    let (to_upstream, to_agent) = (agent.unread.split(), upstream.unread.split());
    if upstream.send(&to_upstream).await.is_err() || agent.send(&to_agent).await.is_err() {
        return Spliced::default();
    }
    let (spliced, result) = splice(&mut agent.stream, &mut upstream.stream).await;
    if let Err(error) = result {
        tracing::debug!(%error, "a passed connection broke");
    }
    Spliced {
        sent: before.sent.saturating_add(spliced.sent),
        received: before.received.saturating_add(spliced.received),
    }
}

/// Records that unread traffic was refused. Dropping the connection resets it.
pub async fn refuse(
    link: &Link,
    protocol: &'static str,
    reason: Reason,
    detail: Option<String>,
    decision: DecisionInfo,
) {
    let mut event = link.event(EventKind::Gap, protocol);
    link.shared
        .metrics
        .denials
        .with_label_values(&[reason.as_str()])
        .inc();
    link.shared
        .metrics
        .connections
        .with_label_values(&["refused"])
        .inc();
    event.decision = Some(decision);
    event.gap = Some(GapInfo {
        reason: reason.as_str().to_owned(),
        detail,
        sent_bytes: None,
        received_bytes: None,
    });
    link.shared.recorder.record(event).await;
}
