//! A circuit breaker, shared by all connections to one server.
//!
//! The connector asks it before it connects, each connection reports to it how it ended, and a server checks it before a caller
//! waits for a connection. It knows three states:
//!
//! | state | it begins if | what callers see |
//! |---|---|---|
//! | closed | a connection is opened | commands are sent |
//! | open, not probed yet | a reply times out, or connecting fails while no connection is open | callers wait for a connection |
//! | open, probed for [`FIRST_PROBE_GRACE`] | the first probe has not succeeded | callers fail fast with the last error |
//!
//! Invariant: once a connection has failed, every connection of its generation is suspect. A connection is used only while its
//! generation is the current one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use redis::{RedisError, RedisResult};

use super::error;
use crate::sync;

/// How long callers wait for the first probe of an outage before they fail fast. If only one connection died, the probe
/// has opened a new one by then, and no caller fails.
const FIRST_PROBE_GRACE: Duration = Duration::from_millis(50);

/// The pause between a failed attempt to connect and the next attempt.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A probe that takes longer than this is joined by another probe. The first one may wait for a packet that was lost during
/// the outage, and would notice the end of the outage late.
const PROBE_TIMEOUT: Duration = Duration::from_millis(250);

/// A circuit breaker, shared by all connections to one server.
///
/// While it is open, callers fail fast and a background probe tries to reconnect. It opens if a reply times out, or if
/// connecting fails while no connection is open. The first successful probe closes it.
pub(crate) struct Breaker {
    /// The address of the server, for the log.
    address: String,
    /// The current generation of connections. Connections of earlier generations are no longer used. It changes only under
    /// the lock of `state`.
    generation: AtomicU64,
    /// True while the breaker is open. It changes only under the lock of `state`, and lets `check` return without the lock.
    failing: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The outage, while the breaker is open.
    outage: Option<Outage>,
    last_error: Option<RedisError>,
    /// The number of open connections of the current generation.
    open: usize,
    /// The number of attempts to connect that are running.
    attempts: usize,
    /// The start of the latest attempt that succeeded.
    reached: Option<Instant>,
    /// No attempt to connect starts before this time. It is set after a failed attempt and by each probe.
    next_attempt: Option<Instant>,
}

struct Outage {
    since: Instant,
    /// The start of the first probe, or of an earlier attempt that still ran when the outage began.
    probed_since: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(address: String) -> Self {
        Self { address, generation: AtomicU64::new(0), failing: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Returns the address of the server, for logs and `Debug`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns the last error if callers must fail fast.
    pub(crate) fn check(&self) -> RedisResult<()> {
        if !self.failing.load(Ordering::Acquire) {
            return Ok(());
        }
        let state = self.state();
        let probed_since = state.outage.as_ref().and_then(|outage| outage.probed_since);
        match &state.last_error {
            Some(error) if probed_since.is_some_and(|since| since.elapsed() >= FIRST_PROBE_GRACE) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Returns when the outage began, if there is one.
    pub(crate) fn failing_since(&self) -> Option<Instant> {
        self.state().outage.as_ref().map(|outage| outage.since)
    }

    /// Returns the last error, even if the server is reachable again.
    pub(crate) fn last_error(&self) -> Option<RedisError> {
        self.state().last_error.clone()
    }

    /// Returns `true` if connections of this generation may still be used.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }

    /// Records the error of a command. Other connections stay in use.
    pub(crate) fn on_error(&self, error: &RedisError) {
        let mut state = self.state();
        // During an outage its cause is kept.
        if state.outage.is_none() {
            state.last_error = Some(error.clone());
        }
    }

    /// Invalidates the generation of a connection that died, because all its connections lead to the same server.
    ///
    /// If the connection died of a timeout, the breaker opens. If it was cut, the server may only have restarted, so the next
    /// attempt to connect decides.
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

    /// Invalidates all connections, because they lead to a server that must not be used any more, although it may still
    /// respond. Returns the generation of the connections to come.
    pub(crate) fn invalidate_all(&self) -> u64 {
        let mut state = self.state();
        state.open = 0;
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Records that a connection of this generation was closed.
    pub(crate) fn on_close(&self, generation: u64) {
        let mut state = self.state();
        if self.is_current(generation) {
            state.open = state.open.saturating_sub(1);
        }
    }

    /// Connects, unless an attempt failed a moment ago; then it returns the error of that attempt. During an outage, the
    /// attempt is a probe.
    ///
    /// `connect` gets the generation of the new connection. If it [invalidates](Self::invalidate_all) the others, it must
    /// set the generation that follows.
    pub(crate) fn connect_or_probe<C>(&self, connect: impl FnOnce(&mut u64) -> RedisResult<C>) -> RedisResult<C> {
        let begun = Instant::now();
        // Take the generation before connecting, so that a connection lost in the meantime also invalidates this one.
        let mut generation = self.begin(begun)?;
        // Catch panics, because r2d2 loses a place in its pool for every panic.
        let result = catch_unwind(AssertUnwindSafe(|| connect(&mut generation)))
            .unwrap_or_else(|_| Err(RedisError::from(std::io::Error::other("connecting panicked"))));
        self.end(begun, generation, result.as_ref().err());
        result
    }

    /// Begins an attempt to connect. Returns the current generation, or the last error if no attempt may begin now.
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

    /// Ends an attempt to connect, which succeeded if there is no error.
    fn end(&self, begun: Instant, generation: u64, error: Option<&RedisError>) {
        let mut state = self.state();
        state.attempts -= 1;
        match error {
            None => self.on_connected(state, begun, generation),
            Some(error) => self.on_connect_failed(state, begun, generation, error),
        }
    }

    fn on_connected(&self, mut state: MutexGuard<'_, State>, begun: Instant, generation: u64) {
        state.open += usize::from(self.is_current(generation));
        state.reached = state.reached.max(Some(begun));
        state.next_attempt = None;
        self.recover(state);
    }

    fn on_connect_failed(&self, mut state: MutexGuard<'_, State>, begun: Instant, generation: u64, error: &RedisError) {
        state.last_error = Some(error.clone());
        // Ignore an attempt that began before the latest success, because its failure is older news.
        if state.reached >= Some(begun) {
            return;
        }
        // Ignore an attempt that was cut together with all connections. The next attempt decides.
        if state.outage.is_none() && !self.is_current(generation) && !error.is_timeout() {
            return;
        }
        state.next_attempt = Some(Instant::now() + RECONNECT_PAUSE);
        // If other connections are open, the server is reachable and only rejects new connections.
        if state.open == 0 {
            self.fail(state, Some(begun));
        }
    }

    /// Opens the breaker.
    fn fail(&self, mut state: MutexGuard<'_, State>, probed_since: Option<Instant>) {
        if state.outage.is_some() {
            return;
        }
        state.outage = Some(Outage { since: Instant::now(), probed_since });
        self.failing.store(true, Ordering::Release);
        let outage = state.last_error.as_ref().map(error::outage);
        // Release the lock first, because a logger may call back, for example to read the health of a store.
        drop(state);
        if let Some(outage) = outage {
            log::warn!("Redis at {} {outage}", self.address);
        }
    }

    /// Closes the breaker.
    fn recover(&self, mut state: MutexGuard<'_, State>) {
        let Some(outage) = state.outage.take() else { return };
        self.failing.store(false, Ordering::Release);
        // Release the lock first, because a logger may call back.
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
    fn panicking_probe_counts_as_failed() {
        let breaker = breaker();
        let panicked = breaker.connect_or_probe::<()>(|_| panic!("as rustls does without a crypto provider"));
        assert_eq!(panicked.unwrap_err().to_string(), "connecting panicked");
        assert!(breaker.failing_since().is_some());
        assert_eq!(breaker.state().attempts, 0);
    }

    #[test]
    fn second_probe_waits_for_pause_or_timeout() {
        let breaker = breaker();
        breaker.on_connection_lost(0, &timed_out());
        let start = Instant::now();
        assert_eq!(breaker.begin(start).unwrap(), 1);
        assert!(breaker.begin(start + PROBE_TIMEOUT - Duration::from_millis(1)).is_err());
        assert!(breaker.begin(start + PROBE_TIMEOUT).is_ok());
        breaker.end(start, 1, Some(&refused()));
        assert!(breaker.begin(start).is_err(), "right after a failed probe");
        assert!(breaker.begin(Instant::now() + RECONNECT_PAUSE).is_ok());
    }

    #[test]
    fn refused_connection_with_others_open_keeps_breaker_closed() {
        let breaker = breaker();
        breaker.connect_or_probe(|_| Ok(())).unwrap();
        assert!(let_through(&breaker));
        assert!(breaker.failing_since().is_none());
        breaker.on_close(0);
        breaker.end(Instant::now(), breaker.begin(Instant::now() + RECONNECT_PAUSE).unwrap(), Some(&refused()));
        assert!(breaker.failing_since().is_some());
    }

    #[test]
    fn attempt_cut_with_all_connections_keeps_breaker_closed() {
        let breaker = breaker();
        breaker.connect_or_probe(|_| Ok(())).unwrap();
        let (before, generation) = (Instant::now(), breaker.begin(Instant::now()).unwrap());
        let cut = RedisError::from(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        breaker.on_connection_lost(generation, &cut);
        breaker.end(before, generation, Some(&cut));
        assert!(breaker.failing_since().is_none(), "no attempt has begun since");
        assert!(let_through(&breaker));
        assert!(breaker.failing_since().is_some(), "an attempt has failed since");
    }

    #[test]
    fn invalidating_connection_counts_in_its_new_generation() {
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
    fn attempt_older_than_recovery_opens_no_breaker() {
        let breaker = breaker();
        let (before, generation) = (Instant::now(), breaker.begin(Instant::now()).unwrap());
        breaker.on_connection_lost(generation, &timed_out());
        assert!(breaker.failing_since().is_some());
        assert_eq!(breaker.connect_or_probe(|generation| Ok(*generation)).unwrap(), 1);
        breaker.on_close(1);
        breaker.end(before, generation, Some(&timed_out()));
        assert!(breaker.failing_since().is_none(), "a later attempt succeeded");
        assert!(let_through(&breaker));
    }

    #[test]
    fn open_breaker_rejects_only_after_probe() {
        let breaker = breaker();
        breaker.on_connection_lost(0, &timed_out());
        std::thread::sleep(FIRST_PROBE_GRACE);
        assert!(breaker.check().is_ok(), "no probe has begun");
        assert!(let_through(&breaker));
        std::thread::sleep(FIRST_PROBE_GRACE);
        assert!(breaker.check().is_err());
    }

    #[test]
    fn attempt_hung_before_outage_counts_as_probe() {
        let breaker = breaker();
        let generation = breaker.begin(Instant::now()).unwrap();
        breaker.on_connection_lost(generation, &timed_out());
        std::thread::sleep(FIRST_PROBE_GRACE);
        assert!(breaker.check().is_err());
    }
}
