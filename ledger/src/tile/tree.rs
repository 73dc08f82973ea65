//! A tree read out of its tiles.

use thiserror::Error;

use super::{BadTile, HEIGHT, Row, Tile, WIDTH, builder::subtree_root, read_hashes};
use crate::merkle::{Hash, Subtrees};

/// Whoever has the bytes of tiles: a folder, a server, memory.
pub trait Source {
    /// Why bytes could not be had.
    type Error;

    /// The bytes of this tile. Where it is not full and the full one exists, the beginning of that may be given.
    ///
    /// # Errors
    /// The source's.
    fn read(&self, tile: Tile) -> Result<Vec<u8>, Self::Error>;
}

/// The tree of the first `size` leaves. What it says is as good as the tiles: only a root that a checkpoint confirms proves anything.
#[derive(Clone, Copy, Debug)]
pub struct TileTree<'a, S> {
    source: &'a S,
    size: u64,
}

/// Why a hash could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TreeError<E> {
    /// The tree has no such subtree.
    #[error("the tree has no such subtree")]
    Outside,
    /// The tile is none.
    #[error("{tile}: {fault}")]
    Bad {
        /// Which.
        tile: Tile,
        /// What is wrong.
        fault: BadTile,
    },
    /// The tile could not be had.
    #[error("{tile}: {error}")]
    Source {
        /// Which.
        tile: Tile,
        /// Why.
        error: E,
    },
}

impl<'a, S: Source> TileTree<'a, S> {
    /// The tree of this size.
    #[must_use]
    pub fn new(source: &'a S, size: u64) -> Self {
        Self { source, size }
    }

    /// The hashes of a tile as wide as this tree has it.
    ///
    /// # Errors
    /// [`TreeError`].
    pub fn hashes(&self, level: u8, index: u64) -> Result<Vec<Hash>, TreeError<S::Error>> {
        let tile = Tile::within(Row::Hashes(level), index, self.size).ok_or(TreeError::Outside)?;
        let bytes = self
            .source
            .read(tile)
            .map_err(|error| TreeError::Source { tile, error })?;
        read_hashes(&bytes, tile.width).map_err(|fault| TreeError::Bad { tile, fault })
    }
}

impl<S: Source> Subtrees for TileTree<'_, S> {
    type Error = TreeError<S::Error>;

    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Self::Error> {
        let (row, height) = (level / HEIGHT, level % HEIGHT);
        // A subtree between two rows is made of hashes of the row below, all of one tile.
        let wide = 1_u64 << height;
        let first = index.checked_mul(wide).ok_or(TreeError::Outside)?;
        let hashes = self.hashes(row, first / u64::from(WIDTH))?;
        let from = usize::try_from(first % u64::from(WIDTH)).map_err(|_| TreeError::Outside)?;
        let count = usize::try_from(wide).map_err(|_| TreeError::Outside)?;
        let part = hashes.get(from..).and_then(|rest| rest.get(..count));
        Ok(subtree_root(part.ok_or(TreeError::Outside)?))
    }
}
