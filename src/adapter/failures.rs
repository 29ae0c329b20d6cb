//! The log of the adapters about requests that fail.
//!
//! [`error_page`](super::error_page) reports each failure here. Invariant: an outage, in which every request fails, logs
//! at most one warning in ten seconds, and every other failure is logged once.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{ErrorKind, fence, sync};

/// The time between two warnings about failing requests.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

static FAILURES: Failures = Failures::new();

/// Counts the requests that fail for a temporary reason.
struct Failures {
    /// How many failed since the last warning.
    unreported: AtomicU64,
    warned: Mutex<Option<Instant>>,
}

/// Logs that a request failed. `subject` names the request, and `cause` the error. An error of the application has no kind.
pub(super) fn failed(kind: Option<ErrorKind>, subject: &str, cause: &str) {
    let error = kind.map_or("application", ErrorKind::name);
    match kind {
        Some(kind) if kind.is_temporary() => {}
        Some(ErrorKind::CrossOrigin) => return fence::log!(Warn, error = error; "{subject} failed: {cause}"),
        _ => return fence::log!(Error, error = error; "{subject} failed: {cause}"),
    }
    fence::log!(Debug, error = error; "{subject} failed: {cause}");
    FAILURES.unreported.fetch_add(1, Ordering::Relaxed);
    if let Some(count) = FAILURES.take_due(Instant::now()) {
        let requests = if count == 1 { "request" } else { "requests" };
        fence::log!(Warn, requests = count, error = error; "{count} {requests} failed since the last warning; {subject} failed: {cause}");
    }
}

/// Logs the failures that no warning has counted yet, if there are any. Costs a healthy request one look at a counter.
pub(super) fn succeeded() {
    if FAILURES.unreported.load(Ordering::Relaxed) == 0 {
        return;
    }
    if let Some(count) = FAILURES.take_due(Instant::now()) {
        let requests = if count == 1 { "request" } else { "requests" };
        fence::log!(Warn, requests = count; "{count} {requests} failed since the last warning, and requests succeed again");
    }
}

impl Failures {
    const fn new() -> Self {
        Self { unreported: AtomicU64::new(0), warned: Mutex::new(None) }
    }

    /// Returns the number of unreported failures if a warning is due, and counts from zero then.
    fn take_due(&self, now: Instant) -> Option<u64> {
        let mut warned = sync::lock(&self.warned);
        if warned.is_some_and(|warned| now.saturating_duration_since(warned) < WARNING_INTERVAL) {
            return None;
        }
        let count = self.unreported.swap(0, Ordering::Relaxed);
        if count > 0 {
            *warned = Some(now);
        }
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_ten_seconds_apart_and_count_all() {
        let (failures, began) = (Failures::new(), Instant::now());
        let mut told = Vec::new();
        for tenth in 0..400 {
            let now = began + Duration::from_millis(100 * tenth);
            if tenth < 250 {
                failures.unreported.fetch_add(1, Ordering::Relaxed);
            }
            told.extend(failures.take_due(now).map(|count| (tenth, count)));
        }
        assert_eq!(told, [(0, 1), (100, 100), (200, 100), (300, 49)]);
    }

    #[test]
    fn failure_after_quiet_time_warns_at_once() {
        let (failures, began) = (Failures::new(), Instant::now());
        for hour in 0..3 {
            failures.unreported.fetch_add(1, Ordering::Relaxed);
            assert_eq!(failures.take_due(began + Duration::from_secs(3600 * hour)), Some(1));
        }
    }
}
