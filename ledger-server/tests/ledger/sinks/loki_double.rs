//! What Loki of today does and the version of `loki.rs` cannot show: gzip, structured metadata, entries out of order within a window, waits that are asked for. A double written after Loki's documentation of its API
//! and the words of its errors.

use std::{
    collections::BTreeSet,
    io::Read as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicUsize, Ordering},
    },
    time::Instant,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::{front::Front, *};
use crate::api_server::served;

/// Streams without a window: an entry is where its labels, time and line are, however often it comes.
#[derive(Default)]
struct Double {
    /// Status that it answers with; 0 is its own.
    says: AtomicU16,
    asked: Mutex<Vec<Instant>>,
    /// It has no structured metadata.
    is_old: std::sync::atomic::AtomicBool,
    /// Number of a record that is behind its window.
    behind: AtomicUsize,
    /// Entries that came again.
    copies: AtomicUsize,
    entries: Mutex<BTreeSet<(String, String, String, String)>>,
}

impl Double {
    fn start() -> (Arc<Self>, u16) {
        let double = Arc::new(Self::default());
        let router = Router::new()
            .route("/tenants/loki/api/v1/push", post(push))
            .with_state(double.clone());
        (double, served(router).port())
    }

    fn lines(&self) -> Vec<String> {
        let entries = self.entries.lock().unwrap();
        entries.iter().map(|(_, _, line, _)| line.clone()).collect()
    }
}

async fn push(State(double): State<Arc<Double>>, headers: HeaderMap, body: Bytes) -> Response {
    double.asked.lock().unwrap().push(Instant::now());
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["x-scope-orgid"], "audit");
    match double.says.load(Ordering::Relaxed) {
        0 => {}
        429 => {
            let words = "Ingestion rate limit exceeded for user audit";
            return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3")], words).into_response();
        }
        status => return StatusCode::from_u16(status).unwrap().into_response(),
    }
    let mut text = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    let request: Value = serde_json::from_str(&text).unwrap();
    let mut behind = None;
    for stream in request["streams"].as_array().unwrap() {
        let values = stream["values"].as_array().unwrap();
        let mut ignored = 0;
        for value in values {
            let metadata = &value[2];
            if double.is_old.load(Ordering::Relaxed) && metadata.is_object() {
                let words = "stream '{kind=\"dns\"}' includes structured metadata, but this feature is disallowed. Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it.";
                return (StatusCode::BAD_REQUEST, words).into_response();
            }
            let behind = double.behind.load(Ordering::Relaxed).to_string();
            if behind != "0" && metadata["seq"] == behind && stream["stream"]["kind"] == "dns" {
                ignored += 1;
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let entry = (
                stream["stream"].to_string(),
                text(&value[0]),
                text(&value[1]),
                metadata.to_string(),
            );
            if !double.entries.lock().unwrap().insert(entry) {
                double.copies.fetch_add(1, Ordering::Relaxed);
            }
        }
        if ignored > 0 {
            let of = values.len();
            behind = Some(format!(
                "entry with timestamp 2026-11-29 09:00:01 +0000 UTC ignored, reason: 'entry too far behind, entry timestamp is: 2026-11-29T09:00:01Z, oldest acceptable timestamp is: 2026-11-29T10:00:01Z',\nuser 'audit', total ignored: {ignored} out of {of} for stream: {{}}"
            ));
        }
    }
    match behind {
        Some(words) => (StatusCode::BAD_REQUEST, words).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

fn sink(feed: &Feed, port: u16, structured: bool) -> String {
    json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "loki"},
        "spec": {
            "loki": {
                "url": format!("https://localhost:{port}/tenants/"), "caBundle": feed.root(), "tenant": "audit",
                "bearerTokenSecret": {"name": "loki", "key": "token"}, "structuredMetadata": structured
            },
            "batch": {"records": 50}
        }
    })
    .to_string()
}

#[test]
fn loki_of_today_gets_everything_with_structured_metadata_and_is_waited_for() {
    let mut feed = Feed::new("sinks-loki-double");
    let (double, plain) = Double::start();
    let (front, port) = Front::start(&feed.world, plain, "Bearer t0ken");
    feed.world.set_secret("loki", "token", "t0ken\n");
    feed.world.set_sinks(&sink(&feed, port, true));
    feed.start();
    feed.grow(100);
    feed.drained("loki");
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(double.lines()), sorted(feed.records()));
    for (labels, _, line, metadata) in double.entries.lock().unwrap().iter() {
        let record: Value = serde_json::from_str(line).unwrap();
        let metadata: Value = serde_json::from_str(metadata).unwrap();
        assert_eq!(metadata["stream"], record["stream"]);
        assert_eq!(metadata["seq"], json!(record["seq"].to_string()));
        assert!(metadata["leaf"].is_string() && metadata["level"] == "info");
        assert!(!labels.contains(record["stream"].as_str().unwrap()));
    }
    // It asks for a wait, and gets it.
    double.says.store(429, Ordering::Relaxed);
    double.asked.lock().unwrap().clear();
    feed.grow(30);
    until("it was asked twice", || {
        double.asked.lock().unwrap().len() > 1
    });
    double.says.store(0, Ordering::Relaxed);
    let asked = double.asked.lock().unwrap().clone();
    assert!(asked[1] - asked[0] >= Duration::from_secs(3), "{asked:?}");
    feed.drained("loki");
    // Nothing but 204 counts.
    for status in [200, 202, 503] {
        double.says.store(status, Ordering::Relaxed);
        double.asked.lock().unwrap().clear();
        feed.grow(10);
        until("it was asked", || !double.asked.lock().unwrap().is_empty());
        double.says.store(0, Ordering::Relaxed);
        feed.drained("loki");
    }
    // What comes again is the same entry.
    front.loses.store(true, Ordering::Relaxed);
    let before = feed.errors("loki");
    feed.grow(30);
    until("it was noticed", || feed.errors("loki") > before + 1.0);
    front.loses.store(false, Ordering::Relaxed);
    for _ in 0..3 {
        feed.grow(100);
        feed.kill();
        feed.start();
    }
    feed.drained("loki");
    assert!(double.copies.load(Ordering::Relaxed) >= 30);
    assert_eq!(sorted(double.lines()), sorted(feed.records()));
    assert!(!feed.world.data.join("sinks/loki.refused.jsonl").exists());
}

#[test]
fn what_is_behind_the_window_is_named_and_nothing_else() {
    let mut feed = Feed::new("sinks-loki-behind");
    let (double, plain) = Double::start();
    let (_front, port) = Front::start(&feed.world, plain, "Bearer t0ken");
    double.behind.store(1, Ordering::Relaxed);
    feed.world.set_secret("loki", "token", "t0ken");
    feed.world.set_sinks(&sink(&feed, port, true));
    feed.start();
    feed.grow(40);
    feed.drained("loki");
    let path = feed.world.data.join("sinks/loki.refused.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let named: Value = serde_json::from_str(text.trim()).unwrap();
    assert_eq!(named["seq"], 1, "{text}");
    assert!(named["reason"].as_str().unwrap().contains("too far behind"));
    assert_eq!(double.lines().len(), feed.records().len() - 1);
    assert!(double.asked.lock().unwrap().len() < 10, "it is not halved");
}

#[test]
fn a_loki_without_structured_metadata_says_so_and_gets_everything_without() {
    let mut feed = Feed::new("sinks-loki-old");
    let (double, plain) = Double::start();
    let (_front, port) = Front::start(&feed.world, plain, "Bearer t0ken");
    double.is_old.store(true, Ordering::Relaxed);
    feed.world.set_secret("loki", "token", "t0ken");
    feed.world.set_sinks(&sink(&feed, port, true));
    feed.start();
    feed.grow(30);
    until("it is said", || {
        let metrics = feed.ledger().metrics();
        metrics.contains("reason=\"settings\",sink=\"loki\"")
    });
    assert_eq!(double.lines(), Vec::<String>::new());
    feed.world.set_sinks(&sink(&feed, port, false));
    feed.drained("loki");
    assert_eq!(double.lines().len(), feed.records().len());
}
