use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, ErrorKind, Result, jitter, operation};

/// How long a change is tried again while other requests keep changing the session: 1 second.
const RETRY_LIMIT: Duration = Duration::from_secs(1);

/// How often it is tried in any case. Each time somebody else's change was stored, so nobody gives up before this many
/// others are through, even where a second is not long.
const RETRY_ATTEMPTS: u32 = 128;

/// The longest pause, at the beginning.
const RETRY_PAUSE: Duration = Duration::from_micros(500);

/// Several requests want to change a session: each that lost reads what the winner stored and tries again. Every time
/// somebody's change was stored, so all together get on. Pauses of random length keep them from getting into step; they get
/// shorter and shorter, so that who has waited longest has the best chances.
pub(super) struct Backoff {
    began: Instant,
    attempts: u32,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), attempts: 0 }
    }

    /// Pauses before another attempt.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Conflict`] when it has gone on for too long.
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
