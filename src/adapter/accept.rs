//! When and how often a server that accepts no more connections is started again.
//!
//! The functions `serve` of the adapters use it. tiny_http, on which rouille builds, ends its accepting thread at the first error,
//! for example when the process has no file descriptor left. Invariant: a shortage never ends the program, and restarts never
//! come in a tight loop.

use std::io;
use std::time::{Duration, Instant};

use crate::args::Host;
use crate::{BoxError, Error, ErrorKind, Result, fence, operation};

/// The time between two looks at the server and at the host.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How many servers may serve the connections that they accepted before they stopped accepting. Beyond it the oldest ends.
pub(super) const MAX_OLD_SERVERS: usize = 8;

const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A server that accepted for this long was worth the restart.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// How often in a row a server may stop accepting at once, for another reason than a shortage.
const MAX_HOPELESS_RESTARTS: u32 = 5;

/// `ENOMEM`, `ENFILE`, `EMFILE`, and `ENOBUFS` of macOS and of Linux.
const SHORTAGES: [i32; 5] = [12, 23, 24, 55, 105];

/// The pauses between restarts.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the server began to accept.
    began: Instant,
    /// While the server does not accept: when the next restart is due.
    due: Option<Instant>,
    pause: Duration,
    hopeless: u32,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, due: None, pause: SHORTEST_PAUSE, hopeless: 0 }
    }

    /// Notes that the server does not accept, with the reason if it is known. Returns `true` if a restart is due.
    ///
    /// # Errors
    ///
    /// Returns an error if restarts are of no use.
    pub(super) fn is_due(&mut self, now: Instant, why: Option<io::Error>) -> Result<bool, BoxError> {
        let Some(due) = self.due else {
            let was_stable = now.saturating_duration_since(self.began) >= STABLE_AFTER;
            self.pause = if was_stable { SHORTEST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
            self.hopeless = match &why {
                Some(error) if !was_stable && !is_shortage(error) => self.hopeless + 1,
                _ => 0,
            };
            let reason = why.as_ref().map_or_else(|| "the accepting thread ended".to_owned(), ToString::to_string);
            fence::log!(Warn, "accepting connections failed, will retry: {reason}");
            if self.hopeless >= MAX_HOPELESS_RESTARTS {
                return Err(reason.into());
            }
            self.due = Some(now + self.pause);
            return Ok(false);
        };
        Ok(now >= due)
    }

    /// Notes the outcome of a restart.
    ///
    /// # Errors
    ///
    /// Returns the error of the restart, unless it comes from a shortage, which may end.
    pub(super) fn restarted(&mut self, now: Instant, outcome: Result<(), BoxError>) -> Result<(), BoxError> {
        match outcome {
            Ok(()) => {
                fence::log!(Info, "connections are accepted again");
                (self.began, self.due) = (now, None);
                Ok(())
            }
            Err(error) if error.downcast_ref().is_some_and(is_shortage) => {
                self.due = Some(now + SHORTEST_PAUSE);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns `true` if the system had too little of something, which is over when another connection or thread ends.
fn is_shortage(error: &io::Error) -> bool {
    let is_temporary = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory);
    is_temporary || error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code))
}

/// Stops the host unless there is a thread to serve requests.
///
/// # Errors
///
/// Returns [`ErrorKind::Misconfigured`] if `threads` is 0.
pub(super) fn require_threads(host: &Host, threads: usize) -> Result<()> {
    if threads == 0 {
        host.request_stop();
        return Err(Error::misconfigured(operation::ACCEPT, "`threads` must be at least 1"));
    }
    Ok(())
}

/// Starts the threads of a server that panics if it cannot start one. That is a shortage.
pub(super) fn start_threads<R>(start: impl FnOnce() -> R) -> io::Result<R> {
    fence::call(start).ok_or_else(|| io::ErrorKind::WouldBlock.into())
}

/// The error with which `serve` ends.
pub(super) fn failure(cause: BoxError) -> Error {
    Error::new(ErrorKind::Other, operation::ACCEPT).with_source(cause)
}

/// The cause for a thread of the server that ended by itself.
pub(super) fn thread_ended() -> BoxError {
    "a thread that serves requests ended".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMFILE: i32 = 24;
    const EINVAL: i32 = 22;

    fn error(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn shortage_never_ends_the_program() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..100 {
            assert!(!pace.is_due(now, Some(error(EMFILE))).unwrap(), "a restart waits");
            now += LONGEST_PAUSE;
            assert!(pace.is_due(now, None).unwrap());
            pace.restarted(now, Err(error(EMFILE).into())).unwrap();
            assert!(!pace.is_due(now, None).unwrap(), "so does the next attempt");
            now += SHORTEST_PAUSE;
            assert!(pace.is_due(now, None).unwrap());
            pace.restarted(now, Ok(())).unwrap();
        }
    }

    #[test]
    fn errors_without_shortage_end_the_program_soon() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut restarts = 0;
        while pace.is_due(now, Some(error(EINVAL))).is_ok() {
            now += LONGEST_PAUSE;
            assert!(pace.is_due(now, None).unwrap());
            pace.restarted(now, Ok(())).unwrap();
            restarts += 1;
        }
        assert_eq!(restarts, MAX_HOPELESS_RESTARTS - 1);
        assert!(Pace::new(now).restarted(now, Err(error(EINVAL).into())).is_err());
    }

    #[test]
    fn server_without_threads_is_a_shortage() {
        let error = start_threads(|| panic!("as a pool of threads does")).unwrap_err();
        assert!(is_shortage(&error), "{error:?}");
    }

    #[test]
    fn stable_server_restarts_soon() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..10 {
            assert!(!pace.is_due(now, None).unwrap());
            now += LONGEST_PAUSE;
            assert!(pace.is_due(now, None).unwrap());
            pace.restarted(now, Ok(())).unwrap();
        }
        now += STABLE_AFTER;
        assert!(!pace.is_due(now, None).unwrap());
        assert!(pace.is_due(now + SHORTEST_PAUSE, None).unwrap());
    }
}
