//! What an S3 sink put into a bucket, proved from there by `chaperone verify` as it runs.

use std::{fs, io::Write as _, process::Output};

use serde_json::{Value, json};

use super::{s3::Gateway, *};

/// The command line. `cargo test --workspace` builds it, and so does `--test commands` beside `--test ledger`.
fn chaperone() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_chaperone-ledger")).with_file_name("chaperone");
    assert!(
        program.is_file(),
        "{} is not built: add --test commands, or run all of the workspace's tests",
        program.display()
    );
    let mut command = Command::new(program);
    for name in ["AWS_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command
}

/// A ledger that has delivered to two sinks of a gateway.
struct Delivered {
    feed: Feed,
    gateway: Gateway,
    _server: Server,
}

impl Delivered {
    fn new(name: &str) -> Self {
        let mut feed = Feed::new(name);
        let gateway = Gateway::new(&feed.world);
        let server = gateway.start();
        feed.world.set_secret("s3", "access-key-id", "ledger");
        feed.world.set_secret("s3", "secret-access-key", "s3cret");
        *feed.world.more.lock().unwrap() = ["--publish-seconds", "1"].map(str::to_owned).into();
        let batch = json!({"records": 40, "waitMilliseconds": 200});
        let lines = s3::sink(&feed, gateway.port, &json!({}), &batch);
        let rows = s3::sink(&feed, gateway.port, &json!({"format": "Parquet"}), &batch);
        let rows = rows.replace("\"name\":\"archive\"", "\"name\":\"rows\"");
        feed.world.set_sinks(&format!("{lines}\n---\n{rows}"));
        feed.start();
        for _ in 0..3 {
            feed.grow(100);
        }
        let delivered = Self {
            feed,
            gateway,
            _server: server,
        };
        until("a checkpoint of all is on record", || {
            let (_, verdict) = delivered.json("archive", &[]);
            verdict["checkpoint"]["size"].as_u64() > Some(300)
        });
        for sink in ["archive", "rows"] {
            delivered.feed.drained(sink);
        }
        delivered
    }

    fn verify(&self, sink: &str, more: &[&str]) -> Output {
        self.verify_as("s3cret", sink, more)
    }

    fn verify_as(&self, secret: &str, sink: &str, more: &[&str]) -> Output {
        chaperone()
            .args([
                "verify",
                &format!("s3://audit/chaperone/{sink}"),
                "--endpoint",
            ])
            .arg(format!("https://localhost:{}", self.gateway.port))
            .arg("--ca")
            .arg(self.feed.world.folder.join("tls.crt"))
            .args(more)
            .env("AWS_ACCESS_KEY_ID", "ledger")
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .output()
            .unwrap()
    }

    /// Exit status and what is said, with the ledger's key.
    fn told(&self, sink: &str, more: &[&str]) -> (Option<i32>, String) {
        let more = [&["--key", &self.feed.world.vkey][..], more].concat();
        said(&self.verify(sink, &more))
    }

    fn json(&self, sink: &str, more: &[&str]) -> (Option<i32>, Value) {
        let more = [&["--key", &self.feed.world.vkey, "-o", "json"][..], more].concat();
        let output = self.verify(sink, &more);
        let verdict = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), verdict)
    }

    /// Objects of lines, in order.
    fn objects(&self) -> Vec<PathBuf> {
        self.gateway.objects()
    }

    /// A checkpoint of all records, in a file of its own.
    fn kept(&self) -> PathBuf {
        let kept = self.feed.world.folder.join("kept");
        until("everything is signed", || {
            let note = fs::read_to_string(self.feed.world.data.join("checkpoint")).unwrap();
            note.lines().nth(1) == Some(&self.feed.records().len().to_string())
        });
        fs::copy(self.feed.world.data.join("checkpoint"), &kept).unwrap();
        kept
    }
}

fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn lines(object: &Path) -> String {
    let bytes = zstd::decode_all(fs::File::open(object).unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Puts lines into the store behind the gateway's back.
fn put(object: &Path, lines: &str) {
    let mut encoder = zstd::Encoder::new(fs::File::create(object).unwrap(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(lines.as_bytes()).unwrap();
    encoder.finish().unwrap();
}

fn has(told: &(Option<i32>, String), status: i32, words: &[&str]) {
    let (found, text) = told;
    assert_eq!(*found, Some(status), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn what_a_sink_delivered_is_proved_from_the_bucket_up_to_signed_checkpoints() {
    let delivered = Delivered::new("archive-proved");
    let count = delivered.feed.records().len();
    let kept = delivered.kept();
    let kept = ["--checkpoint", kept.to_str().unwrap()];
    for sink in ["archive", "rows"] {
        let (status, verdict) = delivered.json(sink, &[]);
        assert_eq!(status, Some(0), "{sink}: {verdict:#}");
        assert_eq!(verdict["complete"], true);
        assert_eq!(verdict["records"], count);
        assert!(verdict["objects"].as_u64() > Some(7), "{verdict:#}");
        let told = delivered.told(sink, &kept);
        let whole = ["kept elsewhere: all of these records are here", ": intact"];
        has(&told, 0, &whole);
    }
    // Tried sinks and others' objects are no records.
    let outcome = delivered.feed.test("archive");
    assert_eq!(outcome["acknowledged"], true, "{outcome}");
    let folder = delivered.objects()[0].parent().unwrap().to_owned();
    fs::write(folder.join("notes.txt"), "not a record").unwrap();
    has(
        &delivered.told("archive", &[]),
        0,
        &["not read: 1 objects", "notes.txt"],
    );
    fs::remove_file(folder.join("notes.txt")).unwrap();
    // Without a key the chains alone; a day of them is a part.
    has(
        &said(&delivered.verify("archive", &[])),
        0,
        &["give the ledger's public key", "intact"],
    );
    let day = folder.file_name().unwrap().to_str().unwrap();
    has(
        &said(&delivered.verify(&format!("archive/{day}"), &["--part"])),
        0,
        &["intact"],
    );
    // An object that begins within another, as after a sink was made anew.
    let objects = delivered.objects();
    let around = objects
        .iter()
        .find(|object| lines(object).lines().count() > 2);
    let all = lines(around.unwrap());
    let (_, rest) = all.split_once('\n').unwrap();
    let record: Value = serde_json::from_str(rest.lines().next().unwrap()).unwrap();
    let name = around.unwrap().file_name().unwrap().to_str().unwrap();
    let leaf: u64 = name.split_at(20).0.parse().unwrap();
    let (stream, seq) = (record["stream"].as_str().unwrap(), &record["seq"]);
    let within = folder.join(format!("{:020}-{stream}-{seq}.ndjson.zst", leaf + 1));
    put(&within, rest);
    has(
        &delivered.told("archive", &kept),
        0,
        &["of them again", "intact"],
    );
    let other = rest.replacen("\"kind\":\"", "\"kind\":\"o", 1);
    put(&within, &other);
    has(
        &delivered.told("archive", &kept),
        1,
        &["is another here", "NOT INTACT"],
    );
}

#[test]
fn what_is_missing_or_changed_in_a_bucket_is_named() {
    let delivered = Delivered::new("archive-false");
    let kept = delivered.kept();
    let kept = ["--checkpoint", kept.to_str().unwrap()];
    let object = delivered.objects()[3].clone();
    let sound = lines(&object);
    // A record is another.
    let at = sound.lines().nth(5).unwrap();
    let record: Value = serde_json::from_str(at).unwrap();
    let time = record["time"].as_str().unwrap();
    put(&object, &sound.replace(time, "2026-01-01T00:00:00.000000Z"));
    let bad = format!("FIRST BAD RECORD {}: ", record["seq"]);
    has(
        &delivered.told("archive", &kept),
        1,
        &[&bad, "was altered", "has the root", "NOT INTACT"],
    );
    // A byte of the object is another.
    put(&object, &sound);
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes).unwrap();
    has(
        &delivered.told("archive", &kept),
        1,
        &["FAULT: date=", "NOT INTACT"],
    );
    // It is gone.
    fs::remove_file(&object).unwrap();
    let missing = format!(
        "MISSING (the first: record {})",
        serde_json::from_str::<Value>(sound.lines().next().unwrap()).unwrap()["seq"]
    );
    let count = format!("INCOMPLETE: {} records are missing", sound.lines().count());
    has(
        &delivered.told("archive", &kept),
        1,
        &[&missing, "chains only", ": intact, ", &count],
    );
    put(&object, &sound);
    has(&delivered.told("archive", &kept), 0, &["intact"]);
    // The last is gone: only a checkpoint that was kept elsewhere says so.
    let last = delivered.objects().pop().unwrap();
    fs::remove_file(&last).unwrap();
    has(
        &delivered.told("archive", &kept),
        1,
        &["is not reached", "INCOMPLETE"],
    );
}

#[test]
fn who_may_not_read_a_bucket_or_trusts_another_key_is_told_so() {
    let delivered = Delivered::new("archive-refused");
    let wrong = delivered.verify_as("wrong", "archive", &[]);
    has(&said(&wrong), 2, &["403", "check the credentials"]);
    let mut nobody = chaperone();
    nobody
        .args(["verify", "s3://audit/chaperone/archive"])
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY");
    has(
        &said(&nobody.output().unwrap()),
        2,
        &["set AWS_ACCESS_KEY_ID"],
    );
    let other = delivered.feed.world.folder.join("other.crt");
    fs::write(&other, other_root()).unwrap();
    let mut distrusting = chaperone();
    distrusting
        .args(["verify", "s3://audit/chaperone/archive", "--credentials"])
        .arg(delivered.feed.world.folder.join("secrets/s3"))
        .arg("--ca")
        .arg(other)
        .env(
            "AWS_ENDPOINT_URL",
            format!("https://localhost:{}", delivered.gateway.port),
        );
    has(&said(&distrusting.output().unwrap()), 2, &["TLS", "--ca"]);
    let stranger = World::new("archive-stranger");
    let told = said(&delivered.verify("archive", &["--key", &stranger.vkey]));
    has(
        &told,
        1,
        &["signed by none of the keys given", "NOT INTACT"],
    );
    has(
        &delivered.told("nothing", &[]),
        1,
        &["no records: nothing is proved"],
    );
}
