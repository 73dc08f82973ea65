//! The sidecar itself: it is there, it is first, it is ours, and an update leaves it alone.

use chaperone_crds::pod as names;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{Refusal, volumes::has_our_audience};
use crate::injected::{self, Shape};

/// Whether a pod carries the label of injected pods and has a sidecar.
#[must_use]
pub fn is_injected(pod: &Pod) -> bool {
    let labelled = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(names::INJECTED_LABEL))
        .is_some_and(|value| value == "true");
    labelled && pod.spec.as_ref().and_then(sidecar).is_some()
}

/// Whether a running pod may speak as a sidecar: injected by this or an earlier version of us, not built to look so. Whoever passes gets a
/// certificate authority that agents trust, and a pod that predates the namespace's label was seen by no webhook. So: our image's repository,
/// our entry point and ids, the token in no other hand, and nothing in the pod that could read the sidecar's memory.
#[must_use]
pub fn is_genuine(pod: &Pod, image: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let Some(first) = sidecar(spec) else {
        return false;
    };
    let context = first.security_context.as_ref();
    let ours = Some(i64::from(names::SIDECAR_UID));
    let shape_is_ours = repository(first.image.as_deref().unwrap_or_default()) == repository(image)
        && first.command.is_none()
        && first.args.is_none()
        && context.and_then(|c| c.run_as_user) == ours
        && context.and_then(|c| c.read_only_root_filesystem) == Some(true);
    is_injected(pod)
        && shape_is_ours
        && !others_hold_token(spec)
        && super::host::check(spec).is_empty()
        && super::volumes::check_others(spec).is_empty()
        && super::containers::check_all(spec).is_empty()
        && super::containers::check_all_ephemeral(spec).is_empty()
}

/// Checks that the final pod has our sidecar first, and the label that the controller finds it by.
pub(super) fn check(pod: &Pod, spec: &PodSpec, shape: &Shape) -> Vec<Refusal> {
    let Some(found) = sidecar(spec) else {
        return vec![Refusal::new(
            "spec.initContainers",
            format!("the first init container is not {}", names::SIDECAR_NAME),
            "if another webhook removes or moves it, exclude it there; if Chaperone's mutating webhook is missing, reinstall the chart",
        )];
    };
    let mut refusals: Vec<_> = injected::differences(found, &injected::container(shape))
        .into_iter()
        .map(|field| {
            Refusal::new(
                format!("spec.initContainers[{}].{field}", names::SIDECAR_NAME),
                "it is not as Chaperone injects it",
                "leave the sidecar out of the pod, injection adds it; if another webhook changes it, exclude it there",
            )
        })
        .collect();
    if !is_injected(pod) {
        refusals.push(Refusal::new(
            format!("metadata.labels[{}]", names::INJECTED_LABEL),
            "the label is missing or changed",
            "leave it out of the pod, injection adds it",
        ));
    }
    refusals
}

/// Checks that an update of an injected pod leaves sidecar, label and annotations alone.
pub(super) fn check_unchanged(old: &Pod, new: &Pod) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if !is_injected(new) {
        refusals.push(Refusal::new(
            format!("metadata.labels[{}]", names::INJECTED_LABEL),
            "an injected pod keeps its label and its sidecar",
            "leave the label as it is",
        ));
    }
    for annotation in [names::VERSION_ANNOTATION, names::KEPT_ENV_ANNOTATION] {
        let value = |pod: &Pod| {
            pod.metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(annotation).cloned())
        };
        if value(old) != value(new) {
            refusals.push(Refusal::new(
                format!("metadata.annotations[{annotation}]"),
                "injection sets this annotation, when a pod is created",
                "leave it as it is",
            ));
        }
    }
    let container = |pod: &Pod| pod.spec.as_ref().and_then(sidecar).cloned();
    if let (Some(old), Some(new)) = (container(old), container(new)) {
        refusals.extend(injected::differences(&new, &old).into_iter().map(|field| {
            Refusal::new(
                format!("spec.initContainers[{}].{field}", names::SIDECAR_NAME),
                "the sidecar of a running pod cannot be changed",
                "leave it as it is; delete the pod to have its successor injected anew",
            )
        }));
    }
    refusals
}

/// The first init container, if it has the sidecar's name.
fn sidecar(spec: &PodSpec) -> Option<&Container> {
    let first = spec.init_containers.as_ref()?.first()?;
    (first.name == names::SIDECAR_NAME).then_some(first)
}

/// Whether a container other than the sidecar can read a token with our audience.
fn others_hold_token(spec: &PodSpec) -> bool {
    let volumes = spec.volumes.iter().flatten();
    let tokens: Vec<_> = volumes
        .filter(|volume| has_our_audience(volume))
        .map(|volume| volume.name.as_str())
        .collect();
    let init = spec.init_containers.iter().flatten().skip(1);
    let plain = init
        .chain(&spec.containers)
        .map(|container| &container.volume_mounts);
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    plain
        .chain(ephemeral.map(|container| &container.volume_mounts))
        .flat_map(|mounts| mounts.iter().flatten())
        .any(|mount| tokens.contains(&mount.name.as_str()))
}

/// An image reference without tag and digest.
fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::repository;

    #[test]
    fn tag_and_digest_are_not_part_of_the_repository() {
        let cases = [
            ("r.example:5000/a/b:1.2", "r.example:5000/a/b"),
            ("r.example:5000/a/b", "r.example:5000/a/b"),
            ("a/b:1@sha256:00", "a/b"),
            ("a/b@sha256:00", "a/b"),
            ("b", "b"),
        ];
        for (image, expected) in cases {
            assert_eq!(repository(image), expected);
        }
    }
}
