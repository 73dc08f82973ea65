//! NATS JetStream against the project's own server, built here from a pinned module (`tests/nats`): over TLS, with a password, an NKey and a credentials file.

use std::{collections::BTreeMap, fs};

use async_nats::{ConnectOptions, jetstream};
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::*;
use crate::go;

fn built(name: &'static str, package: &str) -> PathBuf {
    static LOCK: std::sync::Mutex<BTreeMap<&'static str, PathBuf>> =
        std::sync::Mutex::new(BTreeMap::new());
    let mut built = LOCK.lock().unwrap();
    built
        .entry(name)
        .or_insert_with(|| {
            let made = go::built("nats", package);
            let kept = made.with_file_name(name);
            fs::rename(made, &kept).unwrap();
            kept
        })
        .clone()
}

struct Nats {
    folder: PathBuf,
    port: u16,
}

impl Nats {
    fn new(world: &World) -> Self {
        let folder = world.folder.join("nats");
        fs::create_dir_all(&folder).unwrap();
        let made = Command::new(built("nats-credentials", "."))
            .arg(&folder)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let nats = Self {
            folder,
            port: free_port(),
        };
        let (nkey, rights) = (nats.read("nkey.public"), "{publish: [\"other.>\"]}");
        nats.configure(world, &format!(
            "authorization {{ users: [{{user: ledger, password: s3cret}}, {{nkey: {nkey}}}, {{user: narrow, password: s3cret, permissions: {rights}}}] }}"
        ));
        nats
    }

    /// The server knows users by an operator's word.
    fn by_operator(&self, world: &World) {
        let preloaded = ["account", "system"].map(|name| {
            let (public, jwt) = (
                self.read(&format!("{name}.public")),
                self.read(&format!("{name}.jwt")),
            );
            format!("{public}: \"{jwt}\"")
        });
        let preloaded = preloaded.join(", ");
        let operator = self.folder.join("operator.jwt").display().to_string();
        self.configure(
            world,
            &format!(
                "operator: \"{operator}\"\nresolver: MEMORY\nresolver_preload: {{ {preloaded} }}"
            ),
        );
    }

    fn configure(&self, world: &World, users: &str) {
        let (port, store, tls) = (
            self.port,
            self.folder.join("store"),
            world.folder.join("tls"),
        );
        let (store, tls) = (store.display(), tls.display());
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{store}\", max_mem: 64M, max_file: 1G, sync_interval: always }}\ntls {{ cert_file: \"{tls}.crt\", key_file: \"{tls}.key\" }}\n{users}\n"
        );
        fs::write(self.folder.join("nats.conf"), config).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap()
    }

    fn start(&self) -> Server {
        let server = built("nats-server", "github.com/nats-io/nats-server/v2");
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut command = Command::new(server);
        command
            .arg("-c")
            .arg(self.folder.join("nats.conf"))
            .stdout(Stdio::null())
            .stderr(log);
        let mut server = Server::start(&mut command);
        server.listens(self.port);
        server
    }

    /// Does something as a user of the server.
    fn with<T>(&self, login: ConnectOptions, act: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (ca, url) = (
            self.folder.join("../tls.crt"),
            format!("tls://127.0.0.1:{}", self.port),
        );
        runtime.block_on(async {
            let options = login.add_root_certificates(ca).require_tls(true);
            let client = options.connect(url).await.unwrap();
            act(jetstream::new(client)).await
        })
    }

    fn ledger() -> ConnectOptions {
        ConnectOptions::with_user_and_password("ledger".to_owned(), "s3cret".to_owned())
    }

    /// Makes the stream.
    fn make(&self, login: ConnectOptions, largest: i32) {
        self.with(login, async |context| {
            let config = jetstream::stream::Config {
                name: "AUDIT".to_owned(),
                subjects: vec!["audit.>".to_owned()],
                max_message_size: largest,
                ..Default::default()
            };
            context.create_stream(config).await.unwrap();
        });
    }

    /// Messages of the stream, in its order: subject and payload.
    fn messages(&self, login: ConnectOptions) -> Vec<(String, String)> {
        self.with(login, async |context| {
            let mut stream = context.get_stream("AUDIT").await.unwrap();
            let count = usize::try_from(stream.info().await.unwrap().state.messages).unwrap();
            let consumer = stream
                .create_consumer(jetstream::consumer::pull::OrderedConfig::default())
                .await
                .unwrap();
            let messages = consumer.messages().await.unwrap().take(count);
            let read = messages.map(|message| {
                let message = message.unwrap();
                let id = message
                    .headers
                    .as_ref()
                    .unwrap()
                    .get("Nats-Msg-Id")
                    .unwrap()
                    .to_string();
                let payload = String::from_utf8(message.payload.to_vec()).unwrap();
                let record: Value = serde_json::from_str(&payload).unwrap();
                assert_eq!(
                    id,
                    format!("{}-{}", record["stream"].as_str().unwrap(), record["seq"])
                );
                (message.subject.to_string(), payload)
            });
            read.collect().await
        })
    }

    fn payloads(&self) -> Vec<String> {
        self.messages(Self::ledger())
            .into_iter()
            .map(|(_, payload)| payload)
            .collect()
    }
}

fn sink(feed: &Feed, port: u16, more: &Value) -> String {
    let mut nats = json!({"host": "localhost", "port": port, "subject": "audit", "stream": "AUDIT", "caBundle": feed.root()});
    nats.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": "nats"},
        "spec": {"nats": nats, "batch": {"records": 20}}
    })
    .to_string()
}

fn password(user: &str) -> Value {
    json!({"username": user, "passwordSecret": {"name": "nats", "key": "password"}})
}

fn says(feed: &Feed, reason: &str) -> bool {
    feed.ledger()
        .metrics()
        .contains(&format!("reason=\"{reason}\",sink=\"nats\""))
}

#[test]
fn a_stream_gets_every_record_once_in_order_through_crashes_stops_and_kills() {
    let mut feed = Feed::new("sinks-nats");
    let nats = Nats::new(&feed.world);
    let mut server = nats.start();
    nats.make(Nats::ledger(), -1);
    feed.world.set_secret("nats", "password", "s3cret\n");
    feed.world
        .set_sinks(&sink(&feed, nats.port, &password("ledger")));
    feed.start();
    feed.grow(100);
    feed.drained("nats");
    assert_eq!(
        nats.payloads(),
        feed.records(),
        "byte for byte, in the order of the log"
    );
    let (open, _) = &nats.messages(Nats::ledger())[0];
    assert!(
        open.starts_with("audit.") && open.ends_with(".stream.open"),
        "{open}"
    );
    server = feed.survives("nats", server, || nats.start());
    let arrived = nats.payloads();
    assert_all_arrived(&feed.records(), &arrived);
    assert_eq!(
        arrived.len(),
        feed.records().len(),
        "copies within the window are dropped"
    );
    drop(server);
}

#[test]
fn what_no_stream_takes_waits_and_says_why() {
    let mut feed = Feed::new("sinks-nats-wrong");
    let nats = Nats::new(&feed.world);
    let _server = nats.start();
    feed.world.set_secret("nats", "password", "wrong");
    feed.world
        .set_sinks(&sink(&feed, nats.port, &password("ledger")));
    feed.start();
    feed.grow(20);
    until("the password is wrong", || says(&feed, "unauthorized"));
    feed.world.set_secret("nats", "password", "s3cret");
    until("there is no stream", || says(&feed, "settings"));
    feed.world
        .set_sinks(&sink(&feed, nats.port, &json!({"caBundle": other_root()})));
    until("it is not trusted", || says(&feed, "tls"));
    nats.make(Nats::ledger(), -1);
    let before = feed.errors("nats");
    feed.world
        .set_sinks(&sink(&feed, nats.port, &password("narrow")));
    until("the subject is forbidden", || feed.errors("nats") > before);
    assert_eq!(feed.metric("records_total", "nats"), 0.0);
    // By its NKey the ledger may.
    feed.world
        .set_secret("nats", "seed", &nats.read("nkey.seed"));
    feed.world.set_sinks(&sink(
        &feed,
        nats.port,
        &json!({"nkeySecret": {"name": "nats", "key": "seed"}}),
    ));
    feed.drained("nats");
    assert_eq!(nats.payloads(), feed.records());
}

#[test]
fn a_credentials_file_is_known_and_messages_too_large_for_the_stream_are_named() {
    let mut feed = Feed::new("sinks-nats-operator");
    let nats = Nats::new(&feed.world);
    nats.by_operator(&feed.world);
    let _server = nats.start();
    let login = || ConnectOptions::with_credentials(&nats.read("user.creds")).unwrap();
    feed.world
        .set_secret("nats", "creds", &nats.read("user.creds"));
    feed.world.set_sinks(&sink(
        &feed,
        nats.port,
        &json!({"credentialsSecret": {"name": "nats", "key": "creds"}}),
    ));
    feed.start();
    feed.grow(30);
    // With its headers, of more than a hundred bytes, the longest record is too large and most are not.
    let longest = feed.records().iter().map(String::len).max().unwrap();
    nats.make(login(), i32::try_from(longest).unwrap() + 100);
    feed.drained("nats");
    let arrived: Vec<_> = nats
        .messages(login())
        .into_iter()
        .map(|(_, payload)| payload)
        .collect();
    let refused = feed.metric("refused_records_total", "nats");
    assert!(refused >= 1.0, "{refused}");
    let records = feed.records();
    let expected: Vec<_> = records
        .iter()
        .filter(|line| arrived.contains(line))
        .cloned()
        .collect();
    assert_eq!(arrived, expected, "in order");
    assert_eq!(arrived.len() as f64 + refused, records.len() as f64);
}
