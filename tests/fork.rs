//! A store that a process created before `fork`: the child must not share its sockets, its locks or its threads.
//!
//! The tests fork for real. Other threads use the store at that moment, so that some of its locks are held. They run one after the
//! other, so that no child inherits the pipe of another. `tests/threads.rs` shows that a store which the child opens works.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::{PATIENCE, RedisServer, alone, eventually, in_child};
use threaded_sessions::observer::ConnectionEvent;
use threaded_sessions::r2d2::ManageConnection;
use threaded_sessions::store::{Found, Touch, Write};
use threaded_sessions::{
    ErrorKind, Observer, ReaperStats, RedisConnectionManager, RedisPool, RedisSessionStore, SessionId, SessionManager,
    SessionStore, redis,
};

const HOUR: Duration = Duration::from_secs(3600);
const FORKED: &str = "the store was created before fork; create it in the child";

/// Counts the connections that were closed.
#[derive(Default)]
struct Closed(AtomicUsize);

impl Observer for Closed {
    fn on_connection(&self, event: &ConnectionEvent<'_>) {
        self.0.fetch_add(usize::from(matches!(event, ConnectionEvent::Closed { .. })), Ordering::Relaxed);
    }
}

/// Runs code while other threads use the store.
fn busy<R>(store: &RedisSessionStore, code: impl FnOnce() -> R) -> R {
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let _ = store.read(&SessionId::random(), Touch::No);
                    let _ = store.health();
                }
            });
        }
        let result = catch_unwind(AssertUnwindSafe(code));
        over.store(true, Ordering::Relaxed);
        result.unwrap()
    })
}

/// Describes how operations on the store fail.
fn failures(store: &RedisSessionStore) -> String {
    let id = SessionId::random();
    let errors = [
        store.read(&id, Touch::No).map(drop),
        store.read(&id, Touch::Set(HOUR)).map(drop),
        store.create(&id, Write::new(b"child", HOUR)).map(drop),
        store.delete(&id).map(drop),
        store.check().map(drop),
        store.pool().get_for("key").map(drop),
    ];
    let health = store.health();
    let said = !health.is_healthy() && health.last_error.as_deref() == Some(FORKED) && !format!("{store:?}").is_empty();
    let refused = errors.into_iter().all(|result| {
        result.is_err_and(|error| error.kind() == ErrorKind::Misconfigured && format!("{error:?}").contains(FORKED))
    });
    format!("refused: {refused}, said: {said}")
}

#[test]
fn child_of_fork_is_refused_and_parent_served() {
    let _alone = alone();
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).expiring().build().unwrap();
    let id = store.fresh_id(None);
    let _ = store.create(&id, Write::new(b"parent", HOUR)).unwrap();
    let clients = || server.cmd(&["CLIENT", "LIST"]);
    busy(&store, || {
        for _ in 0..20 {
            let child = store.clone();
            let said = in_child(move || {
                let said = failures(&child);
                drop(child);
                said
            });
            assert_eq!(said.as_deref(), Some("refused: true, said: true"));
            assert!(matches!(store.read(&id, Touch::No), Ok(Found::Live(stored)) if *stored.payload == *b"parent"));
        }
    });
    assert_eq!(store.health().failed, 0, "no child disturbed the parent: {:?}", clients());
}

#[test]
fn store_dropped_in_child_sends_nothing() {
    let _alone = alone();
    let server = RedisServer::start();
    let urls = [
        server.url(),
        format!("redis-cluster://127.0.0.1:{}", server.port()),
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=mymaster", server.port()),
    ];
    for url in urls {
        for _ in 0..5 {
            let store = RedisSessionStore::open(&url).unwrap();
            let _ = store.read(&SessionId::random(), Touch::No);
            // The child has the last reference, because no other thread has one.
            let mut owned = Some(store);
            let said = in_child(|| {
                let store = owned.take().unwrap();
                let said = failures(&store);
                drop(store);
                said
            });
            assert_eq!(said.as_deref(), Some("refused: true, said: true"), "{url}");
        }
    }
}

#[test]
fn connection_taken_before_fork_sends_nothing_in_child() {
    let _alone = alone();
    let server = RedisServer::start();
    let manager = RedisConnectionManager::open(&server.url()).unwrap();
    let unpooled = manager.connect().unwrap();
    let store = RedisSessionStore::builder().pool(RedisPool::with_size(manager, 4).unwrap()).build().unwrap();
    let closed = Arc::new(Closed::default());
    let observer: Arc<dyn Observer> = closed.clone();
    store.observe(&observer);
    let mut connection = store.pool().get().unwrap();
    let said = in_child(|| {
        let one = redis::cmd("INCR").arg("visitors").query::<u64>(&mut connection).unwrap_err().to_string();
        let two = redis::pipe().cmd("INCR").arg("visitors").exec(&mut connection).unwrap_err().to_string();
        format!("{}", one.contains(FORKED) && two.contains(FORKED))
    });
    assert_eq!(said.as_deref(), Some("true"));
    // A pool would take it back.
    let mut owned = Some(unpooled);
    let said = in_child(|| {
        drop(owned.take());
        format!("{}", closed.0.load(Ordering::Relaxed))
    });
    assert_eq!(said.as_deref(), Some("0"), "no observer learns of a connection of the parent");
    assert_eq!(redis::cmd("INCR").arg("visitors").query::<u64>(&mut connection), Ok(1));
}

#[test]
fn reaper_in_child_is_rejected_and_stops() {
    let _alone = alone();
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).expiring().build().unwrap();
    let sessions = SessionManager::<u32>::new(store);
    let reaper = sessions.reaper().start().unwrap();
    assert!(reaper.reap_now().is_ok());
    let mut owned = Some(reaper);
    let said = in_child(|| {
        let reaper = owned.take().unwrap();
        let error = reaper.reap_now().unwrap_err();
        let refused = error.kind() == ErrorKind::Misconfigured && format!("{error:?}").contains(FORKED);
        let said = format!("refused: {refused}, no statistics: {}", reaper.stats() == ReaperStats::default());
        drop(reaper);
        said
    });
    assert_eq!(said.as_deref(), Some("refused: true, no statistics: true"));
    assert!(eventually(PATIENCE, || owned.as_ref().is_some_and(|reaper| reaper.reap_now().is_ok())));
}
