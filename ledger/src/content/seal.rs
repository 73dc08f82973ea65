//! How content is sealed: AES-256-GCM (NIST SP 800-38D) over zstd (RFC 8878) of its bytes, bound to the record's leaf.
//!
//! The nonce is random for each record (SP 800-38D section 8.2.2, which allows 2^32 records under one key): a number would be used twice where a record was being written when the machine stopped and another one came in its place.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    error::Unspecified,
    rand::{SecureRandom as _, SystemRandom},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chaperone_crds::chain::MAX_RECORD_BYTES;

use crate::leaf::Leaf;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;

/// A key of content.
pub(crate) struct Key(RandomizedNonceKey);

impl Key {
    /// Of these bytes.
    pub(crate) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let key = RandomizedNonceKey::new(&AES_256_GCM, bytes);
        Self(key.expect("a key of AES-256 has 32 bytes"))
    }

    /// Bytes for a new one, and eight more for its name.
    pub(crate) fn random() -> Result<([u8; KEY_BYTES], [u8; 8]), Unspecified> {
        let (mut key, mut name) = ([0; KEY_BYTES], [0; 8]);
        let random = SystemRandom::new();
        random.fill(&mut key)?;
        random.fill(&mut name)?;
        Ok((key, name))
    }

    /// Seals what was compressed already: nonce, ciphertext and tag, in base64.
    pub(crate) fn seal(&self, leaf: &Leaf, mut bytes: Vec<u8>) -> Result<String, Unspecified> {
        let leaf = leaf.to_string();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(leaf.as_bytes()), &mut bytes)?;
        let nonce: &[u8; NONCE_LEN] = nonce.as_ref();
        bytes.splice(0..0, *nonce);
        Ok(STANDARD.encode(bytes))
    }

    /// Opens what was sealed. None of what was not sealed by this key for this record.
    pub(crate) fn open(&self, leaf: &Leaf, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = STANDARD.decode(sealed).ok()?;
        let (nonce, within) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let leaf = leaf.to_string();
        let opened = self
            .0
            .open_in_place(nonce, Aad::from(leaf.as_bytes()), within);
        zstd::bulk::decompress(opened.ok()?, MAX_RECORD_BYTES).ok()
    }
}
