//! The index of a store: counting, listing, reaping, principals and verification.
//!
//! Managers and reapers use it; both stores implement it. The sessions decide, and the index follows from them and may lag.

use std::fmt;
use std::time::Duration;

use super::Bytes;
use crate::{Error, ErrorKind, Handle, Result, SessionId};

/// The index of a store: which sessions there are, and when each is due. The expiring Redis store and the memory store
/// have one.
///
/// The index follows from the sessions and never decides about one: what it says may lag behind, and is checked against
/// the session before anything is removed.
pub trait SessionIndex {
    /// Into how many partitions the index is cut. Each is reaped by itself.
    fn partitions(&self) -> u32 {
        1
    }

    /// A reaper that wants the payloads of what it removes is about to start. For stores that drop by themselves what has
    /// expired: from now on it has to wait for a [`reap`](Self::reap). By default nothing.
    fn keep_expired(&self) {}

    /// Removes sessions of a partition whose time has passed, the longest overdue first, looking at `limit` entries of the
    /// index and no more. One atomic operation, which never removes a session that was used in time.
    ///
    /// With `payloads` the answer holds what was removed. Whoever gets that answer is the only one: if it is lost on the
    /// way, nobody does.
    ///
    /// # Errors
    ///
    /// That the store could not be asked. [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) if something that is not an
    /// index is stored under its key; [`verify`](Self::verify) puts it out of the way.
    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped>;

    /// How many sessions live, as the index has it. A session in the last 64th of its time may be missing, one that was
    /// evicted by Redis may be counted until it would have been due.
    ///
    /// # Errors
    ///
    /// As for [`reap`](Self::reap).
    fn count(&self) -> Result<u64>;

    /// Sessions that live, the one that expires last first: with one idle timeout for all, the most recently used first, to
    /// within a 64th of it. Skips `offset` and answers `limit` or fewer.
    ///
    /// Pages are cut from what [`count`](Self::count) counts. So one before the last can be shorter than `limit`: where Redis
    /// evicted sessions.
    ///
    /// # Errors
    ///
    /// As for [`reap`](Self::reap).
    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>>;

    /// The sessions that live and belong to a principal, the newest first; 1000 of each partition at most.
    ///
    /// # Errors
    ///
    /// That the store could not be asked.
    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>>;

    /// Ends sessions of a principal, and answers how many there were. A renewal that comes in between does not save a session
    /// that is to end: it ends under its new id. (But the one to end [`Only`](Ending::Only) has another handle then.)
    ///
    /// # Errors
    ///
    /// That the store could not be asked; some may have ended then. [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if the
    /// session that is to [stay](Ending::AllExcept) is not theirs, or not any more: it may have another id by now.
    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64>;

    /// Ends everybody's sessions, and answers how many lived: for an administrator, after a breach say. All that began before
    /// the call have ended when it returns, whatever id they were renewed to meanwhile; those that begin while it runs may
    /// live or not. It goes in small atomic steps beside the traffic, which does not keep it from coming to an end.
    ///
    /// Sessions that the index does not have, because Redis lost it, are not found: [`verify`](Self::verify) first. What has
    /// expired is left to the reaper, which tells the application.
    ///
    /// # Errors
    ///
    /// As for [`reap`](Self::reap); some may have ended then. Call it again.
    fn end_everybody(&self) -> Result<u64>;

    /// Compares index and sessions in both directions, in small steps beside the traffic, and mends the index; principals
    /// lose what is no session any more. For operators, after Redis lost keys or something wrote where it should not;
    /// everyday drift the reaper mends.
    ///
    /// Keys of a [key mapper](crate::RedisSessionStoreBuilder::key_mapper) of one's own are not recognised without an entry:
    /// such a session stays out of the index until it is used. What has an entry is verified.
    ///
    /// # Errors
    ///
    /// That the store could not be asked.
    fn verify(&self) -> Result<Verified>;
}

/// What one [`reap`](SessionIndex::reap) did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reaped {
    /// How many sessions were removed.
    pub removed: u64,
    /// How many entries of the index are still due, as far as the index knows.
    pub backlog: u64,
    /// The sessions that were removed, if they were asked for.
    pub sessions: Vec<Expired>,
}

/// A session that was removed because its time had passed.
#[derive(Clone)]
#[non_exhaustive]
pub struct Expired {
    /// The handle it had.
    pub handle: Handle,
    /// The encoded session.
    pub payload: Bytes,
}

impl Expired {
    /// For stores of one's own.
    pub fn new(handle: Handle, payload: impl Into<Bytes>) -> Self {
        Self { handle, payload: payload.into() }
    }
}

impl fmt::Debug for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expired").field("handle", &self.handle).field("bytes", &self.payload.len()).finish()
    }
}

/// A session in a [`page`](SessionIndex::page) of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The handle of the session.
    pub handle: Handle,
    /// How long it lives if it is not used. `None`: it does not expire.
    pub expires_in: Option<Duration>,
}

impl Entry {
    /// For stores of one's own.
    pub fn new(handle: Handle, expires_in: Option<Duration>) -> Self {
        Self { handle, expires_in }
    }
}

/// A session that belongs to a principal.
#[derive(Clone)]
#[non_exhaustive]
pub struct Belonging {
    /// The handle of the session.
    pub handle: Handle,
    /// The encoded session.
    pub payload: Bytes,
    /// How long it lives if it is not used. `None`: it does not expire.
    pub expires_in: Option<Duration>,
    /// When the principal got it, in milliseconds since 1970 on the clock of the store.
    pub since: u64,
}

impl Belonging {
    /// For stores of one's own.
    pub fn new(handle: Handle, payload: impl Into<Bytes>, expires_in: Option<Duration>, since: u64) -> Self {
        Self { handle, payload: payload.into(), expires_in, since }
    }
}

impl fmt::Debug for Belonging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Belonging")
            .field("handle", &self.handle)
            .field("bytes", &self.payload.len())
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// Which sessions of a principal [`end`](SessionIndex::end).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Ending<'a> {
    /// All of them.
    All,
    /// All but this one, which is to be theirs.
    AllExcept(&'a SessionId),
    /// The one with this handle, if it is theirs.
    Only(Handle),
}

impl Ending<'_> {
    /// The error of [`AllExcept`](Self::AllExcept) if the session to keep does not belong to the principal.
    pub(super) fn not_theirs(operation: &'static str) -> Error {
        Error::new(ErrorKind::Conflict, operation)
            .with_source("the session to be kept does not belong to the principal (any more)")
    }
}

/// What a [`verify`](SessionIndex::verify) found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Sessions that were missing in the index, and are in it now.
    pub added: u64,
    /// Entries that were more than a 64th of the time left, or a second, away from the truth.
    pub corrected: u64,
    /// Entries without a session, which are gone now.
    pub dropped: u64,
    /// Indexes, and lists of whom sessions belong to, that were of another type. What was there is kept under its key with
    /// `:clobbered:` and the time in milliseconds behind it.
    pub displaced: u64,
}
