//! What is done to the body of one message: a pure function of its head, the masks that apply and the mode.

use std::sync::Arc;

use chaperone_crds::{decide::HeaderFields, detect::CompiledMasks};

use super::{
    BodyFilter, Coding, DecodeStack, Edit, Format, Media, SNIFFED_BYTES, codings, edits, media,
    media::is_text,
};

/// The head of a response, as far as it matters to its body.
pub struct Message<'a> {
    /// Its status.
    pub status: u16,
    /// Whether a body follows: not after HEAD, nor with 204 and 304.
    pub has_body: bool,
    /// Its fields.
    pub fields: &'a dyn HeaderFields,
}

/// What is done to a body.
#[derive(Debug)]
pub enum Treatment {
    /// It passes as it is.
    Pass,
    /// It passes as it is although masks apply; the record says why.
    PassUnread(Unreadable),
    /// It is refused.
    Refuse(Unreadable),
    /// There is no body; the head is edited as it would be with one.
    HeadOnly(Vec<Edit>),
    /// It is filtered, and the head edited. Its framing is the caller's to change.
    Filter(Vec<Edit>, Box<BodyFilter>),
    /// The body's first bytes tell: nothing of the head may leave before.
    Look(Look),
}

/// Why masks cannot read a body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// A content coding that is not read.
    #[error("the response is compressed ({0}), so that masks cannot read it")]
    Coding(String),
    /// A part of a resource cannot be masked: a match may begin before it.
    #[error("the response is partial ({0}), so that masks cannot read it whole")]
    Partial(u16),
    /// The content coding of a request is not read.
    #[error("the request is compressed ({0}), so that masks cannot read it")]
    Request(String),
    /// The type of a request's body says that it is no text, or nothing, or more than one thing.
    #[error(
        "the request's Content-Type names no text, so that masks cannot read its body; send text or JSON, and say so"
    )]
    Type,
    /// No descriptor set has the procedure that is called.
    #[error("no descriptor set has {0}, so that masks cannot read its messages")]
    Undescribed(String),
    /// What is masked cannot be framed for HTTP/1.0.
    #[error("the request is HTTP/1.0, which knows no chunks, so that its body cannot be masked")]
    Unframed,
}

impl Unreadable {
    /// Label for metrics and records of a request that is refused for it.
    pub(crate) fn request_reason(&self) -> &'static str {
        match self {
            Self::Type | Self::Undescribed(_) => "unreadable-request",
            Self::Coding(_) | Self::Partial(_) | Self::Request(_) | Self::Unframed => {
                "compressed-request"
            }
        }
    }
}

impl Message<'_> {
    /// What is done to the body. `masks`: those that apply to it, if any. `strict`: what cannot be read is refused (Enforce) instead of passed (Audit).
    pub fn treat(&self, masks: Option<&Arc<CompiledMasks>>, strict: bool) -> Treatment {
        let Some(masks) = masks.filter(|masks| masks.reads_bodies()) else {
            return Treatment::Pass;
        };
        let media = media(self.field("content-type"));
        if media == Media::Binary {
            return Treatment::Pass;
        }
        if !self.has_body {
            return Treatment::HeadOnly(edits::of_masked_response(self.fields));
        }
        let codings = match self.readable() {
            Ok(codings) => codings,
            Err(why) if strict => return Treatment::Refuse(why),
            Err(why) => return Treatment::PassUnread(why),
        };
        let edits = edits::of_masked_response(self.fields);
        match media {
            Media::Text(format) => {
                let filter = BodyFilter::new(masks.clone(), format, &codings, strict);
                Treatment::Filter(edits, Box::new(filter))
            }
            _ => Treatment::Look(Look {
                edits,
                masks: masks.clone(),
                strict,
                decode: DecodeStack::new(&codings),
                codings,
                given: 0,
                first: Vec::new(),
            }),
        }
    }

    fn readable(&self) -> Result<Vec<Coding>, Unreadable> {
        // 226 is a difference to what the client has (RFC 3229).
        if matches!(self.status, 206 | 226) {
            return Err(Unreadable::Partial(self.status));
        }
        let fields = self.fields.fields();
        let values = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-encoding"));
        codings(values.map(|(_, value)| value)).map_err(Unreadable::Coding)
    }

    fn field(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fields.fields();
        fields
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// Looks at the first bytes of a body whose type says nothing.
#[derive(Debug)]
pub struct Look {
    edits: Vec<Edit>,
    masks: Arc<CompiledMasks>,
    strict: bool,
    codings: Vec<Coding>,
    decode: DecodeStack,
    /// Payload bytes looked at.
    given: usize,
    first: Vec<u8>,
}

impl Look {
    /// Looks at the payload so far, from its beginning; `ended` says that it is all. `None`: more bytes must tell. Nothing is used up: the whole payload goes to
    /// the filter afterwards.
    pub fn at(&mut self, payload: &[u8], ended: bool) -> Option<Treatment> {
        let fresh = payload.get(self.given..).unwrap_or_default();
        let fresh = fresh.get(..SNIFFED_BYTES).unwrap_or(fresh);
        self.given = self.given.saturating_add(fresh.len());
        let readable = if self.codings.is_empty() {
            self.first.extend_from_slice(fresh);
            true
        } else {
            self.decode.give(fresh);
            self.unfold()
        };
        if self.first.is_empty() && !ended && readable {
            return None;
        }
        let first = self.first.get(..SNIFFED_BYTES).unwrap_or(&self.first);
        // What claims a coding and is not of it goes to the filter, which says so.
        if readable && !is_text(first) {
            return Some(Treatment::Pass);
        }
        let filter = BodyFilter::new(
            self.masks.clone(),
            Format::Plain,
            &self.codings,
            self.strict,
        );
        Some(Treatment::Filter(
            std::mem::take(&mut self.edits),
            Box::new(filter),
        ))
    }

    /// Decodes what was given; false where it is not of the coding.
    fn unfold(&mut self) -> bool {
        while self.first.len() < SNIFFED_BYTES {
            match self.decode.next() {
                Ok(Some(piece)) => self.first.extend_from_slice(piece),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
