//! The `caBundle` of the webhook configurations: set to our root, and set again when an upgrade or a person clears it.

use std::{fmt::Debug, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{
    ByteString,
    api::admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
    },
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Authority;
use crate::{
    health::{Fact, Health},
    metrics::Metrics,
    stores::Patience,
};

/// Name under which our patches show in `managedFields`.
const MANAGER: &str = "chaperone-operator";
/// How long to wait before a patch that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A webhook configuration: its webhooks by name.
pub trait Configuration:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
    /// What readiness waits for.
    const FACT: Fact;

    /// Name and client settings of each webhook.
    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Configuration for MutatingWebhookConfiguration {
    const FACT: Fact = Fact::Mutating;

    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks
            .map(|webhook| (webhook.name.as_str(), &webhook.client_config))
            .collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    const FACT: Fact = Fact::Validating;

    fn webhooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks
            .map(|webhook| (webhook.name.as_str(), &webhook.client_config))
            .collect()
    }
}

/// Keeps the `caBundle` of the configuration of this name right. Runs for ever; every replica does it, for all write the same.
pub async fn keep<K: Configuration>(
    client: Client,
    name: String,
    mut authority: watch::Receiver<Option<Arc<Authority>>>,
    metrics: Metrics,
    health: Health,
) {
    let api: Api<K> = Api::all(client);
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(api.clone(), only).backoff(Patience::default());
    let mut events = std::pin::pin!(events);
    let mut found: Option<K> = None;
    loop {
        let patch = bundle_patch(found.as_ref(), &authority);
        health.set(K::FACT, patch == Some(None));
        let mut pause = Duration::MAX;
        if let Some(Some(patch)) = patch {
            match write(&api, &name, &patch).await {
                Ok(patched) => {
                    found = Some(patched);
                    continue;
                }
                Err(error) => {
                    metrics.failed("ca_bundle");
                    tracing::error!(%error, "caBundle could not be written");
                    pause = RETRY;
                }
            }
        }
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => take(event, &mut found),
                Some(Err(error)) => {
                    metrics.failed("watch_webhooks");
                    tracing::warn!(%error, "watch failed, it is tried again");
                }
                None => return,
            },
            Ok(()) = authority.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn write<K: Configuration>(api: &Api<K>, name: &str, patch: &Value) -> kube::Result<K> {
    tracing::info!(kind = %K::kind(&()), name, "writing caBundle");
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch(name, &params, &Patch::Strategic(patch)).await
}

fn take<K>(event: watcher::Event<K>, found: &mut Option<K>) {
    match event {
        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => *found = Some(object),
        watcher::Event::Delete(_) => *found = None,
        watcher::Event::Init | watcher::Event::InitDone => {}
    }
}

/// The patch that is needed; `Some(None)` if all is right, `None` if configuration or root are not known yet.
fn bundle_patch<K: Configuration>(
    found: Option<&K>,
    authority: &watch::Receiver<Option<Arc<Authority>>>,
) -> Option<Option<Value>> {
    let root = ByteString(authority.borrow().as_ref()?.root_pem().as_bytes().to_vec());
    Some(patch_for(&found?.webhooks(), &root))
}

/// A strategic merge patch that sets `caBundle` where it is not the root; webhooks merge by name.
fn patch_for(webhooks: &[(&str, &WebhookClientConfig)], root: &ByteString) -> Option<Value> {
    let wrong: Vec<_> = webhooks
        .iter()
        .filter(|(_, config)| config.ca_bundle.as_ref() != Some(root))
        .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": root}}))
        .collect();
    (!wrong.is_empty()).then(|| json!({"webhooks": wrong}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_without_our_root_are_patched() {
        let root = ByteString(b"root".to_vec());
        let right = WebhookClientConfig {
            ca_bundle: Some(root.clone()),
            ..WebhookClientConfig::default()
        };
        let cleared = WebhookClientConfig::default();
        assert_eq!(patch_for(&[("a", &right)], &root), None);
        assert_eq!(
            patch_for(&[("a", &right), ("b", &cleared)], &root),
            Some(json!({"webhooks": [{"name": "b", "clientConfig": {"caBundle": "cm9vdA=="}}]}))
        );
    }
}
