//! Days, in UTC.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use thiserror::Error;

/// A UTC day, written `YYYYMMDD`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

/// A text that is no [`Day`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a day is eight digits, like 20261129")]
pub struct BadDay;

impl Day {
    /// The day of this time.
    #[must_use]
    pub fn of(time: Timestamp) -> Self {
        Self(time.to_zoned(TimeZone::UTC).date())
    }

    /// When it begins.
    #[must_use]
    pub fn begins(self) -> Timestamp {
        let midnight = self.0.to_zoned(TimeZone::UTC);
        midnight.map_or(Timestamp::MAX, |midnight| midnight.timestamp())
    }

    /// When the next one begins.
    #[must_use]
    pub fn ends(self) -> Timestamp {
        let begins = self.begins();
        begins
            .checked_add(SignedDuration::from_hours(24))
            .unwrap_or(Timestamp::MAX)
    }
}

impl Default for Day {
    /// The day of the Unix epoch.
    fn default() -> Self {
        Self::of(Timestamp::UNIX_EPOCH)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.0;
        write!(f, "{:04}{:02}{:02}", date.year(), date.month(), date.day())
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Day {
    type Err = BadDay;

    fn from_str(text: &str) -> Result<Self, BadDay> {
        if text.len() != 8 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadDay);
        }
        let number = |from: usize, to: usize| text.get(from..to).ok_or(BadDay);
        let year = number(0, 4)?.parse().map_err(|_| BadDay)?;
        let month = number(4, 6)?.parse().map_err(|_| BadDay)?;
        let day = number(6, 8)?.parse().map_err(|_| BadDay)?;
        Date::new(year, month, day).map(Self).map_err(|_| BadDay)
    }
}
