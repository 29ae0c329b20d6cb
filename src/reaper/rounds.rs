//! The loop of the reaper's thread: rounds, batches, orders and retries.
//!
//! [`ReaperBuilder::start`] runs it in a thread. A round covers one partition, in batches. Invariants: orders of the [`Reaper`] (reap
//! now, or stop) are handled between batches, and no error or panic of the store or the callback ends the thread.
//!
//! [`Reaper`]: super::Reaper

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::{ExpiredSession, Order, ReaperBuilder, ReaperStats, lock};
use crate::store::{Expired, Reaped, index_of};
use crate::{Error, ErrorKind, Result, SessionManager, codec, fence, jitter, operation};

/// The pause between two batches of a gentle reaper, in which Redis serves other clients.
const BATCH_PAUSE: Duration = Duration::from_micros(100);

/// The delay after the first failure.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The state of the reaper's thread.
pub(super) struct Rounds<T> {
    settings: ReaperBuilder<T>,
    partitions: u32,
    inbox: Receiver<Order>,
    stats: Arc<Mutex<ReaperStats>>,
    /// The partitions whose last round failed. The log has one warning if there are any.
    failing: BTreeSet<u32>,
    /// `true` after the first warning about a panic of the codec or the callback. Further ones are not logged.
    panicked: bool,
    /// `true` after the first warning about a session that cannot be decoded. Further ones are not logged.
    undecodable: bool,
}

/// The reaper was stopped.
struct Stopped;

/// The reason why a round did not finish.
enum Unfinished {
    Stopped,
    Failed(Error),
}

impl From<Stopped> for Unfinished {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<Error> for Unfinished {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

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
        let mut next = Instant::now() + jitter::part_of(turn);
        let mut retry_delay = RetryDelay::default();
        for partition in (0..self.partitions).cycle() {
            let Ok(()) = self.wait(next) else { return };
            let pause = match self.round(partition) {
                Ok(_) => retry_delay.after_success(turn),
                Err(Unfinished::Failed(_)) => retry_delay.after_failure(turn),
                Err(Unfinished::Stopped) => return,
            };
            // A round that takes too long delays the next one. Missed rounds are not made up.
            next = (next + pause).max(Instant::now());
        }
    }

    /// Waits, and handles orders while it waits.
    fn wait(&mut self, until: Instant) -> Result<(), Stopped> {
        loop {
            match self.inbox.recv_deadline(until) {
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Ok(order) => self.obey(order)?,
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }

    /// Carries out an order: stops, or reaps all partitions. The order may come within a round. Then the rounds of the order run
    /// first, and the interrupted round continues after them.
    fn obey(&mut self, order: Order) -> Result<(), Stopped> {
        let Order::Reap(answer) = order else { return Err(Stopped) };
        let mut all = Ok(0);
        for partition in 0..self.partitions {
            let result = match self.round(partition) {
                Ok(removed) => Ok(removed),
                Err(Unfinished::Failed(error)) => Err(error),
                Err(Unfinished::Stopped) => return Err(Stopped),
            };
            // The order returns the first error. The other partitions are reaped even so.
            all = all.and_then(|sum| result.map(|removed| sum + removed));
        }
        // The caller may have stopped waiting.
        let _ = answer.send(all);
        Ok(())
    }

    /// Reaps one partition, and records the result in the statistics and the log.
    fn round(&mut self, partition: u32) -> Result<u64, Unfinished> {
        let began = Instant::now();
        lock(&self.stats).last_round = Some(SystemTime::now());
        let result = self.reap_all(partition);
        match &result {
            Ok(_) => self.report_success(partition),
            Err(Unfinished::Failed(error)) => self.report_failure(partition, error),
            Err(Unfinished::Stopped) => return result,
        }
        let mut stats = lock(&self.stats);
        stats.last_duration = began.elapsed();
        match result {
            Ok(_) => stats.rounds += 1,
            Err(_) => stats.errors += 1,
        }
        drop(stats);
        result
    }

    /// Reaps one partition, batch by batch, until nothing is overdue.
    fn reap_all(&mut self, partition: u32) -> Result<u64, Unfinished> {
        let reaped = self.settings.batches().reap(partition)?;
        let done = reaped.backlog == 0;
        let removed = self.account(reaped);
        if done {
            return Ok(removed);
        }
        let rest = match self.settings.gentle {
            true => self.gently(partition)?,
            false => self.flat_out(partition, thread::Builder::new)?,
        };
        Ok(removed + rest)
    }

    /// Reaps one batch after the other, with pauses.
    fn gently(&mut self, partition: u32) -> Result<u64, Unfinished> {
        let mut removed = 0;
        loop {
            self.wait(Instant::now() + BATCH_PAUSE)?;
            let reaped = self.settings.batches().reap(partition)?;
            let done = reaped.backlog == 0;
            removed += self.account(reaped);
            if done {
                return Ok(removed);
            }
        }
    }

    /// Reaps with two helper threads, for a reaper that is not gentle. Redis works on the batch of one thread while the reply to the
    /// other is under way. `helper` returns the builder of a helper thread; a test passes one that fails.
    fn flat_out(&mut self, partition: u32, helper: impl Fn() -> thread::Builder) -> Result<u64, Unfinished> {
        let (settings, over) = (&self.settings.batches(), &AtomicBool::new(false));
        let (sender, batches) = bounded(0);
        thread::scope(|scope| {
            let helpers = [sender.clone(), sender].map(|sender| {
                helper().spawn_scoped(scope, move || {
                    while !over.load(Ordering::Relaxed) {
                        let batch = settings.reap(partition);
                        let more = matches!(&batch, Ok(reaped) if reaped.backlog > 0);
                        // The callback gets all removed sessions, even if another batch fails.
                        if sender.send(batch).is_err() || !more {
                            break;
                        }
                    }
                })
            });
            // If no helper thread can start, this thread reaps alone. If only one starts, it does all the work.
            if helpers.iter().all(Result::is_err) {
                return self.gently(partition);
            }
            let (mut removed, mut stopped) = (Ok(0), Ok(()));
            for batch in batches {
                match batch.map(|reaped| self.account(reaped)) {
                    Ok(some) => removed = removed.map(|sum| sum + some),
                    Err(error) => removed = Err(error),
                }
                if stopped.is_ok()
                    && let Ok(order) = self.inbox.try_recv()
                {
                    stopped = self.obey(order);
                }
                over.fetch_or(removed.is_err() || stopped.is_err(), Ordering::Relaxed);
            }
            stopped?;
            Ok(removed?)
        })
    }

    /// Counts the removed sessions, and calls the callback with each.
    fn account(&mut self, reaped: Reaped) -> u64 {
        let mut stats = lock(&self.stats);
        stats.removed += reaped.removed;
        stats.backlog = reaped.backlog;
        drop(stats);
        for expired in reaped.sessions {
            self.tell(&expired);
        }
        reaped.removed
    }

    fn tell(&mut self, expired: &Expired) {
        let Some(on_expired) = &mut self.settings.on_expired else { return };
        let (handle, decoder) = (expired.handle, self.settings.sessions.codec());
        let told = fence::call(|| {
            decoder.decode(&expired.payload).map(|envelope| on_expired(ExpiredSession::new(handle, envelope)))
        });
        match told {
            Some(Ok(())) => {}
            Some(Err(error)) if !codec::is_panic(&error) => {
                if !self.undecodable {
                    fence::log!(
                        Warn,
                        session:% = handle;
                        "expired session {handle} cannot be decoded, so `on_expired` was not called; further cases are not logged: {error}"
                    );
                }
                self.undecodable = true;
            }
            Some(Err(_)) | None => {
                if !self.panicked {
                    fence::log!(
                        Error,
                        "the codec or `on_expired` panicked; the reaper continues, and further panics are not logged"
                    );
                }
                self.panicked = true;
            }
        }
    }

    /// Logs the first of several failures.
    fn report_failure(&mut self, partition: u32, error: &Error) {
        if self.failing.is_empty() {
            fence::log!(Warn, partition = partition, error = error.kind().name(); "reaping failed, will retry: {error:#}");
        }
        self.failing.insert(partition);
    }

    /// Logs that all partitions work again.
    fn report_success(&mut self, partition: u32) {
        if self.failing.remove(&partition) && self.failing.is_empty() {
            fence::log!(Info, "the reaper works again");
        }
    }
}

/// The settings of a batch, which threads share.
struct Batches<T> {
    sessions: SessionManager<T>,
    size: usize,
    payloads: bool,
}

impl<T: 'static> ReaperBuilder<T> {
    fn batches(&self) -> Batches<T> {
        Batches { sessions: self.sessions.clone(), size: self.batch, payloads: self.on_expired.is_some() }
    }
}

impl<T: 'static> Batches<T> {
    /// Reaps one batch. A panic in a custom store becomes an error, so that it does not end the thread.
    fn reap(&self, partition: u32) -> Result<Reaped> {
        let panicked = || Error::new(ErrorKind::Other, operation::REAP).with_source("the store panicked");
        fence::call(|| index_of(self.sessions.store(), operation::REAP)?.reap(partition, self.size, self.payloads))
            .unwrap_or_else(|| Err(panicked()))
    }
}

/// The pause after a failed round: 1, 2, 4 seconds and so on, at most the usual pause. So the next round comes sooner than usual. It
/// covers the next partition; the failed one has its turn again later.
struct RetryDelay(Duration);

impl Default for RetryDelay {
    fn default() -> Self {
        Self(FIRST_RETRY_DELAY)
    }
}

impl RetryDelay {
    /// Resets the delay, and returns the usual pause.
    fn after_success(&mut self, usual: Duration) -> Duration {
        *self = Self::default();
        usual
    }

    /// Returns the pause after a failure, and doubles the next one.
    fn after_failure(&mut self, usual: Duration) -> Duration {
        let delay = self.0.min(usual);
        self.0 = delay * 2;
        delay
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::store::SessionIndex;
    use crate::{Clock, MemorySessionStore};

    #[test]
    fn flat_out_reaper_works_with_few_threads() {
        for threads in 0..=2_u32 {
            let clock = Clock::manual();
            let store = MemorySessionStore::new().with_clock(clock.clone());
            store.keep_expired();
            let sessions = SessionManager::<u32>::new(store);
            for value in 1..=10 {
                let mut session = sessions.fresh();
                *session = value;
                let _ = sessions.commit(session).unwrap();
            }
            clock.advance(Duration::from_secs(7 * 86_400));

            let none = || thread::Builder::new().stack_size(usize::MAX / 4);
            assert!(none().spawn(|| ()).is_err(), "no system has so much memory");
            let left = Cell::new(threads);
            let helper = || match left.replace(left.get().saturating_sub(1)) {
                0 => none(),
                _ => thread::Builder::new(),
            };
            let (_orders, inbox) = unbounded();
            let mut rounds = Rounds::new(sessions.reaper().batch(3), 1, inbox, Arc::default());
            assert!(matches!(rounds.flat_out(0, helper), Ok(10)), "with {threads} threads");
        }
    }

    #[test]
    fn retry_delay_doubles_up_to_the_resolution() {
        for (resolution, delays) in [(600, [1, 2, 4, 8]), (3, [1, 2, 3, 3]), (1, [1; 4]), (0, [0; 4])] {
            let resolution = Duration::from_secs(resolution);
            let mut retry_delay = RetryDelay::default();
            for _ in 0..2 {
                let found = delays.map(|_| retry_delay.after_failure(resolution).as_secs());
                assert_eq!(found, delays, "{resolution:?}");
                assert_eq!(retry_delay.after_success(resolution), resolution);
            }
        }
    }
}
