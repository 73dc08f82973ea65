//! A client of the ledger that sends many requests, and the records that it sends.

use std::{net::SocketAddr, path::Path, sync::Arc};

use bytes::Bytes;
use chaperone_crds::{
    bodies::{Salt, unsalted},
    chain::{Chain, StreamId},
    record::{AgentRef, BodyInfo, Event, EventKind, HttpInfo, SessionInfo},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::Value;
use tokio_rustls::TlsConnector;

/// One connection.
pub(crate) struct Client {
    requests: http1::SendRequest<Full<Bytes>>,
    token: String,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    pub(crate) async fn connect(
        address: SocketAddr,
        ca: &Path,
        token: &str,
    ) -> Result<Self, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = tokio::net::TcpStream::connect(address).await?;
        let name = ServerName::try_from("127.0.0.1")?;
        let tls = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await?;
        let (requests, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Self {
            requests,
            token: token.to_owned(),
        })
    }

    pub(crate) async fn post(
        &mut self,
        stream: &StreamId,
        batch: Vec<u8>,
    ) -> Result<(u16, Value), Failure> {
        let request = self
            .request("POST", &format!("/v1/streams/{stream}/records"))
            .header("content-type", "application/x-ndjson")
            .body(Full::from(batch))?;
        self.send(request).await
    }

    pub(crate) async fn next(&mut self, stream: &StreamId) -> Result<u64, Failure> {
        let request = self
            .request("GET", &format!("/v1/streams/{stream}"))
            .body(Full::default())?;
        let (_, body) = self.send(request).await?;
        body["nextSeq"]
            .as_u64()
            .ok_or_else(|| body.to_string().into())
    }

    fn request(&self, method: &str, path: &str) -> hyper::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "ledger")
            .header("authorization", format!("Bearer {}", self.token))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(u16, Value), Failure> {
        self.requests.ready().await?;
        let response = self.requests.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body)?))
    }
}

pub(crate) fn stream(number: u8) -> StreamId {
    StreamId::from_random([number; 16])
}

/// Writes the records of a stream, one after the other.
pub(crate) struct Lines(Chain);

impl Lines {
    pub(crate) fn new(stream: StreamId) -> Self {
        Self(Chain::new(stream))
    }

    /// The next so many, the first of a stream being its open.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for _ in 0..count {
            self.append(&mut out);
        }
        out
    }

    pub(crate) fn append(&mut self, out: &mut Vec<u8>) {
        let kind = match self.0.next_seq() {
            0 => EventKind::StreamOpen,
            _ => EventKind::Dns,
        };
        let event = Event::new(kind, AgentRef::default());
        self.0.append(&event, jiff::Timestamp::now(), unsalted, out);
    }

    /// A record of this event.
    pub(crate) fn event(&mut self, event: Value, out: &mut Vec<u8>) {
        let event: Event = serde_json::from_value(event).unwrap();
        self.0.append(
            &event,
            jiff::Timestamp::now(),
            || Some(Salt::from_random([7; 16])),
            out,
        );
    }

    /// An operation of a session, with content.
    pub(crate) fn content(&mut self, session: &str, text: &str, out: &mut Vec<u8>) {
        let seq = self.0.next_seq();
        let mut event = Event::new(EventKind::Http, AgentRef::default());
        event.session = Some(SessionInfo {
            id: Some(session.to_owned()),
            ..SessionInfo::default()
        });
        event.http = Some(HttpInfo {
            request_body: Some(BodyInfo {
                text: Some(text.to_owned()),
                ..BodyInfo::default()
            }),
            ..HttpInfo::default()
        });
        let salt = Salt::from_random(u128::from(seq).to_be_bytes());
        self.0
            .append(&event, jiff::Timestamp::now(), || Some(salt), out);
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.0.next_seq()
    }
}
