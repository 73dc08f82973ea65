//! What the resolver asks of policy: whether a name may be asked, and whether addresses that look wrong may be answered.
//!
//! Owns the question's form and the sentence that a refused client gets. Refuses to know policies: who implements [`Judge`] does.

use std::{net::IpAddr, pin::Pin};

use chaperone_crds::record::{DecisionInfo, Outcome};

use crate::commit::Unheld;

/// What policy says of one query.
#[derive(Clone, Debug, PartialEq)]
pub struct Ruling {
    /// The decision, as its record shows it.
    pub decision: DecisionInfo,
    /// The rule that could not be evaluated, and why.
    pub error: Option<String>,
}

/// The number of a record that a query is about to be asked, once it is there; none where policy asks for none.
pub type Beginning<'a> = Pin<Box<dyn Future<Output = Result<Option<u64>, Unheld>> + Send + 'a>>;

/// Who judges queries.
pub trait Judge: Send + Sync + 'static {
    /// Whether a name (lower case, without the final dot) may be asked for this type. `None` while no policy is in force: then nothing is resolved.
    fn query(&self, name: &str, kind: &str) -> Option<Ruling>;

    /// The query that `passed` is about to be asked: records that first where policy asks for it. Its record's number, if there is one.
    ///
    /// # Errors
    /// When there can be no record: the query must not be asked.
    fn begin<'a>(&'a self, name: &'a str, kind: &'a str, passed: &'a Ruling) -> Beginning<'a>;

    /// The query that `passed` was answered with `suspicious` addresses (see `rebinding`). What the decision is now, and which of them the client does not get.
    fn answer(
        &self,
        name: &str,
        kind: &str,
        suspicious: &[IpAddr],
        passed: Ruling,
    ) -> (Ruling, Vec<IpAddr>);
}

// === impl Ruling ===

impl Ruling {
    /// Whether the query is refused.
    pub(super) fn denies(&self) -> bool {
        self.decision.action == Outcome::Deny
    }

    /// What a refused client is told: which policy and rule, and their message.
    pub(super) fn explanation(&self) -> String {
        let DecisionInfo {
            policy,
            rule,
            reason,
            message,
            ..
        } = &self.decision;
        let who = match (policy, rule) {
            (Some(policy), Some(rule)) => format!("policy {policy}, rule {rule}"),
            (Some(policy), None) => format!("policy {policy}: no rule allows this name"),
            (None, _) => format!("Chaperone ({reason})"),
        };
        let message = message.as_deref().unwrap_or_default();
        let between = if message.is_empty() { "" } else { ": " };
        format!("denied by {who}{between}{message}")
    }
}
