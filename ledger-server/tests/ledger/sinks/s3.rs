//! S3 against the Versity gateway (`tests/s3`), which checks signatures and checksums as S3 does and keeps objects as files: over TLS.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::{go, python};

pub(crate) struct Gateway {
    folder: PathBuf,
    pub(crate) port: u16,
}

impl Gateway {
    pub(crate) fn new(world: &World) -> Self {
        let folder = world.folder.join("s3");
        fs::create_dir_all(folder.join("store/audit")).unwrap();
        let port = free_port();
        Self { folder, port }
    }

    pub(crate) fn start(&self) -> Server {
        static BUILT: OnceLock<PathBuf> = OnceLock::new();
        let program =
            BUILT.get_or_init(|| go::built("s3", "github.com/versity/versitygw/cmd/versitygw"));
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let tls = |file: &str| self.folder.join("..").join(file);
        let mut command = Command::new(program);
        command
            .args(["--access", "ledger", "--secret", "s3cret", "--port"])
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("--cert")
            .arg(tls("tls.crt"))
            .arg("--key")
            .arg(tls("tls.key"))
            .args(["posix", "--sidecar"])
            .arg(self.folder.join("meta"))
            .arg(self.folder.join("store"))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        fs::create_dir_all(self.folder.join("meta")).unwrap();
        let mut server = Server::start(&mut command);
        server.listens(self.port);
        server
    }

    /// Names of objects, in order.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.join("store/audit")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => found.push(path),
                }
            }
        }
        found.retain(|path| path.extension().is_some_and(|end| end == "zst"));
        found.sort();
        found
    }

    /// Lines of all objects, in the order of their names.
    fn lines(&self) -> Vec<String> {
        let texts = self.objects().into_iter().map(|path| {
            let bytes = zstd::decode_all(fs::File::open(path).unwrap()).unwrap();
            String::from_utf8(bytes).unwrap()
        });
        texts
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }
}

pub(super) fn sink(feed: &Feed, port: u16, more: &Value, batch: &Value) -> String {
    let mut s3 = json!({
        "bucket": "audit", "endpoint": format!("https://localhost:{port}"), "credentialsSecret": {"name": "s3"}, "caBundle": feed.root()
    });
    s3.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "archive"}, "spec": {"s3": s3, "batch": batch}
    })
    .to_string()
}

#[test]
fn objects_hold_every_record_once_in_order_through_crashes_stops_and_kills() {
    let mut feed = Feed::new("sinks-s3");
    let gateway = Gateway::new(&feed.world);
    let mut server = gateway.start();
    feed.world.set_secret("s3", "access-key-id", "ledger\n");
    feed.world.set_secret("s3", "secret-access-key", "s3cret\n");
    let batch = json!({"records": 40, "waitMilliseconds": 200});
    feed.world
        .set_sinks(&sink(&feed, gateway.port, &json!({}), &batch));
    feed.start();
    feed.grow(100);
    feed.drained("archive");
    assert_eq!(
        gateway.lines(),
        feed.records(),
        "byte for byte, in the order of the log"
    );
    let first = gateway.objects()[0].clone();
    let name = first
        .strip_prefix(gateway.folder.join("store/audit"))
        .unwrap()
        .display()
        .to_string();
    assert!(
        name.starts_with("chaperone/archive/date=20") && name.contains("/00000000000000000000-"),
        "{name}"
    );
    // Tried: an object beside the days.
    let outcome = feed.test("archive");
    assert_eq!(outcome["acknowledged"], true, "{outcome}");
    let marked = format!("test/{}-0.ndjson.zst", outcome["stream"].as_str().unwrap());
    let marked = gateway
        .folder
        .join("store/audit/chaperone/archive")
        .join(marked);
    fs::remove_file(marked).unwrap();
    feed.drained("archive");
    server = feed.survives("archive", server, || gateway.start());
    assert_eq!(
        gateway.lines(),
        feed.records(),
        "nothing lost, nothing twice"
    );
    drop(server);
}

#[test]
fn objects_are_few_while_records_keep_coming() {
    let mut feed = Feed::new("sinks-s3-few");
    let gateway = Gateway::new(&feed.world);
    let _server = gateway.start();
    feed.world.set_secret("s3", "access-key-id", "ledger");
    feed.world.set_secret("s3", "secret-access-key", "s3cret");
    let batch = json!({"records": 1000, "waitMilliseconds": 3000});
    feed.world.set_sinks(&sink(
        &feed,
        gateway.port,
        &json!({"prefix": "a/b/"}),
        &batch,
    ));
    feed.start();
    for _ in 0..40 {
        feed.grow(5);
        thread::sleep(Duration::from_millis(100));
    }
    feed.drained("archive");
    let objects = gateway.objects();
    assert!((1..=6).contains(&objects.len()), "{objects:?}");
    assert_eq!(gateway.lines(), feed.records());
    assert!(
        objects[0].starts_with(gateway.folder.join("store/audit/a/b")),
        "{objects:?}"
    );
}

#[test]
fn a_store_that_refuses_or_is_not_trusted_is_said_and_gets_nothing() {
    let mut feed = Feed::new("sinks-s3-wrong");
    let gateway = Gateway::new(&feed.world);
    let _server = gateway.start();
    feed.world.set_secret("s3", "access-key-id", "ledger");
    feed.world.set_secret("s3", "secret-access-key", "wrong");
    feed.world.set_secret("right", "access-key-id", "ledger");
    feed.world
        .set_secret("right", "secret-access-key", "s3cret");
    let right = json!({"name": "right"});
    let wrong = [
        ("a", json!({}), "unauthorized"),
        ("b", json!({"caBundle": other_root()}), "tls"),
        (
            "c",
            json!({"bucket": "nowhere", "credentialsSecret": right}),
            "settings",
        ),
    ];
    let sinks = wrong.iter().map(|(name, more, _)| {
        sink(&feed, gateway.port, more, &json!({"waitMilliseconds": 100})).replace(
            "\"metadata\":{\"name\":\"archive\"}",
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
    assert_eq!(gateway.objects(), Vec::<PathBuf>::new());
}

/// Another reader of Parquet.
const DUCKDB: &str = "duckdb==2.0.1";
/// Rows in the order of the log, one object of JSON a line.
const READ: &str = "
import duckdb, json, sys
found = duckdb.sql(f\"SELECT *, epoch_us(time) AS microseconds, typeof(time) AS type FROM read_parquet('{sys.argv[1]}', hive_partitioning = true) ORDER BY leaf\")
for row in found.fetchall():
    print(json.dumps(dict(zip(found.columns, row)), default=str))
";

impl Gateway {
    fn rows(&self) -> Vec<Value> {
        let files = self
            .folder
            .join("store/audit/chaperone/archive/date=*/*.parquet");
        let mut duckdb = Command::new(python::with(DUCKDB));
        let read = duckdb.args(["-c", READ]).arg(files).output().unwrap();
        assert!(read.status.success(), "{read:?}");
        let text = String::from_utf8(read.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[test]
fn rows_of_parquet_are_every_record_once_as_another_reader_has_them() {
    let mut feed = Feed::new("sinks-s3-parquet");
    let gateway = Gateway::new(&feed.world);
    let mut server = gateway.start();
    feed.world.set_secret("s3", "access-key-id", "ledger");
    feed.world.set_secret("s3", "secret-access-key", "s3cret");
    let batch = json!({"records": 40, "waitMilliseconds": 200});
    let more = json!({"format": "Parquet"});
    feed.world
        .set_sinks(&sink(&feed, gateway.port, &more, &batch));
    feed.start();
    feed.grow(50);
    let http = json!({
        "kind": "http", "agent": {"namespace": "agents", "pod": "coder", "serviceAccount": "robot"},
        "destination": {"host": "api.example", "ip": "192.0.2.1", "port": 443}, "session": {"id": "s-1"},
        "operation": {"protocol": "http", "verb": "POST", "resource": "https://api.example/v1/m?q=\u{e9}"},
        "decision": {"action": "Deny", "mode": "Enforce", "policy": "agents/p", "rule": "r", "revision": "0", "reason": "rule"},
        "http": {"status": 403, "requestBytes": 12}
    });
    let mut line = Vec::new();
    feed.lines.event(http, &mut line);
    let (status, body) = feed.ledger().post("pod-coder", &stream(1), &line);
    assert_eq!(status, 200, "{body}");
    feed.drained("archive");
    let outcome = feed.test("archive");
    assert_eq!(outcome["acknowledged"], true, "{outcome}");
    // Killed on both sides while records are under way.
    feed.grow(300);
    feed.kill();
    server.kill();
    feed.start();
    feed.grow(100);
    until("it was noticed", || feed.errors("archive") > 0.0);
    server = gateway.start();
    feed.drained("archive");
    let (records, rows) = (feed.records(), gateway.rows());
    assert!(rows.len() >= 451, "{}", rows.len());
    let lines: Vec<_> = rows
        .iter()
        .map(|row| row["record"].as_str().unwrap())
        .collect();
    assert!(
        lines.iter().zip(&records).all(|(a, b)| a == b),
        "in order, byte for byte"
    );
    for (leaf, row) in rows.iter().enumerate() {
        let record: Value = serde_json::from_str(row["record"].as_str().unwrap()).unwrap();
        for name in ["stream", "seq", "kind"] {
            assert_eq!(row[name], record[name], "{name}");
        }
        let time: jiff::Timestamp = record["time"].as_str().unwrap().parse().unwrap();
        assert_eq!(row["microseconds"], time.as_microsecond());
        assert_eq!(row["type"], "TIMESTAMP WITH TIME ZONE");
        assert_eq!(row["leaf"], leaf, "once");
        assert!(row["date"].is_string(), "the folder is a column");
    }
    let denied = rows.iter().find(|row| row["decision"] == "Deny").unwrap();
    for (name, value) in [
        ("host", json!("api.example")),
        ("path", json!("/v1/m")),
        ("method", json!("POST")),
        ("status", json!(403)),
        ("port", json!(443)),
        ("request_bytes", json!(12)),
        ("session", json!("s-1")),
        ("policy", json!("agents/p")),
        ("would_deny", json!(false)),
        ("service_account", json!("robot")),
        ("error", json!(null)),
    ] {
        assert_eq!(denied[name], value, "{name}");
    }
    drop(server);
}
