//! One connection in memory: an agent on one side, an upstream on the other, the sidecar's story between them, and the records that it leaves.

use std::{path::PathBuf, sync::Arc, time::Instant};

use bytes::BytesMut;
use chaperone_crds::{
    control::PodConfig,
    pod::PodIdentity,
    record::Record,
    resources::AgentPolicy,
    snapshot::{Policy, Snapshot},
};
use chaperone_sidecar::{
    audit::{self, AuditConfig, AuditHandle},
    authority::Authority,
    connection::Link,
    dns::{Hosts, Names, Resolver},
    egress::Egress,
    http,
    metrics::Metrics,
    policy,
    shared::{Pinned, Shared},
    wire::Wire,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::watch,
    task::JoinHandle,
};

/// Name of the upstream.
pub(crate) const HOST: &str = "files.example.com";

/// Bytes that each direction buffers: small, so that back-pressure is part of every test.
const PIPE_BYTES: usize = 4096;

/// A story under way.
pub(crate) struct Story {
    pub(crate) agent: DuplexStream,
    pub(crate) upstream: DuplexStream,
    served: JoinHandle<()>,
    audit: AuditHandle,
    spool: PathBuf,
    stop: watch::Sender<bool>,
}

impl Story {
    /// Begins with this policy (YAML; empty for none).
    pub(crate) async fn begin(policies: &str) -> Self {
        let spool = std::env::temp_dir().join(format!("chaperone-story-{}", uuid()));
        std::fs::create_dir_all(&spool).unwrap();
        let registry = prometheus::Registry::new();
        let resolver = Arc::new(Resolver::with_servers(
            Vec::new(),
            None,
            Arc::new(Names::new(Hosts::parse(b""))),
        ));
        let egress = Arc::new(Egress::new(None, resolver.clone(), &[]));
        let identity = PodIdentity {
            namespace: "agents".into(),
            pod: "claude-0".into(),
            ..PodIdentity::default()
        };
        let (recorder, audit) = audit::start(
            AuditConfig::new(&spool, identity.clone()),
            egress.clone(),
            &registry,
        )
        .unwrap();
        let snapshot = snapshot(policies);
        let config = PodConfig {
            revision: snapshot.revision(),
            identity,
            snapshot,
            sinks: Vec::new(),
            extra_roots: String::new(),
        };
        let active = Arc::new(policy::compile(config).unwrap());
        let (stop, stopping) = watch::channel(false);
        let shared = Arc::new(Shared {
            active: arc_swap::ArcSwapOption::from(Some(active.clone())),
            authority: arc_swap::ArcSwap::from_pointee(Authority::self_made("test").unwrap().0),
            names: resolver.names().clone(),
            recorder,
            egress,
            metrics: Metrics::new(&registry).unwrap(),
            api_server: None,
            stopping,
            pinned: Pinned::default(),
        });
        let link = Link {
            shared,
            active,
            destination: "198.51.100.7:443".parse().unwrap(),
            sni: Some(HOST.to_owned()),
            since: Instant::now(),
        };
        let (agent, agent_side) = tokio::io::duplex(PIPE_BYTES);
        let (upstream, upstream_side) = tokio::io::duplex(PIPE_BYTES);
        let served = tokio::spawn(async move {
            let upstream: Wire<Box<dyn chaperone_sidecar::wire::Io>> =
                Wire::new(Box::new(upstream_side), BytesMut::new());
            let mut agent = Wire::new(agent_side, BytesMut::new());
            http::serve(&link, &mut agent, Some(upstream), true).await;
        });
        Self {
            agent,
            upstream,
            served,
            audit,
            spool,
            stop,
        }
    }

    /// The agent sends.
    pub(crate) async fn send(&mut self, bytes: &str) {
        self.agent.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// The upstream answers.
    pub(crate) async fn answer(&mut self, bytes: &str) {
        self.upstream.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// What reaches the upstream, up to and including `end`.
    pub(crate) async fn asked(&mut self, end: &str) -> String {
        until(&mut self.upstream, end).await
    }

    /// What reaches the agent, up to and including `end`.
    pub(crate) async fn heard(&mut self, end: &str) -> String {
        until(&mut self.agent, end).await
    }

    /// The agent has no more to say.
    pub(crate) async fn half_close(&mut self) {
        self.agent.shutdown().await.unwrap();
    }

    /// The upstream goes away.
    pub(crate) fn upstream_leaves(&mut self) {
        self.upstream = tokio::io::duplex(1).0;
    }

    /// The sidecar is told to stop.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Everything else that reaches the upstream, to the end of the connection.
    pub(crate) async fn asked_to_end(&mut self) -> String {
        let mut rest = Vec::new();
        self.upstream.read_to_end(&mut rest).await.unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Everything else that reaches the agent, to the end of the connection.
    pub(crate) async fn heard_to_end(&mut self) -> String {
        let mut rest = Vec::new();
        self.agent.read_to_end(&mut rest).await.unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Ends the agent's side and returns the records.
    pub(crate) async fn records(self) -> Vec<Record> {
        drop(self.agent);
        drop(self.upstream);
        self.served.await.unwrap();
        self.audit
            .close("terminated", std::time::Duration::from_secs(5))
            .await;
        let mut records = Vec::new();
        let mut segments: Vec<_> = std::fs::read_dir(&self.spool)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
            .collect();
        segments.sort();
        for segment in segments {
            for line in std::fs::read_to_string(segment).unwrap().lines() {
                records.push(serde_json::from_str(line).unwrap());
            }
        }
        std::fs::remove_dir_all(&self.spool).unwrap();
        records
    }
}

fn snapshot(policies: &str) -> Snapshot {
    if policies.is_empty() {
        return Snapshot::default();
    }
    let policy: AgentPolicy = serde_saphyr::from_str(policies).unwrap();
    let name = policy.metadata.name.unwrap_or_default();
    Snapshot::new(vec![Policy::namespaced("agents", &name, 1, &policy.spec)])
}

async fn until(stream: &mut DuplexStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_u8()).await;
        match byte {
            Ok(Ok(byte)) => seen.push(byte),
            other => panic!(
                "{end:?} did not come ({other:?}) after {:?}",
                String::from_utf8_lossy(&seen)
            ),
        }
    }
    String::from_utf8(seen).unwrap()
}

fn uuid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
