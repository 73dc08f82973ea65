//! S3 against the Versity gateway (`tests/s3`), which checks signatures and checksums as S3 does and keeps objects as files: over TLS.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::go;

struct Gateway {
    folder: PathBuf,
    port: u16,
}

impl Gateway {
    fn new(world: &World) -> Self {
        let folder = world.folder.join("s3");
        fs::create_dir_all(folder.join("store/audit")).unwrap();
        let port = free_port();
        Self { folder, port }
    }

    fn start(&self) -> Server {
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
    fn objects(&self) -> Vec<PathBuf> {
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

fn sink(feed: &Feed, port: u16, more: &Value, batch: &Value) -> String {
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
