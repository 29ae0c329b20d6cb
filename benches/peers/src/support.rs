//! The private Redis of the benchmark: the one of the crate's tests, which ends with this process however that ends.

use std::thread;
use std::time::{Duration, Instant};

#[path = "../../../tests/support/server.rs"]
#[allow(dead_code, reason = "the tests of the crate do more with their servers")]
mod server;

pub(crate) use server::RedisServer;

/// How long the benchmark waits for a server to start or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Returns `true` as soon as `condition` does, and `false` if that takes longer than `patience`.
pub(crate) fn eventually(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}
