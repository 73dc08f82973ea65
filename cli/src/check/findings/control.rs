//! Findings about Chaperone itself: definitions, operator, webhooks, certificates.

use chaperone_crds::resources::{GROUP, VERSION};
use jiff::{SignedDuration, Timestamp};

use super::{
    super::view::{CaBundle, Certificate, ClusterView, Crd, Operator, Serving, Webhook},
    Finding, some_of,
};

/// Names of Chaperone's custom resources.
pub(super) const RESOURCES: [&str; 3] = ["agentpolicies", "clusteragentpolicies", "auditsinks"];
/// Names of Chaperone's webhooks.
pub(super) const WEBHOOKS: [&str; 4] = [
    "pods.chaperone.dev",
    "check-pods.chaperone.dev",
    "policies.chaperone.dev",
    "sinks.chaperone.dev",
];
/// A serving certificate of 90 days is renewed after 60; with less than this left, renewal does not work.
pub(super) const SERVING_LEFT: SignedDuration = SignedDuration::from_hours(24 * 25);
/// A root with less than this left is worth planning for: a new one means restarting every agent.
const ROOT_LEFT: SignedDuration = SignedDuration::from_hours(24 * 90);

pub(super) fn crds(crds: &[Crd], view: &ClusterView) -> Vec<Finding> {
    let mend = format!(
        "helm upgrade --install chaperone charts/chaperone -n {} --set crds.install=true",
        view.namespace
    );
    let wrong: Vec<_> = RESOURCES
        .iter()
        .filter_map(|resource| {
            let name = format!("{resource}.{GROUP}");
            match crds.iter().find(|crd| crd.name == name) {
                None => Some(format!("{name} is not defined")),
                Some(crd) if !crd.served.iter().any(|v| v == VERSION) => Some(format!(
                    "{name} is not served as {VERSION} (but as {})",
                    crd.served.join(", ")
                )),
                Some(crd) if !crd.established => Some(format!("{name} is not established")),
                Some(_) => None,
            }
        })
        .map(|message| Finding::fail("crds", message, mend.clone()))
        .collect();
    if wrong.is_empty() {
        let all = RESOURCES.join(", ");
        return vec![Finding::ok(
            "crds",
            format!("{all} are served as {GROUP}/{VERSION}"),
        )];
    }
    wrong
}

pub(super) fn operator(operator: Option<&Operator>, view: &ClusterView) -> Vec<Finding> {
    let namespace = &view.namespace;
    let Some(operator) = operator else {
        return vec![Finding::fail(
            "operator",
            format!("no operator in namespace {namespace}"),
            format!(
                "helm install chaperone charts/chaperone -n {namespace} --create-namespace (or name its namespace with --system-namespace)"
            ),
        )];
    };
    let Operator {
        name,
        desired,
        ready,
        ..
    } = operator;
    let look = format!("kubectl -n {namespace} describe deployment {name}");
    let mut found = vec![if *ready == 0 {
        Finding::fail(
            "operator",
            format!("none of {desired} replicas is ready: no pod can start in labelled namespaces"),
            look,
        )
    } else if ready < desired || operator.updated < *desired {
        Finding::warn(
            "operator",
            format!(
                "{ready} of {desired} replicas are ready, {} up to date",
                operator.updated
            ),
            look,
        )
    } else if *desired < 2 {
        Finding::warn(
            "operator",
            "one replica: while it is away, no pod can start in labelled namespaces",
            "set operator.replicas to 2",
        )
    } else {
        Finding::ok(
            "operator",
            format!("{ready} of {desired} replicas are ready"),
        )
    }];
    match &operator.version {
        Some(version) if *version != view.version => found.push(Finding::warn(
            "operator",
            format!("it has version {version}, this command {}", view.version),
            "install the command of the same version",
        )),
        _ => {}
    }
    found
}

pub(super) fn webhooks(webhooks: &[Webhook], view: &ClusterView) -> Vec<Finding> {
    let mut found: Vec<_> = WEBHOOKS
        .iter()
        .flat_map(|name| match webhooks.iter().find(|w| w.name == *name) {
            None => vec![Finding::fail(
                "webhooks",
                format!("{name} is not registered"),
                format!(
                    "helm upgrade chaperone charts/chaperone -n {}",
                    view.namespace
                ),
            )],
            Some(webhook) => registered(webhook, view),
        })
        .collect();
    if found.is_empty() {
        found.push(Finding::ok(
            "webhooks",
            format!("{} are registered and fail closed", WEBHOOKS.len()),
        ));
    }
    found
}

fn registered(webhook: &Webhook, view: &ClusterView) -> Vec<Finding> {
    let name = &webhook.name;
    let mut found = Vec::new();
    let policy = webhook.failure_policy.as_deref().unwrap_or("Fail");
    if policy != "Fail" {
        found.push(Finding::fail(
            "webhooks",
            format!(
                "{name} has failurePolicy {policy}: when the operator is away, nothing is checked"
            ),
            format!(
                "helm upgrade chaperone charts/chaperone -n {}",
                view.namespace
            ),
        ));
    }
    let bad = match &webhook.ca_bundle {
        CaBundle::Absent => Some("has no caBundle: the API server cannot call it".to_owned()),
        CaBundle::Unreadable(why) => Some(format!("has a caBundle that cannot be read: {why}")),
        CaBundle::Certificates(roots) => roots
            .iter()
            .find(|root| root.not_after <= view.now)
            .map(|root| format!("has a caBundle that {}", expiry(root, view.now))),
    };
    if let Some(bad) = bad {
        found.push(Finding::fail(
            "webhooks",
            format!("{name} {bad}"),
            format!(
                "the operator writes caBundle; see kubectl -n {} logs deployment/{}",
                view.namespace,
                operator_name(view)
            ),
        ));
    }
    found
}

pub(super) fn serving(serving: &[Serving], view: &ClusterView) -> Vec<Finding> {
    let mut found: Vec<_> = serving.iter().filter_map(|s| presented(s, view)).collect();
    let good: Vec<_> = serving
        .iter()
        .filter_map(|s| s.result.as_ref().ok())
        .collect();
    if found.is_empty()
        && let Some(first) = good.iter().min_by_key(|c| c.not_after)
    {
        let pods = some_of(&serving.iter().map(|s| s.pod.clone()).collect::<Vec<_>>());
        found.push(Finding::ok(
            "certificates",
            format!("{pods}: chains to caBundle, {}", expiry(first, view.now)),
        ));
    }
    found.extend(root(view));
    found
}

fn presented(serving: &Serving, view: &ClusterView) -> Option<Finding> {
    let Serving { pod, result } = serving;
    let mend = format!("kubectl -n {} delete pod {pod}", view.namespace);
    match result {
        Err(why) => Some(Finding::fail(
            "certificates",
            format!("{pod}: the API server cannot trust it: {why}"),
            mend,
        )),
        Ok(leaf) if leaf.not_after.duration_since(view.now) < SERVING_LEFT => Some(Finding::warn(
            "certificates",
            format!("{pod}: not renewed in time, {}", expiry(leaf, view.now)),
            mend,
        )),
        Ok(_) => None,
    }
}

fn root(view: &ClusterView) -> Option<Finding> {
    let super::Seen::Yes(webhooks) = &view.webhooks else {
        return None;
    };
    let roots = webhooks.iter().filter_map(|w| match &w.ca_bundle {
        CaBundle::Certificates(roots) => Some(roots),
        _ => None,
    });
    let first = roots.flatten().min_by_key(|root| root.not_after)?;
    let left = first.not_after.duration_since(view.now);
    (left < ROOT_LEFT && left > SignedDuration::ZERO).then(|| {
        Finding::warn(
            "certificates",
            format!("root {}: {}", first.subject, expiry(first, view.now)),
            format!(
                "plan a day: scale the operator to 0, delete Secret chaperone-root-ca in {}, scale it up, restart all agents",
                view.namespace
            ),
        )
    })
}

pub(super) fn expiry(certificate: &Certificate, now: Timestamp) -> String {
    let date = certificate.not_after.strftime("%Y-%m-%d");
    let days = certificate.not_after.duration_since(now).as_hours() / 24;
    if certificate.not_after <= now {
        format!("expired on {date}")
    } else {
        format!("expires on {date}, in {days} days")
    }
}

fn operator_name(view: &ClusterView) -> &str {
    match &view.operator {
        super::Seen::Yes(Some(operator)) => &operator.name,
        _ => "chaperone-operator",
    }
}
