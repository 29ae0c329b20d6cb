use std::fmt;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use r2d2::PooledConnection;
use redis::{Client, RedisResult, Value};

use super::cluster::{self, Cluster};
use super::connection::RedisConnection;
use super::connector::{RedisConnectionManager, Settings};
use super::error::{self, Cause, Effect};
use super::server::Server;
use crate::store::Health;
use crate::{Error, Result, operation};

/// How many connections a pool opens at most, unless configured otherwise: so many, or as many as rouille starts threads where
/// that is more.
const DEFAULT_POOL_SIZE: u32 = 64;

/// How many threads rouille starts for each core.
const THREADS_PER_CORE: u32 = 8;

pub(crate) fn default_size() -> u32 {
    thread::available_parallelism().map_or(DEFAULT_POOL_SIZE, size_for)
}

fn size_for(cores: NonZero<usize>) -> u32 {
    u32::try_from(cores.get()).unwrap_or(u32::MAX).saturating_mul(THREADS_PER_CORE).max(DEFAULT_POOL_SIZE)
}

/// A pool of connections to a Redis, which stores and the application can share. Clones are the same pool.
///
/// It opens connections when they are needed, in the background, and never waits for one that Redis does not give: while
/// Redis is away, everybody fails at once, and one connection at a time is tried until it is back.
///
/// In a cluster it has a pool of this kind for each node that has slots, made when it is known. One that is away concerns
/// only the keys it has.
#[derive(Clone)]
pub struct RedisPool {
    topology: Topology,
    counts: Arc<Counts>,
}

#[derive(Clone)]
enum Topology {
    Single(Arc<Server>),
    Cluster(Arc<Cluster>),
}

/// Whom a command is for.
#[derive(Clone, Copy)]
pub(crate) enum To<'a> {
    /// The server that has this key.
    Key(&'a str),
    /// This one, whatever it has.
    Server(&'a Arc<Server>),
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    repeated: AtomicU64,
    failed: AtomicU64,
}

/// What Redis answered.
pub(crate) struct Answer {
    pub(crate) value: Value,
    /// The command was sent a second time, after the first connection died over it.
    pub(crate) repeated: bool,
}

impl RedisPool {
    /// A pool of up to 64 connections, or 8 for each core where that is more, as many as rouille starts threads: enough for
    /// the threads of most servers. A pool that is smaller than the number of threads that use it costs more than anything
    /// else.
    pub fn new(manager: RedisConnectionManager) -> Self {
        Self::with_settings(manager, r2d2::Pool::builder().max_size(default_size()))
    }

    /// A pool of at most this many connections.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misconfigured`] for none.
    pub fn with_size(manager: RedisConnectionManager, connections: u32) -> Result<Self> {
        if connections == 0 {
            return Err(Self::empty());
        }
        Ok(Self::with_settings(manager, r2d2::Pool::builder().max_size(connections)))
    }

    /// A pool with r2d2 settings of one's own: its size, its threads, how long connections live. Four settings are this
    /// crate's, because its promises rest on them: `min_idle` is 1 (with none, nothing would find out that Redis is back),
    /// `test_on_check_out` is on (the test costs no I/O), `connection_timeout` bounds the pause between two attempts to
    /// connect, and the `error_handler` is silent, for an outage is logged once.
    pub fn with_settings(manager: RedisConnectionManager, settings: r2d2::Builder<RedisConnectionManager>) -> Self {
        Self { topology: Topology::Single(Server::open(manager, settings)), counts: Arc::default() }
    }

    /// A pool for the cluster in which these are nodes, with this many connections to each at most.
    pub(crate) fn cluster(nodes: &[Client], settings: &Settings, connections: u32) -> Result<Self> {
        if connections == 0 {
            return Err(Self::empty());
        }
        let cluster = Arc::new(Cluster::new(nodes, settings, connections)?);
        Ok(Self { topology: Topology::Cluster(cluster), counts: Arc::default() })
    }

    fn empty() -> Error {
        Error::misconfigured(operation::BUILD_POOL, "its size is zero")
    }

    /// Whether it is for a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }

    /// A connection, for commands of one's own; it goes back when dropped. Waits at most for the deadline, and not at all
    /// while Redis is away. A command on it is not sent a second time if the connection dies over it. In a cluster take
    /// [`get_for`](Self::get_for).
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
    /// What keeps Redis from being reached, mostly [`ErrorKind::Unavailable`]; [`ErrorKind::TimedOut`] if no connection came
    /// free; [`ErrorKind::Unsupported`] in a cluster.
    pub fn get(&self) -> Result<PooledConnection<RedisConnectionManager>> {
        match self.topology {
            Topology::Single(_) => self.get_for(""),
            Topology::Cluster(_) => {
                Err(Error::unsupported(operation::CONNECT, "a cluster has many servers: say for which key"))
            }
        }
    }

    /// A connection to the server that has this key, as [`get`](Self::get) gives one. Redirections are not followed on it: a
    /// key that moved meanwhile is answered with `MOVED`.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn get_for(&self, key: &str) -> Result<PooledConnection<RedisConnectionManager>> {
        let until = Instant::now() + self.deadline();
        match &self.topology {
            Topology::Single(server) => server.checkout(operation::CONNECT, until),
            Topology::Cluster(cluster) => cluster
                .owner(operation::CONNECT, until, cluster::slot(key.as_bytes()))?
                .checkout(operation::CONNECT, until),
        }
    }

    fn deadline(&self) -> Duration {
        match &self.topology {
            Topology::Single(server) => server.manager.deadline(),
            Topology::Cluster(cluster) => cluster.manager().deadline(),
        }
    }

    /// All servers, for what goes through their keys.
    pub(crate) fn servers(&self, operation: &'static str) -> Result<Vec<Arc<Server>>> {
        match &self.topology {
            Topology::Single(server) => Ok(vec![server.clone()]),
            Topology::Cluster(cluster) => {
                cluster.owner(operation, Instant::now() + self.deadline(), 0)?;
                Ok(cluster.nodes())
            }
        }
    }

    /// How the pool is doing.
    pub(crate) fn health(&self) -> Health {
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
        for server in &servers {
            let (state, breaker) = (server.pool.state(), server.manager.breaker());
            let failing_for = breaker.failing_since().map(|since| since.elapsed());
            health.failing_for = health.failing_for.max(failing_for);
            if let Some(error) = breaker.last_error().filter(|_| failing_for.is_some() || health.last_error.is_none()) {
                health.last_error = Some(Cause::of(&error).to_string());
            }
            health.connections_in_use += state.connections.saturating_sub(state.idle_connections);
            health.connections_idle += state.idle_connections;
            health.connections_max += server.pool.max_size();
        }
        health
    }

    /// Sends one command and waits for its answer, within the deadline.
    ///
    /// If the connection dies over it the command is sent once more on a fresh one. Every command of a store either does
    /// no harm twice or recognises that it was carried out before.
    pub(crate) fn call(
        &self,
        operation: &'static str,
        effect: Effect,
        to: To<'_>,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Answer> {
        let result = self.attempt(operation, effect, to, command);
        let count = match &result {
            Ok(Answer { repeated: false, .. }) => &self.counts.answered,
            Ok(Answer { repeated: true, .. }) => &self.counts.repeated,
            Err(_) => &self.counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn attempt(
        &self,
        operation: &'static str,
        effect: Effect,
        to: To<'_>,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Answer> {
        let until = Instant::now() + self.deadline();
        let send = || match (to, &self.topology) {
            (To::Server(server), _) | (To::Key(_), Topology::Single(server)) => server.send(operation, until, &command),
            (To::Key(key), Topology::Cluster(cluster)) => cluster.send(operation, until, key.as_bytes(), &command),
        };
        match send()? {
            Ok(value) => Ok(Answer { value, repeated: false }),
            Err(lost) if error::is_unanswered(&lost) && !lost.is_timeout() => {
                let again =
                    send().and_then(|answer| answer.map_err(|error| error::command_error(operation, effect, &error)));
                match again {
                    Ok(value) => Ok(Answer { value, repeated: true }),
                    // The second failure says nothing about the first attempt.
                    Err(_) if effect == Effect::Writes => Err(error::command_error(operation, effect, &lost)),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error::command_error(operation, effect, &error)),
        }
    }
}

impl fmt::Debug for RedisPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topology {
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
    fn a_pool_is_as_large_as_the_threads_of_a_server_are_many() {
        let size = |cores| size_for(NonZero::new(cores).unwrap());
        assert_eq!([1, 2, 8, 9, 64, usize::MAX].map(size), [64, 64, 64, 72, 512, u32::MAX]);
    }
}
