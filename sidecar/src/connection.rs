//! The story of one connection, from capture to record.
//!
//! Reads top to bottom: where the agent meant to go, what it speaks, and which of three ends it takes: read and judged (`http`, inside `tls` or not), passed unread as a
//! recorded gap (`gap`), or refused. Invariant: whatever a connection did, a record says so.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chaperone_crds::{
    decide::{Decision, Destination, Operation},
    record::{DecisionInfo, DestinationInfo, Event, EventKind, OperationInfo, Outcome, Timing},
    resources::Protocol,
};
use tokio::net::TcpStream;

use crate::{
    capture::OriginalDst,
    detect::{DETECT_BYTES, Detected, detect},
    gap, http,
    shared::{Active, Shared},
    tls,
    wire::{Io, Wire},
};

/// How long a client may say nothing before the upstream is dialled to see whether the server speaks first.
pub const SERVER_FIRST_WAIT: Duration = Duration::from_millis(300);
/// How long a connection may stay without its first bytes.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(60);

/// One captured connection and the policies that hold for it now.
#[derive(Clone)]
pub struct Link {
    /// What all connections share.
    pub shared: Arc<Shared>,
    /// Policies when the connection came. Operations ask anew.
    pub active: Arc<Active>,
    /// Where the agent meant to go.
    pub destination: SocketAddr,
    /// Server name of the ClientHello, canonical.
    pub sni: Option<String>,
    /// When the connection came.
    pub since: Instant,
}

/// Tells the story of one captured connection.
pub async fn serve(shared: Arc<Shared>, stream: TcpStream, destination: OriginalDst) {
    let Some(active) = shared.active.load_full() else {
        // No policy yet: no traffic. Dropping resets the connection.
        return;
    };
    let link = Link {
        shared,
        active,
        destination: destination.addr(),
        sni: None,
        since: Instant::now(),
    };
    link.shared.metrics.open_connections.inc();
    let mut agent = Wire::new(stream, bytes::BytesMut::new());
    match first_bytes(&link, &mut agent, None::<&mut Wire<TcpStream>>).await {
        First::Speaks(Detected::Tls) => tls::serve(&link, agent).await,
        First::Speaks(Detected::Http) => http::serve(&link, agent, None).await,
        First::Speaks(_) | First::ServerFirst => {
            gap::opaque(&link, agent, None::<Wire<TcpStream>>).await
        }
        First::Silent => {}
    }
    link.shared.metrics.open_connections.dec();
}

/// Who spoke first, and what.
pub enum First {
    /// The agent, in this protocol.
    Speaks(Detected),
    /// The agent waits for the server: a protocol of which Chaperone reads none yet.
    ServerFirst,
    /// The connection ended, or stayed silent too long.
    Silent,
}

/// Reads until the agent's bytes tell a protocol. A client that says nothing waits for its server: with `upstream` connected, the first of both to speak
/// decides; without, the wait does.
pub async fn first_bytes<A: Io, U: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    mut upstream: Option<&mut Wire<U>>,
) -> First {
    let deadline = tokio::time::Instant::now() + FIRST_BYTES_TIMEOUT;
    loop {
        match detect(&agent.unread) {
            Detected::More if agent.unread.len() < DETECT_BYTES => {}
            known => return First::Speaks(known),
        }
        let silent = agent.unread.is_empty();
        let read = tokio::select! {
            read = agent.fill() => read,
            spoke = server_speaks(upstream.as_deref_mut()), if silent => match spoke {
                true => return First::ServerFirst,
                false => return First::Silent,
            },
            () = tokio::time::sleep(SERVER_FIRST_WAIT), if silent && link.may_wait_for_server() && upstream.is_none() => {
                return First::ServerFirst;
            }
            () = tokio::time::sleep_until(deadline) => return First::Silent,
        };
        match read {
            Ok(0) if agent.unread.is_empty() => return First::Silent,
            Ok(0) => return First::Speaks(Detected::Unknown),
            Ok(_) => {}
            Err(_) => return First::Silent,
        }
    }
}

async fn server_speaks<U: Io>(upstream: Option<&mut Wire<U>>) -> bool {
    match upstream {
        Some(upstream) => upstream.fill().await.is_ok_and(|read| read > 0),
        None => std::future::pending().await,
    }
}

impl Link {
    /// Whether policy would let a protocol through that it cannot read. If not, there is no use in waiting for the server: the agent's first bytes may yet be HTTP.
    fn may_wait_for_server(&self) -> bool {
        self.unread_decision(Protocol::Tcp).action == Outcome::Allow
    }

    /// The policies in force now.
    pub fn now(&self) -> Arc<Active> {
        self.shared
            .active
            .load_full()
            .unwrap_or_else(|| self.active.clone())
    }

    /// Name of the destination: SNI, or a name that the resolver gave the address for.
    pub fn host(&self) -> Option<String> {
        self.sni.clone().or_else(|| {
            self.shared
                .names
                .names_for(self.destination.ip())
                .into_iter()
                .next()
                .map(|name| name.to_string())
        })
    }

    /// The destination, as records show it.
    pub fn destination_info(&self) -> DestinationInfo {
        DestinationInfo {
            host: self.host(),
            ip: self.destination.ip().to_string(),
            port: self.destination.port(),
            sni: self.sni.clone(),
        }
    }

    /// What policy says of this connection as a whole, for traffic that passes unread. In Enforce, TCP of unknown protocols needs a rule that allows it; a default is not enough.
    pub fn unread_decision(&self, protocol: Protocol) -> DecisionInfo {
        let active = self.now();
        let host = self.host();
        let resource = self.destination.to_string();
        let operation = Operation {
            protocol,
            verb: "connect",
            resource: &resource,
            destination: Destination {
                host: host.as_deref(),
                ip: self.destination.ip(),
                port: self.destination.port(),
                sni: self.sni.as_deref(),
            },
            http: None,
        };
        let decision = active
            .snapshot
            .candidates(&operation)
            .decide(&active.config.identity, &operation);
        decision_info(&active, decision)
    }

    /// An event about this connection.
    pub fn event(&self, kind: EventKind, protocol: &str) -> Event {
        let mut event = self.active.event(kind);
        event.destination = Some(self.destination_info());
        event.operation = Some(OperationInfo {
            protocol: protocol.to_owned(),
            verb: "connect".to_owned(),
            resource: self.destination.to_string(),
        });
        event.timing = self.timing();
        event
    }

    /// How long the connection has lasted.
    pub fn timing(&self) -> Option<Timing> {
        Some(Timing {
            total_us: micros(self.since.elapsed()),
            upstream_us: None,
            decide_us: None,
        })
    }

    /// Records that the connection ended before any operation.
    pub async fn record_failure(&self, protocol: &str, reason: &'static str, error: String) {
        let active = self.now();
        let mut event = self.event(EventKind::Connection, protocol);
        event.decision = Some(DecisionInfo {
            message: None,
            ..builtin(&active, Outcome::Deny, reason, "")
        });
        event.error = Some(error);
        self.shared
            .metrics
            .connections
            .with_label_values(&["failed"])
            .inc();
        self.shared.recorder.record(event).await;
    }
}

/// A decision of policy, as records show it.
pub fn decision_info(active: &Active, decision: Decision) -> DecisionInfo {
    DecisionInfo {
        action: decision.outcome,
        would_deny: decision.would_deny,
        mode: active.mode(),
        policy: decision.policy.map(|policy| policy.to_string()),
        rule: decision.rule.map(|rule| rule.to_string()),
        revision: active.config.revision.clone(),
        reason: decision.reason.as_str().to_owned(),
        message: decision.message.map(|message| message.to_string()),
    }
}

/// A decision that no policy made.
pub fn builtin(
    active: &Active,
    action: Outcome,
    reason: &'static str,
    message: &str,
) -> DecisionInfo {
    DecisionInfo {
        action,
        would_deny: false,
        mode: active.mode(),
        policy: None,
        rule: None,
        revision: active.config.revision.clone(),
        reason: reason.to_owned(),
        message: (!message.is_empty()).then(|| message.to_owned()),
    }
}

/// Whole microseconds.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
