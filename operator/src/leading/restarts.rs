//! Pods that predate their namespace's label run without sidecar, and those that predate the ledger without a token for it: an Event says that they need a restart.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chaperone_crds::pod::INJECTED_LABEL;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use tokio::sync::watch;

use crate::{
    check,
    events::{Events, Reason, about_pod},
    injected::has_ledger_token,
    metrics::Metrics,
    settings::Settings,
    stores::Stores,
};

/// How often audited namespaces are looked through.
const INTERVAL: Duration = Duration::from_secs(30);
/// Pods of one namespace that are looked at in one round. Further ones have their turn when these are gone.
const MAX_PODS: u32 = 500;

/// What is said of a pod without sidecar.
const NO_SIDECAR: &str = "this pod runs without sidecar: it is older than its namespace's label; restart its controller (kubectl rollout restart) or delete it";
/// What is said of a pod whose sidecar cannot write to the ledger.
const NO_LEDGER_TOKEN: &str = "this pod's records do not reach the ledger, only the other sinks: it was injected by a version without ledger and has no token for it; restart its controller (kubectl rollout restart) or delete it";

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
                    note(&events, &name, pod, NO_SIDECAR);
                }
                seen.insert(uid);
            }
        }
        for pod in without_ledger(&stores, &settings) {
            let uid = pod.uid().unwrap_or_default();
            if !noted.contains(&uid) {
                note(
                    &events,
                    &pod.namespace().unwrap_or_default(),
                    &pod,
                    NO_LEDGER_TOKEN,
                );
            }
            seen.insert(uid);
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

/// Injected pods that need a restart to write to the ledger.
fn without_ledger(stores: &Stores, settings: &Settings) -> Vec<Arc<Pod>> {
    let mut pods = stores.pods.state();
    pods.retain(|pod| {
        let namespace = pod.namespace().unwrap_or_default();
        let found = stores.namespace(&namespace);
        let labels = found.as_ref().and_then(|n| n.metadata.labels.as_ref());
        settings.ledger_service.is_some()
            && settings.audits(&namespace, labels)
            && check::is_injected(pod)
            && !has_ledger_token(pod)
            && needs_restart(pod, &namespace, settings)
    });
    pods
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

fn note(events: &Events, namespace: &str, pod: &Pod, text: &str) {
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

    #[test]
    fn injected_pods_of_audited_namespaces_without_a_token_are_pointed_at_where_there_is_a_ledger()
    {
        use crate::injected::{container, tests::shape, volumes};
        let pod = |name: &str, namespace: &str| -> Pod {
            let mut pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace, "labels": {"chaperone.dev/injected": "true"}},
                "spec": {"containers": [{"name": "agent"}]}
            }))
            .unwrap();
            let spec = pod.spec.as_mut().unwrap();
            spec.init_containers = Some(vec![container(&shape())]);
            spec.volumes = Some(volumes(&shape()).to_vec());
            pod
        };
        let without = |mut pod: Pod| {
            let volumes = pod.spec.as_mut().unwrap().volumes.as_mut().unwrap();
            let token = volumes.last_mut().unwrap().projected.as_mut().unwrap();
            token.sources.as_mut().unwrap().truncate(1);
            pod
        };
        let namespace = |name: &str, label: &str| -> k8s_openapi::api::core::v1::Namespace {
            serde_json::from_value(
                json!({"metadata": {"name": name, "labels": {"chaperone.dev/audit": label}}}),
            )
            .unwrap()
        };
        let pods = vec![
            pod("new", "agents"),
            without(pod("old", "agents")),
            without(pod("elsewhere", "plain")),
        ];
        let stores = Stores::fixed(
            pods,
            vec![namespace("agents", "enabled"), namespace("plain", "off")],
        );
        let names = |arguments: &[&str]| -> Vec<String> {
            let found = without_ledger(&stores, &settings(arguments));
            found.iter().map(|pod| pod.name_any()).collect()
        };
        assert_eq!(names(&["--ledger-service=chaperone-ledger"]), ["old"]);
        assert_eq!(names(&[]), [""; 0]);
    }
}
