//! One server with its pool of connections, or the master that Sentinel names.
//!
//! A pool has one of these, a cluster one for each node. Commands are sent and connections are checked out here.
//!
//! Invariant: no caller waits for a connection while the [circuit breaker](super::breaker) makes callers fail fast. In a child
//! of the process nothing is taken from the pool, and the pool is not dropped.

use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use r2d2::PooledConnection;
use redis::{RedisError, RedisResult, Value};

use super::breaker::Permit;
use super::circuit::Kind;
use super::connection::{NO_TIME, RedisConnection};
use super::connector::RedisConnectionManager;
use super::error::{self, Cause};
use super::threads;
use crate::observer::effort::Wait;
use crate::process::Origin;
use crate::{Error, ErrorKind, Result, fence};

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
    origin: Origin,
}

impl Server {
    /// Opens a pool of connections with these settings, which bring the threads to open them in.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Other`] if Sentinel names the server and the system cannot start a thread that follows it.
    pub(crate) fn open(
        manager: RedisConnectionManager,
        settings: r2d2::Builder<RedisConnectionManager>,
    ) -> Result<Arc<Self>> {
        let pool = settings
            .min_idle(Some(1))
            .test_on_check_out(true)
            .connection_timeout(Duration::from_millis(200))
            .error_handler(Box::new(r2d2::NopErrorHandler))
            // r2d2 loses a place in the pool if one of these panics, and it offers no place for a fence.
            .event_handler(Box::new(r2d2::NopEventHandler))
            .connection_customizer(Box::new(r2d2::NopConnectionCustomizer))
            .build_unchecked(manager.clone());
        let server = Arc::new(Self { pool, manager, origin: Origin::here() });
        if server.manager.follows_a_master() {
            server.watch_master()?;
        }
        Ok(server)
    }

    /// Starts a thread that asks Sentinel for a new master at intervals, until the server is dropped.
    fn watch_master(self: &Arc<Self>) -> Result<()> {
        let server = Arc::downgrade(self);
        let watch = move || {
            while let Some(server) = server.upgrade() {
                // The thread must survive a panic, because it is the only one that notices an ordered failover.
                if fence::call(|| server.manager.follow_new_master()).unwrap_or(false) {
                    server.replace_idle_connections();
                }
                drop(server);
                thread::sleep(MASTER_CHECK_INTERVAL);
            }
        };
        let started = thread::Builder::new().name("redis-master".to_owned()).spawn(watch);
        started.map(drop).map_err(threads::none)
    }

    /// Sends a command over one connection.
    ///
    /// # Errors
    ///
    /// Returns an error if the command was not sent.
    pub(crate) fn send(
        &self,
        operation: &'static str,
        kind: Kind,
        until: Instant,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Outcome> {
        match self.send_once(operation, kind, until, &command)? {
            // A demoted master did nothing. If there is a new master by now, the next connection leads to it.
            Outcome::Failed(error) if self.manager.follows_a_master() && error::cannot_serve(&error) => {
                self.send_once(operation, kind, until, &command)
            }
            outcome => Ok(outcome),
        }
    }

    fn send_once(
        &self,
        operation: &'static str,
        kind: Kind,
        until: Instant,
        command: impl Fn(&mut RedisConnection) -> RedisResult<Value>,
    ) -> Result<Outcome> {
        // Get the permit first, so that other callers fail fast while the probe waits for a connection.
        let (mut connection, now, permit) = self.admit(operation, kind, until).inspect_err(|_| self.count_failure())?;
        let result = connection.with_permit(permit, now, until, command);
        let refusal = connection.take_refusal();
        // Return the connection to the pool first, so that a spoiled connection makes room for another.
        drop(connection);
        match (result, refusal) {
            (Ok(value), _) => Ok(Outcome::Replied(value)),
            (Err(_), Some(error)) => {
                self.count_failure();
                if Instant::now() >= until {
                    return Err(Error::new(ErrorKind::TimedOut, operation).with_source(Cause::of(&error)));
                }
                Err(error::connect_error(operation, &error))
            }
            (Err(error), None) => {
                self.manager.breaker().on_error(&error);
                if error::is_unanswered(&error) {
                    self.count_failure();
                }
                self.replace_idle_connections();
                Ok(Outcome::Failed(error))
            }
        }
    }

    /// Returns a connection, the time at which it was free, and the permission to send commands of this kind over it.
    fn admit(
        &self,
        operation: &'static str,
        kind: Kind,
        until: Instant,
    ) -> Result<(PooledConnection<RedisConnectionManager>, Instant, Permit)> {
        let permit =
            self.manager.breaker().admit_soon(kind, until).map_err(|error| error::connect_error(operation, &error))?;
        let mut now = Instant::now();
        Ok((self.checkout(operation, Some(kind), &mut now, until)?, now, permit))
    }

    /// Counts an operation that failed, for the log of an outage.
    fn count_failure(&self) {
        self.manager.breaker().on_failed_operation();
    }

    /// Makes r2d2 drop the idle connections that are no longer valid, and open a new one.
    ///
    /// The new connection is the probe that notices the end of an outage, even if no request comes.
    fn replace_idle_connections(&self) {
        drop(self.pool.try_get());
    }

    /// Takes a connection from the pool. Waits for one until the deadline, unless the server cannot be reached, and takes none if
    /// the deadline has passed. The application's own commands are of no kind until they are sent. A wait moves `now`.
    pub(crate) fn checkout(
        &self,
        operation: &'static str,
        kind: Option<Kind>,
        now: &mut Instant,
        until: Instant,
    ) -> Result<PooledConnection<RedisConnectionManager>> {
        let (mut wait, mut waiting) = (FIRST_CHECKOUT_WAIT, None);
        loop {
            while *now < until
                && let Some(mut connection) = self.pool.try_get()
            {
                if connection.is_alive(now, until) {
                    return Ok(connection);
                }
            }
            waiting.get_or_insert_with(Wait::begin);
            self.check(kind).map_err(|error| error::connect_error(operation, &error))?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let why = match self.pool.state().connections {
                    _ if wait == FIRST_CHECKOUT_WAIT => NO_TIME.to_owned(),
                    0 => "no connection was opened".to_owned(),
                    _ => format!("none of up to {} connections came free", self.pool.max_size()),
                };
                return Err(Error::new(ErrorKind::TimedOut, operation).with_source(why));
            }
            let connection = self.pool.get_timeout(left.min(wait));
            *now = Instant::now();
            if let Ok(mut connection) = connection
                && *now < until
                && connection.is_alive(now, until)
            {
                return Ok(connection);
            }
            wait *= 2;
        }
    }

    /// Returns the last error if callers must fail fast, because the server cannot be reached.
    pub(crate) fn check(&self, kind: Option<Kind>) -> RedisResult<()> {
        self.manager.breaker().check(kind)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In a child of the process, a lock of the pool may be held by a thread that does not exist there. The connections
        // belong to the parent. So the child keeps the pool for ever, by a reference that is never dropped.
        if !self.origin.is_here() {
            mem::forget(self.pool.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::commands::command;
    use super::super::idle::Verdict;
    use super::*;
    use crate::operation;

    const DEADLINE: Duration = Duration::from_secs(1);

    /// Opens a pool of one connection to a server that replies by this function, and waits for the connection.
    fn open(reply: impl Fn(&str) -> &'static str + Send + 'static) -> Arc<Server> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                let reply = reply(str::from_utf8(&bytes[..count]).unwrap());
                stream.write_all(reply.as_bytes()).unwrap();
            }
        });
        let manager = RedisConnectionManager::open(&url).unwrap().with_deadline(DEADLINE).unwrap();
        let settings = r2d2::Pool::builder().max_size(1).thread_pool(threads::for_server().unwrap());
        let server = Server::open(manager.with_test_seams(None, Duration::ZERO), settings).unwrap();
        drop(server.pool.get_timeout(DEADLINE * 20).unwrap());
        server
    }

    fn not_sent(result: Result<Outcome>) -> ErrorKind {
        result.map(|_| "it was sent").unwrap_err().kind()
    }

    #[test]
    fn operation_without_time_sends_nothing() {
        let server = open(|_| "+PONG\r\n");
        let send = |connection: &mut RedisConnection| command("DEL", "key").query(connection);
        let result = server.send(operation::CONNECT, Kind::Others, Instant::now(), send);
        assert_eq!(not_sent(result), ErrorKind::TimedOut);
        assert!(server.pool.try_get().is_some(), "the connection is still good");
    }

    #[test]
    fn later_command_without_time_is_not_sent() {
        let server = open(|request| if request.contains("EVALSHA") { "-NOSCRIPT unknown\r\n" } else { "+PONG\r\n" });
        let until = Instant::now() + DEADLINE / 5;
        let result = server.send(operation::CONNECT, Kind::Others, until, |connection| {
            let unknown: RedisResult<Value> = redis::cmd("EVALSHA").arg("sha").arg(0).query(connection);
            assert_eq!(unknown.unwrap_err().code(), Some("NOSCRIPT"));
            thread::sleep(until.saturating_duration_since(Instant::now()));
            let result = command("EVAL", "script").arg(0).query(connection);
            assert!(!connection.is_spoiled());
            result
        });
        assert_eq!(not_sent(result), ErrorKind::TimedOut);
    }

    #[test]
    fn test_without_its_time_condemns_no_connection() {
        let pings = AtomicUsize::new(0);
        let server = open(move |_| if pings.fetch_add(1, Ordering::Relaxed) == 0 { "+PONG\r\n" } else { "" });
        let (begun, mut connection) = (Instant::now(), server.pool.try_get().unwrap());
        let mut now = Instant::now();
        assert!(!connection.is_alive(&mut now, begun + DEADLINE / 50));
        assert_eq!(server.manager.idle_test().judge(begun, Instant::now()), Verdict::Test);
    }
}
