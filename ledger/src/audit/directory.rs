//! Reading a folder of a ledger, or of a bundle of one, without its lock.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::Unreadable;
use crate::{
    checkpoint::Origin,
    note::MAX_NOTE_BYTES,
    store::layout,
    tile::{Tile, Width},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    origin: String,
}

/// Which log it is.
pub(crate) fn identity(dir: &Path) -> Result<Origin, Unreadable> {
    let path = dir.join(layout::IDENTITY);
    let bytes = fs::read(&path).map_err(|error| unreadable(&path, error))?;
    serde_json::from_slice::<Identity>(&bytes)
        .ok()
        .filter(|identity| identity.format == layout::FORMAT)
        .and_then(|identity| identity.origin.parse().ok())
        .ok_or_else(|| Unreadable::Identity(path.display().to_string()))
}

/// The checkpoint, if there is one. One that is too long to be one is cut, and will not read as one.
pub(crate) fn note(dir: &Path) -> Result<Option<Vec<u8>>, Unreadable> {
    let path = dir.join(layout::CHECKPOINT);
    let failed = |error| unreadable(&path, error);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let limit = u64::try_from(MAX_NOTE_BYTES).unwrap_or(u64::MAX);
    let mut note = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut note);
    read.map_err(failed)?;
    Ok(Some(note))
}

/// A tile's bytes, if it is there: its own file or, while the ledger goes on, the beginning of the full one that took its place.
pub(crate) fn tile(dir: &Path, tile: Tile) -> io::Result<Option<Vec<u8>>> {
    if let Some(bytes) = file(dir.join(tile.to_string()))? {
        return Ok(Some(bytes));
    }
    if tile.is_full() {
        return Ok(None);
    }
    let whole = Tile {
        width: Width::FULL,
        ..tile
    };
    let mut whole = file(dir.join(whole.to_string()))?;
    if let Some(bytes) = &mut whole {
        tile.cut(bytes);
    }
    Ok(whole)
}

fn file(path: PathBuf) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says which file could not be read.
pub(crate) fn unreadable(file: &Path, error: io::Error) -> Unreadable {
    Unreadable::Io {
        file: file.display().to_string(),
        error,
    }
}
