//! One connection in memory: an agent on one side, an upstream on the other, the sidecar's story between them, and the records that it leaves.

#[path = "setup.rs"]
mod setup;

use std::time::Instant;

use bytes::BytesMut;
use chaperone_crds::{control::SinkConfig, record::Record};
use chaperone_sidecar::{connection::Link, http, wire::Wire};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

use setup::Setup;

/// Name of the upstream.
pub(crate) const HOST: &str = "files.example.com";

/// Bytes that each direction buffers: small, so that back-pressure is part of every test.
const PIPE_BYTES: usize = 4096;

/// A story under way.
pub(crate) struct Story {
    pub(crate) agent: DuplexStream,
    pub(crate) upstream: DuplexStream,
    served: JoinHandle<()>,
    setup: Setup,
}

impl Story {
    /// Begins with this policy (YAML; empty for none).
    pub(crate) async fn begin(policies: &str) -> Self {
        Self::begin_with(policies, true)
    }

    /// The same in clear text: the host is `198.51.100.7`.
    #[allow(dead_code, reason = "each story uses a part")]
    pub(crate) async fn begin_in_clear_text(policies: &str) -> Self {
        Self::begin_with(policies, false)
    }

    fn begin_with(policies: &str, secure: bool) -> Self {
        let (setup, _) = Setup::new(policies, "", "");
        let destination = match secure {
            true => "198.51.100.7:443",
            false => "198.51.100.7:80",
        };
        let link = Link {
            active: setup.shared.active.load_full().unwrap(),
            shared: setup.shared.clone(),
            destination: destination.parse().unwrap(),
            tried: Vec::new(),
            tunnel: None,
            sni: secure.then(|| HOST.to_owned()),
            certificate: None,
            since: Instant::now(),
        };
        let (agent, agent_side) = tokio::io::duplex(PIPE_BYTES);
        let (upstream, upstream_side) = tokio::io::duplex(PIPE_BYTES);
        let served = tokio::spawn(async move {
            let upstream: Wire<Box<dyn chaperone_sidecar::wire::Io>> =
                Wire::new(Box::new(upstream_side), BytesMut::new());
            let mut agent = Wire::new(agent_side, BytesMut::new());
            http::serve(&link, &mut agent, Some(upstream), secure).await;
        });
        Self {
            agent,
            upstream,
            served,
            setup,
        }
    }

    /// The agent sends.
    pub(crate) async fn send(&mut self, bytes: &str) {
        self.agent.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// The upstream answers.
    pub(crate) async fn answer(&mut self, bytes: &str) {
        self.upstream.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// What reaches the upstream, up to and including `end`.
    pub(crate) async fn asked(&mut self, end: &str) -> String {
        until(&mut self.upstream, end).await
    }

    /// What reaches the agent, up to and including `end`.
    pub(crate) async fn heard(&mut self, end: &str) -> String {
        until(&mut self.agent, end).await
    }

    /// The agent has no more to say.
    pub(crate) async fn half_close(&mut self) {
        self.agent.shutdown().await.unwrap();
    }

    /// The upstream goes away.
    pub(crate) fn upstream_leaves(&mut self) {
        self.upstream = tokio::io::duplex(1).0;
    }

    /// The sidecar is told to stop.
    pub(crate) fn stop(&self) {
        self.setup.stop.send_replace(true);
    }

    /// The records that are in the spool's files now.
    #[allow(dead_code, reason = "each story uses a part")]
    pub(crate) fn on_disk(&self) -> Vec<Record> {
        self.setup.on_disk()
    }

    /// Sends the records somewhere.
    #[allow(dead_code, reason = "each story uses a part")]
    pub(crate) fn send_to(&self, sinks: Vec<SinkConfig>) {
        self.setup.send_to(sinks);
    }

    /// Puts other policies in force.
    #[allow(dead_code, reason = "each story uses a part")]
    pub(crate) fn swap(&self, policies: &str) {
        self.setup.swap(policies);
    }

    /// Nothing is recorded any more.
    #[allow(dead_code, reason = "each story uses a part")]
    pub(crate) async fn end_stream(&mut self) {
        self.setup.end_stream().await;
    }

    /// Everything else that reaches the upstream, to the end of the connection.
    pub(crate) async fn asked_to_end(&mut self) -> String {
        let mut rest = Vec::new();
        self.upstream.read_to_end(&mut rest).await.unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Everything else that reaches the agent, to the end of the connection.
    pub(crate) async fn heard_to_end(&mut self) -> String {
        let mut rest = Vec::new();
        self.agent.read_to_end(&mut rest).await.unwrap();
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// Ends the agent's side and returns the records.
    pub(crate) async fn records(self) -> Vec<Record> {
        drop(self.agent);
        drop(self.upstream);
        self.served.await.unwrap();
        self.setup.records().await
    }
}

async fn until(stream: &mut DuplexStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        let byte = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_u8()).await;
        match byte {
            Ok(Ok(byte)) => seen.push(byte),
            other => panic!(
                "{end:?} did not come ({other:?}) after {:?}",
                String::from_utf8_lossy(&seen)
            ),
        }
    }
    String::from_utf8(seen).unwrap()
}
