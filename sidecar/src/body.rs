//! Bodies on their way through: what is done to one, and the filter that does it.
//!
//! Owns the decision about a body ([`Message::treat`], a pure function of a message's head, the masks and the mode), the edits of the head that follow from
//! it, and [`BodyFilter`], which undoes content codings, masks, and applies the codings again as the bytes stream. Refuses sockets, framing and versions of
//! HTTP: callers hand it payload in pieces of any size and write what comes out in the framing of their protocol.
//!
//! Invariant: what the agent gets depends on the payload alone, not on how it was cut; memory does not grow with the body; and after
//! [`BodyFilter::pull`] has said that there is no more, nothing is held back but what may yet become part of a match.
//!
//! # Using it
//! ```text
//! let treatment = message.treat(masks, strict);      // head: refuse, pass, or filter and edit
//! filter.push(payload);                              // for each run of payload
//! while filter.pull(&mut out)? { send(out) } send(out)
//! filter.end();                                      // the upstream's body has ended
//! while filter.pull(&mut out)? { send(out) } send(out), end the body
//! ```

mod coding;
mod edits;
mod fields;
mod filter;
mod media;
mod outgoing;
mod treat;

pub use coding::{
    Coding, CodingError, FREE_BYTES, MAX_CODINGS, MAX_RATIO, ZSTD_WINDOW_LOG, codings,
    readable_only,
};
pub(crate) use coding::{DecodeStack, EncodeStack};
pub use edits::{Edit, MASKED_REQUEST_FIELDS};
pub(crate) use edits::{
    is_false_when_masked, of_masked_response as edits_of_filtered, strong_again,
};
pub(crate) use fields::{Changed, masked_fields};
pub use filter::{BodyFilter, PULLED_BYTES};
pub(crate) use media::is_text;
pub use media::{Format, Media, SNIFFED_BYTES, media};
pub(crate) use outgoing::{Leaving, Outgoing};
pub use treat::{Look, Message, Treatment, Unreadable};
