//! Matches without an upper bound: how to drop what belongs to them.

use super::bytes::{is_base64url, run_end, slice};
use super::pem;

/// What belongs to a match beyond its decided end. It is dropped however long it is, so that a secret longer than any buffer does
/// not come out at its far end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    #[default]
    Closed,
    /// All bytes of a token: base64url and dots.
    Token,
    /// All bytes up to and with the END line of a private key, or the end of the text.
    PrivateKey,
}

/// How far a tail reaches in the text at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The tail ends before this index: search on from here.
    Done(usize),
    /// All before this index belongs to the tail; call again from here with more bytes.
    More(usize),
}

impl Tail {
    /// Finds where the tail ends, looking from `from`. `eof` says that nothing follows `text`.
    pub fn skip(self, text: &[u8], from: usize, eof: bool) -> Skip {
        match self {
            Tail::Closed => Skip::Done(from),
            Tail::Token => match run_end(text, from, text.len(), is_token) {
                end if end >= text.len() && !eof => Skip::More(end),
                end => Skip::Done(end),
            },
            Tail::PrivateKey => skip_key(text, from, eof),
        }
    }
}

fn is_token(byte: u8) -> bool {
    is_base64url(byte) || byte == b'.'
}

fn skip_key(text: &[u8], from: usize, eof: bool) -> Skip {
    let mut at = from;
    while let Some(found) = memchr::memmem::find(slice(text, at, text.len()), pem::END) {
        let marker = at + found;
        match pem::line_end(text, marker + pem::END.len()) {
            Some(Some(end)) => return Skip::Done(end),
            None if !eof => return Skip::More(marker),
            _ => at = marker + 1,
        }
    }
    if eof {
        return Skip::Done(text.len());
    }
    Skip::More(at.max(text.len().saturating_sub(pem::END.len() - 1)))
}
