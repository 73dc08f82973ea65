//! Readiness: what must hold before the API server and sidecars are sent here.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What readiness waits for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Facts>);

#[derive(Debug, Default)]
struct Facts {
    certificates: AtomicBool,
    mutating: AtomicBool,
    validating: AtomicBool,
    synced: AtomicBool,
    draining: AtomicBool,
}

/// One of the things readiness waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Root and serving certificate are loaded.
    Certificates,
    /// The mutating webhook configuration carries our root.
    Mutating,
    /// The validating webhook configuration carries our root.
    Validating,
    /// All watches have listed.
    Synced,
    /// The process is about to stop: never ready again.
    Draining,
}

impl Health {
    /// Says whether a fact holds.
    pub fn set(&self, fact: Fact, holds: bool) {
        self.flag(fact).store(holds, Ordering::Release);
    }

    /// What is missing for readiness; empty: ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let holds = |fact| self.flag(fact).load(Ordering::Acquire);
        [
            (holds(Fact::Certificates), "certificates are not loaded"),
            (
                holds(Fact::Mutating),
                "caBundle of the mutating webhook configuration is not ours",
            ),
            (
                holds(Fact::Validating),
                "caBundle of the validating webhook configuration is not ours",
            ),
            (holds(Fact::Synced), "watches have not listed"),
            (!holds(Fact::Draining), "draining"),
        ]
        .into_iter()
        .filter(|(holds, _)| !holds)
        .map(|(_, what)| what)
        .collect()
    }

    fn flag(&self, fact: Fact) -> &AtomicBool {
        match fact {
            Fact::Certificates => &self.0.certificates,
            Fact::Mutating => &self.0.mutating,
            Fact::Validating => &self.0.validating,
            Fact::Synced => &self.0.synced,
            Fact::Draining => &self.0.draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_all_holds_and_until_it_drains() {
        let health = Health::default();
        assert_eq!(health.missing().len(), 4);
        for fact in [
            Fact::Certificates,
            Fact::Mutating,
            Fact::Validating,
            Fact::Synced,
        ] {
            health.set(fact, true);
        }
        assert_eq!(health.missing(), Vec::<&str>::new());
        health.set(Fact::Draining, true);
        assert_eq!(health.missing(), vec!["draining"]);
    }
}
