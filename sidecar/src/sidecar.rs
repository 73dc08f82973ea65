//! The story of a sidecar in a pod, from start to stop.
//!
//! Order is the point: the packet filter goes in first and closed, then names, keys, policies, trust and records; only when all is in place does the startup probe let
//! other containers start.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use chaperone_crds::{
    control::{Ack, ControlMessage, PodConfig},
    pod::{EGRESS_MARK, NFLOG_GROUP},
    record::{DnsInfo, EventKind, GapInfo, OperationInfo, Outcome},
};
use prometheus::Registry;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
};

use crate::{
    audit::{self, AuditConfig, AuditHandle},
    authority::{Authority, PendingAuthority},
    capture::{self, CaptureConfig, CaptureMode, DatagramGap, GapReader, LOG_DELAY, Transport},
    control::OperatorClient,
    dns::{self, DnsListeners, DnsQuery, Hosts, Names, ResolvConf, Resolver},
    egress::Egress,
    health::{self, Health},
    link::builtin,
    listen::{self, Listeners},
    metrics::Metrics,
    policy::Enforcement,
    settings::Settings,
    shared::{Pinned, Shared},
};

/// First wait before the operator is asked again.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Longest wait before the operator is asked again.
const LAST_RETRY: Duration = Duration::from_secs(10);
/// Longest wait for sinks to take what is left when the stream closes. What they have not taken by then stays in the spool. With [`listen`]'s drain it stays below Kubernetes' usual
/// grace of 30 s.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// Events of the resolver and of the packet filter that may wait to be recorded.
const EVENT_QUEUE: usize = 1024;
/// Where the kubelet puts the pod's resolver settings and hosts file.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Runs the sidecar until it is told to stop.
///
/// # Errors
/// When something that no retry mends is wrong: settings, ports, capabilities.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    // As the first process of its container it has no default for signals: one that comes before anyone listens is lost.
    let mut told = Signals::listen()?;
    capture::install(&CaptureConfig::pod(CaptureMode::Enforce))
        .context("cannot capture the pod's traffic")?;
    let listeners = Listeners::bind().context("cannot bind the capture ports")?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let health = Arc::new(Health::default());
    tokio::spawn(health::serve(
        listen::bind_health()?,
        health.clone(),
        registry.clone(),
    ));

    let names = Arc::new(Names::new(
        Hosts::read(HOSTS).context("cannot read /etc/hosts")?,
    ));
    let resolv_conf = ResolvConf::read(RESOLV_CONF).context("cannot read /etc/resolv.conf")?;
    let resolver = Arc::new(Resolver::new(
        &resolv_conf,
        Some(EGRESS_MARK),
        names.clone(),
    ));
    let egress = Arc::new(Egress::new(
        Some(EGRESS_MARK),
        resolver.clone(),
        resolv_conf.search(),
    ));
    let operator = OperatorClient::new(
        &settings.operator_url,
        &settings.operator_ca,
        settings.token.clone(),
        egress.clone(),
    )?;

    let (configs, mut received) = watch::channel(None);
    tokio::spawn(follow(operator.clone(), configs, metrics.clone()));
    let (authority, config) = tokio::select! {
        enlisted = enlist(&operator, &mut received) => enlisted?,
        () = told.wait() => return Ok(()),
    };

    let audit_config = AuditConfig {
        max_spool_bytes: settings.spool_bytes,
        ..AuditConfig::new(settings.spool_dir.clone(), config.identity.clone())
    };
    let (recorder, audit) = audit::start(audit_config, egress.clone(), &registry)?;
    let (stop, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        active: arc_swap::ArcSwapOption::empty(),
        authority: arc_swap::ArcSwap::from_pointee(authority),
        names,
        recorder,
        egress,
        metrics,
        api_server: settings.api_server,
        stopping,
        pinned: Pinned::default(),
    });
    let enforcement = Enforcement {
        capture: Some(CaptureConfig::pod(CaptureMode::Enforce)),
        trust_dir: settings.trust_dir.clone(),
        root: settings.operator_ca.clone(),
    };
    let (acks, latest) = watch::channel(None);
    tokio::spawn(acknowledge(operator.clone(), latest));
    let enforcer = Enforcer {
        enforcement,
        shared: shared.clone(),
        audit,
        acks,
    };
    let in_force = tokio::select! {
        in_force = enforcer.first(config, &mut received) => in_force,
        () = told.wait() => {
            enforcer.audit.close("terminated", CLOSE_PATIENCE).await;
            return Ok(());
        }
    };
    in_force?;
    serve_names(&shared, listeners.dns, resolver);
    let gaps = GapReader::bind(NFLOG_GROUP).context("cannot read the packet filter's log")?;
    watch_datagrams(&shared, gaps);
    let data = listen::serve_captured(shared.clone(), listeners.capture)?;
    let mut data = tokio::task::spawn_blocking(move || data.join());
    health.set_started();
    tracing::info!("capture, trust and policy are in place");

    tokio::spawn(renew(shared.clone(), operator));
    let ended = tokio::select! {
        () = enforcer.keep(received) => Ok(()),
        () = told.wait() => Ok(()),
        _ = &mut data => Err(anyhow::anyhow!("the data path ended by itself")),
    };
    health.set_stopping();
    let _ = stop.send(true);
    if ended.is_ok() {
        let _ = data.await;
    }
    tokio::time::sleep(LOG_DELAY).await;
    let closing = enforcer.audit.close("terminated", CLOSE_PATIENCE).await;
    tracing::info!(?closing, "the stream is closed");
    ended
}

/// What the operator has to give before anything can run: keys and policies.
async fn enlist(
    operator: &OperatorClient,
    received: &mut watch::Receiver<Option<PodConfig>>,
) -> anyhow::Result<(Authority, PodConfig)> {
    let authority = retry("certificate", || certify(operator)).await;
    let config = received.wait_for(Option::is_some).await?.clone();
    let config = config.context("the operator sent no configuration")?;
    Ok((authority, config))
}

/// Asks until it succeeds.
async fn retry<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let mut wait = FIRST_RETRY;
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(error) => tracing::warn!(%error, what, "the operator did not answer; asking again"),
        }
        tokio::time::sleep(jittered(wait)).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}

/// Between half of a wait and all of it, so that sidecars do not return in step.
fn jittered(wait: Duration) -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    wait / 2 + wait.mul_f64(f64::from(nanos % 1000) / 2000.0)
}

async fn certify(operator: &OperatorClient) -> anyhow::Result<Authority> {
    let pending = PendingAuthority::generate()?;
    let chain = operator.certificate(pending.request()?).await?;
    Ok(pending.signed(&chain)?)
}

/// Renews the intermediate at half of its life.
async fn renew(shared: Arc<Shared>, operator: OperatorClient) {
    loop {
        let left = shared.authority.load().not_after() - time::OffsetDateTime::now_utc();
        let wait = Duration::try_from(left / 2)
            .unwrap_or_default()
            .max(Duration::from_secs(60));
        tokio::time::sleep(wait).await;
        let authority = retry("certificate renewal", || certify(&operator)).await;
        shared.authority.store(Arc::new(authority));
    }
}

/// Keeps the control stream; each configuration goes to `configs`, the newest wins.
async fn follow(
    operator: OperatorClient,
    configs: watch::Sender<Option<PodConfig>>,
    metrics: Metrics,
) {
    let mut wait = FIRST_RETRY;
    loop {
        let since = tokio::time::Instant::now();
        let ended = operator
            .follow(|message| {
                metrics.control_connected.set(1);
                if let ControlMessage::Config { config } = message {
                    configs.send_replace(Some(*config));
                }
            })
            .await;
        metrics.control_connected.set(0);
        if let Err(error) = ended {
            tracing::info!(%error, "the control stream ended; the policies in force rule on");
        }
        // A stream that ends at once, time and again, must not be asked for five times a second.
        if since.elapsed() > LAST_RETRY {
            wait = FIRST_RETRY;
        }
        tokio::time::sleep(jittered(wait)).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}

/// Tells the operator what became of the newest revision, until it has heard it.
async fn acknowledge(operator: OperatorClient, mut latest: watch::Receiver<Option<Ack>>) {
    let mut wait = FIRST_RETRY;
    while latest.changed().await.is_ok() {
        let Some(ack) = latest.borrow_and_update().clone() else {
            continue;
        };
        match operator.acknowledge(&ack).await {
            Ok(()) => wait = FIRST_RETRY,
            Err(error) => {
                tracing::info!(%error, "cannot acknowledge a revision");
                latest.mark_changed();
                tokio::time::sleep(jittered(wait)).await;
                wait = (wait * 2).min(LAST_RETRY);
            }
        }
    }
}

/// Puts configurations in force as they come.
struct Enforcer {
    enforcement: Enforcement,
    shared: Arc<Shared>,
    audit: AuditHandle,
    acks: watch::Sender<Option<Ack>>,
}

impl Enforcer {
    /// Waits until a configuration is in force.
    async fn first(
        &self,
        mut config: PodConfig,
        received: &mut watch::Receiver<Option<PodConfig>>,
    ) -> anyhow::Result<()> {
        while !self.enforce(config) {
            received.changed().await?;
            let next = received.borrow_and_update().clone();
            config = next.context("the operator sent no configuration")?;
        }
        Ok(())
    }

    async fn keep(&self, mut received: watch::Receiver<Option<PodConfig>>) {
        while received.changed().await.is_ok() {
            let config = received.borrow_and_update().clone();
            if let Some(config) = config {
                self.enforce(config);
            }
        }
    }

    /// Puts a configuration in force and tells the operator what came of it.
    fn enforce(&self, config: PodConfig) -> bool {
        let revision = config.revision.clone();
        let result = self.enforcement.apply(&self.shared, &self.audit, config);
        let accepted = result.is_ok();
        let label = if accepted { "applied" } else { "rejected" };
        self.shared
            .metrics
            .policy_swaps
            .with_label_values(&[label])
            .inc();
        if let Err(error) = &result {
            tracing::error!(%error, %revision, "a configuration is unusable; the one before rules on");
        }
        self.acks.send_replace(Some(Ack {
            revision,
            accepted,
            error: result.err().map(|e| e.to_string()),
        }));
        accepted
    }
}

/// Serves the pod's DNS and records its queries.
pub fn serve_names(shared: &Arc<Shared>, listeners: DnsListeners, resolver: Arc<Resolver>) {
    let (events, mut queries) = mpsc::channel(EVENT_QUEUE);
    tokio::spawn(async move {
        if let Err(error) = dns::serve(listeners, resolver, events).await {
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
    event.operation = Some(OperationInfo {
        protocol: "dns".to_owned(),
        verb: query.query_type,
        resource: query.name,
    });
    event.dns = Some(DnsInfo {
        rcode: query.rcode.to_owned(),
        answers: query.answers.iter().map(ToString::to_string).collect(),
    });
    shared.recorder.record(event).await;
}

/// Records datagrams that passed unread or were refused, as the packet filter reports them.
pub fn watch_datagrams(shared: &Arc<Shared>, reader: GapReader) {
    let (events, mut gaps) = mpsc::channel(EVENT_QUEUE);
    tokio::spawn(async move {
        if let Err(error) = reader.run(events).await {
            tracing::error!(%error, "the packet filter's log cannot be read any more");
        }
    });
    let shared = shared.clone();
    tokio::spawn(async move {
        while let Some(gap) = gaps.recv().await {
            record_datagram(&shared, &gap).await;
        }
    });
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
    event.destination = Some(chaperone_crds::record::DestinationInfo {
        host: host_of(shared, gap.destination),
        ip: gap.destination.to_string(),
        port: destination.port(),
        sni: None,
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

fn host_of(shared: &Shared, ip: IpAddr) -> Option<String> {
    shared
        .names
        .names_for(ip)
        .into_iter()
        .next()
        .map(|name| name.to_string())
}

/// The signals that end the sidecar.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on none is lost.
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        tracing::info!("stopping");
    }
}
