//! The folder of keys, read: `keys/YYYYMMDD.jsonl`, a line for each key.
//!
//! Others may write it meanwhile: keys are added at the end of a file, and destroyed by putting a file without them in its place. What was read is kept, and each look begins with what the file is now: a key that was destroyed
//! opens nothing any more, here too.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chaperone_crds::{
    bodies,
    chain::{RecordHash, StreamId},
    head::Head,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Day, KeyId,
    seal::{KEY_BYTES, Key},
};
use crate::{leaf::Leaf, line::Sealed, store::layout::KEYS};

/// Longest name of a session that has keys of its own, in bytes; agents' have 36. As the index counts sessions.
pub(crate) const MAX_SESSION_BYTES: usize = 256;
/// Most bytes of a day's file: three million keys.
const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;
/// Days that are kept in memory; beyond it all are forgotten and read again.
const MAX_DAYS: usize = 64;

/// A key as its file has it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name.
    #[serde(with = "text")]
    pub id: KeyId,
    /// 32 bytes in base64.
    pub(crate) key: String,
    /// The stream whose records it seals.
    pub stream: StreamId,
    /// The session that these records count to; none where no record of the stream had named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// When it was made.
    pub made: Timestamp,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("id", &self.id)
            .field("stream", &self.stream)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// A key's name as text.
mod text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::KeyId;

    pub(super) fn serialize<S: Serializer>(id: &KeyId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<KeyId, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// What became of a record's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The record with all of it, as it was written.
    There(Vec<u8>),
    /// No key opens it any more.
    Gone,
    /// There is a key, and it is not what that key sealed for this record, or not what the record says.
    Damaged,
}

/// Keys of a ledger's directory, for who reads.
#[derive(Debug)]
pub struct Keys {
    folder: PathBuf,
    days: Mutex<HashMap<Day, Known>>,
}

/// What was read of a day's file.
#[derive(Default)]
struct Known {
    file: Which,
    /// Bytes of it that were read: whole lines.
    length: u64,
    /// The last of these lines, to know the file by.
    last: Vec<u8>,
    keys: HashMap<KeyId, Arc<Key>>,
}

/// Which file it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Which {
    inode: u64,
    changed: (i64, i64),
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.keys.len();
        f.debug_struct("Known")
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// Of the ledger in this directory. Nothing is opened yet.
    #[must_use]
    pub fn of(ledger: &Path) -> Self {
        Self {
            folder: ledger.join(KEYS),
            days: Mutex::default(),
        }
    }

    /// Days of which there are keys, in order.
    ///
    /// # Errors
    /// The system's.
    pub fn days(&self) -> io::Result<Vec<Day>> {
        days(&self.folder)
    }

    /// The keys of a day, in the order in which they were made.
    ///
    /// # Errors
    /// The system's, and what is no key.
    pub fn entries(&self, day: Day) -> io::Result<Vec<Entry>> {
        entries(&self.folder, day)
    }

    /// The record with its content.
    pub(crate) fn open(&self, sealed: &Sealed<'_>) -> io::Result<Content> {
        let Ok(head) = Head::parse(sealed.detached) else {
            return Ok(Content::Damaged);
        };
        let leaf = Leaf {
            stream: head.stream,
            seq: head.seq,
            record: RecordHash::of(sealed.detached),
        };
        let Some(key) = self.key(&sealed.key)? else {
            return Ok(Content::Gone);
        };
        let tail = key.open(&leaf, sealed.sealed);
        let whole = tail.and_then(|tail| bodies::attach(sealed.detached, &tail));
        Ok(whole.map_or(Content::Damaged, Content::There))
    }

    /// The key, where it is there now.
    pub(crate) fn key(&self, id: &KeyId) -> io::Result<Option<Arc<Key>>> {
        let mut days = self.days.lock().unwrap_or_else(PoisonError::into_inner);
        let path = file(&self.folder, id.day());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                days.remove(&id.day());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if days.len() >= MAX_DAYS && !days.contains_key(&id.day()) {
            days.clear();
        }
        let known = days.entry(id.day()).or_default();
        known.refresh(&file)?;
        Ok(known.keys.get(id).cloned())
    }
}

impl Known {
    /// Reads what is new of the file; all of it, where it is not the one that was read.
    fn refresh(&mut self, file: &File) -> io::Result<()> {
        let metadata = file.metadata()?;
        let which = Which {
            inode: metadata.ino(),
            changed: (metadata.mtime(), metadata.mtime_nsec()),
        };
        let length = metadata.len();
        if self.file == which && self.length == length {
            return Ok(());
        }
        if !self.goes_on(file, which, length)? {
            *self = Self::default();
        }
        let mut bytes =
            vec![0; usize::try_from(length.saturating_sub(self.length)).unwrap_or_default()];
        file.read_exact_at(&mut bytes, self.length)?;
        let whole = memchr::memrchr(b'\n', &bytes).map_or(0, |newline| newline.saturating_add(1));
        bytes.truncate(whole);
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if let Some((id, key)) = read(line) {
                self.keys.insert(id, Arc::new(key));
            }
            line.clone_into(&mut self.last);
        }
        self.length = self
            .length
            .saturating_add(u64::try_from(whole).unwrap_or(u64::MAX));
        self.file = which;
        Ok(())
    }

    /// Whether this is the file that was read, with more at its end.
    fn goes_on(&self, file: &File, which: Which, length: u64) -> io::Result<bool> {
        if length > MAX_FILE_BYTES {
            return Err(io::Error::other("a file of keys is longer than any may be"));
        }
        if self.file.inode != which.inode || length <= self.length {
            return Ok(false);
        }
        let mut last = vec![0; self.last.len()];
        let back = u64::try_from(last.len()).unwrap_or(u64::MAX);
        file.read_exact_at(&mut last, self.length.saturating_sub(back))?;
        Ok(last == self.last && !last.is_empty())
    }
}

/// A line of a file. What is none opens nothing.
fn read(line: &[u8]) -> Option<(KeyId, Key)> {
    let entry: Entry = serde_json::from_slice(line).ok()?;
    let bytes: [u8; KEY_BYTES] = STANDARD.decode(&entry.key).ok()?.try_into().ok()?;
    Some((entry.id, Key::new(&bytes)))
}

/// Days of which a folder has keys, in order.
pub(crate) fn days(folder: &Path) -> io::Result<Vec<Day>> {
    let mut days = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let day = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        days.extend(day.and_then(|day| day.parse::<Day>().ok()));
    }
    days.sort_unstable();
    Ok(days)
}

/// The keys of a day. A line that is being written at the end is none yet.
pub(crate) fn entries(folder: &Path, day: Day) -> io::Result<Vec<Entry>> {
    let bytes = match fs::read(file(folder, day)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = bytes.split_inclusive(|b| *b == b'\n');
    let whole = lines.filter(|line| line.ends_with(b"\n"));
    let read = whole.map(|line| serde_json::from_slice(line).map_err(io::Error::other));
    read.collect()
}

/// A day's file.
pub(crate) fn file(folder: &Path, day: Day) -> PathBuf {
    folder.join(format!("{day}.jsonl"))
}
