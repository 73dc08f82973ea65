//! Against rustls' buffered API (`tokio_rustls`), over pipes of any width, and with bytes cut and changed anywhere.

use std::{sync::Arc, task::Waker};

use proptest::prelude::*;
use rustls::{
    ClientConnection, HandshakeKind, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::authority::Authority;

const HOST: &str = "files.example.com";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

type Server = tokio_rustls::server::TlsStream<DuplexStream>;
type Client = tokio_rustls::client::TlsStream<DuplexStream>;

/// Both sides' settings, for one version.
fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let (authority, root) = Authority::self_made("test").unwrap();
    let certified = authority.server_config(HOST).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(certified.cert_resolver.clone());
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(client), Arc::new(server))
}

fn name() -> ServerName<'static> {
    HOST.try_into().unwrap()
}

/// Our client and a server of `tokio_rustls`.
async fn as_client(
    (client, server): &(Arc<ClientConfig>, Arc<ServerConfig>),
    width: usize,
) -> (ClientTls<DuplexStream>, Server) {
    let (here, there) = duplex(width);
    let acceptor = TlsAcceptor::from(server.clone());
    let (ours, peer) = tokio::join!(
        connect(client.clone(), name(), here),
        acceptor.accept(there)
    );
    (ours.unwrap(), peer.unwrap())
}

/// Our server and a client of `tokio_rustls`.
async fn as_server(
    (client, server): &(Arc<ClientConfig>, Arc<ServerConfig>),
    width: usize,
) -> (ServerTls<DuplexStream>, Client) {
    let (here, there) = duplex(width);
    let connector = TlsConnector::from(client.clone());
    let (ours, peer) = tokio::join!(
        accept(server.clone(), here),
        connector.connect(name(), there)
    );
    (ours.unwrap(), peer.unwrap())
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

/// Sends so much and hears all until the orderly end, at once.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(stream: S, length: usize) -> io::Result<Vec<u8>> {
    let (mut hear, mut say) = tokio::io::split(stream);
    let saying = async {
        say.write_all(&text(length)).await?;
        say.flush().await?;
        say.shutdown().await
    };
    let mut heard = Vec::new();
    let (heard_all, said) = tokio::join!(hear.read_to_end(&mut heard), saying);
    said?;
    heard_all?;
    Ok(heard)
}

fn holds_nothing<C: Side, S>(stream: &TlsStream<C, S>) -> bool {
    stream.unsent.capacity() == 0 && stream.session.holds() == 0
}

#[tokio::test]
async fn both_sides_of_both_versions_talk_over_pipes_of_any_width() {
    for version in VERSIONS {
        let configs = configs(version);
        for width in [1, 61, 4096, 1 << 20] {
            for length in [0, 1, 16_384, 16_385, 70_000].map(|l| l.min(width * 1000)) {
                let (here, there) = duplex(width);
                let ours =
                    async { talk(connect(configs.0.clone(), name(), here).await?, length).await };
                let acceptor = TlsAcceptor::from(configs.1.clone());
                let peers = async { talk(acceptor.accept(there).await?, length).await };
                let (heard, told) = tokio::join!(ours, peers);
                assert!(heard.unwrap() == text(length) && told.unwrap() == text(length));
                let (here, there) = duplex(width);
                let ours = async { talk(accept(configs.1.clone(), here).await?, length).await };
                let connector = TlsConnector::from(configs.0.clone());
                let peers = async { talk(connector.connect(name(), there).await?, length).await };
                let (heard, told) = tokio::join!(ours, peers);
                assert!(heard.unwrap() == text(length) && told.unwrap() == text(length));
            }
        }
    }
}

#[tokio::test]
async fn ours_talk_to_each_other() {
    for version in VERSIONS {
        let (client, server) = configs(version);
        let (here, there) = duplex(4096);
        let (client, server) = tokio::join!(connect(client, name(), here), accept(server, there));
        let (heard, told) = tokio::join!(talk(client.unwrap(), 99_999), talk(server.unwrap(), 5));
        assert!(heard.unwrap() == text(5) && told.unwrap() == text(99_999));
    }
}

#[tokio::test]
async fn sessions_are_resumed_on_both_sides() {
    for version in VERSIONS {
        let configs = configs(version);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (ours, peer) = as_client(&configs, 4096).await;
            assert_eq!(ours.session().handshake_kind(), Some(expected));
            // Tickets come with the first bytes that are read.
            let (heard, told) = tokio::join!(talk(ours, 10), talk(peer, 10));
            assert!(heard.is_ok() && told.is_ok());
        }
        let (ours, peer) = as_server(&configs, 4096).await;
        assert_eq!(
            ours.session().handshake_kind(),
            Some(HandshakeKind::Resumed)
        );
        let (heard, told) = tokio::join!(talk(ours, 10), talk(peer, 10));
        assert!(heard.is_ok() && told.is_ok());
    }
}

#[tokio::test]
async fn a_waiting_stream_holds_no_buffer() {
    for version in VERSIONS {
        let configs = configs(version);
        let (mut ours, mut peer) = as_server(&configs, 1 << 20).await;
        assert!(holds_nothing(&ours));
        for length in [1, 5_000, 200_000] {
            peer.write_all(&text(length)).await.unwrap();
            peer.flush().await.unwrap();
            let mut heard = vec![0; length];
            ours.read_exact(&mut heard).await.unwrap();
            ours.write_all(&heard).await.unwrap();
            ours.flush().await.unwrap();
            peer.read_exact(&mut heard).await.unwrap();
            assert!(heard == text(length));
            assert!(futures::poll!(std::pin::pin!(ours.read_u8())).is_pending());
            assert!(holds_nothing(&ours), "{version:?} {length}");
        }
        let (mut ours, mut peer) = as_client(&configs, 1 << 20).await;
        peer.write_all(b"hi").await.unwrap();
        peer.flush().await.unwrap();
        assert_eq!(ours.read_u16().await.unwrap(), u16::from_be_bytes(*b"hi"));
        assert!(holds_nothing(&ours));
    }
}

#[tokio::test]
async fn bytes_come_one_by_one_and_records_part_by_part() {
    let (client, server) = configs(&TLS13);
    let (here, there) = duplex(7);
    let connector = TlsConnector::from(client);
    let saying = async {
        let peer = connector.connect(name(), there).await?;
        talk(peer, 20_000).await
    };
    let hearing = async {
        let mut ours = accept(server, here).await.unwrap();
        let mut heard = Vec::new();
        while let Ok(byte) = ours.read_u8().await {
            heard.push(byte);
        }
        ours.shutdown().await.unwrap();
        heard
    };
    let (told, heard) = tokio::join!(saying, hearing);
    assert_eq!(told.unwrap(), b"");
    assert!(heard == text(20_000));
}

#[tokio::test]
async fn a_message_in_parts_is_sent_whole_whatever_its_parts() {
    let shapes: [&[usize]; 7] = [
        &[],
        &[0, 0],
        &[5],
        &[300, 40_000],
        &[16_384, 1],
        &[0, 1, 0, 2, 16_381, 7, 9],
        &[16_383, 0, 100_000, 3],
    ];
    for version in VERSIONS {
        for shape in shapes {
            let (mut ours, mut peer) = as_client(&configs(version), 1 << 20).await;
            assert!(ours.is_write_vectored());
            let all = text(shape.iter().sum());
            let mut left = &all[..];
            let mut sizes = shape.to_vec();
            while !left.is_empty() {
                let mut at = 0;
                let parts: Vec<_> = sizes
                    .iter()
                    .map(|size| {
                        at += size;
                        IoSlice::new(&left[at - size..at])
                    })
                    .collect();
                let mut sent = ours.write_vectored(&parts).await.unwrap();
                assert!(sent > 0);
                left = &left[sent..];
                for size in &mut sizes {
                    let now = sent.min(*size);
                    (*size, sent) = (*size - now, sent - now);
                }
            }
            ours.shutdown().await.unwrap();
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).await.unwrap();
            assert!(heard == all, "{shape:?}");
        }
    }
}

#[tokio::test]
async fn keys_are_updated_in_both_directions() {
    for width in [4096, 1 << 20] {
        let (mut ours, mut peer) = as_server(&configs(&TLS13), width).await;
        for round in 0..40 {
            // Asks us to update ours too.
            peer.get_mut().1.refresh_traffic_keys().unwrap();
            let (mut told, mut heard) = (vec![0; 3000], vec![0; 20_000]);
            let peers = async {
                peer.write_all(&text(3000)).await.unwrap();
                peer.flush().await.unwrap();
                peer.read_exact(&mut heard).await.unwrap();
            };
            let here = async {
                ours.read_exact(&mut told).await.unwrap();
                ours.write_all(&text(20_000)).await.unwrap();
                ours.flush().await.unwrap();
            };
            tokio::join!(peers, here);
            assert!(told == text(3000) && heard == text(20_000), "{round}");
        }
    }
}

#[tokio::test]
async fn a_flood_of_key_updates_ends_the_session() {
    let (mut ours, mut peer) = as_server(&configs(&TLS13), 1 << 20).await;
    for _ in 0..100 {
        peer.get_mut().1.refresh_traffic_keys().unwrap();
    }
    peer.flush().await.unwrap();
    let error = ours.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

#[tokio::test]
async fn a_message_of_the_peer_in_the_middle_of_which_we_write_is_read_all_the_same() {
    let (client, server) = configs(&TLS13);
    let mut server = Arc::unwrap_or_clone(server);
    // A ticket takes several records.
    server.max_fragment_size = Some(64);
    let configs = (client, Arc::new(server));
    let mut at = 1;
    loop {
        let (mut ours, mut peer) = as_client(&configs, 1 << 20).await;
        let tickets = raw(&mut ours.io).await;
        if at > tickets.len() {
            break;
        }
        let TlsStream {
            io: pipe,
            session,
            unsent,
            is_closing,
        } = ours;
        let (bytes, cuts) = (tickets, vec![at, 0]);
        let io = Said {
            bytes,
            cuts,
            read: 0,
            turn: 0,
            sent: Vec::new(),
        };
        let mut ours = TlsStream {
            io,
            session,
            unsent,
            is_closing,
        };
        assert!(futures::poll!(std::pin::pin!(ours.read_u8())).is_pending());
        ours.write_all(b"in between").await.unwrap();
        ours.flush().await.unwrap();
        // The rest, then an end that is none, after which something is written once more.
        ours.io.cuts = vec![1 << 20];
        let end = ours.read_u8().await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(ours.session().tls13_tickets_received(), 2, "{at}");
        ours.write_all(b" and behind").await.unwrap();
        ours.shutdown().await.unwrap();
        let mut pipe = pipe;
        pipe.write_all(&ours.io.sent).await.unwrap();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"in between and behind");
        // The end comes in the middle, too.
        let (mut ours, _peer) = as_client(&configs, 1 << 20).await;
        let mut bytes = raw(&mut ours.io).await;
        bytes.truncate(at);
        let TlsStream {
            session,
            unsent,
            is_closing,
            ..
        } = ours;
        let io = Said {
            bytes,
            cuts: vec![9],
            read: 0,
            turn: 0,
            sent: Vec::new(),
        };
        let mut ours = TlsStream {
            io,
            session,
            unsent,
            is_closing,
        };
        let end = ours.read_u8().await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        ours.write_all(b"behind").await.unwrap();
        ours.shutdown().await.unwrap();
        at += 11;
    }
    assert!(at > 100);
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error_after_all_that_came() {
    for version in VERSIONS {
        let (mut ours, mut peer) = as_client(&configs(version), 1 << 20).await;
        peer.write_all(&text(30_000)).await.unwrap();
        peer.flush().await.unwrap();
        // Without a goodbye.
        peer.get_mut().0.shutdown().await.unwrap();
        let mut heard = Vec::new();
        let error = ours.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(heard == text(30_000));
        let again = ours.read_u8().await.unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::UnexpectedEof);
        // Its other direction may be open.
        ours.write_all(b"still there").await.unwrap();
        ours.flush().await.unwrap();
        let mut told = [0; 11];
        peer.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"still there");
    }
}

#[tokio::test]
async fn a_direction_that_is_closed_leaves_the_other_open() {
    for version in VERSIONS {
        let (mut ours, mut peer) = as_client(&configs(version), 1 << 20).await;
        peer.shutdown().await.unwrap();
        assert_eq!(ours.read(&mut [0; 9]).await.unwrap(), 0);
        ours.write_all(b"after your end").await.unwrap();
        ours.flush().await.unwrap();
        let mut told = [0; 14];
        peer.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"after your end");
        ours.shutdown().await.unwrap();
        ours.shutdown().await.unwrap();
        assert_eq!(peer.read(&mut [0; 9]).await.unwrap(), 0);
        assert_eq!(ours.read(&mut [0; 9]).await.unwrap(), 0);
        let error = ours.write(b"too late").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn what_is_said_before_an_end_that_came_with_it_is_heard_in_small_reads_too() {
    for version in VERSIONS {
        let (mut ours, mut peer) = as_server(&configs(version), 1 << 20).await;
        peer.write_all(&text(40_000)).await.unwrap();
        peer.shutdown().await.unwrap();
        let (mut heard, mut part) = (Vec::new(), [0; 1000]);
        loop {
            match ours.read(&mut part).await.unwrap() {
                0 => break,
                read => heard.extend_from_slice(&part[..read]),
            }
        }
        assert!(heard == text(40_000));
    }
}

#[tokio::test]
async fn a_peer_that_does_not_read_holds_up_its_writer() {
    for version in VERSIONS {
        let (mut ours, mut peer) = as_server(&configs(version), 4096).await;
        let all = text(300_000);
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        while let Poll::Ready(count) = Pin::new(&mut ours).poll_write(&mut cx, &all[taken..]) {
            taken += count.unwrap();
        }
        assert!(taken > 0 && taken <= 16 * 1024, "{taken}");
        assert!(ours.unsent.len() < 17 * 1024);
        let rest = async {
            ours.write_all(&all[taken..]).await.unwrap();
            ours.shutdown().await.unwrap();
        };
        let mut heard = Vec::new();
        let (read, ()) = tokio::join!(peer.read_to_end(&mut heard), rest);
        read.unwrap();
        assert!(heard == all);
    }
}

#[tokio::test]
async fn what_is_no_tls_is_refused_with_an_alert() {
    let (client, server) = configs(&TLS13);
    let (here, mut there) = duplex(1 << 16);
    there.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = accept(server, here).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let inner = error.get_ref().unwrap().downcast_ref();
    assert!(matches!(inner, Some(rustls::Error::InvalidMessage(_))));
    let mut alert = Vec::new();
    there.read_to_end(&mut alert).await.unwrap();
    assert_eq!(&alert[..1], [21]);
    // A server that speaks something else.
    let (here, mut there) = duplex(1 << 16);
    there.write_all(b"220 mail.example.com\r\n").await.unwrap();
    let error = connect(client.clone(), name(), here).await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    // One that goes away.
    let (here, there) = duplex(1 << 16);
    drop(there);
    let error = connect(client, name(), here).await.err().unwrap();
    assert!(matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe
    ));
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_is_told_to_the_server_and_the_caller() {
    for version in VERSIONS {
        let ((client, _), (_, server)) = (configs(version), configs(version));
        let (here, there) = duplex(1 << 16);
        let acceptor = TlsAcceptor::from(server);
        let (ours, peer) = tokio::join!(connect(client, name(), here), acceptor.accept(there));
        let error = ours.err().unwrap();
        let inner = error.get_ref().unwrap().downcast_ref();
        assert!(matches!(inner, Some(rustls::Error::InvalidCertificate(_))));
        let told = peer.err().unwrap();
        let told = told.get_ref().unwrap().downcast_ref();
        assert!(
            matches!(told, Some(rustls::Error::AlertReceived(_))),
            "{told:?}"
        );
    }
}

#[tokio::test]
async fn an_alert_of_the_client_is_the_servers_error() {
    for version in VERSIONS {
        let ((client, _), (_, server)) = (configs(version), configs(version));
        let (here, there) = duplex(1 << 16);
        let connector = TlsConnector::from(client);
        let (ours, peer) = tokio::join!(accept(server, here), connector.connect(name(), there));
        assert!(peer.is_err());
        let error = ours.err().unwrap();
        let told = error.get_ref().unwrap().downcast_ref();
        assert!(
            matches!(told, Some(rustls::Error::AlertReceived(_))),
            "{told:?}"
        );
    }
}

#[tokio::test]
async fn sides_without_a_common_version_part_with_an_alert() {
    let ((client, _), (_, server)) = (configs(&TLS12), configs(&TLS13));
    let (here, there) = duplex(1 << 16);
    let connector = TlsConnector::from(client);
    let (ours, peer) = tokio::join!(accept(server, here), connector.connect(name(), there));
    assert!(ours.is_err());
    let told = peer.err().unwrap();
    let told = told.get_ref().unwrap().downcast_ref();
    assert!(matches!(told, Some(rustls::Error::AlertReceived(_))));
}

/// What was put in front, then the end.
struct Said {
    bytes: Vec<u8>,
    /// Lengths of the reads, over and over.
    cuts: Vec<usize>,
    read: usize,
    turn: usize,
    /// What was answered.
    sent: Vec<u8>,
}

impl AsyncRead for Said {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let cut = self.cuts[self.turn % self.cuts.len()];
        self.turn += 1;
        if cut == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let rest = &self.bytes[self.read..];
        let count = rest.len().min(cut).min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.sent.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Io for Said {
    fn break_off(&mut self) {}
}

/// What happens to the ciphertext on its way.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Whole,
    /// Of a thousand parts, so many arrive.
    Cut(usize),
    /// In the record of this piece, a bit at this place changes.
    Changed(usize, usize),
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        Just(Fate::Whole),
        (0..1000_usize).prop_map(Fate::Cut),
        any::<(usize, usize)>().prop_map(|(piece, at)| Fate::Changed(piece, at)),
    ]
}

/// Reads with buffers of these lengths to the end.
async fn hear<C: Side, S: Io>(
    stream: &mut TlsStream<C, S>,
    rooms: &[usize],
) -> (Vec<u8>, io::Result<()>) {
    let mut heard = Vec::new();
    for room in rooms.iter().cycle() {
        let mut part = vec![0; *room];
        match stream.read(&mut part).await {
            Ok(0) => return (heard, Ok(())),
            Ok(read) => heard.extend_from_slice(&part[..read]),
            Err(error) => return (heard, Err(error)),
        }
    }
    unreachable!("there are rooms")
}

/// Our side of a session, and what its peer's pieces are as ciphertext: the last one is the goodbye.
async fn pieces(
    version: &'static SupportedProtocolVersion,
    lengths: &[usize],
    updates: bool,
) -> (ServerTls<DuplexStream>, Vec<Vec<u8>>) {
    let (mut ours, mut peer) = as_server(&configs(version), 1 << 20).await;
    let mut sent = Vec::new();
    for (turn, length) in lengths.iter().enumerate() {
        if updates && version.version == rustls::ProtocolVersion::TLSv1_3 && turn % 3 == 1 {
            peer.get_mut().1.refresh_traffic_keys().unwrap();
        }
        peer.write_all(&text(*length)).await.unwrap();
        peer.flush().await.unwrap();
        sent.push(raw(&mut ours.io).await);
    }
    peer.shutdown().await.unwrap();
    sent.push(raw(&mut ours.io).await);
    (ours, sent)
}

/// Where these records have what a change of is noticed: not their heads, whose version means nothing in TLS 1.3 (RFC 8446, section 5.1).
fn protected(records: &[u8]) -> Vec<usize> {
    let (mut places, mut at) = (Vec::new(), 0);
    while let Some([_, _, _, high, low]) = records.get(at..at + 5) {
        let end = at + 5 + usize::from(u16::from_be_bytes([*high, *low]));
        places.extend(at + 5..end);
        at = end;
    }
    places
}

/// What is in a pipe.
async fn raw(pipe: &mut DuplexStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    while let Poll::Ready(Ok(read @ 1..)) = futures::poll!(std::pin::pin!(pipe.read(&mut part))) {
        bytes.extend_from_slice(&part[..read]);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_the_cuts_all_plaintext_before_the_end_or_fault_is_heard(
        is_new in any::<bool>(),
        updates in any::<bool>(),
        lengths in prop::collection::vec(prop_oneof![1..40_usize, 16_000..=16_384_usize], 1..9),
        mut cuts in prop::collection::vec(prop_oneof![0..9_usize, 1000..70_000_usize], 0..20),
        rooms in prop::collection::vec(prop_oneof![1..9_usize, 1000..200_000_usize], 1..9),
        fate in fates(),
    ) {
        cuts.push(9);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let version = VERSIONS[usize::from(is_new)];
        let (heard, end, sent) = runtime.block_on(async {
            let (ours, sent) = pieces(version, &lengths, updates).await;
            let mut bytes = sent.concat();
            match fate {
                Fate::Whole => {}
                Fate::Cut(share) => bytes.truncate(bytes.len() * share / 1000),
                Fate::Changed(piece, at) => {
                    let piece = piece % sent.len();
                    let start: usize = sent[..piece].iter().map(Vec::len).sum();
                    let within = protected(&sent[piece]);
                    bytes[start + within[at % within.len()]] ^= 1;
                }
            }
            let io = Said { bytes, cuts: cuts.clone(), read: 0, turn: 0, sent: Vec::new() };
            let TlsStream { session, unsent, is_closing, .. } = ours;
            let mut ours = TlsStream { io, session, unsent, is_closing };
            let (heard, end) = hear(&mut ours, &rooms).await;
            (heard, end, sent)
        });
        let mut arrives = sent.len();
        match fate {
            Fate::Whole => prop_assert!(end.is_ok()),
            Fate::Cut(share) => {
                let mut left = sent.concat().len() * share / 1000;
                arrives = sent.iter().take_while(|piece| match left.checked_sub(piece.len()) {
                    Some(less) => { left = less; true }
                    None => false,
                }).count();
                prop_assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }
            Fate::Changed(piece, _) => {
                arrives = piece % sent.len();
                prop_assert!(end.is_err());
            }
        }
        let expected: Vec<u8> = lengths.iter().take(arrives).flat_map(|length| text(*length)).collect();
        prop_assert!(heard == expected);
    }

    #[test]
    fn any_bytes_fail_as_they_do_with_the_buffered_api(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        cut in 1..700_usize,
        change in prop::option::of((any::<usize>(), any::<u8>())),
    ) {
        let (client, server) = configs(&TLS13);
        let bytes = match change {
            None => bytes,
            // A ClientHello, not quite.
            Some((at, to)) => {
                let mut hello = Vec::new();
                let mut client = ClientConnection::new(client, name()).unwrap();
                client.write_tls(&mut hello).unwrap();
                let at = at % hello.len();
                hello[at] = to;
                [hello, bytes].concat()
            }
        };
        let mut buffered = rustls::ServerConnection::new(server.clone()).unwrap();
        let mut left = &bytes[..];
        let mut expected = None;
        while expected.is_none() && !left.is_empty() {
            if buffered.read_tls(&mut left).unwrap() == 0 {
                break;
            }
            expected = buffered.process_new_packets().err();
        }
        let io = Said { bytes, cuts: vec![cut], read: 0, turn: 0, sent: Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = runtime.block_on(accept(server, io)).err().unwrap();
        let told = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        prop_assert_eq!(told, expected.as_ref());
    }
}
