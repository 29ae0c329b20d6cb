use crate::sync;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};

use super::error::Cause;

/// For how long callers wait for the first probe of an outage, before they begin to fail at once. If it was one connection
/// that died alone, a new one is there by then and nobody else noticed.
const FIRST_PROBE_GRACE: Duration = Duration::from_millis(50);

/// The pause between a failed attempt to connect and the next.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A probe that hangs for so long is joined by another one: it may wait for a packet that was lost while Redis was away, and
/// be the last to know that Redis is back.
const PROBE_TIMEOUT: Duration = Duration::from_millis(250);

/// What all connections to one Redis have in common: whether it can be reached.
pub(crate) struct Breaker {
    /// Where Redis is, for the log.
    address: String,
    /// Connections of an earlier generation than this are not used any more. Changes under the lock of `state`.
    generation: AtomicU64,
    /// Whether there is an outage. Changes under the lock of `state`.
    failing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    outage: Option<Outage>,
    last_error: Option<RedisError>,
    /// How many connections of the current generation are open.
    open: usize,
    /// How many attempts to connect are going on.
    attempts: usize,
    /// When the last successful attempt was begun.
    reached: Option<Instant>,
    /// Nobody tries to connect before; set after a failed attempt and during an outage.
    next_attempt: Option<Instant>,
}

struct Outage {
    since: Instant,
    /// Since when somebody has been trying to connect.
    probed_since: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(address: String) -> Self {
        Self { address, generation: AtomicU64::new(0), failing: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Where Redis is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Why callers are to fail at once.
    pub(crate) fn check(&self) -> Option<RedisError> {
        if !self.failing.load(Ordering::Acquire) {
            return None;
        }
        let state = self.state();
        let probed_since = state.outage.as_ref()?.probed_since?;
        state.last_error.clone().filter(|_| probed_since.elapsed() >= FIRST_PROBE_GRACE)
    }

    /// Since when there has been an outage.
    pub(crate) fn failing_since(&self) -> Option<Instant> {
        self.state().outage.as_ref().map(|outage| outage.since)
    }

    /// The last failure, also when all is well again.
    pub(crate) fn last_error(&self) -> Option<RedisError> {
        self.state().last_error.clone()
    }

    /// Whether connections of this generation are still to be used.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }

    /// A command failed, which says nothing about the others.
    pub(crate) fn on_error(&self, error: &RedisError) {
        let mut state = self.state();
        if state.outage.is_none() {
            state.last_error = Some(error.clone());
        }
    }

    /// A connection of this generation died. All of that generation go: they lead to the same server, which restarted, or
    /// cut them all. If it got no answer, Redis counts as away until a new connection gets one; if it was merely cut, the
    /// next attempt to connect decides.
    pub(crate) fn on_connection_lost(&self, generation: u64, error: &RedisError) {
        let mut state = self.state();
        if !self.is_current(generation) {
            return;
        }
        self.generation.store(generation + 1, Ordering::Release);
        state.open = 0;
        state.last_error = Some(error.clone());
        if error.is_timeout() {
            let probed_since = (state.attempts > 0).then(Instant::now);
            self.fail(state, probed_since);
        }
    }

    /// All connections so far lead to a server that is not to be used any more, although it may serve. The generation of
    /// those to come.
    pub(crate) fn invalidate_all(&self) -> u64 {
        let mut state = self.state();
        state.open = 0;
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// A connection of this generation was closed.
    pub(crate) fn on_close(&self, generation: u64) {
        let mut state = self.state();
        if self.is_current(generation) {
            state.open = state.open.saturating_sub(1);
        }
    }

    /// Tries to connect, for a connection of the generation that `connect` is given, or makes of it; during an outage that
    /// is a probe. Soon after a failed attempt nobody is let through, but told what that one met with.
    pub(crate) fn connect_or_probe<C>(&self, connect: impl FnOnce(&mut u64) -> RedisResult<C>) -> RedisResult<C> {
        let begun = Instant::now();
        // Before connecting: what fails while it connects makes it suspect as well.
        let mut generation = self.begin(begun)?;
        // r2d2 loses a place in its pool for every panic.
        let result = catch_unwind(AssertUnwindSafe(|| connect(&mut generation)))
            .unwrap_or_else(|_| Err(RedisError::from(std::io::Error::other("connecting panicked"))));
        self.end(begun, generation, result.as_ref().err());
        result
    }

    fn begin(&self, now: Instant) -> RedisResult<u64> {
        let mut state = self.state();
        if let (Some(next), Some(error)) = (state.next_attempt, &state.last_error)
            && now < next
        {
            return Err(error.clone());
        }
        if let Some(outage) = &mut state.outage {
            outage.probed_since.get_or_insert(now);
            state.next_attempt = Some(now + PROBE_TIMEOUT);
        }
        state.attempts += 1;
        Ok(self.generation.load(Ordering::Acquire))
    }

    fn end(&self, begun: Instant, generation: u64, error: Option<&RedisError>) {
        let mut state = self.state();
        state.attempts -= 1;
        let Some(error) = error else {
            state.open += usize::from(self.is_current(generation));
            state.reached = state.reached.max(Some(begun));
            state.next_attempt = None;
            return self.recover(state);
        };
        state.last_error = Some(error.clone());
        // What began before Redis was reached says nothing about now.
        if state.reached >= Some(begun) {
            return;
        }
        // Nor does what was cut while it connected, if all others were: whoever connects next finds out.
        if state.outage.is_none() && !self.is_current(generation) && !error.is_timeout() {
            return;
        }
        state.next_attempt = Some(Instant::now() + RECONNECT_PAUSE);
        // While others are open Redis is there, it only takes no more of them.
        if state.open == 0 {
            self.fail(state, Some(begun));
        }
    }

    fn fail(&self, mut state: MutexGuard<'_, State>, probed_since: Option<Instant>) {
        if state.outage.is_some() {
            return;
        }
        state.outage = Some(Outage { since: Instant::now(), probed_since });
        self.failing.store(true, Ordering::Release);
        let cause = state.last_error.as_ref().map(Cause::of);
        // A logger may do anything, also look at the health of a store.
        drop(state);
        if let Some(cause) = cause {
            log::warn!("Redis at {} is away: {cause}", self.address);
        }
    }

    fn recover(&self, mut state: MutexGuard<'_, State>) {
        let Some(outage) = state.outage.take() else { return };
        self.failing.store(false, Ordering::Release);
        drop(state);
        log::info!("Redis at {} is back, after {:.1?}", self.address, outage.since.elapsed());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> Breaker {
        Breaker::new("nowhere".to_owned())
    }

    fn refused() -> RedisError {
        std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()
    }

    fn timed_out() -> RedisError {
        std::io::Error::from(std::io::ErrorKind::TimedOut).into()
    }

    fn let_through(breaker: &Breaker) -> bool {
        let mut through = false;
        let _ = breaker.connect_or_probe::<()>(|_| {
            through = true;
            Err(refused())
        });
        through
    }

    #[test]
    fn a_probe_that_panics_is_a_failed_one() {
        let breaker = breaker();
        let panicked = breaker.connect_or_probe::<()>(|_| panic!("as rustls does without a crypto provider"));
        assert_eq!(panicked.unwrap_err().to_string(), "connecting panicked");
        assert!(breaker.failing_since().is_some());
        assert_eq!(breaker.state().attempts, 0);
    }

    #[test]
    fn probes_follow_each_other_with_a_pause_and_join_only_one_that_hangs() {
        let breaker = breaker();
        breaker.on_connection_lost(0, &timed_out());
        let start = Instant::now();
        assert_eq!(breaker.begin(start).unwrap(), 1);
        assert!(breaker.begin(start + PROBE_TIMEOUT - Duration::from_millis(1)).is_err());
        assert!(breaker.begin(start + PROBE_TIMEOUT).is_ok());
        breaker.end(start, 1, Some(&refused()));
        assert!(breaker.begin(start).is_err(), "right after a failed one");
        assert!(breaker.begin(Instant::now() + RECONNECT_PAUSE).is_ok());
    }

    #[test]
    fn while_connections_are_open_a_refused_one_is_no_outage() {
        let breaker = breaker();
        breaker.connect_or_probe(|_| Ok(())).unwrap();
        assert!(let_through(&breaker));
        assert!(breaker.failing_since().is_none());
        breaker.on_close(0);
        breaker.end(Instant::now(), breaker.begin(Instant::now() + RECONNECT_PAUSE).unwrap(), Some(&refused()));
        assert!(breaker.failing_since().is_some());
    }

    #[test]
    fn an_attempt_that_was_cut_with_all_others_is_no_outage() {
        let breaker = breaker();
        breaker.connect_or_probe(|_| Ok(())).unwrap();
        let (before, generation) = (Instant::now(), breaker.begin(Instant::now()).unwrap());
        let cut = RedisError::from(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        breaker.on_connection_lost(generation, &cut);
        breaker.end(before, generation, Some(&cut));
        assert!(breaker.failing_since().is_none(), "nobody has tried to connect since");
        assert!(let_through(&breaker));
        assert!(breaker.failing_since().is_some(), "somebody has, in vain");
    }

    #[test]
    fn who_leaves_a_server_still_counts_the_connection_that_led_elsewhere() {
        let breaker = breaker();
        breaker.connect_or_probe(|_| Ok(())).unwrap();
        breaker
            .connect_or_probe(|generation| {
                *generation = breaker.invalidate_all();
                Ok(())
            })
            .unwrap();
        assert!(breaker.is_current(1) && !breaker.is_current(0));
        assert_eq!(breaker.state().open, 1);
        breaker.on_close(0);
        assert_eq!(breaker.state().open, 1);
    }

    #[test]
    fn an_attempt_from_before_the_outage_neither_hides_nor_prolongs_it() {
        let breaker = breaker();
        let (before, generation) = (Instant::now(), breaker.begin(Instant::now()).unwrap());
        breaker.on_connection_lost(generation, &timed_out());
        assert!(breaker.failing_since().is_some());
        assert_eq!(breaker.connect_or_probe(|generation| Ok(*generation)).unwrap(), 1);
        breaker.on_close(1);
        breaker.end(before, generation, Some(&timed_out()));
        assert!(breaker.failing_since().is_none(), "Redis was reached since");
        assert!(let_through(&breaker));
    }

    #[test]
    fn nobody_is_refused_before_somebody_has_looked() {
        let breaker = breaker();
        breaker.on_connection_lost(0, &timed_out());
        std::thread::sleep(FIRST_PROBE_GRACE);
        assert!(breaker.check().is_none(), "nobody has tried to connect");
        assert!(let_through(&breaker));
        std::thread::sleep(FIRST_PROBE_GRACE);
        assert!(breaker.check().is_some());
    }

    #[test]
    fn an_attempt_that_hung_before_the_outage_counts_as_a_look() {
        let breaker = breaker();
        let generation = breaker.begin(Instant::now()).unwrap();
        breaker.on_connection_lost(generation, &timed_out());
        std::thread::sleep(FIRST_PROBE_GRACE);
        assert!(breaker.check().is_some());
    }
}
