//! Merging what the matching rules say: "Merge semantics" in ARCHITECTURE.md, twice.
//!
//! Owns the order Deny, metadata addresses, cluster default, Allow, default. The first pass is over the policies in mode Enforce and says what happens; the second is
//! over all policies, as if each were enforced, and says what would happen. A rule is evaluated at most once for both.

use std::sync::Arc;

use super::{Decision, Operation, Reason, metadata};
use crate::{
    cel_env::{Facts, Store},
    compile::{CompiledRule, CompiledSnapshot, Defaults, PolicyHead},
    pod::PodIdentity,
    record::Outcome,
    resources::{Action, Mode, Protocol},
    snapshot::PolicyKind,
};

/// Decides. `rules` come in the order that [`crate::compile`] gives them: Deny before Allow, cluster before namespaced.
pub(super) fn decide<'s>(
    snapshot: &'s CompiledSnapshot,
    rules: impl Iterator<Item = &'s CompiledRule>,
    agent: &PodIdentity,
    operation: &Operation<'_>,
) -> Decision {
    let store = Store::default();
    let facts = Facts::new(agent, operation, &store);
    let mut enforced = Tally::new(operation);
    let mut all = Tally::new(operation);
    let mut error = None;
    for rule in rules {
        let Some(policy) = snapshot.heads.get(rule.policy as usize) else {
            continue;
        };
        let enforcing = policy.mode == Mode::Enforce;
        if !((enforcing && enforced.wants(rule, policy)) || all.wants(rule, policy)) {
            continue;
        }
        let reason = match rule.matches(&facts) {
            Ok(true) => Reason::Rule,
            Ok(false) => continue,
            Err(why) => {
                error.get_or_insert_with(|| {
                    format!("policy {}, rule {}: {why}", policy.reference, rule.name)
                });
                if rule.action == Action::Allow {
                    continue;
                }
                Reason::EvaluationError
            }
        };
        let hit = Hit {
            rule,
            policy,
            reason,
        };
        if enforcing {
            enforced.take(hit);
            if enforced.deny.is_some() {
                break;
            }
        }
        all.take(hit);
    }
    conclude(snapshot, &enforced, &all, error)
}

/// A rule that matched.
#[derive(Clone, Copy)]
struct Hit<'s> {
    rule: &'s CompiledRule,
    policy: &'s PolicyHead,
    reason: Reason,
}

/// The first hits of each kind in one pass.
struct Tally<'s, 'o> {
    operation: &'o Operation<'o>,
    /// Whether the operation goes to a metadata address, which takes an Allow rule of its own.
    metadata: bool,
    deny: Option<Hit<'s>>,
    cluster_allow: Option<Hit<'s>>,
    allow: Option<Hit<'s>>,
    /// An Allow that names the destination itself; looked for where it takes one.
    own_allow: Option<Hit<'s>>,
}

impl<'s, 'o> Tally<'s, 'o> {
    fn new(operation: &'o Operation<'o>) -> Self {
        Self {
            operation,
            metadata: operation.protocol != Protocol::Dns
                && metadata::is_metadata_address(operation.destination.ip),
            deny: None,
            cluster_allow: None,
            allow: None,
            own_allow: None,
        }
    }

    /// Whether a match of this rule could still change the outcome.
    fn wants(&self, rule: &CompiledRule, policy: &PolicyHead) -> bool {
        match (rule.action, policy.reference.kind) {
            _ if self.deny.is_some() => false,
            (Action::Deny, _) => true,
            _ if self.opens_metadata(rule) => true,
            (Action::Allow, PolicyKind::ClusterAgentPolicy) => self.cluster_allow.is_none(),
            (Action::Allow, PolicyKind::AgentPolicy) => self.allow.is_none(),
        }
    }

    /// Whether this Allow, if it matches, is the first that opens the metadata address.
    fn opens_metadata(&self, rule: &CompiledRule) -> bool {
        self.metadata
            && self.own_allow.is_none()
            && (rule.names_address(self.operation) || rule.names_host(self.operation))
    }

    fn take(&mut self, hit: Hit<'s>) {
        if hit.rule.action == Action::Deny {
            self.deny.get_or_insert(hit);
            return;
        }
        if self.opens_metadata(hit.rule) {
            self.own_allow = Some(hit);
        }
        if hit.policy.reference.kind == PolicyKind::ClusterAgentPolicy {
            self.cluster_allow.get_or_insert(hit);
        }
        self.allow.get_or_insert(hit);
    }

    /// What this pass says.
    fn verdict(&self, snapshot: &'s CompiledSnapshot, defaults: &Defaults) -> Verdict<'s> {
        if let Some(hit) = self.deny {
            return Verdict::Deny(Basis::Rule(hit));
        }
        if self.operation.is_message() {
            // The handshake or the call was let pass, by a default or by a rule; a message needs no leave of its own.
            return Verdict::Allow(Basis::Default(None));
        }
        if self.metadata && self.own_allow.is_none() {
            return Verdict::Deny(Basis::Metadata);
        }
        if let Some(number) = defaults.cluster_deny
            && self.cluster_allow.is_none()
        {
            return Verdict::Deny(Basis::Default(snapshot.heads.get(number as usize)));
        }
        if let Some(hit) = self.own_allow.or(self.allow) {
            return Verdict::Allow(Basis::Rule(hit));
        }
        if let Some(number) = defaults.namespaced_deny {
            return Verdict::Deny(Basis::Default(snapshot.heads.get(number as usize)));
        }
        if defaults.present && is_unread(self.operation.protocol) {
            return Verdict::Deny(Basis::Opaque);
        }
        Verdict::Allow(Basis::Default(None))
    }
}

/// Protocols that Enforce refuses unless a rule allows them. TLS that passes unread was let through by a passthrough list already.
fn is_unread(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Icmp)
}

enum Verdict<'s> {
    Allow(Basis<'s>),
    Deny(Basis<'s>),
}

/// What a verdict rests on.
enum Basis<'s> {
    Rule(Hit<'s>),
    Default(Option<&'s PolicyHead>),
    Opaque,
    Metadata,
}

fn conclude<'s>(
    snapshot: &'s CompiledSnapshot,
    enforced: &Tally<'s, '_>,
    all: &Tally<'s, '_>,
    error: Option<String>,
) -> Decision {
    // Where no policy enforces, nothing is denied: not even what is closed without a rule.
    let happens = match enforced.verdict(snapshot, &snapshot.enforced_defaults) {
        Verdict::Deny(basis) if snapshot.enforced_defaults.present => {
            return basis.decision(Outcome::Deny, false, error);
        }
        Verdict::Deny(_) => Basis::Default(None),
        Verdict::Allow(basis) => basis,
    };
    match all.verdict(snapshot, &snapshot.all_defaults) {
        Verdict::Deny(basis) => basis.decision(Outcome::Allow, true, error),
        Verdict::Allow(basis) => {
            let basis = if matches!(happens, Basis::Rule(_)) {
                happens
            } else {
                basis
            };
            basis.decision(Outcome::Allow, false, error)
        }
    }
}

impl Basis<'_> {
    fn decision(self, outcome: Outcome, would_deny: bool, error: Option<String>) -> Decision {
        let denies = would_deny || outcome == Outcome::Deny;
        let (policy, rule, reason, message) = match self {
            Self::Rule(hit) => (
                Some(Arc::clone(&hit.policy.reference)),
                Some(Arc::clone(&hit.rule.name)),
                hit.reason,
                hit.rule.message.clone().filter(|_| denies),
            ),
            Self::Default(policy) => (
                policy.map(|policy| Arc::clone(&policy.reference)),
                None,
                Reason::Default,
                None,
            ),
            Self::Opaque => (None, None, Reason::Opaque, None),
            Self::Metadata => (
                None,
                None,
                Reason::MetadataAddress,
                Some(Arc::from(metadata::CLOSED)),
            ),
        };
        Decision {
            outcome,
            would_deny,
            policy,
            rule,
            reason,
            message,
            error,
        }
    }
}
