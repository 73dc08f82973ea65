//! The proof of a log as it is served (C2SP tlog-tiles): of its checkpoint, entries and hashes, wherever they come from, without its directory and without its records.
//!
//! Owns what the entries alone prove: the tree that was signed, the beginnings that were kept elsewhere, and that no number of a stream is missing. What a record says is in the record: [`Log::included`] shows that a leaf is in the
//! tree, and `chaperone_crds::verify` that records are a chain. Refuses sockets. Memory is bounded per stream.

mod verdict;

use std::{collections::BTreeMap, fmt::Display};

use chaperone_crds::chain::StreamId;
use thiserror::Error;

pub use verdict::{Fault, Numbers, Verdict};

use crate::{
    audit::{TreeHead, Trust},
    checkpoint::{self, Checkpoint, CheckpointError, Signed},
    leaf::Leaf,
    merkle::{ProveError, Unproven, consistency_proof, verify_consistency},
    store::MAX_STREAMS,
    tile::{
        Builder, Included, NotIncluded, Row, Source, Tile, TileTree, TreeError, WIDTH, Width,
        read_entries,
    },
};

/// A log whose checkpoint is signed by a known key.
pub struct Log<'a, S> {
    source: &'a S,
    signed: Signed<'a>,
    kept: Vec<Checkpoint>,
}

/// Why a log is not one that can be proved.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NotOpened {
    /// What is served as its checkpoint is none of a known log's.
    #[error("the checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint that was given is none of this log.
    #[error("checkpoint {number} of those given: {fault}")]
    Kept {
        /// Which, from 1.
        number: usize,
        /// Why.
        fault: CheckpointError,
    },
}

/// Why there is no verdict.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Unserved<E> {
    /// A tile could not be had.
    #[error("{tile}: {error}")]
    Source {
        /// Which.
        tile: Tile,
        /// Why.
        error: E,
    },
    /// More streams than a ledger takes.
    #[error("the log has more than {MAX_STREAMS} streams")]
    TooManyStreams,
}

impl<'a, S: Source> Log<'a, S>
where
    S::Error: Display,
{
    /// The log that serves this checkpoint, if a key of its has signed it.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub fn open(source: &'a S, note: &'a [u8], trust: &'a Trust) -> Result<Self, NotOpened> {
        let origin = checkpoint::claimed_origin(note)?;
        let signed = checkpoint::open(note, &origin, &trust.keys)?;
        let kept = trust.kept.iter().zip(1..).map(|(note, number)| {
            let kept = checkpoint::open(note, &origin, &trust.keys);
            kept.map(|kept| kept.checkpoint)
                .map_err(|fault| NotOpened::Kept { number, fault })
        });
        Ok(Self {
            source,
            signed,
            kept: kept.collect::<Result<_, _>>()?,
        })
    }

    /// What is signed.
    #[must_use]
    pub fn head(&self) -> &Checkpoint {
        &self.signed.checkpoint
    }

    /// Shows of leaves that they are in the tree.
    #[must_use]
    pub fn included(&self) -> Included<'_, S> {
        Included::new(self.source, self.head())
    }

    /// What is to be said without reading entries: that the checkpoints that were kept elsewhere are beginnings of this tree, by proofs out of its hashes.
    ///
    /// # Errors
    /// [`Unserved`].
    pub fn beginnings(&self) -> Result<Verdict, Unserved<S::Error>> {
        let mut verdict = self.verdict();
        let tree = TileTree::new(self.source, self.head().size);
        for kept in &self.kept {
            match self.is_beginning(&tree, kept) {
                Ok(()) => {}
                Err(NotIncluded::Source { tile, error }) => {
                    return Err(Unserved::Source { tile, error });
                }
                Err(NotIncluded::Not(fault)) => verdict.faults.push(Fault::NoBeginning {
                    size: kept.size,
                    fault,
                }),
            }
        }
        Ok(verdict)
    }

    fn is_beginning(
        &self,
        tree: &TileTree<'_, S>,
        kept: &Checkpoint,
    ) -> Result<(), NotIncluded<S::Error>> {
        let head = self.head();
        let proof = match consistency_proof(tree, kept.size, head.size) {
            Ok(proof) => proof,
            Err(ProveError::Source(TreeError::Source { tile, error })) => {
                return Err(NotIncluded::Source { tile, error });
            }
            Err(error) => return Err(NotIncluded::Not(error.to_string())),
        };
        let shown = verify_consistency(kept.size, head.size, &kept.root, &head.root, &proof);
        shown.map_err(|error: Unproven| NotIncluded::Not(error.to_string()))
    }

    /// Reads every entry that the checkpoint covers, and makes the tree of them anew: no hash that is served is believed. `read` is told after each bundle how many leaves there were. Leaves of the streams `of` are kept, 40 bytes each.
    ///
    /// # Errors
    /// [`Unserved`].
    pub fn whole(
        &self,
        of: &[StreamId],
        mut read: impl FnMut(u64),
    ) -> Result<Verdict, Unserved<S::Error>> {
        let mut verdict = self.verdict();
        verdict.leaves = of
            .iter()
            .map(|stream| (stream.clone(), Vec::new()))
            .collect();
        let mut reading = Reading {
            verdict,
            builder: Builder::default(),
        };
        let size = self.head().size;
        for index in 0..size.div_ceil(u64::from(WIDTH)) {
            let Some(tile) = Tile::within(Row::Entries, index, size) else {
                break;
            };
            let failed = |error| Unserved::Source { tile, error };
            let bytes = self.source.read(tile).map_err(failed)?;
            match read_entries(&bytes, tile.width) {
                Err(fault) => reading.stop(tile, &fault),
                Ok(entries) => reading.bundle(tile, &entries, &self.kept)?,
            }
            if reading.is_stopped() {
                return Ok(reading.verdict);
            }
            read(reading.builder.size());
        }
        reading.compare(self.head(), false);
        Ok(reading.finish(&self.kept))
    }

    fn verdict(&self) -> Verdict {
        Verdict {
            origin: self.head().origin.clone(),
            head: TreeHead::of(&self.signed),
            kept: self.kept.iter().map(|kept| kept.size).collect(),
            streams: BTreeMap::new(),
            leaves: BTreeMap::new(),
            is_whole: false,
            faults: Vec::new(),
        }
    }
}

/// Bytes of a tile that is not full, out of the full one, which takes its place once there is one. For sources whose server has no longer the one asked for.
///
/// # Errors
/// What `read` gives for the full one.
pub fn out_of_full<E>(
    tile: Tile,
    read: impl FnOnce(Tile) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let mut bytes = read(Tile {
        width: Width::FULL,
        ..tile
    })?;
    tile.cut(&mut bytes);
    Ok(bytes)
}

/// A log while its entries are read.
struct Reading {
    verdict: Verdict,
    builder: Builder,
}

impl Reading {
    fn stop(&mut self, tile: Tile, fault: &impl Display) {
        self.verdict.faults.push(Fault::Entries {
            tile,
            fault: fault.to_string(),
        });
    }

    fn is_stopped(&self) -> bool {
        let last = self.verdict.faults.last();
        matches!(last, Some(Fault::Entries { .. }))
    }

    fn bundle<E>(
        &mut self,
        tile: Tile,
        entries: &[&[u8]],
        kept: &[Checkpoint],
    ) -> Result<(), Unserved<E>> {
        for entry in entries {
            let leaf = std::str::from_utf8(entry).map(str::parse::<Leaf>);
            let Ok(Ok(leaf)) = leaf else {
                let index = self.builder.size();
                self.stop(tile, &format_args!("entry {index} is no leaf of a record"));
                return Ok(());
            };
            // What becomes full is not kept: only the root is asked for.
            let _ = self.builder.push(leaf.hash());
            if let Some(leaves) = self.verdict.leaves.get_mut(&leaf.stream) {
                leaves.push((leaf.seq, leaf.record));
            }
            self.place(leaf.stream, leaf.seq);
            if self.verdict.streams.len() > MAX_STREAMS {
                return Err(Unserved::TooManyStreams);
            }
            for kept in kept {
                if kept.size == self.builder.size() {
                    self.compare(kept, true);
                }
            }
        }
        Ok(())
    }

    fn place(&mut self, stream: StreamId, seq: u64) {
        let numbers = self.verdict.streams.entry(stream.clone());
        let numbers = numbers.or_insert(Numbers {
            first: seq,
            next: seq,
            missing: 0,
        });
        match seq.checked_sub(numbers.next) {
            None => {
                let next = numbers.next;
                self.verdict.fault(Fault::Again { stream, seq, next });
            }
            Some(missing) => {
                numbers.missing = numbers.missing.saturating_add(missing);
                numbers.next = seq.saturating_add(1);
            }
        }
    }

    /// The tree that is there now must be the one of this checkpoint.
    fn compare(&mut self, checkpoint: &Checkpoint, kept: bool) {
        let computed = self.builder.root();
        if computed != checkpoint.root {
            self.verdict.faults.push(Fault::Contradicted {
                size: checkpoint.size,
                kept,
                computed,
                signed: checkpoint.root,
            });
        }
    }

    fn finish(mut self, kept: &[Checkpoint]) -> Verdict {
        let there = self.builder.size();
        for kept in kept.iter().filter(|kept| kept.size > there) {
            let size = kept.size;
            self.verdict.faults.push(Fault::Lost { size, there });
        }
        for kept in kept.iter().filter(|kept| kept.size == 0) {
            if kept.root != crate::merkle::Hash::of_nothing() {
                self.verdict.faults.push(Fault::NoBeginning {
                    size: 0,
                    fault: "its root is not that of nothing".to_owned(),
                });
            }
        }
        self.verdict.is_whole = true;
        self.verdict
    }
}

#[cfg(test)]
mod tests;
