//! Outages that a new connection does not end: writes are paused, or a proxy replies to `PING` by itself.
//!
//! One caller at a time is the probe, all others fail fast, and only a reply to a command of the kind that failed ends it.

mod support;

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::{PATIENCE, RedisServer, eventually, keep_logs, reply_server, serve_replies};
use threaded_sessions::observer::{CircuitEvent, CircuitState};
use threaded_sessions::store::{Created, Found, Saved, Touch, Write};
use threaded_sessions::{ErrorKind, Observer, RedisSessionStore, SessionId, SessionStore, redis};

const HOUR: Duration = Duration::from_secs(3600);
const WORKERS: usize = 8;
const DEADLINE: Duration = Duration::from_secs(1);

/// An operation that takes longer waits for Redis.
const WAITING: Duration = Duration::from_millis(100);

/// The lines of the log about the server at this port.
fn logged(port: u16) -> Vec<String> {
    let address = format!("127.0.0.1:{port} ");
    let lines = support::logged().into_iter().map(|record| format!("{} {}", record.level, record.text));
    lines.filter(|line| line.contains(&address)).collect()
}

/// An operation of a worker.
#[derive(Clone, Copy)]
struct Operation {
    begun: Instant,
    ended: Instant,
    /// How long the thread waited for a processor core meanwhile.
    starved: Duration,
    reads: bool,
    ok: bool,
}

impl Operation {
    /// How long it took on a machine with enough cores.
    fn took(&self) -> Duration {
        (self.ended - self.begun).saturating_sub(self.starved)
    }

    /// The time between `since` and `until` in which it surely waited for Redis.
    fn waited(&self, since: Instant, until: Instant) -> Option<(Instant, Instant)> {
        let from = (self.begun + WAITING + self.starved).max(since);
        let to = (self.ended - self.starved.min(self.ended - self.begun)).min(until);
        (from < to).then_some((from, to))
    }
}

/// How long this thread has waited for a processor core. Other systems than Linux do not tell.
fn starved() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split_whitespace().nth(1).map_or(0, |nanos| nanos.parse().unwrap()))
}

/// All operations that a worker has run.
#[derive(Default)]
struct Worker(Mutex<Vec<Operation>>);

impl Worker {
    fn run(&self, reads: bool, operation: impl FnOnce() -> bool) {
        let before = starved();
        let begun = Instant::now();
        let ok = operation();
        let ended = Instant::now();
        self.0.lock().unwrap().push(Operation { begun, ended, starved: starved() - before, reads, ok });
    }

    /// Reads and saves the worker's own session until it is over.
    fn serve(&self, store: &RedisSessionStore, id: &SessionId, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            self.run(true, || matches!(store.read(id, Touch::No), Ok(Found::Live(_))));
            self.run(false, || matches!(store.save(id, Write::new(b"new", HOUR), None), Ok(Saved::Stored(_))));
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The record of a fault, from its start to its end.
struct Report {
    operations: Vec<Vec<Operation>>,
    over: Instant,
}

/// Lets the workers serve while a fault lasts and until all are served again.
fn observe(store: &RedisSessionStore, lasts: Duration, fault: impl FnOnce(), end: impl FnOnce()) -> Report {
    let workers: Vec<Worker> = (0..WORKERS).map(|_| Worker::default()).collect();
    let ids: Vec<SessionId> = workers
        .iter()
        .map(|_| {
            let id = store.fresh_id(None);
            assert!(matches!(store.create(&id, Write::new(b"old", HOUR)), Ok(Created::Stored(_))));
            id
        })
        .collect();
    let over = &AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        for (worker, id) in workers.iter().zip(&ids) {
            scope.spawn(move || worker.serve(store, id, over));
        }
        thread::sleep(Duration::from_millis(200));
        fault();
        let until = Instant::now() + lasts;
        thread::sleep(lasts);
        end();
        let served = || {
            workers.iter().all(|worker| {
                let done = worker.0.lock().unwrap();
                done.iter().any(|operation| operation.begun > until && operation.ok && !operation.reads)
            })
        };
        let all_served = eventually(PATIENCE, served);
        over.store(true, Ordering::Relaxed);
        assert!(all_served, "{:?}", store.health());
        until
    });
    let operations = workers.into_iter().map(|worker| worker.0.into_inner().unwrap()).collect();
    Report { operations, over: ended }
}

#[test]
fn paused_writes_hold_one_worker_at_a_time() {
    keep_logs();
    let server = RedisServer::start();
    let store = RedisSessionStore::open(&server.url()).unwrap();
    let pause = Duration::from_secs(8);
    let mut began = Instant::now();
    let begin = || {
        began = Instant::now();
        server.cmd(&["CLIENT", "PAUSE", &pause.as_millis().to_string(), "WRITE"]);
    };
    let report = observe(&store, pause, begin, || ());

    // The first deadline opens the circuit. A second one may belong to workers that began in between.
    let settled = began + DEADLINE * 2;
    let operations = report.operations.iter().flatten();
    let mut waits: Vec<_> = operations.filter_map(|operation| operation.waited(settled, report.over)).collect();
    waits.sort();
    assert!(waits.len() > 1, "a probe that hangs hands over: {waits:?}");
    assert!(waits.windows(2).all(|pair| pair[0].1 <= pair[1].0), "one worker at a time: {waits:?}");
    for done in &report.operations {
        assert!(
            done.iter().filter(|operation| operation.reads).all(|operation| operation.ok),
            "reads succeed throughout"
        );
        // A worker waits longer than 0.3 s only as the probe, which takes the whole deadline, or until the end of the pause.
        let slow = |operation: &&Operation| operation.begun > settled && operation.took() > Duration::from_millis(300);
        for probe in done.iter().filter(slow) {
            let ends_with_pause = probe.ended + WAITING > report.over;
            assert!(!probe.reads && (ends_with_pause || probe.took() > DEADLINE * 9 / 10), "{:?}", probe.took());
        }
        let first = done.iter().find(|operation| operation.ended > report.over && operation.ok && !operation.reads);
        let served_after = first.map(|operation| operation.ended.saturating_duration_since(report.over));
        assert!(served_after.is_some_and(|after| after < Duration::from_millis(500)), "{served_after:?}");
    }
    assert!(eventually(PATIENCE, || logged(server.port()).len() > 1));
    let [away, back] = &logged(server.port())[..] else { panic!("{:?}", logged(server.port())) };
    assert!(away.starts_with("WARN Redis at") && away.contains("is away"), "{away}");
    assert!(back.starts_with("INFO Redis at") && back.contains("is back, after "), "{back}");
    assert!(store.health().failing_for.is_none());
}

/// A server, or a proxy, that replies to `PING` by itself. To all other commands it replies only while it serves.
struct PingProxy {
    port: u16,
    serves: Arc<AtomicBool>,
    /// Replies to `EXISTS` and `GET` even while it does not serve.
    reads: Arc<AtomicBool>,
}

impl PingProxy {
    fn start() -> Self {
        let (serves, reads) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let flags = (serves.clone(), reads.clone());
        let port = reply_server(move |request| {
            let has = |name: &str| String::from_utf8_lossy(request).contains(&format!("\r\n{name}\r\n"));
            let serves = flags.0.load(Ordering::Relaxed);
            let reply = match () {
                () if has("PING") => "+PONG\r\n",
                () if !serves && !((has("EXISTS") || has("GET")) && flags.1.load(Ordering::Relaxed)) => "",
                () if has("GET") && has("SET") => "$-1\r\n",
                () if has("GET") => "$3\r\nold\r\n",
                () => ":0\r\n",
            };
            reply.to_owned()
        });
        Self { port, serves, reads }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

#[test]
fn ping_reply_ends_no_outage_of_commands() {
    keep_logs();
    let proxy = PingProxy::start();
    let deadline = Duration::from_millis(500);
    let store = RedisSessionStore::builder().url(proxy.url()).deadline(deadline).build().unwrap();
    let delete = |store: &RedisSessionStore| store.delete(&SessionId::random()).map_err(|error| error.kind());
    assert!(delete(&store).is_ok());
    proxy.serves.store(false, Ordering::Relaxed);
    let (start, over) = (&Barrier::new(WORKERS), &AtomicBool::new(false));
    let began = Instant::now();
    let slow = &Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            let store = &store;
            scope.spawn(move || {
                start.wait();
                while !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    assert!(delete(store).is_err());
                    if begun.elapsed() > WAITING {
                        slow.lock().unwrap().push((begun, Instant::now()));
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        thread::sleep(deadline * 6);
        over.store(true, Ordering::Relaxed);
    });
    let mut probes: Vec<_> = slow.lock().unwrap().iter().copied().filter(|probe| probe.0 > began + deadline).collect();
    probes.sort();
    assert!(probes.len() >= 2, "a probe that hangs hands over: {probes:?}");
    let overlap = probes.windows(2).filter(|pair| pair[0].1 > pair[1].0 + WAITING).count();
    assert_eq!(overlap, 0, "one probe at a time: {probes:?}");
    assert_eq!(logged(proxy.port).len(), 1, "{:?}", logged(proxy.port));

    proxy.serves.store(true, Ordering::Relaxed);
    assert!(eventually(PATIENCE, || delete(&store).is_ok()));
    assert!(eventually(PATIENCE, || logged(proxy.port).len() == 2), "{:?}", logged(proxy.port));
}

#[test]
fn outage_without_callers_stays_half_open() {
    let proxy = PingProxy::start();
    let store = RedisSessionStore::builder().url(proxy.url()).deadline(Duration::from_millis(250)).build().unwrap();
    let (read, delete) = (
        || store.read(&SessionId::random(), Touch::No).map(drop).map_err(|error| error.kind()),
        || store.delete(&SessionId::random()).map(drop).map_err(|error| error.kind()),
    );
    assert_eq!((read(), delete()), (Ok(()), Ok(())));
    proxy.serves.store(false, Ordering::Relaxed);
    assert_eq!(delete(), Err(ErrorKind::MayHaveHappened));
    assert!(eventually(PATIENCE, || store.health().half_open));
    proxy.reads.store(true, Ordering::Relaxed);
    assert!(eventually(PATIENCE, || read().is_ok()), "reads go on");
    let health = store.health();
    assert!(health.half_open && health.failing_for.is_some() && health.is_healthy(), "{health:?}");
    // The application's own command is the probe, and its reply counts.
    proxy.serves.store(true, Ordering::Relaxed);
    let mut connection = store.pool().get().unwrap();
    redis::cmd("PING").exec(&mut connection).unwrap();
    assert!(store.health().half_open, "PING proves nothing");
    redis::cmd("UNLINK").arg("key").exec(&mut connection).unwrap();
    let health = store.health();
    assert!(!health.half_open && health.failing_for.is_none(), "{health:?}");
}

#[test]
fn commands_spared_by_pause_end_no_outage() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).deadline(Duration::from_millis(250)).build().unwrap();
    let delete = || store.delete(&SessionId::random()).map_err(|error| error.kind());
    assert!(delete().is_ok());
    server.cmd(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    assert_eq!(delete(), Err(ErrorKind::MayHaveHappened));
    assert!(eventually(PATIENCE, || store.health().half_open));
    for command in ["SELECT 5", "WATCH key", "CLIENT ID", "MULTI", "TOUCH key", "WAIT 0 0", "SUBSCRIBE channel"] {
        let mut connection = store.pool().get().unwrap();
        let mut words = command.split(' ');
        redis::cmd(words.next().unwrap()).arg(words.collect::<Vec<_>>()).exec(&mut connection).unwrap();
        assert!(store.health().half_open, "{command}");
        if command.starts_with("SUBSCRIBE") {
            let refused = redis::cmd("SET").arg("key").arg("value").exec(&mut connection).unwrap_err();
            assert!(!refused.is_timeout() && store.health().half_open, "{refused:?}");
        }
    }
    server.cmd(&["CLIENT", "UNPAUSE"]);
    assert!(eventually(PATIENCE, || delete().is_ok()));
}

#[test]
fn command_without_reply_is_no_outage() {
    let server = RedisServer::start();
    let url = format!("{}?protocol=resp3", server.url());
    let store = RedisSessionStore::builder().url(url).deadline(Duration::from_millis(250)).build().unwrap();
    for silent in [&["SUBSCRIBE", "channel"][..], &["CLIENT", "REPLY", "OFF"]] {
        let mut connection = store.pool().get().unwrap();
        let mut is_silent = |words: &[&str]| {
            redis::cmd(words[0]).arg(&words[1..]).exec(&mut connection).is_err_and(|error| error.is_timeout())
        };
        assert!(is_silent(silent), "{silent:?}");
        assert!(silent[0] == "SUBSCRIBE" || is_silent(&["SET", "key", "value"]));
        drop(connection);
        assert!(store.health().failing_for.is_none(), "{silent:?}: {:?}", store.health());
        assert!(store.delete(&SessionId::random()).is_ok(), "{silent:?}");
    }
}

#[test]
fn single_connection_pool_fails_fast_while_probe_waits() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).pool_size(1).build().unwrap();
    let delete = || store.delete(&SessionId::random()).map_err(|error| error.kind());
    assert!(delete().is_ok());
    server.cmd(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    assert_eq!(delete(), Err(ErrorKind::MayHaveHappened));
    assert!(eventually(PATIENCE, || store.health().half_open));
    thread::scope(|scope| {
        let probe = scope.spawn(delete);
        assert!(eventually(PATIENCE, || store.health().connections_in_use == 1));
        let begun = Instant::now();
        assert_eq!(delete(), Err(ErrorKind::Unavailable), "it was not sent");
        assert!(begun.elapsed() < DEADLINE / 2, "{:?}", begun.elapsed());
        assert_eq!(probe.join().unwrap(), Err(ErrorKind::MayHaveHappened));
    });
    server.cmd(&["CLIENT", "UNPAUSE"]);
    assert!(eventually(PATIENCE, || delete().is_ok()));
}

/// Keeps the states that it learns of, with the server.
#[derive(Default)]
struct States(Mutex<Vec<(String, CircuitState)>>);

impl Observer for States {
    fn on_circuit(&self, event: &CircuitEvent<'_>) {
        self.0.lock().unwrap().push((event.server.to_owned(), event.state));
    }
}

#[test]
fn half_open_node_hides_no_unreachable_node() {
    // No node listens at the second port.
    let absent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let present = listener.local_addr().unwrap().port();
    let slots = [(0, 8191, present), (8192, 16_383, absent)];
    let range = |(from, to, port)| format!("*3\r\n:{from}\r\n:{to}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n");
    let map = format!("*2\r\n{}", slots.map(range).concat());
    serve_replies(listener, move |request| {
        let has = |name: &str| String::from_utf8_lossy(request).contains(&format!("\r\n{name}\r\n"));
        match () {
            () if has("PING") => "+PONG\r\n".to_owned(),
            () if has("SLOTS") => map.clone(),
            () => String::new(),
        }
    });
    let url = format!("redis-cluster://127.0.0.1:{present}");
    let store = RedisSessionStore::builder().url(url).deadline(Duration::from_millis(250)).build().unwrap();
    let states = Arc::new(States::default());
    let observer: Arc<dyn Observer> = states.clone();
    store.observe(&observer);
    let silent = || store.delete(&SessionId::random()).is_err_and(|error| error.kind() == ErrorKind::MayHaveHappened);
    assert!(eventually(PATIENCE, silent));
    let state_of = |port: u16| {
        let ends = format!(":{port}");
        states.0.lock().unwrap().iter().rfind(|(server, _)| server.ends_with(&ends)).map(|(_, state)| *state)
    };
    let is_settled = || [present, absent].map(state_of) == [CircuitState::HalfOpen, CircuitState::Open].map(Some);
    assert!(eventually(PATIENCE, is_settled), "{:?}", [present, absent].map(state_of));
    let health = store.health();
    assert!(!health.half_open && !health.is_healthy(), "{health:?}");
}
