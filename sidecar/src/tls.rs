//! The story of one TLS connection: who is asked for, whether it may be read, and the two handshakes.
//!
//! The upstream's handshake comes first, so that what the agent is shown is true: an upstream that cannot be reached or verified never looks well.
//! Invariant: a leaf is presented only for a name that the upstream's verified certificate has, or (in Enforce) together with a refusal.

mod client_certificate;
mod held;
pub mod hello;
mod settings;
pub mod stream;
mod upstream;

use std::{borrow::Cow, io, sync::Arc, time::Duration};

use chaperone_crds::{
    record::{DecisionInfo, Outcome},
    resources::{Mode, Protocol},
};
use rustls::AlertDescription;

pub(crate) use self::{client_certificate::Asking, settings::Settings};
pub use self::{held::check as check_client_certificate, settings::SettingsError};
use self::{
    hello::Hello,
    stream::ServerTls,
    upstream::{UpstreamError, Verified},
};
use crate::{
    agree,
    authority::AuthorityError,
    detect::Detected,
    first::{First, first_bytes},
    gap::{self, Gap, Reason},
    http, http2,
    link::{Link, builtin},
    prefixed::Prefixed,
    wire::{Io, Wire},
};

/// Longest handshake with the agent.
const AGENT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

type AgentTls<A> = ServerTls<Prefixed<A>>;

/// A connection that is TLS with the sidecar on both sides.
struct Both<A> {
    link: Link,
    agent: Wire<AgentTls<A>>,
    upstream: Wire<Box<dyn Io>>,
}

/// Tells the story of a connection that begins with a ClientHello.
///
/// What is over when requests begin lies on the heap meanwhile: a connection mostly waits for its next request.
pub async fn serve<A: Io>(link: &Link, agent: Wire<A>) {
    if let Some(both) = Box::pin(open(link, agent)).await {
        inside(both).await;
    }
}

/// The upstream's handshake and the agent's. `None`: the connection has ended otherwise, and that is recorded.
async fn open<A: Io>(link: &Link, mut agent: Wire<A>) -> Option<Box<Both<A>>> {
    let hello = match hello::read(&mut agent).await {
        Ok(hello) => hello,
        Err(error) => {
            count_denial(link, "malformed");
            fail(link, agent, "malformed", error.to_string()).await;
            return None;
        }
    };
    let mut link = Link {
        sni: hello.server_name.clone(),
        ..link.clone()
    };
    if is_fronted(&link) {
        // In every mode, like a Host that is not the server name.
        count_denial(&link, "host-mismatch");
        let message = "the server name is not the host that CONNECT named";
        fail(&link, agent, "host-mismatch", message.to_owned()).await;
        return None;
    }
    if let Some((reason, detail)) = Box::pin(unread_reason(&link, &hello)).await {
        Box::pin(pass_or_refuse(&link, agent, reason, detail)).await;
        return None;
    }
    let name = verified_name(&link);
    match Box::pin(upstream::connect(&mut link, &name, &hello.to_offer())).await {
        Ok(upstream) => Box::pin(intercept(link, agent, &name, upstream)).await,
        Err(UpstreamError::Unreachable(error)) => {
            fail(&link, agent, "upstream-unreachable", error.to_string()).await;
            None
        }
        Err(error) => {
            Box::pin(unverified(&link, agent, &name, &hello, error)).await;
            None
        }
    }
}

/// Resets a connection of which nothing goes on, and records why.
async fn fail<A: Io>(link: &Link, mut agent: Wire<A>, reason: &'static str, error: String) {
    agent.stream.break_off();
    link.record_failure("tls", reason, error).await;
}

fn count_denial(link: &Link, reason: &str) {
    let denials = &link.shared.metrics.denials;
    denials.with_label_values(&[reason]).inc();
}

/// TLS with the destination, verified, without an agent: to a proxy that is spoken to over TLS.
///
/// # Errors
/// Why there is none.
pub(crate) async fn dial(link: &Link) -> io::Result<Wire<Box<dyn Io>>> {
    let name = verified_name(link);
    let upstream = upstream::connect(&mut link.clone(), &name, &[b"http/1.1".to_vec()]).await;
    let upstream = upstream.map_err(io::Error::other)?;
    Ok(Wire::new(Box::new(upstream.stream), upstream.early))
}

/// What the upstream's certificate is verified for: the server name, else what CONNECT named, else the address.
fn verified_name(link: &Link) -> String {
    link.named()
        .map_or_else(|| link.destination.ip().to_string(), str::to_owned)
}

/// Whether a tunnel that CONNECT opened for one name is used for another.
fn is_fronted(link: &Link) -> bool {
    let tunnel = link.tunnel.as_ref().and_then(|tunnel| tunnel.name());
    matches!((tunnel, &link.sni), (Some(tunnel), Some(sni)) if tunnel != sni)
}

/// Why this connection is not to be intercepted, if so.
async fn unread_reason(link: &Link, hello: &Hello) -> Option<(Reason, Option<String>)> {
    let active = link.now();
    if link.is_api_server() {
        return Some((Reason::ApiServer, None));
    }
    if let Some(name) = &link.sni
        && active.snapshot.is_passthrough(name)
        // A name that is not at this address would be a way around: any server would do.
        && sni_is_here(link).await
    {
        return Some((Reason::Passthrough, None));
    }
    if active.mode() == Mode::Audit
        && let Some(reason) = link.shared.pinned.reason(&pin_key(link))
        // Once a certificate is held, the agent need not present its own.
        && !(reason == Reason::ClientCertificate
            && active.upstream_tls.holds(&active.snapshot, &verified_name(link)))
    {
        let detail = match reason {
            Reason::ClientCertificate => AGENTS_CERTIFICATE,
            _ => "the client accepts one certificate only; list the host under tls.passthrough",
        };
        return Some((reason, Some(detail.to_owned())));
    }
    if hello.unread_alpn() {
        return Some((
            Reason::Alpn,
            Some(format!("the client offers {} only", hello.alpn.join(", "))),
        ));
    }
    None
}

/// Whether the address is one of the server name's. Nothing else vouches for a name on a connection whose certificate nobody verifies.
async fn sni_is_here(link: &Link) -> bool {
    let Some(name) = &link.sni else { return true };
    if link.tunnel.as_ref().is_some_and(|t| t.name().is_some()) {
        // It is the host that CONNECT named. Where that is, the proxy says, and policy asks after the proxy.
        return true;
    }
    let shared = &link.shared;
    agree::host_has_address(name, link.destination.ip(), &shared.names, &shared.egress).await
}

/// A connection that will not be read: passed as a gap, or refused.
async fn pass_or_refuse<A: Io>(
    link: &Link,
    mut agent: Wire<A>,
    reason: Reason,
    detail: Option<String>,
) {
    // The API server is one address, whatever its name leads to.
    let name = link.sni.as_deref().filter(|_| reason != Reason::ApiServer);
    let mut there = Cow::Borrowed(link);
    loop {
        let gap = Gap {
            protocol: "tls",
            reason,
            detail: detail.clone(),
            decision: unread_decision(&there, reason).await,
        };
        match gap::dial_and_pass(&there, &mut agent, name.as_slice(), gap).await {
            Some(next) => there = Cow::Owned(*next),
            None => return,
        }
    }
}

/// What becomes of a connection that will not be read. In Enforce one that policy did not ask to leave unread needs a rule, and that rule a name that is true.
async fn unread_decision(link: &Link, reason: Reason) -> DecisionInfo {
    let here = sni_is_here(link).await;
    let active = link.now();
    let decision = link.unread_decision_if(here, &active, Protocol::Tls);
    let asked = matches!(
        reason,
        Reason::Passthrough | Reason::ApiServer | Reason::Pinned | Reason::ClientCertificate
    );
    if asked || active.mode() == Mode::Audit || decision.action == Outcome::Deny {
        return decision;
    }
    if decision.reason != "rule" {
        let message = "Chaperone cannot read this connection; allow the destination under protocol tls, or list it in tls.passthrough.";
        return builtin(&active, Outcome::Deny, reason.as_str(), message);
    }
    if !here {
        let message = "The server name of this connection is not at this address.";
        return builtin(&active, Outcome::Deny, "host-mismatch", message);
    }
    decision
}

/// An upstream that cannot be verified: the agent's own roots judge it in Audit; in Enforce it is refused, in words.
async fn unverified<A: Io>(
    link: &Link,
    agent: Wire<A>,
    name: &str,
    hello: &Hello,
    error: UpstreamError,
) {
    let (reason, detail) = error.gap();
    let active = link.now();
    if active.mode() == Mode::Audit {
        return pass_or_refuse(link, agent, reason, Some(detail)).await;
    }
    let gap = Gap {
        protocol: "tls",
        reason,
        detail: Some(detail.clone()),
        decision: builtin(&active, Outcome::Deny, reason.as_str(), ""),
    };
    gap::record_refusal(link, &gap).await;
    // The connection is recorded, and refused whatever comes of the handshake: it only serves to say why.
    let speaks = hello.read_alpn().last().map(|p| p.as_bytes().to_vec());
    if let Ok(agent) = handshake(link, agent, name, speaks, false).await {
        refuse_in_words(agent, reason, &detail).await;
    }
}

async fn refuse_in_words<A: Io>(mut agent: Wire<AgentTls<A>>, reason: Reason, message: &str) {
    if speaks_http2(&agent.stream) {
        http2::refuse_connection(agent, 502, reason.as_str(), message).await;
    } else {
        http::refuse_connection(&mut agent, 502, reason.as_str(), message).await;
    }
}

/// The agent's handshake, once the upstream's is done.
async fn intercept<A: Io>(
    link: Link,
    agent: Wire<A>,
    name: &str,
    upstream: Box<Verified>,
) -> Option<Box<Both<A>>> {
    let chosen = upstream.stream.session().alpn_protocol();
    let chosen = chosen.map(<[u8]>::to_vec);
    let link = Link {
        certificate: upstream.certificate.clone(),
        ..link
    };
    let agent = match handshake(&link, agent, name, chosen, upstream.asks).await {
        Ok(agent) => agent,
        Err(error) => {
            unfinished(&link, error).await;
            return None;
        }
    };
    if has_certificate(&agent) {
        Box::pin(refuse_certificate(&link, agent)).await;
        return None;
    }
    let Verified { stream, early, .. } = *upstream;
    let upstream: Wire<Box<dyn Io>> = Wire::new(Box::new(stream), early);
    Some(Box::new(Both {
        link,
        agent,
        upstream,
    }))
}

/// Both sides are TLS with the sidecar: what is inside is told by its first bytes.
async fn inside<A: Io>(mut both: Box<Both<A>>) {
    let Both {
        link,
        agent,
        upstream,
    } = &mut *both;
    // Over HTTP/2 the server may speak before its client does.
    let first = match speaks_http2(&agent.stream) {
        true => First::Speaks(Detected::Http2),
        false => first_bytes(link, agent, Some(upstream)).await,
    };
    match first {
        First::Speaks(Detected::Http2) => Box::pin(inside_http2(both)).await,
        First::Speaks(Detected::Http) => inside_http(both).await,
        First::Speaks(_) | First::ServerFirst => {
            Box::pin(gap::opaque(link, agent, Some(upstream))).await;
        }
        First::Silent => link.record_unused("tls").await,
    }
}

/// The agent's side stays where it is.
async fn inside_http<A: Io>(mut both: Box<Both<A>>) {
    let upstream = both.upstream;
    http::serve(&both.link, &mut both.agent, Some(upstream), true).await;
}

async fn inside_http2<A: Io>(both: Box<Both<A>>) {
    let Both {
        link,
        agent,
        upstream,
    } = *both;
    http2::serve(&link, agent, Some(upstream), true).await;
}

/// What records say of an agent's own client certificate.
const AGENTS_CERTIFICATE: &str = "the agent presents a client certificate, which cannot be passed on; list the host under tls.passthrough";

fn has_certificate<A>(agent: &Wire<AgentTls<A>>) -> bool {
    let session = agent.stream.session();
    session
        .peer_certificates()
        .is_some_and(|chain| !chain.is_empty())
}

/// The upstream would see a request without the certificate that the agent holds: another request than the agent meant. It passes unread at the next attempt in Audit.
async fn refuse_certificate<A: Io>(link: &Link, mut agent: Wire<AgentTls<A>>) {
    let reason = Reason::ClientCertificate;
    let active = link.now();
    if active.mode() == Mode::Audit {
        link.shared.pinned.remember(&pin_key(link), reason);
        agent.stream.break_off();
        let error = format!("{AGENTS_CERTIFICATE}; its next connections pass unread");
        return link.record_failure("tls", reason.as_str(), error).await;
    }
    let gap = Gap {
        protocol: "tls",
        reason,
        detail: Some(AGENTS_CERTIFICATE.to_owned()),
        decision: builtin(&active, Outcome::Deny, reason.as_str(), ""),
    };
    gap::record_refusal(link, &gap).await;
    refuse_in_words(agent, reason, AGENTS_CERTIFICATE).await;
}

/// Why the agent's handshake did not come to its end.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
    #[error("the agent's handshake took longer than {AGENT_HANDSHAKE_TIMEOUT:?}")]
    Slow,
    #[error("the client rejected the certificate ({0})")]
    Rejected(io::Error),
    #[error("the agent's handshake failed: {0}")]
    Agent(io::Error),
}

/// Whether both sides agreed on HTTP/2.
fn speaks_http2<A>(agent: &AgentTls<A>) -> bool {
    agent.session().alpn_protocol() == Some(hello::H2.as_bytes())
}

/// Finishes the agent's handshake with a leaf for `name`, and with the protocol that the upstream chose in ALPN: what the agent speaks is what the upstream reads. `ask`: for a
/// client certificate too.
async fn handshake<A: Io>(
    link: &Link,
    agent: Wire<A>,
    name: &str,
    chosen: Option<Vec<u8>>,
    ask: bool,
) -> Result<Wire<AgentTls<A>>, HandshakeError> {
    let authority = link.shared.authority.load_full();
    let mut config = match ask {
        true => authority.asking_leaf(name).await?,
        false => authority.leaf(name).await?,
    };
    if config.alpn_protocols.first() != chosen.as_ref() {
        Arc::make_mut(&mut config).alpn_protocols = chosen.into_iter().collect();
    }
    let accept = stream::accept(config, Prefixed::new(agent.unread, agent.stream));
    match tokio::time::timeout(AGENT_HANDSHAKE_TIMEOUT, accept).await {
        Ok(Ok(stream)) => Ok(Wire::new(stream, bytes::BytesMut::new())),
        Ok(Err(error)) if rejects_certificate(&error) => Err(HandshakeError::Rejected(error)),
        Ok(Err(error)) => Err(HandshakeError::Agent(error)),
        Err(_) => Err(HandshakeError::Slow),
    }
}

/// Records a handshake that did not come to its end. A client that rejected our certificate is remembered.
async fn unfinished(link: &Link, error: HandshakeError) {
    let reason = match &error {
        HandshakeError::Certificate(_) => "no-certificate",
        HandshakeError::Slow | HandshakeError::Agent(_) => "agent-handshake",
        HandshakeError::Rejected(_) => {
            link.shared.pinned.remember(&pin_key(link), Reason::Pinned);
            let next = match link.now().mode() {
                Mode::Audit => "its next connections pass unread",
                Mode::Enforce => {
                    "it stays refused; list the host under tls.passthrough to let it pass unread"
                }
            };
            return link
                .record_failure("tls", Reason::Pinned.as_str(), format!("{error}; {next}"))
                .await;
        }
    };
    link.record_failure("tls", reason, error.to_string()).await;
}

/// Alerts by which a client says that it does not accept our certificate (RFC 8446 §6.2).
fn rejects_certificate(error: &io::Error) -> bool {
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
