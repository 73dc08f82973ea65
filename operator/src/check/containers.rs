//! Containers other than the sidecar: what each may be, may do and may mount. Ephemeral containers have the same rules.

use chaperone_crds::pod as names;
use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, PodSpec, SecurityContext, VolumeMount,
};

use super::{Refusal, volumes::is_sidecar_only};
use crate::injected::{self, capability};

/// Capabilities with which a container could undo capture: mark or forge packets, change rules, enter other namespaces, read or trace the
/// sidecar, load code into the kernel, or reach the node's files.
const UNDOING_CAPABILITIES: [&str; 13] = [
    "ALL",
    "NET_ADMIN",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_PTRACE",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_BOOT",
    "BPF",
    "PERFMON",
    "DAC_READ_SEARCH",
    "CHECKPOINT_RESTORE",
    "MAC_ADMIN",
];

/// How a refusal names the remedy for an ephemeral container.
const EPHEMERAL_FIX: &str = "use `kubectl debug --profile=restricted`, or `--custom` with securityContext.capabilities.drop [NET_ADMIN, NET_RAW]";

/// Checks all containers of a pod but the sidecar.
pub(super) fn check_all(spec: &PodSpec) -> Vec<Refusal> {
    let init = spec.init_containers.iter().flatten();
    let init = init
        .filter(|container| container.name != names::SIDECAR_NAME)
        .map(|container| ("spec.initContainers", container));
    let plain = spec
        .containers
        .iter()
        .map(|container| ("spec.containers", container));
    init.chain(plain)
        .flat_map(|(list, container)| check(list, container))
        .collect()
}

/// Checks all ephemeral containers of a pod.
pub(super) fn check_all_ephemeral(spec: &PodSpec) -> Vec<Refusal> {
    let ephemeral = spec.ephemeral_containers.iter().flatten();
    ephemeral.flat_map(check_ephemeral).collect()
}

/// Checks an ephemeral container. It never passes the mutating webhook, so it must drop the capabilities itself.
pub(super) fn check_ephemeral(container: &EphemeralContainer) -> Vec<Refusal> {
    let field = format!("spec.ephemeralContainers[{}]", container.name);
    let mut refusals = check_name(&field, &container.name);
    if container.target_container_name.as_deref() == Some(names::SIDECAR_NAME) {
        refusals.push(Refusal::new(
            format!("{field}.targetContainerName"),
            "it would share the sidecar's processes",
            "target another container",
        ));
    }
    refusals.extend(check_context(
        &field,
        container.security_context.as_ref(),
        EPHEMERAL_FIX,
    ));
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    refusals.extend(mounts.iter().flat_map(|mount| check_mount(&field, mount)));
    refusals
}

fn check(list: &str, container: &Container) -> Vec<Refusal> {
    let field = format!("{list}[{}]", container.name);
    let mut refusals = check_name(&field, &container.name);
    refusals.extend(check_context(
        &field,
        container.security_context.as_ref(),
        "leave capabilities.drop alone, injection adds them; if another webhook removes them, exclude it there",
    ));
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    refusals.extend(mounts.iter().flat_map(|mount| check_mount(&field, mount)));
    if !mounts.contains(&injected::trust_mount()) {
        refusals.push(Refusal::new(
            format!("{field}.volumeMounts"),
            format!("the trust bundle is not mounted at {}", names::TRUST_DIR),
            "mount your own volume elsewhere; if another webhook removes the mount, exclude it there",
        ));
    }
    refusals
}

fn check_name(field: &str, name: &str) -> Vec<Refusal> {
    if name != names::SIDECAR_NAME {
        return Vec::new();
    }
    vec![Refusal::new(
        format!("{field}.name"),
        "this name is the sidecar's",
        "choose another name",
    )]
}

fn check_mount(field: &str, mount: &VolumeMount) -> Vec<Refusal> {
    let field = format!("{field}.volumeMounts[{}]", mount.mount_path);
    if is_sidecar_only(&mount.name) {
        return vec![Refusal::new(
            field,
            format!("volume {} is the sidecar's alone", mount.name),
            "remove the mount",
        )];
    }
    let is_propagated = mount
        .mount_propagation
        .as_deref()
        .is_some_and(|p| p != "None");
    let is_plain = mount.read_only == Some(true)
        && mount.sub_path.is_none()
        && mount.sub_path_expr.is_none()
        && !is_propagated;
    if mount.name == names::TRUST_VOLUME && !is_plain {
        return vec![Refusal::new(
            field,
            "the trust bundle is mounted writable, by sub-path or with propagation",
            "set readOnly: true and remove subPath and mountPropagation, or remove the mount",
        )];
    }
    Vec::new()
}

fn check_context(field: &str, context: Option<&SecurityContext>, fix: &str) -> Vec<Refusal> {
    let field = format!("{field}.securityContext");
    let mut refusals = check_drops(&field, context, fix);
    let Some(context) = context else {
        return refusals;
    };
    refusals.extend(check_additions(&field, context));
    if context.privileged == Some(true) {
        refusals.push(Refusal::new(
            format!("{field}.privileged"),
            "a privileged container can undo capture",
            "remove it or set it to false",
        ));
    }
    if context
        .proc_mount
        .as_deref()
        .is_some_and(|kind| kind != "Default")
    {
        refusals.push(Refusal::new(
            format!("{field}.procMount"),
            "an unmasked /proc can change the kernel's network settings",
            "remove it",
        ));
    }
    let ours = Some(i64::from(names::SIDECAR_UID));
    for (id, name) in [
        (context.run_as_user, "runAsUser"),
        (context.run_as_group, "runAsGroup"),
    ] {
        if id == ours {
            refusals.push(Refusal::new(
                format!("{field}.{name}"),
                format!("{} is the sidecar's own id", names::SIDECAR_UID),
                "choose another number",
            ));
        }
    }
    refusals
}

fn check_additions(field: &str, context: &SecurityContext) -> Vec<Refusal> {
    let capabilities = context.capabilities.iter();
    capabilities
        .flat_map(|capabilities| capabilities.add.iter().flatten())
        .filter(|added| UNDOING_CAPABILITIES.contains(&capability(added).as_str()))
        .map(|added| {
            Refusal::new(
                format!("{field}.capabilities.add"),
                format!("{added} can undo capture"),
                "remove it",
            )
        })
        .collect()
}

fn check_drops(field: &str, context: Option<&SecurityContext>, fix: &str) -> Vec<Refusal> {
    let capabilities = context.and_then(|context| context.capabilities.as_ref());
    let drops: Vec<_> = capabilities
        .iter()
        .flat_map(|capabilities| capabilities.drop.iter().flatten())
        .map(|dropped| capability(dropped))
        .collect();
    let missing: Vec<_> = injected::DROPPED_CAPABILITIES
        .into_iter()
        .filter(|needed| {
            !drops
                .iter()
                .any(|dropped| dropped == needed || dropped == "ALL")
        })
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    vec![Refusal::new(
        format!("{field}.capabilities.drop"),
        format!("{} must be dropped", missing.join(" and ")),
        fix,
    )]
}
