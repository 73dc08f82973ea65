//! The proof that one leaf is in the log, as a text that stands alone: [C2SP tlog-proof](https://c2sp.org/tlog-proof).
//!
//! Owns the text, and how it is made of a ledger's directory. Refuses to vouch for it: who has a key of the log checks it, with nothing but the record.

use std::{fmt::Write as _, io, path::Path};

use thiserror::Error;

use crate::{
    audit::{Unreadable, directory},
    checkpoint::{self, CheckpointError},
    merkle::{Hash, ProveError, inclusion_proof},
    tile::{Source, Tile, TileTree, TreeError},
};

/// First line of the text.
const HEAD: &str = "c2sp.org/tlog-proof@v1";
/// How often it is begun anew where a checkpoint was replaced, and tiles of its size with it, while they were read.
const TRIES: usize = 3;

/// Why there is no proof.
#[derive(Debug, Error)]
pub enum NoProof {
    /// The newest checkpoint has not the leaf yet.
    #[error("no checkpoint has leaf {index} yet: the newest has {size} leaves")]
    NotYet {
        /// The leaf.
        index: u64,
        /// Leaves of the newest checkpoint; 0 where there is none.
        size: u64,
    },
    /// The checkpoint is no text of that form.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// A tile.
    #[error(transparent)]
    Tile(#[from] TreeError<io::Error>),
}

/// The text of a proof: hashes from the leaf's sibling up, and the checkpoint's note.
#[must_use]
pub fn text(index: u64, hashes: &[Hash], note: &str) -> String {
    let mut text = format!("{HEAD}\nindex {index}\n");
    for hash in hashes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{hash}");
    }
    text.push('\n');
    text.push_str(note);
    text
}

/// The proof of a leaf under the newest checkpoint of the ledger in `dir`, which may be in use.
///
/// # Errors
/// [`NoProof`].
pub fn of_ledger(dir: &Path, index: u64) -> Result<String, NoProof> {
    let mut tried = 1;
    loop {
        match once(dir, index) {
            Err(NoProof::Tile(TreeError::Source { error, .. }))
                if error.kind() == io::ErrorKind::NotFound && tried < TRIES =>
            {
                tried += 1;
            }
            done => return done,
        }
    }
}

fn once(dir: &Path, index: u64) -> Result<String, NoProof> {
    let note = directory::note(dir)?.unwrap_or_default();
    if note.is_empty() {
        return Err(NoProof::NotYet { index, size: 0 });
    }
    let size = checkpoint::claimed(&note)?.size;
    let folder = Folder(dir);
    let hashes = inclusion_proof(&TileTree::new(&folder, size), index, size);
    let hashes = hashes.map_err(|error| match error {
        ProveError::Source(error) => NoProof::Tile(error),
        // The other one is of consistency proofs.
        ProveError::NoSuchLeaf { .. } | ProveError::Shrinks { .. } => {
            NoProof::NotYet { index, size }
        }
    })?;
    let note = String::from_utf8(note);
    let note = note.map_err(|_| CheckpointError::Form("it is no text"))?;
    Ok(text(index, &hashes, &note))
}

struct Folder<'a>(&'a Path);

impl Source for Folder<'_> {
    type Error = io::Error;

    fn read(&self, tile: Tile) -> io::Result<Vec<u8>> {
        directory::tile(self.0, tile)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::leaf_hash;

    #[test]
    fn the_text_is_that_of_the_specification() {
        let hashes = [leaf_hash(b"a"), leaf_hash(b"b")];
        let proof = text(7, &hashes, "o\n8\nx\n\n— o y\n");
        let (a, b) = (hashes[0], hashes[1]);
        assert_eq!(
            proof,
            format!("c2sp.org/tlog-proof@v1\nindex 7\n{a}\n{b}\n\no\n8\nx\n\n— o y\n")
        );
    }

    #[test]
    fn where_there_is_no_checkpoint_there_is_no_proof_yet() {
        let dir = std::env::temp_dir().join("chaperone-no-such-ledger");
        let error = of_ledger(&dir, 3).unwrap_err();
        assert!(
            matches!(error, NoProof::NotYet { index: 3, size: 0 }),
            "{error}"
        );
    }
}
