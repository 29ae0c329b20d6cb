//! Where payloads live.
//!
//! # The contract of a store
//!
//! A store keeps *payloads*, bytes it never looks into, each under a [`SessionId`] and with a time to live. It is
//! mechanism only; all policy is the [`SessionManager`](crate::SessionManager)'s.
//!
//! **Ids.** The caller brings the id, made by [`fresh_id`](SessionStore::fresh_id), so that an operation that is tried again
//! can recognise its own earlier success. For the same reason no two payloads that are written are ever equal: the
//! [envelope](crate::codec::Envelope) carries a random revision. A store may therefore take "the payload I am to write is
//! there already" for "I wrote it before", and where a payload begins with a revision, as JSON and MessagePack of this crate
//! do, it may take the revision for the whole.
//!
//! **Absent is an outcome.** A session that never was, was deleted, was renewed or has expired is an answer, not an error.
//! That the store cannot be asked is an error, and never looks like an absent session.
//!
//! **Expiry is exact.** A session whose time to live has passed is absent for every operation, whether or not anything
//! came by to delete it. Times to live count in milliseconds, at least one; one of more than [`MAX_TTL`] counts as
//! [`MAX_TTL`], and `None` means that the session does not expire.
//!
//! **Operations.** Each is atomic: it happens whole or not at all, also beside others on the same session.
//!
//! | operation | does | never |
//! |---|---|---|
//! | [`create`](SessionStore::create) | stores a new session | overwrites one that lives |
//! | [`read`](SessionStore::read) | answers the payload, and with a [`Touch`] moves the deadline | answers an expired session |
//! | [`read_first`](SessionStore::read_first) | reads the first live session of several ids | touches another one |
//! | [`save`](SessionStore::save) | replaces payload and deadline of a session that lives | brings back one that does not |
//! | [`rotate`](SessionStore::rotate) | moves a session that lives to a new id | leaves both ids alive, or neither |
//! | [`delete`](SessionStore::delete) | ends a session | fails because there was none |
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
//! **Reads need no write.** A read without a touch succeeds while writes fail, also of a session that has expired or that there
//! would be something to clean up about.
//!
//! **Bounds.** A store that is bounded to a number of sessions rejects a new one with
//! [`OutOfMemory`](crate::ErrorKind::OutOfMemory) and never ends a live one for it. Expired sessions that wait for a reaper count,
//! and give way.
//!
//! **Renewed ids.** For [`RENEWED_FOR`] after a rotation, reading the old id answers [`Found::Renewed`] instead of
//! [`Found::Absent`]. Nothing leads from the old id to the new one.
//!
//! **Ended ids.** A store may remember for some time why a session ended. Reading its id then returns [`Found::Ended`] instead of
//! [`Found::Absent`], and otherwise it counts as absent.
//!
//! **Companions.** A store may keep [companions](Companion) of its sessions, with the suffixes it was
//! [told to](SessionStore::keep_companions). A write that brings another one is refused whole, with
//! [`Unsupported`](crate::ErrorKind::Unsupported).
//!
//! **The index** is what else a store may have; [`SessionIndex`] says what it promises.
//!
//! The suite in [`contract`](crate::contract) checks all this on any store. Those that come with the crate are
//! [`RedisSessionStore`](crate::RedisSessionStore) and [`MemorySessionStore`](crate::MemorySessionStore).

mod companion;
mod feed;
mod index;
pub(crate) mod memory;
mod owned;
pub(crate) mod redis;
mod walk;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What payloads are handed around in, of the crate [`bytes`]: clones share the bytes, and a `Vec` becomes one without a copy.
pub use bytes::Bytes;
use serde::Serialize;

pub use self::companion::Companion;
pub use self::feed::{EndFeed, EndNews};
pub use self::index::{Belonging, Ending, Entry, Expired, OnVerified, Reaped, SessionIndex, Verified, VerifyOptions};
pub use self::owned::{Owned, OwnedPage};
pub use self::walk::{EndedAll, KeyPage, KeyPages, OnProgress, Progress, SessionKey, Snapshot};
use crate::{EndReason, Error, Handle, Observer, RedisWarning, Result, SessionId, operation, serialize};

/// The longest time to live a store takes, 100 years of 365 days; a longer one counts as this.
pub const MAX_TTL: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How long an id that was renewed is known as renewed: 30 seconds.
pub const RENEWED_FOR: Duration = Duration::from_secs(30);

/// How long a store with an index keeps the data of an expired session: 24 hours. The session is absent during this time; a reaper
/// still gets its payload.
const DATA_GRACE_PERIOD: Duration = Duration::from_secs(86_400);

/// Where payloads live. The [module](crate::store) tells the contract.
pub trait SessionStore: fmt::Debug + Send + Sync + 'static {
    /// An id nobody has, in the partition of `near` if the store has partitions: the new id of a rotation must be near the
    /// old one.
    fn fresh_id(&self, near: Option<&SessionId>) -> SessionId {
        let _ = near;
        SessionId::random()
    }

    /// The handle under which this session can be shown.
    fn handle(&self, id: &SessionId) -> Handle {
        Handle::of_key(id.expose().as_bytes())
    }

    /// Stores a new session, unless one lives under this id.
    ///
    /// # Errors
    ///
    /// That the store could not be asked, or could not do it. This goes for all operations.
    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created>;

    /// Reads a session, and moves its deadline if asked to.
    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found>;

    /// Reads the first of several ids that has a live session, and moves the deadline of that session if asked to.
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

    /// Replaces payload and deadline of a session that lives and, if a version is expected, has that version.
    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved>;

    /// Moves a session that lives, and has the expected version, from `old` to `new`, with this payload and deadline.
    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved>;

    /// From now on keeps companions with these suffixes, besides those it keeps already; see [`Companion`]. For who puts a
    /// store together, before it is used: [`StepStore`](crate::StepStore) does it for its steps.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the store keeps none, which is the default;
    /// [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) for a suffix it cannot have, or has already.
    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        match suffixes {
            [] => Ok(()),
            _ => Err(companion::unsupported(operation::KEEP_COMPANIONS)),
        }
    }

    /// Reads a companion of a session that lives: one round trip. `None` if there is no such session, or no such companion.
    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        let _ = (id, suffix);
        Err(companion::unsupported(operation::READ_COMPANION))
    }

    /// Ends a session. Answers whether there was one; after a connection was lost on the way, whether there was one *then*.
    ///
    /// This is for who has the id and no request; a visitor signs out with [`Session::destroy`](crate::Session::destroy), and
    /// [`SessionManager::end`](crate::SessionManager::end) ends one of a principal's sessions by its handle.
    fn delete(&self, id: &SessionId) -> Result<bool>;

    /// The index of the store, if it has one.
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

    /// How the store is doing, without asking anybody.
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

/// How a store is doing: whether it can be reached, and what it has done so far. A store that lives in the process is
/// always healthy.
///
/// It serializes the fields under their names, with `failing_for` in milliseconds. `last_error` can name a server, so show it to
/// operators only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// How long the store has been failing, or `None` if it works. While it fails, operations fail fast.
    #[serde(serialize_with = "serialize::optional_duration")]
    pub failing_for: Option<Duration>,
    /// `true` if the store is failing only because no caller has tried it again. The server can be reached, and the next
    /// operation of the kind that got no reply (a read, or any other) decides whether the store works. Without operations this
    /// state lasts.
    pub half_open: bool,
    /// What the last failure was, of an operation or of connecting, also when all is well again.
    pub last_error: Option<String>,
    /// Connections that an operation is using now.
    pub connections_in_use: u32,
    /// Connections that are open and not in use.
    pub connections_idle: u32,
    /// How many connections there may be.
    pub connections_max: u32,
    /// Operations that were answered.
    pub answered: u64,
    /// Operations that were answered at the second attempt, after a connection died.
    pub repeated: u64,
    /// Operations that failed.
    pub failed: u64,
    /// How the [near cache](crate::near_cache) is doing, if the store has one.
    pub near_cache: Option<NearCacheHealth>,
}

/// How a near cache is doing.
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

/// What [`create`](SessionStore::create), [`save`](SessionStore::save) and [`rotate`](SessionStore::rotate) put there.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Write<'a> {
    /// The encoded session.
    pub payload: &'a [u8],
    /// How long it lives from now on, unless touched or saved again. `None`: it does not expire.
    pub ttl: Option<Duration>,
    /// Whom the session belongs to.
    pub bind: Bind<'a>,
    /// The companions to write with it. Others that the session has stay.
    pub companions: &'a [Companion],
    /// The manager, if it reads payloads back. A store that changes payloads passes it what a read would return.
    pub(crate) read_back: Option<&'a dyn ReadBack>,
}

/// A reader of payloads: the manager, as far as stores know it.
pub(crate) trait ReadBack: Sync {
    /// Fails if a session with this payload could not be opened.
    fn read_back(&self, payload: &[u8]) -> Result<()>;
}

/// What a write does to the principal that a session belongs to. Only stores with an index know principals; others answer
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) to `To`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bind<'a> {
    /// Nothing: a session that belongs to somebody goes on belonging to them, also under a new id.
    #[default]
    Keep,
    /// The session belongs to this principal: from now on, unless it did before. If they have more than `cap` sessions then,
    /// the oldest of them end; with several partitions, soon after.
    To {
        /// The principal: a user name or number, of any length.
        principal: &'a str,
        /// How many sessions they may have. `None`: any number.
        cap: Option<u32>,
    },
    /// The session belongs to this principal from now on, if they have fewer than `cap` other sessions or it is theirs already.
    /// Otherwise nothing is stored, and the outcome is `OverCap`.
    ///
    /// With one partition it is exact. With several, the store counts first, so logins of the same moment may all be admitted.
    WithinCap {
        /// The principal: a user name or number, of any length.
        principal: &'a str,
        /// How many sessions they may have.
        cap: u32,
    },
    /// The session belongs to nobody from now on.
    Nobody,
}

/// Principals are people.
impl fmt::Debug for Bind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("Keep"),
            Self::To { cap, .. } => f.debug_struct("To").field("cap", cap).finish_non_exhaustive(),
            Self::WithinCap { cap, .. } => f.debug_struct("WithinCap").field("cap", cap).finish_non_exhaustive(),
            Self::Nobody => f.write_str("Nobody"),
        }
    }
}

impl<'a> Write<'a> {
    /// This payload, with this time to live.
    pub fn new(payload: &'a [u8], ttl: impl Into<Option<Duration>>) -> Self {
        Self { payload, ttl: ttl.into(), bind: Bind::Keep, companions: &[], read_back: None }
    }

    /// The same, with this done to the principal.
    pub fn with_bind(self, bind: Bind<'a>) -> Self {
        Self { bind, ..self }
    }

    /// The same, with these companions.
    pub fn with_companions(self, companions: &'a [Companion]) -> Self {
        Self { companions, ..self }
    }

    pub(crate) fn with_read_back(self, read_back: &'a dyn ReadBack) -> Self {
        Self { read_back: Some(read_back), ..self }
    }

    /// The time to live in milliseconds, within the bounds of the contract.
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

/// Milliseconds of a time to live, within the bounds of the contract: at least one, at most [`MAX_TTL`].
pub(crate) fn ttl_millis(ttl: Duration) -> u64 {
    (ttl.min(MAX_TTL).as_millis() as u64).max(1)
}

/// What a read does to the deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Touch {
    /// Nothing.
    #[default]
    No,
    /// Nothing, and every store returns the time left. With `No`, the plain Redis store saves the command for it.
    Peek,
    /// The session now lives this long, longer or shorter than before. A session that does not expire, now does. A store with a
    /// [near cache](crate::near_cache) may let it live up to a 64th longer.
    Set(Duration),
    /// The session now lives at least this long: a deadline that is further away stays, and a session that does not expire
    /// goes on not expiring.
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

/// What a [`read`](SessionStore::read) found.
#[derive(Clone, Debug)]
#[must_use]
pub enum Found {
    /// A session that lives.
    Live(Stored),
    /// No session, but a rotation moved one away from this id less than [`RENEWED_FOR`] ago.
    Renewed,
    /// No session, and the store remembers why it ended.
    Ended(EndReason),
    /// No session.
    Absent,
}

/// What became of a [`create`](SessionStore::create).
#[derive(Clone, Debug)]
#[must_use]
pub enum Created {
    /// The session is stored.
    Stored(Version),
    /// Another session lives under this id, and was left alone.
    Taken,
    /// The principal has as many sessions as [`Bind::WithinCap`] allows. Nothing was stored.
    OverCap,
}

/// What became of a [`save`](SessionStore::save) or [`rotate`](SessionStore::rotate).
#[derive(Clone, Debug)]
#[must_use]
pub enum Saved {
    /// The session is stored, and this is its version now.
    Stored(Version),
    /// No session lives under this id. Nothing was stored.
    Missing,
    /// The session does not have the expected version but this. Nothing was stored.
    Conflict(Stored),
    /// The principal has as many sessions as [`Bind::WithinCap`] allows. Nothing was stored.
    OverCap,
}

/// A session as a store has it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Stored {
    /// The encoded session.
    pub payload: Bytes,
    /// What to expect in a later `save` that must not overwrite somebody else's change.
    pub version: Version,
    /// How long the session lives if nothing moves its deadline. `None` if it does not expire, and also where the store
    /// would need another command to know: the plain Redis store, if the read had [`Touch::No`].
    pub expires_in: Option<Duration>,
}

impl Stored {
    /// A payload with its version and the time it has left.
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

/// What a store calls the payload it handed out. Opaque: only the store that made it knows what is in it.
#[derive(Clone)]
pub struct Version(Bytes);

impl Version {
    /// For stores of one's own: a version that is a copy of these bytes. They need not be the payload: a number that goes up
    /// with every write will do.
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        Self(Bytes::copy_from_slice(bytes.as_ref()))
    }

    /// For stores of one's own: the bytes it was made from.
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
    fn fresh_id(&self, near: Option<&SessionId>) -> SessionId {
        (**self).fresh_id(near)
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

    /// Only while nobody else has it.
    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        match (Self::get_mut(self), suffixes) {
            (Some(store), _) => store.keep_companions(suffixes),
            (None, []) => Ok(()),
            (None, _) => {
                let why = "the store is shared already; put steps around it first";
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
