//! The index beside the ledger: one thread that follows the committed records, and readers.
//!
//! Owns when the index is made, made anew and left alone, and when it forgets. Refuses to hold up records: nothing here is waited for by the writer, and while the disk runs full the index stops growing first. Invariant: whatever becomes of the index,
//! records are taken; an answer says how far it looks, and no answer is given from an index that has been found wrong.

mod thread;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chaperone_index::store::{IndexError, Reader};
use chaperone_ledger::follow::Cursor;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::{
    metrics::Metrics,
    refusal::{Code, Refusal},
};

/// Questions that are worked on at a time; they share two processors with what takes records.
const MAX_ASKING: usize = 4;
/// How long a question may wait for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// The index in the ledger's directory.
const FILE: &str = "index.sqlite";

/// Asks the index. Clones ask the same.
#[derive(Clone)]
pub struct Search(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    /// Where the committed records end.
    committed: watch::Receiver<Cursor>,
    state: State,
    readers: Mutex<Vec<(u64, Reader)>>,
    turns: Semaphore,
    metrics: Metrics,
}

/// What the thread and the readers tell each other.
#[derive(Debug, Default)]
struct State {
    /// Counts the indexes that this process has opened; 0 while there is none. A reader belongs to one of them.
    generation: AtomicU64,
    /// A reader has found the index wrong.
    broken: AtomicBool,
    /// Something was deleted that it may know.
    deleted: AtomicBool,
    /// It could not forget that, and is made anew.
    aside: AtomicBool,
}

/// The index of the ledger in this directory.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

impl Search {
    /// Starts the thread for the ledger in this directory, whose committed records end where `committed` says.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(
        dir: PathBuf,
        origin: String,
        committed: watch::Receiver<Cursor>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            dir,
            committed: committed.clone(),
            state: State::default(),
            readers: Mutex::default(),
            turns: Semaphore::new(MAX_ASKING),
            metrics,
        });
        thread::start(Arc::clone(&inner), origin, committed)?;
        Ok(Self(inner))
    }

    /// Says that something was deleted. The index forgets it, and answers meanwhile: what it still knows of it is in no record any more. After a stop it looks for it by itself.
    pub fn deleted(&self) {
        let inner = &self.0;
        inner.metrics.index_forgetting.set(1);
        inner.state.deleted.store(true, Ordering::Release);
    }

    /// Leaves that are committed now.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.0.committed.borrow().leaf
    }

    /// Has a reader answer.
    ///
    /// # Errors
    /// [`Refusal`]: `Busy` when too many ask, `Indexing` while there is no index, `Malformed` and so on as the question deserves.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let turn = timeout(TURN_TIMEOUT, self.0.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let why = "too many questions are asked at a time";
            return Err(Refusal::new(Code::Busy, why));
        };
        let inner = Arc::clone(&self.0);
        let began = Instant::now();
        let answer = tokio::task::spawn_blocking(move || inner.answer(question)).await;
        self.0
            .metrics
            .question_seconds
            .observe(began.elapsed().as_secs_f64());
        match answer {
            Ok(answer) => answer.map_err(|error| self.0.refuse(error)),
            Err(_) => Err(Refusal::new(Code::Storage, "the question failed")),
        }
    }
}

impl Inner {
    fn path(&self) -> PathBuf {
        path(&self.dir)
    }

    /// The file that says that the index beside it knows too much.
    fn marker(&self) -> PathBuf {
        self.dir.join(format!("{FILE}.stale"))
    }

    fn is_aside(&self) -> bool {
        self.state.aside.load(Ordering::Acquire)
    }

    /// Sets the index aside, because it cannot forget what it knows: from here on it answers nothing until it was made anew, also where the process stops before.
    fn set_aside(&self) -> io::Result<()> {
        self.state.aside.store(true, Ordering::Release);
        File::create(self.marker())?.sync_all()?;
        File::open(&self.dir)?.sync_all()?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.clear();
        Ok(())
    }

    fn answer<T>(
        &self,
        question: impl FnOnce(&Reader) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let generation = self.state.generation.load(Ordering::Acquire);
        if generation == 0 || self.is_aside() || self.state.broken.load(Ordering::Acquire) {
            return Err(IndexError::Stale("there is none yet".to_owned()));
        }
        let reader = match self.reader(generation) {
            Some(reader) => reader,
            None => Reader::open(&self.path(), &self.dir)?,
        };
        let answer = question(&reader);
        let is_broken = self.state.broken.load(Ordering::Acquire);
        // Made anew while it was asked: what it said is of a file that was written over.
        if is_broken
            || self.is_aside()
            || self.state.generation.load(Ordering::Acquire) != generation
        {
            return Err(IndexError::Behind);
        }
        let answer = answer?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.push((generation, reader));
        Ok(answer)
    }

    fn reader(&self, generation: u64) -> Option<Reader> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|(of, _)| *of == generation);
        readers.pop().map(|(_, reader)| reader)
    }

    fn refuse(&self, error: IndexError) -> Refusal {
        let no_index = self.is_aside() || self.state.generation.load(Ordering::Acquire) == 0;
        let code = match &error {
            IndexError::TooSlow => Code::TooSlow,
            IndexError::Ambiguous(_) => Code::Ambiguous,
            IndexError::Behind => Code::Indexing,
            error if error.is_broken() => {
                if !no_index && !self.state.broken.swap(true, Ordering::AcqRel) {
                    tracing::error!(%error, "the index is wrong; it is made anew");
                    self.metrics.index_error("read");
                }
                let why = "the index is being made; ask again later";
                return Refusal::new(Code::Indexing, why);
            }
            error => {
                tracing::warn!(%error, "a question had no answer");
                self.metrics.index_error("read");
                return Refusal::new(Code::Storage, "the index cannot be read now");
            }
        };
        Refusal::new(code, error.to_string())
    }
}
