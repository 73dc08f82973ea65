//! Certificates with their keys as `kubernetes.io/tls` Secrets.
//!
//! Replicas race without harm: a Secret is created only if it is absent, and replaced only at the version that was read.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};

use super::{KeyedCertificate, store::StoreError};

/// The Secrets of Chaperone's namespace.
#[derive(Clone, Debug)]
pub(super) struct Secrets(Api<Secret>);

impl Secrets {
    pub(super) fn new(api: Api<Secret>) -> Self {
        Self(api)
    }

    pub(super) async fn get(&self, name: &'static str) -> Result<Option<Secret>, StoreError> {
        let found = self.0.get_opt(name).await;
        found.map_err(|source| StoreError::Api { name, source })
    }

    /// Creates a Secret, or reads the one that another replica created first.
    pub(super) async fn create(
        &self,
        name: &'static str,
        content: &KeyedCertificate,
    ) -> Result<Secret, StoreError> {
        let secret = Secret {
            metadata: managed(name),
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data(content)),
            ..Secret::default()
        };
        match self.0.create(&PostParams::default(), &secret).await {
            Err(error) if is_conflict(&error) => self.existing(name).await,
            result => result.map_err(|source| StoreError::Api { name, source }),
        }
    }

    /// Replaces what was read, or reads what another replica replaced it with first.
    pub(super) async fn replace(
        &self,
        name: &'static str,
        before: Secret,
        content: &KeyedCertificate,
    ) -> Result<Secret, StoreError> {
        let mut secret = before;
        secret.data = Some(data(content));
        match self.0.replace(name, &PostParams::default(), &secret).await {
            Err(error) if is_conflict(&error) => self.existing(name).await,
            result => result.map_err(|source| StoreError::Api { name, source }),
        }
    }

    async fn existing(&self, name: &'static str) -> Result<Secret, StoreError> {
        let found = self.0.get(name).await;
        found.map_err(|source| StoreError::Api { name, source })
    }
}

/// Certificate and key in a Secret; none if one is missing or no text.
pub(super) fn content(secret: &Secret) -> Option<KeyedCertificate> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?.0.clone();
        String::from_utf8(bytes).ok()
    };
    Some(KeyedCertificate {
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
    })
}

fn data(content: &KeyedCertificate) -> BTreeMap<String, ByteString> {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    BTreeMap::from([
        ("tls.crt".to_owned(), bytes(&content.certificate)),
        ("tls.key".to_owned(), bytes(&content.key)),
    ])
}

/// Name and label of what the operator makes in its own namespace.
pub(crate) fn managed(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(BTreeMap::from([(
            "app.kubernetes.io/managed-by".to_owned(),
            "chaperone-operator".to_owned(),
        )])),
        ..ObjectMeta::default()
    }
}

/// Both "already exists" and "the object has been modified" are 409.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::certificates::authority::mint_root;

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
