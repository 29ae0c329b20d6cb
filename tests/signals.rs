//! Signals interrupt no operation: a read or write that one interrupts continues with the rest of its deadline.
//!
//! Every thread of the process gets a signal every 10 ms, and a proxy or a slow pipe delays every reply by 30 ms, so that each
//! wait is interrupted.

mod support;

use std::time::Duration;

use support::{Fault, PATIENCE, Proxy, RedisServer, Signals, Victims, alone, eventually, slow_pipe};
use threaded_sessions::r2d2::ManageConnection;
use threaded_sessions::store::{Created, Found, Touch, Write};
use threaded_sessions::{RedisConnectionManager, RedisSessionStore, SessionManager, SessionStore, redis};

const HOUR: Duration = Duration::from_secs(3600);
const DELAY: Duration = Duration::from_millis(30);
const ROUNDS: usize = 20;

#[test]
fn signals_fail_no_operation_and_begin_no_outage() {
    let _alone = alone();
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    let store = RedisSessionStore::builder().url(proxy.url()).expiring().build().unwrap();
    assert!(eventually(PATIENCE, || store.read(&store.fresh_id(None), Touch::No).is_ok()));
    proxy.set(Fault::Delay(DELAY));
    let _signals = Signals::start(Victims::AllThreads);
    for _ in 0..ROUNDS {
        let id = store.fresh_id(None);
        assert!(matches!(store.create(&id, Write::new(b"new", HOUR)).unwrap(), Created::Stored(_)));
        assert!(matches!(store.read(&id, Touch::Set(HOUR)).unwrap(), Found::Live(_)));
        store.delete(&id).unwrap();
    }
    let health = store.health();
    assert!(health.is_healthy() && health.failed == 0 && health.repeated == 0, "{health:?}");
    assert_eq!(health.last_error, None);
    assert!(proxy.fired() >= 3 * ROUNDS, "each reply was delayed");
}

#[test]
fn signals_fail_no_connecting_and_no_look_up() {
    let _alone = alone();
    let server = RedisServer::with(&["--requirepass", "secret"]);
    let watch = format!("sentinel monitor sessions 127.0.0.1 {} 1\n", slow_pipe(server.port(), DELAY));
    let sentinel = RedisServer::sentinel(&format!("{watch}sentinel auth-pass sessions secret\n"));
    let direct = format!("redis://:secret@127.0.0.1:{}", slow_pipe(server.port(), DELAY));
    let by_sentinel = format!(
        "redis-sentinel://:secret@127.0.0.1:{}?sentinelServiceName=sessions",
        slow_pipe(sentinel.port(), DELAY)
    );
    let _signals = Signals::start(Victims::AllThreads);
    for url in [direct, by_sentinel] {
        let manager = RedisConnectionManager::open(&url).unwrap();
        for _ in 0..ROUNDS / 2 {
            let mut connection = manager.connect().unwrap_or_else(|error| panic!("{url}: {error}"));
            redis::cmd("PING").exec(&mut connection).unwrap();
        }
    }
}

#[test]
fn signals_fail_no_reaping() {
    let _alone = alone();
    let server = RedisServer::start();
    let store = RedisSessionStore::builder()
        .url(format!("redis://127.0.0.1:{}", slow_pipe(server.port(), DELAY)))
        .expiring()
        .build()
        .unwrap();
    let manager = SessionManager::<u32>::builder(store).idle_timeout(Duration::from_millis(200)).build().unwrap();
    let _signals = Signals::start(Victims::AllThreads);
    let reaper = manager.reaper().resolution(Duration::from_millis(50)).start().unwrap();
    for count in 1..=5 {
        let mut session = manager.open(None).unwrap();
        *session = count;
        let _headers = manager.commit(session).unwrap();
    }
    assert!(eventually(PATIENCE, || reaper.stats().removed >= 5), "{:?}", reaper.stats());
    assert_eq!(reaper.stats().errors, 0, "{:?}", reaper.stats());
}
