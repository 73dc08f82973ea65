//! The serving certificate: two PEM files, read again when they change.
//!
//! Invariant: what was good stays in use until something good replaces it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// How often the files are read.
const INTERVAL: Duration = Duration::from_secs(30);
/// Largest file, in bytes: a chain has a few kB.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The certificate in use and where it comes from.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads chain and key.
    ///
    /// # Errors
    /// If a file cannot be read, or the two do not belong together.
    pub fn load(chain: &Path, key: &Path) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(read(chain, key)?),
            chain: chain.to_owned(),
            key: key.to_owned(),
        }))
    }

    /// Never ends: looks for a new certificate now and then.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            match read(&self.chain, &self.key) {
                Ok(new) if new.cert == self.current.load().cert => {}
                Ok(new) => {
                    tracing::info!("the serving certificate is new");
                    self.current.store(Arc::new(new));
                }
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the serving certificate cannot be read, the former stays"
                    );
                }
            }
        }
    }

    /// TLS 1.3 and HTTP/1.1, as on the operator's control port.
    ///
    /// # Panics
    /// If the provider lacks TLS 1.3; aws-lc-rs has it.
    #[must_use]
    pub fn server_config(self: &Arc<Self>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("aws-lc-rs has TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(chain: &Path, key: &Path) -> anyhow::Result<CertifiedKey> {
    let certificates = CertificateDer::pem_slice_iter(&bounded(chain)?)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| chain.display().to_string())?;
    if certificates.is_empty() {
        bail!("{}: no PEM certificate", chain.display());
    }
    let private =
        PrivateKeyDer::from_pem_slice(&bounded(key)?).with_context(|| key.display().to_string())?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(certificates, private, &provider)
        .with_context(|| format!("{} and {}", chain.display(), key.display()))
}

fn bounded(path: &Path) -> anyhow::Result<Vec<u8>> {
    let length = std::fs::metadata(path)
        .with_context(|| path.display().to_string())?
        .len();
    if length > MAX_FILE_BYTES {
        bail!("{} is longer than {MAX_FILE_BYTES} bytes", path.display());
    }
    std::fs::read(path).with_context(|| path.display().to_string())
}
