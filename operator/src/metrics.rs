//! What the operator counts. Names and labels are documented in `docs/metrics.md`.

use chaperone_server::metrics::Part;
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

/// Bounds of the admission histogram, in seconds: the budget is 10 ms, the API server gives up after 10 s.
const ADMISSION_BUCKETS: [f64; 10] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0, 10.0,
];

/// All metrics. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    /// Admission requests by webhook and result.
    pub admissions: IntCounterVec,
    admission_seconds: HistogramVec,
    /// Sidecars with an open stream on this replica.
    pub connected_sidecars: IntGauge,
    /// Configurations sent on streams.
    pub pushes: IntCounter,
    /// Acknowledgements by result.
    pub acks: IntCounterVec,
    /// Intermediates signed.
    pub signatures: IntCounter,
    /// Control requests refused, by reason.
    pub control_refusals: IntCounterVec,
    /// Errors of control loops, by stage.
    pub reconcile_errors: IntCounterVec,
    /// Events dropped because too many waited.
    pub events_dropped: IntCounter,
    /// When a certificate ends, in seconds since 1970.
    pub certificate_expiry: IntGaugeVec,
    /// 1 on the leader, else 0.
    pub leader: IntGauge,
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
            name: "operator",
        };
        Self {
            admissions: part.counters(
                "admission_requests_total",
                "Admission requests by webhook and result.",
                &["webhook", "result"],
            ),
            admission_seconds: part.histograms(
                "admission_request_seconds",
                "Time an admission request took, in seconds.",
                &["webhook"],
                &ADMISSION_BUCKETS,
            ),
            connected_sidecars: part.gauge(
                "connected_sidecars",
                "Sidecars with an open stream on this replica.",
            ),
            pushes: part.counter("snapshots_pushed_total", "Configurations sent to sidecars."),
            acks: part.counters("acks_total", "Acknowledgements by result.", &["result"]),
            signatures: part.counter("certificates_signed_total", "Pod intermediates signed."),
            control_refusals: part.counters(
                "control_refusals_total",
                "Control requests refused, by reason.",
                &["reason"],
            ),
            reconcile_errors: part.counters(
                "reconcile_errors_total",
                "Errors of control loops, by stage.",
                &["stage"],
            ),
            events_dropped: part.counter(
                "events_dropped_total",
                "Events dropped because too many waited.",
            ),
            certificate_expiry: part.gauges(
                "certificate_expiry_timestamp_seconds",
                "When a certificate ends, in seconds since 1970.",
                &["certificate"],
            ),
            leader: part.gauge("leader", "1 on the leader, else 0."),
            registry,
        }
    }

    /// The histogram of one webhook.
    #[must_use]
    pub fn admission_seconds(&self, webhook: &str) -> Histogram {
        self.admission_seconds.with_label_values(&[webhook])
    }

    /// Counts an error of a control loop.
    pub fn failed(&self, stage: &str) {
        self.reconcile_errors.with_label_values(&[stage]).inc();
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
    use chaperone_server::documented;

    use super::*;

    #[test]
    fn the_page_names_every_metric_of_the_operator() {
        let Metrics {
            registry,
            admissions,
            admission_seconds,
            connected_sidecars,
            pushes,
            acks,
            signatures,
            control_refusals,
            reconcile_errors,
            events_dropped,
            certificate_expiry,
            leader,
        } = Metrics::new();
        documented::assert_documented(
            "Operator",
            &registry,
            vec![
                Box::new(admissions),
                Box::new(admission_seconds),
                Box::new(connected_sidecars),
                Box::new(pushes),
                Box::new(acks),
                Box::new(signatures),
                Box::new(control_refusals),
                Box::new(reconcile_errors),
                Box::new(events_dropped),
                Box::new(certificate_expiry),
                Box::new(leader),
            ],
        );
    }

    #[test]
    fn metrics_are_rendered_under_the_documented_names() {
        let metrics = Metrics::new();
        metrics.failed("index");
        metrics
            .admissions
            .with_label_values(&["mutate_pods", "patched"])
            .inc();
        metrics.admission_seconds("mutate_pods").observe(0.002);
        let (_, text) = metrics.render();
        for name in [
            "chaperone_operator_reconcile_errors_total{stage=\"index\"} 1",
            "chaperone_operator_admission_requests_total{result=\"patched\",webhook=\"mutate_pods\"} 1",
            "chaperone_operator_admission_request_seconds_bucket{webhook=\"mutate_pods\",le=\"0.0025\"} 1",
            "chaperone_operator_leader 0",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }
}
