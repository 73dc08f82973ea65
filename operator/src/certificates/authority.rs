//! Minting: pure functions of keys, names and time.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How long the root lives: ten years. It is not rotated; agents trust it by file.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a serving certificate lives: 90 days. It is renewed after two thirds of that.
const SERVING_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long a pod's intermediate lives: 24 hours. The sidecar renews it at half of that.
const INTERMEDIATE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How far a certificate reaches into the past, for clocks that are behind or are set back while it is in use: two hours.
const BACKDATE: Duration = Duration::from_secs(2 * 3600);
/// Longest common name, in characters (RFC 5280, appendix A.1, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key or certificate could not be generated or parsed.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The certificate is not X.509, or not PEM.
    #[error("certificate cannot be read: {0}")]
    Unreadable(String),
    /// The key does not belong to the certificate.
    #[error("key and certificate do not belong together")]
    Mismatch,
    /// The signing request was refused.
    #[error("signing request refused: {0}")]
    Request(rcgen::Error),
}

/// A certificate with its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyedCertificate {
    /// Certificate chain, PEM, leaf first.
    pub certificate: String,
    /// PKCS#8 key, PEM.
    pub key: String,
}

impl std::fmt::Debug for KeyedCertificate {
    /// Never prints the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyedCertificate").finish_non_exhaustive()
    }
}

/// Chaperone's root, able to sign.
pub struct Authority {
    root: KeyedCertificate,
    issuer: Issuer<'static, KeyPair>,
    not_after: Timestamp,
}

impl std::fmt::Debug for Authority {
    /// Never prints the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The pod that an intermediate is for, as the API server says.
#[derive(Clone, Copy, Debug)]
pub struct PodName<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// Uid.
    pub uid: &'a str,
}

/// Makes a root: ECDSA P-256, self-signed, may sign one level of intermediates.
///
/// # Errors
/// [`AuthorityError::Certificate`] if the platform gives no key.
pub fn mint_root(now: Timestamp) -> Result<KeyedCertificate, AuthorityError> {
    let key = KeyPair::generate()?;
    // The key's hash in the name keeps the roots of two installations apart in the eyes of clients that look issuers up by name.
    let mut params = named("Chaperone root", &fingerprint(&key), now, ROOT_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok(KeyedCertificate {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

impl Authority {
    /// Reads a root.
    ///
    /// # Errors
    /// If certificate or key cannot be read, or do not belong together.
    pub fn parse(root: KeyedCertificate) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(&root.key)?;
        let der = first_certificate(&root.certificate)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(unreadable)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::Mismatch);
        }
        let not_after = expiry(&parsed)?;
        let issuer = Issuer::from_ca_cert_der(&der, key)?;
        Ok(Self {
            root,
            issuer,
            not_after,
        })
    }

    /// The root's certificate, PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root.certificate
    }

    /// The root with its key, to restore its Secret.
    #[must_use]
    pub fn root(&self) -> &KeyedCertificate {
        &self.root
    }

    /// When the root ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Makes a serving certificate with this common name, for these DNS names.
    ///
    /// # Errors
    /// If a name is not a DNS name, or the platform gives no key.
    pub fn mint_serving(
        &self,
        common_name: &str,
        names: &[String],
        now: Timestamp,
    ) -> Result<KeyedCertificate, AuthorityError> {
        let key = KeyPair::generate()?;
        let mut params = named(common_name, "", now, SERVING_LIFE);
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(KeyedCertificate {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Signs the public key of a request (PKCS#10, PEM) as the intermediate of a pod: path length 0, 24 hours. Nothing else of the request
    /// is used. Returns PEM: the intermediate, then the root.
    ///
    /// # Errors
    /// [`AuthorityError::Request`] if the request cannot be read or its signature is not by its key.
    pub fn sign_intermediate(
        &self,
        request: &str,
        pod: PodName<'_>,
        now: Timestamp,
    ) -> Result<String, AuthorityError> {
        let request =
            CertificateSigningRequestParams::from_pem(request).map_err(AuthorityError::Request)?;
        let name = format!("chaperone sidecar {}/{}", pod.namespace, pod.name);
        let name: String = name.chars().take(MAX_COMMON_NAME).collect();
        let mut params = named(&name, pod.uid, now, INTERMEDIATE_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&request.public_key, &self.issuer)?;
        Ok(format!("{}{}", certificate.pem(), self.root.certificate))
    }

    /// Whether a serving certificate is by this root, for these names, and in the first two thirds of its life.
    #[must_use]
    pub fn vouches_for(
        &self,
        serving: &KeyedCertificate,
        names: &[String],
        now: Timestamp,
    ) -> bool {
        let renew_at = self.check_serving(serving, names);
        renew_at.is_ok_and(|renew_at| renew_at.is_some_and(|renew_at| now.as_second() < renew_at))
    }

    /// Whether a serving certificate is by this root and for these names, whatever its age.
    #[must_use]
    pub fn signed(&self, serving: &KeyedCertificate, names: &[String]) -> bool {
        let renew_at = self.check_serving(serving, names);
        renew_at.is_ok_and(|renew_at| renew_at.is_some())
    }

    /// When to renew a serving certificate, in seconds since 1970; none if it is not by this root or not for these names.
    fn check_serving(
        &self,
        serving: &KeyedCertificate,
        names: &[String],
    ) -> Result<Option<i64>, AuthorityError> {
        let root = first_certificate(&self.root.certificate)?;
        let (_, root) = X509Certificate::from_der(&root).map_err(unreadable)?;
        let der = first_certificate(&serving.certificate)?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(unreadable)?;
        let alternative = certificate.subject_alternative_name().map_err(unreadable)?;
        let has_name = |name: &String| {
            let found = alternative
                .as_ref()
                .map(|extension| &extension.value.general_names);
            found
                .into_iter()
                .flatten()
                .any(|found| matches!(found, GeneralName::DNSName(dns) if dns == name))
        };
        if certificate
            .verify_signature(Some(root.public_key()))
            .is_err()
            || !names.iter().all(has_name)
        {
            return Ok(None);
        }
        let start = certificate.validity().not_before.timestamp();
        let end = certificate.validity().not_after.timestamp();
        Ok(Some(
            start.saturating_add(end.saturating_sub(start) / 3 * 2),
        ))
    }
}

/// When the first certificate of a PEM chain ends.
///
/// # Errors
/// [`AuthorityError::Unreadable`] if it is not an X.509 certificate.
pub fn certificate_expiry(pem: &str) -> Result<Timestamp, AuthorityError> {
    let der = first_certificate(pem)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(unreadable)?;
    expiry(&certificate)
}

fn expiry(certificate: &X509Certificate<'_>) -> Result<Timestamp, AuthorityError> {
    Timestamp::from_second(certificate.validity().not_after.timestamp()).map_err(unreadable)
}

fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, AuthorityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(unreadable)
}

fn unreadable(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Unreadable(error.to_string())
}

/// Parameters with a subject and a life that begins a little before `now`.
fn named(common_name: &str, unit: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Chaperone");
    if !unit.is_empty() {
        name.push(DnType::OrganizationalUnitName, unit);
    }
    name.push(DnType::CommonName, common_name);
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.not_before = now - BACKDATE;
    params.not_after = now + life;
    params
}

/// The first 8 hex digits of the SHA-256 of a public key.
fn fingerprint(key: &KeyPair) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(key.public_key_raw());
    digest
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
#[path = "authority/tests.rs"]
pub(crate) mod tests;
