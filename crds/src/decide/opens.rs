//! Opening what is closed without a rule: names that look like a tunnel, addresses that look rebound.
//!
//! Owns what it takes: an Allow rule that speaks of this very thing. Invariant: a rule on everything opens nothing, and a policy in mode Audit opens nothing that is enforced.

use super::Operation;
use crate::{
    cel_env::{Facts, Store},
    compile::CompiledSnapshot,
    pod::PodIdentity,
    resources::{Action, Mode, Protocol},
};

impl CompiledSnapshot {
    /// Whether an Allow rule names the address of this operation (itself or a network of at least /16, in IPv6 /32), or is on protocol `dns` and names its host. In
    /// [`Mode::Enforce`] rules of policies in mode Enforce count, in [`Mode::Audit`] those of all.
    #[must_use]
    pub fn opens(&self, mode: Mode, agent: &PodIdentity, operation: &Operation<'_>) -> bool {
        let store = Store::default();
        let facts = Facts::new(agent, operation, &store);
        self.rules.iter().any(|rule| {
            let head = self.heads.get(rule.policy as usize);
            let counts = head.is_some_and(|head| head.mode >= mode);
            counts
                && rule.action == Action::Allow
                && (rule.names_address(operation)
                    || (rule.protocols.contains(&Protocol::Dns)
                        && rule.names_host(operation)
                        && rule.matches(&facts) == Ok(true)))
        })
    }
}
