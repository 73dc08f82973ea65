//! One direction of a WebSocket connection: bytes become pieces of messages and control frames.
//!
//! Pure. Owns the order of frames (RFC 6455 §5.4): what may follow what, and where messages end. Holds no payload: a piece is what has come of a frame, and only a control frame
//! is waited for. Invariant: the raw bytes of all items, in order, are the bytes that came in.

use bytes::{Buf, BytesMut};

use super::{
    frame::{FrameError, Opcode, Side, apply_mask, parse_header},
    text::close_code,
};

/// Whether a message is UTF-8 or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// What came next.
#[derive(Debug)]
pub enum Item {
    /// Part of a message.
    Piece(Piece),
    /// A ping or pong, whole.
    Control {
        /// As it was written.
        raw: BytesMut,
    },
    /// A close frame. Nothing follows it: later bytes are dropped.
    Close {
        /// As it was written.
        raw: BytesMut,
        /// Its code, if it has one.
        code: Option<u16>,
    },
}

/// Part of a message: what has come of one of its frames.
#[derive(Debug)]
pub struct Piece {
    /// As it was written, the frame's header included where it begins here.
    pub raw: BytesMut,
    /// Where the payload begins in `raw`.
    header: usize,
    key: Option<[u8; 4]>,
    /// Bytes of the frame's payload before this.
    offset: u64,
    /// What begins with this piece: the kind of message, and whether it is compressed.
    pub begins: Option<(Kind, bool)>,
    /// Whether its frame ends with it.
    pub ends_frame: bool,
    /// Whether the message ends with it.
    pub ends: bool,
}

impl Piece {
    /// Bytes of payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.raw.len().saturating_sub(self.header)
    }

    /// Whether it has no payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Replaces `out` by the payload, unmasked.
    pub fn payload(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.raw.get(self.header..).unwrap_or_default());
        if let Some(key) = self.key {
            apply_mask(out, key, self.offset);
        }
    }
}

/// A frame under way.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    key: Option<[u8; 4]>,
    offset: u64,
    left: u64,
}

/// Reads one direction.
#[derive(Debug)]
pub struct Decoder {
    sender: Side,
    deflate: bool,
    frame: Option<Frame>,
    in_message: bool,
    closed: bool,
}

impl Decoder {
    /// What `sender` sends. `deflate`: whether RFC 7692 was negotiated.
    #[must_use]
    pub fn new(sender: Side, deflate: bool) -> Self {
        Self {
            sender,
            deflate,
            frame: None,
            in_message: false,
            closed: false,
        }
    }

    /// Whether a close frame has come.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether no frame is under way.
    #[must_use]
    pub fn between_frames(&self) -> bool {
        self.frame.is_none()
    }

    /// Whether no message is under way.
    #[must_use]
    pub fn between_messages(&self) -> bool {
        self.frame.is_none() && !self.in_message
    }

    /// Takes what is next out of `unread`; `None` asks for more.
    ///
    /// # Errors
    /// When the bytes are refused; nothing may be read after that.
    pub fn next(&mut self, unread: &mut BytesMut) -> Result<Option<Item>, FrameError> {
        if self.closed {
            unread.clear();
            return Ok(None);
        }
        if let Some(frame) = self.frame {
            return Ok(if unread.is_empty() {
                None
            } else {
                Some(Item::Piece(self.piece(unread, frame, 0, None)))
            });
        }
        let Some((header, used)) = parse_header(unread, self.sender, self.deflate)? else {
            return Ok(None);
        };
        if header.opcode.is_control() {
            return self.control(unread, header.opcode, header.key, used, header.length);
        }
        let begins = match (header.opcode, self.in_message) {
            (Opcode::Continuation, true) => None,
            (Opcode::Continuation, false) => return Err(FrameError::Continuation),
            (_, true) => return Err(FrameError::Interleaved),
            (Opcode::Text, false) => Some((Kind::Text, header.compressed)),
            (_, false) => Some((Kind::Binary, header.compressed)),
        };
        self.in_message = true;
        let frame = Frame {
            fin: header.fin,
            key: header.key,
            offset: 0,
            left: header.length,
        };
        Ok(Some(Item::Piece(self.piece(unread, frame, used, begins))))
    }

    /// What is there of a frame whose header takes `header` bytes of `unread`.
    fn piece(
        &mut self,
        unread: &mut BytesMut,
        mut frame: Frame,
        header: usize,
        begins: Option<(Kind, bool)>,
    ) -> Piece {
        let there = unread.len().saturating_sub(header);
        let taken = usize::try_from(frame.left).unwrap_or(usize::MAX).min(there);
        let piece = Piece {
            raw: unread.split_to(header.saturating_add(taken)),
            header,
            key: frame.key,
            offset: frame.offset,
            begins,
            ends_frame: taken as u64 == frame.left,
            ends: frame.fin && taken as u64 == frame.left,
        };
        frame.left = frame.left.saturating_sub(taken as u64);
        frame.offset = frame.offset.saturating_add(taken as u64);
        self.frame = (frame.left > 0).then_some(frame);
        if piece.ends {
            self.in_message = false;
        }
        piece
    }

    fn control(
        &mut self,
        unread: &mut BytesMut,
        opcode: Opcode,
        key: Option<[u8; 4]>,
        header: usize,
        length: u64,
    ) -> Result<Option<Item>, FrameError> {
        let length = usize::try_from(length).map_err(|_| FrameError::Control)?;
        let whole = header.saturating_add(length);
        if unread.remaining() < whole {
            return Ok(None);
        }
        let raw = unread.split_to(whole);
        if opcode != Opcode::Close {
            return Ok(Some(Item::Control { raw }));
        }
        let mut payload = raw.get(header..).unwrap_or_default().to_vec();
        if let Some(key) = key {
            apply_mask(&mut payload, key, 0);
        }
        let code = close_code(&payload)?;
        self.closed = true;
        Ok(Some(Item::Close { raw, code }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::frame::write_frame, *};

    /// What begins, payload, whether the message ends.
    type Seen = (Option<Kind>, Vec<u8>, bool);

    fn read(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Seen>, FrameError> {
        let mut unread = BytesMut::from(bytes);
        let mut items = Vec::new();
        while let Some(item) = decoder.next(&mut unread)? {
            match item {
                Item::Piece(piece) => {
                    let mut payload = Vec::new();
                    piece.payload(&mut payload);
                    items.push((piece.begins.map(|(kind, _)| kind), payload, piece.ends));
                }
                Item::Control { .. } => items.push((None, b"control".to_vec(), false)),
                Item::Close { .. } => items.push((None, b"close".to_vec(), true)),
            }
        }
        Ok(items)
    }

    #[test]
    fn control_frames_stand_between_the_parts_of_a_message() {
        let mut decoder = Decoder::new(Side::Upstream, false);
        let items = read(
            &mut decoder,
            b"\x01\x02ab\x89\x01x\x00\x00\x80\x01c\x88\x00ignored",
        )
        .unwrap();
        assert_eq!(
            items,
            [
                (Some(Kind::Text), b"ab".to_vec(), false),
                (None, b"control".to_vec(), false),
                (None, Vec::new(), false),
                (None, b"c".to_vec(), true),
                (None, b"close".to_vec(), true),
            ]
        );
        assert!(decoder.is_closed());
    }

    #[test]
    fn the_order_of_frames_is_that_of_the_rfc() {
        for (bytes, error) in [
            (&b"\x80\x00"[..], FrameError::Continuation),
            (b"\x00\x00", FrameError::Continuation),
            (b"\x01\x01a\x81\x01b", FrameError::Interleaved),
            (b"\x01\x01a\x02\x01b", FrameError::Interleaved),
            (b"\x81\x01a\x80\x01b", FrameError::Continuation),
            (b"\x88\x01\x03", FrameError::Close),
            (b"\x88\x02\x03\xed", FrameError::Close),
        ] {
            let mut decoder = Decoder::new(Side::Upstream, false);
            assert_eq!(read(&mut decoder, bytes), Err(error), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_same_messages_are_read_and_no_byte_is_lost(
            messages in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300), 1..4_usize, any::<bool>()), 0..5),
            step in 1..50_usize,
            key: [u8; 4],
        ) {
            let mut written = BytesMut::new();
            for (text, payload, parts, ping) in &messages {
                let first = if *text { Opcode::Text } else { Opcode::Binary };
                let size = payload.len() / parts + 1;
                let chunks: Vec<&[u8]> = if payload.is_empty() { vec![&[]] } else { payload.chunks(size).collect() };
                for (at, chunk) in chunks.iter().enumerate() {
                    let opcode = if at == 0 { first } else { Opcode::Continuation };
                    write_frame(&mut written, opcode, at + 1 == chunks.len(), Some(key), chunk);
                    if *ping {
                        write_frame(&mut written, Opcode::Ping, true, Some(key), b"are you there");
                    }
                }
            }
            let mut decoder = Decoder::new(Side::Agent, false);
            let (mut unread, mut raw) = (BytesMut::new(), Vec::new());
            let mut seen: Vec<(bool, Vec<u8>)> = Vec::new();
            for part in written.chunks(step) {
                unread.extend_from_slice(part);
                while let Some(item) = decoder.next(&mut unread).unwrap() {
                    match item {
                        Item::Piece(piece) => {
                            let mut payload = Vec::new();
                            piece.payload(&mut payload);
                            if let Some((kind, _)) = piece.begins {
                                seen.push((kind == Kind::Text, Vec::new()));
                            }
                            seen.last_mut().unwrap().1.extend_from_slice(&payload);
                            raw.extend_from_slice(&piece.raw);
                        }
                        Item::Control { raw: bytes } | Item::Close { raw: bytes, .. } => raw.extend_from_slice(&bytes),
                    }
                }
            }
            let expected: Vec<(bool, Vec<u8>)> = messages.iter().map(|(text, payload, _, _)| (*text, payload.clone())).collect();
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(raw, written.to_vec());
            prop_assert!(decoder.between_messages());
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), agent: bool, deflate: bool) {
            let sender = if agent { Side::Agent } else { Side::Upstream };
            let mut decoder = Decoder::new(sender, deflate);
            let mut unread = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.next(&mut unread) {}
        }
    }
}
