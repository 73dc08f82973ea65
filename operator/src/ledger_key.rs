//! The ledger's signing key, in a Secret of its own, and the public halves of the keys in use where auditors find them.
//!
//! The key is made once and never overwritten: readers know the log by it, and the ledger opens its directory under no other. Its name is the log's origin, which therefore never changes either. Who
//! deletes the Secret while a replica runs has it put back. Refuses to make a second key for a log that has one: where the Secret is gone and no replica knows the key, a person must put it back.

use std::{collections::BTreeMap, fmt};

use chaperone_ledger::key::{Algorithm, BadKey, KeyName, SigningKey};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Namespace, Secret},
};
use kube::{Api, Client, ResourceExt, api::PostParams};

use crate::certificates::secrets::{is_conflict, managed};

/// Name of the Secret that the operator makes.
pub const KEY_SECRET: &str = "chaperone-ledger-key";
/// Name of the ConfigMap with origin and public keys.
pub const CONFIG_MAP: &str = "chaperone-ledger";
/// Entry of a Secret with the signing key.
const SIGNING: &str = "skey";
/// Entry with the public key; in the ConfigMap, all of them, one a line.
const VERIFYING: &str = "vkey";
/// Entry with the log's name.
const ORIGIN: &str = "origin";
/// What an origin begins with where nobody chose one. The uid of the namespace kube-system follows: every cluster has another, and keeps it for as long as it lives.
const ORIGIN_PREFIX: &str = "chaperone.dev/ledger/";

/// Why keys are not as they should be.
#[derive(Debug, thiserror::Error)]
pub enum LedgerKeyError {
    /// The API server refused or did not answer.
    #[error("{what}: {source}")]
    Api {
        /// What was asked for.
        what: String,
        /// Why not.
        source: kube::Error,
    },
    /// A Secret has no key.
    #[error(
        "Secret {secret} has no Ed25519 key in its entry {SIGNING}: {why}; put the former key back"
    )]
    Content {
        /// Which Secret.
        secret: String,
        /// What is wrong.
        why: String,
    },
    /// A Secret that the chart's `ledger.keySecrets` names is not there.
    #[error(
        "Secret {0}, which ledger.keySecrets names, is not there; create it with `chaperone-ledger generate-key`"
    )]
    Missing(String),
    /// Keys of two logs.
    #[error(
        "Secret {secret} has a key of {found}, the first one is of {first}; all keys of a log have its origin as name"
    )]
    Origins {
        /// Which Secret.
        secret: String,
        /// Its key's name.
        found: KeyName,
        /// The first key's.
        first: KeyName,
    },
    /// The key of a log that has begun is gone.
    #[error(
        "Secret {KEY_SECRET} is gone, and the log has begun under {0}: put the key back from your copy; to begin another log, delete ConfigMap {CONFIG_MAP} and the ledger's volume"
    )]
    Lost(String),
    /// No key could be made.
    #[error("no key for the ledger could be made: {0}")]
    Make(#[from] BadKey),
}

/// The keys of the log, and what is known of the one that the operator made.
#[derive(Debug)]
pub struct LedgerKeys {
    origin: Option<KeyName>,
    secrets: Vec<String>,
    known: Option<Key>,
}

/// A signing key as a Secret holds it.
struct Key(SigningKey);

impl fmt::Debug for Key {
    /// Prints the public half.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.verifier())
    }
}

impl LedgerKeys {
    /// Keys in these Secrets, in their order; of them the operator makes [`KEY_SECRET`]. `origin` is the log's name, of which the key is made; none: one that names the cluster.
    #[must_use]
    pub fn new(origin: Option<KeyName>, secrets: Vec<String>) -> Self {
        Self {
            origin,
            secrets,
            known: None,
        }
    }

    /// Makes the key if the log has none, or puts the known one back; on the leader also publishes the public halves of all.
    ///
    /// # Errors
    /// As [`LedgerKeyError`].
    pub async fn keep(
        &mut self,
        client: &Client,
        namespace: &str,
        is_leader: bool,
    ) -> Result<(), LedgerKeyError> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        if self.secrets.iter().any(|secret| secret == KEY_SECRET) {
            self.known = Some(self.ensure(client, namespace, &api).await?);
        }
        if !is_leader {
            return Ok(());
        }
        let mut keys = Vec::with_capacity(self.secrets.len());
        for name in &self.secrets {
            let found = api.get_opt(name).await.map_err(at(secret(name)))?;
            let found = found.ok_or_else(|| LedgerKeyError::Missing(name.clone()))?;
            keys.push((name.clone(), Key::read(&found)?));
        }
        let published = published(&keys)?;
        if let Some((wanted, stands)) = self.other_origin(&published) {
            tracing::warn!(
                %wanted, stands,
                "ledger.origin was changed after the log had begun; the log keeps the origin of its key"
            );
        }
        publish(client, namespace, published).await
    }

    /// The key that is there; else the known one, put back; else a new one. Replicas race without harm: the first creates it.
    async fn ensure(
        &self,
        client: &Client,
        namespace: &str,
        api: &Api<Secret>,
    ) -> Result<Key, LedgerKeyError> {
        if let Some(found) = api
            .get_opt(KEY_SECRET)
            .await
            .map_err(at(secret(KEY_SECRET)))?
        {
            return Key::read(&found);
        }
        let wanted = match &self.known {
            Some(known) => known.to_secret(),
            None => {
                may_begin(read_published(client, namespace).await?.as_ref())?;
                let name = self.origin(client).await?;
                Key(SigningKey::generate(name, Algorithm::Ed25519)?).to_secret()
            }
        };
        tracing::info!(
            restored = self.known.is_some(),
            "creating the Secret of the ledger's key"
        );
        let stored = match api.create(&PostParams::default(), &wanted).await {
            Err(error) if is_conflict(&error) => api.get(KEY_SECRET).await,
            result => result,
        };
        Key::read(&stored.map_err(at(secret(KEY_SECRET)))?)
    }

    async fn origin(&self, client: &Client) -> Result<KeyName, LedgerKeyError> {
        if let Some(origin) = &self.origin {
            return Ok(origin.clone());
        }
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let found = namespaces.get("kube-system").await;
        let found = found.map_err(at("Namespace kube-system".to_owned()))?;
        let uid = found.uid().unwrap_or_default();
        Ok(format!("{ORIGIN_PREFIX}{uid}").parse()?)
    }

    /// The origin that is wanted and the one that stands, where they differ.
    fn other_origin<'a>(
        &'a self,
        published: &'a BTreeMap<String, String>,
    ) -> Option<(&'a KeyName, &'a str)> {
        let wanted = self.origin.as_ref()?;
        let stands = published.get(ORIGIN)?;
        (wanted.as_str() != stands).then_some((wanted, stands.as_str()))
    }
}

impl Key {
    fn read(found: &Secret) -> Result<Self, LedgerKeyError> {
        let bad = |why: String| LedgerKeyError::Content {
            secret: found.name_any(),
            why,
        };
        let bytes = found.data.as_ref().and_then(|data| data.get(SIGNING));
        let bytes = bytes.ok_or_else(|| bad("it has no such entry".to_owned()))?;
        let text = std::str::from_utf8(&bytes.0).map_err(|error| bad(error.to_string()))?;
        let key: SigningKey = text
            .trim()
            .parse()
            .map_err(|e: BadKey| bad(e.to_string()))?;
        match key.verifier().algorithm() {
            Algorithm::Ed25519 => Ok(Self(key)),
            Algorithm::CosignatureV1 => Err(bad("it is a witness's".to_owned())),
        }
    }

    fn to_secret(&self) -> Secret {
        let verifier = self.0.verifier();
        let entries = [
            (SIGNING, format!("{}\n", self.0.to_secret_text())),
            (VERIFYING, format!("{verifier}\n")),
            (ORIGIN, verifier.name().to_string()),
        ];
        let data = entries.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
        Secret {
            metadata: managed(KEY_SECRET),
            type_: Some("Opaque".to_owned()),
            data: Some(BTreeMap::from(data)),
            ..Secret::default()
        }
    }
}

/// Whether a first key may be made, given what was published.
fn may_begin(published: Option<&ConfigMap>) -> Result<(), LedgerKeyError> {
    let keys = published.and_then(|found| found.data.as_ref()?.get(VERIFYING));
    match keys.map(|keys| keys.trim()).filter(|keys| !keys.is_empty()) {
        Some(keys) => Err(LedgerKeyError::Lost(keys.replace('\n', ", "))),
        None => Ok(()),
    }
}

/// What auditors read: the origin, and the public keys in the order of the Secrets.
fn published(keys: &[(String, Key)]) -> Result<BTreeMap<String, String>, LedgerKeyError> {
    let mut lines = String::new();
    let first = keys.first().map(|(_, key)| key.0.verifier().name());
    for (secret, key) in keys {
        let verifier = key.0.verifier();
        if let Some(first) = first.filter(|first| *first != verifier.name()) {
            return Err(LedgerKeyError::Origins {
                secret: secret.clone(),
                found: verifier.name().clone(),
                first: first.clone(),
            });
        }
        lines.push_str(&format!("{verifier}\n"));
    }
    let origin = first.map(ToString::to_string).unwrap_or_default();
    Ok(BTreeMap::from([
        (ORIGIN.to_owned(), origin),
        (VERIFYING.to_owned(), lines),
    ]))
}

async fn read_published(
    client: &Client,
    namespace: &str,
) -> Result<Option<ConfigMap>, LedgerKeyError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = api.get_opt(CONFIG_MAP).await;
    found.map_err(at(format!("ConfigMap {CONFIG_MAP}")))
}

async fn publish(
    client: &Client,
    namespace: &str,
    data: BTreeMap<String, String>,
) -> Result<(), LedgerKeyError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let params = PostParams::default();
    let result = match read_published(client, namespace).await? {
        Some(found) if found.data.as_ref() == Some(&data) => return Ok(()),
        Some(mut found) => {
            found.data = Some(data);
            api.replace(CONFIG_MAP, &params, &found).await
        }
        None => {
            let new = ConfigMap {
                metadata: managed(CONFIG_MAP),
                data: Some(data),
                ..ConfigMap::default()
            };
            api.create(&params, &new).await
        }
    };
    match result {
        // Another leader was there first, and wrote the same.
        Err(error) if is_conflict(&error) => Ok(()),
        result => result
            .map(drop)
            .map_err(at(format!("ConfigMap {CONFIG_MAP}"))),
    }
}

fn secret(name: &str) -> String {
    format!("Secret {name}")
}

fn at(what: String) -> impl FnOnce(kube::Error) -> LedgerKeyError {
    move |source| LedgerKeyError::Api { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key(SigningKey::generate(name.parse().unwrap(), Algorithm::Ed25519).unwrap())
    }

    #[test]
    fn a_secret_gives_back_the_key_and_nothing_prints_it() {
        let key = key("chaperone.dev/ledger/1");
        let secret = key.to_secret();
        let read = Key::read(&secret).unwrap();
        assert_eq!(read.0.to_secret_text(), key.0.to_secret_text());
        assert!(!format!("{read:?}").contains(&key.0.to_secret_text()));
        let entry = |name: &str| String::from_utf8(secret.data.as_ref().unwrap()[name].0.clone());
        assert_eq!(entry(ORIGIN).unwrap(), "chaperone.dev/ledger/1");
        assert_eq!(
            entry(VERIFYING).unwrap().trim(),
            key.0.verifier().to_string()
        );
    }

    #[test]
    fn what_is_no_key_of_a_log_is_named_and_its_text_is_not() {
        let witness = SigningKey::generate("w".parse().unwrap(), Algorithm::CosignatureV1).unwrap();
        for (text, expected) in [
            (None, "no such entry"),
            (Some("hunter2".to_owned()), "the text is no key"),
            (Some(witness.to_secret_text()), "a witness's"),
        ] {
            let mut secret = key("a").to_secret();
            let data = secret.data.as_mut().unwrap();
            match &text {
                Some(text) => {
                    data.insert(SIGNING.to_owned(), ByteString(text.clone().into_bytes()))
                }
                None => data.remove(SIGNING),
            };
            let error = Key::read(&secret).unwrap_err().to_string();
            assert!(
                error.contains(KEY_SECRET) && error.contains(expected),
                "{error}"
            );
            assert!(text.is_none_or(|text| !error.contains(&text)), "{error}");
        }
    }

    #[test]
    fn all_keys_of_the_log_are_published_and_a_key_of_another_is_refused() {
        let keys = [
            ("one".to_owned(), key("log")),
            ("two".to_owned(), key("log")),
        ];
        let data = published(&keys).unwrap();
        assert_eq!(data[ORIGIN], "log");
        let expected: Vec<_> = keys
            .iter()
            .map(|(_, k)| k.0.verifier().to_string())
            .collect();
        assert_eq!(data[VERIFYING].lines().collect::<Vec<_>>(), expected);
        let [one, _] = keys;
        let error = published(&[one, ("three".to_owned(), key("other"))]).unwrap_err();
        assert!(matches!(error, LedgerKeyError::Origins { secret, .. } if secret == "three"));
    }

    #[test]
    fn no_second_key_is_made_for_a_log_that_has_one() {
        assert!(may_begin(None).is_ok());
        let with = |data: BTreeMap<String, String>| ConfigMap {
            data: Some(data),
            ..ConfigMap::default()
        };
        assert!(may_begin(Some(&with(BTreeMap::new()))).is_ok());
        let key = key("log");
        let verifier = key.0.verifier().to_string();
        let data = published(&[("one".to_owned(), key)]).unwrap();
        let error = may_begin(Some(&with(data))).unwrap_err().to_string();
        assert!(
            error.contains(&verifier) && error.contains("put the key back"),
            "{error}"
        );
    }

    #[test]
    fn another_origin_than_the_keys_is_noticed_and_none_is_no_other() {
        let data = published(&[("one".to_owned(), key("log"))]).unwrap();
        let keys = |origin: Option<&str>| {
            LedgerKeys::new(origin.map(|origin| origin.parse().unwrap()), Vec::new())
        };
        assert!(keys(None).other_origin(&data).is_none());
        assert!(keys(Some("log")).other_origin(&data).is_none());
        let changed = keys(Some("new"));
        assert_eq!(changed.other_origin(&data).unwrap().1, "log");
    }
}
