//! `touch_every`: a read moves the deadline only if the last move is old enough.

use std::time::Duration;

use threaded_sessions::{Outcome, Session, SessionId, SessionManager, SessionManagerBuilder};

use super::{DAY, HOUR, MILLISECOND, World, world};

const EVERY: Duration = Duration::from_secs(600);

type Settings = SessionManagerBuilder<u32>;

fn peek(world: &World, id: &SessionId) -> Session<u32> {
    world.sessions.peek([&*format!("__Host-session={}", id.expose())]).unwrap()
}

/// Returns `true` if the session lives, without a use of it.
fn is_there(world: &World, id: &SessionId) -> bool {
    !peek(world, id).is_new()
}

/// Stores a session with this change.
fn store(world: &World, change: impl FnOnce(&mut Session<u32>)) -> SessionId {
    let mut session = world.sessions.fresh();
    *session = 1;
    change(&mut session);
    *world.sessions.commit(session).unwrap().id().unwrap()
}

/// Reads the session for ten idle timeouts, with each of these pauses, and then leaves it alone. It ends between the idle timeout
/// and `EVERY` longer after its last read.
fn lives_for_its_idle_timeout(settings: fn(Settings) -> Settings, idle: Duration, change: fn(&mut Session<u32>)) {
    let pauses = [idle / 100, EVERY / 3, EVERY, EVERY + MILLISECOND, idle / 2, idle - MILLISECOND, idle];
    for pause in pauses {
        let world = world(|builder| settings(builder).touch_every(EVERY));
        let id = store(&world, change);
        for _ in 0..(idle.as_millis() * 10).div_ceil(pause.as_millis()) {
            world.clock.advance(pause);
            let session = world.sessions.open_id(&id).unwrap();
            let session = session.unwrap_or_else(|| panic!("used every {pause:?}, a session of {idle:?} ended"));
            let certain = session.expires_in().unwrap();
            assert!(idle.saturating_sub(EVERY) <= certain && certain <= idle, "{certain:?}, every {pause:?}");
            assert_eq!(peek(&world, &id).expires_in(), Some(certain), "both report what is certain");
        }
        world.clock.advance(idle - MILLISECOND);
        assert!(is_there(&world, &id), "{idle:?}, used every {pause:?}");
        world.clock.advance(EVERY + MILLISECOND);
        assert!(!is_there(&world, &id), "{idle:?}, used every {pause:?}");
    }
}

#[test]
fn used_sessions_live_for_every_idle_timeout() {
    lives_for_its_idle_timeout(|builder| builder.idle_timeout(HOUR), HOUR, |_| ());
    lives_for_its_idle_timeout(|builder| builder.idle_timeout(HOUR).lifetime(9000 * DAY), HOUR, |_| ());
    let remembering: fn(Settings) -> Settings = |builder| builder.idle_timeout(HOUR).remember_for(DAY);
    lives_for_its_idle_timeout(remembering, HOUR, |_| ());
    lives_for_its_idle_timeout(remembering, DAY, |session| session.remember(true));
    let anonymous: fn(Settings) -> Settings = |builder| builder.idle_timeout(DAY).anonymous_idle_timeout(HOUR);
    lives_for_its_idle_timeout(anonymous, HOUR, |_| ());
    lives_for_its_idle_timeout(anonymous, DAY, |session| session.bind("ada", "laptop"));
}

#[test]
fn lifetime_bounds_the_additional_time() {
    // Even a lifetime that leaves no room for it.
    for lifetime in [HOUR, HOUR + EVERY / 2, 3 * HOUR] {
        let world = world(|builder| builder.idle_timeout(HOUR).touch_every(EVERY).lifetime(lifetime));
        let (read, alone) = (world.create(), world.create());
        let end = world.clock.now() + lifetime;
        let pause = EVERY / 4;
        while world.clock.now() + pause < end {
            world.clock.advance(pause);
            let left = end.duration_since(world.clock.now()).unwrap();
            let certain = world.open(&read).expires_in().unwrap();
            assert!(certain <= left && certain <= HOUR);
            assert!(certain >= left.min(HOUR - EVERY), "{certain:?} of {left:?}");
        }
        world.clock.advance(pause - MILLISECOND);
        assert!(is_there(&world, &read), "{lifetime:?}");
        assert_eq!(peek(&world, &read).expires_in(), Some(MILLISECOND));
        world.clock.advance(MILLISECOND);
        assert!(!is_there(&world, &read) && !is_there(&world, &alone), "{lifetime:?}");
        assert_eq!(world.count(), 0, "its TTL ended with its lifetime");
    }
}

#[test]
fn restarted_lifetime_moves_the_deadline_again() {
    let world = world(|builder| builder.idle_timeout(HOUR).touch_every(EVERY).lifetime(2 * HOUR));
    let id = world.create();
    for _ in 0..11 {
        world.clock.advance(EVERY);
        let _ = world.open(&id);
    }
    let mut session = world.open(&id);
    session.restart_lifetime();
    let _ = world.sessions.commit(session).unwrap();
    for _ in 0..11 {
        world.clock.advance(EVERY);
        assert!(world.lives(&id));
    }
    world.clock.advance(EVERY);
    assert!(!world.lives(&id));
}

#[test]
fn managers_with_and_without_it_share_a_store() {
    let world = world(|builder| builder.idle_timeout(HOUR).touch_every(EVERY));
    let builder = SessionManager::<u32>::builder(world.store.clone()).clock(world.clock.clone());
    let without = builder.idle_timeout(HOUR).build().unwrap();
    let id = world.create();
    for n in 0..200 {
        world.clock.advance(HOUR / 7 * (n % 7));
        let session = if n % 3 == 0 { without.open_id(&id).unwrap() } else { world.sessions.open_id(&id).unwrap() };
        let session = session.unwrap_or_else(|| panic!("read {n} found no session"));
        assert_eq!(world.sessions.commit(session).unwrap().outcome(), Outcome::Unchanged);
    }
    world.clock.advance(HOUR - MILLISECOND);
    assert!(is_there(&world, &id));
    world.clock.advance(EVERY + MILLISECOND);
    assert!(!is_there(&world, &id));
}

#[test]
fn shared_store_with_lifetime_ends_no_session_early() {
    let lifetime = 2 * HOUR;
    let world = world(|builder| builder.idle_timeout(HOUR).touch_every(HOUR / 2).lifetime(lifetime));
    let builder = SessionManager::<u32>::builder(world.store.clone()).clock(world.clock.clone());
    let without = builder.idle_timeout(HOUR).lifetime(lifetime).build().unwrap();
    let id = world.create();
    for minutes in 1..120 {
        world.clock.advance(HOUR / 60);
        // The TTL is bounded by the lifetime when the manager without the setting makes it shorter.
        let manager = if minutes == 40 { &without } else { &world.sessions };
        assert!(minutes % 20 > 0 || manager.open_id(&id).unwrap().is_some(), "after {minutes} minutes");
    }
    world.clock.advance(HOUR / 60);
    assert!(!world.lives(&id));
}

#[test]
fn lists_report_the_last_touch() {
    let world = world(|builder| builder.idle_timeout(HOUR).touch_every(EVERY));
    let id = store(&world, |session| session.bind("ada", "laptop"));
    let began = world.clock.now();
    world.clock.advance(EVERY / 2);
    assert!(world.lives(&id));
    let listed = || world.sessions.list("ada").unwrap().remove(0);
    assert_eq!((listed().last_used, listed().expires_in), (Some(began), Some(HOUR - EVERY / 2)));
    world.clock.advance(EVERY / 2);
    assert!(world.lives(&id));
    assert_eq!((listed().last_used, listed().expires_in), (Some(world.clock.now()), Some(HOUR)));
    let all: Vec<_> = world.sessions.all().iter().map(Result::unwrap).collect();
    assert_eq!((all[0].last_used, all[0].expires_in), (Some(world.clock.now()), Some(HOUR + EVERY)));
}

#[test]
fn lists_report_no_touch_near_lifetime_end() {
    let world = world(|builder| builder.idle_timeout(HOUR).touch_every(EVERY).lifetime(2 * HOUR));
    let id = store(&world, |session| session.bind("ada", "laptop"));
    for _ in 0..9 {
        world.clock.advance(EVERY);
        assert!(world.lives(&id));
    }
    let listed = world.sessions.list("ada").unwrap().remove(0);
    assert_eq!((listed.last_used, listed.expires_in), (None, Some(HOUR / 2)));
    let found = world.sessions.all().iter().next().unwrap().unwrap();
    assert_eq!((found.last_used, found.expires_in), (None, Some(HOUR / 2)));
}

#[test]
fn remembered_cookie_lasts_no_longer() {
    let world = world(|builder| builder.idle_timeout(HOUR).remember_for(30 * DAY).touch_every(EVERY));
    let mut session = world.sessions.fresh();
    session.remember(true);
    let committed = world.sessions.commit(session).unwrap();
    assert!(super::set_cookie(&committed).unwrap().contains("; Max-Age=2592000"));
}

#[test]
fn longest_times_still_touch_once_in_a_while() {
    let settings = |builder: Settings| builder.idle_timeout(Duration::MAX).touch_every(DAY);
    let world = world(settings);
    let id = world.create();
    let longest = threaded_sessions::store::MAX_TTL;
    world.clock.advance(HOUR);
    assert_eq!(world.open(&id).expires_in(), Some(longest - DAY - HOUR));
    world.clock.advance(DAY);
    assert_eq!(world.open(&id).expires_in(), Some(longest - DAY));
}
