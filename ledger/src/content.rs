//! Content of records, sealed: what a record says beyond what is proved can be made unreadable for good by destroying one key, in every copy that has no key.
//!
//! Owns the names of keys, how content is sealed under one, and the reading end of the folder that holds them. Refuses to make and to destroy keys, which is the store's. Invariant: content is given only where it is what the
//! record's digest says.

mod day;
mod keys;
mod seal;

use std::{fmt, str::FromStr};

use thiserror::Error;

pub use day::{BadDay, Day};
pub use keys::{Content, Entry, Keys};
pub(crate) use keys::{MAX_SESSION_BYTES, days, entries, file};
pub(crate) use seal::Key;

/// Names a key: the UTC day for which it was made, and eight random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    day: Day,
    name: [u8; 8],
}

/// A text that is no [`KeyId`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error(
    "a key is named by a day, a hyphen and 16 lower-case hex digits, like 20261129-0011223344556677"
)]
pub struct BadKeyId;

impl KeyId {
    pub(crate) fn new(day: Day, name: [u8; 8]) -> Self {
        Self { day, name }
    }

    /// The day for which it was made.
    #[must_use]
    pub fn day(self) -> Day {
        self.day
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.day, hex::encode(self.name))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyId {
    type Err = BadKeyId;

    fn from_str(text: &str) -> Result<Self, BadKeyId> {
        let (day, name) = text.split_once('-').ok_or(BadKeyId)?;
        let day = day.parse().map_err(|_| BadKeyId)?;
        let mut bytes = [0; 8];
        if name.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(BadKeyId);
        }
        hex::decode_to_slice(name, &mut bytes).map_err(|_| BadKeyId)?;
        Ok(Self { day, name: bytes })
    }
}

#[cfg(test)]
mod tests;
