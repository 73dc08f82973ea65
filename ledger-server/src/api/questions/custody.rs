//! Legal holds and erasures: docs/retention.md has them for users.
//!
//! Owns what may be asked for and by whom. Invariants: what is answered with 200 is on disk; a hold that was answered is obeyed by every deletion that comes after, and by one that is under way.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use chaperone_crds::{
    chain::StreamId,
    record::{ErasedInfo, HoldInfo},
};
use chaperone_ledger::content::Keys;
use chaperone_server::reviews::bearer;
use chaperone_sinks::settings::is_name;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{Api, Words, malformed, only, words};
use crate::{
    authenticate::{Reader, Sight},
    custody::{Hold, REQUEST},
    metrics::Route,
    refusal::{Code, Refusal},
    retention::{Erasure, NoErasure, about, erasure},
    writer::Release,
};

/// Longest body, in bytes: names and a reason.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// How long it may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest reason and longest name of a session, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// A hold that is asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Asked {
    name: String,
    reason: String,
    #[serde(default)]
    session: Option<String>,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    pod: Option<String>,
    #[serde(default)]
    everything: bool,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Released {
    reason: String,
}

/// An erasure that is asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Erase {
    session: String,
    reason: String,
    #[serde(default)]
    namespace: Option<String>,
}

/// A hold, as it is told.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    info: HoldInfo,
    since: String,
}

/// What was erased.
#[derive(Serialize)]
struct Erased {
    session: String,
    namespace: String,
    keys: u64,
}

impl From<&Hold> for Told {
    fn from(hold: &Hold) -> Self {
        Self {
            info: hold.info.clone(),
            since: hold.since.clone(),
        }
    }
}

pub(in crate::api) async fn hold(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let ask = async {
        let hold = api.hold(bearer(&headers)?, read(body).await?).await?;
        Ok((StatusCode::CREATED, Json(hold)).into_response())
    };
    api.respond(Route::Holds, ask.await)
}

pub(in crate::api) async fn holds(
    State(api): State<Arc<Api>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
) -> Response {
    let ask = async {
        let holds = api.holds(bearer(&headers)?, words(uri.query())?).await?;
        Ok(Json(BTreeMap::from([("holds", holds)])).into_response())
    };
    api.respond(Route::Holds, ask.await)
}

pub(in crate::api) async fn release(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let ask = async {
        let hold = api
            .release(bearer(&headers)?, &name, read(body).await?)
            .await?;
        Ok(Json(hold).into_response())
    };
    api.respond(Route::Holds, ask.await)
}

pub(in crate::api) async fn erase(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let ask = async {
        let erased = api.erase(bearer(&headers)?, read(body).await?).await?;
        Ok(Json(erased).into_response())
    };
    api.respond(Route::Erasures, ask.await)
}

impl Api {
    async fn hold(&self, token: &str, asked: Asked) -> Result<HoldInfo, Refusal> {
        let mut info = asked.check()?;
        let about = info.namespace.clone();
        let reader = self
            .may(token, Sight::CREATE_HOLDS, "holds", about.as_deref())
            .await?;
        info.user = reader.user.name.clone();
        self.writer.record_hold(info.clone()).await?;
        Ok(info)
    }

    async fn holds(&self, token: &str, asked: Words) -> Result<Vec<Told>, Refusal> {
        only(&asked, &["namespace"])?;
        let question = self
            .question(token, Sight::LIST_HOLDS, "holds", asked)
            .await?;
        let holds: Vec<Told> = {
            let state = self.custody.read();
            let wanted = |hold: &&Hold| {
                let of = hold.info.namespace.as_deref();
                question
                    .namespace
                    .as_deref()
                    .is_none_or(|wanted| of == Some(wanted))
            };
            state
                .holds()
                .values()
                .filter(wanted)
                .map(Told::from)
                .collect()
        };
        self.enter(&question, holds.len() as u64).await?;
        Ok(holds)
    }

    async fn release(&self, token: &str, name: &str, asked: Released) -> Result<HoldInfo, Refusal> {
        reason(&asked.reason)?;
        let there = self.custody.read().holds().get(name).cloned();
        let about = there.as_ref().and_then(|hold| hold.info.namespace.clone());
        let reader = self
            .may(token, Sight::DELETE_HOLDS, "holds", about.as_deref())
            .await?;
        let hold = there.ok_or_else(|| no_such_hold(name))?;
        let release = Release {
            hold,
            reason: asked.reason,
            user: reader.user.name.clone(),
        };
        self.writer.record_release(release.clone()).await?;
        Ok(HoldInfo {
            reason: release.reason,
            user: release.user,
            ..release.hold.info
        })
    }

    async fn erase(&self, token: &str, asked: Erase) -> Result<Erased, Refusal> {
        reason(&asked.reason)?;
        text("session", &asked.session)?;
        let about = asked.namespace.clone();
        let reader = self
            .may(token, Sight::CREATE_ERASURES, "erasures", about.as_deref())
            .await?;
        let found = self.plan(&asked).await?;
        let mut keys = 0_u64;
        for (day, of_day) in found.keys {
            let info = erased(&asked, &reader, day.begins(), day.ends());
            let destroyed = self.writer.destroy(day, of_day, info).await;
            // Some may be gone where not all are.
            self.search.deleted();
            keys = keys.saturating_add(destroyed?);
        }
        self.sweeps.follow();
        Ok(Erased {
            session: asked.session,
            namespace: found.namespace,
            keys,
        })
    }

    async fn plan(&self, asked: &Erase) -> Result<Erasure, Refusal> {
        let (dir, custody) = (self.dir.clone(), self.custody.clone());
        let (session, namespace) = (asked.session.clone(), asked.namespace.clone());
        let planned = tokio::task::spawn_blocking(move || {
            let entries = about(&Keys::of(&dir), &HashSet::from([session.as_str()]))?;
            let state = custody.read();
            io::Result::Ok(erasure(
                &entries,
                &state,
                &session,
                namespace.as_deref(),
                None,
            ))
        });
        let storage = |error: String| {
            tracing::error!(error, "the keys cannot be read");
            Refusal::new(Code::Storage, "the keys cannot be read now")
        };
        match planned.await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(NoErasure::Nothing))) => {
                let why = "there is no content of such a session: it has none, or it was deleted";
                Err(Refusal::new(Code::NotFound, why))
            }
            Ok(Ok(Err(NoErasure::Ambiguous(namespaces)))) => {
                let namespaces: Vec<_> = namespaces.into_iter().collect();
                let why = format!(
                    "sessions of {} have this name: say which namespace",
                    namespaces.join(", ")
                );
                Err(Refusal::new(Code::Ambiguous, why))
            }
            Ok(Ok(Err(NoErasure::Held(hold)))) => Err(is_held(&hold.info)),
            Ok(Err(error)) => Err(storage(error.to_string())),
            Err(error) => Err(storage(error.to_string())),
        }
    }
}

/// Why something is not erased.
pub(crate) fn is_held(hold: &HoldInfo) -> Refusal {
    let HoldInfo {
        name, reason, user, ..
    } = hold;
    let why = format!("the legal hold {name:?} holds it, which {user} put: {reason}");
    Refusal::new(Code::Held, why)
}

pub(crate) fn no_such_hold(name: &str) -> Refusal {
    let name: String = name.chars().take(64).collect();
    Refusal::new(Code::NotFound, format!("there is no hold {name:?}"))
}

fn erased(asked: &Erase, reader: &Reader, from: Timestamp, until: Timestamp) -> ErasedInfo {
    ErasedInfo {
        what: "content".to_owned(),
        cause: REQUEST.to_owned(),
        user: Some(reader.user.name.clone()),
        reason: Some(asked.reason.clone()),
        session: Some(asked.session.clone()),
        namespace: asked.namespace.clone(),
        from: from.to_string(),
        until: until.to_string(),
        ..ErasedInfo::default()
    }
}

impl Asked {
    fn check(self) -> Result<HoldInfo, Refusal> {
        let Self {
            name,
            reason: why,
            session,
            stream,
            namespace,
            pod,
            everything,
            from,
            until,
        } = self;
        if !is_name(&name) {
            return Err(malformed(
                "a hold is named as Kubernetes names things: lower-case letters, digits, hyphens and dots, 253 at most",
            ));
        }
        reason(&why)?;
        let subjects = [
            session.is_some(),
            stream.is_some(),
            namespace.is_some() && session.is_none(),
            everything,
        ];
        if subjects.iter().filter(|is| **is).count() != 1 {
            return Err(malformed(
                "a hold holds one of these: session (with namespace or without), stream, namespace (with pod or without), everything",
            ));
        }
        if pod.is_some() && (namespace.is_none() || session.is_some()) {
            return Err(malformed("a pod is held with its namespace"));
        }
        if let Some(stream) = &stream {
            stream.parse::<StreamId>().map_err(malformed)?;
        }
        for (name, value) in [
            ("session", &session),
            ("namespace", &namespace),
            ("pod", &pod),
        ] {
            if let Some(value) = value {
                text(name, value)?;
            }
        }
        let (from, until) = (time("from", from)?, time("until", until)?);
        if from.zip(until).is_some_and(|(from, until)| from >= until) {
            return Err(malformed("until is after from"));
        }
        Ok(HoldInfo {
            name,
            reason: why,
            user: String::new(),
            session,
            stream,
            namespace,
            pod,
            everything,
            from: from.map(|time| time.to_string()),
            until: until.map(|time| time.to_string()),
        })
    }
}

fn reason(text: &str) -> Result<(), Refusal> {
    self::text("reason", text)
}

fn text(name: &str, text: &str) -> Result<(), Refusal> {
    match text.trim().is_empty() || text.len() > MAX_TEXT_BYTES {
        true => Err(malformed(format!(
            "{name} is a text of {MAX_TEXT_BYTES} bytes at most, and not empty"
        ))),
        false => Ok(()),
    }
}

fn time(name: &str, text: Option<String>) -> Result<Option<Timestamp>, Refusal> {
    let wrong = |_| malformed(format!("{name} is a time like 2026-11-29T10:00:00Z"));
    text.map(|text| text.parse().map_err(wrong)).transpose()
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    let slow = |_| {
        Refusal::new(
            Code::Slow,
            format!("the body took more than {} s", BODY_TIMEOUT.as_secs()),
        )
    };
    let bytes = timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES))
        .await
        .map_err(slow)?;
    let bytes = bytes.map_err(|_| {
        Refusal::new(
            Code::TooLarge,
            format!("the body has at most {MAX_BODY_BYTES} bytes"),
        )
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| malformed(format!("the body is not what is asked for: {error}")))
}
