//! How a read of the cache touches a session.
//!
//! A touch that moves the deadline by less than a 64th of the TTL is left out, so that a hot session needs one touch for each 64th.
//! So that no session ends before its idle timeout, a touch that is sent moves the deadline a 64th further than asked.
//!
//! Invariant: a session never has less time left after a read than the caller asked for, and at most a 64th more.

use std::time::Duration;

use crate::store::{Touch, ttl_millis};

/// The clocks of Redis and of this process may round a time to different milliseconds.
const ROUNDING: Duration = Duration::from_millis(1);

impl Touch {
    /// The touch to send for a session that may be hot in another process: it writes only if it is due, because each write makes
    /// the entries of all processes invalid.
    pub(super) fn if_due(self) -> Self {
        match self {
            Self::Set(ttl) => Self::SetIfDue { ttl: with_slack(ttl), enough: ttl },
            Self::Extend(ttl) => Self::ExtendIfDue { ttl: with_slack(ttl), enough: ttl },
            other => other,
        }
    }

    /// The touch to send for any other session.
    pub(super) fn with_slack(self) -> Self {
        match self {
            Self::Set(ttl) => Self::Set(with_slack(ttl)),
            Self::Extend(ttl) => Self::Extend(with_slack(ttl)),
            other => other,
        }
    }

    /// Returns `true` if the touch must be sent for a session that has this time left; `None` if the session does not expire.
    pub(super) fn is_due(self, left: Option<Duration>) -> bool {
        match (self, left) {
            (Self::No | Self::Peek, _) | (Self::Extend(_) | Self::ExtendIfDue { .. }, None) => false,
            (Self::Set(_) | Self::SetIfDue { .. }, None) => true,
            (Self::Set(ttl), Some(left)) => left < exact(ttl) || left > with_slack(ttl),
            (Self::Extend(ttl), Some(left)) => left < exact(ttl),
            (Self::SetIfDue { ttl, enough }, Some(left)) => left <= exact(enough) || left > exact(ttl),
            (Self::ExtendIfDue { enough, .. }, Some(left)) => left <= exact(enough),
        }
    }

    /// Returns `true` if this touch, which took so long and left the session this time, has certainly moved no deadline.
    pub(super) fn has_moved_nothing(self, left: Option<Duration>, took: Duration) -> bool {
        match (self, left) {
            (Self::No | Self::Peek, _) | (Self::ExtendIfDue { .. }, None) => true,
            (Self::SetIfDue { ttl, .. } | Self::ExtendIfDue { ttl, .. }, Some(left)) => {
                let new_at_least = exact(ttl).saturating_sub(took + ROUNDING);
                left < new_at_least || left > exact(ttl)
            }
            _ => false,
        }
    }

    /// Returns the time left as the caller of the touch expects it, without the slack.
    pub(super) fn reported(self, left: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Set(ttl) | Self::Extend(ttl) => {
                left.map(|left| if left <= with_slack(ttl) { left.min(exact(ttl)) } else { left })
            }
            _ => left,
        }
    }
}

fn exact(ttl: Duration) -> Duration {
    Duration::from_millis(ttl_millis(ttl))
}

fn with_slack(ttl: Duration) -> Duration {
    let millis = ttl_millis(ttl);
    Duration::from_millis(millis + millis / 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_millis(6400);
    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn touch_is_due_unless_deadline_hardly_moves() {
        let slack = TTL / 64;
        for (left, set, extend) in [
            (Some(TTL - MILLI), true, true),
            (Some(TTL), false, false),
            (Some(TTL + slack), false, false),
            (Some(TTL + slack + MILLI), true, false),
            (None, true, false),
        ] {
            assert_eq!(Touch::Set(TTL).is_due(left), set, "{left:?}");
            assert_eq!(Touch::Extend(TTL).is_due(left), extend, "{left:?}");
        }
        let enough = TTL / 2;
        for (left, is_due) in [(enough, true), (enough + MILLI, false), (TTL, false)] {
            assert_eq!(Touch::SetIfDue { ttl: TTL, enough }.is_due(Some(left)), is_due, "{left:?}");
            assert_eq!(Touch::ExtendIfDue { ttl: TTL, enough }.is_due(Some(left)), is_due, "{left:?}");
        }
        assert!(!Touch::No.is_due(None) && !Touch::Peek.is_due(Some(MILLI)));
    }

    #[test]
    fn touch_may_have_moved_a_new_deadline() {
        let due = Touch::SetIfDue { ttl: TTL, enough: TTL / 2 };
        let took = 10 * MILLI;
        for (touch, left, has_moved_nothing) in [
            (due, Some(TTL), false),
            (due, Some(TTL - took), false),
            (due, Some(TTL - 2 * took), true),
            (due, None, false),
            (Touch::ExtendIfDue { ttl: TTL, enough: TTL / 2 }, Some(2 * TTL), true),
            (Touch::Set(TTL), Some(TTL / 2), false),
            (Touch::Peek, Some(TTL), true),
        ] {
            assert_eq!(touch.has_moved_nothing(left, took), has_moved_nothing, "{touch:?} {left:?}");
        }
    }

    #[test]
    fn sent_touch_leaves_time_for_later_hits() {
        let Touch::Set(sent) = Touch::Set(TTL).with_slack() else { panic!("it stays a touch of its kind") };
        assert!(!Touch::Set(TTL).is_due(Some(sent)));
        assert_eq!(Touch::Set(TTL).reported(Some(sent)), Some(TTL));
        assert_eq!(Touch::Extend(TTL).reported(Some(2 * TTL)), Some(2 * TTL));
        assert_eq!(Touch::Extend(TTL).if_due(), Touch::ExtendIfDue { ttl: sent, enough: TTL });
        assert_eq!(Touch::Peek.with_slack(), Touch::Peek);
    }
}
