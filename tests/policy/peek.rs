//! `peek` reads a session and changes neither its deadline nor its cookie.

use std::time::Duration;

use threaded_sessions::{Outcome, Session, SessionId};

use super::{DAY, HOUR, MILLISECOND, World, set_cookie, world};

const MONTH: Duration = Duration::from_secs(30 * 86_400);

fn peek(world: &World, id: &SessionId) -> Session<u32> {
    world.sessions.peek([&*format!("__Host-session={}", id.expose())]).unwrap()
}

#[test]
fn peeks_keep_no_session_alive() {
    let world = world(|settings| settings.idle_timeout(HOUR).remember_for(MONTH).lifetime(2 * MONTH));
    let id = world.create();
    for minutes in 1..60 {
        world.clock.advance(HOUR / 60);
        let session = peek(&world, &id);
        assert_eq!((*session, session.expires_in()), (1, Some(HOUR - HOUR / 60 * minutes)));
        let committed = world.sessions.commit(session).unwrap();
        assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, Some(&id)));
        assert_eq!(set_cookie(&committed), None);
    }
    world.clock.advance(HOUR / 60);
    assert!(peek(&world, &id).is_new());
}

#[test]
fn changed_peek_counts_as_use() {
    let world = world(|settings| settings.idle_timeout(HOUR));
    let (changed, updated) = (world.create(), world.create());
    world.clock.advance(HOUR / 2);
    let mut session = peek(&world, &changed);
    *session += 1;
    assert_eq!(world.sessions.commit(session).unwrap().outcome(), Outcome::Stored);
    let mut session = peek(&world, &updated);
    world.sessions.update_in(&mut session, |value| *value += 1).unwrap().expect("it lives");
    let _ = world.sessions.commit(session).unwrap();
    for id in [&changed, &updated] {
        assert_eq!((*peek(&world, id), peek(&world, id).expires_in()), (2, Some(HOUR)));
    }
}

/// A use would send the cookie again and store when, which moves the deadline.
#[test]
fn unchanged_peek_sends_no_due_cookie() {
    let world = world(|settings| settings.idle_timeout(HOUR).remember_for(MONTH));
    let mut session = world.sessions.fresh();
    session.remember(true);
    let id = *world.sessions.commit(session).unwrap().id().unwrap();
    world.clock.advance(MONTH - DAY);
    for _ in 0..2 {
        let committed = world.sessions.commit(peek(&world, &id)).unwrap();
        assert_eq!((committed.outcome(), set_cookie(&committed)), (Outcome::Unchanged, None));
        assert_eq!(peek(&world, &id).expires_in(), Some(DAY));
    }
    let mut session = peek(&world, &id);
    *session += 1;
    assert!(set_cookie(&world.sessions.commit(session).unwrap()).is_some(), "a change is a use");
    assert_eq!(peek(&world, &id).expires_in(), Some(MONTH));
}

#[test]
fn peek_deletes_no_session_past_its_lifetime() {
    let world = world(|settings| settings.idle_timeout(HOUR));
    let id = world.create();
    world.clock.advance(HOUR / 2);
    let builder = threaded_sessions::SessionManager::<u32>::builder(world.store.clone()).clock(world.clock.clone());
    let shorter = World { sessions: builder.lifetime(HOUR / 2).build().unwrap(), ..world };
    assert!(peek(&shorter, &id).is_new());
    assert_eq!(shorter.count(), 1);
    assert!(!shorter.lives(&id));
    assert_eq!(shorter.count(), 0, "a use removes it");
}

#[test]
fn peek_stores_no_clock_correction() {
    let world = world(|settings| settings.idle_timeout(HOUR));
    world.clock.advance(DAY);
    let id = world.create();
    let behind = threaded_sessions::Clock::manual();
    let builder = threaded_sessions::SessionManager::<u32>::builder(world.store.clone()).clock(behind);
    let behind = builder.idle_timeout(HOUR).build().unwrap();
    world.clock.advance(HOUR - MILLISECOND);
    let session = behind.peek([&*format!("__Host-session={}", id.expose())]).unwrap();
    assert_eq!(behind.commit(session).unwrap().outcome(), Outcome::Unchanged);
    assert_eq!(peek(&world, &id).expires_in(), Some(MILLISECOND));
}

#[test]
fn peek_of_renewed_id_is_detached() {
    let world = world(|settings| settings.idle_timeout(HOUR));
    let id = world.create();
    let mut session = world.open(&id);
    session.renew();
    let _ = world.sessions.commit(session).unwrap();
    assert!(peek(&world, &id).is_detached());
}
