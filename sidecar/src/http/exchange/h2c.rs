//! An offer to go on in HTTP/2 (RFC 7540 §3.2): passed on where what follows can be read, withheld elsewhere, which a server that ignores it looks like.

use std::time::Instant;

use super::{Exchange, Next};
use crate::{
    http::{download::Progress, relay::Outcomes},
    http1::{BodyFraming, HeaderEditError, RequestHead, ResponseHead, Target, Version},
    http2::{
        Upgraded,
        upgrade::{OFFERED, settings},
    },
    wire::Io,
};

/// Whether HTTP/2 is among the protocols that an `Upgrade` offers.
pub(super) fn is_offered(protocols: &str) -> bool {
    protocols
        .split(',')
        .any(|protocol| protocol.trim().eq_ignore_ascii_case("h2c"))
}

/// The agent's settings, where the offer is one that can be followed: of HTTP/2 alone, in clear text, by a GET without a body to the connection's own place. An upgrade is about one hop, so a
/// request to a proxy stays as it is; and a body would be sent in HTTP/1.1 while its response comes in HTTP/2.
fn settings_of(head: &RequestHead, secure: bool) -> Option<Vec<u8>> {
    let headers = head.headers();
    let one = |name: &'static str| {
        let mut values = headers.get_all(name);
        let first = values.next();
        first.filter(|_| values.next().is_none())
    };
    let plain = !secure
        && head.version() == Version::Http11
        && head.method() == "GET"
        && matches!(head.framing(), BodyFraming::None | BodyFraming::Length(0))
        && matches!(head.target(), Target::Origin { .. })
        && !headers.contains("expect");
    let alone = one("upgrade")?.eq_ignore_ascii_case(b"h2c")
        && headers.has_token("connection", "http2-settings");
    let settings = settings(one("http2-settings")?)?;
    (plain && alone).then_some(settings)
}

impl<A: Io> Exchange<'_, A> {
    /// Passes an offer of HTTP/2 on, with settings of ours, or takes it out.
    pub(super) fn edit_h2c(&mut self) -> Result<(), HeaderEditError> {
        if !self.head.upgrade().is_some_and(is_offered) {
            return Ok(());
        }
        // Messages of a gRPC call that somebody reads are followed on one connection alone; none is a GET.
        self.h2c = settings_of(&self.head, self.secure).filter(|_| self.call.is_none());
        let headers = self.head.headers_mut();
        if self.h2c.is_some() {
            return headers.set("HTTP2-Settings", OFFERED.as_bytes());
        }
        headers.remove("upgrade");
        headers.remove("http2-settings");
        headers.remove_connection_options(&["upgrade", "http2-settings"])
    }

    /// The agent's settings, where both sides go on in HTTP/2.
    pub(super) fn upgraded(&mut self, outcomes: &Outcomes, progress: &Progress) -> Option<Vec<u8>> {
        let switched = progress.head.as_ref().is_some_and(ResponseHead::switches);
        let whole = outcomes.download.is_ok() && outcomes.upload.is_none();
        self.h2c.take().filter(|_| switched && whole)
    }

    /// The exchange goes on with its response, which its record waits for.
    pub(super) fn go_on_in_http2(
        mut self: Box<Self>,
        settings: Vec<u8>,
        progress: &Progress,
        since: Instant,
    ) -> Next {
        self.evidence.head_masked(&progress.head_findings);
        let bytes = self.body.payload_bytes();
        self.evidence.request_body(bytes, self.sample);
        Next::Http2(Box::new(Upgraded {
            active: self.active,
            evidence: self.evidence,
            since,
            settings,
        }))
    }
}
