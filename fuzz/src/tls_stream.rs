//! TLS streams: beside rustls' buffered API, with any bytes instead of a handshake, and with any fate of what follows one.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use chaperone_sidecar::{
    authority::Authority,
    tls::stream::{Side, TlsStream, accept, connect},
    wire::Io,
};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HOST: &str = "files.example.com";
/// Most turns of a handshake: a few, however its bytes are cut, since a turn moves all that can move.
const MOST_TURNS: usize = 64;
/// Most steps of a script. More say nothing new, and slowly.
const MOST_STEPS: usize = 24;
/// Most bytes instead of a handshake. More of them meet another bound here and there.
const MOST_STRANGE_BYTES: usize = 32 * 1024;
/// Bytes that are said at once, at most: more than a record.
const MOST_SAID_BYTES: usize = 26_000;

/// Settings of clients and servers, by version.
static CONFIGS: LazyLock<[(Arc<ClientConfig>, Arc<ServerConfig>); 2]> = LazyLock::new(|| {
    let (authority, root) = Authority::self_made("fuzz").expect("there is randomness");
    let certified = authority.server_config(HOST).expect("the name is one");
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("the root is PEM");
    roots.add(root).expect("the root is one");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    [&TLS12, &TLS13].map(|version| {
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .expect("the version is spoken")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[version])
            .expect("the version is spoken")
            .with_no_client_auth()
            .with_cert_resolver(certified.cert_resolver.clone());
        (Arc::new(client), Arc::new(server))
    })
});

fn name() -> ServerName<'static> {
    HOST.try_into().expect("the name is one")
}

/// A stream. The first byte says which side and version, and whether a handshake comes first; the second how reads and writes are cut.
pub(crate) fn stream(bytes: &[u8]) {
    let [how, cut, rest @ ..] = bytes else {
        return;
    };
    let rest = &rest[..rest.len().min(MOST_STRANGE_BYTES)];
    let (client, server) = &CONFIGS[usize::from(how & 1)];
    let cut = usize::from(*cut) * 8 + 1;
    let wire = Wire::new(cut);
    let here = ServerConnection::new(server.clone()).expect("the settings are sound");
    let there = ClientConnection::new(client.clone(), name()).expect("the settings are sound");
    match (how & 2 > 0, how & 4 > 0) {
        (false, false) => strange(
            accept(server.clone(), wire.clone()),
            &wire,
            here.into(),
            rest,
        ),
        (false, true) => strange(
            connect(client.clone(), name(), wire.clone()),
            &wire,
            there.into(),
            rest,
        ),
        (true, false) => told(
            accept(server.clone(), wire.clone()),
            wire,
            there.into(),
            rest,
        ),
        (true, true) => told(
            connect(client.clone(), name(), wire.clone()),
            wire,
            here.into(),
            rest,
        ),
    }
}

/// Any bytes instead of a handshake fail as they do with the buffered API, and end.
fn strange<T>(
    shaking: impl Future<Output = io::Result<T>>,
    wire: &Wire,
    mut buffered: Connection,
    bytes: &[u8],
) {
    wire.with(|ends| {
        ends.incoming.extend(bytes);
        ends.has_ended = true;
    });
    let shaken = poll(std::pin::pin!(shaking));
    let Poll::Ready(Err(error)) = shaken else {
        panic!("a handshake without a peer ends");
    };
    let told = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    let (mut left, mut expected) = (bytes, None);
    while expected.is_none() {
        let _ = buffered.write_tls(&mut io::sink());
        match buffered.read_tls(&mut left) {
            Ok(1..) => expected = buffered.process_new_packets().err(),
            _ => break,
        }
    }
    assert_eq!(told, expected.as_ref());
}

/// What both sides said, and heard.
#[derive(Default)]
struct Talk {
    said: [Vec<u8>; 2],
    heard: [Vec<u8>; 2],
    /// Whether the peer said close_notify. The buffered API lets it go on.
    is_over: bool,
    /// Whether our side did. Bytes that are no TLS after that meet an assertion of rustls, in debug builds and with either API: a fatal alert follows close_notify.
    is_shut: bool,
    /// Whether anything but our side and its peer touched the bytes.
    is_disturbed: bool,
}

/// After a handshake, steps of a script: each side hears what the other said, in order, up to the first disturbance, and all of it without one.
fn told<C: Side>(
    shaking: impl Future<Output = io::Result<TlsStream<C, Wire>>>,
    wire: Wire,
    mut peer: Connection,
    script: &[u8],
) {
    let mut stream = shake(shaking, &wire, &mut peer);
    let mut talk = Talk::default();
    for step in script.chunks_exact(2).take(MOST_STEPS) {
        act(
            step[0],
            usize::from(step[1]),
            &mut stream,
            &wire,
            &mut peer,
            &mut talk,
        );
        exchange(&mut stream, &wire, &mut peer, &mut talk);
    }
    for (said, heard) in talk.said.iter().zip(&talk.heard) {
        assert!(said.starts_with(heard));
        assert!(talk.is_disturbed || said == heard);
    }
}

fn shake<C: Side>(
    shaking: impl Future<Output = io::Result<TlsStream<C, Wire>>>,
    wire: &Wire,
    peer: &mut Connection,
) -> TlsStream<C, Wire> {
    let mut shaking = std::pin::pin!(shaking);
    for _ in 0..MOST_TURNS {
        if let Poll::Ready(shaken) = poll(shaking.as_mut()) {
            take(wire, peer);
            give(wire, peer);
            return shaken.expect("the peer is sound");
        }
        take(wire, peer);
        give(wire, peer);
    }
    panic!("a handshake ends");
}

/// One step of a script.
fn act<C: Side>(
    what: u8,
    size: usize,
    stream: &mut TlsStream<C, Wire>,
    wire: &Wire,
    peer: &mut Connection,
    talk: &mut Talk,
) {
    let text: Vec<u8> = (0..size * MOST_SAID_BYTES / 255)
        .map(|at| (at % 251) as u8)
        .collect();
    let mut cx = Context::from_waker(Waker::noop());
    match what % 8 {
        0 | 1 if talk.is_over => {}
        0 | 1 => {
            let sent = peer.writer().write(&text).unwrap_or_default();
            talk.said[0].extend_from_slice(&text[..sent]);
        }
        2 | 3 => {
            if let Poll::Ready(Ok(sent)) = Pin::new(&mut *stream).poll_write(&mut cx, &text) {
                talk.said[1].extend_from_slice(&text[..sent]);
            }
        }
        // Refused over TLS 1.2.
        4 => drop(peer.refresh_traffic_keys()),
        5 => {
            talk.is_over = true;
            peer.send_close_notify();
        }
        6 if talk.is_disturbed => {}
        6 => {
            talk.is_shut = true;
            drop(Pin::new(&mut *stream).poll_shutdown(&mut cx));
        }
        _ if talk.is_shut => {}
        _ => {
            // Of what the peer sends next, a byte changes; without any, the pipe ends, or something is put in.
            talk.is_disturbed = true;
            give(wire, peer);
            wire.with(|ends| match ends.incoming.get_mut(size) {
                Some(byte) => *byte ^= 1,
                None if size.is_multiple_of(2) => ends.has_ended = true,
                None => ends.incoming.extend([20, 3, 3, 0, 1, size as u8]),
            });
        }
    }
}

/// Moves all that can move, and reads it on both sides.
fn exchange<C: Side>(
    stream: &mut TlsStream<C, Wire>,
    wire: &Wire,
    peer: &mut Connection,
    talk: &mut Talk,
) {
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..MOST_TURNS {
        give(wire, peer);
        let mut room = [0; 3000];
        loop {
            let mut part = ReadBuf::new(&mut room);
            match Pin::new(&mut *stream).poll_read(&mut cx, &mut part) {
                Poll::Ready(Ok(())) if !part.filled().is_empty() => {
                    talk.heard[0].extend_from_slice(part.filled());
                }
                _ => break,
            }
        }
        let flushed = Pin::new(&mut *stream).poll_flush(&mut cx);
        take(wire, peer);
        while let Ok(read @ 1..) = peer.reader().read(&mut room) {
            talk.heard[1].extend_from_slice(&room[..read]);
        }
        if !peer.wants_write() && flushed.is_ready() && wire.with(|ends| ends.outgoing.is_empty()) {
            return;
        }
    }
}

/// What our side sent goes to the peer.
fn take(wire: &Wire, peer: &mut Connection) {
    let sent = wire.with(|ends| std::mem::take(&mut ends.outgoing));
    let mut left = &sent[..];
    while !left.is_empty() {
        match peer.read_tls(&mut left) {
            Ok(1..) => drop(peer.process_new_packets()),
            // What it heard is to be read first.
            Err(_) => break,
            Ok(0) => return,
        }
    }
    let left = left.to_vec();
    wire.with(|ends| drop(ends.outgoing.splice(0..0, left)));
}

/// What the peer has to send goes to our side.
fn give(wire: &Wire, peer: &mut Connection) {
    let mut sent = Vec::new();
    while peer.wants_write() {
        let _ = peer.write_tls(&mut sent);
    }
    wire.with(|ends| {
        if !ends.has_ended {
            ends.incoming.extend(sent);
        }
    });
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A pipe in memory: what it has is there at once, in parts.
#[derive(Clone)]
struct Wire(Arc<Mutex<Ends>>);

struct Ends {
    incoming: VecDeque<u8>,
    outgoing: Vec<u8>,
    has_ended: bool,
    cut: usize,
}

impl Wire {
    fn new(cut: usize) -> Self {
        Self(Arc::new(Mutex::new(Ends {
            incoming: VecDeque::new(),
            outgoing: Vec::new(),
            has_ended: false,
            cut,
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Ends) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|ends| {
            let count = ends.incoming.len().min(ends.cut).min(buf.remaining());
            if count == 0 && !ends.has_ended {
                return Poll::Pending;
            }
            for byte in ends.incoming.drain(..count) {
                buf.put_slice(&[byte]);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|ends| {
            let count = buf.len().min(ends.cut);
            ends.outgoing.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Io for Wire {
    fn break_off(&mut self) {}
}
