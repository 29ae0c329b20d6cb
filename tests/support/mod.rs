//! The test kit: private Redis servers, a monitor of their commands, a proxy with faults, and clients.
#![allow(dead_code, unreachable_pub, unused_imports, missing_docs)]

mod child;
#[cfg(target_os = "linux")]
mod clock;
mod cluster;
mod dead_end;
mod http;
mod jar;
mod logs;
mod monitor;
mod near;
#[cfg(feature = "clap")]
pub mod program;
mod proxy;
#[cfg(feature = "cli")]
pub mod pty;
mod replies;
mod sentinel;
mod server;
mod signals;
mod slow_pipe;
mod states;
#[cfg(feature = "cli")]
pub mod tool;

use std::error::Error;
use std::iter;
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

pub use child::in_child;
#[cfg(target_os = "linux")]
pub use clock::{SteppedClock, under_stepped_clock};
pub use cluster::{Cluster, shared_cluster};
pub use dead_end::DeadEnd;
pub use http::{Client, Response};
pub use jar::Jar;
pub use logs::{Logged, keep_logs, logged, logged_by};
pub use monitor::Monitor;
pub use near::{heat, is_gone, near};
pub use proxy::{Fault, Proxy};
pub use replies::{reply_server, serve_replies};
pub use sentinel::Sentinels;
pub use server::{RedisServer, shared, unique};
pub use signals::{Signals, Victims};
pub use slow_pipe::slow_pipe;

/// How long the kit waits for what must happen, on however busy a machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The commands that set up or probe a connection.
const SETUP: [&str; 5] = ["AUTH", "CLIENT", "HELLO", "PING", "SELECT"];

/// Waits until `condition` holds, for at most `patience`. Returns `true` if it holds.
#[must_use]
pub fn eventually(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs tests with a failover one after the other, because six servers each are enough load for a machine. Under more load, a
/// replica may still be loading when its master is lost, and then it is empty. A Sentinel that is delayed by two seconds does
/// nothing for thirty.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Returns all texts of an error and of its causes.
pub fn texts(error: &dyn Error) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    causes.map(|error| format!("{error} {error:?} {error:#?}\n")).collect()
}
