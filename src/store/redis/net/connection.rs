use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Connection, ConnectionLike, RedisError, RedisResult, Value};

use super::breaker::Breaker;
use super::error;

/// A command of so many bytes takes no time to send: it fits into the buffer of the socket, and nothing else is on its way.
const SMALL_COMMAND_BYTES: usize = 16 * 1024;

/// How long a connection is kept at least to a server that answers but cannot serve. It is opened anew because the address
/// may lead to another server by now, but not for every command: a busy program would use up its ports.
const MIN_CONNECTION_AGE: Duration = Duration::from_millis(500);

/// A pooled connection, for commands of one's own as well: `redis::cmd("GET").arg(key).query(&mut connection)`.
///
/// A command has the deadline of the pool; each answer of a pipeline has it anew. A failure is noticed: a connection that
/// is of no more use leaves the pool.
pub struct RedisConnection {
    connection: Connection,
    /// Which generation of connections it belongs to. One failure makes all of a generation suspect.
    generation: u64,
    opened: Instant,
    deadline: Duration,
    /// The time limit of reading and writing that is set now.
    limit: Duration,
    /// When the operation must be over that uses it now; without one each command has the deadline.
    until: Option<Instant>,
    /// Whether commands are to be carried out in a slot that this node of a cluster does not have yet.
    asking: bool,
    /// Where commands are put together.
    packed: Vec<u8>,
    spoiled: bool,
    follows_a_master: bool,
    breaker: Arc<Breaker>,
}

impl RedisConnection {
    /// One that was opened just now, of this generation.
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
            limit: deadline,
            until: None,
            asking: false,
            packed: Vec::new(),
            spoiled: false,
            follows_a_master,
            breaker,
        }
    }

    /// Whether no other connection of its generation has failed.
    pub(crate) fn is_current(&self) -> bool {
        self.breaker.is_current(self.generation)
    }

    /// Whether it is of no more use.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// Runs commands that have to be over by then.
    pub(crate) fn with_deadline<A>(&mut self, until: Instant, run: impl FnOnce(&mut Self) -> A) -> A {
        self.until = Some(until);
        let answer = run(self);
        self.until = None;
        answer
    }

    /// Runs commands in a slot that is on its way to this node.
    pub(crate) fn asking<A>(&mut self, run: impl FnOnce(&mut Self) -> A) -> A {
        self.asking = true;
        let answer = run(self);
        self.asking = false;
        answer
    }

    /// Limits the next write or read. Most of the deadline is left unless there was something to wait for; only then is it
    /// worth two system calls, and two more to go back.
    fn limit(&mut self, left: Duration) -> RedisResult<()> {
        let limit = match left {
            plenty if plenty > self.deadline * 9 / 10 => self.deadline,
            // Zero would be no limit at all.
            left => left.max(Duration::from_millis(1)),
        };
        if limit != self.limit {
            self.connection.set_read_timeout(Some(limit))?;
            self.connection.set_write_timeout(Some(limit))?;
            self.limit = limit;
        }
        Ok(())
    }

    /// Two commands in one go, and what came of both. Fails as the first one that fails.
    pub(crate) fn pipeline2(&mut self, one: &Cmd, other: &Cmd) -> RedisResult<[Value; 2]> {
        self.run([one, other])
    }

    /// Sends commands and waits for an answer to each.
    fn run<const N: usize>(&mut self, commands: [&Cmd; N]) -> RedisResult<[Value; N]> {
        let mut packed = mem::take(&mut self.packed);
        packed.clear();
        for command in commands {
            if self.asking {
                redis::cmd("ASKING").write_packed_command(&mut packed);
            }
            command.write_packed_command(&mut packed);
        }
        let answers = self.exchange(&packed);
        // What was large once need not stay so.
        if packed.capacity() <= SMALL_COMMAND_BYTES {
            self.packed = packed;
        }
        answers
    }

    fn exchange<const N: usize>(&mut self, packed: &[u8]) -> RedisResult<[Value; N]> {
        let (until, allowed) = match self.until {
            Some(until) => (until, left(until)),
            None => (Instant::now() + self.deadline, self.deadline),
        };
        let answers = self.limit(allowed).and_then(|()| {
            self.connection.send_packed_command(packed)?;
            if packed.len() > SMALL_COMMAND_BYTES {
                self.limit(left(until))?;
            }
            let mut answers = [const { Value::Nil }; N];
            for answer in &mut answers {
                if self.asking {
                    self.receive()?;
                }
                *answer = self.receive()?;
            }
            let refused = answers.iter().find_map(|answer| match answer {
                Value::ServerError(error) => Some(error.clone().into()),
                _ => None,
            });
            refused.map_or(Ok(answers), Err)
        });
        if let Err(error) = &answers {
            self.failed(error, allowed);
        }
        answers
    }

    fn receive(&mut self) -> RedisResult<Value> {
        loop {
            match self.connection.recv_response()? {
                Value::Push { .. } => continue,
                answer => return Ok(answer),
            }
        }
    }

    /// A command failed that was allowed to take so long, sending and all.
    fn failed(&mut self, error: &RedisError, allowed: Duration) {
        if error::is_unanswered(error) {
            self.spoiled = true;
            // A command that waited long for a connection had little time left, which says nothing about Redis.
            let hasty = error.is_timeout() && allowed < self.deadline / 2;
            if !hasty {
                self.breaker.on_connection_lost(self.generation, error);
            }
        } else if error::cannot_serve(error) && self.opened.elapsed() >= MIN_CONNECTION_AGE {
            self.spoiled = true;
            if self.follows_a_master {
                // All the others lead to the same server, which is the master no more.
                self.breaker.on_connection_lost(self.generation, error);
            }
        }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

impl ConnectionLike for RedisConnection {
    fn req_command(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.run([command]).map(|[answer]| answer)
    }

    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.exchange(command).map(|[answer]| answer)
    }

    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        let allowed = self.until.map_or(self.deadline, left);
        let answers = self.limit(allowed).and_then(|()| self.connection.req_packed_commands(commands, offset, count));
        match &answers {
            Ok(answers) => {
                for answer in answers {
                    if let Value::ServerError(error) = answer {
                        self.failed(&error.clone().into(), allowed);
                    }
                }
            }
            Err(error) => self.failed(error, allowed),
        }
        answers
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
