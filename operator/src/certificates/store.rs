//! What Secrets keep for the operator: the root, made once and restored, and the serving certificates under it. Beside them, the secret of mask keys and the ledger's signing key.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{Api, Client};
use tokio::sync::watch;

use super::{
    Authority, AuthorityError,
    authority::mint_root,
    secrets::{Secrets, content},
    serving::Kept,
};
use crate::{
    health::{Fact, Health},
    ledger_key::LedgerKeys,
    mask_secret::{self, MaskSecret},
    metrics::Metrics,
    stores::Stores,
};

/// Secret of the root.
pub const ROOT_SECRET: &str = "chaperone-root-ca";
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

/// Keeps the certificates and keys of one replica.
pub struct Keeper {
    client: Client,
    namespace: String,
    secrets: Secrets,
    /// The operator's own first.
    certificates: Vec<Kept>,
    ledger_keys: Option<LedgerKeys>,
    authority: watch::Sender<Option<Arc<Authority>>>,
    metrics: Metrics,
    health: Health,
}

impl Keeper {
    /// A keeper of these serving certificates, and of the ledger's keys where there is a ledger; and what hears the root.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: &str,
        certificates: Vec<Kept>,
        ledger_keys: Option<LedgerKeys>,
        metrics: Metrics,
        health: Health,
    ) -> (Self, watch::Receiver<Option<Arc<Authority>>>) {
        let (authority, receiver) = watch::channel(None);
        let keeper = Self {
            secrets: Secrets::new(Api::namespaced(client.clone(), namespace)),
            client,
            namespace: namespace.to_owned(),
            certificates,
            ledger_keys,
            authority,
            metrics,
            health,
        };
        (keeper, receiver)
    }

    /// Runs for ever: loads what is there, makes what is missing, follows changes, and on the leader renews what grows old.
    pub async fn run(mut self, stores: Stores, mut leads: watch::Receiver<bool>) {
        let mut mask_secret = None;
        loop {
            let is_leader = *leads.borrow_and_update();
            let kept = [
                self.keep_certificates(is_leader).await,
                self.keep_mask_secret(&mut mask_secret).await,
                self.keep_ledger_keys(is_leader).await,
            ];
            let pause = match kept.iter().all(|is_well| *is_well) {
                true => INTERVAL,
                false => RETRY,
            };
            tokio::select! {
                () = stores.secrets_changed.notified() => {}
                () = tokio::time::sleep(pause) => {}
                Ok(()) = leads.changed() => {}
            }
        }
    }

    async fn keep_certificates(&self, is_leader: bool) -> bool {
        let result = self.reconcile(is_leader).await;
        if let Err(error) = &result {
            self.metrics.failed("certificates");
            tracing::error!(%error, "certificates could not be loaded");
        }
        result.is_ok()
    }

    async fn keep_mask_secret(&self, known: &mut Option<MaskSecret>) -> bool {
        let api = Api::namespaced(self.client.clone(), &self.namespace);
        match mask_secret::ensure(&api, known.as_ref()).await {
            Ok(secret) => {
                *known = Some(secret);
                true
            }
            Err(error) => {
                self.metrics.failed("mask_secret");
                tracing::error!(%error, "no mask keys; Hash and Token redact");
                false
            }
        }
    }

    async fn keep_ledger_keys(&mut self, is_leader: bool) -> bool {
        let Some(keys) = &mut self.ledger_keys else {
            return true;
        };
        let result = keys.keep(&self.client, &self.namespace, is_leader).await;
        if let Err(error) = &result {
            self.metrics.failed("ledger_keys");
            tracing::error!(%error, "the ledger's keys are not as they should be");
        }
        result.is_ok()
    }

    /// Loads and installs root and serving certificates; makes them if they are missing or, for the serving certificates, not usable.
    async fn reconcile(&self, is_leader: bool) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let authority = self.load_authority(now).await?;
        self.note_expiry("root", authority.not_after());
        for kept in &self.certificates {
            let expiry = kept.keep(&self.secrets, &authority, is_leader, now).await?;
            self.note_expiry(kept.label(), expiry);
            // After the first, which is the operator's own: what is wrong with another's keeps no webhook from being answered.
            self.health.set(Fact::Certificates, true);
        }
        Ok(())
    }

    /// The root: from its Secret; else from memory, so that running agents keep the root they trust; else a new one.
    async fn load_authority(&self, now: Timestamp) -> Result<Arc<Authority>, StoreError> {
        let bad = |source| StoreError::Content {
            name: ROOT_SECRET,
            source,
        };
        let known = self.authority.borrow().clone();
        let root = match self.secrets.get(ROOT_SECRET).await? {
            Some(secret) => content(&secret),
            None => {
                let root = match &known {
                    Some(known) => known.root().clone(),
                    None => mint_root(now).map_err(bad)?,
                };
                tracing::info!(
                    restored = known.is_some(),
                    "creating the Secret of the root"
                );
                content(&self.secrets.create(ROOT_SECRET, &root).await?)
            }
        };
        let missing = "it has no tls.crt or no tls.key";
        let root = root.ok_or_else(|| bad(AuthorityError::Unreadable(missing.to_owned())))?;
        if let Some(known) = known.filter(|known| *known.root() == root) {
            return Ok(known);
        }
        let authority = Arc::new(Authority::parse(root).map_err(bad)?);
        self.authority.send_replace(Some(Arc::clone(&authority)));
        Ok(authority)
    }

    fn note_expiry(&self, certificate: &str, expiry: Timestamp) {
        self.metrics
            .certificate_expiry
            .with_label_values(&[certificate])
            .set(expiry.as_second());
    }
}
