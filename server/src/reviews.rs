//! Who calls: from a bearer token to a user, and to the pod that the token is bound to.
//!
//! The API server judges the token (TokenReview, one audience only). A verdict is remembered for a minute at most, and never beyond the token's own end. Refuses tokens for another audience, and floods:
//! few reviews run at a time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use crate::remembered::Remembered;

/// How long a token that the API server accepted is not asked about again, at most.
pub const REVIEW_LIFE: Duration = Duration::from_secs(60);
/// Reviews that are remembered.
pub const MAX_REVIEWS: usize = 4096;
/// Reviews under way at a time: a flood of made-up tokens must not become one on the API server.
const MAX_CONCURRENT_REVIEWS: usize = 16;
/// How long a review may take, waiting included.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest token, in bytes; service-account tokens have 1 to 2 kB.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Extra field of a review: name of the pod that a token is bound to.
pub const EXTRA_POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// Extra field of a review: uid of that pod.
pub const EXTRA_POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a token names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// There is no bearer token, or none of reasonable size.
    #[error("no bearer token")]
    NoToken,
    /// The API server does not accept the token for the audience, or it is not bound to a pod.
    #[error("{0}")]
    BadToken(&'static str),
    /// The API server gave no verdict.
    #[error("the API server did not judge the token")]
    Unavailable,
}

/// SHA-256 of a token: what verdicts are remembered by.
pub type TokenDigest = [u8; 32];

/// A user, as TokenReview names one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Uid; may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Further fields.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The pod that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Namespace of the pod and its service account.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
    /// Name of the pod.
    pub pod: String,
    /// Uid of the pod.
    pub uid: String,
}

/// A user, and how long that holds.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Who.
    pub user: Arc<User>,
    /// What the token is remembered by.
    pub token: TokenDigest,
    /// How long what follows from it may be remembered: a minute, or until the token ends.
    pub life: Duration,
}

/// Asks about tokens of one audience.
pub struct Reviews {
    api: Api<TokenReview>,
    audience: &'static str,
    known: Remembered<TokenDigest, Verdict>,
    slots: Semaphore,
}

impl Reviews {
    /// Asks this API server.
    #[must_use]
    pub fn new(client: Client, audience: &'static str) -> Self {
        Self {
            api: Api::all(client),
            audience,
            known: Remembered::new(MAX_REVIEWS),
            slots: Semaphore::new(MAX_CONCURRENT_REVIEWS),
        }
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// [`TokenRefused`], if it is nobody's or the API server does not answer.
    pub async fn user(&self, token: &str) -> Result<Verdict, TokenRefused> {
        let digest = Sha256::digest(token.as_bytes()).into();
        if let Some(verdict) = self.known.get(&digest) {
            return Ok(verdict);
        }
        let status = self.ask(token).await.ok_or(TokenRefused::Unavailable)?;
        let verdict = Verdict {
            user: Arc::new(read(status, self.audience)?),
            token: digest,
            life: life(expiry(token), SystemTime::now()),
        };
        self.known.put(digest, verdict.clone(), verdict.life);
        Ok(verdict)
    }

    async fn ask(&self, token: &str) -> Option<TokenReviewStatus> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.audience.to_owned()]),
            },
            ..TokenReview::default()
        };
        let ask = async {
            let _slot = self.slots.acquire().await.ok()?;
            match self.api.create(&PostParams::default(), &review).await {
                Ok(review) => Some(review.status.unwrap_or_default()),
                Err(error) => {
                    tracing::warn!(%error, "TokenReview failed");
                    None
                }
            }
        };
        timeout(REVIEW_TIMEOUT, ask).await.ok().flatten()
    }
}

impl User {
    /// The pod that the token was bound to.
    ///
    /// # Errors
    /// [`TokenRefused::BadToken`] if it is not one of a service account, or not bound to a pod.
    pub fn pod(&self) -> Result<Caller, TokenRefused> {
        let (namespace, service_account) = self
            .name
            .strip_prefix("system:serviceaccount:")
            .and_then(|rest| rest.split_once(':'))
            .ok_or(TokenRefused::BadToken("it is not one of a service account"))?;
        let bound = |key: &str| {
            let value = self.extra.get(key)?.first()?;
            (!value.is_empty()).then(|| value.clone())
        };
        let unbound = TokenRefused::BadToken("it is not bound to a pod");
        Ok(Caller {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            pod: bound(EXTRA_POD_NAME).ok_or(unbound.clone())?,
            uid: bound(EXTRA_POD_UID).ok_or(unbound)?,
        })
    }
}

/// The bearer token of a request (RFC 6750, section 2.1).
///
/// # Errors
/// [`TokenRefused::NoToken`].
pub fn bearer(headers: &HeaderMap) -> Result<&str, TokenRefused> {
    let value = headers.get(AUTHORIZATION).ok_or(TokenRefused::NoToken)?;
    let value = value.to_str().map_err(|_| TokenRefused::NoToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(TokenRefused::NoToken)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(TokenRefused::NoToken);
    }
    Ok(token)
}

/// What a review says of a token.
fn read(status: TokenReviewStatus, audience: &str) -> Result<User, TokenRefused> {
    if status.authenticated != Some(true) {
        return Err(TokenRefused::BadToken("it is not valid"));
    }
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|found| found == audience) {
        return Err(TokenRefused::BadToken("it is for another audience"));
    }
    let user = status.user.unwrap_or_default();
    Ok(User {
        name: user.username.unwrap_or_default(),
        uid: user.uid.unwrap_or_default(),
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })
}

/// When a token ends, in seconds since 1970, as it says itself (RFC 7519, section 4.1.4). Read only of tokens that the API server has accepted, so it is the API server's own word; none of a token that is no JWT.
fn expiry(token: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&payload).ok()?;
    Some(claims.exp)
}

fn life(expiry: Option<u64>, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    expiry.map_or(REVIEW_LIFE, |end| {
        Duration::from_secs(end)
            .saturating_sub(now)
            .min(REVIEW_LIFE)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const AUDIENCE: &str = "chaperone.dev/operator";

    fn status(change: impl FnOnce(&mut Value)) -> TokenReviewStatus {
        let mut status = json!({
            "authenticated": true, "audiences": [AUDIENCE],
            "user": {
                "username": "system:serviceaccount:agents:coder", "uid": "sa-1", "groups": ["system:serviceaccounts"],
                "extra": {EXTRA_POD_NAME: ["claude-0"], EXTRA_POD_UID: ["u1"]}
            }
        });
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_review_names_namespace_account_pod_and_uid() {
        let user = read(status(|_| {}), AUDIENCE).unwrap();
        assert_eq!(user.groups, ["system:serviceaccounts"]);
        let expected = Caller {
            namespace: "agents".to_owned(),
            service_account: "coder".to_owned(),
            pod: "claude-0".to_owned(),
            uid: "u1".to_owned(),
        };
        assert_eq!(user.pod(), Ok(expected));
    }

    #[test]
    fn a_token_that_is_not_a_sidecars_is_refused() {
        let cases: [fn(&mut Value); 7] = [
            |s| s["authenticated"] = json!(false),
            |s| s["audiences"] = json!(["https://kubernetes.default.svc"]),
            |s| s["audiences"] = json!(null),
            |s| s["user"]["username"] = json!("system:node:n1"),
            |s| s["user"]["extra"] = json!({}),
            |s| s["user"]["extra"][EXTRA_POD_UID] = json!([""]),
            |s| s["user"]["extra"][EXTRA_POD_NAME] = json!([]),
        ];
        for change in cases {
            let refused = read(status(change), AUDIENCE).and_then(|user| user.pod());
            assert!(
                matches!(refused, Err(TokenRefused::BadToken(_))),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn bearer_tokens_are_read_and_nothing_else() {
        let headers = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            headers
        };
        assert_eq!(bearer(&headers("Bearer abc")), Ok("abc"));
        assert_eq!(bearer(&headers("bearer abc")), Ok("abc"));
        for bad in ["Basic abc", "Bearer", "Bearer ", "abc"] {
            assert_eq!(bearer(&headers(bad)), Err(TokenRefused::NoToken), "{bad}");
        }
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        assert_eq!(bearer(&headers(&long)), Err(TokenRefused::NoToken));
        assert_eq!(bearer(&HeaderMap::new()), Err(TokenRefused::NoToken));
    }

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_verdict_never_outlives_its_token() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (claims, seconds) in [
            (r#"{"exp":1000010}"#, 10),
            (r#"{"exp":1003600}"#, 60),
            (r#"{"exp":999999}"#, 0),
            (r#"{"iat":1}"#, 60),
        ] {
            let life = life(expiry(&token(claims)), now);
            assert_eq!(life.as_secs(), seconds, "{claims}");
        }
        assert_eq!(expiry("opaque"), None);
    }

    proptest! {
        #[test]
        fn any_text_has_an_expiry_or_none(text in ".{0,200}", claims in ".{0,60}") {
            let _ = expiry(&text);
            let _ = life(expiry(&token(&claims)), SystemTime::now());
        }
    }
}
