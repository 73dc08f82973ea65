//! Keys that sign notes, and their text forms: `vkey` (C2SP signed-note) and `skey` (golang.org/x/mod/sumdb/note).
//!
//! Owns names, key IDs and the two algorithms that this log uses. Refuses others: a key of another algorithm is an error, a signature by one is ignored where notes are opened.
//! Invariant: a key's ID is always computed from its name, algorithm and public key; a text with another ID is refused. Private keys never appear in debug output.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    rand::{SecureRandom as _, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::cosignature::{self, Time};

/// Longest name of a key, in bytes: room for any host name and a path.
pub const MAX_NAME_BYTES: usize = 512;
/// Longest text of a key, in bytes: its words, a name, an ID, and 33 bytes in base64.
const MAX_KEY_TEXT_BYTES: usize = MAX_NAME_BYTES + 128;
/// What a private key's text begins with.
const PRIVATE: &str = "PRIVATE+KEY+";

/// A key's name: not empty, without Unicode spaces, plus signs and control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

/// How a key signs. The number is the note's signature type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Ed25519 over the note's text (C2SP signed-note).
    Ed25519 = 1,
    /// Ed25519 over a time and the note's text (C2SP tlog-cosignature, `cosignature/v1`).
    CosignatureV1 = 4,
}

/// Four bytes that tell keys of one name apart. They are no proof of anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId([u8; 4]);

/// What verifies a signature.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: KeyName,
    id: KeyId,
    algorithm: Algorithm,
    public: [u8; 32],
}

/// What makes a signature.
pub struct SigningKey {
    verifier: VerifierKey,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

/// A text that is no key.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadKey {
    /// The name is empty or has a character that names may not have.
    #[error(
        "a key's name is 1 to {MAX_NAME_BYTES} bytes without spaces, plus signs and control characters"
    )]
    Name,
    /// The text has another form.
    #[error("the text is no key: it has the form {0}")]
    Form(&'static str),
    /// The key signs in another way.
    #[error("signature type {0} is not supported: 1 (Ed25519) and 4 (cosignature/v1) are")]
    Algorithm(u8),
    /// The ID is another key's.
    #[error("the key's ID is {stands}, but its name and bytes give {computed}")]
    Id {
        /// What the text says.
        stands: KeyId,
        /// What it should say.
        computed: KeyId,
    },
    /// The system gave no randomness.
    #[error("the system gives no randomness")]
    Randomness,
}

/// The form of a public key, for errors.
const VERIFIER_FORM: &str = "NAME+8 hex digits+base64";
/// The form of a private key, for errors.
const SIGNING_FORM: &str = "PRIVATE+KEY+NAME+8 hex digits+base64";

impl KeyName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let bad = |c: char| c == '+' || c.is_whitespace() || c.is_control();
        match (1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains(bad) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadKey::Name),
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Algorithm {
    fn of(number: u8) -> Result<Self, BadKey> {
        match number {
            1 => Ok(Self::Ed25519),
            4 => Ok(Self::CosignatureV1),
            other => Err(BadKey::Algorithm(other)),
        }
    }
}

impl KeyId {
    /// The ID that comes first in a signature.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// Big-endian, as signatures carry it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }

    /// SHA-256 of name, newline, algorithm and public key; the first four bytes (C2SP signed-note).
    fn of(name: &KeyName, algorithm: Algorithm, public: &[u8; 32]) -> Self {
        let digest = Sha256::new()
            .chain_update(&name.0)
            .chain_update([b'\n', algorithm as u8])
            .chain_update(public)
            .finalize();
        let [a, b, c, d, ..]: [u8; 32] = digest.into();
        Self([a, b, c, d])
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl VerifierKey {
    /// A key by its parts. `public` is encoded as RFC 8032 has it; bytes that are no point verify nothing.
    #[must_use]
    pub fn new(name: KeyName, algorithm: Algorithm, public: [u8; 32]) -> Self {
        Self {
            id: KeyId::of(&name, algorithm, &public),
            name,
            algorithm,
            public,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// Its ID.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// How it signs.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether these bytes, which follow the key ID, are this key's signature of a note's text. Gives the time of a cosignature, else none.
    pub(crate) fn verify(&self, text: &str, signature: &[u8]) -> Option<Option<Time>> {
        match self.algorithm {
            Algorithm::Ed25519 => self.verify_raw(text.as_bytes(), signature).then_some(None),
            Algorithm::CosignatureV1 => {
                let (time, signature) = cosignature::split(signature)?;
                let message = cosignature::message(text, time);
                self.verify_raw(message.as_bytes(), signature)
                    .then_some(Some(time))
            }
        }
    }

    fn verify_raw(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(message, signature)
            .is_ok()
    }
}

impl FromStr for VerifierKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let (name, id, algorithm, public) = parts(text, VERIFIER_FORM)?;
        agree(Self::new(name, algorithm, public), id)
    }
}

impl fmt::Display for VerifierKey {
    /// The `vkey`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let material = material(self.algorithm, &self.public);
        write!(f, "{}+{}+{material}", self.name, self.id)
    }
}

impl SigningKey {
    /// A key from its 32 secret bytes (RFC 8032 section 5.1.5).
    #[must_use]
    pub fn from_seed(name: KeyName, algorithm: Algorithm, seed: [u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are a seed");
        let public = pair.public_key().as_ref().try_into();
        let public = public.expect("a public key of Ed25519 has 32 bytes");
        Self {
            verifier: VerifierKey::new(name, algorithm, public),
            seed,
            pair,
        }
    }

    /// A new key.
    ///
    /// # Errors
    /// [`BadKey::Randomness`].
    pub fn generate(name: KeyName, algorithm: Algorithm) -> Result<Self, BadKey> {
        let mut seed = [0; 32];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_| BadKey::Randomness)?;
        Ok(Self::from_seed(name, algorithm, seed))
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The `skey`. It is a secret.
    #[must_use]
    pub fn to_secret_text(&self) -> String {
        let material = material(self.verifier.algorithm, &self.seed);
        let VerifierKey { name, id, .. } = &self.verifier;
        format!("{PRIVATE}{name}+{id}+{material}")
    }

    /// What follows the key ID in a signature of this text. `time` goes into cosignatures only.
    pub(crate) fn sign(&self, text: &str, time: Time) -> Vec<u8> {
        match self.verifier.algorithm {
            Algorithm::Ed25519 => self.pair.sign(text.as_bytes()).as_ref().to_vec(),
            Algorithm::CosignatureV1 => {
                let message = cosignature::message(text, time);
                cosignature::join(time, self.pair.sign(message.as_bytes()).as_ref())
            }
        }
    }
}

impl FromStr for SigningKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        let rest = text
            .strip_prefix(PRIVATE)
            .ok_or(BadKey::Form(SIGNING_FORM))?;
        let (name, id, algorithm, seed) = parts(rest, SIGNING_FORM)?;
        let key = Self::from_seed(name, algorithm, seed);
        agree(key.verifier.clone(), id)?;
        Ok(key)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifier)
    }
}

fn parts(text: &str, form: &'static str) -> Result<(KeyName, KeyId, Algorithm, [u8; 32]), BadKey> {
    let bad = BadKey::Form(form);
    if text.len() > MAX_KEY_TEXT_BYTES {
        return Err(bad);
    }
    // Base64 has plus signs too: only the first two of the text part it.
    let mut three = text.splitn(3, '+');
    let (Some(name), Some(id), Some(material)) = (three.next(), three.next(), three.next()) else {
        return Err(bad);
    };
    let name = name.parse()?;
    let mut id_bytes = [0; 4];
    if id.bytes().any(|b| b.is_ascii_uppercase())
        || hex::decode_to_slice(id, &mut id_bytes).is_err()
    {
        return Err(bad);
    }
    let material = STANDARD.decode(material).map_err(|_| BadKey::Form(form))?;
    let (number, bytes) = material.split_first().ok_or(BadKey::Form(form))?;
    let algorithm = Algorithm::of(*number)?;
    let bytes = bytes.try_into().map_err(|_| bad)?;
    Ok((name, KeyId(id_bytes), algorithm, bytes))
}

fn agree(key: VerifierKey, stands: KeyId) -> Result<VerifierKey, BadKey> {
    match key.id == stands {
        true => Ok(key),
        false => Err(BadKey::Id {
            stands,
            computed: key.id,
        }),
    }
}

fn material(algorithm: Algorithm, bytes: &[u8; 32]) -> String {
    let mut material = vec![algorithm as u8];
    material.extend_from_slice(bytes);
    STANDARD.encode(material)
}

#[cfg(test)]
mod tests;
