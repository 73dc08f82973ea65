//! The web console: pages of what the API answers, for a browser. docs/console.md has it for users.
//!
//! Owns logins and the way from a request to a page. Refuses every other way to records: each page asks the functions that the API asks, with the token that the user gave at login, so that rights, bounds and the record of who read are theirs.
//! Invariant: a page is HTML of `chaperone_console`, in which nothing runs that is not a file of ours.

mod guard;
mod impact;
mod logins;
mod pages;
mod provider;
mod rule;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Path, RawQuery, Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, ETAG, LOCATION, SET_COOKIE},
    },
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chaperone_console::{Frame, Notice, assets, link::ROOT, login, refusal};
use chaperone_index::query::{encoded, parameters};
use chaperone_server::reviews::MAX_TOKEN_BYTES;
use tokio::time::timeout;

use crate::{
    api::Api,
    authenticate::Sight,
    metrics::Route,
    oidc::Oidc,
    refusal::{Code, Refusal},
};
use logins::{Login, Logins};

/// The cookie: `__Host-` has browsers refuse it without `Secure`, with a domain, or of another path (RFC 6265bis section 4.1.3.2).
const COOKIE_NAME: &str = "__Host-chaperone-console";
/// Bytes of a login's form: a token, each byte of it encoded, and a path.
const MAX_FORM_BYTES: usize = 4 * MAX_TOKEN_BYTES;
/// How long a form may take.
const FORM_TIMEOUT: Duration = Duration::from_secs(10);

/// What the console answers from.
pub struct Console {
    api: Arc<Api>,
    origin: String,
    logins: Logins,
    /// Logins by a provider, if there is one.
    provider: Option<provider::Logins>,
}

impl Console {
    /// A console over this API, with a provider of logins besides tokens or without one.
    #[must_use]
    pub fn new(api: Arc<Api>, origin: String, oidc: Option<Oidc>) -> Self {
        Self {
            api,
            origin,
            logins: Logins::default(),
            provider: oidc.map(provider::Logins::new),
        }
    }

    fn frame<'a>(&'a self, user: Option<&'a str>) -> Frame<'a> {
        Frame {
            user,
            origin: &self.origin,
        }
    }

    fn login(&self, headers: &HeaderMap) -> Option<Login> {
        self.logins.find(cookie(headers)?)
    }

    /// Counts what came of a page, and makes one of a refusal. A token that is not accepted any more ends its login.
    fn answer(
        &self,
        result: Result<Response, Refusal>,
        login: &Login,
        headers: &HeaderMap,
    ) -> Response {
        self.api.count(Route::Console, &result);
        let refused = match result {
            Ok(response) => return response,
            Err(refused) => refused,
        };
        if refused.code == Code::Unauthenticated {
            if let Some(id) = cookie(headers) {
                self.logins.end(id);
                self.tell_logins();
            }
            return self.login_page("", Some(&refused));
        }
        let frame = self.frame(Some(&login.user));
        let notice = notice(&refused);
        html(refused.code.status(), refusal(&frame, &notice))
    }

    fn login_page(&self, then: &str, why: Option<&Refusal>) -> Response {
        let status = why.map_or(StatusCode::OK, |why| why.code.status());
        let why = why.map(notice);
        let provider = self.provider.as_ref().map(|logins| logins.oidc.issuer());
        let text = login(&self.frame(None), then, provider, why.as_ref());
        html(status, text)
    }

    /// Counts a login that failed, and says why.
    fn refuse_login(&self, then: &str, why: &Refusal) -> Response {
        self.count_login(match why.code {
            // Nothing else is forbidden at a login.
            Code::Forbidden => "cross-site",
            Code::Busy => "busy",
            Code::Unavailable => "unavailable",
            Code::Unauthenticated => "refused",
            _ => "malformed",
        });
        self.login_page(&guard::within(then), Some(why))
    }

    fn count_login(&self, word: &str) {
        let logins = &self.api.metrics().logins;
        logins.with_label_values(&[word]).inc();
        self.tell_logins();
    }

    fn may_try(&self) -> Result<(), Refusal> {
        let why = "too many logins are tried; try again in a second";
        let may = self.logins.may_try();
        may.then_some(())
            .ok_or_else(|| Refusal::new(Code::Busy, why))
    }

    /// Begins a login, in place of the browser's one before. Its cookie.
    fn begin_login(
        &self,
        headers: &HeaderMap,
        token: String,
        user: &str,
    ) -> Result<String, Refusal> {
        if let Some(id) = cookie(headers) {
            self.logins.end(id);
        }
        let id = self.logins.begin(token, user.to_owned())?;
        tracing::info!(user, "logged in to the console");
        Ok(format!(
            "{COOKIE_NAME}={id}; Path=/; Secure; HttpOnly; SameSite=Strict"
        ))
    }

    async fn log_in(&self, headers: &HeaderMap, body: Body) -> Result<Response, (String, Refusal)> {
        let nowhere = |why| (String::new(), why);
        if !guard::is_same_origin(headers) {
            let why = "the form was not sent from a page of this console";
            return Err(nowhere(Refusal::new(Code::Forbidden, why)));
        }
        self.may_try().map_err(nowhere)?;
        let (token, then) = read_form(body).await.map_err(nowhere)?;
        // Who it is; what may be seen is asked with each page.
        let authenticator = self.api.authenticator();
        let asked = authenticator
            .reader(&token, Sight::LIST_SESSIONS, None)
            .await;
        let reader = asked.map_err(|why| (then.clone(), why))?;
        let begun = self.begin_login(headers, token, &reader.user.name);
        let cookie = begun.map_err(|why| (then.clone(), why))?;
        let mut response = see(&guard::within(&then));
        set_cookie(&mut response, &cookie);
        Ok(response)
    }

    fn tell_logins(&self) {
        let count = i64::try_from(self.logins.count()).unwrap_or(i64::MAX);
        self.api.metrics().console_sessions.set(count);
    }
}

/// All pages.
pub fn router(console: Console) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/console", get(home))
        .route("/console/", get(home))
        .route("/console/login", get(login_form).post(log_in))
        .route("/console/logout", post(log_out))
        .route("/console/oidc/login", get(provider::begin))
        .route("/console/oidc/callback", get(provider::callback))
        .route("/console/sessions", get(pages::sessions))
        .route("/console/session", get(pages::session))
        .route("/console/records", get(pages::records))
        .route("/console/records/{stream}/{seq}", get(pages::record))
        .route("/console/records/{stream}/{seq}/raw", get(pages::raw))
        .route("/console/records/{stream}/{seq}/proof", get(pages::proof))
        .route("/console/gaps", get(pages::gaps))
        .route(
            "/console/impact",
            get(pages::impact_form).post(pages::impact),
        )
        .route("/console/live", get(pages::live))
        .route("/console/live/rows", get(pages::live_rows))
        .route("/console/assets/{version}/{name}", get(asset))
        .layer(map_response(guard::secure))
        .with_state(Arc::new(console))
}

async fn home() -> Response {
    see(&format!("{ROOT}/sessions"))
}

async fn login_form(State(console): State<Arc<Console>>, RawQuery(query): RawQuery) -> Response {
    let words = parameters(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let then = words.into_iter().find(|(name, _)| name == "then");
    let then = then.map_or(String::new(), |(_, then)| guard::within(&then));
    console.login_page(&then, None)
}

async fn log_in(State(console): State<Arc<Console>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let result = console.log_in(&head.headers, body).await;
    match result {
        Ok(response) => {
            console.count_login("ok");
            response
        }
        Err((then, why)) => console.refuse_login(&then, &why),
    }
}

async fn log_out(State(console): State<Arc<Console>>, headers: HeaderMap) -> Response {
    if !guard::is_same_origin(&headers) {
        let why = "the form was not sent from a page of this console";
        return console.login_page("", Some(&Refusal::new(Code::Forbidden, why)));
    }
    if let Some(id) = cookie(&headers) {
        console.logins.end(id);
        console.tell_logins();
    }
    let mut response = see(&format!("{ROOT}/login"));
    set_cookie(
        &mut response,
        &format!("{COOKIE_NAME}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"),
    );
    response
}

async fn asset(Path((version, name)): Path<(String, String)>) -> Response {
    let Some(asset) = assets::find(&version, &name) else {
        return Refusal::new(Code::NotFound, "there is no such file").into_response();
    };
    let mut response = asset.text.into_response();
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    head.insert(CACHE_CONTROL, forever);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{version}\"")) {
        head.insert(ETAG, tag);
    }
    response
}

/// To the login, and from there to where one wanted to go.
fn log_in_first(uri: &axum::http::Uri) -> Response {
    let then = uri.path_and_query().map_or("/", |path| path.as_str());
    see(&format!("{ROOT}/login?then={}", encoded(then)))
}

/// Names and values of a form.
async fn read_pairs(body: Body) -> Result<Vec<(String, String)>, Refusal> {
    let malformed = |why: &str| Refusal::new(Code::Malformed, why);
    let bytes = timeout(FORM_TIMEOUT, to_bytes(body, MAX_FORM_BYTES)).await;
    let bytes = bytes
        .map_err(|_| Refusal::new(Code::Slow, "the form took too long"))?
        .map_err(|_| malformed("the form is too large, or broke off"))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| malformed("the form is no text"))?;
    parameters(text).map_err(|why| Refusal::new(Code::Malformed, why.to_string()))
}

/// Token and page to come to, of a login's form.
async fn read_form(body: Body) -> Result<(String, String), Refusal> {
    let malformed = |why: &str| Refusal::new(Code::Malformed, why);
    let pairs = read_pairs(body).await?;
    let value = |name: &str| {
        let found = pairs.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.trim())
    };
    let token = value("token");
    // Visible ASCII, as a header field could carry it (RFC 6750 section 2.1).
    if token.is_empty()
        || token.len() > MAX_TOKEN_BYTES
        || !token.bytes().all(|b| b.is_ascii_graphic())
    {
        return Err(malformed("this is no token: paste what kubectl printed"));
    }
    Ok((token.to_owned(), value("then").to_owned()))
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    cookie_of(headers, COOKIE_NAME)
}

fn cookie_of<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).into_iter();
    let pairs = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    pairs
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value)
}

fn set_cookie(response: &mut Response, cookie: &str) {
    let value = HeaderValue::from_str(cookie).expect("hex digits and our own words are visible");
    response.headers_mut().append(SET_COOKIE, value);
}

fn notice(refused: &Refusal) -> Notice<'_> {
    let title = match refused.code {
        Code::Unauthenticated => "The login is not accepted",
        Code::Forbidden => "You may not see this",
        Code::NotFound => "There is no such thing",
        Code::Malformed => "The question cannot be read",
        Code::Ambiguous => "Several have this name",
        Code::TooSlow => "Too much is asked for",
        _ => "Not now",
    };
    Notice {
        title,
        message: &refused.message,
    }
}

fn html(status: StatusCode, text: String) -> Response {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    (status, [(CONTENT_TYPE, kind)], text).into_response()
}

/// A redirect to a page of ours, which is got.
fn see(path: &str) -> Response {
    let place = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static(ROOT));
    (StatusCode::SEE_OTHER, [(LOCATION, place)]).into_response()
}
