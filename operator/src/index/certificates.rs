//! Client certificates that policies name: from Secrets of Chaperone's namespace to what sidecars get.
//!
//! Owns who may use which Secret. Refuses Secrets that are not labelled for this, so that no policy can have the operator's own keys, or a sink's, sent into a pod; and namespaced policies
//! that the Secret does not name the namespace of. Invariant: a key goes only where a policy that may use it selects the pod; a problem is told and never holds a plan back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use chaperone_crds::{
    control::{CertificateUse, ClientCertificate, Credential},
    pod::{CERTIFICATE_NAMESPACES_ANNOTATION, CLIENT_CERTIFICATE_LABEL},
    snapshot::{CertificateRef, Policy, PolicyKind, Snapshot},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, x509::X509Version};

use super::sinks::value;

/// Type of a Secret that holds a certificate.
const TLS_TYPE: &str = "kubernetes.io/tls";
/// Most bytes of one Secret's certificate and key together. A chain of four RSA certificates has some 8 KiB.
const MAX_PAIR_BYTES: usize = 64 * 1024;

/// The Secrets that policies name, by name. One that is not there, or not labelled, is not here.
pub type Certificates = BTreeMap<String, Arc<CertificateSecret>>;

/// A Secret, as far as it is a client certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct CertificateSecret {
    /// Namespaces whose `AgentPolicies` may name it.
    namespaces: BTreeSet<String>,
    /// The certificate, or why it is none.
    content: Result<Pair, String>,
}

/// Chain and key, PEM, that belong together.
#[derive(Clone, PartialEq)]
struct Pair {
    chain: String,
    key: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl fmt::Debug for Pair {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl CertificateSecret {
    /// Reads a Secret; `None` if it is not labelled as a client certificate.
    #[must_use]
    pub fn read(secret: &Secret) -> Option<Self> {
        let label = secret.labels().get(CLIENT_CERTIFICATE_LABEL);
        if label.map(String::as_str) != Some("true") {
            return None;
        }
        let listed = secret.annotations().get(CERTIFICATE_NAMESPACES_ANNOTATION);
        let namespaces = listed.map(String::as_str).unwrap_or_default().split(',');
        Some(Self {
            namespaces: namespaces
                .map(|namespace| namespace.trim().to_owned())
                .filter(|namespace| !namespace.is_empty())
                .collect(),
            content: pair(secret),
        })
    }

    /// The pair, for policies of this kind that select pods of this namespace.
    fn pair_for(&self, kind: PolicyKind, namespace: &str) -> Result<&Pair, String> {
        // First of all: who may not use a Secret learns nothing of what is in it.
        if kind == PolicyKind::AgentPolicy && !self.namespaces.contains(namespace) {
            return Err(format!(
                "is not permitted to AgentPolicies of namespace {namespace}; add the namespace to its annotation {CERTIFICATE_NAMESPACES_ANNOTATION}"
            ));
        }
        self.content.as_ref().map_err(Clone::clone)
    }
}

/// What a snapshot's policies ask for, for a pod of this namespace.
#[must_use]
pub fn resolve(
    snapshot: &Snapshot,
    namespace: &str,
    certificates: &Certificates,
) -> Vec<ClientCertificate> {
    let asked = snapshot.client_certificates().into_iter();
    asked
        .map(|reference| ClientCertificate {
            credential: match find(&reference, namespace, certificates) {
                Ok(pair) => Credential::Usable {
                    chain: pair.chain.clone(),
                    key: pair.key.clone(),
                },
                Err(problem) => Credential::Unusable { problem },
            },
            use_for: CertificateUse::Policies(reference),
        })
        .collect()
}

/// What keeps the client certificates of a policy from being presented, one sentence each. An `AgentPolicy` is judged by its own namespace.
#[must_use]
pub fn problems(policy: &Policy, certificates: &Certificates, now: Timestamp) -> Vec<String> {
    let namespace = policy.reference.namespace.as_str();
    let asked: BTreeSet<_> = policy.client_certificates().collect();
    let problem = |reference: &CertificateRef| match find(reference, namespace, certificates) {
        Ok(pair) if now > pair.not_after => Some(format!(
            "{} expired on {}; renew it",
            title(reference),
            pair.not_after
        )),
        Ok(pair) if now < pair.not_before => Some(format!(
            "{} is not valid before {}",
            title(reference),
            pair.not_before
        )),
        Ok(_) => None,
        Err(problem) => Some(problem),
    };
    asked.iter().filter_map(problem).collect()
}

fn title(reference: &CertificateRef) -> String {
    format!("Secret {} in Chaperone's namespace", reference.secret)
}

fn find<'c>(
    reference: &CertificateRef,
    namespace: &str,
    certificates: &'c Certificates,
) -> Result<&'c Pair, String> {
    let found = certificates
        .get(&reference.secret)
        // One sentence for both: a policy is no way to ask which Secrets there are.
        .ok_or_else(|| format!("is not there, or has no label {CLIENT_CERTIFICATE_LABEL}: \"true\"; create or label it"))
        .and_then(|secret| secret.pair_for(reference.kind, namespace));
    found.map_err(|problem| format!("{} {problem}", title(reference)))
}

/// The pair of a Secret.
fn pair(secret: &Secret) -> Result<Pair, String> {
    if secret.type_.as_deref() != Some(TLS_TYPE) {
        return Err(format!(
            "is not of type {TLS_TYPE}; make it with kubectl create secret tls"
        ));
    }
    let read = |key: &str| {
        value(Some(secret.clone()), key).ok_or_else(|| format!("has no text under {key}"))
    };
    let (chain, key) = (read("tls.crt")?, read("tls.key")?);
    if chain.len().saturating_add(key.len()) > MAX_PAIR_BYTES {
        return Err(format!(
            "has more than {MAX_PAIR_BYTES} bytes; leave out what the certificate does not chain through"
        ));
    }
    check(chain, key)
}

/// What the sidecar will check too, said where a person looks.
fn check(chain: String, key: String) -> Result<Pair, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("holds no PEM certificate under tls.crt: {error}"))?;
    let first = certificates
        .first()
        .ok_or("holds no PEM certificate under tls.crt")?;
    let (_, read) = X509Certificate::from_der(first)
        .map_err(|error| format!("holds a certificate that cannot be read: {error}"))?;
    if read.version() != X509Version::V3 {
        return Err(
            "holds a certificate of X.509 version 1, which TLS libraries refuse; issue it with extensions (extendedKeyUsage=clientAuth)".to_owned(),
        );
    }
    let validity = read.validity();
    let (not_before, not_after) = (
        seconds(validity.not_before.timestamp()),
        seconds(validity.not_after.timestamp()),
    );
    // The reasons of the library are left out: they could say something of the key.
    let private = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| "holds no unencrypted PEM key under tls.key")?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(certificates, private, &provider)
        .map_err(|_| "holds a key that is not that of its certificate")?;
    Ok(Pair {
        chain,
        key,
        not_before,
        not_after,
    })
}

/// A time of X.509, whose years have four digits.
fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or_default()
}

#[cfg(test)]
#[path = "certificates/tests.rs"]
pub(crate) mod tests;
