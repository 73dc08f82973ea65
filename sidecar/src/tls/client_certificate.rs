//! Upstreams that ask for a client certificate: giving them the one that is held, noticing what they got, and waiting for what they say to it.
//!
//! Invariant: who asks, and what it got, is known before the agent's handshake begins, so that nothing is shown to the agent that its own handshake would not have shown.

use std::{
    cell::Cell,
    collections::HashSet,
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use rustls::{SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};
use tokio::io::{AsyncRead, ReadBuf};

use super::upstream::UpstreamTls;

/// How long an upstream that asked for a certificate may take to refuse what it got. Over TLS 1.3 it does so after the client's handshake is done (RFC 8446 §4.4.2.4): one round
/// trip. An upstream that is content sends a session ticket, mostly, and then nobody waits.
const VERDICT_TIMEOUT: Duration = Duration::from_millis(300);
/// Most bytes that an upstream says first and that are taken in one read while its verdict is waited for.
const EARLY_BYTES: usize = 1024;

/// Whether an upstream asked for a certificate, and what it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    /// It did not ask.
    #[default]
    No,
    /// It got none.
    InVain,
    /// It got the one that is held.
    AndGot,
}

tokio::task_local! {
    /// What the handshake of this task was asked for.
    static ASKED: Cell<Asked>;
}

/// Answers upstreams that ask for a client certificate, and notes that they did.
#[derive(Debug, Default)]
pub(super) struct ClientCertificate(Option<Arc<CertifiedKey>>);

impl ClientCertificate {
    /// Presents this one; `None`: none.
    pub(super) fn new(held: Option<Arc<CertifiedKey>>) -> Self {
        Self(held)
    }
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        // A key that fits none of the upstream's schemes is not presented (RFC 8446 §4.2.3).
        let fits = |held: &&Arc<CertifiedKey>| held.key.choose_scheme(schemes).is_some();
        let held = self.0.as_ref().filter(fits);
        let what = match held {
            Some(_) => Asked::AndGot,
            None => Asked::InVain,
        };
        let _ = ASKED.try_with(|asked| asked.set(what));
        held.cloned()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// Most upstreams that are remembered to ask. Beyond, no session with any upstream is resumed.
const MAX_ASKING: usize = 1024;

/// Names of upstreams that asked for a certificate that there is none of. Their sessions are not resumed: who resumes is not asked again, and the agent would not be either.
#[derive(Debug, Default)]
pub(crate) struct Asking(Mutex<HashSet<Box<str>>>);

impl Asking {
    pub(super) fn remember(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MAX_ASKING {
            names.insert(name.into());
        }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.len() >= MAX_ASKING || names.contains(name)
    }
}

/// Runs a handshake; says also whether it was asked for a certificate.
pub(super) async fn noticing<T>(handshake: impl Future<Output = T>) -> (T, Asked) {
    let noticed = async {
        let output = handshake.await;
        (output, ASKED.with(Cell::get))
    };
    ASKED.scope(Cell::default(), noticed).await
}

/// Waits for the verdict of an upstream on the certificate that it got, or on getting none; returns what it said besides.
pub(super) async fn verdict(upstream: &mut UpstreamTls) -> io::Result<BytesMut> {
    let said = poll_fn(|cx| poll_verdict(upstream, cx));
    tokio::time::timeout(VERDICT_TIMEOUT, said)
        .await
        .unwrap_or_else(|_| Ok(BytesMut::new()))
}

fn poll_verdict(upstream: &mut UpstreamTls, cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
    let mut room = [const { MaybeUninit::uninit() }; EARLY_BYTES];
    let mut early = ReadBuf::uninit(&mut room);
    match Pin::new(&mut *upstream).poll_read(cx, &mut early) {
        Poll::Pending if upstream.session().tls13_tickets_received() == 0 => Poll::Pending,
        Poll::Pending => Poll::Ready(Ok(BytesMut::new())),
        read @ Poll::Ready(_) => {
            ready!(read)?;
            if early.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(Ok(early.filled().into()))
        }
    }
}
