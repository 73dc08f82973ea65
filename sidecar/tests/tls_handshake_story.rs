//! The two handshakes of an intercepted connection, over real sockets: sessions that are resumed, and client certificates that cannot be passed on.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "support/setup.rs"]
mod setup;

#[path = "support/captured.rs"]
mod captured;

#[path = "tls/client_certificates.rs"]
mod client_certificates;

#[path = "tls/upstreams.rs"]
mod upstreams;

use std::{io, net::SocketAddr, sync::Arc};

use captured::{HOST, World};
use chaperone_crds::{
    record::{EventKind, Record},
    resources::AgentPolicy,
    snapshot::{Policy, Snapshot},
};
use chaperone_sidecar::{authority::Authority, policy};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
    server::{ServerSessionMemoryCache, StoresServerSessions, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

const AUDIT: &str = "";
const ENFORCE: &str = "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p, namespace: agents}\nspec: {mode: Enforce}\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(pem: &str) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    Arc::new(roots)
}

/// What an upstream does about client certificates.
#[derive(Clone, Copy, PartialEq)]
enum Clients {
    Ignores,
    Asks,
    Demands,
}

/// A server on loopback under a root of its own, which is also that of its clients' certificates.
struct Upstream {
    address: SocketAddr,
    root: String,
    /// How each handshake went.
    handshakes: mpsc::UnboundedReceiver<HandshakeKind>,
    /// A client certificate that it takes, and its key.
    client: Certified,
}

impl Upstream {
    async fn start(version: &'static SupportedProtocolVersion, clients: Clients) -> Self {
        Self::storing(version, clients, ServerSessionMemoryCache::new(16)).await
    }

    async fn storing(
        version: &'static SupportedProtocolVersion,
        clients: Clients,
        sessions: Arc<dyn StoresServerSessions>,
    ) -> Self {
        let (authority, root) = Authority::self_made("upstream").unwrap();
        let certified = authority.server_config(HOST).unwrap();
        let (client_root, client) = client_certificate();
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap();
        let verifier =
            || WebPkiClientVerifier::builder_with_provider(roots(&client_root), provider());
        let builder = match clients {
            Clients::Ignores => builder.with_no_client_auth(),
            Clients::Asks => builder
                .with_client_cert_verifier(verifier().allow_unauthenticated().build().unwrap()),
            Clients::Demands => builder.with_client_cert_verifier(verifier().build().unwrap()),
        };
        let mut config = builder.with_cert_resolver(certified.cert_resolver.clone());
        config.session_storage = sessions;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shook, handshakes) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let _ = shook.send(stream.get_ref().1.handshake_kind().unwrap());
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        break;
                    };
                    asked.push(byte);
                }
                let _ = stream.write_all(ANSWER.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            address,
            root,
            handshakes,
            client,
        }
    }
}

/// An agent's certificate and its key.
type Certified = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A root for clients' certificates, PEM, and one under it.
fn client_certificate() -> (String, Certified) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "clients");
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["agent.example.com".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    (root, (vec![certificate.der().clone()], key))
}

impl World {
    async fn connect(&mut self, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
        let agent = self.dial().await;
        let name = ServerName::try_from(HOST).unwrap();
        TlsConnector::from(config.clone())
            .connect(name, agent)
            .await
    }

    /// Asks, and hears everything to the end; also how the agent's handshake went.
    async fn ask(&mut self, config: &Arc<ClientConfig>) -> io::Result<(String, HandshakeKind)> {
        let mut stream = self.connect(config).await?;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {HOST}:{}\r\n\r\n",
            self.destination.port()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        let kind = stream.get_ref().1.handshake_kind().unwrap();
        Ok((String::from_utf8(heard).unwrap(), kind))
    }

    /// Another policy comes into force.
    fn swap(&self, policy: &str) {
        let mut config = self.setup.shared.active.load_full().unwrap().config.clone();
        let policy: AgentPolicy = serde_saphyr::from_str(policy).unwrap();
        config.snapshot = Snapshot::new(vec![Policy::namespaced("agents", "p", 1, &policy.spec)]);
        config.revision = config.snapshot.revision();
        let active = policy::compile(config).unwrap();
        self.setup.shared.active.store(Some(Arc::new(active)));
    }
}

/// An agent's settings: whom it trusts, and the certificate that it holds.
fn agent(root_pems: &[&str], certificate: Option<&Certified>) -> Arc<ClientConfig> {
    let mut trusted = RootCertStore::empty();
    for pem in root_pems {
        trusted.roots.extend(roots(pem).roots.iter().cloned());
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted);
    Arc::new(match certificate {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .unwrap(),
        None => builder.with_no_client_auth(),
    })
}

fn reason(record: &Record) -> &str {
    match &record.event.gap {
        Some(gap) => &gap.reason,
        None => &record.event.decision.as_ref().unwrap().reason,
    }
}

#[tokio::test]
async fn sessions_are_resumed_on_both_sides_and_not_past_a_change_of_policy() {
    for version in [&TLS12, &TLS13] {
        let mut upstream = Upstream::start(version, Clients::Ignores).await;
        let mut world = World::new(AUDIT, &upstream.root, upstream.address);
        let config = agent(&[&world.root.clone()], None);
        let mut seen = Vec::new();
        for round in 0..4 {
            if round == 3 {
                world.swap(ENFORCE);
            }
            let (heard, agents) = world.ask(&config).await.unwrap();
            assert_eq!(heard, ANSWER);
            seen.push((agents, upstream.handshakes.recv().await.unwrap()));
        }
        let resumed = HandshakeKind::Resumed;
        assert_ne!(seen[0].0, resumed);
        assert_ne!(seen[0].1, resumed);
        assert_eq!(seen[1..3], [(resumed, resumed); 2], "{version:?}");
        // The agent's session says nothing about policy; the upstream's was verified under roots that may hold no more.
        assert_ne!(seen[3].1, resumed, "{version:?}");
        assert_eq!(world.stopped().await.len(), 4);
    }
}

/// A store that remembers another secret than was agreed: what resumes from it cannot be decrypted.
#[derive(Debug)]
struct Forgetful(Arc<ServerSessionMemoryCache>);

impl StoresServerSessions for Forgetful {
    fn put(&self, key: Vec<u8>, mut value: Vec<u8>) -> bool {
        // Server name, version, suite, length; then the secret.
        let secret = 1 + 1 + HOST.len() + 2 + 2 + 1;
        value[secret + 5] ^= 1;
        self.0.put(key, value)
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.take(key)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn a_session_that_does_not_hold_is_given_up() {
    let sessions = Arc::new(Forgetful(ServerSessionMemoryCache::new(16)));
    let upstream = Upstream::storing(&TLS12, Clients::Ignores, sessions).await;
    let mut world = World::new(ENFORCE, &upstream.root, upstream.address);
    let config = agent(&[&world.root.clone()], None);
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(world.ask(&config).await.unwrap().0);
    }
    // The second one resumes, in vain.
    assert!(heard[1].contains("cannot decrypt"), "{}", heard[1]);
    assert_eq!(heard[0], heard[2]);
}

#[tokio::test]
async fn an_upstream_that_demands_a_client_certificate_is_the_agents_to_talk_to_in_audit() {
    for version in [&TLS12, &TLS13] {
        let upstream = Upstream::start(version, Clients::Demands).await;
        let mut world = World::new(AUDIT, &upstream.root, upstream.address);
        let config = agent(&[&upstream.root], Some(&upstream.client));
        assert_eq!(world.ask(&config).await.unwrap().0, ANSWER);
        let without = agent(&[&upstream.root], None);
        assert!(world.ask(&without).await.is_err());
        let records = world.stopped().await;
        let reasons: Vec<_> = records.iter().map(reason).collect();
        assert_eq!(reasons, ["client-certificate"; 4]);
        let detail = records[0].event.gap.as_ref().unwrap().detail.as_ref();
        assert!(detail.unwrap().contains("tls.passthrough"));
    }
}

#[tokio::test]
async fn an_upstream_that_demands_a_client_certificate_is_refused_in_words_in_enforce() {
    for version in [&TLS12, &TLS13] {
        let upstream = Upstream::start(version, Clients::Demands).await;
        let mut world = World::new(ENFORCE, &upstream.root, upstream.address);
        let config = agent(&[&world.root.clone()], Some(&upstream.client));
        let (heard, _) = world.ask(&config).await.unwrap();
        assert!(heard.starts_with("HTTP/1.1 502"), "{heard}");
        assert!(heard.contains("client-certificate"), "{heard}");
        let records = world.stopped().await;
        assert_eq!(
            records.iter().map(reason).collect::<Vec<_>>(),
            ["client-certificate"]
        );
    }
}

#[tokio::test]
async fn an_agent_that_holds_a_certificate_for_an_upstream_that_asks_passes_unread_the_second_time()
{
    for version in [&TLS12, &TLS13] {
        let upstream = Upstream::start(version, Clients::Asks).await;
        let mut world = World::new(AUDIT, &upstream.root, upstream.address);
        let both = [world.root.clone(), upstream.root.clone()];
        let both: Vec<&str> = both.iter().map(String::as_str).collect();
        let without = agent(&both, None);
        assert_eq!(world.ask(&without).await.unwrap().0, ANSWER);
        let config = agent(&both, Some(&upstream.client));
        assert!(world.ask(&config).await.is_err());
        world.last_ends().await;
        assert_eq!(world.ask(&config).await.unwrap().0, ANSWER);
        let records = world.stopped().await;
        assert_eq!(records[0].event.kind, EventKind::Http);
        let reasons: Vec<_> = records[1..].iter().map(reason).collect();
        assert_eq!(reasons, ["client-certificate"; 3], "{version:?}");
    }
}
