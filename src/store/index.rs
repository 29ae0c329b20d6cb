//! The index of a store: counting, listing, reaping, principals and verification.
//!
//! Managers and reapers use it; both stores implement it. The sessions decide, and the index follows from them and may lag.

use std::fmt;
use std::ops::{Add, ControlFlow};
use std::time::Duration;

use super::{Bytes, EndedAll, OnProgress, OwnedPage, Progress, SessionStore, owned};
use crate::{Error, ErrorKind, Handle, Result, SessionId};

/// The index of a store: its sessions and their deadlines. The expiring Redis store and the memory store have one.
///
/// The index follows from the sessions and never decides about one. It may lag behind, so the store checks the session before
/// it removes anything.
pub trait SessionIndex {
    /// Returns the number of partitions of the index. A reaper reaps each partition on its own.
    fn partitions(&self) -> u32 {
        1
    }

    /// Announces a reaper. Does nothing by default.
    ///
    /// This concerns stores that drop expired sessions by themselves. From now on, each expired session waits for a
    /// [`reap`](Self::reap), but no longer than [24 hours](crate::store).
    fn keep_expired(&self) {}

    /// Takes back one [`keep_expired`](Self::keep_expired), because its reaper has ended. Does nothing by default.
    ///
    /// A store that keeps expired sessions only for reapers drops those that wait, unless another reaper was announced. Live
    /// sessions stay.
    fn stop_keeping_expired(&self) {}

    /// Removes expired sessions of a partition, the longest overdue first, and looks at no more than `limit` entries of the
    /// index.
    ///
    /// It is one atomic operation. It never removes a session that was used in time.
    ///
    /// With `payloads`, the result holds the removed sessions. Exactly one caller gets them. If the reply is lost, no caller
    /// gets them.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::WrongType`](crate::ErrorKind::WrongType) if the key of the index holds something else.
    ///   [`verify`](Self::verify) moves it aside.
    /// - Returns another error if the store cannot be reached.
    fn reap(&self, partition: u32, limit: usize, payloads: bool) -> Result<Reaped>;

    /// Counts the live sessions, by the index.
    ///
    /// A session in the last 64th of its TTL may be missing. A session that Redis evicted may be counted until its deadline.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`reap`](Self::reap).
    fn count(&self) -> Result<u64>;

    /// Counts the live sessions of each partition, as [`count`](Self::count) does. The default is for a store with one
    /// partition.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`reap`](Self::reap).
    fn count_by_partition(&self) -> Result<Vec<u64>> {
        Ok(vec![self.count()?])
    }

    /// Lists live sessions, the one with the latest deadline first; skips `offset` of them and returns at most `limit`.
    ///
    /// If all sessions have the same idle timeout, the most recently used sessions come first, to within a 64th of the timeout.
    ///
    /// Pages are cut from the sessions that [`count`](Self::count) counts. If Redis evicted sessions, a page before the last
    /// can therefore be shorter than `limit`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`reap`](Self::reap).
    #[doc(alias = "Iterate")]
    fn page(&self, offset: usize, limit: usize) -> Result<Vec<Entry>>;

    /// Returns the live sessions that belong to a principal, the newest first; 1000 of each partition at most.
    ///
    /// If the store lost a part of its bookkeeping, a session that has another owner is left out, and never [ended](Self::end)
    /// for this one. In Redis the hash of owners decides. While Redis has lost the entry of a session there, the list that has
    /// the session decides; [`verify`](Self::verify) restores the entry.
    ///
    /// # Errors
    ///
    /// Returns an error if the store cannot be reached.
    fn list_by_principal(&self, principal: &str) -> Result<Vec<Belonging>>;

    /// Returns live sessions of a principal in one partition, the first that they got first: those that they got after the time
    /// `after`, or all. A page is small, however many sessions there are.
    ///
    /// A renewed session keeps its place, so a walk that begins each page at the [end](OwnedPage::next) of the one before
    /// misses no session that belongs to the principal all the time. It touches none.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`] if the index cannot read pages, which is the default.
    /// - Returns another error if the store cannot be reached.
    fn owned_after(&self, principal: &str, partition: u32, after: Option<u64>) -> Result<OwnedPage> {
        let _ = (principal, partition, after);
        Err(owned::unsupported())
    }

    /// Ends sessions of a principal, and returns how many there were.
    ///
    /// A renewal during the call does not save a session: it ends under its new id. With [`Only`](Ending::Only), a renewed
    /// session stays live, because its handle has changed.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if the session that must [stay](Ending::AllExcept) does
    ///   not belong to the principal, or no longer does. It may have another id by now.
    /// - Returns another error if the store cannot be reached. Some sessions may have ended then.
    fn end(&self, principal: &str, which: Ending<'_>) -> Result<u64>;

    /// Ends all sessions, and returns how many were live. Use it as an administrator, for example after a breach.
    ///
    /// When the call returns, all sessions that began before it have ended, including those that were renewed during the call.
    /// A session that begins during the call may end or stay live. The store works in small atomic steps between other
    /// operations. Their traffic does not keep the call from finishing.
    ///
    /// If Redis lost entries of the index, their sessions are not found. Call [`verify`](Self::verify) first. Expired sessions
    /// stay for the reaper, which reports them to the application.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`reap`](Self::reap). Some sessions may have ended then; call it again.
    fn end_everybody(&self) -> Result<u64>;

    /// Ends all sessions as [`end_everybody`](Self::end_everybody) does, and reports its progress between two steps.
    ///
    /// If the callback stops it, some sessions have ended and the others live. The default reports once, at the end.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`reap`](Self::reap). Some sessions may have ended then; call it again.
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

/// Returns the index of a store.
///
/// # Errors
///
/// Returns [`ErrorKind::Unsupported`] if the store has none.
pub(crate) fn index_of<'s>(store: &'s dyn SessionStore, operation: &'static str) -> Result<&'s dyn SessionIndex> {
    let why = "the store has no index: use an expiring Redis store or a memory store";
    store.index().ok_or_else(|| Error::unsupported(operation, why))
}

/// The warning if a login was stored, and then the sessions beyond the cap could not be ended.
pub(crate) const CAP_NOT_ENFORCED: &str =
    "a principal may have more sessions than `max_per_principal` until the next login of that principal";

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

/// The outcome of a [`reap`](SessionIndex::reap).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reaped {
    /// The number of sessions that were removed.
    pub removed: u64,
    /// The number of entries of the index that are still due, as far as the index knows.
    pub backlog: u64,
    /// The sessions that were removed, if the caller requested them.
    pub sessions: Vec<Expired>,
}

/// A session that was removed because it had expired.
#[derive(Clone)]
#[non_exhaustive]
pub struct Expired {
    /// The handle that the session had.
    pub handle: Handle,
    /// The encoded session.
    pub payload: Bytes,
}

impl Expired {
    /// Creates an expired session, for custom stores.
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
    /// The time left if the session is not used. `None`: it does not expire.
    pub expires_in: Option<Duration>,
}

impl Entry {
    /// Creates an entry, for custom stores.
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
    /// The time left if the session is not used. `None`: it does not expire.
    pub expires_in: Option<Duration>,
    /// The time when the principal got the session, in milliseconds since 1970 on the clock of the store. A session has a later
    /// time than those that its principal got before, even if the clock was set back.
    pub since: u64,
}

impl Belonging {
    /// Creates a session of a principal, for custom stores.
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

/// The sessions of a principal that [`end`](SessionIndex::end) ends.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Ending<'a> {
    /// All sessions of the principal.
    All,
    /// All sessions except this one, which must belong to the principal.
    AllExcept(&'a SessionId),
    /// The session with this handle, if it belongs to the principal.
    Only(Handle),
}

impl Ending<'_> {
    /// Returns the error of [`AllExcept`](Self::AllExcept) if the session to keep does not belong to the principal.
    pub(super) fn not_theirs(operation: &'static str) -> Error {
        Error::new(ErrorKind::Conflict, operation)
            .with_source("the session to keep does not belong to the principal, or no longer does")
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

/// Adds the findings of two stores.
impl Add for Verified {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            added: self.added + other.added,
            corrected: self.corrected + other.corrected,
            dropped: self.dropped + other.dropped,
            owners_restored: self.owners_restored + other.owners_restored,
            owners_dropped: self.owners_dropped + other.owners_dropped,
            owned_restored: self.owned_restored + other.owned_restored,
            owned_dropped: self.owned_dropped + other.owned_dropped,
            companions_corrected: self.companions_corrected + other.companions_corrected,
            companions_dropped: self.companions_dropped + other.companions_dropped,
            tombstones_corrected: self.tombstones_corrected + other.tombstones_corrected,
            displaced: self.displaced + other.displaced,
            kept_aside: self.kept_aside + other.kept_aside,
            interrupted: self.interrupted || other.interrupted,
        }
    }
}
