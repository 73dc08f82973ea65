//! Who calls: from a bearer token to the pod that it belongs to.
//!
//! The API server judges the token (TokenReview, our audience only) and names service account, pod and uid. Then the pod itself is looked at: it
//! must be there with that uid, in an audited namespace, not exempt, and carry our sidecar. Refuses all else.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, StatusCode};
use chaperone_crds::pod::TOKEN_AUDIENCE;
use chaperone_server::reviews::{Caller, Reviews, TokenRefused, bearer};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt};
use tokio::time::timeout;

use crate::{check, settings::Settings, stores::Stores};

/// How long a pod may take to show in our watch after its sidecar called.
const POD_PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked for meanwhile.
const POD_INTERVAL: Duration = Duration::from_millis(100);

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

impl From<TokenRefused> for Refused {
    fn from(refused: TokenRefused) -> Self {
        match refused {
            TokenRefused::NoToken => Self::NoToken,
            TokenRefused::BadToken(why) => Self::BadToken(why),
            TokenRefused::Unavailable => {
                Self::Unavailable("the API server did not judge the token")
            }
        }
    }
}

/// Knows callers.
pub struct Identities {
    reviews: Reviews,
    stores: Stores,
    settings: Arc<Settings>,
}

impl Identities {
    /// Asks this API server.
    #[must_use]
    pub fn new(client: Client, stores: Stores, settings: Arc<Settings>) -> Self {
        Self {
            reviews: Reviews::new(client, TOKEN_AUDIENCE),
            stores,
            settings,
        }
    }

    /// The pod whose sidecar sends these headers. The pod is looked at for every request; only the token's review is remembered.
    ///
    /// # Errors
    /// [`Refused`] if there is none, or the API server does not answer.
    pub async fn pod(&self, headers: &HeaderMap) -> Result<Arc<Pod>, Refused> {
        let token = bearer(headers)?;
        let caller = self.reviews.user(token).await?.user.pod()?;
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
    use serde_json::json;

    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn a_pod_of_another_or_an_exempt_account_or_without_our_sidecar_may_not_speak() {
        let caller = Caller {
            namespace: "agents".to_owned(),
            service_account: "coder".to_owned(),
            pod: "claude-0".to_owned(),
            uid: "u1".to_owned(),
        };
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
