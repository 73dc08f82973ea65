//! The handshake with the upstream, verified against Mozilla's roots and the chart's extra ones.

use std::{io, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::hello::Hello;
use crate::{gap::Reason, link::Link};

/// Longest handshake with an upstream.
const UPSTREAM_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// A verified upstream.
pub(crate) type UpstreamTls = TlsStream<TcpStream>;

/// Why there is no verified upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No TCP connection.
    #[error("cannot reach the upstream: {0}")]
    Unreachable(io::Error),
    /// Its certificate does not hold.
    #[error("{0}")]
    Certificate(rustls::Error),
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
            Self::Unreachable(error) | Self::Handshake(error) => (
                Reason::Handshake,
                format!("the TLS handshake with the upstream failed: {error}"),
            ),
        }
    }
}

/// Dials the destination and verifies it for `name`. Offers what the agent offers in ALPN and the sidecar reads, so that the upstream's choice can be the agent's too.
pub(crate) async fn connect(
    link: &Link,
    name: &str,
    hello: &Hello,
) -> Result<UpstreamTls, UpstreamError> {
    let stream = link
        .shared
        .egress
        .dial(link.destination)
        .await
        .map_err(UpstreamError::Unreachable)?;
    let server_name = ServerName::try_from(name.to_owned())
        .map_err(|e| UpstreamError::Handshake(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
    let mut config = link.now().upstream_tls.clone();
    let offered: Vec<_> = hello.read_alpn().map(|p| p.as_bytes().to_vec()).collect();
    if config.alpn_protocols != offered {
        Arc::make_mut(&mut config).alpn_protocols = offered;
    }
    let connect = TlsConnector::from(config).connect(server_name, stream);
    match tokio::time::timeout(UPSTREAM_HANDSHAKE_TIMEOUT, connect).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(classify(error)),
        Err(_) => Err(UpstreamError::Handshake(io::ErrorKind::TimedOut.into())),
    }
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
