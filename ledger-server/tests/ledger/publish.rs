//! Checkpoints outside of the ledger's disk: on record, in a ConfigMap, and what they prove later.

use std::{
    fs,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use chaperone_ledger::audit::{self, Trust};
use serde_json::Value;

use crate::world::{Lines, World, stream};

const PATIENCE: Duration = Duration::from_secs(60);

fn publishing(name: &str) -> World {
    let world = World::new(name);
    *world.more.lock().unwrap() = [
        "--publish-seconds",
        "1",
        "--publish-config-map",
        "checkpoints",
        "--namespace",
        "chaperone",
    ]
    .map(str::to_owned)
    .into();
    world
}

/// Sizes of the checkpoints on record.
fn recorded(world: &World) -> Vec<u64> {
    let all = world.records();
    let lines = all.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice::<Value>(line).unwrap())
        .filter(|record| record["kind"] == "ledger.checkpoint")
        .map(|record| record["checkpoint"]["size"].as_u64().unwrap())
        .collect()
}

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn checkpoints_are_published_while_records_come_and_rest_when_none_do() {
    let world = publishing("publish");
    let shown = || world.cluster.config_map.lock().unwrap().clone();
    let ledger = world.start();
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    assert_eq!(ledger.post("pod-a", &id, &lines.take(10)).0, 200);
    // The ledger's open, whose the stream is, and ten.
    let size = |shown: &Value| shown["size"].as_str().and_then(|s| s.parse::<u64>().ok());
    let first = wait_for("the first one in the ConfigMap", || {
        shown().filter(|shown| size(shown) >= Some(12))
    });
    wait_for("the first one on record", || {
        recorded(&world)
            .iter()
            .any(|size| *size >= 12)
            .then_some(())
    });
    // Each of them is a record, of which no other comes.
    thread::sleep(Duration::from_secs(4));
    let rested = recorded(&world);
    thread::sleep(Duration::from_secs(4));
    assert_eq!(recorded(&world), rested, "it goes on by itself");
    // One of the open alone, one that was signed before the ten came, one with them.
    assert!(rested.len() <= 3, "{rested:?}");

    assert_eq!(ledger.post("pod-a", &id, &lines.take(300)).0, 200);
    wait_for("a newer one", || {
        (size(&shown().unwrap()) >= Some(312) && recorded(&world).len() > rested.len())
            .then_some(())
    });
    assert!(
        ledger.metric("chaperone_ledger_publications_total{place=\"configmap\",result=\"ok\"}")
            >= 2.0
    );
    ledger.stop();

    // What was in the ConfigMap proves what is there now, and whose note is on record does too.
    let all = world.records();
    let newest = all.split(|b| *b == b'\n').rfind(|line| {
        serde_json::from_slice::<Value>(line).is_ok_and(|r| r["kind"] == "ledger.checkpoint")
    });
    let newest: Value = serde_json::from_slice(newest.unwrap()).unwrap();
    let kept = [&first["checkpoint"], &newest["checkpoint"]["note"]];
    let kept = kept.map(|note| note.as_str().unwrap().as_bytes().to_vec());
    let trust = Trust {
        keys: vec![world.vkey.parse().unwrap()],
        kept: kept.to_vec(),
    };
    let verdict = audit::verify(&world.data, &trust).unwrap();
    assert!(verdict.is_intact(), "{verdict}");
    assert_eq!(verdict.kept.len(), 2);

    // A record that was changed before the kept checkpoint, by somebody who has no key, shows.
    let segment = world.data.join("records/00000000.jsonl");
    let text = fs::read_to_string(&segment).unwrap();
    fs::write(&segment, text.replacen("\"dns\"", "\"gap\"", 1)).unwrap();
    assert!(!audit::verify(&world.data, &trust).unwrap().is_intact());
}

#[test]
fn an_api_server_that_is_away_keeps_no_record_from_being_published_and_is_tried_again() {
    let world = publishing("publish-away");
    world
        .cluster
        .config_map_is_away
        .store(true, Ordering::Relaxed);
    let ledger = world.start();
    wait_for("it is tried", || {
        let failed = "chaperone_ledger_publications_total{place=\"configmap\",result=\"failed\"}";
        (ledger.metric(failed) >= 2.0).then_some(())
    });
    wait_for("it is on record", || {
        (!recorded(&world).is_empty()).then_some(())
    });
    assert_eq!(recorded(&world).len(), 1, "once");
    world
        .cluster
        .config_map_is_away
        .store(false, Ordering::Relaxed);
    wait_for("it is in the ConfigMap", || {
        world.cluster.config_map.lock().unwrap().clone()
    });
    ledger.stop();
}
