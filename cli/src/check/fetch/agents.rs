//! What Chaperone watches: labelled namespaces, their pods, policies and sinks.

use chaperone_crds::{
    pod as names,
    resources::{AgentPolicy, AuditSink, AuditSinkSpec, ClusterAgentPolicy, Deliverer},
};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject},
};
use serde_json::Value;

use super::{Scope, list};
use crate::check::view::{AgentPod, Condition, Policy, Seen, Sidecar, Sink, Status};

/// Labelled namespaces, and the unfinished pods in them.
pub(super) async fn pods(
    client: &Client,
    scope: &Scope,
) -> anyhow::Result<(Seen<Vec<String>>, Seen<Vec<AgentPod>>)> {
    let label = format!(
        "{}={}",
        names::NAMESPACE_LABEL,
        names::NAMESPACE_LABEL_VALUE
    );
    let labelled = list::<Namespace>(Api::all(client.clone()), &label).await?;
    let labelled: Seen<Vec<String>> =
        labelled.map(|all| all.iter().map(ResourceExt::name_any).collect());
    let wanted = match (&labelled, &scope.namespace) {
        (Seen::Yes(all), Some(only)) => all.iter().filter(|n| *n == only).cloned().collect(),
        (Seen::Yes(all), None) => all.clone(),
        (Seen::No(_), Some(only)) => vec![only.clone()],
        (Seen::No(why), None) => {
            let pods = Seen::No(format!("{why}; name a namespace with -n"));
            return Ok((labelled, pods));
        }
    };
    let mut all = Vec::new();
    for namespace in &wanted {
        match list::<Pod>(Api::namespaced(client.clone(), namespace), "").await? {
            Seen::Yes(pods) => all.extend(pods.iter().filter(|p| !is_finished(p)).map(agent_pod)),
            Seen::No(why) => return Ok((labelled, Seen::No(why))),
        }
    }
    Ok((labelled, Seen::Yes(all)))
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed")) || pod.metadata.deletion_timestamp.is_some()
}

fn agent_pod(pod: &Pod) -> AgentPod {
    let spec = pod.spec.as_ref();
    let has_sidecar = spec
        .iter()
        .flat_map(|s| s.init_containers.iter().flatten())
        .any(|c| c.name == names::SIDECAR_NAME);
    AgentPod {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        service_account: spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned()),
        sidecar: has_sidecar.then(|| sidecar(pod)),
    }
}

/// Whether the token volume of the sidecar has one for the ledger.
fn has_ledger_token(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes
        .filter(|volume| volume.name == names::TOKEN_VOLUME)
        .filter_map(|volume| volume.projected.as_ref()?.sources.as_ref())
        .flatten()
        .filter_map(|source| source.service_account_token.as_ref())
        .any(|token| token.audience.as_deref() == Some(names::LEDGER_AUDIENCE))
}

fn sidecar(pod: &Pod) -> Sidecar {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.init_container_statuses.unwrap_or_default();
    let container = containers.iter().find(|c| c.name == names::SIDECAR_NAME);
    let conditions = status.conditions.unwrap_or_default();
    let applied = conditions
        .iter()
        .find(|c| c.type_ == names::APPLIED_CONDITION);
    Sidecar {
        version: pod.annotations().get(names::VERSION_ANNOTATION).cloned(),
        ready: container.is_some_and(|c| c.ready),
        restarts: container.map_or(0, |c| c.restart_count),
        ledger_token: has_ledger_token(pod),
        applied: applied.map(|c| Condition {
            status: c.status == "True",
            message: c.message.clone().unwrap_or_default(),
        }),
    }
}

/// Policies of both kinds. Read as plain values: what a newer version wrote is looked at too.
pub(super) async fn policies(client: &Client, scope: &Scope) -> anyhow::Result<Seen<Vec<Policy>>> {
    let kind = ApiResource::erase::<AgentPolicy>(&());
    let namespaced = match &scope.namespace {
        Some(only) => Api::namespaced_with(client.clone(), only, &kind),
        None => Api::all_with(client.clone(), &kind),
    };
    let cluster = Api::all_with(
        client.clone(),
        &ApiResource::erase::<ClusterAgentPolicy>(&()),
    );
    let namespaced = list::<DynamicObject>(namespaced, "").await?;
    let cluster = list::<DynamicObject>(cluster, "").await?;
    Ok(cluster.and(namespaced).map(|(cluster, namespaced)| {
        let cluster = cluster
            .iter()
            .map(|p| policy(&ClusterAgentPolicy::kind(&()), p));
        let namespaced = namespaced
            .iter()
            .map(|p| policy(&AgentPolicy::kind(&()), p));
        cluster.chain(namespaced).collect()
    }))
}

fn policy(kind: &str, object: &DynamicObject) -> Policy {
    let name = match object.namespace() {
        Some(namespace) => format!("{kind} {namespace}/{}", object.name_any()),
        None => format!("{kind} {}", object.name_any()),
    };
    let count = |of: &str| object.data.pointer(of).and_then(Value::as_i64).unwrap_or(0);
    Policy {
        name,
        status: status(object),
        selected: count("/status/pods/selected"),
        applied: count("/status/pods/applied"),
    }
}

/// Condition that the ledger writes.
const DELIVERING: &str = "Delivering";

pub(super) async fn sinks(client: &Client) -> anyhow::Result<Seen<Vec<Sink>>> {
    let api = Api::all_with(client.clone(), &ApiResource::erase::<AuditSink>(&()));
    let sinks = list::<DynamicObject>(api, "").await?;
    Ok(sinks.map(|all| {
        all.iter()
            .map(|sink| Sink {
                name: sink.name_any(),
                status: status(sink),
                by_ledger: by_ledger(sink),
                delivering: condition(sink, DELIVERING).filter(|_| !is_unknown(sink, DELIVERING)),
            })
            .collect()
    }))
}

fn status(object: &DynamicObject) -> Status {
    let observed = object
        .data
        .pointer("/status/observedGeneration")
        .and_then(Value::as_i64);
    Status {
        current: observed.is_some() && observed == object.metadata.generation,
        ready: condition(object, "Ready"),
    }
}

fn condition(object: &DynamicObject, kind: &str) -> Option<Condition> {
    let conditions = object.data.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|c| c["type"] == kind)?;
    Some(Condition {
        status: found["status"] == "True",
        message: found["message"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Whether nothing is known: nothing was sent yet.
fn is_unknown(object: &DynamicObject, kind: &str) -> bool {
    let conditions = object.data.pointer("/status/conditions");
    let all = conditions.and_then(Value::as_array);
    all.is_some_and(|all| {
        all.iter()
            .any(|c| c["type"] == kind && c["status"] == "Unknown")
    })
}

/// A spec that this version cannot read is left to the condition `Ready`.
fn by_ledger(sink: &DynamicObject) -> bool {
    let spec = sink.data.get("spec").cloned().unwrap_or_default();
    serde_json::from_value::<AuditSinkSpec>(spec)
        .is_ok_and(|spec| spec.delivered_by() == Deliverer::Ledger)
}
