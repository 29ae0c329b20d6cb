//! The log of a test process, with the thread of each record.

use std::sync::{Mutex, Once};
use std::thread::{self, ThreadId};

use log::kv::{self, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

/// A record of the log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub thread: ThreadId,
    pub level: Level,
    pub text: String,
    /// The target, and each pair as ` KEY=VALUE`.
    pub target_and_pairs: String,
}

static KEPT: Mutex<Vec<Logged>> = Mutex::new(Vec::new());

struct Keeper;

impl Log for Keeper {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let mut pairs = Pairs(record.target().to_owned());
        record.key_values().visit(&mut pairs).unwrap();
        KEPT.lock().unwrap().push(Logged {
            thread: thread::current().id(),
            level: record.level(),
            text: record.args().to_string(),
            target_and_pairs: pairs.0,
        });
    }

    fn flush(&self) {}
}

struct Pairs(String);

impl<'kvs> VisitSource<'kvs> for Pairs {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        self.0.push_str(&format!(" {key}={value}"));
        Ok(())
    }
}

/// Keeps all records of this process from now on.
pub fn keep_logs() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Keeper).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
}

/// Returns all records that were kept so far.
pub fn logged() -> Vec<Logged> {
    KEPT.lock().unwrap().clone()
}

/// Returns the records of a thread. The callback of a reaper runs on the thread of the reaper.
pub fn logged_by(thread: ThreadId) -> Vec<(Level, String)> {
    let own = logged().into_iter().filter(|record| record.thread == thread);
    own.map(|record| (record.level, record.text)).collect()
}
