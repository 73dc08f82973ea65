//! Judgements on policies and sinks.

use std::sync::Arc;

use chaperone_crds::resources::{AgentPolicy, AuditSink, ClusterAgentPolicy};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde::de::DeserializeOwned;

use super::review::{Request, Verdict};
use crate::{
    compile,
    index::{
        PolicyEntry,
        certificates::{self, CertificateSecret},
        sinks,
    },
};

/// Compiles an `AgentPolicy` or `ClusterAgentPolicy`. A client certificate that cannot be presented is a warning: its Secret may be applied a moment later.
pub(super) fn validate_policy(
    request: &Request,
    secret: impl Fn(&str) -> Option<Secret>,
) -> Verdict {
    let entry = match request.kind.kind.as_str() {
        "AgentPolicy" => read(request)
            .map(|policy: AgentPolicy| PolicyEntry::namespaced(&policy, compile::policy)),
        "ClusterAgentPolicy" => read(request)
            .map(|policy: ClusterAgentPolicy| PolicyEntry::cluster(&policy, compile::policy)),
        kind => Err(Verdict::Invalid {
            message: format!("{kind} is not a policy of Chaperone"),
        }),
    };
    match entry.map(|entry| entry.content) {
        Ok(Ok(policy)) => {
            let named = policy.client_certificates().filter_map(|reference| {
                let read = CertificateSecret::read(&secret(&reference.secret)?)?;
                Some((reference.secret, Arc::new(read)))
            });
            Verdict::Allow {
                warnings: certificates::problems(&policy, &named.collect(), Timestamp::now()),
            }
        }
        Ok(Err(error)) => Verdict::refuse(error),
        Err(verdict) => verdict,
    }
}

/// Checks an `AuditSink`. A Secret that is missing is a warning: it may be applied a moment later.
pub(super) fn validate_sink(request: &Request, secret: impl Fn(&str) -> Option<Secret>) -> Verdict {
    let sink: AuditSink = match read(request) {
        Ok(sink) => sink,
        Err(verdict) => return verdict,
    };
    let problems = sinks::check(&sink.spec);
    if !problems.is_empty() {
        return Verdict::refuse(problems.join("; "));
    }
    Verdict::Allow {
        warnings: sinks::missing_secrets(&sink.spec, secret),
    }
}

fn read<K: DeserializeOwned>(request: &Request) -> Result<K, Verdict> {
    K::deserialize(&request.object).map_err(|error| Verdict::Invalid {
        message: format!("Chaperone cannot read this {}: {error}", request.kind.kind),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::webhooks::review::Kind;

    fn request(kind: &str, spec: Value) -> Request {
        Request {
            kind: Kind {
                kind: kind.to_owned(),
            },
            namespace: "agents".to_owned(),
            object: json!({
                "apiVersion": "chaperone.dev/v1alpha1", "kind": kind,
                "metadata": {"name": "p", "namespace": "agents"}, "spec": spec
            }),
            ..Request::default()
        }
    }

    #[test]
    fn policies_are_compiled_and_refused_with_the_position_of_the_error() {
        let with = |when: &str| json!({"rules": [{"name": "r", "when": when, "action": "Deny"}]});
        for kind in ["AgentPolicy", "ClusterAgentPolicy"] {
            let good = validate_policy(&request(kind, with("http.method == \"DELETE\"")), |_| None);
            assert_eq!(good, Verdict::allow());
            let bad = validate_policy(&request(kind, with("http.methd == \"DELETE\"")), |_| None);
            let Verdict::Refuse { message } = bad else {
                panic!("{bad:?}");
            };
            assert!(
                message.contains("rule \"r\"") && message.ends_with("       ^"),
                "{message}"
            );
        }
    }

    #[test]
    fn unknown_fields_kinds_and_selectors_are_refused() {
        let unknown = validate_policy(&request("AgentPolicy", json!({"shape": 1})), |_| None);
        assert_eq!(unknown.result(), "invalid");
        let kind = validate_policy(&request("Pod", json!({})), |_| None);
        assert_eq!(kind.result(), "invalid");
        let selector =
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}});
        let selector = validate_policy(&request("AgentPolicy", selector), |_| None);
        assert_eq!(selector.result(), "refused");
    }

    #[test]
    fn a_policy_whose_client_certificate_is_not_there_is_warned_of() {
        let spec = json!({"tls": {"upstreams": [{"hosts": ["a.example.com"], "clientCertificateSecret": {"name": "gone"}}]}});
        for kind in ["AgentPolicy", "ClusterAgentPolicy"] {
            let verdict = validate_policy(&request(kind, spec.clone()), |_| None);
            let Verdict::Allow { warnings } = verdict else {
                panic!("{verdict:?}");
            };
            assert!(warnings[0].contains("Secret gone"), "{warnings:?}");
        }
    }

    #[test]
    fn a_sink_with_a_bad_url_is_refused_and_one_without_its_secret_warned_of() {
        let sink = |url: &str| {
            request(
                "AuditSink",
                json!({"http": {"url": url, "tlsSecret": {"name": "gone"}}}),
            )
        };
        assert_eq!(
            validate_sink(&sink("https://"), |_| None).result(),
            "refused"
        );
        let Verdict::Allow { warnings } = validate_sink(&sink("https://c.example/"), |_| None)
        else {
            panic!("refused");
        };
        assert!(warnings[0].contains("Secret gone"));
    }
}
