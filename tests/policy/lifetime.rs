//! The end of a lifetime: no operation outlives it, no clock that was ahead prolongs it, and no touch moves it.

use std::sync::Arc;
use std::time::Duration;

use threaded_sessions::store::{Found, Touch};
use threaded_sessions::{
    Clock, MemorySessionStore, OnConflict, Outcome, RedisSessionStore, Session, SessionId, SessionManager, SessionStore,
};

use crate::support::{RedisServer, shared, unique};
use crate::{DAY, HOUR, MILLISECOND, World, set_cookie, world};

/// A manager with a lifetime of two hours on each store, and its clock. The clock of Redis stands still for it.
fn on_each_store(test: impl Fn(&Clock, &SessionManager<u32>)) {
    let redis = |expiring: bool| {
        let builder = RedisSessionStore::builder().url(shared().url()).prefix(unique("lifetime"));
        Arc::new(if expiring { builder.expiring() } else { builder }.build().unwrap()) as Arc<dyn SessionStore>
    };
    for store in [Arc::new(MemorySessionStore::new()) as Arc<dyn SessionStore>, redis(false), redis(true)] {
        let clock = Clock::manual();
        let builder = SessionManager::builder(store).clock(clock.clone()).idle_timeout(HOUR).remember_for(HOUR * 3 / 2);
        test(&clock, &builder.lifetime(2 * HOUR).build().unwrap());
    }
}

fn stored(sessions: &SessionManager<u32>) -> SessionId {
    let mut session = sessions.fresh();
    *session = 1;
    *sessions.commit(session).unwrap().id().unwrap()
}

fn is_stored(sessions: &SessionManager<u32>, id: &SessionId) -> bool {
    matches!(sessions.store().read(id, Touch::No).unwrap(), Found::Live(_))
}

/// A change, a renewal or a login that takes longer than the lifetime.
#[test]
fn commit_after_lifetime_is_dropped() {
    let acts: [fn(&mut Session<u32>); 5] = [
        |session| **session += 1,
        Session::renew,
        |session| session.remember(true),
        |session| {
            session.renew();
            **session += 1;
        },
        |session| {
            session.on_conflict(OnConflict::LastWriteWins);
            **session += 1;
        },
    ];
    on_each_store(|clock, sessions| {
        for act in acts {
            let id = stored(sessions);
            let mut session = sessions.open_id(&id).unwrap().unwrap();
            act(&mut session);
            clock.advance(2 * HOUR);
            let committed = sessions.commit(session).unwrap();
            assert_eq!((committed.outcome(), committed.id()), (Outcome::Dropped, None));
            assert_eq!(set_cookie(&committed), None);
            assert!(!is_stored(sessions, &id), "it was deleted");
        }
    });
}

#[test]
fn new_session_after_lifetime_is_not_stored() {
    on_each_store(|clock, sessions| {
        let mut session = sessions.fresh();
        *session = 1;
        clock.advance(2 * HOUR);
        let committed = sessions.commit(session).unwrap();
        assert_eq!((committed.outcome(), committed.id(), set_cookie(&committed)), (Outcome::Dropped, None, None));

        let mut session = sessions.fresh();
        clock.advance(2 * HOUR);
        assert_eq!(sessions.update_in(&mut session, |count| *count += 1).unwrap(), None);
        assert!(session.is_new() && *session == 0);
    });
}

#[test]
fn update_after_lifetime_changes_nothing() {
    on_each_store(|clock, sessions| {
        for renews in [false, true] {
            let id = stored(sessions);
            let mut session = sessions.open_id(&id).unwrap().unwrap();
            if renews {
                session.renew();
            }
            clock.advance(2 * HOUR);
            assert_eq!(sessions.update_in(&mut session, |count| *count += 1).unwrap(), None);
            assert_eq!(*session, 1);
            assert!(!is_stored(sessions, &id));
        }
        let id = stored(sessions);
        // The closure takes too long.
        assert_eq!(sessions.update(&id, |_| clock.advance(2 * HOUR)).unwrap(), None);
        assert!(!is_stored(sessions, &id));
    });
}

#[test]
fn cookie_refresh_after_lifetime_sends_no_cookie() {
    on_each_store(|clock, sessions| {
        let mut session = sessions.fresh();
        session.remember(true);
        *session = 1;
        let id = *sessions.commit(session).unwrap().id().unwrap();
        clock.advance(HOUR * 3 / 4 + MILLISECOND); // past half of what the browser was told
        let session = sessions.open_id(&id).unwrap().unwrap();
        clock.advance(2 * HOUR);
        let committed = sessions.commit(session).unwrap();
        assert_eq!((committed.outcome(), committed.id(), set_cookie(&committed)), (Outcome::Unchanged, None, None));
        assert!(!is_stored(sessions, &id));
    });
}

/// The handler that resets a session takes longer than the lifetime. If another request has renewed the session, its visitor keeps
/// that one.
#[test]
fn reset_after_lifetime_stores_nothing() {
    on_each_store(|clock, sessions| {
        for is_renewed in [false, true] {
            let id = stored(sessions);
            let mut session = sessions.open_id(&id).unwrap().unwrap();
            if is_renewed {
                let mut other = sessions.open_id(&id).unwrap().unwrap();
                other.renew();
                let _ = sessions.commit(other).unwrap();
            }
            session.reset();
            clock.advance(2 * HOUR);
            let committed = sessions.commit(session).unwrap();
            let expected = if is_renewed { Outcome::Detached } else { Outcome::Dropped };
            assert_eq!((committed.outcome(), committed.id()), (expected, None));
            assert!(!is_stored(sessions, &id));
        }
    });
}

#[test]
fn stored_update_gets_no_cookie_after_lifetime() {
    let world = world(|settings| settings.lifetime(2 * HOUR));
    let mut session = world.sessions.fresh();
    assert_eq!(world.sessions.update_in(&mut session, |count| *count += 1).unwrap(), Some(()));
    world.clock.advance(2 * HOUR);
    assert_eq!(set_cookie(&world.sessions.commit(session).unwrap()), None);
}

/// One request is slow, and another one begins the lifetime anew.
#[test]
fn restarted_session_is_not_ended_by_slow_request() {
    on_each_store(|clock, sessions| {
        let id = stored(sessions);
        let mut slow = sessions.open_id(&id).unwrap().unwrap();
        clock.advance(HOUR);
        let mut login = sessions.open_id(&id).unwrap().unwrap();
        login.restart_lifetime();
        login.remember(true);
        let _ = sessions.commit(login).unwrap();
        *slow = 5;
        clock.advance(HOUR + MILLISECOND);
        assert_eq!(sessions.commit(slow).unwrap().outcome(), Outcome::Stored);
        let session = sessions.open_id(&id).unwrap().unwrap();
        assert!(*session == 5 && session.is_remembered());
    });
}

#[test]
fn change_after_lifetime_is_dropped_on_a_replica() {
    let server = RedisServer::start();
    let clock = Clock::manual();
    let store = RedisSessionStore::open(&server.url()).unwrap();
    let builder = SessionManager::<u32>::builder(store).clock(clock.clone()).lifetime(2 * HOUR);
    let sessions = builder.build().unwrap();
    let mut session = sessions.open_id(&stored(&sessions)).unwrap().unwrap();
    *session = 2;
    clock.advance(3 * HOUR);
    server.demote();
    assert_eq!(sessions.update_in(&mut session, |value| *value += 1).unwrap(), None);
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Dropped);
}

/// Two managers on one store, of which one has a clock that is ahead.
fn with_clock_ahead(ahead_by: Duration) -> (World, SessionManager<u32>) {
    let settings = |builder: threaded_sessions::SessionManagerBuilder<u32>| {
        builder.idle_timeout(HOUR).remember_for(2 * HOUR).lifetime(8 * HOUR)
    };
    let world = world(settings);
    let ahead = Clock::manual();
    ahead.advance(ahead_by);
    let builder = SessionManager::<u32>::builder(world.store.clone()).clock(ahead);
    (world, settings(builder).build().unwrap())
}

#[test]
fn lifetime_ends_although_creating_clock_was_ahead() {
    let acts: [fn(&mut Session<u32>); 3] =
        [|session| **session = 1, |session| session.remember(true), Session::restart_lifetime];
    for (act, reads_only) in acts.into_iter().flat_map(|act| [(act, false), (act, true)]) {
        let (world, before) = with_clock_ahead(3650 * DAY);
        let mut session = before.fresh();
        act(&mut session);
        session.renew();
        let id = *before.commit(session).unwrap().id().unwrap();
        let lives = (0..48).take_while(|_| {
            world.clock.advance(HOUR / 2);
            let Some(mut session) = world.sessions.open_id(&id).unwrap() else { return false };
            assert!(session.created() <= world.clock.now());
            if !reads_only {
                *session += 1;
            }
            let _ = world.sessions.commit(session).unwrap();
            true
        });
        assert!(lives.count() <= 17, "reads only: {reads_only}");
    }
}

#[test]
fn cookie_sent_by_clock_ahead_becomes_due() {
    let (world, before) = with_clock_ahead(3 * HOUR);
    let id = world.create();
    let mut session = before.open_id(&id).unwrap().unwrap();
    session.remember(true);
    assert!(set_cookie(&before.commit(session).unwrap()).is_some());
    let read = || set_cookie(&world.sessions.commit(world.open(&id)).unwrap()).is_some();
    assert!(!read(), "the first read stores its own time as that of the cookie");
    world.clock.advance(HOUR + HOUR / 4);
    assert!(read(), "half of the cookie's time has passed");
}

#[test]
fn clock_slightly_ahead_costs_no_command() {
    let (world, before) = with_clock_ahead(Duration::from_millis(500));
    let mut session = before.fresh();
    session.bind("ada", "laptop");
    let id = *before.commit(session).unwrap().id().unwrap();
    let session = world.open(&id);
    assert_eq!(session.created(), world.clock.now());
    assert_eq!(world.sessions.commit(session).unwrap().outcome(), Outcome::Unchanged);
}

#[test]
fn merge_takes_no_time_from_clock_ahead() {
    let (world, before) = with_clock_ahead(3650 * DAY);
    let id = world.create();
    let mut mine = world.open(&id);
    let mut login = before.open_id(&id).unwrap().unwrap_or_else(|| {
        // The clock that is ahead has ended the session.
        before.fresh()
    });
    login.restart_lifetime();
    login.renew();
    let _ = before.commit(login).unwrap();
    mine.bind("ada", "laptop");
    let committed = world.sessions.commit(mine).unwrap();
    assert!(committed.outcome().is_lost() || world.open(&id).created() <= world.clock.now());
}

#[test]
fn session_past_lifetime_is_not_counted() {
    for (idle, lifetime) in [(7 * DAY, DAY), (DAY, 10 * DAY), (7 * DAY, 10 * DAY)] {
        for remember in [false, true] {
            let remember_for = (idle < lifetime).then_some(lifetime);
            let world = world(|settings| settings.idle_timeout(idle).lifetime(lifetime).remember_for(remember_for));
            let mut session = world.sessions.fresh();
            session.remember(remember);
            *session = 1;
            let id = *world.sessions.commit(session).unwrap().id().unwrap();
            // It is read every quarter of a day until its lifetime ends.
            for _ in 1..lifetime.as_secs() / (DAY / 4).as_secs() {
                world.clock.advance(DAY / 4);
                assert!(world.lives(&id));
            }
            assert_eq!(world.count(), 1);
            world.clock.advance(DAY / 4);
            assert_eq!(world.count(), 0, "idle {idle:?}, lifetime {lifetime:?}, remember {remember}");
        }
    }
}

#[test]
fn restarted_lifetime_moves_deadline_again() {
    let world = world(|settings| settings.idle_timeout(7 * DAY).lifetime(8 * DAY));
    let id = world.create();
    for _ in 0..3 {
        world.clock.advance(2 * DAY);
        assert!(world.lives(&id)); // noted as bounded by its lifetime
    }
    let other = SessionManager::<u32>::builder(world.store.clone()).clock(world.clock.clone());
    let other = other.idle_timeout(7 * DAY).lifetime(8 * DAY).build().unwrap();
    let mut login = other.open_id(&id).unwrap().unwrap();
    login.restart_lifetime();
    let _ = other.commit(login).unwrap();
    world.clock.advance(DAY / 2);
    assert_eq!(world.open(&id).expires_in(), Some(7 * DAY));
}
