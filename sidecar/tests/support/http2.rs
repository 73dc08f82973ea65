//! One HTTP/2 connection in memory: the `h2` crate as an agent on one side and as an upstream on the other, the sidecar's story between them, and the records that it leaves.

#[path = "setup.rs"]
pub(crate) mod setup;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use chaperone_crds::record::Record;
use chaperone_sidecar::{connection::Link, http2, wire::Wire};
use h2::{RecvStream, SendStream, client, server};
use http::{HeaderMap, Request, Response};
use tokio::{io::DuplexStream, task::JoinHandle};

use setup::Setup;

/// Name of the upstream.
pub(crate) const HOST: &str = "files.example.com";
/// Bytes that each direction buffers: small, so that back-pressure is part of every test.
const PIPE_BYTES: usize = 4096;
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A story under way.
pub(crate) struct Story {
    /// Sends the agent's requests.
    pub(crate) agent: client::SendRequest<Bytes>,
    /// The agent's connection, driven.
    pub(crate) agent_connection: JoinHandle<Result<(), h2::Error>>,
    /// The upstream's connection, not driven until [`Story::upstream`] takes it.
    upstream: Option<DuplexStream>,
    served: JoinHandle<()>,
    setup: Setup,
}

/// The upstream's end of a connection.
pub(crate) type UpstreamConnection = server::Connection<DuplexStream, Bytes>;

impl Story {
    /// Begins with this policy (YAML; empty for none).
    pub(crate) async fn begin(policies: &str) -> Self {
        Self::begin_with(policies, client::Builder::new().enable_push(false)).await
    }

    /// Begins with this policy and an agent that is configured so.
    pub(crate) async fn begin_with(policies: &str, agent: &mut client::Builder) -> Self {
        let (raw, upstream, served, setup) = Self::raw(policies);
        let (agent, connection) = agent.handshake(raw).await.unwrap();
        let agent_connection = tokio::spawn(connection);
        Self {
            agent,
            agent_connection,
            upstream: Some(upstream),
            served,
            setup,
        }
    }

    /// Begins with this policy and agents and upstreams that speak bytes.
    pub(crate) fn raw(policies: &str) -> (DuplexStream, DuplexStream, JoinHandle<()>, Setup) {
        let (setup, _) = Setup::new(policies, "", "");
        let link = Link {
            active: setup.shared.active.load_full().unwrap(),
            shared: setup.shared.clone(),
            destination: "198.51.100.7:443".parse().unwrap(),
            tried: Vec::new(),
            tunnel: None,
            sni: Some(HOST.to_owned()),
            certificate: None,
            since: Instant::now(),
        };
        let (agent, agent_side) = tokio::io::duplex(PIPE_BYTES);
        let (upstream, upstream_side) = tokio::io::duplex(PIPE_BYTES);
        let served = tokio::spawn(async move {
            let upstream: Wire<Box<dyn chaperone_sidecar::wire::Io>> =
                Wire::new(Box::new(upstream_side), BytesMut::new());
            let agent = Wire::new(agent_side, BytesMut::new());
            http2::serve(&link, agent, Some(upstream), true).await;
        });
        (agent, upstream, served, setup)
    }

    /// The upstream's end, to be driven by the test.
    pub(crate) async fn upstream(&mut self) -> UpstreamConnection {
        self.upstream_with(&server::Builder::new()).await
    }

    /// The same, configured so.
    pub(crate) async fn upstream_with(&mut self, builder: &server::Builder) -> UpstreamConnection {
        let stream = self.upstream.take().unwrap();
        soon(builder.handshake(stream)).await.unwrap()
    }

    /// An upstream that answers every request by `answer`, each on a task of its own.
    pub(crate) async fn serve<F, R>(&mut self, answer: F) -> JoinHandle<()>
    where
        F: Fn(Request<RecvStream>, server::SendResponse<Bytes>) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let mut upstream = self.upstream().await;
        tokio::spawn(async move {
            while let Some(Ok((request, respond))) = upstream.accept().await {
                tokio::spawn(answer(request, respond));
            }
        })
    }

    /// The agent sends a request without a body and awaits the head of its response.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Response<RecvStream>, h2::Error> {
        self.send(Request::get(url(path)).body(()).unwrap()).await
    }

    /// The agent sends a request without a body and awaits the head of its response.
    pub(crate) async fn send(
        &mut self,
        request: Request<()>,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let mut agent = soon(self.agent.clone().ready()).await?;
        let (response, _) = agent.send_request(request, true)?;
        soon(response).await
    }

    /// The agent begins a request with a body.
    pub(crate) async fn open(
        &mut self,
        request: Request<()>,
    ) -> (client::ResponseFuture, SendStream<Bytes>) {
        let mut agent = soon(self.agent.clone().ready()).await.unwrap();
        agent.send_request(request, false).unwrap()
    }

    /// The sidecar is told to stop.
    #[allow(dead_code, reason = "each story uses a part")]
    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The sidecar is told to stop.
    pub(crate) fn stop(&self) {
        self.setup.stop.send_replace(true);
    }

    /// Ends the agent's side and returns the records.
    pub(crate) async fn records(self) -> Vec<Record> {
        drop(self.agent);
        drop(self.upstream);
        self.agent_connection.abort();
        soon(self.served).await.unwrap();
        self.setup.records().await
    }
}

/// Records of a story of bytes.
pub(crate) async fn raw_records(served: JoinHandle<()>, setup: Setup) -> Vec<Record> {
    soon(served).await.unwrap();
    setup.records().await
}

/// The URL of a path at the upstream.
pub(crate) fn url(path: &str) -> String {
    format!("https://{HOST}{path}")
}

/// What must come soon.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it did not come in time")
}

/// All payload of a body, and its trailers.
pub(crate) async fn read(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = soon(body.data()).await {
        let data = data?;
        all.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok((all, soon(body.trailers()).await?))
}

/// All payload of a body that is text.
pub(crate) async fn text(response: Response<RecvStream>) -> String {
    let (bytes, _) = read(&mut response.into_body()).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Sends payload as the window has room for it.
pub(crate) async fn write(to: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        if to.capacity() == 0 {
            match soon(std::future::poll_fn(|cx| to.poll_capacity(cx))).await {
                Some(capacity) => capacity?,
                None => return Err(h2::Reason::CANCEL.into()),
            };
        }
        let part = bytes.split_to(bytes.len().min(to.capacity()));
        to.send_data(part, false)?;
    }
    Ok(())
}
