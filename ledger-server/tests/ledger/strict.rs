//! `audit.commit: Ledger`: what leaves a sidecar is with the ledger before, whatever happens to the ledger.

use std::{
    fs,
    time::{Duration, Instant},
};

use chaperone_crds::record::{EventKind, Record};

use crate::{
    sidecar::ledger_sink,
    story::Story,
    world::{Folder, Ledger, World},
};

const POLICY: &str = "apiVersion: chaperone.dev/v1alpha1
kind: AgentPolicy
metadata: {name: p, namespace: agents}
spec:
  mode: Enforce
  audit: {commit: Ledger}
";
const GET: &str = "GET /a HTTP/1.1\r\nHost: files.example.com\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
/// As long as a sink that nobody waits for lets its batch fill.
const GATHER: Duration = Duration::from_millis(500);

/// A story whose records go to this ledger.
async fn story(world: &World, ledger: &Ledger) -> (Story, Folder) {
    let folder = Folder::new("strict");
    fs::copy(world.folder.join("tls.crt"), folder.join("tls.crt")).unwrap();
    fs::write(folder.join("token"), "pod-claude-0").unwrap();
    let story = Story::begin(POLICY).await;
    let url = format!("https://{}", ledger.api);
    story.send_to(vec![ledger_sink(&folder.join(""), &url)]);
    (story, folder)
}

/// Beginnings of operations that are on the ledger's disk.
fn held(world: &World) -> usize {
    let all = world.records();
    let lines = all.split_inclusive(|byte| *byte == b'\n');
    let records = lines.map(|line| serde_json::from_slice::<Record>(line).unwrap());
    records
        .filter(|record| record.event.kind == EventKind::Begin)
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_left_is_with_the_ledger_and_nobody_waits_for_a_batch_to_fill() {
    let world = World::new("strict");
    let ledger = world.start();
    let (mut story, _folder) = story(&world, &ledger).await;
    let turns = 20;
    let began = Instant::now();
    for turn in 1..=turns {
        story.send(GET).await;
        story.asked("\r\n\r\n").await;
        assert_eq!(held(&world), turn, "before anything leaves");
        story.answer(OK).await;
        story.heard("hi").await;
    }
    let took = began.elapsed();
    assert!(took < GATHER * 20 / 2, "{took:?}");
    let _ = story.records().await;
    ledger.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_ledger_is_away_an_operation_waits_and_then_goes_on() {
    let world = World::new("strict-away");
    let mut ledger = world.start();
    world.pin(ledger.api);
    let (mut story, _folder) = story(&world, &ledger).await;
    for turn in 1..=3 {
        ledger.kill();
        story.send(GET).await;
        let early = tokio::time::timeout(GATHER * 2, story.asked("\r\n\r\n")).await;
        assert!(early.is_err(), "it left without the ledger");
        ledger = world.start();
        story.asked("T /a").await;
        assert_eq!(held(&world), turn);
        story.asked("\r\n\r\n").await;
        story.answer(OK).await;
        story.heard("hi").await;
    }
    let records = story.records().await;
    let over = records.iter().filter(|r| r.event.kind == EventKind::Http);
    assert_eq!(over.filter(|r| r.event.begun.is_some()).count(), 3);
    ledger.stop();
}
