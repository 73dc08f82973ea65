//! TLS settings of sinks: whom they trust, and by what they show who they are.

use std::sync::Arc;

use chaperone_crds::control::SinkTarget;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::SinkError;

/// These roots and no others; ALPN `http/1.1`. For an endpoint that is ours.
pub(in crate::audit::sinks) fn trusting_only(ca_bundle: &str) -> Result<ClientConfig, SinkError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca_bundle, "caBundle")? {
        roots.add(certificate).map_err(settings("caBundle"))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(settings("TLS"))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The Mozilla roots and the sink's bundle; the sink's client certificate, if it has one. ALPN `http/1.1`.
pub(in crate::audit::sinks) fn client_config(
    target: &SinkTarget,
) -> Result<ClientConfig, SinkError> {
    let SinkTarget::Http {
        ca_bundle,
        client_cert,
        client_key,
        ..
    } = target
    else {
        return Err(SinkError::Settings("not an HTTP sink".to_owned()));
    };
    let roots = roots(ca_bundle.as_deref())?;
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(settings("TLS"))?
        .with_root_certificates(roots);
    let mut config = match (client_cert, client_key) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(
                certificates(cert, "client certificate")?,
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(settings("client key"))?,
            )
            .map_err(settings("client certificate"))?,
        (None, None) => builder.with_no_client_auth(),
        _ => {
            let why = "client certificate and key must be given together";
            return Err(SinkError::Settings(why.to_owned()));
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(bundle: Option<&str>) -> Result<RootCertStore, SinkError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    for certificate in bundle.map_or(Ok(Vec::new()), |pem| certificates(pem, "caBundle"))? {
        roots.add(certificate).map_err(settings("caBundle"))?;
    }
    Ok(roots)
}

fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, SinkError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(settings(what))?;
    match found.is_empty() {
        true => Err(SinkError::Settings(format!("{what}: no PEM certificate"))),
        false => Ok(found),
    }
}

/// An error's text without the content: PEM errors may quote what they could not read.
fn settings<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> SinkError {
    move |error| SinkError::Settings(format!("{what}: {error}"))
}
