//! Applying codings again, so that the agent gets what it accepted.

use compression_codecs::{
    BrotliEncoder, EncodeV2, GzipEncoder, ZlibEncoder, ZstdEncoder,
    brotli::params::EncoderParams,
    core::{
        Level,
        util::{PartialBuffer, WriteBuffer},
    },
    flate::params::FlateEncoderParams,
    zstd::params::CParameter,
};

use super::{Coding, CodingError, PIECE_BYTES};

/// Level of gzip and deflate: the fastest that still finds repetitions. The bytes go to a container of the same pod.
const FLATE_LEVEL: i32 = 1;
/// Quality of brotli: as above.
const BROTLI_QUALITY: i32 = 2;
/// Window of brotli, as a power of two: 256 KiB instead of 4 MiB for each response.
const BROTLI_WINDOW: i32 = 18;
/// Level of zstd: as above.
const ZSTD_LEVEL: i32 = 1;
/// Window of zstd, as a power of two: 256 KiB.
const ZSTD_WINDOW: u32 = 18;

/// Applies a stack of codings.
pub(crate) struct EncodeStack {
    codings: Vec<Coding>,
    /// In the order in which they are applied; made when the first byte comes, so that an empty body stays empty.
    engines: Vec<Box<dyn EncodeV2 + Send + Sync>>,
    /// Whether bytes may wait inside an engine.
    dirty: bool,
    piece: Vec<u8>,
}

impl std::fmt::Debug for EncodeStack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncodeStack")
            .field("codings", &self.codings)
            .finish_non_exhaustive()
    }
}

/// What is asked of an engine after its input.
#[derive(Clone, Copy)]
enum Then {
    Wait,
    Flush,
    Finish,
}

impl EncodeStack {
    /// Applies codings in this order.
    pub(crate) fn new(codings: &[Coding]) -> Self {
        Self {
            codings: codings.to_vec(),
            engines: Vec::new(),
            dirty: false,
            piece: Vec::new(),
        }
    }

    /// Encodes `text`; what an engine keeps to compress better stays until [`EncodeStack::flush`].
    pub(crate) fn push(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), CodingError> {
        if text.is_empty() {
            return Ok(());
        }
        if self.engines.is_empty() {
            self.engines = self.codings.iter().map(|&coding| engine(coding)).collect();
            self.piece.resize(PIECE_BYTES, 0);
        }
        self.dirty = true;
        self.run(text, Then::Wait, out)
    }

    /// Lets everything out that was pushed.
    pub(crate) fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), CodingError> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        self.run(b"", Then::Flush, out)
    }

    /// Ends the body.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), CodingError> {
        self.dirty = false;
        self.run(b"", Then::Finish, out)
    }

    fn run(&mut self, text: &[u8], then: Then, out: &mut Vec<u8>) -> Result<(), CodingError> {
        let mut input = text.to_vec();
        let mut output = Vec::new();
        for engine in &mut self.engines {
            output.clear();
            apply(engine.as_mut(), &input, then, &mut self.piece, &mut output)
                // Encoders fail only when they are used after their end.
                .map_err(|_| CodingError::Corrupt("recoded"))?;
            std::mem::swap(&mut input, &mut output);
        }
        out.extend_from_slice(&input);
        Ok(())
    }
}

fn apply(
    engine: &mut dyn EncodeV2,
    input: &[u8],
    then: Then,
    piece: &mut [u8],
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    let mut input = PartialBuffer::new(input);
    loop {
        let mut output = WriteBuffer::new_initialized(&mut *piece);
        let done = if !input.unwritten().is_empty() {
            engine.encode(&mut input, &mut output)?;
            false
        } else {
            match then {
                Then::Wait => true,
                Then::Flush => engine.flush(&mut output)?,
                Then::Finish => engine.finish(&mut output)?,
            }
        };
        out.extend_from_slice(output.written());
        if done {
            return Ok(());
        }
    }
}

fn engine(coding: Coding) -> Box<dyn EncodeV2 + Send + Sync> {
    let flate = || FlateEncoderParams::from(Level::Precise(FLATE_LEVEL));
    match coding {
        Coding::Gzip => Box::new(GzipEncoder::new(flate())),
        Coding::Deflate => Box::new(ZlibEncoder::new(flate())),
        Coding::Brotli => Box::new(BrotliEncoder::new(
            EncoderParams::default()
                .quality(Level::Precise(BROTLI_QUALITY))
                .window_size(BROTLI_WINDOW),
        )),
        Coding::Zstd => Box::new(ZstdEncoder::new_with_params(
            ZSTD_LEVEL,
            &[CParameter::window_log(ZSTD_WINDOW)],
        )),
    }
}
