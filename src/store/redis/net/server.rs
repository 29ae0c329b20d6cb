//! One server with its pool of connections, or the master that Sentinel names.
//!
//! A pool has one of these, a cluster one for each node. Commands are sent and connections are checked out here.
//!
//! Invariant: no caller waits for a connection while the [circuit breaker](super::breaker) makes callers fail fast.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use r2d2::PooledConnection;
use redis::{RedisError, RedisResult, Value};

use super::connection::RedisConnection;
use super::connector::RedisConnectionManager;
use super::error;
use crate::{Error, ErrorKind, Result};

/// How long a caller first waits for a connection before it checks the circuit breaker again, because r2d2 does not report
/// that connecting failed. Each wait is twice as long as the one before, because r2d2 opens another connection for each.
const FIRST_CHECKOUT_WAIT: Duration = Duration::from_millis(10);

/// How often Sentinel is asked for a new master, in addition to each time a connection is opened.
const MASTER_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The outcome of a command that was sent.
///
/// Functions that send return `Result<Outcome>`. Their error means that no server carried out the command.
pub(crate) enum Outcome {
    Replied(Value),
    /// The server replied with an error, or no reply came. [`error::is_unanswered`] distinguishes the two.
    Failed(RedisError),
}

impl Outcome {
    pub(crate) fn into_result(self) -> RedisResult<Value> {
        match self {
            Self::Replied(value) => Ok(value),
            Self::Failed(error) => Err(error),
        }
    }
}

/// One server, or the master that Sentinel names, with the pool of its connections.
pub(crate) struct Server {
    pub(crate) pool: r2d2::Pool<RedisConnectionManager>,
    pub(crate) manager: RedisConnectionManager,
}

impl Server {
    pub(crate) fn open(manager: RedisConnectionManager, settings: r2d2::Builder<RedisConnectionManager>) -> Arc<Self> {
        let pool = settings
            .min_idle(Some(1))
            .test_on_check_out(true)
            .connection_timeout(Duration::from_millis(200))
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .build_unchecked(manager.clone());
        let server = Arc::new(Self { pool, manager });
        if server.manager.follows_a_master() {
            server.watch_master();
        }
        server
    }

    /// Starts a thread that asks Sentinel for a new master at intervals, until the server is dropped.
    fn watch_master(self: &Arc<Self>) {
        let server = Arc::downgrade(self);
        let watch = move || {
            while let Some(server) = server.upgrade() {
                if server.manager.follow_new_master() {
                    server.replace_idle_connections();
                }
                drop(server);
                thread::sleep(MASTER_CHECK_INTERVAL);
            }
        };
        // If the thread cannot start, connections that fail still reveal a new master.
        let _ = thread::Builder::new().name("redis-master".to_owned()).spawn(watch);
    }

    /// Sends a command over one connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the command was not sent.
    pub(crate) fn send(
        &self,
        operation: &'static str,
        until: Instant,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Outcome> {
        match self.send_once(operation, until, &command)? {
            // A demoted master did nothing. If there is a new master by now, the next connection leads to it.
            Outcome::Failed(error) if self.manager.follows_a_master() && error::cannot_serve(&error) => {
                self.send_once(operation, until, &command)
            }
            outcome => Ok(outcome),
        }
    }

    fn send_once(
        &self,
        operation: &'static str,
        until: Instant,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Outcome> {
        let mut connection = self.checkout(operation, until)?;
        let result = connection.with_deadline(until, command);
        // Return the connection to the pool first, so that a spoiled connection makes room for another.
        drop(connection);
        Ok(match result {
            Ok(value) => Outcome::Replied(value),
            Err(error) => {
                self.manager.breaker().on_error(&error);
                self.replace_idle_connections();
                Outcome::Failed(error)
            }
        })
    }

    /// Makes r2d2 drop the idle connections that are no longer valid, and open a new one.
    ///
    /// The new connection is the probe that notices the end of an outage, even if no request comes.
    fn replace_idle_connections(&self) {
        drop(self.pool.try_get());
    }

    /// Takes a connection from the pool. Waits for one until the deadline, unless the circuit breaker is open.
    pub(crate) fn checkout(
        &self,
        operation: &'static str,
        until: Instant,
    ) -> Result<PooledConnection<RedisConnectionManager>> {
        let mut wait = FIRST_CHECKOUT_WAIT;
        loop {
            while let Some(mut connection) = self.pool.try_get() {
                if connection.is_alive(until) {
                    return Ok(connection);
                }
            }
            self.check().map_err(|error| error::connect_error(operation, &error))?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = format!("none of up to {} connections came free", self.pool.max_size());
                return Err(Error::new(ErrorKind::TimedOut, operation).with_source(why));
            }
            if let Ok(mut connection) = self.pool.get_timeout(left.min(wait))
                && connection.is_alive(until)
            {
                return Ok(connection);
            }
            wait *= 2;
        }
    }

    /// Returns the last error if callers must fail fast.
    pub(crate) fn check(&self) -> RedisResult<()> {
        self.manager.breaker().check()
    }
}
