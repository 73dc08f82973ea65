//! Tokens: what stands for a value that a mask replaced with `Token`, and how it becomes the value again.
//!
//! Owns the keys of a namespace ([`MaskKey`], [`TokenKey`]), the two forms of a token and `Hash`. Refuses to know where text comes
//! from or goes: the search is [`crate::detect`]'s, restoring on the way out is the sidecar's.
//!
//! Invariant: all is a pure function of key, detector and value. Nothing is stored, so a token outlives every restart and means the
//! same in all pods of a namespace. A text token is authenticated: what nobody tokenized is never restored.
//!
//! # Forms
//! | detector | token | made by |
//! |---|---|---|
//! | `email` | `tok_BASE32@BASE32.tok.invalid`, an address of a reserved domain (RFC 2606) | AES-SIV (RFC 5297) with a 256-bit key, the detector's name as associated data |
//! | `creditCard`, of a known brand and its length | as many digits with the same separators, Luhn-valid, beginning with 7, 8, 9 or 0, with which no card begins | FF1 (NIST SP 800-38G) |
//! | everything else | `tok_DETECTOR_BASE32` | AES-SIV |
//!
//! Equal values have equal tokens: that is what they are for, and all that they tell, besides a text's length and a card's brand.
//!
//! A card token cannot be authenticated, since a card number has no room for it. One in ten numbers of 14 to 16 digits that begin with
//! 7, 8, 9 or 0 passes Luhn by chance and would be taken for a token, if its first two digits stand for a brand of that length.

mod card;
mod key;
mod text;

pub use key::{MaskKey, MaskKeyError, TokenKey};

/// Longest value that a text token can stand for, bytes, so that a token has at most [`MAX_TOKEN_BYTES`].
pub const MAX_TOKEN_VALUE_BYTES: usize = 2048;

/// Longest token, bytes: prefix, the longest detector's name, and base32 of the longest value with its 16 bytes of authentication.
/// Less than what a search holds back.
pub const MAX_TOKEN_BYTES: usize =
    text::PREFIX.len() + text::MAX_NAME_BYTES + 1 + (MAX_TOKEN_VALUE_BYTES + 16).div_ceil(5) * 8;

pub(crate) use card::TOKEN_DIGITS;
pub(crate) use text::{
    DOMAIN as TOKEN_DOMAIN, MAX_DOMAIN_BYTES, MAX_NAME_BYTES, PREFIX as TOKEN_PREFIX, is_base32,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shorter_than_what_a_search_holds_back() {
        const { assert!(MAX_TOKEN_BYTES <= crate::detect::MAX_UNDECIDED_BYTES) };
    }
}
