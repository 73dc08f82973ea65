//! Client certificates that the sidecar holds: what upstreams are shown in the agent's place.
//!
//! Owns the private keys; they live in memory only. Refuses a key that is not the certificate's. Invariant: nothing of a key is ever printed, recorded or part of an error.

use std::{fmt, sync::Arc};

use chaperone_crds::{control::Credential, record::CertificateInfo};
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer, x509::X509Version};

/// Most characters of a subject in records.
const MAX_SUBJECT_CHARS: usize = 256;

/// A client certificate and its key.
#[derive(Clone)]
pub(crate) struct Held {
    pub(super) certified: Arc<CertifiedKey>,
    /// As records say it.
    pub(super) info: Arc<CertificateInfo>,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Held {
    /// Takes what came with the configuration.
    ///
    /// # Errors
    /// Why it cannot be used, as a sentence.
    pub(super) fn take(credential: &Credential, provider: &CryptoProvider) -> Result<Self, String> {
        match credential {
            Credential::Usable { chain, key } => Self::read(chain, key, provider),
            Credential::Unusable { problem } => Err(problem.clone()),
        }
    }

    fn read(chain: &str, key: &str, provider: &CryptoProvider) -> Result<Self, String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("its certificate is not PEM: {error}"))?;
        let first = chain.first().ok_or("there is no PEM certificate in it")?;
        let (_, read) = X509Certificate::from_der(first)
            .map_err(|error| format!("its certificate cannot be read: {error}"))?;
        if read.version() != X509Version::V3 {
            return Err(
                "its certificate is of X.509 version 1, which TLS libraries refuse; issue it with extensions (extendedKeyUsage=clientAuth)".to_owned(),
            );
        }
        let info = CertificateInfo {
            subject: read
                .subject()
                .to_string()
                .chars()
                .take(MAX_SUBJECT_CHARS)
                .collect(),
            sha256: hex::encode(Sha256::digest(first)),
        };
        let (not_before, not_after) = (
            read.validity().not_before.to_datetime(),
            read.validity().not_after.to_datetime(),
        );
        // The reasons of the library are left out: they could say something of the key.
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|_| "its key is not an unencrypted PEM key (PKCS#8, PKCS#1 or SEC1)")?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(
            |_| "its key is not that of its certificate, or of a kind that TLS does not use",
        )?;
        Ok(Self {
            certified: Arc::new(certified),
            info: Arc::new(info),
            not_before,
            not_after,
        })
    }

    /// Whether it is valid at this time.
    ///
    /// # Errors
    /// Why it is not, as a sentence.
    pub(super) fn check(&self, now: OffsetDateTime) -> Result<(), String> {
        let subject = &self.info.subject;
        if now > self.not_after {
            return Err(format!("{subject} expired on {}; renew it", self.not_after));
        }
        if now < self.not_before {
            return Err(format!("{subject} is not valid before {}", self.not_before));
        }
        Ok(())
    }
}

/// Whether a client certificate can be presented now: chain and key, PEM.
///
/// # Errors
/// Why it cannot, as a sentence.
pub fn check(chain: &str, key: &str) -> Result<(), String> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    Held::read(chain, key, &provider)?.check(OffsetDateTime::now_utc())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate valid from 2020 to 2040 and its key, PEM.
    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2040, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn read(chain: &str, key: &str) -> Result<Held, String> {
        Held::read(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
    }

    #[test]
    fn a_certificate_is_told_by_subject_and_fingerprint_and_its_key_is_not_printed() {
        let (chain, key) = pair("agents");
        let held = read(&chain, &key).unwrap();
        assert!(held.info.subject.contains("CN=agents"), "{held:?}");
        let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        assert_eq!(held.info.sha256, hex::encode(Sha256::digest(&der)));
        let secret: String = key.lines().nth(1).unwrap().to_owned();
        assert!(!format!("{held:?}").contains(&secret));
    }

    #[test]
    fn it_counts_between_its_dates_only() {
        let (chain, key) = pair("agents");
        let held = read(&chain, &key).unwrap();
        for (year, expected) in [
            (2019, Some("not valid before")),
            (2030, None),
            (2041, Some("expired on 2040-01-01")),
        ] {
            let checked = held.check(date_time_ymd(year, 6, 1)).err();
            assert_eq!(checked.is_some(), expected.is_some(), "{year}");
            assert!(checked.is_none_or(|why| why.contains(expected.unwrap())));
        }
        assert_eq!(check(&chain, &key), Ok(()));
    }

    #[test]
    fn what_is_no_pair_is_refused_without_a_word_of_the_key() {
        let (chain, key) = pair("agents");
        let (other, other_key) = pair("others");
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let broken = key.replacen("MI", "!!", 1);
        for (chain, key, expected) in [
            ("", key.as_str(), "no PEM certificate"),
            (
                "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
                &key,
                "not PEM",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &key,
                "cannot be read",
            ),
            (include_str!("held/version1.pem"), &key, "X.509 version 1"),
            (&chain, "", "not an unencrypted PEM key"),
            (&chain, &broken, "not an unencrypted PEM key"),
            (&chain, encrypted, "not an unencrypted PEM key"),
            (&chain, &other_key, "not that of its certificate"),
            (&other, &key, "not that of its certificate"),
        ] {
            let why = read(chain, key).unwrap_err();
            assert!(why.contains(expected), "{why}");
            assert!(!why.contains("c2VjcmV0"));
        }
    }
}
