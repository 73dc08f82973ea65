//! The last word on a pod: whether capture can be undone in it.
//!
//! Pure functions of the final pod, after every mutating webhook. Owns the list of what would let an agent pass unread. Refuses with a
//! sentence that says what to change. Invariant: a pod without refusals has exactly our sidecar, first, and no container that can alter it.

mod containers;
mod host;
mod sidecar;
mod volumes;

use std::fmt;

use chaperone_crds::pod as names;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::injected::Shape;

pub use sidecar::{is_genuine, is_injected};

/// One reason to refuse a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which field, such as `spec.hostNetwork`.
    pub field: String,
    /// Why it can't be.
    pub why: String,
    /// What to change.
    pub fix: String,
}

impl Refusal {
    fn new(field: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            why: why.into(),
            fix: fix.into(),
        }
    }
}

impl fmt::Display for Refusal {
    /// `field: why; fix`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.why, self.fix)
    }
}

/// Checks a pod that is about to be created. Empty: it may be.
#[must_use]
pub fn check_pod(pod: &Pod, shape: &Shape) -> Vec<Refusal> {
    let Some(spec) = &pod.spec else {
        return vec![Refusal::new("spec", "it is missing", "set it")];
    };
    let mut refusals = sidecar::check(pod, spec, shape);
    refusals.extend(host::check(spec));
    refusals.extend(volumes::check(spec, shape));
    refusals.extend(containers::check_all(spec));
    refusals
}

/// Checks an update of a pod, also through `pods/ephemeralcontainers`. A pod that runs without sidecar (it predates the label) may be
/// updated, but not made to look injected.
#[must_use]
pub fn check_update(old: &Pod, new: &Pod) -> Vec<Refusal> {
    if !is_injected(old) {
        return check_uninjected_update(new);
    }
    let mut refusals = sidecar::check_unchanged(old, new);
    if let (Some(old), Some(new)) = (&old.spec, &new.spec) {
        refusals.extend(check_added_ephemeral(old, new));
    }
    refusals
}

fn check_uninjected_update(new: &Pod) -> Vec<Refusal> {
    let labels = new.metadata.labels.as_ref();
    if !labels.is_some_and(|labels| labels.contains_key(names::INJECTED_LABEL)) {
        return Vec::new();
    }
    vec![Refusal::new(
        format!("metadata.labels[{}]", names::INJECTED_LABEL),
        "only injection sets this label, when a pod is created",
        "remove it, and delete and recreate the pod to have it injected",
    )]
}

/// Checks the ephemeral containers that `new` has and `old` had not.
fn check_added_ephemeral(old: &PodSpec, new: &PodSpec) -> Vec<Refusal> {
    let had = old.ephemeral_containers.as_deref().unwrap_or_default();
    new.ephemeral_containers
        .iter()
        .flatten()
        .filter(|container| !had.contains(container))
        .flat_map(containers::check_ephemeral)
        .collect()
}

#[cfg(test)]
#[path = "check/tests.rs"]
mod tests;
