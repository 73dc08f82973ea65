//! Judgements on pods.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::Value;

use super::review::{Request, Verdict};
use crate::{
    check,
    events::{Events, Reason, about_controller, about_pod},
    inject::{Injection, inject},
    injected::Shape,
    settings::Settings,
};

/// Annotation of mirror pods: what the API server shows of a node's static pod. Kubelet never runs one.
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Group of kubelets.
const NODES_GROUP: &str = "system:nodes";

/// Injects a pod that is about to be created.
pub(super) fn mutate(request: &Request, settings: &Settings, shape: &Shape) -> Verdict {
    if let Some(verdict) = leave_alone(request, settings) {
        return verdict;
    }
    let Injection { patch, warnings } = inject(&request.object, shape);
    if patch.is_empty() {
        Verdict::Allow { warnings }
    } else {
        Verdict::Patch { patch, warnings }
    }
}

/// Checks a final pod, an update or an ephemeral container.
pub(super) fn validate(request: &Request, settings: &Settings, shape: &Shape) -> Verdict {
    if let Some(verdict) = leave_alone(request, settings) {
        return verdict;
    }
    let pod = match Pod::deserialize(&request.object) {
        Ok(pod) => pod,
        Err(error) => return unreadable(&error),
    };
    let refusals = match request.operation.as_str() {
        "UPDATE" => match Pod::deserialize(&request.old_object) {
            Ok(old) => check::check_update(&old, &pod),
            Err(error) => return unreadable(&error),
        },
        _ => check::check_pod(&pod, shape),
    };
    if refusals.is_empty() {
        return Verdict::allow();
    }
    let refusals: Vec<_> = refusals.iter().map(ToString::to_string).collect();
    Verdict::refuse(format!(
        "Chaperone audits this namespace and refuses the pod:\n- {}",
        refusals.join("\n- ")
    ))
}

/// Notes what became of a pod's creation.
pub(super) fn note(request: &Request, verdict: &Verdict, events: &Events) {
    if request.operation != "CREATE" || request.dry_run == Some(true) {
        return;
    }
    let Ok(pod) = Pod::deserialize(&request.object) else {
        return;
    };
    let namespace = request.namespace.as_str();
    match verdict {
        Verdict::Allow { .. } if pod.uid().is_some() => {
            let text = "sidecar chaperone-sidecar injected; all egress of this pod is audited";
            events.note(
                Reason::Injected,
                about_pod(namespace, &pod),
                text.to_owned(),
            );
        }
        Verdict::Refuse { message } => {
            let about = about_controller(namespace, &pod);
            events.note(Reason::Refused, about, message.clone());
        }
        _ => {}
    }
}

/// Whether a pod is none of our business: of an exempt service account, or kubelet's mirror of a static pod. Both webhooks ask this, so
/// they cannot disagree.
fn leave_alone(request: &Request, settings: &Settings) -> Option<Verdict> {
    let pod = &request.object;
    let account = pod
        .pointer("/spec/serviceAccountName")
        .and_then(Value::as_str);
    if settings.exempts(&request.namespace, account) {
        return Some(Verdict::Exempt {
            warnings: Vec::new(),
        });
    }
    let annotations = pod.pointer("/metadata/annotations")?;
    annotations.get(MIRROR_ANNOTATION)?;
    if request
        .user_info
        .groups
        .iter()
        .any(|group| group == NODES_GROUP)
    {
        let warning = "a static pod runs without Chaperone: nothing can be injected into it; move it to a namespace that is not audited";
        return Some(Verdict::Exempt {
            warnings: vec![warning.to_owned()],
        });
    }
    Some(Verdict::refuse(format!(
        "metadata.annotations[{MIRROR_ANNOTATION}]: only a kubelet may set it; remove it"
    )))
}

fn unreadable(error: &serde_json::Error) -> Verdict {
    Verdict::Invalid {
        message: format!("Chaperone cannot read this pod: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{injected::tests::shape, settings::tests::settings, webhooks::review::User};

    fn request(operation: &str, object: Value) -> Request {
        Request {
            operation: operation.to_owned(),
            namespace: "agents".to_owned(),
            object,
            ..Request::default()
        }
    }

    fn injected(pod: &Value) -> Value {
        let Verdict::Patch { patch, .. } =
            mutate(&request("CREATE", pod.clone()), &settings(&[]), &shape())
        else {
            panic!("not patched");
        };
        let patch: json_patch::Patch =
            serde_json::from_value(serde_json::to_value(patch).unwrap()).unwrap();
        let mut result = pod.clone();
        json_patch::patch(&mut result, &patch).unwrap();
        result
    }

    fn pod() -> Value {
        json!({"metadata": {"generateName": "a-"}, "spec": {"serviceAccountName": "ci", "containers": [{"name": "a"}]}})
    }

    #[test]
    fn what_the_one_webhook_injects_the_other_admits() {
        let final_pod = injected(&pod());
        let (settings, shape) = (settings(&[]), shape());
        let again = mutate(&request("CREATE", final_pod.clone()), &settings, &shape);
        assert_eq!(again, Verdict::allow());
        let verdict = validate(&request("CREATE", final_pod), &settings, &shape);
        assert_eq!(verdict, Verdict::allow());
    }

    #[test]
    fn a_pod_that_was_not_injected_is_refused_in_one_message_for_all_reasons() {
        let verdict = validate(&request("CREATE", pod()), &settings(&[]), &shape());
        let Verdict::Refuse { message } = verdict else {
            panic!("{verdict:?}");
        };
        assert!(message.starts_with("Chaperone audits this namespace"));
        assert!(message.contains("\n- spec.initContainers: "));
        assert!(message.contains("\n- spec.volumes[chaperone-trust]: "));
    }

    #[test]
    fn both_webhooks_leave_exempt_service_accounts_alone() {
        let settings = settings(&["--exempt-service-account=agents/ci"]);
        let request = request("CREATE", pod());
        for verdict in [
            mutate(&request, &settings, &shape()),
            validate(&request, &settings, &shape()),
        ] {
            assert_eq!(verdict.result(), "exempt");
        }
    }

    #[test]
    fn only_a_kubelet_may_show_a_static_pod() {
        let mut object = pod();
        object["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        let mut request = request("CREATE", object);
        assert_eq!(
            mutate(&request, &settings(&[]), &shape()).result(),
            "refused"
        );
        request.user_info = User {
            groups: vec!["system:nodes".to_owned()],
        };
        assert_eq!(
            validate(&request, &settings(&[]), &shape()).result(),
            "exempt"
        );
    }

    #[test]
    fn an_update_is_compared_with_what_was() {
        let old = injected(&pod());
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({});
        let mut request = request("UPDATE", new);
        request.old_object = old.clone();
        assert_eq!(
            validate(&request, &settings(&[]), &shape()).result(),
            "refused"
        );
        request.object = old;
        assert_eq!(
            validate(&request, &settings(&[]), &shape()),
            Verdict::allow()
        );
    }

    #[test]
    fn what_is_no_pod_is_invalid() {
        let verdict = validate(
            &request("CREATE", json!({"spec": 1})),
            &settings(&[]),
            &shape(),
        );
        assert_eq!(verdict.result(), "invalid");
    }
}
