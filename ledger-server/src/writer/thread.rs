//! What the thread does: rounds of taking, one commit, answers; checkpoints when they are due.

use std::{
    fmt,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chaperone_crds::{chain::StreamId, head::Head};
use chaperone_ledger::{
    cosignature::Time,
    follow::Cursor,
    key::SigningKey,
    store::{Committed, Refused, Staged, Store},
};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::{
    Answer, Answered, Message, OpenFailed, QUEUE_REQUESTS, Recalled, Request, Want, WriterConfig,
};
use crate::{
    metrics::Metrics,
    refusal::{Code, Refusal},
};

use super::own::Own;

/// Bytes of batches after which a commit is made without looking for more.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// How often the thread looks at the clock when nothing comes.
const TICK: Duration = Duration::from_secs(1);
/// How long the disk is left alone after a failure.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How often a lasting failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// Whom the thread tells what.
pub(super) struct Tells {
    /// Where the committed records end.
    pub(super) end: watch::Sender<Cursor>,
    /// Records under the newest checkpoint.
    pub(super) sign: watch::Sender<u64>,
    /// Leaves up to the newest record that is no checkpoint.
    pub(super) other: watch::Sender<u64>,
}

/// The store and what belongs to it.
pub(super) struct Thread {
    pub(super) store: Store,
    pub(super) own: Own,
    keys: Vec<SigningKey>,
    pub(super) metrics: Metrics,
    tells: Tells,
    /// When a commit last failed, while none has succeeded since.
    failing: Option<Instant>,
    /// When it last looked whether a checkpoint is due.
    looked: Instant,
    logged: Option<Instant>,
}

/// A request that was taken and waits for the commit.
struct Waiting {
    what: Awaited,
    answered: Answered,
    /// Held for as long as the body is.
    _room: Option<OwnedSemaphorePermit>,
}

enum Awaited {
    /// Records of the ledger's own.
    Own(Staged),
    /// The one of them that is no reason for another.
    Checkpoint(Staged),
    /// Records of a sidecar, and the time of the last one.
    Batch(StreamId, Staged, Option<Timestamp>),
    Next(StreamId),
}

impl Thread {
    /// Opens the directory, learns whose the streams are, and begins or continues the ledger's own stream.
    pub(super) fn open(
        config: WriterConfig,
        recalled: Recalled,
        metrics: Metrics,
        tells: Tells,
    ) -> Result<Self, OpenFailed> {
        let opened = recalled.open(config.store, config.keeper);
        let (mut store, own) = opened.map_err(OpenFailed::Open)?;
        store.at(Timestamp::now());
        own.begin(&mut store)
            .map_err(|refused| OpenFailed::Begin(refused.to_string()))?;
        store
            .commit()
            .map_err(|error| OpenFailed::Begin(error.to_string()))?;
        let thread = Self {
            store,
            own,
            keys: config.keys,
            metrics,
            tells,
            failing: None,
            looked: Instant::now(),
            logged: None,
        };
        // Who is told that it is open shall know the end.
        thread.tell();
        let begun = thread.store.committed().leaves();
        thread.tells.other.send_replace(begun);
        Ok(thread)
    }

    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        self.show();
        self.sign_if_due();
        let mut running = true;
        while running {
            let wait = match self.failing {
                Some(_) => RETRY_AFTER,
                None => TICK,
            };
            running = match messages.recv_timeout(wait) {
                Ok(message) => self.round(message, messages),
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            self.look();
        }
        self.sign_last();
    }

    /// Takes what waits, commits once, answers all. False when it is the last.
    fn round(&mut self, first: Message, messages: &Receiver<Message>) -> bool {
        let mut waiting = Vec::new();
        let mut bytes = 0_usize;
        let mut next = Some(first);
        let mut goes_on = true;
        self.store.at(Timestamp::now());
        self.retry();
        while let Some(message) = next {
            match message {
                Message::Request(request, answered) => {
                    self.metrics.queue.dec();
                    bytes = bytes.saturating_add(request.want.bytes());
                    waiting.extend(self.take(request, answered));
                }
                Message::Cosigned(note, suffices) => self.cosigned(&note, suffices),
                Message::Read(read, answered) => {
                    self.metrics.queue.dec();
                    let write = |own: &Own, store: &mut Store| own.read(store, *read);
                    waiting.extend(self.take_own(write, answered));
                }
                Message::Pod(seen, answered) => {
                    self.metrics.queue.dec();
                    let (agent, pod) = *seen;
                    let write = |own: &Own, store: &mut Store| own.pod(store, &agent, pod);
                    waiting.extend(self.take_own(write, answered));
                }
                Message::Checkpoint(checkpoint, answered) => {
                    self.metrics.queue.dec();
                    let write = |own: &Own, store: &mut Store| own.checkpoint(store, *checkpoint);
                    let taken = self.take_own(write, answered);
                    waiting.extend(taken.map(Waiting::of_checkpoint));
                }
                Message::Destroy(what, answered) => {
                    let (day, keys, info) = *what;
                    self.alone(&mut waiting, answered, |thread| {
                        thread.destroy(day, &keys, info)
                    });
                }
                Message::Erased(info, answered) => {
                    self.alone(&mut waiting, answered, |thread| thread.erased(*info));
                }
                Message::Hold(info, answered) => {
                    self.alone(&mut waiting, answered, |thread| thread.hold(&info));
                }
                Message::Release(release, answered) => {
                    self.alone(&mut waiting, answered, |thread| thread.release(*release));
                }
                Message::Stop => {
                    goes_on = false;
                    break;
                }
            }
            let is_full = bytes >= GROUP_BYTES || waiting.len() >= QUEUE_REQUESTS;
            next = if is_full {
                None
            } else {
                messages.try_recv().ok()
            };
        }
        self.settle(waiting);
        goes_on
    }

    /// Commits what waits, and does what is a commit of its own.
    fn alone(
        &mut self,
        waiting: &mut Vec<Waiting>,
        answered: Answered,
        work: impl FnOnce(&mut Self) -> Result<Answer, Refusal>,
    ) {
        self.metrics.queue.dec();
        self.settle(std::mem::take(waiting));
        let answer = work(self);
        self.show();
        // Who asked may be gone.
        let _ = answered.send(answer);
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// One commit, of records that are a reason for a checkpoint.
    pub(super) fn commit_now(&mut self) -> Option<Committed> {
        let committed = self.commit()?;
        self.tells.other.send_replace(committed.leaves());
        self.metrics.records.inc();
        Some(committed)
    }

    /// Puts a request into the next commit. One that is refused is answered at once.
    fn take(&mut self, request: Request, answered: Answered) -> Option<Waiting> {
        let judged = match self.failing {
            Some(_) => Err(not_stored()),
            None => self.judge(&request),
        };
        match judged {
            Ok(what) => Some(Waiting {
                what,
                answered,
                _room: request.room,
            }),
            Err(refusal) => {
                // Who asked may be gone.
                let _ = answered.send(Err(refusal));
                None
            }
        }
    }

    /// The same for a record of the ledger's own.
    fn take_own(
        &mut self,
        write: impl FnOnce(&Own, &mut Store) -> Result<Staged, Refused>,
        answered: Answered,
    ) -> Option<Waiting> {
        let staged = match self.failing {
            Some(_) => Err(not_stored()),
            None => write(&self.own, &mut self.store).map_err(Refusal::from),
        };
        match staged {
            Ok(staged) => Some(Waiting {
                what: Awaited::Own(staged),
                answered,
                _room: None,
            }),
            Err(refusal) => {
                let _ = answered.send(Err(refusal));
                None
            }
        }
    }

    fn judge(&mut self, request: &Request) -> Result<Awaited, Refusal> {
        let Request {
            stream, workload, ..
        } = request;
        let next = self.store.next_seq(stream);
        let is_known = self.own.admit(stream, workload, next)?;
        let Want::Take { batch, from } = &request.want else {
            return Ok(Awaited::Next(stream.clone()));
        };
        // Where nothing is missing there is nothing to say.
        let from = from.filter(|from| *from > next);
        if !is_known || from.is_some() {
            // First the question, so that a batch that is refused leaves no record of whose it was; then the binding, so that no crash can leave a stream without it.
            self.store.check(stream, batch, from)?;
            self.own.bind(&mut self.store, stream, workload, from)?;
        }
        if let Some(from) = from {
            self.goes_on(stream, next, from);
        }
        let staged = self.store.stage_from(stream, batch, from)?;
        Ok(Awaited::Batch(stream.clone(), staged, last_time(batch)))
    }

    /// Records are missing, and a person should know.
    fn goes_on(&self, stream: &StreamId, next: u64, from: u64) {
        let records = from.saturating_sub(next);
        if next == 0 {
            self.metrics.late_streams.inc();
            tracing::warn!(%stream, from, "a stream begins late: its sidecar has no record before this one any more");
        } else {
            self.metrics.missing_records.inc_by(records);
            tracing::error!(%stream, from, records, "records are missing: this ledger lost them, or was restored from an older copy, and the sidecar has them no more");
        }
    }

    /// One commit for all.
    fn settle(&mut self, waiting: Vec<Waiting>) {
        if waiting.is_empty() {
            return;
        }
        let committed = self.commit();
        let is_other = |waiting: &Waiting| !matches!(waiting.what, Awaited::Checkpoint(_));
        if let Some(committed) = committed.filter(|_| waiting.iter().any(is_other)) {
            // With a checkpoint among them it is told of one record too many, and one checkpoint more is published.
            self.tells.other.send_replace(committed.leaves());
        }
        let mut added = 0_u64;
        for Waiting { what, answered, .. } in waiting {
            let answer = committed
                .ok_or_else(not_stored)
                .and_then(|committed| self.answer(what, committed));
            added = added.saturating_add(answer.as_ref().map_or(0, |answer| answer.added));
            // Who asked may be gone; what it sent is on disk all the same.
            let _ = answered.send(answer);
        }
        self.metrics.records.inc_by(added);
        self.metrics.commit_records.observe(added as f64);
        self.show();
    }

    fn answer(&self, what: Awaited, committed: Committed) -> Result<Answer, Refusal> {
        match what {
            Awaited::Own(staged) | Awaited::Checkpoint(staged) => acknowledge(staged, committed),
            Awaited::Batch(stream, staged, last) => {
                let answer = acknowledge(staged, committed)?;
                let (next, is_closed) =
                    (self.store.next_seq(&stream), self.store.is_closed(&stream));
                let mut roster = self.own.roster();
                roster.hear(&stream, next, is_closed, last, Timestamp::now());
                Ok(answer)
            }
            Awaited::Next(stream) => Ok(Answer {
                next_seq: self.store.next_seq(&stream),
                added: 0,
            }),
        }
    }

    fn commit(&mut self) -> Option<Committed> {
        let began = Instant::now();
        match self.store.commit() {
            Ok(committed) => {
                self.metrics
                    .commit_seconds
                    .observe(began.elapsed().as_secs_f64());
                if self.failing.take().is_some() {
                    // Nobody could be heard meanwhile.
                    self.own.roster().deaf_until(Timestamp::now());
                    self.logged = None;
                    self.metrics.storage_failing.set(0);
                    tracing::info!("the disk takes records again");
                }
                Some(committed)
            }
            Err(error) => {
                self.failing = Some(Instant::now());
                self.own.roster().deaf_until(Timestamp::now());
                self.metrics.storage_failing.set(1);
                self.failed("commit", &error);
                None
            }
        }
    }

    /// After a failure: tries again what was staged, if the disk was left alone for long enough.
    fn retry(&mut self) {
        if self.failing.is_some_and(|at| at.elapsed() >= RETRY_AFTER) {
            self.commit();
        }
    }

    /// What the clock asks for.
    fn look(&mut self) {
        self.retry();
        if self.looked.elapsed() >= TICK {
            self.looked = Instant::now();
            self.sign_if_due();
        }
    }

    fn sign_if_due(&mut self) {
        let keys: Vec<_> = self.keys.iter().collect();
        match self.store.tick(&keys, now()) {
            Ok(Some(_)) => self.signed(),
            Ok(None) => {}
            Err(error) => self.failed("checkpoint", &error),
        }
    }

    /// At the end everything that is committed shall be signed.
    fn sign_last(&mut self) {
        let keys: Vec<_> = self.keys.iter().collect();
        match self.store.checkpoint(&keys, now()) {
            Ok(_) => self.signed(),
            Err(error) => self.failed("checkpoint", &error),
        }
    }

    fn signed(&self) {
        // A checkpoint is a commit too.
        self.tell();
        let metrics = &self.metrics;
        metrics
            .checkpoint_records
            .set(gauge(self.store.committed().leaves()));
        metrics.checkpoint_time.set(gauge(now().seconds()));
        self.tells
            .sign
            .send_replace(self.store.committed().leaves());
    }

    fn cosigned(&mut self, note: &[u8], suffices: bool) {
        if let Err(error) = self.store.cosigned(note, suffices) {
            self.failed("checkpoint", &error);
        }
    }

    pub(super) fn failed(&mut self, stage: &str, error: &dyn fmt::Display) {
        self.metrics
            .storage_errors
            .with_label_values(&[stage])
            .inc();
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::error!(stage, %error, "the disk fails; it is tried again");
        }
    }

    fn show(&self) {
        let streams = u64::try_from(self.store.streams()).unwrap_or(u64::MAX);
        self.metrics.streams.set(gauge(streams));
        let leaves = self.store.committed().leaves();
        self.metrics.leaves.set(gauge(leaves));
        self.tell();
    }

    /// Wakes who follows, if there is more to follow.
    fn tell(&self) {
        let now = self.store.end();
        self.tells.end.send_if_modified(|end| {
            let is_new = *end != now;
            *end = now;
            is_new
        });
    }
}

impl Waiting {
    fn of_checkpoint(self) -> Self {
        let what = match self.what {
            Awaited::Own(staged) => Awaited::Checkpoint(staged),
            other => other,
        };
        Self { what, ..self }
    }
}

pub(super) fn acknowledge(staged: Staged, committed: Committed) -> Result<Answer, Refusal> {
    let receipt = staged.receipt(committed).ok_or_else(not_stored)?;
    Ok(Answer {
        next_seq: receipt.next_seq,
        added: receipt.added,
    })
}

/// The time of a batch's last record, by its sidecar's clock.
fn last_time(batch: &[u8]) -> Option<Timestamp> {
    let lines = batch.strip_suffix(b"\n").unwrap_or(batch);
    let last = lines.rsplit(|b| *b == b'\n').next()?;
    Head::parse(last).ok()?.time.parse().ok()
}

pub(super) fn not_stored() -> Refusal {
    let why = "the disk does not take records now; what was sent is tried again";
    Refusal::new(Code::Storage, why)
}

/// The clock, within what a cosignature can carry; a clock before 1970 counts as 1970.
fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Time::new(since.map_or(0, |since| since.as_secs())).unwrap_or_default()
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
