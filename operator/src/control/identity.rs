//! Who calls: from a bearer token to the pod that it belongs to.
//!
//! The API server judges the token (TokenReview, our audience only) and names service account, pod and uid. Then the pod itself is looked at: it
//! must be there with that uid, in an audited namespace, not exempt, and carry our sidecar. Refuses all else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use chaperone_crds::pod::TOKEN_AUDIENCE;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus},
    core::v1::Pod,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use crate::{check, settings::Settings, stores::Stores};

/// How long a token that the API server accepted is not asked about again.
const REVIEW_LIFE: Duration = Duration::from_secs(60);
/// Reviews that are remembered; beyond it, those that ran out go first, then all.
const MAX_REVIEWS: usize = 4096;
/// Reviews under way at a time: a flood of made-up tokens must not become one on the API server.
const MAX_CONCURRENT_REVIEWS: usize = 16;
/// How long a review may take, waiting included.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest token, in bytes; service-account tokens have 1 to 2 kB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How long a pod may take to show in our watch after its sidecar called.
const POD_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked for meanwhile.
const POD_INTERVAL: Duration = Duration::from_millis(100);

/// Extra field of a review: name of the pod that a token is bound to.
const EXTRA_POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// Extra field of a review: uid of that pod.
const EXTRA_POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a control request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no bearer token, or none of reasonable size.
    #[error("no bearer token")]
    NoToken,
    /// The API server does not accept the token for our audience, or it is not bound to a pod.
    #[error("the token is not one of a sidecar: {0}")]
    BadToken(&'static str),
    /// There is no such pod, or it has another uid.
    #[error("the token's pod is not known as an injected pod")]
    UnknownPod,
    /// The pod is there but may not speak as a sidecar.
    #[error("the token's pod may not speak as a sidecar: {0}")]
    NotASidecar(&'static str),
    /// The body cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// Something we need is not there now.
    #[error("{0}; try again")]
    Unavailable(&'static str),
}

impl Refused {
    /// The metric's label.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::BadToken(_) => "bad_token",
            Self::UnknownPod => "unknown_pod",
            Self::NotASidecar(_) => "not_a_sidecar",
            Self::Invalid(_) => "invalid",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::BadToken(_) => StatusCode::UNAUTHORIZED,
            Self::UnknownPod | Self::NotASidecar(_) => StatusCode::FORBIDDEN,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// What a token says, as the API server reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    namespace: String,
    service_account: String,
    pod: String,
    uid: String,
}

/// Knows callers.
pub struct Identities {
    reviews: Api<TokenReview>,
    stores: Stores,
    settings: Arc<Settings>,
    known: Mutex<HashMap<[u8; 32], (Caller, Instant)>>,
    slots: Semaphore,
}

impl Identities {
    /// Asks this API server.
    #[must_use]
    pub fn new(client: Client, stores: Stores, settings: Arc<Settings>) -> Self {
        Self {
            reviews: Api::all(client),
            stores,
            settings,
            known: Mutex::default(),
            slots: Semaphore::new(MAX_CONCURRENT_REVIEWS),
        }
    }

    /// The pod whose sidecar sends these headers. The pod is looked at for every request; only the token's review is remembered.
    ///
    /// # Errors
    /// [`Refused`] if there is none, or the API server does not answer.
    pub async fn pod(&self, headers: &HeaderMap) -> Result<Arc<Pod>, Refused> {
        let token = bearer(headers)?;
        let caller = self.review(token).await?;
        let pod = self.find(&caller).await?;
        let namespace = self.stores.namespace(&caller.namespace);
        let labels = namespace.as_ref().and_then(|n| n.metadata.labels.as_ref());
        if !self.settings.audits(&caller.namespace, labels) {
            return Err(Refused::NotASidecar("its namespace is not audited"));
        }
        judge(&caller, &pod, &self.settings)?;
        Ok(pod)
    }

    async fn find(&self, caller: &Caller) -> Result<Arc<Pod>, Refused> {
        let look = async {
            loop {
                let found = self.stores.pod(&caller.namespace, &caller.pod);
                if let Some(pod) = found.filter(|pod| pod.uid().as_deref() == Some(&caller.uid)) {
                    return pod;
                }
                tokio::time::sleep(POD_INTERVAL).await;
            }
        };
        timeout(POD_PATIENCE, look)
            .await
            .map_err(|_| Refused::UnknownPod)
    }

    async fn review(&self, token: &str) -> Result<Caller, Refused> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(caller) = self.remembered(&key) {
            return Ok(caller);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let ask = async {
            let _slot = self.slots.acquire().await.ok()?;
            let params = PostParams::default();
            match self.reviews.create(&params, &review).await {
                Ok(review) => Some(review.status.unwrap_or_default()),
                Err(error) => {
                    tracing::warn!(%error, "TokenReview failed");
                    None
                }
            }
        };
        let status = timeout(REVIEW_TIMEOUT, ask).await.ok().flatten();
        let status = status.ok_or(Refused::Unavailable(
            "the API server did not judge the token",
        ))?;
        let caller = read(status)?;
        self.remember(key, caller.clone());
        Ok(caller)
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Caller> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (caller, at) = known.get(key)?;
        (at.elapsed() < REVIEW_LIFE).then(|| caller.clone())
    }

    fn remember(&self, key: [u8; 32], caller: Caller) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_REVIEWS {
            known.retain(|_, (_, at)| at.elapsed() < REVIEW_LIFE);
        }
        if known.len() >= MAX_REVIEWS {
            known.clear();
        }
        known.insert(key, (caller, Instant::now()));
    }
}

/// The bearer token of a request (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let value = headers.get(AUTHORIZATION).ok_or(Refused::NoToken)?;
    let value = value.to_str().map_err(|_| Refused::NoToken)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refused::NoToken)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return Err(Refused::NoToken);
    }
    Ok(token)
}

/// What a review says of a token.
fn read(status: TokenReviewStatus) -> Result<Caller, Refused> {
    if status.authenticated != Some(true) {
        return Err(Refused::BadToken("it is not valid"));
    }
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| audience == TOKEN_AUDIENCE) {
        return Err(Refused::BadToken("it is for another audience"));
    }
    let user = status.user.unwrap_or_default();
    let username = user.username.unwrap_or_default();
    let (namespace, service_account) = username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .ok_or(Refused::BadToken("it is not one of a service account"))?;
    let mut extra = user.extra.unwrap_or_default();
    let mut bound = |key: &str| {
        let value = extra.remove(key)?.into_iter().next()?;
        (!value.is_empty()).then_some(value)
    };
    let unbound = Refused::BadToken("it is not bound to a pod");
    Ok(Caller {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        pod: bound(EXTRA_POD_NAME).ok_or(unbound.clone())?,
        uid: bound(EXTRA_POD_UID).ok_or(unbound)?,
    })
}

/// Whether a pod may speak as a sidecar.
fn judge(caller: &Caller, pod: &Pod, settings: &Settings) -> Result<(), Refused> {
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref())
        .unwrap_or("default");
    if account != caller.service_account {
        return Err(Refused::NotASidecar("it has another service account"));
    }
    if settings.exempts(&caller.namespace, Some(account)) {
        return Err(Refused::NotASidecar("its service account is exempt"));
    }
    if !check::is_genuine(pod, &settings.sidecar_image) {
        return Err(Refused::NotASidecar("it was not injected by Chaperone"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::settings::tests::settings;

    fn status(change: impl FnOnce(&mut Value)) -> TokenReviewStatus {
        let mut status = json!({
            "authenticated": true, "audiences": [TOKEN_AUDIENCE],
            "user": {
                "username": "system:serviceaccount:agents:coder",
                "extra": {EXTRA_POD_NAME: ["claude-0"], EXTRA_POD_UID: ["u1"]}
            }
        });
        change(&mut status);
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_review_names_namespace_account_pod_and_uid() {
        let caller = read(status(|_| {})).unwrap();
        let expected = Caller {
            namespace: "agents".to_owned(),
            service_account: "coder".to_owned(),
            pod: "claude-0".to_owned(),
            uid: "u1".to_owned(),
        };
        assert_eq!(caller, expected);
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
            let refused = read(status(change)).unwrap_err();
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{refused}");
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
            assert_eq!(bearer(&headers(bad)), Err(Refused::NoToken), "{bad}");
        }
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        assert_eq!(bearer(&headers(&long)), Err(Refused::NoToken));
        assert_eq!(bearer(&HeaderMap::new()), Err(Refused::NoToken));
    }

    #[test]
    fn a_pod_of_another_or_an_exempt_account_or_without_our_sidecar_may_not_speak() {
        let caller = read(status(|_| {})).unwrap();
        let pod = |account: &str| -> Pod {
            serde_json::from_value(
                json!({"spec": {"serviceAccountName": account, "containers": []}}),
            )
            .unwrap()
        };
        let exempt = settings(&["--exempt-service-account=agents/coder"]);
        let plain = settings(&[]);
        let cases = [
            (pod("other"), &plain, "another service account"),
            (pod("coder"), &exempt, "exempt"),
            (pod("coder"), &plain, "not injected"),
        ];
        for (pod, settings, expected) in cases {
            let refused = judge(&caller, &pod, settings).unwrap_err();
            assert_eq!(refused.status(), StatusCode::FORBIDDEN);
            assert!(refused.to_string().contains(expected), "{refused}");
        }
    }
}
