//! What the pure parts of the data path cost: heads, body framing, masking.

use std::{hint::black_box, sync::Arc};

use chaperone_crds::{
    detect::CompiledMasks,
    resources::{AgentPolicySpec, Mask},
};
use chaperone_sidecar::{
    http1::{BodyDecoder, BodyFraming, parse_request, parse_response},
    mask::{leave_alone, mask_all},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const REQUEST: &[u8] = b"GET /v1/items/17?expand=owner HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: claude-cli/2.0\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate, br\r\nAuthorization: Bearer 0123456789abcdef\r\nX-Client-Request-Id: 3f0c2f3e-94a4-4d14-8d7e-0d1a0f9c6f10\r\nConnection: keep-alive\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Wed, 25 Nov 2026 10:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: 1024\r\nConnection: keep-alive\r\nCache-Control: no-cache\r\n\r\n";
/// Bytes of a body that a measurement passes.
const BODY_BYTES: usize = 1024 * 1024;

fn heads(c: &mut Criterion) {
    let mut group = c.benchmark_group("head");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("request", |b| b.iter(|| parse_request(black_box(REQUEST))));
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |b| {
        b.iter(|| parse_response(black_box(RESPONSE), "GET"));
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let plain = vec![b'x'; BODY_BYTES];
    let chunk = [b"1000\r\n", &plain[..4096], b"\r\n"].concat();
    let mut chunked = chunk.repeat(BODY_BYTES / 4096);
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut group = c.benchmark_group("body");
    group.throughput(Throughput::Bytes(BODY_BYTES as u64));
    for (name, framing, bytes) in [
        ("length", BodyFraming::Length(BODY_BYTES as u64), &plain),
        ("chunked", BodyFraming::Chunked, &chunked),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut seen = 0;
                let mut decoder = BodyDecoder::new(framing);
                let progress = decoder.pump(black_box(bytes), |payload| seen += payload.len());
                (progress.is_ok(), seen)
            });
        });
    }
    group.finish();
}

fn masks(c: &mut Criterion) {
    let spec: AgentPolicySpec =
        serde_saphyr::from_str("{masks: [{name: pii, detectors: [email, creditCard, usSsn]}]}")
            .expect("the bench's own masks are well formed");
    let masks: Vec<&Mask> = spec.masks.iter().collect();
    let compiled =
        Arc::new(CompiledMasks::compile(masks).expect("the bench's own masks are well formed"));
    let secrets = CompiledMasks::secrets();
    let text: Vec<u8> = (0..)
        .flat_map(|n| {
            let who = if n % 2000 == 0 {
                "user@example.com"
            } else {
                "nobody"
            };
            format!(
                "{{\"id\": {n}, \"name\": \"item {n}\", \"note\": \"seen by {who} on page {}\"}}\n",
                n * 7
            )
            .into_bytes()
        })
        .take(BODY_BYTES)
        .collect();
    let url = b"https://api.example.com/v1/items/17?expand=owner";
    let mut group = c.benchmark_group("mask");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("text", |b| b.iter(|| mask_all(&compiled, black_box(&text))));
    group.throughput(Throughput::Bytes(url.len() as u64));
    group.bench_function("url-for-record", |b| {
        b.iter(|| leave_alone(&secrets, black_box(url)));
    });
    group.finish();
}

criterion_group!(benches, heads, bodies, masks);
criterion_main!(benches);
