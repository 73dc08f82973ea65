//! Questions over HTTP: from a request to what is asked, and how answers are written.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, RawQuery, State},
    http::{
        HeaderMap, HeaderValue,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chaperone_index::store::{Found, Session};
use chaperone_server::reviews::bearer;
use http_body_util::{BodyExt as _, Full};

use super::{Extent, Told, words};
use crate::{
    api::{Api, BATCH_TYPE},
    metrics::Route,
    refusal::Refusal,
};

/// The type of a proof.
pub(crate) const PROOF_TYPE: &str = "text/plain; charset=utf-8";

pub(in crate::api) async fn records(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let ask = async {
        let told = api.records(bearer(&headers)?, words(query.as_deref())?);
        Ok(told.await?.records(wants_lines(&headers)))
    };
    api.respond(Route::Search, ask.await)
}

pub(in crate::api) async fn record(
    State(api): State<Arc<Api>>,
    Path((stream, seq)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let ask = async {
        let words = words(query.as_deref())?;
        let told = api.record(bearer(&headers)?, &stream, &seq, words).await?;
        let text = one(&told.answer);
        Ok(told.respond(text, "application/json"))
    };
    api.respond(Route::Record, ask.await)
}

pub(in crate::api) async fn proof(
    State(api): State<Arc<Api>>,
    Path((stream, seq)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let ask = async {
        let words = words(query.as_deref())?;
        let mut told = api.proof(bearer(&headers)?, &stream, &seq, words).await?;
        let text = std::mem::take(&mut told.answer);
        Ok(told.respond(text, PROOF_TYPE))
    };
    api.respond(Route::Proof, ask.await)
}

pub(in crate::api) async fn sessions(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let ask = async {
        let told = api.sessions(bearer(&headers)?, words(query.as_deref())?);
        let told = told.await?;
        let items = told.answer.iter().map(json).collect();
        Ok(told.list("sessions", items, wants_lines(&headers)))
    };
    api.respond(Route::Sessions, ask.await)
}

pub(in crate::api) async fn session(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let ask = async {
        let words = words(query.as_deref())?;
        let told = api.session(bearer(&headers)?, &id, words).await?;
        let text = json(&told.answer);
        Ok(told.respond(text, "application/json"))
    };
    api.respond(Route::Session, ask.await)
}

pub(in crate::api) async fn session_records(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let ask = async {
        let words = words(query.as_deref())?;
        let told = api.session_records(bearer(&headers)?, &id, words).await?;
        Ok(told.records(wants_lines(&headers)))
    };
    api.respond(Route::SessionRecords, ask.await)
}

impl Api {
    pub(super) fn respond(&self, route: Route, answer: Result<Response, Refusal>) -> Response {
        self.count(route, &answer);
        answer.into_response()
    }
}

impl Told<Vec<Found>> {
    fn records(self, as_lines: bool) -> Response {
        let items = self.answer.iter().map(one).collect();
        self.list("records", items, as_lines)
    }
}

impl<T> Told<T> {
    /// A list: as one object, or a line each.
    fn list(self, name: &str, items: Vec<String>, as_lines: bool) -> Response {
        if as_lines {
            let lines: String = items.iter().flat_map(|item| [item, "\n"]).collect();
            return self.respond(lines, BATCH_TYPE);
        }
        let Extent {
            indexed,
            committed,
            cursor,
        } = &self.extent;
        let cursor = cursor.as_ref();
        let cursor = cursor.map_or(String::new(), |cursor| format!(r#""cursor":"{cursor}","#));
        let items = items.join(",");
        let text = format!(
            r#"{{"indexed":{indexed},"committed":{committed},{cursor}"{name}":[{items}]}}"#
        );
        self.respond(text, "application/json")
    }

    pub(super) fn respond(self, text: String, kind: &'static str) -> Response {
        let mut response = Response::new(held(text, self.room));
        let head = response.headers_mut();
        head.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let extent = self.extent;
        head.insert("chaperone-indexed", HeaderValue::from(extent.indexed));
        head.insert("chaperone-committed", HeaderValue::from(extent.committed));
        if let Some(cursor) = extent.cursor.and_then(|c| HeaderValue::from_str(&c).ok()) {
            head.insert("chaperone-cursor", cursor);
        }
        response
    }
}

/// A body that holds an answer's room until its last byte has left.
pub(crate) fn held(text: impl Into<Bytes>, room: impl Send + Sync + 'static) -> Body {
    Body::new(Full::new(text.into()).map_frame(move |frame| {
        let _ = &room;
        frame
    }))
}

/// A record with its leaf: the line as it was written, which is JSON.
fn one(found: &Found) -> String {
    let line = String::from_utf8_lossy(&found.line);
    format!(r#"{{"leaf":{},"record":{line}}}"#, found.leaf)
}

fn json(session: &Session) -> String {
    serde_json::to_string(session).expect("texts and numbers serialise")
}

fn wants_lines(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains(BATCH_TYPE))
}
