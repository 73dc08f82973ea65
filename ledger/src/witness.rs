//! What witnesses are asked and what they answer (C2SP tlog-witness), without the sockets.
//!
//! A witness signs a checkpoint only after a proof that it continues the one that it signed before. So a log that shows one history here and another there, or that went back, finds no witness
//! for the second. Owns the texts of that exchange, and which witnesses suffice ([`Policy`]). Refuses to believe an answer: what is added to a note was verified.

mod policy;

use std::{fmt::Write as _, io, path::Path, slice};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;

pub use policy::{Policy, PolicyError, Witness};

use crate::{
    audit::{Unreadable, directory},
    checkpoint::decimal,
    key::VerifierKey,
    merkle::{Hash, ProveError, consistency_proof},
    note::{self, NoteError},
    tile::{Source, Tile, TileTree, TreeError},
};

/// Path of the call, below the witness's URL.
pub const ADD_CHECKPOINT: &str = "/add-checkpoint";
/// Content type of an answer that says which size the witness knows.
pub const SIZE_TYPE: &str = "text/x.tlog.size";
/// Longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// What each line of a signature begins with.
const DASH: &str = "\u{2014} ";

/// Why an answer is no cosignature.
#[derive(Debug, Error)]
pub enum NoCosignature {
    /// It is too long, or no text.
    #[error("the answer is no text of at most {MAX_ANSWER_BYTES} bytes")]
    Form,
    /// None of its lines is the witness's.
    #[error("the answer has no line of key {0}")]
    NotIts(String),
    /// The note can take no more, or the signature is wrong.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// Body of the call that asks for a cosignature of `note`, of a witness that knows the first `old` leaves.
#[must_use]
pub fn request(old: u64, proof: &[Hash], note: &[u8]) -> Vec<u8> {
    let mut head = format!("old {old}\n");
    for hash in proof {
        // Writing to a String does not fail.
        let _ = writeln!(head, "{}", STANDARD.encode(hash.as_bytes()));
    }
    head.push('\n');
    [head.as_bytes(), note].concat()
}

/// The note with the witness's signature, which was verified.
///
/// # Errors
/// [`NoCosignature`].
pub fn add(note: &[u8], answer: &[u8], key: &VerifierKey) -> Result<Vec<u8>, NoCosignature> {
    if answer.len() > MAX_ANSWER_BYTES {
        return Err(NoCosignature::Form);
    }
    let answer = str::from_utf8(answer).map_err(|_| NoCosignature::Form)?;
    let its = format!("{DASH}{} ", key.name());
    let mut fault = NoCosignature::NotIts(key.to_string());
    for line in answer.lines().filter(|line| line.starts_with(&its)) {
        let signed = [note, line.as_bytes(), b"\n"].concat();
        match note::open(&signed, slice::from_ref(key)) {
            Ok(_) => return Ok(signed),
            Err(NoteError::Unsigned) => {}
            Err(error) => fault = error.into(),
        }
    }
    Err(fault)
}

/// Leaves that the witness knows, as an answer of status 409 and type [`SIZE_TYPE`] says.
#[must_use]
pub fn size(answer: &[u8]) -> Option<u64> {
    let text = str::from_utf8(answer).ok()?;
    decimal(text.strip_suffix('\n')?).ok()
}

/// The newest checkpoint of a ledger's directory, as a note, if there is one.
///
/// # Errors
/// [`Unreadable`].
pub fn newest(dir: &Path) -> Result<Option<Vec<u8>>, Unreadable> {
    directory::note(dir)
}

/// Shows that the first `old` of `new` leaves are the older tree, by the tiles of a ledger's directory.
///
/// # Errors
/// Where the tree has no `old` leaves, or a tile is not there or damaged. A ledger that goes on replaces tiles that are not full: ask again then, for the newest checkpoint.
pub fn proof(
    dir: &Path,
    old: u64,
    new: u64,
) -> Result<Vec<Hash>, ProveError<TreeError<io::Error>>> {
    consistency_proof(&TileTree::new(&Tiles(dir), new), old, new)
}

/// The tiles of a directory.
struct Tiles<'a>(&'a Path);

impl Source for Tiles<'_> {
    type Error = io::Error;

    fn read(&self, tile: Tile) -> io::Result<Vec<u8>> {
        directory::tile(self.0, tile)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

#[cfg(test)]
mod tests;
