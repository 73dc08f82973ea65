//! Metrics of one part of a program, made and registered: `chaperone_PART_NAME`.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

/// What a name that is there twice, or is none, breaks.
const UNIQUE: &str = "names are unique and well-formed";

/// Makes metrics of a part.
///
/// # Panics
/// Each of its functions does where a name is there already or is none; labels and buckets come from the code as well.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Where they are registered.
    pub registry: &'a Registry,
    /// The name between `chaperone` and a metric's own.
    pub name: &'a str,
}

impl Part<'_> {
    /// A counter.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::with_opts(self.options(name, help)))
    }

    /// Counters, by labels.
    #[must_use]
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(self.options(name, help), labels))
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::with_opts(self.options(name, help)))
    }

    /// Gauges, by labels.
    #[must_use]
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(self.options(name, help), labels))
    }

    /// A histogram with these upper bounds.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::from(self.options(name, help)).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options))
    }

    /// Histograms with these upper bounds, by labels.
    #[must_use]
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
        let options = HistogramOpts::from(self.options(name, help)).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, labels))
    }

    fn options(&self, name: &str, help: &str) -> Opts {
        Opts::new(name, help)
            .namespace("chaperone")
            .subsystem(self.name)
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect(UNIQUE);
        self.registry
            .register(Box::new(metric.clone()))
            .expect(UNIQUE);
        metric
    }
}
