//! Files that settings name, and Secrets that they name in turn, as files `FOLDER/SECRET/KEY`.

use std::{fs, path::Path};

use anyhow::{Context, bail};

/// Largest file of a Secret, in bytes, as the API server has it.
const MAX_SECRET_BYTES: usize = 1024 * 1024;

/// A file's text, of at most so many bytes.
pub(crate) fn text(path: &Path, most: usize) -> anyhow::Result<String> {
    let shown = path.display();
    let length = fs::metadata(path).with_context(|| shown.to_string())?.len();
    if usize::try_from(length).map_or(true, |length| length > most) {
        bail!("{shown} is longer than {most} bytes");
    }
    let bytes = fs::read(path).with_context(|| shown.to_string())?;
    String::from_utf8(bytes).with_context(|| format!("{shown} is no UTF-8"))
}

/// The text under a key of a Secret, if it is there.
pub(crate) fn secret(folder: &Path, secret: &str, key: &str) -> Option<String> {
    let is_plain = |name: &str| !name.contains('/') && !name.starts_with('.');
    if !is_plain(secret) || !is_plain(key) {
        return None;
    }
    text(&folder.join(secret).join(key), MAX_SECRET_BYTES).ok()
}
