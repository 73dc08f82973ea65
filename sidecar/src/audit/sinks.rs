//! The sinks: one task each, on a thread of their own, each reading the spool by its own cursor.
//!
//! Owns which sinks there are and the order in which records reach them. Refuses to drop: a sink that fails is tried again for as long as it is configured.
//! Invariant: a cursor moves only after the sink acknowledged what lies before it, so every sink gets every record, in order, at least once.

mod delivery;
mod error;
mod file;
mod http;
mod ledger;
mod stdout;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use chaperone_crds::control::{SinkConfig, SinkTarget};
use chaperone_sinks::net::SinkNet;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

use super::{acknowledged::Acknowledged, spool::Spool};
use delivery::Delivery;

/// Longest name of a sink, in bytes: it is part of a file's name.
const MAX_NAME: usize = 128;
/// How often a flush looks whether all sinks have everything.
const FLUSH_LOOK: Duration = Duration::from_millis(10);

/// What sinks need around them.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) spool: Arc<Spool>,
    pub(super) acknowledged: Arc<Acknowledged>,
    pub(super) net: Arc<dyn SinkNet>,
    pub(super) version: String,
    pub(super) file_dir: Option<PathBuf>,
}

/// A name that no sink can have.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a sink cannot be named {0:?}: names are unique, and 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -")]
pub struct BadSinkName(String);

/// Talks to the thread of the sinks.
#[derive(Debug)]
pub(super) struct SinksHandle {
    acknowledged: Arc<Acknowledged>,
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Debug)]
enum Command {
    Set(Vec<SinkConfig>),
    Flush(Instant, oneshot::Sender<u64>),
}

/// Starts the thread. It ends when the handle is dropped.
pub(super) fn start(around: Surroundings) -> io::Result<SinksHandle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let acknowledged = around.acknowledged.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("chaperone-sinks".to_owned())
        .spawn(move || {
            runtime.block_on(Manager::new(around).run(receiver));
            // A write to a stalled standard output must not hold the process.
            runtime.shutdown_background();
        })?;
    Ok(SinksHandle {
        acknowledged,
        commands,
    })
}

impl SinksHandle {
    pub(super) fn set(&self, sinks: Vec<SinkConfig>) -> Result<(), BadSinkName> {
        let mut seen = BTreeSet::new();
        let bad = sinks
            .iter()
            .find(|s| !is_name(&s.name) || !seen.insert(&s.name));
        if let Some(bad) = bad {
            return Err(BadSinkName(bad.name.chars().take(MAX_NAME).collect()));
        }
        let is_ledger = |sink: &SinkConfig| matches!(sink.target, SinkTarget::Ledger { .. });
        // Here and not on the thread: what is judged by policies that come with these sinks finds it.
        self.acknowledged.configure(sinks.iter().any(is_ledger));
        // The thread ends only when this handle is dropped.
        let _ = self.commands.send(Command::Set(sinks));
        Ok(())
    }

    /// Returns what is undelivered when all sinks have everything or the time has come. Nothing is delivered after it.
    pub(super) async fn flush(&self, until: Instant) -> u64 {
        let (done, undelivered) = oneshot::channel();
        // The thread ends only when this handle is dropped.
        let _ = self.commands.send(Command::Flush(until, done));
        undelivered.await.unwrap_or_default()
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

struct Manager {
    around: Surroundings,
    running: BTreeMap<String, Running>,
    /// True once everything shall go out without waiting for full batches.
    flushing: watch::Sender<bool>,
}

struct Running {
    config: SinkConfig,
    task: JoinHandle<()>,
}

impl Manager {
    fn new(around: Surroundings) -> Self {
        Self {
            around,
            running: BTreeMap::new(),
            flushing: watch::Sender::new(false),
        }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Set(sinks) => self.set(sinks).await,
                Command::Flush(until, done) => {
                    let undelivered = self.flush(until).await;
                    // Who asked may have lost patience.
                    let _ = done.send(undelivered);
                }
            }
        }
    }

    async fn set(&mut self, sinks: Vec<SinkConfig>) {
        let mut wanted: BTreeMap<_, _> = sinks.into_iter().map(|s| (s.name.clone(), s)).collect();
        let changed = |name: &String, running: &Running| wanted.get(name) != Some(&running.config);
        let stop = self.running.extract_if(.., |name, r| changed(name, r));
        for (_, running) in stop.collect::<Vec<_>>() {
            running.task.abort();
            // Ended before another task uses the same cursor.
            let _ = running.task.await;
        }
        for name in self.around.spool.sinks() {
            if !wanted.contains_key(&name) {
                tracing::info!(sink = name, "sink removed");
                self.around.spool.leave(&name);
            }
        }
        wanted.retain(|name, _| !self.running.contains_key(name));
        // All join before any starts, so that the first cannot release what the others have not read.
        for name in wanted.keys() {
            self.around.spool.join(name);
        }
        for (name, config) in wanted {
            tracing::info!(sink = name, target = ?config.target, "sink set");
            let flushing = self.flushing.subscribe();
            let delivery = Delivery::new(&self.around, config.clone(), flushing);
            let task = tokio::spawn(delivery.run());
            self.running.insert(name, Running { config, task });
        }
    }

    /// Ends all deliveries: nothing of theirs touches the spool after this.
    async fn stop(&mut self) {
        while let Some((_, running)) = self.running.pop_first() {
            running.task.abort();
            let _ = running.task.await;
        }
    }

    async fn flush(&mut self, until: Instant) -> u64 {
        self.flushing.send_replace(true);
        loop {
            let undelivered = self.around.spool.undelivered();
            if undelivered == 0 || self.running.is_empty() || Instant::now() >= until {
                self.stop().await;
                return undelivered;
            }
            tokio::time::sleep(FLUSH_LOOK).await;
        }
    }
}
