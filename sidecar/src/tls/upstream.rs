//! The handshake with the upstream, verified against Mozilla's roots and the chart's extra ones, and what policies say of single upstreams.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use chaperone_crds::resources::{TlsVersion, Trust};
use rustls::{AlertDescription, client::Resumption, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    client_certificate::{noticing, verdict},
    settings::Towards,
};
use crate::{gap::Reason, link::Link, prefixed::Prefixed, wire::Io};

/// Longest handshake with an upstream.
const UPSTREAM_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// TLS with an upstream.
pub(crate) type UpstreamTls = TlsStream<Prefixed<Box<dyn Io>>>;

/// A verified upstream.
pub(crate) struct Verified {
    pub(crate) stream: UpstreamTls,
    /// What it said unasked.
    pub(crate) early: BytesMut,
    /// Whether it asked for a client certificate, got none, and went on.
    pub(crate) asks: bool,
}

/// Why there is no verified upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No TCP connection.
    #[error("cannot reach the upstream: {0}")]
    Unreachable(io::Error),
    /// Its certificate does not hold.
    #[error("{error}")]
    Certificate {
        error: rustls::Error,
        /// Whether just the roots that policies list were tried.
        trust: Trust,
    },
    /// It asked for a client certificate and refuses to go on without.
    #[error("the upstream asks for a client certificate: {0}")]
    ClientCertificate(io::Error),
    /// It speaks no version of TLS that policies let be spoken with it.
    #[error("{error}")]
    Version { error: io::Error, least: TlsVersion },
    /// Its handshake failed otherwise.
    #[error("{0}")]
    Handshake(io::Error),
}

impl UpstreamError {
    /// The gap that this makes where the agent judges for itself, and how to close it.
    pub(crate) fn gap(&self) -> (Reason, String) {
        match self {
            Self::Certificate {
                error,
                trust: Trust::Add,
            } => (
                Reason::Unverifiable,
                format!(
                    "the upstream's certificate cannot be verified ({error}); if it is genuine, add its root under tls.upstreams of a policy, or to extraRoots of the chart"
                ),
            ),
            Self::Certificate {
                error,
                trust: Trust::Only,
            } => (
                Reason::Unverifiable,
                format!(
                    "the upstream's certificate cannot be verified ({error}); for this host tls.upstreams trusts the roots of its caBundle only"
                ),
            ),
            Self::Version { error, least } => (
                Reason::Handshake,
                format!(
                    "the TLS handshake with the upstream failed: {error}; for this host tls.upstreams asks for {} at least",
                    least.as_str()
                ),
            ),
            Self::ClientCertificate(_) => (
                Reason::ClientCertificate,
                format!(
                    "{self}; list the host under tls.passthrough to let the agent present its own"
                ),
            ),
            Self::Unreachable(error) | Self::Handshake(error) => (
                Reason::Handshake,
                format!("the TLS handshake with the upstream failed: {error}"),
            ),
        }
    }
}

/// Dials the destination and verifies it for `name`. `offered` in ALPN is what the agent offers and the sidecar reads, so that the upstream's choice can be the agent's too.
pub(crate) async fn connect(
    link: &Link,
    name: &str,
    offered: &[Vec<u8>],
) -> Result<Verified, UpstreamError> {
    let wire = link.dial().await.map_err(UpstreamError::Unreachable)?;
    let stream = Prefixed::new(wire.unread, wire.stream);
    let server_name = ServerName::try_from(name.to_owned())
        .map_err(|e| UpstreamError::Handshake(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
    let active = link.now();
    let towards = active
        .upstream_tls
        .towards(&active.snapshot, name)
        .map_err(|e| UpstreamError::Handshake(io::Error::other(e)))?;
    let mut config = towards.config.clone();
    if active.asking.contains(name) {
        Arc::make_mut(&mut config).resumption = Resumption::disabled();
    }
    if config.alpn_protocols != offered {
        Arc::make_mut(&mut config).alpn_protocols = offered.to_vec();
    }
    let connect = TlsConnector::from(config).connect(server_name, stream);
    let connect = tokio::time::timeout(UPSTREAM_HANDSHAKE_TIMEOUT, connect);
    let (connected, asks) = noticing(connect).await;
    if asks {
        active.asking.remember(name);
    }
    match (connected, asks) {
        (Ok(Ok(stream)), asks) => verified(stream, asks).await,
        (Ok(Err(error)), true) => Err(UpstreamError::ClientCertificate(error)),
        (Ok(Err(error)), false) => Err(classify(error, &towards)),
        (Err(_), _) => Err(UpstreamError::Handshake(io::ErrorKind::TimedOut.into())),
    }
}

async fn verified(mut stream: UpstreamTls, asks: bool) -> Result<Verified, UpstreamError> {
    let early = match asks {
        true => verdict(&mut stream)
            .await
            .map_err(UpstreamError::ClientCertificate)?,
        false => BytesMut::new(),
    };
    Ok(Verified {
        stream,
        early,
        asks,
    })
}

fn classify(error: io::Error, towards: &Towards) -> UpstreamError {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (tls, towards.min_version) {
        (Some(certificate @ rustls::Error::InvalidCertificate(_)), _) => {
            UpstreamError::Certificate {
                error: certificate.clone(),
                trust: towards.trust,
            }
        }
        (Some(tls), Some(least @ TlsVersion::Tls13)) if is_about_version(tls) => {
            UpstreamError::Version { error, least }
        }
        _ => UpstreamError::Handshake(error),
    }
}

/// Whether a handshake may have failed because the upstream speaks older versions only. Some say so by `handshake_failure`.
fn is_about_version(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::PeerIncompatible(_)
            | rustls::Error::AlertReceived(
                AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure
            )
    )
}
