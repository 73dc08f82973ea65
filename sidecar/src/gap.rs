//! Traffic that passes unread, or is refused because it could not be read. Never silent: each is a record.

use std::borrow::Cow;

use chaperone_crds::{
    record::{DecisionInfo, Event, EventKind, GapInfo, Outcome},
    resources::Protocol,
};

use crate::{
    commit,
    link::{Attempt, Link, builtin},
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
    /// The server wants a client certificate that only the agent has.
    ClientCertificate,
    /// The client certificate that policy asks for cannot be presented.
    UnusableCertificate,
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
            Self::ClientCertificate => "client-certificate",
            Self::UnusableCertificate => "unusable-certificate",
            Self::Alpn => "unread-alpn",
            Self::Opaque => "opaque",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Traffic that is not read: what, why, and what policy says of it.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Protocol, as records name it: `tcp` or `tls`.
    pub protocol: &'static str,
    /// Why it is not read.
    pub reason: Reason,
    /// More about it, for people.
    pub detail: Option<String>,
    /// Whether it passes.
    pub decision: DecisionInfo,
}

/// A connection of a protocol that the sidecar does not read. `upstream` is there when it was dialled already.
pub async fn opaque<A: Io, U: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    upstream: Option<&mut Wire<U>>,
) {
    let judged = |link: &Link| Gap {
        protocol: "tcp",
        reason: Reason::Opaque,
        detail: None,
        decision: link.unread_decision(&link.now(), Protocol::Tcp),
    };
    if let Some(upstream) = upstream {
        let gap = judged(link);
        return match gap.decision.action {
            Outcome::Deny => refuse(link, agent, gap).await,
            Outcome::Allow => pass(link, agent, upstream, gap).await,
        };
    }
    let names = link.known_names();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    let mut there = Cow::Borrowed(link);
    while let Some(next) = dial_and_pass(&there, agent, &names, judged(&there)).await {
        there = Cow::Owned(*next);
    }
}

/// Refuses the connection, or dials the destination and passes everything. Returns where to go next, to be judged anew, if this address takes no connection and there is another that
/// all `names` have.
pub(crate) async fn dial_and_pass<A: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    names: &[&str],
    gap: Gap,
) -> Option<Box<Link>> {
    if gap.decision.action == Outcome::Deny {
        refuse(link, agent, gap).await;
        return None;
    }
    match link.attempt(names).await {
        Ok(Attempt::Connected(mut upstream)) => pass(link, agent, &mut upstream, gap).await,
        Ok(Attempt::Next(next)) => return Some(next),
        Err(error) => unreachable(link, agent, &gap, &error).await,
    }
    None
}

/// Records that a destination took no connection, and resets the agent's.
async fn unreachable<A: Io>(link: &Link, agent: &mut Wire<A>, gap: &Gap, error: &std::io::Error) {
    agent.stream.break_off();
    link.record_failure(gap.protocol, "upstream-unreachable", error.to_string())
        .await;
}

/// Passes what a switch of protocols leads to, as `decision` lets it.
pub async fn tunnel<A: Io, U: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    upstream: &mut Wire<U>,
    decision: DecisionInfo,
) {
    let gap = Gap {
        protocol: "tcp",
        reason: Reason::Tunnel,
        detail: None,
        decision,
    };
    pass(link, agent, upstream, gap).await;
}

/// Passes everything, both ways; records that it does, and at the end how much.
pub async fn pass<A: Io, U: Io>(
    link: &Link,
    agent: &mut Wire<A>,
    upstream: &mut Wire<U>,
    gap: Gap,
) {
    link.shared
        .metrics
        .gaps
        .with_label_values(&[gap.reason.as_str()])
        .inc();
    link.count_connection("gap");
    // Recorded before a byte passes, and again at the end with what passed: a tunnel that never ends must not be a silent one.
    let first = event(link, &gap, None);
    let beginning = commit::record(&link.shared, &link.now(), link.cut_off(), first).await;
    let mut passed = Spliced::default();
    let broke = match &beginning {
        Ok(_) => tokio::select! {
            result = pass_bytes(agent, upstream, &mut passed) => result.is_err(),
            () = link.cut_off() => true,
        },
        Err(_) => true,
    };
    if broke {
        agent.stream.break_off();
        upstream.stream.break_off();
    }
    let mut end = event(link, &gap, Some(passed));
    end.begun = beginning.unwrap_or_else(|unheld| unheld.begun);
    if let Err(unheld) = beginning {
        let active = link.now();
        let (reason, why) = (unheld.why.reason(), unheld.to_string());
        end.decision = Some(builtin(&active, Outcome::Deny, reason, &why));
        end.error = Some(why);
    }
    link.shared.recorder.record(end).await;
}

/// Passes what was read before, then everything.
async fn pass_bytes<A: Io, U: Io>(
    agent: &mut Wire<A>,
    upstream: &mut Wire<U>,
    passed: &mut Spliced,
) -> std::io::Result<()> {
    let (to_upstream, to_agent) = (agent.unread.split(), upstream.unread.split());
    passed.sent = to_upstream.len() as u64;
    upstream.send(&to_upstream).await?;
    passed.received = to_agent.len() as u64;
    agent.send(&to_agent).await?;
    splice(&mut agent.stream, &mut upstream.stream, passed).await
}

/// Records that unread traffic was refused, and resets the connection.
pub async fn refuse<A: Io>(link: &Link, agent: &mut Wire<A>, gap: Gap) {
    agent.stream.break_off();
    record_refusal(link, &gap).await;
}

/// Records that unread traffic was refused.
pub async fn record_refusal(link: &Link, gap: &Gap) {
    link.shared
        .metrics
        .denials
        .with_label_values(&[gap.reason.as_str()])
        .inc();
    link.count_connection("refused");
    link.shared.recorder.record(event(link, gap, None)).await;
}

fn event(link: &Link, gap: &Gap, passed: Option<Spliced>) -> Box<Event> {
    let mut event = link.event(EventKind::Gap, gap.protocol);
    event.decision = Some(gap.decision.clone());
    event.gap = Some(GapInfo {
        reason: gap.reason.as_str().to_owned(),
        detail: gap.detail.clone(),
        sent_bytes: passed.map(|passed| passed.sent),
        received_bytes: passed.map(|passed| passed.received),
        packets: None,
    });
    event
}
