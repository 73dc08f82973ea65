//! What a witness signs (C2SP tlog-cosignature, `cosignature/v1`): a time and a checkpoint.
//!
//! Owns the bytes of such a signature and of the message under it. Refuses clocks: the time comes from the caller. Invariant: a [`Time`] never exceeds 2^63 - 1.

use std::fmt;

use thiserror::Error;

/// Bytes of the time before a signature.
const TIME_BYTES: usize = 8;

/// Seconds since 1970 (POSIX), at most 2^63 - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

/// More seconds than a cosignature may carry.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a cosignature's time is at most 2^63 - 1 seconds")]
pub struct BadTime;

impl Time {
    /// A time by its seconds since 1970.
    ///
    /// # Errors
    /// [`BadTime`].
    pub fn new(seconds: u64) -> Result<Self, BadTime> {
        match i64::try_from(seconds) {
            Ok(_) => Ok(Self(seconds)),
            Err(_) => Err(BadTime),
        }
    }

    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is signed: a header that no other signature's message begins with, the time, the note's text.
pub(crate) fn message(text: &str, time: Time) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

/// `timestamped_signature`: the time, big-endian, and the signature.
pub(crate) fn join(time: Time, signature: &[u8]) -> Vec<u8> {
    [&time.0.to_be_bytes(), signature].concat()
}

/// The other way round.
pub(crate) fn split(bytes: &[u8]) -> Option<(Time, &[u8])> {
    let (time, signature) = bytes.split_first_chunk::<TIME_BYTES>()?;
    let time = Time::new(u64::from_be_bytes(*time)).ok()?;
    Some((time, signature))
}
