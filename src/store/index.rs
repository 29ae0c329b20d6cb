//! The index of a store: counting, listing, reaping, principals and verification.
//!
//! Managers and reapers use it; both stores implement it. The sessions decide, and the index follows from them and may lag.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use super::{Bytes, EndedAll, OnProgress, OwnedPage, Progress, owned};
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

    /// Announces a reaper. Does nothing by default.
    ///
    /// For stores that would drop expired sessions by themselves: from now on, each has to wait for a [`reap`](Self::reap), for
    /// [24 hours](crate::store) at most.
    fn keep_expired(&self) {}

    /// Takes back one [`keep_expired`](Self::keep_expired), because its reaper has ended. Does nothing by default.
    ///
    /// A store that keeps expired sessions only for reapers drops those that wait, unless another reaper was announced. Live
    /// sessions stay.
    fn stop_keeping_expired(&self) {}

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

    /// Counts the live sessions of each partition, as [`count`](Self::count) does. The default is for a store with one partition.
    ///
    /// # Errors
    ///
    /// As for [`reap`](Self::reap).
    fn count_by_partition(&self) -> Result<Vec<u64>> {
        Ok(vec![self.count()?])
    }

    /// Sessions that live, the one that expires last first: with one idle timeout for all, the most recently used first, to
    /// within a 64th of it. Skips `offset` and answers `limit` or fewer.
    ///
    /// Pages are cut from what [`count`](Self::count) counts. So one before the last can be shorter than `limit`: where Redis
    /// evicted sessions.
    ///
    /// # Errors
    ///
    /// As for [`reap`](Self::reap).
    #[doc(alias = "Iterate")]
    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>>;

    /// Returns the live sessions that belong to a principal, the newest first; 1000 of each partition at most.
    ///
    /// If the store lost a part of its bookkeeping, a session that has another owner is left out, and never
    /// [ended](Self::end) for this one. In Redis the hash of owners decides. While Redis has lost the entry of a session there, the
    /// list that has the session decides; [`verify`](Self::verify) restores the entry.
    ///
    /// # Errors
    ///
    /// That the store could not be asked.
    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>>;

    /// Returns live sessions of a principal in one partition, the first that they got first: those that they got after the time
    /// `after`, or all. A page is small, however many sessions there are.
    ///
    /// A renewed session keeps its place, so a walk that begins each page at the [end](OwnedPage::next) of the one before
    /// misses no session that belongs to the principal all the time. It touches none.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Unsupported`] by default, and an error if a store operation fails.
    fn owned_after(&self, principal: &str, partition: u32, after: Option<u64>) -> Result<OwnedPage> {
        let _ = (principal, partition, after);
        Err(owned::unsupported())
    }

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

    /// Ends all sessions as [`end_everybody`](Self::end_everybody) does, and reports its progress between two steps. If the
    /// callback stops it, some sessions have ended and the others live. The default reports once, at the end.
    ///
    /// # Errors
    ///
    /// As for [`reap`](Self::reap); some may have ended then. Call it again.
    fn end_everybody_with(&self, on_progress: &mut OnProgress<'_>) -> Result<EndedAll> {
        let ended = self.end_everybody()?;
        let _ = on_progress(Progress::new(ended, ended));
        Ok(EndedAll::new(ended, false))
    }

    /// Compares the sessions with everything that follows from them, in small steps between the requests, and corrects it: the
    /// index, the owners of sessions and their lists, companions, tombstones of renewed ids, and reasons of ends.
    ///
    /// Call it after Redis lost keys, or after another program wrote over keys of the store. The reaper corrects everyday
    /// drift. The result has a count for each kind of finding. Afterwards each key without a TTL has a reason, and the lists of
    /// owners agree. Where they disagree, the session belongs to the principal that the hash of owners names; if the hash lost
    /// the session, to the principal that got it last. If hash and list of a session are both lost, the session lives without
    /// an owner in Redis until it is renewed, which restores both.
    ///
    /// Keys of a custom [key mapper](crate::RedisSessionStoreBuilder::key_mapper) are recognised only by an entry in the index or
    /// among the owners. Without one, such a session stays out of the index until it is used.
    ///
    /// # Errors
    ///
    /// Returns an error if a store operation fails. The findings before it are corrected by then; you can safely call `verify`
    /// again.
    fn verify(&self, options: VerifyOptions<'_>) -> Result<Verified>;
}

/// A callback of a [`verify`](SessionIndex::verify).
pub type OnVerified<'a> = dyn Fn(&Verified, Progress) -> ControlFlow<()> + 'a;

/// The options of a [`verify`](SessionIndex::verify).
///
/// # Examples
///
/// ```
/// use std::ops::ControlFlow;
///
/// use threaded_sessions::store::{SessionIndex, VerifyOptions};
/// use threaded_sessions::{MemorySessionStore, SessionStore};
///
/// let store = MemorySessionStore::new();
/// let index = store.index().expect("the memory store has an index");
/// let options = VerifyOptions::new().dry_run(true).on_progress(&|so_far, progress| {
///     println!("{} of {}: {so_far:?}", progress.done, progress.total);
///     ControlFlow::Continue(())
/// });
/// assert_eq!(index.verify(options)?, Default::default());
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct VerifyOptions<'a> {
    /// `true` changes nothing and only counts.
    pub dry_run: bool,
    /// A callback for each step.
    pub progress: Option<&'a OnVerified<'a>>,
}

impl<'a> VerifyOptions<'a> {
    /// Creates the default options: correct the findings, and report no progress.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether findings are only counted. Defaults to `false`.
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// Sets a callback that gets the counts so far, and how far the walk is, after each step. Defaults to none.
    ///
    /// If the callback returns [`ControlFlow::Break`], `verify` stops between two steps and returns what it
    /// has found, marked as [interrupted](Verified::interrupted). If the callback panics, the panic ends `verify` there too.
    pub fn on_progress(self, progress: &'a OnVerified<'a>) -> Self {
        Self { progress: Some(progress), ..self }
    }
}

impl fmt::Debug for VerifyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let progress = self.progress.is_some();
        f.debug_struct("VerifyOptions").field("dry_run", &self.dry_run).field("progress", &progress).finish()
    }
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
    /// When the principal got it, in milliseconds since 1970 on the clock of the store. A session has a later time than those that
    /// its principal got before, even if the clock was set back.
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

/// The findings of a [`verify`](SessionIndex::verify), by kind. Unless it was a dry run, they are corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Sessions that were missing in the index.
    pub added: u64,
    /// Entries of the index that were more than a 64th of the time left, or a second, away from the deadline of the session.
    pub corrected: u64,
    /// Entries of the index without a session.
    pub dropped: u64,
    /// Sessions that are in the list of an owner, while the hash of owners did not have them.
    pub owners_restored: u64,
    /// Entries of the hash of owners without a session.
    pub owners_dropped: u64,
    /// Sessions with an owner that were missing in the list of the owner.
    pub owned_restored: u64,
    /// Entries in the list of an owner without a session, or with a session of another owner.
    pub owned_dropped: u64,
    /// Companions with another deadline than their session.
    pub companions_corrected: u64,
    /// Companions without a session.
    pub companions_dropped: u64,
    /// Tombstones of renewed ids, and reasons of ends, without a TTL.
    pub tombstones_corrected: u64,
    /// Keys under names of the store with a value of another type. The value is kept under the name with `:clobbered:` and the
    /// time in milliseconds behind it.
    pub displaced: u64,
    /// Values that an earlier call moved aside. They have no TTL: look at them and delete them.
    pub kept_aside: u64,
    /// `true` if the [callback](VerifyOptions::on_progress) stopped the call before it had looked at everything.
    pub interrupted: bool,
}
