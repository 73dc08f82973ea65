//! The search index of a replica that follows: kept as fresh as its copy, so that a replica which begins to lead answers questions at once.
//!
//! Refuses to hold anything up: an index that cannot be kept is left, and made anew by whoever leads. Nobody asks it here.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chaperone_index::store::{Forgot, Index, IndexError, Opened};
use chaperone_ledger::follow::Place;

use crate::{metrics::Metrics, search};

/// How long it is worked on at a time: the copy goes on, and the lease is looked at, in between.
const SLICE: Duration = Duration::from_millis(300);

/// The index, once it is open.
pub(super) struct Fresh {
    dir: PathBuf,
    path: PathBuf,
    origin: String,
    index: Option<Index>,
    metrics: Metrics,
}

impl std::fmt::Debug for Fresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fresh")
    }
}

impl Fresh {
    /// Of the copy in this directory.
    pub(super) fn new(dir: &Path, origin: &str, metrics: Metrics) -> Self {
        Self {
            dir: dir.to_owned(),
            path: search::path(dir),
            origin: origin.to_owned(),
            index: None,
            metrics,
        }
    }

    /// Brings it nearer to this end of the records, and has it forget what is gone from them, where something `deleted` may be. Blocks.
    pub(super) fn keep(&mut self, end: Place, deleted: bool) {
        if let Err(error) = self.try_keep(end, deleted) {
            self.metrics.index_error("follow");
            tracing::warn!(%error, "the index of this copy is not kept; it is made anew");
            self.index = None;
            // Whoever leads would find it wrong, too.
            if let Err(error) = Index::scrub(&self.path) {
                tracing::warn!(%error, "the index of this copy is not removed");
            }
        }
    }

    fn try_keep(&mut self, end: Place, deleted: bool) -> Result<(), IndexError> {
        let began = Instant::now();
        let index = match &mut self.index {
            Some(index) => index,
            None => {
                let (index, opened) = Index::open(&self.path, &self.dir, &self.origin, end)?;
                if let Opened::Rebuilt(why) = opened {
                    tracing::info!(why, "the index of this copy was of no use");
                }
                self.index.insert(index)
            }
        };
        if deleted {
            index.deleted();
        }
        while began.elapsed() < SLICE {
            match index.forget(end)? {
                Forgot::Some => continue,
                Forgot::Waits => break,
                Forgot::All => {}
            }
            if index.take(end)? == 0 {
                break;
            }
        }
        Ok(())
    }
}
