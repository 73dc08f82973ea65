//! Records on disk between the audit thread and the sinks. docs/spool-format.md is its format and its rules.
//!
//! Owns the directory: segments, `state.json`, cursors, lock. Refuses to know what a record says. Invariant: sinks see committed bytes only, and a
//! segment is deleted only when every cursor is past it.

mod appender;
mod cursor;
mod read;
mod recover;
mod reserve;
mod state;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::watch;

pub(super) use appender::{Appender, BATCH_BYTES};
pub(super) use read::{Batch, Read};
pub(super) use recover::Opened;

use super::{metrics::AuditMetrics, queue::Signal};

/// Largest size of a segment, in bytes, give or take one batch.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// A spool has at least this many segments' worth of limit, so that deleting one makes room.
const SEGMENTS_IN_LIMIT: u64 = 4;

/// Highest number of a record that a chain is continued from: JSON readers are exact up to 2^53 (RFC 8259 section 6), and no sidecar lives to write so many. A higher one is damage.
const MAX_SEQ: u64 = 1 << 53;

/// A place in the spool: between two lines of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// Number of the segment.
    pub(super) segment: u64,
    /// Bytes of the segment that lie before.
    pub(super) offset: u64,
    /// Lines of the segment that lie before.
    pub(super) records: u64,
}

/// The shared side of the spool: what is committed and who has read how far.
#[derive(Debug)]
pub(super) struct Spool {
    dir: PathBuf,
    limit: u64,
    index: Mutex<Index>,
    /// Counts commits; sinks wait on it.
    commits: watch::Sender<u64>,
    /// Woken when a segment was deleted.
    writer: OnceLock<Arc<Signal>>,
    metrics: AuditMetrics,
    /// Locked as long as it is open.
    _lock: File,
}

#[derive(Debug, Default)]
struct Index {
    /// Committed size of each segment.
    segments: BTreeMap<u64, Size>,
    cursors: BTreeMap<String, Position>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    bytes: u64,
    records: u64,
}

impl Spool {
    /// Changes when something was committed or a new segment began.
    pub(super) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Whom to wake when there is room again.
    pub(super) fn wake_on_release(&self, signal: Arc<Signal>) {
        // Called once, by the one who starts the audit thread.
        let _ = self.writer.set(signal);
    }

    /// Size at which a segment is followed by the next, in bytes.
    pub(super) fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES.min(self.limit / SEGMENTS_IN_LIMIT)
    }

    /// True when the committed bytes have reached the limit.
    pub(super) fn is_full(&self) -> bool {
        self.index().bytes() >= self.limit
    }

    /// The oldest position that is left, if it is before this one.
    pub(super) fn before(&self, position: Position) -> Option<Position> {
        let oldest = self.index().oldest();
        let is_before = (oldest.segment, oldest.offset) < (position.segment, position.offset);
        is_before.then_some(oldest)
    }

    /// Where this sink goes on: behind what it acknowledged, or at the oldest record.
    pub(super) fn join(&self, sink: &str) -> Position {
        let mut index = self.index();
        let known = index.cursors.get(sink).copied();
        let position = known.unwrap_or_else(|| index.oldest());
        index.cursors.insert(sink.to_owned(), position);
        self.show(&index);
        position
    }

    /// The sink is no more: its cursor goes, and what only it had not read.
    pub(super) fn leave(&self, sink: &str) {
        let mut index = self.index();
        index.cursors.remove(sink);
        // The file may never have been written.
        let _ = fs::remove_file(self.dir.join(cursor::file_name(sink)));
        let _ = self.metrics.sink_lag.remove_label_values(&[sink]);
        self.release(&mut index);
    }

    /// Sinks whose cursors are kept.
    pub(super) fn sinks(&self) -> Vec<String> {
        self.index().cursors.keys().cloned().collect()
    }

    /// The sink acknowledged everything before `position`.
    pub(super) fn advance(&self, sink: &str, position: Position) {
        let mut index = self.index();
        index.cursors.insert(sink.to_owned(), position);
        if let Err(error) = cursor::write(&self.dir, sink, position) {
            // The sink would get copies after a restart; holding the segments for that would keep a full disk full.
            tracing::warn!(sink, %error, "the sink's cursor was not written");
        }
        self.release(&mut index);
    }

    /// Counts a delivery.
    pub(super) fn delivered(&self, sink: &str, records: u64) {
        let total = self.metrics.sink_records.with_label_values(&[sink]);
        total.inc_by(records);
    }

    /// Counts what the sink's filter kept back.
    pub(super) fn left_out(&self, sink: &str, records: u64) {
        let total = self.metrics.sink_left_out.with_label_values(&[sink]);
        total.inc_by(records);
    }

    /// Counts a failed delivery.
    pub(super) fn sink_failed(&self, sink: &str, reason: &str) {
        let total = self.metrics.sink_errors.with_label_values(&[sink, reason]);
        total.inc();
    }

    /// Records that the sink has not acknowledged.
    pub(super) fn lag(&self, position: Position) -> u64 {
        self.index().lag(position)
    }

    /// Records that some sink has not acknowledged; all, if there is no sink.
    pub(super) fn undelivered(&self) -> u64 {
        let index = self.index();
        let lags = index.cursors.values().map(|p| index.lag(*p));
        lags.max().unwrap_or_else(|| index.lag(Position::default()))
    }

    /// More of a segment is on disk.
    fn commit(&self, segment: u64, size: Size) {
        let mut index = self.index();
        index.segments.insert(segment, size);
        self.show(&index);
        drop(index);
        self.commits.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn release(&self, index: &mut Index) {
        let doomed = index.unneeded();
        for segment in &doomed {
            index.segments.remove(segment);
            if let Err(error) = fs::remove_file(segment_path(&self.dir, *segment)) {
                tracing::warn!(segment, %error, "a delivered segment was not deleted");
            }
        }
        self.show(index);
        if !doomed.is_empty()
            && let Some(writer) = self.writer.get()
        {
            writer.wake();
        }
    }

    fn show(&self, index: &Index) {
        self.metrics.spool_bytes.set(gauge(index.bytes()));
        for (sink, position) in &index.cursors {
            let lag = self.metrics.sink_lag.with_label_values(&[sink]);
            lag.set(gauge(index.lag(*position)));
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    /// Cursors that point outside the segments start at the oldest record.
    fn new(segments: BTreeMap<u64, Size>, cursors: BTreeMap<String, Position>) -> Self {
        let mut index = Self {
            segments,
            cursors: BTreeMap::new(),
        };
        for (sink, position) in cursors {
            let position = index.clamp(&sink, position);
            index.cursors.insert(sink, position);
        }
        index
    }

    fn bytes(&self) -> u64 {
        self.segments.values().map(|s| s.bytes).sum()
    }

    fn oldest(&self) -> Position {
        Position {
            segment: self.segments.keys().next().copied().unwrap_or_default(),
            ..Position::default()
        }
    }

    /// Segments that every sink is past. The newest never is: it is being written.
    fn unneeded(&self) -> Vec<u64> {
        let newest = self.segments.keys().next_back().copied();
        let Some(slowest) = self.cursors.values().map(|p| p.segment).min() else {
            return Vec::new();
        };
        let end = slowest.min(newest.unwrap_or_default());
        self.segments.range(..end).map(|(n, _)| *n).collect()
    }

    fn lag(&self, position: Position) -> u64 {
        let waiting = self.segments.range(position.segment..);
        let waiting: u64 = waiting.map(|(_, size)| size.records).sum();
        waiting.saturating_sub(position.records)
    }

    fn clamp(&self, sink: &str, position: Position) -> Position {
        match self.segments.get(&position.segment) {
            Some(size) if position.offset <= size.bytes => position,
            _ => {
                tracing::warn!(
                    sink,
                    "the sink's cursor is outside the spool; it starts at the oldest record"
                );
                self.oldest()
            }
        }
    }
}

fn segment_path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:08}.jsonl"))
}

/// Replaces a file as a whole: a reader finds the old or the new content.
fn replace(dir: &Path, name: &str, content: &[u8], durable: bool) -> io::Result<()> {
    let unfinished = dir.join(format!("{name}.tmp"));
    let mut file = File::create(&unfinished)?;
    io::Write::write_all(&mut file, content)?;
    if durable {
        file.sync_data()?;
    }
    fs::rename(&unfinished, dir.join(name))?;
    if durable { sync_dir(dir) } else { Ok(()) }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
