//! [`MetricsObserver`]: passes events to the recorder of the `metrics` crate.
//!
//! Applications use it if another part of the program, such as an exporter for OpenTelemetry, has installed a recorder.
//! Invariant: instruments are looked up once, so an operation costs no look-up in the recorder.

use std::fmt;

use ::metrics::{Counter, Histogram, Unit};

use super::Gauges;
use super::metric::{self, Kind, Labels, Metric};
use super::recording::{Backend, Count, Record, Recording, record_events};

/// An observer that feeds the recorder of the [`metrics`](https://docs.rs/metrics) crate, version 0.24.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use threaded_sessions::observer::{Gauges, MetricsObserver};
/// use threaded_sessions::{MemorySessionStore, SessionManager};
///
/// // First install the recorder, such as that of metrics-exporter-prometheus.
/// let metrics = Arc::new(MetricsObserver::new());
/// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new()).observer(metrics.clone()).build()?;
///
/// // Every few seconds:
/// metrics.record(&Gauges::new(sessions.health()));
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub struct MetricsObserver(Recording<Facade>);

record_events!(MetricsObserver);

impl MetricsObserver {
    /// Creates the observer, and describes its metrics to the recorder.
    ///
    /// Install the recorder before. An observer that is created without one records nothing, even if a recorder follows.
    pub fn new() -> Self {
        metric::ALL.iter().for_each(|metric| describe(metric));
        Self(Recording::new(Facade))
    }

    /// Sets the gauges, and the counters that a store and a reaper keep themselves.
    pub fn record(&self, gauges: &Gauges) {
        gauges.visit(|metric, labels, value| match metric.kind {
            Kind::Counter => ::metrics::counter!(metric.name, &labels).absolute(value as u64),
            _ => ::metrics::gauge!(metric.name, &labels).set(value),
        });
    }
}

impl Default for MetricsObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MetricsObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsObserver").finish_non_exhaustive()
    }
}

fn describe(metric: &'static Metric) {
    let unit = match metric.name {
        name if name.ends_with("_seconds") => Unit::Seconds,
        name if name.ends_with("_bytes") => Unit::Bytes,
        _ => Unit::Count,
    };
    match metric.kind {
        Kind::Counter => ::metrics::describe_counter!(metric.name, unit, metric.help),
        Kind::Gauge => ::metrics::describe_gauge!(metric.name, unit, metric.help),
        Kind::Histogram(_) => ::metrics::describe_histogram!(metric.name, unit, metric.help),
    }
}

struct Facade;

impl Backend for Facade {
    type Counter = Counter;
    type Histogram = Histogram;

    fn counter(&self, metric: &'static Metric, labels: Labels) -> Counter {
        ::metrics::counter!(metric.name, &labels)
    }

    fn histogram(&self, metric: &'static Metric, labels: Labels) -> Histogram {
        ::metrics::histogram!(metric.name, &labels)
    }
}

impl Count for Counter {
    fn add(&self, count: u64) {
        self.increment(count);
    }
}

impl Record for Histogram {
    fn record(&self, value: f64) {
        Histogram::record(self, value);
    }
}
