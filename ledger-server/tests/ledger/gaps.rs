//! Whose evidence is missing: seen, put on record, told, and not forgotten by a killed ledger.

#[path = "gaps/api.rs"]
pub(crate) mod api;

use std::{
    collections::BTreeMap,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use chaperone_crds::{
    bodies::unsalted,
    chain::{Chain, StreamId},
    record::{AgentRef, CloseInfo, Event, EventKind},
};
use serde_json::{Value, json};

use crate::world::{Ledger, World, stream};

/// Half a minute that a pod which is missing has, half a minute for its last records, and what a busy machine takes.
const PATIENCE: Duration = Duration::from_secs(110);

fn world(name: &str) -> World {
    let world = World::new(name);
    world.cluster.pods.is_watched.store(true, Ordering::Relaxed);
    *world.more.lock().unwrap() = ["--exempt-service-account", "agents/ci"]
        .map(str::to_owned)
        .into();
    world
}

fn ask(ledger: &Ledger, token: &str, query: &str) -> (u16, Value) {
    let (status, body) = ledger.curl(&format!("/v1/gaps?{query}"), token, &[]);
    (status, serde_json::from_str(&body).unwrap())
}

/// Reason of each pod.
fn gaps(ledger: &Ledger) -> BTreeMap<String, String> {
    let (status, body) = ask(ledger, "reader", "namespace=agents");
    assert_eq!(status, 200, "{body}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let gaps = body["gaps"].as_array().unwrap().iter();
    gaps.map(|gap| (text(&gap["pod"]), text(&gap["reason"])))
        .collect()
}

fn wait_for(ledger: &Ledger, expected: &[(&str, &str)]) {
    let expected: BTreeMap<_, _> = expected
        .iter()
        .map(|(pod, reason)| ((*pod).to_owned(), (*reason).to_owned()))
        .collect();
    let until = Instant::now() + PATIENCE;
    loop {
        let found = gaps(ledger);
        if found == expected {
            return;
        }
        assert!(Instant::now() < until, "{found:?}, not {expected:?}");
        thread::sleep(Duration::from_millis(500));
    }
}

/// A stream of this pod with an open and a heartbeat, and its close if it gets that far.
fn write(ledger: &Ledger, pod: &str, number: u8, closes: bool) {
    let id: StreamId = stream(number);
    let mut chain = Chain::new(id.clone());
    let mut batch = Vec::new();
    let mut kinds = vec![EventKind::StreamOpen, EventKind::StreamHeartbeat];
    kinds.extend(closes.then_some(EventKind::StreamClose));
    for kind in kinds {
        let mut event = Event::new(kind, AgentRef::default());
        event.close = (kind == EventKind::StreamClose).then(|| CloseInfo {
            records: chain.next_seq() + 1,
            ..CloseInfo::default()
        });
        chain.append(&event, jiff::Timestamp::now(), unsalted, &mut batch);
    }
    assert_eq!(ledger.post(&format!("pod-{pod}"), &id, &batch).0, 200);
}

fn recorded(world: &World, kind: &str) -> Vec<Value> {
    let all = world.records();
    let lines = all.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice::<Value>(line).unwrap())
        .filter(|record| record["kind"] == kind)
        .collect()
}

#[test]
fn who_leaves_no_evidence_is_told_of_and_who_leaves_all_is_not() {
    let world = world("gaps");
    let pods = &world.cluster.pods;
    for pod in ["whole", "killed", "mute"] {
        pods.run(pod, |_| {});
    }
    let without = |pod: &mut Value| pod["spec"]["initContainers"] = json!([]);
    pods.run("bare", without);
    pods.run("exempt", |pod| {
        without(pod);
        pod["spec"]["serviceAccountName"] = json!("ci");
    });
    pods.run("old", |pod| pod["spec"]["volumes"] = json!([]));
    pods.run("elsewhere", |pod| {
        without(pod);
        pod["metadata"]["namespace"] = json!("plain");
    });
    pods.run("pulling", |pod| pod["status"] = json!({"phase": "Pending"}));
    let ledger = world.start();
    write(&ledger, "whole", 1, true);
    write(&ledger, "killed", 2, false);
    let lasting = [
        ("bare", "no-sidecar"),
        ("exempt", "exempt"),
        ("old", "no-token"),
    ];
    wait_for(&ledger, &lasting);
    let (_, body) = ask(&ledger, "reader", "");
    assert!(body["watchingSince"].is_string(), "{body}");
    assert_eq!(body["pods"], 6, "{body}");
    pods.run("whole", |pod| pod["status"]["phase"] = json!("Succeeded"));
    for gone in ["killed", "mute"] {
        pods.set(gone, None);
    }
    let with_gone = [
        &lasting[..],
        &[("killed", "unclosed"), ("mute", "no-stream")],
    ]
    .concat();
    wait_for(&ledger, &with_gone);
    let one = ask(&ledger, "reader", "reason=unclosed").1;
    let gap = &one["gaps"][0];
    assert_eq!(
        (&gap["stream"], &gap["nextSeq"]),
        (&json!(stream(2).as_str()), &json!(2))
    );
    assert!(
        gap["ended"].is_string() && gap["lastRecord"].is_string(),
        "{gap}"
    );

    // Who may know.
    assert_eq!(ask(&ledger, "team", "namespace=agents").0, 200);
    for (token, query) in [
        ("team", ""),
        ("team", "namespace=plain"),
        ("stranger", "namespace=agents"),
    ] {
        let (status, body) = ask(&ledger, token, query);
        assert_eq!(
            (status, &body["code"]),
            (403, &json!("forbidden")),
            "{token} {query}"
        );
    }
    assert_eq!(ask(&ledger, "reader", "reason=any").0, 400);
    let read = recorded(&world, "ledger.read").into_iter();
    let of_team = |r: &Value| r["read"]["user"] == "team" && r["read"]["records"] == 5;
    assert!(
        read.into_iter()
            .any(|r| of_team(&r) && r["read"]["what"] == "gaps")
    );

    // Who is told without asking.
    let until = Instant::now() + PATIENCE;
    let unclosed = "chaperone_ledger_incomplete_pods{reason=\"unclosed\"}";
    while ledger.metric(unclosed) < 1.0 || pods.events().len() < 4 {
        assert!(Instant::now() < until, "{:?}", pods.events());
        thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(ledger.metric("chaperone_ledger_watching_pods"), 1.0);
    let events = pods.events();
    let mut about: Vec<_> = events.iter().map(|[_, pod, _]| pod.as_str()).collect();
    about.sort_unstable();
    assert_eq!(about, ["bare", "killed", "mute", "old"]);
    assert!(
        events
            .iter()
            .all(|[reason, ..]| reason == "EvidenceMissing")
    );

    // A killed ledger knows it all again from its records, at once.
    ledger.kill();
    let ledger = world.start();
    assert_eq!(
        gaps(&ledger).get("killed").map(String::as_str),
        Some("unclosed")
    );
    wait_for(&ledger, &with_gone);
    ledger.stop();
    let told = recorded(&world, "ledger.pod").into_iter();
    let mut told: Vec<_> = told
        .map(|r| {
            format!(
                "{} {}",
                r["agent"]["pod"].as_str().unwrap(),
                r["pod"]["state"].as_str().unwrap()
            )
        })
        .collect();
    told.sort();
    let expected = [
        "bare running",
        "exempt running",
        "killed ended",
        "killed running",
        "mute ended",
        "mute running",
        "old running",
        "whole ended",
        "whole running",
    ];
    assert_eq!(told, expected, "each once");
}

#[test]
fn pods_that_go_while_the_ledger_is_away_are_missed_and_those_that_it_cannot_see_are_not() {
    let world = world("away");
    let pods = &world.cluster.pods;
    for pod in ["there", "lost", "closed"] {
        pods.run(pod, |_| {});
    }
    let ledger = world.start();
    for (number, pod) in [(1, "there"), (2, "lost"), (3, "closed")] {
        write(&ledger, pod, number, pod == "closed");
    }
    let until = Instant::now() + PATIENCE;
    while recorded(&world, "ledger.pod").len() < 3 {
        assert!(Instant::now() < until, "pods are put on record");
        thread::sleep(Duration::from_millis(200));
    }
    ledger.kill();
    for pod in ["lost", "closed"] {
        pods.set(pod, None);
    }
    pods.is_down.store(true, Ordering::SeqCst);
    let ledger = world.start();
    thread::sleep(Duration::from_secs(3));
    let (status, body) = ask(&ledger, "reader", "namespace=agents");
    assert_eq!(status, 200);
    assert_eq!(
        body["watchingSince"],
        Value::Null,
        "it does not claim to see: {body}"
    );
    assert_eq!(body["gaps"], json!([]), "what is not seen is not gone");
    assert_eq!(ledger.metric("chaperone_ledger_watching_pods"), 0.0);
    pods.is_down.store(false, Ordering::SeqCst);
    wait_for(&ledger, &[("lost", "unclosed")]);
    let ended = recorded(&world, "ledger.pod");
    let lost = ended
        .iter()
        .find(|r| r["pod"]["uid"] == "uid-lost" && r["pod"]["state"] == "ended");
    assert!(
        lost.unwrap()["pod"]["after"].is_string(),
        "it was not seen to go"
    );
    ledger.stop();
}
