//! What a replica that does not lead does with connections: passes them to the one that does, byte by byte.
//!
//! TLS ends at the leader, so that nothing of it is seen here. Invariant: the bounds are those of a ledger's own port.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use chaperone_server::serve::{MAX_CONNECTIONS, Peers, SIDECAR_CONNECTIONS};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

/// How long a connection to the leader may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a failed accept; the usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Passes connections on until it is dropped, which ends them.
pub(super) async fn run(listener: &TcpListener, leader: watch::Receiver<Option<SocketAddr>>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let peers = Peers::default();
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Closed at once: whoever asks comes again, and there may be a leader then.
        let Some(to) = *leader.borrow() else {
            continue;
        };
        let ip: IpAddr = peer.ip().to_canonical();
        let Some(share) = peers.admit(ip, SIDECAR_CONNECTIONS) else {
            tracing::debug!(%peer, "too many connections of one peer");
            continue;
        };
        connections.spawn(async move {
            let _held = (slot, share);
            pass(stream, to).await;
        });
    }
}

async fn pass(mut stream: TcpStream, to: SocketAddr) {
    let Ok(Ok(mut leader)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await else {
        tracing::debug!(%to, "the leader cannot be reached");
        return;
    };
    let _ = (stream.set_nodelay(true), leader.set_nodelay(true));
    if let Err(error) = copy_bidirectional(&mut stream, &mut leader).await {
        tracing::debug!(%error, "a connection that was passed on ended early");
    }
}
