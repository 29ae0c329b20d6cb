//! The stores that keep sessions, and the contract that they share.
//!
//! # The contract of a store
//!
//! A store keeps *payloads*: bytes whose contents it does not interpret, each under a [`SessionId`] and with a TTL. It is only a
//! mechanism. The [`SessionManager`](crate::SessionManager) has all policy.
//!
//! **Ids.** The caller passes the id, which [`fresh_id`](SessionStore::fresh_id) made, so that a retried operation can recognise
//! its own earlier success. For the same reason, no two payloads that are written are equal: the
//! [envelope](crate::codec::Envelope) has a random revision. If the stored payload equals the payload to write, a store may
//! conclude that it wrote this payload before. If payloads begin with a revision, as the JSON and MessagePack of this crate do, a
//! store may compare the revisions only.
//!
//! **Absent is an outcome.** A session that never existed, was deleted, was renewed or has expired is an outcome, not an error. If
//! the store cannot be reached, the operation fails with an error. An unreachable store never looks like an absent session.
//!
//! **Expiry is exact.** An expired session is absent for every operation, even if no cleanup has deleted it yet. A TTL has a
//! resolution of 1 ms, and is at least 1 ms and at most [`MAX_TTL`]: other values are raised or lowered to these bounds. `None`
//! means that the session does not expire.
//!
//! **Operations.** Each operation is atomic: it happens completely or not at all, even if others use the same session at that time.
//!
//! | operation | does | never |
//! |---|---|---|
//! | [`create`](SessionStore::create) | stores a new session | overwrites a live session |
//! | [`read`](SessionStore::read) | returns the payload, and with a [`Touch`] moves the deadline | returns an expired session |
//! | [`read_first`](SessionStore::read_first) | reads the first live session of several ids | touches another session |
//! | [`save`](SessionStore::save) | replaces payload and deadline of a live session | restores a session that has ended |
//! | [`rotate`](SessionStore::rotate) | moves a live session to a new id | leaves both ids live, or neither |
//! | [`delete`](SessionStore::delete) | ends a session | fails because the session does not exist |
//!
//! **Versions.** A [`Version`] names what one write stored. [`save`](SessionStore::save) and [`rotate`](SessionStore::rotate) take
//! the version that the caller expects. If another one is stored, they change nothing and return what is stored. Without
//! a version they replace whatever is stored.
//!
//! - A payload with another revision is another version. Without a revision, so is a payload with any other byte.
//! - A version stays current while a session is read or touched.
//! - Two payloads with one revision may count as one version or as two. No manager writes them. Both stores of this crate count
//!   one: they compare the beginning of the payload up to the revision, if it has one.
//!
//! **Reads need no write.** A read without a touch succeeds while writes fail, even if the session has expired or needs a cleanup.
//!
//! **Bounds.** If a store is bounded to a number of sessions and is full, it rejects a new session with
//! [`OutOfMemory`](crate::ErrorKind::OutOfMemory). It never ends a live session to make room. Expired sessions that wait for a
//! reaper count, but the store drops them to make room.
//!
//! **Renewed ids.** For [`RENEWED_FOR`] after a rotation, reading the old id returns [`Found::Renewed`] instead of
//! [`Found::Absent`]. The old id does not lead to the new id.
//!
//! **Ended ids.** A store may remember for some time why a session ended. Reading its id then returns [`Found::Ended`] instead of
//! [`Found::Absent`], and otherwise it counts as absent.
//!
//! **Companions.** A store may keep [companions](Companion) of its sessions, with the suffixes that were
//! [declared](SessionStore::keep_companions). It rejects a write with any other companion with
//! [`Unsupported`](crate::ErrorKind::Unsupported), and stores nothing of the write.
//!
//! **The index.** A store may have an index. [`SessionIndex`] describes its promises.
//!
//! The suite in [`contract`](crate::contract) checks these rules on any store. The crate has two stores,
//! [`RedisSessionStore`](crate::RedisSessionStore) and [`MemorySessionStore`](crate::MemorySessionStore).

mod companion;
mod feed;
mod index;
pub(crate) mod memory;
pub(crate) mod migrating;
mod owned;
pub(crate) mod redis;
mod walk;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The type of payloads, from the crate [`bytes`]. Clones share the bytes, and a `Vec` converts without a copy.
pub use bytes::Bytes;
use serde::Serialize;

pub use self::companion::Companion;
pub use self::feed::{EndFeed, EndNews};
pub use self::index::{Belonging, Ending, Entry, Expired, OnVerified, Reaped, SessionIndex, Verified, VerifyOptions};
pub(crate) use self::index::{CAP_NOT_ENFORCED, index_of};
pub use self::owned::{Owned, OwnedPage};
pub use self::walk::{EndedAll, KeyPage, KeyPages, OnProgress, Progress, SessionKey, Snapshot};
use crate::{EndReason, Error, Handle, Observer, RedisWarning, Result, SessionId, operation, serialize};

/// The longest TTL that a store takes, 100 years of 365 days. A longer TTL counts as this one.
pub const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The time for which a store recognises an id as renewed, 30 seconds.
pub const RENEWED_FOR: Duration = Duration::from_secs(30);

/// The time for which a store with an index keeps the data of an expired session, 24 hours. The session is absent during this
/// time, but a reaper still gets its payload.
const DATA_GRACE_PERIOD: Duration = Duration::from_secs(86_400);

/// A place that keeps the payloads of sessions; the [module](crate::store) describes the contract.
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// Creates an id that no session has.
    ///
    /// If the store has partitions, the id is in the partition of `beside`, because a rotation needs both ids in one partition.
    fn fresh_id(&self, beside: Option<&SessionId>) -> SessionId {
        let _ = beside;
        SessionId::random()
    }

    /// Returns the handle of a session, for logs and pages.
    fn handle(&self, id: &SessionId) -> Handle {
        Handle::of_key(id.expose().as_bytes())
    }

    /// Stores a new session, unless a live session has this id.
    ///
    /// # Errors
    ///
    /// This and every other operation return an error if the store cannot be reached, or cannot perform the operation.
    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created>;

    /// Reads a session, and moves its deadline if `touch` requests it.
    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found>;

    /// Reads the first of several ids that has a live session, and moves the deadline of that session if `touch` requests it.
    ///
    /// Returns the position of an id, and the outcome for this id: the first live session, or the error that the read of an id
    /// failed with. If no session is live, it is [`Found::Renewed`] with a renewed id if there is one, otherwise
    /// [`Found::Ended`] if there is a reason, and otherwise [`Found::Absent`]. The default reads one id after the other. A
    /// store overrides it to save round trips.
    fn read_first(&self, ids: &[SessionId], touch: Touch) -> (usize, Result<Found>) {
        let mut dead = (0, Ok(Found::Absent));
        for (at, id) in ids.iter().enumerate() {
            match self.read(id, touch) {
                Ok(Found::Absent) => (),
                Ok(Found::Renewed) => dead = (at, Ok(Found::Renewed)),
                Ok(Found::Ended(reason)) if matches!(dead.1, Ok(Found::Absent)) => {
                    dead = (at, Ok(Found::Ended(reason)))
                }
                Ok(Found::Ended(_)) => (),
                found => return (at, found),
            }
        }
        dead
    }

    /// Drops what the process keeps of these sessions, so that the next read of each asks where it is stored. By default, it does
    /// nothing, because only the Redis store keeps sessions, in its [near cache](crate::near_cache).
    fn forget(&self, ids: &[SessionId]) {
        let _ = ids;
    }

    /// Replaces payload and deadline of a live session, if it has the expected version or no version is expected.
    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved>;

    /// Moves a live session with the expected version from `old` to `new`, and replaces its payload and deadline.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if another live session has the id `new`.
    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved>;

    /// Declares suffixes of companions that the store keeps from now on, in addition to earlier ones; see [`Companion`].
    ///
    /// Code that assembles a store calls it before the store is used: [`StepStore`](crate::StepStore) does so for its steps.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store keeps no companions, which is the
    ///   default.
    /// - Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if a suffix is invalid, or was declared before.
    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        match suffixes {
            [] => Ok(()),
            _ => Err(companion::unsupported(operation::KEEP_COMPANIONS)),
        }
    }

    /// Reads a companion of a live session in one round trip; `None` if there is no such session or companion.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store keeps no companions, which is the
    /// default.
    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        let _ = (id, suffix);
        Err(companion::unsupported(operation::READ_COMPANION))
    }

    /// Ends a session, and returns `true` if it existed.
    ///
    /// If the connection was lost, the store retries, and the result is that of the second attempt. It is `false` if the first
    /// attempt ended the session and only its reply was lost.
    ///
    /// Use it if you have an id and no request. To sign a visitor out, call [`Session::destroy`](crate::Session::destroy). To
    /// end a session of a principal by its handle, call [`SessionManager::end`](crate::SessionManager::end).
    fn delete(&self, id: &SessionId) -> Result<bool>;

    /// Returns the index of the store, if the store has one.
    fn index(&self) -> Option<&dyn SessionIndex> {
        None
    }

    /// Returns the number of partitions of the store. By default, that of its [index](SessionIndex::partitions), or 1 without one.
    fn partition_count(&self) -> u32 {
        self.index().map_or(1, SessionIndex::partitions)
    }

    /// Walks the names of all sessions, page by page. [`AllSessions`](crate::AllSessions) has what applications need.
    ///
    /// - Each session that lives from the beginning to the end of the walk under one id is on at least one page, and perhaps on
    ///   several. A session that begins, ends or is renewed during the walk may be missing.
    /// - A page can have names of sessions that are not live any more.
    /// - A walk touches no session, and reads one page when the caller asks for it. A page is small, however many sessions there are.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store cannot walk, which is the default.
    fn walk(&self) -> Result<KeyPages<'_>> {
        Err(walk::unsupported(operation::WALK))
    }

    /// Reads the live sessions under these names, in their order, and leaves out the others. It touches none.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store cannot walk, which is the default.
    fn snapshots(&self, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
        let _ = keys;
        Err(walk::unsupported(operation::WALK))
    }

    /// Ends the sessions under these names, and returns how many of them were live. Some may have ended if it fails.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store cannot walk, which is the default.
    fn end_keys(&self, keys: &[SessionKey]) -> Result<u64> {
        let _ = keys;
        Err(walk::unsupported(operation::END))
    }

    /// Replaces the payload of a session that [`owned_after`](SessionIndex::owned_after) found, if the session is live and has the
    /// expected version.
    ///
    /// The session keeps its deadline and its owner, whatever TTL and owner the write has, because a change from outside is no use
    /// of the session. Companions of the write are stored as [`save`](Self::save) stores them.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store has no index, and by default.
    fn save_key(&self, key: &SessionKey, write: Write<'_>, expected: &Version) -> Result<Saved> {
        let _ = (key, write, expected);
        Err(owned::unsupported())
    }

    /// Checks that the store can work, and returns warnings about its settings. By default, it reports nothing.
    ///
    /// Call it at the start of a program, of a store or of a [manager](crate::SessionManager::check). Only Redis has warnings. A
    /// custom store that cannot work returns an error.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`RedisSessionStore::check`](crate::RedisSessionStore::check) if the store is in Redis.
    fn check(&self) -> Result<Vec<RedisWarning>> {
        Ok(Vec::new())
    }

    /// Opens a feed of the sessions that end from now on, in this process and in all others. A [listener](crate::Listener) uses it.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store does not announce ends, which is the default.
    fn end_feed(&self) -> Result<Box<dyn EndFeed>> {
        Err(feed::unsupported())
    }

    /// Returns the state of the store, without a command to the server.
    fn health(&self) -> Health {
        Health::default()
    }

    /// Reports events of connections to this observer from now on. By default, it reports none.
    ///
    /// A manager calls it for each of its [observers](crate::SessionManagerBuilder::observer), and measures the operations itself.
    /// Keep a [`Weak`](std::sync::Weak) reference only, and ignore an observer that is there already.
    fn observe(&self, observer: &Arc<dyn Observer>) {
        let _ = observer;
    }
}

/// The state and the counters of a store. A store in the process is always healthy.
///
/// It serializes the fields under their names, with `failing_for` in milliseconds. `last_error` can name a server, so show it
/// to operators only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// How long the store has been failing, or `None` if it works. While it fails, operations fail fast.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub failing_for: Option<Duration>,
    /// `true` if the store is failing only because no caller has tried it again. In a cluster, this holds for each failing node.
    /// The server can be reached, and the next operation of the kind that got no reply (a read, or any other) decides whether
    /// the store works. Without operations this state lasts.
    pub half_open: bool,
    /// The error of the last operation or connection that failed. It stays after the store works again.
    pub last_error: Option<String>,
    /// The number of connections that operations use now.
    pub connections_in_use: u32,
    /// The number of open connections that no operation uses.
    pub connections_idle: u32,
    /// The maximum number of connections.
    pub connections_max: u32,
    /// The number of operations that succeeded at the first attempt.
    pub answered: u64,
    /// The number of operations that succeeded at the second attempt, after a connection was lost.
    pub repeated: u64,
    /// The number of operations that failed.
    pub failed: u64,
    /// The figures of the [near cache](crate::near_cache), if the store has one.
    pub near_cache: Option<NearCacheHealth>,
}

/// The figures of a near cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NearCacheHealth {
    /// Reads that were served by the cache.
    pub hits: u64,
    /// Reads that went to Redis.
    pub misses: u64,
    /// Entries that Redis announced as changed.
    pub invalidations: u64,
    /// Sessions that the cache has now.
    pub entries: u64,
    /// How long the cache has been out of service, or `None` if it serves. While it is out of service, reads go to Redis. In
    /// JSON it is in milliseconds.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub out_of_service_for: Option<Duration>,
}

impl Health {
    /// Returns `true` if the store can be reached, as far as is known.
    ///
    /// A [half-open](Self::half_open) store counts as healthy. Otherwise a load balancer that sends no requests to unhealthy
    /// processes would wait for ever.
    pub fn is_healthy(&self) -> bool {
        self.failing_for.is_none() || self.half_open
    }
}

/// The input of [`create`](SessionStore::create), [`save`](SessionStore::save) and [`rotate`](SessionStore::rotate).
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Write<'a> {
    /// The encoded session.
    pub payload: &'a [u8],
    /// The time that the session lives from now on, unless it is touched or saved again. `None`: it does not expire.
    pub ttl: Option<Duration>,
    /// The change of the session's principal.
    pub bind: Bind<'a>,
    /// The companions to write with the session. Other companions of the session stay.
    pub companions: &'a [Companion],
    /// The manager, if it reads payloads back. A store that changes payloads passes it what a read would return.
    pub(crate) read_back: Option<&'a dyn ReadBack>,
}

/// A reader of payloads: the manager, as far as stores know it.
pub(crate) trait ReadBack: Sync {
    /// Fails if a session with this payload could not be opened.
    fn read_back(&self, payload: &[u8]) -> Result<()>;
}

/// A change of the principal that a session belongs to.
///
/// Only stores with an index know principals. Other stores reject [`To`](Self::To) with
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bind<'a> {
    /// No change: the session keeps its principal, also under a new id.
    #[default]
    Keep,
    /// The session belongs to this principal from now on, unless it did before. If the principal then has more than `cap`
    /// sessions, the oldest of them end. In a store with several partitions, they end soon after.
    To {
        /// The principal: a user name or number, of any length.
        principal: &'a str,
        /// The maximum number of sessions of the principal. `None`: any number.
        cap: Option<u32>,
    },
    /// The session belongs to this principal from now on, if the principal has fewer than `cap` other sessions or owns the
    /// session already. Otherwise nothing is stored, and the outcome is `OverCap`.
    ///
    /// With one partition, the cap is exact. With several, the store counts first, so simultaneous logins may all be admitted.
    WithinCap {
        /// The principal: a user name or number, of any length.
        principal: &'a str,
        /// The maximum number of sessions of the principal.
        cap: u32,
    },
    /// The session has no principal from now on.
    Unbind,
}

/// Hides the principal, which is personal data.
impl fmt::Debug for Bind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("Keep"),
            Self::To { cap, .. } => f.debug_struct("To").field("cap", cap).finish_non_exhaustive(),
            Self::WithinCap { cap, .. } => f.debug_struct("WithinCap").field("cap", cap).finish_non_exhaustive(),
            Self::Unbind => f.write_str("Unbind"),
        }
    }
}

impl<'a> Write<'a> {
    /// Creates a write of this payload with this TTL.
    pub fn new(payload: &'a [u8], ttl: impl Into<Option<Duration>>) -> Self {
        Self { payload, ttl: ttl.into(), bind: Bind::Keep, companions: &[], read_back: None }
    }

    /// Sets the change of the principal. Defaults to [`Bind::Keep`].
    pub fn with_bind(self, bind: Bind<'a>) -> Self {
        Self { bind, ..self }
    }

    /// Sets the companions to write. Defaults to none.
    pub fn with_companions(self, companions: &'a [Companion]) -> Self {
        Self { companions, ..self }
    }

    pub(crate) fn with_read_back(self, read_back: &'a dyn ReadBack) -> Self {
        Self { read_back: Some(read_back), ..self }
    }

    /// Returns the TTL in milliseconds, within the bounds of the contract.
    pub fn ttl_millis(&self) -> Option<u64> {
        self.ttl.map(ttl_millis)
    }
}

impl fmt::Debug for Write<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("bytes", &self.payload.len())
            .field("ttl", &self.ttl)
            .field("bind", &self.bind)
            .field("companions", &self.companions)
            .finish()
    }
}

/// The error of a rotation to the id of another live session.
fn rotated_onto_another() -> Error {
    Error::misconfigured(operation::ROTATE, "another session lives under the new id")
}

/// Returns a TTL in milliseconds, within the bounds of the contract: at least 1 ms, at most [`MAX_TTL`].
pub(crate) fn ttl_millis(ttl: Duration) -> u64 {
    (ttl.min(MAX_TTL).as_millis() as u64).max(1)
}

/// The effect of a read on the deadline of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Touch {
    /// Leaves the deadline unchanged.
    #[default]
    No,
    /// Leaves the deadline unchanged, and makes every store return the time left. With `No`, the plain Redis store saves the
    /// command that reads it.
    Peek,
    /// Sets the time left, whether the session had more or less before. A session that did not expire now does.
    ///
    /// A store with a [near cache](crate::near_cache) may let the session live up to a 64th longer.
    Set(Duration),
    /// Raises the time left to at least this value. A later deadline stays, and a session that does not expire still does not.
    Extend(Duration),
    /// Like `Set(ttl)`, but nothing is written if the session has more than `enough` left, and not more than `ttl`.
    SetIfDue {
        /// How long the session lives after the touch.
        ttl: Duration,
        /// The time left at which the touch is due.
        enough: Duration,
    },
    /// Like `Extend(ttl)`, but nothing is written if the session has more than `enough` left.
    ExtendIfDue {
        /// How long the session lives at least after the touch.
        ttl: Duration,
        /// The time left at which the touch is due.
        enough: Duration,
    },
}

/// The outcome of a [`read`](SessionStore::read).
#[derive(Clone, Debug)]
#[must_use]
pub enum Found {
    /// A live session.
    Live(Stored),
    /// No session, but a rotation moved a session away from this id less than [`RENEWED_FOR`] ago.
    Renewed,
    /// No session, and the store remembers why it ended.
    Ended(EndReason),
    /// No session.
    Absent,
}

/// The outcome of a [`create`](SessionStore::create).
#[derive(Clone, Debug)]
#[must_use]
pub enum Created {
    /// The session is stored.
    Stored(Version),
    /// Another live session has this id, and was not changed.
    Taken,
    /// The principal has as many sessions as [`Bind::WithinCap`] allows. Nothing was stored.
    OverCap,
}

/// The outcome of a [`save`](SessionStore::save) or [`rotate`](SessionStore::rotate).
#[derive(Clone, Debug)]
#[must_use]
pub enum Saved {
    /// The session is stored, with this new version.
    Stored(Version),
    /// No live session has this id. Nothing was stored.
    Missing,
    /// The session has another version than expected, and this is the stored session. Nothing was stored.
    Conflict(Stored),
    /// The principal has as many sessions as [`Bind::WithinCap`] allows. Nothing was stored.
    OverCap,
}

/// A session as the store keeps it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Stored {
    /// The encoded session.
    pub payload: Bytes,
    /// The version to expect in a later `save`, so that the save does not overwrite a change of another request.
    pub version: Version,
    /// The time left if nothing moves the deadline. `None` if the session does not expire, or if the store would need another
    /// command to know: the plain Redis store, if the read had [`Touch::No`].
    pub expires_in: Option<Duration>,
}

impl Stored {
    /// Creates a stored session with its version and the time it has left.
    pub fn new(payload: impl Into<Bytes>, version: Version, expires_in: Option<Duration>) -> Self {
        Self { payload: payload.into(), version, expires_in }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("bytes", &self.payload.len())
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// An opaque version of a stored session, for optimistic concurrency.
///
/// Pass it to [`save`](SessionStore::save) or [`rotate`](SessionStore::rotate) to write only if the session is unchanged. Only
/// the store that created a version can interpret it.
#[derive(Clone)]
pub struct Version(Bytes);

impl Version {
    /// Creates a version that is a copy of these bytes, for custom stores.
    ///
    /// The bytes need not be the payload. A number that increases with every write is enough.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// Returns the bytes that the version was made from, for custom stores.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Version(..)")
    }
}

impl<S: SessionStore + ?Sized> SessionStore for Arc<S> {
    fn fresh_id(&self, beside: Option<&SessionId>) -> SessionId {
        (**self).fresh_id(beside)
    }

    fn handle(&self, id: &SessionId) -> Handle {
        (**self).handle(id)
    }

    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        (**self).create(id, write)
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        (**self).read(id, touch)
    }

    fn read_first(&self, ids: &[SessionId], touch: Touch) -> (usize, Result<Found>) {
        (**self).read_first(ids, touch)
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        (**self).save(id, write, expected)
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        (**self).rotate(old, new, write, expected)
    }

    /// Fails with [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the store has other owners.
    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        match (Self::get_mut(self), suffixes) {
            (Some(store), _) => store.keep_companions(suffixes),
            (None, []) => Ok(()),
            (None, _) => {
                let why = "the store is already shared; add the steps before you share it";
                Err(Error::misconfigured(operation::KEEP_COMPANIONS, why))
            }
        }
    }

    fn forget(&self, ids: &[SessionId]) {
        (**self).forget(ids);
    }

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        (**self).companion(id, suffix)
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        (**self).delete(id)
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        (**self).index()
    }

    fn partition_count(&self) -> u32 {
        (**self).partition_count()
    }

    fn walk(&self) -> Result<KeyPages<'_>> {
        (**self).walk()
    }

    fn snapshots(&self, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
        (**self).snapshots(keys)
    }

    fn end_keys(&self, keys: &[SessionKey]) -> Result<u64> {
        (**self).end_keys(keys)
    }

    fn save_key(&self, key: &SessionKey, write: Write<'_>, expected: &Version) -> Result<Saved> {
        (**self).save_key(key, write, expected)
    }

    fn check(&self) -> Result<Vec<RedisWarning>> {
        (**self).check()
    }

    fn end_feed(&self) -> Result<Box<dyn EndFeed>> {
        (**self).end_feed()
    }

    fn health(&self) -> Health {
        (**self).health()
    }

    fn observe(&self, observer: &Arc<dyn Observer>) {
        (**self).observe(observer);
    }
}
