//! Tables for injection.

use serde_json::{Value, json};

use super::{Injection, inject};
use crate::{injected::tests::shape, patch::Operation};

fn injected(pod: &Value) -> (Value, Injection) {
    let injection = inject(pod, &shape());
    let patch: json_patch::Patch = as_patch(&injection.patch);
    let mut result = pod.clone();
    json_patch::patch(&mut result, &patch).unwrap();
    (result, injection)
}

fn as_patch(operations: &[Operation]) -> json_patch::Patch {
    serde_json::from_value(serde_json::to_value(operations).unwrap()).unwrap()
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "agent-"}, "spec": spec})
}

fn simple() -> Value {
    pod(json!({"containers": [{"name": "agent", "image": "claude"}]}))
}

fn env<'a>(pod: &'a Value, container: &str, variable: &str) -> Option<&'a str> {
    let entries = pod.pointer(container)?.get("env")?.as_array()?;
    let found = entries.iter().find(|entry| entry["name"] == variable)?;
    found["value"].as_str()
}

#[test]
fn a_plain_pod_gets_sidecar_trust_and_dropped_capabilities() {
    let (pod, injection) = injected(&simple());
    assert_eq!(injection.warnings, Vec::<String>::new());
    let sidecar = &pod["spec"]["initContainers"][0];
    assert_eq!(sidecar["name"], "chaperone-sidecar");
    assert_eq!(sidecar["restartPolicy"], "Always");
    assert_eq!(sidecar["startupProbe"]["httpGet"]["path"], "/startupz");
    let host_ips = json!({"name": "CHAPERONE_HOST_IPS", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIPs"}}});
    assert_eq!(sidecar["env"][2], host_ips);
    let context = &sidecar["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(
        context["capabilities"],
        json!({"add": ["NET_ADMIN"], "drop": ["ALL"]})
    );
    let agent = &pod["spec"]["containers"][0];
    assert_eq!(
        agent["volumeMounts"],
        json!([{"name": "chaperone-trust", "mountPath": "/var/run/chaperone/trust", "readOnly": true}])
    );
    assert_eq!(
        agent["securityContext"]["capabilities"]["drop"],
        json!(["NET_ADMIN", "NET_RAW"])
    );
    assert_eq!(
        env(&pod, "/spec/containers/0", "SSL_CERT_FILE"),
        Some("/var/run/chaperone/trust/ca-bundle.pem")
    );
    assert_eq!(
        env(&pod, "/spec/containers/0", "NODE_EXTRA_CA_CERTS"),
        Some("/var/run/chaperone/trust/chaperone-ca.pem")
    );
    assert_eq!(pod["metadata"]["labels"]["chaperone.dev/injected"], "true");
    assert_eq!(
        pod["metadata"]["annotations"]["chaperone.dev/sidecar-version"],
        env!("CARGO_PKG_VERSION")
    );
    let volumes: Vec<_> = pod["spec"]["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        volumes,
        ["chaperone-trust", "chaperone-spool", "chaperone-token"]
    );
}

#[test]
fn injection_is_idempotent() {
    let pods = [
        simple(),
        pod(json!({
            "containers": [{"name": "agent", "env": [{"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx1g"}, {"name": "PIP_CERT", "value": "/my"}]}],
            "initContainers": [{"name": "setup"}]
        })),
    ];
    for original in pods {
        let (once, first) = injected(&original);
        let (twice, second) = injected(&once);
        assert_eq!(second.patch, vec![]);
        assert_eq!(second.warnings, first.warnings);
        assert_eq!(once, twice);
    }
}

#[test]
fn the_sidecar_goes_before_other_init_containers_and_they_are_prepared_too() {
    let (pod, _) = injected(&pod(json!({
        "containers": [{"name": "agent"}],
        "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}]
    })));
    let names: Vec<_> = pod["spec"]["initContainers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["chaperone-sidecar", "setup", "proxy"]);
    for index in [1, 2] {
        let path = format!("/spec/initContainers/{index}");
        assert!(env(&pod, &path, "CURL_CA_BUNDLE").is_some());
        let drop = format!("{path}/securityContext/capabilities/drop");
        assert_eq!(pod.pointer(&drop), Some(&json!(["NET_ADMIN", "NET_RAW"])));
    }
}

#[test]
fn a_sidecar_that_another_webhook_moved_or_changed_is_repaired_and_not_doubled() {
    let (clean, _) = injected(&simple());
    let mut moved = clean.clone();
    let list = moved["spec"]["initContainers"].as_array_mut().unwrap();
    list.insert(0, json!({"name": "istio-init"}));
    let mut changed = clean.clone();
    changed["spec"]["initContainers"][0]["image"] = json!("evil");
    changed["spec"]["volumes"][1] = json!({"name": "chaperone-spool", "hostPath": {"path": "/"}});
    let mut doubled = clean.clone();
    let copy = doubled["spec"]["initContainers"][0].clone();
    doubled["spec"]["initContainers"]
        .as_array_mut()
        .unwrap()
        .push(copy);
    for broken in [moved, changed, doubled] {
        let (repaired, _) = injected(&broken);
        let list = repaired["spec"]["initContainers"].as_array().unwrap();
        let ours = list
            .iter()
            .filter(|c| c["name"] == "chaperone-sidecar")
            .count();
        assert_eq!(ours, 1);
        assert_eq!(list[0], clean["spec"]["initContainers"][0]);
        assert_eq!(repaired["spec"]["volumes"], clean["spec"]["volumes"]);
        assert_eq!(injected(&repaired).1.patch, vec![]);
    }
}

#[test]
fn variables_that_the_user_set_are_kept_and_said() {
    let (pod, injection) = injected(&pod(json!({"containers": [{"name": "agent", "env": [
        {"name": "SSL_CERT_FILE", "value": "/etc/mine.pem"},
        {"name": "NODE_EXTRA_CA_CERTS", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    ]}]})));
    assert_eq!(
        env(&pod, "/spec/containers/0", "SSL_CERT_FILE"),
        Some("/etc/mine.pem")
    );
    assert_eq!(
        pod["metadata"]["annotations"]["chaperone.dev/kept-env"],
        "agent/SSL_CERT_FILE,agent/NODE_EXTRA_CA_CERTS"
    );
    assert_eq!(injection.warnings.len(), 2);
    assert!(
        injection.warnings[0].contains("container agent: SSL_CERT_FILE is set by you and kept")
    );
}

#[test]
fn java_options_are_merged_unless_they_name_a_trust_store() {
    let options = "-Djavax.net.ssl.trustStore=/var/run/chaperone/trust/truststore.p12";
    let cases = [
        ("-Xmx1g", true, 0),
        ("", true, 0),
        ("-Djavax.net.ssl.trustStore=/mine.jks", false, 1),
    ];
    for (set, merged, warnings) in cases {
        let (pod, injection) = injected(&pod(json!({"containers": [
            {"name": "agent", "env": [{"name": "JAVA_TOOL_OPTIONS", "value": set}]}
        ]})));
        let value = env(&pod, "/spec/containers/0", "JAVA_TOOL_OPTIONS").unwrap();
        assert!(value.starts_with(set), "{value}");
        assert_eq!(value.contains(options), merged, "{value}");
        assert_eq!(injection.warnings.len(), warnings, "{set}");
    }
}

#[test]
fn what_is_dropped_already_is_not_dropped_twice() {
    for drop in [json!(["ALL"]), json!(["CAP_NET_RAW", "net_admin"])] {
        let (pod, _) = injected(&pod(json!({"containers": [
            {"name": "agent", "securityContext": {"capabilities": {"drop": drop}}}
        ]})));
        assert_eq!(
            pod["spec"]["containers"][0]["securityContext"]["capabilities"]["drop"],
            drop
        );
    }
}

#[test]
fn a_forged_annotation_goes_and_other_metadata_stays() {
    let mut original = simple();
    original["metadata"]["annotations"] = json!({"chaperone.dev/kept-env": "agent/PIP_CERT", "prometheus.io/scrape": "true", "prometheus.io/port": "9100"});
    original["metadata"]["labels"] = json!({"app": "agent", "chaperone.dev/injected": "false"});
    let (pod, _) = injected(&original);
    assert_eq!(
        pod["metadata"]["annotations"],
        json!({
            "prometheus.io/scrape": "true", "prometheus.io/port": "9100",
            "chaperone.dev/sidecar-version": env!("CARGO_PKG_VERSION")
        })
    );
    assert_eq!(
        pod["metadata"]["labels"],
        json!({"app": "agent", "chaperone.dev/injected": "true"})
    );
}

#[test]
fn what_this_build_does_not_know_and_what_is_not_ours_stays() {
    let original = pod(json!({
        "containers": [{"name": "agent", "restartPolicyRules": [{"action": "Restart"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 5, "automountServiceAccountToken": false, "futureField": {"x": 1}
    }));
    let (pod, _) = injected(&original);
    let spec = &pod["spec"];
    assert_eq!(
        spec["containers"][0]["restartPolicyRules"],
        json!([{"action": "Restart"}])
    );
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], "data");
    assert_eq!(spec["volumes"][0]["name"], "data");
    assert_eq!(spec["terminationGracePeriodSeconds"], 5);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["futureField"], json!({"x": 1}));
}

#[test]
fn a_pod_with_another_dns_policy_is_warned_of() {
    let mut original = simple();
    original["spec"]["dnsPolicy"] = json!("Default");
    let (_, injection) = injected(&original);
    assert_eq!(injection.warnings.len(), 1);
    assert!(injection.warnings[0].starts_with("dnsPolicy Default"));
}

#[test]
fn a_pod_without_the_usual_parts_does_not_panic() {
    for odd in [
        json!({}),
        json!({"spec": null}),
        json!({"spec": {"containers": [1, null, {}], "initContainers": null}}),
        json!([]),
    ] {
        let _ = inject(&odd, &shape());
    }
}
