//! Pods that predate their namespace's label run without sidecar: an Event says that they need a restart.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chaperone_crds::pod::INJECTED_LABEL;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::sync::watch;

use crate::{
    events::{Events, Reason, about_pod},
    metrics::Metrics,
    settings::Settings,
    stores::Stores,
};

/// How often audited namespaces are looked through.
const INTERVAL: Duration = Duration::from_secs(30);
/// Pods of one namespace that are looked at in one round. Further ones have their turn when these are gone.
const MAX_PODS: u32 = 500;

/// Points at pods that need a restart while this replica leads. Runs for ever.
pub async fn point_at_restarts(
    client: Client,
    stores: Stores,
    settings: Arc<Settings>,
    events: Events,
    mut leads: watch::Receiver<bool>,
    metrics: Metrics,
) {
    let mut noted = HashSet::new();
    let mut rounds = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            Ok(()) = leads.changed() => {}
        }
        if !*leads.borrow_and_update() {
            continue;
        }
        let mut seen = HashSet::new();
        for namespace in stores.namespaces.state() {
            let name = namespace.name_any();
            if !settings.audits(&name, namespace.metadata.labels.as_ref()) {
                continue;
            }
            let pods = uninjected(&client, &name).await.unwrap_or_else(|error| {
                metrics.failed("restarts");
                tracing::warn!(%error, namespace = name, "pods could not be listed");
                Vec::new()
            });
            for pod in pods
                .iter()
                .filter(|pod| needs_restart(pod, &name, &settings))
            {
                let uid = pod.uid().unwrap_or_default();
                if !noted.contains(&uid) {
                    note(&events, &name, pod);
                }
                seen.insert(uid);
            }
        }
        noted = seen;
    }
}

/// Pods of a namespace without the label of injected ones, as the API server's cache has them.
async fn uninjected(client: &Client, namespace: &str) -> Result<Vec<Pod>, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default()
        .labels(&format!("{INJECTED_LABEL}!=true"))
        .limit(MAX_PODS);
    Ok(api.list(&params).await?.items)
}

fn needs_restart(pod: &Pod, namespace: &str, settings: &Settings) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
    let is_mirror = pod
        .annotations()
        .contains_key(crate::webhooks::MIRROR_ANNOTATION);
    let is_going = pod.metadata.deletion_timestamp.is_some();
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref());
    !has_ended && !is_mirror && !is_going && !settings.exempts(namespace, account)
}

fn note(events: &Events, namespace: &str, pod: &Pod) {
    let text = "this pod runs without sidecar: it is older than its namespace's label; restart its controller (kubectl rollout restart) or delete it";
    events.note(
        Reason::RestartNeeded,
        about_pod(namespace, pod),
        text.to_owned(),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn pods_that_have_ended_are_going_exempt_or_of_a_node_need_no_restart() {
        let settings = settings(&["--exempt-service-account=agents/ci"]);
        let cases = [
            (json!({}), true),
            (json!({"status": {"phase": "Running"}}), true),
            (json!({"status": {"phase": "Succeeded"}}), false),
            (
                json!({"metadata": {"deletionTimestamp": "2026-11-24T10:00:00Z"}}),
                false,
            ),
            (
                json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}),
                false,
            ),
            (
                json!({"spec": {"containers": [], "serviceAccountName": "ci"}}),
                false,
            ),
        ];
        for (pod, expected) in cases {
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(
                needs_restart(&pod, "agents", &settings),
                expected,
                "{pod:?}"
            );
        }
    }
}
