//! Putting a configuration in force: compile, swap, tell the packet filter and the sinks, acknowledge.
//!
//! Invariant: a configuration that cannot be used changes nothing; the one before rules on.

use std::{path::PathBuf, sync::Arc};

use chaperone_crds::{
    compile::{CompiledSnapshot, DatagramRule},
    control::PodConfig,
    grpc::Descriptors,
    record::{AgentRef, EventKind},
    resources::{Action, Mode, Protocol},
};

use crate::{
    audit::{AuditHandle, BadSinkName, TryRecordError},
    capture::{self, CaptureConfig, CaptureMode, DatagramKind, Datagrams},
    shared::{Active, Shared},
    tls::{Asking, Settings, SettingsError},
    trust,
};

/// Why a configuration cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Its policies do not compile. The operator checks that before, so versions differ.
    #[error("the policies do not compile: {0}")]
    Compile(String),
    /// Its revision is not that of its policies.
    #[error("revision {sent} is not the revision of these policies ({computed})")]
    Revision {
        /// What the operator said.
        sent: String,
        /// What it is.
        computed: String,
    },
    /// Its extra roots cannot be used.
    #[error(transparent)]
    Trust(#[from] trust::TrustError),
    /// TLS settings cannot be made.
    #[error("TLS: {0}")]
    Tls(#[from] SettingsError),
    /// A sink's name is unusable.
    #[error(transparent)]
    Sink(#[from] BadSinkName),
    /// The packet filter refused.
    #[error(transparent)]
    Capture(#[from] capture::CaptureError),
}

/// What a configuration touches besides [`Shared`].
pub struct Enforcement {
    /// Packet filter of this network namespace; the mode and what is allowed come from the policies. `None` where another namespace is captured.
    pub capture: Option<CaptureConfig>,
    /// Where the trust bundle lies.
    pub trust_dir: PathBuf,
    /// Chaperone's root, PEM.
    pub root: String,
}

/// Compiles a configuration.
///
/// # Errors
/// As [`PolicyError`].
pub fn compile(config: PodConfig) -> Result<Active, PolicyError> {
    let computed = config.snapshot.revision();
    if computed != config.revision {
        return Err(PolicyError::Revision {
            sent: config.revision.to_string(),
            computed: computed.to_string(),
        });
    }
    let snapshot = CompiledSnapshot::compile_with_key(&config.snapshot, config.mask_key.as_ref())
        .map_err(|e| PolicyError::Compile(e.to_string()))?;
    let roots = trust::upstream_roots(&config.extra_roots)?;
    let upstream_tls = Settings::new(roots, &config.client_certificates)?;
    let agent = AgentRef::from(&config.identity);
    let (descriptors, unusable) = Descriptors::load(&config.grpc_descriptors);
    for error in unusable {
        // Policies must not wait for it: what needs the set is refused call by call.
        tracing::warn!(%error, "a descriptor set is left out");
    }
    Ok(Active {
        config,
        snapshot,
        descriptors,
        agent,
        upstream_tls,
        asking: Asking::default(),
    })
}

impl Enforcement {
    /// Puts a configuration in force. Repeating the one in force changes nothing.
    ///
    /// # Errors
    /// As [`PolicyError`]; then the policies before rule on.
    pub fn apply(
        &self,
        shared: &Shared,
        audit: &AuditHandle,
        config: PodConfig,
    ) -> Result<(), PolicyError> {
        let before = shared.active.load_full();
        if before
            .as_ref()
            .is_some_and(|active| active.config == config)
        {
            return Ok(());
        }
        let active = Arc::new(compile(config)?);
        if before
            .as_ref()
            .is_none_or(|before| before.config.extra_roots != active.config.extra_roots)
        {
            trust::write_bundle(&self.trust_dir, &active.config.extra_roots, &self.root)?;
        }
        audit.set_sinks(active.config.sinks.clone())?;
        // Last of what can fail: the packet filter must not follow policies that are not in force.
        self.install_rules(before.as_deref(), &active)?;
        let changed = before
            .as_ref()
            .is_none_or(|before| before.config.revision != active.config.revision);
        shared.active.store(Some(active.clone()));
        if changed {
            announce(shared, &active);
        }
        Ok(())
    }

    fn install_rules(&self, before: Option<&Active>, active: &Active) -> Result<(), PolicyError> {
        let Some(base) = &self.capture else {
            return Ok(());
        };
        let rules = rules(base, active);
        if before.is_none_or(|before| self::rules(base, before) != rules) {
            capture::install(&rules)?;
        }
        Ok(())
    }
}

/// The packet filter that these policies ask for.
fn rules(base: &CaptureConfig, active: &Active) -> CaptureConfig {
    let mode = match active.mode() {
        Mode::Audit => CaptureMode::Audit,
        Mode::Enforce => CaptureMode::Enforce,
    };
    let mut config = CaptureConfig {
        mode,
        ..base.clone()
    };
    for rule in active.snapshot.datagram_rules() {
        let destinations = match rule.action {
            Action::Allow => &mut config.allowed,
            Action::Deny => &mut config.denied,
        };
        destinations.extend(datagrams(&rule));
    }
    config
}

fn datagrams(rule: &DatagramRule) -> Vec<Datagrams> {
    let network = rule.net;
    if rule.protocol == Protocol::Icmp {
        return vec![Datagrams {
            network,
            protocol: DatagramKind::Icmp,
        }];
    }
    let all = [(1, u16::MAX)];
    let ports: Vec<_> = rule.ports.iter().map(|port| (*port, *port)).collect();
    let ranges = if ports.is_empty() { &all[..] } else { &ports };
    let udp = |(first, last): &(u16, u16)| DatagramKind::Udp {
        first: *first,
        last: *last,
    };
    ranges
        .iter()
        .map(|range| Datagrams {
            network,
            protocol: udp(range),
        })
        .collect()
}

/// Records and counts which policies hold from now on. Waits for nothing: policies must come into force while the audit queue is full.
fn announce(shared: &Shared, active: &Active) {
    for (mode, name) in [(Mode::Audit, "audit"), (Mode::Enforce, "enforce")] {
        shared
            .metrics
            .mode
            .with_label_values(&[name])
            .set(i64::from(active.mode() == mode));
    }
    let mut event = active.event(EventKind::Config);
    event.config = Some(active.config.snapshot.recorded(active.mode()));
    if let Err(TryRecordError::Full(mut event)) = shared.recorder.try_record(event) {
        // How many wait here is the policies' to say, and their text is long: it is not what memory goes for.
        if let Some(config) = &mut event.config {
            config.snapshot = None;
        }
        let recorder = shared.recorder.clone();
        tokio::spawn(async move { recorder.record(*event).await });
    }
    tracing::info!(revision = %active.config.revision, mode = ?active.mode(), "policies in force");
}
