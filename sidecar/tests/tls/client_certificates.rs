//! Client certificates that the sidecar holds, presented in the agent's place.

use base64::Engine;
use chaperone_crds::{
    control::{CertificateUse, ClientCertificate, Credential, PodConfig},
    record::CertificateInfo,
    snapshot::{CertificateRef, PolicyKind},
};

use super::*;

/// A policy in this mode that asks for the certificate of Secret `corp` for this host.
fn asking(mode: &str, host: &str) -> String {
    format!(
        "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p, namespace: agents}}\nspec:\n  mode: {mode}\n  tls:\n    upstreams: [{{hosts: [\"{host}\"], clientCertificateSecret: {{name: corp}}}}]\n"
    )
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn usable((chain, key): &Certified) -> Credential {
    Credential::Usable {
        chain: pem("CERTIFICATE", &chain[0]),
        key: pem("PRIVATE KEY", key.secret_der()),
    }
}

fn of_policies(kind: PolicyKind, credential: Credential) -> ClientCertificate {
    ClientCertificate {
        use_for: CertificateUse::Policies(CertificateRef {
            kind,
            secret: "corp".to_owned(),
        }),
        credential,
    }
}

impl World {
    fn reconfigure(&self, change: impl FnOnce(&mut PodConfig)) {
        let mut config = self.setup.shared.active.load_full().unwrap().config.clone();
        change(&mut config);
        let active = policy::compile(config).unwrap();
        self.setup.shared.active.store(Some(Arc::new(active)));
    }

    /// The certificate of Secret `corp` is this from now on.
    fn hold(&self, credential: Credential) {
        self.reconfigure(|config| {
            config.client_certificates = vec![of_policies(PolicyKind::AgentPolicy, credential)];
        });
    }

    /// An agent that trusts both roots, and holds this certificate.
    fn agent(&self, upstream: &Upstream, certificate: Option<&Certified>) -> Arc<ClientConfig> {
        agent(&[&self.root, &upstream.root], certificate)
    }
}

fn presented(record: &Record) -> Option<&CertificateInfo> {
    let destination = record.event.destination.as_ref().unwrap();
    destination.client_certificate.as_ref()
}

fn aws_digest(bytes: &[u8]) -> Vec<u8> {
    use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    // The hash of this suite is SHA-256.
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}

fn fingerprint(certified: &Certified) -> String {
    let digest = aws_digest(&certified.0[0]);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_certificate_that_is_held_is_presented_recorded_and_never_asked_of_the_agent() {
    for version in [&TLS12, &TLS13] {
        for clients in [Clients::Asks, Clients::Demands] {
            for mode in ["Audit", "Enforce"] {
                let mut upstream = Upstream::start(version, clients).await;
                let mut world = World::new(&asking(mode, HOST), &upstream.root, upstream.address);
                world.hold(usable(&upstream.client));
                // It would present its own if it were asked, and then not be read.
                let (_, own) = client_certificate();
                let config = world.agent(&upstream, Some(&own));
                for _ in 0..2 {
                    assert_eq!(world.ask(&config).await.unwrap().0, ANSWER);
                    // Who resumes is not asked again: each connection proves anew who speaks.
                    let kind = upstream.handshakes.recv().await.unwrap();
                    assert_ne!(kind, HandshakeKind::Resumed);
                }
                let records = world.stopped().await;
                for record in &records {
                    assert_eq!(record.event.kind, EventKind::Http);
                    let certificate = presented(record).unwrap();
                    assert_eq!(certificate.sha256, fingerprint(&upstream.client));
                    assert!(certificate.subject.contains("CN="), "{certificate:?}");
                }
                assert_eq!(records.len(), 2);
            }
        }
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_ask_gets_no_certificate_and_the_record_says_none() {
    for (host, clients) in [
        (HOST, Clients::Ignores),
        ("other.example.com", Clients::Asks),
    ] {
        let upstream = Upstream::start(&TLS13, clients).await;
        let mut world = World::new(&asking("Enforce", host), &upstream.root, upstream.address);
        world.hold(usable(&upstream.client));
        let config = world.agent(&upstream, None);
        assert_eq!(world.ask(&config).await.unwrap().0, ANSWER);
        assert_eq!(presented(&world.stopped().await[0]), None);
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_refused_in_words_or_a_gap_that_says_why() {
    let (_, (chain, _)) = client_certificate();
    let (_, (_, key)) = client_certificate();
    let unusable = |problem: &str| Credential::Unusable {
        problem: problem.to_owned(),
    };
    for (credential, why) in [
        (
            Some(unusable("Secret corp is not there")),
            "Secret corp is not there",
        ),
        (
            Some(usable(&(chain, key))),
            "Secret corp: its key is not that of its certificate",
        ),
        (Some(usable(&expired())), "expired on 2021-01-01"),
        (None, "Secret corp did not come with the configuration"),
    ] {
        for mode in ["Audit", "Enforce"] {
            let mut upstream = Upstream::start(&TLS13, Clients::Demands).await;
            let mut world = World::new(&asking(mode, HOST), &upstream.root, upstream.address);
            if let Some(credential) = credential.clone() {
                world.hold(credential);
            }
            let config = world.agent(&upstream, Some(&upstream.client));
            let (heard, _) = world.ask(&config).await.unwrap();
            let records = world.stopped().await;
            assert_eq!(reason(&records[0]), "unusable-certificate");
            let detail = records[0].event.gap.as_ref().unwrap().detail.as_ref();
            assert!(detail.unwrap().contains(why), "{detail:?}");
            if mode == "Audit" {
                assert_eq!(heard, ANSWER);
            } else {
                assert!(heard.starts_with("HTTP/1.1 502"), "{heard}");
                assert!(heard.contains(why), "{heard}");
                assert!(
                    upstream.handshakes.try_recv().is_err(),
                    "nothing is dialled"
                );
            }
        }
    }
}

/// One whose time is over.
fn expired() -> Certified {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["agent.example.com".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    (vec![certificate.der().clone()], key)
}

#[tokio::test]
async fn a_certificate_that_the_upstream_refuses_is_told_in_words_or_the_agents_to_replace() {
    for version in [&TLS12, &TLS13] {
        for mode in ["Audit", "Enforce"] {
            let upstream = Upstream::start(version, Clients::Demands).await;
            let mut world = World::new(&asking(mode, HOST), &upstream.root, upstream.address);
            let (_, stranger) = client_certificate();
            world.hold(usable(&stranger));
            let config = world.agent(&upstream, Some(&upstream.client));
            let (heard, _) = world.ask(&config).await.unwrap();
            let records = world.stopped().await;
            assert_eq!(reason(&records[0]), "client-certificate");
            let detail = records[0].event.gap.as_ref().unwrap().detail.clone();
            let detail = detail.unwrap();
            assert!(
                detail.contains("refuses the client certificate"),
                "{detail}"
            );
            match mode {
                "Audit" => assert_eq!(heard, ANSWER),
                _ => assert!(heard.starts_with("HTTP/1.1 502"), "{heard}"),
            }
        }
    }
}

#[tokio::test]
async fn another_certificate_under_the_same_revision_holds_from_the_next_connection_on() {
    let upstream = Upstream::start(&TLS13, Clients::Asks).await;
    let mut world = World::new(&asking("Enforce", HOST), &upstream.root, upstream.address);
    let config = world.agent(&upstream, None);
    let revision = |world: &World| {
        let active = world.setup.shared.active.load_full().unwrap();
        active.config.revision.clone()
    };
    let before = revision(&world);
    world.hold(Credential::Unusable {
        problem: "not yet".to_owned(),
    });
    assert!(
        world
            .ask(&config)
            .await
            .unwrap()
            .0
            .starts_with("HTTP/1.1 502")
    );
    world.hold(usable(&upstream.client));
    assert_eq!(world.ask(&config).await.unwrap().0, ANSWER);
    assert_eq!(revision(&world), before);
    // What a cluster policy may use, a namespaced one is not given for it.
    world.reconfigure(|config| {
        let credential = config.client_certificates.remove(0).credential;
        config.client_certificates = vec![of_policies(PolicyKind::ClusterAgentPolicy, credential)];
    });
    assert!(
        world
            .ask(&config)
            .await
            .unwrap()
            .0
            .starts_with("HTTP/1.1 502")
    );
    world.stopped().await;
}

#[tokio::test]
async fn an_agent_that_was_left_unread_for_its_own_certificate_is_read_once_one_is_held() {
    let upstream = Upstream::start(&TLS13, Clients::Asks).await;
    let mut world = World::new(AUDIT, &upstream.root, upstream.address);
    let config = world.agent(&upstream, Some(&upstream.client));
    assert!(world.ask(&config).await.is_err());
    world.last_ends().await;
    assert_eq!(world.ask(&config).await.unwrap().0, ANSWER);
    world.swap(&asking("Audit", HOST));
    world.hold(usable(&upstream.client));
    assert_eq!(world.ask(&config).await.unwrap().0, ANSWER);
    let records = world.stopped().await;
    let last = records.last().unwrap();
    assert_eq!(last.event.kind, EventKind::Http);
    assert!(presented(last).is_some());
}
