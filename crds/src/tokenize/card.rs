//! Card tokens: numbers that look like cards, pass Luhn, and begin as no card does.
//!
//! Three parts, each one-to-one: the first two digits, which name the brand, become two digits with which no card begins; the digits
//! after them, but the last, go through FF1 (NIST SP 800-38G) with brand and length as tweak; the last is the Luhn digit anew.
//! Separators stay where they are.

use aes::Aes256;
use fpe::ff1::{FF1, FlexibleNumeralString};

use crate::detect::luhn;

/// How many digits a card token can have.
pub(crate) const TOKEN_DIGITS: std::ops::RangeInclusive<usize> = 14..=16;

/// First two digits of the cards that have tokens of their shape: Mastercard 22 to 27 and 51 to 55, American Express 34 and 37, Diners
/// Club 30, 36, 38, 39, JCB 35, Visa 40 to 49, Maestro 50, 56 to 58 and 6x, Discover, UnionPay and others 60, 62 to 65. The token of
/// the n-th begins with 70 + n, less a hundred.
const PREFIXES: [u8; 40] = [
    22, 23, 24, 25, 26, 27, 30, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50,
    51, 52, 53, 54, 55, 56, 57, 58, 60, 62, 63, 64, 65, 67, 68, 69,
];
/// The first two digits of the first token.
const FIRST_TOKEN_PREFIX: u8 = 70;
/// Base of the digits.
const RADIX: u32 = 10;

/// Makes and reads card tokens.
pub(super) struct CardCipher {
    ff1: FF1<Aes256>,
}

impl CardCipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self {
            ff1: FF1::new(key, RADIX).expect("ten is a radix that FF1 knows"),
        }
    }

    /// The token of a card number; `None` when its brand and length have none.
    pub(super) fn tokenize(&self, card: &[u8]) -> Option<Vec<u8>> {
        let digits = Digits::read(card)?;
        let place = PREFIXES
            .iter()
            .position(|prefix| *prefix == digits.prefix)?;
        if !has_token(digits.prefix, digits.count) {
            return None;
        }
        let prefix = (FIRST_TOKEN_PREFIX + u8::try_from(place).ok()?) % 100;
        let middle = self
            .ff1
            .encrypt(&digits.tweak(digits.prefix), &digits.middle());
        digits.write(card, prefix, middle.ok()?.into())
    }

    /// The card number of a token; `None` when the digits begin as no token does, or fail Luhn.
    pub(super) fn restore(&self, token: &[u8]) -> Option<Vec<u8>> {
        let digits = Digits::read(token)?;
        let place = (digits.prefix + 100 - FIRST_TOKEN_PREFIX) % 100;
        let prefix = *PREFIXES.get(usize::from(place))?;
        if !has_token(prefix, digits.count) {
            return None;
        }
        let middle = self.ff1.decrypt(&digits.tweak(prefix), &digits.middle());
        digits.write(token, prefix, middle.ok()?.into())
    }
}

/// Whether cards that begin so and have so many digits exist in number.
fn has_token(prefix: u8, count: usize) -> bool {
    match count {
        14 => matches!(prefix, 30 | 36 | 38 | 39),
        15 => matches!(prefix, 34 | 37),
        16 => !matches!(prefix, 34 | 37),
        _ => false,
    }
}

/// A number that passes Luhn, in three parts and the Luhn digit.
struct Digits {
    prefix: u8,
    middle: Vec<u16>,
    count: usize,
}

impl Digits {
    /// Reads digits with spaces and dashes between them.
    fn read(text: &[u8]) -> Option<Self> {
        let mut digits = Vec::with_capacity(*TOKEN_DIGITS.end());
        for byte in text {
            match byte {
                b'0'..=b'9' if digits.len() < *TOKEN_DIGITS.end() => digits.push(byte - b'0'),
                b' ' | b'-' => {}
                _ => return None,
            }
        }
        if !TOKEN_DIGITS.contains(&digits.len()) || !luhn(&digits) {
            return None;
        }
        match digits.as_slice() {
            [tens, ones, middle @ .., _] => Some(Self {
                prefix: tens * 10 + ones,
                middle: middle.iter().copied().map(u16::from).collect(),
                count: digits.len(),
            }),
            _ => None,
        }
    }

    /// What sets the ciphers of different brands and lengths apart: the card's first two digits and its number of digits.
    fn tweak(&self, card_prefix: u8) -> [u8; 2] {
        // At most 16.
        [card_prefix, self.count as u8]
    }

    fn middle(&self) -> FlexibleNumeralString {
        self.middle.clone().into()
    }

    /// The number with another beginning and middle, in the shape of `like`.
    fn write(&self, like: &[u8], prefix: u8, middle: Vec<u16>) -> Option<Vec<u8>> {
        let mut digits = vec![prefix / 10, prefix % 10];
        for digit in middle {
            digits.push(u8::try_from(digit).ok()?);
        }
        digits.push(0);
        let check = (0..10).find(|check| {
            if let Some(last) = digits.last_mut() {
                *last = *check;
            }
            luhn(&digits)
        });
        check?;
        let mut digits = digits.into_iter();
        let mut out = like.to_vec();
        for byte in out.iter_mut().filter(|byte| byte.is_ascii_digit()) {
            *byte = b'0' + digits.next()?;
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_luhn(mut digits: Vec<u8>) -> String {
        digits.push(0);
        let last = digits.len() - 1;
        digits[last] = (0..10)
            .find(|check| {
                digits[last] = *check;
                luhn(&digits)
            })
            .unwrap();
        digits
            .iter()
            .map(|digit| char::from(b'0' + digit))
            .collect()
    }

    #[test]
    fn tokens_look_like_cards_that_nobody_has() {
        let cipher = CardCipher::new(&[7; 32]);
        for card in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "5555555555554444",
            "3782 822463 10005",
            "30569309025904",
            "6011111111111117",
            "3530111333300000",
            "2223003122003222",
        ] {
            let token = cipher.tokenize(card.as_bytes()).unwrap();
            let text = std::str::from_utf8(&token).unwrap();
            assert!(text.starts_with(['7', '8', '9', '0']), "{card}: {text}");
            assert_eq!(text.len(), card.len());
            assert_ne!(text[2..], card[2..]);
            assert_eq!(cipher.restore(&token).unwrap(), card.as_bytes());
            assert_eq!(cipher.tokenize(&token), None);
            assert_eq!(cipher.restore(card.as_bytes()), None);
        }
    }

    #[test]
    fn other_lengths_and_brands_have_no_token_of_their_shape() {
        let cipher = CardCipher::new(&[7; 32]);
        for card in [
            "4222222222222",
            "6304000000000000018",
            "4111111111111112",
            "",
            "41",
        ] {
            assert_eq!(cipher.tokenize(card.as_bytes()), None, "{card}");
        }
        for number in [
            "1712345678901",
            "978030640615",
            "1234567890123452",
            "1000000000000008",
        ] {
            assert_eq!(cipher.restore(number.as_bytes()), None, "{number}");
        }
    }

    proptest! {
        #[test]
        fn a_token_gives_the_card_back(
            prefix in prop::sample::select(&PREFIXES[..]),
            rest in prop::collection::vec(0_u8..10, 11..14),
        ) {
            let mut digits = vec![prefix / 10, prefix % 10];
            digits.extend(rest);
            let count = digits.len() + 1;
            let card = with_luhn(digits);
            let cipher = CardCipher::new(&[9; 32]);
            match cipher.tokenize(card.as_bytes()) {
                Some(token) => {
                    prop_assert!(luhn(&token.iter().map(|b| b - b'0').collect::<Vec<_>>()));
                    prop_assert_eq!(cipher.restore(&token).unwrap(), card.into_bytes());
                }
                None => prop_assert!(!has_token(prefix, count)),
            }
        }
    }
}
