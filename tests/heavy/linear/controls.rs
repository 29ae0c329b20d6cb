//! Stores that break the contract. The checker must notice each of them.
//!
//! `linear.rs` runs histories on them. The invariant: each store breaks one promise, and keeps all others.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use threaded_sessions::store::{Created, Found, Saved, Touch, Version, Write};
use threaded_sessions::{Error, ErrorKind, RedisSessionStore, Result, SessionId, SessionStore};

/// The promise that a store breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breaks {
    Nothing,
    /// A save with a version replaces any version.
    Versions,
    /// Every second deletion leaves the session.
    Deletions,
    /// A change of unknown outcome is reported as not applied.
    Doubts,
}

#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) store: RedisSessionStore,
    breaks: Breaks,
    deletions: AtomicUsize,
}

impl Control {
    pub(crate) fn new(store: RedisSessionStore, breaks: Breaks) -> Self {
        Self { store, breaks, deletions: AtomicUsize::new(0) }
    }

    fn report<T: Debug>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(error) if self.breaks == Breaks::Doubts && error.kind() == ErrorKind::MayHaveHappened => {
                Err(Error::new(ErrorKind::Unavailable, "changing a session"))
            }
            other => other,
        }
    }
}

impl SessionStore for Control {
    fn fresh_id(&self, beside: Option<&SessionId>) -> SessionId {
        self.store.fresh_id(beside)
    }

    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        self.store.create(id, write)
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        self.store.read(id, touch)
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let expected = expected.filter(|_| self.breaks != Breaks::Versions);
        self.report(self.store.save(id, write, expected))
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        self.report(self.store.rotate(old, new, write, expected))
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        if self.breaks == Breaks::Deletions && self.deletions.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return self.store.read(id, Touch::No).map(|found| matches!(found, Found::Live(_)));
        }
        self.report(self.store.delete(id))
    }
}
