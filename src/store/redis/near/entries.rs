//! The sessions that a cache has, and those that it is about to get.
//!
//! Reads ask for entries and forget them; the thread of the cache fills and invalidates them.
//!
//! Invariant: a fill becomes an entry only if no write forgot the session since the fill began. The lock of `fills` decides: to
//! finish a fill and to forget a session both hold it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::store::Bytes;
use crate::sync;

/// The number of locks of fills.
const FILL_LOCKS: usize = 16;

/// The number of fills that one lock admits. A read of a further session asks for no entry.
const FILLS_PER_LOCK: usize = 256;

/// The bytes that an entry takes besides its key and its payload.
const ENTRY_BYTES: u64 = 150;

/// The bytes that an entry is expected to have, which decides the number of its parts.
const USUAL_BYTES: u64 = 1024;

/// A session, as Redis has it.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) payload: Bytes,
    /// When the session expires, or `None` if it does not.
    pub(super) deadline: Option<Instant>,
}

impl Entry {
    /// Returns the time that the session has left, or `None` if it has expired.
    pub(super) fn left(&self, now: Instant) -> Option<Option<Duration>> {
        match self.deadline {
            None => Some(None),
            Some(deadline) => deadline.checked_duration_since(now).filter(|left| !left.is_zero()).map(Some),
        }
    }
}

/// A session that is to become an entry, if Redis still has this payload.
pub(super) struct Fill {
    pub(super) key: Arc<str>,
    pub(super) payload: Bytes,
    number: u64,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Arc<str>, Entry> for Weight {
    fn weight(&self, key: &Arc<str>, entry: &Entry) -> u64 {
        (key.len() + entry.payload.len()) as u64 + ENTRY_BYTES
    }
}

pub(super) struct Entries {
    live: Cache<Arc<str>, Entry, Weight>,
    /// The numbers of the fills that are under way.
    fills: [Mutex<HashMap<Arc<str>, u64>>; FILL_LOCKS],
    hasher: RandomState,
    next_number: AtomicU64,
}

impl Entries {
    pub(super) fn new(max_bytes: u64) -> Self {
        let expected = usize::try_from(max_bytes / USUAL_BYTES).unwrap_or(usize::MAX);
        Self {
            live: Cache::with_weighter(expected, max_bytes, Weight),
            fills: Default::default(),
            hasher: RandomState::new(),
            next_number: AtomicU64::new(0),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.live.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Begins to fill an entry, unless there is one or it is being filled.
    pub(super) fn begin(&self, key: &str, payload: &Bytes) -> Option<Fill> {
        let mut fills = self.fills(key);
        if fills.len() >= FILLS_PER_LOCK || fills.contains_key(key) || self.live.contains_key(key) {
            return None;
        }
        let (key, number) = (Arc::<str>::from(key), self.next_number.fetch_add(1, Ordering::Relaxed));
        fills.insert(key.clone(), number);
        Some(Fill { key, payload: payload.clone(), number })
    }

    /// Ends a fill: with an entry, or without one because Redis has no such session.
    pub(super) fn finish(&self, fill: Fill, deadline: Option<Option<Instant>>) {
        let mut fills = self.fills(&fill.key);
        if fills.get(&fill.key) != Some(&fill.number) {
            return;
        }
        fills.remove(&fill.key);
        if let Some(deadline) = deadline {
            self.live.insert(fill.key, Entry { payload: fill.payload, deadline });
        }
    }

    /// Drops a session, because this process changes it. A fill that is under way comes to nothing.
    pub(super) fn forget(&self, key: &str) {
        let mut fills = self.fills(key);
        fills.remove(key);
        self.live.remove(key);
    }

    /// Drops an entry. A fill that is under way reads the session later, so it stays.
    pub(super) fn invalidate(&self, key: &str) {
        self.live.remove(key);
    }

    /// Drops all entries and fills.
    pub(super) fn clear(&self) {
        for fills in &self.fills {
            sync::lock(fills).clear();
        }
        self.live.clear();
    }

    /// Drops all entries. The fills that are under way stay.
    pub(super) fn invalidate_all(&self) {
        self.live.clear();
    }

    fn fills(&self, key: &str) -> MutexGuard<'_, HashMap<Arc<str>, u64>> {
        let lock = self.hasher.hash_one(key) as usize % FILL_LOCKS;
        sync::lock(&self.fills[lock])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> (Entries, Bytes) {
        (Entries::new(1 << 20), Bytes::from_static(b"payload"))
    }

    #[test]
    fn fill_becomes_an_entry() {
        let (entries, payload) = entries();
        let fill = entries.begin("key", &payload).unwrap();
        assert!(entries.begin("key", &payload).is_none(), "one fill at a time");
        entries.invalidate("key");
        entries.finish(fill, Some(None));
        assert_eq!(entries.get("key").unwrap().payload, payload);
        assert!(entries.begin("key", &payload).is_none(), "there is an entry");
        entries.invalidate("key");
        assert!(entries.get("key").is_none());
    }

    #[test]
    fn forgotten_fill_comes_to_nothing() {
        let (entries, payload) = entries();
        let fill = entries.begin("key", &payload).unwrap();
        entries.forget("key");
        let later = entries.begin("key", &payload).unwrap();
        entries.finish(fill, Some(None));
        assert!(entries.get("key").is_none());
        entries.finish(later, None);
        assert!(entries.get("key").is_none());
        let cleared = entries.begin("key", &payload).unwrap();
        entries.clear();
        entries.finish(cleared, Some(None));
        assert_eq!(entries.len(), 0);
    }

    #[test]
    fn expired_entry_has_no_time_left() {
        let now = Instant::now();
        let entry = |deadline| Entry { payload: Bytes::new(), deadline };
        assert_eq!(entry(None).left(now), Some(None));
        assert_eq!(entry(Some(now)).left(now), None);
        assert_eq!(entry(Some(now + Duration::from_secs(1))).left(now), Some(Some(Duration::from_secs(1))));
    }
}
