//! Tiles of leaves whose way to a signed root is shown.

use std::fmt::Display;

use thiserror::Error;

use super::{Source, Tile, TileTree, TreeError, WIDTH};
use crate::{
    checkpoint::Checkpoint,
    leaf::Leaf,
    merkle::{Hash, ProveError, inclusion_proof, verify_inclusion},
};

/// Why it is not shown that a leaf is in the tree.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotIncluded<E> {
    /// A tile could not be had.
    #[error("{tile}: {error}")]
    Source {
        /// Which.
        tile: Tile,
        /// Why.
        error: E,
    },
    /// The tiles do not show it.
    #[error("{0}")]
    Not(String),
}

/// Shows of leaves that they are in the tree of a checkpoint. Holds the tile of leaves that was asked for last: leaves that come in order cost one way to the root for each tile.
pub struct Included<'a, S> {
    tree: TileTree<'a, S>,
    signed: &'a Checkpoint,
    shown: Option<(u64, Result<Vec<Hash>, String>)>,
}

impl<'a, S: Source> Included<'a, S>
where
    S::Error: Display,
{
    /// In the tree that this checkpoint is the head of.
    #[must_use]
    pub fn new(source: &'a S, signed: &'a Checkpoint) -> Self {
        Self {
            tree: TileTree::new(source, signed.size),
            signed,
            shown: None,
        }
    }

    /// Shows that this leaf has this number in the tree.
    ///
    /// # Errors
    /// [`NotIncluded`].
    pub fn show(&mut self, index: u64, leaf: &Leaf) -> Result<(), NotIncluded<S::Error>> {
        let width = u64::from(WIDTH);
        let (tile, place) = (index / width, index % width);
        let shown = match self.shown.take() {
            Some((known, shown)) if known == tile => shown,
            _ => match self.way(tile) {
                Ok(hashes) => Ok(hashes),
                Err(NotIncluded::Not(reason)) => Err(reason),
                Err(unread) => return Err(unread),
            },
        };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let outcome = match &shown {
            Err(reason) => Err(NotIncluded::Not(reason.clone())),
            Ok(hashes) if hashes.get(place) == Some(&leaf.hash()) => Ok(()),
            Ok(_) => Err(NotIncluded::Not("another one is there".to_owned())),
        };
        self.shown = Some((tile, shown));
        outcome
    }

    /// The way of one leaf of the tile leads through all of its hashes, so that it vouches for each.
    fn way(&self, tile: u64) -> Result<Vec<Hash>, NotIncluded<S::Error>> {
        let hashes = self.tree.hashes(0, tile).map_err(unread)?;
        let not = |error: &dyn Display| NotIncluded::Not(error.to_string());
        let leaf = hashes.first().ok_or(not(&"the tile is empty"))?;
        let first = tile.saturating_mul(u64::from(WIDTH));
        let (size, root) = (self.signed.size, self.signed.root);
        let way = match inclusion_proof(&self.tree, first, size) {
            Ok(way) => way,
            Err(ProveError::Source(error)) => return Err(unread(error)),
            Err(error) => return Err(not(&error)),
        };
        verify_inclusion(leaf, first, size, &root, &way).map_err(|error| not(&error))?;
        Ok(hashes)
    }
}

/// A tile that could not be had is another thing than one that shows nothing.
fn unread<E: Display>(error: TreeError<E>) -> NotIncluded<E> {
    match error {
        TreeError::Source { tile, error } => NotIncluded::Source { tile, error },
        other => NotIncluded::Not(other.to_string()),
    }
}
