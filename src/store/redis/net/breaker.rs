//! A circuit breaker, shared by all connections to one server.
//!
//! The connector asks it before it connects. A server asks it for a permit before a caller waits for a connection, and a
//! connection reports how the exchange ended. It has two parts:
//!
//! * The *reachability* of the server. It is lost if a reply times out and no other reply came in that time, or if connecting
//!   fails while no connection is open. A new connection restores it, unless the attempt began before the loss.
//! * A [circuit](super::circuit) for each kind of command. A timeout opens it, and only a reply to a command of that kind
//!   closes it, because a new connection proves nothing about commands.
//!
//! An *outage* lasts while the server is unreachable or a circuit is not closed. Its beginning and its end are logged.
//!
//! Invariant: once a connection has failed, every connection of its generation is suspect. A connection is used only while its
//! generation is the current one.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, RedisResult};

use super::circuit::{Circuit, Kind, State};
use super::error::{self, Cause};
use crate::observer::{CircuitEvent, CircuitState, CloseReason, ConnectionEvent, Watchers};
use crate::sync::modelled::{AtomicBool, AtomicU64, Instant, Mutex, MutexGuard, Ordering, sleep};
use crate::{fence, sync};

/// How long callers wait for the first probe of an unreachable server before they fail fast. If only one connection died, the
/// probe has opened a new one by then, and no caller fails.
const FIRST_PROBE_GRACE: Duration = Duration::from_millis(50);

/// How often these callers look for the result of the first probe.
const FIRST_PROBE_POLL: Duration = Duration::from_millis(1);

/// The same for callers whose kind of command has not failed. The server probably serves them, so they wait for a new
/// connection even on a busy machine.
const UNAFFECTED_GRACE: Duration = Duration::from_millis(250);

/// The pause between a failed attempt to connect and the next attempt.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A probe that takes longer than this is joined by another probe. The first one may wait for a packet that was lost during
/// the outage, and would notice the end of the outage late.
const PROBE_TIMEOUT: Duration = Duration::from_millis(250);

/// While the server is unreachable, an attempt to connect begins only if fewer than this many run: the probe and the one that joins
/// it. More would take the threads that open connections to other nodes of a cluster. Attempts that began before the outage count.
const MAX_PROBES: usize = 2;

/// How often the log counts the operations that fail during an outage.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// A circuit breaker, shared by all connections to one server.
pub(crate) struct Breaker {
    /// The address of the server, for the log.
    address: String,
    /// The current generation of connections. Connections of earlier generations are no longer used. It changes only under
    /// the lock of `status`.
    generation: AtomicU64,
    /// True during an outage. It changes only under the lock of `status`, and lets callers of a healthy server do without the
    /// lock.
    failing: AtomicBool,
    /// The number of replies to commands of each kind.
    replies: [AtomicU64; 2],
    status: Mutex<Status>,
    watchers: Watchers,
}

#[derive(Default)]
struct Status {
    /// Present while the server is unreachable.
    unreachable: Option<Unreachable>,
    /// One for each kind.
    circuits: [Circuit; 2],
    /// Present from the beginning of an outage to its end.
    outage: Option<Outage>,
    /// The state that observers got last.
    reported: CircuitState,
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

struct Unreachable {
    since: Instant,
    /// The start of the first probe, or of an earlier attempt that still ran when the server became unreachable.
    probed_since: Option<Instant>,
}

/// An outage, as the log knows it.
struct Outage {
    since: Instant,
    /// The number of operations that failed because of it.
    failed: u64,
    /// The part of `failed` that the log has not counted yet, and since when.
    uncounted: u64,
    counted: Instant,
}

/// A line for the log, to be written without the lock, because a logger may call back, for example to read the health of a
/// store.
enum Line {
    Away(String),
    Back(Outage),
    StillAway { lasts: Duration, failed: u64, over: Duration, cause: Option<Cause> },
}

/// The permission to send commands of a kind. If it belongs to the probe, dropping it lets another caller probe.
pub(crate) struct Permit {
    kind: Kind,
    /// The number of replies to commands of the other kind when the permission was given.
    other_replies: u64,
    probe: Option<Probe>,
}

struct Probe {
    breaker: Arc<Breaker>,
    kind: Kind,
    number: u64,
}

impl Permit {
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut status = self.breaker.status();
        status.circuits[self.kind as usize].on_probe_ended(self.number);
        self.breaker.settle(status);
    }
}

impl Breaker {
    pub(crate) fn new(address: String) -> Self {
        Self {
            address,
            generation: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            replies: Default::default(),
            status: Mutex::default(),
            watchers: Watchers::default(),
        }
    }

    /// Shares the observers of another server of the same pool.
    pub(crate) fn with_watchers(self, watchers: &Watchers) -> Self {
        Self { watchers: watchers.clone(), ..self }
    }

    pub(crate) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// Returns the address of the server, for logs and `Debug`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Returns the last error if callers must fail fast instead of waiting for a connection, because the server cannot be
    /// reached. A caller without a command has no kind.
    pub(crate) fn check(&self, kind: Option<Kind>) -> RedisResult<()> {
        if !self.failing.load(Ordering::Acquire) {
            return Ok(());
        }
        let status = self.status();
        match (&status.unreachable, &status.last_error) {
            (Some(Unreachable { probed_since: Some(since), .. }), Some(error))
                if since.elapsed() >= status.grace(kind) =>
            {
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }

    /// Permits a caller to send commands of this kind.
    ///
    /// # Errors
    ///
    /// Returns the last error if the caller must fail fast, because another caller is the probe.
    pub(crate) fn admit(self: &Arc<Self>, kind: Kind) -> RedisResult<Permit> {
        let other_replies = self.replies_to(kind.other());
        let mut permit = Permit { kind, other_replies, probe: None };
        if self.failing.load(Ordering::Acquire) {
            let number = self.status().circuits[kind as usize].call()?;
            permit.probe = number.map(|number| Probe { breaker: self.clone(), kind, number });
        }
        Ok(permit)
    }

    /// Permits a caller to send commands of this kind. The caller waits for the first probe of an outage for
    /// [`FIRST_PROBE_GRACE`], but not beyond its own deadline `until`, because it may have been one connection that hung.
    ///
    /// # Errors
    ///
    /// Returns the last error if the caller must fail fast.
    pub(crate) fn admit_soon(self: &Arc<Self>, kind: Kind, until: Instant) -> RedisResult<Permit> {
        let is_new = || self.status().circuits[kind as usize].was_probed_within(FIRST_PROBE_GRACE);
        loop {
            match self.admit(kind) {
                Err(_) if Instant::now() < until && is_new() => sleep(FIRST_PROBE_POLL),
                decided => return decided,
            }
        }
    }

    /// Records that a reply came to commands of this kind.
    pub(crate) fn on_reply(&self, permit: Permit) {
        self.replies[permit.kind as usize].fetch_add(1, Ordering::Relaxed);
        if self.failing.load(Ordering::Acquire) {
            let mut status = self.status();
            if status.circuits[permit.kind as usize].on_reply() {
                self.settle(status);
            }
        }
    }

    /// Records that commands, sent at `begun` over a connection of this generation, got no reply within the deadline.
    ///
    /// This opens the circuit of their kind, and invalidates the generation. The server also counts as unreachable, unless it
    /// replied to a command of the other kind in that time.
    pub(crate) fn on_silence(&self, permit: Permit, generation: u64, begun: Instant, error: &RedisError) {
        let mut status = self.status();
        if !self.is_current(generation) && status.outage.is_none() {
            return;
        }
        if status.circuits[permit.kind as usize].on_silence(begun, error) {
            let replied = self.replies_to(permit.kind.other()) != permit.other_replies;
            if self.is_current(generation) {
                self.invalidate(&mut status);
                if !replied {
                    status.lose_server();
                }
            }
            status.last_error = Some(error.clone());
        }
        // The probe ends only now, so that no caller probes the old generation. Observers learn of its end, and of nothing before.
        if let Some(probe) = &permit.probe {
            status.circuits[permit.kind as usize].on_probe_ended(probe.number);
        }
        self.settle(status);
    }

    /// Returns when the outage began, if there is one.
    pub(crate) fn failing_since(&self) -> Option<Instant> {
        self.status().outage.as_ref().map(|outage| outage.since)
    }

    /// Returns `true` if the outage lasts only because no caller has sent a command of the kind that failed.
    pub(crate) fn waits_for_a_caller(&self) -> bool {
        self.status().circuit_state() == CircuitState::HalfOpen
    }

    /// Returns the last error, even if the server is reachable again.
    pub(crate) fn last_error(&self) -> Option<RedisError> {
        self.status().last_error.clone()
    }

    /// Returns the generation of connections that are used now.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns `true` if connections of this generation may still be used.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        self.generation.load(Ordering::Acquire) == generation
    }

    /// Records the error of a command. Other connections stay in use.
    pub(crate) fn on_error(&self, error: &RedisError) {
        let mut status = self.status();
        // During an outage its cause is kept.
        if status.outage.is_none() {
            status.last_error = Some(error.clone());
        }
    }

    /// Counts an operation that failed without a reply. Each failure outside an outage is reported by its caller.
    pub(crate) fn on_failed_operation(&self) {
        if !self.failing.load(Ordering::Acquire) {
            return;
        }
        let mut status = self.status();
        let cause = status.last_error.as_ref().map(Cause::of);
        let Some(outage) = &mut status.outage else { return };
        outage.failed += 1;
        outage.uncounted += 1;
        let over = outage.counted.elapsed();
        if over >= REPORT_INTERVAL {
            let (lasts, failed) = (outage.since.elapsed(), outage.uncounted);
            (outage.uncounted, outage.counted) = (0, Instant::now());
            drop(status);
            self.log(Line::StillAway { lasts, failed, over, cause });
        }
    }

    /// Invalidates the generation of a connection that died, because all its connections lead to the same server.
    ///
    /// If a command that proves nothing about a kind, such as `PING`, timed out, the server counts as unreachable. If the
    /// connection was cut, the server may only have restarted, so the next attempt to connect decides.
    pub(crate) fn on_connection_lost(&self, generation: u64, error: &RedisError) {
        let mut status = self.status();
        if !self.is_current(generation) {
            return;
        }
        self.invalidate(&mut status);
        status.last_error = Some(error.clone());
        if error.is_timeout() {
            status.lose_server();
        }
        self.settle(status);
    }

    /// Invalidates all connections, because they lead to a server that must not be used any more, although it may still
    /// respond. Returns the generation of the connections to come.
    pub(crate) fn invalidate_all(&self) -> u64 {
        let mut status = self.status();
        status.circuits.iter_mut().for_each(Circuit::on_new_server);
        self.invalidate(&mut status)
    }

    fn invalidate(&self, status: &mut Status) -> u64 {
        status.open = 0;
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Records that a connection of this generation was closed.
    pub(crate) fn on_close(&self, generation: u64, is_spoiled: bool) {
        let mut status = self.status();
        let is_current = self.is_current(generation);
        if is_current {
            status.open = status.open.saturating_sub(1);
        }
        drop(status);
        let reason = match is_current {
            _ if is_spoiled => CloseReason::Spoiled,
            false => CloseReason::Suspect,
            true => CloseReason::Retired,
        };
        let event = ConnectionEvent::Closed { server: &self.address, reason };
        self.watchers.tell(|observer| observer.on_connection(&event));
    }

    /// Connects, unless an attempt failed a moment ago; then it returns the error of that attempt. While the server is
    /// unreachable, the attempt is a probe.
    ///
    /// `connect` gets the generation of the new connection. If it [invalidates](Self::invalidate_all) the others, it must
    /// set the generation that follows.
    pub(crate) fn connect_or_probe<C>(&self, connect: impl FnOnce(&mut u64) -> RedisResult<C>) -> RedisResult<C> {
        let begun = Instant::now();
        // Take the generation before connecting, so that a connection lost in the meantime also invalidates this one.
        let mut generation = self.begin(begun)?;
        // r2d2 loses a place in its pool for every panic.
        let result = fence::call(|| connect(&mut generation))
            .unwrap_or_else(|| Err(RedisError::from(std::io::Error::other("connecting panicked"))));
        match self.end(begun, generation, result.as_ref().err()) {
            Some(error) => Err(error),
            None => result,
        }
    }

    /// Begins an attempt to connect. Returns the current generation, or the last error if no attempt may begin now.
    fn begin(&self, now: Instant) -> RedisResult<u64> {
        let mut status = self.status();
        let is_too_early = status.next_attempt.is_some_and(|next| now < next)
            || (status.unreachable.is_some() && status.attempts >= MAX_PROBES);
        if let (true, Some(error)) = (is_too_early, &status.last_error) {
            return Err(error.clone());
        }
        if let Some(unreachable) = &mut status.unreachable {
            unreachable.probed_since.get_or_insert(now);
            status.next_attempt = Some(now + PROBE_TIMEOUT);
        }
        status.attempts += 1;
        Ok(self.generation.load(Ordering::Acquire))
    }

    /// Ends an attempt to connect, which succeeded if there is no error. Returns the error of the outage if the attempt
    /// succeeded, but before the outage, so that r2d2 tries again.
    fn end(&self, begun: Instant, generation: u64, error: Option<&RedisError>) -> Option<RedisError> {
        let mut status = self.status();
        status.attempts -= 1;
        let is_outdated = |unreachable: &Unreachable| begun < unreachable.since || !self.is_current(generation);
        let outdated = status.unreachable.as_ref().is_some_and(is_outdated);
        let outage = status.last_error.clone().filter(|_| outdated && error.is_none());
        match error {
            // The reply may have come before the server was lost, so it does not prove that the server is back.
            None if outage.is_some() => status.await_probe(),
            None => {
                status.open += usize::from(self.is_current(generation));
                status.reached = status.reached.max(Some(begun));
                status.next_attempt = None;
                status.unreachable = None;
            }
            Some(error) => self.on_connect_failed(&mut status, begun, generation, error),
        }
        self.settle(status);
        let server = &*self.address;
        let event = match error.or(outage.as_ref()) {
            None => ConnectionEvent::Opened { server, took: begun.elapsed() },
            Some(_) => ConnectionEvent::Failed { server },
        };
        self.watchers.tell(|observer| observer.on_connection(&event));
        outage
    }

    fn on_connect_failed(&self, status: &mut Status, begun: Instant, generation: u64, error: &RedisError) {
        status.last_error = Some(error.clone());
        // Ignore an attempt that began before the latest success, because its failure is older news.
        if status.reached >= Some(begun) {
            return;
        }
        // Ignore an attempt that was cut together with all connections. The next attempt decides.
        if status.unreachable.is_none() && !self.is_current(generation) && !error.is_timeout() {
            return;
        }
        status.next_attempt = Some(Instant::now() + RECONNECT_PAUSE);
        // If other connections are open, the server is reachable and only rejects new connections.
        if status.open == 0 && status.unreachable.is_none() {
            status.unreachable = Some(Unreachable { since: Instant::now(), probed_since: Some(begun) });
        }
    }

    /// Begins or ends the outage if the status says so, and logs and reports it.
    fn settle(&self, mut status: MutexGuard<'_, Status>) {
        let line = status.settle();
        self.failing.store(status.outage.is_some(), Ordering::Release);
        let state = status.circuit_state();
        let is_new = mem::replace(&mut status.reported, state) != state;
        drop(status);
        if is_new {
            let event = CircuitEvent::new(&self.address, state);
            self.watchers.tell(|observer| observer.on_circuit(&event));
        }
        if let Some(line) = line {
            self.log(line);
        }
    }

    fn log(&self, line: Line) {
        let address = &*self.address;
        match line {
            Line::Away(how) => fence::log!(Warn, server = address; "Redis at {address} {how}"),
            Line::Back(Outage { since, failed, .. }) => {
                let lasted = since.elapsed();
                fence::log!(Info, server = address, failed = failed; "Redis at {address} is back, after {lasted:.1?}; operations that failed: {failed}");
            }
            Line::StillAway { lasts, failed, over, cause } => {
                let cause = cause.map(|cause| cause.to_string()).unwrap_or_default();
                fence::log!(
                    Warn,
                    server = address, failed = failed;
                    "Redis at {address} is still away, after {lasts:.0?}; operations that failed in the last {over:.0?}: \
                     {failed}; {cause}"
                );
            }
        }
    }

    fn replies_to(&self, kind: Kind) -> u64 {
        self.replies[kind as usize].load(Ordering::Relaxed)
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        sync::lock(&self.status)
    }
}

impl Status {
    /// Records that the server is unreachable. An attempt to connect that is running counts as the first probe.
    fn lose_server(&mut self) {
        let now = Instant::now();
        let probed_since = (self.attempts > 0).then_some(now);
        self.unreachable.get_or_insert(Unreachable { since: now, probed_since });
    }

    /// Lets callers wait for another probe, if none is running, because an attempt that counted as the first probe proved
    /// nothing.
    fn await_probe(&mut self) {
        if let (Some(unreachable), 0) = (&mut self.unreachable, self.attempts) {
            unreachable.probed_since = None;
        }
    }

    /// Returns how long a caller waits for the first probe.
    fn grace(&self, kind: Option<Kind>) -> Duration {
        let is_closed = |kind: Kind| self.circuits[kind as usize].state() == State::Closed;
        match kind {
            Some(kind) if is_closed(kind) && !is_closed(kind.other()) => UNAFFECTED_GRACE,
            _ => FIRST_PROBE_GRACE,
        }
    }

    /// Returns the state of the server as a whole. It is half-open if the outage lasts only because no caller has sent a command
    /// of the kind that failed.
    fn circuit_state(&self) -> CircuitState {
        match self.outage {
            None => CircuitState::Closed,
            Some(_) if self.unreachable.is_some() => CircuitState::Open,
            Some(_) if self.circuits.iter().any(|circuit| circuit.state() == State::Probing) => CircuitState::Open,
            Some(_) => CircuitState::HalfOpen,
        }
    }

    /// Describes the beginning of an outage, for the log.
    fn describe(&self) -> String {
        let is_open = |kind: Kind| self.circuits[kind as usize].state() != State::Closed;
        match &self.last_error {
            Some(error) if self.unreachable.is_none() && is_open(Kind::Others) => {
                format!("is away for writes: {}", Cause::of(error))
            }
            Some(error) if self.unreachable.is_none() => format!("is away for reads: {}", Cause::of(error)),
            Some(error) => error::outage(error),
            None => "is away".to_owned(),
        }
    }

    /// Begins or ends the outage. Returns a line for the log if it did.
    fn settle(&mut self) -> Option<Line> {
        let opened = self.circuits.iter().filter_map(Circuit::since);
        let since = opened.chain(self.unreachable.as_ref().map(|unreachable| unreachable.since)).min();
        match (since, &self.outage) {
            (Some(since), None) => {
                self.outage = Some(Outage { since, failed: 0, uncounted: 0, counted: since });
                Some(Line::Away(self.describe()))
            }
            (None, Some(_)) => self.outage.take().map(Line::Back),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
