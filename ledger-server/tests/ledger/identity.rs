//! Whose a stream is: found out, recorded before its records, and never forgotten.

use std::sync::atomic::Ordering;

use chaperone_crds::{
    chain::StreamId,
    record::{EventKind, Record},
    verify::{Start, verify},
};
use serde_json::json;

use crate::world::{Lines, ORIGIN, World, stream};

fn records(world: &World) -> Vec<Record> {
    let all = world.records();
    let lines = all.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn a_stream_belongs_to_the_pod_that_opened_it_also_after_a_restart() {
    let world = World::new("binding");
    let ledger = world.start();
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    assert_eq!(ledger.post("pod-a", &id, &lines.take(2)).0, 200);
    let more = lines.take(1);
    let path = format!("/v1/streams/{id}");
    let refused = |ledger: &crate::world::Ledger| {
        let (status, body) = ledger.post("pod-b", &id, &more);
        assert_eq!((status, &body["code"]), (403, &json!("not-yours")));
        assert_eq!(ledger.curl(&path, "pod-b", &[]).0, 403);
        let own = StreamId::of_ledger(ORIGIN);
        let (status, body) = ledger.post("pod-b", &own, &more);
        assert_eq!((status, &body["code"]), (403, &json!("not-yours")));
    };
    refused(&ledger);
    ledger.kill();
    let ledger = world.start();
    refused(&ledger);
    assert_eq!(
        ledger.post("pod-a", &id, &more).1,
        json!({"nextSeq": 3, "added": 1})
    );
    ledger.stop();

    let records = records(&world);
    let kinds: Vec<_> = records.iter().map(|r| r.event.kind).collect();
    use EventKind::{Dns, StreamIdentity, StreamOpen, StreamResume};
    assert_eq!(
        kinds,
        [
            StreamOpen,
            StreamIdentity,
            StreamOpen,
            Dns,
            StreamResume,
            Dns
        ]
    );
    let bound = &records[1];
    assert_eq!(bound.stream, StreamId::of_ledger(ORIGIN).as_str());
    assert_eq!(bound.event.agent.pod, "a");
    let identity = bound.event.identity.as_ref().unwrap();
    assert_eq!(identity.stream, id.as_str());
    let workload = &identity.workload;
    let known = (
        &*workload.namespace,
        &*workload.uid,
        &*workload.service_account,
        &*workload.node,
    );
    assert_eq!(known, ("agents", "uid-a", "coder", "node-1"));
    let report = verify(&world.records()[..], Start::Open).unwrap();
    assert!(report.is_intact(), "{report}");
}

#[test]
fn what_is_new_about_a_pod_is_recorded_before_the_records_that_follow() {
    let world = World::new("digests");
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    let ledger = world.start();
    assert_eq!(ledger.post("pod-a", &id, &lines.take(1)).0, 200);
    assert_eq!(ledger.post("pod-a", &id, &lines.take(1)).0, 200);
    // A verdict is remembered: two batches, one review.
    assert_eq!(world.cluster.reviews.load(Ordering::Relaxed), 1);
    *world.cluster.image_ids.lock().unwrap() = vec!["claude@sha256:aa".to_owned()];
    // Another process remembers nothing but what is recorded.
    ledger.stop();
    let ledger = world.start();
    assert_eq!(ledger.post("pod-a", &id, &lines.take(1)).0, 200);
    assert_eq!(ledger.post("pod-a", &id, &lines.take(1)).0, 200);
    ledger.stop();
    let records = records(&world);
    let told: Vec<_> = records
        .iter()
        .filter_map(|r| r.event.identity.as_ref())
        .map(|i| i.image_ids.len())
        .collect();
    assert_eq!(told, [0, 1]);
    let at = |wanted: &dyn Fn(&Record) -> bool| records.iter().position(wanted).unwrap();
    let second = at(&|r| {
        r.event
            .identity
            .as_ref()
            .is_some_and(|i| !i.image_ids.is_empty())
    });
    let third = at(&|r| r.stream == id.as_str() && r.seq == 2);
    assert!(second < third);
}

#[test]
fn a_batch_that_is_refused_binds_nothing() {
    let world = World::new("refused");
    let ledger = world.start();
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    let open = lines.take(1);
    let second = lines.take(1);
    assert_eq!(ledger.post("pod-b", &id, &second).0, 409);
    assert_eq!(ledger.post("pod-b", &id, b"no record\n").0, 400);
    assert_eq!(ledger.post("pod-a", &id, &open).0, 200);
    ledger.stop();
    assert_eq!(records(&world).len(), 3);
}

#[test]
fn without_an_answer_of_the_api_server_nobody_is_let_in() {
    let world = World::new("down");
    let ledger = world.start();
    let id = stream(1);
    let mut lines = Lines::new(id.clone());
    assert_eq!(ledger.post("pod-a", &id, &lines.take(1)).0, 200);
    world.cluster.down.store(true, Ordering::Relaxed);
    let more = lines.take(1);
    let other = stream(2);
    let (status, body) = ledger.post("pod-b", &other, &Lines::new(other.clone()).take(1));
    assert_eq!((status, &body["code"]), (503, &json!("unavailable")));
    let (_, head) = ledger.curl(&format!("/v1/streams/{other}"), "pod-b", &["-D", "-"]);
    assert!(head.contains("retry-after: 1"), "{head}");
    // Who was let in within the last minute still is.
    assert_eq!(ledger.post("pod-a", &id, &more).0, 200);
}
