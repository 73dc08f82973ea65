//! What a record costs: serialising it into its place in the chain, and hashing it.

use std::hint::black_box;

use chaperone_crds::{
    bodies::{Salt, unsalted},
    chain::{Chain, RecordHash, StreamId},
    messages::newest::Newest,
    record::{
        AgentRef, BodyInfo, DecisionInfo, DestinationInfo, Event, EventKind, HttpInfo,
        OperationInfo, Outcome, Timing,
    },
    resources::Mode,
    snapshot::Revision,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// The commonest record: a request that a default let pass, at level Metadata.
fn event() -> Event {
    let mut event = Event::new(
        EventKind::Http,
        AgentRef {
            namespace: "agents".to_owned(),
            pod: "claude-7d9f8b6c5-x2x4q".to_owned(),
            service_account: "claude".to_owned(),
        },
    );
    event.destination = Some(DestinationInfo {
        host: Some("api.example.com".to_owned()),
        ip: "192.0.2.10".to_owned(),
        original_ip: None,
        port: 443,
        sni: None,
        proxy: None,
        client_certificate: None,
    });
    event.operation = Some(OperationInfo {
        protocol: "http".to_owned(),
        verb: "GET".to_owned(),
        resource: "https://api.example.com/v1/items/17?expand=owner".to_owned(),
    });
    event.decision = Some(DecisionInfo {
        action: Outcome::Allow,
        would_deny: false,
        mode: Mode::Enforce,
        policy: None,
        rule: None,
        revision: Revision::of(b"policies"),
        reason: "default".to_owned(),
        message: None,
    });
    event.http = Some(HttpInfo {
        status: Some(200),
        response_bytes: 1024,
        complete: true,
        content_type: Some("application/json".to_owned()),
        ..HttpInfo::default()
    });
    event.timing = Some(Timing {
        total_us: 812,
        upstream_us: Some(790),
        decide_us: Some(2),
    });
    event
}

/// A turn of a model: two texts of the usual `maxBodyBytes`.
fn turn() -> Event {
    let text = "{\"role\":\"user\",\"content\":\"Tidy up the accounts.\"},";
    let body = |bytes: usize| BodyInfo {
        text: Some(text.repeat(bytes / text.len())),
        ..BodyInfo::default()
    };
    let mut event = event();
    if let Some(http) = &mut event.http {
        http.request_body = Some(body(64 * 1024));
        http.response_body = Some(body(64 * 1024));
    }
    event
}

fn record(c: &mut Criterion) {
    let event = event();
    let time = "2026-11-24T10:00:00.000007Z"
        .parse()
        .expect("the bench's own time is well formed");
    let mut chain = Chain::new(StreamId::from_random([7; 16]));
    let mut line = Vec::new();
    chain.append(&event, time, unsalted, &mut line);
    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Bytes(line.len() as u64));
    group.bench_function("serialise-and-hash", |b| {
        b.iter(|| {
            line.clear();
            chain.append(black_box(&event), time, unsalted, &mut line)
        });
    });
    let turn = turn();
    let salt = || Some(Salt::from_random([7; 16]));
    line.clear();
    chain.append(&turn, time, salt, &mut line);
    group.throughput(Throughput::Bytes(line.len() as u64));
    group.bench_function("serialise-and-hash-bodies", |b| {
        b.iter(|| {
            line.clear();
            chain.append(black_box(&turn), time, salt, &mut line)
        });
    });
    let whole = line.trim_ascii_end();
    group.bench_function("hash-bodies-again", |b| {
        b.iter(|| RecordHash::of(black_box(whole)));
    });
    group.finish();
}

/// A request to a model at the end of a long conversation: results of tools, calls, and a prompt.
fn conversation() -> String {
    let listing = "drwxr-xr-x 2 root root \\\"a\\\" 4096\\n".repeat(60);
    let turn = format!(
        r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":"{listing}"}}]}},{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"Bash","input":{{"command":"ls -l","n":[1,2,3]}}}}]}},"#
    );
    let turns = turn.repeat(2_000_000 / turn.len());
    format!(r#"{{"model":"m","messages":[{turns}{{"role":"user","content":"Go on."}}]}}"#)
}

fn newest(c: &mut Criterion) {
    let request = conversation();
    let mut group = c.benchmark_group("messages");
    group.throughput(Throughput::Bytes(request.len() as u64));
    group.bench_function("newest", |b| {
        b.iter(|| {
            let mut newest = Newest::new(64 * 1024);
            for piece in black_box(request.as_bytes()).chunks(16 * 1024) {
                newest.push(piece);
            }
            newest.finish()
        });
    });
    group.finish();
}

criterion_group!(benches, record, newest);
criterion_main!(benches);
