//! Findings about what Chaperone watches: namespaces, pods, policies, sinks.

use std::collections::BTreeMap;

use super::{
    super::view::{AgentPod, ClusterView, Condition, Operator, Policy, Sidecar, Sink, Status},
    Finding, Seen, some_of,
};

pub(super) fn namespaces(namespaces: &[String]) -> Vec<Finding> {
    if namespaces.is_empty() {
        return vec![Finding::warn(
            "namespaces",
            "no namespace is labelled: nothing is captured",
            "kubectl label namespace YOUR-AGENTS chaperone.dev/audit=enabled",
        )];
    }
    vec![Finding::ok(
        "namespaces",
        format!("labelled: {}", some_of(namespaces)),
    )]
}

pub(super) fn pods(pods: &[AgentPod], view: &ClusterView) -> Vec<Finding> {
    let operator = match &view.operator {
        Seen::Yes(operator) => operator.as_ref(),
        Seen::No(_) => None,
    };
    let mut bare: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut tokenless: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut found = Vec::new();
    let (mut injected, mut exempt) = (0_usize, 0_usize);
    for pod in pods {
        match &pod.sidecar {
            Some(sidecar) => {
                injected += 1;
                found.extend(injected_pod(pod, sidecar, operator));
                if !sidecar.ledger_token && operator.is_some_and(|o| o.ledger) {
                    let names = tokenless.entry(&pod.namespace).or_default();
                    names.push(pod.name.clone());
                }
            }
            None if operator.is_some_and(|o| is_exempt(pod, o)) => exempt += 1,
            None => bare
                .entry(&pod.namespace)
                .or_default()
                .push(pod.name.clone()),
        }
    }
    found.extend(bare.into_iter().map(|(namespace, names)| {
        Finding::fail(
            "pods",
            format!(
                "{namespace}: {} without sidecar, started before the namespace was labelled: {}",
                names.len(),
                some_of(&names)
            ),
            restart(namespace),
        )
    }));
    found.extend(tokenless.into_iter().map(|(namespace, names)| {
        Finding::warn(
            "pods",
            format!(
                "{namespace}: {} whose records do not reach the ledger, injected by a version without one: {}",
                names.len(),
                some_of(&names)
            ),
            restart(namespace),
        )
    }));
    if found.is_empty() && injected > 0 {
        found.push(Finding::ok(
            "pods",
            format!("{injected} with a sidecar that is ready"),
        ));
    }
    if exempt > 0 {
        found.push(Finding::ok(
            "pods",
            format!("{exempt} not captured: the chart exempts their service accounts"),
        ));
    }
    found
}

fn restart(namespace: &str) -> String {
    format!(
        "kubectl -n {namespace} rollout restart deployment,statefulset,daemonset (delete pods that nothing owns)"
    )
}

fn is_exempt(pod: &AgentPod, operator: &Operator) -> bool {
    let account = format!("{}/{}", pod.namespace, pod.service_account);
    operator.exempt.contains(&account)
}

fn injected_pod(pod: &AgentPod, sidecar: &Sidecar, operator: Option<&Operator>) -> Vec<Finding> {
    let AgentPod {
        namespace, name, ..
    } = pod;
    let mut found = Vec::new();
    if !sidecar.ready {
        found.push(Finding::fail(
            "pods",
            format!(
                "{namespace}/{name}: the sidecar is not ready ({} restarts)",
                sidecar.restarts
            ),
            format!("kubectl -n {namespace} logs {name} -c chaperone-sidecar"),
        ));
    }
    match &sidecar.applied {
        Some(Condition {
            status: false,
            message,
        }) => found.push(Finding::fail(
            "pods",
            format!("{namespace}/{name}: does not run its policies: {message}"),
            format!("kubectl -n {namespace} logs {name} -c chaperone-sidecar"),
        )),
        None if sidecar.ready => found.push(Finding::warn(
            "pods",
            format!("{namespace}/{name}: has not said yet which policies it runs"),
            format!("kubectl -n {namespace} logs {name} -c chaperone-sidecar"),
        )),
        _ => {}
    }
    if let (Some(version), Some(wanted)) =
        (&sidecar.version, operator.and_then(|o| o.version.as_ref()))
        && version != wanted
    {
        found.push(Finding::warn(
            "pods",
            format!("{namespace}/{name}: has sidecar {version}, the operator is {wanted}"),
            format!("restart it: kubectl -n {namespace} delete pod {name}"),
        ));
    }
    found
}

pub(super) fn policies(policies: &[Policy], view: &ClusterView) -> Vec<Finding> {
    let mut found: Vec<_> = policies.iter().filter_map(|p| policy(p, view)).collect();
    if found.is_empty() {
        found.push(Finding::ok(
            "policies",
            match policies.len() {
                0 => "none: every operation is allowed and recorded".to_owned(),
                n => format!("{n} in force"),
            },
        ));
    }
    found
}

fn policy(policy: &Policy, view: &ClusterView) -> Option<Finding> {
    let Policy {
        name,
        selected,
        applied,
        ..
    } = policy;
    if let Some(finding) = not_ready("policies", name, &policy.status, view) {
        return Some(finding);
    }
    (applied < selected).then(|| {
        Finding::warn(
            "policies",
            format!("{name}: {applied} of {selected} pods run its current revision"),
            "wait a moment; then look at the pods that are named above, and at the operator's log",
        )
    })
}

pub(super) fn sinks(sinks: &[Sink], view: &ClusterView) -> Vec<Finding> {
    let mut found: Vec<_> = sinks
        .iter()
        .filter_map(|sink| {
            let name = format!("AuditSink {}", sink.name);
            not_ready("sinks", &name, &sink.status, view).or_else(|| not_delivered(sink, view))
        })
        .collect();
    let by_default = match &view.operator {
        Seen::Yes(Some(operator)) => operator.default_sink,
        // Not known: the chart's default.
        _ => true,
    };
    let has_ledger = matches!(&view.operator, Seen::Yes(Some(operator)) if operator.ledger);
    if sinks.is_empty() && !by_default && !has_ledger {
        found.push(Finding::fail(
            "sinks",
            "none: records stay in the pods' spools, and when those are full, traffic waits",
            "create an AuditSink, or set defaultSink to stdout",
        ));
    } else if found.is_empty() {
        let ready = (!sinks.is_empty()).then(|| format!("{} ready", sinks.len()));
        let others = [
            ready,
            has_ledger.then(|| "the ledger".to_owned()),
            by_default.then(|| "the sidecars' standard output".to_owned()),
        ];
        let all: Vec<_> = others.into_iter().flatten().collect();
        found.push(Finding::ok(
            "sinks",
            format!("records go to: {}", all.join(", ")),
        ));
    }
    found
}

/// What keeps records from a sink that the ledger delivers. They are in the ledger meanwhile.
fn not_delivered(sink: &Sink, view: &ClusterView) -> Option<Finding> {
    let name = &sink.name;
    let no_ledger = matches!(&view.operator, Seen::Yes(Some(operator)) if !operator.ledger);
    if sink.by_ledger && no_ledger {
        return Some(Finding::fail(
            "sinks",
            format!("AuditSink {name}: the ledger would deliver it, and there is none"),
            "set ledger.enabled in the chart, or delete the sink",
        ));
    }
    let Some(Condition {
        status: false,
        message,
    }) = &sink.delivering
    else {
        return None;
    };
    Some(Finding::warn(
        "sinks",
        format!("AuditSink {name}: its target gets nothing: {message}"),
        "records wait in the ledger; mend the target or the sink",
    ))
}

fn not_ready(
    check: &'static str,
    name: &str,
    status: &Status,
    view: &ClusterView,
) -> Option<Finding> {
    let logs = format!(
        "see the operator's log: kubectl -n {} logs deployment/chaperone-operator",
        view.namespace
    );
    match &status.ready {
        Some(Condition {
            status: false,
            message,
        }) => Some(Finding::fail(
            check,
            format!("{name} is not ready: {message}"),
            "mend what the message says",
        )),
        None => Some(Finding::warn(
            check,
            format!("{name}: the operator has not judged it yet"),
            logs,
        )),
        Some(_) if !status.current => Some(Finding::warn(
            check,
            format!("{name}: the operator has not judged its last change yet"),
            logs,
        )),
        Some(_) => None,
    }
}
