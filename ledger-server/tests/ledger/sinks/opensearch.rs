//! The bulk API against OpenSearch's own server, behind a front that has TLS and a password. Elasticsearch's is not published as a library; the API is the same.

use std::{collections::BTreeMap, fs, sync::atomic::Ordering};

use serde_json::{Value, json};

use super::{front::Front, *};
use crate::jars;

/// `ledger:s3cret`.
const BASIC: &str = "Basic bGVkZ2VyOnMzY3JldA==";

struct OpenSearch {
    folder: PathBuf,
    port: u16,
}

impl OpenSearch {
    fn new(world: &World) -> Self {
        let folder = world.folder.join("opensearch");
        fs::create_dir_all(folder.join("config")).unwrap();
        let port = free_port();
        Self { folder, port }
    }

    fn start(&self) -> Server {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut command = jars::java("opensearch", "Server.java", 512);
        command
            .arg(&self.folder)
            .arg(self.port.to_string())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut server = Server::start(&mut command);
        server.listens(self.port);
        until("it answers", || {
            self.ask("GET", "_cluster/health", None)["status"].is_string()
        });
        server
    }

    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-X", method, "-H", "Content-Type: application/json"]);
        if let Some(body) = body {
            curl.arg("-d").arg(body.to_string());
        }
        let output = curl
            .arg(format!("http://127.0.0.1:{}/{path}", self.port))
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Documents of an index, in no order.
    fn documents(&self, index: &str) -> Vec<Value> {
        self.ask("POST", &format!("{index}/_refresh"), None);
        let found = self.ask("GET", &format!("{index}/_search?size=10000"), None);
        let hits = found["hits"]["hits"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        hits.into_iter().map(|hit| hit["_source"].clone()).collect()
    }
}

fn sink(feed: &Feed, port: u16, more: &Value) -> String {
    let mut elasticsearch = json!({
        "url": format!("https://localhost:{port}"), "index": "audit", "caBundle": feed.root(),
        "username": "ledger", "passwordSecret": {"name": "search", "key": "password"}
    });
    elasticsearch
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "search"},
        "spec": {"elasticsearch": elasticsearch, "batch": {"records": 20}}
    })
    .to_string()
}

/// By name, so that order means nothing and a document that is there twice shows.
fn by_name(records: impl IntoIterator<Item = Value>) -> BTreeMap<String, Vec<Value>> {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in records {
        let name = format!("{}/{}", record["stream"], record["seq"]);
        found.entry(name).or_default().push(record);
    }
    found
}

fn in_ledger(feed: &Feed) -> BTreeMap<String, Vec<Value>> {
    by_name(
        feed.records()
            .iter()
            .map(|line| serde_json::from_str(line).unwrap()),
    )
}

#[test]
fn an_index_gets_every_record_once_through_crashes_stops_kills_and_lost_answers() {
    let mut feed = Feed::new("sinks-opensearch");
    let opensearch = OpenSearch::new(&feed.world);
    let mut server = opensearch.start();
    let (front, port) = Front::start(&feed.world, opensearch.port, BASIC);
    feed.world.set_secret("search", "password", "s3cret\n");
    feed.world.set_sinks(&sink(&feed, port, &json!({})));
    feed.start();
    feed.grow(100);
    feed.drained("search");
    let is_all = |feed: &Feed| assert_eq!(by_name(opensearch.documents("audit")), in_ledger(feed));
    is_all(&feed);
    let mapping = opensearch.ask("GET", "audit/_mapping", None);
    let headers =
        &mapping["audit"]["mappings"]["properties"]["http"]["properties"]["requestHeaders"];
    assert_eq!(
        headers["enabled"], false,
        "agents make no fields: {mapping}"
    );
    // Answers are lost: what is sent again is there already.
    front.loses.store(true, Ordering::Relaxed);
    let before = front.passed.load(Ordering::Relaxed);
    feed.grow(60);
    until("answers were lost", || {
        front.passed.load(Ordering::Relaxed) > before + 3
    });
    front.loses.store(false, Ordering::Relaxed);
    feed.drained("search");
    is_all(&feed);
    // The disk is full, as the server sees it: it says 429 of each record.
    opensearch.ask(
        "PUT",
        "audit/_settings",
        Some(json!({"index.blocks.read_only_allow_delete": true})),
    );
    feed.grow(30);
    until("it is throttled", || {
        feed.ledger()
            .metrics()
            .contains("reason=\"throttled\",sink=\"search\"")
    });
    opensearch.ask(
        "PUT",
        "audit/_settings",
        Some(json!({"index.blocks.read_only_allow_delete": null})),
    );
    feed.drained("search");
    // Killed, away for a while, and stopped.
    server.kill();
    feed.grow(60);
    until("it was noticed", || feed.errors("search") > 2.0);
    server = opensearch.start();
    feed.drained("search");
    server.stop();
    feed.grow(60);
    thread::sleep(Duration::from_secs(2));
    server.go_on();
    feed.drained("search");
    // The ledger is killed while it delivers.
    for _ in 0..3 {
        feed.grow(200);
        feed.kill();
        feed.start();
    }
    feed.drained("search");
    is_all(&feed);
    drop(server);
}

#[test]
fn records_that_an_index_cannot_take_are_named_and_data_streams_take_ecs() {
    let mut feed = Feed::new("sinks-opensearch-refused");
    let opensearch = OpenSearch::new(&feed.world);
    let _server = opensearch.start();
    let (_front, port) = Front::start(&feed.world, opensearch.port, BASIC);
    feed.world.set_secret("search", "password", "s3cret");
    // An index of somebody else's making that has no numbers above 29.
    opensearch.ask(
        "PUT",
        "audit",
        Some(json!({"mappings": {"properties": {"seq": {"type": "byte"}}}})),
    );
    feed.world.set_sinks(&sink(&feed, port, &json!({})));
    feed.start();
    feed.grow(200);
    feed.drained("search");
    // 128 and more are no bytes.
    assert_eq!(feed.metric("refused_records_total", "search"), 72.0);
    let named = fs::read_to_string(feed.world.data.join("sinks/search.refused.jsonl")).unwrap();
    assert_eq!(named.lines().count(), 72);
    let first: Value = serde_json::from_str(named.lines().next().unwrap()).unwrap();
    assert_eq!(first["seq"], 128);
    let others = in_ledger(&feed)
        .into_values()
        .flatten()
        .filter(|record| record["seq"].as_u64() < Some(128));
    assert_eq!(by_name(opensearch.documents("audit")), by_name(others));

    // A data stream wants @timestamp, which ECS has.
    let template = json!({"index_patterns": ["logs-*"], "data_stream": {}, "priority": 200});
    opensearch.ask("PUT", "_index_template/logs", Some(template));
    let stream = sink(&feed, port, &json!({"index": "logs-chaperone"}));
    let stream = stream.replace("\"name\":\"search\"}", "\"name\":\"ecs\"}");
    let mut stream: Value = serde_json::from_str(&stream).unwrap();
    stream["spec"]["elasticsearch"]["passwordSecret"]["name"] = json!("search");
    feed.world.set_sinks(&stream.to_string());
    until("it is not believed", || feed.errors("ecs") > 0.0);
    assert!(
        !feed.world.data.join("sinks/ecs.refused.jsonl").exists(),
        "nothing is given up"
    );
    stream["spec"]["format"] = json!("ECS");
    feed.world.set_sinks(&stream.to_string());
    feed.drained("ecs");
    let events = opensearch.documents("logs-chaperone");
    assert_eq!(
        by_name(events.into_iter().map(|event| event["chaperone"].clone())),
        in_ledger(&feed)
    );
}

#[test]
fn a_cluster_that_does_not_know_the_ledger_or_is_not_trusted_gets_nothing() {
    let mut feed = Feed::new("sinks-opensearch-wrong");
    let opensearch = OpenSearch::new(&feed.world);
    let _server = opensearch.start();
    let (front, port) = Front::start(&feed.world, opensearch.port, BASIC);
    let (elsewhere, at) = Front::start_at([127, 0, 0, 2], &feed.world, opensearch.port, BASIC);
    feed.world.set_secret("search", "password", "wrong");
    let wrong = [
        ("a", json!({}), "unauthorized"),
        ("b", json!({"caBundle": other_root()}), "tls"),
        // A name that the certificate has not.
        (
            "c",
            json!({"url": format!("https://127.0.0.2:{at}")}),
            "tls",
        ),
    ];
    let sinks = wrong.iter().map(|(name, more, _)| {
        sink(&feed, port, more).replace(
            "\"metadata\":{\"name\":\"search\"}",
            &format!("\"metadata\":{{\"name\":\"{name}\"}}"),
        )
    });
    feed.world
        .set_sinks(&sinks.collect::<Vec<_>>().join("\n---\n"));
    feed.start();
    feed.grow(10);
    for (name, _, reason) in wrong {
        let line = format!("reason=\"{reason}\",sink=\"{name}\"");
        until(&format!("{name} fails"), || {
            feed.ledger().metrics().contains(&line)
        });
    }
    assert_eq!(
        front.passed.load(Ordering::Relaxed) + elsewhere.passed.load(Ordering::Relaxed),
        0
    );
}
