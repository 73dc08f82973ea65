//! The thread that keeps the index: opens it, takes what was committed, makes it anew where it is wrong.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use chaperone_index::store::{Forgot, Index, IndexError, Opened};
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
    /// It may know what was deleted.
    forgets: bool,
}

/// Why the index was left.
enum Left {
    /// The ledger ends.
    Ended,
    /// It is wrong.
    Wrong(String),
    /// It cannot forget what was deleted.
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
        forgets: true,
    };
    std::thread::Builder::new()
        .name("chaperone-index".to_owned())
        .spawn(move || thread.run())?;
    Ok(())
}

impl Thread {
    fn run(mut self) {
        while let Some(mut index) = self.open() {
            let state = &self.inner.state;
            state.generation.fetch_add(1, Ordering::AcqRel);
            state.broken.store(false, Ordering::Release);
            // Readers of what is left now have nothing to ask of the next one.
            while let Left::Wrong(why) = self.follow(&mut index) {
                self.inner.metrics.index_error("wrong");
                self.inner.metrics.index_rebuilds.inc();
                tracing::error!(why, "the index is made anew");
                match index.rebuild(&self.origin) {
                    Ok(new) => {
                        index = new;
                        self.forgets = true;
                    }
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
            if let Err(error) = self.scrub() {
                self.failed("open", &error);
                self.pause(LOOK);
                continue;
            }
            let end = self.committed.borrow_and_update().place;
            let path = self.inner.path();
            match Index::open(&path, &self.inner.dir, &self.origin, end) {
                Ok((index, opened)) => {
                    let leaf = index.cursor().leaf;
                    self.forgets = true;
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

    /// Removes an index that knows too much.
    fn scrub(&self) -> Result<(), IndexError> {
        let marker = self.inner.marker();
        if self.inner.is_aside() || marker.exists() {
            Index::scrub(&self.inner.path())?;
            let removed = std::fs::remove_file(&marker);
            if let Err(error) = removed.or_else(ignore_missing) {
                let file = marker.display().to_string();
                return Err(IndexError::Follow(FollowError::Io { file, error }));
            }
            self.inner.metrics.index_rebuilds.inc();
            tracing::warn!("the index that could not forget was removed and is made anew");
        }
        self.inner.state.aside.store(false, Ordering::Release);
        Ok(())
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
            let is_behind = match self.catch_up(index, end) {
                Ok(is_behind) => is_behind,
                Err(error) if error.is_broken() => return Left::Wrong(error.to_string()),
                Err(error) => {
                    self.failed("write", &error);
                    self.pause(LOOK);
                    false
                }
            };
            self.show(index);
            if self.has_ended() {
                return Left::Ended;
            }
            match self.forget(index, end) {
                Ok(is_unfinished) if is_unfinished || is_behind => continue,
                Ok(_) => {}
                Err(left) => return left,
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

    /// Does a step of forgetting what was deleted. Whether there is another one to do at once.
    fn forget(&mut self, index: &mut Index, end: Cursor) -> Result<bool, Left> {
        if self.inner.state.deleted.swap(false, Ordering::AcqRel) {
            index.deleted();
            self.forgets = true;
        }
        if !self.forgets {
            return Ok(false);
        }
        self.inner.metrics.index_forgetting.set(1);
        let began = Instant::now();
        match index.forget(end.place) {
            Ok(Forgot::Some) => {
                self.pause(began.elapsed() / 4);
                Ok(true)
            }
            Ok(Forgot::Waits) => Ok(false),
            Ok(Forgot::All) => {
                self.forgets = false;
                self.inner.metrics.index_forgetting.set(0);
                Ok(false)
            }
            Err(error) if error.is_broken() => Err(Left::Wrong(error.to_string())),
            Err(error) => {
                self.inner.metrics.index_error("forget");
                tracing::error!(%error, "the index cannot forget what was deleted; it is set aside and made anew");
                if let Err(error) = self.inner.set_aside() {
                    self.failed("forget", &error);
                }
                Err(Left::Aside)
            }
        }
    }

    /// Takes all up to this end, a batch at a time, and rests for a quarter of the time that each took. True where it stops after one, because there is something to forget meanwhile.
    fn catch_up(&mut self, index: &mut Index, end: Cursor) -> Result<bool, IndexError> {
        while index.cursor().leaf < end.leaf {
            let is_wrong = self.inner.state.broken.load(Ordering::Acquire) || self.inner.is_aside();
            if is_wrong || self.has_ended() || !self.has_room() {
                return Ok(false);
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
            if self.forgets || self.inner.state.deleted.load(Ordering::Acquire) {
                return Ok(true);
            }
        }
        Ok(false)
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

fn ignore_missing(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}
