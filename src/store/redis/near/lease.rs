//! The lease of a near cache: the time until which it may serve.
//!
//! The thread of the cache renews it, and each read asks it. Invariant: it ends a lease after the sending of the latest `PING` that
//! was answered, and never later.
//!
//! Times are those of `std::time::Instant`, which stands still on Linux while the machine is suspended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(super) struct Lease {
    length: Duration,
    /// The zero of the other times, which are in nanoseconds.
    begun: Instant,
    until: AtomicU64,
    /// When the cache went out of service, if `until` is zero.
    ended: AtomicU64,
}

impl Lease {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, begun: Instant::now(), until: AtomicU64::new(0), ended: AtomicU64::new(0) }
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// Returns `true` if the cache may serve at this time.
    pub(super) fn holds(&self, now: Instant) -> bool {
        self.nanos(now) < self.until.load(Ordering::Acquire)
    }

    /// Records that a `PING` was answered. All that the server announced before is in effect already.
    pub(super) fn renew(&self, sent: Instant) {
        self.until.fetch_max(self.nanos(sent + self.length), Ordering::Release);
    }

    /// Ends the lease, because the connection failed.
    pub(super) fn end(&self) {
        let now = self.nanos(Instant::now());
        let until = self.until.swap(0, Ordering::AcqRel);
        if until != 0 {
            self.ended.store(until.min(now), Ordering::Release);
        }
    }

    /// Returns for how long the cache has not served, or `None` if it serves.
    pub(super) fn lapsed_for(&self) -> Option<Duration> {
        let (now, until) = (self.nanos(Instant::now()), self.until.load(Ordering::Acquire));
        let end = if until == 0 { self.ended.load(Ordering::Acquire) } else { until };
        (until <= now).then(|| Duration::from_nanos(now.saturating_sub(end)))
    }

    fn nanos(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn lease_counts_from_the_ping() {
        let (lease, sent) = (Lease::new(SECOND), Instant::now());
        assert!(!lease.holds(sent), "before the first PING");
        lease.renew(sent);
        assert!(lease.holds(sent + SECOND / 2));
        assert!(!lease.holds(sent + SECOND));
        lease.renew(sent - SECOND / 2);
        assert!(lease.holds(sent + SECOND / 2), "an older PING does not shorten it");
        assert_eq!(lease.lapsed_for(), None);
        lease.end();
        assert!(!lease.holds(sent));
        assert!(lease.lapsed_for().is_some());
    }

    #[test]
    fn lease_of_zero_never_holds() {
        let (lease, sent) = (Lease::new(Duration::ZERO), Instant::now());
        lease.renew(sent);
        assert!(!lease.holds(sent));
    }
}
