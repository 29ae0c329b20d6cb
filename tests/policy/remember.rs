//! Remembered sessions: their longer idle timeout, and the persistent cookie.

use std::time::Duration;

use redis::Value;
use threaded_sessions::{
    Committed, OnConflict, Outcome, RedisSessionStore, SessionId, SessionManager, SessionManagerBuilder,
};

use super::support::{PATIENCE, shared, unique};
use super::{DAY, HOUR, MILLISECOND, World, set_cookie, world};

type Settings = SessionManagerBuilder<u32>;

const MONTH: Duration = Duration::from_secs(30 * 86_400);

fn remembering() -> World {
    world(|builder| builder.idle_timeout(HOUR).remember_for(MONTH))
}

fn create_remembered(world: &World) -> SessionId {
    let mut session = world.sessions.fresh();
    *session = 1;
    session.remember(true);
    assert!(session.is_remembered());
    let committed = world.sessions.commit(session).unwrap();
    assert!(set_cookie(&committed).unwrap().contains("; Max-Age=2592000"), "a persistent cookie");
    *committed.id().unwrap()
}

#[test]
fn remembered_session_has_a_separate_idle_timeout() {
    let world = remembering();
    let (usual, remembered) = (world.create(), create_remembered(&world));
    assert_eq!(world.open(&usual).expires_in(), Some(HOUR));
    assert!(!world.open(&usual).is_remembered() && world.open(&remembered).is_remembered());

    world.clock.advance(HOUR);
    assert!(!world.lives(&usual));
    for _ in 0..3 {
        world.clock.advance(MONTH - HOUR - MILLISECOND);
        assert_eq!(world.open(&remembered).expires_in(), Some(MONTH), "opening it is using it");
    }
    // Often opened, it is touched for the usual time only, which never shortens what it has.
    for _ in 0..10 {
        world.clock.advance(MILLISECOND);
        assert!(world.open(&remembered).expires_in() > Some(MONTH - MONTH / 64));
    }
    world.clock.advance(MONTH);
    assert!(!world.lives(&remembered));
}

#[test]
fn a_session_is_remembered_and_forgotten_as_asked() {
    let world = remembering();
    let id = world.create();
    let commit_with = |remember: bool| {
        let mut session = world.open(&id);
        session.remember(remember);
        let committed = world.sessions.commit(session).unwrap();
        (committed.outcome(), set_cookie(&committed).map(|cookie| cookie.contains("Max-Age")))
    };
    assert_eq!(commit_with(true), (Outcome::Stored, Some(true)));
    assert_eq!(commit_with(true), (Outcome::Unchanged, None), "it is already");
    let mut renewed = world.open(&id);
    renewed.renew();
    let committed = world.sessions.commit(renewed).unwrap();
    assert!(set_cookie(&committed).unwrap().contains("; Max-Age=2592000"), "a renewed session stays remembered");

    let id = create_remembered(&world);
    let mut session = world.open(&id);
    session.remember(false);
    let committed = world.sessions.commit(session).unwrap();
    assert!(!set_cookie(&committed).unwrap().contains("Max-Age"), "a cookie that goes with the browser");
    assert_eq!(committed.id(), Some(&id));
    assert_eq!(world.open(&id).expires_in(), Some(HOUR));
    world.clock.advance(HOUR);
    assert!(!world.lives(&id));
}

#[test]
fn cookie_lasts_with_session_up_to_400_days() {
    let cases = [
        (world(|builder| builder), "604800"),
        (world(|builder| builder.idle_timeout(None)), "34560000"),
        (world(|builder| builder.idle_timeout(1000 * DAY)), "34560000"),
        (world(|builder| builder.lifetime(HOUR)), "3600"),
        (world(|builder| builder.idle_timeout(MILLISECOND)), "1"),
    ];
    for (world, seconds) in cases {
        let mut session = world.sessions.fresh();
        session.remember(true);
        let committed = world.sessions.commit(session).unwrap();
        let cookie = set_cookie(&committed).unwrap();
        assert!(cookie.split("; ").any(|part| part == format!("Max-Age={seconds}")), "{cookie}");
    }
}

#[test]
fn persistent_cookie_is_sent_again_after_half_time() {
    let world = remembering();
    let id = create_remembered(&world);
    let visit = || {
        let committed = world.sessions.commit(world.open(&id)).unwrap();
        let sent = set_cookie(&committed).map(str::to_owned);
        assert_eq!(committed.outcome() == Outcome::Stored, sent.is_some());
        sent
    };
    for _ in 0..3 {
        world.clock.advance(MONTH / 2);
        assert_eq!(visit(), None, "at half its life");
        world.clock.advance(MILLISECOND);
        assert!(visit().unwrap().contains("; Max-Age=2592000"), "past half its life");
        assert_eq!(visit(), None, "once");
    }

    // With a change the new cookie costs no extra command. A discarded session gets no new cookie.
    world.clock.advance(MONTH / 2 + MILLISECOND);
    let mut discarded = world.open(&id);
    discarded.discard();
    assert_eq!(set_cookie(&world.sessions.commit(discarded).unwrap()), None);
    let mut changed = world.open(&id);
    *changed += 1;
    assert!(set_cookie(&world.sessions.commit(changed).unwrap()).is_some());
    assert_eq!(visit(), None);
}

/// The manager refreshes the cookie on its own. The refresh must neither fail a read nor conflict with another change.
#[test]
fn sending_a_cookie_again_conflicts_with_nothing() {
    for policy in [OnConflict::Merge, OnConflict::Fail, OnConflict::LastWriteWins] {
        let world = world(|builder| builder.idle_timeout(HOUR).remember_for(MONTH).on_conflict(policy));
        let late = || {
            let id = create_remembered(&world);
            world.clock.advance(MONTH / 2 + MILLISECOND);
            let (mut written, mut touched) = (world.open(&id), world.open(&id));
            (*written, *touched) = (7, 1);
            (id, written, [world.open(&id), touched])
        };
        let (id, written, readers) = late();
        assert_eq!(world.sessions.commit(written).unwrap().outcome(), Outcome::Stored);
        for reader in readers {
            let committed = world.sessions.commit(reader).unwrap();
            assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, Some(&id)), "{policy:?}");
            assert_eq!(set_cookie(&committed), None);
        }
        assert_eq!(*world.open(&id), 7, "{policy:?}");

        let (_, mut destroyed, readers) = late();
        destroyed.destroy();
        assert_eq!(world.sessions.commit(destroyed).unwrap().outcome(), Outcome::Destroyed);
        for reader in readers {
            let committed = world.sessions.commit(reader).unwrap();
            assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, None), "{policy:?}");
            assert_eq!(set_cookie(&committed), None);
        }
    }
}

#[test]
fn read_without_touch_prolongs_no_remembered_session() {
    let world = world(|builder| builder.idle_timeout(HOUR).remember_for(MONTH).touch_on_read(false));
    let id = create_remembered(&world);
    world.clock.advance(MONTH - MILLISECOND);
    let committed = world.sessions.commit(world.open(&id)).unwrap();
    assert_eq!((committed.outcome(), set_cookie(&committed)), (Outcome::Unchanged, None));
    world.clock.advance(MILLISECOND);
    assert!(!world.lives(&id));
}

#[test]
fn touch_in_redis_shortens_no_remembered_session() {
    const SLACK: Duration = Duration::from_secs(600);
    for expiring in [false, true] {
        let builder = RedisSessionStore::builder().url(shared().url()).prefix(unique("remember")).deadline(PATIENCE);
        let store = if expiring { builder.expiring() } else { builder }.build().unwrap();
        let sessions = SessionManager::<u32>::builder(store.clone()).idle_timeout(HOUR).remember_for(MONTH);
        let sessions = sessions.build().unwrap();
        let create = |remember| {
            let mut session = sessions.fresh();
            *session = 1;
            session.remember(remember);
            *sessions.commit(session).unwrap().id().unwrap()
        };
        let (usual, remembered) = (create(false), create(true));
        let grace = if expiring { DAY } else { Duration::ZERO };
        // The remaining TTL of the key.
        let pttl = |id| match shared().cmd(&["PTTL", &store.key(id)]) {
            Value::Int(left) => Duration::from_millis(left.try_into().unwrap()).saturating_sub(grace),
            other => panic!("{other:?}"),
        };
        let about = |expected: Duration, left: Duration| expected - SLACK < left && left <= expected;
        let check = |id, expected| {
            let session = sessions.open_id(id).unwrap().expect("it lives");
            let left = session.expires_in().unwrap();
            assert!(about(expected, left), "{left:?} left of {expected:?}");
            assert!(about(expected, pttl(id)), "{:?} left of {expected:?}", pttl(id));
        };
        for _ in 0..3 {
            check(&usual, HOUR);
            check(&remembered, MONTH);
        }
        // Days later.
        let later = ((MONTH / 2 + grace).as_millis()).to_string();
        assert_eq!(shared().cmd(&["PEXPIRE", &store.key(&remembered), &later]), Value::Int(1));
        check(&remembered, MONTH);
        let mut session = sessions.open_id(&remembered).unwrap().unwrap();
        session.remember(false);
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
        check(&remembered, HOUR);
    }
}

/// A visitor comes every day, with a browser that keeps a cookie for its `Max-Age`.
fn daily_visitor_stays(settings: impl FnOnce(Settings) -> Settings, days: u32) -> u32 {
    let world = world(settings);
    let mut session = world.sessions.fresh();
    *session = 1;
    session.remember(true);
    let committed = world.sessions.commit(session).unwrap();
    let id = *committed.id().unwrap();
    let kept_until = |committed: &Committed| {
        let max_age = set_cookie(committed)?.split("; ").find_map(|part| part.strip_prefix("Max-Age="))?;
        Some(world.clock.now() + Duration::from_secs(max_age.parse().unwrap()))
    };
    let (mut dies, mut sent) = (kept_until(&committed).unwrap(), 0);
    for day in 1..=days {
        world.clock.advance(DAY);
        assert!(world.clock.now() < dies, "the browser dropped the cookie on day {day}");
        let committed = world.sessions.commit(world.open(&id)).unwrap();
        if let Some(until) = kept_until(&committed) {
            (dies, sent) = (until, sent + 1);
        }
    }
    sent
}

#[test]
fn daily_visitor_stays_remembered() {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    assert_eq!(daily_visitor_stays(|settings| settings.idle_timeout(None), 900), 4);
    assert_eq!(daily_visitor_stays(|settings| settings.remember_for(1000 * DAY), 900), 4);
    assert_eq!(daily_visitor_stays(|settings| settings.idle_timeout(CENTURY * 3), 900), 4);
    assert_eq!(daily_visitor_stays(|settings| settings.idle_timeout(DAY).remember_for(30 * DAY), 100), 6);
    // A cookie that ends with the lifetime is not sent again, because it cannot last longer.
    assert_eq!(daily_visitor_stays(|settings| settings.idle_timeout(30 * DAY).lifetime(20 * DAY), 19), 0);
    assert_eq!(daily_visitor_stays(|settings| settings.remember_for(30 * DAY).lifetime(40 * DAY), 39), 1);
    assert_eq!(daily_visitor_stays(|settings| settings.idle_timeout(None).lifetime(900 * DAY), 899), 3);
}

#[test]
fn restarted_lifetime_sends_longer_cookie() {
    let world = world(|settings| settings.idle_timeout(30 * DAY).lifetime(20 * DAY));
    let mut session = world.sessions.fresh();
    session.remember(true);
    let id = *world.sessions.commit(session).unwrap().id().unwrap();
    world.clock.advance(5 * DAY);
    let mut session = world.open(&id);
    session.restart_lifetime();
    let committed = world.sessions.commit(session).unwrap();
    assert!(set_cookie(&committed).unwrap().contains("Max-Age=1728000"), "20 days");
}
