//! The door between the Redis store and its near cache, an optional copy of hot sessions in the process.
//!
//! Each read of a session passes through [`Door::read`], and each write holds a guard of [`Door::forgets`] or [`Door::settles`].
//! Without the feature `near-cache`, or without the setting, the door is open and does nothing. Behind it, `cache` decides what is
//! served, `entries` has the sessions, `seen` decides which sessions are worth an entry, `touches` which reads move a deadline,
//! `lease` bounds how old an entry can be, and `line` has the connection over which the server announces changes, and the thread
//! that `waker` wakes.
//!
//! Invariant: the cache serves a session only while a `PING` is answered that was sent less than a lease ago on the connection
//! that read the session. So a change elsewhere is missed for less than a lease, whatever the network does.

#[cfg(feature = "near-cache")]
mod cache;
#[cfg(feature = "near-cache")]
mod entries;
#[cfg(feature = "near-cache")]
mod lease;
#[cfg(feature = "near-cache")]
mod line;
#[cfg(feature = "near-cache")]
mod seen;
#[cfg(feature = "near-cache")]
mod settings;
#[cfg(feature = "near-cache")]
mod touches;
#[cfg(feature = "near-cache")]
mod waker;

#[cfg(feature = "near-cache")]
use std::sync::Arc;

#[cfg(feature = "near-cache")]
use self::cache::Cache;
#[cfg(feature = "near-cache")]
pub use self::settings::NearCache;
use crate::Result;
use crate::store::{Bind, NearCacheHealth, Stored, Touch};

/// The door of one store. Clones lead to the same cache.
#[derive(Clone, Default)]
pub(super) struct Door {
    #[cfg(feature = "near-cache")]
    cache: Option<Arc<line::Service>>,
}

/// A write that runs. While it is held and when it is dropped, the cache has no entry that the write makes old.
#[must_use]
pub(super) struct Guard<'a> {
    door: &'a Door,
    keys: [Option<&'a str>; 2],
    /// `true` if the write may also end sessions whose keys the client does not know.
    ends_others: bool,
}

impl Door {
    /// Reads a session from the cache, or by `read`, which may get a touch that moves the deadline a little further.
    pub(super) fn read(
        &self,
        key: &str,
        touch: Touch,
        read: impl FnOnce(Touch) -> Result<Option<Stored>>,
    ) -> Result<Option<Stored>> {
        #[cfg(feature = "near-cache")]
        if let Some(cache) = self.cache() {
            return cache.read(key, touch, read);
        }
        let _ = key;
        read(touch)
    }

    /// Guards a write to these sessions. If it binds a session within a cap, it may end others.
    pub(super) fn writes<'a>(&'a self, keys: [Option<&'a str>; 2], bind: Bind<'_>) -> Guard<'a> {
        let guard = Guard { door: self, keys, ends_others: matches!(bind, Bind::To { cap: Some(_), .. }) };
        guard.forget();
        guard
    }

    /// Guards a write to this session.
    pub(super) fn forgets<'a>(&'a self, key: &'a str) -> Guard<'a> {
        self.writes([Some(key), None], Bind::Keep)
    }

    /// Guards an operation that ends sessions whose keys the client does not know.
    pub(super) fn settles(&self) -> Guard<'_> {
        Guard { door: self, keys: [None; 2], ends_others: true }
    }

    /// Drops a session from the cache, so that the next read asks Redis.
    pub(super) fn forget(&self, key: &str) {
        #[cfg(feature = "near-cache")]
        if let Some(cache) = self.cache() {
            cache.forget(key);
        }
        let _ = key;
    }

    /// Returns the reason why the server or the user cannot serve a cache, if there is a cache and a reason.
    pub(super) fn check(&self) -> Option<String> {
        #[cfg(feature = "near-cache")]
        return self.cache().and_then(Cache::check);
        #[cfg(not(feature = "near-cache"))]
        None
    }

    /// Returns the figures of the cache, if there is one.
    pub(super) fn health(&self) -> Option<NearCacheHealth> {
        #[cfg(feature = "near-cache")]
        return self.cache().map(Cache::health);
        #[cfg(not(feature = "near-cache"))]
        None
    }

    #[cfg(feature = "near-cache")]
    fn cache(&self) -> Option<&Cache> {
        self.cache.as_ref().map(|service| service.cache())
    }
}

impl Guard<'_> {
    fn forget(&self) {
        self.keys.iter().flatten().for_each(|key| self.door.forget(key));
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.forget();
        #[cfg(feature = "near-cache")]
        if self.ends_others
            && let Some(cache) = self.door.cache()
        {
            cache.settle();
        }
        let _ = self.ends_others;
    }
}
