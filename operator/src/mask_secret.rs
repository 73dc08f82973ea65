//! The secret that the keys of all namespaces for `Hash` and `Token` are derived from, in a Secret of its own.
//!
//! It is made once and never rotated: a new one would leave every token that is about without its value. Who deletes the Secret while no
//! replica runs gives all tokens up; while one runs, it is put back.

use std::{collections::BTreeMap, fmt};

use chaperone_crds::tokenize::MaskKey;
use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};

/// Name of the Secret.
pub const MASK_SECRET: &str = "chaperone-mask-key";
/// Its only entry.
const ENTRY: &str = "key";
/// Bytes of the secret.
const SECRET_BYTES: usize = 32;

/// What keys are derived from.
#[derive(Clone, PartialEq, Eq)]
pub struct MaskSecret([u8; SECRET_BYTES]);

impl fmt::Debug for MaskSecret {
    /// Never prints the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskSecret").finish_non_exhaustive()
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum MaskSecretError {
    /// The API server refused or did not answer.
    #[error("Secret {MASK_SECRET}: {0}")]
    Api(#[from] kube::Error),
    /// What is in the Secret is no key.
    #[error(
        "Secret {MASK_SECRET} has no entry {ENTRY} of {SECRET_BYTES} bytes; put the former one back, or delete the Secret and give up all tokens"
    )]
    Content,
    /// The machine has no random bytes.
    #[error("the machine gives no random bytes")]
    Random,
}

impl MaskSecret {
    /// The key of a namespace.
    #[must_use]
    pub fn key_of(&self, namespace: &str) -> MaskKey {
        MaskKey::derive(&self.0, namespace)
    }

    /// What a Secret holds; `None` if it is no key.
    #[must_use]
    pub fn read(secret: &Secret) -> Option<Self> {
        let bytes = &secret.data.as_ref()?.get(ENTRY)?.0;
        Some(Self(bytes.as_slice().try_into().ok()?))
    }

    fn random() -> Result<Self, MaskSecretError> {
        let mut bytes = [0; SECRET_BYTES];
        rustls::crypto::aws_lc_rs::default_provider()
            .secure_random
            .fill(&mut bytes)
            .map_err(|_| MaskSecretError::Random)?;
        Ok(Self(bytes))
    }

    fn to_secret(&self) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(MASK_SECRET.to_owned()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    "chaperone-operator".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(BTreeMap::from([(
                ENTRY.to_owned(),
                ByteString(self.0.to_vec()),
            )])),
            ..Secret::default()
        }
    }
}

/// The secret that is there; else the one that is `known`, put back; else a new one. Replicas race without harm: the first creates it.
///
/// # Errors
/// As [`MaskSecretError`].
pub async fn ensure(
    api: &Api<Secret>,
    known: Option<&MaskSecret>,
) -> Result<MaskSecret, MaskSecretError> {
    let found = match api.get_opt(MASK_SECRET).await? {
        Some(secret) => secret,
        None => {
            let secret = known.map_or_else(MaskSecret::random, |known| Ok(known.clone()))?;
            tracing::info!(
                restored = known.is_some(),
                "creating the Secret of mask keys"
            );
            let created = api
                .create(&PostParams::default(), &secret.to_secret())
                .await;
            match created {
                Ok(secret) => secret,
                Err(kube::Error::Api(status)) if status.code == 409 => api.get(MASK_SECRET).await?,
                Err(error) => return Err(error.into()),
            }
        }
    };
    MaskSecret::read(&found).ok_or(MaskSecretError::Content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_gives_back_what_was_put_in_and_prints_nothing() {
        let secret = MaskSecret::random().unwrap();
        assert_eq!(MaskSecret::read(&secret.to_secret()), Some(secret.clone()));
        assert_eq!(MaskSecret::read(&Secret::default()), None);
        assert_eq!(format!("{secret:?}"), "MaskSecret { .. }");
        assert_ne!(secret, MaskSecret::random().unwrap());
    }

    #[test]
    fn namespaces_have_keys_of_their_own() {
        let secret = MaskSecret::random().unwrap();
        assert_eq!(secret.key_of("a"), secret.key_of("a"));
        assert_ne!(secret.key_of("a"), secret.key_of("b"));
    }
}
