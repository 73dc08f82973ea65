//! How the sidecar itself reaches the network: sockets that the packet filter lets out, and names resolved past its own resolver.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::net::TcpStream;

use crate::{
    audit::{NetFuture, SinkNet},
    capture,
    dns::Resolver,
};

/// The way out.
pub struct Egress {
    mark: Option<u32>,
    resolver: Arc<Resolver>,
    search: Vec<String>,
}

impl Egress {
    /// Sockets carry `mark`; names are asked of `resolver`, short ones completed with the domains of `search`. Without a mark where nothing is
    /// captured: outside the captured network namespace.
    pub fn new(mark: Option<u32>, resolver: Arc<Resolver>, search: &[String]) -> Self {
        Self {
            mark,
            resolver,
            search: search.to_vec(),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// The system's own, so that the agent can be told the truth.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        capture::dial(address, self.mark).await
    }

    /// Addresses of a name: as it is, else completed with the search domains one after the other, as the pod's other clients do (a Service is
    /// mostly called `name.namespace` or `name.namespace.svc`). Empty when it has none.
    ///
    /// # Errors
    /// When no name server answers.
    pub async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(self.complete(name).await?.1)
    }

    /// As [`Self::resolve`], for a name that the agent gave: without addresses that a name should not lead to (see `dns`'s module on rebinding).
    ///
    /// # Errors
    /// When no name server answers.
    pub async fn resolve_for_agent(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let (completed, found) = self.complete(name).await?;
        Ok(self.resolver.credible(&completed, found))
    }

    /// Whether an address is nobody's on the network, or the pod's own.
    pub(crate) fn is_nowhere(&self, address: IpAddr) -> bool {
        self.resolver.is_nowhere(address)
    }

    /// The search list of the pod.
    pub(crate) fn search(&self) -> &[String] {
        &self.search
    }

    /// The first completion of a name that has addresses, with them.
    async fn complete(&self, name: &str) -> io::Result<(String, Vec<IpAddr>)> {
        let found = self.addresses(name).await?;
        if !found.is_empty() || name.ends_with('.') {
            return Ok((name.to_owned(), found));
        }
        for domain in &self.search {
            let completed = format!("{name}.{domain}");
            let found = self.addresses(&completed).await?;
            if !found.is_empty() {
                return Ok((completed, found));
            }
        }
        Ok((name.to_owned(), Vec::new()))
    }

    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.resolver.addresses(name).await;
        found.map_err(io::Error::other)
    }

    /// Connects to the first address of a name (or an address) that takes the connection.
    ///
    /// # Errors
    /// The last failure, or that there is no address.
    pub async fn dial_name(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => self.resolve(host).await?,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for ip in addresses {
            match self.dial(SocketAddr::new(ip, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl SinkNet for Egress {
    fn resolve<'a>(&'a self, host: &'a str) -> NetFuture<'a, Vec<IpAddr>> {
        Box::pin(self.resolve(host))
    }

    fn dial(&self, address: SocketAddr) -> NetFuture<'_, TcpStream> {
        Box::pin(self.dial(address))
    }
}
