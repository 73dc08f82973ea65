//! Compression of messages (`grpc-encoding`): each message by itself, so that one can be changed and others stay.

use chaperone_crds::decide::HeaderFields;

use super::frames::MAX_MESSAGE_BYTES;
use crate::body::{Coding, DecodeStack, EncodeStack};

/// What compressed messages of a direction are compressed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Nothing: a message that says it is compressed is malformed.
    #[default]
    Identity,
    /// One that is read.
    Known(Coding),
    /// One that is not.
    Unknown,
}

impl Encoding {
    /// As the head says.
    pub(super) fn of(fields: &dyn HeaderFields) -> Self {
        let Some(name) = fields.first("grpc-encoding").map(<[u8]>::trim_ascii) else {
            return Self::Identity;
        };
        match Coding::named(name) {
            Some(coding) => Self::Known(coding),
            None if name.eq_ignore_ascii_case(b"identity") => Self::Identity,
            None => Self::Unknown,
        }
    }

    /// Undoes it; no more than [`MAX_MESSAGE_BYTES`] come of it.
    ///
    /// # Errors
    /// Why the message cannot be read.
    pub(super) fn unfold(self, payload: &[u8]) -> Result<Vec<u8>, &'static str> {
        const CORRUPT: &str = "the message is not valid in its grpc-encoding";
        const LONG: &str = "the message unfolds to more than is read";
        let coding = match self {
            Self::Identity => {
                return Err("the message is compressed, and its head does not say how");
            }
            Self::Unknown => return Err("the message is in a grpc-encoding that is not read"),
            Self::Known(coding) => coding,
        };
        let mut decode = DecodeStack::bounded(&[coding], MAX_MESSAGE_BYTES);
        let mut text = Vec::new();
        decode.give(payload);
        while let Some(piece) = decode.next().map_err(|_| CORRUPT)? {
            text.extend_from_slice(piece);
            if text.len() > MAX_MESSAGE_BYTES {
                return Err(LONG);
            }
        }
        decode.finish().map_err(|_| CORRUPT)?;
        Ok(text)
    }

    /// Applies it again.
    ///
    /// # Errors
    /// Never for what was unfolded by it.
    pub(super) fn fold(self, message: &[u8]) -> Result<Vec<u8>, &'static str> {
        const FAILED: &str = "the message cannot be compressed again";
        let Self::Known(coding) = self else {
            return Err(FAILED);
        };
        let (mut encode, mut out) = (EncodeStack::new(&[coding]), Vec::new());
        encode.push(message, &mut out).map_err(|_| FAILED)?;
        encode.finish(&mut out).map_err(|_| FAILED)?;
        Ok(out)
    }
}
