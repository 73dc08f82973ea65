//! Captured connections to one destination, over real sockets.

use std::{net::SocketAddr, time::Duration};

use chaperone_crds::record::{EventKind, Record};
use chaperone_sidecar::{capture::OriginalDst, connection};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::setup::Setup;

/// The host of the destination.
pub(crate) const HOST: &str = "files.example.com";
/// Another name of its address.
#[allow(dead_code, reason = "only some stories do")]
pub(crate) const ALIAS: &str = "alias.example.com";
/// A name with an address of each family.
#[allow(dead_code, reason = "only some stories do")]
pub(crate) const DUAL: &str = "dual.example.com";
const HOSTS: &str =
    "127.0.0.1 files.example.com alias.example.com dual.example.com\n::1 dual.example.com";
/// Longest time in which a connection ends by itself.
const SERVED: Duration = Duration::from_secs(30);

/// A sidecar, and the connections that it serves.
pub(crate) struct World {
    pub(crate) setup: Setup,
    /// PEM of the root under which the sidecar mints.
    pub(crate) root: String,
    pub(crate) destination: SocketAddr,
    served: Vec<JoinHandle<()>>,
}

impl World {
    /// Policies as YAML, roots as PEM.
    pub(crate) fn new(policies: &str, extra_roots: &str, destination: SocketAddr) -> Self {
        let (setup, root) = Setup::new(policies, extra_roots, HOSTS);
        Self {
            setup,
            root,
            destination,
            served: Vec::new(),
        }
    }

    /// The agent connects.
    pub(crate) async fn dial(&mut self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        agent.set_nodelay(true).unwrap();
        let (captured, _) = listener.accept().await.unwrap();
        self.served.push(tokio::spawn(connection::serve(
            self.setup.shared.clone(),
            captured,
            OriginalDst::new(self.destination),
        )));
        agent
    }

    /// Waits until the connection that came last has ended.
    #[allow(dead_code, reason = "only some stories do")]
    pub(crate) async fn last_ends(&mut self) {
        self.served.pop().unwrap().await.unwrap();
    }

    /// The records between the stream's open and close, once all connections have ended by themselves.
    pub(crate) async fn records(self) -> Vec<Record> {
        for served in self.served {
            let ended = tokio::time::timeout(SERVED, served).await;
            ended.expect("the connection ends").unwrap();
        }
        let mut records = self.setup.records().await;
        assert_eq!(records.remove(0).event.kind, EventKind::StreamOpen);
        assert_eq!(records.pop().unwrap().event.kind, EventKind::StreamClose);
        records
    }

    /// The same once the sidecar has stopped, which ends connections that wait.
    #[allow(dead_code, reason = "only some stories do")]
    pub(crate) async fn stopped(self) -> Vec<Record> {
        self.setup.stop.send_replace(true);
        self.records().await
    }
}
