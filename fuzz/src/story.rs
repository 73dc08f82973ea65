//! A whole connection: an agent that sends any bytes, an upstream that answers what it takes for requests.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::BytesMut;
use chaperone_crds::{
    control::PodConfig,
    pod::PodIdentity,
    snapshot::{Policy, Snapshot},
};
use chaperone_sidecar::{
    audit::{self, AuditConfig, AuditHandle},
    authority::Authority,
    cluster::Cluster,
    connection::{begin, guard},
    detect::{Detected, detect},
    dns::{Hosts, Names, Resolver},
    egress::Egress,
    http,
    http1::{BodyDecoder, parse_request},
    http2,
    link::Link,
    metrics::Metrics,
    policy,
    shared::{Active, Pinned, Shared, Silent},
    wire::{Io, Wire},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Runtime,
    sync::watch,
};

use crate::evidence::Dir;

const HOST: &str = "files.example.com";
/// Bytes that each pipe holds.
pub(crate) const PIPE_BYTES: usize = 4096;
/// Longest time of one connection: what waits for longer waits for a peer that is not there.
const PATIENCE: Duration = Duration::from_millis(200);
/// A rule that reads bodies, and masks.
const SPEC: &str = r#"
mode: Enforce
rules:
  - {name: no-drop, match: {protocols: [http]}, when: 'has(http.body) && has(http.body.action) && http.body.action == "drop"', action: Deny}
masks: [{name: pii, detectors: [email, creditCard]}]
audit: {level: RequestResponse}
"#;

pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("there is a runtime")
});

/// A connection over TLS, from its first byte inside: nothing panics, the story ends when its peers do, and each request that reached the upstream whole is in a record.
pub(crate) fn connection(bytes: &[u8]) {
    let dir = Dir::new();
    let (asked, panicked) = RUNTIME.block_on(tell(&dir, bytes));
    assert!(!panicked, "the story panicked");
    let exchanges = dir.lines().iter().fold(0, |count, line| {
        let exchange = br#""kind":"http""#;
        count + usize::from(line.windows(exchange.len()).any(|part| part == exchange))
    });
    assert!(exchanges >= asked, "{asked} requests, {exchanges} records");
}

/// Requests that reached the upstream whole, and whether the story panicked.
async fn tell(dir: &Dir, bytes: &[u8]) -> (usize, bool) {
    let (shared, audit, stop) = surroundings(dir);
    let link = Link {
        tunnel: None,
        sni: Some(HOST.to_owned()),
        ..begin(shared.clone(), ([198, 51, 100, 7], 443).into()).expect("a policy is in force")
    };
    let (mut agent, side) = tokio::io::duplex(PIPE_BYTES);
    let (there, end) = tokio::io::duplex(PIPE_BYTES);
    let upstream = tokio::spawn(upstream(end));
    let protocol = detect(bytes);
    let told = async {
        let there: Box<dyn Io> = Box::new(there);
        let (mut side, there) = (
            Wire::new(side, BytesMut::new()),
            Some(Wire::new(there, BytesMut::new())),
        );
        let story = async {
            match protocol {
                Detected::Http2 => http2::serve(&link, side, there, true).await,
                _ => http::serve(&link, &mut side, there, true).await,
            }
        };
        guard(&link, None, std::pin::pin!(story)).await;
    };
    let speaking = async {
        let (mut hear, mut speak) = tokio::io::split(&mut agent);
        let hearing = async {
            let mut sink = [0; 1024];
            while let Ok(1..) = hear.read(&mut sink).await {}
        };
        let saying = async {
            let _ = speak.write_all(bytes).await;
            let _ = speak.shutdown().await;
        };
        let _ = tokio::time::timeout(PATIENCE, async { tokio::join!(hearing, saying) }).await;
        drop(agent);
    };
    tokio::join!(told, speaking);
    let asked = upstream.await.expect("the upstream does not panic");
    let panicked = shared.metrics.panics.get() > 0;
    drop(stop);
    audit.close("terminated", Duration::from_secs(10)).await;
    (asked, panicked)
}

/// Answers each request of HTTP/1 that is whole, and goes away when it hears nothing for long; how many there were.
async fn upstream(mut end: DuplexStream) -> usize {
    let (mut unread, mut buffer, mut asked) = (Vec::new(), [0; 1024], 0);
    while let Ok(Ok(read @ 1..)) = tokio::time::timeout(PATIENCE, end.read(&mut buffer)).await {
        unread.extend_from_slice(&buffer[..read]);
        while let Some(used) = whole(&unread) {
            unread.drain(..used);
            asked += 1;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\na@b.co ok";
            let _ = end.write_all(answer).await;
        }
    }
    asked
}

fn whole(bytes: &[u8]) -> Option<usize> {
    let (head, used) = parse_request(bytes).ok()??;
    let mut body = BodyDecoder::new(head.framing());
    let progress = body.pump(&bytes[used..], |_| {}).ok()?;
    body.is_done().then_some(used + progress.consumed)
}

static ACTIVE: LazyLock<Arc<Active>> = LazyLock::new(|| {
    let spec = serde_saphyr::from_str(SPEC).expect("the policy is sound");
    let snapshot = Snapshot::new(vec![Policy::namespaced("team", "fuzz", 1, &spec)]);
    let config = PodConfig {
        revision: snapshot.revision(),
        identity: PodIdentity::default(),
        snapshot,
        sinks: Vec::new(),
        extra_roots: String::new(),
        mask_key: None,
        grpc_descriptors: Vec::new(),
        client_certificates: Vec::new(),
    };
    Arc::new(policy::compile(config).expect("the policy compiles"))
});

/// A sidecar under one policy, that writes its records to a folder.
pub(crate) fn surroundings(dir: &Dir) -> (Arc<Shared>, AuditHandle, watch::Sender<bool>) {
    let names = Arc::new(Names::new(Hosts::parse(b"")));
    let resolver = Arc::new(Resolver::with_servers(Vec::new(), None, names.clone()));
    let egress = Arc::new(Egress::new(None, resolver, &[]));
    let registry = prometheus::Registry::new();
    let config = AuditConfig::new(dir.path(), PodIdentity::default());
    let (recorder, audit) =
        audit::start(config, egress.clone(), &registry).expect("there is room for a spool");
    let (authority, _) = Authority::self_made("fuzz").expect("there is randomness");
    let (stop, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        active: arc_swap::ArcSwapOption::from(Some(ACTIVE.clone())),
        authority: arc_swap::ArcSwap::from_pointee(authority),
        names,
        recorder,
        egress,
        metrics: Metrics::new(&registry).expect("each metric has a name of its own"),
        cluster: Cluster::default(),
        stopping,
        pinned: Pinned::default(),
        silent: Silent::default(),
    });
    (shared, audit, stop)
}
