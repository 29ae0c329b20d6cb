//! What the reaper's thread does.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::{ExpiredSession, Order, ReaperBuilder, ReaperStats, lock};
use crate::store::{Expired, Reaped};
use crate::{Error, ErrorKind, Result, SessionManager, jitter, operation};

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
        let mut next = Instant::now() + jitter::part_of(turn);
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
        let result = match self.reap(partition) {
            // Most rounds find nothing, or little.
            Ok(reaped) if reaped.backlog == 0 => Ok(self.account(reaped)),
            Ok(reaped) => {
                let removed = self.account(reaped);
                let rest = match self.settings.gentle {
                    true => self.gently(partition)?,
                    false => self.flat_out(partition, thread::Builder::new)?,
                };
                rest.map(|rest| removed + rest)
            }
            Err(error) => Err(error),
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

    /// One batch after the other, with pauses.
    fn gently(&mut self, partition: u32) -> Result<Result<u64>, Stopped> {
        let mut removed = 0;
        loop {
            self.wait(Instant::now() + PAUSE)?;
            match self.reap(partition) {
                Ok(reaped) => {
                    let done = reaped.backlog == 0;
                    removed += self.account(reaped);
                    if done {
                        return Ok(Ok(removed));
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Two batches at a time, so that Redis has one to do while the other one's answer is on its way. `helper`: the
    /// threads they run in.
    fn flat_out(&mut self, partition: u32, helper: impl Fn() -> thread::Builder) -> Result<Result<u64>, Stopped> {
        let (settings, over) = (&self.settings.batches(), &AtomicBool::new(false));
        let (sender, batches) = bounded(0);
        thread::scope(|scope| {
            let helpers = [sender.clone(), sender].map(|sender| {
                helper().spawn_scoped(scope, move || {
                    while !over.load(Ordering::Relaxed) {
                        let batch = settings.reap(partition);
                        let more = matches!(&batch, Ok(reaped) if reaped.backlog > 0);
                        // What was removed is told, whatever happens.
                        if sender.send(batch).is_err() || !more {
                            break;
                        }
                    }
                })
            });
            // The system has no threads to give. One would be enough.
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
            stopped.map(|()| removed)
        })
    }

    fn reap(&self, partition: u32) -> Result<Reaped> {
        self.settings.batches().reap(partition)
    }

    /// Counts what was removed, and tells it.
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
        let (handle, codec) = (expired.handle, self.settings.sessions.codec());
        // The callback is not called with what it left behind, but for what it captured itself.
        let told = catch_unwind(AssertUnwindSafe(|| {
            codec.decode(&expired.payload).map(|envelope| on_expired(ExpiredSession::new(handle, envelope)))
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
                    log::warn!("the reaper goes on trying: {error:#}");
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

/// How batches are asked for.
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
    fn reap(&self, partition: u32) -> Result<Reaped> {
        // A store of somebody else's is no reason to die of.
        catch_unwind(AssertUnwindSafe(|| {
            let index =
                self.sessions.store().index().ok_or_else(|| Error::new(ErrorKind::Unsupported, operation::REAP))?;
            index.reap(partition, self.size, self.payloads)
        }))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Other, operation::REAP).with_source("the store panicked")))
    }
}

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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::store::SessionIndex;
    use crate::{Clock, MemorySessionStore};

    #[test]
    fn a_reaper_in_a_hurry_does_with_the_threads_that_there_are() {
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
            assert!(matches!(rounds.flat_out(0, helper), Ok(Ok(10))), "with {threads} threads");
        }
    }

    #[test]
    fn a_failure_is_tried_again_soon_then_less_and_less_often_but_once_a_resolution() {
        let (works, fails) = (Ok(()), Err::<(), _>(Error::new(ErrorKind::Unavailable, operation::REAP)));
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
