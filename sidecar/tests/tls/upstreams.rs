//! `tls.upstreams`: roots that vouch for single hosts, and versions that are too old.

use super::*;

/// A policy in this mode with these entries.
fn policy(mode: &str, upstreams: &serde_json::Value) -> String {
    serde_json::json!({
        "apiVersion": "chaperone.dev/v1alpha1", "kind": "AgentPolicy", "metadata": {"name": "p", "namespace": "agents"},
        "spec": {"mode": mode, "tls": {"upstreams": upstreams}}
    })
    .to_string()
}

fn detail(record: &Record) -> &str {
    record.event.gap.as_ref().unwrap().detail.as_ref().unwrap()
}

#[tokio::test]
async fn a_root_that_a_policy_lists_for_a_host_vouches_for_that_host_only() {
    for version in [&TLS12, &TLS13] {
        let upstream = Upstream::start(version, Clients::Ignores).await;
        for (listed, reads) in [
            (HOST, true),
            ("*.example.com", true),
            ("other.example.com", false),
            ("127.0.0.1", false),
        ] {
            let entries = serde_json::json!([{"hosts": [listed], "caBundle": upstream.root}]);
            for mode in ["Audit", "Enforce"] {
                let mut world = World::new(&policy(mode, &entries), "", upstream.address);
                let both = [world.root.clone(), upstream.root.clone()];
                let both: Vec<&str> = both.iter().map(String::as_str).collect();
                let (heard, _) = world.ask(&agent(&both, None)).await.unwrap();
                assert_eq!(
                    heard == ANSWER,
                    reads || mode == "Audit",
                    "{listed} {heard}"
                );
                let records = world.stopped().await;
                match reads {
                    true => assert_eq!(records[0].event.kind, EventKind::Http, "{listed}"),
                    false => {
                        assert_eq!(reason(&records[0]), "unverifiable-upstream", "{listed}");
                        assert!(detail(&records[0]).contains("tls.upstreams"));
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn only_leaves_just_the_listed_roots() {
    let upstream = Upstream::start(&TLS13, Clients::Ignores).await;
    let (_, other) = Authority::self_made("other").unwrap();
    for (trust, reads) in [("Add", true), ("Only", false)] {
        let entries = serde_json::json!([{"hosts": [HOST], "caBundle": other, "trust": trust}]);
        let mut world = World::new(
            &policy("Enforce", &entries),
            &upstream.root,
            upstream.address,
        );
        let config = agent(&[&world.root.clone()], None);
        let (heard, _) = world.ask(&config).await.unwrap();
        assert_eq!(heard == ANSWER, reads, "{heard}");
        let records = world.stopped().await;
        if !reads {
            assert!(heard.starts_with("HTTP/1.1 502"), "{heard}");
            assert!(detail(&records[0]).contains("caBundle only"));
        }
    }
}

#[tokio::test]
async fn an_upstream_of_an_older_version_than_asked_for_is_refused_in_words_or_a_gap() {
    for (version, least, reads) in [
        (&TLS12, "TLS1.3", false),
        (&TLS12, "TLS1.2", true),
        (&TLS13, "TLS1.3", true),
    ] {
        let upstream = Upstream::start(version, Clients::Ignores).await;
        for mode in ["Audit", "Enforce"] {
            let entries = serde_json::json!([{"hosts": ["*"], "minVersion": least}]);
            let mut world = World::new(&policy(mode, &entries), &upstream.root, upstream.address);
            let both = [world.root.clone(), upstream.root.clone()];
            let both: Vec<&str> = both.iter().map(String::as_str).collect();
            let (heard, _) = world.ask(&agent(&both, None)).await.unwrap();
            assert_eq!(
                heard == ANSWER,
                reads || mode == "Audit",
                "{least} {mode} {heard}"
            );
            let records = world.stopped().await;
            if reads {
                assert_eq!(records[0].event.kind, EventKind::Http);
            } else {
                assert_eq!(reason(&records[0]), "upstream-handshake");
                assert!(detail(&records[0]).contains("asks for TLS1.3 at least"));
                assert_eq!(mode == "Enforce", heard.starts_with("HTTP/1.1 502"));
            }
        }
    }
}
