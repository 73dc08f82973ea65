//! Masking of text as it streams.
//!
//! Owns the bytes that cannot be judged yet, and the formats in which a value has a place (JSON, lines of it, events, forms). What matches, where, and what takes its place is
//! [`chaperone_crds::detect`]'s to say. Refuses to know of protocols: callers hand it decoded bodies, in pieces of any size.
//!
//! Invariant: the output depends on the input alone, not on how it was cut; and at each moment everything has left that no
//! further byte can make part of a match. A server-sent event ends in a line break, which is part of no address, number or
//! token, so it leaves at once; only inside a private key, behind a BEGIN line, and in custom patterns that cross lines, is more
//! held.

mod events;
mod form;
mod format;
mod json;
mod layers;
mod replacement;
mod sink;
#[cfg(test)]
mod structured;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use chaperone_crds::detect::{
    CompiledMasks, Found, LOOK_BEHIND_BYTES, MAX_UNDECIDED_BYTES, Match, Scan, Skip, Tail,
};
use chaperone_crds::record::MaskedInfo;

pub use format::Format;
pub use json::MAX_DEPTH;
pub use layers::Layers;
pub(crate) use replacement::of_field;

use sink::Sink;

/// Most bytes that are held back between two calls: the longest match that is waited for. Longer secrets are dropped to their end
/// instead of held.
pub const HOLD_BACK_BYTES: usize = MAX_UNDECIDED_BYTES;

/// Bytes that are looked at in one go; bounds the buffer of a stream to this and [`HOLD_BACK_BYTES`].
const PIECE_BYTES: usize = 16 * 1024;

/// Masks one stream.
#[derive(Debug)]
pub struct Masker {
    masks: Arc<CompiledMasks>,
    /// Bytes that left already, kept as context, then bytes that are held back.
    buffer: Vec<u8>,
    /// Where the held bytes begin in `buffer`.
    held_from: usize,
    /// What is being dropped.
    tail: Tail,
    sink: Sink,
    findings: Vec<MaskedInfo>,
}

impl Masker {
    /// A masker of text at the beginning of a stream. Paths select nothing in it, unless it begins as a JSON object or array does.
    pub fn new(masks: Arc<CompiledMasks>) -> Self {
        Self::of(masks, Format::Plain)
    }

    /// A masker of text of a format.
    pub fn of(masks: Arc<CompiledMasks>, format: Format) -> Self {
        Masker {
            sink: Sink::new(&masks, format),
            masks,
            buffer: Vec::new(),
            held_from: 0,
            tail: Tail::Closed,
            findings: Vec::new(),
        }
    }

    /// Says what format the text has, before any of it comes.
    pub fn set_format(&mut self, format: Format) {
        self.sink = Sink::new(&self.masks, format);
    }

    /// Takes the next bytes of the stream and appends to `out` all that is now beyond doubt.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.masks.is_empty() {
            out.extend_from_slice(input);
            return;
        }
        for piece in input.chunks(PIECE_BYTES) {
            self.buffer.extend_from_slice(piece);
            self.judge(false, out);
            let context = self.held_from.saturating_sub(LOOK_BEHIND_BYTES);
            self.buffer.drain(..context);
            self.held_from -= context;
        }
    }

    /// Ends the stream: appends what was held back, masked. The masker is then at the beginning of a new stream; its findings stay.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.judge(true, out);
        self.sink.finish(out);
        self.count_replaced();
        self.buffer.clear();
        self.held_from = 0;
        self.tail = Tail::Closed;
    }

    /// What was masked, in the order in which it was first found. Counts are final for all that left.
    pub fn findings(&self) -> &[MaskedInfo] {
        &self.findings
    }

    /// Bytes that are held back now; at most [`HOLD_BACK_BYTES`] between calls.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.held_from
    }

    fn judge(&mut self, eof: bool, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.buffer);
        loop {
            match self.tail.skip(&text, self.held_from, eof) {
                Skip::Done(at) => {
                    self.sink.dropped(slice(&text, self.held_from, at));
                    self.held_from = at;
                    self.tail = Tail::Closed;
                }
                Skip::More(at) => {
                    self.sink.dropped(slice(&text, self.held_from, at));
                    self.held_from = at;
                    break;
                }
            }
            if !self.judge_to_tail(&text, eof, out) {
                break;
            }
        }
        self.buffer = text;
        self.count_replaced();
    }

    /// Replaces matches up to one with a tail, and says whether there was one.
    fn judge_to_tail(&mut self, text: &[u8], eof: bool, out: &mut Vec<u8>) -> bool {
        let masks = Arc::clone(&self.masks);
        let mut scan = Scan::new(&masks, text, self.held_from, eof);
        loop {
            match scan.next_found() {
                Found::Undecided(at) => {
                    self.sink.pass(slice(text, self.held_from, at), out);
                    self.held_from = at;
                    return false;
                }
                Found::Match(found) => {
                    self.sink
                        .pass(slice(text, self.held_from, found.start), out);
                    self.held_from = found.end;
                    self.mask(&found, slice(text, found.start, found.end), out);
                    if found.tail != Tail::Closed {
                        self.tail = found.tail;
                        return true;
                    }
                }
            }
        }
    }

    fn mask(&mut self, found: &Match, bytes: &[u8], out: &mut Vec<u8>) {
        let replacement = self.masks.replacement(found, bytes);
        // In the order of the text, so that findings do not depend on cuts either.
        self.count_replaced();
        let counts = self.sink.found(&replacement, bytes, out);
        self.count_replaced();
        if counts {
            self.count(found.rule);
        }
    }

    fn count_replaced(&mut self) {
        for rule in self.sink.take_replaced() {
            self.count(rule);
        }
    }

    fn count(&mut self, rule: usize) {
        let masks = Arc::clone(&self.masks);
        let Some(rule) = masks.rules().get(rule) else {
            return;
        };
        let known = self
            .findings
            .iter_mut()
            .find(|f| *f.mask == *rule.mask && *f.detector == *rule.detector);
        match known {
            Some(finding) => finding.count += 1,
            None => self.findings.push(MaskedInfo {
                mask: rule.mask.to_string(),
                detector: rule.detector.to_string(),
                count: 1,
            }),
        }
    }
}

/// Masks a text of a format that is all there. Same result as streaming it.
pub fn mask_all_of(
    masks: &Arc<CompiledMasks>,
    format: Format,
    text: &[u8],
) -> (Vec<u8>, Vec<MaskedInfo>) {
    if masks.is_empty() {
        return (text.to_vec(), Vec::new());
    }
    let mut masker = Masker::of(Arc::clone(masks), format);
    let mut out = Vec::with_capacity(text.len());
    // In one piece, so that no engine is asked twice.
    masker.buffer.extend_from_slice(text);
    masker.finish(&mut out);
    (out, masker.findings)
}

/// Masks a text that is all there. Same result as streaming it.
pub fn mask_all(masks: &Arc<CompiledMasks>, text: &[u8]) -> (Vec<u8>, Vec<MaskedInfo>) {
    mask_all_of(masks, Format::Plain, text)
}

/// Whether masks leave a text of no known format that is all there as it is, by a look that copies nothing. False says only that masking has to tell.
pub fn leave_alone(masks: &CompiledMasks, text: &[u8]) -> bool {
    let structured = || {
        let begins_plainly = text.first().is_none_or(u8::is_ascii_alphanumeric);
        !masks.fields().is_empty() && !begins_plainly
    };
    masks.is_empty()
        || (!structured()
            && matches!(
                Scan::new(masks, text, 0, true).next_found(),
                Found::Undecided(_)
            ))
}

fn slice(text: &[u8], start: usize, end: usize) -> &[u8] {
    text.get(start..end).unwrap_or_default()
}
