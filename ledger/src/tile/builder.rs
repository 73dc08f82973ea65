//! Tiles of a tree that grows: keeps the right edge, which is not full yet, and gives each tile away when it is.

use super::{Row, Tile, WIDTH, Width};
use crate::merkle::{Hash, node_hash};

/// The right edge of a tree, in tiles. At most 255 hashes for each of eight rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builder {
    size: u64,
    /// What each row has of its last tile, from leaves up.
    rows: Vec<Vec<Hash>>,
}

/// A tile of hashes that has become full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// Which.
    pub tile: Tile,
    /// Its 256 hashes.
    pub hashes: Vec<Hash>,
}

impl Builder {
    /// Number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What the last tile of this row has so far, if it is not empty.
    #[must_use]
    pub fn edge(&self, level: u8) -> Option<&[Hash]> {
        let row = self.rows.get(usize::from(level))?;
        (!row.is_empty()).then_some(row)
    }

    /// The root (RFC 6962 section 2.1).
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut root = None;
        for row in &self.rows {
            let mut rest = row.as_slice();
            let mut peaks = Vec::new();
            while let Some(highest) = rest.len().checked_ilog2() {
                let (peak, after) = rest.split_at(1 << highest);
                peaks.push(subtree_root(peak));
                rest = after;
            }
            for peak in peaks.into_iter().rev() {
                root = Some(root.map_or(peak, |right| node_hash(&peak, &right)));
            }
        }
        root.unwrap_or_else(Hash::of_nothing)
    }

    /// Appends a leaf by its hash; the tiles that it makes full, from leaves up. A tree of 2^64 - 1 leaves takes no more: what is appended to it is dropped.
    #[must_use = "full tiles are given away once"]
    pub fn push(&mut self, leaf: Hash) -> Vec<Full> {
        let Some(size) = self.size.checked_add(1) else {
            return Vec::new();
        };
        self.size = size;
        let mut full = Vec::new();
        let mut carried = Some((0, leaf));
        while let Some((level, hash)) = carried.take() {
            let place = usize::from(level);
            if self.rows.len() <= place {
                self.rows.resize(place.saturating_add(1), Vec::new());
            }
            let Some(row) = self.rows.get_mut(place) else {
                break;
            };
            row.push(hash);
            if row.len() < usize::from(WIDTH) {
                break;
            }
            let hashes = std::mem::take(row);
            carried = Some((level + 1, subtree_root(&hashes)));
            let row = Row::Hashes(level);
            let index = row.length(size) / u64::from(WIDTH) - 1;
            full.push(Full {
                tile: Tile {
                    row,
                    index,
                    width: Width::FULL,
                },
                hashes,
            });
        }
        full
    }
}

/// The root of a perfect subtree over these hashes, whose number is a power of two.
pub(super) fn subtree_root(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[left, right]| node_hash(left, right))
            .collect();
    }
    row.first().copied().unwrap_or_else(Hash::of_nothing)
}
