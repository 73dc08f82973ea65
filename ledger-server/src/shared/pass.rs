//! What a replica that does not lead does with connections: passes them to the one that does, byte by byte.
//!
//! TLS ends at the leader, so that nothing of it is seen here. Invariant: the bounds are those of a ledger's own port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chaperone_server::serve::{Door, MAX_CONNECTIONS, SIDECAR_CONNECTIONS, tune};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};

/// How long a connection to the leader may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Passes connections on until it is dropped, which ends them.
pub(super) async fn run(listener: &TcpListener, leader: watch::Receiver<Option<SocketAddr>>) {
    let door = Door::new(listener, Arc::new(Semaphore::new(MAX_CONNECTIONS)));
    let mut connections = JoinSet::new();
    while let Some((stream, admitted)) = door.admit(|_| SIDECAR_CONNECTIONS).await {
        while connections.try_join_next().is_some() {}
        // Closed at once: whoever asks comes again, and there may be a leader then.
        let Some(to) = *leader.borrow() else {
            continue;
        };
        connections.spawn(async move {
            let _admitted = admitted;
            pass(stream, to).await;
        });
    }
}

async fn pass(mut stream: TcpStream, to: SocketAddr) {
    let Ok(Ok(mut leader)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await else {
        tracing::debug!(%to, "the leader cannot be reached");
        return;
    };
    tune(&leader);
    if let Err(error) = copy_bidirectional(&mut stream, &mut leader).await {
        tracing::debug!(%error, "a connection that was passed on ended early");
    }
}
