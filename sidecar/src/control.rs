//! The sidecar's side of the control stream: certificate, configuration, acknowledgements. ARCHITECTURE.md has the protocol.
//!
//! Owns the connection to the operator. Refuses lines longer than [`MAX_MESSAGE_BYTES`]. Invariant: nothing here touches the data
//! path; a lost stream leaves the last configuration in force.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use chaperone_crds::control::{
    Ack, CertificateRequest, CertificateResponse, ControlMessage, MAX_MESSAGE_BYTES,
    STREAM_SILENCE_SECONDS,
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio_rustls::TlsConnector;

use crate::egress::Egress;

/// Longest wait for an answer to a short call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer to a short call.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Why a call to the operator failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The settings are unusable.
    #[error("operator settings: {0}")]
    Settings(String),
    /// The projected token cannot be read.
    #[error("cannot read the token at {path}: {source}")]
    Token {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The operator cannot be reached.
    #[error("cannot reach the operator at {operator}: {source}")]
    Connect {
        /// Host and port.
        operator: String,
        /// Why.
        source: io::Error,
    },
    /// HTTP went wrong.
    #[error("talking to the operator: {0}")]
    Http(#[from] hyper::Error),
    /// The operator refused.
    #[error("the operator answered {status}: {message}")]
    Refused {
        /// Status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// The operator sent what is no message.
    #[error("the operator sent an unusable message: {0}")]
    Message(String),
    /// Nothing came for too long.
    #[error("the operator was silent for {0:?}")]
    Silent(Duration),
}

/// Where the operator is and how to prove who we are.
#[derive(Clone)]
pub struct OperatorClient {
    host: String,
    port: u16,
    token: PathBuf,
    tls: TlsConnector,
    egress: Arc<Egress>,
}

impl OperatorClient {
    /// A client for the control port at `url` (`https://host:port`), whose certificate chains to `root` (PEM).
    ///
    /// # Errors
    /// When `url` or `root` is unusable.
    pub fn new(
        url: &str,
        root: &str,
        token: PathBuf,
        egress: Arc<Egress>,
    ) -> Result<Self, ControlError> {
        let (host, port) = url
            .strip_prefix("https://")
            .map(|rest| rest.trim_end_matches('/'))
            .and_then(|rest| rest.rsplit_once(':'))
            .and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)))
            .ok_or_else(|| ControlError::Settings(format!("{url:?} is not https://HOST:PORT")))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(root.as_bytes()) {
            let certificate = certificate
                .map_err(|e| ControlError::Settings(format!("root certificate: {e}")))?;
            roots
                .add(certificate)
                .map_err(|e| ControlError::Settings(format!("root certificate: {e}")))?;
        }
        if roots.is_empty() {
            return Err(ControlError::Settings(
                "no root certificate was given".to_owned(),
            ));
        }
        let config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            host,
            port,
            token,
            tls: TlsConnector::from(Arc::new(config)),
            egress,
        })
    }

    /// Has the operator sign an intermediate for the key of `csr`; answers with the chain, PEM.
    ///
    /// # Errors
    /// As [`ControlError`].
    pub async fn certificate(&self, csr: String) -> Result<String, ControlError> {
        let body = self
            .call(
                Method::POST,
                "/v1/certificates",
                &CertificateRequest { csr },
            )
            .await?;
        let response: CertificateResponse =
            serde_json::from_slice(&body).map_err(|e| ControlError::Message(e.to_string()))?;
        Ok(response.chain)
    }

    /// Tells the operator what became of a revision.
    ///
    /// # Errors
    /// As [`ControlError`].
    pub async fn acknowledge(&self, ack: &Ack) -> Result<(), ControlError> {
        self.call(Method::POST, "/v1/acks", ack).await.map(drop)
    }

    /// Reads the stream and gives every message to `take`, until it ends or is silent for [`STREAM_SILENCE_SECONDS`].
    ///
    /// # Errors
    /// Always: a stream only ends by an error, if only that the operator closed it.
    pub async fn follow(&self, mut take: impl FnMut(ControlMessage)) -> Result<(), ControlError> {
        let silence = Duration::from_secs(STREAM_SILENCE_SECONDS);
        let response = self.open_stream().await?;
        let mut body = response.into_body();
        let mut pending = BytesMut::new();
        loop {
            let frame = tokio::time::timeout(silence, body.frame())
                .await
                .map_err(|_| ControlError::Silent(silence))?
                .ok_or_else(|| ControlError::Message("the stream ended".to_owned()))??;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            pending.extend_from_slice(&data);
            while let Some(end) = memchr::memchr(b'\n', &pending) {
                let line = pending.split_to(end.saturating_add(1));
                let message = serde_json::from_slice(&line)
                    .map_err(|e| ControlError::Message(e.to_string()))?;
                take(message);
            }
            if pending.len() > MAX_MESSAGE_BYTES {
                return Err(ControlError::Message(format!(
                    "a line is longer than {MAX_MESSAGE_BYTES} bytes"
                )));
            }
        }
    }

    async fn open_stream(&self) -> Result<Response<Incoming>, ControlError> {
        let request = self.request(Method::GET, "/v1/stream", Bytes::new())?;
        let response = within(self.send(request)).await?;
        accepted(response).await
    }

    async fn call<T: serde::Serialize>(
        &self,
        method: Method,
        path: &str,
        body: &T,
    ) -> Result<Bytes, ControlError> {
        let body = serde_json::to_vec(body).map_err(|e| ControlError::Message(e.to_string()))?;
        let request = self.request(method, path, body.into())?;
        within(async {
            let response = accepted(self.send(request).await?).await?;
            read(response).await
        })
        .await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ControlError> {
        // Read at each call: the kubelet renews the file.
        let token = std::fs::read_to_string(&self.token).map_err(|source| ControlError::Token {
            path: self.token.display().to_string(),
            source,
        })?;
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, format!("{}:{}", self.host, self.port))
            .header(AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| ControlError::Settings(e.to_string()))
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ControlError> {
        let mut sender = self.connect().await?;
        Ok(sender.send_request(request).await?)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ControlError> {
        let failed = |source| ControlError::Connect {
            operator: format!("{}:{}", self.host, self.port),
            source,
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|e| ControlError::Settings(format!("operator host: {e}")))?;
        let stream = self
            .egress
            .dial_name(&self.host, self.port)
            .await
            .map_err(failed)?;
        let stream = self.tls.connect(name, stream).await.map_err(failed)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the operator ended");
            }
        });
        Ok(sender)
    }
}

async fn within<T>(call: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .map_err(|_| ControlError::Silent(CALL_TIMEOUT))?
}

async fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, ControlError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = read(response).await.unwrap_or_default();
    Err(ControlError::Refused {
        status,
        message: String::from_utf8_lossy(&message).trim().to_owned(),
    })
}

async fn read(response: Response<Incoming>) -> Result<Bytes, ControlError> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|e| ControlError::Message(e.to_string()))
}
