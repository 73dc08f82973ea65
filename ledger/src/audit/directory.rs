//! Reading a folder of a ledger, or of a bundle of one, without its lock.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use serde::Deserialize;

use super::Unreadable;
use crate::{
    checkpoint::{MAX_ORIGIN_BYTES, Origin},
    note::MAX_NOTE_BYTES,
    store::layout,
    tile::{MAX_TILE_BYTES, Tile, Width},
};

/// Longest `ledger.json`: an origin, each byte of it escaped, and the rest.
const MAX_IDENTITY_BYTES: usize = 6 * MAX_ORIGIN_BYTES + 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    format: u32,
    origin: String,
}

/// Which log it is.
pub(crate) fn identity(dir: &Path) -> Result<Origin, Unreadable> {
    let path = dir.join(layout::IDENTITY);
    let bytes = read(&path, MAX_IDENTITY_BYTES).map_err(|error| unreadable(&path, error))?;
    serde_json::from_slice::<Identity>(&bytes)
        .ok()
        .filter(|identity| (layout::FORMER..=layout::FORMAT).contains(&identity.format))
        .and_then(|identity| identity.origin.parse().ok())
        .ok_or_else(|| Unreadable::Identity(path.display().to_string()))
}

/// The checkpoint, if there is one. One that is too long to be one is cut, and will not read as one.
pub(crate) fn note(dir: &Path) -> Result<Option<Vec<u8>>, Unreadable> {
    let path = dir.join(layout::CHECKPOINT);
    there(read(&path, MAX_NOTE_BYTES)).map_err(|error| unreadable(&path, error))
}

/// A tile's bytes, if it is there: its own file or, while the ledger goes on, the beginning of the full one that took its place.
pub(crate) fn tile(dir: &Path, tile: Tile) -> io::Result<Option<Vec<u8>>> {
    let bytes = there(read(&dir.join(tile.to_string()), MAX_TILE_BYTES))?;
    if bytes.is_some() {
        return Ok(bytes);
    }
    if tile.is_full() {
        return Ok(None);
    }
    let whole = Tile {
        width: Width::FULL,
        ..tile
    };
    let mut whole = there(read(&dir.join(whole.to_string()), MAX_TILE_BYTES))?;
    if let Some(bytes) = &mut whole {
        tile.cut(bytes);
    }
    Ok(whole)
}

/// Opens a file of a folder that somebody else may have made: nothing that would block or never end.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    File::open(path)
}

/// Reads a file of at most so many bytes, and one byte more of a longer one, which no reader will take it for then.
fn read(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    open(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is not there is no error.
fn there(read: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match read {
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
