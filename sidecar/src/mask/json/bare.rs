//! Numbers and words: what has no quotes, and needs some once a part of it is replaced.

use chaperone_crds::detect::Replacement;

use crate::mask::replacement::{write_in_string, write_json};

/// Most bytes of a number or word that wait for its end. Longer ones are no numbers that a service means; they pass as text.
const MAX_BARE_BYTES: usize = 512;

/// Whether a byte may begin a number or a word.
pub(super) fn begins(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// Whether a byte may be part of a number or a word.
pub(super) fn is_bare(byte: u8) -> bool {
    begins(byte)
}

/// A number or word on its way.
#[derive(Debug, Default)]
pub(super) struct Bare {
    /// What waits.
    held: Vec<u8>,
    /// What takes its place, if the whole of it is one match.
    only: Option<Replacement>,
    /// Whether a part of it was replaced, so that it becomes a string.
    quoted: bool,
    /// Whether its beginning left already.
    left: bool,
}

impl Bare {
    /// Takes bytes that pass.
    pub(super) fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.only = None;
        self.held.extend_from_slice(bytes);
        self.spill(out);
    }

    /// Takes what replaces a match.
    pub(super) fn replaced(&mut self, replacement: &Replacement, out: &mut Vec<u8>) {
        if self.left {
            // Too long to be a number: text, quoted or not as it began.
            write_in_string(replacement, &mut self.held);
            return self.spill(out);
        }
        self.only = (self.held.is_empty() && !self.quoted).then(|| replacement.clone());
        self.quoted = true;
        write_in_string(replacement, &mut self.held);
        self.spill(out);
    }

    /// Writes it at its end.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        let bare = std::mem::take(self);
        match bare.only {
            Some(replacement) if !bare.left => write_json(&replacement, true, out),
            _ => {
                if bare.quoted && !bare.left {
                    out.push(b'"');
                }
                out.extend_from_slice(&bare.held);
                if bare.quoted {
                    out.push(b'"');
                }
            }
        }
    }

    fn spill(&mut self, out: &mut Vec<u8>) {
        if self.held.len() <= MAX_BARE_BYTES && !self.left {
            return;
        }
        if self.quoted && !self.left {
            out.push(b'"');
        }
        self.left = true;
        out.append(&mut self.held);
    }
}
