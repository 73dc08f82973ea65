//! Where an answer ended, so that the next one goes on there.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// `1.NEXT.SIZE`: go on at leaf NEXT, of a log of SIZE leaves. Records that came after the first page are in none of the later ones: so pages neither repeat nor leave out a record while records come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor {
    /// The first leaf that was not looked at.
    pub next: u64,
    /// Leaves that were indexed when the first page was made.
    pub size: u64,
}

/// A text that is no [`PageCursor`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("cursor is what an answer before gave as its cursor")]
pub struct BadCursor;

impl fmt::Display for PageCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}.{}", self.next, self.size)
    }
}

impl FromStr for PageCursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let mut words = text.split('.');
        let is_ours = words.next() == Some("1");
        let mut word = || words.next()?.parse::<u64>().ok();
        let (next, size) = (word(), word());
        let rest = words.next();
        match (next, size, rest) {
            (Some(next), Some(size), None) if is_ours => Some(Self { next, size }),
            _ => None,
        }
        // One form only: nothing but what an answer gave.
        .filter(|cursor| cursor.to_string() == text)
        .ok_or(BadCursor)
    }
}
