//! One sink's task: reads the spool from its cursor, delivers, moves the cursor.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chaperone_crds::{
    control::{SinkConfig, SinkTarget},
    filter::{Filter, Passes},
    render::render_lines,
    resources::Format,
};
use chaperone_sinks::{
    backoff::{Backoff, LONGEST_ASKED, random},
    net::SinkNet,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    Surroundings, error::SinkError, file::FileSink, http::HttpSink, ledger::LedgerSink, stdout,
};
use crate::audit::{
    acknowledged::Acknowledged,
    spool::{Batch, Position, Read, Spool},
};

/// Most bytes in one batch, before compression, unless one record is longer.
const BATCH_BYTES: usize = 1024 * 1024;
/// Most records in one batch of a sink that has no setting for it.
const BATCH_RECORDS: u64 = 10_000;
/// How long a sink that sends requests lets a batch fill: a request for every record would cost both sides more than half a second of delay is worth.
const HTTP_GATHER: Duration = Duration::from_millis(500);
/// Longest wait after a failure while the sidecar ends: it has seconds, not minutes.
const FLUSH_WAIT: Duration = Duration::from_millis(250);
/// The same while operations wait for the ledger: they have half a minute.
const AWAITED_WAIT: Duration = Duration::from_secs(1);
/// How often a lasting failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(30);
/// Shortest time between two returns to the oldest record: more often it helps nobody, as where two ledgers answer in turn.
const REWIND_EVERY: Duration = Duration::from_secs(60);

/// A sink and its place in the spool.
pub(super) struct Delivery {
    spool: Arc<Spool>,
    config: SinkConfig,
    filter: Option<Filter>,
    maker: Maker,
    sink: Option<Sink>,
    position: Position,
    /// Most records in a batch; halved when the endpoint says that a batch is too large.
    batch_records: u64,
    flushing: watch::Receiver<bool>,
    /// Of the ledger: how many operations wait for it.
    waiting: Option<watch::Receiver<usize>>,
    logged: Option<Instant>,
    logged_doubt: Option<Instant>,
    rewound: Option<Instant>,
}

/// What makes a sink from its settings.
struct Maker {
    net: Arc<dyn SinkNet>,
    version: String,
    file_dir: Option<PathBuf>,
    acknowledged: Arc<Acknowledged>,
}

enum Sink {
    Stdout,
    File(FileSink),
    Http(Box<HttpSink>),
    Ledger(Box<LedgerSink>),
}

impl Delivery {
    pub(super) fn new(
        around: &Surroundings,
        config: SinkConfig,
        flushing: watch::Receiver<bool>,
    ) -> Self {
        let batch_records = match &config.target {
            SinkTarget::Http { batch_size, .. } => u64::from(*batch_size).max(1),
            SinkTarget::Stdout | SinkTarget::File { .. } | SinkTarget::Ledger { .. } => {
                BATCH_RECORDS
            }
        };
        let is_ledger = matches!(config.target, SinkTarget::Ledger { .. });
        Self {
            position: around.spool.join(&config.name),
            spool: around.spool.clone(),
            maker: Maker {
                net: around.net.clone(),
                version: around.version.clone(),
                file_dir: around.file_dir.clone(),
                acknowledged: around.acknowledged.clone(),
            },
            sink: None,
            filter: filter(&config),
            config,
            batch_records,
            flushing,
            waiting: is_ledger.then(|| around.acknowledged.waiting()),
            logged: None,
            logged_doubt: None,
            rewound: None,
        }
    }

    /// Never ends by itself.
    pub(super) async fn run(mut self) {
        let mut commits = self.spool.commits();
        loop {
            commits.mark_unchanged();
            self.gather().await;
            match self
                .spool
                .read(self.position, self.batch_records, BATCH_BYTES)
            {
                Ok(Read::Batch(batch)) => self.deliver(batch).await,
                Ok(Read::Nothing(position)) => {
                    if position != self.position {
                        self.position = position;
                        self.spool.advance(&self.config.name, position);
                    }
                    if commits.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let mut backoff = Backoff::default();
                    self.failed(&SinkError::Spool(error), &mut backoff).await;
                }
            }
        }
    }

    /// Lets a batch fill.
    async fn gather(&mut self) {
        let waiting = self.spool.lag(self.position);
        let http = matches!(
            self.config.target,
            SinkTarget::Http { .. } | SinkTarget::Ledger { .. }
        );
        if http && (1..self.batch_records).contains(&waiting) {
            self.pause(HTTP_GATHER, Duration::ZERO, Duration::ZERO)
                .await;
        }
    }

    /// Sleeps; at most `flushing_wait` once the sidecar ends, and `awaited_wait` once operations wait for this sink.
    async fn pause(&mut self, wait: Duration, flushing_wait: Duration, awaited_wait: Duration) {
        let began = Instant::now();
        let rest = |longest: Duration| sleep(longest.min(wait.saturating_sub(began.elapsed())));
        let flushing = async {
            if self.flushing.wait_for(|flushing| *flushing).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let awaited = async {
            let is_waited_for = match &mut self.waiting {
                Some(waiting) => waiting.wait_for(|waiting| *waiting > 0).await.is_ok(),
                None => false,
            };
            if !is_waited_for {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            () = flushing => rest(flushing_wait).await,
            () = awaited => rest(awaited_wait).await,
        }
    }

    /// Delivers this batch, however long it takes. When the endpoint finds it too large, or lacks what comes before it, returns, so that another one is read.
    async fn deliver(&mut self, mut batch: Batch) {
        let mut backoff = Backoff::default();
        let mut ready = None;
        while let Err(error) = self.attempt(&mut batch, &mut ready).await {
            let shrink = error.is_too_large() && batch.records > 1;
            if error.is_behind() && self.rewind() {
                return;
            }
            self.failed(&error, &mut backoff).await;
            if shrink {
                self.batch_records = (batch.records / 2).max(1);
                return;
            }
        }
        if self.logged.take().is_some() {
            tracing::info!(sink = self.config.name, "the sink takes records again");
        }
        self.position = batch.end;
        self.spool.advance(&self.config.name, batch.end);
        self.spool
            .delivered(&self.config.name, ready.unwrap_or_default());
    }

    /// Goes back to the oldest record that is left. False where it is there already, or was a moment ago.
    fn rewind(&mut self) -> bool {
        if self.rewound.is_some_and(|at| at.elapsed() < REWIND_EVERY) {
            return false;
        }
        let Some(oldest) = self.spool.before(self.position) else {
            return false;
        };
        self.rewound = Some(Instant::now());
        tracing::warn!(
            sink = self.config.name,
            "the sink lacks records that it had acknowledged; it is sent all that are left"
        );
        self.position = oldest;
        self.spool.advance(&self.config.name, oldest);
        true
    }

    /// `ready` is how many records leave, once the batch is what leaves.
    async fn attempt(
        &mut self,
        batch: &mut Batch,
        ready: &mut Option<u64>,
    ) -> Result<(), SinkError> {
        if ready.is_none() {
            let (kept, left_out) = self.leave_out(&batch.bytes);
            let kept = kept.as_deref().unwrap_or(&batch.bytes);
            if self.config.format != Format::Native || left_out > 0 {
                batch.bytes = render_lines(self.config.format, kept)?;
            }
            self.spool.left_out(&self.config.name, left_out);
            *ready = Some(batch.records.saturating_sub(left_out));
        }
        if batch.bytes.is_empty() {
            return Ok(());
        }
        let lines = &batch.bytes;
        let oldest = self.spool.before(self.position).is_none();
        if self.sink.is_none() {
            self.sink = Some(self.maker.make(&self.config)?);
        }
        match &mut self.sink {
            Some(Sink::File(file)) => file.deliver(lines),
            Some(Sink::Http(http)) => http.deliver(lines).await,
            Some(Sink::Ledger(ledger)) => ledger.deliver(lines, batch.records, oldest).await,
            Some(Sink::Stdout) | None => stdout::deliver(lines.clone()).await,
        }
    }

    /// The lines without those that the filter keeps back, where there is a filter, and how many it kept back.
    fn leave_out(&mut self, lines: &[u8]) -> (Option<Vec<u8>>, u64) {
        let Some(filter) = &self.filter else {
            return (None, 0);
        };
        let mut left_out = 0;
        let mut doubt = None;
        let mut kept = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|b| *b == b'\n') {
            match filter.passes(line.strip_suffix(b"\n").unwrap_or(line)) {
                Passes::Yes => kept.extend_from_slice(line),
                Passes::No => left_out += 1,
                Passes::InDoubt(why) => {
                    kept.extend_from_slice(line);
                    doubt = Some(why);
                }
            }
        }
        if let Some(why) = doubt
            && self.logged_doubt.is_none_or(|at| at.elapsed() >= LOG_EVERY)
        {
            self.logged_doubt = Some(Instant::now());
            let sink = &self.config.name;
            tracing::warn!(
                sink,
                why,
                "the filter has no answer for a record, which is delivered"
            );
        }
        (Some(kept), left_out)
    }

    async fn failed(&mut self, error: &SinkError, backoff: &mut Backoff) {
        let sink = &self.config.name;
        self.spool.sink_failed(sink, error.reason());
        let slow = error.needs_a_person();
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            if slow {
                tracing::error!(sink, %error, "the sink refuses records; they wait in the spool");
            } else {
                tracing::warn!(sink, %error, "the sink takes no records; they wait in the spool");
            }
        }
        let own = backoff.next(slow, random());
        let asked = error.retry_after().map(|asked| asked.min(LONGEST_ASKED));
        let wait = asked.map_or(own, |asked| asked.max(own));
        let awaited = asked.unwrap_or_default().max(AWAITED_WAIT);
        self.pause(wait, FLUSH_WAIT, awaited).await;
    }
}

/// The operator admits no filter that does not compile; where its version knows more than this one, everything is delivered.
fn filter(config: &SinkConfig) -> Option<Filter> {
    let filter = Filter::compile(config.filter.as_deref()?);
    filter
        .inspect_err(|error| {
            let sink = &config.name;
            tracing::error!(sink, %error, "the filter cannot be read; every record is delivered");
        })
        .ok()
}

impl Maker {
    fn make(&self, config: &SinkConfig) -> Result<Sink, SinkError> {
        match &config.target {
            SinkTarget::Stdout => Ok(Sink::Stdout),
            SinkTarget::File { path } => {
                FileSink::open(path, self.file_dir.as_deref()).map(Sink::File)
            }
            target @ SinkTarget::Http { .. } => {
                let http = HttpSink::new(target, config.format, self.net.clone(), &self.version)?;
                Ok(Sink::Http(Box::new(http)))
            }
            SinkTarget::Ledger { .. }
                if config.format != Format::Native || config.filter.is_some() =>
            {
                Err(SinkError::Settings(
                    "a ledger takes every record as it is: format Native, and no filter".to_owned(),
                ))
            }
            target @ SinkTarget::Ledger { .. } => {
                let ledger = LedgerSink::new(
                    target,
                    self.net.clone(),
                    &self.version,
                    self.acknowledged.clone(),
                )?;
                Ok(Sink::Ledger(Box::new(ledger)))
            }
        }
    }
}
