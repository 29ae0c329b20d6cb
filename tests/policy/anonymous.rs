//! The shorter idle timeout of sessions without an owner.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::Value;
use threaded_sessions::step::on_read;
use threaded_sessions::{
    ErrorKind, MemorySessionStore, Outcome, RedisSessionStore, Session, SessionId, SessionManager, StepStore,
};

use super::support::{PATIENCE, shared, unique};
use super::{DAY, HOUR, MILLISECOND, World, world};

fn anonymous_hour() -> World {
    world(|builder| builder.idle_timeout(DAY).anonymous_idle_timeout(HOUR))
}

/// Changes a session and stores it under the same id.
fn change(world: &World, id: &SessionId, change: impl FnOnce(&mut Session<u32>)) -> SessionId {
    let mut session = world.open(id);
    change(&mut session);
    let committed = world.sessions.commit(session).unwrap();
    assert_eq!(committed.outcome(), Outcome::Stored);
    *committed.id().unwrap()
}

fn create_owned(world: &World) -> SessionId {
    change(world, &world.create(), |session| session.bind("ada", "laptop"))
}

#[test]
fn anonymous_session_ends_after_shorter_timeout() {
    let world = anonymous_hour();
    let id = world.create();
    for _ in 0..3 {
        world.clock.advance(HOUR - MILLISECOND);
        assert_eq!(world.open(&id).expires_in(), Some(HOUR), "opening it is using it");
    }
    world.clock.advance(HOUR);
    assert!(!world.lives(&id));
}

#[test]
fn owned_session_keeps_full_timeout() {
    let world = anonymous_hour();
    let id = create_owned(&world);
    for _ in 0..3 {
        world.clock.advance(DAY - MILLISECOND);
        assert_eq!(world.open(&id).expires_in(), Some(DAY));
    }
    // Often opened, it is extended by the shorter time only, which never shortens what it has.
    for _ in 0..10 {
        world.clock.advance(MILLISECOND);
        assert!(world.open(&id).expires_in() > Some(DAY - DAY / 64));
    }
    world.clock.advance(DAY);
    assert!(!world.lives(&id));
}

#[test]
fn commit_of_bind_and_unbind_moves_deadline() {
    let world = anonymous_hour();
    let id = create_owned(&world);
    world.clock.advance(DAY - MILLISECOND);
    assert!(world.lives(&id), "bind moved the deadline");

    change(&world, &id, |session| session.unbind());
    world.clock.advance(HOUR);
    assert!(!world.lives(&id), "unbind moved it back");

    let id = change(&world, &create_owned(&world), Session::reset);
    world.clock.advance(HOUR);
    assert!(!world.lives(&id), "reset removed the owner");
}

#[test]
fn remembered_session_without_owner_keeps_full_timeout() {
    let world = anonymous_hour();
    let id = change(&world, &world.create(), |session| session.remember(true));
    world.clock.advance(DAY - MILLISECOND);
    assert_eq!(world.open(&id).expires_in(), Some(DAY));
}

#[test]
fn anonymous_timeout_holds_without_idle_timeout() {
    let world = world(|builder| builder.idle_timeout(None).anonymous_idle_timeout(HOUR));
    let (anonymous, owned) = (world.create(), create_owned(&world));
    assert_eq!(world.open(&owned).expires_in(), None);
    world.clock.advance(100 * DAY);
    assert!(world.lives(&owned) && !world.lives(&anonymous));
}

#[test]
fn lifetime_still_bounds_both_timeouts() {
    let world = world(|builder| builder.idle_timeout(DAY).anonymous_idle_timeout(HOUR).lifetime(2 * HOUR));
    let (anonymous, owned) = (world.create(), create_owned(&world));
    world.clock.advance(HOUR - MILLISECOND);
    assert_eq!(world.open(&anonymous).expires_in(), Some(HOUR));
    world.clock.advance(HOUR / 2);
    for id in [&anonymous, &owned] {
        assert_eq!(world.open(id).expires_in(), Some(HOUR / 2 + MILLISECOND));
    }
    world.clock.advance(HOUR / 2 + MILLISECOND);
    assert!(!world.lives(&anonymous) && !world.lives(&owned));
}

#[test]
fn new_setting_shortens_stored_sessions_when_read() {
    let world = world(|builder| builder.idle_timeout(DAY));
    let builder = SessionManager::<u32>::builder(world.store.clone()).clock(world.clock.clone());
    let sessions = builder.idle_timeout(DAY).anonymous_idle_timeout(HOUR).build().unwrap();
    let (anonymous, owned) = (world.create(), create_owned(&world));
    let left = |id| sessions.open_id(id).unwrap().and_then(|session| session.expires_in());
    assert_eq!((left(&anonymous), left(&owned)), (Some(HOUR), Some(DAY)));
    world.clock.advance(HOUR);
    assert_eq!((left(&anonymous), left(&owned)), (None, Some(DAY)));
}

#[test]
fn reading_anonymous_session_takes_one_command() {
    let reads = Arc::new(AtomicU32::new(0));
    let counter = reads.clone();
    let count = on_read(move |operation, next| {
        counter.fetch_add(1, Ordering::Relaxed);
        next.read(operation)
    });
    let world = anonymous_hour();
    let store = StepStore::builder(world.store.clone()).step(count).build().unwrap();
    let builder = SessionManager::<u32>::builder(store).clock(world.clock.clone());
    let sessions = builder.idle_timeout(DAY).anonymous_idle_timeout(HOUR).build().unwrap();
    let reads_of = |id: &SessionId| {
        reads.store(0, Ordering::Relaxed);
        assert!(sessions.open_id(id).unwrap().is_some());
        reads.load(Ordering::Relaxed)
    };
    let (anonymous, owned) = (world.create(), create_owned(&world));
    world.clock.advance(DAY / 64);
    assert_eq!((reads_of(&anonymous), reads_of(&owned)), (1, 1));
    world.clock.advance(MILLISECOND);
    assert_eq!((reads_of(&anonymous), reads_of(&owned)), (1, 2), "a 64th of its idle timeout has passed");
    assert_eq!((reads_of(&anonymous), reads_of(&owned)), (1, 1));
}

#[test]
fn redis_keeps_ttl_by_owner() {
    const SLACK: Duration = Duration::from_secs(600);
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("anonymous")).deadline(PATIENCE);
    let store = store.expiring().build().unwrap();
    let sessions = SessionManager::<u32>::builder(store.clone()).idle_timeout(DAY).anonymous_idle_timeout(HOUR);
    let sessions = sessions.build().unwrap();
    let mut session = sessions.fresh();
    *session = 1;
    let id = *sessions.commit(session).unwrap().id().unwrap();
    let check = |expected: Duration| {
        let Value::Int(left) = shared().cmd(&["PTTL", &store.key(&id)]) else { panic!("PTTL returns a number") };
        // An expiring store keeps the key for a day longer.
        let left = Duration::from_millis(left.try_into().unwrap()) - DAY;
        assert!(expected - SLACK < left && left <= expected, "{left:?} left of {expected:?}");
    };
    let open = || sessions.open_id(&id).unwrap().expect("it lives");
    check(HOUR);
    let mut session = open();
    check(HOUR);
    session.bind("ada", "laptop");
    let _ = sessions.commit(session).unwrap();
    check(DAY);
    let later = (DAY + DAY / 2).as_millis().to_string();
    assert_eq!(shared().cmd(&["PEXPIRE", &store.key(&id), &later]), Value::Int(1));
    open();
    check(DAY);
    let mut session = open();
    session.unbind();
    let _ = sessions.commit(session).unwrap();
    check(HOUR);
}

#[test]
fn impossible_anonymous_timeout_is_rejected() {
    let memory = || SessionManager::<u32>::builder(MemorySessionStore::new());
    let plain = RedisSessionStore::open(&shared().url()).unwrap();
    let cases = [
        (memory().idle_timeout(HOUR).anonymous_idle_timeout(HOUR + MILLISECOND), "must not be longer than"),
        (memory().anonymous_idle_timeout(Duration::ZERO), "must be at least 1 ms"),
        (SessionManager::builder(plain).anonymous_idle_timeout(HOUR), "needs a store with an index"),
    ];
    for (builder, why) in cases {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.source().unwrap().to_string().contains(why), "{error:#}");
    }
    assert!(memory().idle_timeout(HOUR).anonymous_idle_timeout(HOUR).build().is_ok());
}
