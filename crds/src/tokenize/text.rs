//! Text tokens: AES-SIV (RFC 5297), which is deterministic and authenticates, in lower-case base32 (RFC 4648 section 6) without
//! padding, which survives URLs, JSON, shells and programs that change case.

use aes_siv::{KeyInit, siv::Aes256Siv};
use data_encoding::{BASE32_NOPAD, Encoding};

use super::MAX_TOKEN_VALUE_BYTES;
use crate::detect::Builtin;

/// With what every text token begins.
pub(crate) const PREFIX: &str = "tok_";
/// Longest name of a detector or a pattern, bytes.
pub(crate) const MAX_NAME_BYTES: usize = 63;
/// With what the domain of an address token ends; nobody can register it (RFC 2606 section 2).
pub(crate) const DOMAIN: &str = "tok.invalid";
/// RFC 1035 section 2.3.4, octets without the last dot and the length.
pub(crate) const MAX_DOMAIN_BYTES: usize = 253;

/// Base32 in the local part: with [`PREFIX`] it has 64 octets, the most of RFC 5321 section 4.5.3.1.1.
const LOCAL_BASE32: usize = 60;
/// RFC 1035 section 2.3.4, octets.
const LABEL_BYTES: usize = 63;
/// Base32 in the domain, so that three labels and a shorter one stay within [`MAX_DOMAIN_BYTES`].
const DOMAIN_BASE32: usize = 3 * LABEL_BYTES + 48;
/// RFC 5297 section 2.6: bytes of authentication.
const TAG_BYTES: usize = 16;
/// At signs in disguise, and the plus that goes with each.
const ESCAPES: [(&str, &str); 4] = [
    ("%40", "%2B"),
    ("\\u0040", "\\u002b"),
    ("&#64;", "+"),
    ("@", "+"),
];

/// `[A-Za-z2-7]`: case does not matter when a token is read.
pub(crate) fn is_base32(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'2'..=b'7')
}

/// Makes and reads text tokens.
pub(super) struct TextCipher {
    key: [u8; 64],
}

impl TextCipher {
    /// RFC 5297 section 2.2: the first half authenticates, the second encrypts.
    pub(super) fn new(mac: [u8; 32], cipher: [u8; 32]) -> Self {
        let mut key = [0; 64];
        let (first, second) = key.split_at_mut(32);
        first.copy_from_slice(&mac);
        second.copy_from_slice(&cipher);
        Self { key }
    }

    /// `tok_DETECTOR_BASE32`.
    pub(super) fn tokenize(&self, detector: &str, value: &[u8]) -> Option<Vec<u8>> {
        let is_name = (1..=MAX_NAME_BYTES).contains(&detector.len())
            && detector
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let sealed = is_name.then(|| self.seal(detector, value))??;
        Some(format!("{PREFIX}{detector}_{sealed}").into_bytes())
    }

    /// `tok_BASE32@BASE32.tok.invalid`; `None` when it would be longer than an address may be.
    pub(super) fn tokenize_email(&self, value: &[u8]) -> Option<Vec<u8>> {
        let (at, _) = escapes_of(value)?;
        let sealed = self.seal(Builtin::Email.name(), &plain_email(value))?;
        let (local, domain) = sealed
            .split_at_checked(LOCAL_BASE32)
            .unwrap_or((&sealed, ""));
        if domain.len() > DOMAIN_BASE32 {
            return None;
        }
        let mut token = format!("{PREFIX}{local}{at}");
        for (place, byte) in domain.chars().enumerate() {
            if place > 0 && place % LABEL_BYTES == 0 {
                token.push('.');
            }
            token.push(byte);
        }
        if !domain.is_empty() {
            token.push('.');
        }
        token.push_str(DOMAIN);
        Some(token.into_bytes())
    }

    /// The value of either form.
    pub(super) fn restore(&self, token: &[u8]) -> Option<Vec<u8>> {
        let token = std::str::from_utf8(token).ok()?;
        let rest = token.strip_prefix(PREFIX)?;
        match escapes_of(rest.as_bytes()) {
            Some((at, plus)) => {
                let (local, domain) = rest.split_once(at)?;
                let domain = domain.get(..domain.len().checked_sub(DOMAIN.len())?)?;
                let ends = token.get(token.len() - DOMAIN.len()..)?;
                let sealed: String = local
                    .chars()
                    .chain(domain.chars().filter(|c| *c != '.'))
                    .collect();
                let value = self.open(Builtin::Email.name(), &sealed)?;
                let value = String::from_utf8(value).ok()?;
                ends.eq_ignore_ascii_case(DOMAIN)
                    .then(|| value.replace('+', plus).replace('@', at).into_bytes())
            }
            None => {
                let (detector, sealed) = rest.split_once('_')?;
                self.open(detector, sealed)
            }
        }
    }

    fn seal(&self, detector: &str, value: &[u8]) -> Option<String> {
        if value.len() > MAX_TOKEN_VALUE_BYTES {
            return None;
        }
        let sealed = self.siv()?.encrypt([detector.as_bytes()], value).ok()?;
        Some(BASE32_NOPAD.encode(&sealed).to_ascii_lowercase())
    }

    fn open(&self, detector: &str, sealed: &str) -> Option<Vec<u8>> {
        const BASE32: Encoding = BASE32_NOPAD;
        let longest = (MAX_TOKEN_VALUE_BYTES + TAG_BYTES).div_ceil(5) * 8;
        if sealed.len() > longest {
            return None;
        }
        let sealed = BASE32.decode(sealed.to_ascii_uppercase().as_bytes()).ok()?;
        self.siv()?.decrypt([detector.as_bytes()], &sealed).ok()
    }

    fn siv(&self) -> Option<Aes256Siv> {
        Aes256Siv::new_from_slice(&self.key).ok()
    }
}

/// How the first at sign of `text` is written, and a plus that goes with it.
fn escapes_of(text: &[u8]) -> Option<(&'static str, &'static str)> {
    ESCAPES
        .into_iter()
        .find(|(at, _)| memchr::memmem::find(text, at.as_bytes()).is_some())
}

/// An address without escapes.
pub(super) fn plain_email(value: &[u8]) -> Vec<u8> {
    const SPELLINGS: [(&[u8], u8); 7] = [
        (b"%40", b'@'),
        (b"\\u0040", b'@'),
        (b"&#64;", b'@'),
        (b"%2B", b'+'),
        (b"%2b", b'+'),
        (b"\\u002b", b'+'),
        (b"\\u002B", b'+'),
    ];
    let mut plain = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        match SPELLINGS.iter().find(|(from, _)| rest.starts_with(from)) {
            Some((from, to)) => {
                plain.push(*to);
                rest = rest.get(from.len()..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher() -> TextCipher {
        TextCipher::new([1; 32], [2; 32])
    }

    #[test]
    fn a_token_names_its_detector_and_gives_the_value_back() {
        let token = cipher().tokenize("my-pattern", b"EMP-1234").unwrap();
        let text = String::from_utf8(token.clone()).unwrap();
        assert!(text.starts_with("tok_my-pattern_"), "{text}");
        assert_eq!(cipher().restore(&token).unwrap(), b"EMP-1234");
    }

    #[test]
    fn what_nobody_tokenized_is_not_restored() {
        let token = String::from_utf8(cipher().tokenize("jwt", b"a.b.c").unwrap()).unwrap();
        for forged in [
            token.replace("jwt", "email"),
            token.replace("tok_", "tik_"),
            token.get(..token.len() - 1).unwrap().to_owned(),
            format!("{token}a"),
            "tok_jwt_".to_owned(),
            "tok_jwt_abcdefgh".to_owned(),
            "tok_".to_owned(),
            "tok_@tok.invalid".to_owned(),
            "tok_@".to_owned(),
        ] {
            assert_eq!(cipher().restore(forged.as_bytes()), None, "{forged}");
        }
        assert!(
            TextCipher::new([1; 32], [3; 32])
                .restore(token.as_bytes())
                .is_none_or(|v| v != b"a.b.c")
        );
        assert!(
            TextCipher::new([3; 32], [2; 32])
                .restore(token.as_bytes())
                .is_none()
        );
    }

    #[test]
    fn an_address_token_is_an_address_and_keeps_its_escapes() {
        for (value, at) in [
            ("ada@example.com", "@"),
            ("ada%40example.com", "%40"),
            ("ada.lovelace%2Bx%40mail.example.co.uk", "%40"),
            ("ada\\u0040example.com", "\\u0040"),
            ("ada&#64;example.com", "&#64;"),
        ] {
            let token = cipher().tokenize_email(value.as_bytes()).unwrap();
            let text = String::from_utf8(token.clone()).unwrap();
            let (local, domain) = text.split_once(at).unwrap();
            assert!(
                local.len() <= 64 && domain.len() <= MAX_DOMAIN_BYTES,
                "{text}"
            );
            assert!(
                domain
                    .split('.')
                    .all(|label| (1..=63).contains(&label.len())),
                "{text}"
            );
            assert_eq!(cipher().restore(&token).unwrap(), value.as_bytes());
            assert_eq!(
                cipher()
                    .restore(
                        text.to_uppercase()
                            .replace("TOK_", "tok_")
                            .replace("\\U", "\\u")
                            .as_bytes()
                    )
                    .unwrap(),
                value.as_bytes()
            );
        }
        let plain = cipher().tokenize_email(b"a+b@example.com").unwrap();
        let escaped = cipher().tokenize_email(b"a%2bb%40example.com").unwrap();
        assert_eq!(
            String::from_utf8(plain)
                .unwrap()
                .replace('@', "%40")
                .into_bytes(),
            escaped
        );
    }

    #[test]
    fn long_values_have_no_token_of_their_shape_or_none_at_all() {
        let long = format!("{}@{}example.com", "a".repeat(64), "b.".repeat(60));
        assert_eq!(cipher().tokenize_email(long.as_bytes()), None);
        assert!(cipher().tokenize("email", long.as_bytes()).is_some());
        let longest = vec![b'x'; MAX_TOKEN_VALUE_BYTES];
        let token = cipher().tokenize("p", &longest).unwrap();
        assert_eq!(cipher().restore(&token).unwrap(), longest);
        assert_eq!(
            cipher().tokenize("p", &vec![b'x'; MAX_TOKEN_VALUE_BYTES + 1]),
            None
        );
        assert_eq!(cipher().tokenize("not_a_name", b"x"), None);
    }
}
