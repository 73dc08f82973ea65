//! The filter of one body: codings undone, text masked or the messages of a call read, codings applied again.

use std::sync::Arc;

use chaperone_crds::{detect::CompiledMasks, record::MaskedInfo};

use super::{Coding, CodingError, DecodeStack, Format, coding::EncodeStack};
use crate::{
    grpc::{MessageFilter, Verdict},
    mask::Layers,
};

/// Bytes after which [`BodyFilter::pull`] stops, so that they are sent before more is unfolded. It may exceed this by what one piece of decoded text yields.
pub const PULLED_BYTES: usize = 64 * 1024;

/// Filters one body.
#[derive(Debug)]
pub struct BodyFilter {
    decode: DecodeStack,
    work: Work,
    encode: EncodeStack,
    /// Whether a body that does not end as its coding says is refused.
    strict: bool,
    ended: bool,
    done: bool,
    /// Masked text that waits to be pulled.
    ready: Vec<u8>,
    note: Option<CodingError>,
    /// Why nothing more comes, once what is ready has left.
    failed: Option<CodingError>,
}

/// What is done to a body whose codings are undone.
#[derive(Debug)]
enum Work {
    Text(Layers),
    Messages(Box<MessageFilter>),
}

impl Work {
    fn push(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
        match self {
            Self::Text(layers) => {
                layers.push(text, out);
                Ok(())
            }
            Self::Messages(messages) => messages.push(text, out),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CodingError> {
        match self {
            Self::Text(layers) => {
                layers.finish(out);
                Ok(())
            }
            Self::Messages(messages) => messages.finish(out),
        }
    }
}

impl BodyFilter {
    /// A filter for a body under these codings, in the order in which they were applied. `strict`: Enforce.
    pub fn new(
        masks: Arc<CompiledMasks>,
        format: Format,
        codings: &[Coding],
        strict: bool,
    ) -> Self {
        Self::layered(Layers::new(Some(masks), None, format), codings, strict)
    }

    /// As [`BodyFilter::new`], with several sets of masks.
    pub fn layered(layers: Layers, codings: &[Coding], strict: bool) -> Self {
        Self::working(Work::Text(layers), codings, strict)
    }

    /// As [`BodyFilter::new`], for the messages of a gRPC call.
    pub(crate) fn of_messages(messages: MessageFilter, codings: &[Coding], strict: bool) -> Self {
        Self::working(Work::Messages(Box::new(messages)), codings, strict)
    }

    fn working(work: Work, codings: &[Coding], strict: bool) -> Self {
        Self {
            decode: DecodeStack::new(codings),
            work,
            encode: EncodeStack::new(codings),
            strict,
            ended: false,
            done: false,
            ready: Vec::new(),
            note: None,
            failed: None,
        }
    }

    /// A filter that lets everything pass.
    pub(crate) fn of_nothing() -> Self {
        Self::layered(Layers::default(), &[], true)
    }

    /// Gives the next payload bytes. Pull before giving more: what is given is kept until then.
    pub fn push(&mut self, payload: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        if self.decode.is_empty() {
            self.failed = self.work.push(payload, &mut self.ready).err();
        } else if self.note.is_none() {
            self.decode.give(payload);
        }
    }

    /// Says that the payload has ended.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Appends to `out` what may leave. True: there is more to pull, whether or not more is pushed.
    ///
    /// # Errors
    /// As [`CodingError`]: what was sent cannot be taken back, so the message must break off.
    pub fn pull(&mut self, out: &mut Vec<u8>) -> Result<bool, CodingError> {
        if self.done {
            return Ok(false);
        }
        if self.decode.is_empty() {
            if self.ended && self.failed.is_none() {
                self.failed = self.work.finish(&mut self.ready).err();
                self.done = self.failed.is_none();
            }
            out.append(&mut self.ready);
            return match self.failed {
                // What came before leaves first.
                Some(_) if !out.is_empty() => Ok(true),
                Some(error) => Err(error),
                None => Ok(false),
            };
        }
        while out.len() < PULLED_BYTES {
            if !self.step(out)? {
                return self.rest(out);
            }
        }
        Ok(true)
    }

    /// Whether everything was pulled, the end included.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// What masks found so far.
    pub fn findings(&self) -> &[MaskedInfo] {
        match &self.work {
            Work::Text(layers) => layers.findings(),
            Work::Messages(messages) => messages.findings(),
        }
    }

    /// What was wrong with the body although it was passed on (Audit).
    pub fn note(&self) -> Option<CodingError> {
        match &self.work {
            Work::Text(_) => self.note,
            Work::Messages(messages) => self.note.or(messages.note()),
        }
    }

    /// What policy says of messages: of the one that it denies, else of the first that is worth a word.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        match &self.work {
            Work::Text(_) => None,
            Work::Messages(messages) => messages.verdict(),
        }
    }

    /// Decodes, masks and encodes one piece; false when there is none.
    fn step(&mut self, out: &mut Vec<u8>) -> Result<bool, CodingError> {
        if self.note.is_some() {
            return Ok(false);
        }
        let text = match self.decode.next() {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(false),
            // Every client reads the body up to there, and most say nothing of the rest.
            Err(error @ CodingError::Trailing(_)) if !self.strict => {
                self.note = Some(error);
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.work.push(text, &mut self.ready)?;
        self.encode.push(&self.ready, out)?;
        self.ready.clear();
        Ok(true)
    }

    /// Lets out what waits in the encoders, or ends the body.
    fn rest(&mut self, out: &mut Vec<u8>) -> Result<bool, CodingError> {
        if !self.ended {
            self.encode.flush(out)?;
            return Ok(false);
        }
        self.done = true;
        let whole = match self.note {
            Some(_) => Ok(()),
            None => self.decode.finish(),
        };
        self.work.finish(&mut self.ready)?;
        self.encode.push(&self.ready, out)?;
        self.ready.clear();
        match whole {
            Ok(()) => self.encode.finish(out)?,
            Err(error) if self.strict => return Err(error),
            // As where more of it followed.
            Err(error @ CodingError::Trailing(_)) => {
                self.note = Some(error);
                self.encode.finish(out)?;
            }
            // The agent's decoder finds the end missing, as it would have without us.
            Err(error) => {
                self.note = Some(error);
                self.encode.flush(out)?;
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests;
