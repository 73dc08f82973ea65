//! SCRAM (RFC 5802) with SHA-256 (RFC 7677) and SHA-512, the client's side, without channel binding, which Kafka has not.
//!
//! Invariant: the password leaves only as a proof, and a broker that asks for so little work that the proof gives it away, or for so much that it stalls us, gets none. Passwords are taken as they are: Kafka prepares
//! them no more than that.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

/// Fewest iterations: what Kafka itself asks for at least, and RFC 7677 section 4.
const FEWEST_ITERATIONS: u32 = 4_096;
/// Most iterations: three times the most that Kafka sets. A broker must not choose how long we compute.
const MOST_ITERATIONS: u32 = 50_000;
/// Longest salt, in bytes.
const LONGEST_SALT: usize = 1_024;
/// Bytes of our nonce.
const NONCE_BYTES: usize = 24;

/// Why a login goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    /// It is not what RFC 5802 has.
    #[error("the broker's part of the login cannot be read")]
    Malformed,
    /// Too few or too many.
    #[error(
        "the broker asks for {0} iterations of SCRAM, and only {FEWEST_ITERATIONS} to {MOST_ITERATIONS} are done"
    )]
    Iterations(u32),
    /// It does not know the password itself.
    #[error("the broker cannot prove that it knows the password")]
    Unproven,
}

/// The hash of a mechanism.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

/// A login that has begun.
pub(super) struct Scram {
    hash: Hash,
    nonce: String,
    bare: String,
    password: Vec<u8>,
}

/// What the broker must show at the end.
pub(super) struct Expected(Vec<u8>);

impl Scram {
    /// Begins; `None` if the system has no randomness to give.
    pub(super) fn begin(hash: Hash, username: &str, password: &str) -> Option<Self> {
        let mut nonce = [0_u8; NONCE_BYTES];
        rand::fill(&mut nonce).ok()?;
        Some(Self::with_nonce(
            hash,
            username,
            password,
            STANDARD.encode(nonce),
        ))
    }

    fn with_nonce(hash: Hash, username: &str, password: &str, nonce: String) -> Self {
        let name = username.replace('=', "=3D").replace(',', "=2C");
        Self {
            hash,
            bare: format!("n={name},r={nonce}"),
            nonce,
            password: password.as_bytes().to_vec(),
        }
    }

    /// client-first-message.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.bare)
    }

    /// client-final-message for the broker's server-first-message.
    pub(super) fn last(&self, server_first: &[u8]) -> Result<(String, Expected), Refusal> {
        let server_first = std::str::from_utf8(server_first).map_err(|_| Refusal::Malformed)?;
        let (nonce, salt, iterations) = parts(server_first).ok_or(Refusal::Malformed)?;
        // A nonce that adds nothing is an echo.
        if !nonce.starts_with(&self.nonce) || nonce.len() <= self.nonce.len() {
            return Err(Refusal::Malformed);
        }
        let count = NonZeroU32::new(iterations)
            .filter(|count| (FEWEST_ITERATIONS..=MOST_ITERATIONS).contains(&count.get()))
            .ok_or(Refusal::Iterations(iterations))?;
        let salted = self.hash.salted(&self.password, &salt, count);
        let client_key = self.hash.hmac(&salted, b"Client Key");
        let stored_key = self.hash.digest(&client_key);
        let without_proof = format!("c=biws,r={nonce}");
        let all = format!("{},{server_first},{without_proof}", self.bare);
        let signature = self.hash.hmac(&stored_key, all.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(key, signature)| key ^ signature)
            .collect();
        let server_key = self.hash.hmac(&salted, b"Server Key");
        let expected = Expected(self.hash.hmac(&server_key, all.as_bytes()));
        Ok((
            format!("{without_proof},p={}", STANDARD.encode(proof)),
            expected,
        ))
    }
}

impl Expected {
    /// Whether the broker's server-final-message shows that it knows the password.
    pub(super) fn check(&self, server_final: &[u8]) -> Result<(), Refusal> {
        let text = std::str::from_utf8(server_final).map_err(|_| Refusal::Malformed)?;
        let value = text.split(',').find_map(|part| part.strip_prefix("v="));
        let shown = value.and_then(|value| STANDARD.decode(value).ok());
        let shown = shown.ok_or(Refusal::Unproven)?;
        constant_time::verify_slices_are_equal(&self.0, &shown).map_err(|_| Refusal::Unproven)
    }
}

impl Hash {
    fn salted(self, password: &[u8], salt: &[u8], count: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, digest::SHA256_OUTPUT_LEN),
            Self::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, digest::SHA512_OUTPUT_LEN),
        };
        let mut salted = vec![0; length];
        pbkdf2::derive(algorithm, count, salt, password, &mut salted);
        salted
    }

    fn hmac(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), text)
            .as_ref()
            .to_vec()
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, bytes).as_ref().to_vec()
    }
}

/// `r=`, `s=` and `i=` of server-first-message, in this order and before all extensions.
fn parts(text: &str) -> Option<(&str, Vec<u8>, u32)> {
    let mut parts = text.split(',');
    let nonce = parts.next()?.strip_prefix("r=")?;
    let salt = STANDARD.decode(parts.next()?.strip_prefix("s=")?).ok()?;
    let iterations = parts.next()?.strip_prefix("i=")?.parse().ok()?;
    (!salt.is_empty() && salt.len() <= LONGEST_SALT).then_some((nonce, salt, iterations))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn pencil() -> Scram {
        Scram::with_nonce(Hash::Sha256, "user", "pencil", NONCE.to_owned())
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_ours() {
        let scram = pencil();
        assert_eq!(scram.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (last, expected) = scram.last(FIRST.as_bytes()).unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let right = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(expected.check(right), Ok(()));
        for wrong in [
            &b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="[..],
            b"v=",
            b"e=other-error",
            b"",
        ] {
            assert_eq!(expected.check(wrong), Err(Refusal::Unproven));
        }
    }

    #[test]
    fn a_broker_chooses_neither_our_nonce_nor_how_long_we_compute() {
        let with = |iterations: &str| FIRST.replace("i=4096", iterations);
        let scram = pencil();
        let refused = |first: &str| scram.last(first.as_bytes()).err();
        assert_eq!(refused(&with("i=1")), Some(Refusal::Iterations(1)));
        assert_eq!(
            refused(&with("i=4000000000")),
            Some(Refusal::Iterations(4_000_000_000))
        );
        for first in [
            with("i=0x1000"),
            with("4096"),
            FIRST.replace("rOpr", "xOpr"),
            format!("r={NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
            FIRST.replace("W22ZaJ0SNY7soEsUEjb6gQ==", ""),
            String::new(),
        ] {
            assert_eq!(refused(&first), Some(Refusal::Malformed), "{first}");
        }
        let odd = Scram::with_nonce(Hash::Sha512, "a=b,c", "", "x".to_owned());
        assert_eq!(odd.first(), "n,,n=a=3Db=2Cc,r=x");
    }
}
