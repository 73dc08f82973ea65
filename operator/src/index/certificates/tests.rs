//! Which Secret is whose.

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use serde_json::json;

use super::*;
use chaperone_crds::resources::AgentPolicySpec;

/// A certificate valid from 2020 to 2040, and its key.
fn pem(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A Secret as `kubectl create secret tls` makes it, labelled, for these namespaces.
pub(crate) fn secret(namespaces: &str, chain: &str, key: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            labels: Some([(CLIENT_CERTIFICATE_LABEL.to_owned(), "true".to_owned())].into()),
            annotations: Some(
                [(
                    CERTIFICATE_NAMESPACES_ANNOTATION.to_owned(),
                    namespaces.to_owned(),
                )]
                .into(),
            ),
            ..ObjectMeta::default()
        },
        type_: Some(TLS_TYPE.to_owned()),
        data: Some(
            [("tls.crt", chain), ("tls.key", key)]
                .map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec())))
                .into(),
        ),
        ..Secret::default()
    }
}

fn held(secret: &Secret) -> Certificates {
    let read = CertificateSecret::read(secret).map(Arc::new);
    read.into_iter()
        .map(|read| ("corp".to_owned(), read))
        .collect()
}

fn spec() -> AgentPolicySpec {
    let entry = json!({"hosts": ["api.example.com"], "clientCertificateSecret": {"name": "corp"}});
    serde_json::from_value(json!({"tls": {"upstreams": [entry, entry]}})).unwrap()
}

fn namespaced(namespace: &str) -> Policy {
    Policy::namespaced(namespace, "p", 1, &spec())
}

fn cluster() -> Policy {
    let mut policy = namespaced("");
    policy.reference.kind = PolicyKind::ClusterAgentPolicy;
    policy
}

fn now() -> Timestamp {
    "2030-01-01T00:00:00Z".parse().unwrap()
}

fn credential(policy: Policy, namespace: &str, certificates: &Certificates) -> Credential {
    let mut resolved = resolve(&Snapshot::new(vec![policy]), namespace, certificates);
    assert_eq!(resolved.len(), 1, "it is asked for twice, and sent once");
    resolved.remove(0).credential
}

#[test]
fn a_secret_goes_to_cluster_policies_and_to_the_namespaces_that_it_names() {
    let (chain, key) = pem("agents");
    let certificates = held(&secret("blue, red", &chain, &key));
    for (policy, namespace, permitted) in [
        (namespaced("red"), "red", true),
        (namespaced("blue"), "blue", true),
        (namespaced("green"), "green", false),
        (namespaced("re"), "re", false),
        (cluster(), "green", true),
    ] {
        let problems = problems(&policy, &certificates, now());
        assert_eq!(problems.is_empty(), permitted, "{problems:?}");
        match credential(policy, namespace, &certificates) {
            Credential::Usable { chain: sent, .. } => assert!(permitted && sent == chain),
            Credential::Unusable { problem } => {
                assert!(!permitted && problem.contains(CERTIFICATE_NAMESPACES_ANNOTATION));
                assert_eq!(problems, [problem]);
            }
        }
    }
    let unlisted = held(&secret("", &chain, &key));
    assert_eq!(problems(&namespaced(""), &unlisted, now()).len(), 1);
}

#[test]
fn what_is_no_client_certificate_is_never_sent_and_said_without_the_key() {
    let ((chain, key), (other, _)) = (pem("agents"), pem("others"));
    let unlabelled = {
        let mut secret = secret("red", &chain, &key);
        secret.metadata.labels =
            Some([(CLIENT_CERTIFICATE_LABEL.to_owned(), "yes".to_owned())].into());
        secret
    };
    let opaque = Secret {
        type_: Some("Opaque".to_owned()),
        ..secret("red", &chain, &key)
    };
    let long = format!("{}{chain}", "-".repeat(MAX_PAIR_BYTES));
    for (secret, expected) in [
        (
            unlabelled,
            "is not there, or has no label chaperone.dev/client-certificate",
        ),
        (opaque, "kubernetes.io/tls"),
        (secret("red", "", &key), "no PEM certificate"),
        (
            secret("red", include_str!("version1.pem"), &key),
            "X.509 version 1",
        ),
        (secret("red", &other, &key), "not that of its certificate"),
        (secret("red", &chain, "x"), "no unencrypted PEM key"),
        (secret("red", &long, &key), "bytes"),
    ] {
        let certificates = held(&secret);
        for policy in [namespaced("red"), cluster()] {
            let problems = problems(&policy, &certificates, now());
            assert!(problems[0].contains(expected), "{problems:?}");
            assert!(problems[0].starts_with("Secret corp in Chaperone's namespace "));
            let credential = credential(policy, "red", &certificates);
            assert!(matches!(credential, Credential::Unusable { .. }));
        }
    }
    let line = key.lines().nth(1).unwrap();
    let printed = format!("{:?}", held(&secret("red", &chain, &key)));
    assert!(!printed.contains(line), "{printed}");
    let missing = problems(&namespaced("red"), &Certificates::new(), now());
    assert!(missing[0].contains("is not there, or has no label"));
    let broken = problems(&namespaced("blue"), &held(&secret("red", "", "")), now());
    assert!(broken[0].contains("not permitted"), "{broken:?}");
}

#[test]
fn one_that_is_out_of_date_is_sent_and_said() {
    let (chain, key) = pem("agents");
    let certificates = held(&secret("red", &chain, &key));
    for (time, expected) in [
        ("2019-12-31T00:00:00Z", "not valid before 2020-01-01"),
        ("2040-01-02T00:00:00Z", "expired on 2040-01-01"),
    ] {
        let problems = problems(&namespaced("red"), &certificates, time.parse().unwrap());
        assert!(problems[0].contains(expected), "{problems:?}");
    }
    // The sidecar has a clock of its own: plans do not change with the time.
    assert!(matches!(
        credential(namespaced("red"), "red", &certificates),
        Credential::Usable { .. }
    ));
}
