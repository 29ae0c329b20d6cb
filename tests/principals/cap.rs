use std::collections::HashSet;

use threaded_sessions::{ErrorKind, MemorySessionStore, SessionId, SessionManager};

use crate::{Fields, Room, at_once, in_each_room_with, tick};

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

/// Where a cap is kept within one script. (Over several partitions it settles by age alone: two logins of the same
/// millisecond may both be too many.)
#[test]
fn no_login_ends_itself() {
    let cap = |settings: crate::Settings| settings.max_per_principal(1);
    for room in [Room::new(MemorySessionStore::new(), cap), Room::redis(|all| all, cap)] {
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
fn a_cap_that_comes_later_holds_from_the_next_login_on() {
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
