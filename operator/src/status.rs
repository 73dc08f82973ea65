//! What is reported about policies and sinks: pure functions of the index, the pods' conditions and the status before.

use std::collections::HashMap;

use chaperone_crds::{
    pod::APPLIED_CONDITION,
    resources::{Deliverer, PodCounts, PolicyStatus, SinkStatus},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};

use crate::index::{Index, PolicyOutcome, sinks::SinkOutcome};

/// Condition of policies and sinks.
const READY: &str = "Ready";
/// Longest message of a condition, in bytes; the API server takes 32 KiB, a reader less.
const MAX_MESSAGE_BYTES: usize = 4096;

/// What a pod's condition says its sidecar runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Whether the sidecar accepted.
    pub accepted: bool,
    /// The revision it runs, or why it refused.
    pub message: String,
}

/// Reads the condition of a pod.
#[must_use]
pub fn applied(pod: &Pod) -> Option<Applied> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == APPLIED_CONDITION)?;
    Some(Applied {
        accepted: found.status == "True",
        message: found.message.clone().unwrap_or_default(),
    })
}

/// The status of a policy. `applied` is by pod uid. Times change only when the condition does.
#[must_use]
pub fn of_policy(
    outcome: &PolicyOutcome,
    index: &Index,
    applied: &HashMap<String, Applied>,
    before: Option<&PolicyStatus>,
    now: Timestamp,
) -> PolicyStatus {
    let running = outcome
        .pods
        .iter()
        .filter(|uid| runs_plan(index, applied, uid))
        .count();
    let (ready, reason, message) = judge(outcome, index, applied, running);
    let condition = condition(
        (ready, reason, message),
        outcome.generation,
        before.map(|status| status.conditions.as_slice()),
        now,
    );
    PolicyStatus {
        observed_generation: Some(outcome.generation),
        conditions: vec![condition],
        pods: Some(PodCounts {
            selected: clamp(outcome.pods.len()),
            applied: clamp(running),
        }),
        revision: Some(outcome.revision.to_string()),
    }
}

/// What of a sink's status is the operator's: the ledger writes a condition of its own.
#[must_use]
pub fn own_part(mut status: SinkStatus) -> SinkStatus {
    status
        .conditions
        .retain(|condition| condition.type_ == READY);
    status
}

/// The status of a sink.
#[must_use]
pub fn of_sink(outcome: &SinkOutcome, before: Option<&SinkStatus>, now: Timestamp) -> SinkStatus {
    let verdict = if outcome.problems.is_empty() {
        let message = match outcome.by {
            Deliverer::Sidecar => "sidecars have its settings",
            Deliverer::Ledger => {
                "the ledger can use its settings; Delivering says whether its target acknowledges"
            }
        };
        (true, "Usable", message.to_owned())
    } else {
        (false, "Invalid", outcome.problems.join("; "))
    };
    let before = before.map(|status| status.conditions.as_slice());
    SinkStatus {
        observed_generation: Some(outcome.generation),
        conditions: vec![condition(verdict, outcome.generation, before, now)],
    }
}

fn judge(
    outcome: &PolicyOutcome,
    index: &Index,
    applied: &HashMap<String, Applied>,
    running: usize,
) -> (bool, &'static str, String) {
    if let Some(error) = &outcome.error {
        let message =
            format!("{error}\nPods that it selects keep the last configuration that was good.");
        return (false, "Invalid", message);
    }
    let held = outcome
        .pods
        .iter()
        .find_map(|uid| index.pods.get(uid)?.as_ref().err());
    if let Some(error) = held {
        let message = format!("held back on some pods: {error}");
        return (false, "HeldBack", message);
    }
    let selected = outcome.pods.len();
    let refused = outcome
        .pods
        .iter()
        .filter_map(|uid| applied.get(uid))
        .find(|applied| !applied.accepted);
    if let Some(refused) = refused {
        let message = format!("a sidecar refused its configuration: {}", refused.message);
        return (false, "Rejected", message);
    }
    if !outcome.certificates.is_empty() {
        let message = format!(
            "{running} of {selected} pods run it, but a client certificate under tls.upstreams cannot be presented: {}. Connections that need it are refused in Enforce and pass unread in Audit.",
            outcome.certificates.join("; ")
        );
        return (false, "ClientCertificate", message);
    }
    if outcome.without_ledger > 0 {
        let message = format!(
            "{running} of {selected} pods run it, but it asks for audit.commit: Ledger, and {} of them have no ledger: what would leave them is refused. Set the chart's ledger.enabled, and start pods anew that are older than the ledger; or ask for Disk.",
            outcome.without_ledger
        );
        return (false, "NoLedger", message);
    }
    match (selected, running) {
        (0, _) => (true, "NoPods", "it selects no injected pod".to_owned()),
        (selected, running) if selected == running => (
            true,
            "Applied",
            format!("{running} of {selected} pods run it"),
        ),
        (selected, running) => (
            false,
            "Applying",
            format!("{running} of {selected} pods run it"),
        ),
    }
}

/// Whether the sidecar of a pod acknowledged the revision that is planned for it.
fn runs_plan(index: &Index, applied: &HashMap<String, Applied>, uid: &str) -> bool {
    let Some(Ok(plan)) = index.pods.get(uid) else {
        return false;
    };
    applied
        .get(uid)
        .is_some_and(|applied| applied.accepted && applied.message == plan.revision.as_str())
}

fn condition(
    (ready, reason, message): (bool, &str, String),
    generation: i64,
    before: Option<&[Condition]>,
    now: Timestamp,
) -> Condition {
    let status = if ready { "True" } else { "False" };
    let before = before
        .and_then(|conditions| conditions.iter().find(|c| c.type_ == READY))
        .filter(|condition| condition.status == status);
    Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: truncate(message, MAX_MESSAGE_BYTES),
        observed_generation: Some(generation),
        last_transition_time: before.map_or_else(
            || whole_seconds(now),
            |condition| condition.last_transition_time.clone(),
        ),
    }
}

/// Cuts a text at a character boundary.
#[must_use]
pub fn truncate(mut text: String, bytes: usize) -> String {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.truncate(end);
    text
}

/// The API server keeps whole seconds; a fraction would make every status look changed.
fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

fn clamp(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::index::{
        LedgerWriters, PolicyEntry, World, index,
        tests::{namespaced, pod, world},
    };
    use chaperone_crds::resources::AgentPolicy;
    use std::sync::Arc;

    fn now() -> Timestamp {
        "2026-11-24T10:00:00.5Z".parse().unwrap()
    }

    fn says(accepted: bool, message: &str) -> Applied {
        Applied {
            accepted,
            message: message.to_owned(),
        }
    }

    fn ready(status: &PolicyStatus) -> (&str, &str) {
        let condition = &status.conditions[0];
        (&condition.status, &condition.reason)
    }

    #[test]
    fn a_policy_is_ready_when_every_selected_pod_acknowledged_its_plan() {
        let world = world(
            vec![namespaced("a", "p", json!({}), "r")],
            vec![pod("a", "one", &[]), pod("a", "two", &[])],
        );
        let index = index(&world, |_| Ok(()));
        let outcome = index.policies.values().next().unwrap();
        let revision = index.pods["uid-one"].as_ref().unwrap().revision.to_string();
        let cases = [
            (vec![], ("False", "Applying"), 0),
            (
                vec![("uid-one", says(true, &revision))],
                ("False", "Applying"),
                1,
            ),
            (
                vec![
                    ("uid-one", says(true, &revision)),
                    ("uid-two", says(true, "older")),
                ],
                ("False", "Applying"),
                1,
            ),
            (
                vec![
                    ("uid-one", says(true, &revision)),
                    ("uid-two", says(false, "no")),
                ],
                ("False", "Rejected"),
                1,
            ),
            (
                vec![
                    ("uid-one", says(true, &revision)),
                    ("uid-two", says(true, &revision)),
                ],
                ("True", "Applied"),
                2,
            ),
        ];
        for (conditions, expected, count) in cases {
            let applied = conditions
                .into_iter()
                .map(|(uid, says)| (uid.to_owned(), says))
                .collect();
            let status = of_policy(outcome, &index, &applied, None, now());
            assert_eq!(ready(&status), expected);
            let pods = PodCounts {
                selected: 2,
                applied: count,
            };
            assert_eq!(status.pods, Some(pods));
            assert_eq!(status.observed_generation, Some(3));
        }
    }

    #[test]
    fn a_broken_policy_says_why_and_its_neighbour_that_it_is_held_back() {
        let world = world(
            vec![
                namespaced("a", "bad", json!({}), "broken"),
                namespaced("a", "good", json!({}), "r"),
            ],
            vec![pod("a", "one", &[])],
        );
        let index = index(&world, |_| Ok(()));
        let applied = HashMap::new();
        let statuses: Vec<_> = index
            .policies
            .values()
            .map(|outcome| of_policy(outcome, &index, &applied, None, now()))
            .collect();
        assert_eq!(ready(&statuses[0]), ("False", "Invalid"));
        assert!(
            statuses[0].conditions[0]
                .message
                .contains("rule broken, line 1")
        );
        assert_eq!(ready(&statuses[1]), ("False", "HeldBack"));
        assert!(statuses[1].conditions[0].message.contains("a/bad"));
    }

    #[test]
    fn a_policy_that_waits_for_a_ledger_says_how_many_pods_have_none() {
        let resource = json!({
            "apiVersion": "chaperone.dev/v1alpha1", "kind": "AgentPolicy",
            "metadata": {"name": "p", "namespace": "a"}, "spec": {"audit": {"commit": "Ledger"}}
        });
        let resource: AgentPolicy = serde_json::from_value(resource).unwrap();
        let policy = PolicyEntry::namespaced(&resource, |_| Ok(()));
        let mut world = world(
            vec![policy],
            vec![pod("a", "one", &[]), pod("a", "two", &[])],
        );
        let told = |world: &World| {
            let index = index(world, |_| Ok(()));
            let outcome = index.policies.values().next().unwrap();
            let status = of_policy(outcome, &index, &HashMap::new(), None, now());
            let condition = status.conditions.into_iter().next().unwrap();
            (condition.reason, condition.message)
        };
        let (reason, message) = told(&world);
        assert_eq!(reason, "NoLedger");
        assert!(
            message.contains("and 2 of them have no ledger"),
            "{message}"
        );
        let with = |pods: &[&str]| LedgerWriters {
            sinks: Arc::default(),
            pods: pods.iter().map(|uid| (*uid).to_owned()).collect(),
        };
        world.ledger = Some(with(&["uid-two"]));
        assert!(told(&world).1.contains("and 1 of them have no ledger"));
        world.ledger = Some(with(&["uid-one", "uid-two"]));
        assert_eq!(told(&world).0, "Applying");
    }

    #[test]
    fn an_unchanged_status_is_equal_and_keeps_its_time() {
        let world = world(vec![namespaced("a", "p", json!({}), "r")], vec![]);
        let index = index(&world, |_| Ok(()));
        let outcome = index.policies.values().next().unwrap();
        let first = of_policy(outcome, &index, &HashMap::new(), None, now());
        assert_eq!(ready(&first), ("True", "NoPods"));
        let later = now() + jiff::SignedDuration::from_secs(60);
        let second = of_policy(outcome, &index, &HashMap::new(), Some(&first), later);
        assert_eq!(first, second);
    }

    #[test]
    fn what_the_ledger_says_of_a_sink_is_left_to_it() {
        let outcome = SinkOutcome {
            name: "s".to_owned(),
            generation: 3,
            problems: Vec::new(),
            by: Deliverer::Ledger,
        };
        let written = of_sink(&outcome, None, now());
        let mut stored = written.clone();
        let mut delivering = stored.conditions[0].clone();
        delivering.type_ = "Delivering".to_owned();
        stored.conditions.push(delivering);
        let before = own_part(stored);
        assert_eq!(of_sink(&outcome, Some(&before), now()), before);
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(truncate("aäb".to_owned(), 2), "a");
        assert_eq!(truncate("aäb".to_owned(), 3), "aä");
        assert_eq!(truncate("ab".to_owned(), 10), "ab");
    }
}
