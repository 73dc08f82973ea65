//! The audit thread: takes events from the queue, puts them into the chain and onto the disk.
//!
//! Owns the order of records. Invariant: nothing leaves memory before it is committed; where the disk does not take it, the thread tries again and takes nothing new.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use chaperone_crds::{
    chain::Link,
    record::{AgentRef, CloseInfo, Event, EventKind},
};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{
    metrics::AuditMetrics,
    queue::{CloseRequest, Entry, Queue, Receipt},
    spool::{Appender, BATCH_BYTES, Opened, Spool},
};

/// How long events gather while they come. A wake-up for each would cost the data path a system call; this much is lost at most when the process is killed.
const GATHER: Duration = Duration::from_millis(5);
/// Shortest time between two syncs of the disk, unless a caller waits for a receipt or a batch is full.
const SYNC_EVERY: Duration = Duration::from_millis(50);
/// How often a full spool is looked at again, should a wake-up be missed.
const FULL_WAIT: Duration = Duration::from_millis(100);
/// How long the disk is left alone after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How often a lasting failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// How long the end of the stream waits for recorders that have room in the queue and have not used it: they are between two instructions.
const LAST_EVENTS: Duration = Duration::from_secs(1);

/// The audit thread's state.
pub(super) struct Writer {
    spool: Arc<Spool>,
    appender: Appender,
    queue: Queue,
    metrics: AuditMetrics,
    /// Taken from the queue when the thread looked whether to sleep.
    held: Option<Entry>,
    receipts: Vec<(Link, oneshot::Sender<Receipt>)>,
    synced: Instant,
    /// When something was last recorded, and how long after it a heartbeat is.
    recorded: Instant,
    heartbeat: Duration,
    logged: Option<Instant>,
}

impl Writer {
    pub(super) fn new(
        opened: Opened,
        queue: Queue,
        metrics: AuditMetrics,
        heartbeat: Duration,
    ) -> Self {
        Self {
            spool: opened.spool,
            appender: opened.appender,
            queue,
            metrics,
            held: None,
            receipts: Vec::new(),
            synced: Instant::now(),
            recorded: Instant::now(),
            heartbeat,
            logged: None,
        }
    }

    /// Runs until the stream is closed, or given up.
    pub(super) fn run(mut self, first: &Event) {
        self.queue.signal.attach(thread::current());
        self.append(first, Timestamp::now(), None);
        self.commit();
        while !self.abandoned() {
            if let Some(request) = self.queue.control.take_close() {
                return self.close(request, first.agent.clone());
            }
            let full = self.make_room();
            let took = !full && (self.take_batch() || self.beat(&first.agent));
            self.settle();
            self.rest(took, full);
        }
    }

    /// True while the spool is at its limit. The newest segment is ended then, so that it can be deleted once the sinks are past it.
    fn make_room(&mut self) -> bool {
        let full = self.spool.is_full();
        self.metrics.spool_blocked.set(i64::from(full));
        if full && self.appender.committed() > 0 {
            self.commit();
            self.rotate();
        }
        full
    }

    /// Takes events until the batch is full or the queue empty. True if there was one.
    fn take_batch(&mut self) -> bool {
        let mut took = false;
        while self.appender.pending() < BATCH_BYTES {
            let next = self.held.take();
            let Some(entry) = next.or_else(|| self.queue.receiver.try_recv().ok()) else {
                break;
            };
            self.append(&entry.event, entry.time, entry.receipt);
            took = true;
        }
        took
    }

    /// Where nothing came for long enough: says that the stream goes on and is whole, which its silence does not. True if it was time. While the spool is full nothing is said: the stream stands still then.
    fn beat(&mut self, agent: &AgentRef) -> bool {
        let is_due = self.recorded.elapsed() >= self.heartbeat;
        if is_due {
            let event = Event::new(EventKind::StreamHeartbeat, agent.clone());
            self.append(&event, Timestamp::now(), None);
        }
        is_due
    }

    fn append(
        &mut self,
        event: &Event,
        time: Timestamp,
        receipt: Option<oneshot::Sender<Receipt>>,
    ) {
        let link = self.appender.append(event, time);
        self.metrics.count(event.kind);
        self.recorded = Instant::now();
        self.receipts.extend(receipt.map(|sender| (link, sender)));
    }

    /// Writes what is pending, and syncs it when it is time.
    fn settle(&mut self) {
        let pending = self.appender.pending();
        let due = pending >= BATCH_BYTES
            || !self.receipts.is_empty()
            || self.synced.elapsed() >= SYNC_EVERY;
        if pending == 0 {
            return;
        }
        if !due {
            return self.until_done(Appender::write);
        }
        self.commit();
        if self.appender.committed() >= self.spool.segment_bytes() {
            self.rotate();
        }
    }

    fn commit(&mut self) {
        self.until_done(Appender::commit);
        self.synced = Instant::now();
        if self.appender.pending() > 0 {
            return;
        }
        let stream = self.appender.chain().stream();
        for (link, sender) in self.receipts.drain(..) {
            // Who asked may have hung up.
            let _ = sender.send(Receipt::new(stream.clone(), link));
        }
    }

    /// The old segment serves as well where no new one can be made.
    fn rotate(&mut self) {
        if let Err(error) = self.appender.rotate() {
            self.failed(&error);
        }
    }

    /// Repeats until it succeeds or nobody waits any more.
    fn until_done(&mut self, step: fn(&mut Appender) -> io::Result<()>) {
        while let Err(error) = step(&mut self.appender) {
            self.metrics.spool_blocked.set(1);
            self.failed(&error);
            if self.abandoned() {
                return;
            }
            // On a full disk the sinks' progress frees space only if they can leave this segment behind.
            if reason(&error) == NO_SPACE && self.appender.committed() > 0 {
                self.rotate();
            }
            thread::sleep(RETRY_AFTER);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "no-space",
            _ => "io",
        };
        self.metrics.spool_errors.with_label_values(&[reason]).inc();
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::error!(%error, "the spool cannot be written; operations wait until it can");
        }
    }

    /// Sleeps: a moment while events come, longer while the spool is full, else until woken or a heartbeat is due.
    fn rest(&mut self, took: bool, full: bool) {
        if took || self.appender.pending() > 0 {
            thread::park_timeout(GATHER);
        } else if full {
            thread::park_timeout(FULL_WAIT);
        } else {
            let quiet = self.heartbeat.saturating_sub(self.recorded.elapsed());
            let (held, queue) = (&mut self.held, &self.queue);
            queue.signal.sleep_unless(quiet, || {
                *held = queue.receiver.try_recv().ok();
                held.is_some()
            });
        }
    }

    /// Takes what is still in the queue, writes `stream.close`, and ends.
    fn close(mut self, request: CloseRequest, agent: AgentRef) {
        self.queue.refuse();
        let began = Instant::now();
        loop {
            self.take_batch();
            self.commit();
            if self.queue.is_empty() || self.abandoned() || began.elapsed() > LAST_EVENTS {
                break;
            }
            thread::yield_now();
        }
        let mut event = Event::new(EventKind::StreamClose, agent);
        event.close = Some(CloseInfo {
            records: self.appender.chain().next_seq().saturating_add(1),
            reason: request.reason,
        });
        self.append(&event, Timestamp::now(), None);
        self.commit();
        if self.appender.pending() == 0 {
            self.metrics.spool_blocked.set(0);
            // Who asked may have lost patience.
            let _ = request.done.send(());
        }
    }

    fn abandoned(&self) -> bool {
        self.queue.control.abandoned.load(Ordering::Relaxed)
    }
}

const NO_SPACE: &str = "no-space";

/// The metric's label.
fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NO_SPACE,
        _ => "io",
    }
}
