//! The HTTP Event Collector, behind a front with TLS and a token. Splunk's server is not to be had for tests, and neither are all parts of the OpenTelemetry collector's receiver of the same protocol, so the collector here is
//! a double, written after Splunk's documentation of the protocol: events one after the other, channels, acknowledgements that are true once and then forgotten, codes of errors.

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
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

/// A collector whose indexer takes its time: events are indexed when their acknowledgement is asked for the second time.
#[derive(Default)]
struct Hec {
    /// Code that it answers with, and status; 0 is success.
    says: Mutex<(u16, u32)>,
    /// The token has no acknowledgement.
    plain: AtomicBool,
    /// The indexer is away.
    holds: AtomicBool,
    asked: AtomicUsize,
    longest: AtomicU16,
    state: Mutex<Indexer>,
}

#[derive(Default)]
struct Indexer {
    last: u64,
    /// Channel and number: times asked, and events.
    pending: BTreeMap<(String, u64), (u32, Vec<Value>)>,
    indexed: Vec<Value>,
}

impl Hec {
    fn start() -> (Arc<Self>, u16) {
        let hec = Arc::new(Self::default());
        let router = Router::new()
            .route("/services/collector/event", post(event))
            .route("/services/collector/ack", post(ack))
            .with_state(hec.clone());
        (hec, served(router).port())
    }

    fn say(&self, status: u16, code: u32) {
        *self.says.lock().unwrap() = (status, code);
    }

    fn events(&self) -> Vec<Value> {
        self.state.lock().unwrap().indexed.clone()
    }

    fn lines(&self) -> Vec<String> {
        let events = self.events();
        events
            .iter()
            .map(|event| event["event"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The indexer dies with what it has not indexed.
    fn die(&self) {
        self.state.lock().unwrap().pending.clear();
    }
}

fn said(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

fn channel(headers: &HeaderMap) -> Option<String> {
    let channel = headers.get("x-splunk-request-channel")?.to_str().unwrap();
    let lengths: Vec<_> = channel.split('-').map(str::len).collect();
    assert_eq!(lengths, [8, 4, 4, 4, 12], "{channel}");
    Some(channel.to_owned())
}

async fn event(State(hec): State<Arc<Hec>>, headers: HeaderMap, body: Bytes) -> Response {
    hec.asked.fetch_add(1, Ordering::Relaxed);
    let (status, code) = *hec.says.lock().unwrap();
    if status != 0 {
        return said(status, json!({"text": "no", "code": code}));
    }
    let mut text = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
    let events = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let events: Vec<Value> = events.map(Result::unwrap).collect();
    let length = u16::try_from(events.len()).unwrap();
    hec.longest.fetch_max(length, Ordering::Relaxed);
    if events
        .iter()
        .any(|event| event["fields"]["chaperone_seq"] == "7")
    {
        return said(
            400,
            json!({"text": "Invalid data format", "code": 6, "invalid-event-number": 0}),
        );
    }
    let mut indexer = hec.state.lock().unwrap();
    if hec.plain.load(Ordering::Relaxed) {
        indexer.indexed.extend(events);
        return said(200, json!({"text": "Success", "code": 0}));
    }
    let Some(channel) = channel(&headers) else {
        return said(400, json!({"text": "Data channel is missing", "code": 10}));
    };
    indexer.last += 1;
    let number = indexer.last;
    indexer.pending.insert((channel, number), (0, events));
    said(200, json!({"text": "Success", "code": 0, "ackId": number}))
}

async fn ack(State(hec): State<Arc<Hec>>, headers: HeaderMap, body: Bytes) -> Response {
    if hec.plain.load(Ordering::Relaxed) {
        return said(400, json!({"text": "ACK is disabled", "code": 14}));
    }
    let channel = channel(&headers).unwrap();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let mut indexer = hec.state.lock().unwrap();
    let mut acks = serde_json::Map::new();
    for number in asked["acks"].as_array().unwrap() {
        let key = (channel.clone(), number.as_u64().unwrap());
        let is_indexed = match indexer.pending.get_mut(&key) {
            Some((times, _)) if !hec.holds.load(Ordering::Relaxed) => {
                *times += 1;
                *times == 2
            }
            _ => false,
        };
        if is_indexed {
            let (_, events) = indexer.pending.remove(&key).unwrap();
            indexer.indexed.extend(events);
        }
        acks.insert(number.to_string(), json!(is_indexed));
    }
    said(200, json!({"acks": acks}))
}

fn sink(feed: &Feed, port: u16, more: &Value) -> String {
    let mut splunk = json!({
        "url": format!("https://localhost:{port}"), "caBundle": feed.root(), "index": "audit", "tokenSecret": {"name": "splunk", "key": "token"}
    });
    splunk
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "splunk"},
        "spec": {"splunk": splunk, "batch": {"records": 100}}
    })
    .to_string()
}

/// The record that the double refuses for good is everywhere but there.
fn but_the_refused(feed: &Feed) -> Vec<String> {
    let records = feed.records().into_iter();
    records
        .filter(|line| !line.contains(&format!("\"stream\":\"{}\",\"seq\":7,", stream(1))))
        .collect()
}

#[test]
fn a_collector_gets_everything_and_what_its_indexer_lost_comes_again() {
    let mut feed = Feed::new("sinks-splunk");
    let (hec, plain) = Hec::start();
    let (front, port) = Front::start(&feed.world, plain, "Splunk t0ken");
    feed.world.set_secret("splunk", "token", "t0ken\n");
    feed.world.set_sinks(&sink(&feed, port, &json!({})));
    feed.start();
    feed.grow(100);
    feed.drained("splunk");
    assert_eq!(feed.metric("refused_records_total", "splunk"), 1.0, "seq 7");
    let mut arrived = hec.lines();
    arrived.sort();
    let mut expected = but_the_refused(&feed);
    expected.sort();
    assert_eq!(arrived, expected, "once, byte for byte");
    let events = hec.events();
    let event = events
        .iter()
        .find(|event| event["fields"]["chaperone_seq"] == "3")
        .unwrap();
    assert_eq!(
        (&event["index"], &event["source"], &event["sourcetype"]),
        (
            &json!("audit"),
            &json!("chaperone"),
            &json!("chaperone:record")
        )
    );
    assert!(event["time"].as_f64().unwrap() > 1.7e9);
    assert_eq!(
        event["fields"]["chaperone_stream"],
        json!(stream(1).to_string())
    );

    // Busy, and broken: nothing is lost and nothing comes twice.
    for (status, code) in [(503, 9), (500, 8), (403, 4)] {
        let before = hec.asked.load(Ordering::Relaxed);
        hec.say(status, code);
        feed.grow(30);
        until("it was refused", || {
            hec.asked.load(Ordering::Relaxed) > before
        });
        hec.say(0, 0);
        // After what a person must mend, the next try is some seconds away.
        feed.drained("splunk");
    }
    assert_eq!(hec.lines().len(), but_the_refused(&feed).len());
    // Its answers are lost: what came meanwhile comes again.
    front.loses.store(true, Ordering::Relaxed);
    feed.grow(30);
    until("it was noticed", || feed.errors("splunk") > 5.0);
    front.loses.store(false, Ordering::Relaxed);
    feed.drained("splunk");
    // The indexer dies with what it has: no acknowledgement comes, and the batch is sent again.
    hec.holds.store(true, Ordering::Relaxed);
    let before = hec.asked.load(Ordering::Relaxed);
    feed.grow(30);
    until("they are with the indexer", || {
        hec.asked.load(Ordering::Relaxed) > before
    });
    hec.die();
    hec.holds.store(false, Ordering::Relaxed);
    feed.drained("splunk");
    for _ in 0..3 {
        feed.grow(100);
        feed.kill();
        feed.start();
    }
    feed.drained("splunk");
    let (arrived, mut expected) = (hec.lines(), but_the_refused(&feed));
    let mut firsts: Vec<_> = first_copies(&arrived).into_iter().cloned().collect();
    firsts.sort();
    expected.sort();
    assert_eq!(firsts, expected);
    assert!(hec.longest.load(Ordering::Relaxed) <= 100);
}

#[test]
fn a_token_without_acknowledgement_is_said_and_one_that_is_wrong_gets_nothing() {
    let mut feed = Feed::new("sinks-splunk-wrong");
    let (hec, plain) = Hec::start();
    let (_front, port) = Front::start(&feed.world, plain, "Splunk t0ken");
    hec.plain.store(true, Ordering::Relaxed);
    feed.world.set_secret("splunk", "token", "wrong");
    feed.world
        .set_sinks(&sink(&feed, port, &json!({"acknowledge": false})));
    feed.start();
    feed.grow(5);
    let says = |feed: &Feed, reason: &str| {
        feed.ledger()
            .metrics()
            .contains(&format!("reason=\"{reason}\",sink=\"splunk\""))
    };
    until("the token is refused", || says(&feed, "unauthorized"));
    assert_eq!(hec.asked.load(Ordering::Relaxed), 0);
    feed.world.set_secret("splunk", "token", "t0ken");
    feed.drained("splunk");
    assert_eq!(hec.lines(), feed.records());
    // Asked for what the token has not.
    feed.world.set_sinks(&sink(&feed, port, &json!({})));
    thread::sleep(Duration::from_secs(11));
    feed.grow(1);
    until("it has no acknowledgement", || says(&feed, "settings"));
    feed.world
        .set_sinks(&sink(&feed, port, &json!({"caBundle": other_root()})));
    until("it is not trusted", || says(&feed, "tls"));
}
