//! The HTTPS API: records in, the log out. docs/ledger.md has it for users.
//!
//! Owns the bounds of a request: who sends it is known before its body is read, the body is bounded in size and time, and all bodies together in bytes. Refuses in JSON, by [`Refusal`]. Reads of the
//! directory only what is published: checkpoints and tiles.

mod body;
mod log;
pub(crate) mod questions;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use chaperone_crds::{chain::StreamId, record::ReadInfo};
use chaperone_ledger::store::MAX_BATCH_BYTES;
use chaperone_server::reviews::bearer;
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    authenticate::{Authenticator, Place, Workload},
    custody::Custody,
    gaps::Gaps,
    metrics::{Metrics, Route},
    refusal::{Code, Refusal},
    retention::Sweeps,
    search::Search,
    sinks::SinksHandle,
    writer::{self, Answer, Want, WriterHandle},
};
use body::Budget;
use questions::Reads;

/// The type of a batch.
pub const BATCH_TYPE: &str = "application/x-ndjson";
/// Path of the newest checkpoint.
const CHECKPOINT: &str = "checkpoint";
/// Path of the newest one that enough witnesses have signed; whoever may read the other may read this.
const WITNESSED: &str = "checkpoint/witnessed";
/// How long a commit may take before the client is told to come again.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// What the API answers from.
pub struct Api {
    authenticator: Arc<dyn Authenticator>,
    writer: WriterHandle,
    /// The store's directory.
    dir: PathBuf,
    metrics: Metrics,
    budget: Budget,
    search: Search,
    gaps: Gaps,
    reads: Reads,
    /// None where the ledger feeds none.
    sinks: Option<SinksHandle>,
    custody: Custody,
    sweeps: Sweeps,
}

/// `200` of a batch.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Taken {
    next_seq: u64,
    added: u64,
}

/// `200` of a question.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Next {
    next_seq: u64,
}

impl Api {
    /// An API over this writer and its directory.
    #[must_use]
    pub fn new(
        authenticator: Arc<dyn Authenticator>,
        writer: WriterHandle,
        dir: PathBuf,
        search: Search,
        gaps: Gaps,
        (custody, sweeps): (Custody, Sweeps),
    ) -> Self {
        let metrics = writer.metrics().clone();
        Self {
            authenticator,
            writer,
            dir,
            metrics,
            budget: Budget::default(),
            search,
            gaps,
            reads: Reads::default(),
            sinks: None,
            custody,
            sweeps,
        }
    }

    /// The same, over the sinks that the ledger feeds.
    #[must_use]
    pub fn with_sinks(mut self, sinks: Option<SinksHandle>) -> Self {
        self.sinks = sinks;
        self
    }

    pub(crate) fn authenticator(&self) -> &dyn Authenticator {
        &*self.authenticator
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn count<T>(&self, route: Route, result: &Result<T, Refusal>) {
        let code = match result {
            Ok(_) => "ok",
            Err(refusal) => refusal.code.as_str(),
        };
        self.metrics.answered(route, code);
        if let Err(refusal) = result {
            tracing::debug!(code, message = refusal.message, "refused");
        }
    }

    /// The pod whose sidecar sends these headers.
    async fn workload(&self, headers: &HeaderMap) -> Result<Arc<Workload>, Refusal> {
        self.authenticator.workload(bearer(headers)?).await
    }

    async fn take(&self, stream: &str, request: Request) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let workload = self.workload(&head.headers).await?;
        let stream = parse(stream)?;
        check_head(&head.headers)?;
        let from = onward(head.uri.query())?;
        let (batch, room) = self.budget.read(body).await?;
        self.metrics.bytes.inc_by(batch.len() as u64);
        self.ask(writer::Request {
            stream,
            workload,
            want: Want::Take { batch, from },
            room: Some(room),
        })
        .await
    }

    async fn next(&self, stream: &str, headers: &HeaderMap) -> Result<Answer, Refusal> {
        let workload = self.workload(headers).await?;
        let stream = parse(stream)?;
        self.ask(writer::Request {
            stream,
            workload,
            want: Want::Next,
            room: None,
        })
        .await
    }

    async fn ask(&self, request: writer::Request) -> Result<Answer, Refusal> {
        let answer = timeout(COMMIT_TIMEOUT, self.writer.ask(request)).await;
        answer.unwrap_or_else(|_| Err(slow()))
    }

    /// Records that somebody read, or was refused.
    async fn ledger(&self, read: ReadInfo) -> Result<(), Refusal> {
        let recorded = timeout(COMMIT_TIMEOUT, self.writer.record_read(read)).await;
        recorded.unwrap_or_else(|_| Err(slow()))
    }

    async fn read(&self, headers: &HeaderMap, path: &str) -> Result<Response, Refusal> {
        let place = match path {
            CHECKPOINT | WITNESSED => Place::Checkpoint,
            _ => Place::Tiles,
        };
        self.authenticator.may_read(bearer(headers)?, place).await?;
        match place {
            Place::Checkpoint => log::checkpoint(&self.dir, path == WITNESSED).await,
            Place::Tiles => log::tile(&self.dir, path).await,
        }
    }
}

/// All paths.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/streams/{stream}/records", post(take))
        .route("/v1/streams/{stream}", get(next))
        .route("/v1/records", get(questions::records))
        .route("/v1/records/{stream}/{seq}", get(questions::record))
        .route("/v1/records/{stream}/{seq}/proof", get(questions::proof))
        .route("/v1/sessions", get(questions::sessions))
        .route("/v1/sinks/{name}/test", post(questions::test))
        .route("/v1/sessions/{id}", get(questions::session))
        .route("/v1/sessions/{id}/records", get(questions::session_records))
        .route("/v1/gaps", get(questions::gaps))
        .route("/v1/holds", get(questions::holds).post(questions::hold))
        .route("/v1/holds/{name}", delete(questions::release))
        .route("/v1/erasures", post(questions::erase))
        .route("/checkpoint", get(checkpoint))
        .route("/checkpoint/witnessed", get(witnessed))
        .route("/tile/{*path}", get(tile))
        .fallback(nothing)
        .with_state(api)
}

async fn take(
    State(api): State<Arc<Api>>,
    Path(stream): Path<String>,
    request: Request<Body>,
) -> Response {
    let result = api.take(&stream, request).await;
    api.count(Route::Records, &result);
    match result {
        Ok(Answer { next_seq, added }) => Json(Taken { next_seq, added }).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn next(
    State(api): State<Arc<Api>>,
    Path(stream): Path<String>,
    headers: HeaderMap,
) -> Response {
    let result = api.next(&stream, &headers).await;
    api.count(Route::Stream, &result);
    match result {
        Ok(Answer { next_seq, .. }) => Json(Next { next_seq }).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn checkpoint(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let result = api.read(&headers, CHECKPOINT).await;
    api.count(Route::Checkpoint, &result);
    result.into_response()
}

async fn witnessed(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let result = api.read(&headers, WITNESSED).await;
    api.count(Route::Checkpoint, &result);
    result.into_response()
}

async fn tile(
    State(api): State<Arc<Api>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    let result = api.read(&headers, &format!("tile/{path}")).await;
    api.count(Route::Tile, &result);
    result.into_response()
}

async fn nothing() -> Refusal {
    Refusal::new(Code::NotFound, "there is nothing at this path")
}

fn parse(stream: &str) -> Result<StreamId, Refusal> {
    stream
        .parse()
        .map_err(|error| Refusal::new(Code::Malformed, format!("{error}")))
}

/// `from=N`: the number of a batch's first record, where its sender has none before it any more.
fn onward(query: Option<&str>) -> Result<Option<u64>, Refusal> {
    let words = questions::words(query)?;
    questions::only(&words, &["from"])?;
    let number = words.get("from").map(|number| number.parse());
    let why = "from is the number of a record";
    number
        .transpose()
        .map_err(|_| Refusal::new(Code::Malformed, why))
}

/// What can be said of a body before it comes.
fn check_head(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(BATCH_TYPE)) {
        let why = format!("a batch has Content-Type {BATCH_TYPE}");
        return Err(Refusal::new(Code::MediaType, why));
    }
    if headers.contains_key("content-encoding") {
        let why = "a batch has no Content-Encoding";
        return Err(Refusal::new(Code::MediaType, why));
    }
    Ok(())
}

/// A commit that takes too long to be waited for.
fn slow() -> Refusal {
    let why = "the disk is slow; what was sent may be on it by now";
    Refusal::new(Code::Busy, why)
}

/// A batch beyond the bound.
fn too_large() -> Refusal {
    let why = format!("a batch has at most {MAX_BATCH_BYTES} bytes");
    Refusal::new(Code::TooLarge, why)
}
