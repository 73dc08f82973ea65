//! The messages of one direction of a call on their way through: held until each is whole, judged, masked, and sent on as they came or framed anew.
//!
//! Invariant: of a message that is denied no byte leaves that says anything: in the text form the first two bytes of its prefix may, which are its flags and a zero.

use std::sync::Arc;

use chaperone_crds::{
    decide::{GrpcMessage, HeaderFields, WsDirection},
    detect::CompiledMasks,
    grpc::to_json,
    record::MaskedInfo,
};

use super::{
    Call, Form, Verdict,
    count::TRAILERS,
    encoding::Encoding,
    frames::{Frames, PREFIX_BYTES, Step},
    rewrite::Rewriter,
    text::{self, Groups, NoText},
};
use crate::{body::CodingError, mask::Layers};

/// Flag of a message that is compressed.
const COMPRESSED: u8 = 1;
/// Longest message that leaves, in bytes: the first byte of its length stays 0, which may have left already.
const MAX_LEAVING_BYTES: usize = 0x00ff_ffff;
/// What is said of a message that is not held.
const TOO_LONG: &str = "the message is too large to be read";
/// What is said of fields that no mask read.
const UNKNOWN: &str = "it has fields that its descriptor does not know, which passed as they were";

/// Filters the messages of one direction.
#[derive(Debug)]
pub(crate) struct MessageFilter {
    call: Arc<Call>,
    direction: WsDirection,
    form: Form,
    encoding: Encoding,
    /// Whether what masks cannot read is refused.
    strict: bool,
    masks: Option<Arc<CompiledMasks>>,
    layers: Layers,
    frames: Frames,
    groups: Groups,
    /// Text whose bytes have not left (text form).
    raw: Vec<u8>,
    /// Bytes of the frame under way that have left, with the group that the frame before ended in (text form).
    lead: usize,
    /// Whether the body cannot be read on: it passes.
    lost: bool,
    selected: Vec<MaskedInfo>,
    findings: Vec<MaskedInfo>,
    note: Option<CodingError>,
    verdict: Option<Verdict>,
}

impl MessageFilter {
    /// For a body of this form, after a head with these fields. `strict`: Enforce.
    pub(super) fn new(
        call: Arc<Call>,
        direction: WsDirection,
        (form, fields): (Form, &dyn HeaderFields),
        (masks, layers): (Option<Arc<CompiledMasks>>, Layers),
        strict: bool,
    ) -> Self {
        Self {
            call,
            direction,
            form,
            encoding: Encoding::of(fields),
            strict,
            masks,
            layers,
            frames: Frames::default(),
            groups: Groups::default(),
            raw: Vec::new(),
            lead: 0,
            lost: false,
            selected: Vec::new(),
            findings: Vec::new(),
            note: None,
            verdict: None,
        }
    }

    /// Takes more of the body and appends to `out` what may leave.
    ///
    /// # Errors
    /// [`CodingError::Denied`], [`CodingError::Message`]: nothing more may leave.
    pub(crate) fn push(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
        if self.form != Form::WebText {
            return self.bytes(payload, out);
        }
        let mut text = payload;
        while !self.lost {
            match self.groups.next(&mut text) {
                None => return Ok(()),
                Some(Ok((group, bytes))) => {
                    self.raw.extend_from_slice(&group);
                    self.bytes(&bytes, out)?;
                }
                Some(Err(NoText(group))) => {
                    self.cannot_read("the body is not base64")?;
                    out.append(&mut self.raw);
                    out.extend(group);
                    self.lost = true;
                }
            }
        }
        out.extend_from_slice(text);
        Ok(())
    }

    /// The body has ended.
    ///
    /// # Errors
    /// Where it ends inside a message that had to be read.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CodingError> {
        let (rest, open) = (self.frames.rest(), self.groups.rest());
        if rest.is_empty() && open.is_empty() {
            out.append(&mut self.raw);
            return Ok(());
        }
        self.cannot_read("the body ends inside it")?;
        match self.form {
            Form::WebText => out.append(&mut self.raw),
            Form::Grpc | Form::Web => out.extend(rest),
        }
        out.extend(open);
        Ok(())
    }

    /// What masks found.
    pub(crate) fn findings(&self) -> &[MaskedInfo] {
        &self.findings
    }

    /// What could not be read and passed all the same.
    pub(crate) fn note(&self) -> Option<CodingError> {
        self.note
    }

    /// What policy says of the message that it denies, else of the first that is worth a word.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    fn bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
        let mut rest = bytes;
        while let Some(step) = self.frames.next(&mut rest) {
            match step {
                Step::Whole(frame) => {
                    let changed = self.frame(&frame)?;
                    self.collect();
                    self.emit(changed, &frame, rest, out);
                }
                Step::TooLong(frame) => {
                    self.unreadable(TOO_LONG)?;
                    self.emit(None, &frame, rest, out);
                }
                Step::Beyond(part) => self.emit(None, part, rest, out),
            }
            if self.frames.is_between() {
                self.lead = rest.len();
            }
        }
        Ok(())
    }

    /// Sends a frame, or a part of one; `rest`: the bytes of its last group that belong to the next.
    fn emit(&mut self, changed: Option<Vec<u8>>, same: &[u8], rest: &[u8], out: &mut Vec<u8>) {
        match (self.form, changed) {
            (Form::WebText, None) => out.append(&mut self.raw),
            (Form::WebText, Some(frame)) => {
                let fresh = frame.get(self.lead..).unwrap_or_default();
                text::write(&[fresh, rest].concat(), out);
                self.raw.clear();
            }
            (Form::Grpc | Form::Web, Some(frame)) => out.extend(frame),
            (Form::Grpc | Form::Web, None) => out.extend_from_slice(same),
        }
    }

    /// A frame anew; `None`: it does not change.
    fn frame(&mut self, frame: &[u8]) -> Result<Option<Vec<u8>>, CodingError> {
        let Some((&[flags, ..], payload)) = frame.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        if flags & TRAILERS != 0 && self.form != Form::Grpc {
            return Ok(match flags & COMPRESSED {
                0 => self.trailers(payload).and_then(|text| framed(flags, &text)),
                _ => None,
            });
        }
        let unfolded = match flags & COMPRESSED {
            0 => Ok(None),
            _ => self.encoding.unfold(payload).map(Some),
        };
        let message = match &unfolded {
            Ok(unfolded) => unfolded.as_deref().unwrap_or(payload),
            Err(why) => {
                self.unreadable(why)?;
                return Ok(None);
            }
        };
        self.ask(message)?;
        let Some(changed) = self.masked(message)? else {
            return Ok(None);
        };
        let payload = match unfolded {
            Ok(Some(_)) => self.encoding.fold(&changed).map_err(CodingError::Message)?,
            _ => changed,
        };
        let anew = framed(flags, &payload);
        anew.ok_or(CodingError::Message(TOO_LONG)).map(Some)
    }

    /// Asks policy about a message.
    fn ask(&mut self, message: &[u8]) -> Result<(), CodingError> {
        let Some(judge) = self.call.judge().cloned() else {
            return Ok(());
        };
        let json = match self.call.message(self.direction) {
            Some(of) => to_json(of, message).map_err(|why| why.why()),
            None => Err("no descriptor set has the procedure that is called"),
        };
        let view = match &json {
            Ok(json) => GrpcMessage::Json(json),
            Err(why) => GrpcMessage::Unreadable(why),
        };
        self.note_verdict(judge(self.direction, view))
    }

    fn note_verdict(&mut self, verdict: Verdict) -> Result<(), CodingError> {
        if verdict.denies() {
            self.verdict = Some(verdict);
            return Err(CodingError::Denied);
        }
        if verdict.decision.would_deny || verdict.error.is_some() {
            self.verdict.get_or_insert(verdict);
        }
        Ok(())
    }

    /// A message as masks leave it; `None`: it does not change.
    fn masked(&mut self, message: &[u8]) -> Result<Option<Vec<u8>>, CodingError> {
        if self.layers.is_empty() {
            return Ok(None);
        }
        let Some(of) = self.call.message(self.direction) else {
            return Ok(None);
        };
        let mut rewriter = Rewriter {
            masks: self.masks.as_deref(),
            layers: &mut self.layers,
            selected: &mut self.selected,
        };
        match rewriter.rewrite(of, message) {
            Ok(rewritten) => {
                if rewritten.unknown && self.masks.is_some() {
                    self.note.get_or_insert(CodingError::Message(UNKNOWN));
                }
                Ok(rewritten.message)
            }
            Err(why) => self.cannot_read(why.why()).map(|()| None),
        }
    }

    /// Trailers at the end of a body as masks leave them.
    fn trailers(&mut self, text: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(text.len());
        self.layers.push(text, &mut out);
        self.layers.finish(&mut out);
        (out != text).then_some(out)
    }

    /// A message that nobody can read: policy is asked, and masks cannot do without.
    fn unreadable(&mut self, why: &'static str) -> Result<(), CodingError> {
        if let Some(judge) = self.call.judge().cloned() {
            self.note_verdict(judge(self.direction, GrpcMessage::Unreadable(why)))?;
        }
        self.cannot_read(why)
    }

    /// What masks cannot read is refused in Enforce, and passes in Audit with a note.
    fn cannot_read(&mut self, why: &'static str) -> Result<(), CodingError> {
        let needed = self.masks.is_some() || self.call.is_judged();
        if needed && self.strict {
            return Err(CodingError::Message(why));
        }
        if needed {
            self.note.get_or_insert(CodingError::Message(why));
        }
        Ok(())
    }

    fn collect(&mut self) {
        self.findings.clear();
        self.findings.extend_from_slice(self.layers.findings());
        self.findings.extend_from_slice(&self.selected);
    }
}

/// A frame; `None`: it would be too long.
fn framed(flags: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok()?;
    let fits = payload.len() <= MAX_LEAVING_BYTES;
    fits.then(|| [&[flags][..], &length.to_be_bytes(), payload].concat())
}

#[cfg(test)]
mod tests;
