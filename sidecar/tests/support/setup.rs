//! What every story needs besides its connection: policies in force, a resolver that knows some hosts, and records that can be read at the end.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chaperone_crds::{
    control::{PodConfig, SinkConfig},
    grpc::DescriptorSet,
    pod::PodIdentity,
    record::Record,
    resources::AgentPolicy,
    snapshot::{Policy, Snapshot},
    tokenize::MaskKey,
};
use chaperone_sidecar::{
    audit::{self, AuditConfig, AuditHandle},
    authority::Authority,
    cluster::Cluster,
    dns::{Hosts, Names, Resolver},
    egress::Egress,
    metrics::Metrics,
    policy,
    shared::{Active, Pinned, Shared, Silent},
};
use tokio::sync::watch;

/// The descriptor set of `acme.v1.Orders`, which all stories have.
const SHOP: &[u8] = include_bytes!("../../../crds/tests/descriptors/shop.binpb");

/// A sidecar without its listeners.
pub(crate) struct Setup {
    pub(crate) shared: Arc<Shared>,
    /// Tells the sidecar to stop.
    pub(crate) stop: watch::Sender<bool>,
    /// Until the stream is closed.
    audit: Option<AuditHandle>,
    spool: Folder,
}

/// A folder that goes with its story.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Setup {
    /// With this policy (YAML; empty for none), trusting `extra_roots` (PEM) upstream. The resolver knows `hosts` (as in /etc/hosts) and nothing else. Also returns the PEM
    /// of the root under which the sidecar mints.
    pub(crate) fn new(policies: &str, extra_roots: &str, hosts: &str) -> (Self, String) {
        let spool = std::env::temp_dir().join(format!("chaperone-story-{}", unique()));
        std::fs::create_dir_all(&spool).unwrap();
        let registry = prometheus::Registry::new();
        let names = Arc::new(Names::new(Hosts::parse(hosts.as_bytes())));
        let resolver = Arc::new(Resolver::with_servers(Vec::new(), None, names.clone()));
        let egress = Arc::new(Egress::new(None, resolver, &[]));
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
        let active = active(policies, extra_roots, identity);
        let (stop, stopping) = watch::channel(false);
        let (authority, root) = Authority::self_made("test").unwrap();
        let shared = Arc::new(Shared {
            active: arc_swap::ArcSwapOption::from(Some(active)),
            authority: arc_swap::ArcSwap::from_pointee(authority),
            names,
            recorder,
            egress,
            metrics: Metrics::new(&registry).unwrap(),
            cluster: Cluster::default(),
            stopping,
            pinned: Pinned::default(),
            silent: Silent::default(),
        });
        let setup = Self {
            shared,
            stop,
            audit: Some(audit),
            spool: Folder(spool),
        };
        (setup, root)
    }

    /// Sends the records somewhere.
    #[allow(dead_code, reason = "only some stories do")]
    pub(crate) fn send_to(&self, sinks: Vec<SinkConfig>) {
        self.audit.as_ref().unwrap().set_sinks(sinks).unwrap();
    }

    /// Puts other policies in force.
    #[allow(dead_code, reason = "only some stories do")]
    pub(crate) fn swap(&self, policies: &str) {
        let identity = self
            .shared
            .active
            .load_full()
            .unwrap()
            .config
            .identity
            .clone();
        self.shared
            .active
            .store(Some(active(policies, "", identity)));
    }

    /// Closes the stream and returns its records. End all connections first.
    pub(crate) async fn records(mut self) -> Vec<Record> {
        self.end_stream().await;
        self.on_disk()
    }

    /// Closes the stream: nothing is recorded after it.
    pub(crate) async fn end_stream(&mut self) {
        if let Some(audit) = self.audit.take() {
            audit.close("terminated", Duration::from_secs(5)).await;
        }
    }

    /// Folder of the spool.
    #[allow(dead_code, reason = "only some stories do")]
    pub(crate) fn spool(&self) -> PathBuf {
        self.spool.0.clone()
    }

    /// The records that are in the spool's files now.
    pub(crate) fn on_disk(&self) -> Vec<Record> {
        on_disk(&self.spool.0)
    }
}

/// The records that are in the files of a spool.
pub(crate) fn on_disk(spool: &std::path::Path) -> Vec<Record> {
    let mut segments: Vec<_> = std::fs::read_dir(spool)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "jsonl"))
        .collect();
    segments.sort();
    let mut records = Vec::new();
    for segment in segments {
        for line in std::fs::read_to_string(segment).unwrap().lines() {
            records.push(Record::read(line.as_bytes()).unwrap());
        }
    }
    records
}

fn active(policies: &str, extra_roots: &str, identity: PodIdentity) -> Arc<Active> {
    let snapshot = snapshot(policies);
    let config = PodConfig {
        revision: snapshot.revision(),
        identity,
        snapshot,
        sinks: Vec::new(),
        extra_roots: extra_roots.to_owned(),
        mask_key: Some(MaskKey::new([7; 32])),
        grpc_descriptors: vec![DescriptorSet::pack("shop", SHOP).unwrap()],
        client_certificates: Vec::new(),
    };
    Arc::new(policy::compile(config).unwrap())
}

fn snapshot(policies: &str) -> Snapshot {
    if policies.is_empty() {
        return Snapshot::default();
    }
    let policy: AgentPolicy = serde_saphyr::from_str(policies).unwrap();
    let name = policy.metadata.name.unwrap_or_default();
    Snapshot::new(vec![Policy::namespaced("agents", &name, 1, &policy.spec)])
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    // Where a test has this file twice, each has a counter of its own, at an address of its own.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{:x}-{}",
        std::process::id(),
        std::ptr::from_ref(&NEXT).addr(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
