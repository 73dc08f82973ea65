//! What was acknowledged is there: under load, after kill -9, on a disk that is full.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use chaperone_crds::verify::{Start, verify};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::json;

use crate::world::{Client, Ledger, Lines, World, kills, stream};

/// Streams that write at a time.
const WRITERS: u8 = 24;
/// Times that the ledger is killed, where nothing else is asked for.
const KILLS: u64 = 6;

/// Next sequence number that was acknowledged last, by stream.
pub(crate) type Acknowledged = Arc<Mutex<BTreeMap<u8, u64>>>;

/// Writes one stream until told to stop, as a sidecar does: asks where the ledger stands after each failure, and goes on from there.
pub(crate) async fn write(
    number: u8,
    target: Arc<Mutex<Option<(std::net::SocketAddr, std::path::PathBuf)>>>,
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
) {
    let id = stream(number);
    let mut lines = Lines::new(id.clone());
    // All lines so far, by number: what a spool has.
    let mut spool: Vec<Vec<u8>> = Vec::new();
    let mut client = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut client else {
            let place = target.lock().unwrap().clone();
            if let Some((address, ca)) = place {
                client = Client::connect(address, &ca, &format!("pod-{number}"))
                    .await
                    .ok();
            }
            if client.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            } else if let Ok(next) = client.as_mut().unwrap().next(&id).await {
                let last = acknowledged.lock().unwrap().get(&number).copied();
                assert!(
                    next >= last.unwrap_or(0),
                    "stream {number}: {next} after {last:?} was acknowledged"
                );
            } else {
                client = None;
            }
            continue;
        };
        let Ok(next) = open.next(&id).await else {
            client = None;
            continue;
        };
        while lines.next_seq() < next + 7 {
            let mut line = Vec::new();
            lines.append(&mut line);
            spool.push(line);
        }
        let from = usize::try_from(next).unwrap();
        match open.post(&id, spool[from..].concat()).await {
            Ok((200, body)) => {
                let next = body["nextSeq"].as_u64().unwrap();
                acknowledged.lock().unwrap().insert(number, next);
            }
            Ok((503, _)) => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(other) => panic!("stream {number}: {other:?}"),
            Err(_) => client = None,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_killed_under_load_has_all_that_it_acknowledged_once() {
    let world = World::new("kill");
    let target = Arc::new(Mutex::new(None));
    let acknowledged = Acknowledged::default();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            tokio::spawn(write(
                number,
                target.clone(),
                acknowledged.clone(),
                stop.clone(),
            ))
        })
        .collect();
    let kills = kills(KILLS);
    for kill in 0..kills {
        let ledger = world.start();
        *target.lock().unwrap() = Some((ledger.api, ledger.ca()));
        let before: u64 = acknowledged.lock().unwrap().values().sum();
        // At least something is acknowledged by each process, so that each kill can lose something.
        while acknowledged.lock().unwrap().values().sum::<u64>() < before + 200 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        tokio::time::sleep(Duration::from_millis(kill * 13 % 40)).await;
        *target.lock().unwrap() = None;
        ledger.kill();
    }
    let ledger = world.start();
    *target.lock().unwrap() = Some((ledger.api, ledger.ca()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    let mut next = BTreeMap::new();
    for number in 0..WRITERS {
        let mut client = ledger.client(&format!("pod-{number}")).await;
        next.insert(number, client.next(&stream(number)).await.unwrap());
    }
    ledger.stop();
    let report = verify(&world.records()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.streams.len(), usize::from(WRITERS) + 1);
    let lines = world.records().iter().filter(|b| **b == b'\n').count() as u64;
    assert_eq!(lines, report.records(), "nothing is there twice");
    for (number, acknowledged) in acknowledged.lock().unwrap().iter() {
        assert!(next[number] >= *acknowledged, "stream {number}");
    }
    assert!(next.values().sum::<u64>() > kills * 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_share_commits() {
    let world = World::new("many");
    let ledger = Arc::new(world.start());
    let tasks: Vec<_> = (0..60)
        .map(|number| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let id = stream(number);
                let mut lines = Lines::new(id.clone());
                let mut client = ledger.client(&format!("pod-{number}")).await;
                for round in 1..=20 {
                    let (status, body) = client.post(&id, lines.take(10)).await.unwrap();
                    assert_eq!(
                        (status, body),
                        (200, json!({"nextSeq": round * 10, "added": 10}))
                    );
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(ledger.metric("chaperone_ledger_records_total"), 12_000.0);
    let commits = ledger.metric("chaperone_ledger_commit_records_count");
    assert!(commits < 1200.0, "{commits} commits for 1200 batches");
    assert_eq!(ledger.metric("chaperone_ledger_streams"), 61.0);
    assert_eq!(ledger.metric("chaperone_ledger_queue_requests"), 0.0);
    Arc::into_inner(ledger).unwrap().stop();
    let report = verify(&world.records()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
    assert_eq!(report.records(), 12_000 + 60 + 1);
    // The end signs all that is there.
    let note = fs::read_to_string(world.data.join("checkpoint")).unwrap();
    assert_eq!(note.lines().nth(1), Some("12061"));
}

/// A tmpfs of 4 MiB at `dir` that only this thread and what it starts can see. Needs root.
fn small_disk(dir: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace, as root");
    let none = None::<&str>;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).unwrap();
    mount(none, dir, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
}

#[test]
fn on_a_full_disk_nothing_is_acknowledged_and_all_goes_on_when_there_is_room() {
    // A thread of its own: the mount namespace ends with it.
    thread::spawn(full_disk).join().unwrap();
}

fn full_disk() {
    let world = World::new("full");
    fs::create_dir(&world.data).unwrap();
    small_disk(&world.data);
    let ledger = world.start();
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    assert_eq!(ledger.post("pod-a", &id, &lines.take(10)).0, 200);
    let ballast = world.data.join("ballast");
    // Fails when the disk is full, which is the point.
    let _ = fs::write(&ballast, vec![0; 5 * 1024 * 1024]);
    let batch = lines.take(3000);
    for _ in 0..3 {
        let (status, body) = ledger.post("pod-a", &id, &batch);
        assert_eq!((status, &body["code"]), (503, &json!("storage")));
    }
    let (status, _) = ledger.curl(&format!("/v1/streams/{id}"), "pod-a", &[]);
    assert_eq!(
        status, 503,
        "what is next is not known while nothing can be written"
    );
    assert_eq!(ledger.metric("chaperone_ledger_storage_failing"), 1.0);
    fs::remove_file(&ballast).unwrap();
    let taken = retried(&ledger, &id, &batch);
    assert_eq!(taken["nextSeq"], json!(3010));
    assert_eq!(ledger.metric("chaperone_ledger_storage_failing"), 0.0);
    assert_eq!(
        ledger.post("pod-a", &id, &lines.take(10)).1,
        json!({"nextSeq": 3020, "added": 10})
    );
    ledger.kill();
    let ledger = world.start();
    assert_eq!(
        ledger.curl(&format!("/v1/streams/{id}"), "pod-a", &[]).1,
        r#"{"nextSeq":3020}"#
    );
    ledger.stop();
    let report = verify(&world.records()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
}

fn retried(
    ledger: &Ledger,
    id: &chaperone_crds::chain::StreamId,
    batch: &[u8],
) -> serde_json::Value {
    for _ in 0..100 {
        match ledger.post("pod-a", id, batch) {
            (200, body) => return body,
            (503, _) => thread::sleep(Duration::from_millis(50)),
            other => panic!("{other:?}"),
        }
    }
    panic!("the disk has room, and no batch is taken");
}
