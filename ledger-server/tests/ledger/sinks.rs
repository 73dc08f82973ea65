//! Sinks of the whole program against real servers: records go in by HTTPS, the program delivers, and what arrived is read back by the server's own means.

#[path = "sinks/api.rs"]
pub(crate) mod api;
#[path = "sinks/archive.rs"]
mod archive;
#[path = "sinks/cluster.rs"]
mod cluster;
#[path = "sinks/front.rs"]
mod front;
#[path = "sinks/http.rs"]
mod http;
#[path = "sinks/kafka.rs"]
mod kafka;
#[path = "sinks/loki.rs"]
mod loki;
#[path = "sinks/loki_double.rs"]
mod loki_double;
#[path = "sinks/nats.rs"]
mod nats;
#[path = "sinks/opensearch.rs"]
mod opensearch;
#[path = "sinks/otlp.rs"]
mod otlp;
#[path = "sinks/postgres.rs"]
pub(crate) mod postgres;
#[path = "sinks/redis.rs"]
mod redis;
#[path = "sinks/s3.rs"]
pub(crate) mod s3;
#[path = "sinks/splunk.rs"]
mod splunk;
#[path = "sinks/syslog.rs"]
mod syslog;
#[path = "sinks/trial.rs"]
mod trial;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::world::{Ledger, Lines, World, stream};

/// How long a delivery, or a server's start, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A ledger with one stream, and its sinks.
struct Feed {
    // Ends before its folder goes, in which it would write on.
    ledger: Option<Ledger>,
    world: World,
    lines: Lines,
    sent: u64,
}

impl Feed {
    /// The ledger is not started yet.
    fn new(name: &str) -> Self {
        Self {
            world: World::new(name),
            ledger: None,
            lines: Lines::new(stream(1)),
            sent: 0,
        }
    }

    fn start(&mut self) {
        self.ledger = Some(self.world.start());
    }

    fn ledger(&self) -> &Ledger {
        self.ledger.as_ref().expect("the ledger runs")
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.ledger.take().expect("the ledger runs").kill();
    }

    /// The ledger takes so many records more, in one batch.
    fn grow(&mut self, records: usize) {
        let batch = self.lines.take(records);
        let (status, body) = self.ledger().post("pod-coder", &stream(1), &batch);
        assert_eq!(status, 200, "{body}");
        self.sent += u64::try_from(records).unwrap();
    }

    /// What a sink goes through: its server is away, answers nothing for a while, and both sides are killed while records are under way. The server that runs then.
    fn survives(&mut self, sink: &str, mut server: Server, start: impl Fn() -> Server) -> Server {
        // Away.
        server.kill();
        self.grow(60);
        until("it was noticed", || self.errors(sink) > 1.0);
        server = start();
        self.drained(sink);
        // It answers nothing for a while.
        server.stop();
        self.grow(60);
        thread::sleep(Duration::from_secs(2));
        server.go_on();
        self.drained(sink);
        for _ in 0..3 {
            self.grow(200);
            self.kill();
            self.start();
            self.grow(100);
            server.kill();
            server = start();
        }
        self.drained(sink);
        server
    }

    /// The certificate of the world, which servers of the tests have too.
    fn root(&self) -> String {
        std::fs::read_to_string(self.world.folder.join("tls.crt")).unwrap()
    }

    /// A metric of a sink.
    fn metric(&self, name: &str, sink: &str) -> f64 {
        let line = format!("chaperone_ledger_sink_{name}{{sink=\"{sink}\"}}");
        self.ledger().metric(&line)
    }

    /// Failed deliveries of a sink, whatever the reason.
    fn errors(&self, sink: &str) -> f64 {
        let line = "chaperone_ledger_sink_errors_total{";
        let found = self.ledger().metrics();
        let counts = found
            .lines()
            .filter(|found| found.starts_with(line) && found.contains(&format!("sink=\"{sink}\"")));
        counts
            .filter_map(|found| found.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Has the ledger try a sink, as somebody who may.
    fn test(&self, sink: &str) -> serde_json::Value {
        let path = format!("/v1/sinks/{sink}/test");
        let (status, body) = self.ledger().curl(&path, "reader", &["-X", "POST"]);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until the sink has acknowledged or passed over every record that the ledger has.
    fn drained(&self, sink: &str) {
        let cursor = self.world.data.join(format!("sinks/{sink}.cursor"));
        let end = || self.world.records().split(|b| *b == b'\n').count() as u64 - 1;
        until(&format!("{sink} has everything"), || {
            let text = std::fs::read_to_string(&cursor).unwrap_or_default();
            let kept: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            kept["cursor"]["leaf"].as_u64() == Some(end())
        });
    }

    /// Lines of all records that the ledger has, without newlines, in order.
    fn records(&self) -> Vec<String> {
        let text = String::from_utf8(self.world.records()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// A certificate that nobody has.
fn other_root() -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    made.cert.pem()
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Every record arrived, and those that came again are copies. Each is compared as its line.
fn assert_all_arrived(records: &[String], arrived: &[String]) {
    let firsts = first_copies(arrived);
    assert_eq!(
        firsts.len(),
        records.len(),
        "{} arrived, with copies",
        arrived.len()
    );
    assert!(
        firsts.iter().zip(records).all(|(a, b)| *a == b),
        "in the order of the log"
    );
}

/// What arrived, without what came before.
fn first_copies(arrived: &[String]) -> Vec<&String> {
    let mut seen = std::collections::HashSet::new();
    arrived
        .iter()
        .filter(|line| seen.insert(line.as_str()))
        .collect()
}

/// A server's process, ended with the test.
pub(crate) struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Self {
        Self(
            command
                .spawn()
                .unwrap_or_else(|e| panic!("{command:?}: {e}")),
        )
    }

    /// Waits until something listens there.
    fn listens(&mut self, port: u16) {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("the server listens", || {
            assert!(self.0.try_wait().unwrap().is_none(), "the server ended");
            TcpStream::connect(address).is_ok()
        });
    }

    /// SIGSTOP.
    fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    /// SIGTERM, and its end.
    fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        let _ = self.0.wait();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        // Gone already where the test ended it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that was free a moment ago, for servers that cannot be told to choose one.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
