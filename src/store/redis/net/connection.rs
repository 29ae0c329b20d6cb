//! One connection to Redis, with a deadline, which reports how it fails.
//!
//! The connector opens it and r2d2 keeps it in the pool. Stores send all their commands over it, and an application may take
//! one from the pool.
//!
//! Invariant: a connection over which no valid reply came is never used again, because the next reply could belong to an
//! earlier command. It also reports to the [circuit breaker](super::breaker), so that its whole generation goes. A connection
//! that the application changed, by `SELECT` for example, is not used again either.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionLike, RedisError, RedisResult, Value};

use super::breaker::{Breaker, Permit};
use super::commands::{self, Traits};
use super::connector::RedisConnectionManager;
use super::error;
use super::idle::{IdleTest, Verdict};
use super::limit::Limit;
use super::wire::Wire;
use crate::process::{self, Origin};

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
///
/// A connection that the application changed leaves the pool as well, when the application returns it. So you may use `SELECT`,
/// `WATCH` or `SUBSCRIBE`, at the price of a new connection. A connection stays in the pool if all commands were commands on
/// data, scripts, or transactions in one pipeline (`redis::pipe().atomic()`). Commands that the crate does not know count as
/// changes.
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
    /// The permit for the first exchange of the current operation.
    permit: Option<Permit>,
    /// True if each command needs `ASKING`, because this node of a cluster is importing the slot.
    asking: bool,
    /// The buffer in which commands are packed.
    packed: Vec<u8>,
    /// True if the connection must leave the pool.
    spoiled: bool,
    /// True if the application may have changed the state of the connection, so that it must not serve sessions.
    changed: bool,
    /// The error of a command that was not sent, because the circuit breaker made it fail fast.
    refused: Option<RedisError>,
    origin: Origin,
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
            permit: None,
            asking: false,
            packed: Vec::new(),
            spoiled: false,
            changed: false,
            refused: None,
            origin: Origin::here(),
            follows_a_master: manager.follows_a_master(),
            breaker: manager.breaker().clone(),
            idle_test: manager.idle_test(),
        }
    }

    /// Returns `true` if no connection of its generation has failed.
    pub(crate) fn is_current(&self) -> bool {
        self.breaker.is_current(self.generation)
    }

    /// Returns `true` if it must leave the pool.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.spoiled || self.changed
    }

    /// Returns the error of the last command if it was not sent, because the circuit breaker made it fail fast.
    pub(crate) fn take_refusal(&mut self) -> Option<RedisError> {
        self.refused.take()
    }

    /// Runs permitted commands that must end by `until`.
    pub(crate) fn with_permit<R>(&mut self, permit: Permit, until: Instant, run: impl FnOnce(&mut Self) -> R) -> R {
        (self.until, self.permit) = (Some(until), Some(permit));
        let result = run(self);
        (self.until, self.permit) = (None, None);
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
        let is_valid = |replies: &[Value; N]| {
            let mut pairs = commands.iter().zip(replies);
            pairs.all(|(command, reply)| matches!(reply, Value::ServerError(_)) || commands::may_give(command, reply))
        };
        let replies = self.exchange(Traits::of(&commands), |connection, limit| {
            let is_ours = connection.until.is_some();
            let replies = connection.send_and_receive(&packed, limit)?;
            if is_ours && !is_valid(&replies) {
                return Err(no_such_reply());
            }
            Ok(replies)
        });
        // Free a buffer that one large command needed.
        if packed.capacity() <= MAX_BUFFER_BYTES {
            self.packed = packed;
        }
        // Report an error only now that all replies are received, so that none is left on the connection.
        let replies = replies?;
        match replies.iter().find_map(error_reply) {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }

    /// Sends commands with these traits, receives their replies, and reports the outcome to the circuit breaker.
    ///
    /// # Errors
    ///
    /// Returns an error if the commands were not sent, or if there is no reply to each. Error replies are among the replies.
    fn exchange<R: AsRef<[Value]>>(
        &mut self,
        traits: Traits,
        run: impl FnOnce(&mut Self, Limit) -> RedisResult<R>,
    ) -> RedisResult<R> {
        let permit = self.permit(traits)?;
        let (limit, begun, allowed) = self.begin();
        let result = run(self, limit);
        match &result {
            Ok(replies) => {
                if let Some(permit) = permit {
                    self.breaker.on_reply(permit);
                }
                replies.as_ref().iter().filter_map(error_reply).for_each(|error| self.on_error_reply(&error));
            }
            Err(error) => self.on_failure(error, traits, permit, begun, allowed),
        }
        result
    }

    /// Asks for the permission to send commands with these traits.
    fn permit(&mut self, traits: Traits) -> RedisResult<Option<Permit>> {
        self.refused = None;
        // The pool has checked the commands of a store already.
        if self.until.is_none() {
            if !self.origin.is_here() {
                return Err((redis::ErrorKind::InvalidClientConfig, process::FORKED).into());
            }
            self.changed |= !traits.keeps_connection;
        }
        if let Some(permit) = self.permit.take().filter(|permit| Some(permit.kind()) == traits.kind) {
            return Ok(Some(permit));
        }
        let permit = traits.kind.map(|kind| self.breaker.admit(kind)).transpose();
        permit.inspect_err(|error| self.refused = Some(error.clone()))
    }

    /// Begins an exchange. Returns its limit, its beginning, and how long it may take.
    fn begin(&mut self) -> (Limit, Instant, Duration) {
        let now = Instant::now();
        self.last_used = now;
        let until = self.until.unwrap_or_else(|| now + self.deadline);
        let allowed = until.saturating_duration_since(now);
        // An error names the deadline unless a good part of it had passed before.
        let named = if allowed > self.deadline * 9 / 10 { self.deadline } else { allowed };
        (Limit::until(until, named), now, allowed)
    }

    fn send_and_receive<const N: usize>(&mut self, packed: &[u8], limit: Limit) -> RedisResult<[Value; N]> {
        self.wire.send(packed, limit)?;
        let mut replies = [const { Value::Nil }; N];
        for reply in &mut replies {
            if self.asking {
                self.wire.receive()?;
            }
            *reply = self.wire.receive()?;
        }
        self.wire.finish();
        Ok(replies)
    }

    /// Sends a packed pipeline and receives this many replies.
    fn send_pipeline(&mut self, packed: &[u8], count: usize, limit: Limit) -> RedisResult<Vec<Value>> {
        self.wire.send(packed, limit)?;
        let replies = (0..count).map(|_| self.wire.receive()).collect::<RedisResult<_>>()?;
        self.wire.finish();
        Ok(replies)
    }

    /// Decides what a missing reply means for this connection and its generation. `allowed` is the time that the exchange had.
    fn on_failure(
        &mut self,
        error: &RedisError,
        traits: Traits,
        permit: Option<Permit>,
        begun: Instant,
        allowed: Duration,
    ) {
        if !error::is_unanswered(error) {
            return;
        }
        self.spoiled = true;
        if !error.is_timeout() {
            self.breaker.on_connection_lost(self.generation, error);
        // A command that waited long for a connection had little time left, and some commands wait on purpose. Their silence
        // proves nothing about Redis.
        } else if allowed >= self.deadline / 2 && !traits.blocks {
            match permit {
                Some(permit) => self.breaker.on_silence(permit, self.generation, begun, error),
                None => self.breaker.on_connection_lost(self.generation, error),
            }
        }
    }

    /// Decides what an error reply means for this connection and its generation.
    fn on_error_reply(&mut self, error: &RedisError) {
        if error::cannot_serve(error) && self.opened.elapsed() >= MIN_CONNECTION_AGE {
            self.spoiled = true;
            if self.follows_a_master {
                // All connections of the generation lead to this server, which is no longer the master.
                self.breaker.on_connection_lost(self.generation, error);
            }
        }
    }
}

/// The error for a reply that the command never gives: it belongs to another command.
fn no_such_reply() -> RedisError {
    (redis::ErrorKind::Parse, "the reply belongs to another command").into()
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
        let run = |connection: &mut Self, limit| connection.send_and_receive::<1>(command, limit);
        let [reply] = self.exchange(Traits::of_packed(command), run)?;
        error_reply(&reply).map_or(Ok(reply), Err)
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        let mut replies = self.exchange(Traits::of_packed(commands), |connection, limit| {
            connection.send_pipeline(commands, offset + count, limit)
        })?;
        // The first replies acknowledge the parts of a transaction, unless a part is refused.
        let refused = replies.drain(..offset).find_map(|reply| error_reply(&reply));
        refused.map_or(Ok(replies), Err)
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
        self.breaker.on_close(self.generation, self.is_spoiled());
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").field("spoiled", &self.spoiled).finish_non_exhaustive()
    }
}
