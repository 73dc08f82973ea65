//! Where a tile is: `tile/LEVEL/INDEX`, `tile/entries/INDEX`, with `.p/WIDTH` where it is not full.

use std::{fmt, num::NonZeroU16, str::FromStr};

use thiserror::Error;

use super::{HEIGHT, WIDTH};
use crate::checkpoint::decimal;

/// Highest level of a tile that a path may name.
const MAX_LEVEL: u8 = 63;
/// Longest path, in bytes: the words, a level, seven groups of digits, a width.
const MAX_PATH_BYTES: usize = 64;

/// How many hashes or entries a tile has: 1 to 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Width(NonZeroU16);

/// What a tile is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Row {
    /// Hashes of subtrees with 256^level leaves each.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// One tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// In which row.
    pub row: Row,
    /// Which of the row, from 0.
    pub index: u64,
    /// How much of it is there.
    pub width: Width,
}

/// A path that names no tile.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the path names no tile")]
pub struct BadPath;

impl Width {
    /// A full tile.
    pub const FULL: Self = Self(NonZeroU16::new(WIDTH).expect("the width is not zero"));

    /// This many, if a tile can have so many.
    #[must_use]
    pub fn new(width: u16) -> Option<Self> {
        NonZeroU16::new(width)
            .filter(|width| width.get() <= WIDTH)
            .map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

impl Tile {
    /// The tile of this row and index in a tree of `size` leaves; none if it would be empty.
    #[must_use]
    pub fn within(row: Row, index: u64, size: u64) -> Option<Self> {
        let before = index.checked_mul(u64::from(WIDTH))?;
        let there = row.length(size).checked_sub(before)?;
        let width = Width::new(u16::try_from(there.min(u64::from(WIDTH))).ok()?)?;
        Some(Self { row, index, width })
    }

    /// The tiles of a tree of `size` leaves that are not full, entries first: at most one for each row.
    pub fn partial(size: u64) -> impl Iterator<Item = Self> {
        Row::all().filter_map(move |row| {
            let index = row.length(size) / u64::from(WIDTH);
            Self::within(row, index, size)
        })
    }

    /// Whether nothing can be added to it any more.
    #[must_use]
    pub fn is_full(self) -> bool {
        self.width == Width::FULL
    }
}

impl Row {
    /// All rows that a tree of less than 2^64 leaves can have.
    pub fn all() -> impl Iterator<Item = Self> {
        let levels = u8::try_from(u64::BITS).unwrap_or(u8::MAX) / HEIGHT;
        [Self::Entries]
            .into_iter()
            .chain((0..levels).map(Self::Hashes))
    }

    /// How many hashes or entries the row has in a tree of `size` leaves.
    #[must_use]
    pub fn length(self, size: u64) -> u64 {
        match self {
            Self::Entries => size,
            Self::Hashes(level) => size
                .checked_shr(u32::from(level).saturating_mul(u32::from(HEIGHT)))
                .unwrap_or(0),
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            Row::Hashes(level) => write!(f, "tile/{level}/")?,
            Row::Entries => f.write_str("tile/entries/")?,
        }
        let mut groups = vec![self.index % 1000];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(rest % 1000);
            rest /= 1000;
        }
        while let Some(group) = groups.pop() {
            let (before, after) = if groups.is_empty() {
                ("", "")
            } else {
                ("x", "/")
            };
            write!(f, "{before}{group:03}{after}")?;
        }
        match self.is_full() {
            true => Ok(()),
            false => write!(f, ".p/{}", self.width.get()),
        }
    }
}

impl FromStr for Tile {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, BadPath> {
        if text.len() > MAX_PATH_BYTES {
            return Err(BadPath);
        }
        let rest = text.strip_prefix("tile/").ok_or(BadPath)?;
        let (row, rest) = rest.split_once('/').ok_or(BadPath)?;
        let row = match row {
            "entries" => Row::Entries,
            level => Row::Hashes(parse_level(level)?),
        };
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, parse_width(width)?),
            None => (rest, Width::FULL),
        };
        let tile = Self {
            row,
            index: parse_index(index)?,
            width,
        };
        // One tile, one path: an index with groups that it does not need is another text.
        match tile.to_string() == text {
            true => Ok(tile),
            false => Err(BadPath),
        }
    }
}

fn parse_level(text: &str) -> Result<u8, BadPath> {
    let level = decimal(text).map_err(|_| BadPath)?;
    let level = u8::try_from(level).map_err(|_| BadPath)?;
    if level <= MAX_LEVEL {
        Ok(level)
    } else {
        Err(BadPath)
    }
}

fn parse_width(text: &str) -> Result<Width, BadPath> {
    let width = decimal(text).map_err(|_| BadPath)?;
    let width = u16::try_from(width).map_err(|_| BadPath)?;
    Width::new(width)
        .filter(|width| *width != Width::FULL)
        .ok_or(BadPath)
}

fn parse_index(text: &str) -> Result<u64, BadPath> {
    let mut index = 0_u64;
    for group in text.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadPath);
        }
        let value = digits.parse().map_err(|_| BadPath)?;
        let shifted = index.checked_mul(1000).ok_or(BadPath)?;
        index = shifted.checked_add(value).ok_or(BadPath)?;
    }
    Ok(index)
}
