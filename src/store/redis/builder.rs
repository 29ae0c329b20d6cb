//! The settings of a Redis store.
//!
//! Applications reach it by [`RedisSessionStore::builder`]. The invariant: `build` rejects settings that cannot work, and
//! waits for no connection.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use redis::Client;

use super::RedisSessionStore;
#[cfg(feature = "near-cache")]
use super::grace;
use super::keys::{KeyMapper, Keys};
use super::near::Door;
#[cfg(feature = "near-cache")]
use super::near::NearCache;
use super::net::address::{self, Address};
use super::net::connector::{RedisConnectionManager, Settings, check_deadline};
use super::net::credentials::Credentials;
use super::net::pool::{RedisPool, default_size};
#[cfg(feature = "tls-rustls")]
use super::net::tls::Trust;
use super::script::Ends;
use crate::{Error, Result, SessionId, operation};

/// The default in a cluster: enough partitions to spread sessions evenly over some twenty nodes, and few enough for operations
/// that visit all partitions.
const PARTITIONS_IN_CLUSTER: u32 = 64;

/// For how long a store may remember why sessions ended.
const REMEMBERED: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(86_400);

/// Settings of a [`RedisSessionStore`].
///
/// By default it is a plain store in the Redis at `127.0.0.1:6379`, with keys `sessions:ID`.
///
/// # Examples
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
    announces: bool,
    remember: Option<Duration>,
    #[cfg(feature = "near-cache")]
    near: Option<NearCache>,
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
            .field("announces", &self.announces)
            .field("remember", &self.remember)
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
            announces: false,
            remember: None,
            #[cfg(feature = "near-cache")]
            near: None,
        }
    }
}

impl RedisSessionStoreBuilder {
    /// Sets the URL of Redis. Defaults to `redis://127.0.0.1:6379`.
    ///
    /// The last call of `url`, `client`, `sentinel`, `cluster` and `pool` counts.
    ///
    /// | Redis | URL |
    /// |---|---|
    /// | one server | `redis://USER:PASSWORD@HOST:PORT/DATABASE` |
    /// | behind a Unix socket | `redis+unix:///PATH` |
    /// | the master that Sentinels name | `redis-sentinel://USER:PASSWORD@HOST:PORT/DATABASE?sentinelServiceName=NAME&node=HOST:PORT` |
    /// | a cluster | `redis-cluster://USER:PASSWORD@HOST:PORT?node=HOST:PORT` |
    ///
    /// * `rediss` instead of `redis` enables TLS, which requires one of the features `tls-…` of this crate.
    /// * `node` adds a Sentinel or a node. You can repeat it. A cluster needs only one node to find the others.
    /// * `USER` and `PASSWORD` are for Redis; `sentinelUsername` and `sentinelPassword` are for the Sentinels.
    /// * `protocol=resp3` chooses RESP3.
    /// * Behind a Unix socket, `db`, `user` and `pass` are parameters.
    /// * `%XX` is decoded. A plus sign is a plus sign.
    ///
    /// `build` rejects a URL with any other part, because the store would ignore it: an unknown, empty or repeated parameter, a
    /// fragment, the database of a cluster, or a user name without a password. It also rejects `#insecure`, because the store
    /// always verifies the server. The URLs of Sentinels and clusters are those of the `fred` crate.
    pub fn url(self, url: impl Into<String>) -> Self {
        Self { source: Source::Url(url.into()), ..self }
    }

    /// Sets the Redis that this client connects to.
    ///
    /// A client with certificates is refused when the store is built, because they cannot be read. Use
    /// `tls_config` instead.
    pub fn client(self, client: Client) -> Self {
        Self { source: Source::At(Address::Server(client).into()), ..self }
    }

    /// Connects to the master that Sentinel knows as `name`.
    ///
    /// The store asks the `sentinels` for its address. Credentials and TLS settings come from `master`; the address in
    /// `master` is ignored, so `master` cannot be at a Unix socket. A Sentinel has no database.
    pub fn sentinel(
        self,
        name: impl Into<String>,
        sentinels: impl IntoIterator<Item = Client>,
        master: Client,
    ) -> Self {
        let (name, sentinels) = (name.into(), sentinels.into_iter().collect());
        Self { source: Source::At(Address::Sentinel { name, sentinels, master }.into()), ..self }
    }

    /// Connects to the cluster that these nodes belong to.
    ///
    /// One reachable node is enough to find the others. Login, protocol and TLS settings of all nodes come from the first
    /// client. The other clients must have the same ones or none. A cluster has only database 0.
    pub fn cluster(self, nodes: impl IntoIterator<Item = Client>) -> Self {
        Self { source: Source::At(Address::Cluster(nodes.into_iter().collect()).into()), ..self }
    }

    /// Sets a function that returns the credentials for each new connection. Defaults to the credentials in the URL or client.
    ///
    /// Use it for credentials that change while the program runs. The pool calls it in its own threads, so it may block.
    pub fn credentials(self, credentials: impl Fn() -> Credentials + Send + Sync + 'static) -> Self {
        Self { connections: Settings { credentials: Some(Arc::new(credentials)), ..self.connections }, ..self }
    }

    /// Sets the TLS configuration, such as a custom certificate authority or a client certificate.
    ///
    /// It applies to Redis, to its Sentinels and to the nodes of a cluster. Defaults to the authorities of the system, or to
    /// Mozilla's with the feature `tls-rustls-webpki-roots`. The certificate of a server must be for the host of the URL, or
    /// for the address under which a Sentinel or a cluster knows it.
    #[cfg(feature = "tls-rustls")]
    pub fn tls_config(self, config: Arc<rustls::ClientConfig>) -> Self {
        Self { connections: Settings { trust: Trust::custom(config), ..self.connections }, ..self }
    }

    /// Sets a pool that the store shares with other users.
    ///
    /// The pool has a deadline, a size, credentials and a TLS configuration already, so you cannot set them here as well.
    pub fn pool(self, pool: RedisPool) -> Self {
        Self { source: Source::Pool(pool), ..self }
    }

    /// Sets the deadline of an operation, between 1 millisecond and 1 hour. Defaults to 1 second.
    ///
    /// The deadline includes the wait for a connection, the request, the reply, and a retry if the connection is lost. It is one
    /// point in time for all of them, so it also holds while a reply arrives byte by byte. An operation can overrun it by the
    /// timer resolution of the system, a few milliseconds. See [`outages`](crate::outages).
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { connections: Settings { deadline: Some(deadline), ..self.connections }, ..self }
    }

    /// Sets the maximum number of connections, from 1 to 65535. Defaults to 64, or to 8 for each core if that is more.
    ///
    /// In a cluster the limit holds for each node. The pool opens connections as they are needed. The default is the number of
    /// threads that rouille starts. A pool with fewer connections than threads costs more throughput than any other setting.
    pub fn pool_size(self, connections: u32) -> Self {
        Self { pool_size: Some(connections), ..self }
    }

    /// Sets the prefix of all keys. Defaults to `sessions`.
    ///
    /// A colon follows the prefix in each key. Do not use one prefix for both a plain and an expiring store, because the two
    /// interpret TTLs differently. The prefix must not be empty. With several partitions or in a cluster it must not contain
    /// braces, because Redis would take them for the hash tag (ring-redis-session `:prefix`).
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// Uses the SHA-256 of the id in keys instead of the id. Defaults to the id.
    ///
    /// With hashed keys, a copy of the database contains no usable cookie. If you change this setting later, the store no
    /// longer finds the existing sessions. The last call of `hashed_keys` and [`key_mapper`](Self::key_mapper) counts.
    pub fn hashed_keys(self) -> Self {
        Self { mapper: KeyMapper::Hashed, ..self }
    }

    /// Sets a custom function that returns the key of a session. Defaults to `PREFIX:ID`.
    ///
    /// The function must return a different key for each id. If two ids share a key, the store rejects the second session and
    /// keeps the first. A custom function requires one partition and works in no cluster (rrss `:key-mapper`).
    pub fn key_mapper(self, map: impl Fn(&SessionId) -> String + Send + Sync + 'static) -> Self {
        Self { mapper: KeyMapper::Custom(Arc::new(map)), ..self }
    }

    /// Sets the number of partitions, at most 16384. Defaults to 64 in a cluster, otherwise to 1.
    ///
    /// Each partition has a hash tag, as in `sessions:{7}:ID`. The tags lie evenly over the slots of a cluster, and so over its
    /// nodes. A single partition outside a cluster has no tag. If you change the number later, the store no longer finds the
    /// existing sessions. So set it today if you may need a cluster later.
    ///
    /// An operation on a principal or on the whole index sends one command to each partition. A reaper visits all partitions
    /// within its resolution. With one partition, the store enforces the cap on the sessions of a principal atomically; with
    /// several, soon after the write.
    pub fn partitions(self, partitions: u32) -> Self {
        Self { partitions: Some(partitions), ..self }
    }

    /// Makes the store an expiring store, which keeps an index of its sessions for a reaper. Defaults to a plain store.
    pub fn expiring(self) -> Self {
        Self { expiring: true, ..self }
    }

    /// Announces each end and each renewal of a session to the [listeners](crate::Listener) of all processes. Defaults to no
    /// announcements, which cost nothing.
    ///
    /// The script that ends a session publishes its key and the reason, in the same step, on a channel such as `sessions:ended`,
    /// which is a sharded channel in a cluster. A key that is published is dead, but contains the id. A failover that loses the
    /// last writes can revive such a session, so use [`hashed_keys`](Self::hashed_keys) as well.
    ///
    /// All programs that end sessions of the store must have this setting, and their user in Redis the right to use the channel.
    /// [`check`](RedisSessionStore::check) warns if the right is missing. A plain store does not announce that a session expired,
    /// because Redis drops it. An expiring store announces it when the reaper removes the session.
    pub fn announce_ends(self) -> Self {
        Self { announces: true, ..self }
    }

    /// Remembers for this long why each session has ended, from 30 seconds to 24 hours. Defaults to no reasons.
    ///
    /// [`Session::ended`](crate::Session::ended) then returns the reason to a request that still sends the id. Each session
    /// that ends leaves a key of about 180 bytes, such as `sessions:ID:ended`. The end of all sessions leaves one key in each
    /// partition of an expiring store instead, so afterwards an id that never existed has a reason too. A plain store does not
    /// know that a session expired.
    ///
    /// All programs that end sessions of the store should have this setting. It adds no command to a request with a live session.
    pub fn remember_ends(self, time: Duration) -> Self {
        Self { remember: Some(time), ..self }
    }

    /// Keeps hot sessions in the process, so that most reads of them need no command. Defaults to no near cache.
    ///
    /// The cache has a separate connection, over which Redis announces the changes of the sessions that are kept. A read of a
    /// session that another process has ended or changed may return the session as it was before, normally for less than a
    /// millisecond, and never for longer than the [lease](NearCache::lease). A read after a write of this process is never
    /// stale. [`near_cache`](crate::near_cache) explains the guarantees, and when a cache does not pay.
    ///
    /// A session may live up to a 64th of its idle timeout longer, because fewer reads move its deadline. A cluster has no near
    /// cache.
    #[cfg(feature = "near-cache")]
    pub fn near_cache(self, near: NearCache) -> Self {
        Self { near: Some(near), ..self }
    }

    /// Builds the store. Returns immediately, like [`RedisSessionStore::open`].
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured), with the reason as its source, if
    ///   - the URL cannot be parsed, or the URL or a client has a setting that would be ignored;
    ///   - the prefix is empty;
    ///   - the deadline, the pool size, the number of partitions or the time for which ends are remembered is out of range;
    ///   - a ready pool is set together with a deadline, a pool size, credentials or a TLS configuration;
    ///   - a client has certificates, or does not verify those of the server;
    ///   - a TLS configuration is set, but no URL or client requires TLS, or the reverse without the feature `tls-rustls`;
    ///   - there are several partitions, or a cluster, and the prefix contains braces or the key mapper is custom;
    ///   - there are no Sentinels or no nodes;
    ///   - the lease of a near cache is longer than 1 hour, or its entries may take no bytes.
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if a near cache is set for a cluster.
    /// - Returns [`ErrorKind::Other`](crate::ErrorKind::Other) if the system cannot start a thread.
    pub fn build(self) -> Result<RedisSessionStore> {
        let (settings, size) = (&self.connections, self.pool_size);
        settings.deadline.map_or(Ok(()), check_deadline)?;
        if self.remember.is_some_and(|time| !REMEMBERED.contains(&time)) {
            let why = "`remember_ends` must be from 30 seconds to 24 hours";
            return Err(Error::misconfigured(operation::BUILD_STORE, why));
        }
        let pool = match self.source {
            Source::Pool(pool) => ready_pool(pool, settings, size)?,
            Source::At(address) => open_pool(*address, settings, size)?,
            Source::Url(url) => open_pool(Address::parse(&url)?, settings, size)?,
        };
        let partitions = self.partitions.unwrap_or(if pool.is_cluster() { PARTITIONS_IN_CLUSTER } else { 1 });
        let keys = Keys::new(self.prefix, self.mapper, partitions, pool.is_cluster())?;
        let publish = self.announces.then_some(if pool.is_cluster() { "SPUBLISH" } else { "PUBLISH" });
        let ends = Ends { publish, remember: self.remember };
        #[cfg(feature = "near-cache")]
        let near = self.near.map_or_else(|| Ok(Door::default()), |near| near.start(&pool, grace(self.expiring)))?;
        #[cfg(not(feature = "near-cache"))]
        let near = Door::default();
        Ok(RedisSessionStore::new(pool, keys, self.expiring, ends, near))
    }
}

/// Returns a pool that the application brings. It has its own settings already, so other ones would have no effect.
fn ready_pool(pool: RedisPool, settings: &Settings, size: Option<u32>) -> Result<RedisPool> {
    if settings.are_set() || size.is_some() {
        let why = "a ready pool has a deadline, a size, credentials and a TLS configuration already";
        return Err(Error::misconfigured(operation::BUILD_STORE, why));
    }
    Ok(pool)
}

/// Builds a pool for an address. Its connections are opened in the background.
fn open_pool(address: Address, settings: &Settings, size: Option<u32>) -> Result<RedisPool> {
    let size = size.unwrap_or_else(default_size);
    let manager = match address {
        Address::Server(client) => RedisConnectionManager::new(client)?,
        Address::Sentinel { name, sentinels, master } => RedisConnectionManager::sentinel(name, sentinels, master)?,
        Address::Cluster(nodes) => {
            address::check_cluster(&nodes)?;
            return RedisPool::cluster(&nodes, settings, size);
        }
    };
    RedisPool::with_size(manager.with(settings)?, size)
}
