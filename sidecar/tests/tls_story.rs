//! Captured connections over real sockets: TLS clients and servers of rustls on both sides of the sidecar, and the records that they leave.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "support/setup.rs"]
mod setup;

#[path = "support/captured.rs"]
mod captured;

#[path = "tls/elsewhere.rs"]
mod elsewhere;

use std::{io, net::SocketAddr, sync::Arc};

use captured::{HOST, World};
use chaperone_crds::record::{EventKind, Outcome, Record};
use chaperone_sidecar::{authority::Authority, first};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn policy(mode: &str, rest: &str) -> String {
    format!(
        "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p, namespace: agents}}\nspec:\n  mode: {mode}\n{rest}"
    )
}

/// A server on loopback, under a root of its own.
struct Upstream {
    address: SocketAddr,
    root: String,
    _serving: JoinHandle<()>,
}

impl Upstream {
    /// Answers one HTTP request a connection, over TLS as `name`.
    async fn tls(name: &str) -> Self {
        Self::tls_at("127.0.0.1:0", name).await
    }

    async fn tls_at(place: &str, name: &str) -> Self {
        let (authority, root) = Authority::self_made("upstream").unwrap();
        let acceptor = TlsAcceptor::from(authority.server_config(name).unwrap());
        let listener = TcpListener::bind(place).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = answer(stream).await;
                }
            }
        });
        Self {
            address,
            root,
            _serving: serving,
        }
    }

    /// Says `greeting`, then answers one HTTP request a connection, in clear text.
    async fn clear(greeting: &'static str) -> Self {
        Self::clear_at("127.0.0.1:0", greeting).await
    }

    async fn clear_at(place: &str, greeting: &'static str) -> Self {
        let listener = TcpListener::bind(place).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let _ = stream.write_all(greeting.as_bytes()).await;
                    let _ = answer(stream).await;
                });
            }
        });
        Self {
            address,
            root: String::new(),
            _serving: serving,
        }
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(stream.read_u8().await?);
    }
    stream.write_all(ANSWER.as_bytes()).await?;
    stream.shutdown().await
}

impl World {
    /// The agent, trusting `root`, asks `name` over TLS and hears everything to the end.
    async fn ask(
        &mut self,
        root: &str,
        name: &str,
        alpn: &[&str],
        request: &str,
    ) -> io::Result<String> {
        let stream = self.dial().await;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(client(root, alpn))
            .connect(name, stream)
            .await?;
        stream.write_all(request.as_bytes()).await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        Ok(String::from_utf8_lossy(&heard).into_owned())
    }
}

fn client(root: &str, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A ClientHello as it leaves a client.
fn hello() -> Vec<u8> {
    let (_, root) = Authority::self_made("nobody").unwrap();
    let mut client = ClientConnection::new(client(&root, &[]), HOST.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn reason(record: &Record) -> &str {
    &record.event.decision.as_ref().unwrap().reason
}

fn action(record: &Record) -> Outcome {
    record.event.decision.as_ref().unwrap().action
}

/// Reason of each gap; a gap that passed is recorded twice.
fn gaps(records: &[Record]) -> Vec<&str> {
    records
        .iter()
        .map(|record| record.event.gap.as_ref().unwrap().reason.as_str())
        .collect()
}

#[tokio::test]
async fn a_verified_upstream_is_read_under_a_leaf_for_its_name() {
    let upstream = Upstream::tls(HOST).await;
    let mut world = World::new("", &upstream.root, upstream.address);
    let root = world.root.clone();
    let heard = world
        .ask(
            &root,
            HOST,
            &["h2", "http/1.1"],
            &get(&format!("{HOST}:{}", upstream.address.port())),
        )
        .await;
    assert_eq!(heard.unwrap(), ANSWER);
    let records = world.records().await;
    let event = &records[0].event;
    assert_eq!(
        event.operation.as_ref().unwrap().resource,
        format!("https://{HOST}:{}/", upstream.address.port())
    );
    let status = event.http.as_ref().unwrap().status;
    assert_eq!((records.len(), status), (1, Some(200)));
}

#[tokio::test]
async fn an_upstream_without_a_known_root_is_the_agents_to_judge_in_audit() {
    let upstream = Upstream::tls(HOST).await;
    let mut world = World::new("", "", upstream.address);
    let heard = world.ask(&upstream.root, HOST, &[], &get(HOST)).await;
    assert_eq!(heard.unwrap(), ANSWER);
    let records = world.records().await;
    assert_eq!(gaps(&records), ["unverifiable-upstream"; 2]);
    let gap = records[1].event.gap.as_ref().unwrap();
    assert!(gap.detail.as_ref().unwrap().contains("extraRoots"));
    assert!(gap.sent_bytes.unwrap() > 0 && gap.received_bytes.unwrap() > 0);
}

#[tokio::test]
async fn an_upstream_without_a_known_root_is_refused_in_words_in_enforce() {
    let upstream = Upstream::tls(HOST).await;
    for trusts_us in [true, false] {
        let mut world = World::new(
            &policy("Enforce", "  defaultAction: Allow\n"),
            "",
            upstream.address,
        );
        let root = if trusts_us {
            world.root.clone()
        } else {
            upstream.root.clone()
        };
        let heard = world.ask(&root, HOST, &[], &get(HOST)).await;
        assert_eq!(
            trusts_us,
            heard.is_ok_and(|heard| heard.starts_with("HTTP/1.1 502"))
        );
        let records = world.records().await;
        assert_eq!(gaps(&records), ["unverifiable-upstream"]);
        assert_eq!(action(&records[0]), Outcome::Deny);
    }
}

#[tokio::test]
async fn a_pinned_client_passes_unread_the_second_time_in_audit_and_never_in_enforce() {
    for mode in ["Audit", "Enforce"] {
        let upstream = Upstream::tls(HOST).await;
        let mut world = World::new(
            &policy(mode, "  defaultAction: Allow\n"),
            &upstream.root,
            upstream.address,
        );
        assert!(
            world
                .ask(&upstream.root, HOST, &[], &get(HOST))
                .await
                .is_err()
        );
        world.last_ends().await;
        let second = world.ask(&upstream.root, HOST, &[], &get(HOST)).await;
        assert_eq!(second.is_ok(), mode == "Audit");
        let records = world.records().await;
        assert_eq!(reason(&records[0]), "pinned-client");
        match mode {
            "Audit" => assert_eq!(gaps(&records[1..]), ["pinned-client"; 2]),
            _ => assert_eq!((records.len(), reason(&records[1])), (2, "pinned-client")),
        }
    }
}

#[tokio::test]
async fn a_client_of_an_unread_protocol_needs_a_rule_and_a_true_name_in_enforce() {
    let allowing = |host: &str| {
        policy(
            "Enforce",
            &format!(
                "  rules:\n    - name: r\n      match: {{protocols: [tls], hosts: [\"{host}\"]}}\n      action: Allow\n"
            ),
        )
    };
    for (policies, name, passes, why) in [
        (policy("Audit", ""), HOST, true, "default"),
        (policy("Enforce", ""), HOST, false, "unread-alpn"),
        (allowing(HOST), HOST, true, "rule"),
        (
            allowing("elsewhere.example.com"),
            "elsewhere.example.com",
            false,
            "host-mismatch",
        ),
    ] {
        let upstream = Upstream::tls(name).await;
        let mut world = World::new(&policies, &upstream.root, upstream.address);
        // The upstream does not speak it either: what passes fails in the agent's own handshake.
        let heard = world.ask(&upstream.root, name, &["imap"], &get(name)).await;
        assert!(heard.is_err());
        let records = world.records().await;
        assert_eq!(
            gaps(&records).len(),
            if passes { 2 } else { 1 },
            "{policies}"
        );
        assert_eq!(
            (reason(&records[0]), action(&records[0]) == Outcome::Allow),
            (why, passes),
            "{policies}"
        );
    }
}

#[tokio::test]
async fn without_a_server_name_the_address_is_what_is_verified() {
    let upstream = Upstream::tls("127.0.0.1").await;
    let mut world = World::new("", &upstream.root, upstream.address);
    let root = world.root.clone();
    let heard = world.ask(&root, "127.0.0.1", &[], &get("127.0.0.1")).await;
    assert_eq!(heard.unwrap(), ANSWER);
    let close = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let fronted = world.ask(&root, "127.0.0.1", &[], &close).await;
    assert!(fronted.unwrap().starts_with("HTTP/1.1 421"));
    let records = world.records().await;
    assert_eq!(records[0].event.destination.as_ref().unwrap().sni, None);
    assert_eq!(reason(&records[1]), "host-mismatch");
}

#[tokio::test]
async fn passthrough_needs_a_name_that_is_at_the_address() {
    let listed = |name: &str| {
        policy(
            "Enforce",
            &format!("  tls: {{passthrough: [\"{name}\"]}}\n"),
        )
    };
    let upstream = Upstream::tls(HOST).await;
    let mut world = World::new(&listed(HOST), "", upstream.address);
    let heard = world.ask(&upstream.root, HOST, &[], &get(HOST)).await;
    assert_eq!(heard.unwrap(), ANSWER);
    assert_eq!(gaps(&world.records().await), ["passthrough"; 2]);

    let upstream = Upstream::tls("elsewhere.example.com").await;
    let mut world = World::new(&listed("elsewhere.example.com"), "", upstream.address);
    let lied = world
        .ask(&upstream.root, "elsewhere.example.com", &[], &get(HOST))
        .await;
    assert!(lied.is_err());
    let records = world.records().await;
    assert_eq!(gaps(&records), ["unverifiable-upstream"]);
}

#[tokio::test]
async fn an_upstream_that_cannot_be_reached_is_a_reset_and_one_record() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut world = World::new("", "", closed);
    let root = world.root.clone();
    assert!(world.ask(&root, HOST, &[], &get(HOST)).await.is_err());
    let records = world.records().await;
    assert_eq!(
        (records.len(), reason(&records[0])),
        (1, "upstream-unreachable")
    );
}

#[tokio::test]
async fn a_hello_that_is_none_is_refused_and_recorded() {
    let upstream = Upstream::tls(HOST).await;
    let mut world = World::new("", &upstream.root, upstream.address);
    let mut agent = world.dial().await;
    agent
        .write_all(b"\x16\x03\x01\x00\x04\x02\x00\x00\x00")
        .await
        .unwrap();
    assert!(agent.read_u8().await.is_err());
    let mut agent = world.dial().await;
    agent.write_all(&hello()[..40]).await.unwrap();
    drop(agent);
    let records = world.records().await;
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| reason(record) == "malformed"));
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_does_not_end_is_given_up() {
    let mut world = World::new("", "", "127.0.0.1:1".parse().unwrap());
    let mut agent = world.dial().await;
    agent.write_all(&hello()[..40]).await.unwrap();
    assert!(agent.read_u8().await.is_err());
    tokio::time::resume();
    let records = world.records().await;
    assert!(
        records[0]
            .event
            .error
            .as_ref()
            .unwrap()
            .contains("longer than")
    );
}

#[tokio::test]
async fn an_agent_that_leaves_in_its_handshake_or_right_after_it_leaves_one_record() {
    let upstream = Upstream::tls(HOST).await;
    let mut world = World::new("", &upstream.root, upstream.address);
    let mut agent = world.dial().await;
    agent.write_all(&hello()).await.unwrap();
    agent.read_u8().await.unwrap();
    drop(agent);
    world.last_ends().await;
    let agent = world.dial().await;
    let name = ServerName::try_from(HOST).unwrap();
    let connector = TlsConnector::from(client(&world.root.clone(), &[]));
    drop(connector.connect(name, agent).await.unwrap());
    let records = world.records().await;
    let reasons: Vec<_> = records.iter().map(reason).collect();
    assert_eq!(reasons, ["agent-handshake", "unused"]);
}

#[tokio::test]
async fn an_agent_that_dallies_before_its_request_is_read_all_the_same() {
    let upstream = Upstream::clear("").await;
    let mut world = World::new("", "", upstream.address);
    let mut agent = world.dial().await;
    tokio::time::sleep(first::SERVER_FIRST_WAIT * 2).await;
    agent.write_all(get(HOST).as_bytes()).await.unwrap();
    let mut heard = String::new();
    agent.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, ANSWER);
    let records = world.records().await;
    assert_eq!((records.len(), records[0].event.kind), (1, EventKind::Http));
}

#[tokio::test]
async fn a_server_that_speaks_first_is_a_gap_in_audit() {
    let upstream = Upstream::clear("220 mail.example.com\r\n").await;
    let mut world = World::new("", "", upstream.address);
    let mut agent = world.dial().await;
    let mut greeting = [0; 22];
    agent.read_exact(&mut greeting).await.unwrap();
    agent.write_all(b"QUIT\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    agent.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, ANSWER);
    drop(agent);
    let records = world.records().await;
    assert_eq!(gaps(&records), ["opaque"; 2]);
    assert_eq!(records[1].event.gap.as_ref().unwrap().sent_bytes, Some(8));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_its_server_is_refused_in_enforce() {
    let mut world = World::new(&policy("Enforce", ""), "", "127.0.0.1:1".parse().unwrap());
    let mut agent = world.dial().await;
    assert!(agent.read_u8().await.is_err());
    tokio::time::resume();
    let records = world.records().await;
    assert_eq!(gaps(&records), ["opaque"]);
    assert_eq!(action(&records[0]), Outcome::Deny);
}

#[tokio::test]
async fn what_passes_unread_when_the_sidecar_stops_is_broken_off_and_counted() {
    let upstream = Upstream::clear("220 mail.example.com\r\n").await;
    let mut world = World::new("", "", upstream.address);
    let mut agent = world.dial().await;
    agent.read_exact(&mut [0; 22]).await.unwrap();
    tokio::time::pause();
    world.setup.stop.send_replace(true);
    let end = agent.read_u8().await.unwrap_err();
    tokio::time::resume();
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    let records = world.records().await;
    assert_eq!(
        records[1].event.gap.as_ref().unwrap().received_bytes,
        Some(22)
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_line_that_does_not_end_is_refused_and_not_passed_unread() {
    let mut world = World::new("", "", "127.0.0.1:1".parse().unwrap());
    let mut agent = world.dial().await;
    agent.write_all(b"GET /slow").await.unwrap();
    let mut heard = String::new();
    agent.read_to_string(&mut heard).await.unwrap();
    assert!(heard.starts_with("HTTP/1.1 408"), "{heard}");
    drop(agent);
    tokio::time::resume();
    let records = world.records().await;
    assert_eq!((records.len(), reason(&records[0])), (1, "head-timeout"));
}

#[tokio::test]
async fn dns_over_tls_is_a_gap_in_audit_and_refused_in_enforce() {
    // A message with its length in front, and the end that the upstream of these tests waits for.
    let query = "\0\u{12}\0\u{7}\u{1}\0\0\u{1}\0\0\0\0\0\0\r\n\r\n";
    for (mode, records_of_gap) in [("Audit", 2), ("Enforce", 1)] {
        for (alpn, why) in [(&[][..], "opaque"), (&["dot"][..], "unread-alpn")] {
            let upstream = Upstream::tls(HOST).await;
            let mut world = World::new(&policy(mode, ""), &upstream.root, upstream.address);
            let root = if alpn.is_empty() {
                world.root.clone()
            } else {
                upstream.root.clone()
            };
            let heard = world.ask(&root, HOST, alpn, query).await;
            // The upstream of these tests speaks no other protocol: what passes unread fails in the agent's own handshake.
            let answered = heard.is_ok_and(|heard| heard == ANSWER);
            assert_eq!(answered, mode == "Audit" && alpn.is_empty(), "{mode} {why}");
            let records = world.records().await;
            assert_eq!(gaps(&records), vec![why; records_of_gap], "{mode}");
            assert_eq!(action(&records[0]) == Outcome::Deny, mode == "Enforce");
        }
    }
}

#[tokio::test]
async fn the_api_server_has_a_name_that_rules_can_deny() {
    let closed = "  rules:\n    - name: no-api\n      match: {protocols: [tls], hosts: [kubernetes.default.svc]}\n      action: Deny\n";
    for (rules, passes) in [("", true), (closed, false)] {
        let upstream = Upstream::tls("127.0.0.1").await;
        let mut world = World::new(&policy("Enforce", rules), "", upstream.address);
        let shared = Arc::get_mut(&mut world.setup.shared).unwrap();
        shared.cluster.api_server = Some(upstream.address);
        let heard = world.ask(&upstream.root, "127.0.0.1", &[], &get("x")).await;
        assert_eq!(heard.is_ok(), passes);
        let records = world.records().await;
        assert_eq!(gaps(&records)[0], "api-server");
        assert_eq!(action(&records[0]) == Outcome::Allow, passes);
    }
}

#[tokio::test]
async fn no_server_name_hides_the_api_server_or_gives_leave_to_reach_it() {
    let rule = |action: &str, hosts: &str| {
        format!(
            "    - name: {}\n      match: {{protocols: [tls], hosts: [{hosts}]}}\n      action: {action}\n",
            action.to_lowercase()
        )
    };
    let closed = format!("  rules:\n{}", rule("Deny", "kubernetes.default.svc"));
    let only = |hosts| format!("  defaultAction: Deny\n  rules:\n{}", rule("Allow", hosts));
    let (here, elsewhere) = (HOST, "elsewhere.example.com");
    for (rules, name, passes) in [
        (closed.clone(), here, false),
        (closed, elsewhere, false),
        // A name of its address is as good as its own; one that leads elsewhere is a lie.
        (only(HOST), here, true),
        (only(elsewhere), elsewhere, false),
        (only("kubernetes.default.svc"), elsewhere, true),
    ] {
        let upstream = Upstream::tls("127.0.0.1").await;
        let mut world = World::new(&policy("Enforce", &rules), "", upstream.address);
        let shared = Arc::get_mut(&mut world.setup.shared).unwrap();
        shared.cluster.api_server = Some(upstream.address);
        // Where it passes, the agent sees a certificate for the address.
        let heard = world.ask(&upstream.root, name, &[], &get("x")).await;
        assert!(heard.is_err());
        let records = world.records().await;
        assert_eq!(gaps(&records)[0], "api-server");
        assert_eq!(
            action(&records[0]) == Outcome::Allow,
            passes,
            "{name}: {rules}"
        );
        let destination = records[0].event.destination.as_ref().unwrap();
        assert_eq!(destination.host.as_deref(), Some("kubernetes.default.svc"));
        assert_eq!(destination.sni.as_deref(), Some(name));
    }
}

const KUBELET: &str = "kubelet.chaperone.alt";

/// The sidecar knows the address of its node, or knows none.
fn on_node(world: &mut World, known: bool) {
    let node = known.then(|| world.destination.ip());
    let shared = Arc::get_mut(&mut world.setup.shared).unwrap();
    shared.cluster.node = node.into_iter().collect();
}

#[tokio::test]
async fn a_kubelet_that_cannot_be_verified_has_a_name_that_rules_would_deny() {
    let upstream = Upstream::tls_at("127.77.0.1:10250", "127.77.0.1").await;
    let rules = format!(
        "  rules:\n    - name: no-kubelet\n      match: {{hosts: [{KUBELET}]}}\n      action: Deny\n"
    );
    for known in [true, false] {
        let mut world = World::new(&policy("Audit", &rules), "", upstream.address);
        on_node(&mut world, known);
        let heard = world
            .ask(&upstream.root, "127.77.0.1", &[], &get("127.77.0.1"))
            .await;
        assert_eq!(heard.unwrap(), ANSWER);
        let records = world.records().await;
        assert_eq!(gaps(&records)[0], "unverifiable-upstream");
        let (event, decision) = (&records[0].event, records[0].event.decision.as_ref());
        let destination = event.destination.as_ref().unwrap();
        assert_eq!(destination.host.as_deref(), known.then_some(KUBELET));
        assert_eq!((&*destination.ip, destination.port), ("127.77.0.1", 10250));
        assert!(decision.unwrap().would_deny);
        assert_eq!(decision.unwrap().rule.as_deref(), Some("no-kubelet"));
    }
}

#[tokio::test]
async fn a_rule_against_kubelets_holds_for_all_and_one_that_allows_for_the_own_node_only() {
    let _upstream = Upstream::clear_at("127.77.0.2:10255", "").await;
    let deny = format!(
        "  rules:\n    - name: no-kubelet\n      match: {{hosts: [{KUBELET}]}}\n      action: Deny\n"
    );
    let nothing = "  defaultAction: Deny\n".to_owned();
    let allow = format!("{nothing}{}", deny.replace("action: Deny", "action: Allow"));
    let own = "GET /pods HTTP/1.1\r\nHost: 127.77.0.2:10255\r\nConnection: close\r\n\r\n";
    // A server that is no proxy is not reached past its own rules by another's name.
    let whole = "GET http://files.example.com/ HTTP/1.1\r\nHost: files.example.com\r\nConnection: close\r\n\r\n";
    for (rules, request, on_own_node, elsewhere) in [
        ("", own, "200", "200"),
        (&*deny, own, "403", "403"),
        (&*deny, whole, "403", "403"),
        (&*nothing, own, "403", "403"),
        (&*allow, own, "200", "403"),
    ] {
        for (known, expected) in [(true, on_own_node), (false, elsewhere)] {
            let destination = "127.77.0.2:10255".parse().unwrap();
            let mut world = World::new(&policy("Enforce", rules), "", destination);
            on_node(&mut world, known);
            let mut agent = world.dial().await;
            agent.write_all(request.as_bytes()).await.unwrap();
            let mut heard = String::new();
            agent.read_to_string(&mut heard).await.unwrap();
            assert_eq!(&heard[9..12], expected, "{known}: {rules} {request}");
            let records = world.records().await;
            let destination = records[0].event.destination.as_ref().unwrap();
            if request == own {
                let host = if known { KUBELET } else { "127.77.0.2" };
                assert_eq!(destination.host.as_deref(), Some(host));
            }
        }
    }
}
