//! The Redis store: its type, its constructors and its implementation of the contract.
//!
//! Applications build it by `builder`. An operation on one session takes one of two paths: `single`, if one command of Redis
//! carries it out, or `scripted`, if it takes a script. `first` reads the sessions of several cookies, `walk` and `verify` visit all
//! keys, and `index` and `owned` need an expiring store. All send through `net` and read by `reply`. The invariant: an operation on
//! one session is one command, one script or one pipeline, to one hash slot. A *rotation* is what the API calls a renewal.

mod builder;
mod check;
mod feed;
mod first;
mod index;
mod keys;
mod marker;
mod near;
mod net;
mod owned;
mod reason;
#[cfg(feature = "clap")]
mod recorded;
mod reply;
mod script;
mod scripted;
mod single;
mod verify;
mod version;
#[cfg(feature = "cli")]
mod vitals;
mod walk;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};

pub use self::builder::RedisSessionStoreBuilder;
pub use self::check::RedisWarning;
use self::keys::Keys;
use self::marker::ForeignKeys;
use self::near::Door;
#[cfg(feature = "near-cache")]
pub use self::near::NearCache;
use self::net::commands::command;
pub use self::net::connection::RedisConnection;
pub use self::net::connector::RedisConnectionManager;
#[cfg(feature = "clap")]
pub(crate) use self::net::connector::check_deadline;
pub use self::net::credentials::Credentials;
use self::net::error::Effect;
pub use self::net::pool::RedisPool;
use self::net::pool::{Answer, To};
#[cfg(feature = "clap")]
pub(crate) use self::recorded::{RecordedKind, check_url};
use self::script::{Ends, Scripts};
#[cfg(feature = "cli")]
pub(crate) use self::vitals::Vitals;
use super::{
    Bind, Created, DATA_GRACE_PERIOD, EndFeed, Found, Health, KeyPages, Saved, SessionIndex, SessionKey, SessionStore,
    Snapshot, Stored, Touch, Version, Write, companion,
};
use crate::{Error, Handle, Observer, Result, SessionId, operation};

/// Sessions in Redis 7.0 or newer, or Valkey: on one server, on a master that Sentinels name, or in a cluster; see
/// [`topologies`](crate::topologies).
///
/// The *plain* store keeps one string key for each session, and Redis expires it (rrss `redis-store`, ring-redis-session). The
/// *expiring* store also keeps an index of its sessions and their deadlines, from which a reaper deletes them (rrss
/// `expiring-redis-store`).
///
/// Every operation on one session is one round trip to one hash slot: one command, one script, or a command and a script in one
/// pipeline. Operations on all sessions, or on those of a principal, visit each partition. The exceptions are not on the common
/// path:
///
/// * A read of an absent session also looks for the tombstone that a renewal leaves under the old id.
/// * If the first of several session cookies names no live session, the others take one more round trip for each hash slot.
/// * A command is sent a second time if its connection is lost.
/// * A script is sent a second time, whole, if the server does not know it.
/// * A cluster may redirect a command to another node.
///
/// No operation on a session takes longer than the [deadline](RedisSessionStoreBuilder::deadline), whatever it sends. Operations
/// on all sessions, such as a list or a reaper's round, have one deadline for each command. While Redis is unreachable, operations
/// fail fast: see [`outages`](crate::outages).
///
/// Clones are cheap and share the pool.
///
/// ```no_run
/// use threaded_sessions::{RedisSessionStore, SessionManager};
///
/// let sessions = SessionManager::<u32>::new(RedisSessionStore::open("redis://127.0.0.1")?);
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Clone)]
pub struct RedisSessionStore {
    pool: RedisPool,
    keys: Keys,
    scripts: Arc<Scripts>,
    expiring: bool,
    /// The suffixes of the companions that the store keeps: further keys of a session, such as `ID:written-at`, which steps write
    /// and which end with the session.
    companions: Vec<String>,
    foreign_keys: Arc<ForeignKeys>,
    ends: Ends,
    /// The way to the near cache, if there is one. The guard of its `writes` keeps reads from caching the old value during a write.
    near: Door,
}

impl RedisSessionStore {
    /// Creates a plain store in the Redis at this URL, with default settings.
    ///
    /// Returns immediately, because connections are opened in the background. So a program can start while Redis is down, and
    /// serves sessions as soon as Redis is up. To check Redis at the start, call [`check`](Self::check).
    ///
    /// Open the store in the process that uses it. A process that forks, such as a daemon or a server with worker processes,
    /// opens it in the child: the store of the parent does not work there, and each operation fails with
    /// [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured).
    /// Fork before any store is open: see [`outages`](crate::outages#after-fork).
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the URL cannot be parsed.
    /// - Returns [`ErrorKind::Other`](crate::ErrorKind::Other) if the system cannot start a thread.
    pub fn open(url: &str) -> Result<Self> {
        Self::builder().url(url).build()
    }

    /// Returns a builder, to create a store with other settings.
    pub fn builder() -> RedisSessionStoreBuilder {
        RedisSessionStoreBuilder::default()
    }

    /// Returns the pool that the store uses, to share it.
    pub fn pool(&self) -> &RedisPool {
        &self.pool
    }

    /// Returns the key of a session in Redis. The key contains the id unless keys are
    /// [hashed](RedisSessionStoreBuilder::hashed_keys).
    pub fn key(&self, id: &SessionId) -> String {
        self.keys.session(id)
    }

    fn new(pool: RedisPool, keys: Keys, expiring: bool, ends: Ends, near: Door) -> Self {
        let scripts = Arc::new(Scripts::new(grace(expiring), &[], ends));
        Self { pool, keys, scripts, expiring, companions: Vec::new(), foreign_keys: Arc::default(), ends, near }
    }
}

impl SessionStore for RedisSessionStore {
    fn fresh_id(&self, beside: Option<&SessionId>) -> SessionId {
        self.keys.fresh_id(beside)
    }

    fn handle(&self, id: &SessionId) -> Handle {
        self.keys.handle(id)
    }

    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        let _span = self.pool.span();
        let key = self.keys.session(id);
        let _near = self.near.writes([Some(&key), None], write.bind);
        if self.single_command() && write.single_command() {
            single::create(self, &key, write)
        } else {
            scripted::create(self, id, &key, write)
        }
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        let _span = self.pool.span();
        let key = self.keys.session(id);
        match self.read_live(id, &key, touch)? {
            Some(stored) => Ok(Found::Live(stored)),
            None => self.find_tombstone(id, &key),
        }
    }

    /// Reads the first live session of `ids`, and returns its position. If the first id is dead, the others cost one more round
    /// trip for each of their hash slots.
    fn read_first(&self, ids: &[SessionId], touch: Touch) -> (usize, Result<Found>) {
        let first = match ids {
            [] => return (0, Ok(Found::Absent)),
            [only] => return (0, self.read(only, touch)),
            [first, ..] => first,
        };
        let _span = self.pool.span();
        match self.read_live(first, &self.keys.session(first), touch) {
            Ok(None) => first::after_dead(self, ids, touch),
            Ok(Some(stored)) => (0, Ok(Found::Live(stored))),
            Err(error) => (0, Err(error)),
        }
    }

    fn forget(&self, ids: &[SessionId]) {
        ids.iter().for_each(|id| self.near.forget(&self.keys.session(id)));
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let _span = self.pool.span();
        let key = self.keys.session(id);
        let _near = self.near.writes([Some(&key), None], write.bind);
        if expected.is_none() && self.single_command() && write.single_command() {
            single::save(self, &key, write)
        } else {
            scripted::save(self, id, &key, write, expected)
        }
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let _span = self.pool.span();
        let (old_key, new_key) = (self.keys.session(old), self.keys.session(new));
        if old_key == new_key {
            return Err(Error::misconfigured(operation::ROTATE, "the key mapper gives two ids the same key"));
        }
        let partitions = self.keys.partitions();
        if old.partition(partitions) != new.partition(partitions) {
            let why = "the new id is in another partition than the old one; make it with fresh_id";
            return Err(Error::misconfigured(operation::ROTATE, why));
        }
        let keys = [&*old_key, &*new_key, &*self.keys.tombstone(&old_key)];
        let _near = self.near.writes([Some(&old_key), Some(&new_key)], write.bind);
        scripted::rotate(self, old, keys, write, expected)
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        let key = self.keys.session(id);
        let _near = self.near.forgets(&key);
        let deleted = if self.single_command() && !self.ends.are_noted() {
            single::delete(self, &key)?
        } else {
            scripted::delete(self, id, &key)?
        };
        Ok(deleted == Value::Int(1))
    }

    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        companion::keep(&mut self.companions, suffixes)?;
        self.scripts = Arc::new(Scripts::new(grace(self.expiring), &self.companions, self.ends));
        Ok(())
    }

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        let key = self.keys.companion(&self.keys.session(id), suffix);
        let stored = self.read_untouched(operation::READ_COMPANION, &key)?;
        Ok(stored.map(|stored| stored.payload.to_vec()))
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        self.expiring.then_some(self)
    }

    fn partition_count(&self) -> u32 {
        self.keys.partitions()
    }

    fn walk(&self) -> Result<KeyPages<'_>> {
        walk::pages(self)
    }

    fn snapshots(&self, keys: &[SessionKey]) -> Result<Vec<Snapshot>> {
        walk::snapshots(self, keys)
    }

    fn end_keys(&self, keys: &[SessionKey]) -> Result<u64> {
        walk::end(self, keys)
    }

    fn save_key(&self, key: &SessionKey, write: Write<'_>, expected: &Version) -> Result<Saved> {
        if !self.expiring {
            return Err(without_principals(operation::UPDATE_ALL));
        }
        owned::change(self, key, write, expected)
    }

    fn check(&self) -> Result<Vec<RedisWarning>> {
        Self::check(self)
    }

    fn end_feed(&self) -> Result<Box<dyn EndFeed>> {
        feed::open(self)
    }

    fn health(&self) -> Health {
        Health { near_cache: self.near.health(), ..self.pool.health() }
    }

    fn observe(&self, observer: &Arc<dyn Observer>) {
        self.pool.observe(observer);
    }
}

impl RedisSessionStore {
    /// Returns `true` if a session is one key and nothing else, so that one command of Redis can carry out an operation.
    fn single_command(&self) -> bool {
        !self.expiring && self.companions.is_empty()
    }

    /// Returns the index that a session is in, if the store has one.
    fn index_key(&self, id: &SessionId) -> Option<&str> {
        self.expiring.then(|| self.keys.index_of(id))
    }

    /// Returns the [`grace`] in milliseconds.
    fn grace_millis(&self) -> u64 {
        grace(self.expiring).as_millis() as u64
    }

    /// Sends one command and returns its reply.
    fn command(&self, operation: &'static str, effect: Effect, to: To<'_>, command: &Cmd) -> Result<Answer> {
        self.pool.call(operation, effect, to, |connection| command.query(connection))
    }

    /// Reads a session, and moves its deadline if asked to. Returns `None` if the key has no live session.
    fn read_live(&self, id: &SessionId, key: &str, touch: Touch) -> Result<Option<Stored>> {
        self.near.read(key, touch, |touch| self.read_from_redis(id, key, touch))
    }

    fn read_from_redis(&self, id: &SessionId, key: &str, touch: Touch) -> Result<Option<Stored>> {
        match touch {
            Touch::No => self.read_untouched(operation::READ, key),
            // `No` leaves out the time left, so a `GET` is enough on a plain store. `Peek` also reads the time left.
            Touch::Peek => scripted::get(self, operation::READ, key),
            Touch::Set(ttl) if self.single_command() => single::get_and_touch(self, key, ttl),
            Touch::Set(ttl) => scripted::get_and_touch(self, id, key, ttl, false),
            Touch::Extend(ttl) => scripted::get_and_touch(self, id, key, ttl, true),
            Touch::SetIfDue { ttl, enough } => scripted::get_and_touch_if_due(self, id, key, [ttl, enough], false),
            Touch::ExtendIfDue { ttl, enough } => scripted::get_and_touch_if_due(self, id, key, [ttl, enough], true),
        }
    }

    /// Reads a value, of a session or a companion, and leaves its TTL alone.
    fn read_untouched(&self, operation: &'static str, key: &str) -> Result<Option<Stored>> {
        if self.expiring { scripted::get(self, operation, key) } else { single::get(self, operation, key) }
    }

    /// Finds out whether an absent session was renewed. Only a read of an absent session pays for this command.
    fn find_tombstone(&self, id: &SessionId, key: &str) -> Result<Found> {
        if self.ends.remember.is_some() {
            return reason::find(self, id, key);
        }
        Ok(if self.has_tombstone(key)? { Found::Renewed } else { Found::Absent })
    }

    fn has_tombstone(&self, key: &str) -> Result<bool> {
        let exists = command("EXISTS", &self.keys.tombstone(key));
        Ok(self.command(operation::READ, Effect::Reads, To::Key(key), &exists)?.value != Value::Int(0))
    }

    /// Returns the outcome of a write after which a session would be under `key`. `repeated`: the write was sent a second time.
    ///
    /// If a retry finds no session, the first attempt may have stored it before another request rotated it. Then the change lives
    /// on under another id, so it is not missing. Only a retry that finds no session pays for the look at the tombstone.
    fn unless_rotated(&self, operation: &'static str, key: &str, saved: Saved, repeated: bool) -> Result<Saved> {
        match saved {
            Saved::Missing if repeated && self.has_tombstone(key).unwrap_or(true) => Err(reply::in_doubt(operation)),
            saved => Ok(saved),
        }
    }
}

impl Write<'_> {
    /// Returns `true` if it writes a payload and nothing else, so that one command of Redis can carry it out.
    fn single_command(&self) -> bool {
        self.bind == Bind::Keep && self.companions.is_empty()
    }
}

impl fmt::Debug for RedisSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSessionStore")
            .field("pool", &self.pool)
            .field("keys", &self.keys)
            .field("expiring", &self.expiring)
            .field("companions", &self.companions)
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

/// Returns by how much the TTL of a session's key is longer than the time that the session lives. In an expiring store the reaper
/// can so still pass the value to the callback. The scripts treat the session as dead before.
fn grace(expiring: bool) -> Duration {
    if expiring { DATA_GRACE_PERIOD } else { Duration::ZERO }
}

/// The error of an operation about a principal in a plain store.
fn without_principals(operation: &'static str) -> Error {
    Error::unsupported(
        operation,
        "a plain store keeps no owners: build the store with `expiring()`, or start the program with `--expiring`",
    )
}
