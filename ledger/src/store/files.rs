//! Files that are whole or not there.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

/// Replaces a file: a reader, and a crash, finds the old or the new content. Durable when it returns.
pub(super) fn replace(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    write(&dir.join(name), content)?;
    sync_dir(dir)
}

/// The same without the directory's sync: after a loss of power the file may not be there, but what is there is whole.
pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&unfinished, path)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
