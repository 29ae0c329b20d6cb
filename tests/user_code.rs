//! Code of the application that panics, where the store calls it: the logger, the credentials function, handlers of r2d2.
//!
//! No panic may cost a place in the pool, end a thread, or leave a lock or a count behind.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use support::{PATIENCE, RedisServer, eventually, reply_server};
use threaded_sessions::store::{Created, Touch, Write};
use threaded_sessions::{
    Credentials, RedisConnectionManager, RedisPool, RedisSessionStore, SessionId, SessionManager, SessionStore, r2d2,
    redis,
};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);

/// A logger that writes to a closed pipe, as `eprintln!` does.
struct Closed;

static LOGGED: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Closed {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        LOGGED.fetch_add(1, Ordering::Relaxed);
        panic!("failed printing to stderr: Broken pipe");
    }

    fn flush(&self) {}
}

fn serves(store: &RedisSessionStore) -> bool {
    store.read(&SessionId::random(), Touch::No).is_ok()
}

#[test]
fn panicking_logger_costs_no_place_in_pool() {
    // The other tests of this file log through it as well.
    log::set_logger(&Closed).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).pool_size(2).deadline(SHORT).expiring().build().unwrap();
    let reaper = SessionManager::<u32>::new(store.clone()).reaper().start().unwrap();
    assert!(eventually(PATIENCE, || serves(&store)));
    for round in 0..4 {
        let before = LOGGED.load(Ordering::Relaxed);
        // Refused connections, then silence: the log is written in threads of the pool, and in the caller's.
        if round % 2 == 0 {
            server.kill()
        } else {
            server.stop()
        }
        assert!(eventually(PATIENCE, || !serves(&store) && !store.health().is_healthy()));
        assert!(reaper.reap_now().is_err());
        if round % 2 == 0 {
            server.restart()
        } else {
            server.resume()
        }
        assert!(eventually(PATIENCE, || serves(&store) && store.delete(&SessionId::random()).is_ok()), "round {round}");
        assert!(eventually(PATIENCE, || reaper.reap_now().is_ok()), "the reaper lives");
        assert!(LOGGED.load(Ordering::Relaxed) >= before + 2, "the outage was logged");
        // Both places are there: one alone would serve as well.
        let both = || {
            let held = [store.pool().get(), store.pool().get()];
            held.iter().all(Result::is_ok)
        };
        assert!(eventually(PATIENCE, both), "round {round}: {:?}", store.health());
    }
    assert!(store.health().failing_for.is_none());
}

#[derive(Debug)]
struct Panics;

impl r2d2::event::HandleEvent for Panics {
    fn handle_acquire(&self, _: r2d2::event::AcquireEvent) {
        panic!("an event handler");
    }

    fn handle_checkin(&self, _: r2d2::event::CheckinEvent) {
        panic!("an event handler");
    }
}

impl<E> r2d2::HandleError<E> for Panics {
    fn handle_error(&self, _: E) {
        panic!("an error handler");
    }
}

#[test]
fn panicking_handlers_of_r2d2_are_not_called() {
    let server = RedisServer::start();
    let manager = RedisConnectionManager::open(&server.url()).unwrap().with_deadline(SHORT).unwrap();
    let settings = r2d2::Pool::builder().max_size(1).event_handler(Box::new(Panics)).error_handler(Box::new(Panics));
    let store = RedisSessionStore::builder().pool(RedisPool::with_settings(manager, settings)).build().unwrap();
    for _ in 0..3 {
        assert!(eventually(PATIENCE, || serves(&store)));
        server.kill();
        assert!(!serves(&store));
        server.restart();
    }
    assert!(eventually(PATIENCE, || serves(&store)));
}

/// A Sentinel that names the master at this port.
fn sentinel(master: Arc<AtomicU16>) -> u16 {
    reply_server(move |request| {
        let port = master.load(Ordering::Relaxed).to_string();
        match request.windows(3).any(|word| word.eq_ignore_ascii_case(b"get")) {
            true => format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len()),
            false => "+OK\r\n".to_owned(),
        }
    })
}

#[test]
fn panicking_credentials_keep_watch_for_new_master() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let master = Arc::new(AtomicU16::new(old.port()));
    let url = format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=mymaster", sentinel(master.clone()));
    let (armed, fired) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let credentials = {
        let (armed, fired) = (armed.clone(), fired.clone());
        move || {
            if armed.load(Ordering::Relaxed) {
                fired.fetch_add(1, Ordering::Relaxed);
                panic!("the vault is closed");
            }
            Credentials::password("")
        }
    };
    let store = RedisSessionStore::builder().url(url).credentials(credentials).build().unwrap();
    assert!(eventually(PATIENCE, || serves(&store)));
    // The old master still responds, so that only the thread notices the new one.
    armed.store(true, Ordering::Relaxed);
    master.store(new.port(), Ordering::Relaxed);
    assert!(eventually(PATIENCE, || fired.load(Ordering::Relaxed) > 0), "the thread logs in at the new master");
    armed.store(false, Ordering::Relaxed);
    let written_to_new = || {
        let id = store.fresh_id(None);
        matches!(store.create(&id, Write::new(b"v", HOUR)), Ok(Created::Stored(_)))
            && new.cmd(&["EXISTS", &store.key(&id)]) == redis::Value::Int(1)
    };
    assert!(eventually(PATIENCE, written_to_new), "{:?}", store.health());
}
