//! The time limit of one exchange with a server, as an absolute point in time.
//!
//! Connecting and the stream use it. After each wait they ask it anew. So neither a signal nor a reply in pieces prolongs an
//! exchange.

use std::io;
use std::time::{Duration, Instant};

/// When an exchange must be over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    until: Instant,
    /// How long the exchange may take in all, for error texts.
    allowed: Duration,
}

impl Limit {
    /// A limit that begins now.
    pub(crate) fn of(allowed: Duration) -> Self {
        Self { until: Instant::now() + allowed, allowed }
    }

    /// The limit of an operation that must be over at `until`.
    pub(crate) fn until(until: Instant, allowed: Duration) -> Self {
        Self { until, allowed }
    }

    /// This limit, or the end of `share` if that comes first.
    pub(crate) fn at_most(self, share: Duration) -> Self {
        let end = Instant::now() + share;
        if end < self.until { Self { until: end, allowed: share } } else { self }
    }

    /// The time that is left: zero if none is.
    pub(crate) fn left(self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The time that is left.
    ///
    /// # Errors
    ///
    /// Returns `TimedOut` if no time is left. The text names what is `missing`, such as "no reply".
    pub(crate) fn check(self, missing: &str) -> io::Result<Duration> {
        match self.left() {
            Duration::ZERO => Err(self.passed(missing)),
            left => Ok(left),
        }
    }

    /// The error of a limit that has passed.
    #[cold]
    pub(crate) fn passed(self, missing: &str) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, format!("{missing} within {}", readable(self.allowed)))
    }
}

/// A time as an operator would write it: `1 s`, `250 ms`.
fn readable(time: Duration) -> String {
    match time.as_micros().div_ceil(1000) {
        millis if millis >= 1000 && millis % 1000 == 0 => format!("{} s", millis / 1000),
        millis => format!("{millis} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_shortens_a_limit_and_never_prolongs_it() {
        let limit = Limit::of(Duration::from_secs(1));
        assert!(limit.at_most(Duration::from_millis(100)).left() <= Duration::from_millis(100));
        assert!(limit.at_most(Duration::from_secs(60)).left() <= Duration::from_secs(1));
    }

    #[test]
    fn passed_limit_names_the_missing_part() {
        let limit = Limit::until(Instant::now(), Duration::from_secs(1));
        let error = limit.check("no reply").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::TimedOut, "no reply within 1 s"));
    }
}
