//! The reaper survives failures and panics, and logs each cause once.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;

use log::Level;
use threaded_sessions::codec::Envelope;
use threaded_sessions::store::{Created, Write};
use threaded_sessions::{BoxError, Codec, Error, ExpiredSession, Json, Reaper, SessionId};

use super::reaping::{Wrapped, keep_logs, logged_by};
use super::*;

/// A reaper of an endless resolution with this callback, and its thread.
fn start(sessions: &SessionManager<u64>, mut callback: impl FnMut(u64) + Send + 'static) -> (Reaper, ThreadId) {
    keep_logs();
    let thread = Arc::new(Mutex::new(None));
    let known = thread.clone();
    let callback = move |session: ExpiredSession<u64>| {
        *known.lock().unwrap() = Some(thread::current().id());
        callback(session.data);
    };
    let reaper = sessions.reaper().resolution(NEVER).on_expired(callback).start().unwrap();
    let id = sessions.store().fresh_id(None);
    let _stored: Created = sessions.store().create(&id, Write::new(SEVEN.as_bytes(), MILLISECOND)).unwrap();
    assert!(eventually(PATIENCE, || reaper.reap_now().unwrap() == 1));
    let thread = thread.lock().unwrap().expect("the callback was called");
    (reaper, thread)
}

fn put(sessions: &SessionManager<u64>, payload: &[u8]) -> SessionId {
    let id = sessions.store().fresh_id(None);
    let _stored: Created = sessions.store().create(&id, Write::new(payload, MILLISECOND)).unwrap();
    id
}

fn payload(value: u64) -> Vec<u8> {
    SEVEN.replace('7', &value.to_string()).into_bytes()
}

/// The warnings and errors that the thread logged.
fn complaints(thread: ThreadId) -> Vec<String> {
    logged_by(thread).into_iter().filter(|(level, _)| *level <= Level::Warn).map(|(_, text)| text).collect()
}

#[test]
fn panicking_callback_is_logged_once() {
    let sessions = idle_for(expiring(shared(), &unique("panics"), 1), HOUR);
    let reported = Arc::new(Mutex::new(Vec::new()));
    let so_far = reported.clone();
    let (reaper, thread) = start(&sessions, move |value| {
        if value % 2 == 0 {
            resume_unwind(Box::new("an even value"));
        }
        so_far.lock().unwrap().push(value);
    });
    for wave in 1..=3 {
        for value in 10..20 {
            put(&sessions, &payload(value));
        }
        let mut removed = 0;
        assert!(eventually(PATIENCE, || {
            removed += reaper.reap_now().unwrap();
            removed == 10
        }));
        assert_eq!(reported.lock().unwrap().len(), 1 + wave * 5);
    }
    assert_eq!(reaper.stats().errors, 0);
    let said = complaints(thread);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("panicked"), "{said:?}");
}

/// Panics over one value. (Here and elsewhere without the trace of the stack, which takes seconds.)
struct Fragile(Json<u64>);

impl Codec<u64> for Fragile {
    fn encode(&self, envelope: &Envelope<&u64>) -> Result<Vec<u8>, BoxError> {
        self.0.encode(envelope)
    }

    fn decode(&self, payload: &[u8]) -> Result<Envelope<u64>, BoxError> {
        self.0.decode(payload).inspect(|envelope| {
            if envelope.data == 13 {
                resume_unwind(Box::new("of no use"));
            }
        })
    }
}

#[test]
fn undecodable_payloads_are_logged_once_without_secrets() {
    let store = expiring(shared(), &unique("undecodable"), 1);
    let sessions = SessionManager::builder_with_codec(store, Fragile(Json::new())).build().unwrap();
    let reported = Arc::new(Mutex::new(Vec::new()));
    let so_far = reported.clone();
    let (reaper, thread) = start(&sessions, move |value| so_far.lock().unwrap().push(value));
    let payloads: [&[u8]; 6] = [&payload(1), b"hunter2", b"\xff", b"", &payload(13), &payload(2)];
    let ids = payloads.map(|payload| put(&sessions, payload));
    let mut removed = 0;
    assert!(eventually(PATIENCE, || {
        removed += reaper.reap_now().unwrap();
        removed == 6
    }));
    let mut reported = reported.lock().unwrap().clone();
    reported.sort();
    assert_eq!(reported, [1, 2, 7]);
    let said = complaints(thread);
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said.iter().filter(|text| text.contains("cannot be decoded")).count(), 1, "{said:?}");
    assert!(!said.concat().contains("hunter2"), "{said:?}");
    assert!(!ids.iter().any(|id| said.concat().contains(&id.expose())), "{said:?}");
}

#[test]
fn failing_store_is_retried_once_per_resolution() {
    for panics in [false, true] {
        keep_logs();
        let (calls, thread) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(None)));
        let (counted, known) = (calls.clone(), thread.clone());
        let store = Wrapped::new(MemorySessionStore::new(), move |index, partition, limit, payloads| {
            *known.lock().unwrap() = Some(thread::current().id());
            match counted.fetch_add(1, Ordering::Relaxed) {
                0..6 if panics => resume_unwind(Box::new("a bug")),
                0..6 => Err(Error::new(ErrorKind::Denied, "reaping sessions")),
                _ => index.reap(partition, limit, payloads),
            }
        });
        let sessions = idle_for(store, MILLISECOND);
        create(&sessions, 1);
        let reported = Reported::default();
        let reaper = sessions.reaper().resolution(MILLISECOND * 5).on_expired(reported.callback()).start().unwrap();
        // With a backoff of seconds it would take far longer.
        assert!(eventually(PATIENCE, || reaper.stats().rounds > 3));
        assert_eq!((reaper.stats().errors, reaper.stats().removed, reported.sorted().len()), (6, 1, 1));
        let thread = thread.lock().unwrap().expect("the store was asked");
        let (said, all) = (complaints(thread), logged_by(thread));
        assert_eq!((said.len(), all.len()), (1, 2), "{all:?}");
    }
}

/// One of them is of no use, and stays so.
#[test]
fn failing_partition_delays_no_other_partition() {
    let server = RedisServer::start();
    let store = expiring(&server, "sessions", 3);
    server.cmd(&["SET", &format!("{}index", prefix_of(&store, 1)), "x"]);
    let thread = Arc::new(Mutex::new(None));
    let known = thread.clone();
    let noting = Wrapped::new(store.clone(), move |index, partition, limit, payloads| {
        *known.lock().unwrap() = Some(thread::current().id());
        index.reap(partition, limit, payloads)
    });
    keep_logs();
    for partition in [0, 2] {
        load(&server, &prefix_of(&store, partition), 0..10, -1, -1);
    }
    let sessions = idle_for(noting, HOUR);
    let reaper = sessions.reaper().resolution(NEVER).start().unwrap();
    assert_eq!(reaper.reap_now().unwrap_err().kind(), ErrorKind::WrongType);
    assert_eq!(reaper.stats().removed, 20);
    for _ in 0..5 {
        assert!(reaper.reap_now().is_err());
    }
    let thread = thread.lock().unwrap().expect("the store was asked");
    let all = logged_by(thread);
    assert_eq!(all.len(), 1, "{all:?}");
    store.verify(Default::default()).unwrap();
    assert_eq!(reaper.reap_now().unwrap(), 0);
    let all = logged_by(thread);
    assert_eq!(all.iter().map(|(level, _)| *level).collect::<Vec<_>>(), [Level::Warn, Level::Info], "{all:?}");
}
