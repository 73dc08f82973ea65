//! The handshake with the upstream, verified against Mozilla's roots and the chart's extra ones, and what policies say of single upstreams.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use chaperone_crds::{
    record::CertificateInfo,
    resources::{TlsVersion, Trust},
};
use rustls::{AlertDescription, ProtocolVersion, client::Resumption, pki_types::ServerName};
use time::OffsetDateTime;

use super::{
    client_certificate::{Asked, noticing, verdict},
    held::Held,
    settings::Towards,
    stream::{self, ClientTls},
};
use crate::{gap::Reason, link::Link, prefixed::Prefixed, wire::Io};

/// Longest handshake with an upstream.
const UPSTREAM_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// TLS with an upstream.
pub(crate) type UpstreamTls = ClientTls<Prefixed<Box<dyn Io>>>;

/// A verified upstream.
pub(crate) struct Verified {
    pub(crate) stream: UpstreamTls,
    /// What it said unasked.
    pub(crate) early: BytesMut,
    /// Whether it asked for a client certificate that only the agent may have, got none, and went on.
    pub(crate) asks: bool,
    /// The client certificate that it got.
    pub(crate) certificate: Option<Arc<CertificateInfo>>,
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
    /// The client certificate that policy asks for cannot be presented.
    #[error("{0}")]
    UnusableCertificate(String),
    /// It refuses the client certificate that it got.
    #[error("the upstream refuses the client certificate {}: {error}", certificate.subject)]
    RefusedCertificate {
        error: io::Error,
        certificate: Arc<CertificateInfo>,
    },
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
            Self::UnusableCertificate(why) => (
                Reason::UnusableCertificate,
                format!("the client certificate for this host cannot be presented: {why}"),
            ),
            Self::RefusedCertificate { .. } => (Reason::ClientCertificate, self.to_string()),
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

/// Dials the destination, or another address of the same name, where the link goes from then on, and verifies it for `name`. `offered` in ALPN is what the agent offers and the sidecar reads, so that the upstream's choice can be the agent's too.
pub(crate) async fn connect(
    link: &mut Link,
    name: &str,
    offered: &[Vec<u8>],
) -> Result<Box<Verified>, UpstreamError> {
    let active = link.now();
    let towards = active
        .upstream_tls
        .towards(&active.snapshot, name)
        .map_err(|e| UpstreamError::Handshake(io::Error::other(e)))?;
    let held = usable(&towards)?;
    let wire = link.reach().await.map_err(UpstreamError::Unreachable)?;
    let stream = Prefixed::new(wire.unread, wire.stream);
    let server_name = ServerName::try_from(name.to_owned())
        .map_err(|e| UpstreamError::Handshake(io::Error::new(io::ErrorKind::InvalidInput, e)))?;
    let mut config = towards.config.clone();
    if active.asking.contains(name) {
        Arc::make_mut(&mut config).resumption = Resumption::disabled();
    }
    if config.alpn_protocols != offered {
        Arc::make_mut(&mut config).alpn_protocols = offered.to_vec();
    }
    let connect = stream::connect(config, server_name.clone(), stream);
    let connect = tokio::time::timeout(UPSTREAM_HANDSHAKE_TIMEOUT, connect);
    let (connected, asked) = noticing(connect).await;
    if asked == Asked::InVain {
        active.asking.remember(name);
    }
    match connected {
        Ok(Ok(stream)) => verified(stream, asked, held).await,
        Ok(Err(error)) => {
            towards.forget(&server_name);
            Err(classify(error, &towards, asked, held))
        }
        Err(_) => Err(UpstreamError::Handshake(io::ErrorKind::TimedOut.into())),
    }
}

/// The client certificate that is to be presented. Where it cannot be, nothing is dialled: without it the upstream would see somebody else than policy says.
fn usable(towards: &Towards) -> Result<Option<&Held>, UpstreamError> {
    let Some(held) = &towards.held else {
        return Ok(None);
    };
    let checked = match held {
        Ok(held) => held.check(OffsetDateTime::now_utc()).map(|()| Some(held)),
        Err(why) => Err(why.to_string()),
    };
    checked.map_err(UpstreamError::UnusableCertificate)
}

async fn verified(
    mut stream: UpstreamTls,
    asked: Asked,
    held: Option<&Held>,
) -> Result<Box<Verified>, UpstreamError> {
    // Over TLS 1.2 the upstream's verdict was part of the handshake (RFC 5246 §7.4.6).
    let is_judged = stream.session().protocol_version() == Some(ProtocolVersion::TLSv1_2);
    let early = match asked == Asked::No || is_judged {
        true => BytesMut::new(),
        false => verdict(&mut stream)
            .await
            .map_err(|error| refused(error, asked, held))?,
    };
    let presented = held.filter(|_| asked == Asked::AndGot);
    Ok(Box::new(Verified {
        stream,
        early,
        asks: asked == Asked::InVain && held.is_none(),
        certificate: presented.map(|held| held.info.clone()),
    }))
}

/// An upstream that asked for a client certificate and does not go on.
fn refused(error: io::Error, asked: Asked, held: Option<&Held>) -> UpstreamError {
    match held.filter(|_| asked == Asked::AndGot) {
        Some(held) => UpstreamError::RefusedCertificate {
            error,
            certificate: held.info.clone(),
        },
        None => UpstreamError::ClientCertificate(error),
    }
}

fn classify(
    error: io::Error,
    towards: &Towards,
    asked: Asked,
    held: Option<&Held>,
) -> UpstreamError {
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
        _ if asked != Asked::No => refused(error, asked, held),
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
