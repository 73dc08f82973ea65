//! The story of a sidecar in a pod, from start to stop.
//!
//! Order is the point: the packet filter goes in first and closed, then names, keys, policies, trust and records; only when all is in place does the startup probe let
//! other containers start.

mod enforcer;
mod names;
mod observe;
mod operator;

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context;
use chaperone_crds::pod::{EGRESS_MARK, NFLOG_GROUP};
use prometheus::Registry;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    audit::{self, AuditConfig, AuditHandle},
    capture::{self, CaptureConfig, CaptureMode, GapReader, LOG_DELAY},
    control::OperatorClient,
    dns::{Hosts, Names, ResolvConf, Resolver},
    egress::Egress,
    health::{self, Health},
    isolate,
    listen::{self, Listeners},
    metrics::Metrics,
    policy::Enforcement,
    settings::Settings,
    shared::{Pinned, Shared, Silent},
};

use self::{
    enforcer::Enforcer,
    operator::{acknowledge, enlist, follow, renew},
};

pub use self::observe::{Watching, serve_names, watch_datagrams};

/// Longest wait for sinks to take what is left when the stream closes. What they have not taken by then stays in the spool. With [`listen`]'s drain it stays below Kubernetes' usual
/// grace of 30 s.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(10);
/// Where the kubelet puts the pod's resolver settings and hosts file.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// Runs the sidecar until it is told to stop.
///
/// # Errors
/// When something that no retry mends is wrong: settings, ports, capabilities.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    isolate::install();
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
    let way_out = WayOut::find(&settings)?;
    let operator = way_out.operator.clone();

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
    let (recorder, audit) = audit::start(audit_config, way_out.egress.clone(), &registry)?;
    let (stop, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        active: arc_swap::ArcSwapOption::empty(),
        authority: arc_swap::ArcSwap::from_pointee(authority),
        names: way_out.resolver.names().clone(),
        recorder,
        egress: way_out.egress,
        metrics,
        cluster: settings.cluster.clone(),
        stopping,
        pinned: Pinned::default(),
        silent: Silent::default(),
    });
    let enforcer = enforcer(settings, shared.clone(), audit, &operator);
    let in_force = tokio::select! {
        in_force = enforcer.first(config, &mut received) => Some(in_force),
        () = told.wait() => None,
    };
    let Some(in_force) = in_force else {
        enforcer.audit.close("terminated", CLOSE_PATIENCE).await;
        return Ok(());
    };
    in_force?;
    let (mut data, watching) = serve(&shared, listeners, way_out.resolver)?;
    health.set_started();
    tracing::info!("capture, trust and policy are in place");

    tokio::spawn(renew(shared, operator));
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
    // From here on nothing leaves, so that what left is all in the log.
    drop(watching);
    tokio::time::sleep(LOG_DELAY).await;
    let closing = enforcer.audit.close("terminated", CLOSE_PATIENCE).await;
    tracing::info!(?closing, "the stream is closed");
    ended
}

/// How the sidecar itself reaches names, upstreams and the operator.
struct WayOut {
    resolver: Arc<Resolver>,
    egress: Arc<Egress>,
    operator: OperatorClient,
}

impl WayOut {
    fn find(settings: &Settings) -> anyhow::Result<Self> {
        let hosts = Hosts::read(HOSTS).context("cannot read /etc/hosts")?;
        let names = Arc::new(Names::new(hosts));
        let resolv_conf = ResolvConf::read(RESOLV_CONF).context("cannot read /etc/resolv.conf")?;
        let own = own_addresses().context("cannot read the pod's addresses")?;
        let resolver = Resolver::new(&resolv_conf, Some(EGRESS_MARK), names).of_pod(own);
        let resolver = Arc::new(resolver);
        let search = resolv_conf.search();
        let egress = Arc::new(Egress::new(Some(EGRESS_MARK), resolver.clone(), search));
        let operator = OperatorClient::new(
            &settings.operator_url,
            &settings.operator_ca,
            settings.token.clone(),
            egress.clone(),
        )?;
        Ok(Self {
            resolver,
            egress,
            operator,
        })
    }
}

/// Addresses of this network namespace.
fn own_addresses() -> std::io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
    });
    Ok(addresses.collect())
}

/// What puts configurations in force, with somebody who tells the operator.
fn enforcer(
    settings: Settings,
    shared: Arc<Shared>,
    audit: AuditHandle,
    operator: &OperatorClient,
) -> Enforcer {
    let (acks, latest) = watch::channel(None);
    tokio::spawn(acknowledge(operator.clone(), latest));
    let enforcement = Enforcement {
        capture: Some(CaptureConfig::pod(CaptureMode::Enforce)),
        trust_dir: settings.trust_dir,
        root: settings.operator_ca,
    };
    Enforcer {
        enforcement,
        shared,
        audit,
        acks,
    }
}

/// Serves names, datagrams and connections. The handle is ready when the last connection has ended.
fn serve(
    shared: &Arc<Shared>,
    listeners: Listeners,
    resolver: Arc<Resolver>,
) -> anyhow::Result<(JoinHandle<()>, Watching)> {
    serve_names(shared, listeners.dns, resolver);
    let gaps = GapReader::bind(NFLOG_GROUP).context("cannot read the packet filter's log")?;
    let watching = watch_datagrams(shared, gaps);
    let data = listen::serve_captured(shared.clone(), listeners.capture)?;
    let ended = tokio::task::spawn_blocking(move || {
        let _ = data.join();
    });
    Ok((ended, watching))
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
