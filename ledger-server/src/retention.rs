//! Deletion: what rules and requests say is to go goes, on record first, out of keys, segments and index.
//!
//! Owns the order of it. For each day whose content is due: a record of the ledger's own says what goes, then the keys are destroyed; afterwards segments are written anew without it, and the index forgets what is gone. Refuses to
//! delete what is held, and looks at the holds again while nobody can put another. Invariants: nothing goes before the record that says so is on disk; what a stop breaks off, the next start ends.

mod plan;
mod policy;

use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use chaperone_crds::{chain::StreamId, record::ErasedInfo};
use chaperone_ledger::{
    content::{Entry, Keys},
    follow::Cursor,
    store::{Keeper, Sweeper, Swept},
};
use jiff::Timestamp;
use tokio::{runtime::Handle, sync::watch};

pub use plan::{Erasure, NoErasure, about, erasure};
pub(crate) use plan::{name, of_stream, sessions};
pub use policy::Policy;

use crate::{
    custody::{Custody, RETENTION},
    metrics::Metrics,
    search::Search,
    writer::WriterHandle,
};
use plan::{Due, Goes};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How far the clock may have been moved since the start; beyond it nothing is deleted by age.
const MAX_CLOCK_SECONDS: i64 = 24 * 60 * 60;
/// Erasures that wait for a sweep to follow, at most; one that finds no room is followed by the next sweep.
const WAITING: usize = 64;

/// What deletion works on.
pub struct Retention {
    /// The ledger's directory.
    pub dir: PathBuf,
    /// What keeps its files.
    pub keeper: Keeper,
    /// The ledger's own stream.
    pub own: StreamId,
    /// The file that says what is kept for how long.
    pub file: Option<PathBuf>,
    /// What it says.
    pub policy: Policy,
    /// Time between two sweeps.
    pub every: Duration,
    /// Whose evidence is whose, and what is held.
    pub custody: Custody,
    /// Where the committed records end.
    pub committed: watch::Receiver<Cursor>,
    /// Who writes records and destroys keys.
    pub writer: WriterHandle,
    /// What has to forget.
    pub search: Search,
    /// What is counted.
    pub metrics: Metrics,
}

/// Has a sweep follow at once. Clones ask the same.
#[derive(Clone, Debug)]
pub struct Sweeps(SyncSender<()>);

impl Sweeps {
    /// Has a sweep follow.
    pub fn follow(&self) {
        // Where none fits, one comes all the same.
        let _ = self.0.try_send(());
    }
}

impl Retention {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread to give.
    pub fn start(self) -> io::Result<Sweeps> {
        let (asks, asked) = sync_channel(WAITING);
        let thread = Thread {
            sweeper: Sweeper::new(&self.dir, self.own.clone()).kept_by(self.keeper.clone()),
            keys: Keys::of(&self.dir),
            runtime: Handle::current(),
            started: (Instant::now(), Timestamp::now()),
            all: self,
        };
        std::thread::Builder::new()
            .name("chaperone-retention".to_owned())
            .spawn(move || thread.run(&asked))?;
        Ok(Sweeps(asks))
    }
}

struct Thread {
    all: Retention,
    sweeper: Sweeper,
    keys: Keys,
    runtime: Handle,
    /// By the clock that nobody sets, and by the one that tells ages.
    started: (Instant, Timestamp),
}

impl Thread {
    fn run(mut self, asked: &Receiver<()>) {
        self.end_what_was_begun();
        loop {
            self.sweep();
            let swept = Instant::now();
            let mut is_asked = false;
            while swept.elapsed() < self.all.every && !is_asked {
                match asked.recv_timeout(LOOK.min(self.all.every)) {
                    Ok(()) => is_asked = true,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                if self.all.committed.has_changed().is_err() {
                    return;
                }
                self.reread();
            }
            // One sweep is enough for all that asked.
            asked.try_iter().for_each(drop);
        }
    }

    /// The file as it is now; the former rules stay where it is wrong.
    fn reread(&mut self) {
        let Some(file) = &self.all.file else {
            return;
        };
        match Policy::read(file) {
            Ok(policy) if policy == self.all.policy => {}
            Ok(policy) => {
                tracing::info!(file = %file.display(), "other rules of retention are in force");
                self.all.policy = policy;
            }
            Err(error) => {
                self.all
                    .metrics
                    .sweep_errors
                    .with_label_values(&["policy"])
                    .inc();
                let error = format!("{error:#}");
                tracing::error!(
                    error,
                    "the retention file cannot be read, the former rules stay"
                );
            }
        }
    }

    fn sweep(&mut self) {
        let began = Instant::now();
        let swept = self.try_sweep();
        match swept {
            Ok((keys, swept)) => {
                let now = Timestamp::now().as_second();
                self.all.metrics.sweep_time.set(now);
                if keys > 0 || swept != Swept::default() {
                    let Swept {
                        contents,
                        records,
                        bytes,
                    } = swept;
                    tracing::info!(keys, contents, records, bytes, took = ?began.elapsed(), "what was due was deleted");
                }
            }
            Err((stage, why)) => self.failed(stage, &why),
        }
        let holds = self.all.custody.read().holds().len();
        self.all
            .metrics
            .holds
            .set(i64::try_from(holds).unwrap_or(i64::MAX));
    }

    fn failed(&self, stage: &'static str, why: &str) {
        let errors = &self.all.metrics.sweep_errors;
        errors.with_label_values(&[stage]).inc();
        tracing::error!(stage, why, "deletion fails; it is tried again");
    }

    fn try_sweep(&mut self) -> Result<(u64, Swept), Failed> {
        let now = self.now()?;
        let keys = self.contents(now)?;
        let mut is_rewritten = false;
        let swept = self.segments(now, &mut is_rewritten);
        // Those before a failure too. Not one after the other: what they lose is often in the same part of the index.
        if is_rewritten {
            self.all.search.deleted();
        }
        Ok((keys, swept?))
    }

    /// The time, unless the clock was moved by a day since the start: one that is wrong would delete what is not due, and that cannot be undone.
    fn now(&self) -> Result<Timestamp, Failed> {
        let (started, then) = self.started;
        let now = Timestamp::now();
        let passed = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
        let moved = now
            .as_second()
            .saturating_sub(then.as_second())
            .saturating_sub(passed);
        match moved.abs() < MAX_CLOCK_SECONDS {
            true => Ok(now),
            false => Err((
                "clock",
                format!(
                    "the clock was moved by {moved} s since the ledger started: nothing is deleted by age until it starts again"
                ),
            )),
        }
    }

    /// Destroys the keys that are due. How many.
    fn contents(&self, now: Timestamp) -> Result<u64, Failed> {
        let policy = &self.all.policy;
        let Some(soonest) = policy.soonest() else {
            return Ok(0);
        };
        let mut count = 0_u64;
        for day in self.keys.days().map_err(failed("keys"))? {
            if !soonest.is_over(day.ends(), now) {
                break;
            }
            let entries = self.keys.entries(day).map_err(failed("keys"))?;
            let due = Due::of(&entries, policy, &self.all.custody.read(), now);
            for (rule, keys) in due.by_rule {
                let info = ErasedInfo {
                    what: "content".to_owned(),
                    cause: RETENTION.to_owned(),
                    rule: Some(rule),
                    from: day.begins().to_string(),
                    until: day.ends().to_string(),
                    ..ErasedInfo::default()
                };
                let destroyed = self
                    .runtime
                    .block_on(self.all.writer.destroy(day, keys, info));
                self.all.search.deleted();
                count = count.saturating_add(destroyed.map_err(refused)?);
            }
        }
        Ok(count)
    }

    /// Writes segments anew that have what is gone, or what is to go.
    fn segments(&mut self, now: Timestamp, is_rewritten: &mut bool) -> Result<Swept, Failed> {
        let newest = self.all.committed.borrow().place.segment;
        let rest = || std::thread::sleep(Duration::from_millis(5));
        self.sweeper
            .look(newest, rest)
            .map_err(failed("segments"))?;
        let mut all = Swept::default();
        for segment in 0..newest {
            let goes = self.goes(segment, now);
            let is_stale = self.sweeper.is_stale(segment).map_err(failed("keys"))?;
            if goes.is_empty() && !is_stale {
                continue;
            }
            *is_rewritten = true;
            for info in goes.records() {
                let recorded = self.runtime.block_on(self.all.writer.record_erased(info));
                recorded.map_err(refused)?;
            }
            let swept = self.rewrite(segment, &goes, now)?;
            self.all.metrics.deleted_records.inc_by(swept.records);
            all.contents = all.contents.saturating_add(swept.contents);
            all.records = all.records.saturating_add(swept.records);
            all.bytes = all.bytes.saturating_add(swept.bytes);
            rest();
        }
        Ok(all)
    }

    /// While the holds are looked at nobody can put another.
    fn rewrite(&mut self, segment: u64, goes: &Goes, now: Timestamp) -> Result<Swept, Failed> {
        let custody = self.all.custody.clone();
        let state = custody.read();
        let still = Goes::of(self.sweeper.known(), segment, &self.all.policy, &state, now);
        let both = goes
            .streams()
            .intersection(&still.streams())
            .cloned()
            .collect();
        self.sweeper
            .rewrite(segment, &both)
            .map_err(failed("segments"))
    }

    fn goes(&self, segment: u64, now: Timestamp) -> Goes {
        let state = self.all.custody.read();
        Goes::of(self.sweeper.known(), segment, &self.all.policy, &state, now)
    }

    /// What somebody asked to be erased and a stop broke off, after its record and before its keys went.
    fn end_what_was_begun(&self) {
        let asked = self.all.custody.read().asked().clone();
        let names = asked.iter().filter_map(|(info, _)| info.session.as_deref());
        let names: HashSet<&str> = names.collect();
        if names.is_empty() {
            return;
        }
        let ended = about(&self.keys, &names).map_err(failed("keys"));
        let ended = ended.and_then(|entries| {
            let mut each = asked.iter();
            each.try_for_each(|(info, time)| self.end(&entries, info, *time))
        });
        if let Err((stage, why)) = ended {
            self.failed(stage, &why);
        }
    }

    fn end(&self, entries: &[Entry], info: &ErasedInfo, time: Timestamp) -> Result<(), Failed> {
        let session = info.session.as_deref().unwrap_or_default();
        let found = {
            let state = self.all.custody.read();
            erasure(
                entries,
                &state,
                session,
                info.namespace.as_deref(),
                Some(time),
            )
        };
        let Ok(found) = found else {
            return Ok(());
        };
        for (day, keys) in found.keys {
            let info = ErasedInfo {
                from: day.begins().to_string(),
                until: day.ends().to_string(),
                ..info.clone()
            };
            let destroyed = self
                .runtime
                .block_on(self.all.writer.destroy(day, keys, info));
            self.all.search.deleted();
            destroyed.map_err(refused)?;
        }
        Ok(())
    }
}

/// At which stage, and why.
type Failed = (&'static str, String);

fn failed(stage: &'static str) -> impl FnOnce(io::Error) -> Failed {
    move |error| (stage, error.to_string())
}

fn refused(refusal: crate::refusal::Refusal) -> Failed {
    ("record", refusal.message)
}
