//! Redis Streams against Debian's server, over TLS with a password, with every write synced.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

struct Redis {
    folder: PathBuf,
    port: u16,
}

impl Redis {
    fn new(world: &World) -> Self {
        let folder = world.folder.join("redis");
        fs::create_dir_all(&folder).unwrap();
        let redis = Self {
            folder,
            port: free_port(),
        };
        let (at, port, tls) = (redis.folder.display(), redis.port, world.folder.join("tls"));
        let tls = tls.display();
        let config = format!(
            "bind 127.0.0.1\nport 0\ntls-port {port}\ntls-cert-file {tls}.crt\ntls-key-file {tls}.key\ntls-auth-clients no\ndir {at}\nappendonly yes\nappendfsync always\n\
             user default off\nuser ledger on >s3cret ~audit:* +@all\nuser reader on >reader ~* +@all\n"
        );
        fs::write(redis.folder.join("redis.conf"), config).unwrap();
        fs::set_permissions(
            redis.folder.join("redis.conf"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
        redis
    }

    fn start(&self) -> Server {
        let mut server = Server::start(
            Command::new("redis-server")
                .arg(self.folder.join("redis.conf"))
                .stdout(Stdio::null()),
        );
        server.listens(self.port);
        server
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let ca = self.folder.join("../tls.crt");
        let port = self.port.to_string();
        let output = Command::new("redis-cli")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "--tls",
                "--no-auth-warning",
                "--user",
                "reader",
                "--pass",
                "reader",
                "--json",
                "--cacert",
            ])
            .arg(ca)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Records of the stream, in its order.
    fn records(&self) -> Vec<String> {
        let entries: Vec<(String, Vec<String>)> =
            serde_json::from_str(&self.cli(&["XRANGE", "audit:records", "-", "+"])).unwrap();
        entries
            .into_iter()
            .map(|(_, fields)| fields[5].clone())
            .collect()
    }
}

fn sink(feed: &Feed, redis: &Redis, key: &str) -> String {
    serde_json::json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "redis"},
        "spec": {
            "redis": {
                "host": "127.0.0.1", "port": redis.port, "key": key, "username": "ledger",
                "passwordSecret": {"name": "redis", "key": "password"}, "caBundle": feed.root()
            },
            "batch": {"records": 20}
        }
    })
    .to_string()
}

#[test]
fn a_stream_gets_every_record_once_through_crashes_stops_and_kills() {
    let mut feed = Feed::new("sinks-redis");
    let redis = Redis::new(&feed.world);
    let mut server = redis.start();
    feed.world.set_secret("redis", "password", "s3cret");
    feed.world.set_sinks(&sink(&feed, &redis, "audit:records"));
    feed.start();
    feed.grow(100);
    feed.drained("redis");
    assert_eq!(
        redis.records(),
        feed.records(),
        "byte for byte, in the order of the log"
    );
    // Tried: an entry after the newest, which the log's next comes after.
    let outcome = feed.test("redis");
    assert_eq!(outcome["acknowledged"], true, "{outcome}");
    feed.grow(1);
    feed.drained("redis");
    let marked = outcome["stream"].as_str().unwrap();
    let mut entries = redis.records();
    let (before, all) = (entries.len(), feed.records());
    entries.retain(|line| !line.contains(marked));
    assert_eq!((before, entries), (all.len() + 1, all));
    let id = redis.cli(&["XREVRANGE", "audit:records", "+", "-", "COUNT", "4"]);
    let id = id.split('"').find(|part| part.ends_with("-2")).unwrap();
    redis.cli(&["XDEL", "audit:records", id]);
    server = feed.survives("redis", server, || redis.start());
    assert_eq!(
        redis.records(),
        feed.records(),
        "nothing lost, nothing twice"
    );
    drop(server);
}

#[test]
fn a_stream_of_somebody_else_or_a_key_that_is_forbidden_is_said_and_nothing_is_skipped() {
    let mut feed = Feed::new("sinks-redis-other");
    let redis = Redis::new(&feed.world);
    let _server = redis.start();
    // By their usual IDs, which are times, such a stream is far ahead of any log.
    redis.cli(&["XADD", "audit:records", "*", "a", "b"]);
    feed.world.set_secret("redis", "password", "s3cret");
    feed.world.set_sinks(&sink(&feed, &redis, "audit:records"));
    feed.start();
    feed.grow(20);
    let says = |feed: &Feed, reason: &str| {
        feed.ledger()
            .metrics()
            .contains(&format!("reason=\"{reason}\",sink=\"redis\""))
    };
    until("it is another's", || says(&feed, "settings"));
    assert_eq!(feed.metric("records_total", "redis"), 0.0);
    feed.world.set_sinks(&sink(&feed, &redis, "other:records"));
    until("the key is forbidden", || says(&feed, "unauthorized"));
    redis.cli(&["DEL", "audit:records"]);
    feed.world.set_sinks(&sink(&feed, &redis, "audit:records"));
    feed.drained("redis");
    assert_eq!(redis.records(), feed.records());
}
