//! What the API server says of pods and namespaces: lists, watches that end with "too old" at each change so that who watches lists again; and Events that are written.

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
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::world::Cluster;

/// Pods of namespace `agents`, which is audited, and of `plain`, which is not.
#[derive(Default)]
pub(crate) struct Pods {
    /// The ledger is started so that it watches.
    pub(crate) is_watched: AtomicBool,
    /// No lists and no watches.
    pub(crate) is_down: AtomicBool,
    version: AtomicU64,
    pods: Mutex<BTreeMap<String, Value>>,
    events: Mutex<Vec<Value>>,
}

impl Pods {
    /// Applies a pod; none removes it.
    pub(crate) fn set(&self, name: &str, pod: Option<Value>) {
        let mut pods = self.pods.lock().unwrap();
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        match pod {
            None => drop(pods.remove(name)),
            Some(mut pod) => {
                pod["metadata"]["resourceVersion"] = json!(version.to_string());
                pods.insert(name.to_owned(), pod);
            }
        }
    }

    /// A pod that runs, as the webhook makes them, with this changed.
    pub(crate) fn run(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "agents", "uid": format!("uid-{name}")},
            "spec": {
                "serviceAccountName": "coder", "nodeName": "node-1", "initContainers": [{"name": "chaperone-sidecar"}], "containers": [{"name": "agent"}],
                "volumes": [{"name": "chaperone-token", "projected": {"sources": [
                    {"serviceAccountToken": {"audience": "chaperone.dev/ledger", "path": "ledger-token"}}]}}]
            },
            "status": {"phase": "Running", "startTime": "2026-11-29T10:00:00Z", "containerStatuses": [
                {"name": "agent", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}]}
        });
        change(&mut pod);
        self.set(name, Some(pod));
    }

    /// Events: reason, pod, text.
    pub(crate) fn events(&self) -> Vec<[String; 3]> {
        let events = self.events.lock().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        events
            .iter()
            .map(|e| {
                [
                    text(&e["reason"]),
                    text(&e["regarding"]["name"]),
                    text(&e["note"]),
                ]
            })
            .collect()
    }
}

pub(crate) fn router() -> Router<Arc<Cluster>> {
    let events = "/apis/events.k8s.io/v1/namespaces/agents/events";
    Router::new()
        .route("/api/v1/pods", get(pods))
        .route("/api/v1/namespaces", get(namespaces))
        .route(events, post(event))
}

async fn pods(State(cluster): State<Arc<Cluster>>, RawQuery(query): RawQuery) -> Response {
    let list = || {
        cluster
            .pods
            .pods
            .lock()
            .unwrap()
            .values()
            .cloned()
            .collect()
    };
    answer(&cluster.pods, query, "PodList", list, true).await
}

async fn namespaces(State(cluster): State<Arc<Cluster>>, RawQuery(query): RawQuery) -> Response {
    let list = || {
        vec![
            json!({"metadata": {"name": "agents", "labels": {"chaperone.dev/audit": "enabled"}}}),
            json!({"metadata": {"name": "plain"}}),
        ]
    };
    answer(&cluster.pods, query, "NamespaceList", list, false).await
}

async fn answer(
    api: &Pods,
    query: Option<String>,
    kind: &str,
    list: impl Fn() -> Vec<Value>,
    changes: bool,
) -> Response {
    if api.is_down.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let query = query.unwrap_or_default();
    let version = || api.version.load(Ordering::SeqCst);
    if query.contains("watch=true") {
        let seen = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("resourceVersion="));
        let seen: u64 = seen.and_then(|v| v.parse().ok()).unwrap_or(0);
        while !changes || version() == seen {
            if api.is_down.load(Ordering::SeqCst) {
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let gone = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "message": "too old", "code": 410}});
        return format!("{gone}\n").into_response();
    }
    let before = version();
    Json(json!({"apiVersion": "v1", "kind": kind, "metadata": {"resourceVersion": before.to_string()}, "items": list()})).into_response()
}

async fn event(State(cluster): State<Arc<Cluster>>, body: Bytes) -> Response {
    let event: Value = serde_json::from_slice(&body).unwrap();
    cluster.pods.events.lock().unwrap().push(event.clone());
    (StatusCode::CREATED, Json(event)).into_response()
}
