//! The log in memory: where its streams stand, its tree, and the tiles of that.

use std::path::PathBuf;

use super::{ReadError, shelf::Keeper, streams::Streams, tiles::Tiles};
use crate::{
    leaf::Leaf,
    merkle::{self, Hash},
    tile::{TileTree, TreeError},
};

/// All of it that grows by a record.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) streams: Streams,
    pub(super) tiles: Tiles,
    pub(super) tree: merkle::Range,
}

impl Log {
    /// Without a record. Tiles are this directory's.
    pub(super) fn new(dir: PathBuf, keeper: Keeper) -> Self {
        Self {
            streams: Streams::default(),
            tiles: Tiles::new(dir, keeper),
            tree: merkle::Range::default(),
        }
    }

    /// The next leaf.
    pub(super) fn place(&mut self, leaf: Leaf, closes: bool) {
        let index = self.tree.size();
        let hash = leaf.hash();
        // No ledger lives to hold 2^64 leaves, of which each takes a microsecond and more.
        assert!(self.tree.push(hash), "fewer than 2^64 leaves");
        self.tiles.push(&leaf, hash);
        self.streams.place(leaf, index, closes);
    }

    /// The root of the first `size` leaves, by the tiles.
    pub(super) fn root_of(&self, size: u64) -> Result<Hash, TreeError<ReadError>> {
        merkle::root(&TileTree::new(&self.tiles, size), size)
    }
}
