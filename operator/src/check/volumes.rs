//! Volumes: ours are as we made them, none reaches the node, and no other token carries our audience.

use chaperone_crds::pod as names;
use k8s_openapi::api::core::v1::{PodSpec, Volume};

use super::Refusal;
use crate::injected::{self, Shape};

/// Names of the volumes that injection adds.
const OUR_VOLUMES: [&str; 3] = [
    names::TRUST_VOLUME,
    names::SPOOL_VOLUME,
    names::TOKEN_VOLUME,
];

/// Checks every volume of a pod.
pub(super) fn check(spec: &PodSpec, shape: &Shape) -> Vec<Refusal> {
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let ours = injected::volumes(shape);
    let mut refusals = Vec::new();
    for volume in &ours {
        let found = volumes.iter().find(|found| found.name == volume.name);
        if !found.is_some_and(|found| injected::same_volume(found, volume)) {
            refusals.push(Refusal::new(
                format!("spec.volumes[{}]", volume.name),
                "this volume is Chaperone's and is missing or changed",
                "leave it out of the pod, injection adds it; if another webhook changes it, exclude it there",
            ));
        }
    }
    refusals.extend(check_others(spec));
    refusals
}

/// Checks the volumes that are not Chaperone's.
pub(super) fn check_others(spec: &PodSpec) -> Vec<Refusal> {
    let volumes = spec.volumes.iter().flatten();
    let others = volumes.filter(|volume| !OUR_VOLUMES.contains(&volume.name.as_str()));
    others.flat_map(check_other).collect()
}

/// The names of volumes that no container but the sidecar may mount.
pub(super) fn is_sidecar_only(volume: &str) -> bool {
    volume == names::SPOOL_VOLUME || volume == names::TOKEN_VOLUME
}

fn check_other(volume: &Volume) -> Vec<Refusal> {
    let field = format!("spec.volumes[{}]", volume.name);
    let mut refusals = Vec::new();
    if volume.host_path.is_some() {
        refusals.push(Refusal::new(
            format!("{field}.hostPath"),
            "files of the node (runtime sockets, /proc, kubelet's folders) can undo capture",
            "use an emptyDir, a PersistentVolumeClaim or a CSI volume",
        ));
    }
    if volume.flex_volume.is_some() {
        refusals.push(Refusal::new(
            format!("{field}.flexVolume"),
            "its driver may mount files of the node",
            "use a PersistentVolumeClaim or a CSI volume",
        ));
    }
    if has_our_audience(volume) {
        refusals.push(Refusal::new(
            format!("{field}.projected"),
            format!(
                "a token with audience {} or {} would speak for the sidecar",
                names::TOKEN_AUDIENCE,
                names::LEDGER_AUDIENCE
            ),
            "choose another audience",
        ));
    }
    refusals
}

/// Whether a projected volume holds a token with an audience of the sidecar's.
pub(super) fn has_our_audience(volume: &Volume) -> bool {
    volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.service_account_token.as_ref())
        .filter_map(|token| token.audience.as_deref())
        .any(|audience| [names::TOKEN_AUDIENCE, names::LEDGER_AUDIENCE].contains(&audience))
}
