//! Injection: from a pod as the user wrote it to the JSON patch that puts the sidecar, the trust bundle and the dropped capabilities in.
//!
//! A pure function. Owns what changes in a pod; refuses nothing (that is `check`'s work, on the final pod). Invariants: a second injection
//! of the result is empty; what the user set is kept, and said.

mod containers;

use chaperone_crds::pod as names;
use k8s_openapi::api::core::v1::{Container, Volume};
use serde_json::{Value, json};

use crate::{
    injected::{self, Shape},
    patch::{Editor, Operation},
};

/// What injection does to a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Injection {
    /// The patch; empty if the pod is as it should be.
    pub patch: Vec<Operation>,
    /// What the user should know, one sentence each.
    pub warnings: Vec<String>,
}

/// Injects into a pod (`core/v1`, as JSON). Also repairs a pod that was injected before and then changed by another webhook.
#[must_use]
pub fn inject(pod: &Value, shape: &Shape) -> Injection {
    let mut editor = Editor::new(pod.clone());
    let mut kept = Vec::new();
    for list in ["/spec/initContainers", "/spec/containers"] {
        for index in 0..editor.elements(list).len() {
            containers::prepare(&mut editor, list, index, &mut kept);
        }
    }
    put_volumes(&mut editor, shape);
    put_sidecar(&mut editor, shape);
    put_metadata(&mut editor, &kept);
    let mut warnings: Vec<_> = kept.iter().map(containers::KeptVariable::warning).collect();
    warnings.extend(dns_warning(pod));
    Injection {
        patch: editor.into_operations(),
        warnings,
    }
}

/// Makes the sidecar the first init container, and the only one of its name.
fn put_sidecar(editor: &mut Editor, shape: &Shape) {
    const LIST: &str = "/spec/initContainers";
    let ours = injected::container(shape);
    let positions: Vec<_> = editor
        .elements(LIST)
        .iter()
        .enumerate()
        .filter(|(_, container)| containers::is_sidecar(container))
        .map(|(index, _)| index)
        .collect();
    for index in positions.iter().rev().filter(|index| **index != 0) {
        editor.remove(LIST, *index);
    }
    let first = editor
        .elements(LIST)
        .first()
        .filter(|c| containers::is_sidecar(c));
    match first.map(Container::deserialize_from) {
        Some(Some(found)) if injected::differences(&found, &ours).is_empty() => {}
        Some(_) => editor.replace(LIST, 0, to_json(&ours)),
        None => editor.insert(LIST, 0, to_json(&ours)),
    }
}

fn put_volumes(editor: &mut Editor, shape: &Shape) {
    const LIST: &str = "/spec/volumes";
    for ours in injected::volumes(shape) {
        let position = editor
            .elements(LIST)
            .iter()
            .position(|volume| volume.get("name") == Some(&json!(ours.name)));
        let Some(index) = position else {
            editor.append(LIST, to_json(&ours));
            continue;
        };
        let found = editor
            .elements(LIST)
            .get(index)
            .and_then(Volume::deserialize_from);
        if !found.is_some_and(|found| injected::same_volume(&found, &ours)) {
            editor.replace(LIST, index, to_json(&ours));
        }
    }
}

fn put_metadata(editor: &mut Editor, kept: &[containers::KeptVariable]) {
    editor.set("/metadata/labels", names::INJECTED_LABEL, json!("true"));
    const ANNOTATIONS: &str = "/metadata/annotations";
    editor.set(
        ANNOTATIONS,
        names::VERSION_ANNOTATION,
        json!(env!("CARGO_PKG_VERSION")),
    );
    if kept.is_empty() {
        editor.unset(ANNOTATIONS, names::KEPT_ENV_ANNOTATION);
    } else {
        let kept: Vec<_> = kept.iter().map(ToString::to_string).collect();
        editor.set(
            ANNOTATIONS,
            names::KEPT_ENV_ANNOTATION,
            json!(kept.join(",")),
        );
    }
}

/// The sidecar finds the operator by its Service name, which only the cluster's DNS knows.
fn dns_warning(pod: &Value) -> Option<String> {
    let policy = pod.pointer("/spec/dnsPolicy")?.as_str()?;
    matches!(policy, "Default" | "None").then(|| {
        format!(
            "dnsPolicy {policy}: the pod starts only if its nameserver resolves the Service of chaperone-operator; use ClusterFirst"
        )
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("Kubernetes types have string keys only, so they serialise")
}

/// Reads a Kubernetes type from a part of a pod.
trait DeserializeFrom: Sized {
    /// The value as this type; none if it is not one.
    fn deserialize_from(value: &Value) -> Option<Self>;
}

impl<T: serde::de::DeserializeOwned> DeserializeFrom for T {
    fn deserialize_from(value: &Value) -> Option<Self> {
        T::deserialize(value).ok()
    }
}

#[cfg(test)]
#[path = "inject/tests.rs"]
mod tests;
