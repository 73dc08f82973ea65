//! The story of one connection, from capture to record.
//!
//! Reads top to bottom: where the agent meant to go, what it speaks, and which of three ends it takes: read and judged (`http`, inside `tls` or not), passed unread as a
//! recorded gap (`gap`), or refused. Invariant: whatever left the pod, or was kept from leaving it, a record says so.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chaperone_crds::{
    decide::{Decision, Destination, Operation, Reason},
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

/// How long connections may finish once the sidecar stops. With the time that records and sinks get after it, below Kubernetes' usual grace of 30 s.
pub const DRAIN: Duration = Duration::from_secs(14);

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

/// Tells the story of one captured connection. One that says nothing and ends leaves no record: nothing of it left the pod.
pub async fn serve(shared: Arc<Shared>, stream: TcpStream, destination: OriginalDst) {
    let Some(active) = shared.active.load_full() else {
        // No policy yet: no traffic.
        return;
    };
    let link = Link {
        shared,
        active,
        destination: destination.addr(),
        sni: None,
        since: Instant::now(),
    };
    let mut agent = Wire::new(stream, bytes::BytesMut::new());
    match first_bytes(&link, &mut agent, None::<&mut Wire<TcpStream>>).await {
        First::Speaks(spoken) => speaks(&link, agent, spoken).await,
        First::ServerFirst => server_first(&link, agent).await,
        First::Silent => {}
    }
}

/// The agent has spoken first.
async fn speaks(link: &Link, mut agent: Wire<TcpStream>, spoken: Detected) {
    match spoken {
        Detected::Tls => tls::serve(link, agent).await,
        Detected::Http => http::serve(link, &mut agent, None, false).await,
        Detected::More | Detected::Unknown => {
            gap::opaque(link, &mut agent, None::<&mut Wire<TcpStream>>).await;
        }
    }
}

/// The agent is silent. Where policy lets unread bytes pass, the upstream is dialled to see who speaks first: an agent that only dallies before its request is read like
/// any other.
async fn server_first(link: &Link, mut agent: Wire<TcpStream>) {
    if !link.may_pass_unread() {
        return gap::opaque(link, &mut agent, None::<&mut Wire<TcpStream>>).await;
    }
    let mut upstream = match link.shared.egress.dial(link.destination).await {
        Ok(stream) => Wire::new(stream, bytes::BytesMut::new()),
        Err(error) => {
            agent.stream.break_off();
            return link
                .record_failure("tcp", "upstream-unreachable", error.to_string())
                .await;
        }
    };
    match first_bytes(link, &mut agent, Some(&mut upstream)).await {
        First::Speaks(spoken @ (Detected::Tls | Detected::Http)) => {
            // Their stories dial for themselves.
            drop(upstream);
            speaks(link, agent, spoken).await;
        }
        First::Speaks(_) | First::ServerFirst => {
            gap::opaque(link, &mut agent, Some(&mut upstream)).await;
        }
        First::Silent => link.record_unused("tcp").await,
    }
}

/// Who spoke first, and what.
pub enum First {
    /// The agent, in this protocol.
    Speaks(Detected),
    /// The agent waits for the server: a protocol of which Chaperone reads none yet.
    ServerFirst,
    /// The connection ended before anyone spoke.
    Silent,
}

/// Reads until the agent's bytes tell a protocol. With `upstream` connected, the first of both to speak decides, however long it takes. Without, a silent agent is taken
/// for one that waits for its server: soon where policy would let such a protocol pass, else after a time.
pub async fn first_bytes<A: Io, U: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    mut upstream: Option<&mut Wire<U>>,
) -> First {
    let patience = if upstream.is_none() && link.may_pass_unread() {
        SERVER_FIRST_WAIT
    } else {
        FIRST_BYTES_TIMEOUT
    };
    let silence_ends = tokio::time::Instant::now() + patience;
    let bytes_end = tokio::time::Instant::now() + FIRST_BYTES_TIMEOUT;
    let mut stopping = link.shared.stopping.clone();
    loop {
        match detect(&agent.unread) {
            Detected::More if agent.unread.len() < DETECT_BYTES => {}
            known => return First::Speaks(known),
        }
        let silent = agent.unread.is_empty();
        let dialled = upstream.is_some();
        let read = tokio::select! {
            read = agent.fill() => read,
            spoke = server_speaks(upstream.as_deref_mut()), if silent => match spoke {
                true => return First::ServerFirst,
                false => return First::Silent,
            },
            () = tokio::time::sleep_until(silence_ends), if silent && !dialled => return First::ServerFirst,
            // Neither TLS nor a request line takes so long.
            () = tokio::time::sleep_until(bytes_end), if !silent => return First::Speaks(Detected::Unknown),
            Ok(_) = stopping.wait_for(|stop| *stop), if silent => return First::Silent,
        };
        match read {
            Ok(0) if silent => return First::Silent,
            Ok(0) => return First::Speaks(Detected::Unknown),
            Ok(_) => {}
            Err(_) => return First::Silent,
        }
    }
}

/// Whether the server sent the first byte; false when it ended. An HTTP answer to no request (408, most likely) is a server's way of ending an idle connection.
async fn server_speaks<U: Io>(upstream: Option<&mut Wire<U>>) -> bool {
    match upstream {
        Some(upstream) => {
            upstream.fill().await.is_ok_and(|read| read > 0)
                && !upstream.unread.starts_with(b"HTTP/1.")
        }
        None => std::future::pending().await,
    }
}

impl Link {
    /// Whether policy would let a protocol pass that is not read. If not, there is no use in asking the server whether it speaks first: the agent's first bytes may yet be HTTP.
    fn may_pass_unread(&self) -> bool {
        self.unread_decision(&self.now(), Protocol::Tcp).action == Outcome::Allow
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

    /// What `active` says of this connection as a whole, for traffic that passes unread. In Enforce, TCP of unknown protocols needs a rule that allows it; a default is not
    /// enough. Where no SNI names the destination, each name that led to its address counts: a Deny for one holds, else an Allow for one suffices.
    pub fn unread_decision(&self, active: &Active, protocol: Protocol) -> DecisionInfo {
        let known = match &self.sni {
            Some(_) => Vec::new(),
            None => self.shared.names.names_for(self.destination.ip()),
        };
        let decide = |host| self.decide_unread(active, protocol, host);
        let mut decision = decide(self.sni.as_deref().or(known.first().map(|name| &**name)));
        for name in known.iter().skip(1) {
            let other = decide(Some(name));
            let denies = other.outcome == Outcome::Deny && other.reason != Reason::Opaque;
            let lifts = other.outcome == Outcome::Allow && decision.reason == Reason::Opaque;
            if denies || lifts {
                decision = other;
            }
            if denies {
                break;
            }
        }
        decision_info(active, decision)
    }

    fn decide_unread(&self, active: &Active, protocol: Protocol, host: Option<&str>) -> Decision {
        let resource = self.destination.to_string();
        let operation = Operation {
            protocol,
            verb: "connect",
            resource: &resource,
            destination: Destination {
                host,
                ip: self.destination.ip(),
                port: self.destination.port(),
                sni: self.sni.as_deref(),
            },
            http: None,
        };
        active
            .snapshot
            .candidates(&operation)
            .decide(&active.config.identity, &operation)
    }

    /// An event about this connection.
    pub fn event(&self, kind: EventKind, protocol: &str) -> Event {
        let mut event = self.now().event(kind);
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

    /// Counts what became of the connection.
    pub fn count_connection(&self, result: &str) {
        self.shared
            .metrics
            .connections
            .with_label_values(&[result])
            .inc();
    }

    /// Records that the connection failed before any operation.
    pub async fn record_failure(&self, protocol: &str, reason: &'static str, error: String) {
        let mut event = self.event(EventKind::Connection, protocol);
        event.decision = Some(builtin(&self.now(), Outcome::Deny, reason, ""));
        event.error = Some(error);
        self.count_connection("failed");
        self.shared.recorder.record(event).await;
    }

    /// Records a connection that reached its upstream and ended without an operation. A ClientHello alone can carry a name out.
    pub async fn record_unused(&self, protocol: &str) {
        let mut event = self.event(EventKind::Connection, protocol);
        event.decision = Some(builtin(&self.now(), Outcome::Allow, "unused", ""));
        self.shared.recorder.record(event).await;
    }

    /// Ready once the sidecar has been stopping for [`DRAIN`]: what still runs is broken off, and recorded while there is time.
    pub async fn cut_off(&self) {
        let mut stopping = self.shared.stopping.clone();
        if stopping.wait_for(|stop| *stop).await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(DRAIN).await;
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
