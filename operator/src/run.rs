//! The life of the process, top to bottom: watch, load certificates, serve, control, and stop without dropping anyone.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Client;
use rustls::version::{TLS12, TLS13};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{
    certificates::{Root, ServingCertificate, bundle, serving::Kept, store::Keeper},
    control::{self, Control, identity::Identities},
    controller::Controller,
    events::Events,
    health::{Fact, Health},
    leader::Election,
    leading,
    ledger_key::LedgerKeys,
    lifecycle::{Lifecycle, Phase, Signals},
    metrics::Metrics,
    plans::Plans,
    serve::{Exempt, MAX_CONNECTIONS, SIDECAR_CONNECTIONS, Server, listen, serve},
    settings::Settings,
    stores::Stores,
    webhooks::{self, Webhooks},
};

/// How long servers and the election may take to end: a second more than they give their connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(11);

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// If the API server's address is not known, a port is taken, or a part that runs for ever ended.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let settings = Arc::new(settings);
    let (lifecycle, signals) = Lifecycle::start();
    let client = Client::try_default()
        .await
        .context("where the API server is")?;
    let (metrics, health) = (Metrics::new(), Health::default());
    let mut servers = JoinSet::new();
    let port = settings.metrics_port;
    let server = Server {
        tls: None,
        router: status_router(metrics.clone(), health.clone()),
        signals: signals.clone(),
        per_peer: MAX_CONNECTIONS,
        exempt: Exempt::default(),
    };
    servers.spawn(serve(bind(port).await?, server));
    let parts = Parts {
        stores: Stores::start(&client, &settings.namespace, &metrics),
        events: Events::start(client.clone(), &settings.pod_name, metrics.clone()),
        settings: Arc::clone(&settings),
        client,
        metrics,
        health: health.clone(),
        signals,
    };
    let mut loops = JoinSet::new();
    let mut election = JoinSet::new();
    parts.start(&mut servers, &mut loops, &mut election).await?;

    let result = tokio::select! {
        result = terminated() => result,
        Some(_) = loops.join_next() => Err(anyhow!("a control loop ended")),
        Some(_) = servers.join_next() => Err(anyhow!("a server ended")),
    };
    tracing::info!("stopping");
    health.set(Fact::Draining, true);
    lifecycle.enter(Phase::Draining);
    // The Service needs a moment to send new connections elsewhere.
    tokio::time::sleep(settings.drain()).await;
    lifecycle.enter(Phase::Stopping);
    let end = async {
        while election.join_next().await.is_some() {}
        while servers.join_next().await.is_some() {}
    };
    if timeout(STOP_TIMEOUT, end).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
    result
}

/// What the parts of the process share.
struct Parts {
    client: Client,
    settings: Arc<Settings>,
    stores: Stores,
    events: Events,
    metrics: Metrics,
    health: Health,
    signals: Signals,
}

impl Parts {
    async fn start(
        self,
        servers: &mut JoinSet<()>,
        loops: &mut JoinSet<()>,
        election: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let settings = &self.settings;
        let (elect, leads) = Election::new(
            self.client.clone(),
            &settings.namespace,
            &settings.pod_name,
            self.metrics.clone(),
        );
        election.spawn(elect.run(self.signals.clone()));
        let serving = ServingCertificate::default();
        let mut certificates = vec![Kept::operator(settings.serving_names(), serving.clone())];
        certificates.extend(settings.ledger_serving_names().map(Kept::ledger));
        let (keeper, authority) = Keeper::new(
            self.client.clone(),
            &settings.namespace,
            certificates,
            self.ledger_keys(),
            self.metrics.clone(),
            self.health.clone(),
        );
        loops.spawn(keeper.run(self.stores.clone(), leads.clone()));
        self.keep_bundles(loops, &authority);
        let plans = self.control_policies(loops, leads, authority.clone());
        self.serve_webhooks(servers, &serving, authority.clone())
            .await?;
        self.serve_control(servers, &serving, authority, plans)
            .await
    }

    /// Starts the controller and what the leader does with its outcomes.
    fn control_policies(
        &self,
        loops: &mut JoinSet<()>,
        leads: watch::Receiver<bool>,
        authority: Root,
    ) -> Plans {
        let plans = Plans::default();
        let (controller, outcomes) = Controller::new(
            self.stores.clone(),
            Arc::clone(&self.settings),
            plans.clone(),
            authority,
        );
        let (stores, health) = (self.stores.clone(), self.health.clone());
        loops.spawn(async move {
            if stores.synced().await {
                controller.run(&health).await;
            }
        });
        loops.spawn(leading::report(
            self.client.clone(),
            self.stores.clone(),
            outcomes,
            leads.clone(),
            self.metrics.clone(),
        ));
        loops.spawn(leading::point_at_restarts(
            self.client.clone(),
            self.stores.clone(),
            Arc::clone(&self.settings),
            self.events.clone(),
            leads,
            self.metrics.clone(),
        ));
        plans
    }

    /// The ledger's keys, where there is a ledger.
    fn ledger_keys(&self) -> Option<LedgerKeys> {
        let settings = &self.settings;
        settings.ledger_service.as_ref()?;
        Some(LedgerKeys::new(
            settings.ledger_origin.clone(),
            settings.ledger_key_secrets.clone(),
        ))
    }

    async fn serve_webhooks(
        &self,
        servers: &mut JoinSet<()>,
        serving: &ServingCertificate,
        authority: Root,
    ) -> anyhow::Result<()> {
        let webhooks = Webhooks {
            settings: Arc::clone(&self.settings),
            authority,
            stores: self.stores.clone(),
            events: self.events.clone(),
            metrics: self.metrics.clone(),
        };
        let server = Server {
            tls: Some(serving.server_config(&[&TLS13, &TLS12], &[b"h2", b"http/1.1"])),
            router: webhooks::router(Arc::new(webhooks)),
            signals: self.signals.clone(),
            per_peer: MAX_CONNECTIONS,
            exempt: Exempt::default(),
        };
        servers.spawn(serve(bind(self.settings.webhook_port).await?, server));
        Ok(())
    }

    async fn serve_control(
        &self,
        servers: &mut JoinSet<()>,
        serving: &ServingCertificate,
        authority: Root,
        plans: Plans,
    ) -> anyhow::Result<()> {
        let control = Control {
            identities: Identities::new(
                self.client.clone(),
                self.stores.clone(),
                Arc::clone(&self.settings),
            ),
            client: self.client.clone(),
            plans,
            authority,
            metrics: self.metrics.clone(),
            signals: self.signals.clone(),
        };
        let server = Server {
            tls: Some(serving.server_config(&[&TLS13], &[b"http/1.1"])),
            router: control::router(Arc::new(control)),
            signals: self.signals.clone(),
            per_peer: SIDECAR_CONNECTIONS,
            exempt: Exempt::default(),
        };
        servers.spawn(serve(bind(self.settings.control_port).await?, server));
        Ok(())
    }

    fn keep_bundles(&self, loops: &mut JoinSet<()>, authority: &Root) {
        let name = &self.settings.webhook_configuration_name;
        loops.spawn(bundle::keep::<MutatingWebhookConfiguration>(
            self.client.clone(),
            name.clone(),
            authority.clone(),
            self.metrics.clone(),
            self.health.clone(),
        ));
        loops.spawn(bundle::keep::<ValidatingWebhookConfiguration>(
            self.client.clone(),
            name.clone(),
            authority.clone(),
            self.metrics.clone(),
            self.health.clone(),
        ));
    }
}

async fn bind(port: u16) -> anyhow::Result<tokio::net::TcpListener> {
    listen(port).await.with_context(|| format!("port {port}"))
}

async fn terminated() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// `/healthz`, `/readyz` and `/metrics`.
fn status_router(metrics: Metrics, health: Health) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(health)
        .route(
            "/metrics",
            get(|State(metrics): State<Metrics>| async move {
                let (kind, text) = metrics.render();
                ([(CONTENT_TYPE, kind)], text)
            })
            .with_state(metrics),
        )
}

async fn readiness(State(health): State<Health>) -> Response {
    let missing = health.missing();
    if missing.is_empty() {
        return "ok\n".into_response();
    }
    let text = format!("{}\n", missing.join("\n"));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
