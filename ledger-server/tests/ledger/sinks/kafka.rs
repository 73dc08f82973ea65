//! Kafka's own broker (`tests/kafka`), one node that is its own controller, and its own clients, which read what came.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::Shutdown,
    process::{ChildStdin, ChildStdout},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use super::*;
use crate::jars;

struct Kafka {
    folder: PathBuf,
    /// Ports of listeners by name: `sasl` and `tls` (client certificates) over TLS, `lossy` for the relay, `inner` for its own clients.
    ports: BTreeMap<&'static str, u16>,
    lossy: Arc<Lossy>,
    peer: Mutex<Option<Peer>>,
}

/// Kafka's own clients.
struct Peer {
    process: Server,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// A message as the consumer has it.
struct Message {
    partition: String,
    /// Where Java's producer would have put the key.
    expected: String,
    key: String,
    headers: String,
    value: String,
}

impl Kafka {
    fn new(world: &World) -> Self {
        let folder = world.folder.join("kafka");
        fs::create_dir_all(folder.join("data")).unwrap();
        let names = ["sasl", "tls", "lossy", "inner", "controller"];
        let ports: BTreeMap<_, _> = names.map(|name| (name, free_port())).into();
        let lossy = Lossy::start(ports["lossy"]);
        let pem = |name: &str| fs::read_to_string(world.folder.join(name)).unwrap();
        fs::write(
            folder.join("key.pem"),
            pem("tls.key") + "\n" + &pem("tls.crt"),
        )
        .unwrap();
        let client = rcgen::generate_simple_self_signed(["ledger".to_owned()]).unwrap();
        fs::write(folder.join("client.crt"), client.cert.pem()).unwrap();
        let key = client.signing_key.serialize_pem();
        fs::write(folder.join("client.key"), key).unwrap();
        let kafka = Self {
            folder,
            ports,
            lossy,
            peer: Mutex::new(None),
        };
        fs::write(kafka.folder.join("server.properties"), kafka.settings()).unwrap();
        kafka
    }

    fn settings(&self) -> String {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let listens = self
            .ports
            .iter()
            .map(|(name, port)| format!("{}://127.0.0.1:{port}", name.to_uppercase()));
        let advertised = |(name, port): (&&str, &u16)| match *name {
            "controller" => None,
            "lossy" => Some(format!("LOSSY://localhost:{}", self.lossy.port)),
            name => Some(format!("{}://localhost:{port}", name.to_uppercase())),
        };
        let (listens, advertised): (Vec<_>, Vec<_>) = (
            listens.collect(),
            self.ports.iter().filter_map(advertised).collect(),
        );
        let module = "org.apache.kafka.common.security";
        [
            "process.roles=broker,controller".to_owned(),
            "node.id=1".to_owned(),
            format!("controller.quorum.voters=1@127.0.0.1:{}", self.ports["controller"]),
            "controller.listener.names=CONTROLLER".to_owned(),
            format!("listeners={}", listens.join(",")),
            format!("advertised.listeners={}", advertised.join(",")),
            "listener.security.protocol.map=SASL:SASL_SSL,TLS:SSL,LOSSY:PLAINTEXT,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
            "inter.broker.listener.name=INNER".to_owned(),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
            format!("listener.name.sasl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_ledger=\"s3cret\";"),
            format!("listener.name.sasl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;"),
            format!("listener.name.sasl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;"),
            "ssl.keystore.type=PEM".to_owned(),
            format!("ssl.keystore.location={}", at("key.pem")),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", at("client.crt")),
            "listener.name.tls.ssl.client.auth=required".to_owned(),
            format!("log.dirs={}", at("data")),
            "auto.create.topics.enable=false".to_owned(),
            "offsets.topic.replication.factor=1".to_owned(),
            // One that was killed may come back at once.
            "broker.heartbeat.interval.ms=300".to_owned(),
            "broker.session.timeout.ms=1000\n".to_owned(),
        ]
        .join("\n")
    }

    fn start(&self) -> Server {
        let log = fs::File::create(self.folder.join("log")).unwrap();
        let mut command = jars::java("kafka", "Server.java", 384);
        command
            .arg(self.folder.join("server.properties"))
            .arg(self.folder.join("data"))
            .arg("ledger=s3cret")
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut server = Server::start(&mut command);
        server.listens(self.ports["inner"]);
        server
    }

    /// Has Kafka's clients do something: lines of their answer.
    fn tell(&self, what: &str) -> Vec<String> {
        let mut peer = self.peer.lock().unwrap();
        let peer = peer.get_or_insert_with(|| {
            let log = fs::File::create(self.folder.join("peer.log")).unwrap();
            let mut command = jars::java("kafka", "Peer.java", 128);
            command
                .arg(format!("localhost:{}", self.ports["inner"]))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(log);
            let mut process = Server::start(&mut command);
            let (to, from) = (process.0.stdin.take(), process.0.stdout.take());
            Peer {
                process,
                to: to.unwrap(),
                from: BufReader::new(from.unwrap()),
            }
        });
        writeln!(peer.to, "{what}").unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            peer.from.read_line(&mut line).unwrap();
            assert!(
                peer.process.0.try_wait().unwrap().is_none() && !line.is_empty(),
                "{what}: {}",
                fs::read_to_string(self.folder.join("peer.log")).unwrap()
            );
            match line.trim_end_matches('\n') {
                "." => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// Messages of a topic, each partition in its order.
    fn read(&self, topic: &str) -> Vec<Message> {
        let lines = self.tell(&format!("read {topic}"));
        let messages = lines.iter().map(|line| {
            let mut parts = line.splitn(5, '\t').map(str::to_owned);
            let mut part = || parts.next().unwrap();
            Message {
                partition: part(),
                expected: part(),
                key: part(),
                headers: part(),
                value: part(),
            }
        });
        messages.collect()
    }

    /// Every record is there once, each stream in order and where Java's producer puts it.
    fn has_all(&self, feed: &Feed, topic: &str) {
        // The ledger writes records of its own at any time.
        let (lines, messages) = loop {
            feed.drained(topic);
            let (lines, messages) = (feed.records(), self.read(topic));
            if feed.records() == lines {
                break (lines, messages);
            }
        };
        let mut arrived: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in messages {
            assert_eq!(message.partition, message.expected, "{}", message.key);
            if message.value == "else" {
                continue;
            }
            let record: Value = serde_json::from_str(&message.value).unwrap();
            assert_eq!(record["stream"], message.key.as_str());
            if record["read"]["what"] == "sink.test" && !message.headers.contains("leaf") {
                continue;
            }
            let headers = [
                "content-type=application/json|".to_owned(),
                format!("chaperone-stream={}|", message.key),
                format!("chaperone-seq={}|", record["seq"]),
            ];
            let rest = message.headers.strip_prefix(&headers.concat()).unwrap();
            assert!(rest.starts_with("chaperone-leaf="), "{rest}");
            arrived.entry(message.key).or_default().push(message.value);
        }
        let mut records: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            let record: Value = serde_json::from_str(&line).unwrap();
            let stream = record["stream"].as_str().unwrap().to_owned();
            records.entry(stream).or_default().push(line);
        }
        let counts = |all: &BTreeMap<String, Vec<String>>| -> Vec<_> {
            all.iter().map(|(s, l)| (s.clone(), l.len())).collect()
        };
        assert_eq!(counts(&arrived), counts(&records), "nothing lost or twice");
        assert!(arrived == records, "byte for byte, in order");
    }
}

/// A relay before the broker: with `loses`, messages reach the broker, and its answers to them nobody.
#[derive(Default)]
struct Lossy {
    loses: AtomicBool,
    lost: AtomicUsize,
    port: u16,
    broker: u16,
}

impl Lossy {
    fn start(broker: u16) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let lossy = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            broker,
            ..Self::default()
        });
        let state = lossy.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let state = state.clone();
                // An end of either side ends both.
                thread::spawn(move || state.pass(client.unwrap()).unwrap_or_default());
            }
        });
        lossy
    }

    fn pass(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut broker = TcpStream::connect(("127.0.0.1", self.broker))?;
        loop {
            let request = frame(&mut client)?;
            broker.write_all(&request)?;
            let answer = frame(&mut broker)?;
            // After the length comes what is asked; 0 is Produce.
            if self.loses.load(Ordering::SeqCst) && request[4..6] == [0, 0] {
                self.lost.fetch_add(1, Ordering::SeqCst);
                return client.shutdown(Shutdown::Both);
            }
            client.write_all(&answer)?;
        }
    }
}

fn frame(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    from.read_exact(&mut body)?;
    Ok([&length[..], &body].concat())
}

/// A sink of this name, whose topic is called like it.
fn sink(feed: &Feed, name: &str, port: u16, more: &Value) -> String {
    let mut kafka = json!({
        "brokers": [format!("localhost:{port}")], "topic": name, "caBundle": feed.root(),
        "username": "ledger", "passwordSecret": {"name": "kafka", "key": "password"}
    });
    for (key, value) in more.as_object().unwrap() {
        kafka[key] = value.clone();
    }
    kafka.as_object_mut().unwrap().retain(|_, v| !v.is_null());
    json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AuditSink", "metadata": {"name": name},
        "spec": {"kafka": kafka, "batch": {"records": 20}}
    })
    .to_string()
}

/// In clear, and as nobody.
fn in_clear(compression: &str) -> Value {
    json!({"allowInsecure": true, "caBundle": null, "username": null, "passwordSecret": null, "compression": compression})
}

fn says(feed: &Feed, sink: &str, reason: &str) -> bool {
    let line = format!("reason=\"{reason}\",sink=\"{sink}\"");
    feed.ledger().metrics().contains(&line)
}

#[test]
fn each_record_is_in_its_partition_once_through_crashes_stops_kills_and_lost_answers() {
    let mut feed = Feed::new("sinks-kafka");
    let kafka = Kafka::new(&feed.world);
    let mut server = kafka.start();
    kafka.tell("create all 3");
    kafka.tell("create lossy 2");
    feed.world.set_secret("kafka", "password", "s3cret\n");
    let all = sink(&feed, "all", kafka.ports["sasl"], &json!({}));
    let lossy = sink(&feed, "lossy", kafka.lossy.port, &in_clear("LZ4"));
    feed.world.set_sinks(&format!("{all}\n---\n{lossy}"));
    feed.start();
    feed.grow(100);
    for topic in ["all", "lossy"] {
        kafka.has_all(&feed, topic);
    }
    // Tried: a message that has no number in the log.
    let outcome = feed.test("all");
    assert_eq!(outcome["acknowledged"], true, "{outcome}");
    // Answers are lost, and somebody else writes there too.
    kafka.lossy.loses.store(true, Ordering::SeqCst);
    feed.grow(60);
    until("answers were lost", || {
        kafka.lossy.lost.load(Ordering::SeqCst) > 2
    });
    kafka.tell("write lossy 300");
    // The ledger begins anew without knowing what became of what it sent, and looks behind the others' messages.
    feed.kill();
    feed.start();
    until("one is lost again", || {
        kafka.lossy.lost.load(Ordering::SeqCst) > 3
    });
    kafka.lossy.loses.store(false, Ordering::SeqCst);
    for topic in ["all", "lossy"] {
        kafka.has_all(&feed, topic);
    }
    // Both in the same troubles.
    server = feed.survives("all", server, || kafka.start());
    for topic in ["all", "lossy"] {
        kafka.has_all(&feed, topic);
    }
    drop(server);
}

#[test]
fn what_a_broker_does_not_take_waits_and_says_why_and_records_too_large_are_named() {
    let mut feed = Feed::new("sinks-kafka-wrong");
    let kafka = Kafka::new(&feed.world);
    let _server = kafka.start();
    let (sasl, tls) = (kafka.ports["sasl"], kafka.ports["tls"]);
    let garbage = garbage();
    feed.world.set_secret("kafka", "password", "s3cret");
    feed.world.set_secret("wrong", "password", "s3cre");
    for (key, file) in [("tls.crt", "client.crt"), ("tls.key", "client.key")] {
        let text = fs::read_to_string(kafka.folder.join(file)).unwrap();
        feed.world.set_secret("client", key, &text);
    }
    let wrong = json!({"name": "wrong", "key": "password"});
    let by_certificate =
        |secret: Value| json!({"username": null, "passwordSecret": null, "tlsSecret": secret});
    let none = sasl;
    let cases = [
        (
            "wrong512",
            sasl,
            json!({"passwordSecret": wrong}),
            "unauthorized",
        ),
        (
            "wrongplain",
            sasl,
            json!({"passwordSecret": wrong, "mechanism": "PLAIN"}),
            "unauthorized",
        ),
        ("untrusted", sasl, json!({"caBundle": other_root()}), "tls"),
        ("unknown", tls, by_certificate(json!(null)), "tls"),
        ("nologin", none, by_certificate(json!(null)), "connect"),
        ("small", sasl, json!({"compression": "None"}), "settings"),
        ("garbage", garbage, in_clear("None"), "protocol"),
        ("clear", sasl, in_clear("None"), "protocol"),
    ];
    let good = [
        ("plain", sasl, json!({"mechanism": "PLAIN"})),
        (
            "scram256",
            sasl,
            json!({"mechanism": "SCRAM-SHA-256", "compression": "LZ4", "brokers": [format!("127.0.0.1:{}", free_port()), format!("localhost:{sasl}")]}),
        ),
        (
            "certificate",
            tls,
            by_certificate(json!({"name": "client"})),
        ),
    ];
    for (topic, ..) in &good {
        kafka.tell(&format!("create {topic} 4"));
    }
    let sinks = cases.iter().map(|(name, port, more, _)| (name, port, more));
    let sinks = sinks.chain(good.iter().map(|(name, port, more)| (name, port, more)));
    let sinks: Vec<_> = sinks
        .map(|(name, port, more)| sink(&feed, name, *port, more))
        .collect();
    feed.world.set_sinks(&sinks.join("\n---\n"));
    feed.start();
    feed.grow(50);
    for (name, _, _, reason) in cases {
        until(&format!("{name} fails as {reason}"), || {
            says(&feed, name, reason)
        });
        assert_eq!(feed.metric("records_total", name), 0.0, "{name}");
    }
    let outcome = feed.test("wrong512");
    assert_eq!(outcome["reason"], "unauthorized", "{outcome}");
    let outcome = feed.test("small");
    let message = outcome["message"].as_str().unwrap();
    assert!(message.contains("there is no such topic"), "{outcome}");
    // Now it is there, and too small for the longest.
    let longest = feed.records().iter().map(String::len).max().unwrap();
    kafka.tell(&format!(
        "create small 1 max.message.bytes={}",
        longest + 200
    ));
    for (name, ..) in good {
        kafka.has_all(&feed, name);
    }
    let (records, arrived, refused) = loop {
        feed.drained("small");
        let records = feed.records();
        let arrived: Vec<_> = kafka.read("small").into_iter().map(|m| m.value).collect();
        let refused = feed.metric("refused_records_total", "small");
        if feed.records() == records {
            break (records, arrived, refused);
        }
    };
    assert!(refused >= 1.0, "{refused}");
    let named = fs::read_to_string(feed.world.data.join("sinks/small.refused.jsonl")).unwrap();
    assert!(named.contains("larger than the topic takes"), "{named}");
    let expected = records.iter().filter(|line| arrived.contains(line));
    assert!(expected.eq(&arrived), "in order");
    assert_eq!(arrived.len() as f64 + refused, records.len() as f64);
}

/// Something that is no broker: it announces more than there is memory.
fn garbage() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            // Who left is of no account.
            let _ = client.write_all(&[0x7f; 8]);
            let _ = client.read(&mut [0; 512]);
        }
    });
    port
}
