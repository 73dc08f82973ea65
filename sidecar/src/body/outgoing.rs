//! What is done to a request on its way out: masks on what leaves, then tokens that become their values again where policy says so.
//!
//! A pure function of parts of the request. The record was begun before, from what the agent wrote, so it keeps the tokens. Fields that frame, route or negotiate are left alone, and so
//! are those that carry the agent's own credentials from masks (not from tokens): a mask there would only break the request.

use std::sync::Arc;

use chaperone_crds::{compile::MaskSet, decide::HeaderFields, detect::CompiledMasks};

use super::{
    BodyFilter, Edit, Format, Media, Unreadable, codings, edits::is_false_when_masked, media,
};
use crate::mask::mask_all_of;

/// Fields that frame a message, say where it goes or what comes back (RFC 9110, RFC 9112): never edited.
const LEFT_ALONE: [&str; 26] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "accept",
    "accept-encoding",
    "accept-language",
    "range",
    "if-range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "cache-control",
    "date",
    "http2-settings",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
];
/// Fields that carry the agent's own credentials: masks leave them alone.
const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// What is done to a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing {
    masks: Option<Arc<CompiledMasks>>,
    restore: Option<Arc<CompiledMasks>>,
}

/// What is done to a request's body.
#[derive(Debug)]
pub(crate) enum Leaving {
    /// It leaves as it is.
    Pass,
    /// It leaves as it is although masks apply; the record says why.
    PassUnread(Unreadable),
    /// It is refused.
    Refuse(Unreadable),
    /// It is filtered, and the head edited. Its framing is the caller's to change.
    Filter(Vec<Edit>, Box<BodyFilter>),
}

impl Outgoing {
    /// What these masks do to requests.
    pub(crate) fn of(masks: &MaskSet) -> Self {
        Self {
            masks: masks.request.clone(),
            restore: masks.restore.clone(),
        }
    }

    /// Whether nothing is done.
    pub(crate) fn is_empty(&self) -> bool {
        self.masks.is_none() && self.restore.is_none()
    }

    /// What becomes of a body that would be filtered and cannot be framed anew. A token that stays a token harms nobody.
    pub(crate) fn unframed(&self, strict: bool) -> Leaving {
        match (&self.masks, strict) {
            (None, _) => Leaving::Pass,
            (Some(_), true) => Leaving::Refuse(Unreadable::Unframed),
            (Some(_), false) => Leaving::PassUnread(Unreadable::Unframed),
        }
    }

    /// A path and query, if they change. What takes the place of a match is percent-encoded.
    pub(crate) fn path(&self, written: &str) -> Option<String> {
        let (path, query) = match written.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (written, None),
        };
        let mut out = self.text(path.as_bytes(), Format::Encoded, true);
        if let Some(query) = query {
            out.push(b'?');
            out.extend(self.text(query.as_bytes(), Format::Form, true));
        }
        let out = String::from_utf8(out).ok()?;
        (out != written).then_some(out)
    }

    /// The fields whose values change, each with all of its values.
    pub(crate) fn fields(&self, fields: &dyn HeaderFields) -> Vec<(String, Vec<Vec<u8>>)> {
        let mut changed: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
        for (name, value) in fields.fields() {
            let name = name.to_ascii_lowercase();
            if LEFT_ALONE.contains(&name.as_str()) || changed.iter().any(|(n, _)| *n == name) {
                continue;
            }
            let masked = !CREDENTIALS.contains(&name.as_str());
            if self.text(value, Format::Plain, masked) == value {
                continue;
            }
            let all = fields.fields();
            let values = all
                .filter(|(n, _)| n.eq_ignore_ascii_case(&name))
                .map(|(_, value)| self.text(value, Format::Plain, masked))
                .collect();
            changed.push((name, values));
        }
        changed
    }

    /// What is done to the body. `strict`: what masks cannot read is refused (Enforce) instead of passed (Audit).
    pub(crate) fn body(&self, fields: &dyn HeaderFields, strict: bool) -> Leaving {
        let Media::Text(format) = media(field(fields, "content-type")) else {
            return Leaving::Pass;
        };
        let all = fields.fields();
        let values = all.filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
        let codings = match codings(values.map(|(_, value)| value)) {
            Ok(codings) => codings,
            // A token that is not found stays a token.
            Err(_) if self.masks.is_none() => return Leaving::Pass,
            Err(names) if strict => return Leaving::Refuse(Unreadable::Request(names)),
            Err(names) => return Leaving::PassUnread(Unreadable::Request(names)),
        };
        let layers = self.masks.iter().chain(&self.restore).cloned().collect();
        let filter = BodyFilter::layered(layers, format, &codings, strict);
        let mut edits: Vec<Edit> = Vec::new();
        for (name, _) in fields.fields() {
            let edit = Edit::Remove(name.to_ascii_lowercase());
            if is_false_when_masked(&name.to_ascii_lowercase()) && !edits.contains(&edit) {
                edits.push(edit);
            }
        }
        Leaving::Filter(edits, Box::new(filter))
    }

    fn text(&self, text: &[u8], format: Format, masked: bool) -> Vec<u8> {
        let masks = self.masks.iter().filter(|_| masked);
        masks
            .chain(&self.restore)
            .fold(text.to_vec(), |text, layer| {
                mask_all_of(layer, format, &text).0
            })
    }
}

fn field<'a>(fields: &'a dyn HeaderFields, name: &str) -> Option<&'a [u8]> {
    let mut all = fields.fields();
    all.find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}
