//! Copies of records that were seen before. Sinks deliver at least once, so runs of records may come again; a copy must be equal to its original.
//!
//! Near originals are compared by hash. For older ones the chain does the work in constant memory: a run of copies in which each carries the hash of
//! the one before, and which reaches a record whose hash is known, consists of the originals.

use std::collections::VecDeque;

use super::fault::Fault;
use crate::chain::RecordHash;

/// How many hashes of a stream's last records are kept: 128 KiB. Covers a few batches of the usual size.
const KEPT_HASHES: usize = 4096;
/// Most interrupted runs of old copies that wait for a later run to prove them.
const MAX_OPEN_RUNS: usize = 64;

/// What is known of one stream's past.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Hashes of the last records; the newest at the back.
    recent: VecDeque<RecordHash>,
    /// The last copy of the run that is being read, not yet tied to a known hash.
    run: Option<(u64, RecordHash)>,
    /// Last copies of runs that broke off before they were tied.
    open: Vec<(u64, RecordHash)>,
}

impl Copies {
    /// A new record: number `seq`, the highest so far.
    pub(super) fn push(&mut self, hash: RecordHash) {
        self.break_off();
        if self.recent.len() >= KEPT_HASHES {
            self.recent.pop_front();
        }
        self.recent.push_back(hash);
    }

    /// A copy of `seq`, where `next` is the number of the next new record.
    pub(super) fn copy(
        &mut self,
        seq: u64,
        next: u64,
        hash: RecordHash,
        prev: RecordHash,
    ) -> Result<(), Fault> {
        match self.run {
            Some((last, last_hash)) if last.checked_add(1) == Some(seq) => {
                if last_hash != prev {
                    return Err(Fault::Conflict { seq: last });
                }
                self.run = None;
            }
            _ => self.break_off(),
        }
        match self.original(seq, next) {
            Some(original) if original == hash => Ok(()),
            Some(_) => Err(Fault::Conflict { seq }),
            None => {
                if self.open.iter().any(|(s, h)| *s == seq && *h != hash) {
                    return Err(Fault::Conflict { seq });
                }
                self.open.retain(|(s, _)| *s != seq);
                self.run = Some((seq, hash));
                match self.open.len() > MAX_OPEN_RUNS {
                    true => Err(Fault::UnprovenCopy { seq }),
                    false => Ok(()),
                }
            }
        }
    }

    /// The lowest copy that nothing proves, once all is read.
    pub(super) fn unproven(&self) -> Option<u64> {
        self.run.iter().chain(&self.open).map(|(seq, _)| *seq).min()
    }

    fn break_off(&mut self) {
        self.open.extend(self.run.take());
    }

    fn original(&self, seq: u64, next: u64) -> Option<RecordHash> {
        let back = usize::try_from(next.checked_sub(seq)?).ok()?;
        let at = self.recent.len().checked_sub(back)?;
        self.recent.get(at).copied()
    }
}
