//! Merging what the matching rules say: "Merge semantics" in ARCHITECTURE.md, twice.
//!
//! Owns the order Deny, cluster default, Allow, default. The first pass is over the policies in mode Enforce and says what happens; the second is
//! over all policies, as if each were enforced, and says what would happen. A rule is evaluated at most once for both.

use std::sync::Arc;

use super::{Decision, Operation, Reason};
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
    let mut enforced = Tally::default();
    let mut all = Tally::default();
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
    conclude(snapshot, &enforced, &all, operation.protocol, error)
}

/// A rule that matched.
#[derive(Clone, Copy)]
struct Hit<'s> {
    rule: &'s CompiledRule,
    policy: &'s PolicyHead,
    reason: Reason,
}

/// The first hits of each kind in one pass.
#[derive(Default)]
struct Tally<'s> {
    deny: Option<Hit<'s>>,
    cluster_allow: Option<Hit<'s>>,
    allow: Option<Hit<'s>>,
}

impl<'s> Tally<'s> {
    /// Whether a match of this rule could still change the outcome.
    fn wants(&self, rule: &CompiledRule, policy: &PolicyHead) -> bool {
        match (rule.action, policy.reference.kind) {
            _ if self.deny.is_some() => false,
            (Action::Deny, _) => true,
            (Action::Allow, PolicyKind::ClusterAgentPolicy) => self.cluster_allow.is_none(),
            (Action::Allow, PolicyKind::AgentPolicy) => self.allow.is_none(),
        }
    }

    fn take(&mut self, hit: Hit<'s>) {
        if hit.rule.action == Action::Deny {
            self.deny.get_or_insert(hit);
            return;
        }
        if hit.policy.reference.kind == PolicyKind::ClusterAgentPolicy {
            self.cluster_allow.get_or_insert(hit);
        }
        self.allow.get_or_insert(hit);
    }

    /// What this pass says.
    fn verdict(
        &self,
        snapshot: &'s CompiledSnapshot,
        defaults: &Defaults,
        protocol: Protocol,
    ) -> Verdict<'s> {
        if let Some(hit) = self.deny {
            return Verdict::Deny(Basis::Rule(hit));
        }
        if let Some(number) = defaults.cluster_deny
            && self.cluster_allow.is_none()
        {
            return Verdict::Deny(Basis::Default(snapshot.heads.get(number as usize)));
        }
        if let Some(hit) = self.allow {
            return Verdict::Allow(Basis::Rule(hit));
        }
        if let Some(number) = defaults.namespaced_deny {
            return Verdict::Deny(Basis::Default(snapshot.heads.get(number as usize)));
        }
        if defaults.present && is_unread(protocol) {
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
}

fn conclude<'s>(
    snapshot: &'s CompiledSnapshot,
    enforced: &Tally<'s>,
    all: &Tally<'s>,
    protocol: Protocol,
    error: Option<String>,
) -> Decision {
    let happens = match enforced.verdict(snapshot, &snapshot.enforced_defaults, protocol) {
        Verdict::Deny(basis) => return basis.decision(Outcome::Deny, false, error),
        Verdict::Allow(basis) => basis,
    };
    match all.verdict(snapshot, &snapshot.all_defaults, protocol) {
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
