//! The ledger: its StatefulSet, its pod, and what that presents.

use anyhow::{Context as _, bail};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};
use kube::{Api, Client, ResourceExt};

use super::{
    DEFAULT_NAMESPACE, Scope,
    control::{Refusal, Registered, Server, Wire, connect, is_ready, look, registered},
    evidence::evidence,
    list,
};
use crate::check::view::{Ledger, LedgerPod, Seen};

/// Labels of the ledger's StatefulSet and pod, as the chart sets them.
const LEDGER_LABELS: &str = "app.kubernetes.io/name=chaperone,app.kubernetes.io/component=ledger";
/// Port of its API.
const LEDGER_PORT: u16 = 9445;
/// What a ledger of several replicas is started with.
const SHARED: &str = "--shared=";
/// Its Service, unless the chart was given another name.
const DEFAULT_SERVICE: &str = "chaperone-ledger";

/// A ledger that is found by asking the cluster for it.
pub(crate) struct Found {
    pods: Api<Pod>,
    in_cluster: bool,
    /// The name that its certificate is for.
    pub(crate) name: String,
    /// PEM of the roots that its certificate chains to, where they may be read.
    pub(crate) roots: Option<Vec<u8>>,
}

/// Finds the ledger that the chart runs.
///
/// # Errors
/// When there is none, or the cluster does not say; the message says what to do.
pub(crate) async fn find(
    client: &Client,
    system: Option<&str>,
    in_cluster: bool,
) -> anyhow::Result<Found> {
    let registered = registered(client).await?;
    let system = system.map(str::to_owned);
    let system = system.or_else(|| registered.namespace());
    let system = system.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &system);
    // Who may not look at the set knows the pods' Service by the chart's own name.
    let service = match list(sets, LEDGER_LABELS).await? {
        Seen::Yes(sets) => sets.first().map(service),
        Seen::No(_) => Some(DEFAULT_SERVICE.to_owned()),
    };
    let service = service.with_context(|| {
        format!("there is no ledger in namespace {system}: name another with --system-namespace, or the ledger's URL with --ledger")
    })?;
    Ok(Found {
        pods: Api::namespaced(client.clone(), &system),
        in_cluster,
        name: format!("{service}.{system}.svc"),
        roots: registered.roots().map(<[u8]>::to_vec),
    })
}

impl Found {
    /// A connection to the API of the pod that is ready now.
    pub(crate) async fn dial(&self) -> anyhow::Result<Box<dyn Wire>> {
        let pods = match list(self.pods.clone(), LEDGER_LABELS).await? {
            Seen::Yes(pods) => pods,
            Seen::No(why) => bail!("{why}; reach it in another way and name it with --ledger URL"),
        };
        let pod = pods.iter().find(|pod| is_ready(pod));
        let waiting = || match pods.first() {
            Some(pod) => format!("{} is not ready{}", pod.name_any(), why(pod)),
            None => "the ledger has no pod".to_owned(),
        };
        let pod = pod.with_context(waiting)?;
        match connect(&self.pods, pod, self.in_cluster, LEDGER_PORT).await {
            Ok(stream) => Ok(stream),
            Err(Refusal::Forbidden(why)) => {
                bail!("{why}; reach the ledger in another way and name it with --ledger URL")
            }
            Err(Refusal::Bad(why)) => {
                Err(why.context(format!("{} cannot be reached", pod.name_any())))
            }
        }
    }
}

/// The ledger of this namespace; none if there is no StatefulSet.
pub(super) async fn ledger(
    client: &Client,
    scope: &Scope,
    system: &str,
    registered: &Registered,
) -> anyhow::Result<Seen<Option<Ledger>>> {
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), system);
    let pods: Api<Pod> = Api::namespaced(client.clone(), system);
    let (sets, found) = match list(sets, LEDGER_LABELS)
        .await?
        .and(list(pods.clone(), LEDGER_LABELS).await?)
    {
        Seen::Yes(both) => both,
        Seen::No(why) => return Ok(Seen::No(why)),
    };
    let Some(set) = sets.first() else {
        return Ok(Seen::Yes(None));
    };
    let mut said = None;
    for pod in found.iter().filter(|pod| is_ready(pod)) {
        // Of several replicas one sees pods.
        let one = evidence(&pods, pod, scope.in_cluster).await;
        let sees = matches!(&one, Some(Ok(evidence)) if evidence.is_watching);
        if said.is_none() || sees {
            said = one;
        }
    }
    let ready = found.iter().find(|pod| is_ready(pod));
    let pod = match ready.or(found.first()) {
        Some(pod) if is_ready(pod) => {
            let name = format!("{}.{system}.svc", service(set));
            let server = registered.roots().map(|roots| Server {
                roots,
                name: &name,
                port: LEDGER_PORT,
            });
            match server {
                None => LedgerPod::Ready(None),
                Some(server) => match look(&pods, pod, scope.in_cluster, server).await {
                    Seen::Yes(serving) => LedgerPod::Ready(Some(serving)),
                    Seen::No(why) => return Ok(Seen::No(why)),
                },
            }
        }
        Some(pod) => LedgerPod::Waiting(format!("{} is not ready{}", pod.name_any(), why(pod))),
        None => LedgerPod::Waiting("it has no pod".to_owned()),
    };
    Ok(Seen::Yes(Some(Ledger {
        name: set.name_any(),
        ephemeral: is_ephemeral(set),
        pod,
        evidence: said,
    })))
}

fn service(set: &StatefulSet) -> String {
    let name = set.spec.as_ref().and_then(|s| s.service_name.clone());
    name.unwrap_or_else(|| set.name_any())
}

/// Whether records go with the pod: it has no claim, and shares no database with others.
fn is_ephemeral(set: &StatefulSet) -> bool {
    let Some(spec) = &set.spec else {
        return true;
    };
    let has_claim = spec
        .volume_claim_templates
        .iter()
        .flatten()
        .next()
        .is_some();
    let containers = spec.template.spec.iter().flat_map(|pod| &pod.containers);
    let mut arguments = containers.flat_map(|container| container.args.iter().flatten());
    !has_claim && !arguments.any(|argument| argument.starts_with(SHARED))
}

/// What the API server says of a pod that is not ready: why it is on no node, or what its container waits for or ended with.
fn why(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status == "False")
        .and_then(|c| c.message.clone());
    let states = status.container_statuses.iter().flatten().map(|c| {
        let state = c.state.clone().unwrap_or_default();
        let last = c.last_state.clone().unwrap_or_default();
        let waiting = state
            .waiting
            .and_then(|w| w.message.or(w.reason))
            .unwrap_or_default();
        let ended = last.terminated.or(state.terminated).map(|t| {
            let reason = t.reason.unwrap_or_default();
            format!("; it ended with {} {reason}", t.exit_code)
        });
        format!("{waiting}{}", ended.unwrap_or_default())
    });
    let said: Vec<_> = unscheduled
        .into_iter()
        .chain(states)
        .filter(|text| !text.is_empty())
        .collect();
    match said.is_empty() {
        true => String::new(),
        false => format!(": {}", said.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_keeps_the_pod_from_being_ready_is_told() {
        let cases = [
            (json!({}), ""),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "pod has unbound immediate PersistentVolumeClaims"}]}),
                ": pod has unbound immediate PersistentVolumeClaims",
            ),
            (
                json!({"containerStatuses": [{"name": "ledger", "image": "", "imageID": "", "ready": false, "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
                ": CrashLoopBackOff; it ended with 1 Error",
            ),
            (
                json!({"containerStatuses": [{"name": "ledger", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}}]}),
                "",
            ),
        ];
        for (status, expected) in cases {
            let pod: Pod = serde_json::from_value(json!({"status": status})).unwrap();
            assert_eq!(why(&pod), expected, "{status}");
        }
    }

    #[test]
    fn a_set_without_claim_keeps_nothing() {
        let set = |claims: serde_json::Value| -> StatefulSet {
            serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": {"serviceName": "l", "selector": {}, "template": {}, "volumeClaimTemplates": claims}})).unwrap()
        };
        assert!(is_ephemeral(&set(json!([]))));
        assert!(!is_ephemeral(&set(json!([{"metadata": {"name": "data"}}]))));
        let mut shared = set(json!([]));
        let template = json!({"spec": {"containers": [{"name": "ledger", "args": ["serve", "--shared=/etc/store.yaml"]}]}});
        shared.spec.as_mut().unwrap().template = serde_json::from_value(template).unwrap();
        assert!(!is_ephemeral(&shared));
        assert_eq!(service(&set(json!([]))), "l");
    }
}
