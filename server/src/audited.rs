//! Which pods Chaperone is about: those of labelled namespaces, but for exempt service accounts. Operator and ledger judge by the same functions, so that the one misses no pod that the other lets in.

use std::collections::BTreeMap;

use chaperone_crds::pod::{
    LEDGER_AUDIENCE, LEDGER_TOKEN_FILE, NAMESPACE_LABEL, NAMESPACE_LABEL_VALUE, TOKEN_VOLUME,
};
use k8s_openapi::api::core::v1::Pod;

/// A service account by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// `namespace/name`, as a command line has it.
///
/// # Errors
/// What is expected.
pub fn service_account(text: &str) -> Result<ServiceAccount, String> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok(ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        }
        _ => Err("expected namespace/name".to_owned()),
    }
}

/// Whether pods of a namespace with these labels get a sidecar. Chaperone's own (`own`) and kube-system never do.
#[must_use]
pub fn audits(own: &str, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
    let label = labels.and_then(|labels| labels.get(NAMESPACE_LABEL));
    namespace != own
        && namespace != "kube-system"
        && label.is_some_and(|value| value == NAMESPACE_LABEL_VALUE)
}

/// Whether pods of this service account are exempt. A pod that names none has `default`.
#[must_use]
pub fn exempts(exempt: &[ServiceAccount], namespace: &str, service_account: Option<&str>) -> bool {
    let name = service_account
        .filter(|name| !name.is_empty())
        .unwrap_or("default");
    exempt
        .iter()
        .any(|exempt| exempt.namespace == namespace && exempt.name == name)
}

/// Whether a pod's sidecar has a token for the ledger. One that was injected before there was a ledger has none until the pod is made anew.
#[must_use]
pub fn has_ledger_token(found: &Pod) -> bool {
    let volumes = found.spec.iter().flat_map(|spec| spec.volumes.iter());
    let ours = volumes
        .flatten()
        .filter(|volume| volume.name == TOKEN_VOLUME);
    ours.filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.service_account_token.as_ref())
        .any(|token| {
            token.audience.as_deref() == Some(LEDGER_AUDIENCE) && token.path == LEDGER_TOKEN_FILE
        })
}
