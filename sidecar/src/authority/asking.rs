//! Whether an agent holds a client certificate: asked for in its handshake where its upstream asks too.
//!
//! A client certificate cannot be passed on: its proof is bound to the one handshake. So it is only noticed. Refuses to derive anything else from it: who the agent is, the sidecar
//! knows from elsewhere.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

/// The settings of `config`, with a question for a client certificate. Its sessions are not resumed: each handshake asks anew.
pub(super) fn asking(
    config: &ServerConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, Error> {
    let verifier = AnyCertificate(
        provider
            .signature_verification_algorithms
            .supported_schemes(),
    );
    let mut asking = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(config.cert_resolver.clone());
    asking.alpn_protocols.clone_from(&config.alpn_protocols);
    asking.session_storage = Arc::new(NoServerSessionStorage {});
    asking.send_tls13_tickets = 0;
    Ok(asking)
}

/// Takes every certificate, and none: nothing is trusted for it.
#[derive(Debug)]
struct AnyCertificate(Vec<SignatureScheme>);

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
