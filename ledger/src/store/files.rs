//! Files that are whole or not there.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::shelf::Keeper;

/// Replaces a file: a reader, and a crash, finds the old or the new content. Durable when it returns.
pub(super) fn replace(keeper: &Keeper, dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let new = Unfinished::write(&dir.join(name), content)?;
    keeper.replaced(&new.file, name, || Ok(content.to_vec()))?;
    new.rename()?;
    keeper.named(dir)
}

/// Replaces a file that can be made anew: after a loss of power it may not be there, but what is there is whole.
pub(super) fn write(keeper: &Keeper, path: &Path, content: &[u8]) -> io::Result<()> {
    Unfinished::write(path, content)?.finish(keeper)
}

/// A file under another name until it is synced.
///
/// Many are best written first and finished then: the first sync carries the others' bytes along.
#[must_use = "a file has its name only once it is finished"]
pub(super) struct Unfinished {
    file: File,
    there: PathBuf,
    path: PathBuf,
}

impl Unfinished {
    /// Writes it, without a sync.
    pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<Self> {
        let mut there = path.as_os_str().to_owned();
        there.push(".tmp");
        let there = PathBuf::from(there);
        let mut file = File::create(&there)?;
        file.write_all(content)?;
        let path = path.to_owned();
        Ok(Self { file, there, path })
    }

    /// Syncs it and gives it its name.
    pub(super) fn finish(self, keeper: &Keeper) -> io::Result<()> {
        keeper.derived(&self.file)?;
        self.rename()
    }

    fn rename(self) -> io::Result<()> {
        fs::rename(&self.there, &self.path)
    }
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
