//! PostgreSQL against Debian's server, over TLS with a password (SCRAM, channel binding).

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

pub(crate) const PASSWORD: &str = "correct horse";

/// A server with a folder of its own. It refuses to run as root, so it runs as the user that its package made.
pub(crate) struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    pub(crate) port: u16,
}

impl Cluster {
    /// Initialized, with TLS by the world's certificate; not started.
    pub(crate) fn new(world: &World) -> Self {
        let port = free_port();
        // Where that user may go whatever the checkout's folder allows.
        let folder =
            std::env::temp_dir().join(format!("chaperone-pg-{port}-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let cluster = Self {
            bin: bin(),
            folder,
            port,
        };
        for file in ["tls.crt", "tls.key"] {
            fs::copy(world.folder.join(file), cluster.folder.join(file)).unwrap();
            fs::set_permissions(cluster.folder.join(file), fs::Permissions::from_mode(0o600))
                .unwrap();
        }
        fs::write(cluster.folder.join("password"), PASSWORD).unwrap();
        run(Command::new("chown")
            .arg("-R")
            .arg("postgres:postgres")
            .arg(&cluster.folder));
        let at = cluster.folder.display();
        let password = format!("--pwfile={at}/password");
        run(cluster
            .as_postgres("initdb")
            .args([
                "-U",
                "admin",
                "-A",
                "scram-sha-256",
                "--no-sync",
                &password,
                "-D",
            ])
            .arg(cluster.folder.join("data")));
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = ''\nssl = on\nssl_cert_file = '{at}/tls.crt'\nssl_key_file = '{at}/tls.key'\n"
        );
        let file = cluster.folder.join("data/postgresql.conf");
        fs::write(&file, fs::read_to_string(&file).unwrap() + &settings).unwrap();
        // TLS is not a choice.
        fs::write(
            cluster.folder.join("data/pg_hba.conf"),
            "hostssl all all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
        cluster
    }

    pub(crate) fn start(&self) {
        let log = self.folder.join("log");
        run(self
            .as_postgres("pg_ctl")
            .args(["start", "-w", "-D"])
            .arg(self.folder.join("data"))
            .arg("-l")
            .arg(log));
    }

    /// As a crash: nothing is written any more, and the next start recovers.
    pub(crate) fn crash(&self) {
        run(self
            .as_postgres("pg_ctl")
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.folder.join("data")));
    }

    fn as_postgres(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
            .arg(self.bin.join(program));
        command.current_dir(&self.folder).stdout(Stdio::null());
        command
    }

    fn psql(&self, statement: &str) -> Command {
        let mut command = Command::new("psql");
        let target = format!(
            "host=127.0.0.1 port={} dbname=postgres user=admin sslmode=require",
            self.port
        );
        command.env("PGPASSWORD", PASSWORD).args([
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            statement,
            &target,
        ]);
        command
    }

    /// What a statement prints, line by line.
    pub(crate) fn query(&self, statement: &str) -> Vec<String> {
        let output = self.psql(statement).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statement}: {said}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn rows(&self, table: &str) -> Vec<String> {
        self.query(&format!("SELECT record FROM {table} ORDER BY leaf"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Stopped already where the test ended it.
        let _ = self
            .as_postgres("pg_ctl")
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.folder.join("data"))
            .stderr(Stdio::null())
            .status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The newest server that is installed.
fn bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is missing: apt-get install postgresql");
    let mut versions: Vec<_> = versions.map(|version| version.unwrap().path()).collect();
    versions.sort();
    versions
        .last()
        .expect("a version of PostgreSQL")
        .join("bin")
}

fn run(command: &mut Command) {
    let output = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

fn sink(feed: &Feed, cluster: &Cluster, user: &str, table: &str) -> String {
    serde_json::json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "db"},
        "spec": {
            "postgres": {
                "host": "127.0.0.1", "port": cluster.port, "database": "postgres", "user": user, "table": table,
                "passwordSecret": {"name": "db", "key": "password"}, "caBundle": feed.root()
            },
            "batch": {"records": 20}
        }
    })
    .to_string()
}

#[test]
fn a_database_gets_every_record_once_through_crashes_locks_and_kills() {
    let mut feed = Feed::new("sinks-postgres");
    let cluster = Cluster::new(&feed.world);
    cluster.start();
    feed.world.set_secret("db", "password", PASSWORD);
    feed.world
        .set_sinks(&sink(&feed, &cluster, "admin", "records"));
    feed.start();
    feed.grow(100);
    feed.drained("db");
    assert_eq!(
        cluster.rows("records"),
        feed.records(),
        "byte for byte, in the order of the log"
    );
    let typed = "SELECT count(*) FROM records WHERE kind = 'dns' AND record->>'seq' = seq::text AND time > now() - interval '1 hour'";
    assert_eq!(cluster.query(typed), ["99"]);
    // Away.
    cluster.crash();
    feed.grow(60);
    until("it was noticed", || feed.errors("db") > 1.0);
    cluster.start();
    feed.drained("db");
    assert_eq!(cluster.rows("records"), feed.records());
    // Slow: another session has the table for itself.
    let lock = "BEGIN; LOCK TABLE records IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(3); COMMIT";
    let mut locking = cluster.psql(lock).stdout(Stdio::null()).spawn().unwrap();
    feed.grow(60);
    assert!(locking.wait().unwrap().success());
    feed.drained("db");
    // Killed on both sides while records are under way.
    for _ in 0..3 {
        feed.grow(200);
        feed.kill();
        feed.start();
        feed.grow(100);
        cluster.crash();
        cluster.start();
    }
    feed.drained("db");
    assert_eq!(
        cluster.rows("records"),
        feed.records(),
        "nothing lost, nothing twice"
    );
    // A row that the table does not want holds up no other.
    cluster.query("ALTER TABLE records ADD CONSTRAINT c CHECK (seq <> 1150)");
    feed.grow(60);
    feed.drained("db");
    let refused = fs::read_to_string(feed.world.data.join("sinks/db.refused.jsonl")).unwrap();
    assert!(
        refused.lines().count() == 1 && refused.contains("\"seq\":1150,"),
        "{refused}"
    );
    assert_eq!(cluster.rows("records").len(), feed.records().len() - 1);
}

#[test]
fn a_table_that_is_not_there_or_a_password_that_is_wrong_is_said_and_waited_for() {
    let mut feed = Feed::new("sinks-postgres-rights");
    let cluster = Cluster::new(&feed.world);
    cluster.start();
    cluster.query("CREATE ROLE writer LOGIN PASSWORD 'other'; CREATE SCHEMA audit; GRANT USAGE ON SCHEMA audit TO writer");
    feed.world.set_secret("db", "password", "wrong");
    feed.world
        .set_sinks(&sink(&feed, &cluster, "writer", "audit.records"));
    feed.start();
    feed.grow(20);
    let says = |feed: &Feed, reason: &str| {
        feed.ledger()
            .metrics()
            .contains(&format!("reason=\"{reason}\",sink=\"db\""))
    };
    until("the password is refused", || says(&feed, "unauthorized"));
    feed.world.set_secret("db", "password", "other");
    until("there is no table, and no right to make it", || {
        says(&feed, "settings")
    });
    cluster.query(
        "CREATE TABLE audit.records (stream uuid NOT NULL, seq bigint NOT NULL, leaf bigint NOT NULL, time timestamptz NOT NULL, kind text NOT NULL, namespace text NOT NULL, \
         pod text NOT NULL, record json NOT NULL, seen timestamptz DEFAULT now(), PRIMARY KEY (stream, seq, time)) PARTITION BY RANGE (time); \
         CREATE TABLE audit.all_records PARTITION OF audit.records DEFAULT; GRANT INSERT, SELECT ON audit.records TO writer",
    );
    feed.kill();
    feed.start();
    feed.drained("db");
    assert_eq!(
        cluster.rows("audit.records"),
        feed.records(),
        "a table of one's own, with partitions"
    );
    assert!(
        !feed.world.data.join("sinks/db.refused.jsonl").exists(),
        "nothing is given up"
    );
}
