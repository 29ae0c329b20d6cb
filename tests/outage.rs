//! An outage as the threads of a server see it: the first operations wait for their deadline, later ones fail fast, and all work
//! again once Redis responds.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use support::{Fault, PATIENCE, Proxy, RedisServer, eventually, reply_server};
use threaded_sessions::store::{Created, Found, Saved, Touch, Write};
use threaded_sessions::{ErrorKind, RedisSessionStore, SessionId, SessionStore, redis};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(250);

/// In which a store is to be back: far more than it takes, and half of what r2d2 takes by itself. And how often it may
/// miss that because the machine is busy.
const BACK: Duration = Duration::from_millis(2500);
const ROUNDS: usize = 5;

/// The deadline unless configured otherwise.
const DEADLINE: Duration = Duration::from_secs(1);

fn open(url: &str, deadline: Duration) -> RedisSessionStore {
    RedisSessionStore::builder().url(url).deadline(deadline).build().unwrap()
}

fn read(store: &RedisSessionStore) -> Result<(), ErrorKind> {
    store.read(&SessionId::random(), Touch::No).map(drop).map_err(|error| error.kind())
}

fn serves(store: &RedisSessionStore) -> bool {
    read(store).is_ok()
}

#[test]
fn a_program_can_start_before_its_redis() {
    let server = RedisServer::start();
    server.kill();
    let store = open(&server.url(), PATIENCE);
    let start = Instant::now();
    assert_eq!(read(&store), Err(ErrorKind::Unavailable));
    assert!(start.elapsed() < PATIENCE / 2, "it waited");
    assert!(!store.health().is_healthy());
    assert!(store.health().last_error.is_some_and(|error| error.contains("refused")));
    server.restart();
    // Also without traffic.
    assert!(eventually(PATIENCE, || store.health().is_healthy()));
    assert_eq!(read(&store), Ok(()));
    assert!(store.health().last_error.is_some(), "it is kept");
}

/// A visitor's session: its payload names it, and counts.
struct Visitor {
    id: SessionId,
    visits: u64,
}

impl Visitor {
    fn payload(&self) -> String {
        format!("{} {} {}", self.id.expose(), self.visits, "x".repeat(500))
    }

    /// Reads the session and counts on. After an error it may have happened.
    fn visit(&mut self, store: &RedisSessionStore) -> Result<(), ErrorKind> {
        let found = store.read(&self.id, Touch::Set(HOUR)).map_err(|error| error.kind())?;
        let Found::Live(stored) = found else { panic!("a session is lost: {found:?}") };
        let mut next = Self { visits: self.visits + 1, ..*self };
        if *stored.payload == *next.payload().as_bytes() {
            *self = next;
            next = Self { visits: self.visits + 1, ..*self };
        }
        assert_eq!(str::from_utf8(&stored.payload).unwrap(), self.payload(), "not the visitor's own session");
        let saved = store.save(&self.id, Write::new(next.payload().as_bytes(), HOUR), Some(&stored.version));
        assert!(matches!(saved.map_err(|error| error.kind())?, Saved::Stored(_)));
        *self = next;
        Ok(())
    }
}

/// When a visit began, what it took and whether it succeeded.
type Visit = (Instant, Duration, Result<(), ErrorKind>);

#[test]
fn threads_fail_fast_during_outage_and_then_recover() {
    const THREADS: usize = 32;
    let server = RedisServer::start();
    let store = RedisSessionStore::open(&server.url()).unwrap();
    let visitors: Vec<Mutex<(Visitor, Vec<Visit>)>> = (0..THREADS)
        .map(|_| {
            let visitor = Visitor { id: store.fresh_id(None), visits: 0 };
            let created = store.create(&visitor.id, Write::new(visitor.payload().as_bytes(), HOUR)).unwrap();
            assert!(matches!(created, Created::Stored(_)));
            Mutex::new((visitor, Vec::new()))
        })
        .collect();
    let (over, start) = (&AtomicBool::new(false), &Barrier::new(THREADS));
    let (store, visitors) = (&store, &visitors);
    let since = |since: Instant, ok: bool| {
        let visits = visitors.iter().map(|visitor| visitor.lock().unwrap().1.clone());
        visits.map(move |visits| visits.into_iter().filter(|v| v.0 >= since && v.2.is_ok() == ok).collect::<Vec<_>>())
    };
    let all_have = |count: usize, from: Instant, ok: bool| {
        assert!(
            eventually(PATIENCE * 3, || since(from, ok).all(|visits| visits.len() >= count)),
            "{:?}",
            store.health()
        );
    };
    thread::scope(|scope| {
        for visitor in visitors {
            scope.spawn(move || {
                start.wait();
                while !over.load(Ordering::Relaxed) {
                    let mut visitor = visitor.lock().unwrap();
                    let begun = Instant::now();
                    let result = visitor.0.visit(store);
                    visitor.1.push((begun, begun.elapsed(), result));
                    drop(visitor);
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let _ends_the_threads = OnDrop(|| over.store(true, Ordering::Relaxed));
        let mut recoveries = Vec::new();
        while recoveries.len() < ROUNDS && !recoveries.iter().any(|&recovery| recovery < BACK) {
            all_have(20, Instant::now(), true);
            let stopped = Instant::now();
            server.stop();
            // The first has waited for the deadline, the others are at once.
            all_have(20, stopped, false);
            let resumed = Instant::now();
            server.resume();
            all_have(20, resumed, true);

            let failed: Vec<Visit> = since(stopped, false).flatten().collect();
            let mut times: Vec<Duration> = failed.iter().map(|visit| visit.1).collect();
            times.sort_unstable();
            let median = times[times.len() / 2];
            // A caller that waits for a connection checks the circuit breaker only after this time.
            assert!(median < Duration::from_millis(10), "{median:?} for an error");
            let waits = times.iter().filter(|&&time| time > DEADLINE / 2).count();
            assert!(waits <= THREADS * 3 / 2, "a thread waits for one deadline, not for another: {waits} waits");
            let last_error = failed.iter().map(|visit| visit.0).max().unwrap();
            recoveries.push(last_error.saturating_duration_since(resumed));
            println!("error in {median:?}, at most {:?}; all well after {:?}", times.last(), recoveries.last());
            visitors.iter().for_each(|visitor| visitor.lock().unwrap().1.clear());
        }
        assert!(recoveries.iter().any(|&recovery| recovery < BACK), "{recoveries:?}");
    });
    assert!(store.health().is_healthy());
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// One operation notices the outage, and the next comes only when Redis is back.
#[test]
fn quiet_client_is_served_once_redis_is_back() {
    type Operation = fn(&RedisSessionStore) -> bool;
    let own_command: Operation = |store| {
        let Ok(mut connection) = store.pool().get() else { return false };
        redis::cmd("GET").arg("key").exec(&mut connection).is_ok()
    };
    for operation in [serves, own_command] {
        let server = RedisServer::start();
        let store = RedisSessionStore::builder().url(server.url()).deadline(SHORT).pool_size(2).build().unwrap();
        let is_served_after = |pause| {
            // With a spare one, so that r2d2 has no reason to open another.
            assert!(eventually(PATIENCE, || operation(&store) && store.health().connections_idle > 1));
            server.stop();
            assert!(!operation(&store));
            server.resume();
            thread::sleep(pause);
            operation(&store)
        };
        for _ in 0..3 {
            // A busy machine takes longer.
            assert!((1..=ROUNDS).any(|round| is_served_after(BACK * round as u32 / ROUNDS as u32)));
        }
    }
}

#[test]
fn health_returns_without_traffic() {
    let server = RedisServer::start();
    let store = open(&server.url(), SHORT);
    assert!(eventually(PATIENCE, || serves(&store)));
    server.stop();
    assert!(eventually(PATIENCE, || !serves(&store) && !store.health().is_healthy()));
    server.resume();
    assert!(eventually(PATIENCE, || store.health().is_healthy()));
}

#[test]
fn slow_foreign_command_is_a_short_outage() {
    let server = RedisServer::start();
    let store = open(&server.url(), SHORT);
    assert!(eventually(PATIENCE, || serves(&store)));
    let sleeper = thread::spawn({
        let mut connection = server.connection();
        move || redis::cmd("DEBUG").arg("SLEEP").arg(2).exec(&mut connection).unwrap()
    });
    assert!(eventually(PATIENCE, || read(&store) == Err(ErrorKind::TimedOut)));
    assert!(eventually(PATIENCE, || read(&store) == Err(ErrorKind::Unavailable) || sleeper.is_finished()));
    sleeper.join().unwrap();
    assert!(eventually(PATIENCE, || serves(&store)));
}

#[test]
fn a_pool_of_one_connection_survives_outages() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).deadline(SHORT).pool_size(1).build().unwrap();
    for _ in 0..3 {
        let all_serve = || {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| serves(&store))).collect();
                threads.into_iter().all(|thread| thread.join().unwrap())
            })
        };
        assert!(eventually(PATIENCE, all_serve));
        server.stop();
        assert!(eventually(PATIENCE, || read(&store) == Err(ErrorKind::Unavailable)));
        server.resume();
        assert!(eventually(PATIENCE, all_serve));
        server.restart();
    }
}

#[test]
fn stores_on_one_pool_know_the_same() {
    let server = RedisServer::start();
    let one = open(&server.url(), SHORT);
    let other = RedisSessionStore::builder().pool(one.pool().clone()).prefix("other").expiring().build().unwrap();
    assert!(eventually(PATIENCE, || serves(&one) && serves(&other)));
    server.stop();
    assert!(eventually(PATIENCE, || read(&one) == Err(ErrorKind::Unavailable)));
    assert_eq!(read(&other), Err(ErrorKind::Unavailable));
    assert!(!one.health().is_healthy() && !other.health().is_healthy());
    server.resume();
    assert!(eventually(PATIENCE, || serves(&other)));
    assert!(eventually(PATIENCE, || serves(&one)));
}

/// Slow to take the command, and then silent: that Redis took long to send to does not excuse it.
#[test]
fn redis_hanging_after_slow_send_is_an_outage() {
    let hangs = Arc::new(AtomicBool::new(false));
    let hung = hangs.clone();
    let port = reply_server(move |request| {
        if request.ends_with(b"PING\r\n") && !hung.load(Ordering::Relaxed) {
            return "+PONG\r\n".to_owned();
        }
        if !hung.swap(true, Ordering::Relaxed) {
            // Beyond what the kernel buffers, the rest of the command waits for this.
            thread::sleep(SHORT * 6 / 10);
        }
        String::new()
    });
    let store = open(&format!("redis://127.0.0.1:{port}"), SHORT);
    let large = vec![b'x'; 32 << 20];
    let error = store.create(&store.fresh_id(None), Write::new(&large, HOUR)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::MayHaveHappened), "{error:?}");
    assert!(hangs.load(Ordering::Relaxed) && !store.health().is_healthy());
}

#[test]
fn health_counts_outcomes_and_keeps_last_error() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let store = open(&proxy.url(), PATIENCE);
    assert_eq!(read(&store), Ok(()));
    let before = store.health();
    assert!(before.is_healthy() && before.last_error.is_none(), "{before:?}");

    proxy.set_for(Fault::CutAfterExecuted, 1);
    assert_eq!(read(&store), Ok(()));
    let after = store.health();
    // A read of what is not there is two commands.
    assert_eq!((after.repeated, after.answered, after.failed), (1, before.answered + 1, 0));
    assert!(after.is_healthy() && after.last_error.is_some(), "{after:?}");

    let id = SessionId::random();
    server.cmd(&["RPUSH", &store.key(&id), "not a session"]);
    assert_eq!(store.read(&id, Touch::No).unwrap_err().kind(), ErrorKind::WrongType);
    let failed = store.health();
    assert_eq!(failed.failed, 1);
    assert!(failed.is_healthy() && failed.last_error.unwrap().contains("WRONGTYPE"));

    let connection = store.pool().get().unwrap();
    assert_eq!(store.health().connections_in_use, 1);
    drop(connection);
    let idle = store.health();
    let cores = thread::available_parallelism().unwrap().get() as u32;
    assert_eq!((idle.connections_in_use, idle.connections_max), (0, (cores * 8).max(64)));
    assert!(idle.connections_idle >= 1);
}

struct Log;

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // A logger may ask for the health of a store: it is not called under a lock.
        if let Some(store) = WATCHED.get() {
            let _ = store.health();
        }
        LOG.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

static WATCHED: OnceLock<RedisSessionStore> = OnceLock::new();

#[test]
fn an_outage_is_logged_once() {
    log::set_logger(&Log).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = RedisServer::start();
    let store = WATCHED.get_or_init(|| open(&server.url(), PATIENCE));
    let address = format!("Redis at 127.0.0.1:{}", server.port());
    let logged =
        || -> Vec<String> { LOG.lock().unwrap().iter().filter(|line| line.contains(&address)).cloned().collect() };
    assert!(eventually(PATIENCE, || serves(store)));
    let (refused, failures) = (AtomicUsize::new(0), 100);
    server.kill();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while refused.load(Ordering::Relaxed) < failures {
                    if read(store) == Err(ErrorKind::Unavailable) {
                        refused.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    server.restart();
    assert!(eventually(PATIENCE, || serves(store) && logged().len() > 1));
    let [away, back] = &logged()[..] else { panic!("{:?}", logged()) };
    assert!(away.starts_with("WARN Redis at") && away.contains("is away: "), "{away}");
    assert!(back.starts_with("INFO Redis at") && back.contains("is back, after "), "{back}");
}
