//! A pool of connections to one server, to a master behind Sentinel, or to a cluster.
//!
//! Stores send all their commands through it, and an application may take connections from it.
//!
//! Invariant: one operation has one deadline, which covers the wait for a connection, the command, and the retry.

use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use r2d2::PooledConnection;
use redis::{Client, RedisResult, Value};

use super::circuit::Kind;
use super::cluster::Cluster;
use super::connection::RedisConnection;
use super::connector::{RedisConnectionManager, Settings};
use super::error::{self, Cause, Effect};
use super::server::{Outcome, Server};
use super::slots::slot;
use super::span::Span;
use super::threads;
use crate::observer::effort;
use crate::process::{self, Origin};
use crate::store::Health;
use crate::{Error, Observer, Result, operation};

/// The default limit of connections, unless rouille starts more threads than this.
const DEFAULT_POOL_SIZE: u32 = 64;

/// The most connections of a pool. r2d2 reserves memory for all of them at once, so a number without a bound could abort the program.
pub(crate) const LARGEST_POOL_SIZE: u32 = 65_535;

/// The number of threads that rouille starts for each core.
const THREADS_PER_CORE: u32 = 8;

pub(crate) fn default_size() -> u32 {
    thread::available_parallelism().map_or(DEFAULT_POOL_SIZE, size_for)
}

fn size_for(cores: NonZero<usize>) -> u32 {
    u32::try_from(cores.get())
        .unwrap_or(u32::MAX)
        .saturating_mul(THREADS_PER_CORE)
        .clamp(DEFAULT_POOL_SIZE, LARGEST_POOL_SIZE)
}

fn check_size(connections: u32) -> Result<()> {
    match connections {
        1..=LARGEST_POOL_SIZE => Ok(()),
        _ => Err(Error::misconfigured(operation::BUILD_POOL, "the size must be from 1 to 65535")),
    }
}

/// A pool of connections to Redis, which stores and the application can share.
///
/// The pool opens connections in the background, when they are needed. While Redis is unreachable, callers fail fast, and the
/// pool tries to connect until Redis responds: one attempt at a time, which a second one joins after a quarter of a second.
///
/// In a cluster, each node with slots has its own pool. An unreachable node affects only its own keys. Clones are cheap and
/// share the pool.
#[derive(Clone)]
pub struct RedisPool {
    topology: Topology,
    counts: Arc<Counts>,
    origin: Origin,
}

#[derive(Clone)]
enum Topology {
    Single(Arc<Server>),
    Cluster(Arc<Cluster>),
}

/// The server that a command goes to.
#[derive(Clone, Copy)]
pub(crate) enum To<'a> {
    /// The server that has this key.
    Key(&'a str),
    /// This server, whichever keys it has.
    Server(&'a Arc<Server>),
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    repeated: AtomicU64,
    failed: AtomicU64,
}

/// The reply to a command.
pub(crate) struct Answer {
    pub(crate) value: Value,
    /// True if the command was sent a second time, because the first connection died.
    pub(crate) repeated: bool,
}

impl RedisPool {
    /// Creates a pool of up to 64 connections, or of 8 for each core if that is more.
    ///
    /// Rouille starts 8 threads for each core, so this is enough for most servers. Nothing costs more time than a pool that is
    /// smaller than the number of threads that use it.
    ///
    /// # Panics
    ///
    /// Panics if the system cannot start a thread. [`with_size`](Self::with_size) returns an error instead.
    pub fn new(manager: RedisConnectionManager) -> Self {
        Self::with_size(manager, default_size()).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Creates a pool of at most this many connections, from 1 to 65535.
    ///
    /// Create it in the process that uses it: after `fork`, the child must create its own.
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if `connections` is 0 or above 65535.
    /// - Returns [`ErrorKind::Other`](crate::ErrorKind::Other) if the system cannot start a thread.
    pub fn with_size(manager: RedisConnectionManager, connections: u32) -> Result<Self> {
        check_size(connections)?;
        let settings = r2d2::Pool::builder().max_size(connections).thread_pool(threads::for_server()?);
        Ok(Self::of(Topology::Single(Server::open(manager, settings)?)))
    }

    /// Creates a pool with custom r2d2 settings, such as its size, its threads, and the lifetime of connections.
    ///
    /// This crate overwrites six settings, because its guarantees depend on them:
    ///
    /// - `min_idle` is 1, so that a connection is opened, and the end of an outage noticed, even without requests.
    /// - `test_on_check_out` is on. The test costs no I/O.
    /// - `connection_timeout` limits the pause between two attempts to connect.
    /// - `error_handler` is silent, because this crate logs each outage once.
    /// - `event_handler` and `connection_customizer` do nothing, because r2d2 loses a place in the pool for ever if one of them
    ///   panics. [`health`](crate::SessionStore::health) has the numbers of the pool.
    ///
    /// # Panics
    ///
    /// Panics if the system cannot start a thread. [`with_size`](Self::with_size) returns an error instead.
    pub fn with_settings(manager: RedisConnectionManager, settings: r2d2::Builder<RedisConnectionManager>) -> Self {
        let server = Server::open(manager, settings);
        Self::of(Topology::Single(server.unwrap_or_else(|error| panic!("{error:#}"))))
    }

    /// Creates a pool for the cluster that these nodes belong to, with at most this many connections to each node.
    pub(crate) fn cluster(nodes: &[Client], settings: &Settings, connections: u32) -> Result<Self> {
        check_size(connections)?;
        let cluster = Arc::new(Cluster::new(nodes, settings, connections)?);
        Ok(Self::of(Topology::Cluster(cluster)))
    }

    fn of(topology: Topology) -> Self {
        Self { topology, counts: Arc::default(), origin: Origin::here() }
    }

    /// Returns `true` if the pool is for a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// Returns a connection for custom commands, which goes back to the pool when it is dropped.
    ///
    /// It waits until the deadline at most, and not at all while Redis is known to be unreachable. A command on this
    /// connection is not retried if the connection dies. In a cluster, use [`get_for`](Self::get_for).
    ///
    /// A command that changes the connection itself, such as `SELECT` or `WATCH`, costs the pool a new connection; see
    /// [`RedisConnection`](crate::RedisConnection).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use threaded_sessions::{RedisSessionStore, redis};
    ///
    /// let store = RedisSessionStore::open("redis://127.0.0.1")?;
    /// let mut connection = store.pool().get()?;
    /// let visitors: u64 = redis::cmd("INCR").arg("visitors").query(&mut connection)?;
    /// # let _ = visitors;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - Returns [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), or a kind that names the cause, if Redis cannot be
    ///   reached.
    /// - Returns [`ErrorKind::TimedOut`](crate::ErrorKind::TimedOut) if all connections stay in use until the deadline.
    /// - Returns [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) in a cluster.
    /// - Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) if the pool was created before `fork`.
    pub fn get(&self) -> Result<PooledConnection<RedisConnectionManager>> {
        match self.topology {
            Topology::Single(_) => self.get_for(""),
            Topology::Cluster(_) => {
                Err(Error::unsupported(operation::CONNECT, "a cluster has many servers: say for which key"))
            }
        }
    }

    /// Returns a connection to the server that has this key.
    ///
    /// It does not follow redirections: if the key has moved to another node, a command fails with `MOVED`. In all other
    /// respects it is a connection as [`get`](Self::get) returns it.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Self::get), except for [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    pub fn get_for(&self, key: &str) -> Result<PooledConnection<RedisConnectionManager>> {
        self.origin.check(operation::CONNECT)?;
        let mut now = Instant::now();
        let until = now + self.deadline();
        let server = match &self.topology {
            Topology::Single(server) => server.clone(),
            Topology::Cluster(cluster) => cluster.owner(operation::CONNECT, until, slot(key.as_bytes()))?,
        };
        server.checkout(operation::CONNECT, None, &mut now, until)
    }

    fn deadline(&self) -> Duration {
        match &self.topology {
            Topology::Single(server) => server.manager.deadline(),
            Topology::Cluster(cluster) => cluster.manager().deadline(),
        }
    }

    /// # Errors
    ///
    /// Returns [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) in a child of the process.
    pub(crate) fn check_process(&self, operation: &'static str) -> Result<()> {
        self.origin.check(operation)
    }

    /// Returns the server that has a key or a channel now.
    pub(crate) fn server_of(&self, operation: &'static str, key: &str) -> Result<Arc<Server>> {
        self.origin.check(operation)?;
        match &self.topology {
            Topology::Single(server) => Ok(server.clone()),
            Topology::Cluster(cluster) => {
                cluster.latest_owner(operation, Instant::now() + self.deadline(), slot(key.as_bytes()))
            }
        }
    }

    /// Returns all servers, for operations that visit each of them.
    pub(crate) fn servers(&self, operation: &'static str) -> Result<Vec<Arc<Server>>> {
        self.origin.check(operation)?;
        match &self.topology {
            Topology::Single(server) => Ok(vec![server.clone()]),
            Topology::Cluster(cluster) => {
                cluster.owner(operation, Instant::now() + self.deadline(), 0)?;
                Ok(cluster.nodes())
            }
        }
    }

    /// Returns the address of the server, of the master with its Sentinels, or of the first node of a cluster, for operators.
    #[cfg(feature = "cli")]
    pub(crate) fn address(&self) -> &str {
        match &self.topology {
            Topology::Single(server) => server.manager.breaker().address(),
            Topology::Cluster(cluster) => cluster.manager().breaker().address(),
        }
    }

    /// Reports events of all connections to this observer, as long as it exists.
    pub(crate) fn observe(&self, observer: &Arc<dyn Observer>) {
        // The locks of the parent may be held for ever.
        if self.origin.is_here() {
            let manager = match &self.topology {
                Topology::Single(server) => &server.manager,
                Topology::Cluster(cluster) => cluster.manager(),
            };
            manager.breaker().watchers().add(observer);
        }
    }

    /// Returns the counters and the state of the pool.
    pub(crate) fn health(&self) -> Health {
        if !self.origin.is_here() {
            let last_error = Some(process::FORKED.to_owned());
            return Health { failing_for: Some(Duration::ZERO), last_error, ..Health::default() };
        }
        let servers = match &self.topology {
            Topology::Single(server) => vec![server.clone()],
            Topology::Cluster(cluster) => cluster.nodes(),
        };
        let mut health = Health {
            answered: self.counts.answered.load(Ordering::Relaxed),
            repeated: self.counts.repeated.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            ..Health::default()
        };
        let mut open = false;
        for server in &servers {
            let (state, breaker) = (server.pool.state(), server.manager.breaker());
            let failing_for = breaker.failing_since().map(|since| since.elapsed());
            health.failing_for = health.failing_for.max(failing_for);
            let waits_for_a_caller = failing_for.is_some() && breaker.waits_for_a_caller();
            health.half_open |= waits_for_a_caller;
            open |= failing_for.is_some() && !waits_for_a_caller;
            if let Some(error) = breaker.last_error().filter(|_| failing_for.is_some() || health.last_error.is_none()) {
                health.last_error = Some(Cause::of(&error).to_string());
            }
            health.connections_in_use += state.connections.saturating_sub(state.idle_connections);
            health.connections_idle += state.idle_connections;
            health.connections_max += server.pool.max_size();
        }
        // A cluster is half-open only if each failing node is. The keys of a node that is open fail fast.
        health.half_open &= !open;
        health
    }

    /// Begins an operation that sends several commands within one deadline, until the span is dropped.
    pub(crate) fn span(&self) -> Span {
        Span::begin(Instant::now() + self.deadline())
    }

    /// Sends one command and waits for its reply, within the deadline of the operation.
    ///
    /// If the connection dies, the command is sent once more over a new one. This is safe because every command of a store is
    /// idempotent, or recognises its own success.
    pub(crate) fn call(
        &self,
        operation: &'static str,
        effect: Effect,
        to: To<'_>,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Answer> {
        self.origin.check(operation)?;
        let until = Span::end().unwrap_or_else(|| Instant::now() + self.deadline());
        let result = call_with_retry(operation, effect, || self.send(operation, effect.kind(), until, to, &command));
        let count = match &result {
            Ok(Answer { repeated: false, .. }) => &self.counts.answered,
            Ok(Answer { repeated: true, .. }) => &self.counts.repeated,
            Err(_) => &self.counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn send(
        &self,
        operation: &'static str,
        kind: Kind,
        until: Instant,
        to: To<'_>,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Outcome> {
        match (to, &self.topology) {
            (To::Server(server), _) | (To::Key(_), Topology::Single(server)) => {
                server.send(operation, kind, until, command)
            }
            (To::Key(key), Topology::Cluster(cluster)) => cluster.send(operation, kind, until, key.as_bytes(), command),
        }
    }
}

fn call_with_retry(operation: &'static str, effect: Effect, send: impl Fn() -> Result<Outcome>) -> Result<Answer> {
    let failed = match send()? {
        Outcome::Replied(value) => return Ok(Answer { value, repeated: false }),
        Outcome::Failed(error) => error,
    };
    // A connection that was cut is worth a retry. After a timeout, no time is left.
    if !error::is_unanswered(&failed) || failed.is_timeout() {
        return Err(error::command_error(operation, effect, &failed));
    }
    effort::on_retry();
    match send() {
        Ok(Outcome::Replied(value)) => Ok(Answer { value, repeated: true }),
        // Return the first error, because the outcome of the first attempt is still unknown.
        _ if effect == Effect::Writes => Err(error::command_error(operation, effect, &failed)),
        Ok(Outcome::Failed(error)) => Err(error::command_error(operation, effect, &error)),
        Err(not_sent) => Err(not_sent),
    }
}

impl fmt::Debug for RedisPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topology {
            // The locks of the parent may be held for ever.
            _ if !self.origin.is_here() => f.debug_struct("RedisPool").finish_non_exhaustive(),
            Topology::Single(server) => f
                .debug_struct("RedisPool")
                .field("manager", &server.manager)
                .field("max_size", &server.pool.max_size())
                .field("state", &server.pool.state())
                .finish(),
            Topology::Cluster(cluster) => {
                f.debug_struct("RedisPool").field("cluster", cluster).field("max_size", &cluster.size()).finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_pool_size_covers_all_rouille_threads() {
        let size = |cores| size_for(NonZero::new(cores).unwrap());
        assert_eq!([1, 2, 8, 9, 64, usize::MAX].map(size), [64, 64, 64, 72, 512, 65_535]);
    }
}
