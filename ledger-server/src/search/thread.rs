//! The thread that keeps the index: opens it, takes what was committed, makes it anew where it is wrong.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use chaperone_index::store::{Index, IndexError, Opened};
use chaperone_ledger::follow::{Cursor, FollowError};
use nix::sys::statvfs::statvfs;
use tokio::{runtime::Handle, sync::watch, time::timeout};

use super::Inner;

/// How long commits are gathered, so that a busy ledger makes few transactions.
const GATHER: Duration = Duration::from_millis(200);
/// How often the thread looks whether a reader found the index wrong, and how long it leaves the disk alone after a failure.
const LOOK: Duration = Duration::from_secs(1);
/// How often a lasting failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// While less than this is free the index does not grow, in bytes, or in tenths of the volume where that is less: records need the room.
const ROOM_BYTES: u64 = 1024 * 1024 * 1024;
const ROOM_TENTHS: u64 = 1;

struct Thread {
    inner: Arc<Inner>,
    origin: String,
    committed: watch::Receiver<Cursor>,
    runtime: Handle,
    logged: Option<Instant>,
}

/// Why the index was left.
enum Left {
    /// The ledger ends.
    Ended,
    /// It is wrong.
    Wrong(String),
    /// It knows what is to be forgotten.
    Aside,
}

pub(super) fn start(
    inner: Arc<Inner>,
    origin: String,
    committed: watch::Receiver<Cursor>,
) -> io::Result<()> {
    let thread = Thread {
        inner,
        origin,
        committed,
        runtime: Handle::current(),
        logged: None,
    };
    std::thread::Builder::new()
        .name("chaperone-index".to_owned())
        .spawn(move || thread.run())?;
    Ok(())
}

impl Thread {
    fn run(mut self) {
        while let Some(mut index) = self.open() {
            self.inner.state.broken.store(false, Ordering::Release);
            let state = &self.inner.state;
            state.generation.fetch_add(1, Ordering::AcqRel);
            // Readers of what is left now have nothing to ask of the next one.
            while let Left::Wrong(why) = self.follow(&mut index) {
                self.inner.metrics.index_error("wrong");
                self.inner.metrics.index_rebuilds.inc();
                tracing::error!(why, "the index is made anew");
                match index.rebuild(&self.origin) {
                    Ok(new) => index = new,
                    Err(error) => {
                        self.failed("open", &error);
                        break;
                    }
                }
                let state = &self.inner.state;
                state.generation.fetch_add(1, Ordering::AcqRel);
                state.broken.store(false, Ordering::Release);
            }
            // There is none until the next is open.
            self.inner.state.broken.store(true, Ordering::Release);
            if self.has_ended() {
                return;
            }
        }
    }

    /// Opens the index, for as long as it takes. `None` when the ledger ends.
    fn open(&mut self) -> Option<Index> {
        loop {
            if self.has_ended() {
                return None;
            }
            match self.scrub() {
                Ok(true) => {}
                Ok(false) => {
                    self.pause(GATHER);
                    continue;
                }
                Err(error) => {
                    self.failed("open", &error);
                    self.pause(LOOK);
                    continue;
                }
            }
            let end = self.committed.borrow_and_update().place;
            let path = self.inner.path();
            match Index::open(&path, &self.inner.dir, &self.origin, end) {
                Ok((index, opened)) => {
                    let leaf = index.cursor().leaf;
                    match opened {
                        Opened::Whole | Opened::New => tracing::info!(leaf, "the index is open"),
                        Opened::Rebuilt(why) => {
                            self.inner.metrics.index_rebuilds.inc();
                            tracing::warn!(why, "the index was of no use and is made anew");
                        }
                    }
                    return Some(index);
                }
                Err(error) => self.failed("open", &error),
            }
            self.pause(LOOK);
            if self.has_ended() {
                return None;
            }
        }
    }

    /// Removes an index that knows too much. False while that is still being deleted.
    fn scrub(&self) -> Result<bool, IndexError> {
        let _gate = self.inner.gate();
        if self.inner.state.aside.load(Ordering::Acquire) > 0 {
            return Ok(false);
        }
        let marker = self.inner.marker();
        if marker.exists() {
            Index::scrub(&self.inner.path())?;
            if let Err(error) = std::fs::remove_file(&marker) {
                let file = marker.display().to_string();
                return Err(IndexError::Follow(FollowError::Io { file, error }));
            }
            tracing::info!("what was deleted is forgotten; the index is made anew");
        }
        Ok(true)
    }

    fn follow(&mut self, index: &mut Index) -> Left {
        loop {
            if self.inner.is_aside() {
                return Left::Aside;
            }
            if self.inner.state.broken.load(Ordering::Acquire) {
                return Left::Wrong("a question found it so".to_owned());
            }
            let end = *self.committed.borrow_and_update();
            if let Err(error) = self.catch_up(index, end) {
                if error.is_broken() {
                    return Left::Wrong(error.to_string());
                }
                self.failed("write", &error);
                self.pause(LOOK);
            }
            self.show(index);
            if self.has_ended() {
                return Left::Ended;
            }
            // Wakes when there is more, and to look around.
            let committed = &mut self.committed;
            let more = self
                .runtime
                .block_on(async { timeout(LOOK, committed.changed()).await });
            if let Ok(Ok(())) = more {
                self.pause(GATHER);
            }
        }
    }

    /// Takes all up to this end, a batch at a time, and rests for a quarter of the time that each took.
    fn catch_up(&mut self, index: &mut Index, end: Cursor) -> Result<(), IndexError> {
        while index.cursor().leaf < end.leaf {
            let is_wrong = self.inner.state.broken.load(Ordering::Acquire) || self.inner.is_aside();
            if is_wrong || self.has_ended() || !self.has_room() {
                return Ok(());
            }
            let began = Instant::now();
            if index.take(end.place)? == 0 {
                return Err(IndexError::Stale(
                    "the records end before the log does".to_owned(),
                ));
            }
            self.show(index);
            let took = began.elapsed();
            self.pause(took / 4);
        }
        Ok(())
    }

    /// Whether the volume has room for an index too.
    fn has_room(&mut self) -> bool {
        let Ok(volume) = statvfs(&self.inner.dir) else {
            return true;
        };
        let block = volume.fragment_size();
        let all = volume.blocks().saturating_mul(block);
        let free = volume.blocks_available().saturating_mul(block);
        let has_room = free >= ROOM_BYTES.min(all / 10 * ROOM_TENTHS);
        if !has_room {
            self.failed("room", &"the volume is almost full: the index stays behind");
        }
        has_room
    }

    fn show(&self, index: &Index) {
        let metrics = &self.inner.metrics;
        let committed = self.committed.borrow().leaf;
        let behind = committed.saturating_sub(index.cursor().leaf);
        metrics
            .index_behind
            .set(i64::try_from(behind).unwrap_or(i64::MAX));
        let bytes = index.bytes();
        metrics
            .index_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn failed(&mut self, stage: &str, error: &dyn std::fmt::Display) {
        self.inner.metrics.index_error(stage);
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::error!(stage, %error, "the index fails; it is tried again, and records are taken all the same");
        }
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// The sender goes with the writer.
    fn has_ended(&self) -> bool {
        self.committed.has_changed().is_err()
    }
}
