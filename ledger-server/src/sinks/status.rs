//! How one sink fares: what its delivery notes, its metrics show, and its condition says.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use super::{metrics::SinkMetrics, target::Failure};

/// How a sink fares. Shared by its delivery and whoever asks.
#[derive(Debug)]
pub(crate) struct Status {
    name: String,
    metrics: SinkMetrics,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    leaf: u64,
    /// Time of the oldest record that waits.
    waits_since: Option<Timestamp>,
    /// When records were acknowledged last.
    sent: Option<Timestamp>,
    refused: u64,
    failing: Option<Failing>,
}

/// A failure that has had no success after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failing {
    /// The metric's label.
    pub(crate) reason: &'static str,
    /// In words.
    pub(crate) message: String,
}

/// What is true of a sink now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// Why it does not deliver, if so.
    pub(crate) failing: Option<Failing>,
    /// When records were acknowledged last.
    pub(crate) sent: Option<Timestamp>,
    /// Records refused for good since the process began.
    pub(crate) refused: u64,
}

impl Status {
    pub(crate) fn new(name: &str, metrics: SinkMetrics) -> Self {
        Self {
            name: name.to_owned(),
            metrics,
            noted: Mutex::default(),
        }
    }

    /// What is true now.
    pub(crate) fn health(&self) -> Health {
        self.with(|noted| Health {
            failing: noted.failing.clone(),
            sent: noted.sent,
            refused: noted.refused,
        })
    }

    /// Shows how far it is behind a log that ends there.
    pub(super) fn show(&self, end: u64, now: Timestamp) {
        let (leaf, since) = self.with(|noted| (noted.leaf, noted.waits_since));
        let lag = end.saturating_sub(leaf);
        let seconds = match since {
            Some(since) if lag > 0 => now.duration_since(since).as_secs().max(0),
            _ => 0,
        };
        let label = [self.name.as_str()];
        let lag = i64::try_from(lag).unwrap_or(i64::MAX);
        self.metrics.lag_records.with_label_values(&label).set(lag);
        self.metrics
            .lag_seconds
            .with_label_values(&label)
            .set(seconds);
    }

    /// It stands before this leaf.
    pub(super) fn at(&self, leaf: u64) {
        self.with(|noted| {
            noted.leaf = leaf;
            noted.waits_since = None;
        });
    }

    /// The oldest record that waits is of this time.
    pub(super) fn waits(&self, since: Option<Timestamp>) {
        self.with(|noted| noted.waits_since = since);
    }

    pub(super) fn nothing_waits(&self) {
        self.with(|noted| noted.waits_since = None);
    }

    pub(super) fn sent(&self, records: u64) {
        let now = Timestamp::now();
        self.with(|noted| {
            noted.sent = Some(now);
            noted.failing = None;
        });
        let label = [self.name.as_str()];
        self.metrics
            .records
            .with_label_values(&label)
            .inc_by(records);
        self.metrics
            .last_success
            .with_label_values(&label)
            .set(now.as_second());
    }

    pub(super) fn left_out(&self, records: u64) {
        let label = [self.name.as_str()];
        self.metrics
            .left_out
            .with_label_values(&label)
            .inc_by(records);
    }

    pub(super) fn refused(&self, records: u64) {
        self.with(|noted| noted.refused = noted.refused.saturating_add(records));
        let label = [self.name.as_str()];
        self.metrics
            .refused
            .with_label_values(&label)
            .inc_by(records);
    }

    /// A delivery failed, and is tried again at once in another form.
    pub(super) fn error(&self, reason: &str) {
        let label = [self.name.as_str(), reason];
        self.metrics.errors.with_label_values(&label).inc();
    }

    /// A delivery failed.
    pub(super) fn failed(&self, failure: &Failure) {
        self.error(failure.reason);
        self.with(|noted| {
            noted.failing = Some(Failing {
                reason: failure.reason,
                message: failure.message.clone(),
            });
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut Noted) -> T) -> T {
        // Each change is whole, so that a panic elsewhere leaves nothing half done.
        f(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
