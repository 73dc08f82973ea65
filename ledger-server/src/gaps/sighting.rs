//! What of a pod matters here: whether it has run, whether it has ended, and whether a stream can come from it.

use chaperone_crds::{pod::SIDECAR_NAME, record::AgentRef};
use chaperone_ledger::gaps::Reason;
use chaperone_server::audited::{exempts, has_ledger_token};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::ResourceExt as _;

use super::Watched;

/// A pod as the API server shows it: some 300 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) agent: AgentRef,
    pub(super) uid: String,
    pub(super) node: String,
    /// A container besides the sidecar has started: from then on it may have done something.
    pub(super) has_run: bool,
    /// All containers have ended for good, or the pod is gone.
    pub(super) has_ended: bool,
    /// When it began, as its kubelet says.
    pub(super) since: Option<Timestamp>,
    /// Why no stream can come from it.
    pub(super) lacks: Option<Reason>,
}

impl Sighting {
    pub(super) fn of(pod: &Pod, watched: &Watched) -> Self {
        let spec = pod.spec.clone().unwrap_or_default();
        let status = pod.status.clone().unwrap_or_default();
        let namespace = pod.namespace().unwrap_or_default();
        let created = pod.metadata.creation_timestamp.as_ref();
        let account = spec.service_account_name.as_deref();
        let started_first = spec.init_containers.as_deref().unwrap_or_default();
        let has_sidecar = started_first.iter().any(|c| c.name == SIDECAR_NAME);
        let lacks = match has_sidecar {
            false if exempts(&watched.exempt, &namespace, account) => Some(Reason::Exempt),
            false => Some(Reason::NoSidecar),
            true if !has_ledger_token(pod) => Some(Reason::NoToken),
            true => None,
        };
        Self {
            agent: AgentRef {
                namespace,
                pod: pod.name_any(),
                service_account: account.unwrap_or_default().to_owned(),
            },
            uid: pod.uid().unwrap_or_default(),
            node: spec.node_name.unwrap_or_default(),
            has_run: has_run(&status),
            has_ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            since: status.start_time.as_ref().or(created).map(|time| time.0),
            lacks,
        }
    }

    /// What is known of it now, after what was known before: what has run stays so, whatever a later status leaves out.
    pub(super) fn after(self, before: Option<&Self>) -> Self {
        let Some(before) = before else {
            return self;
        };
        Self {
            has_run: self.has_run || before.has_run,
            has_ended: self.has_ended || before.has_ended,
            since: self.since.or(before.since),
            ..self
        }
    }
}

fn has_run(status: &PodStatus) -> bool {
    let containers = status.container_statuses.iter().flatten();
    let started_first = status.init_container_statuses.iter().flatten();
    let later = status.ephemeral_container_statuses.iter().flatten();
    let mut all = containers.chain(started_first).chain(later);
    all.any(|container| container.name != SIDECAR_NAME && has_started(container))
}

fn has_started(container: &ContainerStatus) -> bool {
    let has = |state: &k8s_openapi::api::core::v1::ContainerState| {
        state.running.is_some() || state.terminated.is_some()
    };
    let states = container.state.iter().chain(&container.last_state);
    container.restart_count > 0 || states.into_iter().any(has)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn watched() -> Watched {
        Watched {
            own: "chaperone-system".to_owned(),
            exempt: vec!["agents/ci".split_once('/').map(account).unwrap()],
            pod_name: "ledger-0".to_owned(),
        }
    }

    fn account((namespace, name): (&str, &str)) -> chaperone_server::audited::ServiceAccount {
        chaperone_server::audited::ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn sighting(change: impl FnOnce(&mut Value)) -> Sighting {
        let token = json!({"serviceAccountToken": {"audience": "chaperone.dev/ledger", "path": "ledger-token"}});
        let mut pod = json!({
            "metadata": {"namespace": "agents", "name": "claude-0", "uid": "u1"},
            "spec": {
                "nodeName": "node-1", "serviceAccountName": "coder",
                "initContainers": [{"name": SIDECAR_NAME}], "containers": [{"name": "agent"}],
                "volumes": [{"name": "chaperone-token", "projected": {"sources": [token]}}]
            },
            "status": {"phase": "Running", "startTime": "2026-11-29T10:00:00Z", "containerStatuses": [container("agent", json!({"running": {}}))]}
        });
        change(&mut pod);
        Sighting::of(&serde_json::from_value(pod).unwrap(), &watched())
    }

    fn container(name: &str, state: Value) -> Value {
        json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    }

    #[test]
    fn a_stream_is_expected_of_a_pod_with_a_sidecar_that_has_a_token() {
        let found = sighting(|_| {});
        assert_eq!(
            (found.lacks, found.has_run, found.has_ended),
            (None, true, false)
        );
        assert_eq!(found.since, Some("2026-11-29T10:00:00Z".parse().unwrap()));
        let lacks = |change: &dyn Fn(&mut Value)| sighting(change).lacks;
        let none = json!([]);
        assert_eq!(
            lacks(&|p| p["spec"]["initContainers"] = none.clone()),
            Some(Reason::NoSidecar)
        );
        assert_eq!(
            lacks(&|p| p["spec"]["volumes"] = none.clone()),
            Some(Reason::NoToken)
        );
        let exempt = |p: &mut Value| {
            p["spec"]["initContainers"] = none.clone();
            p["spec"]["serviceAccountName"] = json!("ci");
        };
        assert_eq!(lacks(&exempt), Some(Reason::Exempt));
    }

    #[test]
    fn a_pod_has_run_once_a_container_besides_the_sidecar_has_started() {
        let has_run = |status: Value| sighting(|p| p["status"] = status).has_run;
        let waiting = json!({"waiting": {}});
        let running = json!({"running": {}});
        assert!(!has_run(json!({"phase": "Pending"})));
        assert!(!has_run(json!({
            "initContainerStatuses": [container(SIDECAR_NAME, running.clone())],
            "containerStatuses": [container("agent", waiting.clone())]
        })));
        assert!(has_run(
            json!({"initContainerStatuses": [container("fetch", json!({"terminated": {"exitCode": 0}}))]})
        ));
        assert!(has_run(
            json!({"ephemeralContainerStatuses": [container("debug", running)]})
        ));
        let mut again = container("agent", waiting);
        again["lastState"] = json!({"terminated": {"exitCode": 137}});
        assert!(has_run(json!({"containerStatuses": [again]})));
    }

    #[test]
    fn what_has_run_stays_so_when_a_later_status_is_empty() {
        let before = sighting(|_| {});
        let evicted = sighting(|p| p["status"] = json!({"phase": "Failed"}));
        assert!(!evicted.has_run && evicted.has_ended);
        let after = evicted.after(Some(&before));
        assert!(after.has_run && after.has_ended);
        assert_eq!(after.since, before.since);
    }
}
