//! Faults of the network between the store and a healthy Redis: forgotten connections, dead addresses, slow links.
//!
//! Each fault is forced by a proxy or by a listener that accepts no connection. In every case one deadline bounds the operation.

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::{DeadEnd, Fault, PATIENCE, Proxy, RedisServer, eventually, texts};
use threaded_sessions::redis::{self, RedisResult, Value};
use threaded_sessions::store::{Created, Found, Touch, Write};
use threaded_sessions::{ErrorKind, RedisConnectionManager, RedisPool, RedisSessionStore, SessionId, SessionStore};

const HOUR: Duration = Duration::from_secs(3600);
const DEADLINE: Duration = Duration::from_secs(1);

/// How much later than its deadline an operation may return on a busy machine.
const SLACK: Duration = Duration::from_millis(300);

/// After this time a connection counts as idle.
const IDLE: Duration = Duration::from_millis(100);

/// In place of the time after which the tests do not want any connection to count as idle.
const NEVER: Duration = PATIENCE;

type Addresses = Arc<Mutex<Vec<SocketAddr>>>;

/// A store whose host has these addresses.
fn store(addresses: &Addresses, deadline: Duration, idle: Duration, connections: u32) -> RedisSessionStore {
    let addresses = addresses.clone();
    let resolver = Arc::new(move |_: &str, _: u16| Ok(addresses.lock().unwrap().clone()));
    let manager = RedisConnectionManager::open("redis://redis.internal").unwrap().with_deadline(deadline).unwrap();
    let pool = RedisPool::with_size(manager.with_test_seams(Some(resolver), idle), connections).unwrap();
    RedisSessionStore::builder().pool(pool).build().unwrap()
}

fn only(address: SocketAddr) -> Addresses {
    Arc::new(Mutex::new(vec![address]))
}

fn read(store: &RedisSessionStore) -> Result<(), ErrorKind> {
    store.read(&SessionId::random(), Touch::No).map(drop).map_err(|error| error.kind())
}

fn create(store: &RedisSessionStore, payload: &[u8]) -> Result<SessionId, threaded_sessions::Error> {
    let id = store.fresh_id(None);
    let created = store.create(&id, Write::new(payload, HOUR))?;
    assert!(matches!(created, Created::Stored(_)));
    Ok(id)
}

/// Opens this many connections of the pool.
fn fill(store: &RedisSessionStore, connections: usize) {
    assert!(eventually(PATIENCE, || read(store).is_ok()));
    let held: Vec<_> = (0..connections).map(|_| store.pool().get().unwrap()).collect();
    assert_eq!(held.len(), connections);
}

#[test]
fn forgotten_connections_fail_no_operation_of_a_burst() {
    const WORKERS: usize = 8;
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let store = store(&only(proxy.address()), 2 * DEADLINE, IDLE, WORKERS as u32);
    fill(&store, WORKERS);
    proxy.forget();
    thread::sleep(2 * IDLE);
    let start = Barrier::new(WORKERS);
    let work = |worker: usize| {
        start.wait();
        if worker.is_multiple_of(2) {
            read(&store)
        } else {
            create(&store, b"new").map(drop).map_err(|error| error.kind())
        }
    };
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().for_each(|worker| assert_eq!(worker.join().unwrap(), Ok(())));
    });
    assert!(proxy.swallowed() > 0, "the fault struck");
    let health = store.health();
    assert!(health.is_healthy() && health.failed == 0 && health.repeated == 0, "{health:?}");
    assert_eq!(health.last_error, None);
}

#[test]
fn one_test_finds_all_forgotten_connections() {
    const CONNECTIONS: usize = 8;
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let store = store(&only(proxy.address()), 2 * DEADLINE, IDLE, CONNECTIONS as u32);
    fill(&store, CONNECTIONS);
    proxy.forget();
    thread::sleep(2 * IDLE);
    let start = Instant::now();
    create(&store, b"new").unwrap();
    let took = start.elapsed();
    assert_eq!(proxy.swallowed(), 1, "a single PING");
    assert!((DEADLINE / 2..DEADLINE).contains(&took), "a quarter of the deadline: {took:?}");
}

#[test]
fn busy_connections_are_not_tested() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let store = store(&only(proxy.address()), DEADLINE, NEVER, 1);
    assert!(eventually(PATIENCE, || read(&store).is_ok()));
    proxy.forget();
    let start = Instant::now();
    let error = create(&store, b"new").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MayHaveHappened, "the write is not sent again");
    assert!((DEADLINE..DEADLINE + SLACK).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert!(texts(&error).contains("no reply within 1 s"), "{error:?}");
    assert_eq!(proxy.swallowed(), 1);
}

#[test]
fn dead_first_address_fails_no_operation() {
    let (server, dead) = (RedisServer::start(), DeadEnd::start());
    let live = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let addresses = Arc::new(Mutex::new(vec![dead.address(), live]));
    let store = store(&addresses, DEADLINE, NEVER, 4);
    let start = Instant::now();
    create(&store, b"new").unwrap();
    // The pool began to connect a moment earlier.
    assert!((DEADLINE / 3..DEADLINE).contains(&start.elapsed()), "half of the deadline: {:?}", start.elapsed());
    let start = Instant::now();
    fill(&store, 4);
    assert!(start.elapsed() < DEADLINE / 2, "the address that worked comes first: {:?}", start.elapsed());
    assert!(store.health().is_healthy() && store.health().failed == 0, "{:?}", store.health());
}

#[test]
fn dead_first_sentinel_address_fails_no_lookup() {
    let (server, dead) = (RedisServer::start(), DeadEnd::start());
    let sentinel = RedisServer::sentinel(&format!("sentinel monitor sessions 127.0.0.1 {} 1\n", server.port()));
    let resolver = {
        let by_name = [dead.address(), SocketAddr::from(([127, 0, 0, 1], sentinel.port()))];
        Arc::new(move |host: &str, port: u16| match host {
            "sentinel.internal" => Ok(by_name.to_vec()),
            _ => Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]),
        })
    };
    let url = "redis-sentinel://sentinel.internal?sentinelServiceName=sessions";
    let manager = RedisConnectionManager::open(url).unwrap().with_deadline(3 * DEADLINE).unwrap();
    let pool = RedisPool::with_size(manager.with_test_seams(Some(resolver), NEVER), 2).unwrap();
    let store = RedisSessionStore::builder().pool(pool).build().unwrap();
    let start = Instant::now();
    create(&store, b"new").unwrap();
    assert!((DEADLINE / 3..DEADLINE).contains(&start.elapsed()), "half of a third: {:?}", start.elapsed());
    assert!(store.health().is_healthy() && store.health().failed == 0, "{:?}", store.health());
}

#[test]
fn one_deadline_bounds_test_connecting_and_operation() {
    const LONG: Duration = Duration::from_secs(4);
    let (server, dead) = (RedisServer::start(), DeadEnd::start());
    let (first, second) = (Proxy::start(&server), Proxy::start(&server));
    let addresses = only(first.address());
    let store = store(&addresses, LONG, IDLE, 2);
    fill(&store, 2);
    // The firewall forgets the connections, the name moves to a dead and a live address, and Redis becomes slow.
    first.forget();
    *addresses.lock().unwrap() = vec![dead.address(), second.address()];
    second.set(Fault::Delay(LONG / 40));
    thread::sleep(2 * IDLE);
    let start = Instant::now();
    create(&store, b"new").unwrap();
    let took = start.elapsed();
    assert!((LONG * 3 / 4..LONG).contains(&took), "a quarter for the test, half for the dead address: {took:?}");
    assert!(first.swallowed() > 0 && second.fired() > 1);

    // With nothing alive, the operation ends at the deadline, and nothing was sent.
    second.forget();
    *addresses.lock().unwrap() = vec![dead.address()];
    thread::sleep(2 * IDLE);
    let start = Instant::now();
    let error = create(&store, b"new").unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Unavailable), "{error:?}");
    assert!(start.elapsed() < LONG + SLACK, "{:?}", start.elapsed());
}

#[test]
fn slow_link_times_out_at_the_deadline() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let store = store(&only(proxy.address()), DEADLINE, NEVER, 1);
    let id = create(&store, &vec![b'x'; 1_000_000]).unwrap();
    // 200 KB a second.
    proxy.set(Fault::Throttle(20_000, Duration::from_millis(100)));
    let start = Instant::now();
    let error = store.read(&id, Touch::No).unwrap_err();
    let took = start.elapsed();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert!((DEADLINE..DEADLINE + SLACK).contains(&took), "{took:?}");
    proxy.set(Fault::None);
    let found = || store.read(&id, Touch::No).is_ok_and(|found| matches!(found, Found::Live(_)));
    assert!(eventually(PATIENCE, found), "{:?}", store.health());
}

#[test]
fn byte_by_byte_reply_times_out_at_deadline() {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let store = store(&only(proxy.address()), DEADLINE, NEVER, 1);
    let id = create(&store, &[b'x'; 500]).unwrap();
    proxy.set_for(Fault::Drip(Duration::from_millis(10)), 1);
    let start = Instant::now();
    let error = store.read(&id, Touch::No).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    assert!((DEADLINE..DEADLINE + SLACK).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn pipeline_has_one_deadline() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).pool_size(1).build().unwrap();
    let mut connection = store.pool().get().unwrap();
    let start = Instant::now();
    // Each reply takes 0.6 s.
    let wait = |key: &str| redis::cmd("BLPOP").arg(key).arg(0.6).to_owned();
    let replies: RedisResult<Vec<Value>> =
        redis::pipe().add_command(wait("a")).add_command(wait("b")).query(&mut connection);
    let error = replies.unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("no reply within 1 s"), "{error}");
    assert!((DEADLINE..DEADLINE + SLACK).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn refused_commands_leave_no_reply_behind() {
    let server = RedisServer::start();
    for url in [server.url(), format!("{}/?protocol=resp3", server.url()), server.unix_url()] {
        let store = RedisSessionStore::builder().url(url).deadline(PATIENCE).pool_size(1).build().unwrap();
        let mut connection = store.pool().get().unwrap();
        redis::cmd("DEL").arg("n").exec(&mut connection).unwrap();
        let refused: RedisResult<(Value, Value, String)> =
            redis::pipe().set("n", "7").lpush("n", 1).get("n").query(&mut connection);
        assert!(refused.unwrap_err().to_string().contains("WRONGTYPE"));
        let mixed: Vec<RedisResult<String>> =
            redis::pipe().get("n").lpush("n", 1).get("n").ignore_errors().query(&mut connection).unwrap();
        assert_eq!(mixed.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
        let (sum, text): (i64, String) = redis::pipe().atomic().incr("n", 1).get("n").query(&mut connection).unwrap();
        assert_eq!((sum, text.as_str()), (8, "8"));
        let unknown = redis::pipe().atomic().cmd("NOSUCH").get("n").query::<Vec<Value>>(&mut connection);
        assert!(unknown.unwrap_err().to_string().contains("unknown command"));
        let large: Vec<u8> = redis::cmd("GETRANGE").arg("n").arg(0).arg(-1).query(&mut connection).unwrap();
        assert_eq!(large, b"8");
        let long = vec![b'x'; 300_000];
        redis::cmd("SET").arg("long").arg(&long).exec(&mut connection).unwrap();
        for _ in 0..3 {
            assert_eq!(redis::cmd("GET").arg("long").query::<Vec<u8>>(&mut connection).unwrap(), long);
            assert_eq!(redis::cmd("GET").arg("n").query::<String>(&mut connection).unwrap(), "8");
        }
    }
}

#[test]
fn pushes_are_skipped() {
    let server = RedisServer::start();
    let url = format!("{}/?protocol=resp3", server.url());
    let store = RedisSessionStore::builder().url(url).deadline(PATIENCE).pool_size(1).build().unwrap();
    let mut connection = store.pool().get().unwrap();
    redis::cmd("CLIENT").arg("TRACKING").arg("ON").exec(&mut connection).unwrap();
    for round in 0..20 {
        let key = format!("key {round}");
        assert_eq!(redis::cmd("GET").arg(&key).query::<Value>(&mut connection).unwrap(), Value::Nil);
        // Its invalidation is pushed ahead of the reply.
        server.cmd(&["SET", &key, "new"]);
        assert_eq!(redis::cmd("GET").arg(&key).query::<String>(&mut connection).unwrap(), "new");
    }
    redis::cmd("CLIENT").arg("TRACKING").arg("OFF").exec(&mut connection).unwrap();
}
