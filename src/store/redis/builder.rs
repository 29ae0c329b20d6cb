use std::sync::Arc;
use std::time::Duration;

use redis::Client;

use super::RedisSessionStore;
use super::connection::{DEADLINES, RedisConnectionManager};
use super::keys::{KeyMapper, Keys};
use super::pool::RedisPool;
use crate::{Error, ErrorKind, Result, SessionId};

/// Settings of a [`RedisSessionStore`]. Without any it is a plain store in the Redis at `127.0.0.1:6379`, with keys
/// `sessions:ID`.
///
/// ```no_run
/// use std::time::Duration;
/// use threaded_sessions::RedisSessionStore;
///
/// let store = RedisSessionStore::builder()
///     .url("redis://user:password@redis.internal:6379/0")
///     .prefix("shop")
///     .expiring()
///     .deadline(Duration::from_millis(500))
///     .pool_size(32)
///     .build()?;
/// # let _ = store;
/// # Ok::<_, threaded_sessions::Error>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct RedisSessionStoreBuilder {
    source: Source,
    deadline: Option<Duration>,
    pool_size: Option<u32>,
    prefix: String,
    mapper: KeyMapper,
    partitions: u32,
    expiring: bool,
}

enum Source {
    Url(String),
    Client(Client),
    Pool(RedisPool),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Url(_) => "Url(..)",
            Self::Client(_) => "Client(..)",
            Self::Pool(_) => "Pool(..)",
        })
    }
}

impl Default for RedisSessionStoreBuilder {
    fn default() -> Self {
        Self {
            source: Source::Url("redis://127.0.0.1:6379".to_owned()),
            deadline: None,
            pool_size: None,
            prefix: "sessions".to_owned(),
            mapper: KeyMapper::Plain,
            partitions: 1,
            expiring: false,
        }
    }
}

impl RedisSessionStoreBuilder {
    /// The Redis at this URL: `redis://user:password@host:port/database` or `redis+unix:///path/to/socket`. Defaults to
    /// `redis://127.0.0.1:6379`. The last of `url`, `client` and `pool` counts.
    pub fn url(self, url: impl Into<String>) -> Self {
        Self { source: Source::Url(url.into()), ..self }
    }

    /// The Redis that this client connects to.
    pub fn client(self, client: Client) -> Self {
        Self { source: Source::Client(client), ..self }
    }

    /// A ready pool, shared with others. It has its own deadline and size, so these cannot be set here as well.
    pub fn pool(self, pool: RedisPool) -> Self {
        Self { source: Source::Pool(pool), ..self }
    }

    /// How long an operation may take in all: waiting for a connection, sending, waiting for the answer, and once more if
    /// the connection dies. Defaults to 1 second; from 1 millisecond to an hour.
    ///
    /// It holds up to a tenth and the clock of the system, some milliseconds, but not while bytes trickle: each that comes
    /// or goes makes the socket wait anew. See [`outages`](crate::outages).
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// How many connections to open at most, at least 1. Defaults to 64. They are opened as they are needed; fewer than the
    /// threads that use them costs more than anything else.
    pub fn pool_size(self, connections: u32) -> Self {
        Self { pool_size: Some(connections), ..self }
    }

    /// What all keys begin with, followed by a colon (ring-redis-session `:prefix`). Defaults to `sessions`. A plain and
    /// an expiring store must not share a prefix: each would take the other's times to live for its own. Any text but an
    /// empty one; without braces if there are several partitions, for they would be taken for the hash tag.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Puts the SHA-256 of the id into the key instead of the id, so that a copy of the database gives nobody a usable
    /// cookie. Not by default. Turning it on or off later loses sight of the sessions that are there. The last of
    /// `hashed_keys` and [`key_mapper`](Self::key_mapper) counts.
    pub fn hashed_keys(self) -> Self {
        Self { mapper: KeyMapper::Hashed, ..self }
    }

    /// Keys by a function of one's own (rrss `:key-mapper`), instead of `PREFIX:ID`. It must give every id a key of its
    /// own: if two share one, the second session is refused and the first left alone. Only with one partition.
    pub fn key_mapper(self, map: impl Fn(&SessionId) -> String + Send + Sync + 'static) -> Self {
        Self { mapper: KeyMapper::Custom(Arc::new(map)), ..self }
    }

    /// Spreads the sessions over this many hash tags, `sessions:{7}:ID`, so that a cluster can spread them over its nodes.
    /// Defaults to 1, without tags. Changing it later loses sight of the sessions that are there.
    pub fn partitions(self, partitions: u32) -> Self {
        Self { partitions, ..self }
    }

    /// Makes it an expiring store, which keeps an index of its sessions for a reaper. Not by default.
    pub fn expiring(self) -> Self {
        Self { expiring: true, ..self }
    }

    /// The store. Returns at once, see [`RedisSessionStore::open`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misconfigured`], with the reason as its source, for a URL that cannot be read, an empty prefix, a
    /// deadline or pool size out of range or beside a ready pool, no partitions, or several with a prefix in braces or a
    /// custom key mapper.
    pub fn build(self) -> Result<RedisSessionStore> {
        let refuse = |why: &'static str| Err(Error::new(ErrorKind::Misconfigured, "building a store").with_source(why));
        let keys = Keys::new(self.prefix, self.mapper, self.partitions)?;
        if self.deadline.is_some_and(|deadline| !DEADLINES.contains(&deadline)) {
            return refuse("the deadline must be from 1 millisecond to an hour");
        }
        let manager = match self.source {
            Source::Pool(_) if self.deadline.is_some() || self.pool_size.is_some() => {
                return refuse("a ready pool has a deadline and a size already");
            }
            Source::Pool(pool) => {
                return Ok(RedisSessionStore { pool, keys, expiring: self.expiring, companions: Vec::new() });
            }
            Source::Client(client) => RedisConnectionManager::new(client)?,
            Source::Url(url) => RedisConnectionManager::open(&url)?,
        };
        let manager = match self.deadline {
            Some(deadline) => manager.with_deadline(deadline),
            None => manager,
        };
        let pool = match self.pool_size {
            Some(size) => RedisPool::with_size(manager, size)?,
            None => RedisPool::new(manager),
        };
        Ok(RedisSessionStore { pool, keys, expiring: self.expiring, companions: Vec::new() })
    }
}
