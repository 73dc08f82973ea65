//! The way to an endpoint: a name becomes addresses, the first that takes a connection is it, TLS on top.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{ClientError, net::SinkNet};

/// How long name, connection and TLS handshake may take together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection is made of.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, with TLS or without.
pub type Stream = Box<dyn Io>;

/// An endpoint, and how it is reached.
#[derive(Clone)]
pub struct Dialer {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// TLS, where there is to be some.
    pub tls: Option<Arc<ClientConfig>>,
    /// The way there.
    pub net: Arc<dyn SinkNet>,
}

impl Dialer {
    /// A new connection.
    ///
    /// # Errors
    /// [`ClientError`]; a connection takes 10 s at most.
    pub async fn dial(&self) -> Result<Stream, ClientError> {
        timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .map_err(|_| ClientError::Timeout(CONNECT_TIMEOUT))?
    }

    async fn connect(&self) -> Result<Stream, ClientError> {
        let tcp = self.tcp().await?;
        // Failing to ask for no delay costs time and nothing else.
        let _ = tcp.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return Ok(Box::new(tcp));
        };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|e| ClientError::Settings(format!("{}: {e}", self.host)))?;
        let stream = TlsConnector::from(tls.clone())
            .connect(name, tcp)
            .await
            .map_err(ClientError::Tls)?;
        Ok(Box::new(stream))
    }

    /// The first address that takes the connection.
    async fn tcp(&self) -> Result<TcpStream, ClientError> {
        let resolve = |source| ClientError::Resolve {
            host: self.host.clone(),
            source,
        };
        let addresses = match self.host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => self.net.resolve(&self.host).await.map_err(resolve)?,
        };
        let mut failure = resolve(io::Error::new(io::ErrorKind::NotFound, "no address"));
        for ip in addresses {
            match self.net.dial(SocketAddr::new(ip, self.port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = ClientError::Connect(error),
            }
        }
        Err(failure)
    }
}
