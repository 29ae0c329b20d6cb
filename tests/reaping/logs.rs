//! Keeps log records by thread, for tests of the log of a reaper.

use std::sync::{Mutex, Once};
use std::thread::{self, ThreadId};

use log::{Level, LevelFilter, Log, Metadata, Record};

static KEPT: Mutex<Vec<(ThreadId, Level, String)>> = Mutex::new(Vec::new());

struct Keeper;

impl Log for Keeper {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        KEPT.lock().unwrap().push((thread::current().id(), record.level(), record.args().to_string()));
    }

    fn flush(&self) {}
}

/// From now on what is logged in this process is kept.
pub fn keep_logs() {
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Keeper).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
}

/// The log of a thread. The callback of a reaper runs on the thread of the reaper.
pub fn logged_by(thread: ThreadId) -> Vec<(Level, String)> {
    let kept = KEPT.lock().unwrap();
    kept.iter().filter(|(by, ..)| *by == thread).map(|(_, level, text)| (*level, text.clone())).collect()
}
