use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use r2d2::PooledConnection;
use redis::{RedisResult, Value};

use super::connection::{RedisConnection, RedisConnectionManager};
use super::failure::{self, Cause, Effect};
use crate::store::Health;
use crate::{Error, ErrorKind, Result};

/// How many connections a pool opens at most, unless configured otherwise.
const SIZE: u32 = 64;

/// How long somebody who waits for a connection waits before looking whether it still makes sense, for r2d2 tells nobody
/// that connecting failed. Each wait is twice as long as the one before: r2d2 opens another connection for each.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// A pool of connections to one Redis, which stores and the application can share. Clones are the same pool.
///
/// It opens connections when they are needed, in the background, and never waits for one that Redis does not give: while
/// Redis is away, everybody fails at once, and one connection at a time is tried until it is back.
#[derive(Clone)]
pub struct RedisPool {
    pool: r2d2::Pool<RedisConnectionManager>,
    manager: RedisConnectionManager,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    answered: AtomicU64,
    repeated: AtomicU64,
    failed: AtomicU64,
}

/// What Redis answered.
pub(super) struct Answer {
    pub(super) value: Value,
    /// The command was sent a second time, after the first connection died over it.
    pub(super) repeated: bool,
}

impl RedisPool {
    /// A pool of up to 64 connections: enough for the threads of most servers. A pool that is smaller than the number of
    /// threads that use it costs more than anything else.
    pub fn new(manager: RedisConnectionManager) -> Self {
        Self::build(manager, r2d2::Pool::builder().max_size(SIZE))
    }

    /// A pool of at most this many connections.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misconfigured`] for none.
    pub fn with_size(manager: RedisConnectionManager, connections: u32) -> Result<Self> {
        if connections == 0 {
            return Err(Error::new(ErrorKind::Misconfigured, "building a pool").with_source("its size is zero"));
        }
        Ok(Self::build(manager, r2d2::Pool::builder().max_size(connections)))
    }

    /// A pool with r2d2 settings of one's own: its size, its threads, how long connections live. Four settings are this
    /// crate's, because its promises rest on them: `min_idle` is 1 (with none, nothing would find out that Redis is back),
    /// `test_on_check_out` is on (the test costs no I/O), `connection_timeout` bounds the pause between two attempts to
    /// connect, and the `error_handler` is silent, for an outage is logged once.
    pub fn build(manager: RedisConnectionManager, settings: r2d2::Builder<RedisConnectionManager>) -> Self {
        let pool = settings
            .min_idle(Some(1))
            .test_on_check_out(true)
            .connection_timeout(Duration::from_millis(200))
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(manager.clone());
        Self { pool, manager, counts: Arc::default() }
    }

    /// A connection, for commands of one's own; it goes back when dropped. Waits at most for the deadline, and not at all
    /// while Redis is away. A command on it is not sent a second time if the connection dies over it.
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
    /// free.
    pub fn get(&self) -> Result<PooledConnection<RedisConnectionManager>> {
        self.checkout("connecting to Redis", Instant::now() + self.manager.deadline())
    }

    /// How the pool is doing.
    pub(super) fn health(&self) -> Health {
        let (state, link) = (self.pool.state(), self.manager.link());
        Health {
            failing_for: link.failing_since().map(|since| since.elapsed()),
            last_error: link.last_error().map(|error| Cause::of(&error).to_string()),
            connections_in_use: state.connections.saturating_sub(state.idle_connections),
            connections_idle: state.idle_connections,
            connections_max: self.pool.max_size(),
            answered: self.counts.answered.load(Ordering::Relaxed),
            repeated: self.counts.repeated.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
        }
    }

    /// Sends one command and waits for its answer, within the deadline.
    ///
    /// If the connection dies over it the command is sent once more on a fresh one. Every command of a store either does
    /// no harm twice or recognises that it was carried out before.
    pub(super) fn call(
        &self,
        doing: &'static str,
        effect: Effect,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Answer> {
        let result = self.attempt(doing, effect, command);
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
        doing: &'static str,
        effect: Effect,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Answer> {
        let until = Instant::now() + self.manager.deadline();
        match self.send(doing, until, &command)? {
            Ok(value) => Ok(Answer { value, repeated: false }),
            Err(lost) if failure::is_unanswered(&lost) && !lost.is_timeout() => {
                let again = self
                    .send(doing, until, &command)
                    .and_then(|answer| answer.map_err(|error| failure::of_command(doing, effect, &error)));
                match again {
                    Ok(value) => Ok(Answer { value, repeated: true }),
                    // The second failure says nothing about the first attempt.
                    Err(_) if effect == Effect::Writes => Err(failure::of_command(doing, effect, &lost)),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(failure::of_command(doing, effect, &error)),
        }
    }

    /// Sends a command over one connection. The outer error: it was not sent.
    fn send(
        &self,
        doing: &'static str,
        until: Instant,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<RedisResult<Value>> {
        let mut connection = self.checkout(doing, until)?;
        let answer = connection.by(until, command);
        drop(connection);
        if let Err(error) = &answer {
            self.manager.link().note(error);
            // The idle connections may have become useless with this one. Taking one out has r2d2 throw them away and open
            // another, which finds out when Redis is back, also if nobody asks any more.
            drop(self.pool.try_get());
        }
        Ok(answer)
    }

    fn checkout(&self, doing: &'static str, until: Instant) -> Result<PooledConnection<RedisConnectionManager>> {
        let mut look = FIRST_LOOK;
        loop {
            if let Some(connection) = self.pool.try_get() {
                return Ok(connection);
            }
            if let Some(error) = self.manager.link().refusal() {
                return Err(failure::of_connect(doing, &error));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!("none of up to {} connections came free", self.pool.max_size());
                return Err(Error::new(ErrorKind::TimedOut, doing).with_source(why));
            }
            if let Ok(connection) = self.pool.get_timeout(left.min(look)) {
                return Ok(connection);
            }
            look *= 2;
        }
    }
}

impl fmt::Debug for RedisPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPool")
            .field("manager", &self.manager)
            .field("max_size", &self.pool.max_size())
            .field("state", &self.pool.state())
            .finish()
    }
}
