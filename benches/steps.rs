//! Measures the cost of a step that does nothing: reads through a chain of ten steps and through none.

use std::hint::black_box;
use std::time::{Duration, Instant};

use threaded_sessions::store::{Created, Found, Saved, Stored, Touch, Version, Write};
use threaded_sessions::{Result, SessionId, SessionStore, Step, StepStore};

const READS: u32 = 2_000;
const STEPS: u32 = 10;

/// One session, whatever the id.
#[derive(Clone, Debug)]
struct Trivial(Stored);

impl SessionStore for Trivial {
    fn read(&self, _: &SessionId, _: Touch) -> Result<Found> {
        Ok(Found::Live(self.0.clone()))
    }

    fn create(&self, _: &SessionId, _: Write<'_>) -> Result<Created> {
        unreachable!("only reads are measured")
    }

    fn save(&self, _: &SessionId, _: Write<'_>, _: Option<&Version>) -> Result<Saved> {
        unreachable!("only reads are measured")
    }

    fn rotate(&self, _: &SessionId, _: &SessionId, _: Write<'_>, _: Option<&Version>) -> Result<Saved> {
        unreachable!("only reads are measured")
    }

    fn delete(&self, _: &SessionId) -> Result<bool> {
        unreachable!("only reads are measured")
    }
}

#[derive(Debug)]
struct Idle;

impl Step for Idle {}

fn main() {
    let payload = vec![0; 1024];
    let store = Trivial(Stored::new(payload, Version::new(*b"1"), None));
    let none = StepStore::builder(store.clone()).build().expect("it needs nothing");
    let ten = (0..STEPS).fold(StepStore::builder(store.clone()), |builder, _| builder.step(Idle));
    let ten = ten.build().expect("it needs nothing");

    // The fastest of several rounds: the others were disturbed.
    let [mut bare, mut without, mut with] = [Duration::MAX; 3];
    for _ in 0..2_000 {
        bare = bare.min(time(&store));
        without = without.min(time(&none));
        with = with.min(time(&ten));
    }
    let nanos = |time: Duration| time.as_nanos() as f64 / f64::from(READS);
    println!("a read of the store itself    {:7.1} ns", nanos(bare));
    println!("through a chain of none       {:7.1} ns", nanos(without));
    println!("through a chain of {STEPS}         {:7.1} ns", nanos(with));
    println!("a step that does nothing      {:7.1} ns", (nanos(with) - nanos(without)) / f64::from(STEPS));
}

fn time(store: &dyn SessionStore) -> Duration {
    let (store, id) = (black_box(store), SessionId::random());
    let start = Instant::now();
    for _ in 0..READS {
        let _ = black_box(store.read(black_box(&id), Touch::No));
    }
    start.elapsed()
}
