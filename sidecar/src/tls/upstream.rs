//! The handshake with the upstream, verified against Mozilla's roots and the chart's extra ones.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use rustls::{client::Resumption, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::client_certificate::{noticing, verdict};
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
    #[error("{0}")]
    Certificate(rustls::Error),
    /// It asked for a client certificate and refuses to go on without.
    #[error("the upstream asks for a client certificate: {0}")]
    ClientCertificate(io::Error),
    /// Its handshake failed otherwise.
    #[error("{0}")]
    Handshake(io::Error),
}

impl UpstreamError {
    /// The gap that this makes where the agent judges for itself, and how to close it.
    pub(crate) fn gap(&self) -> (Reason, String) {
        match self {
            Self::Certificate(error) => (
                Reason::Unverifiable,
                format!(
                    "the upstream's certificate cannot be verified ({error}); if it is genuine, add its root to extraRoots of the chart"
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
    let mut config = active.upstream_tls.clone();
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
        (Ok(Err(error)), false) => Err(classify(error)),
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

fn classify(error: io::Error) -> UpstreamError {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(certificate @ rustls::Error::InvalidCertificate(_)) => {
            UpstreamError::Certificate(certificate.clone())
        }
        _ => UpstreamError::Handshake(error),
    }
}
