//! WebSocket on the wire (RFC 6455, RFC 7692): the handshake's fields, frames, messages, compression.
//!
//! Pure: functions and state machines over bytes, no sockets, no clocks, no policy. Refuses what the RFCs forbid, in either direction, because what two peers read in two ways
//! could carry what nobody judged. Invariant: nothing here holds more than a control frame, a window of 32 KiB and one piece of decompressed bytes.

mod decoder;
mod frame;
mod handshake;
mod inflate;
mod text;

pub use decoder::{Decoder, Item, Kind, Piece};
pub use frame::{
    FrameError, FrameHeader, MAX_CONTROL_BYTES, MAX_HEADER_BYTES, Opcode, Side, apply_mask,
    parse_header, write_frame, write_header,
};
pub use handshake::{Deflate, HandshakeError, Offer};
pub use inflate::{Inflate, PIECE_BYTES};
pub use text::{Utf8, close_code, close_payload};
