//! What a decision costs, by the number of policies.

use std::hint::black_box;

use chaperone_crds::{
    compile::CompiledSnapshot,
    decide::{BodyView, Destination, HttpView, MAX_JUDGED_BODY_BYTES, NO_FIELDS, Operation},
    pod::PodIdentity,
    resources::{AgentPolicySpec, Protocol},
    snapshot::{Policy, Snapshot},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const HEADERS: [(&str, &str); 6] = [
    ("host", "svc0.example.com"),
    ("user-agent", "claude-cli/2.0"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, br"),
    ("content-type", "application/json"),
    (
        "x-client-request-id",
        "3f0c2f3e-94a4-4d14-8d7e-0d1a0f9c6f10",
    ),
];

/// A policy with one rule, about one host or (`None`) all.
fn policy(number: usize, host: Option<&str>) -> Policy {
    let hosts = host.map_or(String::new(), |host| format!(", hosts: [{host}]"));
    let spec = format!(
        r#"
mode: Enforce
rules:
  - name: no-delete
    match: {{protocols: [http]{hosts}}}
    when: http.method == "DELETE" && http.path.startsWith("/{number}/")
    action: Deny
"#
    );
    let spec: AgentPolicySpec =
        serde_saphyr::from_str(&spec).expect("the bench's own text is well formed");
    Policy::namespaced("team", &format!("p{number}"), 1, &spec)
}

fn compile(count: usize, host: impl Fn(usize) -> Option<String>) -> CompiledSnapshot {
    let policies = (0..count).map(|n| policy(n, host(n).as_deref())).collect();
    CompiledSnapshot::compile(&Snapshot::new(policies))
        .expect("the bench's own text is well formed")
}

fn operation() -> Operation<'static> {
    Operation {
        protocol: Protocol::Http,
        verb: "DELETE",
        resource: "https://svc0.example.com/v1/items/17",
        destination: Destination {
            host: Some("svc0.example.com"),
            ip: "192.0.2.10"
                .parse()
                .expect("the bench's own text is well formed"),
            port: 443,
            sni: Some("svc0.example.com"),
        },
        dns: None,
        ws: None,
        grpc: None,
        http: Some(HttpView {
            method: "DELETE",
            scheme: "https",
            host: "svc0.example.com",
            path: "/v1/items/17",
            query: "",
            headers: &HEADERS,
            content_type: None,
            body_size: Some(0),
            body: BodyView::NotRead,
            trailers: NO_FIELDS,
        }),
    }
}

fn decide(c: &mut Criterion) {
    let agent = PodIdentity::default();
    let mut measure = |name: &str, count: usize, snapshot: &CompiledSnapshot| {
        c.bench_with_input(BenchmarkId::new(name, count), snapshot, |b, snapshot| {
            let operation = operation();
            b.iter(|| {
                let operation = black_box(&operation);
                snapshot.candidates(operation).decide(&agent, operation)
            });
        });
    };
    // A fleet's policies: each about a service of its own.
    for count in [1, 10, 100, 1000] {
        let snapshot = compile(count, |n| Some(format!("svc{n}.example.com")));
        measure("decide/own-host", count, &snapshot);
    }
    // The worst case: every policy has something to say about every request.
    for count in [1, 10, 100] {
        measure("decide/every-host", count, &compile(count, |_| None));
    }
}

/// What a rule about secrets costs on the largest body that is judged.
fn detected(c: &mut Criterion) {
    let agent = PodIdentity::default();
    let text = "{\"user\": \"ana\", \"note\": \"call back on Tuesday, order 118-2\"}, ";
    let body = text.repeat(MAX_JUDGED_BODY_BYTES / text.len());
    for (name, when) in [
        ("one-detector", r#""creditCard" in http.detected"#),
        ("all-detectors", "size(http.detected) > 20"),
    ] {
        let spec = format!(
            "rules: [{{name: r, match: {{protocols: [http]}}, when: '{when}', action: Deny}}]"
        );
        let spec: AgentPolicySpec =
            serde_saphyr::from_str(&spec).expect("the bench's own text is well formed");
        let snapshot = Snapshot::new(vec![Policy::namespaced("team", "p", 1, &spec)]);
        let snapshot =
            CompiledSnapshot::compile(&snapshot).expect("the bench's own text is well formed");
        let mut operation = operation();
        if let Some(http) = &mut operation.http {
            http.body = BodyView::Complete(body.as_bytes());
        }
        let mut group = c.benchmark_group("detected");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.sample_size(10);
        group.bench_function(name, |b| {
            b.iter(|| {
                let operation = black_box(&operation);
                snapshot.candidates(operation).decide(&agent, operation)
            });
        });
    }
}

criterion_group!(benches, decide, detected);
criterion_main!(benches);
