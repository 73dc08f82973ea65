//! Agents that go through an HTTP proxy: CONNECT and whole URLs, over real sockets, and the records that they leave.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "support/setup.rs"]
mod setup;

#[path = "support/captured.rs"]
mod captured;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use captured::{ALIAS, HOST as PROXY, World};
use chaperone_crds::record::{EventKind, Outcome, Record};
use chaperone_sidecar::authority::Authority;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

/// What the agent asks the proxy for.
const TARGET: &str = "api.example.net";
const CONNECT: &str = "CONNECT api.example.net:443 HTTP/1.1\r\nHost: api.example.net:443\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n";
const OPEN: &str = "HTTP/1.1 200 Connection established\r\n\r\n";
/// What the server at port 22 says first.
const BANNER: &str = "SSH-2.0-server\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn policy(mode: &str, rest: &str) -> String {
    format!(
        "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: p, namespace: agents}}\nspec:\n  mode: {mode}\n{rest}"
    )
}

/// A proxy that leads every CONNECT to one server behind it, which answers each request with [`OK`], or repeats what it gets if that is none.
struct Proxy {
    address: SocketAddr,
    root: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// The server behind it is `name` over TLS, or speaks clear text.
    async fn begin(name: Option<&str>) -> Self {
        let (authority, root) = Authority::self_made("upstream").unwrap();
        let acceptor = name.map(|name| TlsAcceptor::from(authority.server_config(name).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, acceptor.clone(), seen.clone()));
            }
        });
        Self {
            address,
            root,
            heads,
        }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    heads: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    loop {
        let head = until(&mut stream, "\r\n\r\n").await?;
        heads.lock().unwrap().push(head.clone());
        if !head.starts_with("CONNECT") {
            stream.write_all(OK.as_bytes()).await?;
            continue;
        }
        if head.starts_with("CONNECT api.example.net:22 ") {
            let both = format!("{OPEN}{BANNER}");
            stream.write_all(both.as_bytes()).await?;
            return answer(stream).await;
        }
        stream.write_all(OPEN.as_bytes()).await?;
        return match acceptor {
            Some(acceptor) => answer(acceptor.accept(stream).await?).await,
            None => answer(stream).await,
        };
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let read = stream.read(&mut bytes).await?;
        match &bytes[..read] {
            [] => return stream.shutdown().await,
            request if request.starts_with(b"GET") => stream.write_all(OK.as_bytes()).await?,
            request if request.starts_with(b"CONNECT") => {
                stream.write_all(OPEN.as_bytes()).await?;
            }
            other => stream.write_all(other).await?,
        }
    }
}

async fn until<S: AsyncRead + Unpin>(stream: &mut S, end: &str) -> io::Result<String> {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        seen.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(seen).unwrap())
}

/// A sidecar between an agent and a proxy.
async fn world(mode: &str, rest: &str, proxy: &Proxy) -> World {
    World::new(&policy(mode, rest), &proxy.root, proxy.address)
}

async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &str, end: &str) -> String {
    stream.write_all(bytes.as_bytes()).await.unwrap();
    until(stream, end).await.unwrap()
}

/// A tunnel that the proxy opened.
async fn tunnel(world: &mut World) -> TcpStream {
    let mut agent = world.dial().await;
    assert_eq!(say(&mut agent, CONNECT, "\r\n\r\n").await, OPEN);
    agent
}

async fn tls(root: &str, name: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn reasons(records: &[Record]) -> Vec<(EventKind, Outcome, String)> {
    let told = |record: &Record| {
        let decision = record.event.decision.as_ref().unwrap();
        (record.event.kind, decision.action, decision.reason.clone())
    };
    records.iter().map(told).collect()
}

#[tokio::test]
async fn requests_over_tls_inside_a_tunnel_are_read_judged_and_recorded() {
    let proxy = Proxy::begin(Some(TARGET)).await;
    let rules = "  audit: {level: Request}\n  rules:\n  - name: no\n    match: {hosts: [api.example.net]}\n    when: http.path == '/no'\n    action: Deny\n";
    let mut world = world("Enforce", rules, &proxy).await;
    let stream = tunnel(&mut world).await;
    let mut agent = tls(&world.root, TARGET, stream).await.unwrap();
    assert_eq!(say(&mut agent, &get("/", TARGET), "hi").await, OK);
    let denied = say(&mut agent, &get("/no", TARGET), "}}").await;
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    drop(agent);
    let records = world.records().await;
    let urls: Vec<_> = records
        .iter()
        .map(|record| record.event.operation.as_ref().unwrap().resource.as_str())
        .collect();
    assert_eq!(urls.len(), 3, "{urls:?}");
    assert_eq!(
        urls[1..],
        ["https://api.example.net/", "https://api.example.net/no"]
    );
    let connect = &records[0].event;
    assert_eq!(connect.operation.as_ref().unwrap().verb, "CONNECT");
    let shown = connect.http.as_ref().unwrap().request_headers.as_ref();
    assert_eq!(shown.unwrap()["proxy-authorization"], "[masked:credential]");
    for record in &records {
        let destination = record.event.destination.as_ref().unwrap();
        assert_eq!(destination.host.as_deref(), Some(TARGET));
        assert_eq!(destination.port, 443);
        assert_eq!(destination.proxy, Some(proxy.address.to_string()));
    }
    assert_eq!(proxy.heads(), [CONNECT]);
}

#[tokio::test]
async fn clear_text_inside_a_tunnel_is_read_and_names_its_host() {
    for mode in ["Audit", "Enforce"] {
        let proxy = Proxy::begin(None).await;
        let mut world = world(mode, "", &proxy).await;
        let mut agent = tunnel(&mut world).await;
        assert_eq!(say(&mut agent, &get("/", TARGET), "hi").await, OK);
        let refused = say(&mut agent, &get("/", "other.example"), "}}").await;
        assert!(refused.starts_with("HTTP/1.1 421"), "{mode}: {refused}");
        drop(agent);
        let told = reasons(&world.records().await);
        assert_eq!(told[2].2, "host-mismatch", "{told:?}");
    }
}

#[tokio::test]
async fn a_tunnel_for_one_name_is_not_used_for_another() {
    for mode in ["Audit", "Enforce"] {
        let proxy = Proxy::begin(Some("other.example")).await;
        let mut world = world(mode, "", &proxy).await;
        let stream = tunnel(&mut world).await;
        let root = world.root.clone();
        assert!(tls(&root, "other.example", stream).await.is_err(), "{mode}");
        let told = reasons(&world.records().await);
        assert_eq!(told[1].2, "host-mismatch", "{mode}: {told:?}");
    }
}

#[tokio::test]
async fn unread_bytes_inside_a_tunnel_need_leave_for_target_and_proxy() {
    let allow = |hosts: &str| {
        format!(
            "  rules:\n  - name: raw\n    match: {{hosts: [{hosts}], protocols: [tcp]}}\n    action: Allow\n"
        )
    };
    let (target, both) = (allow(TARGET), allow(&format!("{TARGET}, {PROXY}")));
    for (mode, rules, passes) in [
        ("Audit", "", true),
        ("Enforce", "", false),
        ("Enforce", &target, false),
        ("Enforce", &allow(PROXY), false),
        ("Enforce", &both, true),
    ] {
        let proxy = Proxy::begin(None).await;
        let mut world = world(mode, rules, &proxy).await;
        let mut agent = tunnel(&mut world).await;
        agent.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        let heard = until(&mut agent, "SSH-2.0-x\r\n").await;
        assert_eq!(heard.is_ok(), passes, "{mode} {rules}");
        drop(agent);
        let records = world.records().await;
        let gap = &records.last().unwrap().event;
        assert_eq!(gap.kind, EventKind::Gap);
        assert_eq!(gap.gap.as_ref().unwrap().reason, "tunnel");
        assert_eq!(
            gap.operation.as_ref().unwrap().resource,
            "api.example.net:443"
        );
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_also_where_its_words_come_with_the_proxys() {
    let proxy = Proxy::begin(None).await;
    let mut world = world("Audit", "", &proxy).await;
    let mut agent = world.dial().await;
    let connect = CONNECT.replace(":443", ":22");
    assert_eq!(say(&mut agent, &connect, "\r\n\r\n").await, OPEN);
    let heard = tokio::time::timeout(Duration::from_secs(20), until(&mut agent, BANNER)).await;
    assert_eq!(heard.unwrap().unwrap(), BANNER);
    drop(agent);
    let records = world.records().await;
    assert_eq!(records.last().unwrap().event.kind, EventKind::Gap);
}

#[tokio::test]
async fn target_and_proxy_must_both_be_allowed() {
    let allow = |hosts: &str| {
        format!(
            "  defaultAction: Deny\n  rules:\n  - name: web\n    match: {{hosts: [{hosts}], protocols: [http]}}\n    action: Allow\n"
        )
    };
    let both = format!("{TARGET}, {PROXY}");
    let whole = format!("GET http://{TARGET}/a HTTP/1.1\r\nHost: {TARGET}\r\n\r\n");
    for (hosts, passes) in [(TARGET, false), (PROXY, false), (&both, true)] {
        for request in [CONNECT, &whole] {
            let proxy = Proxy::begin(None).await;
            let mut world = world("Enforce", &allow(hosts), &proxy).await;
            let mut agent = world.dial().await;
            let heard = say(&mut agent, request, "\r\n\r\n").await;
            let status = if passes {
                "HTTP/1.1 200"
            } else {
                "HTTP/1.1 403"
            };
            assert!(heard.starts_with(status), "{hosts} {request}: {heard}");
            assert_eq!(proxy.heads().len(), usize::from(passes));
            drop(agent);
            assert!(!world.records().await.is_empty());
        }
    }
}

#[tokio::test]
async fn a_whole_url_is_judged_by_its_host_and_forwarded_as_written() {
    let proxy = Proxy::begin(None).await;
    let rules = "  rules:\n  - name: no\n    match: {hosts: [no.example], ports: [8080]}\n    action: Deny\n";
    let mut world = world("Enforce", rules, &proxy).await;
    let mut agent = world.dial().await;
    let whole = "GET http://api.example.net:8080/a?b HTTP/1.1\r\nHost: api.example.net:8080\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n";
    assert_eq!(say(&mut agent, whole, "hi").await, OK);
    assert_eq!(proxy.heads(), [whole]);
    let denied = say(&mut agent, &whole.replace(TARGET, "no.example"), "}}").await;
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    let metadata = whole.replace("api.example.net:8080", "169.254.169.254");
    let denied = say(&mut agent, &metadata, "}}").await;
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    let split = whole.replace("Host: api", "Host: no");
    let refused = say(&mut agent, &split, "}}").await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    assert_eq!(proxy.heads().len(), 1);
    drop(agent);
    let records = world.records().await;
    let (operation, destination) = (&records[0].event.operation, &records[0].event.destination);
    assert_eq!(
        operation.as_ref().unwrap().resource,
        "http://api.example.net:8080/a?b"
    );
    let destination = destination.as_ref().unwrap();
    assert_eq!(
        (destination.port, &destination.proxy),
        (8080, &Some(proxy.address.to_string()))
    );
    assert_eq!(reasons(&records)[2].2, "metadata-address");
}

#[tokio::test]
async fn the_rules_and_masks_of_a_server_hold_whatever_a_whole_url_calls_it() {
    let proxy = Proxy::begin(None).await;
    let rules = format!(
        "  rules:\n  - name: no\n    match: {{hosts: [{PROXY}]}}\n    when: http.path == '/no'\n    action: Deny\n  masks:\n  - name: hi\n    match: {{hosts: [{PROXY}]}}\n    patterns: [{{name: greeting, pattern: '\\bhi\\b'}}]\n"
    );
    let mut world = world("Enforce", &rules, &proxy).await;
    let mut agent = world.dial().await;
    let whole = |path| format!("GET http://{TARGET}{path} HTTP/1.1\r\nHost: {TARGET}\r\n\r\n");
    let denied = say(&mut agent, &whole("/no"), "}}").await;
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    let masked = say(&mut agent, &whole("/"), "]").await;
    assert!(masked.contains("[masked:"), "{masked}");
    drop(agent);
    assert!(!world.records().await.is_empty());
}

#[tokio::test]
async fn a_connect_inside_a_connect_is_not_read() {
    for (mode, status) in [("Audit", "HTTP/1.1 200"), ("Enforce", "HTTP/1.1 403")] {
        let proxy = Proxy::begin(None).await;
        let mut world = world(mode, "", &proxy).await;
        let mut agent = tunnel(&mut world).await;
        let nested = CONNECT.replace(TARGET, "deep.example");
        let heard = say(&mut agent, &nested, "\r\n\r\n").await;
        assert!(heard.starts_with(status), "{mode}: {heard}");
        if mode == "Audit" {
            let request = get("/", TARGET);
            assert_eq!(say(&mut agent, &request, "hi").await, OK);
        }
        drop(agent);
        let records = world.records().await;
        let told = reasons(&records);
        assert_eq!(told[1].0, EventKind::Http, "{told:?}");
        let gaps = told.iter().filter(|told| told.0 == EventKind::Gap);
        assert_eq!(gaps.count(), if mode == "Audit" { 2 } else { 0 });
        assert_eq!(told.last().unwrap().2, "opaque");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_verified_gets_another_tunnel_in_audit() {
    let proxy = Proxy::begin(Some(TARGET)).await;
    let mut world = World::new(&policy("Audit", ""), "", proxy.address);
    let stream = tunnel(&mut world).await;
    let mut agent = tls(&proxy.root, TARGET, stream).await.unwrap();
    assert_eq!(say(&mut agent, &get("/", TARGET), "hi").await, OK);
    drop(agent);
    let records = world.records().await;
    assert_eq!(
        records[1].event.gap.as_ref().unwrap().reason,
        "unverifiable-upstream"
    );
    assert_eq!(
        proxy.heads(),
        [CONNECT, CONNECT],
        "the credential goes to the proxy again"
    );
}

#[tokio::test]
async fn of_several_names_of_a_server_one_that_is_allowed_suffices_and_a_rule_that_denies_holds() {
    let allow = |name, protocol| {
        format!(
            "  - name: {name}\n    match: {{hosts: [{name}], protocols: [{protocol}]}}\n    action: Allow\n"
        )
    };
    let deny = |name, protocol| allow(name, protocol).replace("Allow", "Deny");
    let target = allow(TARGET, "http");
    for protocol in ["tcp", "http"] {
        for default in ["Allow", "Deny"] {
            for (rules, passes) in [
                (allow(PROXY, protocol), true),
                (allow(ALIAS, protocol), true),
                (allow(PROXY, protocol) + &deny(ALIAS, protocol), false),
                (deny(PROXY, protocol) + &allow(ALIAS, protocol), false),
                // A default denies nothing that is allowed by another name, and allows what nobody names.
                (String::new(), protocol == "http" && default == "Allow"),
            ] {
                let rules = format!("  defaultAction: {default}\n  rules:\n{target}{rules}");
                let proxy = Proxy::begin(None).await;
                let mut world = world("Enforce", &rules, &proxy).await;
                let mut agent = world.dial().await;
                // Bytes that nobody reads, to a server that has two names; and the same as a proxy.
                let passed = match protocol {
                    "tcp" => passes_unread(&mut agent).await,
                    _ => {
                        let whole =
                            format!("GET http://{TARGET}/ HTTP/1.1\r\nHost: {TARGET}\r\n\r\n");
                        let heard = say(&mut agent, &whole, "\r\n\r\n").await;
                        heard.starts_with("HTTP/1.1 200")
                    }
                };
                assert_eq!(passed, passes, "{protocol} {default} {rules}");
                drop(agent);
                assert!(!world.records().await.is_empty());
            }
        }
    }
}

/// Whether bytes of a protocol that is not read reach the upstream, which answers an empty line with nothing and a head with a page.
async fn passes_unread(agent: &mut TcpStream) -> bool {
    let unread = b"\x00\x01\x02\r\n\r\n";
    let sent = agent.write_all(unread).await;
    let mut byte = [0; 1];
    sent.is_ok() && matches!(agent.read(&mut byte).await, Ok(1))
}

#[tokio::test]
async fn a_rule_against_kubelets_holds_for_what_a_proxy_is_asked_for() {
    let deny = "  rules:\n    - name: no-kubelet\n      match: {hosts: [kubelet.chaperone.alt]}\n      action: Deny\n";
    for request in [
        "CONNECT 192.0.2.9:10250 HTTP/1.1\r\nHost: 192.0.2.9:10250\r\n\r\n",
        "CONNECT node.example.net:10250 HTTP/1.1\r\nHost: node.example.net:10250\r\n\r\n",
        "GET http://192.0.2.9:10255/pods HTTP/1.1\r\nHost: 192.0.2.9:10255\r\n\r\n",
    ] {
        let proxy = Proxy::begin(None).await;
        let mut world = world("Audit", deny, &proxy).await;
        let mut agent = world.dial().await;
        assert!(say(&mut agent, request, "\r\n\r\n").await.contains(" 200 "));
        drop(agent);
        let records = world.stopped().await;
        let decision = records[0].event.decision.as_ref().unwrap();
        assert!(decision.would_deny, "{request}");
        assert_eq!(decision.rule.as_deref(), Some("no-kubelet"));
    }
}
