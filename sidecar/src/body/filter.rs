//! The filter of one body: codings undone, text masked, codings applied again.

use std::sync::Arc;

use chaperone_crds::{detect::CompiledMasks, record::MaskedInfo};

use super::{Coding, CodingError, DecodeStack, Format, coding::EncodeStack};
use crate::mask::Layers;

/// Bytes after which [`BodyFilter::pull`] stops, so that they are sent before more is unfolded. It may exceed this by what one piece of decoded text yields.
pub const PULLED_BYTES: usize = 64 * 1024;

/// Filters one body.
#[derive(Debug)]
pub struct BodyFilter {
    decode: DecodeStack,
    layers: Layers,
    encode: EncodeStack,
    /// Whether a body that does not end as its coding says is refused.
    strict: bool,
    ended: bool,
    done: bool,
    /// Masked text that waits to be pulled.
    ready: Vec<u8>,
    note: Option<CodingError>,
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
        Self {
            decode: DecodeStack::new(codings),
            layers,
            encode: EncodeStack::new(codings),
            strict,
            ended: false,
            done: false,
            ready: Vec::new(),
            note: None,
        }
    }

    /// A filter that lets everything pass.
    pub(crate) fn of_nothing() -> Self {
        Self::layered(Layers::default(), &[], true)
    }

    /// Gives the next payload bytes. Pull before giving more: what is given is kept until then.
    pub fn push(&mut self, payload: &[u8]) {
        if self.decode.is_empty() {
            self.layers.push(payload, &mut self.ready);
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
            if self.ended {
                self.layers.finish(&mut self.ready);
                self.done = true;
            }
            out.append(&mut self.ready);
            return Ok(false);
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
        self.layers.findings()
    }

    /// What was wrong with the body although it was passed on (Audit).
    pub fn note(&self) -> Option<CodingError> {
        self.note
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
        self.layers.push(text, &mut self.ready);
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
        self.layers.finish(&mut self.ready);
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
