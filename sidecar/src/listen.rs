//! The sidecar's listeners, and the thread that serves captured connections.
//!
//! Connections are served by one current-thread runtime on a thread of its own: a request never wakes another thread, and control and audit work never delays one.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use chaperone_crds::pod::{CAPTURE_PORT, DNS_PORT, HEALTH_PORT};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus::IntGauge;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    capture::{OriginalDstError, original_dst},
    connection,
    dns::DnsListeners,
    link::DRAIN,
    shared::Shared,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Most connections at once, descriptors permitting. Beyond, new ones are closed.
const MAX_CONNECTIONS: u64 = 8192;
/// Descriptors that connections leave to the spool, the sinks, the resolver and the control stream: an agent must not exhaust them.
const RESERVED_DESCRIPTORS: u64 = 256;
/// Descriptors of one connection: the agent's socket, a copy of it to reset should its story panic, and the upstream's.
const DESCRIPTORS_EACH: u64 = 3;

/// Sockets that exist before any connection: bound in the captured network namespace.
#[derive(Debug)]
pub struct Listeners {
    /// Redirected TCP, on the loopback address of each family.
    pub capture: Vec<TcpListener>,
    /// Redirected DNS.
    pub dns: DnsListeners,
}

impl Listeners {
    /// Binds all on loopback. A machine without IPv6 has none to capture.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn bind() -> io::Result<Self> {
        let mut capture = vec![tcp(SocketAddr::new(
            Ipv4Addr::LOCALHOST.into(),
            CAPTURE_PORT,
        ))?];
        match tcp(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), CAPTURE_PORT)) {
            Err(error) if has_no_ipv6(&error) => {}
            other => capture.push(other?),
        }
        Ok(Self {
            capture,
            dns: DnsListeners::bind_loopback(DNS_PORT)?,
        })
    }
}

/// Binds the health port on all addresses, IPv6 and IPv4.
///
/// # Errors
/// When the port is taken.
pub fn bind_health() -> io::Result<TcpListener> {
    match tcp(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), HEALTH_PORT)) {
        Err(error) if has_no_ipv6(&error) => {
            tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), HEALTH_PORT))
        }
        other => other,
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // The health port serves both families; loopback listeners are one each.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Starts the thread that serves captured connections, until `shared.stopping`.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn serve_captured(
    shared: Arc<Shared>,
    listeners: Vec<TcpListener>,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("data".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let most = most_connections(raise_descriptors());
                let mut tasks = Vec::new();
                for listener in listeners {
                    tasks.push(tokio::spawn(accept(shared.clone(), listener, most)));
                }
                for task in tasks {
                    let _ = task.await;
                }
                drain(&shared).await;
            });
        })
}

/// Raises the limit of open descriptors to what the system allows, and says what it is. Container runtimes start processes with 1024.
fn raise_descriptors() -> u64 {
    let wanted = MAX_CONNECTIONS * DESCRIPTORS_EACH + RESERVED_DESCRIPTORS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 1024;
    };
    let raised = wanted.min(hard);
    if soft >= raised || setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_err() {
        return soft;
    }
    raised
}

/// Connections that this many descriptors allow.
fn most_connections(descriptors: u64) -> i64 {
    let most = descriptors.saturating_sub(RESERVED_DESCRIPTORS) / DESCRIPTORS_EACH;
    i64::try_from(most.min(MAX_CONNECTIONS)).unwrap_or(i64::MAX)
}

/// How long what was broken off after [`DRAIN`] may take to be recorded.
const RECORDS: Duration = Duration::from_secs(1);

async fn drain(shared: &Shared) {
    let deadline = tokio::time::Instant::now() + DRAIN + RECORDS;
    while shared.metrics.open_connections.get() > 0 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Counts a connection as open until it is dropped, however it ends.
struct Open(IntGauge);

impl Open {
    fn count(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, most: i64) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot listen for captured connections");
            return;
        }
    };
    let mut stopping = shared.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => admit(&shared, stream, most),
            Err(error) => {
                // Out of descriptors, most likely: give connections time to end.
                tracing::warn!(%error, "cannot accept a captured connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: tokio::net::TcpStream, most: i64) {
    if shared.metrics.open_connections.get() >= most {
        shared
            .metrics
            .connections
            .with_label_values(&["overload"])
            .inc();
        return;
    }
    let _ = stream.set_nodelay(true);
    match original_dst(&stream) {
        Ok(destination) => {
            let open = Open::count(&shared.metrics.open_connections);
            let shared = shared.clone();
            tokio::spawn(async move {
                connection::serve(shared, stream, destination).await;
                drop(open);
            });
        }
        Err(OriginalDstError::NotRedirected { .. }) => {
            shared
                .metrics
                .connections
                .with_label_values(&["not-redirected"])
                .inc();
        }
        Err(error) => tracing::debug!(%error, "a captured connection has no destination"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_to_the_rest() {
        for (descriptors, most) in [(100, 0), (1024, 256), (40_000, 8192), (u64::MAX, 8192)] {
            assert_eq!(most_connections(descriptors), most);
        }
    }
}
