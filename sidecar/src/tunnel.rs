//! A tunnel that an HTTP proxy opened for the agent (CONNECT, RFC 9110 §9.3.6): where it leads, and how to have another like it.
//!
//! Owns the agent's CONNECT request, which may hold a credential for the proxy: it goes to that proxy alone. Invariant: all that passes through a tunnel is judged as going to the
//! place that its CONNECT named, and what is inside proves that place (a verified certificate) or names the same one (Host).

pub(crate) mod inside;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;

use crate::{
    http1::parse_response,
    http2::Streams,
    link::Link,
    tls,
    wire::{Io, Wire},
};

/// Longest wait for a proxy to open another tunnel. As long as the two handshakes that may follow.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// Most bytes of a proxy's answers to CONNECT, interim ones included. Heads have a bound of their own; this one is for many of them.
const MAX_ANSWER_BYTES: usize = 128 * 1024;

/// A tunnel.
pub struct Tunnel {
    /// Host that CONNECT named, canonical.
    pub host: String,
    /// Port that it named.
    pub port: u16,
    /// The connection to the proxy.
    pub proxy: Link,
    /// How another is had.
    way: Way,
    /// The open tunnel, until someone takes it.
    ready: Mutex<Option<Wire<Box<dyn Io>>>>,
}

/// How the proxy is asked for a tunnel, with the agent's own request.
pub enum Way {
    /// On a connection of HTTP/1.1 of its own, over TLS where `secure`.
    Http1 {
        /// Whether the proxy is spoken to over TLS.
        secure: bool,
        /// The request, as it is sent.
        request: Bytes,
    },
    /// In another stream of the connection of HTTP/2.
    Http2(Box<Streams>),
}

impl fmt::Debug for Tunnel {
    /// Prints no request: it may hold a credential.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Tunnel {
    /// A tunnel to `host` (canonical) and `port` at the other end of `proxy`.
    #[must_use]
    pub fn new(host: String, port: u16, proxy: Link, way: Way) -> Self {
        Self {
            host,
            port,
            proxy,
            way,
            ready: Mutex::new(None),
        }
    }

    /// The host where it is a name. An address speaks for itself, as on a connection without a proxy.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let literal = self.host.parse::<IpAddr>().is_ok();
        (!literal).then_some(self.host.as_str())
    }

    /// Address and port as policy sees them inside: of the host if it is an address, else of the proxy, which alone knows more.
    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        let ip = self.host.parse().ok();
        SocketAddr::new(ip.unwrap_or(self.proxy.destination.ip()), self.port)
    }

    /// `host:port`, as CONNECT writes it.
    #[must_use]
    pub fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    /// Keeps the open tunnel for the one who asks first.
    fn put(&self, wire: Wire<Box<dyn Io>>) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(wire);
    }

    /// The open tunnel, or another. On the heap and without its type: few connections run in a tunnel, and the proxy is dialled as any destination is.
    fn connect(&self) -> BoxFuture<'_, io::Result<Wire<Box<dyn Io>>>> {
        let ready = self
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(ready) = ready {
            return Box::pin(std::future::ready(Ok(ready)));
        }
        Box::pin(async {
            tokio::time::timeout(OPEN_TIMEOUT, self.open())
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }

    async fn open(&self) -> io::Result<Wire<Box<dyn Io>>> {
        let (secure, request) = match &self.way {
            Way::Http1 { secure, request } => (*secure, request),
            Way::Http2(streams) => return streams.open().await,
        };
        let mut wire = match secure {
            true => tls::dial(&self.proxy).await?,
            false => self.proxy.dial().await?,
        };
        wire.send(request).await?;
        opened(&mut wire).await?;
        Ok(wire)
    }
}

/// Reads the proxy's answer, up to the first byte of the tunnel.
async fn opened(wire: &mut Wire<Box<dyn Io>>) -> io::Result<()> {
    let mut read = 0_usize;
    loop {
        while let Some((head, used)) =
            parse_response(&wire.unread, "CONNECT").map_err(io::Error::other)?
        {
            let _ = wire.unread.split_to(used);
            if !head.is_interim() {
                let status = head.status();
                return match (200..300).contains(&status) {
                    true => Ok(()),
                    false => Err(io::Error::other(format!("the proxy answered {status}"))),
                };
            }
        }
        if read > MAX_ANSWER_BYTES {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        match wire.fill().await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => read = read.saturating_add(more),
        }
    }
}

impl Link {
    /// A connection to the destination: a socket, or inside a tunnel the tunnel itself, and another like it for who asks again.
    ///
    /// # Errors
    /// The system's own, or why there is no tunnel.
    pub async fn dial(&self) -> io::Result<Wire<Box<dyn Io>>> {
        match &self.tunnel {
            Some(tunnel) => tunnel.connect().await,
            None => {
                let stream = self.shared.egress.dial(self.destination).await?;
                Ok(Wire::new(Box::new(stream), BytesMut::new()))
            }
        }
    }
}
