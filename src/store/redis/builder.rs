use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Client;

use super::RedisSessionStore;
use super::keys::{KeyMapper, Keys};
use super::net::address::Address;
use super::net::connector::{RedisConnectionManager, Settings, check_deadline, misconfigured};
use super::net::credentials::Credentials;
use super::net::pool::{RedisPool, default_size};
use crate::{Error, Result, SessionId, operation};

/// Enough to spread sessions evenly over some twenty nodes, and few enough for what has to visit all of them.
const PARTITIONS_IN_CLUSTER: u32 = 64;

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
#[must_use]
pub struct RedisSessionStoreBuilder {
    source: Source,
    connections: Settings,
    pool_size: Option<u32>,
    prefix: String,
    mapper: KeyMapper,
    partitions: Option<u32>,
    expiring: bool,
}

enum Source {
    Url(String),
    At(Box<Address>),
    Pool(RedisPool),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url(_) => "Url(..)",
            Self::At(address) => match **address {
                Address::Server(_) => "Client(..)",
                Address::Sentinel { .. } => "Sentinel(..)",
                Address::Cluster(_) => "Cluster(..)",
            },
            Self::Pool(_) => "Pool(..)",
        })
    }
}

impl fmt::Debug for RedisSessionStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSessionStoreBuilder")
            .field("source", &self.source)
            .field("deadline", &self.connections.deadline)
            .field("pool_size", &self.pool_size)
            .field("prefix", &self.prefix)
            .field("mapper", &self.mapper)
            .field("partitions", &self.partitions)
            .field("expiring", &self.expiring)
            .finish_non_exhaustive()
    }
}

impl Default for RedisSessionStoreBuilder {
    fn default() -> Self {
        Self {
            source: Source::Url("redis://127.0.0.1:6379".to_owned()),
            connections: Settings::default(),
            pool_size: None,
            prefix: "sessions".to_owned(),
            mapper: KeyMapper::Plain,
            partitions: None,
            expiring: false,
        }
    }
}

impl RedisSessionStoreBuilder {
    /// The Redis at this URL. Defaults to `redis://127.0.0.1:6379`. The last of `url`, `client`, `sentinel`, `cluster` and
    /// `pool` counts.
    ///
    /// | it is | the URL |
    /// |---|---|
    /// | one server | `redis://USER:PASSWORD@HOST:PORT/DATABASE` |
    /// | behind a Unix socket | `redis+unix:///PATH` |
    /// | the master that Sentinels name | `redis-sentinel://USER:PASSWORD@HOST:PORT/DATABASE?sentinelServiceName=NAME&node=HOST:PORT` |
    /// | a cluster | `redis-cluster://USER:PASSWORD@HOST:PORT?node=HOST:PORT` |
    ///
    /// With `rediss` for `redis` they are talked to over TLS, which takes one of the crate's features `tls-…`. `node` may
    /// come several times, for further Sentinels or nodes, of which a cluster tells the rest by itself; user and
    /// password are those of Redis, and the Sentinels' own are `sentinelUsername` and `sentinelPassword`. `protocol=resp3`
    /// chooses RESP3. (The URLs of Sentinels and clusters are those of the `fred` crate.)
    pub fn url(self, url: impl Into<String>) -> Self {
        Self { source: Source::Url(url.into()), ..self }
    }

    /// The Redis that this client connects to. A client with a certificate authority or a certificate of its own is made by
    /// [`Client::build_with_tls`](redis::Client::build_with_tls).
    pub fn client(self, client: Client) -> Self {
        Self { source: Source::At(Address::Server(client).into()), ..self }
    }

    /// The master of this name, of which these Sentinels know the address. It is logged in at, and talked to with or without
    /// TLS, as `master` would, whose own address does not matter.
    pub fn sentinel(
        self,
        name: impl Into<String>,
        sentinels: impl IntoIterator<Item = Client>,
        master: Client,
    ) -> Self {
        let (name, sentinels) = (name.into(), sentinels.into_iter().collect());
        Self { source: Source::At(Address::Sentinel { name, sentinels, master }.into()), ..self }
    }

    /// The cluster in which these are nodes; one that is up is enough to learn the others. All are logged in at, and talked
    /// to with or without TLS, as the first of these would be.
    pub fn cluster(self, nodes: impl IntoIterator<Item = Client>) -> Self {
        Self { source: Source::At(Address::Cluster(nodes.into_iter().collect()).into()), ..self }
    }

    /// Logs in with what this says, asked anew for every connection: for credentials that change while the program runs. By
    /// default, with what URL or client have. It is called in threads of the pool, which it may keep waiting.
    pub fn credentials(self, credentials: impl Fn() -> Credentials + Send + Sync + 'static) -> Self {
        Self { connections: Settings { credentials: Some(Arc::new(credentials)), ..self.connections }, ..self }
    }

    /// A ready pool, shared with others. It has its own deadline, size and credentials, so these cannot be set here as well.
    pub fn pool(self, pool: RedisPool) -> Self {
        Self { source: Source::Pool(pool), ..self }
    }

    /// How long an operation may take in all: waiting for a connection, sending, waiting for the answer, and once more if
    /// the connection dies. Defaults to 1 second; from 1 millisecond to an hour.
    ///
    /// It holds up to a tenth and the clock of the system, some milliseconds, but not while bytes trickle: each that comes
    /// or goes makes the socket wait anew. See [`outages`](crate::outages).
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { connections: Settings { deadline: Some(deadline), ..self.connections }, ..self }
    }

    /// How many connections to open at most, to each node of a cluster, at least 1. Defaults to 64, or to 8 for each core where
    /// that is more, as many as rouille starts threads. They are opened as they are needed; fewer than the threads that use
    /// them costs more than anything else.
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
    /// own: if two share one, the second session is refused and the first left alone. Only with one partition, and not in a
    /// cluster.
    pub fn key_mapper(self, map: impl Fn(&SessionId) -> String + Send + Sync + 'static) -> Self {
        Self { mapper: KeyMapper::Custom(Arc::new(map)), ..self }
    }

    /// Spreads the sessions over this many hash tags, `sessions:{7}:ID`, evenly over the slots of a cluster and so over its
    /// nodes; at most 16384. Defaults to 64 in a cluster, and otherwise to 1, without tags. Changing it later loses sight of
    /// the sessions that are there, so who may need a cluster one day sets it today.
    ///
    /// What concerns a principal or the whole index takes a command for each partition, and a reaper visits all of them
    /// within its resolution. A cap on the sessions of a principal is atomic with one partition, and kept soon after with
    /// several.
    pub fn partitions(self, partitions: u32) -> Self {
        Self { partitions: Some(partitions), ..self }
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
    /// deadline or pool size out of range, settings of connections beside a ready pool, no partitions, several or a cluster
    /// with a prefix in braces or a custom key mapper, and no Sentinels or nodes.
    pub fn build(self) -> Result<RedisSessionStore> {
        let refuse = |why: &'static str| Err(Error::misconfigured(operation::BUILD_STORE, why));
        let (settings, size) = (&self.connections, self.pool_size.unwrap_or_else(default_size));
        settings.deadline.map_or(Ok(()), check_deadline)?;
        let has_settings = settings.deadline.is_some() || settings.credentials.is_some() || self.pool_size.is_some();
        let address = match self.source {
            Source::Pool(_) if has_settings => {
                return refuse("a ready pool has a deadline, a size and credentials already");
            }
            Source::Pool(pool) => Err(pool),
            Source::At(address) => Ok(*address),
            Source::Url(url) => Ok(Address::parse(&url).map_err(|error| misconfigured(&error))?),
        };
        let one = |manager: RedisConnectionManager| RedisPool::with_size(manager.with(settings), size);
        let pool = match address {
            Err(pool) => pool,
            Ok(Address::Server(client)) => one(RedisConnectionManager::new(client)?)?,
            Ok(Address::Sentinel { name, sentinels, master }) => {
                one(RedisConnectionManager::sentinel(name, sentinels, master)?)?
            }
            Ok(Address::Cluster(nodes)) => RedisPool::cluster(&nodes, settings, size)?,
        };
        let partitions = self.partitions.unwrap_or(if pool.is_cluster() { PARTITIONS_IN_CLUSTER } else { 1 });
        let keys = Keys::new(self.prefix, self.mapper, partitions, pool.is_cluster())?;
        Ok(RedisSessionStore::new(pool, keys, self.expiring))
    }
}
