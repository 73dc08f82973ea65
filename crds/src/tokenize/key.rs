//! Keys. None is ever printed.

use std::fmt;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;

use super::{card::CardCipher, text::TextCipher};
use crate::detect::Builtin;

/// Hex digits of a hash that a placeholder shows: 64 bits, so that two of a million values agree once in 37 million namespaces.
const HASH_HEX_DIGITS: usize = 16;

/// The key of a namespace, 32 bytes: hex on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct MaskKey([u8; 32]);

/// What was sent as a key is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mask key has 64 hex digits")]
pub struct MaskKeyError;

impl MaskKey {
    /// A key of these bytes, which must be random or derived from what is.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key of a namespace, from the secret that the operator keeps: HMAC-SHA-256 under the secret, of a label and the name. From a
    /// namespace's key neither the secret nor another namespace's key can be found.
    #[must_use]
    pub fn derive(secret: &[u8], namespace: &str) -> Self {
        Self(prf(
            secret,
            &[b"chaperone mask key 1", namespace.as_bytes()],
        ))
    }

    fn sub_key(&self, label: &str) -> [u8; 32] {
        prf(&self.0, &[label.as_bytes()])
    }
}

impl fmt::Debug for MaskKey {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaskKey").finish_non_exhaustive()
    }
}

impl Serialize for MaskKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for MaskKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        // The error must not cite what was sent.
        hex::decode_to_slice(text.as_bytes(), &mut bytes)
            .map_err(|_| serde::de::Error::custom(MaskKeyError))?;
        Ok(Self(bytes))
    }
}

/// What makes and restores the tokens of one namespace. Immutable; shared by all streams.
pub struct TokenKey {
    hash: [u8; 32],
    text: TextCipher,
    card: CardCipher,
}

impl fmt::Debug for TokenKey {
    /// Never prints the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").finish_non_exhaustive()
    }
}

impl TokenKey {
    /// Expands a namespace's key: one key of its own for each purpose.
    #[must_use]
    pub fn new(key: &MaskKey) -> Self {
        Self {
            hash: key.sub_key("hash"),
            text: TextCipher::new(key.sub_key("text mac"), key.sub_key("text cipher")),
            card: CardCipher::new(&key.sub_key("card")),
        }
    }

    /// The token that stands for `value`, which `detector` found. Equal values of one detector have equal tokens. A value that is such a
    /// token already stays.
    ///
    /// `None` when the value is longer than [`super::MAX_TOKEN_VALUE_BYTES`], or `detector` no detector's or pattern's name.
    #[must_use]
    pub fn tokenize(&self, detector: &str, value: &[u8]) -> Option<Vec<u8>> {
        if self.restore(value).is_some() {
            return Some(value.to_vec());
        }
        if detector == Builtin::CreditCard.name()
            && let Some(token) = self.card.tokenize(value)
        {
            return Some(token);
        }
        if detector == Builtin::Email.name()
            && let Some(token) = self.text.tokenize_email(value)
        {
            return Some(token);
        }
        self.text.tokenize(detector, value)
    }

    /// The value that `token` stands for; `None` when it is no token of this namespace. Escapes in an address (`%40`) are written as in
    /// the token.
    #[must_use]
    pub fn restore(&self, token: &[u8]) -> Option<Vec<u8>> {
        self.text
            .restore(token)
            .or_else(|| self.card.restore(token))
    }

    /// 16 hex digits that are equal for equal values of one detector, and from which nobody can find the value without the key.
    #[must_use]
    pub fn hash(&self, detector: &str, value: &[u8]) -> String {
        let value = canonical(detector, value);
        let mut hash = hex::encode(prf(&self.hash, &[detector.as_bytes(), &value]));
        hash.truncate(HASH_HEX_DIGITS);
        hash
    }

    /// Whether these digits, with or without separators, are a card token.
    pub(crate) fn is_card_token(&self, digits: &[u8]) -> bool {
        self.card.restore(digits).is_some()
    }
}

/// One spelling for all that mean the same: digits of a card without separators, an address without escapes.
fn canonical(detector: &str, value: &[u8]) -> Vec<u8> {
    if detector == Builtin::CreditCard.name() {
        return value.iter().copied().filter(u8::is_ascii_digit).collect();
    }
    if detector == Builtin::Email.name() {
        return super::text::plain_email(value);
    }
    value.to_vec()
}

/// HMAC-SHA-256 (RFC 2104) over parts, each after its length, so that no two lists of parts look alike.
fn prf(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        TokenKey::new(&MaskKey::derive(b"secret", "agents"))
    }

    #[test]
    fn keys_are_never_printed() {
        let key = MaskKey::new([0x41; 32]);
        assert_eq!(format!("{key:?}"), "MaskKey { .. }");
        assert_eq!(format!("{:?}", TokenKey::new(&key)), "TokenKey { .. }");
        let error = serde_json::from_str::<MaskKey>("\"c0ffee\"").unwrap_err();
        assert!(!error.to_string().contains("c0ffee"), "{error}");
    }

    #[test]
    fn a_key_survives_the_wire() {
        let key = MaskKey::derive(b"secret", "agents");
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json.len(), 66);
        assert_eq!(serde_json::from_str::<MaskKey>(&json).unwrap(), key);
    }

    #[test]
    fn each_namespace_has_its_own_tokens() {
        let other = TokenKey::new(&MaskKey::derive(b"secret", "other"));
        for (detector, value) in [
            ("email", "ada@example.com"),
            ("creditCard", "4111 1111 1111 1111"),
            ("jwt", "a.b.c"),
        ] {
            let token = key().tokenize(detector, value.as_bytes()).unwrap();
            assert_eq!(key().tokenize(detector, value.as_bytes()).unwrap(), token);
            assert_eq!(key().restore(&token).unwrap(), value.as_bytes());
            assert_ne!(other.restore(&token), Some(value.as_bytes().to_vec()));
            assert_ne!(other.tokenize(detector, value.as_bytes()).unwrap(), token);
        }
    }

    #[test]
    fn a_token_of_a_token_is_the_token() {
        let key = key();
        for (detector, value) in [
            ("email", "ada@example.com"),
            ("creditCard", "4111111111111111"),
        ] {
            let token = key.tokenize(detector, value.as_bytes()).unwrap();
            assert_eq!(key.tokenize(detector, &token).unwrap(), token);
        }
    }

    #[test]
    fn a_hash_is_the_same_for_all_spellings() {
        let key = key();
        let hash = key.hash("creditCard", b"4111111111111111");
        assert_eq!(hash.len(), HASH_HEX_DIGITS);
        assert_eq!(key.hash("creditCard", b"4111-1111 1111-1111"), hash);
        assert_eq!(
            key.hash("email", b"ada%40example.com"),
            key.hash("email", b"ada@example.com")
        );
        assert_ne!(key.hash("email", b"a@b.cd"), key.hash("other", b"a@b.cd"));
    }
}
