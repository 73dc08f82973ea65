//! The writing end of keys: makes them, keeps them, destroys them, and seals content under them.
//!
//! Owns the folder of keys. Refuses clocks: what day it is says who calls. Invariants: a key is on disk, synced, before a record that it seals is; a key seals content of one stream, one session and one day, so that whatever
//! is to become unreadable has keys that nothing else has; what was destroyed is used no more.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chaperone_crds::chain::StreamId;
use jiff::Timestamp;
use memchr::memmem;
use serde::Deserialize;

use super::{
    files::{overwrite, scrub},
    judge::Fresh,
    layout::KEYS,
    shelf::Keeper,
};
use crate::{
    content::{Day, Entry, Key, KeyId, MAX_SESSION_BYTES, days, entries, file},
    line,
};

/// How much zstd tries: the least, which is some four times as fast as its usual.
const LEVEL: i32 = 1;
/// Keys that are held for more records to come; beyond it all are let go, and the next record of each stream gets a new one.
const MAX_ACTIVE: usize = 100_000;

/// Seals content.
pub(super) struct Sealer {
    folder: PathBuf,
    keeper: Keeper,
    now: Timestamp,
    /// Keys of today, by stream and session.
    active: HashMap<(StreamId, Option<String>), (KeyId, Key)>,
    /// The session that records of a stream count to which name none.
    sessions: HashMap<StreamId, String>,
    /// Lines of keys that are not on disk, of one day.
    fresh: Vec<u8>,
    /// That day.
    day: Day,
    /// Made once: it is larger than most content.
    compressor: zstd::bulk::Compressor<'static>,
    /// The day's file and how much of it is on disk.
    file: Option<(File, u64)>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("day", &self.day)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// Opens the folder: what was left half-written there goes. Records of a stream that name no session count to these.
    pub(super) fn open(
        ledger: &Path,
        keeper: Keeper,
        sessions: HashMap<StreamId, String>,
    ) -> io::Result<Self> {
        let folder = ledger.join(KEYS);
        if !folder.is_dir() {
            fs::DirBuilder::new().mode(0o700).create(&folder)?;
            keeper.named(ledger)?;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            match path.extension().and_then(|end| end.to_str()) {
                Some("tmp") => scrub(&path)?,
                Some("jsonl") => cut(&path)?,
                _ => {}
            }
        }
        Ok(Self {
            folder,
            keeper,
            now: Timestamp::UNIX_EPOCH,
            active: HashMap::new(),
            sessions,
            fresh: Vec::new(),
            day: Day::default(),
            compressor: zstd::bulk::Compressor::new(LEVEL)?,
            file: None,
        })
    }

    /// The time by the caller's clock.
    pub(super) fn at(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The day by it.
    pub(super) fn today(&self) -> Day {
        Day::of(self.now)
    }

    /// Learns which session the stream's records count to from here on, where this one names one.
    fn learn(&mut self, stream: &StreamId, record: &[u8]) {
        if let Some(session) = session(record) {
            self.sessions.insert(stream.clone(), session);
        }
    }

    /// Writes the records as they are stored, each with its newline, and seals what content they have.
    pub(super) fn store(&mut self, records: &[Fresh<'_>]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        for record in records {
            self.learn(&record.leaf.stream, &record.detached);
            match record.tail {
                None => out.extend_from_slice(&record.detached),
                Some(tail) => {
                    let bytes = self.compressor.compress(tail)?;
                    let (id, key) = self.key(&record.leaf.stream)?;
                    let content = key.seal(&record.leaf, bytes).map_err(io::Error::other)?;
                    line::sealed(&record.detached, id, &content, &mut out);
                }
            }
            out.push(b'\n');
        }
        Ok(out)
    }

    /// The key of the stream's session today, made where there is none.
    fn key(&mut self, stream: &StreamId) -> io::Result<&(KeyId, Key)> {
        let today = self.today();
        if today != self.day {
            self.turn(today)?;
        }
        if self.active.len() >= MAX_ACTIVE {
            self.active.clear();
        }
        let whose = (stream.clone(), self.sessions.get(stream).cloned());
        if !self.active.contains_key(&whose) {
            let (bytes, name) = Key::random().map_err(io::Error::other)?;
            let entry = Entry {
                id: KeyId::new(today, name),
                key: STANDARD.encode(bytes),
                stream: stream.clone(),
                session: whose.1.clone(),
                made: self.now,
            };
            serde_json::to_writer(&mut self.fresh, &entry).map_err(io::Error::other)?;
            self.fresh.push(b'\n');
            self.active
                .insert(whose.clone(), (entry.id, Key::new(&bytes)));
        }
        let key = self.active.get(&whose);
        key.ok_or_else(|| io::Error::other("a key that was made is gone"))
    }

    /// Another day, another file.
    fn turn(&mut self, day: Day) -> io::Result<()> {
        self.sync()?;
        self.active.clear();
        self.file = None;
        self.day = day;
        Ok(())
    }

    /// Writes and syncs the keys that are new. After an error the same bytes are written at the same place again.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let (file, length) = match self.file.take() {
            Some(file) => file,
            None => self.begin()?,
        };
        let name = name(self.day);
        let (file, length) = self.file.insert((file, length));
        file.write_all_at(&self.fresh, *length)?;
        self.keeper.appended(file, &name, *length, &self.fresh)?;
        let written = u64::try_from(self.fresh.len()).map_err(io::Error::other)?;
        *length = length.saturating_add(written);
        self.fresh.clear();
        Ok(())
    }

    fn begin(&self) -> io::Result<(File, u64)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(file(&self.folder, self.day))?;
        self.keeper.named(&self.folder)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Days of which there are keys, in order.
    pub(super) fn days(&self) -> io::Result<Vec<Day>> {
        days(&self.folder)
    }

    /// The keys of a day.
    pub(super) fn entries(&self, day: Day) -> io::Result<Vec<Entry>> {
        entries(&self.folder, day)
    }

    /// Destroys keys of a day: its file is put in its place anew without them, and the old one is written over.
    pub(super) fn destroy(&mut self, day: Day, keys: &HashSet<KeyId>) -> io::Result<()> {
        self.sync()?;
        self.active.retain(|_, (id, _)| !keys.contains(id));
        self.file = None;
        let path = file(&self.folder, day);
        let mut kept = Vec::new();
        for entry in self.entries(day)? {
            if !keys.contains(&entry.id) {
                serde_json::to_writer(&mut kept, &entry).map_err(io::Error::other)?;
                kept.push(b'\n');
            }
        }
        let old = match OpenOptions::new().write(true).open(&path) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if kept.is_empty() {
            self.keeper.removed(&name(day))?;
            fs::remove_file(&path)?;
        } else {
            let there = path.with_extension("jsonl.tmp");
            let mut new = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&there)?;
            new.write_all(&kept)?;
            self.keeper.replaced(&new, &name(day), || Ok(kept))?;
            fs::rename(&there, &path)?;
        }
        self.keeper.named(&self.folder)?;
        overwrite(&old)
    }
}

/// A day's file in the ledger's directory.
fn name(day: Day) -> String {
    format!("{KEYS}/{day}.jsonl")
}

/// The session that a record names.
pub(super) fn session(record: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        session: Option<Session>,
    }
    #[derive(Deserialize)]
    struct Session {
        id: Option<String>,
    }
    // Most records name none, and are not read again for that.
    memmem::find(record, b"\"session\":{")?;
    let named = serde_json::from_slice::<Named>(record).ok()?;
    let id = named.session?.id?;
    (!id.is_empty() && id.len() <= MAX_SESSION_BYTES).then_some(id)
}

/// Cuts a file after its last whole line: no record was sealed by what came after.
fn cut(path: &Path) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.read_to_end(&mut bytes)?;
    let whole = super::segments::whole(&bytes);
    if whole < bytes.len() {
        file.set_len(u64::try_from(whole).map_err(io::Error::other)?)?;
        file.sync_all()?;
    }
    Ok(())
}
