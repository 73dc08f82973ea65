//! Tiles (C2SP tlog-tiles): the tree and its entries as files that never change once they are full.
//!
//! Owns their paths and bytes, which tiles a tree of some size has, and reading a tree out of them. Refuses files and sockets: a [`Source`] has the bytes. Invariant: what a tile claims to be
//! (its width) and what its bytes are agree, or it is refused.

mod builder;
mod path;
mod proved;
mod tree;

use thiserror::Error;

pub use builder::{Builder, Full};
pub use path::{BadPath, Row, Tile, Width};
pub use proved::{Included, NotIncluded};
pub use tree::{Source, TileTree, TreeError};

use crate::merkle::Hash;

/// Hashes or entries of a full tile.
pub const WIDTH: u16 = 256;
/// Levels of the tree in a row of tiles: the logarithm of [`WIDTH`].
pub const HEIGHT: u8 = 8;
/// Longest bytes of a tile: a full bundle of the longest entries.
pub const MAX_TILE_BYTES: usize = (u16::MAX as usize + ENTRY_LENGTH_BYTES) * WIDTH as usize;

/// Bytes of an entry's length.
const ENTRY_LENGTH_BYTES: usize = 2;

/// Bytes that are no tile of the width asked for.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadTile {
    /// A tile of hashes has 32 bytes for each.
    #[error("a tile of {width} hashes has {} bytes, not {bytes}", usize::from(*.width) * Hash::BYTES)]
    Hashes {
        /// Hashes that it should have.
        width: u16,
        /// Bytes that it has.
        bytes: usize,
    },
    /// The lengths in a bundle lead elsewhere than to its end.
    #[error("the bundle is not {width} entries with their lengths")]
    Entries {
        /// Entries that it should have.
        width: u16,
    },
}

impl Tile {
    /// Cuts the bytes of a wider tile in the same place down to this one's.
    pub fn cut(self, bytes: &mut Vec<u8>) {
        let width = usize::from(self.width.get());
        bytes.truncate(match self.row {
            Row::Hashes(_) => width.saturating_mul(Hash::BYTES),
            Row::Entries => entries_length(bytes, width),
        });
    }
}

/// How long the first `count` entries of a bundle are.
fn entries_length(bundle: &[u8], count: usize) -> usize {
    (0..count).fold(0, |at: usize, _| {
        let length = bundle.get(at..).and_then(<[u8]>::first_chunk::<2>);
        let length = length.map_or(0, |length| {
            usize::from(u16::from_be_bytes(*length)).saturating_add(ENTRY_LENGTH_BYTES)
        });
        at.saturating_add(length)
    })
}

/// An entry that is longer than 65,535 bytes.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an entry has at most 65535 bytes")]
pub struct EntryTooLong;

/// The hashes of a tile.
///
/// # Errors
/// [`BadTile::Hashes`].
pub fn read_hashes(bytes: &[u8], width: Width) -> Result<Vec<Hash>, BadTile> {
    let (hashes, rest) = bytes.as_chunks::<{ Hash::BYTES }>();
    match hashes.len() == usize::from(width.get()) && rest.is_empty() {
        true => Ok(hashes.iter().copied().map(Hash::from_bytes).collect()),
        false => Err(BadTile::Hashes {
            width: width.get(),
            bytes: bytes.len(),
        }),
    }
}

/// The bytes of a tile.
#[must_use]
pub fn write_hashes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// The entries of a bundle.
///
/// # Errors
/// [`BadTile::Entries`].
pub fn read_entries(bytes: &[u8], width: Width) -> Result<Vec<&[u8]>, BadTile> {
    let bad = BadTile::Entries { width: width.get() };
    let mut entries = Vec::new();
    let mut rest = bytes;
    for _ in 0..width.get() {
        let Some((entry, after)) = first_entry(rest) else {
            return Err(bad);
        };
        entries.push(entry);
        rest = after;
    }
    match rest.is_empty() {
        true => Ok(entries),
        false => Err(bad),
    }
}

fn first_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<ENTRY_LENGTH_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Appends an entry to a bundle.
///
/// # Errors
/// [`EntryTooLong`]; the bundle is as it was.
pub fn write_entry(bundle: &mut Vec<u8>, entry: &[u8]) -> Result<(), EntryTooLong> {
    let length = u16::try_from(entry.len()).map_err(|_| EntryTooLong)?;
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
    Ok(())
}

#[cfg(test)]
mod tests;
