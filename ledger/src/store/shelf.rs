//! Where what a ledger commits is kept besides its directory.
//!
//! A ledger alone has its directory and nothing else: what is synced there is durable. A ledger of several replicas has a [`Shelf`] that all of them share; its directory is a copy then, which may be lost with the machine, and nothing of it is synced.
//! Invariant: what [`Keeper`] has taken without an error outlives the process.

use std::{fmt, fs::File, io, path::Path, sync::Arc};

use super::files;

/// Files that several ledgers share, of which one writes. Names are those of the ledger's directory: `records/00000000.jsonl`.
///
/// Each call is durable when it returns, and fails once another ledger writes.
pub trait Shelf: fmt::Debug + Send + Sync {
    /// Adds bytes to a file, which is made by its first ones. The same place may be written again as long as nothing was added after it.
    ///
    /// # Errors
    /// What keeps them from being there; they may be there nevertheless.
    fn append(&self, file: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Puts a file in the place of the one of this name. Whoever reads finds the one or the other.
    ///
    /// # Errors
    /// As of [`append`](Self::append).
    fn replace(&self, file: &str, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// As of [`append`](Self::append).
    fn remove(&self, file: &str) -> io::Result<()>;
}

/// What keeps a directory's files: the disk that it is on, or a shelf.
#[derive(Clone, Debug, Default)]
pub struct Keeper(Option<Arc<dyn Shelf>>);

impl Keeper {
    /// By a shelf.
    #[must_use]
    pub fn by(shelf: Arc<dyn Shelf>) -> Self {
        Self(Some(shelf))
    }

    /// What was added to this open file.
    ///
    /// # Errors
    /// The system's, or the shelf's.
    pub fn appended(&self, file: &File, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        match &self.0 {
            None => file.sync_data(),
            Some(shelf) => shelf.append(name, at, bytes),
        }
    }

    /// A file that is about to be put in the place of another. Its content is asked for where it is not on this disk that it is kept.
    ///
    /// # Errors
    /// The system's, or the shelf's.
    pub fn replaced(
        &self,
        file: &File,
        name: &str,
        content: impl FnOnce() -> io::Result<Vec<u8>>,
    ) -> io::Result<()> {
        match &self.0 {
            None => file.sync_data(),
            Some(shelf) => shelf.replace(name, &content()?),
        }
    }

    /// A file that is about to be removed.
    ///
    /// # Errors
    /// The shelf's.
    pub fn removed(&self, name: &str) -> io::Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(shelf) => shelf.remove(name),
        }
    }

    /// Names in a folder.
    ///
    /// # Errors
    /// The system's.
    pub fn named(&self, folder: &Path) -> io::Result<()> {
        match &self.0 {
            None => files::sync_dir(folder),
            Some(_) => Ok(()),
        }
    }

    /// A file that can be made anew from the others.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn derived(&self, file: &File) -> io::Result<()> {
        match &self.0 {
            None => file.sync_data(),
            Some(_) => Ok(()),
        }
    }
}
