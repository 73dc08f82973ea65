//! A ledger of several replicas over a real PostgreSQL and a real store with S3's API: leaders that are killed, stopped and superseded, a database and a bucket that are away, and replicas that begin with nothing.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use chaperone_crds::verify::{Start, verify};
use chaperone_ledger::audit::{self, Trust};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{
    crashes::{Acknowledged, write},
    faults::clock,
    sinks::{
        Server,
        postgres::{Cluster, PASSWORD},
        s3::Gateway,
        until,
    },
    world::{Ledger, Lines, World, kills, stream},
};

/// Streams that write at a time.
const WRITERS: u8 = 12;
/// Times that the leader is killed, where nothing else is asked for.
const KILLS: u64 = 4;

/// What replicas share.
struct Shared {
    // Ends before the folder that it is in goes.
    bucket: Server,
    database: Cluster,
    gateway: Gateway,
    world: World,
}

impl Shared {
    fn new(name: &str) -> Self {
        let world = World::new(name);
        let (database, gateway) = (Cluster::new(&world), Gateway::new(&world));
        database.start();
        let bucket = gateway.start();
        world.set_secret("database", "password", PASSWORD);
        world.set_secret("keys", "access-key-id", "ledger");
        world.set_secret("keys", "secret-access-key", "s3cret");
        let root = fs::read_to_string(world.folder.join("tls.crt")).unwrap();
        let file = json!({
            "postgres": {
                "host": "127.0.0.1", "port": database.port, "database": "postgres", "user": "admin",
                "passwordSecret": {"name": "database", "key": "password"}, "caBundle": root,
            },
            "s3": {
                "bucket": "audit", "endpoint": format!("https://localhost:{}", gateway.port), "prefix": "log",
                "credentialsSecret": {"name": "keys"}, "caBundle": root,
            },
        });
        let (store, secrets) = (
            world.folder.join("store.yaml"),
            world.folder.join("secrets"),
        );
        fs::write(&store, file.to_string()).unwrap();
        let more = [
            "--shared",
            store.to_str().unwrap(),
            "--shared-secrets",
            secrets.to_str().unwrap(),
            "--advertise",
            "127.0.0.1",
        ];
        world.more.lock().unwrap().extend(more.map(str::to_owned));
        Self {
            bucket,
            database,
            gateway,
            world,
        }
    }

    /// A replica that follows, and may lead soon.
    fn follow(replica: &World) -> Ledger {
        replica.start_until(replica.command(), "this replica follows")
    }

    /// The directory proves itself.
    fn verify(&self, replica: &World) {
        let trust = Trust {
            keys: vec![self.world.vkey.parse().unwrap()],
            kept: Vec::new(),
        };
        let verdict = audit::verify(&replica.data, &trust).unwrap();
        assert!(verdict.is_intact(), "{verdict}");
    }

    /// Names of files in the tables.
    fn in_tables(&self) -> Vec<String> {
        self.database
            .query("SELECT DISTINCT file FROM chaperone_ledger_bytes ORDER BY 1")
    }
}

fn leads(ledger: &Ledger) -> bool {
    ledger.metric("chaperone_ledger_leads ") > 0.5
}

/// Sends content that no compressor makes small.
fn send(ledger: &Ledger, number: u8, lines: &mut Lines, session: &str, texts: &[&str]) {
    let mut batch = Vec::new();
    if lines.next_seq() == 0 {
        lines.append(&mut batch);
    }
    for text in texts {
        lines.content(session, text, &mut batch);
    }
    until("the batch is taken", || {
        let (status, _) = ledger.post(&format!("pod-{number}"), &stream(number), &batch);
        status == 200
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leader_acknowledged_its_successors_have_however_it_ends() {
    let shared = Shared::new("shared-kill");
    let places: Vec<_> = ["a", "b", "c"]
        .map(|name| shared.world.replica(name))
        .into();
    let mut running: Vec<Option<Ledger>> = places.iter().map(|p| Some(Shared::follow(p))).collect();
    let target = Arc::new(Mutex::new(None));
    let acknowledged = Acknowledged::default();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (target, acknowledged) = (target.clone(), acknowledged.clone());
            tokio::spawn(write(number, target, acknowledged, stop.clone()))
        })
        .collect();
    let kills = kills(KILLS);
    for kill in 0..kills {
        let mut leader = None;
        until("somebody leads", || {
            leader = running.iter().position(|l| l.as_ref().is_some_and(leads));
            leader.is_some()
        });
        let leader = leader.unwrap();
        // Whichever is asked, the leader takes it.
        let asked = (leader + usize::try_from(kill).unwrap()) % places.len();
        let through = running[asked].as_ref().unwrap();
        *target.lock().unwrap() = Some((through.api, through.ca()));
        let before: u64 = acknowledged.lock().unwrap().values().sum();
        until("records are taken", || {
            acknowledged.lock().unwrap().values().sum::<u64>() >= before + 200
        });
        *target.lock().unwrap() = None;
        running[leader].take().unwrap().kill();
        // It comes back with what it has, or with nothing.
        if kill % 2 == 0 {
            fs::remove_dir_all(&places[leader].data).unwrap();
        }
        // Another leads meanwhile: a process of the same pod need not wait for the lease.
        until("another leads", || running.iter().flatten().any(leads));
        let next = running.iter().flatten().find(|l| leads(l)).unwrap();
        let ahead = next.metric("chaperone_ledger_shared_recalled_records ");
        assert!(
            kill == 0 || ahead > 200.0,
            "{ahead} records were read ahead"
        );
        running[leader] = Some(Shared::follow(&places[leader]));
    }
    let through = running[0].as_ref().unwrap();
    *target.lock().unwrap() = Some((through.api, through.ca()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let mut next = BTreeMap::new();
    for number in 0..WRITERS {
        let mut client = through.client(&format!("pod-{number}")).await;
        next.insert(number, client.next(&stream(number)).await.unwrap());
    }
    let leader = running.iter().position(|l| l.as_ref().is_some_and(leads));
    let leader = leader.unwrap();
    for (_, ledger) in running
        .iter_mut()
        .enumerate()
        .filter(|(at, _)| *at != leader)
    {
        ledger.take().unwrap().stop();
    }
    running[leader].take().unwrap().stop();
    let records = places[leader].records();
    let report = verify(&records[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
    let lines = records.iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(lines, report.records(), "nothing is there twice");
    for (number, acknowledged) in acknowledged.lock().unwrap().iter() {
        assert!(next[number] >= *acknowledged, "stream {number}");
    }
    assert!(next.values().sum::<u64>() > kills * 200);
    shared.verify(&places[leader]);
    // One that has never been there has the same.
    let new = shared.world.replica("new");
    new.start().stop();
    assert!(new.records().starts_with(&records));
    shared.verify(&new);
}

#[test]
fn a_leader_that_was_superseded_takes_nothing_more_and_ends() {
    let shared = Shared::new("shared-stopped");
    let (a, b) = (shared.world.replica("a"), shared.world.replica("b"));
    let mut old = a.start();
    let mut lines = Lines::new(stream(1));
    send(&old, 1, &mut lines, "s", &["before"]);
    // A process that hangs, and knows nothing of the time that goes by.
    old.signal(Signal::SIGSTOP);
    let new = b.start();
    let batch = lines.take(3);
    let (status, _) = new.post("pod-1", &stream(1), &batch);
    assert_eq!(status, 200);
    let two = Lines::new(stream(2)).take(5);
    // Asked while it hangs, and answered when it goes on: by then it has no say.
    let answered = thread::scope(|scope| {
        let asked = scope.spawn(|| old.curl_batch("pod-2", &stream(2), &two));
        thread::sleep(Duration::from_millis(500));
        old.signal(Signal::SIGCONT);
        asked.join().unwrap()
    });
    assert_ne!(answered, 200);
    assert!(!old.ended().success());
    let next = new.curl(&format!("/v1/streams/{}", stream(2)), "pod-2", &[]);
    assert_eq!(next, (200, r#"{"nextSeq":0}"#.to_owned()));
    new.stop();
    shared.verify(&b);
    // And it follows again, with what the other took.
    a.start().stop();
    assert!(a.records().starts_with(&b.records()));
    shared.verify(&a);
}

#[test]
fn a_database_and_a_bucket_that_are_away_are_waited_for() {
    let mut shared = Shared::new("shared-away");
    let (a, b) = (shared.world.replica("a"), shared.world.replica("b"));
    // Of yesterday, so that its segment is closed by what comes today.
    let mut command = a.command();
    clock(&mut command, "-1d");
    let ledger = a.start_as(command);
    let mut lines = Lines::new(stream(1));
    send(&ledger, 1, &mut lines, "s", &["yesterday"]);
    ledger.stop();
    let first = "records/00000000.jsonl".to_owned();
    assert!(shared.in_tables().contains(&first));
    shared.bucket.kill();
    let ledger = a.start();
    send(&ledger, 1, &mut lines, "s", &["today"]);
    until("the bucket is missed", || {
        ledger.metric("chaperone_ledger_shared_segments_waiting ") > 0.5
    });
    until("that is counted", || {
        ledger.metric("chaperone_ledger_shared_errors_total{stage=\"archive\"}") > 0.5
    });
    shared.bucket = shared.gateway.start();
    until("the segment is in the bucket", || {
        !shared.in_tables().contains(&first) && shared.gateway.objects().len() == 1
    });
    // The database crashes: what was acknowledged is there, and what comes meanwhile is not acknowledged.
    shared.database.crash();
    let batch = lines.take(4);
    let (status, body) = ledger.post("pod-1", &stream(1), &batch);
    assert_eq!((status, body["code"].as_str()), (503, Some("storage")));
    shared.database.start();
    until("records are taken again", || {
        ledger.post("pod-1", &stream(1), &batch).0 == 200
    });
    assert!(leads(&ledger), "nobody took over");
    ledger.stop();
    // From database and bucket alone.
    let ledger = b.start();
    let (status, body) = ledger.curl("/v1/records?kind=http", "reader", &[]);
    assert_eq!(status, 200, "{body}");
    ledger.stop();
    assert!(b.records().starts_with(&a.records()));
    shared.verify(&b);
    // What the bucket has is not believed: another object under the name is not taken.
    let object = shared.gateway.objects().pop().unwrap();
    fs::write(&object, zstd::encode_all(&b"{}\n"[..], 3).unwrap()).unwrap();
    let c = shared.world.replica("c");
    let follows = Shared::follow(&c);
    until("it is refused", || {
        follows.metric("chaperone_ledger_shared_errors_total{stage=\"copy\"}") > 0.5
    });
    assert!(!leads(&follows));
}

#[test]
fn what_is_erased_goes_from_database_bucket_and_every_replica() {
    let shared = Shared::new("shared-erase");
    let (a, b) = (shared.world.replica("a"), shared.world.replica("b"));
    let rules = shared.world.folder.join("retention.yaml");
    fs::write(&rules, "rules: []\n").unwrap();
    let with_rules = |replica: &World| {
        let mut command = replica.command();
        command.arg("--retention").arg(&rules);
        command.args(["--sweep-seconds", "1"]);
        command
    };
    let mut command = with_rules(&a);
    clock(&mut command, "-40d");
    let ledger = a.start_as(command);
    let mut lines = Lines::new(stream(1));
    send(&ledger, 1, &mut lines, "old", &["a text to be forgotten"]);
    ledger.stop();
    let ledger = a.start_as(with_rules(&a));
    let follows = Shared::follow(&b);
    send(&ledger, 1, &mut lines, "new", &["a text that stays"]);
    until("the old segment is in the bucket", || {
        shared.gateway.objects().len() == 1
    });
    let knows = |word: &str| {
        let files = fs::read_dir(&b.data)
            .unwrap()
            .map(|file| file.unwrap().path());
        let mut files = files.filter(|file| file.display().to_string().contains("index.sqlite"));
        files.any(|file| {
            let bytes = fs::read(file).unwrap_or_default();
            memchr::memmem::find(&bytes, word.as_bytes()).is_some()
        })
    };
    until("the index of the copy has the word", || knows("forgotten"));
    let before = shared.gateway.objects();
    let keys = shared
        .in_tables()
        .into_iter()
        .filter(|f| f.starts_with("keys/"));
    assert_eq!(keys.count(), 2, "a day's keys each");
    fs::write(&rules, "default: {content: 30d, records: 35d}\n").unwrap();
    until("keys and records of the old day are gone", || {
        let keys = shared
            .in_tables()
            .into_iter()
            .filter(|f| f.starts_with("keys/"));
        let after = shared.gateway.objects();
        keys.count() == 1 && after.len() == 1 && after != before
    });
    let object = zstd::decode_all(fs::File::open(&shared.gateway.objects()[0]).unwrap()).unwrap();
    assert!(memchr::memmem::find(&object, b"\"session\":{\"id\":\"old\"").is_none());
    until("the other copy has it so", || {
        fs::read(b.data.join("records/00000000.jsonl")).is_ok_and(|there| there == object)
            && fs::read_dir(b.data.join("keys")).unwrap().count() == 1
    });
    until("the index of the copy has forgotten", || {
        !knows("forgotten")
    });
    ledger.stop();
    until("the other leads", || leads(&follows));
    // Its index was kept, so that it answers at once.
    assert!(follows.metric("chaperone_ledger_index_rebuilds_total ") < 0.5);
    send(&follows, 1, &mut lines, "new", &["a text after"]);
    follows.stop();
    shared.verify(&b);
}

#[test]
fn a_directory_becomes_shared_and_its_log_goes_on() {
    let shared = Shared::new("shared-import");
    // A ledger with a volume, of two days.
    let alone = shared.world.replica("alone");
    let more = std::mem::take(&mut *alone.more.lock().unwrap());
    let mut command = alone.command();
    clock(&mut command, "-1d");
    let ledger = alone.start_as(command);
    let mut lines = Lines::new(stream(1));
    send(&ledger, 1, &mut lines, "s", &["yesterday"]);
    ledger.stop();
    let ledger = alone.start();
    send(&ledger, 1, &mut lines, "s", &["today"]);
    let import = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chaperone-ledger"));
        command.arg("share").arg("--dir").arg(&alone.data);
        command
            .arg("--key-file")
            .arg(shared.world.folder.join("skey"));
        command.args(more.iter().take(4));
        command.output().unwrap()
    };
    let refused = import();
    assert!(
        !refused.status.success(),
        "while a ledger has the directory"
    );
    ledger.stop();
    let records = alone.records();
    // Broken off once, and tried again.
    let done = (import(), import());
    let said = String::from_utf8_lossy(&done.1.stdout).into_owned();
    assert!(
        done.0.status.success() && done.1.status.success(),
        "{done:?}"
    );
    assert!(
        said.contains("records of ledger.test/log are shared now"),
        "{said}"
    );
    assert_eq!(
        shared
            .in_tables()
            .iter()
            .filter(|f| f.starts_with("records/"))
            .count(),
        1
    );
    let a = shared.world.replica("a");
    let ledger = a.start();
    send(&ledger, 1, &mut lines, "s", &["after"]);
    let (_, body) = ledger.curl("/v1/records?kind=http&q=yesterday", "reader", &[]);
    assert!(body.contains("records"), "{body}");
    ledger.stop();
    assert!(a.records().starts_with(&records));
    shared.verify(&a);
    // What replicas have taken is never written over.
    let late = import();
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(
        !late.status.success() && said.contains("another history"),
        "{said}"
    );
}

#[test]
fn a_database_of_another_log_or_without_durability_is_refused() {
    let shared = Shared::new("shared-other");
    shared.world.replica("a").start().stop();
    shared
        .database
        .query("UPDATE chaperone_ledger_lease SET origin = 'other.test/log'");
    let said = |what: &str| {
        let b = shared.world.replica("b");
        let mut child = b.command().spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map(|line| line.unwrap());
        let line = lines.find(|line| line.contains(what));
        child.kill().unwrap();
        child.wait().unwrap();
        line.unwrap_or_else(|| panic!("it never says {what}"))
    };
    let line = said("other.test/log");
    assert!(
        line.contains("another log needs a database or a schema of its own"),
        "{line}"
    );
    shared
        .database
        .query("UPDATE chaperone_ledger_lease SET origin = 'ledger.test/log'");
    shared.database.query("ALTER SYSTEM SET fsync = off");
    shared.database.query("SELECT pg_reload_conf()");
    said("fsync = off");
}
