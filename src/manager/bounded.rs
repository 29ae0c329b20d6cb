//! The sessions whose TTL ends with their lifetime, as far as this manager knows.
//!
//! Loading uses it. A read moves the idle deadline before it knows the payload, so near the end of a lifetime the deadline has to
//! be moved back. The manager notes for which sessions it did so, and reads them without a touch from then on. This saves
//! the second command of all further reads.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use crate::{SessionId, sync};

/// How many sessions are noted at most. The reads of further ones take a second command.
const CAPACITY: usize = 10_000;

/// The shortest time between two clean-ups of a full table, because a clean-up looks at every entry.
const CLEAN_UP_INTERVAL: Duration = Duration::from_secs(1);

/// The noted sessions.
#[derive(Default)]
pub(super) struct Bounded(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    /// The ids, each with the end of its lifetime.
    ends: HashMap<SessionId, SystemTime>,
    cleaned: Option<SystemTime>,
}

impl Bounded {
    /// Returns the end of the lifetime, if the session is noted.
    pub(super) fn end(&self, id: &SessionId) -> Option<SystemTime> {
        sync::lock(&self.0).ends.get(id).copied()
    }

    pub(super) fn insert(&self, id: SessionId, end: SystemTime, now: SystemTime) {
        let mut noted = sync::lock(&self.0);
        if let Some(noted) = noted.ends.get_mut(&id) {
            *noted = end;
            return;
        }
        if noted.ends.len() >= CAPACITY {
            noted.clean_up(now);
        }
        if noted.ends.len() < CAPACITY {
            noted.ends.insert(id, end);
        }
    }

    pub(super) fn remove(&self, id: &SessionId) {
        sync::lock(&self.0).ends.remove(id);
    }
}

impl Noted {
    /// Removes the sessions that are over, unless the last clean-up was a moment ago. A clock that went back counts as due.
    fn clean_up(&mut self, now: SystemTime) {
        let age = self.cleaned.and_then(|cleaned| now.duration_since(cleaned).ok());
        if age.is_none_or(|age| age >= CLEAN_UP_INTERVAL) {
            self.ends.retain(|_, end| *end > now);
            self.cleaned = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Notes as many sessions as there is room for, all with the same end. Returns one of them.
    fn fill(bounded: &Bounded, end: SystemTime, now: SystemTime) -> SessionId {
        let ids: Vec<SessionId> = (0..CAPACITY).map(|_| SessionId::random()).collect();
        ids.iter().for_each(|id| bounded.insert(*id, end, now));
        ids[0]
    }

    #[test]
    fn noted_session_gets_its_new_end() {
        let (bounded, now) = (Bounded::default(), SystemTime::now());
        let noted = fill(&bounded, now + MINUTE, now);
        bounded.insert(noted, now + 2 * MINUTE, now);
        assert_eq!(bounded.end(&noted), Some(now + 2 * MINUTE));
    }

    #[test]
    fn full_table_is_cleaned_once_a_second() {
        let (bounded, now) = (Bounded::default(), SystemTime::now());
        fill(&bounded, now + Duration::from_millis(500), now);
        let late = SessionId::random();
        let insert_at = |at: SystemTime| {
            bounded.insert(late, now + MINUTE, at);
            bounded.end(&late)
        };
        assert_eq!([0, 999, 1000].map(|ms| insert_at(now + Duration::from_millis(ms)).is_some()), [false, false, true]);
        assert_eq!(sync::lock(&bounded.0).ends.len(), 1);
    }
}
