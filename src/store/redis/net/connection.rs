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
use super::circuit::Kind;
use super::commands::{self, Traits};
use super::connector::RedisConnectionManager;
use super::error;
use super::idle::{IdleTest, Verdict};
use super::limit::Limit;
use super::wire::Wire;
use crate::process::{self, Origin};

/// The buffer for packing commands stays no larger than this.
const MAX_BUFFER_BYTES: usize = 16 * 1024;

/// The error text of a command that is not sent, because the deadline of its operation has passed.
pub(crate) const NO_TIME: &str = "no time was left to send the command";

/// How long a connection to a server that cannot serve is kept at least.
///
/// It is replaced, because the address may lead to another server by now. It is not replaced after every command, because a
/// busy program would run out of ports.
const MIN_CONNECTION_AGE: Duration = Duration::from_millis(500);

/// A connection from the pool, also for custom commands: `redis::cmd("GET").arg(key).query(&mut connection)`.
///
/// A command, or a pipeline as a whole, has the deadline of the pool. A connection that fails leaves the pool.
///
/// A connection that the application changed leaves the pool as well, when the application returns it. So you may use `SELECT` or
/// `WATCH`, at the price of a new connection. A connection stays in the pool if all commands were commands on data, scripts, or
/// transactions in one pipeline (`redis::pipe().atomic()`). Commands that the crate does not know count as changes.
///
/// The circuit breaker ignores a changed connection: its commands do not fail fast, their replies end no outage, and their silence
/// begins none. To subscribe to channels, use a separate client, because a connection of the pool passes no messages on.
pub struct RedisConnection {
    /// In a box, because the pool moves a connection several times for each operation.
    state: Box<State>,
}

struct State {
    wire: Wire,
    db: i64,
    /// The generation that it belongs to. Once one connection has failed, its whole generation is suspect.
    generation: u64,
    opened: Instant,
    deadline: Duration,
    /// Nine tenths of the deadline.
    nearly_deadline: Duration,
    /// When the last exchange over it began, or when it was opened.
    last_used: Instant,
    /// The operation of a store that uses the connection. Without one, each command has the whole deadline.
    operation: Option<Operation>,
    /// True if each command needs `ASKING`, because this node of a cluster is importing the slot.
    asking: bool,
    /// The buffer in which commands are packed.
    packed: Vec<u8>,
    /// True if the connection must leave the pool.
    spoiled: bool,
    /// True if the application may have changed the state of the connection, so that it must not serve sessions.
    changed: bool,
    /// The error of a command that was not sent, because the circuit breaker made it fail fast or no time was left.
    refused: Option<RedisError>,
    origin: Origin,
    /// True if Sentinel names the server.
    follows_a_master: bool,
    breaker: Arc<Breaker>,
    idle_test: Arc<IdleTest>,
}

/// An operation of a store, as the connection needs it.
struct Operation {
    until: Instant,
    /// The kind of its commands.
    kind: Kind,
    /// For the first exchange: its permit, and the time at which it begins.
    first: Option<(Permit, Instant)>,
}

/// When an exchange began, and how long it may take.
#[derive(Clone, Copy)]
struct Begun {
    at: Instant,
    allowed: Duration,
    limit: Limit,
}

impl RedisConnection {
    /// Wraps the wire to database `db` that was opened just now, as a connection of this generation.
    pub(crate) fn new(wire: Wire, db: i64, generation: u64, manager: &RedisConnectionManager) -> Self {
        let now = Instant::now();
        let state = State {
            wire,
            db,
            generation,
            opened: now,
            deadline: manager.deadline(),
            nearly_deadline: manager.deadline() * 9 / 10,
            last_used: now,
            operation: None,
            asking: false,
            packed: Vec::new(),
            spoiled: false,
            changed: false,
            refused: None,
            origin: Origin::here(),
            follows_a_master: manager.follows_a_master(),
            breaker: manager.breaker().clone(),
            idle_test: manager.idle_test(),
        };
        Self { state: Box::new(state) }
    }

    /// Returns `true` if no connection of its generation has failed.
    pub(crate) fn is_current(&self) -> bool {
        self.state.breaker.is_current(self.state.generation)
    }

    /// Returns `true` if it must leave the pool.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.state.spoiled || self.state.changed
    }

    /// Returns the error of the last command if it was not sent, because the circuit breaker made it fail fast or no time was
    /// left.
    pub(crate) fn take_refusal(&mut self) -> Option<RedisError> {
        self.state.refused.take()
    }

    /// Runs permitted commands of one kind that must end by `until`. The first one begins at `now`.
    pub(crate) fn with_permit<R>(
        &mut self,
        permit: Permit,
        now: Instant,
        until: Instant,
        run: impl FnOnce(&mut Self) -> R,
    ) -> R {
        self.state.operation = Some(Operation { until, kind: permit.kind(), first: Some((permit, now)) });
        let result = run(self);
        self.state.operation = None;
        result
    }

    /// Runs commands in a slot that this node is importing.
    pub(crate) fn asking<R>(&mut self, run: impl FnOnce(&mut Self) -> R) -> R {
        self.state.asking = true;
        let result = run(self);
        self.state.asking = false;
        result
    }

    /// Tests the connection if it was idle for long. Returns `false` if it is dead, so that the caller drops it.
    ///
    /// The test takes a quarter of the deadline at most, and moves `now`. A silent connection is no outage, because a new one
    /// may work. If less time was left, its silence says nothing about other connections either.
    pub(crate) fn is_alive(&mut self, now: &mut Instant, until: Instant) -> bool {
        let verdict = self.state.idle_test.judge(self.state.last_used, *now);
        if verdict == Verdict::Test {
            let share = self.state.deadline / 4;
            let has_its_share = until.saturating_duration_since(*now) >= share;
            let tested =
                self.state.wire.query(&redis::cmd("PING"), Limit::until(until, self.state.deadline).at_most(share));
            *now = Instant::now();
            match tested {
                Err(error) if error.is_timeout() && has_its_share => self.state.idle_test.on_silence(),
                Err(error) if error.is_timeout() => {}
                Err(error) if error::is_unanswered(&error) => {
                    self.state.breaker.on_connection_lost(self.state.generation, &error);
                }
                // An error reply is a reply.
                _ => {
                    self.state.last_used = *now;
                    return true;
                }
            }
        }
        self.state.spoiled |= verdict != Verdict::Use;
        !self.state.spoiled
    }

    /// Sends two commands in one pipeline and returns both replies.
    ///
    /// # Errors
    ///
    /// Returns the error of the first command that fails.
    pub(crate) fn pipeline2(&mut self, first: &Cmd, second: &Cmd) -> RedisResult<[Value; 2]> {
        let mut replies = [Value::Nil, Value::Nil];
        self.run(&[first, second], &mut replies)?;
        Ok(replies)
    }

    /// Sends commands in one pipeline and returns their replies.
    ///
    /// # Errors
    ///
    /// Returns the error of the first command that fails.
    pub(crate) fn pipeline(&mut self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        let mut replies = vec![Value::Nil; commands.len()];
        self.run(&commands.iter().collect::<Vec<_>>(), &mut replies)?;
        Ok(replies)
    }

    /// Sends commands in one write, and waits for a reply to each.
    fn run(&mut self, commands: &[&Cmd], replies: &mut [Value]) -> RedisResult<()> {
        let (mut packed, asking) = (mem::take(&mut self.state.packed), self.state.asking);
        packed.clear();
        for command in commands {
            if asking {
                redis::cmd("ASKING").write_packed_command(&mut packed);
            }
            command.write_packed_command(&mut packed);
        }
        let is_valid = |replies: &[Value]| {
            let mut pairs = commands.iter().zip(replies);
            pairs.all(|(command, reply)| matches!(reply, Value::ServerError(_)) || commands::may_give(command, reply))
        };
        let is_ours = self.state.operation.is_some();
        let sent = self.exchange(self.traits(commands), replies, |connection, begun, replies| {
            connection.send_and_receive(&packed, begun, asking, replies)?;
            if is_ours && !is_valid(replies) { Err(no_such_reply()) } else { Ok(()) }
        });
        // Free a buffer that one large command needed.
        if packed.capacity() <= MAX_BUFFER_BYTES {
            self.state.packed = packed;
        }
        // Report an error only now that all replies are received, so that none is left on the connection.
        sent?;
        replies.iter().find_map(error_reply).map_or(Ok(()), Err)
    }

    /// Returns the traits of commands. A store knows the kind of its commands, so that only those of the application are looked
    /// up.
    fn traits(&self, commands: &[&Cmd]) -> Traits {
        let Some(operation) = &self.state.operation else { return Traits::of(commands) };
        let traits = Traits::of_store(operation.kind);
        debug_assert_eq!(traits, Traits::of(commands), "the store names another kind than its commands have");
        traits
    }

    /// Sends commands with these traits, receives their `replies` by `run`, and reports the outcome to the circuit breaker.
    ///
    /// # Errors
    ///
    /// Returns an error if the commands were not sent, or if there is no reply to each. Error replies are among the replies.
    fn exchange(
        &mut self,
        traits: Traits,
        replies: &mut [Value],
        run: impl FnOnce(&mut Self, Begun, &mut [Value]) -> RedisResult<()>,
    ) -> RedisResult<()> {
        let traits = if self.state.changed { Traits::UNKNOWN } else { traits };
        let (permit, begun) = self.begin(traits)?;
        let result = run(self, begun, replies);
        match &result {
            Ok(()) => {
                if let Some(permit) = permit {
                    self.state.breaker.on_reply(permit);
                }
                replies.iter().filter_map(error_reply).for_each(|error| self.on_error_reply(&error));
            }
            Err(error) => self.on_failure(error, traits, permit, begun),
        }
        result
    }

    /// Begins an exchange of commands with these traits, and asks for the permission to send them.
    fn begin(&mut self, traits: Traits) -> RedisResult<(Option<Permit>, Begun)> {
        self.state.refused = None;
        let until = self.state.operation.as_ref().map(|operation| operation.until);
        // The pool has checked the commands of a store already.
        if until.is_none() {
            if !self.state.origin.is_here() {
                return Err((redis::ErrorKind::InvalidClientConfig, process::FORKED).into());
            }
            self.state.changed |= !traits.keeps_connection;
        }
        let first = self.state.operation.as_mut().and_then(|operation| operation.first.take());
        let (permit, at) = match first.filter(|(permit, _)| Some(permit.kind()) == traits.kind) {
            Some((permit, at)) => (Some(permit), at),
            None => (self.admit(traits)?, Instant::now()),
        };
        let until = until.unwrap_or_else(|| at + self.state.deadline);
        let allowed = until.saturating_duration_since(at);
        if allowed.is_zero() {
            let error = RedisError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, NO_TIME));
            return Err(self.state.refused.insert(error).clone());
        }
        self.state.last_used = at;
        // An error names the deadline unless a good part of it had passed before.
        let named = if allowed > self.state.nearly_deadline { self.state.deadline } else { allowed };
        Ok((permit, Begun { at, allowed, limit: Limit::until(until, named) }))
    }

    /// Asks for the permission to send commands with these traits.
    fn admit(&mut self, traits: Traits) -> RedisResult<Option<Permit>> {
        let permit = traits.kind.map(|kind| self.state.breaker.admit(kind)).transpose();
        permit.inspect_err(|error| self.state.refused = Some(error.clone()))
    }

    /// Sends commands that the caller packed. Nothing can be put in front of each, so a node that imports their slot rejects them.
    fn exchange_packed(&mut self, packed: &[u8], replies: &mut [Value]) -> RedisResult<()> {
        self.exchange(Traits::of_packed(packed), replies, |connection, begun, replies| {
            connection.send_and_receive(packed, begun, false, replies)
        })
    }

    /// Sends packed commands and receives a reply to each. `asking` is whether an `ASKING` precedes each of them.
    fn send_and_receive(
        &mut self,
        packed: &[u8],
        begun: Begun,
        asking: bool,
        replies: &mut [Value],
    ) -> RedisResult<()> {
        self.state.wire.send_at_once(packed, begun.limit, begun.allowed)?;
        for reply in replies {
            if asking {
                self.state.wire.receive()?;
            }
            *reply = self.state.wire.receive()?;
        }
        self.state.wire.finish();
        Ok(())
    }

    /// Decides what a missing reply means for this connection and its generation.
    fn on_failure(&mut self, error: &RedisError, traits: Traits, permit: Option<Permit>, begun: Begun) {
        if !error::is_unanswered(error) {
            return;
        }
        self.state.spoiled = true;
        if !error.is_timeout() {
            self.state.breaker.on_connection_lost(self.state.generation, error);
        // A command that waited long for a connection had little time left, and some commands wait on purpose or get no reply.
        // Their silence proves nothing about Redis.
        } else if begun.allowed >= self.state.deadline / 2 && !traits.may_be_silent {
            match permit {
                Some(permit) => self.state.breaker.on_silence(permit, self.state.generation, begun.at, error),
                None => self.state.breaker.on_connection_lost(self.state.generation, error),
            }
        }
    }

    /// Decides what an error reply means for this connection and its generation.
    fn on_error_reply(&mut self, error: &RedisError) {
        if error::cannot_serve(error) && self.state.opened.elapsed() >= MIN_CONNECTION_AGE {
            self.state.spoiled = true;
            if self.state.follows_a_master {
                // All connections of the generation lead to this server, which is no longer the master.
                self.state.breaker.on_connection_lost(self.state.generation, error);
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
        let mut reply = [Value::Nil];
        self.run(&[command], &mut reply)?;
        let [reply] = reply;
        Ok(reply)
    }

    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        let mut reply = [Value::Nil];
        self.exchange_packed(command, &mut reply)?;
        let [reply] = reply;
        error_reply(&reply).map_or(Ok(reply), Err)
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        let mut replies = vec![Value::Nil; offset + count];
        self.exchange_packed(commands, &mut replies)?;
        // The first replies acknowledge the parts of a transaction, unless a part is refused.
        let refused = replies.drain(..offset).find_map(|reply| error_reply(&reply));
        refused.map_or(Ok(replies), Err)
    }

    fn get_db(&self) -> i64 {
        self.state.db
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").exec(self).is_ok()
    }

    fn is_open(&self) -> bool {
        !self.state.spoiled
    }
}

impl Drop for RedisConnection {
    fn drop(&mut self) {
        // The breaker has locks, which a child of the process must not take.
        if !self.state.origin.is_here() {
            return;
        }
        self.state.breaker.on_close(self.state.generation, self.is_spoiled());
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConnection").field("spoiled", &self.state.spoiled).finish_non_exhaustive()
    }
}
