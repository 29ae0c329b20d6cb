//! The thread of a cache, and its connection to the server.
//!
//! The connection reads the sessions that are to become entries, so the server announces their changes on it. Reads and
//! announcements share the one connection, so their order is that in which the server did them.
//!
//! Invariant: the lease is renewed only after all that arrived before the reply to a `PING` is in effect. If the connection fails,
//! the lease ends, and then the entries do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use redis::{PushKind, RedisResult, Value};

use super::super::net::connector::RedisConnectionManager;
use super::super::net::error::Cause;
use super::super::net::push::{self, PushConnection};
use super::super::net::threads;
use super::super::version::version_of;
use super::cache::{Cache, Request};
use super::entries::Fill;
use crate::process::Origin;
use crate::{Result, fence, jitter};

/// The longest pause between two `PING`s. With a short lease, a quarter of the lease passes between them.
const LONGEST_PING_PAUSE: Duration = Duration::from_secs(1);
const SHORTEST_PING_PAUSE: Duration = Duration::from_millis(1);

/// How often the thread looks whether it must stop, or whether there is another master.
const LINE_POLL: Duration = Duration::from_millis(250);

/// The shortest and the longest pause before the next connection. Each pause is twice as long as the one before.
const FIRST_RETRACK_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_RETRACK_PAUSE: Duration = Duration::from_secs(1);

/// A cache and its thread, which ends when the last clone of the store is dropped.
pub(super) struct Service {
    cache: Arc<Cache>,
    origin: Origin,
}

impl Service {
    pub(super) fn start(
        lease: Duration,
        max_bytes: u64,
        grace: Duration,
        manager: &RedisConnectionManager,
    ) -> Result<Arc<Self>> {
        let cache = Arc::new(Cache::new(lease, max_bytes, grace, manager).map_err(threads::none)?);
        let served = cache.clone();
        let started = thread::Builder::new().name("redis-near-cache".to_owned()).spawn(move || run(&served));
        started.map_err(threads::none)?;
        Ok(Arc::new(Self { cache, origin: Origin::here() }))
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.origin.is_here() {
            self.cache.is_stopped.store(true, Ordering::Release);
            self.cache.waker.wake();
        }
    }
}

/// Connects again and again, until the cache is stopped.
fn run(cache: &Cache) {
    let (mut pause, mut is_failing) = (FIRST_RETRACK_PAUSE, false);
    loop {
        let mut line = None;
        let ended = Line::open(cache, is_failing).and_then(|opened| line.insert(opened).serve());
        let was_in_service = line.is_some_and(|line| line.has_served);
        cache.leave_service();
        let Err(error) = ended else { return };
        if was_in_service {
            (pause, is_failing) = (FIRST_RETRACK_PAUSE, false);
        }
        if !is_failing {
            is_failing = true;
            fence::log!(Warn, "the near cache is out of service, so reads go to Redis: {}", Cause::of(&error));
        }
        let until = Instant::now() + pause + jitter::part_of(pause);
        pause = (pause * 2).min(LONGEST_RETRACK_PAUSE);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if cache.is_stopped.load(Ordering::Acquire) {
                return;
            }
            // A failure to wait must not make the loop spin.
            if cache.waker.wait(None, left).is_err() {
                thread::sleep(left);
            }
        }
    }
}

/// A reply that is to come.
enum Expected {
    Pong {
        sent: Instant,
        settled: Option<SyncSender<()>>,
    },
    /// The beginning of the payload, or all of it.
    Payload {
        sent: Instant,
    },
    TimeLeft {
        sent: Instant,
        fill: Fill,
    },
}

/// One connection, and what is expected on it.
struct Line<'a> {
    cache: &'a Cache,
    connection: PushConnection,
    expected: VecDeque<Expected>,
    next_ping: Instant,
    /// Whether the payload of the fill at the front is still that of the entry to be.
    is_same: bool,
    /// Whether the log has a warning that the cache is out of service.
    after_failure: bool,
    has_served: bool,
}

impl<'a> Line<'a> {
    fn open(cache: &'a Cache, after_failure: bool) -> RedisResult<Self> {
        let connection = PushConnection::tracker(&cache.manager)?;
        cache.generation.store(connection.generation(), Ordering::Release);
        let next_ping = Instant::now();
        let expected = VecDeque::new();
        Ok(Self { cache, connection, expected, next_ping, is_same: false, after_failure, has_served: false })
    }

    /// Serves until the cache is stopped.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection fails, or if it no longer leads to the master.
    fn serve(&mut self) -> RedisResult<()> {
        while !self.cache.is_stopped.load(Ordering::Acquire) {
            self.connection.check_master()?;
            self.send()?;
            let wait = self.next_ping.saturating_duration_since(Instant::now()).min(LINE_POLL);
            if self.cache.waker.wait(Some(&self.connection), wait)? {
                self.connection.read()?;
                while let Some(value) = self.connection.next_value()? {
                    self.take(value)?;
                }
            }
        }
        Ok(())
    }

    /// Sends what is due, and what reads and writes have asked for, at once.
    fn send(&mut self) -> RedisResult<()> {
        let (mut packed, now) = (Vec::new(), Instant::now());
        for request in self.cache.take_requests() {
            match request {
                Request::Fill(fill) => self.ask(fill, now, &mut packed),
                Request::Settle(settled) => self.ping(now, Some(settled), &mut packed),
            }
        }
        if now >= self.next_ping {
            self.next_ping = now + (self.cache.lease.length() / 4).clamp(SHORTEST_PING_PAUSE, LONGEST_PING_PAUSE);
            self.ping(now, None, &mut packed);
        }
        if !packed.is_empty() {
            self.connection.send(&packed)?;
        }
        let oldest = self.expected.front().map(|expected| match expected {
            Expected::Pong { sent, .. } | Expected::Payload { sent } | Expected::TimeLeft { sent, .. } => *sent,
        });
        oldest.map_or(Ok(()), |oldest| self.connection.check_patience(oldest))
    }

    fn ping(&mut self, sent: Instant, settled: Option<SyncSender<()>>, packed: &mut Vec<u8>) {
        redis::cmd("PING").write_packed_command(packed);
        self.expected.push_back(Expected::Pong { sent, settled });
    }

    /// Reads the version of a session and its time left, so that the server announces the next change.
    fn ask(&mut self, fill: Fill, sent: Instant, packed: &mut Vec<u8>) {
        let version = version_of(&fill.payload);
        let length = version.as_bytes().len();
        if length < fill.payload.len() {
            redis::cmd("GETRANGE").arg(&*fill.key).arg(0).arg(length - 1).write_packed_command(packed);
        } else {
            redis::cmd("GET").arg(&*fill.key).write_packed_command(packed);
        }
        redis::cmd("PTTL").arg(&*fill.key).write_packed_command(packed);
        self.expected.push_back(Expected::Payload { sent });
        self.expected.push_back(Expected::TimeLeft { sent, fill });
    }

    fn take(&mut self, value: Value) -> RedisResult<()> {
        match value {
            Value::Push { kind: PushKind::Invalidate, data } => return self.invalidate(data),
            Value::Push { .. } => return Ok(()),
            // Another program wrote over the key, so there is no session.
            Value::ServerError(error) if error.code() != "WRONGTYPE" => return Err(error.into()),
            _ => {}
        }
        match self.expected.pop_front() {
            Some(Expected::Pong { sent, settled }) => {
                self.cache.lease.renew(sent);
                self.on_service();
                drop(settled);
            }
            Some(Expected::Payload { .. }) => self.is_same = self.is_same_payload(&value),
            Some(Expected::TimeLeft { sent, fill }) => {
                let deadline = self.deadline(sent, &value).filter(|_| self.is_same);
                self.cache.entries.finish(fill, deadline);
            }
            None => return Err(push::unexpected()),
        }
        Ok(())
    }

    /// Compares the reply with the payload of the fill that is at the front now.
    fn is_same_payload(&self, reply: &Value) -> bool {
        let (Value::BulkString(found), Some(Expected::TimeLeft { fill, .. })) = (reply, self.expected.front()) else {
            return false;
        };
        version_of(&fill.payload).as_bytes() == found
    }

    /// Returns the deadline of a live session, which a request sent at `sent` found to have so many milliseconds left.
    fn deadline(&self, sent: Instant, left: &Value) -> Option<Option<Instant>> {
        match left {
            Value::Int(-1) => Some(None),
            Value::Int(left) => {
                let left = Duration::from_millis(u64::try_from(*left).ok()?).checked_sub(self.cache.grace)?;
                Some(Some(sent.checked_add(left)?))
            }
            _ => None,
        }
    }

    /// Drops the entries that the server names, or all.
    fn invalidate(&mut self, data: Vec<Value>) -> RedisResult<()> {
        match data.into_iter().next() {
            Some(Value::Array(keys)) => {
                for key in keys {
                    let Value::BulkString(key) = key else { return Err(push::unexpected()) };
                    let key = str::from_utf8(&key).map_err(|_| push::unexpected())?;
                    self.invalidate_key(key);
                }
            }
            Some(Value::Nil) => {
                self.is_same = false;
                self.count_invalidations(self.cache.entries.len() as u64);
                self.cache.entries.invalidate_all();
            }
            _ => return Err(push::unexpected()),
        }
        Ok(())
    }

    fn invalidate_key(&mut self, key: &str) {
        // The session changed between the two replies about it.
        if let Some(Expected::TimeLeft { fill, .. }) = self.expected.front()
            && *fill.key == *key
        {
            self.is_same = false;
        }
        self.count_invalidations(1);
        self.cache.entries.invalidate(key);
    }

    fn count_invalidations(&self, count: u64) {
        self.cache.invalidations.fetch_add(count, Ordering::Relaxed);
    }

    fn on_service(&mut self) {
        if !self.has_served && self.after_failure {
            fence::log!(Info, "the near cache is in service again");
        }
        self.has_served = true;
    }
}
