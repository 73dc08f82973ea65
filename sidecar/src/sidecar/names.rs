//! Policy's say in the pod's DNS.
//!
//! Owns the order: rules first, then the limits on tunnels, and for answers the signs of rebinding. What is closed without a rule is opened by one that names it (see
//! [`CompiledSnapshot::opens`](chaperone_crds::compile::CompiledSnapshot::opens)). Invariant: in Audit nothing is refused.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use chaperone_crds::{
    decide::{Destination, DnsView, Operation},
    record::{DecisionInfo, EventKind, OperationInfo, Outcome},
    resources::{Mode, Protocol},
};

use crate::{
    commit::{self, Unheld, Why},
    dns::{Beginning, Judge, Ruling, Tunnels, towards},
    link::{builtin, decision_info},
    shared::{Active, Shared},
};

/// What the agent is told about addresses that it does not get.
const REBOUND: &str = "The name leads to an address that it should not lead to: loopback, link-local, the pod's own, or a private one after a public one. A rule that allows this \
                       address, or the name under protocol dns, lets it pass.";

/// Judges queries by the policies in force.
pub(super) struct PolicyJudge {
    shared: Arc<Shared>,
    tunnels: Mutex<Tunnels>,
}

impl PolicyJudge {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let tunnels = Tunnels::new(shared.egress.search(), Instant::now());
        Self {
            shared,
            tunnels: Mutex::new(tunnels),
        }
    }
}

impl Judge for PolicyJudge {
    fn query(&self, name: &str, kind: &str) -> Option<Ruling> {
        let active = self.shared.active.load_full()?;
        let towards = towards(name, self.shared.egress.search());
        let operation = query(name, kind, &towards, Ipv4Addr::UNSPECIFIED.into());
        let decided = active
            .snapshot
            .candidates(&operation)
            .decide(&active.config.identity, &operation);
        let error = decided.error.clone();
        let mut decision = decision_info(&active, decided);
        // What policy refuses is not counted: it carries nothing out.
        if decision.action == Outcome::Allow {
            let mut tunnels = self.tunnels.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(sign) = tunnels.check(name, kind, Instant::now()) {
                decision = closed(&active, &operation, decision, "dns-tunnel", &sign.message());
            }
        }
        Some(Ruling { decision, error })
    }

    fn begin<'a>(&'a self, name: &'a str, kind: &'a str, passed: &'a Ruling) -> Beginning<'a> {
        Box::pin(async move {
            let Some(active) = self.shared.active.load_full() else {
                return Err(Unheld {
                    begun: None,
                    why: Why::Stopping,
                });
            };
            commit::begin(&self.shared, &active, std::future::pending(), || {
                let mut event = active.event(EventKind::Begin);
                event.decision = Some(passed.decision.clone());
                event.error.clone_from(&passed.error);
                event.operation = Some(OperationInfo {
                    protocol: "dns".to_owned(),
                    verb: kind.to_owned(),
                    resource: name.to_owned(),
                });
                event
            })
            .await
        })
    }

    fn answer(
        &self,
        name: &str,
        kind: &str,
        suspicious: &[IpAddr],
        passed: Ruling,
    ) -> (Ruling, Vec<IpAddr>) {
        let Some(active) = self.shared.active.load_full() else {
            return (passed, suspicious.to_vec());
        };
        let mut ruling = passed;
        let mut withheld = Vec::new();
        for ip in suspicious {
            let operation = query(name, kind, &[], *ip);
            let before = ruling.decision.clone();
            let decision = closed(&active, &operation, before, "dns-rebinding", REBOUND);
            if decision.action == Outcome::Deny {
                withheld.push(*ip);
            }
            // One that is refused decides what the record says.
            if ruling.decision.action == Outcome::Allow {
                ruling.decision = decision;
            }
        }
        (ruling, withheld)
    }
}

fn query<'a>(name: &'a str, kind: &'a str, towards: &'a [String], ip: IpAddr) -> Operation<'a> {
    Operation {
        protocol: Protocol::Dns,
        verb: kind,
        resource: name,
        destination: Destination {
            host: Some(name),
            ip,
            port: 0,
            sni: None,
        },
        http: None,
        dns: Some(DnsView {
            name,
            kind,
            towards,
        }),
        ws: None,
        grpc: None,
    }
}

/// The decision on what is closed unless a rule opens it, in place of `passed`, which rules allowed.
fn closed(
    active: &Active,
    operation: &Operation<'_>,
    passed: DecisionInfo,
    reason: &'static str,
    message: &str,
) -> DecisionInfo {
    let identity = &active.config.identity;
    let opened = |mode| active.snapshot.opens(mode, identity, operation);
    if active.mode() == Mode::Enforce && !opened(Mode::Enforce) {
        return builtin(active, Outcome::Deny, reason, message);
    }
    if passed.would_deny || opened(Mode::Audit) {
        return passed;
    }
    DecisionInfo {
        would_deny: true,
        ..builtin(active, Outcome::Allow, reason, message)
    }
}
