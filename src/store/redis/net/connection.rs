//! One connection to Redis, with a deadline, which reports how it fails.
//!
//! The connector opens it and r2d2 keeps it in the pool. Stores send all their commands over it, and an application may take
//! one from the pool.
//!
//! Invariant: a connection over which no valid reply came is never used again, because the next reply could belong to an
//! earlier command. It also reports to the [circuit breaker](super::breaker), so that its whole generation goes.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionLike, RedisError, RedisResult, Value};

use super::breaker::Breaker;
use super::connector::RedisConnectionManager;
use super::error;
use super::idle::{IdleTest, Verdict};
use super::limit::Limit;
use super::wire::Wire;

/// The buffer for packing commands stays no larger than this.
const MAX_BUFFER_BYTES: usize = 16 * 1024;

/// How long a connection to a server that cannot serve is kept at least.
///
/// It is replaced, because the address may lead to another server by now. It is not replaced after every command, because a
/// busy program would run out of ports.
const MIN_CONNECTION_AGE: Duration = Duration::from_millis(500);

/// A connection from the pool, also for custom commands: `redis::cmd("GET").arg(key).query(&mut connection)`.
///
/// A command, or a pipeline as a whole, has the deadline of the pool. A connection that fails leaves the pool.
pub struct RedisConnection {
    wire: Wire,
    db: i64,
    /// The generation that it belongs to. Once one connection has failed, its whole generation is suspect.
    generation: u64,
    opened: Instant,
    deadline: Duration,
    /// When the last exchange over it began, or when it was opened.
    last_used: Instant,
    /// The end of the current operation. Without it, each command has the whole deadline.
    until: Option<Instant>,
    /// True if each command needs `ASKING`, because this node of a cluster is importing the slot.
    asking: bool,
    /// The buffer in which commands are packed.
    packed: Vec<u8>,
    /// True if the connection must leave the pool.
    spoiled: bool,
    /// True if Sentinel names the server.
    follows_a_master: bool,
    breaker: Arc<Breaker>,
    idle_test: Arc<IdleTest>,
}

impl RedisConnection {
    /// Wraps the wire to database `db` that was opened just now, as a connection of this generation.
    pub(crate) fn new(wire: Wire, db: i64, generation: u64, manager: &RedisConnectionManager) -> Self {
        let now = Instant::now();
        Self {
            wire,
            db,
            generation,
            opened: now,
            deadline: manager.deadline(),
            last_used: now,
            until: None,
            asking: false,
            packed: Vec::new(),
            spoiled: false,
            follows_a_master: manager.follows_a_master(),
            breaker: manager.shared_breaker(),
            idle_test: manager.idle_test(),
        }
    }

    /// Returns `true` if no connection of its generation has failed.
    pub(crate) fn is_current(&self) -> bool {
        self.breaker.is_current(self.generation)
    }

    /// Returns `true` if it must leave the pool.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// Runs commands that must end by `until`.
    pub(crate) fn with_deadline<R>(&mut self, until: Instant, run: impl FnOnce(&mut Self) -> R) -> R {
        self.until = Some(until);
        let result = run(self);
        self.until = None;
        result
    }

    /// Runs commands in a slot that this node is importing.
    pub(crate) fn asking<R>(&mut self, run: impl FnOnce(&mut Self) -> R) -> R {
        self.asking = true;
        let result = run(self);
        self.asking = false;
        result
    }

    /// Tests the connection if it was idle for long. Returns `false` if it is dead, so that the caller drops it.
    ///
    /// The test takes a quarter of the deadline at most. A silent connection is no outage, because a new one may work.
    pub(crate) fn is_alive(&mut self, until: Instant) -> bool {
        let verdict = self.idle_test.judge(self.last_used);
        if verdict == Verdict::Test {
            let limit = Limit::until(until, self.deadline).at_most(self.deadline / 4);
            match self.wire.query(&redis::cmd("PING"), limit) {
                Err(error) if error.is_timeout() => self.idle_test.on_silence(),
                Err(error) if error::is_unanswered(&error) => {
                    self.breaker.on_connection_lost(self.generation, &error);
                }
                // An error reply is a reply.
                _ => {
                    self.last_used = Instant::now();
                    return true;
                }
            }
        }
        self.spoiled |= verdict != Verdict::Use;
        !self.spoiled
    }

    /// Sends two commands in one pipeline and returns both replies.
    ///
    /// # Errors
    ///
    /// Returns the error of the first command that fails.
    pub(crate) fn pipeline2(&mut self, first: &Cmd, second: &Cmd) -> RedisResult<[Value; 2]> {
        self.run([first, second])
    }

    /// Sends up to seven commands in one pipeline and returns their replies.
    ///
    /// # Errors
    ///
    /// Returns the error of the first command that fails.
    pub(crate) fn pipeline(&mut self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        Ok(match commands {
            [] => Vec::new(),
            [a] => self.run([a])?.into(),
            [a, b] => self.run([a, b])?.into(),
            [a, b, c] => self.run([a, b, c])?.into(),
            [a, b, c, d] => self.run([a, b, c, d])?.into(),
            [a, b, c, d, e] => self.run([a, b, c, d, e])?.into(),
            [a, b, c, d, e, f] => self.run([a, b, c, d, e, f])?.into(),
            [a, b, c, d, e, f, g, ..] => self.run([a, b, c, d, e, f, g])?.into(),
        })
    }

    /// Sends commands in one write and waits for a reply to each.
    fn run<const N: usize>(&mut self, commands: [&Cmd; N]) -> RedisResult<[Value; N]> {
        let mut packed = mem::take(&mut self.packed);
        packed.clear();
        for command in commands {
            if self.asking {
                redis::cmd("ASKING").write_packed_command(&mut packed);
            }
            command.write_packed_command(&mut packed);
        }
        let replies = self.exchange(&packed);
        // Free a buffer that one large command needed.
        if packed.capacity() <= MAX_BUFFER_BYTES {
            self.packed = packed;
        }
        replies
    }

    /// Sends packed commands, receives `N` replies and reports a failure.
    fn exchange<const N: usize>(&mut self, packed: &[u8]) -> RedisResult<[Value; N]> {
        let (limit, allowed) = self.begin();
        let replies = self.send_and_receive(packed, limit);
        if let Err(error) = &replies {
            self.on_failure(error, allowed);
        }
        replies
    }

    /// Begins an exchange. Returns its limit, and how long it may take.
    fn begin(&mut self) -> (Limit, Duration) {
        let now = Instant::now();
        self.last_used = now;
        let until = self.until.unwrap_or_else(|| now + self.deadline);
        let allowed = until.saturating_duration_since(now);
        // An error names the deadline unless a good part of it had passed before.
        let named = if allowed > self.deadline * 9 / 10 { self.deadline } else { allowed };
        (Limit::until(until, named), allowed)
    }

    fn send_and_receive<const N: usize>(&mut self, packed: &[u8], limit: Limit) -> RedisResult<[Value; N]> {
        self.wire.send(packed, limit)?;
        let mut replies = [const { Value::Nil }; N];
        // Receive all replies before looking for errors, so that none is left on the connection.
        for reply in &mut replies {
            if self.asking {
                self.wire.receive()?;
            }
            *reply = self.wire.receive()?;
        }
        self.wire.finish();
        match replies.iter().find_map(error_reply) {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }

    /// Sends a packed pipeline and receives its replies, of which the first `skipped` acknowledge the parts of a transaction.
    ///
    /// # Errors
    ///
    /// Returns the error of the first part of a transaction that is refused. Other error replies are among the replies.
    fn send_pipeline(&mut self, packed: &[u8], skipped: usize, count: usize, limit: Limit) -> RedisResult<Vec<Value>> {
        self.wire.send(packed, limit)?;
        let mut refused = None;
        for _ in 0..skipped {
            let reply = self.wire.receive()?;
            refused = refused.or_else(|| error_reply(&reply));
        }
        let replies = (0..count).map(|_| self.wire.receive()).collect::<RedisResult<_>>()?;
        self.wire.finish();
        refused.map_or(Ok(replies), Err)
    }

    /// Decides what the failure of a command means for this connection and its generation. `allowed` is the time that the
    /// command had, to send it and to receive the reply.
    fn on_failure(&mut self, error: &RedisError, allowed: Duration) {
        if error::is_unanswered(error) {
            self.spoiled = true;
            // A command that waited long for a connection had little time left, so its timeout proves nothing about Redis.
            let hasty = error.is_timeout() && allowed < self.deadline / 2;
            if !hasty {
                self.breaker.on_connection_lost(self.generation, error);
            }
        } else if error::cannot_serve(error) && self.opened.elapsed() >= MIN_CONNECTION_AGE {
            self.spoiled = true;
            if self.follows_a_master {
                // All connections of the generation lead to this server, which is no longer the master.
                self.breaker.on_connection_lost(self.generation, error);
            }
        }
    }
}

fn error_reply(reply: &Value) -> Option<RedisError> {
    match reply {
        Value::ServerError(error) => Some(error.clone().into()),
        _ => None,
    }
}

impl ConnectionLike for RedisConnection {
    fn req_command(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.run([command]).map(|[reply]| reply)
    }

    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.exchange(command).map(|[reply]| reply)
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        let (limit, allowed) = self.begin();
        let replies = self.send_pipeline(commands, offset, count, limit);
        match &replies {
            Ok(replies) => replies.iter().filter_map(error_reply).for_each(|error| self.on_failure(&error, allowed)),
            Err(error) => self.on_failure(error, allowed),
        }
        replies
    }

    fn get_db(&self) -> i64 {
        self.db
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").exec(self).is_ok()
    }

    fn is_open(&self) -> bool {
        !self.spoiled
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        self.breaker.on_close(self.generation);
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").field("spoiled", &self.spoiled).finish_non_exhaustive()
    }
}
