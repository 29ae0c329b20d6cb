//! The test of connections that were idle for long, before they are used.
//!
//! A firewall may forget an idle connection without a word to either end. What is sent over it afterwards gets no reply, so a
//! write would have an unknown outcome. The [server](super::server) therefore tests such a connection at checkout.
//!
//! Invariant: a connection that fails the test by its silence opens no circuit, because it proves nothing about the server. All
//! connections that were idle for long at that time are suspect as well. They are closed without a test, so that a caller waits
//! for one test only.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync;

/// How long a connection is idle before it is tested, unless a test sets otherwise. No firewall in use forgets it earlier.
pub(crate) const IDLE_TIME: Duration = Duration::from_secs(15);

/// The idle times that all connections to one server share.
pub(crate) struct IdleTest {
    after: Duration,
    /// Connections that were not used since then are suspect.
    suspect_until: Mutex<Option<Instant>>,
}

/// The treatment of a connection at checkout.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Use,
    Test,
    Close,
}

impl IdleTest {
    pub(crate) fn new(after: Duration) -> Self {
        Self { after, suspect_until: Mutex::default() }
    }

    /// Decides at `now` about a connection that was last used at this time.
    pub(crate) fn judge(&self, last_used: Instant, now: Instant) -> Verdict {
        if now.saturating_duration_since(last_used) < self.after {
            return Verdict::Use;
        }
        match *sync::lock(&self.suspect_until) {
            Some(suspect_until) if last_used <= suspect_until => Verdict::Close,
            _ => Verdict::Test,
        }
    }

    /// Records that an idle connection gave no reply.
    pub(crate) fn on_silence(&self) {
        let mut suspect_until = sync::lock(&self.suspect_until);
        *suspect_until = (*suspect_until).max(Instant::now().checked_sub(self.after));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_one_closes_all_idle_connections() {
        let test = IdleTest::new(Duration::from_millis(20));
        let old = Instant::now();
        assert_eq!(test.judge(old, old), Verdict::Use);
        std::thread::sleep(Duration::from_millis(30));
        let used_since = Instant::now();
        let verdicts = || [old, used_since].map(|used| test.judge(used, Instant::now()));
        assert_eq!(verdicts(), [Verdict::Test, Verdict::Use]);
        test.on_silence();
        assert_eq!(verdicts(), [Verdict::Close, Verdict::Use]);
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(verdicts(), [Verdict::Close, Verdict::Test]);
    }
}
