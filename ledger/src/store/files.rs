//! Files that are whole or not there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::shelf::Keeper;

/// Bytes that are written over at a time.
const BLOCK: usize = 64 * 1024;

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

/// Writes zeros where the bytes are. On a disk that writes in place nothing of them is left; what others keep of former bytes is theirs.
pub(super) fn overwrite(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let zeros = vec![0; BLOCK];
    let mut at = 0_u64;
    while at < length {
        let more = usize::try_from(length.saturating_sub(at)).map_or(BLOCK, |left| left.min(BLOCK));
        file.write_all_at(zeros.get(..more).unwrap_or_default(), at)?;
        at = at.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
    }
    file.sync_data()
}

/// Writes zeros over a file and removes it.
///
/// # Errors
/// The system's.
pub fn scrub(path: &Path) -> io::Result<()> {
    overwrite(&OpenOptions::new().write(true).open(path)?)?;
    fs::remove_file(path)
}
