//! The tiles on disk beside those that the records give.

use std::{fmt, path::Path};

use super::{
    directory,
    verdict::{At, Fault},
};
use crate::{
    leaf::Leaf,
    merkle::Hash,
    tile::{Builder, Row, Tile, WIDTH, read_hashes, write_entry, write_hashes},
};

/// Most tiles at fault that a verdict lists; further ones are counted nowhere, for the verdict stands.
const MAX_LISTED: usize = 100;

/// What is wrong with a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TileFault {
    /// It is not there, although the checkpoint covers it.
    Missing,
    /// It can't be read.
    Unreadable(String),
    /// It is not what the records give.
    Differs,
    /// It names another record as this leaf.
    Leaf {
        /// Number of the leaf.
        index: u64,
        /// The record that stands there.
        record: String,
        /// Where.
        at: At,
    },
}

impl fmt::Display for TileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing, although the checkpoint covers it"),
            Self::Unreadable(error) => write!(f, "can't be read: {error}"),
            Self::Differs => f.write_str("is not what the records give"),
            Self::Leaf { index, record, at } => write!(
                f,
                "has another record as leaf {index} than {record}, which is there ({at})"
            ),
        }
    }
}

/// Makes tiles of leaves and compares them with those on disk.
pub(super) struct Compared<'a> {
    dir: &'a Path,
    builder: Builder,
    /// Entries of the bundle that is not full.
    bundle: Vec<u8>,
    /// The entries of the tile that is not full, and where their records are.
    leaves: Vec<(At, String)>,
    /// Tiles after the checkpoint may be there or not.
    pub(super) optional: bool,
    listed: usize,
}

impl<'a> Compared<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self {
            dir,
            builder: Builder::default(),
            bundle: Vec::new(),
            leaves: Vec::new(),
            optional: false,
            listed: 0,
        }
    }

    /// Takes the next leaf: its entry and its hash.
    pub(super) fn push(&mut self, at: At, entry: String, hash: Hash, faults: &mut Vec<Fault>) {
        write_entry(&mut self.bundle, entry.as_bytes())
            .expect("a leaf is shorter than an entry may be");
        self.leaves.push((at, entry));
        for full in self.builder.push(hash) {
            if full.tile.row == Row::Hashes(0) {
                let row = Row::Entries;
                let bundle = std::mem::take(&mut self.bundle);
                self.compare(Tile { row, ..full.tile }, &bundle, faults);
            }
            self.compare(full.tile, &write_hashes(&full.hashes), faults);
            if full.tile.row == Row::Hashes(0) {
                self.leaves.clear();
            }
        }
    }

    /// Number of leaves.
    pub(super) fn size(&self) -> u64 {
        self.builder.size()
    }

    /// Root over them.
    pub(super) fn root(&self) -> Hash {
        self.builder.root()
    }

    /// The tree has the checkpoint's size: what is not full must be there as it is now. Later tiles need not.
    pub(super) fn at_checkpoint(&mut self, size: u64, faults: &mut Vec<Fault>) {
        for tile in Tile::partial(size) {
            let bytes = match tile.row {
                Row::Entries => self.bundle.clone(),
                Row::Hashes(level) => write_hashes(self.builder.edge(level).unwrap_or_default()),
            };
            self.compare(tile, &bytes, faults);
        }
        self.optional = true;
    }

    fn compare(&mut self, tile: Tile, wanted: &[u8], faults: &mut Vec<Fault>) {
        let Some(fault) = self.look(tile, wanted) else {
            return;
        };
        if self.listed < MAX_LISTED {
            faults.push(Fault::Tile { tile, fault });
        }
        self.listed = self.listed.saturating_add(1);
    }

    fn look(&self, tile: Tile, wanted: &[u8]) -> Option<TileFault> {
        match directory::tile(self.dir, tile) {
            Ok(Some(there)) if there == wanted => None,
            Ok(Some(there)) => Some(self.difference(tile, &there, wanted)),
            Ok(None) if self.optional => None,
            Ok(None) => Some(TileFault::Missing),
            Err(error) => Some(TileFault::Unreadable(error.to_string())),
        }
    }

    /// A tile of leaves can say which record it was made of another one.
    fn difference(&self, tile: Tile, there: &[u8], wanted: &[u8]) -> TileFault {
        let hashes = |bytes| read_hashes(bytes, tile.width).unwrap_or_default();
        if tile.row != Row::Hashes(0) || there.len() != wanted.len() {
            return TileFault::Differs;
        }
        let pairs = hashes(there).into_iter().zip(hashes(wanted));
        let place = pairs.enumerate().find(|(_, (a, b))| a != b);
        let leaf = place.and_then(|(place, _)| Some((place, self.leaves.get(place)?)));
        let Some((place, (at, Ok(leaf)))) =
            leaf.map(|(place, (at, entry))| (place, (at, entry.parse::<Leaf>())))
        else {
            return TileFault::Differs;
        };
        let before = tile.index.saturating_mul(u64::from(WIDTH));
        TileFault::Leaf {
            index: before.saturating_add(u64::try_from(place).unwrap_or(u64::MAX)),
            record: format!("record {} of stream {}", leaf.seq, leaf.stream),
            at: *at,
        }
    }
}
