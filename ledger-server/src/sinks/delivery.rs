//! One sink's task: reads committed records from its cursor, sends them, keeps the cursor. The only loop that delivers, whatever the target.
//!
//! Invariant: the cursor moves over a record only after the target acknowledged it, refused it for good (then it is named in the file of refused records), or the filter kept it back. So every record is
//! delivered at least once, in the order of the log; what failed comes again, for as long as the sink is configured.

use std::{collections::VecDeque, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use chaperone_crds::filter::Filter;
use chaperone_ledger::follow::{Cursor, Follower};
use chaperone_sinks::{
    backoff::{Backoff, LONGEST_ASKED, random},
    settings::Sink,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{
    batch::{Read, ReadFault, read},
    files::{Files, Refused},
    status::Status,
    target::{Answer, Failure, Make, Outgoing, Target, Then},
};

/// How long a target may take for one batch, from the first name that is resolved to the last acknowledgement.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a lasting failure, or a doubt of a filter, is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// How often a cursor is kept that only moved over what the filter kept back.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// Records that are refused one by one before a target that never took any is believed to refuse for another reason than the records: a wrong path, a wrong schema.
const MOST_SUSPECTS: usize = 8;

/// A sink, its target and its place in the log.
pub(super) struct Delivery {
    sink: Sink,
    filter: Option<Arc<Filter>>,
    dir: PathBuf,
    follower: Option<Follower>,
    cursor: Cursor,
    kept: Cursor,
    kept_at: Option<Instant>,
    committed: watch::Receiver<Cursor>,
    files: Files,
    make: Make,
    target: Option<Box<dyn Target>>,
    status: Arc<Status>,
    /// Most records in a batch: fewer than the settings say once the target found a batch too large.
    most: usize,
    /// The target took a record since these settings are in force.
    has_taken: bool,
    logged: Option<Instant>,
    logged_doubt: Option<Instant>,
}

/// What a delivery needs around it.
pub(super) struct Around {
    /// The ledger's directory.
    pub(super) dir: PathBuf,
    /// Where the committed records end.
    pub(super) committed: watch::Receiver<Cursor>,
    /// Cursors.
    pub(super) files: Files,
    /// What makes targets.
    pub(super) make: Make,
    /// What is told of it.
    pub(super) status: Arc<Status>,
}

impl Delivery {
    /// Goes on at this cursor, which is kept already.
    pub(super) fn new(sink: Sink, cursor: Cursor, around: Around) -> Self {
        let Around {
            dir,
            committed,
            files,
            make,
            status,
        } = around;
        // What is read as settings compiles.
        let filter = sink
            .filter
            .as_deref()
            .and_then(|filter| Filter::compile(filter).ok());
        status.at(cursor.leaf);
        Self {
            filter: filter.map(Arc::new),
            follower: Some(Follower::new(&dir, cursor)),
            dir,
            cursor,
            kept: cursor,
            kept_at: None,
            committed,
            files,
            make,
            target: None,
            status,
            most: sink.batch.records,
            has_taken: false,
            sink,
            logged: None,
            logged_doubt: None,
        }
    }

    /// Ends when the ledger does; else never by itself.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            if self.committed.borrow_and_update().leaf <= self.cursor.leaf {
                self.status.nothing_waits();
                if !self.more().await {
                    return;
                }
                continue;
            }
            self.gather().await;
            let end = *self.committed.borrow_and_update();
            match self.read(end).await {
                Ok(read) => {
                    backoff = Backoff::default();
                    self.deliver(read).await;
                }
                Err(fault) => {
                    let (then, reason) = match fault {
                        ReadFault::Follow(_) => (Then::Soon, "read"),
                        ReadFault::Render(_) => (Then::Rarely, "render"),
                    };
                    let failure = Failure::new(then, reason, fault);
                    self.failed(&failure, &mut backoff).await;
                }
            }
        }
    }

    /// Waits for records. False where there will be none any more.
    async fn more(&mut self) -> bool {
        if self.kept != self.cursor {
            if let Ok(changed) = timeout(KEEP_EVERY, self.committed.changed()).await {
                return changed.is_ok();
            }
            self.keep(true).await;
        }
        self.committed.changed().await.is_ok()
    }

    /// Lets a batch fill: until there are enough records or bytes, or the first of them has waited for long enough. Each batch, not the first after a quiet time alone: else what comes while one is sent would be the next, however little.
    async fn gather(&mut self) {
        let until = Instant::now() + self.sink.batch.wait;
        let enough = u64::try_from(self.most).unwrap_or(u64::MAX);
        let bytes = u64::try_from(self.sink.batch.bytes).unwrap_or(u64::MAX);
        let from = self.cursor;
        let is_enough = |end: &Cursor| {
            // A segment that ended is long.
            end.place.segment != from.place.segment
                || end.leaf.saturating_sub(from.leaf) >= enough
                || end.place.offset.saturating_sub(from.place.offset) >= bytes
        };
        // Ended or full: either way what is there is sent.
        let _ = timeout_at(until, self.committed.wait_for(is_enough)).await;
    }

    /// Disks block, and filters compute: both on a thread for that.
    async fn read(&mut self, end: Cursor) -> Result<Read, ReadFault> {
        let (dir, cursor) = (self.dir.clone(), self.cursor);
        let mut follower = match self.follower.take() {
            Some(follower) if follower.cursor() == cursor => follower,
            _ => Follower::new(&dir, cursor),
        };
        let mut most = self.sink.batch;
        most.records = self.most;
        let (filter, format) = (self.filter.clone(), self.sink.format);
        let reading = tokio::task::spawn_blocking(move || {
            let result = read(&dir, &mut follower, end, most, filter.as_deref(), format);
            (follower, result)
        });
        match reading.await {
            Ok((follower, result)) => {
                self.follower = Some(follower);
                result
            }
            // Only where the runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        }
    }

    /// Delivers what was read, however long it takes.
    async fn deliver(&mut self, read: Read) {
        self.doubt(read.doubt);
        self.status.left_out(read.left_out);
        if let Some(first) = read.batch.first() {
            self.status.waits(first.about.time.parse().ok());
            self.settle(&read.batch).await;
        }
        self.cursor = read.end;
        self.status.at(read.end.leaf);
        self.keep(!read.batch.is_empty()).await;
    }

    /// Has every record acknowledged or refused for good.
    async fn settle(&mut self, batch: &[Outgoing]) {
        let mut backoff = Backoff::default();
        let mut left = whole(batch);
        let mut suspects: Vec<(usize, String)> = Vec::new();
        loop {
            let failure = match left.pop_front() {
                Some(part) => self.send(batch, part, &mut left, &mut suspects).await,
                None if suspects.is_empty() => return,
                None if self.has_taken => return self.refuse(batch, suspects).await,
                None => None,
            };
            if let Some(failure) = failure {
                self.failed(&failure, &mut backoff).await;
            } else if !self.has_taken && suspects.len() == MOST_SUSPECTS {
                last_first(&mut left);
            } else if !self.has_taken
                && !suspects.is_empty()
                && (suspects.len() > MOST_SUSPECTS || left.is_empty())
            {
                let failure = not_the_records(&suspects);
                left = whole(batch);
                suspects.clear();
                self.failed(&failure, &mut backoff).await;
            }
        }
    }

    /// Sends a part of a batch. What must come again stands in front of what is left then; a failure means a pause before it.
    async fn send(
        &mut self,
        batch: &[Outgoing],
        part: Range<usize>,
        left: &mut VecDeque<Range<usize>>,
        suspects: &mut Vec<(usize, String)>,
    ) -> Option<Failure> {
        let records = batch.get(part.clone()).unwrap_or_default();
        let failure = match self.attempt(records).await {
            Ok(answer) => return self.answered(answer, part, batch, left, suspects).await,
            Err(failure) => failure,
        };
        let is_about_records = matches!(failure.then, Then::Fewer | Then::Refused);
        if !is_about_records {
            left.push_front(part);
            return Some(failure);
        }
        self.status.error(failure.reason);
        if records.len() <= 1 {
            suspects.push((part.start, failure.message));
            return None;
        }
        let half = records.len() / 2;
        if failure.then == Then::Fewer {
            self.most = self.most.min(half.max(1));
        }
        let middle = part.start.saturating_add(half);
        left.push_front(middle..part.end);
        left.push_front(part.start..middle);
        None
    }

    async fn attempt(&mut self, records: &[Outgoing]) -> Result<Answer, Failure> {
        let mut target = match self.target.take() {
            Some(target) => target,
            None => (self.make)(&self.sink)?,
        };
        let answer = timeout(SEND_TIMEOUT, target.send(records)).await;
        let Ok(answer) = answer else {
            // What it was in the middle of is not known: it begins anew.
            let why = format!("no answer within {} s", SEND_TIMEOUT.as_secs());
            return Err(Failure::soon("timeout", why));
        };
        self.target = Some(target);
        answer
    }

    async fn answered(
        &mut self,
        answer: Answer,
        part: Range<usize>,
        batch: &[Outgoing],
        left: &mut VecDeque<Range<usize>>,
        suspects: &mut Vec<(usize, String)>,
    ) -> Option<Failure> {
        let unnamed = answer
            .refused_unnamed
            .as_ref()
            .map_or(0, |(count, _)| *count);
        let not_taken = [&answer.refused, &answer.unfit].map(Vec::len);
        let not_taken = not_taken.into_iter().sum::<usize>() + answer.again.len();
        let taken = part.len().saturating_sub(not_taken);
        let taken = u64::try_from(taken)
            .unwrap_or(u64::MAX)
            .saturating_sub(unnamed);
        if taken > 0 {
            self.has_taken = true;
            self.taken(taken);
        }
        if let Some((count, why)) = answer.refused_unnamed {
            self.refuse_unnamed(batch.get(part.start), count, &why)
                .await;
        }
        let place = |at: usize| part.start.saturating_add(at);
        for (at, why) in answer.refused {
            suspects.push((place(at), why));
        }
        if !answer.unfit.is_empty() {
            let unfit = answer.unfit.into_iter();
            let unfit = unfit.map(|(at, why)| (place(at), why)).collect();
            self.refuse(batch, unfit).await;
        }
        let again = answer.again.len();
        for part in neighbours(answer.again).into_iter().rev() {
            left.push_front(place(part.start)..place(part.end));
        }
        (again > 0).then(|| {
            Failure::soon(
                "partly",
                format!("the target took a part, and {again} records must come again"),
            )
        })
    }

    fn taken(&mut self, records: u64) {
        self.status.sent(records);
        if self.logged.take().is_some() {
            tracing::info!(sink = self.sink.name, "the sink takes records again");
        }
    }

    /// Names records that were refused for good. A disk that takes nothing is waited for: what is passed over must be on record.
    async fn refuse(&mut self, batch: &[Outgoing], refused: Vec<(usize, String)>) {
        let count = u64::try_from(refused.len()).unwrap_or(u64::MAX);
        let named = refused
            .into_iter()
            .filter_map(|(place, why)| Some((batch.get(place)?.clone(), 1, why)));
        self.note(named.collect()).await;
        self.status.refused(count);
    }

    async fn refuse_unnamed(&mut self, first: Option<&Outgoing>, count: u64, why: &str) {
        let named = first.map(|first| (first.clone(), count, why.to_owned()));
        self.note(named.into_iter().collect()).await;
        self.status.refused(count);
    }

    async fn note(&mut self, refused: Vec<(Outgoing, u64, String)>) {
        let sink = self.sink.name.clone();
        if let Some((first, count, why)) = refused.first() {
            let (record, more) = (first.about.id(), refused.len());
            tracing::error!(
                sink,
                record,
                count,
                more,
                why,
                "the target refuses records for good; they stay in the ledger"
            );
        }
        let mut backoff = Backoff::default();
        loop {
            let (files, name, refused) = (self.files.clone(), sink.clone(), refused.clone());
            let written = tokio::task::spawn_blocking(move || {
                let time = jiff::Timestamp::now().to_string();
                let named: Vec<_> = refused
                    .iter()
                    .map(|(record, records, why)| Refused {
                        time: time.clone(),
                        leaf: record.leaf,
                        stream: &record.about.stream,
                        seq: record.about.seq,
                        records: *records,
                        reason: why,
                    })
                    .collect();
                files.refuse(&name, &named)
            });
            match written.await {
                Ok(Err(error)) => {
                    let failure = Failure::soon("write", error);
                    self.failed(&failure, &mut backoff).await;
                }
                _ => return,
            }
        }
    }

    /// Keeps the cursor, if it moved: at once, or now and then.
    async fn keep(&mut self, at_once: bool) {
        let is_due = at_once || self.kept_at.is_none_or(|at| at.elapsed() >= KEEP_EVERY);
        if self.kept == self.cursor || !is_due {
            return;
        }
        let mut backoff = Backoff::default();
        loop {
            let (files, name, cursor) = (self.files.clone(), self.sink.name.clone(), self.cursor);
            let kept = tokio::task::spawn_blocking(move || files.keep(&name, cursor, None));
            match kept.await {
                Ok(Err(error)) => {
                    let failure = Failure::soon("write", error);
                    self.failed(&failure, &mut backoff).await;
                }
                _ => break,
            }
        }
        self.kept = self.cursor;
        self.kept_at = Some(Instant::now());
    }

    fn doubt(&mut self, why: Option<String>) {
        let Some(why) = why else { return };
        if self.logged_doubt.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged_doubt = Some(Instant::now());
            let sink = &self.sink.name;
            tracing::warn!(
                sink,
                why,
                "the filter has no answer for a record, which is delivered"
            );
        }
    }

    /// Notes a failure and waits as it asks for.
    async fn failed(&mut self, failure: &Failure, backoff: &mut Backoff) {
        let sink = &self.sink.name;
        let slow = failure.then == Then::Rarely;
        self.status.failed(failure);
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            let (reason, error) = (failure.reason, &failure.message);
            if slow {
                tracing::error!(
                    sink,
                    reason,
                    error,
                    "the sink refuses records; they wait in the ledger"
                );
            } else {
                tracing::warn!(
                    sink,
                    reason,
                    error,
                    "the sink takes no records; they wait in the ledger"
                );
            }
        }
        let own = backoff.next(slow, random());
        let wait = match failure.retry_after {
            Some(asked) => asked.min(LONGEST_ASKED).max(own),
            None => own,
        };
        sleep(wait).await;
    }
}

/// All of a batch as one part.
fn whole(batch: &[Outgoing]) -> VecDeque<Range<usize>> {
    std::iter::once(0..batch.len()).collect()
}

/// Places, ascending, as parts of neighbours.
fn neighbours(places: Vec<usize>) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    for place in places {
        match parts.last_mut() {
            Some(last) if last.end == place => last.end = place.saturating_add(1),
            _ => parts.push(place..place.saturating_add(1)),
        }
    }
    parts
}

/// Puts the last record in front: if the target takes it, the records before it are what it refuses.
fn last_first(left: &mut VecDeque<Range<usize>>) {
    if let Some(part) = left.pop_back() {
        let last = part.end.saturating_sub(1);
        if part.start < last {
            left.push_back(part.start..last);
        }
        left.push_front(last..part.end);
    }
}

/// A target that refuses each record and never took one has another reason than the records.
fn not_the_records(suspects: &[(usize, String)]) -> Failure {
    let why = suspects.first().map_or("", |(_, why)| why.as_str());
    let why = format!(
        "it refuses every record, and has not taken one since its settings are in force: {why}"
    );
    Failure::new(Then::Rarely, "refused", why)
}

#[cfg(test)]
mod tests;
