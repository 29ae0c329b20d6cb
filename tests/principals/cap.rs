//! `max_per_principal`: a login over the cap ends the oldest sessions, and never its own.

use std::collections::HashSet;
use std::time::Duration;

use threaded_sessions::{Clock, ErrorKind, MemorySessionStore, RedisSessionStore, SessionId, SessionManager};

use crate::support::{PATIENCE, shared, unique};
use crate::{Fields, Room, ask_for, at_once, in_each_room_with, tick};

#[test]
fn ten_parallel_logins_leave_exactly_the_cap() {
    in_each_room_with(
        |settings| settings.max_per_principal(3),
        |room| {
            for _ in 0..5 {
                let visitors: Vec<SessionId> = (0..5u32)
                    .map(|n| {
                        let mut session = room.sessions.fresh();
                        session.insert("cart".into(), n);
                        room.store(session)
                    })
                    .collect();
                let logins = at_once(10, |n| {
                    // Half of them with a session from before.
                    let mut session = visitors.get(n).map_or_else(|| room.sessions.fresh(), |id| room.open(id));
                    session.renew();
                    session.bind("ada", n.to_string());
                    room.store(session)
                });
                let live: Vec<&SessionId> = logins.iter().filter(|id| room.lives(id)).collect();
                assert_eq!(live.len(), 3);
                let listed: HashSet<_> = room.sessions.list("ada").unwrap().iter().map(|shown| shown.handle).collect();
                assert_eq!(listed, live.iter().map(|id| room.sessions.store().handle(id)).collect());
                assert_eq!(room.sessions.end_all("ada").unwrap(), 3);
                assert_eq!(room.keys(), [""; 0]);
            }
        },
    );
}

#[test]
fn the_oldest_sessions_end_first() {
    in_each_room_with(
        |settings| settings.max_per_principal(2),
        |room| {
            room.login("bob", "phone");
            for (label, left) in [("a", &["a"] as &[&str]), ("b", &["b", "a"]), ("c", &["c", "b"])] {
                tick();
                room.login("ada", label);
                assert_eq!(room.labels("ada"), left);
            }
            // Neither a renewal nor a new label makes a session newer, and neither counts against the cap.
            let shown = &room.sessions.list("ada").unwrap()[1];
            assert_eq!(shown.label, "b");
            let mut session = room.sessions.fresh();
            session.bind("ada", "d");
            tick();
            let newest = room.renew(&room.store(session));
            assert_eq!(room.labels("ada"), ["d", "c"]);
            let mut session = room.open(&newest);
            session.bind("ada", "d, renamed");
            room.store(session);
            assert_eq!(room.labels("ada"), ["d, renamed", "c"]);
            assert_eq!(room.labels("bob"), ["phone"]);
        },
    );
}

#[test]
fn no_login_ends_itself() {
    let cap = |settings: crate::Settings| settings.max_per_principal(1);
    let partitioned = Room::redis(|builder| builder.partitions(4), cap);
    for room in [Room::new(MemorySessionStore::new(), cap), Room::redis(|all| all, cap), partitioned] {
        // Many of one millisecond, so that only the rule spares the newest.
        for _ in 0..60 {
            let id = room.login("ada", "phone");
            assert!(room.lives(&id));
        }
        let elsewhere = room.login("bob", "phone");
        let mut session = room.open(&elsewhere);
        session.bind("ada", "taken over");
        room.store(session);
        assert!(room.lives(&elsewhere));
        assert_eq!(room.labels("ada"), ["taken over"]);
    }
}

#[test]
fn later_cap_applies_from_the_next_login() {
    let store = MemorySessionStore::new();
    let free = Room::new(store.clone(), |settings| settings);
    (0..5).for_each(|_| _ = free.login("ada", "before"));
    let capped = Room::new(store.clone(), |settings| settings.max_per_principal(2));
    assert_eq!(capped.labels("ada").len(), 5);
    tick();
    capped.login("ada", "after");
    assert_eq!(capped.labels("ada"), ["after", "before"]);

    let none = SessionManager::<Fields>::builder(store).max_per_principal(0).build();
    assert_eq!(none.unwrap_err().kind(), ErrorKind::Misconfigured);
}

/// Makes the sessions of all principals so far seem an hour newer, as if the clock was set back since, or as if a node with another
/// clock had them.
fn age_clock(room: &Room) {
    for set in room.keys().iter().filter(|key| key.contains(":principal:")) {
        for member in ask_for::<Vec<String>>(room, set, &["ZRANGE", set, "0", "-1"]) {
            let _: f64 = ask_for(room, set, &["ZINCRBY", set, "3600000", &member]);
        }
    }
}

#[test]
fn login_survives_its_cap_after_clock_set_back() {
    for cap in 1..=3usize {
        in_redis_rooms(cap as u32, |room| {
            let mut expected = Vec::new();
            for n in 0..6 {
                let label = n.to_string();
                let id = room.login("ada", &label);
                assert!(room.lives(&id), "cap {cap}, login {n}");
                expected.insert(0, label);
                expected.truncate(cap);
                assert_eq!(room.labels("ada"), expected, "cap {cap}");
                age_clock(&room);
            }
        });
    }
}

#[test]
fn rebound_login_survives_cap_after_clock_step_back() {
    in_redis_rooms(1, |room| {
        for n in 0..6 {
            let mut session = room.sessions.fresh();
            session.insert("cart".into(), n);
            let id = room.store(session);
            age_clock(&room);
            // One login renews the id, the next one keeps it.
            let mut session = room.open(&id);
            if n % 2 == 0 {
                session.renew();
            }
            session.bind("ada", n.to_string());
            let id = room.store(session);
            assert!(room.lives(&id), "login {n}");
            assert_eq!(room.labels("ada"), [n.to_string()]);
        }
    });
}

#[test]
fn parallel_logins_with_skewed_clocks_leave_the_cap() {
    in_redis_rooms(3, |room| {
        for _ in 0..5 {
            (0..3).for_each(|_| _ = room.login("ada", "before"));
            age_clock(&room);
            let logins = at_once(8, |n| room.login("ada", &n.to_string()));
            let live = logins.iter().filter(|id| room.lives(id)).count();
            // Until a login of the same moment has taken a later time than all others, another one may end it.
            assert!(live > 0);
            assert_eq!(room.labels("ada").len(), 3);
        }
    });
}

#[test]
fn renewed_session_survives_a_lowered_cap() {
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("principals")).deadline(PATIENCE);
    let store = store.partitions(4).expiring().build().unwrap();
    let room = Room::new(store.clone(), |settings| settings);
    let oldest = room.login("ada", "oldest");
    for label in ["b", "c", "d"] {
        tick();
        room.login("ada", label);
    }
    let capped = SessionManager::<Fields>::builder(store).max_per_principal(2).build().unwrap();
    let mut session = capped.open_id(&oldest).unwrap().unwrap();
    session.renew();
    session.bind("ada", "oldest, renewed");
    let committed = capped.commit(session).unwrap();
    assert!(room.lives(committed.id().unwrap()));
    assert!(room.labels("ada").contains(&"oldest, renewed".to_owned()));
}

#[test]
fn memory_login_survives_cap_after_clock_step_back() {
    let later = Clock::manual();
    later.advance(Duration::from_secs(3600));
    let store = MemorySessionStore::new().with_clock(later);
    let settings = |settings: crate::Settings| settings.max_per_principal(2);
    let (before, after) = (Room::new(store.clone(), settings), Room::new(store.with_clock(Clock::manual()), settings));
    before.login("ada", "a");
    before.login("ada", "b");
    for (label, left) in [("c", ["c", "b"]), ("d", ["d", "c"]), ("e", ["e", "d"])] {
        let id = after.login("ada", label);
        assert!(after.lives(&id));
        assert_eq!(after.labels("ada"), left);
    }
}

fn in_redis_rooms(cap: u32, test: impl Fn(Room)) {
    let settings = |settings: crate::Settings| settings.max_per_principal(cap);
    test(Room::redis(|builder| builder, settings));
    test(Room::redis(|builder| builder.partitions(4), settings));
    test(Room::cluster(settings));
}
