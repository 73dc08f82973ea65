//! The copy of a shared ledger in this replica's directory.
//!
//! Owns what is written there while another leads, or before this one does. Refuses names that are none of a ledger's files. Nothing is synced: a copy that is lost is made again. Nobody reads it before a store is opened on it, which judges all of it: so files are written in place.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use chaperone_ledger::{follow::Place, store::scrub};
use sha2::{Digest as _, Sha256};

use super::{
    Failed,
    database::{Database, Part},
    objects::Objects,
    plan::{Entry, FILES, FOLDERS, Known, Object, Step, is_shared, segment},
};

/// A directory and how far it is.
#[derive(Debug)]
pub(super) struct Copy {
    dir: PathBuf,
    known: Known,
    /// The last change that is in it.
    last: u64,
    /// It had all that there was at some moment.
    is_whole: bool,
    /// Where its records end.
    end: Place,
    /// Something may be gone from records or keys since somebody asked.
    has_deleted: bool,
    /// Segments whose bytes here were put anew since somebody asked: noted when that is done, for what is fetched may fail and be fetched again.
    rewritten: BTreeSet<u64>,
}

impl Copy {
    /// In this directory, whatever is there. The folders are made.
    pub(super) fn begin(dir: &Path) -> io::Result<Self> {
        for folder in FOLDERS {
            let mode = if folder == "keys" { 0o700 } else { 0o755 };
            let mut builder = fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(mode)
                .create(dir.join(folder))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            known: Known::default(),
            last: 0,
            is_whole: false,
            end: Place::default(),
            has_deleted: false,
            rewritten: BTreeSet::new(),
        })
    }

    /// Whether it had all that there was at some moment, so that its replica could lead soon.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Where its records end.
    pub(super) fn end(&self) -> Place {
        self.end
    }

    /// Whether something may be gone from records or keys since this was asked last.
    pub(super) fn has_deleted(&mut self) -> bool {
        std::mem::take(&mut self.has_deleted)
    }

    /// Segments that were put anew since this was asked last.
    pub(super) fn rewritten(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.rewritten)
    }

    /// Brings it up to what is committed now. How many files or pieces came.
    pub(super) async fn refresh(
        &mut self,
        database: &mut Database,
        objects: Option<&Objects>,
    ) -> Result<u64, Failed> {
        let look = database.look().await?;
        let newest = look.newest().await?;
        if newest <= self.last && self.is_whole {
            return Ok(0);
        }
        let mut came = 0_u64;
        for entry in look.entries(self.last).await? {
            came = came.saturating_add(1);
            self.entry(&entry, objects).await?;
        }
        let last = self.last;
        let mut files = Files::default();
        look.parts(last, |part| {
            came = came.saturating_add(1);
            self.part(part, &mut files)
        })
        .await?;
        if !self.is_whole {
            self.tidy()?;
            self.is_whole = true;
        }
        self.last = newest;
        Ok(came)
    }

    async fn entry(&mut self, entry: &Entry, objects: Option<&Objects>) -> Result<(), Failed> {
        let path = self.path(&entry.file)?;
        let may_lack = !FILES.contains(&entry.file.as_str()) && !entry.file.starts_with("sinks/");
        self.has_deleted |= may_lack && self.known.is_anew(entry);
        if let Some(object) = &entry.object {
            self.ends(&entry.file, object.length);
        }
        match (self.known.entry(entry), &entry.object) {
            (Step::Leave, _) => Ok(()),
            (Step::Fetch, Some(object)) => {
                if is_already(&path, object)? {
                    return Ok(());
                }
                let objects = objects.context(
                    "the database says that segments are in a bucket, and the settings name none",
                )?;
                let file = objects.get(object).await?;
                self.rewritten.extend(segment(&entry.file));
                remove(&path)?;
                fs::write(&path, file).with_context(|| path.display().to_string())
            }
            _ => {
                self.rewritten.extend(segment(&entry.file));
                remove(&path).with_context(|| path.display().to_string())
            }
        }
    }

    fn part(&mut self, part: Part<'_>, files: &mut Files) -> Result<(), Failed> {
        let path = self.path(part.file)?;
        if self.known.part(part.file) {
            remove(&path).with_context(|| path.display().to_string())?;
        }
        let written = files.write(&path, part.at, part.bytes);
        written.with_context(|| path.display().to_string())?;
        let length = u64::try_from(part.bytes.len())?;
        self.ends(part.file, part.at.saturating_add(length));
        Ok(())
    }

    /// A segment has so many bytes.
    fn ends(&mut self, file: &str, length: u64) {
        if let Some(segment) = segment(file).filter(|segment| *segment >= self.end.segment) {
            let offset = length;
            self.end = Place { segment, offset };
        }
    }

    /// Removes what the database does not have: what was written here and never committed.
    fn tidy(&self) -> Result<(), Failed> {
        for folder in FOLDERS {
            for file in fs::read_dir(self.dir.join(folder))? {
                let name = file?.file_name();
                let is_known = name
                    .to_str()
                    .is_some_and(|name| self.known.has(&format!("{folder}/{name}")));
                if !is_known {
                    remove(&self.dir.join(folder).join(name))?;
                }
            }
        }
        for file in FILES {
            if !self.known.has(file) {
                remove(&self.dir.join(file))?;
            }
        }
        Ok(())
    }

    fn path(&self, file: &str) -> Result<PathBuf, Failed> {
        if !is_shared(file) {
            bail!("the database names a file {file:?}, which is none of a ledger");
        }
        Ok(self.dir.join(file))
    }
}

/// The file that was written last, open.
#[derive(Default)]
struct Files(Option<(PathBuf, File)>);

impl Files {
    fn write(&mut self, path: &Path, at: u64, bytes: &[u8]) -> io::Result<()> {
        let open = match self.0.take() {
            Some((known, file)) if known == path => (known, file),
            _ => {
                let file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .open(path)?;
                (path.to_owned(), file)
            }
        };
        let (_, file) = self.0.insert(open);
        let there = file.metadata()?.len();
        if at > there {
            return Err(io::Error::other("bytes before these are missing"));
        }
        file.write_all_at(bytes, at)?;
        let end = at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        match there > end {
            // What was written there before was longer, and was not what was kept in the end.
            true => file.set_len(end),
            false => Ok(()),
        }
    }
}

/// Whether this is the file that an object is.
fn is_already(path: &Path, object: &Object) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(there) if there.len() == object.length => {
            Ok(<[u8; 32]>::from(Sha256::digest(fs::read(path)?)) == object.sha256)
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes over a file and removes it, if it is there: it may have been one of keys.
fn remove(path: &Path) -> io::Result<()> {
    match scrub(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_written_again_ends_where_it_was_written_last() {
        let name = format!("chaperone-copy-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        remove(&path).unwrap();
        let mut files = Files::default();
        files.write(&path, 0, b"first\n").unwrap();
        files.write(&path, 6, b"a long one\n").unwrap();
        files.write(&path, 6, b"short\n").unwrap();
        files.write(&path, 12, b"next\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first\nshort\nnext\n");
        assert!(files.write(&path, 99, b"x").is_err(), "a hole");
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
