//! The story of one TLS connection: who is asked for, whether it may be read, and the two handshakes.
//!
//! The upstream's handshake comes first, so that what the agent is shown is true: an upstream that cannot be reached or verified never looks well.
//! Invariant: a leaf is presented only for a name that the upstream's verified certificate has, or (in Enforce) together with a refusal.

mod hello;
mod upstream;

use std::time::Duration;

use chaperone_crds::{
    record::{EventKind, Outcome},
    resources::{Mode, Protocol},
};
use rustls::AlertDescription;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::{
    hello::Hello,
    upstream::{UpstreamError, UpstreamTls},
};
use crate::{
    agree,
    connection::{First, Link, builtin, first_bytes},
    detect::Detected,
    gap::{self, Reason},
    http,
    prefixed::Prefixed,
    wire::{Io, Wire},
};

/// Longest handshake with the agent.
const AGENT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

type AgentTls = TlsStream<Prefixed<TcpStream>>;

/// Tells the story of a connection that begins with a ClientHello.
pub async fn serve(link: &Link, mut agent: Wire<TcpStream>) {
    let hello = match hello::read(&mut agent).await {
        Ok(hello) => hello,
        Err(error) => {
            link.shared
                .metrics
                .denials
                .with_label_values(&["malformed"])
                .inc();
            return link
                .record_failure("tls", "malformed", error.to_string())
                .await;
        }
    };
    let link = Link {
        sni: hello.server_name.clone(),
        ..link.clone()
    };
    if let Some((reason, detail)) = unread_reason(&link, &hello).await {
        return pass_or_refuse(&link, agent, reason, detail).await;
    }
    let name = link
        .sni
        .clone()
        .unwrap_or_else(|| link.destination.ip().to_string());
    match upstream::connect(&link, &name).await {
        Ok(upstream) => intercept(&link, agent, &name, upstream).await,
        Err(UpstreamError::Unreachable(error)) => {
            link.record_failure("tls", "upstream-unreachable", error.to_string())
                .await;
        }
        Err(error) => unverified(&link, agent, &name, error).await,
    }
}

/// Why this connection is not to be intercepted, if so.
async fn unread_reason(link: &Link, hello: &Hello) -> Option<(Reason, Option<String>)> {
    let active = link.now();
    if Some(link.destination) == link.shared.api_server {
        return Some((Reason::ApiServer, None));
    }
    if let Some(name) = &link.sni
        && active.snapshot.is_passthrough(name)
        // A name that is not at this address would be a way around: any server would do.
        && agree::host_has_address(name, link.destination.ip(), &link.shared.names, &link.shared.egress).await
    {
        return Some((Reason::Passthrough, None));
    }
    if active.mode() == Mode::Audit && link.shared.pinned.contains(&pin_key(link)) {
        return Some((
            Reason::Pinned,
            Some(
                "the client accepts one certificate only; list the host under tls.passthrough"
                    .to_owned(),
            ),
        ));
    }
    if hello.unread_alpn() {
        return Some((
            Reason::Alpn,
            Some(format!("the client offers {} only", hello.alpn.join(", "))),
        ));
    }
    None
}

/// A connection that will not be read: passed as a gap, or refused.
async fn pass_or_refuse(
    link: &Link,
    agent: Wire<TcpStream>,
    reason: Reason,
    detail: Option<String>,
) {
    let mut decision = link.unread_decision(Protocol::Tls);
    let active = link.now();
    let needs_audit = matches!(
        reason,
        Reason::Alpn | Reason::Handshake | Reason::Unverifiable
    );
    if needs_audit && active.mode() == Mode::Enforce && decision.reason != "rule" {
        let message = "Chaperone cannot read this connection; allow the destination under protocol tls, or list it in tls.passthrough.";
        decision = builtin(&active, Outcome::Deny, reason.as_str(), message);
    }
    match decision.action {
        Outcome::Deny => gap::refuse(link, "tls", reason, detail, decision).await,
        Outcome::Allow => gap::dial_and_pass(link, agent, "tls", reason, detail, decision).await,
    }
}

/// An upstream that cannot be verified: the agent's own roots judge it in Audit; in Enforce it is refused, in words.
async fn unverified(link: &Link, agent: Wire<TcpStream>, name: &str, error: UpstreamError) {
    let (reason, detail) = error.gap();
    if link.now().mode() == Mode::Audit {
        return pass_or_refuse(link, agent, reason, Some(detail)).await;
    }
    if let Some(mut agent) = handshake(link, agent, name).await {
        http::refuse_connection(&mut agent, 502, reason.as_str(), &detail).await;
    }
    let decision = builtin(&link.now(), Outcome::Deny, reason.as_str(), "");
    gap::refuse(link, "tls", reason, Some(detail), decision).await;
}

/// Both sides are TLS with the sidecar: what is inside is told by its first bytes.
async fn intercept(link: &Link, agent: Wire<TcpStream>, name: &str, upstream: UpstreamTls) {
    let Some(mut agent) = handshake(link, agent, name).await else {
        return;
    };
    let mut upstream: Wire<Box<dyn Io>> = Wire::new(Box::new(upstream), bytes::BytesMut::new());
    match first_bytes(link, &mut agent, Some(&mut upstream)).await {
        First::Speaks(Detected::Http) => http::serve(link, agent, Some(upstream)).await,
        First::Speaks(_) | First::ServerFirst => gap::opaque(link, agent, Some(upstream)).await,
        First::Silent => {}
    }
}

/// Finishes the agent's handshake with a leaf for `name`. `None` when the agent did not want it; that is recorded.
async fn handshake(link: &Link, agent: Wire<TcpStream>, name: &str) -> Option<Wire<AgentTls>> {
    let config = match link.shared.authority.load().server_config(name) {
        Ok(config) => config,
        Err(error) => {
            link.record_failure("tls", "no-certificate", error.to_string())
                .await;
            return None;
        }
    };
    let accept = TlsAcceptor::from(config).accept(Prefixed::new(agent.unread, agent.stream));
    match tokio::time::timeout(AGENT_HANDSHAKE_TIMEOUT, accept).await {
        Ok(Ok(stream)) => Some(Wire::new(stream, bytes::BytesMut::new())),
        Ok(Err(error)) if rejects_certificate(&error) => {
            link.shared.pinned.remember(&pin_key(link));
            rejected(link, &error).await;
            None
        }
        Ok(Err(error)) => {
            link.record_failure("tls", "agent-handshake", error.to_string())
                .await;
            None
        }
        Err(_) => {
            link.record_failure(
                "tls",
                "agent-handshake",
                "the agent's handshake took too long".to_owned(),
            )
            .await;
            None
        }
    }
}

/// Records a client that rejected our certificate: refused as far as this connection goes.
async fn rejected(link: &Link, error: &std::io::Error) {
    let active = link.now();
    let mut event = link.event(EventKind::Connection, "tls");
    event.decision = Some(builtin(&active, Outcome::Deny, Reason::Pinned.as_str(), ""));
    let next = match active.mode() {
        Mode::Audit => "its next connections pass unread",
        Mode::Enforce => {
            "it stays refused; list the host under tls.passthrough to let it pass unread"
        }
    };
    event.error = Some(format!(
        "the client rejected the certificate ({error}); {next}"
    ));
    link.shared
        .metrics
        .connections
        .with_label_values(&["failed"])
        .inc();
    link.shared.recorder.record(event).await;
}

/// Alerts by which a client says that it does not accept our certificate (RFC 8446 §6.2).
fn rejects_certificate(error: &std::io::Error) -> bool {
    let alert = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        alert,
        Some(rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::BadCertificateStatusResponse
        ))
    )
}

fn pin_key(link: &Link) -> String {
    match &link.sni {
        Some(name) => format!("{name}:{}", link.destination.port()),
        None => link.destination.to_string(),
    }
}
