//! ClientHellos of every shape, over real sockets: cut into records and segments, post-quantum, with ECH GREASE, and with bytes behind them.

#![allow(clippy::unwrap_used, reason = "tests may")]

#[path = "support/setup.rs"]
mod setup;

#[path = "support/captured.rs"]
mod captured;

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use captured::{HOST, World};
use chaperone_crds::record::EventKind;
use chaperone_sidecar::authority::Authority;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::EchGreaseConfig,
    crypto::aws_lc_rs::{hpke::ALL_SUPPORTED_SUITES, kx_group::X25519MLKEM768},
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const ENFORCE: &str = "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p, namespace: agents}\nspec: {mode: Enforce}\n";
const PASSTHROUGH: &str = "apiVersion: chaperone.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: p, namespace: agents}\nspec: {mode: Enforce, tls: {passthrough: [files.example.com]}}\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
/// Bytes of early data that the upstream's tickets allow.
const EARLY_BYTES: u32 = 16 * 1024;
/// Bytes of early data that are refused: more than one read of rustls, and fewer than its servers fail to skip. With 12,000 in one record they fail at times, with 16,000 always,
/// whether Chaperone is there or not (rustls 0.23.46).
const REFUSED_BYTES: usize = 8_000;
/// Time for the sidecar to read what was written.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for a connection to be served.
const SERVED: Duration = Duration::from_secs(30);

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn roots(pems: &[&str]) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for pem in pems {
        let root = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        roots.add(root).unwrap();
    }
    Arc::new(roots)
}

/// A server on loopback that gives every request `ANSWER`, and the root of its certificate.
async fn upstream() -> (SocketAddr, String) {
    let (authority, root) = Authority::self_made("upstream").unwrap();
    let mut config = (*authority.server_config(HOST).unwrap()).clone();
    config.max_early_data_size = EARLY_BYTES;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(acceptor.clone(), stream));
        }
    });
    (address, root)
}

async fn answer(acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(stream.read_u8().await?);
    }
    stream.write_all(ANSWER.as_bytes()).await?;
    stream.shutdown().await
}

impl World {
    fn request(&self) -> String {
        let port = self.destination.port();
        format!("GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n")
    }
}

/// Agents that trust `root`, by the shape of their hello.
fn agents(root: &str) -> [ClientConfig; 4] {
    let trusted = roots(&[root]);
    let plain = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted.clone())
        .with_no_client_auth();
    let mut records = plain.clone();
    records.max_fragment_size = Some(64);
    let mut groups = rustls::crypto::aws_lc_rs::default_provider();
    groups.kx_groups = vec![X25519MLKEM768];
    let post_quantum = ClientConfig::builder_with_provider(Arc::new(groups))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(trusted.clone())
        .with_no_client_auth();
    let suite = ALL_SUPPORTED_SUITES[0];
    let (placeholder, _) = suite.generate_key_pair().unwrap();
    let grease = ClientConfig::builder_with_provider(provider())
        .with_ech(EchGreaseConfig::new(suite, placeholder).into())
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    [plain, records, post_quantum, grease]
}

/// Writes at most `room` bytes at a time, each in a segment of its own.
struct Trickle {
    stream: TcpStream,
    room: usize,
}

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = buf.len().min(self.room);
        Pin::new(&mut self.stream).poll_write(cx, &buf[..room])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_hello_of_any_shape_is_read() {
    let (address, root) = upstream().await;
    let mut world = World::new(ENFORCE, &root, address);
    let agents = agents(&world.root);
    let count = agents.len() * 3;
    for config in agents.map(Arc::new) {
        for room in [usize::MAX, 100, 1] {
            let stream = world.dial().await;
            let name = ServerName::try_from(HOST).unwrap();
            let connector = TlsConnector::from(config.clone());
            let trickle = Trickle { stream, room };
            let mut stream = connector.connect(name, trickle).await.unwrap();
            let request = world.request();
            stream.write_all(request.as_bytes()).await.unwrap();
            // A write of TLS may leave bytes behind: tokio lets a task make so many small writes in a row only.
            stream.flush().await.unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, ANSWER.as_bytes());
        }
    }
    let records = world.stopped().await;
    assert_eq!(records.len(), count);
    for record in &records {
        assert_eq!(record.event.kind, EventKind::Http);
        let destination = record.event.destination.as_ref().unwrap();
        assert_eq!(destination.host.as_deref(), Some(HOST));
        assert_eq!(destination.sni, None, "it is the host");
    }
}

/// Asks over `socket`, `early` behind the hello in one write, of which the first `cut` bytes go a while before the rest. Returns how many bytes that write had, whether the early data counted, and what was heard.
fn ask(
    config: Arc<ClientConfig>,
    mut socket: std::net::TcpStream,
    early: &[u8],
    cut: usize,
    request: &str,
) -> (usize, bool, Vec<u8>) {
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(SERVED)).unwrap();
    let mut client = ClientConnection::new(config, ServerName::try_from(HOST).unwrap()).unwrap();
    if !early.is_empty() {
        client.early_data().unwrap().write_all(early).unwrap();
    }
    let mut first = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut first).unwrap();
    }
    let (begin, rest) = first.split_at(cut);
    socket.write_all(begin).unwrap();
    if cut > 0 {
        std::thread::sleep(PAUSE);
    }
    socket.write_all(rest).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut socket).unwrap();
    }
    let accepted = client.is_early_data_accepted();
    let mut stream = rustls::Stream::new(&mut client, &mut socket);
    stream.write_all(request.as_bytes()).unwrap();
    stream.flush().unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    (first.len(), accepted, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_data_behind_a_hello_is_refused_and_no_byte_after_it_is_lost() {
    let (address, root) = upstream().await;
    let mut world = World::new(ENFORCE, &root, address);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(&[&root, &world.root]))
        .with_no_client_auth();
    config.enable_early_data = true;
    let config = Arc::new(config);
    // A ticket of the upstream's own, which the sidecar does not know.
    let direct = TcpStream::connect(address).await.unwrap();
    // The rest of a hello that came in part is read with all that is behind it: more than one read of rustls.
    let sockets = [
        (direct, 0, 0),
        (world.dial().await, REFUSED_BYTES, 0),
        (TcpStream::connect(address).await.unwrap(), 0, 0),
        (world.dial().await, REFUSED_BYTES, 10),
    ];
    for (socket, early, cut) in sockets {
        let (socket, config) = (socket.into_std().unwrap(), config.clone());
        let request = world.request();
        let asked = tokio::task::spawn_blocking(move || {
            ask(config, socket, &vec![b'x'; early], cut, &request)
        });
        let (first, accepted, heard) = asked.await.unwrap();
        assert!(first > early);
        assert!(!accepted);
        assert_eq!(heard, ANSWER.as_bytes());
    }
    let records = world.stopped().await;
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].event.kind, EventKind::Http);
}

#[tokio::test]
async fn what_comes_with_a_hello_that_passes_unread_passes_whole() {
    for behind in [0, 1, 5_000, 60_000] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut world = World::new(PASSTHROUGH, "", listener.local_addr().unwrap());
        let [plain, ..] = agents(&world.root);
        let name = ServerName::try_from(HOST).unwrap();
        let mut client = ClientConnection::new(Arc::new(plain), name).unwrap();
        let mut said = Vec::new();
        client.write_tls(&mut said).unwrap();
        said.extend((0..behind).map(|at: u32| at.to_le_bytes()[0]));
        let mut agent = world.dial().await;
        agent.write_all(&said).await.unwrap();
        agent.shutdown().await.unwrap();
        let (mut far, _) = tokio::time::timeout(SERVED, listener.accept())
            .await
            .unwrap()
            .unwrap();
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        assert!(heard == said, "{} of {} bytes", heard.len(), said.len());
        drop((far, agent));
        assert_eq!(world.stopped().await.len(), 2);
    }
}
