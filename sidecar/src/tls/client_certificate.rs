//! Upstreams that ask for a client certificate: noticing that they do, and waiting for what they say to having got none.
//!
//! Invariant: who asks without getting one is known before the agent's handshake begins, so that nothing is shown to the agent that its own handshake would not have shown.

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

/// How long an upstream that asked for a certificate and got none may take to refuse. Over TLS 1.3 it does so after the client's handshake is done (RFC 8446 §4.4.2.4): one round
/// trip. An upstream that is content sends a session ticket, mostly, and then nobody waits.
const VERDICT_TIMEOUT: Duration = Duration::from_millis(300);
/// Most bytes that an upstream says first and that are taken in one read while its verdict is waited for.
const EARLY_BYTES: usize = 1024;

tokio::task_local! {
    /// Whether the handshake of this task was asked for a certificate.
    static ASKED: Cell<bool>;
}

/// Answers upstreams that ask for a client certificate, and notes that they did.
#[derive(Debug, Default)]
pub(crate) struct ClientCertificate(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for ClientCertificate {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        if self.0.is_none() {
            let _ = ASKED.try_with(|asked| asked.set(true));
        }
        self.0.clone()
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

/// Runs a handshake; says also whether it was asked for a certificate that there is none of.
pub(super) async fn noticing<T>(handshake: impl Future<Output = T>) -> (T, bool) {
    let noticed = async {
        let output = handshake.await;
        (output, ASKED.with(Cell::get))
    };
    ASKED.scope(Cell::new(false), noticed).await
}

/// Waits for the verdict of an upstream that got no certificate; returns what it said besides.
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
        Poll::Pending if upstream.get_ref().1.tls13_tickets_received() == 0 => Poll::Pending,
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
