//! Changes of all sessions of a principal from outside, alone and against requests that renew, save, begin and end sessions.
//!
//! The closure of the change runs between the read and the write of a session, so a test that does something in it forces the race.

use std::collections::HashSet;
use std::env;
use std::io::{self, BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use threaded_sessions::store::Touch;
use threaded_sessions::{
    ErrorKind, MemorySessionStore, OnConflict, Outcome, RedisSessionStore, SessionId, SessionManager, UpdatedAll,
};

use crate::support::{PATIENCE, eventually, shared, unique};
use crate::{Fields, Room, in_each_room, tick};

fn add_one(fields: &mut Fields) {
    *fields.entry("n".into()).or_default() += 1;
}

fn changed(updated: UpdatedAll) -> (u64, u64) {
    (updated.changed, updated.unreadable)
}

/// How often each session of a principal was changed, the newest first.
fn counts(room: &Room, principal: &str) -> Vec<Option<u32>> {
    room.sessions.list_with_data(principal).unwrap().iter().map(|(_, fields)| fields.get("n").copied()).collect()
}

#[test]
fn update_all_changes_each_session_once() {
    in_each_room(|room| {
        for label in ["phone", "laptop", "tablet"] {
            tick();
            room.login("ada", label);
        }
        room.login("bob", "phone");
        assert_eq!(changed(room.sessions.update_all("ada", add_one).unwrap()), (3, 0));
        assert_eq!(changed(room.sessions.update_all("ada", add_one).unwrap()), (3, 0));
        assert_eq!(changed(room.sessions.update_all("eve", add_one).unwrap()), (0, 0));
        assert_eq!(counts(&room, "ada"), [Some(2); 3]);
        assert_eq!(counts(&room, "bob"), [None]);
        let listed = room.sessions.list_with_data("ada").unwrap();
        let labels: Vec<&str> = listed.iter().map(|(session, _)| &*session.label).collect();
        assert_eq!(labels, ["tablet", "laptop", "phone"]);
    });
}

#[test]
fn update_all_keeps_deadline() {
    in_each_room(|room| {
        let id = room.login("ada", "phone");
        let left = || room.sessions.list("ada").unwrap()[0].expires_in.unwrap();
        for ttl in [60, 3600].map(Duration::from_secs) {
            let _ = room.sessions.store().read(&id, Touch::Set(ttl)).unwrap();
            assert_eq!(changed(room.sessions.update_all("ada", add_one).unwrap()), (1, 0));
            assert!((ttl - PATIENCE..=ttl).contains(&left()), "{:?} of {ttl:?} are left", left());
        }
        assert_eq!(room.sessions.end_all("ada").unwrap(), 1);
        assert_eq!(room.keys(), [""; 0]);
    });
}

#[test]
fn updates_and_ends_have_no_limit() {
    for room in [Room::new(MemorySessionStore::new(), |all| all), Room::redis(|all| all, |all| all)] {
        let ids: Vec<SessionId> = (0..1020).map(|_| room.login("ada", "phone")).collect();
        assert_eq!(changed(room.sessions.update_all("ada", add_one).unwrap()), (1020, 0));
        // A list has the newest 1000.
        assert!(ids[..20].iter().all(|id| room.open(id)["n"] == 1));
        let oldest = room.sessions.store().handle(&ids[0]);
        assert!(room.sessions.end("ada", oldest).unwrap() && !room.lives(&ids[0]));
        assert!(!room.sessions.end("ada", oldest).unwrap());
    }
}

/// Runs `update_all` with an act of another request between the read and the write of the first session.
fn with_act(room: &Room, act: impl FnOnce()) -> (u64, u64) {
    let mut act = Some(act);
    let change = |fields: &mut Fields| {
        if let Some(act) = act.take() {
            act();
        }
        add_one(fields);
    };
    changed(room.sessions.update_all("ada", change).unwrap())
}

#[test]
fn update_all_follows_a_renewal() {
    in_each_room(|room| {
        let id = room.login("ada", "phone");
        let mut new = id;
        assert_eq!(with_act(&room, || new = room.renew(&room.renew(&id))), (1, 0));
        assert_eq!(room.open(&new)["n"], 1);
        assert!(!room.lives(&id));
    });
}

#[test]
fn update_all_changes_renewed_session_once() {
    in_each_room(|room| {
        let mut first = room.login("ada", "phone");
        tick();
        let second = room.login("ada", "laptop");
        let mut calls = 0_u32;
        let change = |fields: &mut Fields| {
            calls += 1;
            // The first session is missing twice, so the walk begins again before it. Then the second one has the change already,
            // and another id.
            if calls == 1 || calls == 3 {
                first = room.renew(&first);
            }
            if calls == 3 {
                room.renew(&second);
            }
            add_one(fields);
        };
        assert_eq!(changed(room.sessions.update_all("ada", change).unwrap()), (2, 0));
        assert_eq!(counts(&room, "ada"), [Some(1); 2]);
    });
}

#[test]
fn update_all_keeps_changes_of_a_request() {
    in_each_room(|room| {
        let id = room.login("ada", "phone");
        let mut session = room.open(&id);
        session.insert("late".into(), 1);
        let save = || {
            let mut session = room.open(&id);
            session.insert("early".into(), 1);
            room.store(session);
        };
        assert_eq!(with_act(&room, save), (1, 0));
        room.store(session);
        let fields = room.open(&id);
        assert_eq!((fields["n"], fields["early"], fields["late"]), (1, 1, 1));
    });
}

#[test]
fn update_all_revives_no_session() {
    type End = fn(&Room, &SessionId);
    let ends: [End; 4] = [
        |room, id| room.destroy(id),
        |room, id| room.expire(id),
        |room, _| assert_eq!(room.sessions.end_all("ada").unwrap(), 1),
        |room, id| room.destroy(&room.renew(id)),
    ];
    in_each_room(|room| {
        for end in ends {
            let id = room.login("ada", "phone");
            assert_eq!(with_act(&room, || end(&room, &id)), (0, 0));
            assert!(!room.lives(&id));
            assert_eq!(room.labels("ada"), [""; 0]);
        }
    });
}

#[test]
fn update_all_spares_sessions_of_other_principals() {
    in_each_room(|room| {
        for principal in [Some("bob"), None] {
            let id = room.login("ada", "phone");
            let rebind = || {
                let mut session = room.open(&id);
                match principal {
                    Some(principal) => session.bind(principal, "phone"),
                    None => session.unbind(),
                }
                room.store(session);
            };
            assert_eq!(with_act(&room, rebind), (0, 0));
            assert_eq!(room.open(&id).get("n"), None);
        }
    });
}

#[test]
fn update_all_changes_logins_of_its_time() {
    let partitioned = Room::redis(|builder| builder.partitions(4), |all| all);
    for (room, expected) in [
        (Room::new(MemorySessionStore::new(), |all| all), Some(1)),
        (Room::redis(|all| all, |all| all), Some(1)),
        // In another partition the session may or may not have the change.
        (partitioned, None),
    ] {
        let first = room.login("ada", "phone");
        let mut login = None;
        let updated = with_act(&room, || login = Some(room.login("ada", "laptop")));
        assert!(expected.is_none_or(|_| updated == (2, 0)), "{updated:?}");
        assert_eq!(room.open(&first)["n"], 1);
        let count = room.open(&login.unwrap()).get("n").copied();
        assert!(expected.is_none() || count == expected, "{count:?}");
    }
}

#[test]
fn update_all_reaches_sessions_renewed_in_parallel() {
    const SESSIONS: usize = 4;
    const RENEWALS: usize = 25;
    in_each_room(|room| {
        let ids: Vec<SessionId> = (0..SESSIONS).map(|_| room.login("ada", "phone")).collect();
        let (ended, start) = (room.login("ada", "ended"), &Barrier::new(SESSIONS + 2));
        let (room, ended) = (&room, &ended);
        let renew_all = |id: SessionId| {
            start.wait();
            // A renewal whose first command is before the change takes the change over.
            (0..RENEWALS).fold(id, |id, _| room.renew(&id))
        };
        let (updated, newest) = thread::scope(|scope| {
            let renewing: Vec<_> = ids.iter().map(|id| scope.spawn(|| renew_all(*id))).collect();
            scope.spawn(|| {
                start.wait();
                room.sessions.store().delete(ended).unwrap();
            });
            start.wait();
            let updated = room.sessions.update_all("ada", add_one).unwrap();
            (updated, renewing.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>())
        });
        assert!(updated.changed as usize == SESSIONS || updated.changed as usize == SESSIONS + 1, "{updated:?}");
        assert_eq!(newest.iter().map(|id| room.open(id)["n"]).collect::<Vec<_>>(), [1; SESSIONS]);
        assert_eq!(room.sessions.list("ada").unwrap().len(), SESSIONS);
        assert!(!room.lives(ended));
    });
}

#[test]
fn update_all_counts_unreadable_sessions() {
    let store = MemorySessionStore::new();
    let room = Room::new(store.clone(), |all| all);
    let others = SessionManager::<String>::new(store);
    let mut session = others.fresh();
    session.bind("ada", "another type");
    let id = *others.commit(session).unwrap().id().unwrap();
    room.login("ada", "phone");
    assert_eq!(changed(room.sessions.update_all("ada", add_one).unwrap()), (1, 1));
    assert_eq!(counts(&room, "ada"), [Some(1)]);
    assert_eq!(*others.open_id(&id).unwrap().unwrap(), "");
}

#[test]
fn failure_of_one_session_spares_the_others() {
    let room = Room::new(MemorySessionStore::new(), |settings| settings.max_payload(500));
    let large = room.login("ada", "large");
    tick();
    let small = room.login("ada", "small");
    let mut calls = 0_u32;
    let change = |fields: &mut Fields| {
        calls += 1;
        if calls == 1 {
            fields.insert("x".repeat(500), 1);
        }
        add_one(fields);
    };
    assert_eq!(room.sessions.update_all("ada", change).unwrap_err().kind(), ErrorKind::Payload);
    assert_eq!((room.open(&large).get("n"), room.open(&small)["n"]), (None, 1));
}

#[test]
fn update_all_without_index_is_unsupported() {
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("plain")).build().unwrap();
    let sessions = SessionManager::<Fields>::new(store);
    assert_eq!(sessions.update_all("ada", add_one).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(sessions.list_with_data("ada").unwrap_err().kind(), ErrorKind::Unsupported);
}

#[cfg(feature = "encryption")]
#[test]
fn update_all_passes_through_steps() {
    use threaded_sessions::StepStore;
    use threaded_sessions::step::{Encrypted, EncryptionKey, WrittenAt};

    let builder = || {
        let builder = RedisSessionStore::builder().url(shared().url()).prefix(unique("principals")).deadline(PATIENCE);
        builder.hashed_keys().expiring().build().unwrap()
    };
    let steps = |key| StepStore::builder(builder()).step(WrittenAt::new()).step(Encrypted::new(key)).build().unwrap();
    let room = Room::new(steps(EncryptionKey::from_bytes([7; 32])), |all| all);
    let id = room.login("ada", "phone");
    let mut new = id;
    assert_eq!(with_act(&room, || new = room.renew(&id)), (1, 0));
    let written = WrittenAt::of(room.sessions.store(), &new).unwrap().unwrap();
    tick();
    assert_eq!(changed(room.sessions.update_all("ada", add_one).unwrap()), (1, 0));
    assert_eq!(room.open(&new)["n"], 2);
    assert!(WrittenAt::of(room.sessions.store(), &new).unwrap().unwrap() > written);
}

#[test]
fn last_write_wins_overwrites_update_all() {
    in_each_room(|room| {
        let id = room.login("ada", "phone");
        let mut session = room.open(&id);
        session.on_conflict(OnConflict::LastWriteWins);
        session.insert("late".into(), 1);
        assert_eq!(changed(room.sessions.update_all("ada", add_one).unwrap()), (1, 0));
        let outcome = room.sessions.commit(session).unwrap().outcome();
        assert_eq!((outcome, room.open(&id).get("n").copied()), (Outcome::Stored, None));
        let handles: HashSet<_> = room.sessions.list("ada").unwrap().iter().map(|session| session.handle).collect();
        assert_eq!(handles.len(), 1);
    });
}

/// The variable by which this binary runs as the other process, with the address and the prefix of the store.
const OTHER: &str = "UPDATE_ALL_OTHER";
const RENEWED: usize = 4;

fn shared_sessions(url: &str, prefix: &str) -> SessionManager<Fields> {
    let store = RedisSessionStore::builder().url(url).prefix(prefix).deadline(PATIENCE).expiring().build().unwrap();
    SessionManager::new(store)
}

/// Renews, signs in, ends and lets expire in turn until the standard input is closed, and prints what must be there then.
fn disturb(orders: &str) {
    let (url, prefix) = orders.split_once(' ').unwrap();
    let room = Room { sessions: shared_sessions(url, prefix), prefix: None, in_cluster: false };
    let mut ids: Vec<SessionId> = (0..RENEWED).map(|_| room.login("ada", "phone")).collect();
    let (mut begun, mut over, closed) = (Vec::new(), Vec::new(), &AtomicBool::new(false));
    println!("\nready");
    thread::scope(|scope| {
        scope.spawn(|| {
            io::stdin().lines().count();
            closed.store(true, Ordering::Relaxed);
        });
        while !closed.load(Ordering::Relaxed) {
            ids.iter_mut().for_each(|id| *id = room.renew(id));
            let (destroyed, expired) = (room.login("ada", "destroyed"), room.login("ada", "expired"));
            room.destroy(&destroyed);
            let _ = room.sessions.store().read(&expired, Touch::Set(Duration::from_millis(1))).unwrap();
            over.extend([destroyed, expired]);
            begun.push(room.login("ada", "laptop"));
        }
    });
    let print = |name: &str, ids: &[SessionId]| ids.iter().for_each(|id| println!("\n{name} {}", id.expose()));
    print("renewed", &ids);
    print("begun", &begun);
    print("over", &over);
}

#[test]
fn update_all_meets_requests_of_another_process() {
    if let Ok(orders) = env::var(OTHER) {
        return disturb(&orders);
    }
    let prefix = unique("processes");
    let sessions = shared_sessions(&shared().url(), &prefix);
    let mut other = Command::new(env::current_exe().unwrap())
        .args(["--exact", "update_all::update_all_meets_requests_of_another_process", "--nocapture"])
        .env(OTHER, format!("{} {prefix}", shared().url()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "ready"), "the other process starts");
    let started = Instant::now();
    let mut calls = 0_u32;
    while calls < 20 || started.elapsed() < Duration::from_millis(500) {
        let updated = sessions.update_all("ada", add_one).unwrap();
        // The sessions that were there at the beginning of the call are changed under the ids that they have.
        assert!(updated.changed as usize >= RENEWED && updated.unreadable == 0, "{updated:?}");
        calls += 1;
    }
    drop(other.stdin.take());
    let lines: Vec<String> = lines.collect();
    assert!(other.wait().unwrap().success());
    let ids = |name: &str| -> Vec<SessionId> {
        lines.iter().filter_map(|line| line.strip_prefix(name)).map(|id| id.trim().parse().unwrap()).collect()
    };
    let count = |id: &SessionId| sessions.open_id(id).unwrap().map(|fields| fields.get("n").copied().unwrap_or(0));
    let (renewed, begun, over) = (ids("renewed"), ids("begun"), ids("over"));
    assert!(begun.len() > 1 && over.len() > 2, "{lines:?}");
    let counts: Vec<_> = renewed.iter().map(count).collect();
    assert_eq!(counts, [Some(calls); RENEWED], "each call changed each session once");
    let begun: Vec<u32> = begun.iter().map(|id| count(id).expect("it is live")).collect();
    assert!(begun.is_sorted_by(|earlier, later| earlier >= later) && begun[0] <= calls, "{begun:?}");
    assert!(eventually(PATIENCE, || over.iter().all(|id| count(id).is_none())), "no session is back");
}
