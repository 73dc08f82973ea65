//! The life of the process, top to bottom: keys, directory, servers, and an end that loses nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use chaperone_crds::{chain::StreamId, record::AgentRef};
use chaperone_ledger::store::{Config, Keeper, SEGMENT_BYTES};
use chaperone_server::{
    lifecycle::{Lifecycle, Phase},
    serve::{Exempt, MAX_CONNECTIONS, SIDECAR_CONNECTIONS, Server, serve},
};
use chaperone_sinks::net::HostNet;
use kube::Client;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};

use crate::{
    api::{Api, router},
    authenticate::Kubernetes,
    certificate::Certificate,
    console::{self, Console},
    custody::Custody,
    gaps::{Gaps, Watched},
    key_file,
    metrics::Metrics,
    publish::Publisher,
    retention::{Policy, Retention},
    search::Search,
    settings::Settings,
    shared::{Led, Shared},
    sinks::{self, Desired, SinksHandle, Surroundings, from_cluster, from_file::SinksFile},
    witnesses::Witnesses,
    writer::{self, Recalled, WriterConfig, WriterThread},
};

/// How long the servers may take to end: a second more than they give their connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(11);
/// How long the writer may take for what it was sent and the last checkpoint.
const LAST_COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the ledger until SIGTERM or SIGINT.
///
/// # Errors
/// If keys, certificate or directory cannot be used, a port is taken, or the writer ended.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let gaps = Gaps::default();
    let custody = Custody::default();
    let policy = settings.retention.as_deref().map(Policy::read);
    let policy = policy.transpose()?.unwrap_or_default();
    let mut config = writer_config(&settings, &gaps, custody.clone())?;
    let origin = config.store.origin.clone();
    let witnesses = witnesses(&settings, &config)?;
    let publisher = publisher(&settings, &config)?;
    let certificate = Certificate::load(&settings.certificate, &settings.certificate_key)?;
    let client = Client::try_default()
        .await
        .context("where the API server is")?;
    let (sinks_from, watched) = (sinks_from(&settings)?, watched(&settings)?);
    let (lifecycle, signals) = Lifecycle::start();
    let (metrics, ready) = (Metrics::new(), Ready::default());
    let mut servers = JoinSet::new();
    let status = Server {
        tls: None,
        router: status_router(metrics.clone(), ready.clone()),
        signals: signals.clone(),
        per_peer: MAX_CONNECTIONS,
        exempt: Exempt::default(),
    };
    let listener = bind(settings.status_listen).await?;
    let listen = listener.local_addr().context("the status port's address")?;
    servers.spawn(serve(listener, status));
    tracing::info!(%listen, "health and metrics are served");
    let mut terminated = Box::pin(terminated()?);
    let leads = lead(&settings, &config, &metrics, &ready);
    let mut led = tokio::select! {
        led = leads => led?,
        () = &mut terminated => return Ok(()),
    };
    let keepers = led
        .as_ref()
        .map(|(_, led)| (led.store.clone(), led.others.clone()));
    let (store, keeper) = keepers.unwrap_or_default();
    config.keeper = store;
    let recalled = led.as_mut().and_then(|(_, led)| led.recalled.take());

    let WriterThread {
        handle,
        opened,
        mut ended,
        committed,
        signed,
        others,
    } = writer::start(config, recalled, metrics.clone()).context("the writer's thread")?;
    tokio::select! {
        opened = opened => opened.context("the writer ended")?.context("the directory was not opened")?,
        () = &mut terminated => return Ok(()),
    }
    let own = StreamId::of_ledger(origin.as_str());
    let search = Search::start(
        settings.dir.clone(),
        origin.to_string(),
        committed.clone(),
        metrics.clone(),
    );
    let ended_at = committed.clone();
    let around = Surroundings {
        dir: settings.dir.clone(),
        keeper: keeper.clone(),
        committed,
        net: Arc::new(HostNet),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent: own_agent(&settings),
    };
    let sinks = feed(&settings, sinks_from, around, &client, &metrics)?;
    let publish = publisher.run(client.clone(), others, handle.clone(), metrics.clone());
    tokio::spawn(publish);
    gaps.start(client.clone(), watched, handle.clone(), metrics.clone());
    if let Some(witnesses) = witnesses {
        tokio::spawn(witnesses.run(signed, handle.clone(), metrics.clone()));
    }
    let search = search.context("the index's thread")?;
    let retention = Retention {
        dir: settings.dir.clone(),
        keeper,
        own,
        file: settings.retention.clone(),
        policy,
        every: Duration::from_secs(settings.sweep_seconds),
        custody: custody.clone(),
        committed: ended_at,
        writer: handle.clone(),
        search: search.clone(),
        metrics: metrics.clone(),
    };
    let sweeps = retention.start().context("the thread that deletes")?;
    let api = Api::new(
        Arc::new(Kubernetes::new(client)),
        handle.clone(),
        settings.dir.clone(),
        search,
        gaps,
        (custody, sweeps),
    );
    let api = Arc::new(api.with_sinks(sinks));
    let oidc = settings.oidc.open(env!("CARGO_PKG_VERSION"))?;
    let console = settings
        .console
        .then(|| console::router(Console::new(Arc::clone(&api), origin.to_string(), oidc)));
    let server = Server {
        tls: Some(certificate.server_config()),
        router: router(api).merge(console.unwrap_or_default()),
        signals: signals.clone(),
        per_peer: SIDECAR_CONNECTIONS,
        exempt: led
            .as_ref()
            .map(|(_, led)| led.replicas.clone())
            .unwrap_or_default(),
    };
    let (listener, mut led) = match led.take() {
        Some((listener, led)) => (listener, Some(led)),
        None => (bind(settings.listen).await?, None),
    };
    let listen = listener.local_addr().context("the API's address")?;
    servers.spawn(serve(listener, server));
    tokio::spawn(certificate.watch());
    ready.set(true);
    metrics.leads.set(1);
    tracing::info!(%origin, %listen, "the ledger takes records");

    let result = tokio::select! {
        () = &mut terminated => Ok(()),
        _ = &mut ended => Err(anyhow!("the writer ended")),
        () = lost(&mut led) => Err(anyhow!("another replica leads the ledger now")),
        Some(_) = servers.join_next() => Err(anyhow!("a server ended")),
    };
    ready.set(false);
    tracing::info!("stopping");
    lifecycle.enter(Phase::Stopping);
    let end = async { while servers.join_next().await.is_some() {} };
    if timeout(STOP_TIMEOUT, end).await.is_err() {
        tracing::warn!("not every connection ended in time");
    }
    finish(handle, ended).await;
    if let Some(led) = led {
        led.release().await;
    }
    result
}

/// Where the ledger is shared: follows until this replica leads. The API's port is served from the beginning then.
async fn lead(
    settings: &Settings,
    config: &WriterConfig,
    metrics: &Metrics,
    ready: &Ready,
) -> anyhow::Result<Option<(TcpListener, Led)>> {
    let Some(shared) = settings.shared.read()? else {
        return Ok(None);
    };
    let listener = bind(settings.listen).await?;
    let port = listener.local_addr().context("the API's address")?.port();
    let advertise = settings.shared.advertise;
    let advertise = advertise.context("--shared needs --advertise")?;
    let replica = Shared {
        holder: settings.pod_name.clone(),
        address: (advertise, port).into(),
        origin: config.store.origin.to_string(),
        dir: settings.dir.clone(),
        metrics: metrics.clone(),
    };
    let standby = replica.follow(&shared, Recalled::nothing(config)).await;
    let standby = standby.context("the shared ledger")?;
    tracing::info!(origin = %config.store.origin, listen = %listener.local_addr()?, "this replica follows");
    let led = standby.lead(&listener, |known| ready.set(known)).await;
    Ok(Some((listener, led.context("leading")?)))
}

/// Resolves once another replica leads; never where there is none.
async fn lost(led: &mut Option<Led>) {
    match led {
        Some(led) => led.lost().await,
        None => std::future::pending().await,
    }
}

/// Whose pods are looked at, if any are to be.
fn watched(settings: &Settings) -> anyhow::Result<Option<Watched>> {
    if !settings.watch_pods {
        return Ok(None);
    }
    if settings.namespace.is_empty() {
        bail!("--watch-pods needs --namespace: the ledger's own is never audited");
    }
    Ok(Some(Watched {
        own: settings.namespace.clone(),
        exempt: settings.exempt_service_accounts.clone(),
        pod_name: settings.pod_name.clone(),
    }))
}

/// Who shows checkpoints elsewhere.
fn publisher(settings: &Settings, config: &WriterConfig) -> anyhow::Result<Publisher> {
    let namespace = &settings.namespace;
    if settings.publish_config_map.is_some() && namespace.is_empty() {
        bail!("--publish-config-map needs --namespace: the ConfigMap is there");
    }
    let config_map = settings.publish_config_map.clone();
    Ok(Publisher {
        dir: config.store.dir.clone(),
        origin: config.store.origin.clone(),
        keys: config.store.keys.clone(),
        every: Duration::from_secs(settings.publish_seconds),
        config_map: config_map.map(|name| (namespace.clone(), name)),
    })
}

/// Who cosigns, if that is asked for.
fn witnesses(settings: &Settings, config: &WriterConfig) -> anyhow::Result<Option<Witnesses>> {
    let Some(policy) = &settings.witness_policy else {
        return Ok(None);
    };
    let (ca, store) = (settings.witness_ca.as_deref(), &config.store);
    let dir = store.dir.clone();
    Witnesses::read(policy, ca, &store.origin, store.keys.clone(), dir).map(Some)
}

/// Has the writer finish what it was sent, and sign it.
async fn finish(handle: writer::WriterHandle, ended: oneshot::Receiver<()>) {
    let stop = tokio::task::spawn_blocking(move || handle.stop());
    let end = async {
        let _ = stop.await;
        let _ = ended.await;
    };
    if timeout(LAST_COMMIT_TIMEOUT, end).await.is_err() {
        tracing::warn!("the writer did not end in time; what was acknowledged is on disk");
    }
}

fn writer_config(
    settings: &Settings,
    gaps: &Gaps,
    custody: Custody,
) -> anyhow::Result<WriterConfig> {
    let (origin, keys) = key_file::read_all(&settings.key_files, settings.origin.as_ref())?;
    Ok(WriterConfig {
        store: Config {
            dir: settings.dir.clone(),
            origin,
            keys: keys.iter().map(|key| key.verifier().clone()).collect(),
            segment_bytes: SEGMENT_BYTES,
            checkpoint_seconds: settings.checkpoint_seconds,
        },
        keeper: Keeper::default(),
        keys,
        agent: own_agent(settings),
        roster: gaps.roster(),
        custody,
    })
}

/// Who the ledger is, as its own records say.
fn own_agent(settings: &Settings) -> AgentRef {
    AgentRef {
        namespace: settings.namespace.clone(),
        pod: settings.pod_name.clone(),
        service_account: String::new(),
    }
}

/// The sinks' file with what it says, where there is one. A file that is wrong stops the start: nothing runs by it yet.
fn sinks_from(settings: &Settings) -> anyhow::Result<Option<(SinksFile, Vec<Desired>)>> {
    if settings.watch_sinks && settings.namespace.is_empty() {
        bail!("--watch-sinks needs --namespace: Secrets of sinks are read there");
    }
    let file = settings.sinks.clone().map(|file| SinksFile {
        file,
        secrets: settings.sinks_secrets.clone(),
    });
    file.map(|file| file.read().map(|desired| (file, desired)))
        .transpose()
}

/// Starts the sinks, if there are to be any.
fn feed(
    settings: &Settings,
    from: Option<(SinksFile, Vec<Desired>)>,
    around: Surroundings,
    client: &Client,
    metrics: &Metrics,
) -> anyhow::Result<Option<SinksHandle>> {
    if from.is_none() && !settings.watch_sinks {
        return Ok(None);
    }
    let sinks = sinks::start(around, metrics.registry()).context("the sinks")?;
    match from {
        Some((file, desired)) => drop(tokio::spawn(file.watch(desired, sinks.clone()))),
        None => {
            let namespace = settings.namespace.clone();
            drop(tokio::spawn(from_cluster::run(
                client.clone(),
                namespace,
                sinks.clone(),
            )));
        }
    }
    Ok(Some(sinks))
}

async fn bind(address: std::net::SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))
}

/// Handlers are installed at once, so that no signal is missed while the directory is opened.
fn terminated() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Whether the ledger takes records.
#[derive(Clone, Debug, Default)]
struct Ready(Arc<AtomicBool>);

impl Ready {
    fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
fn status_router(metrics: Metrics, ready: Ready) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(ready)
        .route(
            "/metrics",
            get(|State(metrics): State<Metrics>| async move {
                let (kind, text) = metrics.render();
                ([(CONTENT_TYPE, kind)], text)
            })
            .with_state(metrics),
        )
}

async fn readiness(State(ready): State<Ready>) -> Response {
    match ready.0.load(Ordering::Acquire) {
        true => "ok\n".into_response(),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the directory is being opened, nobody is known to lead a shared ledger, or the ledger is stopping\n",
        )
            .into_response(),
    }
}
