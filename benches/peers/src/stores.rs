//! Sessions without HTTP: from an id to the values of a handler, and from the changed values to what Redis stores.

mod actix;
mod own;
pub(crate) mod tower;

use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::runtime::Runtime;

pub(crate) use actix::Actix;
pub(crate) use own::Own;
pub(crate) use tower::Tower;

use super::measure::Load;
use super::visit::Visit;

pub(crate) const WEEK: Duration = Duration::from_secs(604_800);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Touch,
    Save,
    Create,
}

impl Operation {
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::Touch, Self::Save, Self::Create];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Touch => "read with touch",
            Self::Save => "save",
            Self::Create => "create",
        }
    }
}

/// A library with its store, in the set-up that its documentation shows.
pub(crate) trait Library {
    /// Has `load.clients` clients at once carry out the operation `load.each` times, each on separate sessions, and returns
    /// how long that took. What the operation needs is stored, and for a save also read, before the clock starts.
    fn turn(&self, operation: Operation, load: Load) -> Duration;
}

/// The payload as the peers keep it: by keys.
pub(crate) type Values = Map<String, Value>;

pub(crate) fn keys() -> Values {
    match serde_json::to_value(Visit::ordinary()).expect("it can be encoded") {
        Value::Object(keys) => keys,
        other => panic!("a struct is an object: {other}"),
    }
}

/// Runs the jobs as tasks, and returns the time from the start of the first one to the end of the last one.
fn at_once<F: Future<Output = ()> + Send + 'static>(runtime: &Runtime, jobs: Vec<F>) -> Duration {
    let job = |job: F| async move {
        let began = Instant::now();
        job.await;
        (began, Instant::now())
    };
    runtime.block_on(async {
        let tasks: Vec<_> = jobs.into_iter().map(|each| tokio::spawn(job(each))).collect();
        let mut times = Vec::new();
        for task in tasks {
            times.push(task.await.expect("no operation fails"));
        }
        let began = times.iter().map(|(began, _)| *began).min().expect("there is a client");
        times.iter().map(|(_, ended)| *ended).max().expect("there is a client") - began
    })
}
