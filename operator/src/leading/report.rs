//! Status of policies and sinks, by server-side apply, written only where it differs.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chaperone_crds::{
    resources::{AgentPolicy, AuditSink, ClusterAgentPolicy, PolicyStatus, SinkStatus},
    snapshot::{PolicyKind, PolicyRef},
};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    runtime::reflector::ObjectRef,
};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;

use crate::{
    controller::Outcome,
    metrics::Metrics,
    status::{self, Applied},
    stores::Stores,
};

/// Name under which our fields show in `managedFields`.
const MANAGER: &str = "chaperone-operator";
/// How long changes are gathered before they are reported: acknowledgements come in bursts.
const GATHER: Duration = Duration::from_millis(200);
/// How long to wait before a status that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Reports while this replica leads. Runs for ever.
pub async fn report(
    client: Client,
    stores: Stores,
    mut outcomes: watch::Receiver<Arc<Outcome>>,
    mut leads: watch::Receiver<bool>,
    metrics: Metrics,
) {
    let mut reporter = Reporter {
        client,
        stores,
        metrics,
        policies: HashMap::new(),
        sinks: HashMap::new(),
    };
    loop {
        let outcome = outcomes.borrow_and_update().clone();
        let is_leader = *leads.borrow_and_update();
        let done = !is_leader || reporter.report(&outcome).await;
        let retry = if done { Duration::MAX } else { RETRY };
        tokio::select! {
            Ok(()) = outcomes.changed() => tokio::time::sleep(GATHER).await,
            Ok(()) = leads.changed() => {}
            () = tokio::time::sleep(retry) => {}
        }
    }
}

struct Reporter {
    client: Client,
    stores: Stores,
    metrics: Metrics,
    /// What was written last, for resources whose status cannot be read back and until the watch brings it back.
    policies: HashMap<PolicyRef, PolicyStatus>,
    sinks: HashMap<String, SinkStatus>,
}

impl Reporter {
    /// Writes every status that differs. False if one could not be written.
    async fn report(&mut self, outcome: &Outcome) -> bool {
        let pods = self.stores.pods.state();
        let applied: HashMap<String, Applied> = pods
            .iter()
            .filter_map(|pod| Some((pod.uid()?, status::applied(pod)?)))
            .collect();
        self.policies
            .retain(|reference, _| outcome.index.policies.contains_key(reference));
        let mut done = true;
        for (reference, policy) in &outcome.index.policies {
            let before = self.policy_before(reference);
            let status = status::of_policy(
                policy,
                &outcome.index,
                &applied,
                before.as_ref(),
                Timestamp::now(),
            );
            if before.as_ref() != Some(&status) {
                done &= self.write_policy(reference, &status).await;
                self.policies.insert(reference.clone(), status);
            }
        }
        for sink in &outcome.sinks {
            let before = self.sink_before(&sink.name);
            let status = status::of_sink(sink, before.as_ref(), Timestamp::now());
            if before.as_ref() != Some(&status) {
                done &= self.write::<AuditSink>(None, &sink.name, &status).await;
                self.sinks.insert(sink.name.clone(), status);
            }
        }
        done
    }

    /// The status that the API server has, else the one that was written last.
    fn policy_before(&self, reference: &PolicyRef) -> Option<PolicyStatus> {
        let name = reference.name.as_str();
        let stored = match reference.kind {
            PolicyKind::AgentPolicy => {
                let key = ObjectRef::new(name).within(&reference.namespace);
                let found = self.stores.policies.get(&key)?;
                found.0.as_ref().ok().map(|policy| policy.status.clone())
            }
            PolicyKind::ClusterAgentPolicy => {
                let found = self.stores.cluster_policies.get(&ObjectRef::new(name))?;
                found.0.as_ref().ok().map(|policy| policy.status.clone())
            }
        };
        stored.unwrap_or_else(|| self.policies.get(reference).cloned())
    }

    fn sink_before(&self, name: &str) -> Option<SinkStatus> {
        let found = self.stores.sinks.get(&ObjectRef::new(name))?;
        match &found.0 {
            Ok(sink) => sink.status.clone().map(status::own_part),
            Err(_) => self.sinks.get(name).cloned(),
        }
    }

    async fn write_policy(&self, reference: &PolicyRef, status: &PolicyStatus) -> bool {
        match reference.kind {
            PolicyKind::AgentPolicy => {
                let namespace = Some(reference.namespace.as_str());
                self.write::<AgentPolicy>(namespace, &reference.name, status)
                    .await
            }
            PolicyKind::ClusterAgentPolicy => {
                self.write::<ClusterAgentPolicy>(None, &reference.name, status)
                    .await
            }
        }
    }

    async fn write<K: Resource<DynamicType = ()>>(
        &self,
        namespace: Option<&str>,
        name: &str,
        status: &impl Serialize,
    ) -> bool {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let body = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "status": status
        });
        let params = PatchParams::apply(MANAGER).force();
        match api.patch_status(name, &params, &Patch::Apply(&body)).await {
            Ok(_) => true,
            // It was deleted meanwhile.
            Err(kube::Error::Api(error)) if error.code == 404 => true,
            Err(error) => {
                self.metrics.failed("status");
                tracing::warn!(%error, kind = resource.kind, name, "status could not be written");
                false
            }
        }
    }
}
