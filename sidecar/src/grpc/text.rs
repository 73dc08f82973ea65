//! The text form of gRPC-Web: base64, in one piece or in padded ones, one after another.
//!
//! Invariant: bytes come in groups of four characters, and a group stands for the same bytes whatever stands around it.

use base64::{Engine, engine::general_purpose::STANDARD};

/// Characters of a group.
pub(super) const GROUP: usize = 4;

/// Four characters that are no base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoText(pub(super) [u8; GROUP]);

/// A group as written, and what it stands for.
pub(super) type Group = ([u8; GROUP], Vec<u8>);

/// Collects characters to groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    open: Vec<u8>,
}

impl Groups {
    /// Takes from `text`: the next group as written, and what it stands for. `None`: all is taken.
    pub(super) fn next(&mut self, text: &mut &[u8]) -> Option<Result<Group, NoText>> {
        while self.open.len() < GROUP {
            let (&character, rest) = text.split_first()?;
            self.open.push(character);
            *text = rest;
        }
        let group: [u8; GROUP] = self.open.get(..GROUP)?.try_into().ok()?;
        self.open.clear();
        let bytes = STANDARD.decode(group).map_err(|_| NoText(group));
        Some(bytes.map(|bytes| (group, bytes)))
    }

    /// Characters of a group that is not whole.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.open)
    }
}

/// A piece of text.
pub(super) fn write(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
}
