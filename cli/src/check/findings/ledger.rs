//! Findings about the ledger: is it there, does it take records, can sidecars trust it.

use super::{
    super::view::{ClusterView, Evidence, Ledger, LedgerPod, Serving},
    Finding, Seen,
    control::{SERVING_LEFT, expiry},
};

pub(super) fn ledger(ledger: Option<&Ledger>, view: &ClusterView) -> Vec<Finding> {
    let is_written = match &view.operator {
        Seen::Yes(Some(operator)) => operator.ledger,
        _ => ledger.is_some(),
    };
    let upgrade = format!(
        "helm upgrade chaperone charts/chaperone -n {}",
        view.namespace
    );
    match (ledger, is_written) {
        (None, false) => vec![Finding::ok(
            "ledger",
            "switched off: records go to the sinks alone",
        )],
        (None, true) => vec![Finding::fail(
            "ledger",
            "agents send their records to a ledger that is not there: they wait in the pods' spools, and when those are full, traffic waits",
            upgrade,
        )],
        (Some(ledger), false) => vec![Finding::warn(
            "ledger",
            format!("{} runs, but the operator sends nobody there", ledger.name),
            upgrade,
        )],
        (Some(ledger), true) => running(ledger, view),
    }
}

fn running(ledger: &Ledger, view: &ClusterView) -> Vec<Finding> {
    let mut found = vec![pod(ledger, view)];
    found.extend(ledger.evidence.as_ref().map(evidence));
    if ledger.ephemeral {
        found.push(Finding::warn(
            "ledger",
            format!("{}: its records are lost with its pod", ledger.name),
            "set ledger.persistence.enabled to true before the records matter",
        ));
    }
    found
}

/// What the ledger says of pods that leave no evidence, or not all of it.
fn evidence(said: &Result<Evidence, String>) -> Finding {
    const ASK: &str =
        "chaperone audit gaps -A names the pods and says what to do (docs/completeness.md)";
    let evidence = match said {
        Err(why) => {
            let text = format!("the ledger does not say whether some is missing: {why}");
            return Finding::warn("evidence", text, ASK);
        }
        Ok(evidence) => evidence,
    };
    let wrong = evidence.incomplete.iter();
    let wrong: Vec<_> = wrong
        .filter(|(reason, pods)| **pods > 0 && *reason != "exempt")
        .map(|(reason, pods)| format!("{pods} {reason}"))
        .collect();
    match (wrong.is_empty(), evidence.is_watching) {
        (false, _) => {
            let text = format!("some is missing, by pods: {}", wrong.join(", "));
            Finding::warn("evidence", text, ASK)
        }
        (true, false) => Finding::warn(
            "evidence",
            "the ledger does not see which pods run: some may leave none",
            "its log says why; upgrade the chart if it runs without --watch-pods",
        ),
        (true, true) => Finding::ok(
            "evidence",
            "none is missing, as far as the ledger has seen pods",
        ),
    }
}

fn pod(ledger: &Ledger, view: &ClusterView) -> Finding {
    let namespace = &view.namespace;
    let name = &ledger.name;
    match &ledger.pod {
        LedgerPod::Waiting(why) => Finding::fail(
            "ledger",
            format!(
                "{why}; records wait in the agents' pods, and when a spool is full, traffic waits"
            ),
            format!(
                "kubectl -n {namespace} describe pod {name}-0; kubectl -n {namespace} logs {name}-0"
            ),
        ),
        LedgerPod::Ready(None) => Finding::ok("ledger", format!("{name} is ready")),
        LedgerPod::Ready(Some(serving)) => presented(serving, view),
    }
}

fn presented(serving: &Serving, view: &ClusterView) -> Finding {
    let pod = &serving.pod;
    let namespace = &view.namespace;
    match &serving.result {
        Err(why) => Finding::fail(
            "ledger",
            format!("{pod}: sidecars cannot trust it: {why}"),
            format!(
                "kubectl -n {namespace} delete secret chaperone-ledger-serving; kubectl -n {namespace} delete pod {pod}"
            ),
        ),
        Ok(leaf) if leaf.not_after.duration_since(view.now) < SERVING_LEFT => Finding::warn(
            "ledger",
            format!(
                "{pod}: its certificate was not renewed in time, {}",
                expiry(leaf, view.now)
            ),
            format!("kubectl -n {namespace} delete pod {pod}"),
        ),
        Ok(leaf) => Finding::ok(
            "ledger",
            format!(
                "{pod} is ready: chains to caBundle, {}",
                expiry(leaf, view.now)
            ),
        ),
    }
}
