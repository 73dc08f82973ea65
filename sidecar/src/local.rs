//! The sidecar around one command on one machine: `chaperone run -- COMMAND`.
//!
//! The command gets a network namespace of its own that has no way out but the sidecar's listeners: the sidecar dials from the namespace that it was started in. So
//! nothing on the machine changes, and nothing is left when it ends. Invariant: nothing leaves the command's namespace unread; datagrams other than DNS do not leave it at all, in
//! either mode.

mod command;
mod namespace;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
};

use anyhow::Context;
use chaperone_crds::{
    control::{ClientCertificate, PodConfig, SinkConfig},
    grpc::DescriptorSet,
    pod::{ADDING_VARIABLES, JAVA_VARIABLE, PodIdentity, REPLACING_VARIABLES, trust_environment},
    snapshot::Snapshot,
    tokenize::MaskKey,
};
use prometheus::Registry;
use tokio::sync::watch;

use crate::{
    audit::{self, AuditConfig},
    authority::Authority,
    capture::LOG_DELAY,
    cluster::Cluster,
    dns::{Hosts, Names, ResolvConf, Resolver},
    egress::Egress,
    isolate, listen,
    metrics::Metrics,
    policy::Enforcement,
    shared::{Pinned, Shared, Silent},
    sidecar::{self, CLOSE_PATIENCE},
};

pub use namespace::{NamespaceError, become_capable};

/// One command and what holds for it.
#[derive(Clone, Debug)]
pub struct LocalRun {
    /// Policies; their selectors play no part, all apply.
    pub snapshot: Snapshot,
    /// Where records go.
    pub sinks: Vec<SinkConfig>,
    /// PEM roots that upstreams may chain to, besides the Mozilla ones.
    pub extra_roots: String,
    /// What messages of gRPC services are made of.
    pub grpc_descriptors: Vec<DescriptorSet>,
    /// Client certificates for hosts, and for Secrets that policies name.
    pub client_certificates: Vec<ClientCertificate>,
    /// Who the records say it was.
    pub identity: PodIdentity,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// What came of a run.
#[derive(Debug)]
pub struct LocalOutcome {
    /// How the command ended.
    pub status: ExitStatus,
    /// Trust variables that were set already and kept.
    pub kept_variables: Vec<&'static str>,
}

/// Runs the command to its end.
///
/// # Errors
/// When it cannot be confined or started. It is never started unconfined.
pub fn run(local: &LocalRun) -> anyhow::Result<LocalOutcome> {
    isolate::install();
    let scratch = Scratch::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let namespace =
        namespace::enter().context("cannot make a network namespace for the command")?;
    let outcome = runtime.block_on(story(local, &scratch, namespace))?;
    Ok(outcome)
}

fn random_mask_key() -> anyhow::Result<MaskKey> {
    let mut bytes = [0; 32];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| anyhow::anyhow!("the machine gives no random bytes"))?;
    Ok(MaskKey::new(bytes))
}

async fn story(
    local: &LocalRun,
    scratch: &Scratch,
    mut namespace: namespace::Captured,
) -> anyhow::Result<LocalOutcome> {
    let registry = Registry::new();
    let names = Arc::new(Names::new(
        Hosts::read("/etc/hosts").context("cannot read /etc/hosts")?,
    ));
    let resolv_conf =
        ResolvConf::read("/etc/resolv.conf").context("cannot read /etc/resolv.conf")?;
    let resolver = Arc::new(Resolver::new(&resolv_conf, None, names.clone()));
    let egress = Arc::new(Egress::new(None, resolver.clone(), resolv_conf.search()));
    let (authority, root) = Authority::self_made("chaperone run")?;
    let config = PodConfig {
        revision: local.snapshot.revision(),
        identity: local.identity.clone(),
        snapshot: local.snapshot.clone(),
        sinks: local.sinks.clone(),
        extra_roots: format!("{}\n{}", local.extra_roots, machine_roots()),
        // Of this run alone: its tokens mean nothing in the next.
        mask_key: Some(random_mask_key()?),
        grpc_descriptors: local.grpc_descriptors.clone(),
        client_certificates: local.client_certificates.clone(),
    };
    let audit_config = AuditConfig {
        file_dir: None,
        ..AuditConfig::new(scratch.spool(), local.identity.clone())
    };
    let (recorder, audit) = audit::start(audit_config, egress.clone(), &registry)?;
    let (stop, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        active: arc_swap::ArcSwapOption::empty(),
        authority: arc_swap::ArcSwap::from_pointee(authority),
        names,
        recorder,
        egress,
        metrics: Metrics::new(&registry)?,
        cluster: Cluster::default(),
        stopping,
        pinned: Pinned::default(),
        silent: Silent::default(),
    });
    let enforcement = Enforcement {
        capture: None,
        trust_dir: scratch.trust(),
        root,
    };
    enforcement.apply(&shared, &audit, config)?;
    let listeners = namespace.listeners()?;
    sidecar::serve_names(&shared, listeners.dns, resolver);
    let _watching = sidecar::watch_datagrams(&shared, namespace.gaps()?);
    let data = listen::serve_captured(shared.clone(), listeners.capture)?;

    let (environment, kept_variables) = environment(&scratch.trust());
    let child = namespace.spawn(&local.command, environment)?;
    let waited = command::wait(child).await;
    let _ = stop.send(true);
    let _ = tokio::task::spawn_blocking(move || data.join()).await;
    tokio::time::sleep(LOG_DELAY).await;
    let closing = audit.close("command-ended", CLOSE_PATIENCE).await;
    tracing::debug!(?closing, "the stream is closed");
    Ok(LocalOutcome {
        status: waited?,
        kept_variables,
    })
}

/// Where Linux distributions keep the machine's own roots: Debian's, Fedora's and openSUSE's place.
const MACHINE_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// What the machine and the user trust already, PEM: the command went on trusting it without Chaperone, so upstreams may chain to it.
fn machine_roots() -> String {
    let named = REPLACING_VARIABLES
        .iter()
        .chain(&ADDING_VARIABLES)
        .filter_map(std::env::var_os)
        .map(PathBuf::from);
    let mut files: Vec<PathBuf> = MACHINE_BUNDLES
        .iter()
        .map(PathBuf::from)
        .chain(named)
        .collect();
    files.sort();
    files.dedup();
    files
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Trust variables for the command. A bundle that a variable named before is part of ours (see [`machine_roots`]); one that cannot be read stays, and is reported.
fn environment(trust: &Path) -> (Vec<(&'static str, String)>, Vec<&'static str>) {
    let mut kept = Vec::new();
    let mut added = Vec::new();
    for (name, value) in trust_environment(&trust.display().to_string()) {
        match std::env::var(name) {
            Ok(before) if name == JAVA_VARIABLE => added.push((name, format!("{before} {value}"))),
            Ok(before) if std::fs::read_to_string(&before).is_err() => kept.push(name),
            _ => added.push((name, value)),
        }
    }
    (added, kept)
}

/// Makes `wanted`, or `wanted-1` and so on where a run that was killed left its folder under a process id that is used again. It is left alone: records may be in it.
fn fresh(wanted: &Path, create: impl Fn(&Path) -> io::Result<()>) -> anyhow::Result<PathBuf> {
    const TRIES: usize = 100;
    let names = (0..TRIES).map(|n| match n {
        0 => wanted.to_owned(),
        n => PathBuf::from(format!("{}-{n}", wanted.display())),
    });
    for name in names {
        match create(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made.with_context(|| format!("cannot make {}", name.display()))?;
                return Ok(name);
            }
        }
    }
    anyhow::bail!(
        "{} and {} more of that name are there: remove what runs that were killed left",
        wanted.display(),
        TRIES - 1
    )
}

/// Spool and trust bundle of one run; gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let create = |path: &Path, mode| std::fs::DirBuilder::new().mode(mode).create(path);
        let name = format!("chaperone-run-{}", std::process::id());
        let root = fresh(&std::env::temp_dir().join(name), |path| create(path, 0o711))?;
        let scratch = Self(root);
        create(&scratch.spool(), 0o700)?;
        create(&scratch.trust(), 0o755)?;
        Ok(scratch)
    }

    fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    fn trust(&self) -> PathBuf {
        self.0.join("trust")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_is_not_in_the_way() -> anyhow::Result<()> {
        let wanted = Path::new("/tmp/run-7");
        let left = [Path::new("/tmp/run-7"), Path::new("/tmp/run-7-1")];
        let create = |path: &Path| match left.contains(&path) {
            true => Err(io::ErrorKind::AlreadyExists.into()),
            false => Ok(()),
        };
        assert_eq!(fresh(wanted, create)?, Path::new("/tmp/run-7-2"));
        let full = fresh(wanted, |_| Err(io::ErrorKind::AlreadyExists.into()));
        assert!(full.is_err_and(|error| error.to_string().contains("remove")));
        let closed = fresh(wanted, |_| Err(io::ErrorKind::PermissionDenied.into()));
        assert!(closed.is_err_and(|error| error.to_string().contains("cannot make")));
        Ok(())
    }
}
