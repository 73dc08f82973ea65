//! Login by an OpenID provider, for a browser: there and back.
//!
//! Owns logins that are under way. Refuses an answer that another browser asked for: what the provider's answer names (`state`) and what the browser has (a cookie) must be of one question, which is answered once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{RawQuery, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{HOST, REFRESH},
    },
    response::Response,
};
use chaperone_console::logged_in;
use chaperone_index::query::parameters;
use sha2::{Digest, Sha256};

use super::{Console, cookie_of, guard, html, see, set_cookie};
use crate::{
    oidc::{Begun, Oidc},
    random,
    refusal::{Code, Refusal},
};

/// The cookie of a browser whose login is under way. `Lax`: the provider's redirect has to carry it.
const COOKIE_NAME: &str = "__Host-chaperone-login";
/// How long a login may be under way, and how many at a time.
const PATIENCE: Duration = Duration::from_secs(600);
const MAX_PENDING: usize = 1024;
/// How long a login holds. Then the provider is asked again, mostly without a question to the user.
const LIFE: Duration = Duration::from_secs(60 * 60);

type Hash = [u8; 32];

struct Pending {
    begun: Begun,
    browser: Hash,
    then: String,
    at: Instant,
}

/// Logins by a provider.
pub(super) struct Logins {
    pub(super) oidc: Oidc,
    pending: Mutex<HashMap<String, Pending>>,
}

impl Logins {
    pub(super) fn new(oidc: Oidc) -> Self {
        Self {
            oidc,
            pending: Mutex::default(),
        }
    }

    /// The oldest makes room: logins are begun at a bounded rate, so that it has had minutes.
    fn put(&self, pending: Pending) {
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, pending| pending.at.elapsed() < PATIENCE);
        let oldest = all.iter().min_by_key(|(_, pending)| pending.at);
        let oldest = oldest.map(|(state, _)| state.clone());
        if all.len() >= MAX_PENDING
            && let Some(oldest) = oldest
        {
            all.remove(&oldest);
        }
        all.insert(pending.begun.state.clone(), pending);
    }

    /// The question of this name and browser. Whatever comes of it, it is not there any more.
    fn take(&self, state: &str, browser: Option<&str>) -> Option<Pending> {
        let mut all = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = all.remove(state)?;
        let is_own = browser.is_some_and(|browser| hash(browser) == pending.browser);
        (is_own && pending.at.elapsed() < PATIENCE).then_some(pending)
    }
}

/// To the provider.
pub(super) async fn begin(
    State(console): State<Arc<Console>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let result = console.begin_provided(query.as_deref(), &headers).await;
    result.unwrap_or_else(|why| console.refuse_login("", &why))
}

/// Back from the provider.
pub(super) async fn callback(
    State(console): State<Arc<Console>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let result = console.finish_provided(query.as_deref(), &headers).await;
    if result.is_ok() {
        console.count_login("ok");
    }
    let mut response = result.unwrap_or_else(|why| console.refuse_login("", &why));
    set_cookie(
        &mut response,
        &format!("{COOKIE_NAME}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"),
    );
    response
}

impl Console {
    fn provided(&self) -> Result<&Logins, Refusal> {
        let why = "this console knows no provider of logins (--oidc-issuer-url)";
        self.provider
            .as_ref()
            .ok_or_else(|| Refusal::new(Code::NotFound, why))
    }

    async fn begin_provided(
        &self,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let logins = self.provided()?;
        self.may_try()?;
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.filter(|host| is_host(host)).ok_or_else(|| {
            let why = "the request does not say where it came to (Host)";
            Refusal::new(Code::Malformed, why)
        })?;
        let words = parameters(query.unwrap_or_default()).unwrap_or_default();
        let then = words.into_iter().find(|(name, _)| name == "then");
        let (url, begun) = logins.oidc.begin(host).await?;
        let browser = random::name()?;
        logins.put(Pending {
            begun,
            browser: hash(&browser),
            then: guard::within(&then.map_or(String::new(), |(_, then)| then)),
            at: Instant::now(),
        });
        let mut response = see(&url);
        set_cookie(
            &mut response,
            &format!(
                "{COOKIE_NAME}={browser}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={}",
                PATIENCE.as_secs()
            ),
        );
        Ok(response)
    }

    async fn finish_provided(
        &self,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let logins = self.provided()?;
        let words = parameters(query.unwrap_or_default());
        let words = words.map_err(|why| Refusal::new(Code::Malformed, why.to_string()))?;
        let word = |name: &str| {
            let found = words.iter().find(|(known, _)| known == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        let pending = logins
            .take(word("state"), cookie_of(headers, COOKIE_NAME))
            .ok_or_else(|| {
                let why = "this login was not begun in this browser, or took too long: begin again";
                Refusal::new(Code::Unauthenticated, why)
            })?;
        // RFC 9207: another provider's answer to our question.
        let issuer = word("iss");
        if !issuer.is_empty() && issuer != logins.oidc.issuer() {
            let why = "another provider answered";
            return Err(Refusal::new(Code::Unauthenticated, why));
        }
        if !word("error").is_empty() {
            let said = [word("error"), word("error_description")].join(" ");
            let said: String = said.chars().take(200).collect();
            let why = format!("the provider says no: {}", said.trim());
            return Err(Refusal::new(Code::Unauthenticated, why));
        }
        let user = logins.oidc.finish(pending.begun, word("code")).await?;
        let name = user.name.clone();
        let token = self.api.authenticator().vouch(user, LIFE)?;
        let cookie = self.begin_login(headers, token, &name)?;
        // Not a redirect: one that another site began does not carry a `Strict` cookie. From this page, which is ours, it is carried.
        let text = logged_in(&self.frame(None), &name, &pending.then);
        let mut response = html(StatusCode::OK, text);
        set_cookie(&mut response, &cookie);
        if let Ok(next) = HeaderValue::from_str(&format!("0; url={}", pending.then)) {
            response.headers_mut().insert(REFRESH, next);
        }
        Ok(response)
    }
}

/// Name or address, and port.
fn is_host(host: &str) -> bool {
    let is_of_host = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    !host.is_empty() && host.len() <= 255 && host.bytes().all(is_of_host)
}

fn hash(text: &str) -> Hash {
    Sha256::digest(text).into()
}
