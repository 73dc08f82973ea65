//! Undoing codings, one bounded piece at a time.

use std::ops::RangeInclusive;

use compression_codecs::{
    BrotliDecoder, DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
    core::util::{PartialBuffer, WriteBuffer},
    zstd::params::DParameter,
};

use super::{Coding, CodingError, FREE_BYTES, MAX_RATIO, PIECE_BYTES, ZSTD_WINDOW_LOG};

/// Undoes a stack of codings.
#[derive(Debug)]
pub(crate) struct DecodeStack {
    /// In the order in which they are undone: the last applied first.
    stages: Vec<Stage>,
    /// Bytes given.
    given: u64,
    /// Bytes that all stages yielded.
    yielded: u64,
    /// Most bytes that all stages may yield, whatever was given.
    most: u64,
    piece: Vec<u8>,
}

impl DecodeStack {
    /// Undoes codings that were applied in this order.
    pub(crate) fn new(codings: &[Coding]) -> Self {
        Self {
            stages: codings.iter().rev().map(|&c| Stage::new(c)).collect(),
            given: 0,
            yielded: 0,
            most: u64::MAX,
            piece: vec![0; if codings.is_empty() { 0 } else { PIECE_BYTES }],
        }
    }

    /// As [`Self::new`], where no coding may unfold to much more than `most` bytes: [`CodingError::Bomb`] beyond.
    pub(crate) fn bounded(codings: &[Coding], most: usize) -> Self {
        let each = most.saturating_add(PIECE_BYTES);
        Self {
            most: each.saturating_mul(codings.len()) as u64,
            ..Self::new(codings)
        }
    }

    /// Whether there is nothing to undo.
    pub(crate) fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Gives the next bytes of the body.
    pub(crate) fn give(&mut self, bytes: &[u8]) {
        self.given = self.given.saturating_add(bytes.len() as u64);
        if let Some(first) = self.stages.first_mut() {
            first.give(bytes);
        }
    }

    /// The next piece of text, at most [`PIECE_BYTES`]; `None` when more bytes are needed.
    ///
    /// # Errors
    /// As [`CodingError`]; the body cannot be read on then.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, CodingError> {
        let last = self.stages.len().saturating_sub(1);
        // The last stage that has something to do works first, so that no stage holds more than a piece of the one before it.
        let mut at = last;
        loop {
            let Some(stage) = self.stages.get_mut(at) else {
                return Ok(None);
            };
            let length = stage.next(&mut self.piece)?;
            if length == 0 {
                match at.checked_sub(1) {
                    Some(before) => at = before,
                    None => return Ok(None),
                }
                continue;
            }
            self.yielded = self.yielded.saturating_add(length as u64);
            if self.yielded > self.most {
                return Err(CodingError::Bomb);
            }
            if self.yielded > FREE_BYTES && self.yielded > self.given.saturating_mul(MAX_RATIO) {
                return Err(CodingError::Bomb);
            }
            if at == last {
                return Ok(self.piece.get(..length));
            }
            at = at.saturating_add(1);
            if let Some(after) = self.stages.get_mut(at) {
                after.give(self.piece.get(..length).unwrap_or_default());
            }
        }
    }

    /// Says that the body has ended; everything was taken before.
    ///
    /// # Errors
    /// [`CodingError::Truncated`]; [`CodingError::Trailing`] where too little follows the end to say what it is.
    pub(crate) fn finish(&mut self) -> Result<(), CodingError> {
        self.stages.iter_mut().try_for_each(Stage::finish)
    }
}

/// One coding.
struct Stage {
    coding: Coding,
    engine: Option<Box<dyn DecodeV2 + Send + Sync>>,
    /// Bytes that wait; those before `at` are used.
    input: Vec<u8>,
    at: usize,
    /// Whether the coded text has ended: what follows is another member, or too much.
    ended: bool,
    /// Whether the last piece was filled to its end, so that more may wait inside the engine.
    full: bool,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage")
            .field("coding", &self.coding)
            .finish_non_exhaustive()
    }
}

impl Stage {
    fn new(coding: Coding) -> Self {
        Self {
            coding,
            engine: None,
            input: Vec::new(),
            at: 0,
            ended: false,
            full: false,
        }
    }

    fn give(&mut self, bytes: &[u8]) {
        self.input.drain(..self.at);
        self.at = 0;
        self.input.extend_from_slice(bytes);
    }

    fn unread(&self) -> &[u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    /// Decodes into `out` and says how many bytes; 0 when more input is needed.
    fn next(&mut self, out: &mut [u8]) -> Result<usize, CodingError> {
        loop {
            if self.unread().is_empty() && !self.full {
                return Ok(0);
            }
            if !self.prepare()? {
                return Ok(0);
            }
            let before = self.at;
            let length = self.step(out)?;
            if length > 0 || self.at == before {
                return Ok(length);
            }
        }
    }

    /// Makes the engine ready for what is unread; false when that is too little to say which it is.
    fn prepare(&mut self) -> Result<bool, CodingError> {
        if self.ended && !self.unread().is_empty() {
            match begins_again(self.coding, self.unread()) {
                Some(true) => {}
                Some(false) => return Err(CodingError::Trailing(self.coding.name())),
                None => return Ok(false),
            }
            if let Some(engine) = &mut self.engine {
                engine
                    .reinit()
                    .map_err(|_| CodingError::Corrupt(self.coding.name()))?;
            }
            self.ended = false;
        }
        if self.engine.is_none() {
            self.engine = engine(self.coding, self.unread());
        }
        Ok(self.engine.is_some())
    }

    fn step(&mut self, out: &mut [u8]) -> Result<usize, CodingError> {
        let corrupt = CodingError::Corrupt(self.coding.name());
        let room = out.len();
        let Some(engine) = &mut self.engine else {
            return Ok(0);
        };
        let mut input = PartialBuffer::new(self.input.get(self.at..).unwrap_or_default());
        let mut output = WriteBuffer::new_initialized(out);
        let flate = matches!(self.coding, Coding::Gzip | Coding::Deflate);
        if input.unwritten().is_empty() && flate {
            // zlib takes a call without input for an error, unless it is asked for what it holds.
            engine.flush(&mut output).map_err(|_| corrupt)?;
        } else {
            self.ended = engine
                .decode(&mut input, &mut output)
                .map_err(|_| corrupt)?;
        }
        self.at = self.at.saturating_add(input.written_len());
        let length = output.written_len();
        self.full = length == room && !self.ended;
        Ok(length)
    }

    fn finish(&mut self) -> Result<(), CodingError> {
        let truncated = Err(CodingError::Truncated(self.coding.name()));
        let unread = self.unread().len();
        let Some(engine) = &mut self.engine else {
            // An empty body under a coding is an empty text: servers send that.
            return if unread == 0 { Ok(()) } else { truncated };
        };
        if self.ended {
            return match unread {
                0 => Ok(()),
                _ => Err(CodingError::Trailing(self.coding.name())),
            };
        }
        let mut rest = [0; 16];
        let mut output = WriteBuffer::new_initialized(&mut rest[..]);
        match engine.finish(&mut output) {
            Ok(true) if output.written_len() == 0 => Ok(()),
            _ => truncated,
        }
    }
}

fn engine(coding: Coding, first: &[u8]) -> Option<Box<dyn DecodeV2 + Send + Sync>> {
    Some(match coding {
        Coding::Gzip => Box::new(GzipDecoder::new()),
        Coding::Brotli => Box::new(BrotliDecoder::new()),
        Coding::Zstd => Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(
            ZSTD_WINDOW_LOG,
        )])),
        Coding::Deflate => match first {
            [cmf, flags, ..] if is_zlib(*cmf, *flags) => Box::new(ZlibDecoder::new()),
            [_, _, ..] => Box::new(DeflateDecoder::new()),
            _ => return None,
        },
    })
}

/// Whether these bytes after the end begin another member or frame, which may follow one another (RFC 1952 §2.2, RFC 8878 §3.1); `None` when they are too
/// few to say. By the first bytes alone: what a decoder says of more of them depends on how many it was given.
fn begins_again(coding: Coding, bytes: &[u8]) -> Option<bool> {
    let begin: [RangeInclusive<u8>; 4] = match coding {
        // Magic, and the only method.
        Coding::Gzip => [0x1f..=0x1f, 0x8b..=0x8b, 8..=8, 0..=0xff],
        Coding::Zstd if matches!(bytes.first(), Some(0x28)) => {
            [0x28..=0x28, 0xb5..=0xb5, 0x2f..=0x2f, 0xfd..=0xfd]
        }
        // A skippable frame.
        Coding::Zstd => [0x50..=0x5f, 0x2a..=0x2a, 0x4d..=0x4d, 0x18..=0x18],
        Coding::Deflate | Coding::Brotli => return Some(false),
    };
    let fits = begin
        .iter()
        .zip(bytes)
        .all(|(range, byte)| range.contains(byte));
    (!fits || bytes.len() >= begin.len()).then_some(fits)
}

/// Whether two bytes are a zlib header (RFC 1950 §2.2) without a preset dictionary.
fn is_zlib(cmf: u8, flags: u8) -> bool {
    let check = u16::from_be_bytes([cmf, flags]);
    cmf & 0x0f == 8 && cmf >> 4 <= 7 && flags & 0x20 == 0 && check.is_multiple_of(31)
}
