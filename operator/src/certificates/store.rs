//! Root and serving certificate in their Secrets: made once, loaded, rotated, restored. Beside them, the secret of mask keys.
//!
//! Replicas race without harm: a Secret is created only if it is absent, and replaced only at the version that was read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::watch;

use super::{
    Authority, AuthorityError, KeyedCertificate, ServingCertificate,
    authority::{certificate_expiry, mint_root},
};
use crate::{
    health::{Fact, Health},
    mask_secret,
    metrics::Metrics,
    stores::Stores,
};

/// Secret of the root.
pub const ROOT_SECRET: &str = "chaperone-root-ca";
/// Secret of the serving certificate.
pub const SERVING_SECRET: &str = "chaperone-serving";
/// How often the age of certificates is looked at.
const INTERVAL: Duration = Duration::from_secs(600);
/// How long to wait before the API server is asked again after an error.
const RETRY: Duration = Duration::from_secs(2);

/// Why certificates could not be loaded or stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server refused or did not answer.
    #[error("Secret {name}: {source}")]
    Api {
        /// Which Secret.
        name: &'static str,
        /// Why.
        source: kube::Error,
    },
    /// What is in the Secret is no certificate with its key.
    #[error("Secret {name}: {source}; delete the Secret to have a new one made")]
    Content {
        /// Which Secret.
        name: &'static str,
        /// Why.
        source: AuthorityError,
    },
}

/// Keeps both certificates of one replica.
pub struct Keeper {
    api: Api<Secret>,
    names: Vec<String>,
    serving: ServingCertificate,
    authority: watch::Sender<Option<Arc<Authority>>>,
    metrics: Metrics,
    health: Health,
}

impl Keeper {
    /// A keeper that installs into `serving`, and what hears the root.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        names: Vec<String>,
        serving: ServingCertificate,
        metrics: Metrics,
        health: Health,
    ) -> (Self, watch::Receiver<Option<Arc<Authority>>>) {
        let (authority, receiver) = watch::channel(None);
        let keeper = Self {
            api: Api::namespaced(client, namespace),
            names,
            serving,
            authority,
            metrics,
            health,
        };
        (keeper, receiver)
    }

    /// Runs for ever: loads what is there, makes what is missing, follows changes, and on the leader renews what grows old.
    pub async fn run(self, stores: Stores, mut leads: watch::Receiver<bool>) {
        let mut mask_secret = None;
        loop {
            let is_leader = *leads.borrow_and_update();
            let mut pause = INTERVAL;
            if let Err(error) = self.reconcile(is_leader).await {
                self.metrics.failed("certificates");
                tracing::error!(%error, "certificates could not be loaded");
                pause = RETRY;
            }
            match mask_secret::ensure(&self.api, mask_secret.as_ref()).await {
                Ok(secret) => mask_secret = Some(secret),
                Err(error) => {
                    self.metrics.failed("mask_secret");
                    tracing::error!(%error, "no mask keys; Hash and Token redact");
                    pause = RETRY;
                }
            }
            tokio::select! {
                () = stores.secrets_changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
                Ok(()) = leads.changed() => {}
            }
        }
    }

    /// Loads and installs root and serving certificate; makes them if they are missing or, for the serving certificate, not usable.
    async fn reconcile(&self, is_leader: bool) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let authority = self.load_authority(now).await?;
        let secret = self.get(SERVING_SECRET).await?;
        let found = secret.as_ref().and_then(content);
        let is_fresh = found
            .as_ref()
            .is_some_and(|found| authority.vouches_for(found, &self.names, now));
        // A follower makes one only if it has none to serve with: else it is the leader's work.
        let serving = match found {
            Some(found) if is_fresh || (!is_leader && self.is_usable(&authority, &found, now)) => {
                found
            }
            _ => self.renew_serving(&authority, secret, now).await?,
        };
        self.serving
            .install(&serving)
            .map_err(|source| StoreError::Content {
                name: SERVING_SECRET,
                source,
            })?;
        self.note_expiry("root", authority.not_after());
        if let Ok(expiry) = certificate_expiry(&serving.certificate) {
            self.note_expiry("serving", expiry);
        }
        self.health.set(Fact::Certificates, true);
        Ok(())
    }

    /// The root: from its Secret; else from memory, so that running agents keep the root they trust; else a new one.
    async fn load_authority(&self, now: Timestamp) -> Result<Arc<Authority>, StoreError> {
        let known = self.authority.borrow().clone();
        let root = match self.get(ROOT_SECRET).await? {
            Some(secret) => content(&secret),
            None => {
                let root = match &known {
                    Some(known) => known.root().clone(),
                    None => mint_root(now).map_err(|source| StoreError::Content {
                        name: ROOT_SECRET,
                        source,
                    })?,
                };
                tracing::info!(
                    restored = known.is_some(),
                    "creating the Secret of the root"
                );
                content(&self.create(ROOT_SECRET, &root).await?)
            }
        };
        let root = root.ok_or(StoreError::Content {
            name: ROOT_SECRET,
            source: AuthorityError::Unreadable("it has no tls.crt or no tls.key".to_owned()),
        })?;
        if let Some(known) = known.filter(|known| *known.root() == root) {
            return Ok(known);
        }
        let authority = Authority::parse(root).map_err(|source| StoreError::Content {
            name: ROOT_SECRET,
            source,
        })?;
        let authority = Arc::new(authority);
        self.authority.send_replace(Some(Arc::clone(&authority)));
        Ok(authority)
    }

    async fn renew_serving(
        &self,
        authority: &Authority,
        before: Option<Secret>,
        now: Timestamp,
    ) -> Result<KeyedCertificate, StoreError> {
        let name = SERVING_SECRET;
        let serving = authority
            .mint_serving(&self.names, now)
            .map_err(|source| StoreError::Content { name, source })?;
        tracing::info!("renewing the serving certificate");
        let stored = match before {
            None => self.create(name, &serving).await?,
            Some(before) => {
                let mut secret = before;
                secret.data = Some(data(&serving));
                match self
                    .api
                    .replace(name, &PostParams::default(), &secret)
                    .await
                {
                    Ok(secret) => secret,
                    Err(error) if is_conflict(&error) => self.get_existing(name).await?,
                    Err(source) => return Err(StoreError::Api { name, source }),
                }
            }
        };
        Ok(content(&stored).unwrap_or(serving))
    }

    /// Whether a certificate that is due for renewal can still be served with.
    fn is_usable(&self, authority: &Authority, serving: &KeyedCertificate, now: Timestamp) -> bool {
        let is_ours = authority.signed(serving, &self.names);
        is_ours && certificate_expiry(&serving.certificate).is_ok_and(|expiry| now < expiry)
    }

    async fn get(&self, name: &'static str) -> Result<Option<Secret>, StoreError> {
        let found = self.api.get_opt(name).await;
        found.map_err(|source| StoreError::Api { name, source })
    }

    async fn get_existing(&self, name: &'static str) -> Result<Secret, StoreError> {
        let found = self.api.get(name).await;
        found.map_err(|source| StoreError::Api { name, source })
    }

    /// Creates a Secret, or reads the one that another replica created first.
    async fn create(
        &self,
        name: &'static str,
        content: &KeyedCertificate,
    ) -> Result<Secret, StoreError> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    "chaperone-operator".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data(content)),
            ..Secret::default()
        };
        match self.api.create(&PostParams::default(), &secret).await {
            Ok(secret) => Ok(secret),
            Err(error) if is_conflict(&error) => self.get_existing(name).await,
            Err(source) => Err(StoreError::Api { name, source }),
        }
    }

    fn note_expiry(&self, certificate: &str, expiry: Timestamp) {
        self.metrics
            .certificate_expiry
            .with_label_values(&[certificate])
            .set(expiry.as_second());
    }
}

fn data(content: &KeyedCertificate) -> BTreeMap<String, ByteString> {
    BTreeMap::from([
        (
            "tls.crt".to_owned(),
            ByteString(content.certificate.clone().into_bytes()),
        ),
        (
            "tls.key".to_owned(),
            ByteString(content.key.clone().into_bytes()),
        ),
    ])
}

fn content(secret: &Secret) -> Option<KeyedCertificate> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?.0.clone();
        String::from_utf8(bytes).ok()
    };
    Some(KeyedCertificate {
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
    })
}

/// Both "already exists" and "the object has been modified" are 409.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gives_back_what_was_put_in() {
        let root = mint_root(Timestamp::now()).unwrap();
        let secret = Secret {
            data: Some(data(&root)),
            ..Secret::default()
        };
        assert_eq!(content(&secret), Some(root));
        assert_eq!(content(&Secret::default()), None);
    }
}
