//! Certificates: what a `caBundle` holds, and what a replica presents when its webhook port is called as the API server calls it.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::view::{CaBundle, Certificate};

/// Reads a `caBundle` (PEM).
pub(super) fn ca_bundle(pem: Option<&[u8]>) -> CaBundle {
    let Some(pem) = pem.filter(|pem| !pem.is_empty()) else {
        return CaBundle::Absent;
    };
    match roots(pem).and_then(|roots| roots.iter().map(read).collect::<anyhow::Result<Vec<_>>>()) {
        Ok(roots) => CaBundle::Certificates(roots),
        Err(why) => CaBundle::Unreadable(format!("{why:#}")),
    }
}

fn roots(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let roots: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .context("not PEM")?;
    if roots.is_empty() {
        return Err(anyhow!("there is no certificate in it"));
    }
    Ok(roots)
}

/// What matters of a certificate (DER).
fn read(der: &CertificateDer<'_>) -> anyhow::Result<Certificate> {
    let (_, certificate) = X509Certificate::from_der(der).context("not an X.509 certificate")?;
    let not_after = certificate.validity().not_after.timestamp();
    Ok(Certificate {
        subject: certificate.subject().to_string(),
        not_after: Timestamp::from_second(not_after).context("its end is out of range")?,
    })
}

/// The certificate that the peer on `io` presents, verified for `name` by the roots in `pem`.
///
/// # Errors
/// What the API server would object to.
pub(super) async fn presented(
    io: impl AsyncRead + AsyncWrite + Unpin,
    pem: &[u8],
    name: &str,
) -> anyhow::Result<Certificate> {
    let mut store = RootCertStore::empty();
    for root in roots(pem)? {
        store
            .add(root)
            .context("a root in caBundle cannot be used")?;
    }
    let config = ClientConfig::builder()
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).context("the Service has no usable name")?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, io)
        .await?;
    let (_, session) = stream.get_ref();
    let leaf = session
        .peer_certificates()
        .and_then(|chain| chain.first())
        .context("it presented no certificate")?;
    read(leaf)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::ServerConfig;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const NAME: &str = "chaperone-operator.chaperone-system.svc";

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// What a client that trusts `trusted` says of a server whose leaf `signer` signed for `name`.
    async fn handshake(
        signer: &CertifiedIssuer<'static, KeyPair>,
        trusted: &str,
        name: &str,
    ) -> anyhow::Result<Certificate> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, signer)?;
        let key = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|e| anyhow!(e))?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        let (client, server) = tokio::io::duplex(16 * 1024);
        let accept = TlsAcceptor::from(Arc::new(config)).accept(server);
        let (answer, _) = tokio::join!(presented(client, trusted.as_bytes(), NAME), accept);
        answer
    }

    #[tokio::test]
    async fn a_certificate_under_the_bundle_is_trusted() {
        let ours = authority();
        let leaf = handshake(&ours, &ours.pem(), NAME).await.unwrap();
        assert!(leaf.not_after > Timestamp::now());
    }

    #[tokio::test]
    async fn another_authority_and_another_name_are_not() {
        let (ours, other) = (authority(), authority());
        assert!(handshake(&ours, &other.pem(), NAME).await.is_err());
        let wrong = handshake(&ours, &ours.pem(), "operator.elsewhere.svc").await;
        assert!(format!("{:#}", wrong.unwrap_err()).contains("not valid for"));
    }

    #[test]
    fn bundles_are_told_apart() {
        assert_eq!(ca_bundle(None), CaBundle::Absent);
        assert_eq!(ca_bundle(Some(b"")), CaBundle::Absent);
        assert!(matches!(ca_bundle(Some(b"Cg==")), CaBundle::Unreadable(_)));
        let bundle = ca_bundle(Some(authority().pem().as_bytes()));
        assert!(matches!(bundle, CaBundle::Certificates(roots) if roots.len() == 1));
    }
}
