//! The data path's metrics. `docs/metrics.md` documents each; labels come from closed lists, never from traffic.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Bounds of the decision histogram, in seconds: a decision takes about a microsecond.
const DECISION_BUCKETS: [f64; 9] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2];

/// Bounds of the histogram of commits, in seconds: from a fast disk's sync to one that is stuck.
const COMMIT_BUCKETS: [f64; 11] = [
    5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.2, 1.0, 5.0, 30.0,
];

/// Counters and gauges of the data path.
#[derive(Clone)]
pub struct Metrics {
    /// Connections from the agent, by what became of them: `http`, `https`, `gap`, `refused`, `failed`.
    pub connections: IntCounterVec,
    /// Connections open now.
    pub open_connections: IntGauge,
    /// Connections that ended in a panic.
    pub panics: IntCounter,
    /// HTTP requests by decision: `allow`, `deny`, `would-deny`, `malformed`.
    pub requests: IntCounterVec,
    /// Denials by reason.
    pub denials: IntCounterVec,
    /// Gaps by reason.
    pub gaps: IntCounterVec,
    /// Seconds from operation to decision.
    pub decision_seconds: Histogram,
    /// Seconds that operations wait until a record of their beginning is held (`audit.commit: Disk` or `Ledger`).
    pub commit_seconds: Histogram,
    /// Bytes of bodies: `request`, `response`.
    pub body_bytes: IntCounterVec,
    /// Those of the counters above that each request touches.
    pub each: EachRequest,
    /// WebSocket messages by who sends: `send` (the agent), `receive`.
    pub ws_messages: IntCounterVec,
    /// Values masked, by detector kind.
    pub masked: IntCounter,
    /// DNS queries by response code.
    pub dns_queries: IntCounterVec,
    /// Policy swaps, by result: `applied`, `rejected`.
    pub policy_swaps: IntCounterVec,
    /// Whether the control stream is connected.
    pub control_connected: IntGauge,
    /// Mode of the pod: 1 for the mode that holds.
    pub mode: IntGaugeVec,
}

/// Series that each request touches, looked up once: a look-up hashes labels.
#[derive(Clone)]
pub struct EachRequest {
    /// Requests that passed.
    pub allowed: IntCounter,
    /// Bytes of request bodies.
    pub request_bytes: IntCounter,
    /// Bytes of response bodies.
    pub response_bytes: IntCounter,
}

impl EachRequest {
    fn of(requests: &IntCounterVec, body_bytes: &IntCounterVec) -> Self {
        Self {
            allowed: requests.with_label_values(&["allow"]),
            request_bytes: body_bytes.with_label_values(&["request"]),
            response_bytes: body_bytes.with_label_values(&["response"]),
        }
    }
}

impl Metrics {
    /// Makes and registers all.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
                let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
                registry.register(Box::new(counters.clone()))?;
                Ok(counters)
            };
        let requests = counters(
            "chaperone_http_requests_total",
            "HTTP requests by decision.",
            "decision",
        )?;
        let body_bytes = counters(
            "chaperone_http_body_bytes_total",
            "Bytes of HTTP bodies.",
            "direction",
        )?;
        let metrics = Self {
            each: EachRequest::of(&requests, &body_bytes),
            connections: counters(
                "chaperone_connections_total",
                "Captured connections by result.",
                "result",
            )?,
            open_connections: IntGauge::new(
                "chaperone_open_connections",
                "Captured connections open now.",
            )?,
            panics: IntCounter::new(
                "chaperone_panics_total",
                "Connections that a bug of the sidecar ended.",
            )?,
            requests,
            denials: counters(
                "chaperone_denials_total",
                "Refused operations by reason.",
                "reason",
            )?,
            gaps: counters(
                "chaperone_gaps_total",
                "Traffic not read, by reason.",
                "reason",
            )?,
            decision_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "chaperone_decision_seconds",
                    "Seconds that a policy decision takes.",
                )
                .buckets(DECISION_BUCKETS.to_vec()),
            )?,
            commit_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "chaperone_audit_commit_seconds",
                    "Seconds that an operation waits until the record of its beginning is on disk, or on the ledger's.",
                )
                .buckets(COMMIT_BUCKETS.to_vec()),
            )?,
            body_bytes,
            ws_messages: counters(
                "chaperone_ws_messages_total",
                "WebSocket messages by direction.",
                "direction",
            )?,
            masked: IntCounter::new(
                "chaperone_masked_values_total",
                "Values masked in responses.",
            )?,
            dns_queries: counters(
                "chaperone_dns_queries_total",
                "DNS queries by response code.",
                "rcode",
            )?,
            policy_swaps: counters(
                "chaperone_policy_swaps_total",
                "Policy snapshots received, by result.",
                "result",
            )?,
            control_connected: IntGauge::new(
                "chaperone_control_connected",
                "1 while the control stream to the operator is connected.",
            )?,
            mode: IntGaugeVec::new(
                Opts::new("chaperone_mode", "1 for the mode that holds."),
                &["mode"],
            )?,
        };
        registry.register(Box::new(metrics.open_connections.clone()))?;
        registry.register(Box::new(metrics.panics.clone()))?;
        registry.register(Box::new(metrics.decision_seconds.clone()))?;
        registry.register(Box::new(metrics.commit_seconds.clone()))?;
        registry.register(Box::new(metrics.masked.clone()))?;
        registry.register(Box::new(metrics.control_connected.clone()))?;
        registry.register(Box::new(metrics.mode.clone()))?;
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_metric_of_the_data_path() {
        let registry = Registry::new();
        let Metrics {
            connections,
            open_connections,
            panics,
            requests,
            denials,
            gaps,
            decision_seconds,
            commit_seconds,
            body_bytes,
            each: _,
            ws_messages,
            masked,
            dns_queries,
            policy_swaps,
            control_connected,
            mode,
        } = Metrics::new(&registry).unwrap();
        chaperone_server::documented::assert_documented(
            "Sidecar: data path",
            &registry,
            vec![
                Box::new(connections),
                Box::new(open_connections),
                Box::new(panics),
                Box::new(requests),
                Box::new(denials),
                Box::new(gaps),
                Box::new(decision_seconds),
                Box::new(commit_seconds),
                Box::new(body_bytes),
                Box::new(ws_messages),
                Box::new(masked),
                Box::new(dns_queries),
                Box::new(policy_swaps),
                Box::new(control_connected),
                Box::new(mode),
            ],
        );
    }
}
