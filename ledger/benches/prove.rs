//! What it costs to take records durably, and to prove those that are there.

use std::{fs, hint::black_box, path::PathBuf};

use chaperone_crds::{
    bodies::unsalted,
    chain::{Chain, StreamId},
    record::{AgentRef, Event, EventKind},
    verify::{Start, verify},
};
use chaperone_ledger::{
    audit::{self, Trust},
    cosignature::Time,
    key::{Algorithm, SigningKey},
    store::{Config, MAX_WAITING_BYTES, SEGMENT_BYTES, Store},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const ORIGIN: &str = "bench.example/ledger";
const STREAMS: u8 = 16;
/// Records of each stream.
const RECORDS: usize = 4_000;
/// Text of a record besides its frame: a kilobyte in all.
const PADDING: usize = 700;
const SOUND: &str = "the bench's own ledger is sound";

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn folder(name: &str) -> Folder {
    let path = std::env::temp_dir().join(format!("chaperone-bench-{name}-{}", std::process::id()));
    fs::create_dir_all(&path).expect(SOUND);
    Folder(path)
}

fn id(stream: u8) -> StreamId {
    StreamId::from_random([stream; 16])
}

/// Batches of a hundred records, the streams in turn.
fn batches() -> Vec<(StreamId, Vec<u8>)> {
    let now = "2026-11-24T10:00:00Z".parse().expect(SOUND);
    let mut chains: Vec<Chain> = (0..STREAMS).map(|s| Chain::new(id(s))).collect();
    let mut batches = Vec::new();
    for round in 0..RECORDS / 100 {
        for chain in &mut chains {
            let mut batch = Vec::new();
            for place in 0..100 {
                let kind = match (round, place) {
                    (0, 0) => EventKind::StreamOpen,
                    _ => EventKind::Http,
                };
                let mut event = Event::new(kind, AgentRef::default());
                event.error = Some("x".repeat(PADDING));
                chain.append(&event, now, unsalted, &mut batch);
            }
            batches.push((chain.stream().clone(), batch));
        }
    }
    batches
}

fn key() -> SigningKey {
    SigningKey::from_seed(ORIGIN.parse().expect(SOUND), Algorithm::Ed25519, [5; 32])
}

fn open(folder: &Folder) -> Store {
    Store::open(Config {
        dir: folder.0.clone(),
        origin: ORIGIN.parse().expect(SOUND),
        keys: vec![key().verifier().clone()],
        segment_bytes: SEGMENT_BYTES,
        checkpoint_seconds: 10,
    })
    .expect(SOUND)
}

/// Takes all batches; a commit for so many bytes.
fn fill(store: &mut Store, batches: &[(StreamId, Vec<u8>)], commit_bytes: usize) {
    let mut waiting = 0;
    for (stream, batch) in batches {
        let _ = store.stage(stream, batch).expect(SOUND);
        waiting += batch.len();
        if waiting >= commit_bytes {
            store.commit().expect(SOUND);
            waiting = 0;
        }
    }
    store.commit().expect(SOUND);
}

fn prove(c: &mut Criterion) {
    let batches = batches();
    let bytes: usize = batches.iter().map(|(_, batch)| batch.len()).sum();
    let records = u64::from(STREAMS) * RECORDS as u64;

    let mut group = c.benchmark_group("take records, each commit on disk");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(records));
    for (name, commit_bytes) in [("100 a commit", 1), ("1 MiB a commit", 1 << 20)] {
        assert!(commit_bytes <= MAX_WAITING_BYTES);
        group.bench_function(name, |b| {
            b.iter_with_large_drop(|| {
                let folder = folder("take");
                fill(&mut open(&folder), &batches, commit_bytes);
                folder
            });
        });
    }
    group.finish();

    let folder = folder("prove");
    let mut store = open(&folder);
    fill(&mut store, &batches, 1 << 20);
    store
        .checkpoint(&[&key()], Time::new(1).expect(SOUND))
        .expect(SOUND);
    drop(store);
    let trust = Trust {
        keys: vec![key().verifier().clone()],
        kept: Vec::new(),
    };
    let log: Vec<u8> = batches.into_iter().flat_map(|(_, batch)| batch).collect();
    let mut group = c.benchmark_group("prove");
    group
        .sample_size(10)
        .throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("a log", |b| {
        b.iter(|| {
            assert!(
                verify(black_box(&log[..]), Start::Open)
                    .expect(SOUND)
                    .is_intact()
            )
        });
    });
    group.bench_function("a ledger", |b| {
        b.iter(|| assert!(audit::verify(&folder.0, &trust).expect(SOUND).is_intact()));
    });
    group.finish();
}

criterion_group!(benches, prove);
criterion_main!(benches);
