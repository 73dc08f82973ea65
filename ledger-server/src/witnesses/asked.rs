//! One witness: what it is known to know, and one exchange with it.

use std::{path::Path, slice, sync::Arc, time::Duration};

use bytes::Bytes;
use chaperone_ledger::{
    key::VerifierKey,
    note,
    witness::{self, ADD_CHECKPOINT, Witness},
};
use chaperone_sinks::{ClientError, Endpoint, client::HttpClient, net::HostNet};
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri};
use rustls::ClientConfig;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// How often a lasting failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(600);

/// A witness that is asked.
pub(super) struct Asked {
    name: String,
    key: VerifierKey,
    client: HttpClient,
    path: Uri,
    /// Leaves of the checkpoint that it signed last, as far as is known.
    known: u64,
    /// Leaves of the checkpoint that it signed for this process.
    cosigned: Option<u64>,
    logged: Option<Instant>,
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Tiles are not there, as where a newer checkpoint has replaced them.
    #[error("no proof of consistency: {0}")]
    Proof(String),
    #[error("{0}")]
    Answer(#[from] witness::NoCosignature),
    #[error(
        "it has seen {seen} records of this log, and there are {there}: this ledger was restored from an older copy, or another one signs with its key"
    )]
    Ahead { seen: u64, there: u64 },
    #[error("it has seen another history of this log than this one")]
    Contradicted,
    #[error("it does not know this log: have its operator add the log's public key")]
    UnknownLog,
    #[error("it does not accept the log's signature: have its operator add the log's public key")]
    UnknownKey,
    #[error("it answers {0}")]
    Status(StatusCode),
}

impl Refused {
    /// The metric's label.
    fn result(&self) -> &'static str {
        match self {
            Self::Client(_) => "unreachable",
            Self::Proof(_) => "proof",
            Self::Answer(_) => "signature",
            Self::Ahead { .. } => "ahead",
            Self::Contradicted => "contradicted",
            Self::UnknownLog => "unknown-log",
            Self::UnknownKey => "unknown-key",
            Self::Status(_) => "status",
        }
    }

    /// Whether the log shows two histories.
    fn is_alarm(&self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::Contradicted)
    }
}

impl Asked {
    /// Nothing is connected yet.
    pub(super) fn new(witness: &Witness, tls: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let url = witness.url.as_deref();
        let url = url.ok_or_else(|| anyhow::anyhow!("the line has no URL to ask at"))?;
        let endpoint = Endpoint::parse(url)?;
        let prefix = endpoint.target.path().trim_end_matches('/');
        let path = format!("{prefix}{ADD_CHECKPOINT}").parse()?;
        let tls = endpoint.is_tls.then(|| tls.clone());
        let version = env!("CARGO_PKG_VERSION");
        Ok(Self {
            name: witness.name.clone(),
            key: witness.key.clone(),
            client: HttpClient::new(endpoint, tls, Arc::new(HostNet), version)?,
            path,
            known: 0,
            cosigned: None,
            logged: None,
        })
    }

    /// Whether it has not signed the checkpoint of this size.
    pub(super) fn lacks(&self, size: u64) -> bool {
        self.cosigned != Some(size)
    }

    /// The checkpoint of this size is this note, which may have its signature from before a restart.
    pub(super) fn look(&mut self, note: &[u8], size: u64) {
        if note::open(note, slice::from_ref(&self.key)).is_ok() {
            (self.known, self.cosigned) = (size, Some(size));
        }
    }

    /// The lines that it adds to the note of so many leaves, if it does.
    pub(super) async fn ask(
        &mut self,
        dir: &Path,
        note: &[u8],
        size: u64,
        metrics: &Metrics,
    ) -> Option<Vec<u8>> {
        let result = self.exchange(dir, note, size).await;
        let label = result.as_ref().err().map_or("ok", Refused::result);
        metrics
            .witnesses
            .with_label_values(&[&self.name, label])
            .inc();
        match result {
            Ok(lines) => {
                if self.logged.take().is_some() {
                    tracing::info!(witness = self.name, "the witness signs again");
                }
                (self.known, self.cosigned) = (size, Some(size));
                Some(lines)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    async fn exchange(&mut self, dir: &Path, note: &[u8], size: u64) -> Result<Vec<u8>, Refused> {
        // What it knows is learnt from its answer after a start, and where somebody else has asked it.
        for _ in 0..2 {
            if self.known > size {
                let (seen, there) = (self.known, size);
                return Err(Refused::Ahead { seen, there });
            }
            let answer = self
                .client
                .exchange(self.request(dir, note, size).await?)
                .await?;
            let body = answer.body.clone().unwrap_or_default();
            match answer.status {
                StatusCode::OK => {
                    let signed = witness::add(note, &body, &self.key)?;
                    return Ok(signed.get(note.len()..).unwrap_or_default().to_vec());
                }
                StatusCode::CONFLICT => match witness::size(&body) {
                    Some(known) if known != self.known => self.known = known,
                    _ => return Err(Refused::Status(answer.status)),
                },
                StatusCode::UNPROCESSABLE_ENTITY => return Err(Refused::Contradicted),
                StatusCode::NOT_FOUND => return Err(Refused::UnknownLog),
                StatusCode::FORBIDDEN => return Err(Refused::UnknownKey),
                status => return Err(Refused::Status(status)),
            }
        }
        Err(Refused::Status(StatusCode::CONFLICT))
    }

    async fn request(
        &self,
        dir: &Path,
        note: &[u8],
        size: u64,
    ) -> Result<Request<Full<Bytes>>, Refused> {
        let (dir, known) = (dir.to_owned(), self.known);
        let proof = tokio::task::spawn_blocking(move || witness::proof(&dir, known, size)).await;
        let proof = match proof {
            Ok(Ok(proof)) => proof,
            Ok(Err(error)) => return Err(Refused::Proof(error.to_string())),
            Err(error) => return Err(Refused::Proof(error.to_string())),
        };
        let mut request =
            Request::new(Full::new(witness::request(self.known, &proof, note).into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        Ok(request)
    }

    fn failed(&mut self, error: &Refused) {
        let due = self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY);
        if !due && !error.is_alarm() {
            return;
        }
        self.logged = Some(Instant::now());
        let witness = &self.name;
        if error.is_alarm() {
            tracing::error!(witness, %error, "a witness contradicts this ledger");
        } else {
            tracing::warn!(witness, %error, "a witness does not sign the checkpoint");
        }
    }
}
