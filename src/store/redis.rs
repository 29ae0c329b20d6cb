mod address;
mod builder;
mod check;
mod cluster;
mod connection;
mod credentials;
mod failure;
mod index;
mod keys;
mod link;
mod node;
mod pool;
mod script;
mod sentinel;
#[cfg(feature = "tls-rustls")]
mod tls;

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use redis::{Cmd, Value};

pub use self::builder::RedisSessionStoreBuilder;
pub use self::check::RedisWarning;
pub use self::connection::{RedisConnection, RedisConnectionManager};
pub use self::credentials::Credentials;
use self::failure::Effect;
use self::keys::Keys;
pub use self::pool::RedisPool;
use self::pool::{Answer, To};
use self::script::Script;
use super::{
    Bind, Created, Found, GRACE, Health, RENEWED_FOR, Saved, SessionIndex, SessionStore, Stored, Touch, Version, Write,
    companion, ttl_millis,
};
use crate::{Error, ErrorKind, Handle, Result, SessionId};

/// Sessions in Redis 7.0 or newer, or Valkey: on one server, on a master that Sentinels name, or in a cluster; see
/// [`topologies`](crate::topologies).
///
/// The *plain* store (rrss `redis-store`, ring-redis-session) is one string key a session; Redis itself drops it when its
/// time has come. The *expiring* store (rrss `expiring-redis-store`) also keeps an index of its sessions and their
/// deadlines, from which a reaper deletes them.
///
/// Every operation is one command, to one hash slot: one round trip. (Some exceptions, none on the common path: reading
/// a session that is not there looks whether it was renewed; a command whose connection died is sent once more; a script
/// that the server does not know is sent whole; a cluster may say that another node has the session by now.) No operation takes longer than its
/// [deadline](RedisSessionStoreBuilder::deadline), and none waits while Redis is known to be away: see
/// [`outages`](crate::outages).
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

    /// The key under which a session lives in Redis. It shows the id unless keys are [hashed](RedisSessionStoreBuilder::hashed_keys).
    pub fn key(&self, id: &SessionId) -> String {
        self.keys.session(id)
    }

    /// What the arguments of every script begin with: the grace, and the suffixes of companions.
    fn preamble(&self) -> String {
        let grace = if self.expiring { GRACE } else { Duration::ZERO };
        let mut preamble = grace.as_millis().to_string();
        for suffix in &self.companions {
            preamble.push(' ');
            preamble.push_str(suffix);
        }
        preamble
    }

    /// What the arguments of the scripts that write end with: for each companion that the store keeps a value with `+`
    /// before it, or `=` for the one it has.
    fn companion_args(&self, write: Write<'_>) -> Result<Vec<Vec<u8>>> {
        companion::check_kept(&self.companions, write.companions)?;
        let value_of = |suffix: &String| write.companions.iter().find(|companion| companion.suffix == *suffix);
        let arg = |suffix| value_of(suffix).map_or(b"=".to_vec(), |companion| [b"+", &*companion.value].concat());
        Ok(self.companions.iter().map(arg).collect())
    }

    fn command(&self, doing: &'static str, effect: Effect, to: To<'_>, command: &Cmd) -> Result<Answer> {
        self.pool.call(doing, effect, to, |connection| command.query(connection))
    }

    /// What the scripts that write begin with after the grace: payload, time to live, owner and cap.
    fn write_args<'a>(&self, doing: &'static str, write: Write<'a>) -> Result<[Cow<'a, [u8]>; 4]> {
        let ttl = write.ttl_millis().map(|ttl| ttl.to_string()).unwrap_or_default();
        let (owner, cap) = match write.bind {
            Bind::Keep => ("=".to_owned(), None),
            Bind::Nobody => (String::new(), None),
            Bind::To { .. } if !self.expiring => {
                let why = "only an expiring store knows principals";
                return Err(Error::new(ErrorKind::Unsupported, doing).with_source(why));
            }
            Bind::To { principal, cap } => (keys::owner(principal), cap.filter(|_| self.keys.partitions() == 1)),
        };
        let cap = cap.map(|cap| cap.to_string()).unwrap_or_default();
        Ok([write.payload.into(), ttl.into_bytes().into(), owner.into_bytes().into(), cap.into_bytes().into()])
    }

    /// What `save.lua` and `rotate.lua` answer.
    fn saved(&self, doing: &'static str, answer: Answer, write: Write<'_>) -> Result<Saved> {
        match answer.value {
            Value::Int(1) => {
                self.settle_cap(write.bind);
                Ok(Saved::Stored(Version::new(write.payload)))
            }
            Value::Int(0) => Ok(Saved::Missing),
            // It may be somebody's change of what the first attempt had stored.
            Value::Array(_) if answer.repeated => Err(in_doubt(doing)),
            other => Ok(Saved::Conflict(stored_with_time_left(doing, other)?)),
        }
    }

    /// Runs a script. `keys` get the index at their end, `args` the preamble at their start.
    fn script(
        &self,
        doing: &'static str,
        effect: Effect,
        script: &Script,
        id: &SessionId,
        keys: &[&str],
        args: &[&[u8]],
    ) -> Result<Answer> {
        let index = self.expiring.then(|| self.keys.index_of(id));
        let keys: Vec<&str> = keys.iter().copied().chain(index.as_deref()).collect();
        let preamble = self.preamble();
        let args: Vec<&[u8]> = std::iter::once(preamble.as_bytes()).chain(args.iter().copied()).collect();
        self.pool.call(doing, effect, To::Key(keys[0]), |connection| script.call(connection, &keys, &args))
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
        const DOING: &str = "creating a session";
        let (key, companions) = (self.keys.session(id), self.companion_args(write)?);
        let answer = if self.expiring || write.bind != Bind::Keep || !companions.is_empty() {
            let args = self.write_args(DOING, write)?;
            let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).chain(companions.iter().map(|arg| &**arg)).collect();
            self.script(DOING, Effect::Writes, &script::CREATE, id, &[&key], &args)?
        } else {
            // GET tells an own earlier success from somebody else's session, and a session from something else.
            let mut set = set(&key, write);
            self.command(DOING, Effect::Writes, To::Key(&key), set.arg("NX").arg("GET"))?
        };
        Ok(match answer.value {
            Value::Nil | Value::Okay | Value::Int(1) => {
                self.settle_cap(write.bind);
                Created::Stored(Version::new(write.payload))
            }
            Value::BulkString(there) if there == write.payload => Created::Stored(Version::new(there)),
            // It may be what the first attempt had stored, changed by somebody else.
            Value::BulkString(_) | Value::Int(0) if answer.repeated => return Err(in_doubt(DOING)),
            Value::BulkString(_) | Value::Int(0) => Created::Taken,
            other => return Err(unexpected(DOING, &other)),
        })
    }

    fn read(&self, id: &SessionId, touch: Touch) -> Result<Found> {
        const DOING: &str = "reading a session";
        let key = self.keys.session(id);
        let answer = match (touch, self.expiring) {
            (Touch::No, false) => self.command(DOING, Effect::Reads, To::Key(&key), redis::cmd("GET").arg(&key))?,
            (Touch::Set(ttl), false) if self.companions.is_empty() => {
                let mut getex = redis::cmd("GETEX");
                self.command(DOING, Effect::Reads, To::Key(&key), getex.arg(&key).arg("PX").arg(ttl_millis(ttl)))?
            }
            (touch, _) => {
                let (mode, ttl) = match touch {
                    Touch::No => ("no", 0),
                    Touch::Set(ttl) => ("set", ttl_millis(ttl)),
                    Touch::Extend(ttl) => ("extend", ttl_millis(ttl)),
                };
                let args = [mode.as_bytes(), ttl.to_string().as_bytes()].map(<[u8]>::to_vec);
                self.script(DOING, Effect::Reads, &script::READ, id, &[&key], &[&args[0], &args[1]])?
            }
        };
        Ok(match answer.value {
            Value::Nil => {
                let mut exists = redis::cmd("EXISTS");
                match self.command(DOING, Effect::Reads, To::Key(&key), exists.arg(self.keys.renewed(&key)))?.value {
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
            other => Found::Live(stored_with_time_left(DOING, other)?),
        })
    }

    fn save(&self, id: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        const DOING: &str = "saving a session";
        let (key, companions) = (self.keys.session(id), self.companion_args(write)?);
        let answer = match expected {
            None if !self.expiring && write.bind == Bind::Keep && companions.is_empty() => {
                // GET, for without it SET replaces a key of any type.
                let mut set = set(&key, write);
                self.command(DOING, Effect::Writes, To::Key(&key), set.arg("XX").arg("GET"))?
            }
            _ => {
                let args = self.write_args(DOING, write)?;
                let args = args.iter().map(|arg| &**arg).chain(expected.map(Version::as_bytes));
                let args: Vec<&[u8]> = args.chain(companions.iter().map(|arg| &**arg)).collect();
                let script = if write.bind == Bind::Keep { &script::SAVE } else { &script::SAVE_AND_BIND };
                self.script(DOING, Effect::Writes, script, id, &[&key], &args)?
            }
        };
        match answer.value {
            Value::Nil => Ok(Saved::Missing),
            Value::BulkString(_) => Ok(Saved::Stored(Version::new(write.payload))),
            value => self.saved(DOING, Answer { value, ..answer }, write),
        }
    }

    fn rotate(&self, old: &SessionId, new: &SessionId, write: Write<'_>, expected: Option<&Version>) -> Result<Saved> {
        const DOING: &str = "renewing a session";
        let refuse = |why: &'static str| Err(Error::new(ErrorKind::Misconfigured, DOING).with_source(why));
        let (old_key, new_key) = (self.keys.session(old), self.keys.session(new));
        if old_key == new_key {
            return refuse("the key mapper gives two ids the same key");
        }
        let partitions = self.keys.partitions();
        if old.partition(partitions) != new.partition(partitions) {
            return refuse("the new id is in another partition than the old one; make it with fresh_id");
        }
        let companions = self.companion_args(write)?;
        let keys = [&*old_key, &*new_key, &*self.keys.renewed(&old_key)];
        let (args, mark) = (self.write_args(DOING, write)?, RENEWED_FOR.as_millis().to_string());
        let args = args.iter().map(|arg| &**arg).chain([mark.as_bytes()]).chain(expected.map(Version::as_bytes));
        let args: Vec<&[u8]> = args.chain(companions.iter().map(|arg| &**arg)).collect();
        let answer = self.script(DOING, Effect::Writes, &script::ROTATE, old, &keys, &args)?;
        match answer.value {
            Value::Int(-1) if answer.repeated => Err(in_doubt(DOING)),
            Value::Int(-1) => refuse("another session lives under the key of the new id"),
            // Had the first attempt succeeded, the old session would be gone.
            value => self.saved(DOING, Answer { value, repeated: false }, write),
        }
    }

    fn delete(&self, id: &SessionId) -> Result<bool> {
        const DOING: &str = "deleting a session";
        let key = self.keys.session(id);
        let answer = if self.expiring || !self.companions.is_empty() {
            self.script(DOING, Effect::Writes, &script::DELETE, id, &[&key], &[])?
        } else {
            self.command(DOING, Effect::Writes, To::Key(&key), redis::cmd("DEL").arg(&key))?
        };
        Ok(answer.value == Value::Int(1))
    }

    fn keep_companions(&mut self, suffixes: &[String]) -> Result<()> {
        companion::keep(&mut self.companions, suffixes)
    }

    fn companion(&self, id: &SessionId, suffix: &str) -> Result<Option<Vec<u8>>> {
        const DOING: &str = "reading a companion";
        let key = self.keys.companion(&self.keys.session(id), suffix);
        // It expires with its session, so it lives as long as that.
        let args: [&[u8]; 2] = [b"no", b"0"];
        let answer = if self.expiring {
            self.pool.call(DOING, Effect::Reads, To::Key(&key), |connection| {
                script::READ.call(connection, &[&key], &[self.preamble().as_bytes(), args[0], args[1]])
            })?
        } else {
            self.command(DOING, Effect::Reads, To::Key(&key), redis::cmd("GET").arg(&key))?
        };
        Ok(match answer.value {
            Value::Nil => None,
            Value::BulkString(value) => Some(value),
            other => Some(stored_with_time_left(DOING, other)?.payload.to_vec()),
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

/// `SET key payload PX ttl`, without the conditions.
fn set(key: &str, write: Write<'_>) -> Cmd {
    let mut set = redis::cmd("SET");
    set.arg(key).arg(write.payload);
    if let Some(ttl) = write.ttl_millis() {
        set.arg("PX").arg(ttl);
    }
    set
}

/// The connection died over the first attempt, and what the second one found does not tell what became of it.
fn in_doubt(doing: &'static str) -> Error {
    Error::new(ErrorKind::MayHaveHappened, doing)
        .with_source("the connection was lost, and then the session was another")
}

fn stored(payload: Vec<u8>, expires_in: Option<Duration>) -> Stored {
    let version = Version::new(payload);
    Stored { payload: version.0.clone(), version, expires_in }
}

fn stored_with_time_left(doing: &'static str, value: Value) -> Result<Stored> {
    match value {
        Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
            Ok([Value::BulkString(payload), Value::Int(left)]) => {
                Ok(stored(payload, u64::try_from(left).ok().map(Duration::from_millis)))
            }
            _ => Err(unexpected(doing, &Value::Array(Vec::new()))),
        },
        other => Err(unexpected(doing, &other)),
    }
}

/// An answer that none of the commands gives. Its content could be a payload, so only its type is told.
fn unexpected(doing: &'static str, value: &Value) -> Error {
    let kind = match value {
        Value::Nil => "nil",
        Value::Int(_) => "an integer",
        Value::Array(_) => "an array",
        _ => "something else",
    };
    Error::new(ErrorKind::Other, doing).with_source(format!("Redis answered {kind}"))
}
