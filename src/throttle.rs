//! A limit to log lines that many requests would write.
//!
//! The adapters use it for requests that fail, the manager for sessions that cannot be decoded. Invariant: lines are at least ten
//! seconds apart, and together they count every event.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sync;

/// The time between two lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Counts events between two lines.
#[derive(Debug)]
pub(crate) struct Throttle {
    unreported: AtomicU64,
    reported: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(crate) const fn new() -> Self {
        Self { unreported: AtomicU64::new(0), reported: Mutex::new(None) }
    }

    /// Counts an event. Returns the number of events since the last line if a line is due.
    pub(crate) fn count(&self) -> Option<u64> {
        self.count_at(Instant::now())
    }

    /// Returns the number of events that no line has counted, if there are any and a line is due. Costs one look at a counter if
    /// there are none.
    #[cfg(any(feature = "http", feature = "rouille", feature = "tiny-http"))]
    pub(crate) fn rest(&self) -> Option<u64> {
        if self.unreported.load(Ordering::Relaxed) == 0 { None } else { self.take_due(Instant::now()) }
    }

    fn count_at(&self, now: Instant) -> Option<u64> {
        self.unreported.fetch_add(1, Ordering::Relaxed);
        self.take_due(now)
    }

    fn take_due(&self, now: Instant) -> Option<u64> {
        let mut reported = sync::lock(&self.reported);
        if reported.is_some_and(|reported| now.saturating_duration_since(reported) < LINE_INTERVAL) {
            return None;
        }
        let count = self.unreported.swap(0, Ordering::Relaxed);
        if count > 0 {
            *reported = Some(now);
        }
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_ten_seconds_apart_and_count_all() {
        let (throttle, began) = (Throttle::new(), Instant::now());
        let mut told = Vec::new();
        for tenth in 0..400 {
            let now = began + Duration::from_millis(100 * tenth);
            let count = if tenth < 250 { throttle.count_at(now) } else { throttle.take_due(now) };
            told.extend(count.map(|count| (tenth, count)));
        }
        assert_eq!(told, [(0, 1), (100, 100), (200, 100), (300, 49)]);
    }

    #[test]
    fn event_after_quiet_time_is_reported_at_once() {
        let (throttle, began) = (Throttle::new(), Instant::now());
        for hour in 0..3 {
            assert_eq!(throttle.count_at(began + Duration::from_secs(3600 * hour)), Some(1));
        }
    }
}
