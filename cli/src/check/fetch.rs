//! From the API server to a [`ClusterView`]. What may not be read becomes [`Seen::No`]; what cannot be reached is an error.

mod agents;
mod control;
mod evidence;
mod ledger;

pub(crate) use control::Wire;
pub(crate) use ledger::{Found, find};

use anyhow::Context;
use chaperone_crds::resources::GROUP;
use jiff::Timestamp;
use k8s_openapi::{
    api::apps::v1::Deployment,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, api::ListParams};
use serde::de::DeserializeOwned;

use super::view::{ClusterView, Seen};

/// Where Chaperone is looked for when no webhook says it.
const DEFAULT_NAMESPACE: &str = "chaperone-system";
/// Labels of the operator's Deployment and pods, as the chart sets them.
const OPERATOR_LABELS: &str =
    "app.kubernetes.io/name=chaperone,app.kubernetes.io/component=operator";

/// What to look at.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// Chaperone's namespace, if the user named it.
    pub(super) system: Option<String>,
    /// The only namespace whose pods and policies are looked at.
    pub(super) namespace: Option<String>,
    /// Whether pods can be reached by their addresses, as they can from another pod.
    pub(super) in_cluster: bool,
}

/// Looks at the cluster once.
pub(super) async fn view(client: &Client, scope: &Scope) -> anyhow::Result<ClusterView> {
    let registered = control::registered(client).await?;
    let system = scope
        .system
        .clone()
        .or_else(|| registered.namespace())
        .unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let definitions = list::<CustomResourceDefinition>(Api::all(client.clone()), "").await?;
    let deployments =
        list::<Deployment>(Api::namespaced(client.clone(), &system), OPERATOR_LABELS).await?;
    let (namespaces, pods) = agents::pods(client, scope).await?;
    Ok(ClusterView {
        now: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        crds: definitions.map(|all| {
            all.iter()
                .filter(|crd| crd.spec.group == GROUP)
                .map(control::crd)
                .collect()
        }),
        operator: deployments.map(|all| all.first().map(control::operator)),
        serving: control::serving(client, scope, &system, &registered).await?,
        ledger: ledger::ledger(client, scope, &system, &registered).await?,
        webhooks: registered.webhooks(),
        namespaces,
        pods,
        policies: agents::policies(client, scope).await?,
        sinks: agents::sinks(client).await?,
        namespace: system,
    })
}

impl<T> Seen<T> {
    /// The same, of what was seen.
    pub(super) fn map<U>(self, to: impl FnOnce(T) -> U) -> Seen<U> {
        match self {
            Self::Yes(it) => Seen::Yes(to(it)),
            Self::No(why) => Seen::No(why),
        }
    }

    /// Both, if both were seen.
    pub(super) fn and<U>(self, other: Seen<U>) -> Seen<(T, U)> {
        match (self, other) {
            (Self::Yes(a), Seen::Yes(b)) => Seen::Yes((a, b)),
            (Self::No(why), _) | (_, Seen::No(why)) => Seen::No(why),
        }
    }
}

/// All objects with these labels. A kind that is not defined has none.
async fn list<K>(api: Api<K>, labels: &str) -> anyhow::Result<Seen<Vec<K>>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.list(&ListParams::default().labels(labels)).await {
        Ok(found) => Ok(Seen::Yes(found.items)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Seen::No(status.message.clone())),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Seen::Yes(Vec::new())),
        Err(error) => Err(error).context("the cluster cannot be looked at"),
    }
}
