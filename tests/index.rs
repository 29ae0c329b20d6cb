//! The index of the expiring store repairs itself, and damage to it ends no session.

#[path = "index/companions.rs"]
mod companions;
#[path = "index/pages.rs"]
mod pages;
mod reaping;
mod support;
#[path = "index/verify.rs"]
mod verify;
#[path = "index/walk.rs"]
mod walk;

use std::thread;
use std::time::Duration;

use log::Level;
use reaping::{
    GRACE, HOUR, ask, create, entries, expiring, idle_for, index, is_live, keep_logs, load, logged_by, prefix_of,
    reap_all,
};
use support::{PATIENCE, RedisServer, eventually};
use threaded_sessions::store::{Created, Found, Saved, SessionIndex, Touch, Write};
use threaded_sessions::{ErrorKind, RedisSessionStore, Result, SessionId, SessionStore};

const INDEX: &str = "sessions:index";
const HOUR_MILLIS: i64 = 3_600_000;

/// How slow a machine may be, in milliseconds.
const SLACK: i64 = 600_000;

/// The server's clock, in milliseconds.
fn now(server: &RedisServer) -> i64 {
    let (seconds, micros): (i64, i64) = ask(server, &["TIME"]);
    seconds * 1000 + micros / 1000
}

/// The entries lie this many milliseconds from now, to within a slow machine's time.
#[track_caller]
fn assert_scores(server: &RedisServer, index: &str, left: i64) {
    let now = now(server);
    for (_, score) in entries(server, index) {
        let lies = score as i64 - now;
        assert!((left - SLACK..=left).contains(&lies), "{lies} and not {left}");
    }
}

#[test]
fn an_entry_without_data_disappears() {
    let server = RedisServer::start();
    let store = expiring(&server, "sessions", 1);
    let keys = load(&server, "sessions:", 0..120, HOUR_MILLIS, -1);
    for key in &keys[..60] {
        server.cmd(&["DEL", key]);
    }
    server.cmd(&["ZADD", INDEX, "1", "", "2", "garbage", "-inf", "sessions:", "3", INDEX]);
    assert_eq!(reap_all(&store, 0), 0);
    let mut left: Vec<String> = entries(&server, INDEX).into_iter().map(|(key, _)| key).collect();
    left.sort();
    assert_eq!(left, keys[60..]);
}

#[test]
fn wrong_score_is_corrected_and_removes_no_session() {
    let server = RedisServer::start();
    let store = expiring(&server, "sessions", 1);
    // Far too early, too early by a moment, too late; the truth; and how many are removed.
    for (indexed, left, removed) in
        [(-HOUR_MILLIS * 1000, HOUR_MILLIS, 0), (-1, HOUR_MILLIS, 0), (-1, -1, 70), (-GRACE * 2, -SLACK, 70)]
    {
        server.cmd(&["FLUSHALL"]);
        let keys = load(&server, "sessions:", 0..70, left, indexed);
        assert_eq!(reap_all(&store, 0), removed);
        assert_eq!(
            ask::<u64>(&server, &[&["EXISTS"], &keys.iter().map(|key| &**key).collect::<Vec<_>>()[..]].concat()),
            70 - removed
        );
        assert_eq!(entries(&server, INDEX).len() as u64, 70 - removed);
        assert_scores(&server, INDEX, left);
    }
    // A session that does not expire.
    let id = store.fresh_id(None);
    assert!(matches!(store.create(&id, Write::new(b"v", None)).unwrap(), Created::Stored(_)));
    server.cmd(&["ZADD", INDEX, "1", &store.key(&id)]);
    assert_eq!(reap_all(&store, 0), 0);
    assert_eq!(entries(&server, INDEX), [(store.key(&id), f64::INFINITY)]);
    // A score that is too late only delays: the session is absent, and goes by its grace if not before.
    load(&server, "sessions:", 0..1, -1, HOUR_MILLIS * 100);
    assert_eq!(reap_all(&store, 0), 0);
    assert!(!is_live(&store, &"00000000-0000-4000-8000-000000000000".parse().unwrap()));
}

#[test]
fn data_without_an_entry_dies_by_its_grace() {
    let server = RedisServer::start();
    let store = expiring(&server, "sessions", 1);
    let sessions = idle_for(store.clone(), HOUR);
    let touch = |id: &SessionId| drop(sessions.open_id(id).unwrap().unwrap());
    let save = |id: &SessionId| {
        let mut session = sessions.open_id(id).unwrap().unwrap();
        *session += 1;
        let _ = sessions.commit(session).unwrap();
    };
    for act in [&|_: &SessionId| () as _, &touch as &dyn Fn(&SessionId), &save] {
        let id = create(&sessions, 1);
        act(&id);
        server.cmd(&["DEL", INDEX]);
        let left: i64 = ask(&server, &["PTTL", &store.key(&id)]);
        assert!((HOUR_MILLIS + GRACE - SLACK..=HOUR_MILLIS + GRACE).contains(&left), "{left}");
    }
}

#[test]
fn traffic_rebuilds_lost_index_without_logouts() {
    for partitions in [1, 5] {
        let server = RedisServer::start();
        let store = expiring(&server, "sessions", partitions);
        let sessions = idle_for(store.clone(), HOUR);
        let ids: Vec<SessionId> = (1..=60).map(|value| create(&sessions, value)).collect();
        for lost in ask::<Vec<String>>(&server, &["KEYS", "*index"]) {
            server.cmd(&["DEL", &lost]);
        }
        assert_eq!((0..partitions).map(|partition| reap_all(&store, partition)).sum::<u64>(), 0);
        assert_eq!(index(&store).count().unwrap(), 0);
        for (id, value) in ids.iter().zip(1..) {
            if value % 2 == 0 {
                // As if it had last been used two 64ths of its time ago.
                server.cmd(&["PEXPIRE", &store.key(id), &(HOUR_MILLIS * 31 / 32 + GRACE).to_string()]);
            }
            let mut session = sessions.open_id(id).unwrap().expect("no session ends");
            assert_eq!(*session, value);
            if value % 2 == 1 {
                *session += 1000;
                let _ = sessions.commit(session).unwrap();
            }
        }
        assert_eq!(index(&store).count().unwrap(), 60, "{partitions} partitions");
        for clobbered in ask::<Vec<String>>(&server, &["KEYS", "*index"]) {
            assert_scores(&server, &clobbered, HOUR_MILLIS);
        }
    }
}

/// A wrong prefix is the only mistake that lets the reaper reach these keys.
#[test]
fn rrss_keys_under_same_prefix_stay_untouched() {
    let server = RedisServer::start();
    let store = expiring(&server, "sessions", 1);
    let sessions = idle_for(store.clone(), HOUR);
    let ids: Vec<SessionId> = (0..150).map(|_| SessionId::random()).collect();
    for id in &ids {
        let key = store.key(id);
        server.cmd(&["HSET", &key, ":user", "ada", ":cart", "tea"]);
        server.cmd(&["ZADD", "sessions:all", "1500000000000", &key]);
        server.cmd(&["SET", &format!("{key}:written-at"), "1500000000000"]);
    }
    server.cmd(&["PEXPIRE", &store.key(&ids[3]), "1000000"]);
    let snapshot = || {
        let mut keys: Vec<String> = ask(&server, &["KEYS", "*"]);
        keys.retain(|key| key != INDEX);
        keys.sort();
        let dumped =
            |key: &String| (ask::<Vec<u8>>(&server, &["DUMP", key]), ask::<i64>(&server, &["PEXPIRETIME", key]));
        keys.iter().map(|key| (key.clone(), dumped(key))).collect::<Vec<_>>()
    };
    let before = snapshot();
    assert_eq!(before.len(), 301);

    // Also where our index takes one of them for its own.
    server.cmd(&["ZADD", INDEX, "1", &store.key(&ids[0]), "1", &store.key(&ids[1]), "1", &store.key(&ids[2])]);
    let verified = store.verify(Default::default()).unwrap();
    assert_eq!((verified.added, verified.dropped), (0, 3));
    server.cmd(&["ZADD", INDEX, "1", &store.key(&ids[0]), "1", &store.key(&ids[1])]);
    let reaper = sessions.reaper().on_expired(|_| panic!("not ours")).start().unwrap();
    assert_eq!(reaper.reap_now().unwrap(), 0);
    for id in &ids[..3] {
        assert_wrong_type(store.read(id, Touch::No));
        assert_wrong_type(store.read(id, Touch::Set(HOUR)));
        assert_wrong_type(store.create(id, Write::new(b"v", HOUR)));
        assert_wrong_type(store.save(id, Write::new(b"v", HOUR), None));
        assert_wrong_type(store.rotate(id, &SessionId::random(), Write::new(b"v", HOUR), None));
        assert_wrong_type(store.rotate(&create(&sessions, 1), id, Write::new(b"v", HOUR), None));
        assert_wrong_type(store.delete(id));
    }
    store.verify(Default::default()).unwrap();
    reaper.reap_now().unwrap();
    index(&store).count().unwrap();
    index(&store).page(0, 100).unwrap();
    let ours: Vec<String> = ask(&server, &["ZRANGE", INDEX, "0", "-1"]);
    for key in &ours {
        server.cmd(&["DEL", key]);
    }
    assert_eq!(ours.len(), 3);
    assert!(snapshot() == before);
}

#[track_caller]
fn assert_wrong_type<R: std::fmt::Debug>(result: Result<R>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::WrongType);
}

#[test]
fn user_without_delete_right_loses_no_entry() {
    let server = RedisServer::start();
    load(&server, "sessions:", 0..10, -1, -1);
    server.cmd(&["ACL", "SETUSER", "reader", "on", "nopass", "~*", "+@all", "-del"]);
    let url = server.url().replace("//", "//reader:x@");
    let store = RedisSessionStore::builder().url(url).deadline(PATIENCE).expiring().build().unwrap();
    let denied = index(&store).reap(0, 50, true).unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied, "{denied:?}");
    assert_eq!(entries(&server, INDEX).len(), 10);
    assert_eq!(reap_all(&expiring(&server, "sessions", 1), 0), 10);
}

#[test]
fn at_maxmemory_the_reaper_removes_and_corrects() {
    let server = RedisServer::start();
    let store = expiring(&server, "sessions", 1);
    // The script is known: what the server keeps of it takes memory, too.
    reap_all(&store, 0);
    // Batches of nothing but entries that lag, then mixed ones, then what is overdue.
    let lags = load(&server, "sessions:", 0..120, HOUR_MILLIS, -SLACK);
    let mixed = (120..160).step_by(2).flat_map(|at| {
        load(&server, "sessions:", at..at + 1, -1, -SLACK / 2);
        load(&server, "sessions:", at + 1..at + 2, HOUR_MILLIS, -SLACK / 2)
    });
    let live: Vec<String> = lags.into_iter().chain(mixed).collect();
    load(&server, "sessions:", 160..250, -1, -1);
    server.cmd(&["CONFIG", "SET", "maxmemory", "1000"]);
    let full = redis::cmd("SET").arg("x").arg("y").exec(&mut server.connection()).unwrap_err();
    assert_eq!(full.code(), Some("OOM"));

    assert_eq!(reap_all(&store, 0), 20 + 90);
    assert_eq!(ask::<u64>(&server, &["DBSIZE"]), live.len() as u64 + 1);
    let mut indexed: Vec<String> = entries(&server, INDEX).into_iter().map(|(key, _)| key).collect();
    indexed.sort();
    assert_eq!(indexed, live);
    assert_scores(&server, INDEX, HOUR_MILLIS);
}

#[test]
fn index_of_wrong_type_fails_reapers_only() {
    let clobberings: [&[&str]; 5] = [
        &["SET", INDEX, "x"],
        &["RPUSH", INDEX, "x", "y"],
        &["SADD", INDEX, "x"],
        &["HSET", INDEX, "x", "y"],
        &["XADD", INDEX, "*", "x", "y"],
    ];
    for clobbering in clobberings {
        let server = RedisServer::start();
        let store = expiring(&server, "sessions", 1);
        let sessions = idle_for(store.clone(), HOUR);
        let (before, after): (Vec<_>, Vec<_>);
        before = (1..5).map(|value| create(&sessions, value)).collect();
        server.cmd(&["DEL", INDEX]);
        server.cmd(clobbering);
        let what_is_there: Vec<u8> = ask(&server, &["DUMP", INDEX]);
        after = (5..9).map(|value| create(&sessions, value)).collect();
        load_overdue_next_to(&server);

        assert_wrong_type(index(&store).reap(0, 50, true));
        assert_wrong_type(index(&store).count());
        assert_wrong_type(index(&store).page(0, 10));
        let reaper = sessions.reaper().resolution(Duration::from_millis(1)).start().unwrap();
        assert!(eventually(PATIENCE, || reaper.stats().errors > 3));
        for (id, value) in before.iter().chain(&after).zip(1..) {
            let mut session = sessions.open_id(id).unwrap().expect("no session ends");
            assert_eq!(*session, value);
            *session = 100;
            let _ = sessions.commit(session).unwrap();
        }
        assert_eq!(ask::<Vec<u8>>(&server, &["DUMP", INDEX]), what_is_there);

        let verified = store.verify(Default::default()).unwrap();
        assert_eq!((verified.displaced, verified.added), (1, 9));
        let aside: Vec<String> = ask(&server, &["KEYS", "sessions:index:clobbered:*"]);
        assert_eq!(ask::<Vec<u8>>(&server, &["DUMP", &aside[0]]), what_is_there);
        assert_eq!(index(&store).count().unwrap(), 8);
        assert!(eventually(PATIENCE, || reaper.stats().removed == 1));
        assert_eq!(ask::<u64>(&server, &["DBSIZE"]), 8 + 2);
    }
}

/// Overdue data without an entry.
fn load_overdue_next_to(server: &RedisServer) {
    let key = "sessions:00000000-0000-4000-8000-000000000000";
    server.cmd(&["SET", key, reaping::SEVEN, "PX", &(GRACE - 1).to_string()]);
}

#[test]
fn index_with_foreign_keys_is_logged_once() {
    let server = RedisServer::start();
    let builder = || RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).expiring();
    let (named, hashed) = (builder().build().unwrap(), builder().hashed_keys().build().unwrap());
    keep_logs();
    let warnings = || {
        let logged = logged_by(thread::current().id());
        logged
            .into_iter()
            .filter(|(level, text)| *level == Level::Warn && text.contains("another kind of store"))
            .count()
    };
    create(&idle_for(named.clone(), HOUR), 1);
    index(&named).page(0, 10).unwrap();
    assert_eq!(warnings(), 0, "all keys are its own");
    create(&idle_for(hashed, HOUR), 1);
    for _ in 0..3 {
        assert_eq!(index(&named).page(0, 10).unwrap().len(), 2);
        assert_eq!(warnings(), 1);
    }
}
