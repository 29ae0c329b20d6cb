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

use redis::{Cmd, Connection, ConnectionLike, RedisError, RedisResult, Value};

use super::breaker::Breaker;
use super::error;

/// Up to this size, a command takes no time to send, because it fits into the empty buffer of the socket. The buffer for
/// packing commands also stays no larger than this.
const SMALL_COMMAND_BYTES: usize = 16 * 1024;

/// How long a connection to a server that cannot serve is kept at least.
///
/// It is replaced, because the address may lead to another server by now. It is not replaced after every command, because a
/// busy program would run out of ports.
const MIN_CONNECTION_AGE: Duration = Duration::from_millis(500);

/// A connection from the pool, also for custom commands: `redis::cmd("GET").arg(key).query(&mut connection)`.
///
/// A command has the deadline of the pool. In a pipeline, the deadline starts again for each reply. A connection that fails
/// leaves the pool.
pub struct RedisConnection {
    connection: Connection,
    /// The generation that it belongs to. Once one connection has failed, its whole generation is suspect.
    generation: u64,
    opened: Instant,
    deadline: Duration,
    /// The timeout that the socket has now, for writes and for reads.
    timeout: Duration,
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
}

impl RedisConnection {
    /// Wraps a connection of this generation that was opened just now.
    pub(crate) fn new(
        connection: Connection,
        generation: u64,
        deadline: Duration,
        follows_a_master: bool,
        breaker: Arc<Breaker>,
    ) -> Self {
        Self {
            connection,
            generation,
            opened: Instant::now(),
            deadline,
            timeout: deadline,
            until: None,
            asking: false,
            packed: Vec::new(),
            spoiled: false,
            follows_a_master,
            breaker,
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

    /// Sets the socket timeouts for the next write or read.
    ///
    /// While more than 90 % of the deadline is left, the timeouts stay at the full deadline, which saves two system calls for
    /// each operation.
    fn set_timeouts(&mut self, left: Duration) -> RedisResult<()> {
        let timeout = match left {
            plenty if plenty > self.deadline * 9 / 10 => self.deadline,
            // The socket takes zero for no timeout at all.
            left => left.max(Duration::from_millis(1)),
        };
        if timeout != self.timeout {
            self.connection.set_read_timeout(Some(timeout))?;
            self.connection.set_write_timeout(Some(timeout))?;
            self.timeout = timeout;
        }
        Ok(())
    }

    /// Sends two commands in one pipeline and returns both replies.
    ///
    /// # Errors
    ///
    /// Returns the error of the first command that fails.
    pub(crate) fn pipeline2(&mut self, first: &Cmd, second: &Cmd) -> RedisResult<[Value; 2]> {
        self.run([first, second])
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
        if packed.capacity() <= SMALL_COMMAND_BYTES {
            self.packed = packed;
        }
        replies
    }

    /// Sends packed commands, receives `N` replies and reports a failure.
    fn exchange<const N: usize>(&mut self, packed: &[u8]) -> RedisResult<[Value; N]> {
        let (until, allowed) = match self.until {
            Some(until) => (until, left(until)),
            None => (Instant::now() + self.deadline, self.deadline),
        };
        let replies = self.send_and_receive(packed, until, allowed);
        let replies = replies.map_err(|error| error::no_reply_within(self.deadline, error));
        if let Err(error) = &replies {
            self.on_failure(error, allowed);
        }
        replies
    }

    fn send_and_receive<const N: usize>(
        &mut self,
        packed: &[u8],
        until: Instant,
        allowed: Duration,
    ) -> RedisResult<[Value; N]> {
        self.set_timeouts(allowed)?;
        self.connection.send_packed_command(packed)?;
        if packed.len() > SMALL_COMMAND_BYTES {
            self.set_timeouts(left(until))?;
        }
        let mut replies = [const { Value::Nil }; N];
        // Receive all replies before looking for errors, so that none is left on the connection.
        for reply in &mut replies {
            if self.asking {
                self.receive()?;
            }
            *reply = self.receive()?;
        }
        match replies.iter().find_map(error_reply) {
            Some(error) => Err(error),
            None => Ok(replies),
        }
    }

    /// Receives the next reply, and skips push messages.
    fn receive(&mut self) -> RedisResult<Value> {
        loop {
            match self.connection.recv_response()? {
                Value::Push { .. } => continue,
                reply => return Ok(reply),
            }
        }
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

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
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
        let allowed = self.until.map_or(self.deadline, left);
        let replies =
            self.set_timeouts(allowed).and_then(|()| self.connection.req_packed_commands(commands, offset, count));
        match &replies {
            Ok(replies) => replies.iter().filter_map(error_reply).for_each(|error| self.on_failure(&error, allowed)),
            Err(error) => self.on_failure(error, allowed),
        }
        replies
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }

    fn check_connection(&mut self) -> bool {
        redis::cmd("PING").exec(self).is_ok()
    }

    fn is_open(&self) -> bool {
        !self.spoiled && self.connection.is_open()
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
