//! Who a pod is, as the API server says.

use chaperone_crds::pod::{PodIdentity, SIDECAR_NAME};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// The pod's identity: names, uid, node, labels, images without the sidecar's.
#[must_use]
pub fn identity(pod: &Pod) -> PodIdentity {
    let spec = pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.as_slice());
    PodIdentity {
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        service_account: spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned()),
        node: spec
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        labels: pod.labels().clone(),
        images: containers
            .unwrap_or_default()
            .iter()
            .filter(|container| container.name != SIDECAR_NAME)
            .filter_map(|container| container.image.clone())
            .collect(),
    }
}

/// What its containers run, as the kubelet reports it, without the sidecar's: image IDs of those that have started, in the pod's order.
#[must_use]
pub fn image_ids(pod: &Pod) -> Vec<String> {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|s| s.container_statuses.as_ref());
    statuses
        .into_iter()
        .flatten()
        .filter(|status| status.name != SIDECAR_NAME && !status.image_id.is_empty())
        .map(|status| status.image_id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn image_ids_are_of_containers_that_have_started() {
        let pod: Pod = serde_json::from_value(json!({
            "spec": {"containers": [{"name": "agent", "image": "claude:1"}]},
            "status": {"containerStatuses": [
                {"name": "agent", "image": "claude:1", "imageID": "claude@sha256:aa", "ready": true, "restartCount": 0},
                {"name": "late", "image": "x", "imageID": "", "ready": false, "restartCount": 0},
                {"name": SIDECAR_NAME, "image": "s", "imageID": "s@sha256:bb", "ready": true, "restartCount": 0}
            ]}
        }))
        .unwrap();
        assert_eq!(image_ids(&pod), ["claude@sha256:aa"]);
        assert_eq!(identity(&pod).images, ["claude:1"]);
        assert_eq!(image_ids(&Pod::default()), Vec::<String>::new());
    }
}
