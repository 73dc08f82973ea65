//! A little space that is kept for the moment when the disk is full: without it no new segment could begin, so a segment that every sink has could not be
//! deleted, and the disk would stay full.

use std::{fs, path::Path};

use super::replace;

const FILE: &str = "reserve";
/// Bytes kept: a few blocks of any file system, for `state.json` and a folder's entry.
const BYTES: usize = 64 * 1024;

/// Sets the space aside. True if it is there.
pub(super) fn keep(dir: &Path) -> bool {
    // Not zeros: a file system may store those without space.
    replace(dir, FILE, &[b'#'; BYTES], false).is_ok()
}

/// Gives the space back to the disk.
pub(super) fn spend(dir: &Path) {
    for name in [FILE, "reserve.tmp"] {
        // Where it is not there, there is nothing to give back.
        let _ = fs::remove_file(dir.join(name));
    }
}
