//! The index of the expiring store follows every operation on its sessions.

use std::ops::RangeInclusive;

use super::*;

const INDEX: &str = "sessions:index";

fn entries(server: &RedisServer) -> Vec<(String, u64)> {
    ask(server, &["ZRANGE", INDEX, "0", "-1", "WITHSCORES"])
}

/// The server's clock, in milliseconds.
fn now(server: &RedisServer) -> u64 {
    let (seconds, micros): (u64, u64) = ask(server, &["TIME"]);
    seconds * 1000 + micros / 1000
}

/// Runs an operation, and returns the possible deadlines of a session that lives for a week from then on.
fn deadline<R>(server: &RedisServer, act: impl FnOnce() -> R) -> (R, RangeInclusive<u64>) {
    let before = now(server);
    let done = act();
    (done, before + WEEK..=now(server) + WEEK)
}

/// The index has exactly this one session.
#[track_caller]
fn assert_indexed(server: &RedisServer, key: &str, deadlines: &RangeInclusive<u64>, after: &str) {
    let entries = entries(server);
    let [(member, score)] = &entries[..] else { panic!("after {after} the index has {entries:?}") };
    assert_eq!(member, key, "after {after}");
    assert!(deadlines.contains(score), "after {after} the index has {score}, not one of {deadlines:?}");
}

/// The index may be right before, have a wrong score, or be lost.
#[test]
fn every_operation_indexes_key_and_deadline() {
    for spoil in [None, Some(&["ZADD", INDEX, "1"][..]), Some(&["DEL", INDEX])] {
        let server = RedisServer::start();
        let store = store(&server, Kind::Expiring);
        let touching = SessionManager::<Visit>::new(store.clone());
        let still = SessionManager::<Visit>::builder(store.clone()).touch_on_read(false).build().unwrap();
        // The session has only half its time left, and the index perhaps does not know it.
        let prepare = |id| {
            let key = store.key(id);
            server.cmd(&["PEXPIRE", &key, &(WEEK / 2 + GRACE).to_string()]);
            match spoil {
                Some(zadd @ [_, _, _]) => drop(server.cmd(&[zadd, &[&*key]].concat())),
                Some(del) => drop(server.cmd(del)),
                None => (),
            }
        };

        let (id, deadlines) = deadline(&server, || create(&touching, 1));
        assert_indexed(&server, &store.key(&id), &deadlines, "create");

        prepare(&id);
        let (_, deadlines) = deadline(&server, || open(&touching, &id));
        assert_indexed(&server, &store.key(&id), &deadlines, "touch");

        let mut session = open(&still, &id);
        session.count = 2;
        prepare(&id);
        let (_, deadlines) = deadline(&server, || store_change(&still, session));
        assert_indexed(&server, &store.key(&id), &deadlines, "save");

        let mut session = open(&still, &id);
        session.renew();
        prepare(&id);
        let (renewed, deadlines) = deadline(&server, || store_change(&still, session));
        assert_indexed(&server, &store.key(&renewed), &deadlines, "renew");

        let mut session = open(&still, &renewed);
        session.destroy();
        prepare(&renewed);
        assert_eq!(still.commit(session).unwrap().outcome(), Outcome::Destroyed);
        assert_eq!(entries(&server), []);
    }
}

#[test]
fn touch_updates_index_only_across_a_64th() {
    let server = RedisServer::start();
    let store = store(&server, Kind::Expiring);
    // An idle timeout that, from now, ends in the middle of a 64th: 80 minutes at least lie on either side.
    let started = now(&server);
    let (idle, step) = (14..)
        .map(|days| (days * 86_400_000, (days * 86_400_000u64).div_ceil(64)))
        .find(|(idle, step)| (step / 4..step * 3 / 4).contains(&((started + idle) % step)))
        .unwrap();
    let sessions =
        SessionManager::<Visit>::builder(store.clone()).idle_timeout(Duration::from_millis(idle)).build().unwrap();
    let id = create(&sessions, 1);
    let key = store.key(&id);
    let touch_with_less = |less: u64| {
        server.cmd(&["ZADD", INDEX, "1", &key]);
        server.cmd(&["PEXPIRE", &key, &(idle - less + GRACE).to_string()]);
        drop(open(&sessions, &id));
        let left: u64 = ask(&server, &["PTTL", &key]);
        assert!((idle + GRACE - SLACK..=idle + GRACE).contains(&left), "the touch did not count, {left}");
        entries(&server)
    };
    assert_eq!(touch_with_less(2 * SLACK), [(key.clone(), 1)]);
    let moved = touch_with_less(step);
    assert!((started + idle..=now(&server) + idle).contains(&moved[0].1), "{moved:?}");
}

#[test]
fn index_of_wrong_type_is_kept_without_logouts() {
    let server = RedisServer::start();
    let store = store(&server, Kind::Expiring);
    let sessions = SessionManager::<Visit>::new(store.clone());
    let before = create(&sessions, 7);
    server.cmd(&["SET", INDEX, "x"]);

    live(&store, |_, _| assert_eq!(ask::<String>(&server, &["GET", INDEX]), "x"));
    let mut session = open(&sessions, &before);
    assert_eq!(session.count, 7);
    session.renew();
    let renewed = store_change(&sessions, session);
    assert_eq!(open(&sessions, &renewed).count, 7);
    assert_eq!(ask::<String>(&server, &["GET", INDEX]), "x");
}
