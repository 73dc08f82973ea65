//! The sidecar as a certificate authority: its intermediate, signed by the operator, and the leaves it mints under it.
//!
//! Owns the private keys; they live in memory only and are never written or logged. Invariant: a leaf names exactly one host or address, is
//! valid for at most [`LEAF_HOURS`], and never outlives the intermediate it is under.

mod asking;
mod leaves;

use std::{net::IpAddr, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{ServerSessionMemoryCache, StoresServerSessions},
    sign::CertifiedKey,
};
use time::{Duration, OffsetDateTime};
use tokio::{sync::Semaphore, task::spawn_blocking};

use self::leaves::{Leaf, Leaves};

/// Hours that a leaf is valid. Short, since a leaf's key lives as long as the sidecar.
pub const LEAF_HOURS: i64 = 12;
/// Hours that a certificate is backdated, against clocks that run behind or are set back while it is in use: a leaf that is kept must stay valid for the agent.
const BACKDATE_HOURS: i64 = 2;
/// Threads that mint at once. A mint takes some 80 µs: two keep up with all new connections that the data thread can take.
const MINTERS: usize = 2;
/// TLS sessions that can be resumed, over all leaves. A session holds for its server name only.
const MAX_SESSIONS: usize = 1024;
/// Random bytes of a leaf's serial number (RFC 5280 §4.1.2.2 allows 20).
const SERIAL_BYTES: usize = 16;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// rcgen refused.
    #[error("cannot make a certificate: {0}")]
    Mint(#[from] rcgen::Error),
    /// rustls refused key or chain.
    #[error("cannot use a certificate: {0}")]
    Tls(#[from] rustls::Error),
    /// The system has no randomness to give.
    #[error("no randomness for a certificate's serial number")]
    Random,
    /// The thread that minted has ended.
    #[error("the sidecar stopped while a certificate was made")]
    Stopped,
    /// The chain from the operator is not PEM, or empty.
    #[error("the certificate chain from the operator is unusable: {0}")]
    Chain(String),
}

/// A key that waits for its certificate.
pub struct PendingAuthority {
    key: KeyPair,
}

impl PendingAuthority {
    /// A fresh key (ECDSA P-256), in memory only.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, AuthorityError> {
        Ok(Self {
            key: KeyPair::generate()?,
        })
    }

    /// The certificate request for the operator, PEM.
    ///
    /// # Errors
    /// When rcgen refuses.
    pub fn request(&self) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "chaperone sidecar");
        Ok(params.serialize_request(&self.key)?.pem()?)
    }

    /// The authority, once the operator has signed: `chain` is PEM, intermediate first.
    ///
    /// # Errors
    /// When the chain is unusable.
    pub fn signed(self, chain: &str) -> Result<Authority, AuthorityError> {
        Authority::new(self.key, chain)
    }
}

/// Mints leaves under one intermediate.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<CertificateDer<'static>>,
    not_after: OffsetDateTime,
    leaf_key: KeyPair,
    leaf_key_der: PrivatePkcs8KeyDer<'static>,
    provider: Arc<CryptoProvider>,
    sessions: Arc<dyn StoresServerSessions>,
    leaves: Leaves,
    minters: Semaphore,
}

impl Authority {
    fn new(key: KeyPair, chain: &str) -> Result<Self, AuthorityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| AuthorityError::Chain(e.to_string()))?;
        let first = chain
            .first()
            .ok_or_else(|| AuthorityError::Chain("it is empty".to_owned()))?;
        let not_after = expiry(first)?;
        let issuer = Issuer::from_ca_cert_der(first, key)?;
        let leaf_key = KeyPair::generate()?;
        let leaf_key_der = PrivatePkcs8KeyDer::from(leaf_key.serialize_der());
        // The root is in every agent's bundle, so only what lies below it is sent.
        let chain = chain.into_iter().take(1).collect();
        Ok(Self {
            issuer,
            chain,
            not_after,
            leaf_key,
            leaf_key_der,
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            sessions: ServerSessionMemoryCache::new(MAX_SESSIONS),
            leaves: Leaves::default(),
            minters: Semaphore::new(MINTERS),
        })
    }

    /// An authority whose root is its own, for one command without a cluster, and the root's PEM.
    ///
    /// # Errors
    /// When rcgen refuses.
    pub fn self_made(name: &str) -> Result<(Self, String), AuthorityError> {
        let root_key = KeyPair::generate()?;
        let root_params = ca_params(name, BasicConstraints::Constrained(1), Duration::days(2));
        let root = root_params.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root_params, root_key);
        let key = KeyPair::generate()?;
        let params = ca_params(
            &format!("{name} intermediate"),
            BasicConstraints::Constrained(0),
            Duration::days(2),
        );
        let intermediate = params.signed_by(&key, &root_issuer)?;
        Ok((Self::new(key, &intermediate.pem())?, root.pem()))
    }

    /// When the intermediate ends.
    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    /// The TLS settings that present a leaf for this host or address. Minted on first use, on another thread, then cached; connections that ask for one name at once
    /// wait for one mint.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate.
    pub async fn leaf(self: &Arc<Self>, name: &str) -> Result<Arc<ServerConfig>, AuthorityError> {
        let cell = self.leaves.cell(name, OffsetDateTime::now_utc());
        let minted = cell.get_or_try_init(|| async {
            let _minting = self.minters.acquire().await;
            let (authority, name) = (self.clone(), name.to_owned());
            spawn_blocking(move || authority.mint_leaf(&name))
                .await
                .map_err(|_| AuthorityError::Stopped)?
        });
        Ok(minted.await?.config.clone())
    }

    /// As [`Self::leaf`], with a question for a client certificate. Nothing is verified of one that comes: it is there to be noticed.
    ///
    /// # Errors
    /// As [`Self::leaf`].
    pub async fn asking_leaf(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Arc<ServerConfig>, AuthorityError> {
        let config = self.leaf(name).await?;
        Ok(Arc::new(asking::asking(&config, &self.provider)?))
    }

    /// As [`Self::leaf`], minted on the calling thread: for servers that nothing waits for.
    ///
    /// # Errors
    /// As [`Self::leaf`].
    pub fn server_config(&self, name: &str) -> Result<Arc<ServerConfig>, AuthorityError> {
        Ok(self.mint_leaf(name)?.config)
    }

    fn mint_leaf(&self, name: &str) -> Result<Leaf, AuthorityError> {
        let now = OffsetDateTime::now_utc();
        let not_after = (now + Duration::hours(LEAF_HOURS)).min(self.not_after);
        Ok(Leaf {
            config: Arc::new(self.mint(name, now, not_after)?),
            not_after,
        })
    }

    fn mint(
        &self,
        name: &str,
        now: OffsetDateTime,
        not_after: OffsetDateTime,
    ) -> Result<ServerConfig, AuthorityError> {
        let mut params = CertificateParams::default();
        params.not_before = now - Duration::hours(BACKDATE_HOURS);
        params.not_after = not_after;
        params.serial_number = Some(self.serial()?);
        params.distinguished_name = DistinguishedName::new();
        // RFC 5280 bounds CN at 64 characters; clients read the SAN.
        params.distinguished_name.push(
            DnType::CommonName,
            name.chars().take(64).collect::<String>(),
        );
        params.subject_alt_names = vec![match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.try_into()?),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;

        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.chain.iter().cloned());
        let key = PrivateKeyDer::Pkcs8(self.leaf_key_der.clone_key());
        let certified = CertifiedKey::from_der(chain, key, &self.provider)?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // One store for all leaves: the default is one of 30 KiB for each.
        config.session_storage = self.sessions.clone();
        Ok(config)
    }

    /// A serial number that no other leaf has. All leaves share one key, from which rcgen would derive one number for all; clients refuse two certificates of one issuer and number.
    fn serial(&self) -> Result<SerialNumber, AuthorityError> {
        let mut serial = [0; SERIAL_BYTES];
        self.provider
            .secure_random
            .fill(&mut serial)
            .map_err(|_| AuthorityError::Random)?;
        // Positive (RFC 5280 §4.1.2.2).
        if let Some(first) = serial.first_mut() {
            *first &= 0x7f;
        }
        Ok(SerialNumber::from_slice(&serial))
    }
}

fn ca_params(name: &str, constraints: BasicConstraints, valid: Duration) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.not_before = now - Duration::hours(BACKDATE_HOURS);
    params.not_after = now + valid;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn expiry(certificate: &CertificateDer<'_>) -> Result<OffsetDateTime, AuthorityError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|e| AuthorityError::Chain(e.to_string()))?;
    Ok(parsed.validity().not_after.to_datetime())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_verifies_for_its_name_and_no_other() {
        use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier};
        use rustls::pki_types::{ServerName, UnixTime};
        let (authority, root) = Authority::self_made("test root").unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let leaf = authority
            .mint(
                "a.example.com",
                OffsetDateTime::now_utc(),
                authority.not_after,
            )
            .unwrap();
        drop(leaf);
        for (name, asked, good) in [
            ("a.example.com", "a.example.com", true),
            ("a.example.com", "b.example.com", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("2001:db8::1", "2001:db8::1", true),
        ] {
            let chain = authority.leaf_chain(name);
            let result = verifier.verify_server_cert(
                &chain[0],
                &chain[1..],
                &ServerName::try_from(asked).unwrap(),
                &[],
                UnixTime::now(),
            );
            assert_eq!(result.is_ok(), good, "{name} asked as {asked}: {result:?}");
        }
    }

    impl Authority {
        fn leaf_chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.not_after = self.not_after;
            let leaf = params.signed_by(&self.leaf_key, &self.issuer).unwrap();
            let mut chain = vec![leaf.der().clone()];
            chain.extend(self.chain.iter().cloned());
            chain
        }
    }

    #[test]
    fn no_two_leaves_have_one_serial_number() {
        let (authority, _) = Authority::self_made("test root").unwrap();
        let serials: std::collections::HashSet<_> = (0..100)
            .map(|_| authority.serial().unwrap().to_bytes())
            .collect();
        assert_eq!(serials.len(), 100);
        assert!(serials.iter().all(|serial| serial[0] < 0x80));
    }

    #[tokio::test]
    async fn connections_that_ask_for_one_name_at_once_wait_for_one_mint() {
        let (authority, _) = Authority::self_made("test root").unwrap();
        let authority = Arc::new(authority);
        let (first, second, other) = tokio::join!(
            authority.leaf("a.example.com"),
            authority.leaf("a.example.com"),
            authority.leaf("b.example.com"),
        );
        let first = first.unwrap();
        assert!(Arc::ptr_eq(&first, &second.unwrap()));
        assert!(!Arc::ptr_eq(&first, &other.unwrap()));
        assert!(authority.leaf("b\u{fc}cher.example").await.is_err());
    }

    #[test]
    fn a_name_that_no_certificate_can_hold_is_an_error() {
        let (authority, _) = Authority::self_made("test root").unwrap();
        assert!(authority.server_config("b\u{fc}cher.example").is_err());
    }

    #[test]
    fn a_chain_that_is_no_pem_is_refused() {
        assert!(
            PendingAuthority::generate()
                .unwrap()
                .signed("nothing")
                .is_err()
        );
    }
}
