//! The search for tokens that stand for masked values, so that they can be restored (see [`crate::tokenize`]).
//!
//! Only what is restored is found: a candidate is opened with the key before it is a match.

use std::sync::Arc;

use super::bytes::{Step, is_word, run_end, slice, word_may_begin};
use super::digits::{card, number_starts};
use super::email::{at_sign, open_at_sign};
use super::{Builtin, Found};
use crate::tokenize::{
    MAX_DOMAIN_BYTES, MAX_NAME_BYTES, MAX_TOKEN_BYTES, TOKEN_DIGITS, TOKEN_DOMAIN, TOKEN_PREFIX,
    TokenKey, is_base32,
};

/// There is one rule where tokens are looked for: each becomes its value.
const RULE: usize = 0;

/// The search for the tokens of one namespace. Its matches have rule 0.
#[derive(Debug)]
pub(super) struct Restore {
    key: Arc<TokenKey>,
    /// Whose tokens.
    detectors: Vec<Box<str>>,
}

impl Restore {
    pub(super) fn new(key: Arc<TokenKey>, detectors: &[&str]) -> Self {
        Self {
            key,
            detectors: detectors.iter().map(|name| (*name).into()).collect(),
        }
    }

    fn wants(&self, detector: &[u8]) -> bool {
        self.detectors
            .iter()
            .any(|name| name.as_bytes() == detector)
    }

    /// The value of a token that was found.
    pub(super) fn value(&self, token: &[u8]) -> Option<Vec<u8>> {
        self.key.restore(token)
    }

    /// The first text token that begins at or after `from`.
    pub(super) fn next_text(&self, text: &[u8], from: usize, eof: bool) -> Found {
        let mut at = from;
        while let Some(found) =
            memchr::memmem::find(slice(text, at, text.len()), TOKEN_PREFIX.as_bytes())
        {
            let start = at + found;
            at = start + 1;
            if !word_may_begin(text, start) {
                continue;
            }
            if let Some(found) = self.text_token(text, start, eof).found(start, RULE) {
                return found;
            }
        }
        let open = (1..TOKEN_PREFIX.len())
            .rev()
            .find(|&length| text.ends_with(&TOKEN_PREFIX.as_bytes()[..length]))
            .unwrap_or(0);
        let open = (text.len() - open).max(from);
        Found::Undecided(if eof { text.len() } else { open })
    }

    /// The first card token that begins at or after `from`.
    pub(super) fn next_card(&self, text: &[u8], from: usize, eof: bool) -> Found {
        if !self.wants(Builtin::CreditCard.name().as_bytes()) {
            return Found::Undecided(text.len());
        }
        for start in number_starts(text, from) {
            if !matches!(text.get(start), Some(b'0' | b'7'..=b'9')) {
                continue;
            }
            let step = card(text, start, eof, &TOKEN_DIGITS, |digits| {
                self.key.is_card_token(digits)
            });
            if let Some(found) = step.found(start, RULE) {
                return found;
            }
        }
        Found::Undecided(text.len())
    }

    fn text_token(&self, text: &[u8], start: usize, eof: bool) -> Step {
        let name = start + TOKEN_PREFIX.len();
        let name_end = run_end(text, name, name + MAX_NAME_BYTES + 1, |byte| {
            byte.is_ascii_alphanumeric() || byte == b'-'
        });
        let step = match text.get(name_end) {
            None => return Step::short(eof),
            Some(b'_') if !self.wants(slice(text, name, name_end)) => return Step::No,
            Some(b'_') => sealed_end(text, start, name_end + 1, eof),
            Some(_) if !self.wants(Builtin::Email.name().as_bytes()) => return Step::No,
            Some(_) => match at_sign(slice(text, name_end, text.len())) {
                Some(length) => domain_end(text, name_end + length, eof),
                None if !eof && open_at_sign(slice(text, name_end, text.len())) => Step::More,
                None => Step::No,
            },
        };
        match step {
            Step::Yes { end, .. } if self.key.restore(slice(text, start, end)).is_none() => {
                Step::No
            }
            step => step,
        }
    }
}

/// Where the base32 that begins at `from` ends.
fn sealed_end(text: &[u8], start: usize, from: usize, eof: bool) -> Step {
    let limit = start + MAX_TOKEN_BYTES + 1;
    let end = run_end(text, from, limit, is_base32);
    match text.get(end) {
        _ if end == limit => Step::No,
        None if !eof => Step::More,
        Some(&byte) if is_word(byte) => Step::No,
        _ => Step::closed(end),
    }
}

/// Where the domain that begins at `from` ends, if it is one of a token.
fn domain_end(text: &[u8], from: usize, eof: bool) -> Step {
    let limit = from + MAX_DOMAIN_BYTES + 1;
    let end = run_end(text, from, limit, |byte| is_base32(byte) || byte == b'.');
    if end == text.len() && end < limit && !eof {
        return Step::More;
    }
    let domain = slice(text, from, end);
    let domain = domain.strip_suffix(b".").unwrap_or(domain);
    let tail = domain.len().checked_sub(TOKEN_DOMAIN.len());
    match tail.and_then(|tail| domain.get(tail..)) {
        Some(tail) if tail.eq_ignore_ascii_case(TOKEN_DOMAIN.as_bytes()) => {
            Step::closed(from + domain.len())
        }
        _ => Step::No,
    }
}
