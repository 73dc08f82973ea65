//! The control server against an API server that is a router in memory.

use std::sync::Mutex;

use axum::{body::to_bytes, http::Method};
use chaperone_server::workload::identity as pod_identity;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::Value;

use super::*;
use crate::{
    certificates::authority::tests::{authority, request as signing_request},
    index::{World, index},
    inject::inject,
    lifecycle::Lifecycle,
    settings::{Settings, tests::settings},
    stores::Stores,
};

/// What the API server was asked to patch.
type Patches = Arc<Mutex<Vec<Value>>>;

/// An API server that accepts the token `good` as the sidecar of agents/claude-0, and takes status patches.
fn api_server(patches: Patches) -> Client {
    let review = |Json(review): Json<Value>| async move {
        let is_good = review["spec"]["token"] == "good";
        Json(json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {},
            "status": {
                "authenticated": is_good, "audiences": review["spec"]["audiences"],
                "user": {"username": "system:serviceaccount:agents:default", "extra": {
                    "authentication.kubernetes.io/pod-name": ["claude-0"], "authentication.kubernetes.io/pod-uid": ["u1"]
                }}
            }
        }))
    };
    let patch = move |Json(patch): Json<Value>| async move {
        patches.lock().unwrap().push(patch);
        Json(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "claude-0"}}))
    };
    let router = Router::new()
        .route("/apis/authentication.k8s.io/v1/tokenreviews", post(review))
        .route(
            "/api/v1/namespaces/agents/pods/claude-0/status",
            axum::routing::patch(patch),
        );
    Client::new(router, "default")
}

/// The pod agents/claude-0 as it is after injection.
fn injected(settings: &Settings) -> Pod {
    let pod = json!({
        "metadata": {"name": "claude-0", "namespace": "agents", "uid": "u1"},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "agent", "image": "claude"}]}
    });
    let patch = serde_json::to_value(inject(&pod, &settings.shape("PEM")).patch).unwrap();
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    let mut pod = pod;
    json_patch::patch(&mut pod, &patch).unwrap();
    serde_json::from_value(pod).unwrap()
}

fn namespace(labels: Value) -> Namespace {
    serde_json::from_value(json!({"metadata": {"name": "agents", "labels": labels}})).unwrap()
}

struct Harness {
    router: Router,
    patches: Patches,
    _lifecycle: Lifecycle,
}

fn control(namespace_labels: Value) -> Harness {
    let settings = Arc::new(settings(&[]));
    let pod = injected(&settings);
    let stores = Stores::fixed(vec![pod.clone()], vec![namespace(namespace_labels)]);
    let patches = Patches::default();
    let client = api_server(Arc::clone(&patches));
    let plans = Plans::default();
    let world = World {
        pods: vec![pod_identity(&pod)],
        namespaces: [("agents".to_owned(), Default::default())].into(),
        ..World::default()
    };
    plans.publish(&index(&world, |_| Ok(())));
    let (lifecycle, signals) = Lifecycle::start();
    let (_, authority) = watch::channel(Some(Arc::new(authority())));
    let control = Control {
        identities: Identities::new(client.clone(), stores, settings),
        client,
        plans,
        authority,
        metrics: Metrics::new(),
        signals,
    };
    Harness {
        router: router(Arc::new(control)),
        patches,
        _lifecycle: lifecycle,
    }
}

impl Harness {
    async fn call(&self, method: Method, path: &str, token: &str, body: Value) -> Response {
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(body.to_string()))
            .unwrap();
        let service = TowerToHyperService::new(self.router.clone());
        service.call(request).await.unwrap()
    }
}

fn audited() -> Value {
    json!({"chaperone.dev/audit": "enabled"})
}

async fn text(response: Response) -> String {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_sidecar_gets_its_intermediate_signed_for_its_own_name() {
    let control = control(audited());
    let body = json!({"csr": signing_request()});
    let response = control
        .call(Method::POST, "/v1/certificates", "good", body)
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    let answer: CertificateResponse = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(answer.chain.matches("BEGIN CERTIFICATE").count(), 2);
}

#[tokio::test]
async fn a_sidecar_gets_its_configuration_at_once() {
    let control = control(audited());
    let response = control
        .call(Method::GET, "/v1/stream", "good", Value::Null)
        .await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/x-ndjson");
    let mut lines = response.into_body().into_data_stream();
    let line = futures::StreamExt::next(&mut lines).await.unwrap().unwrap();
    let message: Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(message["config"]["identity"]["uid"], "u1");
}

#[tokio::test]
async fn acknowledgements_become_the_pods_condition() {
    let control = control(audited());
    for (body, status, message) in [
        (json!({"revision": "abc", "accepted": true}), "True", "abc"),
        (
            json!({"revision": "abc", "accepted": false, "error": "no"}),
            "False",
            "abc: no",
        ),
    ] {
        let response = control.call(Method::POST, "/v1/acks", "good", body).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        let patch = control.patches.lock().unwrap().pop().unwrap();
        let condition = &patch["status"]["conditions"][0];
        assert_eq!(condition["type"], "chaperone.dev/PolicyApplied");
        assert_eq!(
            (&condition["status"], &condition["message"]),
            (&json!(status), &json!(message))
        );
        assert_eq!(patch["metadata"]["uid"], "u1");
    }
}

#[tokio::test]
async fn whoever_is_not_a_sidecar_of_an_audited_namespace_is_refused() {
    for (control, token, status) in [
        (control(audited()), "forged", StatusCode::UNAUTHORIZED),
        (control(json!({})), "good", StatusCode::FORBIDDEN),
    ] {
        for (method, path) in [
            (Method::POST, "/v1/certificates"),
            (Method::GET, "/v1/stream"),
            (Method::POST, "/v1/acks"),
        ] {
            let body = json!({"csr": signing_request(), "revision": "x", "accepted": true});
            let response = control.call(method, path, token, body).await;
            assert_eq!(response.status(), status, "{path}");
        }
        assert!(control.patches.lock().unwrap().is_empty());
    }
}

#[tokio::test]
async fn bodies_that_are_odd_or_too_large_are_refused() {
    let control = control(audited());
    for body in [
        json!({}),
        json!({"csr": "x"}),
        json!({"csr": "x".repeat(MAX_BODY_BYTES)}),
    ] {
        let response = control
            .call(Method::POST, "/v1/certificates", "good", body)
            .await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
}
