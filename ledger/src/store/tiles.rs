//! The tiles on disk, and those that are not there yet.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use thiserror::Error;

use super::{
    files::{self, Unfinished},
    shelf::Keeper,
};
use crate::{
    leaf::Leaf,
    merkle::Hash,
    tile::{
        BadTile, Builder, Row, Source, Tile, WIDTH, Width, read_hashes, write_entry, write_hashes,
    },
};

/// Full tiles that wait in memory before they are written without a checkpoint's asking: some 16,000 records.
const MAX_WAITING: usize = 128;

/// The tiles of the ledger.
#[derive(Debug)]
pub struct Tiles {
    dir: PathBuf,
    keeper: Keeper,
    builder: Builder,
    /// Entries of the last bundle, which is not full.
    bundle: Vec<u8>,
    /// Full tiles that are not on disk.
    full: BTreeMap<Tile, Vec<u8>>,
}

/// Why a tile could not be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The disk.
    #[error("{tile}: {error}")]
    Io {
        /// Which.
        tile: Tile,
        /// Why.
        error: io::Error,
    },
    /// It is damaged.
    #[error("{tile}: {fault}")]
    Bad {
        /// Which.
        tile: Tile,
        /// What is wrong.
        fault: BadTile,
    },
    /// The tree has no such leaf.
    #[error("the tree has no such leaf")]
    Outside,
}

impl Tiles {
    pub(super) fn new(dir: PathBuf, keeper: Keeper) -> Self {
        Self {
            dir,
            keeper,
            builder: Builder::default(),
            bundle: Vec::new(),
            full: BTreeMap::new(),
        }
    }

    /// Tiles are kept so from here on.
    pub(super) fn keep(&mut self, keeper: Keeper) {
        self.keeper = keeper;
    }

    /// Takes the next leaf.
    pub(super) fn push(&mut self, leaf: &Leaf, hash: Hash) {
        write_entry(&mut self.bundle, leaf.to_string().as_bytes())
            .expect("a leaf is shorter than an entry may be");
        for full in self.builder.push(hash) {
            if let Row::Hashes(0) = full.tile.row {
                let row = Row::Entries;
                let bundle = std::mem::take(&mut self.bundle);
                self.full.insert(Tile { row, ..full.tile }, bundle);
            }
            self.full.insert(full.tile, write_hashes(&full.hashes));
        }
    }

    /// Whether enough waits to be written.
    pub(super) fn is_long(&self) -> bool {
        self.full.len() >= MAX_WAITING
    }

    /// Writes the full tiles that are not on disk; the partial ones in their place go.
    pub(super) fn write_full(&mut self) -> io::Result<()> {
        while !self.full.is_empty() {
            let mut written = Vec::new();
            // Each is an open file until it is finished.
            for (tile, bytes) in self.full.iter().take(MAX_WAITING) {
                written.push((*tile, Unfinished::write(&self.place(*tile)?, bytes)?));
            }
            for (tile, file) in written {
                file.finish(&self.keeper)?;
                let partial = self.dir.join(format!("{tile}.p"));
                // There may be none. One that stays is what the tile begins with.
                let _ = fs::remove_dir_all(partial);
                self.full.remove(&tile);
            }
        }
        Ok(())
    }

    /// Writes the tiles at the edge as far as they are.
    pub(super) fn write_partial(&self) -> io::Result<()> {
        for tile in Tile::partial(self.builder.size()) {
            let bytes = match tile.row {
                Row::Entries => self.bundle.clone(),
                Row::Hashes(level) => write_hashes(self.builder.edge(level).unwrap_or_default()),
            };
            self.write(tile, &bytes)?;
        }
        Ok(())
    }

    /// During recovery: full tiles that are on disk must be these. Gives one that is not; those that are missing still wait.
    pub(super) fn compare_full(&mut self) -> io::Result<Option<Tile>> {
        let mut there = Vec::new();
        for (tile, bytes) in &self.full {
            match fs::read(self.dir.join(tile.to_string())) {
                Ok(found) if found == *bytes => there.push(*tile),
                Ok(_) => return Ok(Some(*tile)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for tile in there {
            self.full.remove(&tile);
        }
        Ok(None)
    }

    /// The hash of a leaf.
    pub(super) fn leaf_hash(&self, index: u64) -> Result<Hash, ReadError> {
        let (row, width) = (Row::Hashes(0), u64::from(WIDTH));
        let tile = Tile::within(row, index / width, self.builder.size());
        let tile = tile.ok_or(ReadError::Outside)?;
        let bytes = self.read(tile)?;
        let hashes =
            read_hashes(&bytes, tile.width).map_err(|fault| ReadError::Bad { tile, fault })?;
        let place = usize::try_from(index % width).map_err(|_| ReadError::Outside)?;
        hashes.get(place).copied().ok_or(ReadError::Outside)
    }

    fn write(&self, tile: Tile, bytes: &[u8]) -> io::Result<()> {
        files::write(&self.keeper, &self.place(tile)?, bytes)
    }

    /// Where a tile is written: its folder is there then.
    fn place(&self, tile: Tile) -> io::Result<PathBuf> {
        let path = self.dir.join(tile.to_string());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(path)
    }

    /// What the last tile of the row has so far, if it is this one.
    fn edge(&self, tile: Tile) -> Option<Vec<u8>> {
        let last = Tile::within(tile.row, tile.index, self.builder.size())?;
        match tile.row {
            _ if last.is_full() => None,
            Row::Entries => Some(self.bundle.clone()),
            Row::Hashes(level) => self.builder.edge(level).map(write_hashes),
        }
    }
}

impl Source for Tiles {
    type Error = ReadError;

    /// A tile of any tree up to this one.
    fn read(&self, tile: Tile) -> Result<Vec<u8>, ReadError> {
        let whole = Tile {
            width: Width::FULL,
            ..tile
        };
        let mut bytes = match (self.edge(tile), self.full.get(&whole)) {
            (Some(edge), _) => edge,
            (None, Some(waiting)) => waiting.clone(),
            (None, None) => fs::read(self.dir.join(whole.to_string()))
                .map_err(|error| ReadError::Io { tile, error })?,
        };
        tile.cut(&mut bytes);
        Ok(bytes)
    }
}
