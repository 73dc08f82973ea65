//! The real nameservers.
//!
//! Owns asking them: sockets with the firewall mark, a fresh source port for
//! each datagram (RFC 5452), the next server when one fails, and a deadline
//! before the client's own. Refuses any answer that does not repeat the
//! question.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::message::{Answer, NOTIMP, Question, REFUSED, SERVFAIL};
use super::rebinding::Rebinding;
use super::{DnsTransport, Names, ResolvConf};
use crate::capture;

/// Longest wait for one server. Three waits fit before the 5 s after which the
/// C library gives up.
const SERVER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Longest wait for all servers together.
const QUERY_TIMEOUT: Duration = Duration::from_millis(4_600);

/// Fewest attempts, so that one lost datagram is not a failure.
const MIN_ATTEMPTS: usize = 3;

/// Bytes of the longest datagram accepted. EDNS sizes in use end at 4,096
/// (RFC 6891 section 6.2.5).
const MAX_DATAGRAM: usize = 8 * 1024;

/// Asks nameservers and remembers what they answer.
#[derive(Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    mark: Option<u32>,
    names: Arc<Names>,
    rebinding: Rebinding,
}

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The text is not a domain name.
    #[error("{0:?} is not a domain name")]
    Name(String),
    /// No nameserver answered in time.
    #[error("no nameserver answered for {0}")]
    Unreachable(String),
}

/// An answer, the bytes to forward, and who gave it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) bytes: Vec<u8>,
    pub(super) answer: Answer,
    pub(super) server: SocketAddr,
}

// === impl Resolver ===

impl Resolver {
    /// Asks the nameservers of `conf` from sockets that carry `mark`, and
    /// remembers answers in `names`.
    pub fn new(conf: &ResolvConf, mark: Option<u32>, names: Arc<Names>) -> Self {
        Self {
            rebinding: Rebinding::new(conf.search()),
            ..Self::with_servers(conf.nameservers().to_vec(), mark, names)
        }
    }

    /// As [`Resolver::new`], with nameservers at any port and no search domains.
    pub fn with_servers(servers: Vec<SocketAddr>, mark: Option<u32>, names: Arc<Names>) -> Self {
        Self {
            servers,
            mark,
            names,
            rebinding: Rebinding::default(),
        }
    }

    /// Takes these addresses for the pod's own: no name from outside leads there.
    #[must_use]
    pub fn of_pod(mut self, own: Vec<IpAddr>) -> Self {
        self.rebinding.set_own(own);
        self
    }

    /// What this resolver has learned.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Addresses of a name, asked for now, IPv4 first. The name is taken as it
    /// is, without search domains. Empty when it has none. Remembered, but for what
    /// looks wrong (see `rebinding`), as if the client had asked; gives no event.
    ///
    /// # Errors
    /// As [`LookupError`]. One address family may fail as long as the other
    /// answers.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, LookupError> {
        let parsed = Name::from_ascii(name).map_err(|_| LookupError::Name(name.to_owned()))?;
        let (v4, v6) = tokio::join!(
            self.lookup(&parsed, RecordType::A),
            self.lookup(&parsed, RecordType::AAAA)
        );
        if v4.is_none() && v6.is_none() {
            return Err(LookupError::Unreachable(name.to_owned()));
        }
        Ok(v4.into_iter().chain(v6).flatten().collect())
    }

    async fn lookup(&self, name: &Name, kind: RecordType) -> Option<Vec<IpAddr>> {
        let id = hickory_proto::op::Message::query().metadata.id;
        let mut name = name.clone();
        name.set_fqdn(true);
        let (question, bytes) = Question::write(id, &name, kind)?;
        let answered = self.forward(&question, &bytes, DnsTransport::Udp).await?;
        let name = question.name();
        let wrong = self.suspicious(&name, &answered.answer);
        self.learn(&name, &answered.answer, &wrong);
        let usable = answered.answer.rcode != SERVFAIL && answered.answer.rcode != REFUSED;
        usable.then(|| {
            answered
                .answer
                .addresses
                .iter()
                .map(|(address, _)| *address)
                .collect()
        })
    }

    /// Those of the addresses that may be taken for the host: all but what looks
    /// wrong for its name (see `rebinding`).
    pub(crate) fn credible(&self, name: &str, mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let wrong = self
            .rebinding
            .suspicious(&super::names::normalize(name), &addresses);
        addresses.retain(|address| !wrong.contains(address));
        addresses
    }

    /// Whether an address is nobody's on the network, or the pod's own (see
    /// `rebinding`).
    pub(crate) fn is_nowhere(&self, address: IpAddr) -> bool {
        self.rebinding.is_nowhere(address)
    }

    /// Addresses of an answer that look wrong for the name asked (see `rebinding`).
    pub(super) fn suspicious(&self, name: &str, answer: &Answer) -> Vec<IpAddr> {
        let addresses: Vec<IpAddr> = answer.addresses.iter().map(|(ip, _)| *ip).collect();
        self.rebinding.suspicious(name, &addresses)
    }

    /// Remembers the addresses of an answer, but for those that are `withheld`.
    pub(super) fn learn(&self, name: &str, answer: &Answer, withheld: &[IpAddr]) {
        for (address, ttl) in &answer.addresses {
            if !withheld.contains(address) {
                self.names.learn(name, *address, *ttl);
            }
        }
    }

    /// Forwards a query as it is, to server after server until one answers. One that
    /// says it can't is believed only if no other does better. `None` when no server
    /// answered.
    pub(super) async fn forward(
        &self,
        question: &Question,
        bytes: &[u8],
        transport: DnsTransport,
    ) -> Option<Answered> {
        let deadline = Instant::now() + QUERY_TIMEOUT;
        let attempts = self.servers.len().max(MIN_ATTEMPTS);
        let mut second_best = None;
        for (attempt, server) in self.servers.iter().cycle().take(attempts).enumerate() {
            if second_best.is_some() && attempt >= self.servers.len() {
                break;
            }
            let one = async {
                match transport {
                    DnsTransport::Udp => self.ask_udp(*server, question, bytes).await,
                    DnsTransport::Tcp => self.ask_tcp(*server, question, bytes).await,
                }
            };
            let one = timeout(SERVER_TIMEOUT, one);
            match timeout_at(deadline, one).await {
                Ok(Ok(Ok(answered)))
                    if matches!(answered.answer.rcode, SERVFAIL | NOTIMP | REFUSED) =>
                {
                    second_best = Some(answered);
                }
                Ok(Ok(Ok(answered))) => return Some(answered),
                Ok(Ok(Err(error))) => {
                    tracing::debug!(%server, %error, "nameserver failed");
                }
                Ok(Err(_)) => tracing::debug!(%server, "nameserver did not answer in time"),
                Err(_) => break,
            }
        }
        second_best
    }

    async fn ask_udp(
        &self,
        server: SocketAddr,
        question: &Question,
        bytes: &[u8],
    ) -> io::Result<Answered> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        capture::set_mark(&socket, self.mark)?;
        socket.connect(server).await?;
        socket.send(bytes).await?;
        let mut buffer = vec![0; MAX_DATAGRAM];
        // What is not an answer to this question may be forged: wait on.
        loop {
            let length = socket.recv(&mut buffer).await?;
            let message = buffer.get(..length).unwrap_or_default();
            if length < MAX_DATAGRAM
                && let Some(answer) = question.answer(message)
            {
                return Ok(Answered {
                    bytes: message.to_vec(),
                    answer,
                    server,
                });
            }
        }
    }

    async fn ask_tcp(
        &self,
        server: SocketAddr,
        question: &Question,
        bytes: &[u8],
    ) -> io::Result<Answered> {
        let mut stream = capture::dial(server, self.mark).await?;
        write_message(&mut stream, bytes).await?;
        let bytes = read_message(&mut stream)
            .await?
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        match question.answer(&bytes) {
            Some(answer) => Ok(Answered {
                bytes,
                answer,
                server,
            }),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the nameserver answered something else than was asked",
            )),
        }
    }
}

/// Reads a message with its length in front (RFC 1035 section 4.2.2). `None`
/// when the stream ended before one.
pub(super) async fn read_message(
    stream: &mut (impl AsyncReadExt + Unpin),
) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes a message with its length in front, in one piece.
pub(super) async fn write_message(
    stream: &mut (impl AsyncWriteExt + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend(message);
    stream.write_all(&framed).await
}
