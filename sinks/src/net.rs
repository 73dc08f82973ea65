//! The way from a sink to its endpoint. In a pod the sidecar's sockets must carry the firewall mark and names must be asked past its own
//! resolver, so the caller supplies both.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
};

use tokio::net::TcpStream;

/// What [`SinkNet`] returns.
pub type NetFuture<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// How sinks reach the network. Called inside a runtime.
pub trait SinkNet: Send + Sync + 'static {
    /// Addresses of a host name. Never called with an address.
    fn resolve<'a>(&'a self, host: &'a str) -> NetFuture<'a, Vec<IpAddr>>;
    /// Connects.
    fn dial(&self, address: SocketAddr) -> NetFuture<'_, TcpStream>;
}

/// The host's own resolver and plain sockets: where nothing is captured.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostNet;

impl SinkNet for HostNet {
    fn resolve<'a>(&'a self, host: &'a str) -> NetFuture<'a, Vec<IpAddr>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|a| a.ip()).collect())
        })
    }

    fn dial(&self, address: SocketAddr) -> NetFuture<'_, TcpStream> {
        Box::pin(TcpStream::connect(address))
    }
}
