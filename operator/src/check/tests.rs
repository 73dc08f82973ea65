//! Tables for the check of final pods, updates and ephemeral containers.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{check_pod, check_update, is_genuine};
use crate::{inject::inject, injected::tests::shape};

/// A pod as it is after injection.
fn injected() -> Value {
    let pod = json!({
        "metadata": {"name": "agent", "namespace": "agents"},
        "spec": {"containers": [{"name": "agent", "image": "claude"}], "initContainers": [{"name": "setup"}]}
    });
    let patch = serde_json::to_value(inject(&pod, &shape()).patch).unwrap();
    let mut result = pod;
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    json_patch::patch(&mut result, &patch).unwrap();
    result
}

/// The injected pod with the value at a pointer set (an array pointer ending in `-` appends; null removes).
fn with(pointer: &str, value: Value) -> Value {
    let mut pod = injected();
    let operation = if value.is_null() {
        json!([{"op": "remove", "path": pointer}])
    } else {
        json!([{"op": "add", "path": pointer, "value": value}])
    };
    let patch: json_patch::Patch = serde_json::from_value(operation).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn typed(pod: Value) -> Pod {
    serde_json::from_value(pod).unwrap()
}

fn refusals(pod: Value) -> Vec<String> {
    let refusals = check_pod(&typed(pod), &shape());
    refusals.iter().map(ToString::to_string).collect()
}

#[test]
fn an_injected_pod_passes() {
    assert_eq!(refusals(injected()), Vec::<String>::new());
}

#[test]
fn what_can_undo_capture_is_refused_and_the_field_is_named() {
    let cases = [
        ("/spec/hostNetwork", json!(true), "spec.hostNetwork"),
        ("/spec/hostPID", json!(true), "spec.hostPID"),
        ("/spec/hostIPC", json!(true), "spec.hostIPC"),
        (
            "/spec/shareProcessNamespace",
            json!(true),
            "spec.shareProcessNamespace",
        ),
        ("/spec/os", json!({"name": "windows"}), "spec.os.name"),
        (
            "/spec/securityContext",
            json!({"runAsUser": 64646}),
            "spec.securityContext.runAsUser",
        ),
        (
            "/spec/securityContext",
            json!({"fsGroup": 64646}),
            "spec.securityContext.fsGroup",
        ),
        (
            "/spec/securityContext",
            json!({"supplementalGroups": [1, 64646]}),
            "spec.securityContext.supplementalGroups",
        ),
        (
            "/spec/containers/0/securityContext/privileged",
            json!(true),
            "spec.containers[agent].securityContext.privileged",
        ),
        (
            "/spec/containers/0/securityContext/runAsUser",
            json!(64646),
            "spec.containers[agent].securityContext.runAsUser",
        ),
        (
            "/spec/containers/0/securityContext/runAsGroup",
            json!(64646),
            "spec.containers[agent].securityContext.runAsGroup",
        ),
        (
            "/spec/containers/0/securityContext/procMount",
            json!("Unmasked"),
            "spec.containers[agent].securityContext.procMount",
        ),
        (
            "/spec/containers/0/securityContext/capabilities/add",
            json!(["cap_net_raw"]),
            "spec.containers[agent].securityContext.capabilities.add",
        ),
        (
            "/spec/containers/0/securityContext/capabilities/add",
            json!(["SYS_ADMIN"]),
            "spec.containers[agent].securityContext.capabilities.add",
        ),
        (
            "/spec/initContainers/1/securityContext/capabilities/add",
            json!(["BPF"]),
            "spec.initContainers[setup].securityContext.capabilities.add",
        ),
        (
            "/spec/containers/0/securityContext/capabilities/drop",
            json!(["NET_RAW"]),
            "spec.containers[agent].securityContext.capabilities.drop",
        ),
        (
            "/spec/containers/0/securityContext",
            Value::Null,
            "spec.containers[agent].securityContext.capabilities.drop",
        ),
        (
            "/spec/volumes/-",
            json!({"name": "sock", "hostPath": {"path": "/run/containerd"}}),
            "spec.volumes[sock].hostPath",
        ),
        (
            "/spec/volumes/-",
            json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": "chaperone.dev/operator", "path": "t"}}]}}),
            "spec.volumes[t].projected",
        ),
        (
            "/spec/volumes/-",
            json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": "chaperone.dev/ledger", "path": "t"}}]}}),
            "spec.volumes[t].projected",
        ),
        (
            "/spec/volumes/0",
            json!({"name": "chaperone-trust", "emptyDir": {}}),
            "spec.volumes[chaperone-trust]",
        ),
        (
            "/spec/volumes/2",
            Value::Null,
            "spec.volumes[chaperone-token]",
        ),
        (
            "/spec/containers/0/volumeMounts/-",
            json!({"name": "chaperone-spool", "mountPath": "/s"}),
            "spec.containers[agent].volumeMounts[/s]",
        ),
        (
            "/spec/containers/0/volumeMounts/-",
            json!({"name": "chaperone-token", "mountPath": "/t", "readOnly": true}),
            "spec.containers[agent].volumeMounts[/t]",
        ),
        (
            "/spec/containers/0/volumeMounts/-",
            json!({"name": "chaperone-trust", "mountPath": "/t"}),
            "spec.containers[agent].volumeMounts[/t]",
        ),
        (
            "/spec/containers/0/volumeMounts/-",
            json!({"name": "chaperone-trust", "mountPath": "/t", "readOnly": true, "subPath": "x"}),
            "spec.containers[agent].volumeMounts[/t]",
        ),
        (
            "/spec/containers/0/volumeMounts/0",
            Value::Null,
            "spec.containers[agent].volumeMounts",
        ),
        (
            "/spec/containers/-",
            json!({"name": "chaperone-sidecar", "securityContext": {"capabilities": {"drop": ["ALL"]}}, "volumeMounts": [{"name": "chaperone-trust", "mountPath": "/var/run/chaperone/trust", "readOnly": true}]}),
            "spec.containers[chaperone-sidecar].name",
        ),
        ("/spec/initContainers/0", Value::Null, "spec.initContainers"),
        (
            "/spec/initContainers/0",
            json!({"name": "istio-init", "securityContext": {"capabilities": {"drop": ["ALL"]}}, "volumeMounts": [{"name": "chaperone-trust", "mountPath": "/var/run/chaperone/trust", "readOnly": true}]}),
            "spec.initContainers",
        ),
        (
            "/spec/initContainers/0/image",
            json!("evil"),
            "spec.initContainers[chaperone-sidecar].image",
        ),
        (
            "/spec/initContainers/0/args",
            json!(["x"]),
            "spec.initContainers[chaperone-sidecar].args",
        ),
        (
            "/spec/initContainers/0/env/-",
            json!({"name": "X", "value": "1"}),
            "spec.initContainers[chaperone-sidecar].env",
        ),
        (
            "/spec/initContainers/0/securityContext/runAsUser",
            json!(0),
            "spec.initContainers[chaperone-sidecar].securityContext",
        ),
        (
            "/metadata/labels/chaperone.dev~1injected",
            json!("false"),
            "metadata.labels[chaperone.dev/injected]",
        ),
    ];
    for (pointer, value, field) in cases {
        let found = refusals(with(pointer, value.clone()));
        assert_eq!(found.len(), 1, "{pointer} {value}: {found:?}");
        assert!(
            found[0].starts_with(&format!("{field}: ")),
            "{pointer} {value}: {found:?}"
        );
        assert!(found[0].contains("; "), "a refusal says what to change");
    }
}

#[test]
fn what_harms_nothing_passes() {
    let cases = [
        (
            "/spec/containers/0/securityContext/capabilities/add",
            json!(["NET_BIND_SERVICE", "CHOWN"]),
        ),
        (
            "/spec/containers/0/securityContext/capabilities/drop",
            json!(["ALL"]),
        ),
        ("/spec/containers/0/securityContext/runAsUser", json!(0)),
        (
            "/spec/securityContext",
            json!({"runAsUser": 1000, "fsGroup": 1000}),
        ),
        ("/spec/volumes/-", json!({"name": "data", "emptyDir": {}})),
        (
            "/spec/volumes/-",
            json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "t"}}]}}),
        ),
        (
            "/spec/containers/0/volumeMounts/-",
            json!({"name": "chaperone-trust", "mountPath": "/t", "readOnly": true}),
        ),
        ("/spec/hostUsers", json!(false)),
        (
            "/spec/initContainers/0/resources",
            json!({"limits": {"cpu": "1"}}),
        ),
    ];
    for (pointer, value) in cases {
        assert_eq!(
            refusals(with(pointer, value.clone())),
            Vec::<String>::new(),
            "{pointer} {value}"
        );
    }
}

#[test]
fn updates_may_not_change_what_was_injected() {
    let cases = [
        (
            "/metadata/labels/chaperone.dev~1injected",
            Value::Null,
            "metadata.labels[chaperone.dev/injected]",
        ),
        (
            "/metadata/annotations/chaperone.dev~1sidecar-version",
            json!("9"),
            "metadata.annotations[chaperone.dev/sidecar-version]",
        ),
        (
            "/metadata/annotations/chaperone.dev~1kept-env",
            json!("x"),
            "metadata.annotations[chaperone.dev/kept-env]",
        ),
        (
            "/spec/initContainers/0/image",
            json!("evil"),
            "spec.initContainers[chaperone-sidecar].image",
        ),
    ];
    for (pointer, value, field) in cases {
        let found = check_update(&typed(injected()), &typed(with(pointer, value)));
        assert_eq!(found.len(), 1, "{pointer}: {found:?}");
        assert_eq!(found[0].field, field);
    }
}

#[test]
fn other_updates_pass_also_of_a_pod_with_an_older_sidecar() {
    let cases = [
        ("/metadata/labels/app", json!("agent")),
        ("/metadata/annotations/x", json!("y")),
        (
            "/metadata/finalizers",
            json!(["batch.kubernetes.io/job-tracking"]),
        ),
        ("/spec/containers/0/image", json!("claude:2")),
    ];
    let mut old = injected();
    old["spec"]["initContainers"][0]["image"] = json!("registry.example/chaperone/sidecar:0.9");
    for (pointer, value) in cases {
        let mut new = with(pointer, value);
        new["spec"]["initContainers"][0]["image"] =
            old["spec"]["initContainers"][0]["image"].clone();
        assert_eq!(check_update(&typed(old.clone()), &typed(new)), vec![]);
    }
}

#[test]
fn a_pod_that_predates_the_label_may_be_updated_but_not_made_to_look_injected() {
    let old = json!({"metadata": {"name": "old"}, "spec": {"hostNetwork": true, "containers": [{"name": "c"}]}});
    let mut touched = old.clone();
    touched["metadata"]["annotations"] = json!({"a": "b"});
    assert_eq!(check_update(&typed(old.clone()), &typed(touched)), vec![]);
    let mut forged = old.clone();
    forged["metadata"]["labels"] = json!({"chaperone.dev/injected": "true"});
    assert_eq!(check_update(&typed(old), &typed(forged)).len(), 1);
}

#[test]
fn ephemeral_containers_drop_the_capabilities_themselves_and_leave_the_sidecar_alone() {
    let drop = json!({"capabilities": {"drop": ["ALL"]}});
    let cases = [
        (json!({"name": "d", "securityContext": drop}), None),
        (
            json!({"name": "d", "targetContainerName": "agent", "securityContext": drop}),
            None,
        ),
        (
            json!({"name": "d"}),
            Some("spec.ephemeralContainers[d].securityContext.capabilities.drop"),
        ),
        (
            json!({"name": "d", "targetContainerName": "chaperone-sidecar", "securityContext": drop}),
            Some("spec.ephemeralContainers[d].targetContainerName"),
        ),
        (
            json!({"name": "d", "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}}),
            Some("spec.ephemeralContainers[d].securityContext.capabilities.add"),
        ),
        (
            json!({"name": "d", "securityContext": {"privileged": true, "capabilities": {"drop": ["ALL"]}}}),
            Some("spec.ephemeralContainers[d].securityContext.privileged"),
        ),
        (
            json!({"name": "d", "securityContext": {"runAsUser": 64646, "capabilities": {"drop": ["ALL"]}}}),
            Some("spec.ephemeralContainers[d].securityContext.runAsUser"),
        ),
        (
            json!({"name": "d", "securityContext": drop, "volumeMounts": [{"name": "chaperone-token", "mountPath": "/t", "readOnly": true}]}),
            Some("spec.ephemeralContainers[d].volumeMounts[/t]"),
        ),
    ];
    for (container, field) in cases {
        let new = with("/spec/ephemeralContainers", json!([container]));
        let found = check_update(&typed(injected()), &typed(new.clone()));
        let fields: Vec<_> = found.iter().map(|refusal| refusal.field.as_str()).collect();
        assert_eq!(fields, field.into_iter().collect::<Vec<_>>());
        assert_eq!(
            check_update(&typed(new.clone()), &typed(new)),
            vec![],
            "it was admitted before"
        );
    }
}

#[test]
fn only_a_pod_with_our_sidecar_may_speak_as_one() {
    let newer = "registry.example/chaperone/sidecar:2";
    assert!(is_genuine(&typed(injected()), newer));
    let fakes = [
        with(
            "/spec/initContainers/0/image",
            json!("registry.example/evil:1"),
        ),
        with("/spec/initContainers/0/command", json!(["sh"])),
        with("/spec/initContainers/0/securityContext/runAsUser", json!(0)),
        with("/spec/initContainers/0", Value::Null),
        with("/metadata/labels/chaperone.dev~1injected", Value::Null),
        with("/spec/shareProcessNamespace", json!(true)),
        with("/spec/containers/0/securityContext/privileged", json!(true)),
        with(
            "/spec/ephemeralContainers",
            json!([{"name": "d", "targetContainerName": "chaperone-sidecar", "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}}]),
        ),
        with(
            "/spec/containers/0/volumeMounts/-",
            json!({"name": "chaperone-token", "mountPath": "/t"}),
        ),
    ];
    for fake in fakes {
        assert!(!is_genuine(&typed(fake.clone()), newer), "{fake}");
    }
}
