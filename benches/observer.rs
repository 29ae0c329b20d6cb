//! Measures the time that an observer adds to an operation, on the memory store. Fails if `metrics` and a recorder add more than
//! 0.2 µs.
//!
//! The times are CPU times of the thread. A round runs each manager in turn, so that noise of the machine affects all of them,
//! and the median of the differences counts. With `metrics` the recorder is minimal: one atomic addition for each value.
//!
//! ```text
//! cargo bench --all-features --bench observer
//! ```

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use rustix::time::{ClockId, clock_gettime};
use threaded_sessions::observer::{MetricsObserver, PrometheusText};
use threaded_sessions::store::Touch;
use threaded_sessions::{MemorySessionStore, Observer, SessionId, SessionManager};

const LIMIT: Duration = Duration::from_nanos(200);

/// A million operations for each manager.
const ROUNDS: usize = 500;
const OPERATIONS: u32 = 2000;

struct Empty;

impl Observer for Empty {}

#[derive(Default)]
struct Sum(AtomicU64);

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        self.0.fetch_add(value.to_bits(), Ordering::Relaxed);
    }
}

impl CounterFn for Sum {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

struct Sums;

impl Recorder for Sums {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Sum::default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Sum::default()))
    }
}

type Subject = (&'static str, SessionManager<u64>, SessionId);

fn subject(name: &'static str, observer: Option<Arc<dyn Observer>>) -> Subject {
    let builder = SessionManager::<u64>::builder(MemorySessionStore::new());
    let builder = observer.into_iter().fold(builder, |builder, observer| builder.observer(observer));
    let sessions = builder.build().expect("the settings are valid");
    let mut session = sessions.fresh();
    *session = 1;
    let id = *sessions.commit(session).expect("memory serves").id().expect("it is stored");
    (name, sessions, id)
}

fn main() -> ExitCode {
    metrics::set_global_recorder(Sums).expect("it is the first one");
    let subjects = [
        subject("no observer", None),
        subject("an empty observer", Some(Arc::new(Empty))),
        subject("PrometheusText", Some(Arc::new(PrometheusText::new()))),
        subject("MetricsObserver", Some(Arc::new(MetricsObserver::new()))),
    ];
    println!("{:<20} {:>12} {:>12}   {:>12} {:>12}", "ns an operation", "read", "added", "open, commit", "added");
    let reads = measure(&subjects, read);
    let requests = measure(&subjects, request);
    for (at, (name, ..)) in subjects.iter().enumerate() {
        let [(read, read_added), (request, request_added)] = [reads[at], requests[at]];
        println!("{name:<20} {read:>12.1} {read_added:>12.1}   {request:>12.1} {request_added:>12.1}");
    }
    let slowest = reads[3].1.max(requests[3].1);
    if slowest <= LIMIT.as_nanos() as f64 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One operation.
fn read((_, sessions, id): &Subject) -> u32 {
    let _ = black_box(sessions.store().read(black_box(id), Touch::No));
    1
}

/// Two operations, with all that a manager does around them.
fn request((_, sessions, id): &Subject) -> u32 {
    let mut session = sessions.open_id(id).expect("memory serves").expect("it lives");
    *session += 1;
    let _ = black_box(sessions.commit(session).expect("memory serves"));
    2
}

/// Returns the time of an operation of each subject, and by how much it is above that of the first, in nanoseconds.
fn measure(subjects: &[Subject], run: fn(&Subject) -> u32) -> Vec<(f64, f64)> {
    let time = |subject| {
        let (began, mut operations) = (thread_time(), 0);
        while operations < OPERATIONS {
            operations += run(subject);
        }
        (thread_time() - began).as_nanos() as f64 / f64::from(OPERATIONS)
    };
    let rounds: Vec<Vec<f64>> = (0..ROUNDS).map(|_| subjects.iter().map(time).collect()).collect();
    let column = |at: usize| {
        let times = rounds.iter().map(|round| round[at]).collect();
        let differences = rounds.iter().map(|round| round[at] - round[0]).collect();
        (median(times), median(differences))
    };
    (0..subjects.len()).map(column).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("the time of a thread is positive")
}
