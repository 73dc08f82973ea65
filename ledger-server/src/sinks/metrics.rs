//! What is counted of sinks. Names and labels are documented in `docs/metrics.md`.

use chaperone_server::metrics::Part;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

/// All metrics of sinks. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SinkMetrics {
    /// Records acknowledged.
    pub(super) records: IntCounterVec,
    /// Records refused for good.
    pub(super) refused: IntCounterVec,
    /// Records that a filter kept back.
    pub(super) left_out: IntCounterVec,
    /// Failed deliveries, by reason.
    pub(super) errors: IntCounterVec,
    /// Records that wait.
    pub(super) lag_records: IntGaugeVec,
    /// Age of the oldest record that waits.
    pub(super) lag_seconds: IntGaugeVec,
    /// When records were acknowledged last.
    pub(super) last_success: IntGaugeVec,
}

impl SinkMetrics {
    /// Registers all.
    ///
    /// # Panics
    /// If two metrics have the same name, which they have not.
    pub(crate) fn new(registry: &Registry) -> Self {
        let part = Part {
            registry,
            name: "ledger_sink",
        };
        let sink: &[&str] = &["sink"];
        Self {
            records: part.counters(
                "records_total",
                "Records that the target acknowledged.",
                sink,
            ),
            refused: part.counters(
                "refused_records_total",
                "Records that the target refused for good.",
                sink,
            ),
            left_out: part.counters(
                "left_out_records_total",
                "Records that the filter kept back.",
                sink,
            ),
            errors: part.counters("errors_total", "Failed deliveries.", &["sink", "reason"]),
            lag_records: part.gauges("lag_records", "Records that wait for the target.", sink),
            lag_seconds: part.gauges("lag_seconds", "Age of the oldest record that waits.", sink),
            last_success: part.gauges(
                "last_success_timestamp_seconds",
                "When the target acknowledged last, in seconds since 1970.",
                sink,
            ),
        }
    }

    /// Forgets a sink.
    pub(super) fn remove(&self, sink: &str) {
        for gauge in [&self.lag_records, &self.lag_seconds, &self.last_success] {
            // Not there where it never had a value.
            let _ = gauge.remove_label_values(&[sink]);
        }
    }
}

#[cfg(test)]
mod tests {
    use chaperone_server::documented::assert_documented;

    use super::*;

    #[test]
    fn the_page_names_every_metric_of_the_ledgers_sinks() {
        let registry = Registry::new();
        let SinkMetrics {
            records,
            refused,
            left_out,
            errors,
            lag_records,
            lag_seconds,
            last_success,
        } = SinkMetrics::new(&registry);
        for counter in [&records, &refused, &left_out] {
            counter.with_label_values(&["s"]);
        }
        errors.with_label_values(&["s", "connect"]);
        for gauge in [&lag_records, &lag_seconds, &last_success] {
            gauge.with_label_values(&["s"]);
        }
        assert_documented(
            "Ledger: sinks",
            &registry,
            vec![
                Box::new(records),
                Box::new(refused),
                Box::new(left_out),
                Box::new(errors),
                Box::new(lag_records),
                Box::new(lag_seconds),
                Box::new(last_success),
            ],
        );
    }
}
