//! The HTTP kind against an endpoint in this process that keeps what it acknowledged.

use std::{
    io::Read as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
};

use axum::{
    Router, body::Bytes, extract::State, http::StatusCode, response::IntoResponse as _,
    response::Response, routing::post,
};
use flate2::read::GzDecoder;

use super::*;
use crate::api_server::served;

#[derive(Default)]
pub(super) struct Endpoint {
    /// What it answers; 0 is 200.
    answers: AtomicU16,
    requests: AtomicUsize,
    lines: Mutex<Vec<String>>,
    media_types: Mutex<Vec<String>>,
}

impl Endpoint {
    pub(super) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

/// An endpoint on loopback, for as long as the test's process.
pub(super) fn endpoint() -> (Arc<Endpoint>, SocketAddr) {
    let endpoint = Arc::new(Endpoint::default());
    let state = endpoint.clone();
    let router = Router::new().route("/in", post(take)).with_state(state);
    (endpoint, served(router))
}

async fn take(
    State(endpoint): State<Arc<Endpoint>>,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> Response {
    endpoint.requests.fetch_add(1, Ordering::Relaxed);
    let answer = endpoint.answers.load(Ordering::Relaxed);
    let mut text = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(headers["authorization"], "Bearer t0ken");
    if answer == 429 {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response();
    }
    if answer != 0 {
        return StatusCode::from_u16(answer).unwrap().into_response();
    }
    if text.contains("poison") {
        return (StatusCode::BAD_REQUEST, "no such field").into_response();
    }
    endpoint
        .media_types
        .lock()
        .unwrap()
        .push(headers["content-type"].to_str().unwrap().to_owned());
    endpoint
        .lines
        .lock()
        .unwrap()
        .extend(text.lines().map(str::to_owned));
    StatusCode::NO_CONTENT.into_response()
}

pub(super) fn sink(name: &str, address: SocketAddr, more: &str) -> String {
    format!(
        "---\napiVersion: chaperone.dev/v1alpha1\nkind: AuditSink\nmetadata: {{name: {name}}}\nspec:\n  from: Ledger\n  http: {{url: \"http://{address}/in\", allowInsecure: true, bearerTokenSecret: {{name: c, key: token}}}}\n{more}"
    )
}

#[test]
fn an_endpoint_gets_all_records_of_the_log_through_errors_and_kills() {
    let mut feed = Feed::new("sinks-http");
    let (endpoint, address) = endpoint();
    feed.world.set_secret("c", "token", "t0ken\n");
    feed.world
        .set_sinks(&sink("siem", address, "  batch: {records: 20}\n"));
    feed.start();
    feed.grow(100);
    feed.drained("siem");
    for answer in [500, 429, 503] {
        endpoint.answers.store(answer, Ordering::Relaxed);
        let before = endpoint.requests.load(Ordering::Relaxed);
        feed.grow(50);
        until("it was refused", || {
            endpoint.requests.load(Ordering::Relaxed) > before + 1
        });
        endpoint.answers.store(0, Ordering::Relaxed);
        feed.drained("siem");
    }
    assert_all_arrived(&feed.records(), &endpoint.lines());
    assert_eq!(
        endpoint.lines().len(),
        feed.records().len(),
        "nothing came twice"
    );
    // Killed while it delivers: what arrived may come again, and nothing is missing.
    for _ in 0..3 {
        feed.grow(200);
        feed.kill();
        feed.start();
    }
    feed.drained("siem");
    assert_all_arrived(&feed.records(), &endpoint.lines());
    assert!(feed.metric("last_success_timestamp_seconds", "siem") > 1.7e9);
    assert!(
        endpoint
            .media_types
            .lock()
            .unwrap()
            .iter()
            .all(|kind| kind == "application/x-ndjson")
    );
}

#[test]
fn sinks_come_and_go_while_the_ledger_runs_and_each_keeps_its_place() {
    let mut feed = Feed::new("sinks-set");
    let (one, one_at) = endpoint();
    let (two, two_at) = endpoint();
    feed.world.set_secret("c", "token", "t0ken");
    feed.world.set_sinks(&sink("one", one_at, ""));
    feed.start();
    feed.grow(10);
    feed.drained("one");
    let second = sink("two", two_at, "  start: Now\n  format: CloudEvents\n");
    feed.world.set_sinks(&second);
    until("the second runs", || {
        feed.world.data.join("sinks/two.cursor").exists()
    });
    let before = feed.records().len();
    feed.grow(10);
    feed.drained("two");
    assert_eq!(one.lines().len(), before, "the first was removed");
    let events = two.lines().concat().replace("][", ",");
    let events: Vec<serde_json::Value> = serde_json::from_str(&events).unwrap();
    let seqs: Vec<_> = events
        .iter()
        .map(|event| event["data"]["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(
        seqs,
        (10..20).collect::<Vec<_>>(),
        "it began with what came after it"
    );
    // A file that is wrong changes nothing.
    feed.world.set_sinks("kind: AuditSink\n");
    thread::sleep(Duration::from_secs(11));
    feed.grow(5);
    feed.drained("two");
    // The first is there again, and goes on where it was.
    feed.world.set_sinks(&(sink("one", one_at, "") + &second));
    feed.drained("one");
    assert_all_arrived(&feed.records(), &one.lines());
    assert_eq!(
        one.lines().len(),
        feed.records().len(),
        "nothing came twice"
    );
}
