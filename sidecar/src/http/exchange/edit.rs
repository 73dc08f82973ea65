//! What of a request changes on its way: only what masks, tokens and protocols that are not read make necessary.

use super::Exchange;
use crate::{
    body::{BodyFilter, Leaving, MASKED_REQUEST_FIELDS, Outgoing, strong_again},
    http::{failure::Failure, upload::Leaves},
    http1::{BodyFraming, HeaderEditError, Version},
    wire::Io,
};
use chaperone_crds::resources::Mode;

impl<A: Io> Exchange<'_, A> {
    /// What the upstream sees differs from what the agent wrote only where it must.
    pub(super) fn edit_head(&mut self, masked: bool) -> Result<(), HeaderEditError> {
        self.edit_h2c()?;
        let headers = self.head.headers_mut();
        if masked {
            headers.narrow_accept_encoding()?;
            for name in MASKED_REQUEST_FIELDS {
                headers.remove(name);
            }
            if let Some(tags) = headers.get("if-match").and_then(strong_again) {
                headers.set("If-Match", &tags)?;
            }
        }
        if let Some(offer) = &self.offer {
            // Extensions that are not read are not offered: RFC 6455 §9.1 leaves it to the server to take none.
            let name = "Sec-WebSocket-Extensions";
            match &offer.extensions {
                Some(offers) if headers.get(name) == Some(offers.as_bytes()) => {}
                Some(offers) => headers.set(name, offers.as_bytes())?,
                None => {
                    headers.remove(name);
                }
            }
        }
        if self.continued {
            headers.remove("expect");
        }
        Ok(())
    }

    /// Masks what leaves, and makes tokens values again where policy says so. Returns what is done to the rest.
    pub(super) fn rewrite(&mut self) -> Result<Leaves, Failure> {
        let outgoing = self.evidence.outgoing().of_call(self.call.clone());
        if outgoing.is_empty() {
            return Ok(Leaves::default());
        }
        let filter = self.rewrite_with(&outgoing)?;
        let chunked = self.head.framing() == BodyFraming::Chunked;
        Ok(Leaves::of(outgoing, filter, chunked))
    }

    fn rewrite_with(&mut self, outgoing: &Outgoing) -> Result<Option<Box<BodyFilter>>, Failure> {
        let strict = self.active.mode() == Mode::Enforce;
        let bodiless = matches!(
            self.head.framing(),
            BodyFraming::None | BodyFraming::Length(0)
        );
        let body = match bodiless {
            true => Leaving::Pass,
            false => outgoing.body(self.head.headers(), strict),
        };
        let body = match body {
            Leaving::Filter(..) if self.head.version() == Version::Http10 => {
                outgoing.unframed(strict)
            }
            body => body,
        };
        self.rewrite_head(outgoing).map_err(unedited)?;
        match body {
            Leaving::Pass => Ok(None),
            Leaving::PassUnread(why) => {
                self.evidence.failed(&format!("left unmasked: {why}"));
                Ok(None)
            }
            Leaving::Refuse(why) => Err(Failure::Unreadable(why)),
            Leaving::Filter(edits, filter) => {
                self.head.headers_mut().apply(&edits).map_err(unedited)?;
                self.head.send_in_chunks().map_err(unedited)?;
                Ok(Some(filter))
            }
        }
    }

    fn rewrite_head(&mut self, outgoing: &Outgoing) -> Result<(), HeaderEditError> {
        if let Some(start) = self.head.path_start() {
            let (before, path) = self.head.target_text().split_at(start);
            if let Some(path) = outgoing.path(path) {
                let target = format!("{before}{path}");
                self.head.set_target_text(&target)?;
            }
        }
        let (changed, findings) = outgoing.fields(self.head.headers());
        self.evidence.head_masked(&findings);
        for (name, values) in changed {
            self.head.headers_mut().replace(&name, &values)?;
        }
        Ok(())
    }
}

fn unedited(error: HeaderEditError) -> Failure {
    Failure::Upstream("edit", error.to_string())
}
