//! Frames of RFC 6455 on the wire: headers both ways, and the masking of payloads.
//!
//! Pure. Refuses what RFC 6455 §5 forbids: reserved bits that no extension took, unknown opcodes, control frames that are long or in parts, lengths that are not in their
//! shortest form, and frames that are masked in the wrong direction. Invariant: a header that parses has one meaning, and `write_header` writes it back byte for byte.

use bytes::{BufMut, BytesMut};

/// Most bytes of a control frame's payload (RFC 6455 §5.5).
pub const MAX_CONTROL_BYTES: usize = 125;
/// Most bytes of a frame's header: two, a 64-bit length, a masking key.
pub const MAX_HEADER_BYTES: usize = 14;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client of the handshake. Its frames are masked (RFC 6455 §5.1).
    Agent,
    /// The server. Its frames are not.
    Upstream,
}

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the message that is under way.
    Continuation,
    /// Begins a message of UTF-8.
    Text,
    /// Begins a message of bytes.
    Binary,
    /// Ends the connection.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping.
    Pong,
}

impl Opcode {
    /// Whether frames of this kind stand between those of a message (RFC 6455 §5.5).
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xa,
        }
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// RSV1: the message is compressed (RFC 7692 §6). On its first frame only.
    pub compressed: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Masking key.
    pub key: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
}

/// Why bytes are no WebSocket frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A reserved bit is set that no extension has taken.
    #[error("a frame has a reserved bit set")]
    Reserved,
    /// No such opcode.
    #[error("a frame has an unknown opcode")]
    Opcode,
    /// An agent's frame without a key, or an upstream's with one.
    #[error("a frame is masked in the wrong direction")]
    Masking,
    /// A length in a longer form than it needs, or beyond 2^63 - 1.
    #[error("a frame's length is not in its shortest form")]
    Length,
    /// A control frame that is too long, in parts or compressed.
    #[error("a control frame is longer than {MAX_CONTROL_BYTES} bytes or in parts")]
    Control,
    /// A continuation of nothing.
    #[error("a frame continues a message that has not begun")]
    Continuation,
    /// A message within a message.
    #[error("a message begins within another")]
    Interleaved,
    /// A close frame whose payload is not a code and UTF-8.
    #[error("a close frame has no valid code and reason")]
    Close,
    /// A text message that is not UTF-8.
    #[error("a text message is not UTF-8")]
    Utf8,
    /// Compressed bytes that cannot be undone.
    #[error("a compressed message cannot be decompressed")]
    Deflate,
}

impl FrameError {
    /// The close code that says so (RFC 6455 §7.4.1).
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::Utf8 | Self::Deflate => 1007,
            _ => 1002,
        }
    }
}

/// Parses a header from the beginning of `bytes`; `None` asks for more. `deflate`: whether RSV1 was negotiated.
///
/// # Errors
/// As soon as the bytes settle that the frame is refused.
pub fn parse_header(
    bytes: &[u8],
    sender: Side,
    deflate: bool,
) -> Result<Option<(FrameHeader, usize)>, FrameError> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    let opcode = Opcode::of(first & 0x0f).ok_or(FrameError::Opcode)?;
    let (fin, compressed) = (first & 0x80 != 0, first & 0x40 != 0);
    let may_compress = deflate && matches!(opcode, Opcode::Text | Opcode::Binary);
    if first & 0x30 != 0 || (compressed && !may_compress) {
        return Err(FrameError::Reserved);
    }
    let masked = second & 0x80 != 0;
    if masked != (sender == Side::Agent) {
        return Err(FrameError::Masking);
    }
    let short = second & 0x7f;
    if opcode.is_control() && (!fin || usize::from(short) > MAX_CONTROL_BYTES) {
        return Err(FrameError::Control);
    }
    let Some((length, rest)) = parse_length(short, rest)? else {
        return Ok(None);
    };
    let (key, rest) = match rest {
        rest if !masked => (None, rest),
        [a, b, c, d, rest @ ..] => (Some([*a, *b, *c, *d]), rest),
        _ => return Ok(None),
    };
    let header = FrameHeader {
        fin,
        compressed,
        opcode,
        key,
        length,
    };
    Ok(Some((header, bytes.len().saturating_sub(rest.len()))))
}

fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, FrameError> {
    let (length, least, rest) = match (short, rest) {
        (0..=125, rest) => (u64::from(short), 0, rest),
        (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 126, rest),
        (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
            let bytes = [*a, *b, *c, *d, *e, *f, *g, *h];
            (u64::from_be_bytes(bytes), 0x1_0000, rest)
        }
        _ => return Ok(None),
    };
    if length < least || length > i64::MAX as u64 {
        return Err(FrameError::Length);
    }
    Ok(Some((length, rest)))
}

/// Appends a header; the payload follows, masked with the key if there is one.
pub fn write_header(out: &mut BytesMut, header: &FrameHeader) {
    let mut first = header.opcode.bits();
    if header.fin {
        first |= 0x80;
    }
    if header.compressed {
        first |= 0x40;
    }
    out.put_u8(first);
    let masked = if header.key.is_some() { 0x80 } else { 0 };
    match (u8::try_from(header.length), u16::try_from(header.length)) {
        (Ok(short @ 0..=125), _) => out.put_u8(masked | short),
        (_, Ok(length)) => {
            out.put_u8(masked | 126);
            out.put_u16(length);
        }
        _ => {
            out.put_u8(masked | 127);
            out.put_u64(header.length);
        }
    }
    if let Some(key) = header.key {
        out.put_slice(&key);
    }
}

/// Appends a whole frame.
pub fn write_frame(
    out: &mut BytesMut,
    opcode: Opcode,
    fin: bool,
    key: Option<[u8; 4]>,
    payload: &[u8],
) {
    let header = FrameHeader {
        fin,
        compressed: false,
        opcode,
        key,
        length: payload.len() as u64,
    };
    write_header(out, &header);
    let start = out.len();
    out.put_slice(payload);
    if let (Some(key), Some(written)) = (key, out.get_mut(start..)) {
        apply_mask(written, key, 0);
    }
}

/// Masks or unmasks (RFC 6455 §5.3): the same both ways. `offset`: how many bytes of the payload came before these.
pub fn apply_mask(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let mut turned = key;
    turned.rotate_left((offset % 4) as usize);
    let [a, b, c, d] = turned;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(turned.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_of_the_rfc_examples_are_read() {
        // RFC 6455 §5.7.
        for (bytes, sender, expected, used) in [
            (
                &[0x81, 0x05][..],
                Side::Upstream,
                (true, Opcode::Text, None, 5),
                2,
            ),
            (
                &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d],
                Side::Agent,
                (true, Opcode::Text, Some([0x37, 0xfa, 0x21, 0x3d]), 5),
                6,
            ),
            (
                &[0x01, 0x03],
                Side::Upstream,
                (false, Opcode::Text, None, 3),
                2,
            ),
            (
                &[0x82, 0x7e, 0x01, 0x00],
                Side::Upstream,
                (true, Opcode::Binary, None, 256),
                4,
            ),
            (
                &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0],
                Side::Upstream,
                (true, Opcode::Binary, None, 65536),
                10,
            ),
        ] {
            let (header, taken) = parse_header(bytes, sender, false).unwrap().unwrap();
            let seen = (header.fin, header.opcode, header.key, header.length);
            assert_eq!((seen, taken), (expected, used));
            for end in 0..bytes.len() {
                assert_eq!(parse_header(&bytes[..end], sender, false), Ok(None));
            }
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_refused() {
        for (bytes, deflate, error) in [
            (&[0xc1, 0x00][..], false, FrameError::Reserved),
            (&[0xa1, 0x00], true, FrameError::Reserved),
            (&[0x91, 0x00], true, FrameError::Reserved),
            // RSV1 belongs to the first frame of a message, and to no control frame.
            (&[0xc0, 0x00], true, FrameError::Reserved),
            (&[0xc9, 0x00], true, FrameError::Reserved),
            (&[0x83, 0x00], false, FrameError::Opcode),
            (&[0x8b, 0x00], false, FrameError::Opcode),
            (&[0x81, 0x80, 1, 2, 3, 4], false, FrameError::Masking),
            (&[0x09, 0x00], false, FrameError::Control),
            (&[0x89, 0x7e, 0, 126], false, FrameError::Control),
            (&[0x81, 0x7e, 0, 125], false, FrameError::Length),
            (
                &[0x81, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                false,
                FrameError::Length,
            ),
            (
                &[0x81, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0],
                false,
                FrameError::Length,
            ),
        ] {
            assert_eq!(
                parse_header(bytes, Side::Upstream, deflate),
                Err(error),
                "{bytes:x?}"
            );
        }
        assert_eq!(
            parse_header(&[0x81, 0x00], Side::Agent, false),
            Err(FrameError::Masking)
        );
        assert!(parse_header(&[0xc1, 0x00], Side::Upstream, true).is_ok());
    }

    proptest! {
        #[test]
        fn headers_survive_writing_and_reading(
            fin: bool,
            text: bool,
            compressed: bool,
            key in proptest::option::of(any::<[u8; 4]>()),
            length in prop_oneof![0..130_u64, 65_000..66_000_u64, 0..=(i64::MAX as u64)],
        ) {
            let opcode = if text { Opcode::Text } else { Opcode::Binary };
            let header = FrameHeader { fin, compressed, opcode, key, length };
            let mut out = BytesMut::new();
            write_header(&mut out, &header);
            prop_assert!(out.len() <= MAX_HEADER_BYTES);
            let sender = if key.is_some() { Side::Agent } else { Side::Upstream };
            prop_assert_eq!(parse_header(&out, sender, true), Ok(Some((header, out.len()))));
        }

        #[test]
        fn masking_in_parts_is_masking_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..100),
            key: [u8; 4],
            cut in 0..100_usize,
        ) {
            let plain: Vec<u8> = bytes.iter().enumerate().map(|(at, b)| b ^ key[at % 4]).collect();
            let mut parts = bytes.clone();
            let cut = cut.min(parts.len());
            let (left, right) = parts.split_at_mut(cut);
            apply_mask(left, key, 0);
            apply_mask(right, key, cut as u64);
            prop_assert_eq!(parts, plain);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20), deflate: bool) {
            let _ = parse_header(&bytes, Side::Agent, deflate);
            let _ = parse_header(&bytes, Side::Upstream, deflate);
        }
    }
}
