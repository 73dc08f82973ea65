//! Undoing permessage-deflate (RFC 7692 §7.2.2), piece by piece.
//!
//! Owns the window of one direction. Invariant: at most [`PIECE_BYTES`] come out at a time, whatever a piece expands to, so that no message makes memory grow.

use flate2::{Decompress, FlushDecompress, Status};

use super::frame::FrameError;

/// Most bytes that come out in one go.
pub const PIECE_BYTES: usize = 16 * 1024;
/// What the sender cut off the end of each message (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Decompresses the messages of one direction.
#[derive(Debug)]
pub struct Inflate {
    raw: Decompress,
    /// Whether each message begins with an empty window.
    no_context: bool,
    out: Vec<u8>,
}

impl Inflate {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new(no_context: bool) -> Self {
        Self {
            raw: Decompress::new(false),
            no_context,
            out: Vec::with_capacity(PIECE_BYTES),
        }
    }

    /// Takes from `input`, and lends what came out. An empty answer asks for more input.
    ///
    /// # Errors
    /// When it is no deflate stream.
    pub fn step(&mut self, input: &mut &[u8]) -> Result<&[u8], FrameError> {
        self.out.clear();
        let mut ended_empty = false;
        loop {
            let (read, written) = (self.raw.total_in(), self.raw.total_out());
            let status = self
                .raw
                .decompress_vec(input, &mut self.out, FlushDecompress::Sync)
                .map_err(|_| FrameError::Deflate)?;
            let taken = self.raw.total_in().saturating_sub(read);
            let taken = usize::try_from(taken).unwrap_or(usize::MAX);
            *input = input.get(taken..).unwrap_or_default();
            let made = self.raw.total_out() > written;
            if status == Status::StreamEnd {
                // A block that says it is the last (RFC 7692 §7.2.3.4); another stream may follow. Two in a row without a byte lead nowhere.
                if !made && taken == 0 && ended_empty {
                    return Err(FrameError::Deflate);
                }
                ended_empty = !made;
                self.raw.reset(false);
            } else if !made && taken == 0 {
                return Ok(&self.out);
            }
            if !self.out.is_empty() {
                return Ok(&self.out);
            }
        }
    }

    /// Input that ends each message.
    #[must_use]
    pub fn tail() -> &'static [u8] {
        &TAIL
    }

    /// The message is over.
    pub fn end_message(&mut self) {
        if self.no_context {
            self.raw.reset(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    /// As a sender does it (RFC 7692 §7.2.1).
    fn compress(with: &mut Compress, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + 1024);
        with.compress_vec(message, &mut out, FlushCompress::Sync)
            .unwrap();
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - TAIL.len());
        out
    }

    fn inflate(with: &mut Inflate, message: &[u8], step: usize) -> Result<Vec<u8>, FrameError> {
        let mut out = Vec::new();
        for part in message.chunks(step).chain([Inflate::tail()]) {
            let mut rest = part;
            loop {
                let made = with.step(&mut rest)?;
                assert!(made.len() <= PIECE_BYTES);
                if made.is_empty() {
                    break;
                }
                out.extend_from_slice(made);
            }
        }
        with.end_message();
        Ok(out)
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7692 §7.2.3: one block, the same with context, stored, with BFINAL, and two blocks.
        let hello: [&[u8]; 5] = [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0xf2, 0x00, 0x11, 0x00, 0x00],
            &[
                0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
            ],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[
                0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
            ],
        ];
        let mut with = Inflate::new(false);
        for bytes in hello {
            assert_eq!(
                inflate(&mut with, bytes, 3).unwrap(),
                b"Hello",
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn what_is_no_deflate_is_refused() {
        let mut with = Inflate::new(false);
        assert_eq!(
            inflate(&mut with, &[0xff; 20], 20),
            Err(FrameError::Deflate)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn messages_come_out_as_they_went_in(
            messages in proptest::collection::vec("(hello |world ){0,400}", 1..4),
            step in 1..200_usize,
            no_context: bool,
        ) {
            let mut sender = Compress::new(Compression::default(), false);
            let mut with = Inflate::new(no_context);
            for message in &messages {
                if no_context {
                    sender.reset();
                }
                let bytes = compress(&mut sender, message.as_bytes());
                prop_assert_eq!(inflate(&mut with, &bytes, step).unwrap(), message.as_bytes());
            }
        }
    }
}
