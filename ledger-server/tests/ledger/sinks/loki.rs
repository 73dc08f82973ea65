//! Loki's own server, behind a front that has TLS and a password. It is version 1.6.1 (later ones cannot be part of these tests), built here from pinned modules (`tests/loki`).
//!
//! What that version is, and later ones are not: it takes the entries of a stream in the order of time only; it knows no gzip (the front unpacks it); and it keeps what it has taken in memory until it ends in good order, so
//! it is ended by SIGTERM and not by SIGKILL. What it cannot show is shown by a double in `loki_double.rs`.

use std::{collections::BTreeMap, fs, sync::Arc, sync::atomic::Ordering};

use chaperone_crds::{
    bodies::{Salt, unsalted},
    chain::Chain,
    record::{AgentRef, BodyInfo, Event, EventKind, HttpInfo},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{front::Front, *};
use crate::go;

/// `ledger:s3cret`.
const BASIC: &str = "Basic bGVkZ2VyOnMzY3JldA==";
const TENANT: &str = "audit";

struct Loki {
    folder: PathBuf,
    port: u16,
    grpc: u16,
}

/// What it has: labels and nanoseconds, of each line.
type Entries = BTreeMap<String, Vec<(Value, i128)>>;

impl Loki {
    fn new(world: &World) -> Self {
        let folder = world.folder.join("loki");
        fs::create_dir_all(&folder).unwrap();
        Self {
            folder,
            port: free_port(),
            grpc: free_port(),
        }
    }

    /// With these limits besides the usual.
    fn start_with(&self, limits: &str) -> Server {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        let program = BUILT.get_or_init(|| go::built("loki", "github.com/grafana/loki/cmd/loki"));
        let (folder, port, grpc) = (self.folder.display(), self.port, self.grpc);
        let config = format!(
            r#"
auth_enabled: true
server: {{http_listen_address: 127.0.0.1, http_listen_port: {port}, grpc_listen_address: 127.0.0.1, grpc_listen_port: {grpc}, grpc_server_max_send_msg_size: 67108864, log_level: warn}}
ingester:
  lifecycler: {{address: 127.0.0.1, ring: {{kvstore: {{store: inmemory}}, replication_factor: 1}}, final_sleep: 0s, min_ready_duration: 0s}}
  max_transfer_retries: 0
schema_config: {{configs: [{{from: 2018-04-15, store: boltdb, object_store: filesystem, schema: v11, index: {{prefix: index_, period: 168h}}}}]}}
storage_config: {{boltdb: {{directory: {folder}/index}}, filesystem: {{directory: {folder}/chunks}}}}
limits_config: {{enforce_metric_name: false, reject_old_samples: true, reject_old_samples_max_age: 168h{limits}}}
"#
        );
        let file = self.folder.join("config.yaml");
        fs::write(&file, config).unwrap();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .unwrap();
        let mut command = Command::new(program);
        command
            .arg(format!("-config.file={}", file.display()))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut server = Server::start(&mut command);
        server.listens(self.port);
        // Before that it says that it is not ready.
        until("it is ready", || self.ask("ready", &[]).trim() == "ready");
        server
    }

    fn start(&self) -> Server {
        self.start_with("")
    }

    fn ask(&self, path: &str, parameters: &[String]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-G", "-H"])
            .arg(format!("X-Scope-OrgID: {TENANT}"));
        for parameter in parameters {
            curl.arg("--data-urlencode").arg(parameter);
        }
        let output = curl
            .arg(format!("http://127.0.0.1:{}/{path}", self.port))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// All that it answers a question for everything with.
    fn entries(&self) -> Entries {
        let day = SignedDuration::from_hours(24);
        let parameters = [
            "query={service_name=\"chaperone\"}".to_owned(),
            "limit=5000".to_owned(),
            format!("start={}", (Timestamp::now() - day * 10).as_nanosecond()),
            format!("end={}", (Timestamp::now() + day).as_nanosecond()),
        ];
        let text = self.ask("loki/api/v1/query_range", &parameters);
        let found: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        let mut entries = Entries::new();
        for stream in found["data"]["result"].as_array().unwrap() {
            for value in stream["values"].as_array().unwrap() {
                let time = value[0].as_str().unwrap().parse().unwrap();
                let line = value[1].as_str().unwrap().to_owned();
                let entry = (stream["stream"].clone(), time);
                entries.entry(line).or_default().push(entry);
            }
        }
        entries
    }
}

/// A feed, its Loki and the front before it, with these settings besides the usual.
fn feed(name: &str, more: &Value) -> (Feed, Loki, Arc<Front>) {
    let feed = Feed::new(name);
    let loki = Loki::new(&feed.world);
    let (front, port) = Front::start(&feed.world, loki.port, BASIC);
    front.unzips.store(true, Ordering::Relaxed);
    feed.world.set_secret("loki", "password", "s3cret\n");
    feed.world.set_sinks(&sink(&feed, port, more));
    (feed, loki, front)
}

fn sink(feed: &Feed, port: u16, more: &Value) -> String {
    let mut spec = json!({
        "loki": {
            "url": format!("https://localhost:{port}"), "caBundle": feed.root(), "tenant": TENANT, "labels": {"cluster": "prod"},
            "username": "ledger", "passwordSecret": {"name": "loki", "key": "password"}
        },
        "batch": {"records": 50}
    });
    for (name, value) in more.as_object().unwrap() {
        spec[name] = value.clone();
    }
    json!({"apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "loki"}, "spec": spec}).to_string()
}

/// Records that were refused for good, by leaf, and why.
fn refused(feed: &Feed) -> BTreeMap<usize, String> {
    let path = feed.world.data.join("sinks/loki.refused.jsonl");
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let named = |line: Value| {
        let leaf = usize::try_from(line["leaf"].as_u64().unwrap()).unwrap();
        (leaf, line["reason"].as_str().unwrap().to_owned())
    };
    lines.map(named).collect()
}

/// What the ledger has and Loki has not, by leaf. What is there is there once.
fn missing(feed: &Feed, entries: &Entries) -> Vec<usize> {
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for (line, found) in entries {
        *copies.entry(name(line)).or_default() += found.len();
    }
    let records = feed.records();
    let mut missing = Vec::new();
    for (leaf, line) in records.iter().enumerate() {
        match copies.remove(&name(line)) {
            // The ledger publishes it when it is time for it, which may be since Loki was asked.
            None if line.contains(r#""kind":"ledger.checkpoint""#) => {}
            None => missing.push(leaf),
            copies => assert_eq!(copies, Some(1), "{line}"),
        }
    }
    assert_eq!(copies, BTreeMap::new(), "of no record");
    missing
}

/// Stream and number. On the ledger's disk content stands sealed after the record, so that whole lines of records with content are not the same.
fn name(line: &str) -> String {
    let mut values = serde_json::Deserializer::from_str(line).into_iter::<Value>();
    let record = values.next().unwrap().unwrap();
    format!("{}/{}", record["stream"], record["seq"])
}

/// They are the records' own lines, byte for byte.
fn assert_are_lines(feed: &Feed, entries: &Entries) {
    let records = feed.records();
    assert!(entries.keys().all(|line| records.contains(line)));
}

/// Writes records of a stream with times of the test's choice, so many seconds before now.
struct Timed(Chain, Timestamp);

impl Timed {
    fn new() -> Self {
        Self(Chain::new(stream(1)), Timestamp::now())
    }

    fn append(&mut self, kind: EventKind, ago: i64, out: &mut Vec<u8>) {
        let time = self.1 - SignedDuration::from_secs(ago);
        let event = Event::new(kind, AgentRef::default());
        self.0.append(&event, time, unsalted, out);
    }

    /// The ledger takes DNS queries of these times, the stream's open before the first.
    fn grow(&mut self, feed: &Feed, ago: &[i64]) {
        let mut batch = Vec::new();
        if self.0.next_seq() == 0 {
            // Not behind the ledger's own, which has the same labels and may have been sent before.
            self.append(EventKind::StreamOpen, 0, &mut batch);
        }
        for ago in ago {
            self.append(EventKind::Dns, *ago, &mut batch);
        }
        let (status, body) = feed.ledger().post("pod-coder", &stream(1), &batch);
        assert_eq!(status, 200, "{body}");
    }
}

#[test]
fn loki_has_every_record_once_through_ends_stops_kills_and_lost_answers() {
    let (mut feed, loki, front) = feed("sinks-loki", &json!({}));
    let mut server = loki.start();
    feed.start();
    feed.grow(100);
    feed.drained("loki");
    let entries = loki.entries();
    assert_eq!(missing(&feed, &entries), Vec::<usize>::new());
    assert_are_lines(&feed, &entries);
    assert_eq!(refused(&feed), BTreeMap::new());
    for (line, entry) in &entries {
        let record: Value = serde_json::from_str(line).unwrap();
        let time: Timestamp = record["time"].as_str().unwrap().parse().unwrap();
        let (labels, nanoseconds) = &entry[0];
        assert_eq!(*nanoseconds, time.as_nanosecond());
        assert_eq!(
            (&labels["cluster"], &labels["service_name"], &labels["kind"]),
            (&json!("prod"), &json!("chaperone"), &record["kind"])
        );
        assert!(labels["pod"].is_null() && labels["stream"].is_null());
    }
    assert_eq!(feed.test("loki")["acknowledged"], true);
    // Away.
    server.end();
    feed.grow(60);
    until("it was noticed", || feed.errors("loki") > 1.0);
    server = loki.start();
    feed.drained("loki");
    // It answers nothing for a while, and its answers are lost.
    server.stop();
    feed.grow(60);
    thread::sleep(Duration::from_secs(2));
    server.go_on();
    feed.drained("loki");
    front.loses.store(true, Ordering::Relaxed);
    let before = feed.errors("loki");
    feed.grow(60);
    until("it was noticed", || feed.errors("loki") > before + 1.0);
    front.loses.store(false, Ordering::Relaxed);
    feed.drained("loki");
    // Both end while records are under way.
    for _ in 0..3 {
        feed.grow(200);
        feed.kill();
        feed.start();
        feed.grow(100);
        server.end();
        server = loki.start();
    }
    feed.drained("loki");
    let mut entries = loki.entries();
    let marked =
        |line: &String| line.contains("\"what\":\"sink.test\"") && line.contains("\"seq\":0,");
    entries.retain(|line, _| !marked(line));
    assert_eq!(missing(&feed, &entries), Vec::<usize>::new());
    assert_are_lines(&feed, &entries);
    // What came again was late there, for it is there.
    for why in refused(&feed).values() {
        assert!(why.contains("entry out of order"), "{why}");
    }
    drop(server);
}

#[test]
fn what_comes_late_for_a_strict_server_is_named_and_nothing_else() {
    let (mut feed, loki, _front) = feed("sinks-loki-strict", &json!({}));
    let _server = loki.start();
    feed.start();
    let mut timed = Timed::new();
    // One batch is put in order.
    timed.grow(&feed, &[50, 40, 45, 43, 42, 41]);
    feed.drained("loki");
    assert_eq!(missing(&feed, &loki.entries()), Vec::<usize>::new());
    // The first that are late may take others of their batch with them: after that each stream is asked for by itself.
    timed.grow(&feed, &[48, 47, 30]);
    feed.drained("loki");
    let refused_by_then = refused(&feed);
    let missing_by_then = missing(&feed, &loki.entries());
    assert_eq!(missing_by_then.len(), 2);
    assert!(
        missing_by_then
            .iter()
            .all(|leaf| refused_by_then.contains_key(leaf))
    );
    for ago in [[44, 20, 49], [29, 46, 19]] {
        timed.grow(&feed, &ago);
        feed.drained("loki");
    }
    let missing = missing(&feed, &loki.entries());
    assert_eq!(missing.len(), 2 + 2 + 2);
    let named: Vec<usize> = refused(&feed).into_keys().collect();
    let since = |leaves: &[usize]| -> Vec<usize> {
        let known = missing_by_then.iter().chain(refused_by_then.keys());
        let known: Vec<usize> = known.copied().collect();
        leaves
            .iter()
            .copied()
            .filter(|leaf| !known.contains(leaf))
            .collect()
    };
    assert_eq!(since(&named), since(&missing));
    assert!(
        refused(&feed)
            .values()
            .all(|why| why.contains("entry out of order"))
    );
}

#[test]
fn what_is_too_old_or_too_long_is_named_and_holds_up_nothing() {
    let more = json!({"batch": {"records": 500, "bytes": 16 << 20}});
    let (mut feed, loki, _front) = feed("sinks-loki-limits", &more);
    let mut server = loki.start_with(", max_line_size: 3mb");
    // Nothing was taken yet, and the ledger has records of months ago.
    feed.start();
    let old: Vec<i64> = (0..40).map(|n| (40 - n) * 86_400).collect();
    let mut timed = Timed::new();
    timed.grow(&feed, &old);
    feed.drained("loki");
    let gone = missing(&feed, &loki.entries());
    let named: Vec<usize> = refused(&feed).into_keys().collect();
    assert_eq!((gone.len(), &named), (old.len() - 6, &gone));
    assert!(
        refused(&feed).values().all(|why| why.contains("too old")),
        "{:?}",
        refused(&feed)
    );
    // Three records of 2 MiB are more than Loki's parts take of each other at once; one of 3.5 MiB is longer than this one takes lines.
    let mut lines = Vec::new();
    for text in [2 << 20, 2 << 20, 2 << 20, 7 << 19] {
        let mut event = Event::new(EventKind::Http, AgentRef::default());
        let body = BodyInfo {
            text: Some("x".repeat(text)),
            ..BodyInfo::default()
        };
        event.http = Some(HttpInfo {
            request_body: Some(body),
            ..HttpInfo::default()
        });
        let salt = || Some(Salt::from_random([7; 16]));
        timed.0.append(&event, Timestamp::now(), salt, &mut lines);
    }
    for line in lines.split_inclusive(|b| *b == b'\n') {
        let (status, body) = feed.ledger().post("pod-coder", &stream(1), line);
        assert_eq!(status, 200, "{body}");
    }
    feed.drained("loki");
    let later = missing(&feed, &loki.entries());
    assert_eq!(
        later.len(),
        gone.len() + 1,
        "{later:?} {:?}",
        refused(&feed)
    );
    let named: Vec<usize> = refused(&feed).into_keys().collect();
    assert_eq!(named, later);
    server.end();
}

#[test]
fn settings_that_are_wrong_are_said_and_give_nothing_up() {
    let (mut feed, loki, _front) = feed("sinks-loki-wrong", &json!({}));
    let _server = loki.start();
    let wrong = [
        ("a", json!({"tenant": null}), "unauthorized"),
        (
            "b",
            json!({"passwordSecret": {"name": "loki", "key": "other"}}),
            "unauthorized",
        ),
        ("c", json!({"caBundle": other_root()}), "tls"),
    ];
    feed.world.set_secret("loki", "other", "wr0ng");
    let usual: Value =
        serde_json::from_str(&fs::read_to_string(feed.world.folder.join("sinks.yaml")).unwrap())
            .unwrap();
    let sinks: Vec<String> = wrong
        .iter()
        .map(|(name, more, _)| {
            let mut sink = usual.clone();
            sink["metadata"]["name"] = json!(name);
            for (field, value) in more.as_object().unwrap() {
                sink["spec"]["loki"][field] = value.clone();
            }
            let path = sink["spec"]["loki"].as_object_mut().unwrap();
            path.retain(|_, value| !value.is_null());
            sink.to_string()
        })
        .collect();
    let mut nowhere = usual.clone();
    nowhere["metadata"]["name"] = json!("d");
    let url = format!("{}/nowhere", usual["spec"]["loki"]["url"].as_str().unwrap());
    nowhere["spec"]["loki"]["url"] = json!(url);
    feed.world
        .set_sinks(&format!("{}\n---\n{nowhere}", sinks.join("\n---\n")));
    feed.start();
    feed.grow(10);
    for (name, _, reason) in wrong.iter().chain([&("d", json!({}), "refused")]) {
        until(&format!("{name} fails"), || feed.errors(name) > 0.0);
        assert_eq!(feed.test(name)["reason"], *reason, "{name}");
    }
    assert_eq!(loki.entries(), Entries::new());
    for name in ["a", "b", "c", "d"] {
        let file = feed.world.data.join(format!("sinks/{name}.refused.jsonl"));
        assert!(!file.exists(), "nothing is given up");
    }
}
