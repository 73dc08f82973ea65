//! Queries in, answers out.
//!
//! Owns the listeners, the limits on what runs at once, and the order "judge, ask,
//! record, then answer". Refuses messages that are not queries: they get an error of
//! the protocol and an event, or no reply at all where one could start a loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::message::{FORMERR, Question, REFUSED, SERVFAIL, Unanswerable, bare_reply, rcode_name};
use super::upstream::{Answered, read_message, write_message};
use super::{DnsListeners, DnsQuery, DnsTransport, Judge, MAX_ANSWERS, Resolver};

/// Most queries in flight. Each holds some 10 KiB; more wait in the kernel.
const MAX_IN_FLIGHT: usize = 512;

/// Most TCP connections at once.
const MAX_CONNECTIONS: usize = 128;

/// Longest time that a TCP connection may stay silent (RFC 7766 section 6.2.3
/// asks for seconds), or take to accept its answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of the longest query over UDP. Queries have one question and an OPT
/// record; 512 is usual.
const MAX_QUERY: usize = 4 * 1024;

/// Pause after a listener failed for a moment (out of descriptors, say), so
/// that it does not spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers queries until the receiver of `events` is gone.
///
/// # Errors
/// When the sockets can't be used with the runtime.
pub async fn serve(
    listeners: DnsListeners,
    resolver: Arc<Resolver>,
    judge: Arc<dyn Judge>,
    events: mpsc::Sender<DnsQuery>,
) -> io::Result<()> {
    let server = Server {
        resolver,
        judge,
        events,
        in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
    };
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    for socket in listeners.udp {
        socket.set_nonblocking(true)?;
        tasks.spawn(
            server
                .clone()
                .datagrams(Arc::new(UdpSocket::from_std(socket)?)),
        );
    }
    for listener in listeners.tcp {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        tasks.spawn(
            server
                .clone()
                .connections(listener, Arc::clone(&connections)),
        );
    }
    server.events.closed().await;
    tasks.shutdown().await;
    Ok(())
}

#[derive(Clone)]
struct Server {
    resolver: Arc<Resolver>,
    judge: Arc<dyn Judge>,
    events: mpsc::Sender<DnsQuery>,
    in_flight: Arc<Semaphore>,
}

impl Server {
    async fn datagrams(self, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; MAX_QUERY];
        loop {
            let Ok(permit) = Arc::clone(&self.in_flight).acquire_owned().await else {
                return;
            };
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::debug!(%error, "receiving a DNS query failed");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let query = buffer.get(..length).unwrap_or_default().to_vec();
            let (server, socket) = (self.clone(), Arc::clone(&socket));
            tokio::spawn(async move {
                let _permit = permit;
                if let Some(reply) = server.answer(&query, client, DnsTransport::Udp).await
                    && let Err(error) = socket.send_to(&reply, client).await
                {
                    tracing::debug!(%error, "sending a DNS answer failed");
                }
            });
        }
    }

    async fn connections(self, listener: TcpListener, limit: Arc<Semaphore>) {
        loop {
            let Ok(permit) = Arc::clone(&limit).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, client)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Err(error) = server.connection(stream, client).await {
                            tracing::debug!(%error, "DNS connection failed");
                        }
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "accepting a DNS connection failed");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Answers query after query, in order, until the client is done or silent.
    async fn connection(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        loop {
            let Some(query) = timeout(IDLE_TIMEOUT, read_message(&mut stream)).await?? else {
                return Ok(());
            };
            let Ok(_permit) = self.in_flight.acquire().await else {
                return Ok(());
            };
            let Some(reply) = self.answer(&query, client, DnsTransport::Tcp).await else {
                return Ok(());
            };
            timeout(IDLE_TIMEOUT, write_message(&mut stream, &reply)).await??;
        }
    }

    /// The reply to a message, after its event was taken. `None` when there
    /// must be no reply.
    async fn answer(
        &self,
        message: &[u8],
        client: SocketAddr,
        transport: DnsTransport,
    ) -> Option<Vec<u8>> {
        let began = Instant::now();
        let mut event = DnsQuery {
            name: String::new(),
            query_type: String::new(),
            rcode: "",
            answers: Vec::new(),
            withheld: Vec::new(),
            ruling: None,
            begun: None,
            server: None,
            client,
            elapsed: Duration::ZERO,
            transport,
        };
        let (rcode, reply) = match Question::read(message) {
            Ok(question) => {
                event.name = question.name();
                event.query_type = question.kind();
                self.resolve(&question, message, &mut event).await
            }
            Err(Unanswerable::NotAQuery) => (FORMERR, None),
            Err(Unanswerable::Refuse(rcode)) => (rcode, bare_reply(message, rcode)),
        };
        event.rcode = rcode_name(rcode);
        event.elapsed = began.elapsed();
        // Without a record there is no answer.
        self.events.send(event).await.ok()?;
        reply
    }

    async fn resolve(
        &self,
        question: &Question,
        message: &[u8],
        event: &mut DnsQuery,
    ) -> (u8, Option<Vec<u8>>) {
        if question.is_transfer() {
            return (REFUSED, question.reply(message, REFUSED));
        }
        let Some(ruling) = self.judge.query(&event.name, &event.query_type) else {
            return (SERVFAIL, question.reply(message, SERVFAIL));
        };
        let refused = ruling.denies().then(|| ruling.explanation());
        let ruling = event.ruling.insert(ruling);
        if let Some(why) = refused {
            return (REFUSED, question.refuse(message, &why));
        }
        let begun = self.judge.begin(&event.name, &event.query_type, ruling);
        match begun.await {
            Ok(begun) => event.begun = begun,
            Err(unheld) => {
                event.begun = unheld.begun;
                ruling.error = Some(unheld.to_string());
                return (SERVFAIL, question.reply(message, SERVFAIL));
            }
        }
        let asked = self.resolver.forward(question, message, event.transport);
        match asked.await {
            Some(answered) => self.answered(question, message, answered, event),
            None => (SERVFAIL, question.reply(message, SERVFAIL)),
        }
    }

    /// What the client gets of a nameserver's answer.
    fn answered(
        &self,
        question: &Question,
        message: &[u8],
        answered: Answered,
        event: &mut DnsQuery,
    ) -> (u8, Option<Vec<u8>>) {
        let Answered {
            bytes,
            answer,
            server,
        } = answered;
        event.server = Some(server);
        let mut withheld = self.resolver.suspicious(&event.name, &answer);
        if !withheld.is_empty()
            && let Some(passed) = event.ruling.take()
        {
            let (name, kind) = (&event.name, &event.query_type);
            let (ruling, kept) = self.judge.answer(name, kind, &withheld, passed);
            event.ruling = Some(ruling);
            withheld = kept;
        }
        self.resolver.learn(&event.name, &answer, &withheld);
        let addresses = answer.addresses.iter().map(|(address, _)| *address);
        let given = addresses.filter(|address| !withheld.contains(address));
        event.answers = given.take(MAX_ANSWERS).collect();
        if withheld.is_empty() {
            return (answer.rcode, Some(bytes));
        }
        let left = question.without(&bytes, &withheld);
        withheld.truncate(MAX_ANSWERS);
        event.withheld = withheld;
        match left {
            Some(left) => (answer.rcode, Some(left)),
            None => (SERVFAIL, question.reply(message, SERVFAIL)),
        }
    }
}

#[cfg(test)]
mod tests;
