//! What is done to a request on its way out: masks on what leaves, then tokens that become their values again where policy says so.
//!
//! A pure function of parts of the request. The record was begun before, from what the agent wrote, so it keeps the tokens. Fields that frame, route or negotiate are left alone, and so
//! are those that carry the agent's own credentials from masks (not from tokens): a mask there would only break the request.

use std::sync::Arc;

use chaperone_crds::{
    compile::MaskSet, decide::HeaderFields, detect::CompiledMasks, record::MaskedInfo,
};

use super::{
    BodyFilter, Changed, Edit, Format, Media, Unreadable, codings,
    edits::is_false_when_masked,
    fields::{changed, masked_value},
    media,
};
use crate::{
    grpc::Call,
    mask::{Layers, mask_all, mask_all_of},
};

/// Fields that carry the agent's own credentials: masks leave them alone.
const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

/// What is done to a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing {
    masks: Option<Arc<CompiledMasks>>,
    restore: Option<Arc<CompiledMasks>>,
    /// The gRPC call that the request is, where its messages may be read.
    call: Option<Arc<Call>>,
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

/// What is done to the fields behind a request's body.
#[derive(Debug, Default)]
pub(crate) struct TrailerEdits {
    /// Names of those that would be false.
    pub(crate) gone: Vec<String>,
    /// Those that change.
    pub(crate) changed: Changed,
    /// What masks found in them.
    pub(crate) findings: Vec<MaskedInfo>,
}

impl Outgoing {
    /// What these masks do to requests.
    pub(crate) fn of(masks: &MaskSet) -> Self {
        Self {
            masks: masks.request.clone(),
            restore: masks.restore.clone(),
            call: None,
        }
    }

    /// The same for a gRPC call.
    pub(crate) fn of_call(self, call: Option<Arc<Call>>) -> Self {
        Self { call, ..self }
    }

    /// Whether nothing is done.
    pub(crate) fn is_empty(&self) -> bool {
        let judged = self.call.as_ref().is_some_and(|call| call.is_judged());
        self.masks.is_none() && self.restore.is_none() && !judged
    }

    /// What becomes of a body that would be filtered and cannot be framed anew.
    pub(crate) fn unframed(&self, strict: bool) -> Leaving {
        self.unread(Unreadable::Unframed, strict)
    }

    /// What becomes of a body that cannot be read. A token that stays a token harms nobody; what a mask should have read does.
    fn unread(&self, why: Unreadable, strict: bool) -> Leaving {
        let judged = self.call.as_ref().is_some_and(|call| call.is_judged());
        match (self.body_masks().is_some() || judged, strict) {
            (false, _) => Leaving::Pass,
            (true, true) => Leaving::Refuse(why),
            (true, false) => Leaving::PassUnread(why),
        }
    }

    fn body_masks(&self) -> Option<&Arc<CompiledMasks>> {
        self.masks.as_ref().filter(|masks| masks.reads_bodies())
    }

    /// A path and query, if they change. What takes the place of a match is percent-encoded.
    pub(crate) fn path(&self, written: &str) -> Option<String> {
        let (path, query) = match written.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (written, None),
        };
        let mut out = self.text(path.as_bytes(), Format::Encoded);
        if let Some(query) = query {
            out.push(b'?');
            out.extend(self.text(query.as_bytes(), Format::Form));
        }
        let out = String::from_utf8(out).ok()?;
        (out != written).then_some(out)
    }

    /// The fields that change, and what masks found in them.
    pub(crate) fn fields(&self, fields: &dyn HeaderFields) -> (Changed, Vec<MaskedInfo>) {
        let mut findings = Vec::new();
        let changed = changed(fields, |name, value| {
            let mut value = value.to_vec();
            if let Some(masks) = &self.masks
                && (!CREDENTIALS.contains(&name) || masks.headers().rule(name).is_some())
            {
                let (masked, found) = masked_value(masks, name, &value);
                value = masked;
                findings.extend(found);
            }
            match &self.restore {
                Some(restore) => mask_all(restore, &value).0,
                None => value,
            }
        });
        (changed, findings)
    }

    /// What is done to trailers, which are fields like others. `altered`: the body may have changed, so that digests of it would be false.
    pub(crate) fn trailers(&self, fields: &dyn HeaderFields, altered: bool) -> TrailerEdits {
        if self.is_empty() {
            return TrailerEdits::default();
        }
        let names = fields.fields().map(|(name, _)| name.to_ascii_lowercase());
        let gone: Vec<String> = match altered {
            true => names.filter(|name| is_false_when_masked(name)).collect(),
            false => Vec::new(),
        };
        let (mut changed, findings) = self.fields(fields);
        changed.retain(|(name, _)| !gone.contains(name));
        TrailerEdits {
            gone,
            changed,
            findings,
        }
    }

    /// What is done to the body. `strict`: what masks cannot read is refused (Enforce) instead of passed (Audit). The agent says the type, so a type that says nothing, or is said
    /// twice, is no way past a mask.
    pub(crate) fn body(&self, fields: &dyn HeaderFields, strict: bool) -> Leaving {
        let masks = self.body_masks();
        if let Some(call) = &self.call {
            return call.leaving(fields, masks, self.restore.as_ref(), strict);
        }
        if masks.is_none() && self.restore.is_none() {
            return Leaving::Pass;
        }
        let mut types = values(fields, "content-type");
        let (said, again) = (types.next(), types.next());
        let Media::Text(format) = media(said.filter(|_| again.is_none())) else {
            return self.unread(Unreadable::Type, strict);
        };
        let codings = match codings(values(fields, "content-encoding")) {
            Ok(codings) => codings,
            Err(names) => return self.unread(Unreadable::Request(names), strict),
        };
        let layers = Layers::new(masks.cloned(), self.restore.clone(), format);
        let filter = BodyFilter::layered(layers, &codings, strict);
        let mut edits: Vec<Edit> = Vec::new();
        for (name, _) in fields.fields() {
            let edit = Edit::Remove(name.to_ascii_lowercase());
            if is_false_when_masked(&name.to_ascii_lowercase()) && !edits.contains(&edit) {
                edits.push(edit);
            }
        }
        Leaving::Filter(edits, Box::new(filter))
    }

    fn text(&self, text: &[u8], format: Format) -> Vec<u8> {
        self.masks
            .iter()
            .chain(&self.restore)
            .fold(text.to_vec(), |text, layer| {
                mask_all_of(layer, format, &text).0
            })
    }
}

fn values<'a>(fields: &'a dyn HeaderFields, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let all = fields.fields();
    all.filter(move |(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}
