//! Pod-wide settings that lead out of the pod's own namespaces, or into the sidecar's.

use chaperone_crds::pod as names;
use k8s_openapi::api::core::v1::{PodSecurityContext, PodSpec};

use super::Refusal;

/// Checks namespaces, operating system and pod-level ids.
pub(super) fn check(spec: &PodSpec) -> Vec<Refusal> {
    let set = |value: Option<bool>| value == Some(true);
    let switches = [
        (
            set(spec.host_network),
            "hostNetwork",
            "the node's network cannot be captured",
        ),
        (
            set(spec.host_pid),
            "hostPID",
            "with it a container can reach the sidecar's process and memory",
        ),
        (
            set(spec.host_ipc),
            "hostIPC",
            "shared memory of the node is a way out that cannot be captured",
        ),
        (
            set(spec.share_process_namespace),
            "shareProcessNamespace",
            "with it a container can reach the sidecar's process and memory",
        ),
    ];
    let mut refusals: Vec<_> = switches
        .into_iter()
        .filter(|(set, ..)| *set)
        .map(|(_, field, why)| {
            Refusal::new(format!("spec.{field}"), why, "remove it or set it to false")
        })
        .collect();
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        refusals.push(Refusal::new(
            "spec.os.name",
            "traffic of Windows pods cannot be captured",
            "run it in a namespace that is not audited",
        ));
    }
    refusals.extend(spec.security_context.iter().flat_map(check_ids));
    refusals
}

fn check_ids(context: &PodSecurityContext) -> Vec<Refusal> {
    let ours = i64::from(names::SIDECAR_UID);
    let groups = context.supplemental_groups.as_deref().unwrap_or_default();
    let ids = [
        (context.run_as_user == Some(ours), "runAsUser"),
        (context.run_as_group == Some(ours), "runAsGroup"),
        (context.fs_group == Some(ours), "fsGroup"),
        (groups.contains(&ours), "supplementalGroups"),
    ];
    ids.into_iter()
        .filter(|(is_ours, _)| *is_ours)
        .map(|(_, field)| {
            Refusal::new(
                format!("spec.securityContext.{field}"),
                format!("{ours} is the sidecar's own id"),
                "choose another number",
            )
        })
        .collect()
}
