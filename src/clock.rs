//! The source of the current time.
//!
//! The manager and the memory store read it. Times are whole milliseconds, so a time that is stored and read back is the same.

use crate::sync;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where the time comes from: the system, unless a test brings its own.
///
/// The manager reads it for creation times and lifetimes, the memory store for its deadlines. Deadlines in Redis are on
/// the server's clock and not affected.
///
/// ```
/// use std::time::Duration;
/// use threaded_sessions::Clock;
///
/// let clock = Clock::manual();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now(), before + Duration::from_secs(60));
/// ```
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Mutex<SystemTime>>>);

impl Clock {
    /// The system's clock, the default.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands still, except when it is [advanced](Self::advance). Clones share the time.
    pub fn manual() -> Self {
        Self(Some(Arc::new(Mutex::new(Self::system().now()))))
    }

    /// The time in whole milliseconds, as it is stored: what is read back is what it was.
    pub fn now(&self) -> SystemTime {
        let now = match &self.0 {
            None => SystemTime::now(),
            Some(time) => *sync::lock(time),
        };
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        UNIX_EPOCH + Duration::from_millis(since.as_millis() as u64)
    }

    /// Moves a manual clock, and every clone of it, forward.
    ///
    /// # Panics
    ///
    /// On the system's clock, which nobody can move.
    pub fn advance(&self, by: Duration) {
        let time = self.0.as_ref().expect("only a manual clock can be advanced");
        *sync::lock(time) += by;
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Clock::manual" } else { "Clock::system" })
    }
}
