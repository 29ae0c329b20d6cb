//! [`Host`]: the reaper and the signal handlers of a program that hosts sessions.
//!
//! [`Args::host`](super::args::Args::host) creates it; programs keep it until their server has stopped. Invariant: once the
//! host is dropped its flag is set, so that a signal which arrives later ends the program.

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
/// [`Args::host`](super::args::Args::host) creates a host. The first Ctrl-C or SIGTERM asks the program to end. A second
/// signal ends the program at once, and so does a signal after the host was stopped or dropped.
#[derive(Debug)]
#[must_use = "the reaper stops when the host is dropped"]
pub struct Host {
    stopping: Arc<AtomicBool>,
    _reaper: Option<Reaper>,
}

impl Host {
    /// Starts the reaper if its store has an index, and installs the signal handlers.
    pub(super) fn start<T: 'static>(reaper: ReaperBuilder<T>) -> Result<Self> {
        let reaper = match reaper.start() {
            Ok(reaper) => Some(reaper),
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            Err(error) => return Err(error),
        };
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Register the shutdown first, so that the first signal finds the flag unset and does not end the program.
            flag::register_conditional_shutdown(signal, 128 + signal, stopping.clone())
                .and_then(|_| flag::register(signal, stopping.clone()))
                .map_err(|error| Error::new(ErrorKind::Other, operation::LISTEN_FOR_SIGNALS).with_source(error))?;
        }
        Ok(Self { stopping, _reaper: reaper })
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
