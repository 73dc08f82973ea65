//! An API server that answers the questions that the ledger asks.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    thread,
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use base64::Engine as _;
use chaperone_crds::pod::SIDECAR_NAME;
use serde_json::{Value, json};

use super::{
    gaps::api::{self as pods, Pods},
    sinks::api::{self, Api},
};

/// What the API server knows. The token of pod NAME is `pod-NAME`; a token with a dot is a JWT of the user before it, for as long as it says; `reader` may read all, `team` records and sessions of namespace `agents`, `stranger` nothing.
#[derive(Default)]
pub(crate) struct Cluster {
    /// No answers at all.
    pub(crate) down: AtomicBool,
    /// Image IDs that the kubelet has reported.
    pub(crate) image_ids: Mutex<Vec<String>>,
    /// TokenReviews asked for.
    pub(crate) reviews: AtomicU32,
    /// AuditSinks and Secrets.
    pub(crate) sinks: Api,
    /// Pods and namespaces, for who watches them.
    pub(crate) pods: Pods,
    /// Data of the ConfigMap for checkpoints, once something was applied.
    pub(crate) config_map: Mutex<Option<Value>>,
    /// It cannot be written.
    pub(crate) config_map_is_away: AtomicBool,
}

/// An API server on loopback, for as long as the test's process.
pub(crate) fn api_server(cluster: Arc<Cluster>) -> SocketAddr {
    let router = Router::new()
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
        .route(
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            post(access),
        )
        .route("/api/v1/namespaces/agents/pods/{name}", get(pod))
        .route(
            "/apis/chaperone.dev/v1alpha1/namespaces/agents/agentpolicies/coding",
            get(policy),
        )
        .merge(api::router())
        .route(
            "/api/v1/namespaces/chaperone/configmaps/checkpoints",
            patch(config_map),
        )
        .merge(pods::router());
    served(router.with_state(cluster))
}

/// Where this is served on loopback, for as long as the test's process.
pub(crate) fn served(router: Router) -> SocketAddr {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    receiver.recv().unwrap()
}

async fn review(State(cluster): State<Arc<Cluster>>, Json(review): Json<Value>) -> Response {
    cluster.reviews.fetch_add(1, Ordering::Relaxed);
    if cluster.down.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let token = review["spec"]["token"].as_str().unwrap();
    assert_eq!(review["spec"]["audiences"], json!(["chaperone.dev/ledger"]));
    let user = match token.strip_prefix("pod-") {
        Some(pod) => json!({
            "username": "system:serviceaccount:agents:coder", "extra": {
                "authentication.kubernetes.io/pod-name": [pod], "authentication.kubernetes.io/pod-uid": [format!("uid-{pod}")]
            }
        }),
        None => {
            let name = token.split('.').next().unwrap();
            json!({"username": name, "groups": ["system:authenticated"]})
        }
    };
    let status = match token {
        token if has_ended(token) => json!({"authenticated": false}),
        "forged" => json!({"authenticated": false}),
        _ => {
            json!({"authenticated": true, "audiences": review["spec"]["audiences"], "user": user})
        }
    };
    Json(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status}))
        .into_response()
}

fn has_ended(token: &str) -> bool {
    let Some(payload) = token.split('.').nth(1) else {
        return false;
    };
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload);
    let claims: Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    claims["exp"].as_i64().unwrap() <= jiff::Timestamp::now().as_second()
}

/// Generation 3 of the policy that records name.
async fn policy() -> Response {
    Json(json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AgentPolicy",
        "metadata": {"name": "coding", "namespace": "agents", "generation": 3},
        "spec": {"mode": "Enforce", "rules": [
            {"name": "no-delete", "when": "http.method == \"DELETE\" && \"<b>\" != \"\"", "action": "Deny", "message": "Ask a human."}
        ]}
    }))
    .into_response()
}

async fn config_map(State(cluster): State<Arc<Cluster>>, body: axum::body::Bytes) -> Response {
    if cluster.config_map_is_away.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let applied: Value = serde_json::from_slice(&body).unwrap();
    *cluster.config_map.lock().unwrap() = Some(applied["data"].clone());
    Json(applied).into_response()
}

async fn access(Json(review): Json<Value>) -> Response {
    let spec = &review["spec"];
    let resource = &spec["resourceAttributes"];
    let allowed = match spec["user"].as_str().unwrap() {
        "reader" => {
            resource["group"] == "chaperone.dev" || spec["nonResourceAttributes"]["verb"] == "get"
        }
        "team" => resource["group"] == "chaperone.dev" && resource["namespace"] == "agents",
        _ => false,
    };
    Json(json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {}, "status": {"allowed": allowed}
    }))
    .into_response()
}

async fn pod(State(cluster): State<Arc<Cluster>>, UrlPath(name): UrlPath<String>) -> Response {
    let statuses: Vec<_> = cluster
        .image_ids
        .lock()
        .unwrap()
        .iter()
        .map(|id| json!({"name": "agent", "image": "claude:1", "imageID": id, "ready": true, "restartCount": 0}))
        .collect();
    if name.starts_with("gone") {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404});
        return (StatusCode::NOT_FOUND, Json(status)).into_response();
    }
    Json(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "agents", "uid": format!("uid-{name}")},
        "spec": {
            "serviceAccountName": "coder", "nodeName": "node-1",
            "initContainers": [{"name": SIDECAR_NAME}], "containers": [{"name": "agent", "image": "claude:1"}]
        },
        "status": {"containerStatuses": statuses}
    }))
    .into_response()
}
