//! OTLP against the OpenTelemetry collector, built here from pinned modules (`tests/collector`): over TLS, by HTTP and by gRPC. Without Go these tests fail and say so.

use std::fs;

use super::*;
use crate::go;

/// The built collector.
fn collector() -> &'static Path {
    static COLLECTOR: OnceLock<PathBuf> = OnceLock::new();
    COLLECTOR.get_or_init(|| go::built("collector", "."))
}

/// A collector and the files that its runs wrote.
struct Collector {
    folder: PathBuf,
    http: u16,
    grpc: u16,
    /// A receiver whose path is Loki's.
    loki: u16,
    runs: u32,
}

impl Collector {
    fn new(world: &World) -> Self {
        let folder = world.folder.join("collector");
        fs::create_dir_all(&folder).unwrap();
        for file in ["tls.crt", "tls.key"] {
            fs::copy(world.folder.join(file), folder.join(file)).unwrap();
        }
        Self {
            folder,
            http: free_port(),
            grpc: free_port(),
            loki: free_port(),
            runs: 0,
        }
    }

    fn start(&mut self) -> Server {
        self.runs += 1;
        let folder = self.folder.display();
        let config = format!(
            r#"
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{}", tls: {{cert_file: {folder}/tls.crt, key_file: {folder}/tls.key}}}}
      grpc: {{endpoint: "127.0.0.1:{}", tls: {{cert_file: {folder}/tls.crt, key_file: {folder}/tls.key}}}}
  otlp/loki:
    protocols:
      http: {{endpoint: "127.0.0.1:{}", logs_url_path: /otlp/v1/logs, tls: {{cert_file: {folder}/tls.crt, key_file: {folder}/tls.key}}}}
exporters:
  file: {{path: {folder}/out-{}.jsonl, flush_interval: 10ms}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    logs: {{receivers: [otlp, otlp/loki], exporters: [file]}}
"#,
            self.http, self.grpc, self.loki, self.runs
        );
        let file = self.folder.join("config.yaml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(self.folder.join(format!("log-{}", self.runs))).unwrap();
        let mut command = Command::new(collector());
        command
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log);
        let mut server = Server::start(&mut command);
        server.listens(self.http);
        server.listens(self.grpc);
        server.listens(self.loki);
        server
    }

    /// Log records that its runs wrote, in order.
    fn log_records(&self) -> Vec<serde_json::Value> {
        let files = (1..=self.runs).map(|run| self.folder.join(format!("out-{run}.jsonl")));
        let texts: Vec<_> = files
            .map(|file| fs::read_to_string(file).unwrap_or_default())
            .collect();
        let mut found = Vec::new();
        for line in texts.iter().flat_map(|text| text.lines()) {
            // The last one may be half written.
            let Ok(batch) = serde_json::from_str::<serde_json::Value>(line) else {
                continue;
            };
            for resource in batch["resourceLogs"].as_array().unwrap() {
                let records = resource["scopeLogs"][0]["logRecords"].as_array().unwrap();
                found.extend(records.iter().cloned());
            }
        }
        found
    }

    fn bodies(&self) -> Vec<String> {
        let records = self.log_records();
        records
            .iter()
            .map(|record| record["body"]["stringValue"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Waits until its file has every record of the ledger: it acknowledges before it writes.
    fn has_all(&self, feed: &Feed) {
        feed.drained("otel");
        let all = feed.records().len();
        until("the collector wrote them", || {
            first_copies(&self.bodies()).len() == all
        });
    }
}

fn sink(ca: &str, url: &str, protocol: &str) -> String {
    let resource = serde_json::json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "otel"},
        "spec": {"otlp": {"url": url, "protocol": protocol, "caBundle": ca}, "batch": {"records": 20}}
    });
    resource.to_string()
}

fn a_collector_gets_everything(protocol: &str) {
    let mut feed = Feed::new(&format!("sinks-otlp-{protocol}"));
    let mut collector = Collector::new(&feed.world);
    let port = match protocol {
        "GRPC" => collector.grpc,
        _ => collector.http,
    };
    let mut server = collector.start();
    feed.world.set_sinks(&sink(
        &feed.root(),
        &format!("https://localhost:{port}"),
        protocol,
    ));
    feed.start();
    feed.grow(100);
    collector.has_all(&feed);
    assert_eq!(collector.bodies(), feed.records(), "once, and in order");
    // Away: what comes meanwhile waits, and nothing that was acknowledged comes again.
    server.kill();
    feed.grow(60);
    until("it was noticed", || feed.errors("otel") > 1.0);
    server = collector.start();
    collector.has_all(&feed);
    assert_eq!(collector.bodies(), feed.records(), "once, and in order");
    // Stopped in the middle: it answers nothing, and goes on later.
    server.stop();
    feed.grow(60);
    thread::sleep(Duration::from_secs(2));
    server.go_on();
    collector.has_all(&feed);
    // The ledger is killed while it delivers.
    for _ in 0..3 {
        feed.grow(100);
        feed.kill();
        feed.start();
    }
    collector.has_all(&feed);
    assert_all_arrived(&feed.records(), &collector.bodies());
    let records = collector.log_records();
    let first = records
        .iter()
        .find(|record| record["eventName"] == "chaperone.stream.open")
        .unwrap();
    assert_eq!(first["severityText"], "INFO");
    assert_eq!(first["attributes"][0]["key"], "chaperone.stream");
}

#[test]
fn a_collector_gets_everything_over_http() {
    a_collector_gets_everything("HTTP");
}

#[test]
fn a_collector_gets_everything_over_grpc() {
    a_collector_gets_everything("GRPC");
}

#[test]
fn an_endpoint_that_is_no_collector_or_is_not_trusted_is_named_and_gets_nothing() {
    let mut feed = Feed::new("sinks-otlp-wrong");
    let mut collector = Collector::new(&feed.world);
    let _server = collector.start();
    let wrong = [
        // The other transport's port.
        (
            "a",
            sink(
                &feed.root(),
                &format!("https://localhost:{}", collector.grpc),
                "HTTP",
            ),
        ),
        (
            "b",
            sink(
                &feed.root(),
                &format!("https://localhost:{}", collector.http),
                "GRPC",
            ),
        ),
        // A path that the collector does not know.
        (
            "c",
            sink(
                &feed.root(),
                &format!("https://localhost:{}/nowhere", collector.http),
                "HTTP",
            ),
        ),
        // Roots that its certificate does not chain to.
        (
            "d",
            sink(
                &other_root(),
                &format!("https://localhost:{}", collector.http),
                "HTTP",
            ),
        ),
    ];
    let all: Vec<_> = wrong
        .iter()
        .map(|(name, text)| text.replace("\"otel\"", &format!("\"{name}\"")))
        .collect();
    feed.world.set_sinks(&all.join("\n---\n"));
    feed.start();
    feed.grow(10);
    for (name, _) in wrong {
        until(&format!("{name} fails"), || feed.errors(name) > 0.0);
    }
    thread::sleep(Duration::from_secs(2));
    assert_eq!(collector.bodies(), Vec::<String>::new());
    assert!(
        !feed.world.data.join("sinks/c.refused.jsonl").exists(),
        "nothing is given up"
    );
}

#[test]
fn a_receiver_whose_path_is_lokis_gets_everything_there() {
    let mut feed = Feed::new("sinks-otlp-loki");
    let mut collector = Collector::new(&feed.world);
    let _server = collector.start();
    let url = format!("https://localhost:{}/otlp/v1/logs", collector.loki);
    feed.world.set_sinks(&sink(&feed.root(), &url, "HTTP"));
    feed.start();
    feed.grow(30);
    collector.has_all(&feed);
    assert_eq!(collector.bodies(), feed.records(), "once, and in order");
}
