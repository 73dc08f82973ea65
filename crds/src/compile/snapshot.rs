//! All policies of one pod, compiled: what the data path asks.

use std::{net::IpAddr, sync::Arc};

use super::{
    CompiledPolicy, CompiledRule, DatagramRule, MaskSet, PolicyError, PolicyErrors,
    UpstreamEntries, UpstreamTls, compile_policy, datagrams, masks::Masks, upstreams::Upstreams,
};
use crate::{
    decide::RuleIndex,
    hosts::{HostPattern, normalize_host},
    resources::{Action, Commit, Level, Mode},
    snapshot::{PolicyKind, PolicyRef, Revision, Snapshot},
    tokenize::{MaskKey, TokenKey},
};

/// All policies that select one pod, ready to decide.
#[derive(Debug)]
pub struct CompiledSnapshot {
    revision: Revision,
    mode: Mode,
    audit_level: Level,
    audit_commit: Commit,
    max_body_bytes: u32,
    reads_body: bool,
    reads_grpc_messages: bool,
    passthrough: Vec<HostPattern>,
    upstreams: Upstreams,
    masks: Masks,
    policies: Vec<String>,
    pub(crate) heads: Vec<PolicyHead>,
    pub(crate) rules: Vec<CompiledRule>,
    pub(crate) index: RuleIndex,
    pub(crate) enforced_defaults: Defaults,
    pub(crate) all_defaults: Defaults,
}

/// What the merge needs to know of a policy.
#[derive(Clone, Debug)]
pub(crate) struct PolicyHead {
    pub(crate) reference: Arc<PolicyRef>,
    pub(crate) mode: Mode,
    pub(crate) default_action: Action,
}

/// Defaults of the policies of one pass.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Defaults {
    /// Whether the pass has any policy.
    pub(crate) present: bool,
    /// First cluster policy with `defaultAction: Deny`.
    pub(crate) cluster_deny: Option<u32>,
    /// First namespaced policy with `defaultAction: Deny`.
    pub(crate) namespaced_deny: Option<u32>,
}

impl Defaults {
    fn of<'h>(heads: impl Iterator<Item = (u32, &'h PolicyHead)>) -> Self {
        let mut defaults = Self::default();
        for (number, head) in heads {
            defaults.present = true;
            if head.default_action == Action::Deny {
                let first = match head.reference.kind {
                    PolicyKind::ClusterAgentPolicy => &mut defaults.cluster_deny,
                    PolicyKind::AgentPolicy => &mut defaults.namespaced_deny,
                };
                first.get_or_insert(number);
            }
        }
        defaults
    }
}

impl CompiledSnapshot {
    /// Compiles a snapshot.
    ///
    /// # Errors
    /// All errors of all its policies.
    pub fn compile(snapshot: &Snapshot) -> Result<Self, PolicyErrors> {
        Self::compile_with_key(snapshot, None)
    }

    /// Compiles a snapshot whose masks make and restore tokens and hashes with this key; without one, they redact.
    ///
    /// # Errors
    /// All errors of all its policies.
    pub fn compile_with_key(
        snapshot: &Snapshot,
        key: Option<&MaskKey>,
    ) -> Result<Self, PolicyErrors> {
        let mut errors = Vec::new();
        let mut policies = Vec::new();
        for policy in snapshot.policies() {
            match compile_policy(policy) {
                Ok(policy) => policies.push(policy),
                Err(PolicyErrors(mut more)) => errors.append(&mut more),
            }
        }
        if errors.is_empty() {
            Self::assemble(snapshot, policies, key)
        } else {
            Err(PolicyErrors(errors))
        }
    }

    fn assemble(
        snapshot: &Snapshot,
        policies: Vec<CompiledPolicy>,
        key: Option<&MaskKey>,
    ) -> Result<Self, PolicyErrors> {
        let mut heads = Vec::with_capacity(policies.len());
        let (mut rules, mut masks) = (Vec::new(), Vec::new());
        let (mut passthrough, mut upstreams) = (Vec::new(), Vec::new());
        let (mut audit_level, mut max_body_bytes) = (Level::default(), None);
        let mut audit_commit = Commit::default();
        for (number, mut policy) in (0_u32..).zip(policies) {
            for rule in &mut policy.rules {
                rule.policy = number;
            }
            rules.append(&mut policy.rules);
            masks.append(&mut policy.masks);
            passthrough.append(&mut policy.passthrough);
            upstreams.append(&mut policy.upstreams);
            audit_level = audit_level.max(policy.audit.level);
            audit_commit = audit_commit.max(policy.audit.commit);
            max_body_bytes = max_body_bytes.max(Some(policy.audit.max_body_bytes));
            heads.push(policy.head);
        }
        rules.sort_by_key(|rule| merge_order(rule, &heads));
        let key = key.map(|key| Arc::new(TokenKey::new(key)));
        let masks = Masks::new(masks, key).map_err(|why| masks_together(snapshot, &why))?;
        let numbered = || (0_u32..).zip(&heads);
        let enforced = numbered().filter(|(_, head)| head.mode == Mode::Enforce);
        Ok(Self {
            revision: snapshot.revision(),
            mode: heads.iter().map(|head| head.mode).max().unwrap_or_default(),
            audit_level,
            audit_commit,
            max_body_bytes: max_body_bytes.unwrap_or(crate::resources::DEFAULT_BODY_BYTES),
            reads_body: rules.iter().any(CompiledRule::reads_body),
            reads_grpc_messages: rules.iter().any(CompiledRule::reads_grpc_message),
            passthrough,
            upstreams: Upstreams::new(upstreams),
            masks,
            policies: snapshot
                .policies()
                .iter()
                .map(|policy| format!("{}@{}", policy.reference, policy.generation))
                .collect(),
            index: RuleIndex::new(&rules),
            enforced_defaults: Defaults::of(enforced),
            all_defaults: Defaults::of(numbered()),
            heads,
            rules,
        })
    }

    /// Revision of the snapshot.
    #[must_use]
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// Enforce if at least one policy is in mode Enforce.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The policies as records cite them: `namespace/name@generation`, or `name@generation` of a cluster policy.
    #[must_use]
    pub fn policies(&self) -> &[String] {
        &self.policies
    }

    /// The highest audit level that a policy asks for.
    #[must_use]
    pub fn audit_level(&self) -> Level {
        self.audit_level
    }

    /// What must hold a record before its operation is forwarded: the most that a policy asks for.
    #[must_use]
    pub fn audit_commit(&self) -> Commit {
        self.audit_commit
    }

    /// The largest `maxBodyBytes`, in bytes.
    #[must_use]
    pub fn max_body_bytes(&self) -> u32 {
        self.max_body_bytes
    }

    /// Whether any rule reads `http.body` or `http.detected`. Where none does, nobody need look for a candidate that does.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        self.reads_body
    }

    /// Whether any rule reads `grpc.message` or `grpc.direction`. Where none does, nobody need look for a candidate that does.
    #[must_use]
    pub fn reads_grpc_messages(&self) -> bool {
        self.reads_grpc_messages
    }

    /// Whether TLS to this server name passes unread.
    #[must_use]
    pub fn is_passthrough(&self, sni: &str) -> bool {
        let sni = normalize_host(sni);
        self.passthrough
            .iter()
            .any(|pattern| pattern.matches_name(&sni))
    }

    /// What policies say of TLS with an upstream whose certificate is verified for this name or address.
    #[must_use]
    pub fn upstream_entries(&self, verified: &str) -> UpstreamEntries {
        self.upstreams.about(verified)
    }

    /// What these entries say together.
    #[must_use]
    pub fn upstream_tls(&self, entries: &UpstreamEntries) -> UpstreamTls {
        self.upstreams.together(entries)
    }

    /// What is masked in responses from a destination, and in its records.
    #[must_use]
    pub fn masks_for(&self, host: Option<&str>, ip: IpAddr, port: u16) -> MaskSet {
        self.masks.for_destination(host, ip, port)
    }

    /// What is masked where bytes go to one place through others: the masks of all of them. Tokens stay tokens, for who reads them on the way is not proved.
    #[must_use]
    pub fn masks_for_any(&self, places: &[(Option<&str>, IpAddr, u16)]) -> MaskSet {
        self.masks.for_any(places)
    }

    /// What the packet filter does with datagrams in mode Enforce: the first rule that fits decides, and what none fits is refused.
    #[must_use]
    pub fn datagram_rules(&self) -> Vec<DatagramRule> {
        datagrams::rules(self)
    }
}

/// Each policy compiles, but their masks do not compile together. The last policy with patterns is the one to look at.
fn masks_together(snapshot: &Snapshot, why: &str) -> PolicyErrors {
    let with_patterns = snapshot
        .policies()
        .iter()
        .rfind(|policy| policy.masks.iter().any(|mask| !mask.patterns.is_empty()));
    let errors = with_patterns.map(|policy| PolicyError {
        policy: policy.reference.clone(),
        rule: None,
        mask: None,
        field: "masks".to_owned(),
        line: 1,
        column: 1,
        message: format!("together with the masks of the other policies of the pod: {why}"),
        source_line: String::new(),
    });
    PolicyErrors(errors.into_iter().collect())
}

fn merge_order(rule: &CompiledRule, heads: &[PolicyHead]) -> (bool, Option<PolicyKind>, u32) {
    let kind = heads
        .get(rule.policy as usize)
        .map(|head| head.reference.kind);
    (rule.action == Action::Allow, kind, rule.policy)
}
