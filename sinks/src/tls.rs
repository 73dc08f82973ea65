//! TLS settings of sinks: whom they trust, and by what they show who they are.

use std::sync::Arc;

use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::ClientError;

/// ALPN of HTTP/1.1.
pub const HTTP1: &[u8] = b"http/1.1";
/// ALPN of HTTP/2.
pub const HTTP2: &[u8] = b"h2";

/// What a sink says about TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings<'a> {
    /// PEM certificates that the endpoint's may chain to, besides the Mozilla roots.
    pub ca_bundle: Option<&'a str>,
    /// Client certificate chain, PEM; with the key or not at all.
    pub client_cert: Option<&'a str>,
    /// Its key, PEM.
    pub client_key: Option<&'a str>,
}

/// These roots and no others; ALPN `http/1.1`. For an endpoint that is ours.
///
/// # Errors
/// [`ClientError::Settings`] where the bundle is no certificates.
pub fn trusting_only(ca_bundle: &str) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_bundle, "caBundle")? {
        roots.add(certificate).map_err(settings("caBundle"))?;
    }
    let mut config = builder()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(config)
}

/// The Mozilla roots and the sink's bundle; the sink's client certificate, if it has one. `alpn`: none where the protocol has no name there.
///
/// # Errors
/// [`ClientError::Settings`], without the content of keys.
pub fn client_config(tls: Settings<'_>, alpn: Option<&[u8]>) -> Result<ClientConfig, ClientError> {
    let builder = builder()?.with_root_certificates(roots(tls.ca_bundle)?);
    let mut config = match (tls.client_cert, tls.client_key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(
                certificates(cert, "client certificate")?,
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(settings("client key"))?,
            )
            .map_err(settings("client certificate"))?,
        (None, None) => builder.with_no_client_auth(),
        _ => {
            let why = "client certificate and key must be given together";
            return Err(ClientError::Settings(why.to_owned()));
        }
    };
    config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
    Ok(config)
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, ClientError> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(settings("TLS"))
}

fn roots(bundle: Option<&str>) -> Result<RootCertStore, ClientError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for certificate in bundle.map_or(Ok(Vec::new()), |pem| certificates(pem, "caBundle"))? {
        roots.add(certificate).map_err(settings("caBundle"))?;
    }
    Ok(roots)
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(settings(what))?;
    match found.is_empty() {
        true => Err(ClientError::Settings(format!("{what}: no PEM certificate"))),
        false => Ok(found),
    }
}

/// An error's text without the content: PEM errors may quote what they could not read.
fn settings<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> ClientError {
    move |error| ClientError::Settings(format!("{what}: {error}"))
}
