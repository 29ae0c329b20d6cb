//! The sessions whose TTL ends with their lifetime, as far as this manager knows.
//!
//! Loading uses it. A read moves the idle deadline before it knows the payload, so near the end of a lifetime the deadline has to
//! be moved back. The manager notes for which sessions it did so, and reads them without a touch from then on. This saves
//! the second command of all further reads.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::{SessionId, sync};

/// How many sessions are noted at most. The reads of further ones take a second command.
const CAPACITY: usize = 10_000;

/// The ids, each with the end of its lifetime.
#[derive(Default)]
pub(super) struct Bounded(Mutex<HashMap<SessionId, SystemTime>>);

impl Bounded {
    /// Returns the end of the lifetime, if the session is noted.
    pub(super) fn end(&self, id: &SessionId) -> Option<SystemTime> {
        sync::lock(&self.0).get(id).copied()
    }

    pub(super) fn insert(&self, id: SessionId, end: SystemTime, now: SystemTime) {
        let mut ends = sync::lock(&self.0);
        if ends.len() >= CAPACITY {
            ends.retain(|_, end| *end > now);
        }
        if ends.len() < CAPACITY {
            ends.insert(id, end);
        }
    }

    pub(super) fn remove(&self, id: &SessionId) {
        sync::lock(&self.0).remove(id);
    }
}
