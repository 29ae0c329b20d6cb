//! The pauses of the optimistic loop in `save`.
//!
//! A retry comes after a pause of random length, so that requests that lost to one winner do not retry in step. Each conflict
//! means that the change of another request was stored, so all requests together make progress.

use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, Result, jitter, operation};

/// How long a save is retried while other requests keep changing the session: 1 second.
const RETRY_LIMIT: Duration = Duration::from_secs(1);

/// How often a save is retried in any case. So no save gives up before this many others have succeeded, even where 1 second is
/// short.
const RETRY_ATTEMPTS: u32 = 128;

/// The longest pause, before the first retry.
const RETRY_PAUSE: Duration = Duration::from_micros(500);

/// The retries of one save. The pauses get shorter, so that the save that has waited longest has the best chances.
pub(super) struct Backoff {
    began: Instant,
    attempts: u32,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), attempts: 0 }
    }

    /// Pauses before the next attempt.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Conflict`] if [`RETRY_LIMIT`] and [`RETRY_ATTEMPTS`] are both used up.
    pub(super) fn wait(&mut self) -> Result<()> {
        if self.attempts >= RETRY_ATTEMPTS && self.began.elapsed() >= RETRY_LIMIT {
            let why = format!("others kept changing it for {RETRY_LIMIT:?}");
            return Err(Error::new(ErrorKind::Conflict, operation::SAVE).with_source(why));
        }
        self.attempts += 1;
        thread::sleep(jitter::part_of(RETRY_PAUSE / self.attempts));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn save_gives_up_after_both_limits() {
        let cases =
            [(RETRY_ATTEMPTS, RETRY_LIMIT, true), (RETRY_ATTEMPTS, Duration::ZERO, false), (1, RETRY_LIMIT, false)];
        for (attempts, elapsed, gives_up) in cases {
            let began = Instant::now().checked_sub(elapsed).expect("the machine has run for longer");
            let waited = Backoff { began, attempts }.wait();
            assert_eq!(waited.map_err(|error| error.kind()).err(), gives_up.then_some(ErrorKind::Conflict));
        }
    }
}
