//! What the evidence path counts.

use chaperone_crds::record::EventKind;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// All metrics of the evidence path. Labels are closed lists or names of sinks.
#[derive(Clone, Debug)]
pub(super) struct AuditMetrics {
    records: IntCounterVec,
    pub(super) queue_full: IntCounter,
    pub(super) after_close: IntCounter,
    pub(super) spool_bytes: IntGauge,
    pub(super) spool_limit: IntGauge,
    pub(super) spool_blocked: IntGauge,
    pub(super) spool_errors: IntCounterVec,
    pub(super) sink_records: IntCounterVec,
    pub(super) sink_errors: IntCounterVec,
    pub(super) sink_left_out: IntCounterVec,
    pub(super) sink_lag: IntGaugeVec,
}

impl AuditMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let made = IntCounter::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let gauge = |name: &str, help: &str| {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, prometheus::Error>(made)
        };
        let sink_lag = IntGaugeVec::new(
            Opts::new(
                "chaperone_audit_sink_lag_records",
                "Records in the spool that the sink has not acknowledged.",
            ),
            &["sink"],
        )?;
        registry.register(Box::new(sink_lag.clone()))?;
        Ok(Self {
            records: counters(
                "chaperone_audit_records_total",
                "Records written to the spool.",
                &["kind"],
            )?,
            queue_full: counter(
                "chaperone_audit_queue_full_total",
                "Times that an operation waited because the audit queue was full.",
            )?,
            after_close: counter(
                "chaperone_audit_after_close_total",
                "Events that came after the stream's close and are in no record.",
            )?,
            spool_bytes: gauge(
                "chaperone_audit_spool_bytes",
                "Bytes of records in the spool.",
            )?,
            spool_limit: gauge(
                "chaperone_audit_spool_limit_bytes",
                "Bytes of records that the spool may hold; then operations wait.",
            )?,
            spool_blocked: gauge(
                "chaperone_audit_spool_blocked",
                "1 while no record can be written: the spool is at its limit or the disk fails.",
            )?,
            spool_errors: counters(
                "chaperone_audit_spool_errors_total",
                "Failed writes to the spool; they are repeated until they succeed.",
                &["reason"],
            )?,
            sink_records: counters(
                "chaperone_audit_sink_records_total",
                "Records that the sink acknowledged.",
                &["sink"],
            )?,
            sink_left_out: counters(
                "chaperone_audit_sink_left_out_records_total",
                "Records that the sink's filter kept back.",
                &["sink"],
            )?,
            sink_errors: counters(
                "chaperone_audit_sink_errors_total",
                "Failed deliveries; they are repeated until they succeed.",
                &["sink", "reason"],
            )?,
            sink_lag,
        })
    }

    pub(super) fn count(&self, kind: EventKind) {
        self.records.with_label_values(&[kind.as_str()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chaperone_server::documented::assert_documented;

    #[test]
    fn the_page_names_every_metric_of_the_evidence_path() {
        let registry = Registry::new();
        let AuditMetrics {
            records,
            queue_full,
            after_close,
            spool_bytes,
            spool_limit,
            spool_blocked,
            spool_errors,
            sink_records,
            sink_errors,
            sink_left_out,
            sink_lag,
        } = AuditMetrics::new(&registry).unwrap();
        assert_documented(
            "Sidecar: records",
            &registry,
            vec![
                Box::new(records),
                Box::new(queue_full),
                Box::new(after_close),
                Box::new(spool_bytes),
                Box::new(spool_limit),
                Box::new(spool_blocked),
                Box::new(spool_errors),
                Box::new(sink_records),
                Box::new(sink_errors),
                Box::new(sink_left_out),
                Box::new(sink_lag),
            ],
        );
    }
}
