//! [`Host`]: the reaper and the signal handlers of a program that hosts sessions.
//!
//! [`Args::host`](super::args::Args::host) or [`Host::start`] creates it; programs keep it until their server has stopped.
//! Invariant: once the host is dropped its flag is set, so that a signal which arrives later ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::{Error, ErrorKind, Reaper, ReaperBuilder, Result, operation};

/// The time between two looks at the flag. A signal handler can set a flag, and do nothing else that is safe and portable.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The background work of a program that hosts sessions.
///
/// [`Args::host`](super::args::Args::host) or [`start`](Self::start) creates a host. The first Ctrl-C or SIGTERM asks the
/// program to end. A second signal ends the program at once, and so does a signal after the host was stopped or dropped.
#[derive(Debug)]
#[must_use = "the reaper stops when the host is dropped"]
pub struct Host {
    stopping: Arc<AtomicBool>,
    reaper: Option<Reaper>,
}

impl Host {
    /// Starts the reaper if its store has an index, and begins to handle Ctrl-C and SIGTERM.
    ///
    /// It is for programs that do not use [`Args`](super::args::Args).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use threaded_sessions::args::Host;
    /// use threaded_sessions::{MemorySessionStore, SessionManager};
    ///
    /// let sessions = SessionManager::<u32>::new(MemorySessionStore::new());
    /// let host = Host::start(sessions.reaper())?;
    /// host.wait(); // other threads serve visitors
    /// host.stop();
    /// # Ok::<_, threaded_sessions::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns the errors of [`ReaperBuilder::start`], except for [`ErrorKind::Unsupported`]: a store without an index needs no
    ///   reaper.
    /// - Returns [`ErrorKind::Other`] if the signal handlers cannot be installed.
    pub fn start<T: 'static>(reaper: ReaperBuilder<T>) -> Result<Self> {
        match reaper.start() {
            Ok(reaper) => Self::with(Some(reaper)),
            Err(error) if error.kind() == ErrorKind::Unsupported => Self::with(None),
            Err(error) => Err(error),
        }
    }

    /// Leaves the removal of expired sessions to other programs.
    pub(super) fn without_reaper() -> Result<Self> {
        Self::with(None)
    }

    fn with(reaper: Option<Reaper>) -> Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Register the shutdown first, so that the first signal finds the flag unset and does not end the program.
            flag::register_conditional_shutdown(signal, 128 + signal, stopping.clone())
                .and_then(|_| flag::register(signal, stopping.clone()))
                .map_err(|error| Error::new(ErrorKind::Other, operation::LISTEN_FOR_SIGNALS).with_source(error))?;
        }
        Ok(Self { stopping, reaper })
    }

    /// Returns the reaper, for its [statistics](Reaper::stats) and to [reap now](Reaper::reap_now).
    ///
    /// Returns `None` if the store needs no reaper, or with `--resolution never`. A handler that must own the reaper, as in
    /// rouille, can share the host in an [`Arc`].
    pub fn reaper(&self) -> Option<&Reaper> {
        self.reaper.as_ref()
    }

    /// Blocks until the program must end.
    pub fn wait(&self) {
        while !self.stopping.load(Ordering::Relaxed) {
            thread::sleep(STOP_CHECK_INTERVAL);
        }
    }

    /// Returns `true` once the program must end.
    #[cfg(any(feature = "rouille", feature = "tiny-http"))]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Asks the program to end.
    #[cfg(any(feature = "rouille", feature = "tiny-http"))]
    pub(crate) fn request_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Returns the flag that is `true` once the program must end. Set the flag to end the program without a signal.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        self.stopping.clone()
    }

    /// Stops the reaper. Call this last, because requests that still run may need the reaper.
    pub fn stop(self) {}
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
