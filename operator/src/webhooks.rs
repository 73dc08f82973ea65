//! The admission webhooks: HTTP around pure judgements.
//!
//! Owns the protocol of admission review. Refuses what it cannot read: with `failurePolicy: Fail` no answer and a refusal are the same, and a
//! refusal says why. Invariant: both pod webhooks leave the same pods alone.

mod pods;
mod resources;
pub mod review;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use k8s_openapi::api::core::v1::Secret;
use tokio::{sync::watch, time::timeout};

use crate::{
    certificates::Authority, events::Events, metrics::Metrics, settings::Settings, stores::Stores,
};

pub use pods::MIRROR_ANNOTATION;
use review::{Request, Review, Verdict};

/// Largest admission review, in bytes: the API server takes objects of 3 MiB, and an update has two.
const MAX_REVIEW_BYTES: usize = 8 * 1024 * 1024;
/// How long the API server may take to send one.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What the webhooks judge by.
pub struct Webhooks {
    /// The installation.
    pub settings: Arc<Settings>,
    /// The root, which injected pods get.
    pub authority: watch::Receiver<Option<Arc<Authority>>>,
    /// For the Secrets of sinks.
    pub stores: Stores,
    /// Notes on pods.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
}

/// The four webhooks by path.
pub fn router(webhooks: Arc<Webhooks>) -> Router {
    let mut router = Router::new();
    for hook in [
        Hook::MutatePods,
        Hook::ValidatePods,
        Hook::ValidatePolicies,
        Hook::ValidateSinks,
    ] {
        let handler = move |State(webhooks): State<Arc<Webhooks>>, body: Body| async move {
            webhooks.answer(hook, body).await
        };
        router = router.route(hook.path(), post(handler));
    }
    router.with_state(webhooks)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    MutatePods,
    ValidatePods,
    ValidatePolicies,
    ValidateSinks,
}

impl Hook {
    fn path(self) -> &'static str {
        match self {
            Self::MutatePods => "/mutate-pods",
            Self::ValidatePods => "/validate-pods",
            Self::ValidatePolicies => "/validate-policies",
            Self::ValidateSinks => "/validate-sinks",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::MutatePods => "mutate_pods",
            Self::ValidatePods => "validate_pods",
            Self::ValidatePolicies => "validate_policies",
            Self::ValidateSinks => "validate_sinks",
        }
    }
}

impl Webhooks {
    async fn answer(&self, hook: Hook, body: Body) -> Response {
        let Ok(Ok(bytes)) =
            timeout(READ_TIMEOUT, axum::body::to_bytes(body, MAX_REVIEW_BYTES)).await
        else {
            self.count(hook, "invalid");
            return StatusCode::BAD_REQUEST.into_response();
        };
        let timer = self.metrics.admission_seconds(hook.label()).start_timer();
        let review: Review = match serde_json::from_slice(&bytes) {
            Ok(review) => review,
            Err(error) => {
                self.count(hook, "invalid");
                tracing::warn!(%error, path = hook.path(), "not an admission review");
                return (StatusCode::BAD_REQUEST, "not an AdmissionReview of v1").into_response();
            }
        };
        let verdict = self.judge(hook, &review.request);
        self.count(hook, verdict.result());
        let answer = review::answer(&review.request.uid, verdict);
        timer.observe_duration();
        ([(CONTENT_TYPE, "application/json")], answer).into_response()
    }

    fn judge(&self, hook: Hook, request: &Request) -> Verdict {
        match hook {
            Hook::MutatePods => match self.shape() {
                Some(shape) => pods::mutate(request, &self.settings, &shape),
                None => Verdict::refuse("Chaperone's certificates are not loaded yet; try again"),
            },
            Hook::ValidatePods => match self.shape() {
                Some(shape) => {
                    let verdict = pods::validate(request, &self.settings, &shape);
                    pods::note(request, &verdict, &self.events);
                    verdict
                }
                None => Verdict::refuse("Chaperone's certificates are not loaded yet; try again"),
            },
            Hook::ValidatePolicies => resources::validate_policy(request, |name| self.secret(name)),
            Hook::ValidateSinks => resources::validate_sink(request, |name| self.secret(name)),
        }
    }

    fn shape(&self) -> Option<crate::injected::Shape> {
        let authority = self.authority.borrow();
        Some(self.settings.shape(authority.as_ref()?.root_pem()))
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        let found = self.stores.secret(&self.settings.namespace, name)?;
        Some(found.as_ref().clone())
    }

    fn count(&self, hook: Hook, result: &str) {
        self.metrics
            .admissions
            .with_label_values(&[hook.label(), result])
            .inc();
    }
}
