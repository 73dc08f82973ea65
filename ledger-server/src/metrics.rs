//! What the ledger counts. Names and labels are documented in `docs/metrics.md`.

use chaperone_server::metrics::Part;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

/// Bounds of the time of a commit, in seconds: from a disk with a battery to one that stalls.
const COMMIT_BUCKETS: [f64; 10] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0,
];
/// Bounds of the time of a question, in seconds.
const QUESTION_BUCKETS: [f64; 8] = [0.001, 0.005, 0.02, 0.05, 0.2, 0.5, 1.0, 2.0];
/// Bounds of the records of a commit.
const RECORDS_BUCKETS: [f64; 8] = [0.0, 1.0, 10.0, 100.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0];

/// What a request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Records to be taken.
    Records,
    /// Where a stream stands.
    Stream,
    /// The checkpoint.
    Checkpoint,
    /// A tile or entries.
    Tile,
    /// Records that are looked for.
    Search,
    /// One record.
    Record,
    /// The proof of one record.
    Proof,
    /// Sessions.
    Sessions,
    /// One session.
    Session,
    /// Records of a session.
    SessionRecords,
    /// A page of the console.
    Console,
    /// Pods whose evidence is missing.
    Gaps,
    /// A marked record to a sink.
    SinkTest,
    /// Legal holds.
    Holds,
    /// Erasures.
    Erasures,
}

/// All metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    /// Records taken.
    pub records: IntCounter,
    /// Logins to the console, by result.
    pub logins: IntCounterVec,
    /// Who is logged in to the console.
    pub console_sessions: IntGauge,
    /// Bytes of batches received.
    pub bytes: IntCounter,
    /// Requests that wait for the writer.
    pub queue: IntGauge,
    /// Seconds of a commit.
    pub commit_seconds: Histogram,
    /// New records of a commit.
    pub commit_records: Histogram,
    /// Failures of the disk, by stage.
    pub storage_errors: IntCounterVec,
    /// 1 while the disk takes no records.
    pub storage_failing: IntGauge,
    /// Streams.
    pub streams: IntGauge,
    /// Streams that began late.
    pub late_streams: IntCounter,
    /// Records that are missing within streams.
    pub missing_records: IntCounter,
    /// Leaves on disk.
    pub leaves: IntGauge,
    /// Answers of witnesses, by witness and result.
    pub witnesses: IntCounterVec,
    /// Leaves of the newest checkpoint that enough witnesses have signed.
    pub witnessed_records: IntGauge,
    /// Leaves of the newest checkpoint.
    pub checkpoint_records: IntGauge,
    /// When the newest checkpoint was signed, in seconds since 1970.
    pub checkpoint_time: IntGauge,
    /// Committed records that are not in the index.
    pub index_behind: IntGauge,
    /// Bytes of the index.
    pub index_bytes: IntGauge,
    /// Whether the index may still know what was deleted.
    pub index_forgetting: IntGauge,
    index_errors: IntCounterVec,
    /// Times that the index was made anew.
    pub index_rebuilds: IntCounter,
    /// Seconds of a question.
    pub question_seconds: Histogram,
    /// Pods whose evidence is missing, by reason.
    pub gaps: IntGaugeVec,
    /// Keys of content destroyed, by cause.
    pub erased_keys: IntCounterVec,
    /// Records deleted.
    pub deleted_records: IntCounter,
    /// When a sweep last came to its end, in seconds since 1970.
    pub sweep_time: IntGauge,
    /// Failures of deletion, by stage.
    pub sweep_errors: IntCounterVec,
    /// Legal holds.
    pub holds: IntGauge,
    /// 1 while this process takes records.
    pub leads: IntGauge,
    /// Closed segments that are not in the bucket of a shared ledger yet.
    pub segments_waiting: IntGauge,
    /// Records that a replica of a shared ledger has read ahead of leading.
    pub recalled: IntGauge,
    shared_errors: IntCounterVec,
    /// 1 while pods are seen.
    pub watching: IntGauge,
    /// Checkpoints published, by place and result.
    pub publications: IntCounterVec,
}

impl Metrics {
    /// Registers all metrics.
    ///
    /// # Panics
    /// If two metrics have the same name, which they have not.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let part = Part {
            registry: &registry,
            name: "ledger",
        };
        Self {
            requests: part.counters(
                    "requests_total",
                    "Requests by route and code.",
                    &["route", "code"],
                ),
            logins: part.counters(
                    "console_logins_total",
                    "Logins to the console by result.",
                    &["result"],
                ),
            console_sessions: part.gauge("console_sessions", "Logins to the console that hold."),
            records: part.counter("records_total", "Records taken."),
            bytes: part.counter("received_bytes_total", "Bytes of batches received."),
            queue: part.gauge("queue_requests", "Requests that wait for the writer."),
            commit_seconds: part.histogram(
                    "commit_seconds",
                    "Seconds that a commit took.",
                    &COMMIT_BUCKETS,
                ),
            commit_records: part.histogram(
                    "commit_records",
                    "New records of a commit.",
                    &RECORDS_BUCKETS,
                ),
            storage_errors: part.counters(
                    "storage_errors_total",
                    "Failures of the disk, by stage.",
                    &["stage"],
                ),
            storage_failing: part.gauge("storage_failing", "1 while the disk takes no records."),
            streams: part.gauge("streams", "Streams."),
            late_streams: part.counter(
                    "late_streams_total",
                    "Streams whose sidecar had not their beginning any more.",
                ),
            missing_records: part.counter(
                    "missing_records_total",
                    "Records that are missing within streams: the ledger lost them, and nobody has them any more.",
                ),
            leaves: part.gauge("log_records", "Records on disk."),
            witnesses: part.counters(
                    "witness_requests_total",
                    "Checkpoints that witnesses were asked to sign, by what came of it.",
                    &["witness", "result"],
                ),
            witnessed_records: part.gauge(
                    "witnessed_records",
                    "Records under the newest checkpoint that enough witnesses have signed.",
                ),
            checkpoint_records: part.gauge("checkpoint_records", "Records under the newest checkpoint."),
            checkpoint_time: part.gauge(
                    "checkpoint_timestamp_seconds",
                    "When the newest checkpoint was signed, in seconds since 1970.",
                ),
            index_behind: part.gauge("index_behind_records", "Records that the index lacks."),
            index_bytes: part.gauge("index_bytes", "Bytes of the index on disk."),
            index_forgetting: part.gauge(
                "index_forgetting",
                "1 while the index may still know what was deleted, else 0.",
            ),
            index_errors: part.counters(
                    "index_errors_total",
                    "Failures of the index, by stage.",
                    &["stage"],
                ),
            index_rebuilds: part.counter(
                    "index_rebuilds_total",
                    "Times that the index was made anew.",
                ),
            question_seconds: part.histogram(
                    "question_seconds",
                    "Seconds that the index took for a question.",
                    &QUESTION_BUCKETS,
                ),
            gaps: part.gauges(
                    "incomplete_pods",
                    "Pods whose evidence is missing or incomplete, by reason: those that are there, and those that ended within a day.",
                    &["reason"],
                ),
            publications: part.counters(
                    "publications_total",
                    "Checkpoints published elsewhere, by place and what came of it.",
                    &["place", "result"],
                ),
            erased_keys: part.counters(
                    "erased_keys_total",
                    "Keys of content destroyed, by cause.",
                    &["cause"],
                ),
            deleted_records: part.counter(
                    "deleted_records_total",
                    "Records deleted, of which the hashes stay.",
                ),
            sweep_time: part.gauge(
                    "sweep_timestamp_seconds",
                    "When a sweep for what is due to be deleted last came to its end, in seconds since 1970.",
                ),
            sweep_errors: part.counters(
                    "sweep_errors_total",
                    "Failures of deletion, by stage.",
                    &["stage"],
                ),
            holds: part.gauge("holds", "Legal holds."),
            leads: part.gauge(
                    "leads",
                    "1 while this process takes records; of the replicas of a shared ledger one does.",
                ),
            segments_waiting: part.gauge(
                    "shared_segments_waiting",
                    "Closed segments that are still in the database of a shared ledger, not in its bucket.",
                ),
            recalled: part.gauge(
                    "shared_recalled_records",
                    "Records that this replica of a shared ledger has read while it followed, and need not read when it leads.",
                ),
            shared_errors: part.counters(
                    "shared_errors_total",
                    "Failures of what replicas share, by stage.",
                    &["stage"],
                ),
            watching: part.gauge("watching_pods", "1 while the ledger sees which pods run."),
            registry,
        }
    }

    /// Counts a failure of the index.
    pub fn index_error(&self, stage: &str) {
        self.index_errors.with_label_values(&[stage]).inc();
    }

    /// Counts a failure of what replicas share.
    pub fn shared_error(&self, stage: &str) {
        self.shared_errors.with_label_values(&[stage]).inc();
    }

    /// Where all are registered, for parts that count on their own.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts an answer: `ok`, or the code of a refusal.
    pub fn answered(&self, route: Route, code: &str) {
        let route = match route {
            Route::Records => "records",
            Route::Stream => "stream",
            Route::Checkpoint => "checkpoint",
            Route::Tile => "tile",
            Route::Search => "search",
            Route::Record => "record",
            Route::Proof => "proof",
            Route::Sessions => "sessions",
            Route::Session => "session",
            Route::SessionRecords => "session-records",
            Route::Console => "console",
            Route::Gaps => "gaps",
            Route::SinkTest => "sink-test",
            Route::Holds => "holds",
            Route::Erasures => "erasures",
        };
        self.requests.with_label_values(&[route, code]).inc();
    }

    /// The metrics in the text exposition format, and its content type.
    #[must_use]
    pub fn render(&self) -> (String, String) {
        chaperone_server::exposition::render(&self.registry)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use chaperone_server::documented::assert_documented;

    use super::*;

    #[test]
    fn the_page_names_every_metric_of_the_ledger() {
        let Metrics {
            registry,
            requests,
            logins,
            console_sessions,
            records,
            bytes,
            queue,
            commit_seconds,
            commit_records,
            storage_errors,
            storage_failing,
            streams,
            late_streams,
            missing_records,
            leaves,
            witnesses,
            witnessed_records,
            checkpoint_records,
            checkpoint_time,
            index_behind,
            index_bytes,
            index_forgetting,
            index_errors,
            index_rebuilds,
            question_seconds,
            gaps,
            erased_keys,
            deleted_records,
            sweep_time,
            sweep_errors,
            holds,
            leads,
            segments_waiting,
            recalled,
            shared_errors,
            watching,
            publications,
        } = Metrics::new();
        assert_documented(
            "Ledger",
            &registry,
            vec![
                Box::new(requests),
                Box::new(logins),
                Box::new(console_sessions),
                Box::new(records),
                Box::new(bytes),
                Box::new(queue),
                Box::new(commit_seconds),
                Box::new(commit_records),
                Box::new(storage_errors),
                Box::new(storage_failing),
                Box::new(streams),
                Box::new(late_streams),
                Box::new(missing_records),
                Box::new(leaves),
                Box::new(witnesses),
                Box::new(witnessed_records),
                Box::new(checkpoint_records),
                Box::new(checkpoint_time),
                Box::new(index_behind),
                Box::new(index_bytes),
                Box::new(index_forgetting),
                Box::new(index_errors),
                Box::new(index_rebuilds),
                Box::new(question_seconds),
                Box::new(gaps),
                Box::new(erased_keys),
                Box::new(deleted_records),
                Box::new(sweep_time),
                Box::new(sweep_errors),
                Box::new(holds),
                Box::new(leads),
                Box::new(segments_waiting),
                Box::new(recalled),
                Box::new(shared_errors),
                Box::new(watching),
                Box::new(publications),
            ],
        );
    }
}
