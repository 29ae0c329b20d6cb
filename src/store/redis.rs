mod builder;
mod check;
mod command;
mod index;
mod keys;
mod net;
mod script;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

pub use self::builder::RedisSessionStoreBuilder;
pub use self::check::RedisWarning;
use self::command::{Args, expected_args, in_doubt, set, stored, stored_with_time_left, unexpected, version_of};
use self::keys::Keys;
pub use self::net::connection::RedisConnection;
pub use self::net::connector::RedisConnectionManager;
pub use self::net::credentials::Credentials;
use self::net::error::Effect;
pub use self::net::pool::RedisPool;
use self::net::pool::{Answer, To};
use self::script::Scripts;
use super::{
    Created, DATA_GRACE_PERIOD, Found, Health, RENEWED_FOR, Saved, SessionIndex, SessionStore, Touch, Version, Write,
    companion, ttl_millis,
};
use crate::{Error, Handle, Result, SessionId, operation};

/// Sessions in Redis 7.0 or newer, or Valkey: on one server, on a master that Sentinels name, or in a cluster; see
/// [`topologies`](crate::topologies).
///
/// The *plain* store (rrss `redis-store`, ring-redis-session) is one string key a session; Redis itself drops it when its
/// time has come. The *expiring* store (rrss `expiring-redis-store`) also keeps an index of its sessions and their
/// deadlines, from which a reaper deletes them.
///
/// Every operation is one round trip, to one hash slot: one command, or a script that is one, or two in one go. (Some
/// exceptions, none on the common path: reading a session that is not there looks whether it was renewed; a command whose
/// connection died is sent once more; a script that the server does not know is sent whole; a cluster may say that another
/// node has the session by now.) No operation takes longer than its [deadline](RedisSessionStoreBuilder::deadline), and none
/// waits while Redis is known to be away: see [`outages`](crate::outages).
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
    /// The suffixes of the companions of its sessions.
    companions: Vec<String>,
}

impl RedisSessionStore {
    /// A plain store in the Redis at this URL, all else as by default.
    ///
    /// Returns at once: connections are opened in the background, so a program can start while Redis is down and serves
    /// as soon as it is up. To find out at the start, call [`check`](Self::check).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misconfigured`] if the URL cannot be read.
    pub fn open(url: &str) -> Result<Self> {
        Self::builder().url(url).build()
    }

    /// A store with settings.
    pub fn builder() -> RedisSessionStoreBuilder {
        RedisSessionStoreBuilder::default()
    }

    /// The pool that the store uses, to share it.
    pub fn pool(&self) -> &RedisPool {
        &self.pool
    }

    /// The key under which a session lives in Redis. It shows the id unless keys are
    /// [hashed](RedisSessionStoreBuilder::hashed_keys).
    pub fn key(&self, id: &SessionId) -> String {
        self.keys.session(id)
    }

    fn new(pool: RedisPool, keys: Keys, expiring: bool) -> Self {
        let scripts = Arc::new(Scripts::new(grace(expiring), &[]));
        Self { pool, keys, scripts, expiring, companions: Vec::new() }
    }
}

impl SessionStore for RedisSessionStore {
    fn fresh_id(&self, near: Option<&SessionId>) -> SessionId {
        self.keys.fresh_id(near)
    }

    fn handle(&self, id: &SessionId) -> Handle {
        self.keys.handle(id)
    }

    fn create(&self, id: &SessionId, write: Write<'_>) -> Result<Created> {
        let key = self.keys.session(id);
        let answer = if self.is_bare() && write.is_bare() {
            // GET tells an own earlier success from somebody else's session, and a session from something else.
            let mut set = set(&key, write);
            self.command(operation::CREATE, Effect::Writes, To::Key(&key), set.arg("NX").arg("GET"))?
        } else {
            let mut args = self.write_args(write)?;
            args.extend(self.bind_args(operation::CREATE, write.bind)?.into_iter().flatten());
            self.script(operation::CREATE, &self.scripts.create, id, &[&key], args)?
        };
        Ok(match answer.value {
            Value::Nil | Value::Okay | Value::Int(1) => {
                self.settle_cap(write.bind);
                Created::Stored(version_of(write.payload))
            }
            Value::BulkString(there) if there == write.payload => Created::Stored(version_of(write.payload)),
            // It may be what the first attempt had stored, changed by somebody else.
            Value::BulkString(_) | Value::Int(0) if answer.repeated => return Err(in_doubt(operation::CREATE)),
            Value::BulkString(_) | Value::Int(0) => Created::Taken,
            other => return Err(unexpected(operation::CREATE, &other)),
        })
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        let key = self.keys.session(id);
        let answer = match touch {
            Touch::No if self.expiring => self.read_untouched(operation::READ, &key)?,
            Touch::No => self.command(operation::READ, Effect::Reads, To::Key(&key), redis::cmd("GET").arg(&key))?,
            Touch::Set(ttl) if self.is_bare() => {
                let mut getex = redis::cmd("GETEX");
                self.command(
                    operation::READ,
                    Effect::Reads,
                    To::Key(&key),
                    getex.arg(&key).arg("PX").arg(ttl_millis(ttl)),
                )?
            }
            Touch::Set(ttl) => self.read_touched(operation::READ, id, &key, ttl, false)?,
            Touch::Extend(ttl) => self.read_touched(operation::READ, id, &key, ttl, true)?,
        };
        Ok(match answer.value {
            Value::Nil => {
                let mut exists = redis::cmd("EXISTS");
                match self
                    .command(operation::READ, Effect::Reads, To::Key(&key), exists.arg(self.keys.renewed(&key)))?
                    .value
                {
                    Value::Int(0) => Found::Absent,
                    _ => Found::Renewed,
                }
            }
            Value::BulkString(payload) => {
                let expires_in = match touch {
                    Touch::Set(ttl) => Some(Duration::from_millis(ttl_millis(ttl))),
                    _ => None,
                };
                Found::Live(stored(payload, expires_in))
            }
            other => Found::Live(stored_with_time_left(operation::READ, other)?),
        })
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let key = self.keys.session(id);
        let answer = if expected.is_none() && self.is_bare() && write.is_bare() {
            // GET, for without it SET replaces a key of any type.
            let mut set = set(&key, write);
            self.command(operation::SAVE, Effect::Writes, To::Key(&key), set.arg("XX").arg("GET"))?
        } else {
            let (mut args, mut script) = (self.write_args(write)?, &self.scripts.save);
            let bind = self.bind_args(operation::SAVE, write.bind)?;
            if expected.is_some() || bind.is_some() {
                args.extend(expected_args(expected));
            }
            if let Some(bind) = bind {
                args.extend(bind);
                script = &self.scripts.save_and_bind;
            }
            self.script(operation::SAVE, script, id, &[&key], args)?
        };
        match answer.value {
            Value::Nil => Ok(Saved::Missing),
            Value::BulkString(_) => Ok(Saved::Stored(version_of(write.payload))),
            value => self.saved(operation::SAVE, Answer { value, ..answer }, write),
        }
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        let refuse = |why: &'static str| Err(Error::misconfigured(operation::ROTATE, why));
        let (old_key, new_key) = (self.keys.session(old), self.keys.session(new));
        if old_key == new_key {
            return refuse("the key mapper gives two ids the same key");
        }
        let partitions = self.keys.partitions();
        if old.partition(partitions) != new.partition(partitions) {
            return refuse("the new id is in another partition than the old one; make it with fresh_id");
        }
        let mut args = self.write_args(write)?;
        args.push(RENEWED_FOR.as_millis().to_string().into_bytes().into());
        args.extend(expected_args(expected));
        args.extend(self.bind_args(operation::ROTATE, write.bind)?.into_iter().flatten());
        let keys = [&*old_key, &*new_key, &*self.keys.renewed(&old_key)];
        let answer = self.script(operation::ROTATE, &self.scripts.rotate, old, &keys, args)?;
        match answer.value {
            Value::Int(-1) if answer.repeated => Err(in_doubt(operation::ROTATE)),
            Value::Int(-1) => refuse("another session lives under the key of the new id"),
            // Had the first attempt succeeded, the old session would be gone.
            value => self.saved(operation::ROTATE, Answer { value, repeated: false }, write),
        }
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        let key = self.keys.session(id);
        let answer = if self.is_bare() {
            self.command(operation::DELETE, Effect::Writes, To::Key(&key), redis::cmd("DEL").arg(&key))?
        } else {
            self.script(operation::DELETE, &self.scripts.delete, id, &[&key], Args::new())?
        };
        Ok(answer.value == Value::Int(1))
    }

    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        companion::keep(&mut self.companions, suffixes)?;
        self.scripts = Arc::new(Scripts::new(grace(self.expiring), &self.companions));
        Ok(())
    }

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        let key = self.keys.companion(&self.keys.session(id), suffix);
        // It expires with its session, so it lives as long as that.
        let answer = if self.expiring {
            self.read_untouched(operation::READ_COMPANION, &key)?
        } else {
            self.command(operation::READ_COMPANION, Effect::Reads, To::Key(&key), redis::cmd("GET").arg(&key))?
        };
        Ok(match answer.value {
            Value::Nil => None,
            Value::BulkString(value) => Some(value),
            other => Some(stored_with_time_left(operation::READ_COMPANION, other)?.payload.to_vec()),
        })
    }

    fn index(&self) -> Option<&dyn SessionIndex> {
        self.expiring.then_some(self)
    }

    fn health(&self) -> Health {
        self.pool.health()
    }
}

impl fmt::Debug for RedisSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSessionStore")
            .field("pool", &self.pool)
            .field("keys", &self.keys)
            .field("expiring", &self.expiring)
            .field("companions", &self.companions)
            .finish()
    }
}

/// By how much the data of a session outlives it.
fn grace(expiring: bool) -> Duration {
    if expiring { DATA_GRACE_PERIOD } else { Duration::ZERO }
}
