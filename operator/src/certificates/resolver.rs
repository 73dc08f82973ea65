//! The serving certificate as rustls takes it, exchanged while connections run.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{AuthorityError, KeyedCertificate};

/// The serving certificate of both ports. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ServingCertificate(Arc<ArcSwapOption<CertifiedKey>>);

impl ServingCertificate {
    /// Serves new handshakes with this certificate.
    ///
    /// # Errors
    /// If certificate or key cannot be read or do not belong together; the one before stays.
    pub fn install(&self, serving: &KeyedCertificate) -> Result<(), AuthorityError> {
        let unreadable =
            |error: &dyn std::fmt::Display| AuthorityError::Unreadable(error.to_string());
        let chain = CertificateDer::pem_slice_iter(serving.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unreadable(&error))?;
        let key = PrivateKeyDer::from_pem_slice(serving.key.as_bytes())
            .map_err(|error| unreadable(&error))?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let certified =
            CertifiedKey::from_der(chain, key, &provider).map_err(|error| unreadable(&error))?;
        self.0.store(Some(Arc::new(certified)));
        Ok(())
    }

    /// Whether there is a certificate.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.0.load().is_some()
    }

    /// A server configuration with this certificate, for these TLS versions and ALPN protocols.
    ///
    /// # Panics
    /// If a version is given that the provider lacks; aws-lc-rs has both.
    #[must_use]
    pub fn server_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("aws-lc-rs has TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}
