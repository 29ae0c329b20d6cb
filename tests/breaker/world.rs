//! The world around the breaker: a Redis that dies or hangs, connectors, and callers, with the properties that must hold.
//!
//! Between two operations on a lock or an atomic of the breaker, and at each [`step`], the model checker may run another thread. What
//! is in [`Facts`] is read and changed without such a point, so it is exact.

use std::cell::RefCell;
use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use shuttle::rand::Rng;
use shuttle::sync::Mutex;
use shuttle::thread;

use crate::breaker::{Breaker, Permit};
use crate::circuit::Kind;

/// The deadline of an operation, after which a silent server is given up.
const DEADLINE: Duration = Duration::from_secs(1);

/// How many operations in a row may fail while Redis is up for good. The longest way back takes a few: an attempt that began in the
/// outage fails, its pause passes, a probe connects.
const MOST_FAILURES: usize = 500;

/// The number of times that other threads may run before a late attempt to connect notices its reply.
const LATE_STEPS: usize = 60;

/// The most connections of the pool.
const POOL_SIZE: usize = 2;

/// A moment of the model's own clock. No two moments are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        pass(Duration::from_nanos(1))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Self::now().0 - self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

fn pass(time: Duration) -> Instant {
    facts(|facts| {
        facts.now += time;
        Instant(facts.now)
    })
}

/// Lets time pass, and other threads run.
pub(crate) fn sleep(time: Duration) {
    pass(time);
    step();
}

/// A point at which another thread may run.
fn step() {
    thread::yield_now();
}

/// Returns `true` for some attempts to connect, as the model checker chooses.
fn is_late() -> bool {
    shuttle::rand::thread_rng().gen_ratio(1, 4)
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Redis {
    #[default]
    Up,
    /// Connections are cut, and connecting is refused.
    Dead,
    /// No reply comes to these kinds of commands. `PING` gets none if neither does any command.
    Hung { reads: bool },
}

/// What is true in this run of the model, and what the breaker was told.
#[derive(Default)]
struct Facts {
    now: Duration,
    redis: Redis,
    /// The number of times that Redis changed.
    epoch: u64,
    /// The number of times that connections were cut.
    cuts: u64,
    /// Reports to the breaker that began.
    failures: u64,
    replies: u64,
    /// Failures and replies that are being reported.
    reporting: u64,
    replying: u64,
    /// True after a reply to this kind, if no failure was reported since.
    served: [bool; 2],
    /// True after a connection was opened, if no failure was reported since.
    reached: bool,
    /// True after silence, if no reply was reported since.
    silent: [bool; 2],
    /// The callers that were permitted during silence, and have no result yet.
    probes: [usize; 2],
    /// True after the breaker reported an outage of this epoch.
    away: bool,
}

thread_local! {
    // All threads of a model share one thread of the system. Each run resets it.
    static FACTS: RefCell<Facts> = RefCell::default();
}

fn facts<R>(look: impl FnOnce(&mut Facts) -> R) -> R {
    FACTS.with_borrow_mut(look)
}

fn change(redis: Redis) {
    facts(|facts| {
        facts.redis = redis;
        facts.epoch += 1;
        facts.cuts += u64::from(redis == Redis::Dead);
        facts.away = false;
    });
    step();
}

fn refused() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into()
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Reports a failure to the breaker.
fn report_failure(report: impl FnOnce()) {
    begin_failure();
    report();
    facts(|facts| facts.reporting -= 1);
}

fn begin_failure() {
    facts(|facts| {
        facts.failures += 1;
        facts.reporting += 1;
        facts.reached = false;
        facts.served = [false; 2];
    });
}

struct Connection {
    generation: u64,
    cuts: u64,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    /// Connections that are idle or in use, or are being opened.
    places: usize,
    done: bool,
}

/// A server with its pool, as `server.rs` and r2d2 have them.
#[derive(Clone)]
struct Server {
    breaker: Arc<Breaker>,
    pool: Arc<Mutex<Pool>>,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Replied,
    Failed,
}

impl Server {
    fn new() -> Self {
        facts(|facts| *facts = Facts::default());
        let breaker = Arc::new(Breaker::new("redis".to_owned()));
        Self { breaker, pool: Arc::default() }
    }

    /// An outage does not end while the server is dead.
    fn check_outage(&self) {
        let before = facts(|facts| (facts.away, facts.epoch, facts.redis));
        let is_away = self.breaker.failing_since().is_some();
        facts(|facts| {
            if facts.epoch == before.1 && facts.redis == Redis::Dead {
                assert!(is_away || !before.0, "the outage ended while the server was dead");
                facts.away |= is_away;
            }
        });
    }

    /// Opens a connection, as a thread of r2d2 does.
    fn connect(&self) -> Option<Connection> {
        let failures = facts(|facts| facts.failures);
        let mut is_reported = false;
        let result = self.breaker.connect_or_probe(|generation| {
            step();
            let (redis, cuts) = facts(|facts| (facts.redis, facts.cuts));
            let error = match redis {
                Redis::Up | Redis::Hung { reads: false } => None,
                Redis::Dead => Some(refused()),
                Redis::Hung { .. } => {
                    sleep(DEADLINE);
                    Some(timed_out())
                }
            };
            // The reply has come. The thread may be late to notice.
            (0..if is_late() { LATE_STEPS } else { 1 }).for_each(|_| step());
            if let Some(error) = error {
                is_reported = true;
                begin_failure();
                return Err(error);
            }
            Ok(Connection { generation: *generation, cuts })
        });
        facts(|facts| {
            facts.reporting -= u64::from(is_reported);
            facts.reached |= result.is_ok() && facts.failures == failures && facts.reporting == 0;
        });
        self.check_outage();
        result.ok()
    }

    /// Opens connections while the pool wants any.
    fn keep_connecting(&self) {
        loop {
            let mut pool = self.pool.lock().unwrap();
            if pool.done {
                return;
            }
            let wanted = pool.idle.is_empty() && pool.places < POOL_SIZE;
            pool.places += usize::from(wanted);
            drop(pool);
            if wanted {
                let connection = self.connect();
                let mut pool = self.pool.lock().unwrap();
                match connection {
                    Some(connection) => pool.idle.push(connection),
                    None => pool.places -= 1,
                }
            }
            sleep(Duration::from_millis(20));
        }
    }

    fn give_up(&self, connection: &Connection, is_spoiled: bool) {
        self.breaker.on_close(connection.generation, is_spoiled);
        self.pool.lock().unwrap().places -= 1;
    }

    /// Takes a connection from the pool, as `Server::checkout` does.
    fn checkout(&self, kind: Kind) -> Option<Connection> {
        let (begun, mut wait) = (Instant::now(), Duration::from_millis(10));
        loop {
            let idle = self.pool.lock().unwrap().idle.pop();
            if let Some(connection) = idle {
                if self.breaker.is_current(connection.generation) {
                    return Some(connection);
                }
                self.give_up(&connection, false);
                continue;
            }
            let (reached, failures) = facts(|facts| (facts.reached, facts.failures));
            if self.breaker.check(Some(kind)).is_err() {
                let is_known = reached && facts(|facts| facts.failures == failures);
                assert!(!is_known, "a caller was refused while Redis was known to be reachable");
                return None;
            }
            if begun.elapsed() >= DEADLINE {
                return None;
            }
            sleep(wait);
            wait *= 2;
        }
    }

    /// Asks for a permit. Returns it, and whether it is that of a probe.
    fn admit(&self, kind: Kind) -> Option<(Permit, bool)> {
        let index = kind as usize;
        let (served, silent, failures, replies) =
            facts(|facts| (facts.served[index], facts.silent[index], facts.failures, facts.replies));
        let permit = self.breaker.admit_soon(kind, Instant::now() + DEADLINE).ok();
        facts(|facts| match permit {
            None => {
                assert!(!served || facts.failures != failures, "a caller was refused while Redis was known to reply");
                None
            }
            Some(permit) => {
                let is_probe = silent && facts.replies == replies;
                facts.probes[index] += usize::from(is_probe);
                assert!(facts.probes[index] <= 1, "two callers probe at a time");
                Some((permit, is_probe))
            }
        })
    }

    /// Sends a command of this kind, as `Server::send_once` does.
    fn send(&self, kind: Kind) -> Outcome {
        let Some((permit, is_probe)) = self.admit(kind) else { return Outcome::Failed };
        let end_probe = || facts(|facts| facts.probes[kind as usize] -= usize::from(is_probe));
        let Some(connection) = self.checkout(kind) else {
            end_probe();
            drop(permit);
            return Outcome::Failed;
        };
        let begun = Instant::now();
        let (replies, is_replying) = facts(|facts| (facts.replies, facts.replying > 0));
        step();
        let is_cut = || facts(|facts| facts.cuts != connection.cuts);
        let is_silent = || match facts(|facts| facts.redis) {
            Redis::Hung { reads } => reads || kind == Kind::Others,
            Redis::Up | Redis::Dead => false,
        };
        if !is_cut() && is_silent() {
            sleep(DEADLINE);
            end_probe();
            // Silence opens a circuit, unless a reply closed it since the command was sent, or another silence came first.
            let opens = self.breaker.is_current(connection.generation) && !is_replying;
            report_failure(|| self.breaker.on_silence(permit, connection.generation, begun, &timed_out()));
            facts(|facts| facts.silent[kind as usize] |= opens && facts.replies == replies);
        } else if is_cut() {
            report_failure(|| self.breaker.on_connection_lost(connection.generation, &refused()));
            end_probe();
            drop(permit);
        } else {
            return self.finish(connection, permit, end_probe);
        }
        self.give_up(&connection, true);
        self.breaker.on_failed_operation();
        self.check_outage();
        Outcome::Failed
    }

    /// Reports a reply, and puts the connection back.
    fn finish(&self, connection: Connection, permit: Permit, end_probe: impl FnOnce()) -> Outcome {
        let kind = permit.kind() as usize;
        let failures = facts(|facts| {
            facts.replies += 1;
            facts.replying += 1;
            facts.silent = [false; 2];
            facts.failures
        });
        end_probe();
        self.breaker.on_reply(permit);
        facts(|facts| {
            facts.replying -= 1;
            facts.served[kind] |= facts.failures == failures && facts.reporting == 0;
        });
        self.pool.lock().unwrap().idle.push(connection);
        self.check_outage();
        Outcome::Replied
    }

    /// Sends until a reply comes. Redis is up for good.
    fn send_until_served(&self, kind: Kind) {
        for _ in 0..MOST_FAILURES {
            if self.send(kind) == Outcome::Replied {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        panic!("a caller is not served, although Redis is up");
    }
}

/// What happens to Redis in a run.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is killed, and starts again.
    Killed,
    /// It hangs, and continues.
    Hangs,
    /// It takes no writes for a while, but replies to reads.
    PausesWrites,
}

/// Runs callers and connectors while Redis fails and returns, and checks that it is served again.
///
/// # Panics
///
/// Panics if a property does not hold.
pub fn run(fault: Fault) {
    let server = Server::new();
    let spawn = |work: fn(&Server)| {
        let server = server.clone();
        thread::spawn(move || work(&server))
    };
    let connectors = [spawn(Server::keep_connecting), spawn(Server::keep_connecting)];
    let callers = match fault {
        Fault::PausesWrites => [Kind::Others, Kind::Others, Kind::Reads],
        Fault::Killed | Fault::Hangs => [Kind::Others; 3],
    };
    let callers = callers.map(|kind| {
        let server = server.clone();
        thread::spawn(move || {
            for _ in 0..3 {
                server.send(kind);
            }
            // Redis returns at some time. Until then every operation may fail.
            while facts(|facts| facts.redis != Redis::Up || facts.epoch < 2) {
                server.send(kind);
                sleep(Duration::from_millis(10));
            }
            server.send_until_served(kind);
        })
    });
    // A cut shows the most if connections are open, and an attempt to connect is running.
    let mut random = shuttle::rand::thread_rng();
    (0..random.gen_range(0..40)).for_each(|_| step());
    change(match fault {
        Fault::Killed => Redis::Dead,
        Fault::Hangs => Redis::Hung { reads: true },
        Fault::PausesWrites => Redis::Hung { reads: false },
    });
    (0..random.gen_range(0..150)).for_each(|_| step());
    pass(DEADLINE);
    change(Redis::Up);
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    // Attempts to connect that began in the outage may end only now.
    [Kind::Reads, Kind::Others].iter().for_each(|kind| server.send_until_served(*kind));
    server.pool.lock().unwrap().done = true;
    connectors.into_iter().for_each(|connector| connector.join().unwrap());
    if server.breaker.failing_since().is_some() {
        // The last attempt of a connector failed late. One more attempt ends the outage.
        sleep(DEADLINE);
        assert!(server.connect().is_some(), "the server can be reached");
    }
    assert!(server.breaker.failing_since().is_none() && !server.breaker.waits_for_a_caller(), "the outage has an end");
}
