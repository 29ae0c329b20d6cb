//! The times after which a session ends, and what follows from them for one session.
//!
//! The manager and each session have a copy. The TTL of a stored session is never longer than the lifetime that is left.

use std::time::{Duration, SystemTime};

use crate::codec::Envelope;
use crate::store::MAX_TTL;

/// How far the clocks of two servers may differ without a correction of what is stored.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_secs(1);

/// The settings of a manager that end sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(super) idle_timeout: Option<Duration>,
    pub(super) anonymous_idle_timeout: Option<Duration>,
    pub(super) remember_for: Option<Duration>,
    pub(super) lifetime: Option<Duration>,
    /// How much longer than its idle timeout a session is stored, so that most reads need no touch.
    pub(super) touch_every: Option<Duration>,
}

impl Timeouts {
    pub(super) fn idle_timeout<D>(&self, envelope: &Envelope<D>) -> Option<Duration> {
        let shorter = self.anonymous_idle_timeout.filter(|_| is_anonymous(envelope));
        envelope.remembered.and(self.remember_for).or(shorter).or(self.idle_timeout)
    }

    /// Returns the idle timeout that every session has at least, whatever its payload holds.
    pub(super) fn shortest_idle_timeout(&self) -> Option<Duration> {
        self.anonymous_idle_timeout.or(self.idle_timeout)
    }

    /// Returns `true` if sessions have different idle timeouts. Then only the payload shows which one a session has.
    pub(super) fn vary(&self) -> bool {
        self.anonymous_idle_timeout.is_some() || self.remember_for.is_some()
    }

    /// Returns the longest TTL that a stored session may have at this moment. The TTL is corrected only if it is longer.
    pub(super) fn longest_ttl<D>(&self, envelope: &Envelope<D>, now: SystemTime) -> Option<Duration> {
        let shorter = self.anonymous_idle_timeout.filter(|_| is_anonymous(envelope)).map(|idle| self.idle_ttl(idle));
        [shorter, self.lifetime_left(envelope, now)].into_iter().flatten().min()
    }

    /// Returns the lifetime that a session has left at this moment. A beginning that is later than the moment counts as the moment.
    pub(super) fn lifetime_left<D>(&self, envelope: &Envelope<D>, now: SystemTime) -> Option<Duration> {
        let age = now.duration_since(envelope.created).unwrap_or_default();
        self.lifetime.map(|lifetime| lifetime.saturating_sub(age))
    }

    /// Returns the TTL that a touch sets for the sake of this idle timeout.
    pub(super) fn idle_ttl(&self, idle: Duration) -> Duration {
        idle.saturating_add(self.touch_every.unwrap_or_default()).min(MAX_TTL)
    }

    /// Returns the TTL that a write sets at this moment. Zero: the lifetime of the session is over.
    pub(super) fn stored_ttl<D>(&self, envelope: &Envelope<D>, now: SystemTime) -> Option<Duration> {
        let idle_ttl = self.idle_timeout(envelope).map(|idle| self.idle_ttl(idle));
        [idle_ttl, self.lifetime_left(envelope, now)].into_iter().flatten().min()
    }

    /// Returns by how much a TTL may fall short of `wanted`, which is that of `stored_ttl`, before it is moved.
    pub(super) fn slack(&self, wanted: Duration, lifetime_left: Option<Duration>) -> Duration {
        self.touch_every.filter(|_| lifetime_left != Some(wanted)).unwrap_or(wanted / 64)
    }

    /// Returns how long a session with this TTL lives for certain. With `touch_every`, uses that do not show in the TTL make it
    /// live longer. A TTL that ends with the lifetime is exact.
    pub(super) fn promise<D>(
        &self,
        left: Option<Duration>,
        envelope: &Envelope<D>,
        now: SystemTime,
    ) -> Option<Duration> {
        let lifetime_left = self.lifetime_left(envelope, now);
        let certain = match (left, self.touch_every) {
            (Some(left), Some(_)) if lifetime_left.is_some_and(|end| end <= left + CLOCK_TOLERANCE) => {
                self.idle_timeout(envelope)
            }
            (Some(left), Some(every)) => Some(left.saturating_sub(every)),
            (left, _) => left,
        };
        [certain, lifetime_left].into_iter().flatten().min()
    }

    /// Returns how long a session lives that is used at this moment. Zero: its lifetime is over.
    pub(super) fn ttl<D>(&self, envelope: &Envelope<D>, now: SystemTime) -> Option<Duration> {
        [self.idle_timeout(envelope), self.lifetime_left(envelope, now)].into_iter().flatten().min()
    }

    /// Stores the idle timeout and the end of the lifetime in a session. From these, a manager with other settings finds out when
    /// the session was last used.
    pub(crate) fn stamp<D>(&self, envelope: &mut Envelope<D>) {
        envelope.idle_timeout = self.idle_timeout(envelope).map(whole_millis);
        let lifetime = self.lifetime.map(whole_millis);
        envelope.ends = lifetime.and_then(|lifetime| envelope.created.checked_add(lifetime));
    }

    /// Returns `true` if a session was stored with other times. The time of its last use does not follow from them.
    pub(crate) fn differ<D>(&self, envelope: &Envelope<D>) -> bool {
        if (envelope.idle_timeout, envelope.ends) == (None, None) {
            return false;
        }
        let mut stamped = envelope.with_data(());
        self.stamp(&mut stamped);
        let ends_alike = match (envelope.ends, stamped.ends) {
            (Some(one), Some(other)) => {
                let apart = one.duration_since(other).or_else(|_| other.duration_since(one));
                apart.is_ok_and(|apart| apart <= CLOCK_TOLERANCE)
            }
            (one, other) => one == other,
        };
        envelope.idle_timeout != stamped.idle_timeout || !ends_alike
    }
}

/// Returns `true` for a session without an owner, unless its visitor asked to be remembered.
fn is_anonymous<D>(envelope: &Envelope<D>) -> bool {
    envelope.bound.is_none() && envelope.remembered.is_none()
}

/// The precision of an envelope.
fn whole_millis(time: Duration) -> Duration {
    Duration::from_millis(time.as_millis() as u64)
}
