use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    compile::{CompiledSnapshot, compile_policy},
    decide::fixtures::{cluster, namespaced},
    snapshot::{Policy, Snapshot},
};

const RED: &str = include_str!("red.pem");
const BLUE: &str = include_str!("blue.pem");

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A spec with these entries, as YAML (which JSON is).
fn spec(upstreams: &serde_json::Value) -> String {
    json!({"tls": {"upstreams": upstreams}}).to_string()
}

fn errors(spec: &str) -> String {
    let policy = namespaced("web", spec);
    compile_policy(&policy)
        .map(|_| ())
        .expect_err("the policy is wrong")
        .to_string()
}

fn holds(policies: Vec<Policy>, verified: &str) -> UpstreamTls {
    let snapshot = CompiledSnapshot::compile(&Snapshot::new(policies)).unwrap();
    snapshot.upstream_tls(&snapshot.upstream_entries(verified))
}

#[test]
fn an_entry_holds_for_the_name_that_is_verified_and_for_no_other() {
    let policy = |host: &str| {
        namespaced(
            "web",
            &spec(&json!([{"hosts": [host], "caBundle": RED, "minVersion": "TLS1.3"}])),
        )
    };
    for (host, verified, applies) in [
        ("db.example.com", "db.example.com", true),
        ("DB.example.com", "db.example.com.", true),
        ("db.example.com", "other.example.com", false),
        ("*.example.com", "a.b.example.com", true),
        ("*.example.com", "example.com", false),
        // Only where the address itself is what is verified: a root that is listed for it vouches for no name there.
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("10.0.0.0/8", "db.example.com", false),
        ("fd00::1", "fd00:0::1", true),
        ("db.example.com", "10.1.2.3", false),
    ] {
        let found = holds(vec![policy(host)], verified);
        let expected = match applies {
            true => UpstreamTls {
                roots: vec![der(RED)],
                trust: Trust::Add,
                min_version: Some(TlsVersion::Tls13),
                certificate: None,
            },
            false => UpstreamTls::default(),
        };
        assert_eq!(found, expected, "{host} {verified}");
    }
}

#[test]
fn everything_may_have_a_lowest_version_and_nothing_else() {
    let lowest = spec(&json!([{"hosts": ["*", "0.0.0.0/0"], "minVersion": "TLS1.3"}]));
    let found = holds(vec![namespaced("web", &lowest)], "any.example.com");
    assert_eq!(found.min_version, Some(TlsVersion::Tls13));
    for host in ["*", "0.0.0.0/0", "::/0"] {
        let text = errors(&spec(&json!([{"hosts": [host], "caBundle": RED}])));
        assert!(
            text.starts_with("policy team/web, tls.upstreams[0].hosts[0], line 1, column 1: "),
            "{text}"
        );
        assert!(text.ends_with(&format!("\n  {host}\n  ^")), "{text}");
    }
}

#[test]
fn several_entries_come_together() {
    let entry = |pem: &str, trust: &str| json!({"hosts": ["*.example.com"], "caBundle": pem, "trust": trust});
    let lowest = |version: &str| json!({"hosts": ["db.example.com"], "minVersion": version});
    let cases = [
        // Roots add up, each once; the highest version holds.
        (
            json!([entry(RED, "Add"), lowest("TLS1.3")]),
            json!([entry(RED, "Add"), entry(BLUE, "Add"), lowest("TLS1.2")]),
            (
                vec![der(RED), der(BLUE)],
                Trust::Add,
                Some(TlsVersion::Tls13),
            ),
        ),
        // One Only leaves just what is listed.
        (
            json!([entry(RED, "Add")]),
            json!([entry(BLUE, "Only")]),
            (vec![der(RED), der(BLUE)], Trust::Only, None),
        ),
        // What the cluster lists as Only, no namespace adds to.
        (
            json!([entry(RED, "Only")]),
            json!([entry(BLUE, "Add"), entry(BLUE, "Only"), lowest("TLS1.3")]),
            (vec![der(RED)], Trust::Only, Some(TlsVersion::Tls13)),
        ),
    ];
    for (floor, web, (roots, trust, min_version)) in cases {
        let policies = vec![
            namespaced("web", &spec(&web)),
            cluster("floor", &spec(&floor)),
        ];
        let expected = UpstreamTls {
            roots,
            trust,
            min_version,
            certificate: None,
        };
        assert_eq!(holds(policies, "db.example.com"), expected);
    }
}

#[test]
fn the_first_certificate_is_presented_and_cluster_policies_come_first() {
    let entry = |host: &str, name: &str| json!({"hosts": [host], "clientCertificateSecret": {"name": name}});
    let web = namespaced(
        "web",
        &spec(&json!([
            entry("db.example.com", "own"),
            entry("*.example.com", "second")
        ])),
    );
    let floor = cluster("floor", &spec(&json!([entry("*.db.example.com", "corp")])));
    let presented = |verified: &str| {
        holds(vec![web.clone(), floor.clone()], verified)
            .certificate
            .map(|certificate| (certificate.kind, certificate.secret))
    };
    let own = |name: &str| Some((PolicyKind::AgentPolicy, name.to_owned()));
    assert_eq!(presented("db.example.com"), own("own"));
    assert_eq!(presented("a.example.com"), own("second"));
    let corp = Some((PolicyKind::ClusterAgentPolicy, "corp".to_owned()));
    assert_eq!(presented("a.db.example.com"), corp);
    assert_eq!(presented("example.com"), None);
    for host in ["*", "0.0.0.0/0"] {
        let text = errors(&spec(&json!([entry(host, "own")])));
        assert!(text.contains("to every server that asks"), "{text}");
        assert!(text.ends_with(&format!("\n  {host}\n  ^")), "{text}");
    }
}

#[test]
fn a_bundle_that_a_sidecar_cannot_load_is_refused_with_its_place() {
    let broken = RED.replacen("MI", "!!", 1);
    let no_root = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        "AAAA"
    );
    let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
    let second = RED.lines().count() + 1;
    for (bundle, line, expected) in [
        ("hello".to_owned(), 1, "no PEM certificate"),
        (broken, 1, "not a PEM certificate"),
        (format!("{RED}{no_root}"), second, "cannot be a root"),
        (format!("{RED}{key}"), second, "only certificates belong"),
        (
            format!("{RED}{}", &BLUE[..100]),
            second,
            "not a PEM certificate",
        ),
    ] {
        let text = errors(&spec(
            &json!([{"hosts": ["a.example.com"], "caBundle": bundle}]),
        ));
        let place = format!("policy team/web, tls.upstreams[0].caBundle, line {line}, column 1: ");
        assert!(text.starts_with(&place), "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("c2VjcmV0"), "{text}");
    }
}

#[test]
fn entries_that_say_nothing_or_hold_nowhere_are_refused() {
    for (entry, expected) in [
        (
            json!({"hosts": ["a.example.com"]}),
            "caBundle, minVersion or clientCertificateSecret",
        ),
        (
            json!({"hosts": [], "minVersion": "TLS1.3"}),
            "it needs hosts",
        ),
        (
            json!({"hosts": ["a.example.com"], "minVersion": "TLS1.3", "trust": "Only"}),
            "needs a caBundle",
        ),
        (
            json!({"hosts": ["a b"], "minVersion": "TLS1.3"}),
            "cannot stand in a host name",
        ),
    ] {
        let text = errors(&spec(&json!([entry])));
        assert!(text.contains(expected), "{text}");
    }
    for (passthrough, host, refused) in [
        ("a.example.com", "a.example.com", true),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "*.b.example.com", true),
        ("*.example.com", "*.example.com", true),
        ("a.example.com", "*.example.com", false),
        ("*.example.com", "example.com", false),
    ] {
        let spec = json!({"tls": {"passthrough": [passthrough], "upstreams": [{"hosts": [host], "minVersion": "TLS1.3"}]}});
        let compiled = compile_policy(&namespaced("web", &spec.to_string()));
        let text = compiled.map(|_| ()).err().map(|errors| errors.to_string());
        assert_eq!(text.is_some(), refused, "{passthrough} {host}");
        assert!(text.is_none_or(|text| text.contains("tls.upstreams[0].hosts[0]")));
    }
}

/// One entry for `db.example.com`, or for a host that is not asked for.
fn any_entry() -> impl Strategy<Value = serde_json::Value> {
    let host = prop_oneof![
        Just("db.example.com"),
        Just("*.example.com"),
        Just("elsewhere.example.org"),
        Just("10.0.0.0/8")
    ];
    let bundle = prop_oneof![Just(None), Just(Some(RED)), Just(Some(BLUE))];
    let version = prop_oneof![Just(None), Just(Some("TLS1.2")), Just(Some("TLS1.3"))];
    (host, bundle, version, any::<bool>()).prop_map(|(host, bundle, version, only)| {
        let version = version.or(bundle.is_none().then_some("TLS1.2"));
        let mut entry = json!({"hosts": [host]});
        if let Some(bundle) = bundle {
            entry["caBundle"] = bundle.into();
            entry["trust"] = if only { "Only" } else { "Add" }.into();
        }
        if let Some(version) = version {
            entry["minVersion"] = version.into();
        }
        entry
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn more_entries_never_lower_a_version_nor_reopen_what_a_cluster_policy_closed(
        floor in prop::collection::vec(any_entry(), 0..4),
        web in prop::collection::vec(any_entry(), 0..4),
    ) {
        let name = "db.example.com";
        let both = || vec![cluster("floor", &spec(&json!(floor))), namespaced("web", &spec(&json!(web)))];
        let alone = holds(vec![cluster("floor", &spec(&json!(floor)))], name);
        let together = holds(both(), name);
        prop_assert!(together.min_version >= alone.min_version);
        if alone.trust == Trust::Only {
            prop_assert_eq!((&together.roots, together.trust), (&alone.roots, Trust::Only));
        } else {
            prop_assert!(alone.roots.iter().all(|root| together.roots.contains(root)));
        }
        let mut turned = both();
        turned.reverse();
        prop_assert_eq!(holds(turned, name), together);
        prop_assert_eq!(holds(both(), "unnamed.example.net"), UpstreamTls::default());
    }
}
