//! What the API server says of AuditSinks and Secrets: a list, a watch that ends with "too old" at each change so that who watches lists again, and the status subresource.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, patch},
};
use serde_json::{Value, json};

use crate::world::Cluster;

/// AuditSinks and Secrets.
#[derive(Default)]
pub(crate) struct Api {
    /// The ledger is started so that it watches.
    pub(crate) is_watched: AtomicBool,
    version: AtomicU64,
    sinks: Mutex<BTreeMap<String, Value>>,
    /// By name: a token, or none where RBAC keeps it from the ledger.
    secrets: Mutex<BTreeMap<String, Option<String>>>,
}

impl Api {
    /// Applies an AuditSink; none removes it.
    pub(crate) fn set(&self, name: &str, spec: Option<Value>) {
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        let mut sinks = self.sinks.lock().unwrap();
        match spec {
            None => drop(sinks.remove(name)),
            Some(spec) => {
                let sink = json!({
                    "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "spec": spec,
                    "metadata": {"name": name, "uid": name, "generation": version, "resourceVersion": version.to_string()}
                });
                sinks.insert(name.to_owned(), sink);
            }
        }
    }

    /// Sets a Secret's token; none keeps the Secret from the ledger.
    pub(crate) fn set_secret(&self, name: &str, token: Option<&str>) {
        let token = token.map(str::to_owned);
        self.secrets.lock().unwrap().insert(name.to_owned(), token);
    }

    /// The condition `Delivering` of a sink: status, reason, message.
    pub(crate) fn delivering(&self, name: &str) -> Option<[String; 3]> {
        let sinks = self.sinks.lock().unwrap();
        let conditions = sinks.get(name)?["status"]["conditions"].as_array()?.clone();
        let found = conditions.iter().find(|c| c["type"] == "Delivering")?;
        Some(["status", "reason", "message"].map(|field| found[field].as_str().unwrap().to_owned()))
    }
}

pub(crate) fn router() -> Router<Arc<Cluster>> {
    let sinks = "/apis/chaperone.dev/v1alpha1/auditsinks";
    Router::new()
        .route(sinks, get(list))
        .route(&format!("{sinks}/{{name}}/status"), patch(status))
        .route("/api/v1/namespaces/chaperone/secrets/{name}", get(secret))
}

async fn list(State(cluster): State<Arc<Cluster>>, RawQuery(query): RawQuery) -> Response {
    let api = &cluster.sinks;
    let version = || api.version.load(Ordering::SeqCst);
    let query = parse(query);
    if query.contains_key("watch") {
        let seen = query
            .get("resourceVersion")
            .and_then(|v| v.parse::<u64>().ok())
            .unwrap_or(0);
        while version() == seen {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "message": "too old", "code": 410}});
        return format!("{gone}\n").into_response();
    }
    let items: Vec<_> = api.sinks.lock().unwrap().values().cloned().collect();
    Json(json!({"apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSinkList", "metadata": {"resourceVersion": version().to_string()}, "items": items})).into_response()
}

async fn status(
    State(cluster): State<Arc<Cluster>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Response {
    let query = parse(query);
    assert_eq!(query["fieldManager"], "chaperone-ledger");
    let applied: Value = serde_json::from_slice(&body).unwrap();
    let mut sinks = cluster.sinks.sinks.lock().unwrap();
    let Some(sink) = sinks.get_mut(&name) else {
        return failure(StatusCode::NOT_FOUND, "NotFound");
    };
    sink["status"] = applied["status"].clone();
    Json(sink.clone()).into_response()
}

async fn secret(State(cluster): State<Arc<Cluster>>, Path(name): Path<String>) -> Response {
    use base64::Engine as _;
    match cluster.sinks.secrets.lock().unwrap().get(&name) {
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
        Some(None) => failure(StatusCode::FORBIDDEN, "Forbidden"),
        Some(Some(token)) => {
            let token = base64::engine::general_purpose::STANDARD.encode(token);
            Json(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"token": token}})).into_response()
        }
    }
}

fn parse(query: Option<String>) -> BTreeMap<String, String> {
    let query = query.unwrap_or_default();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": "no", "code": code.as_u16()});
    (code, Json(status)).into_response()
}
