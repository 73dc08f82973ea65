//! WebSocket's frames and compressed messages.

use bytes::BytesMut;
use chaperone_sidecar::websocket::{
    Decoder, FrameError, Inflate, Item, MAX_HEADER_BYTES, PIECE_BYTES, Side,
};

/// Most bytes that are inflated of one input: a bound is the caller's matter.
const MOST_INFLATED: usize = 1 << 20;

/// Frames of either side, cut anywhere: what comes out is what went in, the messages and the end are the same, and little is held back.
pub(crate) fn frames(bytes: &[u8]) {
    for side in [Side::Agent, Side::Upstream] {
        for deflate in [false, true] {
            let whole = read(side, deflate, bytes, bytes.len());
            for size in [1, 5] {
                assert_eq!(whole, read(side, deflate, bytes, size), "{side:?} {size}");
            }
        }
    }
}

/// Payload of each message in one, and the end.
#[derive(Debug, PartialEq)]
struct Told {
    messages: Vec<Vec<u8>>,
    closed: bool,
    refused: Option<FrameError>,
}

fn read(side: Side, deflate: bool, bytes: &[u8], size: usize) -> Told {
    let mut decoder = Decoder::new(side, deflate);
    let (mut unread, mut raw, mut payload) = (BytesMut::new(), Vec::new(), Vec::new());
    let mut told = Told {
        messages: Vec::new(),
        closed: false,
        refused: None,
    };
    for piece in bytes.chunks(size.max(1)) {
        unread.extend_from_slice(piece);
        loop {
            let item = match decoder.next(&mut unread) {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(error) => {
                    told.refused = Some(error);
                    assert!(bytes.starts_with(&raw));
                    return told;
                }
            };
            match item {
                Item::Piece(piece) => {
                    if piece.begins.is_some() {
                        told.messages.push(Vec::new());
                    }
                    piece.payload(&mut payload);
                    assert_eq!(payload.len(), piece.len());
                    if let Some(message) = told.messages.last_mut() {
                        message.extend_from_slice(&payload);
                    }
                    raw.extend_from_slice(&piece.raw);
                }
                Item::Control { raw: control } => raw.extend_from_slice(&control),
                Item::Close { raw: close, .. } => {
                    raw.extend_from_slice(&close);
                    told.closed = true;
                }
            }
        }
        assert!(unread.len() < MAX_HEADER_BYTES + 125, "held back");
    }
    assert!(bytes.starts_with(&raw));
    assert!(decoder.is_closed() == told.closed);
    assert!(told.closed || raw.len() + unread.len() == bytes.len());
    told
}

/// A compressed message, cut anywhere, inflates to the same bytes, a bounded piece at a time.
pub(crate) fn inflate(bytes: &[u8]) {
    for no_context in [false, true] {
        let whole = unfold(no_context, bytes, bytes.len());
        let cut = unfold(no_context, bytes, 3);
        match (&whole, &cut) {
            (Ok(whole), Ok(cut)) => assert_eq!(whole, cut),
            // The fault may lie in the piece that passes the bound.
            (Ok(most), Err(_)) | (Err(_), Ok(most)) => assert_eq!(most.len(), MOST_INFLATED),
            (Err(_), Err(_)) => {}
        }
    }
}

fn unfold(no_context: bool, bytes: &[u8], size: usize) -> Result<Vec<u8>, FrameError> {
    let mut inflate = Inflate::new(no_context);
    let mut out = Vec::new();
    for piece in bytes.chunks(size.max(1)).chain([Inflate::tail()]) {
        let mut input = piece;
        loop {
            let text = inflate.step(&mut input)?;
            assert!(text.len() <= PIECE_BYTES);
            if text.is_empty() {
                assert!(input.is_empty());
                break;
            }
            out.extend_from_slice(text);
            if out.len() > MOST_INFLATED {
                return Ok(out[..MOST_INFLATED].to_vec());
            }
        }
    }
    inflate.end_message();
    Ok(out)
}
