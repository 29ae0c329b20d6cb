//! What the reaper's thread does.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Order, ReaperBuilder, ReaperStats, lock};
use crate::store::{Expired, Reaped};
use crate::{Error, ErrorKind, Result};

/// How long traffic has Redis to itself between two batches.
const PAUSE: Duration = Duration::from_micros(100);

/// The first wait after a failure.
const BACKOFF: Duration = Duration::from_secs(1);

/// What the thread works with.
pub(super) struct Rounds<T> {
    settings: ReaperBuilder<T>,
    partitions: u32,
    inbox: Receiver<Order>,
    stats: Arc<Mutex<ReaperStats>>,
    /// The partitions whose last round failed. That there are any was logged.
    failing: BTreeSet<u32>,
    /// A panic over an expired session was logged.
    panicked: bool,
    /// A session that could not be decoded was logged.
    undecodable: bool,
}

/// The reaper was stopped.
struct Stopped;

impl<T: 'static> Rounds<T> {
    pub(super) fn new(
        settings: ReaperBuilder<T>,
        partitions: u32,
        inbox: Receiver<Order>,
        stats: Arc<Mutex<ReaperStats>>,
    ) -> Self {
        let failing = BTreeSet::new();
        Self { settings, partitions, inbox, stats, failing, panicked: false, undecodable: false }
    }

    pub(super) fn run(mut self) {
        // The partitions take turns, so that each has one round in a resolution.
        let turn = self.settings.resolution / self.partitions;
        let mut next = Instant::now() + random_part(turn);
        let mut backoff = Backoff::default();
        for partition in (0..self.partitions).cycle() {
            let Ok(()) = self.wait(next) else { return };
            let Ok(result) = self.round(partition) else { return };
            let pause = backoff.after(&result, turn);
            // What was missed in a round that took long is not made up for.
            next = (next + pause).max(Instant::now());
        }
    }

    /// Waits, and carries out orders meanwhile.
    fn wait(&mut self, until: Instant) -> Result<(), Stopped> {
        loop {
            match self.inbox.recv_deadline(until) {
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Ok(order) => self.obey(order)?,
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), Stopped> {
        let Order::Reap(answer) = order else { return Err(Stopped) };
        let mut all = Ok(0);
        for partition in 0..self.partitions {
            let result = self.round(partition)?;
            // The first error is told; it does not keep the other partitions from being reaped.
            all = all.and_then(|sum| result.map(|removed| sum + removed));
        }
        // Who asked may have gone.
        let _ = answer.send(all);
        Ok(())
    }

    /// Reaps one partition, batch by batch, until nothing is due.
    fn round(&mut self, partition: u32) -> Result<Result<u64>, Stopped> {
        let began = Instant::now();
        lock(&self.stats).last_round = Some(SystemTime::now());
        let mut removed = 0;
        let result = loop {
            match self.batch(partition) {
                Ok((some, backlog)) => {
                    removed += some;
                    if backlog == 0 {
                        break Ok(removed);
                    }
                }
                Err(error) => break Err(error),
            }
            if self.settings.gentle {
                self.wait(Instant::now() + PAUSE)?;
            } else if let Ok(order) = self.inbox.try_recv() {
                self.obey(order)?;
            }
        };
        self.report(partition, &result);
        let mut stats = lock(&self.stats);
        stats.last_duration = began.elapsed();
        match result {
            Ok(_) => stats.rounds += 1,
            Err(_) => stats.errors += 1,
        }
        drop(stats);
        Ok(result)
    }

    fn batch(&mut self, partition: u32) -> Result<(u64, u64)> {
        // A store of somebody else's is no reason to die of.
        let reaped = catch_unwind(AssertUnwindSafe(|| self.reap(partition)))
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Other, DOING).with_source("the store panicked")))?;
        let mut stats = lock(&self.stats);
        stats.removed += reaped.removed;
        stats.backlog = reaped.backlog;
        drop(stats);
        for expired in reaped.sessions {
            self.tell(&expired);
        }
        Ok((reaped.removed, reaped.backlog))
    }

    fn reap(&self, partition: u32) -> Result<Reaped> {
        let index = self.settings.sessions.store().index().ok_or_else(|| Error::new(ErrorKind::Unsupported, DOING))?;
        index.reap(partition, self.settings.batch, self.settings.on_expired.is_some())
    }

    fn tell(&mut self, expired: &Expired) {
        let Some(on_expired) = &mut self.settings.on_expired else { return };
        let (handle, codec) = (expired.handle, self.settings.sessions.codec());
        // The callback is not called with what it left behind, but for what it captured itself.
        let told = catch_unwind(AssertUnwindSafe(|| {
            codec.decode(&expired.payload).map(|envelope| on_expired(handle, envelope.data))
        }));
        match told {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                if !self.undecodable {
                    log::warn!("session {handle} expired and cannot be decoded; this is not said of others: {error}");
                }
                self.undecodable = true;
            }
            Err(_) => {
                if !self.panicked {
                    log::error!(
                        "the callback for expired sessions panicked; the reaper goes on, and will not say so again"
                    );
                }
                self.panicked = true;
            }
        }
    }

    /// Says once that something fails, and once that all works again.
    fn report(&mut self, partition: u32, result: &Result<u64>) {
        match result {
            Err(error) => {
                if self.failing.is_empty() {
                    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
                    log::warn!("the reaper goes on trying: {error}{cause}");
                }
                self.failing.insert(partition);
            }
            Ok(_) => {
                if self.failing.remove(&partition) && self.failing.is_empty() {
                    log::info!("the reaper works again");
                }
            }
        }
    }
}

const DOING: &str = "reaping sessions";

/// How long to wait after a failure: twice as long as after the one before.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF)
    }
}

impl Backoff {
    /// The pause after this round, never longer than the usual one.
    fn after<R>(&mut self, result: &Result<R>, usual: Duration) -> Duration {
        let pause = self.0.min(usual);
        match result {
            Ok(_) => {
                *self = Self::default();
                usual
            }
            Err(_) => {
                self.0 = pause * 2;
                pause
            }
        }
    }
}

fn random_part(whole: Duration) -> Duration {
    whole.mul_f64(f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_tried_again_soon_then_less_and_less_often_but_once_a_resolution() {
        let (works, fails) = (Ok(()), Err::<(), _>(Error::new(ErrorKind::Unavailable, DOING)));
        for (resolution, pauses) in [(600, [1, 2, 4, 8]), (3, [1, 2, 3, 3]), (1, [1; 4]), (0, [0; 4])] {
            let resolution = Duration::from_secs(resolution);
            let mut backoff = Backoff::default();
            for _ in 0..2 {
                assert_eq!(pauses.map(|_| backoff.after(&fails, resolution).as_secs()), pauses, "{resolution:?}");
                assert_eq!(backoff.after(&works, resolution), resolution);
            }
        }
    }
}
