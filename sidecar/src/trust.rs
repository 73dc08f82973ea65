//! The trust bundle: the files through which the agent's clients come to trust the sidecar's leaves, and the roots that the sidecar
//! itself trusts upstream.
//!
//! Invariant: a file appears whole or not at all (written beside and renamed), so that a client never reads half a bundle.

use std::{collections::HashSet, fs, io, path::Path};

use chaperone_crds::pod::{ADDED_ROOTS_FILE, BUNDLE_FILE, TRUSTSTORE_FILE, TRUSTSTORE_PASSWORD};
use p12_keystore::{KeyStore, KeyStoreEntry};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Key derivation rounds of the PKCS#12 store. It holds public certificates: rounds only cost start-up time.
const STORE_ROUNDS: u32 = 1000;

/// Why the bundle could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Extra roots that are not PEM certificates.
    #[error("extra roots are not PEM certificates: {0}")]
    Pem(String),
    /// A certificate that no store takes.
    #[error("certificate refused: {0}")]
    Certificate(String),
    /// The PKCS#12 store could not be made.
    #[error("cannot make the PKCS#12 trust store: {0}")]
    Store(String),
    /// The volume cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Writes the three files of the trust volume into `folder`: Mozilla roots, `extra_roots` and `our_root` (both PEM).
///
/// # Errors
/// As [`TrustError`].
pub fn write_bundle(folder: &Path, extra_roots: &str, our_root: &str) -> Result<(), TrustError> {
    let added = [parse(extra_roots)?, parse(our_root)?].concat();
    let mozilla = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(AsRef::as_ref);
    let mut known: HashSet<&[u8]> = HashSet::new();
    // Java's store takes a certificate once; extra roots often repeat Mozilla's.
    let all: Vec<&[u8]> = mozilla
        .chain(added.iter().map(AsRef::as_ref))
        .filter(|der| known.insert(der))
        .collect();
    let added: Vec<&[u8]> = added.iter().map(AsRef::as_ref).collect();
    write(folder, TRUSTSTORE_FILE, &truststore(&all)?)?;
    write(folder, ADDED_ROOTS_FILE, pem(&added).as_bytes())?;
    write(folder, BUNDLE_FILE, pem(&all).as_bytes())
}

/// The roots that upstream certificates may chain to: Mozilla's and `extra_roots` (PEM).
///
/// # Errors
/// When `extra_roots` is not PEM certificates.
pub fn upstream_roots(extra_roots: &str) -> Result<RootCertStore, TrustError> {
    let mut store = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for certificate in parse(extra_roots)? {
        store
            .add(certificate)
            .map_err(|e| TrustError::Certificate(e.to_string()))?;
    }
    Ok(store)
}

fn parse(text: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| TrustError::Pem(e.to_string()))
}

fn pem(certificates: &[&[u8]]) -> String {
    let mut text = String::with_capacity(certificates.len().saturating_mul(2048));
    for certificate in certificates {
        text.push_str(&pem_block(certificate));
    }
    text
}

/// One certificate as PEM (RFC 7468: base64 in lines of 64 characters).
fn pem_block(der: &[u8]) -> String {
    use base64::Engine;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut block = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while let Some((line, tail)) = rest.split_at_checked(64) {
        block.push_str(line);
        block.push('\n');
        rest = tail;
    }
    if !rest.is_empty() {
        block.push_str(rest);
        block.push('\n');
    }
    block.push_str("-----END CERTIFICATE-----\n");
    block
}

fn truststore(certificates: &[&[u8]]) -> Result<Vec<u8>, TrustError> {
    let mut store = KeyStore::new();
    for (number, der) in certificates.iter().enumerate() {
        let certificate = p12_keystore::Certificate::from_der(der)
            .map_err(|e| TrustError::Store(e.to_string()))?;
        store.add_entry(
            &format!("root-{number}"),
            KeyStoreEntry::Certificate(certificate),
        );
    }
    store
        .writer(TRUSTSTORE_PASSWORD)
        .encryption_iterations(STORE_ROUNDS)
        .mac_iterations(STORE_ROUNDS)
        .write()
        .map_err(|e| TrustError::Store(e.to_string()))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), TrustError> {
    let path = folder.join(name);
    let beside = folder.join(format!(".{name}.new"));
    fs::write(&beside, bytes)
        .and_then(|()| fs::rename(&beside, &path))
        .map_err(|source| TrustError::Write {
            path: path.display().to_string(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;

    #[test]
    fn the_bundle_holds_mozilla_extra_and_own_roots() {
        let folder = std::env::temp_dir().join(format!("chaperone-trust-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (_, extra) = Authority::self_made("extra").unwrap();
        let (_, own) = Authority::self_made("own").unwrap();
        write_bundle(&folder, &extra, &own).unwrap();
        let bundle = fs::read_to_string(folder.join(BUNDLE_FILE)).unwrap();
        let count = parse(&bundle).unwrap().len();
        assert_eq!(count, webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() + 2);
        assert_eq!(
            parse(&fs::read_to_string(folder.join(ADDED_ROOTS_FILE)).unwrap())
                .unwrap()
                .len(),
            2
        );
        assert!(fs::metadata(folder.join(TRUSTSTORE_FILE)).unwrap().len() > 50_000);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn extra_roots_that_are_no_certificates_are_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(upstream_roots(broken).is_err());
    }
}
