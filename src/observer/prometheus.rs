//! [`PrometheusText`]: counts events, and renders the text format of Prometheus.
//!
//! Applications render it on the page that Prometheus reads. Invariant: each metric has one HELP and one TYPE line, and its
//! series follow them.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::Gauges;
use super::metric::{self, Kind, Labels, Metric};
use super::recording::{Backend, Count, Record, Recording, record_events};
use crate::sync;

/// An observer that renders what it counted as text for Prometheus.
///
/// It needs no other crate. Pass it to each manager of the program, and [`render`](Self::render) it on a page for operators.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use threaded_sessions::observer::{Gauges, PrometheusText};
/// use threaded_sessions::{MemorySessionStore, SessionManager};
///
/// let metrics = Arc::new(PrometheusText::new());
/// let sessions = SessionManager::<u32>::builder(MemorySessionStore::new()).observer(metrics.clone()).build()?;
/// let reaper = sessions.reaper().start()?;
///
/// let mut session = sessions.open(None)?;
/// *session += 1;
/// let _ = sessions.commit(session)?;
///
/// // With the header "Content-Type: text/plain; version=0.0.4".
/// let gauges = Gauges::new(sessions.health()).live(sessions.count()?).reaper(reaper.stats());
/// let text = metrics.render(&gauges);
/// assert!(text.contains("\nthreaded_sessions_created_total 1\n"));
/// assert!(text.contains("\nthreaded_sessions_live 1\n"));
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
pub struct PrometheusText(Recording<Text>);

record_events!(PrometheusText);

impl PrometheusText {
    /// Creates an observer that has counted nothing yet.
    pub fn new() -> Self {
        Self(Recording::new(Text::default()))
    }

    /// Returns the text: everything that was counted so far, and these gauges.
    ///
    /// It is the version 0.0.4 of the format, with the media type `text/plain; version=0.0.4`.
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut series = self.0.backend.series();
        gauges.visit(|metric, labels, value| {
            series.entry(metric.name).or_default().insert(Label(&labels).to_string(), Value::Gauge(value));
        });
        let mut text = String::new();
        for metric in metric::ALL {
            if let Some(series) = series.get(metric.name) {
                write_metric(&mut text, metric, series).expect("a string takes any text");
            }
        }
        text
    }
}

impl Default for PrometheusText {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PrometheusText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrometheusText").finish_non_exhaustive()
    }
}

/// The series of each metric, by name and by label.
type Series = BTreeMap<&'static str, BTreeMap<String, Value>>;

#[derive(Clone)]
enum Value {
    Counter(Arc<AtomicU64>),
    Gauge(f64),
    Histogram(Arc<Buckets>),
}

/// All series that were used so far.
#[derive(Default)]
struct Text(Mutex<Series>);

impl Text {
    fn series(&self) -> Series {
        sync::lock(&self.0).clone()
    }

    fn add(&self, metric: &'static Metric, labels: &Labels, value: Value) {
        sync::lock(&self.0).entry(metric.name).or_default().insert(Label(labels).to_string(), value);
    }
}

impl Backend for Text {
    type Counter = Arc<AtomicU64>;
    type Histogram = Arc<Buckets>;

    fn counter(&self, metric: &'static Metric, labels: Labels) -> Arc<AtomicU64> {
        let counter = Arc::default();
        self.add(metric, &labels, Value::Counter(Arc::clone(&counter)));
        counter
    }

    fn histogram(&self, metric: &'static Metric, labels: Labels) -> Arc<Buckets> {
        let buckets = Arc::new(Buckets::new(metric));
        self.add(metric, &labels, Value::Histogram(buckets.clone()));
        buckets
    }
}

impl Count for Arc<AtomicU64> {
    fn add(&self, count: u64) {
        self.fetch_add(count, Ordering::Relaxed);
    }
}

/// A histogram with fixed buckets.
struct Buckets {
    bounds: &'static [f64],
    /// The number of values in each bucket alone. The last one has the values above all bounds.
    counts: Box<[AtomicU64]>,
    /// The bits of the sum.
    sum: AtomicU64,
}

impl Buckets {
    fn new(metric: &Metric) -> Self {
        let Kind::Histogram(bounds) = metric.kind else { unreachable!("{} is a histogram", metric.name) };
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }
}

impl Record for Arc<Buckets> {
    fn record(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        // The closure always returns a value, so this never fails.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// Writes labels without braces. All names and values are constants of this crate, which need no escapes.
struct Label<'a>(&'a Labels);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}=\"{value}\"")?;
        }
        Ok(())
    }
}

fn write_metric(text: &mut String, metric: &Metric, series: &BTreeMap<String, Value>) -> fmt::Result {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", metric.name, metric.help, metric.name)?;
    for (labels, value) in series {
        match value {
            Value::Counter(count) => write_sample(text, metric.name, labels, &count.load(Ordering::Relaxed))?,
            Value::Gauge(value) => write_sample(text, metric.name, labels, value)?,
            Value::Histogram(buckets) => write_histogram(text, metric.name, labels, buckets)?,
        }
    }
    Ok(())
}

fn write_sample(text: &mut String, name: &str, labels: &str, value: &dyn fmt::Display) -> fmt::Result {
    if labels.is_empty() { writeln!(text, "{name} {value}") } else { writeln!(text, "{name}{{{labels}}} {value}") }
}

/// Writes a histogram. Its count is that of the last bucket, so that the two agree while values are recorded.
fn write_histogram(text: &mut String, name: &str, labels: &str, buckets: &Buckets) -> fmt::Result {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut count = 0;
    for (at, bucket) in buckets.counts.iter().enumerate() {
        count += bucket.load(Ordering::Relaxed);
        let bound = buckets.bounds.get(at).map_or_else(|| "+Inf".to_owned(), f64::to_string);
        write_sample(text, &format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), &count)?;
    }
    let sum = f64::from_bits(buckets.sum.load(Ordering::Relaxed));
    write_sample(text, &format!("{name}_sum"), labels, &sum)?;
    write_sample(text, &format!("{name}_count"), labels, &count)
}
