//! The control server: what sidecars get and say. ARCHITECTURE.md, "What the parts say to each other".
//!
//! Owns the three calls. Refuses whoever is not the sidecar of a pod that the API server knows as injected. Invariant: what is signed, pushed
//! or reported is about the pod that the caller's token belongs to, whatever the caller says.

pub mod identity;
mod stream;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chaperone_crds::{
    control::{Ack, CertificateRequest, CertificateResponse},
    pod::APPLIED_CONDITION,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{sync::watch, time::timeout};

use crate::{
    certificates::{Authority, PodName},
    lifecycle::Signals,
    metrics::Metrics,
    plans::Plans,
    status::{applied, truncate},
};
use identity::{Identities, Refused};

/// Largest body, in bytes: a signing request has about 1 kB, an acknowledgement with its error a few.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// How long a sidecar may take to send one.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest error of a sidecar that a pod's condition holds, in bytes.
const MAX_ERROR_BYTES: usize = 1024;
/// Name under which conditions that we write show in `managedFields`.
const MANAGER: &str = "chaperone-operator";

/// What the control server answers from.
pub struct Control {
    /// For pod conditions.
    pub client: Client,
    /// Who calls.
    pub identities: Identities,
    /// What each pod runs by.
    pub plans: Plans,
    /// The root that signs.
    pub authority: watch::Receiver<Option<Arc<Authority>>>,
    /// Counts.
    pub metrics: Metrics,
    /// Streams end when the process stops.
    pub signals: Signals,
}

/// The three calls by path.
pub fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/v1/certificates", post(sign))
        .route("/v1/stream", get(open_stream))
        .route("/v1/acks", post(acknowledge))
        .with_state(control)
}

async fn sign(State(control): State<Arc<Control>>, request: Request) -> Response {
    let result = async {
        let (pod, body) = control.caller(request).await?;
        let request: CertificateRequest = read(body).await?;
        control.sign(&pod, &request.csr)
    };
    match result.await {
        Ok(chain) => Json(CertificateResponse { chain }).into_response(),
        Err(refused) => control.refuse(&refused),
    }
}

async fn open_stream(State(control): State<Arc<Control>>, request: Request) -> Response {
    let result = async {
        let (pod, _) = control.caller(request).await?;
        let uid = pod.uid().unwrap_or_default();
        control.plans.subscribe(&uid).ok_or(Refused::UnknownPod)
    };
    match result.await {
        Ok(plans) => {
            let lines = stream::lines(plans, control.metrics.clone(), control.signals.clone());
            let kind = [(CONTENT_TYPE, "application/x-ndjson")];
            (kind, Body::from_stream(lines)).into_response()
        }
        Err(refused) => control.refuse(&refused),
    }
}

async fn acknowledge(State(control): State<Arc<Control>>, request: Request) -> Response {
    let result = async {
        let (pod, body) = control.caller(request).await?;
        let ack: Ack = read(body).await?;
        control.write_condition(&pod, &ack).await
    };
    match result.await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => control.refuse(&refused),
    }
}

impl Control {
    /// The pod whose sidecar calls, and the body of the call.
    async fn caller(&self, request: Request) -> Result<(Arc<Pod>, Body), Refused> {
        let (parts, body) = request.into_parts();
        let pod = self.identities.pod(&parts.headers).await?;
        Ok((pod, body))
    }

    fn sign(&self, pod: &Pod, request: &str) -> Result<String, Refused> {
        let authority = self.authority.borrow().clone();
        let authority = authority.ok_or(Refused::Unavailable("certificates are not loaded yet"))?;
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let uid = pod.uid().unwrap_or_default();
        let names = PodName {
            namespace: &namespace,
            name: &name,
            uid: &uid,
        };
        let chain = authority
            .sign_intermediate(request, names, Timestamp::now())
            .map_err(|error| Refused::Invalid(error.to_string()))?;
        self.metrics.signatures.inc();
        tracing::info!(namespace, name, "signed the intermediate of a pod");
        Ok(chain)
    }

    /// Writes an acknowledgement into the pod's condition, if it is not there already.
    async fn write_condition(&self, pod: &Pod, ack: &Ack) -> Result<(), Refused> {
        let result = if ack.accepted { "applied" } else { "rejected" };
        self.metrics.acks.with_label_values(&[result]).inc();
        let (status, reason, message) = if ack.accepted {
            ("True", "Applied", ack.revision.to_string())
        } else {
            let error = ack.error.clone().unwrap_or_default();
            let message = format!("{}: {error}", ack.revision);
            ("False", "Rejected", truncate(message, MAX_ERROR_BYTES))
        };
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        tracing::info!(namespace, name, revision = %ack.revision, result, "a sidecar acknowledged");
        let before = applied(pod);
        if before.is_some_and(|before| before.accepted == ack.accepted && before.message == message)
        {
            return Ok(());
        }
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        // The uid makes the patch miss a pod of the same name that came after this one.
        let patch = json!({
            "metadata": {"uid": pod.uid()},
            "status": {"conditions": [{
                "type": APPLIED_CONDITION, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": now.to_string()
            }]}
        });
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        match api
            .patch_status(&name, &params, &Patch::Strategic(&patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => {
                self.metrics.failed("pod_condition");
                tracing::warn!(%error, namespace, name, "the pod's condition could not be written");
                Err(Refused::Unavailable(
                    "the pod's condition could not be written",
                ))
            }
        }
    }

    fn refuse(&self, refused: &Refused) -> Response {
        self.metrics
            .control_refusals
            .with_label_values(&[refused.reason()])
            .inc();
        tracing::warn!(error = %refused, "refused a control request");
        (refused.status(), format!("{refused}\n")).into_response()
    }
}

async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refused> {
    let bytes = timeout(READ_TIMEOUT, axum::body::to_bytes(body, MAX_BODY_BYTES))
        .await
        .map_err(|_| Refused::Invalid("the body took too long".to_owned()))?
        .map_err(|error| Refused::Invalid(format!("body: {error}")))?;
    serde_json::from_slice(&bytes).map_err(|error| Refused::Invalid(format!("body: {error}")))
}

#[cfg(test)]
#[path = "control/tests.rs"]
mod tests;
