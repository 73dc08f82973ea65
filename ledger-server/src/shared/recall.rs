//! The records of a copy, read as they come, so that a replica which begins to lead has little left to read.
//!
//! Refuses records that do not fit: a replica that could not lead ends and says why, rather than to be found out when it is needed.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use chaperone_ledger::{follow::Place, store::OpenError};

use super::Failed;
use crate::writer::Recalled;

/// How long is read at a time: the copy goes on, and the lease is looked at, in between.
const SLICE: Duration = Duration::from_millis(300);

/// What was read of the records, and whether that is all.
#[derive(Debug)]
pub(super) struct Recall {
    /// Taken while it is read.
    recalled: Option<Recalled>,
    has_been_whole: bool,
}

impl Recall {
    pub(super) fn new(recalled: Recalled) -> Self {
        Self {
            recalled: Some(recalled),
            has_been_whole: false,
        }
    }

    /// Whether all of the records was read at some moment, so that little is left at any other.
    pub(super) fn has_been_whole(&self) -> bool {
        self.has_been_whole
    }

    /// Reads on for a while, as far as this end; of these segments there are other bytes than before. Whether it is there, or what the disk said.
    ///
    /// # Errors
    /// If the records are none that a ledger could be opened on.
    pub(super) async fn go_on(
        &mut self,
        end: Place,
        rewritten: BTreeSet<u64>,
    ) -> Result<Result<bool, Failed>, Failed> {
        let recalled = self.recalled.take();
        let mut recalled = recalled.context("the records were not read to an end")?;
        let reading = tokio::task::spawn_blocking(move || {
            for segment in rewritten {
                recalled.rewritten(segment);
            }
            let read = read(&mut recalled, end);
            (recalled, read)
        });
        let (recalled, read) = reading.await.context("reading the records")?;
        self.recalled = Some(recalled);
        match read {
            Ok(is_whole) => {
                self.has_been_whole |= is_whole;
                Ok(Ok(is_whole))
            }
            Err(error @ OpenError::Io { .. }) => Ok(Err(anyhow!(error))),
            Err(error) => Err(anyhow!(error).context("the shared ledger's records")),
        }
    }

    /// How many records were read.
    pub(super) fn records(&self) -> u64 {
        self.recalled.as_ref().map_or(0, Recalled::records)
    }

    /// What was read.
    pub(super) fn end(self) -> Option<Recalled> {
        self.recalled
    }
}

fn read(recalled: &mut Recalled, end: Place) -> Result<bool, OpenError> {
    let began = Instant::now();
    while !recalled.read(end)? {
        if began.elapsed() >= SLICE {
            return Ok(false);
        }
    }
    Ok(true)
}
