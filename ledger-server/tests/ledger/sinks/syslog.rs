//! Syslog against rsyslog, over TLS.

use std::fs;

use super::*;

/// An rsyslog with folders of its own, and the file that it writes messages to.
struct Rsyslog {
    folder: PathBuf,
    port: u16,
}

impl Rsyslog {
    fn new(world: &World) -> Self {
        let folder = world.folder.join("rsyslog");
        fs::create_dir_all(&folder).unwrap();
        let rsyslog = Self {
            folder,
            port: free_port(),
        };
        let (at, port) = (rsyslog.folder.display(), rsyslog.port);
        let certificates = world.folder.join("tls.crt").display().to_string();
        let key = world.folder.join("tls.key").display().to_string();
        let config = format!(
            r#"
global(workDirectory="{at}" maxMessageSize="4m" defaultNetstreamDriver="ossl"
  defaultNetstreamDriverCAFile="{certificates}" defaultNetstreamDriverCertFile="{certificates}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
template(name="all" type="string" string="%pri% %timestamp:::date-rfc3339% %hostname% %app-name% %procid% %msgid% %msg%\n")
ruleset(name="in") {{ action(type="omfile" file="{at}/out.log" template="all" asyncWriting="off" flushOnTXEnd="on") }}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="in")
"#
        );
        fs::write(rsyslog.folder.join("rsyslog.conf"), config).unwrap();
        rsyslog
    }

    fn start(&self) -> Server {
        // A process that was killed leaves it.
        let _ = fs::remove_file(self.folder.join("pid"));
        let mut command = Command::new("rsyslogd");
        command
            .arg("-n")
            .arg("-f")
            .arg(self.folder.join("rsyslog.conf"))
            .arg("-i")
            .arg(self.folder.join("pid"));
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))
            .unwrap();
        let mut server = Server::start(command.stdout(Stdio::null()).stderr(log));
        server.listens(self.port);
        server
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("out.log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Records, as they stand in the messages.
    fn records(&self) -> Vec<String> {
        let lines = self.lines();
        lines
            .iter()
            .filter_map(|line| line.split_once('{'))
            .map(|(_, record)| format!("{{{record}"))
            .collect()
    }

    /// Waits until its file has every record of the ledger: it acknowledges nothing.
    fn has_all(&self, feed: &Feed) {
        feed.drained("log");
        let all = feed.records().len();
        until("rsyslog wrote them", || {
            first_copies(&self.records()).len() >= all
        });
    }
}

fn sink(ca: &str, host: &str, port: u16) -> String {
    serde_json::json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "log"},
        "spec": {"syslog": {"host": host, "port": port, "caBundle": ca}, "batch": {"records": 20}}
    })
    .to_string()
}

#[test]
fn rsyslog_gets_everything_over_tls_and_copies_after_a_break() {
    let mut feed = Feed::new("sinks-syslog");
    let rsyslog = Rsyslog::new(&feed.world);
    let mut server = rsyslog.start();
    feed.world
        .set_sinks(&sink(&feed.root(), "localhost", rsyslog.port));
    feed.start();
    feed.grow(100);
    rsyslog.has_all(&feed);
    assert_eq!(rsyslog.records(), feed.records(), "once, and in order");
    let open = rsyslog
        .lines()
        .into_iter()
        .find(|line| line.contains(" stream.open "))
        .unwrap();
    assert!(
        open.starts_with("110 20"),
        "log audit, informational: {open}"
    );
    // Away: what comes meanwhile waits.
    server.kill();
    feed.grow(60);
    until("it was noticed", || feed.errors("log") > 1.0);
    server = rsyslog.start();
    rsyslog.has_all(&feed);
    // Killed with messages that it has not read: what was written last comes again.
    server.stop();
    feed.grow(200);
    feed.drained("log");
    server.kill();
    server = rsyslog.start();
    feed.grow(1);
    rsyslog.has_all(&feed);
    assert_all_arrived(&feed.records(), &rsyslog.records());
    // The ledger is killed while it delivers.
    for _ in 0..3 {
        feed.grow(100);
        feed.kill();
        feed.start();
    }
    rsyslog.has_all(&feed);
    assert_all_arrived(&feed.records(), &rsyslog.records());
    drop(server);
}

#[test]
fn a_receiver_that_is_not_trusted_gets_nothing() {
    let mut feed = Feed::new("sinks-syslog-trust");
    let rsyslog = Rsyslog::new(&feed.world);
    let _server = rsyslog.start();
    feed.world
        .set_sinks(&sink(&other_root(), "localhost", rsyslog.port));
    feed.start();
    feed.grow(10);
    until("it fails", || feed.errors("log") > 1.0);
    assert!(feed.ledger().metrics().contains("reason=\"tls\""));
    assert_eq!(rsyslog.lines(), Vec::<String>::new());
}
