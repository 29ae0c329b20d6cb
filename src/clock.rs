//! The source of the current time.
//!
//! The manager, the memory store, lists of sessions and the step `WrittenAt` read it. Times are whole milliseconds, so a time
//! that is stored and read back is the same.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sync;

/// A source of the current time: the system, or a clock that a test moves.
///
/// The manager reads it for creation times and lifetimes, the memory store for its deadlines. Deadlines in Redis are on the
/// server's clock and not affected.
///
/// # Examples
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
    /// Creates the system's clock, which is the default.
    pub fn system() -> Self {
        Self(None)
    }

    /// Creates a clock that stands still until it is [advanced](Self::advance). Clones share the time.
    pub fn manual() -> Self {
        Self(Some(Arc::new(Mutex::new(Self::system().now()))))
    }

    /// Returns the time in whole milliseconds. Sessions are stored with this precision, so a stored time is read back
    /// unchanged.
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
    /// Panics on the system's clock, which cannot be moved.
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
