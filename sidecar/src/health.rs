//! Health and metrics for the kubelet and Prometheus, on [`chaperone_crds::pod::HEALTH_PORT`].
//!
//! The packet filter refuses this port on loopback, so the agent does not reach it. It only reads state; nothing here changes anything.

use std::{
    convert::Infallible,
    net::TcpListener as StdListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::{net::TcpListener, sync::Semaphore};

/// Connections served at once. The kubelet and Prometheus need a handful.
const MAX_CONNECTIONS: usize = 64;
/// Longest wait for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the probes ask for.
#[derive(Debug, Default)]
pub struct Health {
    started: AtomicBool,
    stopping: AtomicBool,
}

impl Health {
    /// Capture, trust and policy are in place: other containers may start.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// The sidecar is shutting down.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    fn ready(&self) -> bool {
        self.started() && !self.stopping.load(Ordering::Acquire)
    }
}

/// Serves until the runtime ends.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(
    listener: StdListener,
    health: Arc<Health>,
    registry: Registry,
) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            continue;
        };
        let (health, registry) = (health.clone(), registry.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &health, &registry);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "health connection");
            }
            drop(slot);
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    health: &Health,
    registry: &Registry,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match request.uri().path() {
        "/startupz" => probe(
            health.started(),
            "capture, trust and policy are not in place yet\n",
        ),
        "/readyz" => probe(health.ready(), "starting or stopping\n"),
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/metrics" => metrics(registry),
        _ => text(
            StatusCode::NOT_FOUND,
            "try /startupz, /readyz, /healthz or /metrics\n",
        ),
    }
}

fn probe(good: bool, otherwise: &'static str) -> Response<Full<Bytes>> {
    if good {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, otherwise)
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = Vec::new();
    let encoder = TextEncoder::new();
    if let Err(error) = encoder.encode(&registry.gather(), &mut body) {
        tracing::error!(%error, "cannot encode metrics");
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics are not available\n",
        );
    }
    let mut response = Response::new(Full::new(Bytes::from(body)));
    if let Ok(value) = encoder.format_type().parse() {
        response
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, value);
    }
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}
