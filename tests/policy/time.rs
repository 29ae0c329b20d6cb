//! Idle timeout and lifetime: a session lives exactly as long as the shorter of the two allows.

use std::time::Duration;

use threaded_sessions::{Outcome, SessionManager};

use super::{DAY, HOUR, MILLISECOND, world};

#[test]
fn session_lives_until_its_idle_timeout_ends() {
    let world = world(|builder| builder.idle_timeout(HOUR));
    let id = world.create();
    for _ in 0..3 {
        world.clock.advance(HOUR - MILLISECOND);
        assert_eq!(world.open(&id).expires_in(), Some(HOUR), "opening it is using it");
    }
    world.clock.advance(HOUR);
    assert!(!world.lives(&id));
    assert_eq!(world.count(), 0);
}

#[test]
fn without_touch_on_read_only_changes_count() {
    let world = world(|builder| builder.idle_timeout(HOUR).touch_on_read(false));
    let (read, changed) = (world.create(), world.create());
    world.clock.advance(HOUR - MILLISECOND);
    for id in [&read, &changed] {
        assert_eq!(world.open(id).expires_in(), Some(MILLISECOND));
    }
    let mut unchanged = world.open(&read);
    *unchanged = 1;
    assert_eq!(world.sessions.commit(unchanged).unwrap().outcome(), Outcome::Unchanged);
    let mut session = world.open(&changed);
    *session = 2;
    assert_eq!(world.sessions.commit(session).unwrap().outcome(), Outcome::Stored);
    assert_eq!(world.open(&changed).expires_in(), Some(HOUR));

    world.clock.advance(MILLISECOND);
    assert!(!world.lives(&read) && world.lives(&changed));
}

#[test]
fn session_without_idle_timeout_does_not_expire() {
    let world = world(|builder| builder.idle_timeout(None));
    let id = world.create();
    world.clock.advance(1000 * 365 * DAY);
    assert_eq!(world.open(&id).expires_in(), None);
}

#[test]
fn the_idle_timeout_is_a_week_by_default() {
    let world = world(|builder| builder);
    let id = world.create();
    assert_eq!(world.open(&id).expires_in(), Some(7 * DAY));
}

#[test]
fn lifetime_ends_even_a_busy_session() {
    const STEP: Duration = Duration::from_secs(1800);
    let world = world(|builder| builder.idle_timeout(HOUR).lifetime(3 * HOUR));
    let began = world.clock.now();
    let mut id = world.create();
    let parallel = world.create();
    for step in 1..6 {
        world.clock.advance(STEP);
        assert!(world.lives(&parallel));
        let mut session = world.open(&id);
        assert_eq!(session.created(), began);
        let left = 3 * HOUR - STEP * step;
        assert_eq!(session.expires_in(), Some(left.min(HOUR)), "never more than is left of the lifetime");
        *session += 1;
        // Neither a change nor a renewal begins it anew.
        if step % 2 == 0 {
            session.renew();
        }
        id = *world.sessions.commit(session).unwrap().id().unwrap();
    }
    world.sessions.update(&id, |value| *value += 1).unwrap().expect("it lives");
    world.clock.advance(STEP - MILLISECOND);
    assert_eq!(world.open(&id).expires_in(), Some(MILLISECOND));
    let mut late = world.open(&id);
    world.clock.advance(MILLISECOND);
    assert!(!world.lives(&id) && !world.lives(&parallel));
    assert_eq!(world.count(), 0, "it is gone, not hidden");
    *late = 77;
    assert_eq!(world.sessions.commit(late).unwrap().outcome(), Outcome::Dropped);
}

#[test]
fn a_lifetime_begins_anew_where_it_is_restarted() {
    let world = world(|builder| builder.idle_timeout(None).lifetime(3 * HOUR));
    let (id, renewed, other) = (world.create(), world.create(), world.create());
    world.clock.advance(2 * HOUR);
    let login = world.clock.now();
    let [mut dropped, mut discarded] = [world.open(&other), world.open(&other)];
    dropped.restart_lifetime();
    drop(dropped);
    discarded.restart_lifetime();
    discarded.discard();
    assert_eq!(world.sessions.commit(discarded).unwrap().outcome(), Outcome::Unchanged);

    let mut session = world.open(&id);
    session.restart_lifetime();
    assert_eq!(session.created(), login);
    let committed = world.sessions.commit(session).unwrap();
    assert_eq!((committed.outcome(), committed.id()), (Outcome::Stored, Some(&id)), "it is a change");
    let mut session = world.open(&renewed);
    session.renew();
    session.restart_lifetime();
    let renewed = *world.sessions.commit(session).unwrap().id().unwrap();

    world.clock.advance(HOUR);
    assert!(!world.lives(&other), "nothing of it was committed");
    for id in [&id, &renewed] {
        let session = world.open(id);
        assert_eq!((session.created(), session.expires_in(), *session), (login, Some(2 * HOUR), 1));
    }
    world.clock.advance(2 * HOUR - MILLISECOND);
    assert!(world.lives(&id) && world.lives(&renewed));
    world.clock.advance(MILLISECOND);
    assert!(!world.lives(&id) && !world.lives(&renewed));
    assert_eq!(world.count(), 0);

    // A new session begins with the request anyway.
    let mut session = world.sessions.fresh();
    session.restart_lifetime();
    assert_eq!(world.sessions.commit(session).unwrap().outcome(), Outcome::Unchanged);
}

#[test]
fn later_lifetime_also_ends_older_sessions() {
    let world = world(|builder| builder.idle_timeout(None));
    let id = world.create();
    world.clock.advance(HOUR);
    let builder = || SessionManager::<u32>::builder(world.store.clone()).clock(world.clock.clone());
    let longer = builder().lifetime(HOUR + MILLISECOND).idle_timeout(None).build().unwrap();
    assert_eq!(longer.open_id(&id).unwrap().unwrap().expires_in(), Some(MILLISECOND));
    assert!(builder().lifetime(HOUR).build().unwrap().open_id(&id).unwrap().is_none());
    assert_eq!(world.count(), 0);
}
