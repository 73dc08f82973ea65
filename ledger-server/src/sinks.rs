//! The sinks that the ledger feeds: one task each, on threads of their own, each reading the committed records by its own cursor.
//!
//! Owns which sinks there are and where each begins. Refuses to hold up anything: the log is their buffer, so that a sink that is away costs neither memory nor the writer's time, and a thread pool of
//! their own keeps rendering and filters from the requests. Invariant: a sink whose settings become wrong goes on with the last good ones; one that is removed keeps its cursor for [`GRACE`].

mod batch;
mod delivery;
mod files;
pub mod from_cluster;
pub mod from_file;
mod metrics;
mod status;
mod target;
mod targets;
mod trial;

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chaperone_crds::{
    record::{AgentRef, ReadInfo},
    resources::SinkStart,
};
use chaperone_ledger::{follow::Cursor, store::Keeper};
use chaperone_sinks::{net::SinkNet, settings::Sink};
use jiff::Timestamp;
use prometheus::Registry;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::interval,
};

use delivery::{Around, Delivery};
use files::Files;
use metrics::SinkMetrics;
use status::Status;
pub(crate) use status::{Failing, Health};
use target::Make;
use targets::Maker;
pub(crate) use trial::{Outcome, Untried, WHAT as TEST};

/// How long the cursor of a sink that was removed is kept: a sink of that name goes on there.
pub const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often lag is shown.
const SHOW: Duration = Duration::from_secs(1);
/// How often a sink whose cursor could not be read is tried again, and old cursors are removed.
const LOOK: Duration = Duration::from_secs(30);
/// Threads of the sinks.
const THREADS: usize = 2;

/// A sink that there should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Its name.
    pub name: String,
    /// Its settings, or what is wrong with them, one sentence each.
    pub sink: Result<Sink, Vec<String>>,
}

/// What sinks need around them.
#[derive(Clone)]
pub struct Surroundings {
    /// The ledger's directory.
    pub dir: PathBuf,
    /// What keeps its files.
    pub keeper: Keeper,
    /// Where the committed records end.
    pub committed: watch::Receiver<Cursor>,
    /// The way to endpoints.
    pub net: Arc<dyn SinkNet>,
    /// Our version, as targets are told it.
    pub version: String,
    /// Who the ledger is, as its own records say.
    pub agent: AgentRef,
}

/// Talks to the sinks' threads. They end when it is dropped.
#[derive(Clone, Debug)]
pub struct SinksHandle {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

/// What the sinks' threads are told.
enum Command {
    /// There are these sinks and no others.
    Set(Vec<Desired>),
    /// This one is to be tried.
    Try(Box<trial::Asked>),
}

/// What is told of each sink that runs.
type Shared = Mutex<BTreeMap<String, Arc<Status>>>;

/// Starts the threads, without a sink yet.
///
/// # Errors
/// If the folder of the cursors cannot be made, or the system has no thread to give.
pub fn start(around: Surroundings, registry: &Registry) -> io::Result<SinksHandle> {
    let files = Files::open(&around.dir, around.keeper.clone())?;
    let metrics = SinkMetrics::new(registry);
    let (commands, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    let maker = Maker {
        net: around.net.clone(),
        version: around.version.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("chaperone-sinks")
        .enable_all()
        .build()?;
    let manager = Manager {
        make: Arc::new(move |sink| maker.make(sink)),
        around,
        files,
        metrics,
        desired: Vec::new(),
        running: BTreeMap::new(),
        trials: BTreeMap::new(),
        shared: shared.clone(),
    };
    thread::Builder::new()
        .name("chaperone-sinks".to_owned())
        .spawn(move || {
            runtime.block_on(manager.run(receiver));
            // A disk that hangs must not hold the process.
            runtime.shutdown_background();
        })?;
    Ok(SinksHandle { commands, shared })
}

impl SinksHandle {
    /// From now on there are these sinks and no others.
    pub fn set(&self, desired: Vec<Desired>) {
        // The thread ends only when all handles are dropped.
        let _ = self.commands.send(Command::Set(desired));
    }

    /// Sends a marked record to a sink, by its settings as they are now.
    pub(crate) async fn test(&self, name: &str, read: ReadInfo) -> Result<Outcome, Untried> {
        let (answer, outcome) = oneshot::channel();
        let asked = Box::new(trial::Asked {
            name: name.to_owned(),
            read,
            answer,
        });
        // A thread that has ended gives no answer.
        let _ = self.commands.send(Command::Try(asked));
        outcome.await.unwrap_or(Err(Untried::Stopping))
    }

    /// How each sink that runs fares.
    pub(crate) fn health(&self) -> BTreeMap<String, Health> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared
            .iter()
            .map(|(name, status)| (name.clone(), status.health()))
            .collect()
    }
}

struct Manager {
    around: Surroundings,
    files: Files,
    metrics: SinkMetrics,
    make: Make,
    desired: Vec<Desired>,
    running: BTreeMap<String, Running>,
    /// Sinks that are being tried.
    trials: BTreeMap<String, JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Running {
    sink: Sink,
    status: Arc<Status>,
    task: JoinHandle<()>,
}

impl Manager {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let (mut show, mut look) = (interval(SHOW), interval(LOOK));
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Set(desired)) => {
                        self.desired = desired;
                        self.apply().await;
                    }
                    Some(Command::Try(asked)) => self.try_sink(*asked),
                    None => return,
                },
                _ = show.tick() => self.show(),
                _ = look.tick() => self.apply().await,
            }
        }
    }

    /// Makes what runs what is desired.
    async fn apply(&mut self) {
        let desired = self.desired.clone();
        let is_desired = |name: &String| desired.iter().any(|d| d.name == *name);
        let removed = self.running.extract_if(.., |name, _| !is_desired(name));
        for (name, running) in removed.collect::<Vec<_>>() {
            tracing::info!(sink = name, "sink removed");
            running.end().await;
            self.metrics.remove(&name);
        }
        for desired in &desired {
            let Ok(sink) = &desired.sink else { continue };
            let running = self.running.get(&sink.name);
            if running.is_some_and(|r| r.sink == *sink && !r.task.is_finished()) {
                continue;
            }
            if let Some(before) = self.running.remove(&sink.name) {
                // Ended before another task uses the same cursor.
                before.end().await;
            }
            self.begin(sink.clone());
        }
        self.forget(&is_desired);
        let statuses = self
            .running
            .iter()
            .map(|(n, r)| (n.clone(), r.status.clone()));
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = statuses.collect();
    }

    fn begin(&mut self, sink: Sink) {
        let cursor = match self.place(&sink) {
            Ok(cursor) => cursor,
            Err(error) => {
                tracing::error!(sink = sink.name, %error, "the sink's cursor cannot be kept; the sink does not run");
                return;
            }
        };
        tracing::info!(sink = sink.name, target = ?sink.target, leaf = cursor.leaf, "sink set");
        let status = Arc::new(Status::new(&sink.name, self.metrics.clone()));
        let around = Around {
            dir: self.around.dir.clone(),
            committed: self.around.committed.clone(),
            files: self.files.clone(),
            make: self.make.clone(),
            status: status.clone(),
        };
        let delivery = Delivery::new(sink.clone(), cursor, around);
        let running = Running {
            task: tokio::spawn(delivery.run()),
            status,
            sink: sink.clone(),
        };
        self.running.insert(sink.name, running);
    }

    /// Tries a sink, beside its delivery and one trial at a time.
    fn try_sink(&mut self, asked: trial::Asked) {
        self.trials.retain(|_, task| !task.is_finished());
        let desired = self.desired.iter().find(|d| d.name == asked.name);
        let sink = match desired.map(|desired| &desired.sink) {
            None => Err(Err(Untried::NoSuchSink)),
            Some(_) if self.trials.contains_key(&asked.name) => Err(Err(Untried::Busy)),
            Some(Err(problems)) => Err(Ok(Outcome::unusable(&asked.name, problems))),
            Some(Ok(sink)) => Ok(sink.clone()),
        };
        let sink = match sink {
            Ok(sink) => sink,
            // Who asked may have left.
            Err(answer) => return drop(asked.answer.send(answer)),
        };
        let (make, agent) = (self.make.clone(), self.around.agent.clone());
        let leaf = self.around.committed.borrow().leaf;
        let task = tokio::spawn(async move {
            let outcome = trial::run(sink, make, agent, asked.read, leaf).await;
            let _ = asked.answer.send(Ok(outcome));
        });
        self.trials.insert(asked.name, task);
    }

    /// Where a sink goes on or begins: on disk when it returns.
    fn place(&self, sink: &Sink) -> io::Result<Cursor> {
        let end = *self.around.committed.borrow();
        let kept = self.files.cursor(&sink.name)?;
        let cursor = match (kept, sink.start) {
            (Some(kept), _) if kept.cursor.leaf > end.leaf => {
                let (kept, end) = (kept.cursor.leaf, end.leaf);
                tracing::error!(
                    sink = sink.name,
                    kept,
                    end,
                    "the ledger has fewer records than the sink was sent: an older copy was put back; the sink gets what comes from now on"
                );
                *self.around.committed.borrow()
            }
            (Some(kept), _) if kept.left.is_none() => return Ok(kept.cursor),
            (Some(kept), _) => kept.cursor,
            (None, SinkStart::Oldest) => Cursor::START,
            (None, SinkStart::Now) => end,
        };
        self.files.keep(&sink.name, cursor, None)?;
        Ok(cursor)
    }

    /// Notes which sinks are gone, and removes what is kept of those that are for long.
    fn forget(&self, is_desired: &dyn Fn(&String) -> bool) {
        let names = self.files.names().unwrap_or_default();
        for name in names.iter().filter(|name| !is_desired(name)) {
            if let Err(error) = self.leave(name) {
                tracing::warn!(sink = name, %error, "what is kept of a removed sink cannot be changed");
            }
        }
    }

    fn leave(&self, name: &str) -> io::Result<()> {
        let Some(kept) = self.files.cursor(name)? else {
            return Ok(());
        };
        match kept.left {
            None => self.files.keep(name, kept.cursor, Some(now())),
            Some(left) if now().saturating_sub(left) >= GRACE.as_secs() => {
                tracing::info!(sink = name, "what was kept of a removed sink is removed");
                self.files.remove(name)
            }
            Some(_) => Ok(()),
        }
    }

    fn show(&self) {
        let end = self.around.committed.borrow().leaf;
        let now = Timestamp::now();
        for running in self.running.values() {
            running.status.show(end, now);
        }
    }
}

impl Running {
    async fn end(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
