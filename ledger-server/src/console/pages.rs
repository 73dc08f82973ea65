//! The pages: from a request to what the API's own functions answer, to HTML.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequestParts, Path, RawQuery, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use chaperone_console::{
    Extent, GapsPage, LivePage, RecordPage, RecordsPage, Resumed, SessionPage, SessionsPage, Shown,
    form::Asked, gaps as gaps_page, live as live_page, live_rows as rows_text,
    record as record_page, records as records_page, session as session_page,
    sessions as sessions_page,
};
use chaperone_index::store::Found;
use jiff::{SignedDuration, Timestamp};

use super::{Console, guard, html, log_in_first, logins::Login, notice, read_pairs, rule::Text};
use crate::{
    api::questions::{self, Told, Words, held},
    refusal::{Code, Refusal},
};

/// Records of a page of a session.
const SESSION_RECORDS: &str = "200";
/// Records that the live page begins with.
const LIVE_RECORDS: &str = "50";
/// Names of parameters that are times.
const TIMES: [&str; 2] = ["since", "until"];

/// A request of somebody who is logged in; others are led to the login.
pub(super) struct Visit {
    console: Arc<Console>,
    login: Login,
    query: Option<String>,
    headers: HeaderMap,
}

impl FromRequestParts<Arc<Console>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(
        head: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Self, Response> {
        let login = console.login(&head.headers);
        Ok(Self {
            login: login.ok_or_else(|| log_in_first(&head.uri))?,
            console: console.clone(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers.clone(),
        })
    }
}

impl Visit {
    fn answer(&self, result: Result<Response, Refusal>) -> Response {
        self.console.answer(result, &self.login, &self.headers)
    }

    fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
}

pub(super) async fn sessions(visit: Visit) -> Response {
    let Visit { console, login, .. } = &visit;
    visit.answer(console.sessions(login, visit.query()).await)
}

pub(super) async fn session(visit: Visit) -> Response {
    let Visit { console, login, .. } = &visit;
    visit.answer(console.session(login, visit.query()).await)
}

pub(super) async fn records(visit: Visit) -> Response {
    let Visit { console, login, .. } = &visit;
    visit.answer(console.records(login, visit.query()).await)
}

type Named = Path<(String, String)>;

pub(super) async fn record(visit: Visit, Path((stream, seq)): Named) -> Response {
    let Visit { console, login, .. } = &visit;
    visit.answer(console.record(login, &stream, &seq, visit.query()).await)
}

pub(super) async fn raw(visit: Visit, Path((stream, seq)): Named) -> Response {
    let Visit { console, login, .. } = &visit;
    visit.answer(console.raw(login, &stream, &seq, visit.query()).await)
}

pub(super) async fn proof(visit: Visit, Path((stream, seq)): Named) -> Response {
    let Visit { console, login, .. } = &visit;
    visit.answer(console.proof(login, &stream, &seq, visit.query()).await)
}

pub(super) async fn live(visit: Visit) -> Response {
    let Visit { console, login, .. } = &visit;
    visit.answer(console.live(login, visit.query()).await)
}

pub(super) async fn gaps(visit: Visit) -> Response {
    let Visit { console, login, .. } = &visit;
    visit.answer(console.gaps(login, visit.query()).await)
}

pub(super) async fn impact_form(visit: Visit) -> Response {
    let Visit { console, login, .. } = &visit;
    let asked = asked(visit.query());
    visit.answer(asked.map(|asked| html(StatusCode::OK, console.impact_form(login, &asked))))
}

/// A form that changes nothing and costs a look at records: it is taken from pages of ours alone, as all forms are.
pub(super) async fn impact(visit: Visit, request: Request) -> Response {
    let Visit {
        console,
        login,
        headers,
        ..
    } = &visit;
    let ask = async {
        if !guard::is_same_origin(headers) {
            let why = "the form was not sent from a page of this console";
            return Err(Refusal::new(Code::Forbidden, why));
        }
        let words = said(read_pairs(request.into_body()).await?.into_iter().collect());
        console.impact(login, words).await
    };
    visit.answer(ask.await)
}

/// For the script of the page: without a login it is told so, and not led to a form.
pub(super) async fn live_rows(
    State(console): State<Arc<Console>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(login) = console.login(&headers) else {
        let why = "log in first";
        return Refusal::new(Code::Unauthenticated, why).into_response();
    };
    let result = console.live_rows(&login, query.as_deref()).await;
    console.answer(result, &login, &headers)
}

impl Console {
    async fn sessions(&self, login: &Login, query: Option<&str>) -> Result<Response, Refusal> {
        let asked = asked(query)?;
        let told = self.api.sessions(&login.token, asked.clone()).await;
        let told = or_refused(told)?.map(|told| (extent(&told), told));
        let page = SessionsPage {
            asked: &asked,
            found: match &told {
                Ok((extent, told)) => Ok((&told.answer, extent)),
                Err(why) => Err(notice(why)),
            },
        };
        let text = sessions_page(&self.frame(Some(&login.user)), &page);
        Ok(shown(told.map(|(_, told)| told), text))
    }

    async fn session(&self, login: &Login, query: Option<&str>) -> Result<Response, Refusal> {
        let mut words = asked(query)?;
        let id = words.remove("id").unwrap_or_default();
        let from = words.remove("from").unwrap_or_default();
        let cursor = words.remove("cursor");
        let session = self
            .api
            .session(&login.token, &id, words.clone())
            .await?
            .answer;
        let more = [("order", "asc"), ("limit", SESSION_RECORDS)];
        words.extend(more.map(|(name, value)| (name.to_owned(), value.to_owned())));
        words.extend(cursor.map(|cursor| ("cursor".to_owned(), cursor)));
        let told = self.api.session_records(&login.token, &id, words).await;
        let told = or_refused(told)?.map(|told| (extent(&told), told));
        let rows = told
            .as_ref()
            .map_or(Vec::new(), |(_, told)| rows(&told.answer));
        let page = SessionPage {
            session: &session,
            records: match &told {
                Ok((extent, _)) => Ok((&rows, extent)),
                Err(why) => Err(notice(why)),
            },
            from: Resumed::read(&from),
        };
        let text = session_page(&self.frame(Some(&login.user)), &page);
        Ok(shown(told.map(|(_, told)| told), text))
    }

    async fn records(&self, login: &Login, query: Option<&str>) -> Result<Response, Refusal> {
        let mut asked = asked(query)?;
        // Nothing is asked by coming to the form.
        let is_asked = asked.remove("ask").is_some() || !asked.is_empty();
        if !is_asked {
            let page = RecordsPage {
                asked: &asked,
                found: None,
            };
            let text = records_page(&self.frame(Some(&login.user)), &page);
            return Ok(html(StatusCode::OK, text));
        }
        let told = self.api.records(&login.token, asked.clone()).await;
        let told = or_refused(told)?.map(|told| (extent(&told), told));
        let rows = told
            .as_ref()
            .map_or(Vec::new(), |(_, told)| rows(&told.answer));
        let page = RecordsPage {
            asked: &asked,
            found: Some(match &told {
                Ok((extent, _)) => Ok((&rows, extent)),
                Err(why) => Err(notice(why)),
            }),
        };
        let text = records_page(&self.frame(Some(&login.user)), &page);
        Ok(shown(told.map(|(_, told)| told), text))
    }

    async fn record(
        &self,
        login: &Login,
        stream: &str,
        seq: &str,
        query: Option<&str>,
    ) -> Result<Response, Refusal> {
        let words = asked(query)?;
        let namespace = words.get("namespace").cloned();
        let token = &login.token;
        let told = self.api.record(token, stream, seq, words).await?;
        let found = &told.answer;
        let rule = Text::find(&self.api, token, found, namespace.as_deref()).await?;
        let page = RecordPage {
            shown: row(found),
            extent: &extent(&told),
            rule: rule.shown(),
        };
        let text = record_page(&self.frame(Some(&login.user)), &page);
        Ok(shown(Ok(told), text))
    }

    /// The record's line as a file: nothing of it is shown by the browser.
    async fn raw(
        &self,
        login: &Login,
        stream: &str,
        seq: &str,
        query: Option<&str>,
    ) -> Result<Response, Refusal> {
        let words = asked(query)?;
        let told = self.api.record(&login.token, stream, seq, words).await?;
        let Found {
            stream, seq, line, ..
        } = told.answer;
        Ok(file(held(line, told.room), &format!("{stream}-{seq}.json")))
    }

    /// The text that proves that the record is in the log.
    async fn proof(
        &self,
        login: &Login,
        stream: &str,
        seq: &str,
        query: Option<&str>,
    ) -> Result<Response, Refusal> {
        let words = asked(query)?;
        let told = self.api.proof(&login.token, stream, seq, words).await?;
        let name = format!("{stream}-{seq}.tlog-proof");
        Ok(file(held(told.answer, told.room), &name))
    }

    async fn live(&self, login: &Login, query: Option<&str>) -> Result<Response, Refusal> {
        let asked = asked(query)?;
        let mut words = asked.clone();
        words.insert("limit".to_owned(), LIVE_RECORDS.to_owned());
        let told = or_refused(self.api.records(&login.token, words).await)?;
        let rows = told.as_ref().map_or(Vec::new(), |told| rows(&told.answer));
        let page = LivePage {
            asked: &asked,
            found: match &told {
                Ok(told) => Ok((&rows, told.extent.indexed)),
                Err(why) => Err(notice(why)),
            },
        };
        let text = live_page(&self.frame(Some(&login.user)), &page);
        Ok(shown(told, text))
    }

    async fn gaps(&self, login: &Login, query: Option<&str>) -> Result<Response, Refusal> {
        let asked = asked(query)?;
        let told = or_refused(self.api.gaps(&login.token, asked.clone()).await)?;
        let page = GapsPage {
            asked: &asked,
            found: told.as_ref().map(|told| &told.answer).map_err(notice),
        };
        let text = gaps_page(&self.frame(Some(&login.user)), &page);
        Ok(shown(told, text))
    }

    /// Rows of records that are new, when there are some.
    async fn live_rows(&self, login: &Login, query: Option<&str>) -> Result<Response, Refusal> {
        let mut words = asked(query)?;
        let after = words.remove("after").and_then(|after| after.parse().ok());
        let why = "after is the leaf from which on records are new";
        let after: u64 = after.ok_or_else(|| Refusal::new(Code::Malformed, why))?;
        let told = self.api.watch(&login.token, words, after).await?;
        let text = rows_text(&rows(&told.answer));
        let next = told.extent.indexed.max(after);
        let is_cut = told.extent.cursor.is_some();
        let mut response = shown(Ok(told), text);
        let head = response.headers_mut();
        head.insert("chaperone-after", HeaderValue::from(next));
        let is_cut = if is_cut { "true" } else { "false" };
        head.insert("chaperone-cut", HeaderValue::from_static(is_cut));
        Ok(response)
    }
}

/// A file that the browser keeps and does not show.
fn file(body: Body, name: &str) -> Response {
    let mut response = body.into_response();
    let head = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    head.insert(CONTENT_TYPE, kind);
    let nothing = HeaderValue::from_static("sandbox; default-src 'none'");
    head.insert(CONTENT_SECURITY_POLICY, nothing);
    let name = format!("attachment; filename=\"{name}\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        head.insert(CONTENT_DISPOSITION, name);
    }
    response
}

/// The parameters that say something. Forms send empty fields too.
fn asked(query: Option<&str>) -> Result<Asked, Refusal> {
    Ok(said(questions::words(query)?))
}

fn said(mut words: Words) -> Asked {
    for value in words.values_mut() {
        *value = value.trim().to_owned();
    }
    words.retain(|_, value| !value.is_empty());
    let now = Timestamp::now();
    for name in TIMES {
        if let Some(value) = words.get_mut(name) {
            *value = time(value, now);
        }
    }
    words
}

/// A time, or so long ago: what follows from a page then means the same time.
fn time(text: &str, now: Timestamp) -> String {
    let ago = text.parse::<SignedDuration>().ok();
    let time = ago.and_then(|ago| now.checked_sub(ago).ok());
    time.map_or_else(|| text.to_owned(), |time| format!("{time:.0}"))
}

/// A refusal that belongs into the page, above its form; a token that is not accepted is none.
fn or_refused<T>(told: Result<T, Refusal>) -> Result<Result<T, Refusal>, Refusal> {
    match told {
        Err(refused) if refused.code == Code::Unauthenticated => Err(refused),
        other => Ok(other),
    }
}

/// A page, which holds its answer's room until it has left.
fn shown<T>(told: Result<Told<T>, Refusal>, text: String) -> Response {
    match told {
        Ok(told) => {
            let kind = HeaderValue::from_static("text/html; charset=utf-8");
            ([(CONTENT_TYPE, kind)], held(text, told.room)).into_response()
        }
        Err(refused) => html(refused.code.status(), text),
    }
}

pub(super) fn extent<T>(told: &Told<T>) -> Extent {
    Extent {
        indexed: told.extent.indexed,
        committed: told.extent.committed,
        cursor: told.extent.cursor.clone(),
    }
}

fn rows(found: &[Found]) -> Vec<Shown<'_>> {
    found.iter().map(row).collect()
}

pub(super) fn row(found: &Found) -> Shown<'_> {
    Shown {
        leaf: found.leaf,
        stream: found.stream.as_str(),
        seq: found.seq,
        namespace: &found.whose.namespace,
        line: &found.line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_long_ago_is_a_time() {
        let now: Timestamp = "2026-11-29T10:00:00.5Z".parse().unwrap();
        assert_eq!(time("2h", now), "2026-11-29T08:00:00Z");
        assert_eq!(time("2026-11-29T10:00:00Z", now), "2026-11-29T10:00:00Z");
        assert_eq!(time("soon", now), "soon");
    }

    #[test]
    fn empty_fields_of_a_form_ask_nothing() {
        let words = asked(Some("namespace=&q=+a+&host=%20")).unwrap();
        assert_eq!(
            words.into_iter().collect::<Vec<_>>(),
            [("q".to_owned(), "a".to_owned())]
        );
    }
}
