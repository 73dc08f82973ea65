//! Serving: accepts connections, ends TLS where there is TLS, and runs a router until the process stops.
//!
//! Owns the limits of a listener. Refuses connections beyond [`MAX_CONNECTIONS`] by not accepting them, and those of one peer beyond its share by
//! closing them. Invariant: a slow or silent client holds one slot for a bounded time, and a request that runs when the process stops is
//! finished.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::lifecycle::{Phase, Signals};

/// Connections of one listener at a time: one stream for each pod of a large cluster's half.
pub const MAX_CONNECTIONS: usize = 10_000;
/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one sidecar at a time. It needs two; an agent that opens many harms its own pod alone.
pub const SIDECAR_CONNECTIONS: usize = 64;
/// How long a client may take to send a request's head, idling before it included. Longer than the 90 s after which the clients of the API server
/// and of sidecars close idle connections themselves: a connection that we close could take a request with it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long requests that run may take once the process stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// After how long without a byte the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long to wait after a failed accept; the usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on a port of all addresses of both families, or of IPv4 where the node has no IPv6.
///
/// # Errors
/// If the port is taken or may not be used.
pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// What a listener serves.
#[derive(Clone)]
pub struct Server {
    /// TLS, or clear text.
    pub tls: Option<Arc<ServerConfig>>,
    /// What answers.
    pub router: Router,
    /// When it stops.
    pub signals: Signals,
    /// Most connections of one address at a time.
    pub per_peer: usize,
    /// Addresses to which that does not apply.
    pub exempt: Exempt,
}

/// Addresses that pass on the connections of many, and bound each of them themselves. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Exempt(Arc<RwLock<HashSet<IpAddr>>>);

impl Exempt {
    /// There are these and no others.
    pub fn set(&self, addresses: HashSet<IpAddr>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    fn has(&self, address: IpAddr) -> bool {
        let addresses = self.0.read().unwrap_or_else(PoisonError::into_inner);
        addresses.contains(&address)
    }
}

/// Serves until the process stops; returns when the last connection has ended, or 10 s after that.
pub async fn serve(listener: TcpListener, server: Server) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let stop = server.signals.clone();
    tokio::select! {
        () = accept_all(listener, server, Arc::clone(&slots)) => {}
        () = stop.reached(Phase::Stopping) => {}
    }
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    if timeout(STOP_TIMEOUT, slots.acquire_many(all))
        .await
        .is_err()
    {
        tracing::warn!("connections were still open when the process stopped");
    }
}

async fn accept_all(listener: TcpListener, server: Server, slots: Arc<Semaphore>) {
    let acceptor = server.tls.clone().map(TlsAcceptor::from);
    let door = Door::new(&listener, slots);
    let most = |peer| match server.exempt.has(peer) {
        true => MAX_CONNECTIONS,
        false => server.per_peer,
    };
    while let Some((stream, admitted)) = door.admit(most).await {
        let connection = Connection {
            router: server.router.clone(),
            signals: server.signals.clone(),
            _admitted: admitted,
        };
        tokio::spawn(connection.run(stream, acceptor.clone()));
    }
}

/// A listener and its bounds: [`MAX_CONNECTIONS`], and a share of them for each peer.
#[derive(Debug)]
pub struct Door<'l> {
    listener: &'l TcpListener,
    slots: Arc<Semaphore>,
    peers: Peers,
}

/// The room that a connection takes, given back when it is dropped.
#[derive(Debug)]
pub struct Admitted {
    _slot: OwnedSemaphorePermit,
    _share: Share,
}

impl<'l> Door<'l> {
    /// As many connections as there are slots.
    #[must_use]
    pub fn new(listener: &'l TcpListener, slots: Arc<Semaphore>) -> Self {
        Self {
            listener,
            slots,
            peers: Peers::default(),
        }
    }

    /// The next connection of a peer that has less than `most`; those of others are closed. The kernel asks now and then whether its peer is still there. `None` once the slots are closed.
    pub async fn admit(&self, most: impl Fn(IpAddr) -> usize) -> Option<(TcpStream, Admitted)> {
        loop {
            let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = address.ip().to_canonical();
            let Some(share) = self.peers.admit(peer, most(peer)) else {
                tracing::debug!(peer = %address, "too many connections of one peer");
                continue;
            };
            tune(&stream);
            let admitted = Admitted {
                _slot: slot,
                _share: share,
            };
            return Some((stream, admitted));
        }
    }
}

/// Small writes go at once, and the kernel asks a silent peer whether it is still there.
pub fn tune(stream: &TcpStream) {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 3);
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// How many connections each peer has.
#[derive(Clone, Debug, Default)]
struct Peers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection's part of its peer's share, given back when it ends.
#[derive(Debug)]
struct Share {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    fn admit(&self, peer: IpAddr, most: usize) -> Option<Share> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= most {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Share {
            peers: self.clone(),
            peer,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.peers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// One connection and its slot.
struct Connection {
    router: Router,
    signals: Signals,
    _admitted: Admitted,
}

impl Connection {
    async fn run(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        let Some(acceptor) = acceptor else {
            return self.talk(stream).await;
        };
        match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.talk(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        }
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE);
        let service = TowerToHyperService::new(self.router);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.signals.reached(Phase::Stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended early");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Lifecycle;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn a_peer_has_its_share_and_gets_it_back() {
        let peers = Peers::default();
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = peers.admit(one, 1);
        assert!(first.is_some());
        assert!(peers.admit(one, 1).is_none());
        assert!(peers.admit(two, 1).is_some());
        drop(first);
        assert!(peers.admit(one, 1).is_some());
        assert!(peers.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_request_that_runs_when_the_process_stops_is_finished() {
        let (lifecycle, signals) = Lifecycle::start();
        let started = Arc::new(tokio::sync::Notify::new());
        let handler = {
            let started = Arc::clone(&started);
            move || async move {
                started.notify_one();
                tokio::time::sleep(Duration::from_millis(200)).await;
                "done"
            }
        };
        let server = Server {
            tls: None,
            router: Router::new().route("/", get(handler)),
            signals,
            per_peer: 1,
            exempt: Exempt::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(listener, server));
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        started.notified().await;
        lifecycle.enter(Phase::Stopping);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("done"), "{answer}");
        served.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
