//! Where the parts of a masked text go: out as they are, or through what knows its format.

use std::sync::Arc;

use chaperone_crds::detect::{CompiledMasks, Replacement};

use super::{
    events::Events,
    form::{Form, percent_encode},
    format::Format,
    json::Json,
};

/// Takes the parts of a text in order.
#[derive(Debug)]
pub(super) enum Sink {
    Plain,
    Json(Box<Json>),
    Lines(Box<Json>),
    Events(Box<Events>),
    Form(Box<Form>),
    Encoded,
}

impl Sink {
    pub(super) fn new(masks: &Arc<CompiledMasks>, format: Format) -> Self {
        let json = |structured| Json::new(Arc::clone(masks), structured);
        match format {
            Format::Plain if masks.fields().is_empty() => Self::Plain,
            Format::Plain | Format::Message => Self::Json(Box::new(json(true))),
            Format::Json => Self::Json(Box::new(json(false))),
            Format::Lines => Self::Lines(Box::new(json(false))),
            Format::Events => Self::Events(Box::new(Events::new(json(true)))),
            Format::Encoded => Self::Encoded,
            Format::Form => Self::Form(Box::new(Form::new(Arc::clone(masks)))),
        }
    }

    /// Takes text that passes.
    pub(super) fn pass(&mut self, text: &[u8], out: &mut Vec<u8>) {
        self.feed(text, true, out);
    }

    /// Takes what belongs to a match beyond its decided end.
    pub(super) fn dropped(&mut self, text: &[u8]) {
        // What ends in it was begun before it and left with it.
        self.feed(text, false, &mut Vec::new());
    }

    /// Takes a match. False: it is inside a value that is replaced whole, so it does not count.
    pub(super) fn found(
        &mut self,
        replacement: &Replacement,
        found: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Self::Plain => {
                out.extend_from_slice(replacement.as_text());
                true
            }
            Self::Encoded => {
                percent_encode(replacement.as_text(), out);
                true
            }
            Self::Json(json) => json.found(replacement, found, out),
            Self::Lines(json) if memchr::memchr(b'\n', found).is_none() => {
                json.found(replacement, found, out)
            }
            Self::Lines(_) => {
                out.extend_from_slice(replacement.as_text());
                self.feed(found, false, out);
                true
            }
            Self::Events(events) => events.found(replacement, found, out),
            Self::Form(form) => form.found(replacement, found, out),
        }
    }

    /// Ends the text.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Plain | Self::Encoded => {}
            Self::Json(json) | Self::Lines(json) => json.end_document(out),
            Self::Events(events) => events.finish(out),
            Self::Form(form) => form.finish(out),
        }
    }

    /// Rules whose paths selected a value that was replaced since this was last asked.
    pub(super) fn take_replaced(&mut self) -> Vec<usize> {
        match self {
            Self::Plain | Self::Encoded => Vec::new(),
            Self::Json(json) | Self::Lines(json) => json.take_replaced(),
            Self::Events(events) => events.json.take_replaced(),
            Self::Form(form) => std::mem::take(&mut form.replaced),
        }
    }

    fn feed(&mut self, text: &[u8], shown: bool, out: &mut Vec<u8>) {
        match self {
            Self::Plain | Self::Encoded if shown => out.extend_from_slice(text),
            Self::Plain | Self::Encoded => {}
            Self::Json(json) => json.feed(text, shown, out),
            Self::Lines(json) => feed_lines(json, text, shown, out),
            Self::Events(events) => events.feed(text, shown, out),
            Self::Form(form) => form.feed(text, shown, out),
        }
    }
}

fn feed_lines(json: &mut Json, text: &[u8], shown: bool, out: &mut Vec<u8>) {
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let (document, end) = match line.strip_suffix(b"\n") {
            Some(document) => (document, &b"\n"[..]),
            None => (line, &b""[..]),
        };
        json.feed(document, shown, out);
        if !end.is_empty() {
            json.end_document(out);
            json.feed(end, shown, out);
        }
    }
}
