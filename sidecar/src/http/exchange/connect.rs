//! CONNECT: the agent asks a proxy for a tunnel (RFC 9110 §9.3.6).

use bytes::BytesMut;

use super::Exchange;
use crate::{
    http::judge::Subject,
    http1::Target,
    tunnel::{Tunnel, Way},
    wire::Io,
};

impl<A: Io> Exchange<'_, A> {
    /// Whether what the request leads to is read as a tunnel. Inside a tunnel a second one is not.
    pub(super) fn connects(&self) -> bool {
        self.head.method() == "CONNECT" && self.link.tunnel.is_none()
    }

    /// The tunnel that the request opened.
    pub(super) fn connected(&self, subject: &Subject) -> Option<Tunnel> {
        let Target::Authority(authority) = self.head.target() else {
            return None;
        };
        let port = authority.port.filter(|_| self.connects())?;
        let mut request = BytesMut::new();
        self.head.write_to(&mut request);
        Some(Tunnel::new(
            subject.host.clone(),
            port,
            self.link.clone(),
            Way::Http1 {
                secure: self.secure,
                request: request.freeze(),
            },
        ))
    }
}
