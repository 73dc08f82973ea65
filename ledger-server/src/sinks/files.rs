//! What a sink leaves in the ledger's directory: its cursor, and names of records that its target refused for good.
//!
//! ```text
//! sinks/NAME.cursor            {"format":1,"cursor":{"leaf":N,"place":{"segment":N,"offset":N}},"left":SECONDS}
//! sinks/NAME.refused.jsonl     {"time":…,"leaf":N,"stream":…,"seq":N,"reason":…} a line, the newest
//! sinks/NAME.refused.1.jsonl   the ones before
//! ```
//!
//! Invariant: a cursor is replaced whole and synced, so that a crash leaves the old or the new one. The ledger has the records, so that these files only name them.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use chaperone_ledger::{follow::Cursor, store::Keeper};
use serde::{Deserialize, Serialize};

/// Size of a file of refused records after which the next begins, in bytes. Two are kept.
const REFUSED_BYTES: u64 = 4 * 1024 * 1024;
/// Longest reason that is kept, in characters.
const REASON_CHARS: usize = 400;
/// Largest cursor file, in bytes.
const MAX_CURSOR_BYTES: u64 = 4096;
/// Version of the cursor's file.
const FORMAT: u32 = 1;
/// How its name ends.
const CURSOR: &str = ".cursor";

/// The folder of the sinks.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    dir: PathBuf,
    keeper: Keeper,
}

/// Its name in the ledger's directory.
const FOLDER: &str = "sinks";

/// What is on disk of a sink.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    format: u32,
    /// Before the first record that the target has not acknowledged.
    pub(crate) cursor: Cursor,
    /// Since when no such sink is configured, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left: Option<u64>,
}

/// A record that was refused for good, or how many of some.
#[derive(Serialize, Debug)]
pub(crate) struct Refused<'a> {
    pub(crate) time: String,
    pub(crate) leaf: u64,
    pub(crate) stream: &'a str,
    pub(crate) seq: u64,
    /// Of the records from this one on; 1 where the target says which.
    pub(crate) records: u64,
    pub(crate) reason: &'a str,
}

impl Files {
    /// Makes the folder in the ledger's directory.
    pub(crate) fn open(ledger: &Path, keeper: Keeper) -> io::Result<Self> {
        let dir = ledger.join(FOLDER);
        fs::create_dir_all(&dir)?;
        keeper.named(ledger)?;
        Ok(Self { dir, keeper })
    }

    /// Where a sink stands, if it has begun.
    pub(crate) fn cursor(&self, name: &str) -> io::Result<Option<Kept>> {
        let path = self.path(name, CURSOR);
        let length = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?.len(),
        };
        if length > MAX_CURSOR_BYTES {
            return Err(io::Error::other("the cursor's file is too long"));
        }
        let kept: Kept = serde_json::from_slice(&fs::read(&path)?)?;
        match kept.format {
            FORMAT => Ok(Some(kept)),
            other => Err(io::Error::other(format!(
                "the cursor's file has format {other}, and this version knows {FORMAT}"
            ))),
        }
    }

    /// Keeps where a sink stands; on disk when it returns.
    pub(crate) fn keep(&self, name: &str, cursor: Cursor, left: Option<u64>) -> io::Result<()> {
        let kept = Kept {
            format: FORMAT,
            cursor,
            left,
        };
        let path = self.path(name, CURSOR);
        let there = self.path(name, ".cursor.tmp");
        let kept = serde_json::to_vec(&kept)?;
        let mut file = File::create(&there)?;
        file.write_all(&kept)?;
        self.keeper
            .replaced(&file, &inside(name, CURSOR), || Ok(kept))?;
        fs::rename(&there, &path)?;
        self.keeper.named(&self.dir)
    }

    /// Names of all sinks that have a cursor.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let file = entry?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(CURSOR));
            names.extend(name.map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes all that is kept of a sink.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        for end in [REFUSED, REFUSED_BEFORE, CURSOR] {
            self.keeper.removed(&inside(name, end))?;
            match fs::remove_file(self.path(name, end)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes records that were refused for good; on disk when it returns.
    pub(crate) fn refuse(&self, name: &str, refused: &[Refused<'_>]) -> io::Result<()> {
        let path = self.path(name, REFUSED);
        let is_full = fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= REFUSED_BYTES);
        if is_full {
            self.turn(name, &path)?;
        }
        let mut lines = Vec::new();
        for one in refused {
            let reason: String = one.reason.chars().take(REASON_CHARS).collect();
            let one = Refused {
                time: one.time.clone(),
                reason: &reason,
                ..*one
            };
            serde_json::to_writer(&mut lines, &one)?;
            lines.push(b'\n');
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let at = file.metadata()?.len();
        let noted = file.write_all(&lines).and_then(|()| {
            let name = inside(name, REFUSED);
            self.keeper.appended(&file, &name, at, &lines)
        });
        if noted.is_err() {
            // It is written again, at the same place.
            let _ = file.set_len(at);
        }
        noted
    }

    /// What was refused until now becomes what was refused before.
    fn turn(&self, name: &str, path: &Path) -> io::Result<()> {
        let before = inside(name, REFUSED_BEFORE);
        self.keeper
            .replaced(&File::open(path)?, &before, || fs::read(path))?;
        self.keeper.removed(&inside(name, REFUSED))?;
        fs::rename(path, self.path(name, REFUSED_BEFORE))
    }

    fn path(&self, name: &str, end: &str) -> PathBuf {
        self.dir.join(format!("{name}{end}"))
    }
}

/// A file's name in the ledger's directory.
fn inside(name: &str, end: &str) -> String {
    format!("{FOLDER}/{name}{end}")
}

const REFUSED: &str = ".refused.jsonl";
const REFUSED_BEFORE: &str = ".refused.1.jsonl";
