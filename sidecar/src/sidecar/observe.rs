//! Records of what is not a connection: DNS queries, and datagrams that the packet filter saw.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use chaperone_crds::record::{
    DestinationInfo, DnsInfo, EventKind, GapInfo, OperationInfo, Outcome,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    capture::{DatagramGap, GapReader, LogEvent, Transport},
    dns::{self, DnsListeners, DnsQuery, Resolver, Ruling},
    link::builtin,
    shared::Shared,
};

use super::names::PolicyJudge;

/// Events of the resolver and of the packet filter that may wait to be recorded.
const EVENT_QUEUE: usize = 1024;

const UNREPORTED: &str = "unreported-packets";
const UNREPORTED_DETAIL: &str = "the packet filter logged packets faster than they were read, or such as cannot be read: Enforce passes none but those that a rule on udp or icmp allows";

/// Serves the pod's DNS and records its queries.
pub fn serve_names(shared: &Arc<Shared>, listeners: DnsListeners, resolver: Arc<Resolver>) {
    let (events, mut queries) = mpsc::channel(EVENT_QUEUE);
    let judge = Arc::new(PolicyJudge::new(shared.clone()));
    tokio::spawn(async move {
        if let Err(error) = dns::serve(listeners, resolver, judge, events).await {
            tracing::error!(%error, "the resolver stopped");
        }
    });
    let shared = shared.clone();
    tokio::spawn(async move {
        while let Some(query) = queries.recv().await {
            record_query(&shared, query).await;
        }
    });
}

async fn record_query(shared: &Shared, query: DnsQuery) {
    let Some(active) = shared.active.load_full() else {
        return;
    };
    shared
        .metrics
        .dns_queries
        .with_label_values(&[query.rcode])
        .inc();
    let mut event = active.event(EventKind::Dns);
    if let Some(Ruling { decision, error }) = query.ruling {
        if decision.action == Outcome::Deny {
            let denials = &shared.metrics.denials;
            denials.with_label_values(&[&decision.reason]).inc();
        }
        (event.decision, event.error) = (Some(decision), error);
    }
    event.begun = query.begun;
    event.operation = Some(OperationInfo {
        protocol: "dns".to_owned(),
        verb: query.query_type,
        resource: query.name,
    });
    event.dns = Some(DnsInfo {
        rcode: query.rcode.to_owned(),
        answers: query.answers.iter().map(ToString::to_string).collect(),
        withheld: query.withheld.iter().map(ToString::to_string).collect(),
    });
    shared.recorder.record(event).await;
}

/// While it is there, what may pass the packet filter unread does.
#[must_use = "datagrams stop to pass when it is dropped"]
#[derive(Debug)]
pub struct Watching {
    _open: oneshot::Sender<Infallible>,
}

/// Records datagrams that passed unread or were refused, as the packet filter reports them.
pub fn watch_datagrams(shared: &Arc<Shared>, reader: GapReader) -> Watching {
    let (events, mut gaps) = mpsc::channel(EVENT_QUEUE);
    let (open, closed) = oneshot::channel();
    let closing = async move {
        let _ = closed.await;
    };
    tokio::spawn(async move {
        if let Err(error) = reader.run(events, closing).await {
            tracing::error!(%error, "the packet filter's log cannot be read any more: no datagram passes until the sidecar is restarted");
        }
    });
    let shared = shared.clone();
    tokio::spawn(async move {
        while let Some(told) = gaps.recv().await {
            match told {
                LogEvent::Packet(gap) => record_datagram(&shared, &gap).await,
                LogEvent::Unreported(packets) => record_unreported(&shared, packets).await,
            }
        }
    });
    Watching { _open: open }
}

async fn record_datagram(shared: &Shared, gap: &DatagramGap) {
    let Some(active) = shared.active.load_full() else {
        return;
    };
    let quic = gap.transport == Transport::Udp && gap.destination_port == Some(443);
    let reason = if quic { "quic" } else { "datagram" };
    let protocol = gap.transport.name();
    let destination = SocketAddr::new(gap.destination, gap.destination_port.unwrap_or(0));
    let mut event = active.event(EventKind::Gap);
    event.destination = Some(DestinationInfo {
        host: host_of(shared, gap.destination),
        ip: gap.destination.to_string(),
        original_ip: None,
        port: destination.port(),
        sni: None,
        proxy: None,
        client_certificate: None,
    });
    event.operation = Some(OperationInfo {
        protocol: protocol.to_owned(),
        verb: "send".to_owned(),
        resource: destination.to_string(),
    });
    let action = if gap.refused {
        Outcome::Deny
    } else {
        Outcome::Allow
    };
    event.decision = Some(builtin(&active, action, reason, ""));
    event.gap = Some(GapInfo {
        reason: reason.to_owned(),
        ..GapInfo::default()
    });
    shared.metrics.gaps.with_label_values(&[reason]).inc();
    shared.recorder.record(event).await;
}

/// Of these packets it is known only that there were so many: neither where they went nor whether they passed.
async fn record_unreported(shared: &Shared, packets: u64) {
    let Some(active) = shared.active.load_full() else {
        return;
    };
    let mut event = active.event(EventKind::Gap);
    event.gap = Some(GapInfo {
        reason: UNREPORTED.to_owned(),
        detail: Some(UNREPORTED_DETAIL.to_owned()),
        packets: Some(packets),
        ..GapInfo::default()
    });
    let gaps = shared.metrics.gaps.with_label_values(&[UNREPORTED]);
    gaps.inc_by(packets);
    shared.recorder.record(event).await;
}

fn host_of(shared: &Shared, ip: IpAddr) -> Option<String> {
    shared
        .names
        .names_for(ip)
        .into_iter()
        .next()
        .map(|name| name.to_string())
}
