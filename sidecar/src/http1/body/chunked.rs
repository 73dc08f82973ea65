//! The chunked transfer coding (RFC 9112 §7.1) as a byte-wise state machine, so that any split of
//! the input leads to the same result and no framing byte has to be shown twice.

use super::super::head::is_value_byte;
use super::super::headers::Headers;
use super::super::limits::{MAX_CHUNK_LINE, MAX_LENGTH, MAX_TRAILER_BYTES};
use super::trailers::parse_trailers;
use super::{BodyError, Decoded};

/// Hexadecimal digits that a size may have, leading zeros included.
const MAX_SIZE_DIGITS: usize = 16;

/// Where in the coding the next byte stands.
#[derive(Debug, Clone, Copy, Default)]
enum Phase {
    /// In the size; nothing but digits so far.
    #[default]
    Size,
    /// Behind the `;` of a size.
    Extension,
    /// Behind the CR of a size line.
    SizeLf,
    /// Within data, this many bytes before its end.
    Data(u64),
    /// Behind data.
    DataCr,
    /// Behind the CR that follows data.
    DataLf,
    /// In the trailer section, behind the zero-size chunk.
    Trailer,
}

/// A chunked body under way.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    phase: Phase,
    size: u64,
    /// Bytes of the present size line.
    line: usize,
    /// The trailer section so far.
    trailer: Vec<u8>,
}

impl Chunked {
    /// See [`super::BodyDecoder::decode`]; `trailers` is filled when the body is done.
    pub(super) fn decode(
        &mut self,
        input: &[u8],
        trailers: &mut Headers,
    ) -> Result<Decoded, BodyError> {
        let mut pos = 0usize;
        while let Some(&byte) = input.get(pos) {
            if let Phase::Data(left) = self.phase {
                return Ok(self.take_data(left, pos, input.len()));
            }
            pos = pos.saturating_add(1);
            if self.step(byte, trailers)? {
                return Ok(Decoded {
                    consumed: pos,
                    payload: pos..pos,
                    done: true,
                });
            }
        }
        Ok(Decoded {
            consumed: pos,
            payload: pos..pos,
            done: false,
        })
    }

    fn take_data(&mut self, left: u64, pos: usize, len: usize) -> Decoded {
        let available = len.saturating_sub(pos);
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(available);
        let left = left.saturating_sub(take as u64);
        self.phase = if left == 0 {
            Phase::DataCr
        } else {
            Phase::Data(left)
        };
        let end = pos.saturating_add(take);
        Decoded {
            consumed: end,
            payload: pos..end,
            done: false,
        }
    }

    /// Takes one framing byte; true when it was the last of the body.
    fn step(&mut self, byte: u8, trailers: &mut Headers) -> Result<bool, BodyError> {
        self.phase = match (self.phase, byte) {
            (Phase::Size, _) => self.size_byte(byte)?,
            (Phase::Extension, _) => self.extension_byte(byte)?,
            (Phase::SizeLf, b'\n') if self.size == 0 => Phase::Trailer,
            (Phase::SizeLf, b'\n') => Phase::Data(self.size),
            (Phase::DataCr, b'\r') => Phase::DataLf,
            (Phase::DataLf, b'\n') => {
                (self.size, self.line) = (0, 0);
                Phase::Size
            }
            (Phase::Trailer, _) => return self.trailer_byte(byte, trailers),
            // Data never comes here: `decode` takes it as a run.
            (Phase::SizeLf | Phase::DataCr | Phase::DataLf | Phase::Data(_), _) => {
                return Err(BodyError::ChunkEnd);
            }
        };
        Ok(false)
    }

    fn size_byte(&mut self, byte: u8) -> Result<Phase, BodyError> {
        let digit = match byte {
            b'0'..=b'9' => byte.wrapping_sub(b'0'),
            b'a'..=b'f' => byte.wrapping_sub(b'a').wrapping_add(10),
            b'A'..=b'F' => byte.wrapping_sub(b'A').wrapping_add(10),
            b'\r' if self.line > 0 => return Ok(Phase::SizeLf),
            b';' if self.line > 0 => return Ok(Phase::Extension),
            _ => return Err(BodyError::ChunkSize),
        };
        self.line = self.line.saturating_add(1);
        let size = self
            .size
            .checked_mul(16)
            .and_then(|size| size.checked_add(u64::from(digit)));
        self.size = size
            .filter(|&size| size <= MAX_LENGTH && self.line <= MAX_SIZE_DIGITS)
            .ok_or(BodyError::ChunkTooLarge)?;
        Ok(Phase::Size)
    }

    /// Extensions are walked over, not read (RFC 9112 §7.1.1): quoted or not, no CR or LF may
    /// stand in one, so the line's end is the same for every reader.
    fn extension_byte(&mut self, byte: u8) -> Result<Phase, BodyError> {
        self.line = self.line.saturating_add(1);
        match byte {
            b'\r' => Ok(Phase::SizeLf),
            _ if self.line >= MAX_CHUNK_LINE => Err(BodyError::ChunkLineTooLong),
            _ if is_value_byte(byte) => Ok(Phase::Extension),
            _ => Err(BodyError::ChunkExtension),
        }
    }

    fn trailer_byte(&mut self, byte: u8, trailers: &mut Headers) -> Result<bool, BodyError> {
        if self.trailer.len() >= MAX_TRAILER_BYTES {
            return Err(BodyError::TrailerTooLarge);
        }
        self.trailer.push(byte);
        if byte != b'\n' {
            return Ok(false);
        }
        if !self.trailer.ends_with(b"\r\n") {
            return Err(BodyError::Trailer);
        }
        if self.trailer != b"\r\n" && !self.trailer.ends_with(b"\r\n\r\n") {
            return Ok(false);
        }
        *trailers = parse_trailers(&self.trailer)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::BodyFraming;
    use super::super::{BodyDecoder, Progress};
    use super::*;

    fn run(wire: &[u8]) -> Result<(Vec<u8>, Progress), BodyError> {
        let mut payload = Vec::new();
        let mut body = BodyDecoder::new(BodyFraming::Chunked);
        let progress = body.pump(wire, |run| payload.extend_from_slice(run))?;
        Ok((payload, progress))
    }

    #[test]
    fn chunks_are_joined_and_the_next_message_left_alone() {
        let wire = b"3\r\nabc\r\n0A;x=\"y\";z\r\n0123456789\r\n00\r\n\r\nGET";
        let (payload, progress) = run(wire).unwrap();
        assert_eq!(payload, b"abc0123456789");
        assert_eq!(
            progress,
            Progress {
                consumed: wire.len() - 3,
                done: true
            }
        );
    }

    #[test]
    fn trailers_are_kept_for_the_record() {
        let mut body = BodyDecoder::new(BodyFraming::Chunked);
        assert!(
            body.pump(b"0\r\nX-Sum: 1\r\nX-B:2\r\n\r\n", |_| {})
                .unwrap()
                .done
        );
        assert_eq!(body.trailers().get("x-sum"), Some(&b"1"[..]));
        assert_eq!(body.trailers().len(), 2);
    }

    #[test]
    fn sizes_that_peers_read_differently_are_refused() {
        let cases: [(&[u8], BodyError); 14] = [
            (b"\r\n", BodyError::ChunkSize),
            (b";x\r\n", BodyError::ChunkSize),
            (b"0x5\r\n", BodyError::ChunkSize),
            (b"+5\r\n", BodyError::ChunkSize),
            (b"-1\r\n", BodyError::ChunkSize),
            (b" 5\r\n", BodyError::ChunkSize),
            (b"5 \r\n", BodyError::ChunkSize),
            (b"5 ;x\r\n", BodyError::ChunkSize),
            (b"5\n", BodyError::ChunkSize),
            (b"5\r5", BodyError::ChunkEnd),
            (b"g\r\n", BodyError::ChunkSize),
            (b"8000000000000000\r\n", BodyError::ChunkTooLarge),
            (b"ffffffffffffffffff\r\n", BodyError::ChunkTooLarge),
            (b"00000000000000005\r\n", BodyError::ChunkTooLarge),
        ];
        for (wire, error) in cases {
            assert_eq!(run(wire).unwrap_err(), error, "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn data_and_extensions_end_in_crlf_and_nothing_else() {
        let cases: [(&[u8], BodyError); 7] = [
            (b"1\r\nab\r\n", BodyError::ChunkEnd),
            (b"1\r\na\n0\r\n\r\n", BodyError::ChunkEnd),
            (b"1\r\na\rx", BodyError::ChunkEnd),
            (b"1\r\na0\r\n\r\n", BodyError::ChunkEnd),
            (b"1;a\nb\r\n", BodyError::ChunkExtension),
            (b"1;a\rb\r\n", BodyError::ChunkEnd),
            (b"1;a\0\r\n", BodyError::ChunkExtension),
        ];
        for (wire, error) in cases {
            assert_eq!(run(wire).unwrap_err(), error, "{}", wire.escape_ascii());
        }
    }

    #[test]
    fn chunk_lines_and_trailers_are_bounded() {
        let mut line = b"1;".to_vec();
        line.resize(MAX_CHUNK_LINE + 1, b'a');
        assert_eq!(run(&line).unwrap_err(), BodyError::ChunkLineTooLong);
        let mut trailer = b"0\r\nX: ".to_vec();
        trailer.resize(MAX_TRAILER_BYTES + 4, b'a');
        assert_eq!(run(&trailer).unwrap_err(), BodyError::TrailerTooLarge);
    }

    #[test]
    fn an_error_stays_and_a_cut_body_is_truncated() {
        let mut body = BodyDecoder::new(BodyFraming::Chunked);
        assert_eq!(body.decode(b"x"), Err(BodyError::ChunkSize));
        assert_eq!(body.decode(b"0\r\n\r\n"), Err(BodyError::ChunkSize));
        assert_eq!(body.eof(), Err(BodyError::ChunkSize));
        for cut in [
            &b""[..],
            b"5",
            b"5\r\nab",
            b"5\r\nabcde\r\n",
            b"0\r\n",
            b"0\r\nX: 1\r\n",
        ] {
            let mut body = BodyDecoder::new(BodyFraming::Chunked);
            body.pump(cut, |_| {}).unwrap();
            assert_eq!(
                body.eof(),
                Err(BodyError::Truncated),
                "{}",
                cut.escape_ascii()
            );
        }
    }
}
