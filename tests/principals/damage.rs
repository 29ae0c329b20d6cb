//! What Redis lost by itself, has no room for, or others wrote where it does not belong.

use std::sync::mpsc;
use std::thread;

use threaded_sessions::store::{Bind, Write};
use threaded_sessions::{ErrorKind, Outcome, RedisSessionStore, Session, SessionId};

use crate::support::{PATIENCE, RedisServer};
use crate::{Fields, Room, ask, tick};

impl Room {
    fn key(&self, last: &str) -> String {
        format!("{}:{last}", self.prefix.as_ref().unwrap())
    }

    /// The one set of sessions of a principal that there is.
    fn set(&self) -> String {
        let [set] = &ask::<Vec<String>>(&["KEYS", &self.key("principal:*")])[..] else { panic!("one principal") };
        set.clone()
    }
}

#[test]
fn what_is_of_another_type_logs_nobody_out_and_fails_nothing_half_way() {
    type Name = fn(&Room) -> String;
    let names: [(&str, Name); 3] =
        [("hash", |room| room.key("principals")), ("set", Room::set), ("index", |room| room.key("index"))];
    for (what, name) in names {
        let room = Room::redis(|all| all, |settings| settings.max_per_principal(2));
        let before = room.login("ada", "before");
        let key = name(&room);
        let _: u32 = ask(&["DEL", &key]);
        let _: String = ask(&["SET", &key, "somebody else's"]);

        let mut id = room.renew(&before);
        for label in ["a", "b", "c"] {
            let mut session = room.open(&id);
            session.bind("ada", label);
            session.insert("a".into(), 1);
            room.store(session);
            id = room.renew(&id);
        }
        let (second, third) = (room.login("ada", "second"), room.login("ada", "third"));
        let mut session = room.open(&third);
        session.unbind();
        room.store(session);
        assert!(room.lives(&third), "{what}");
        room.expire(&second);
        let reaped = room.sessions.store().index().unwrap().reap(0, 10, true);
        assert_eq!(reaped.is_err(), what == "index", "{what}");
        if what == "set" {
            // They cannot be found, and nobody is told that all is well.
            assert_eq!(room.sessions.list("ada").unwrap_err().kind(), ErrorKind::WrongType);
            assert_eq!(room.sessions.end_all("ada").unwrap_err().kind(), ErrorKind::WrongType);
        } else {
            room.sessions.end_all("ada").unwrap();
            assert!(!room.lives(&id), "{what}");
        }
        room.destroy(&room.login("bob", "phone"));
        assert_eq!(ask::<String>(&["GET", &key]), "somebody else's", "{what}");
    }
}

/// A cap over several partitions is settled after the login is stored, and does not undo it.
#[test]
fn a_cap_that_cannot_be_settled_fails_no_login() {
    let room = Room::redis(|builder| builder.partitions(2), |settings| settings.max_per_principal(1));
    let (store, uncapped) = (room.sessions.store(), Bind::To { principal: "ada", cap: None });
    while ask::<Vec<String>>(&["KEYS", &room.key("*:principal:*")]).len() < 2 {
        let _ = store.create(&store.fresh_id(None), Write::new(b"v", None).with_bind(uncapped)).unwrap();
    }
    let sets: Vec<String> = ask(&["KEYS", &room.key("*:principal:*")]);
    let _: u32 = ask(&["DEL", &sets[0]]);
    let _: String = ask(&["SET", &sets[0], "x"]);
    (0..10).for_each(|_| assert!(room.lives(&room.login("ada", "phone"))));
}

#[test]
fn without_the_hash_of_owners_all_sessions_still_end_and_no_entry_stays() {
    let room = Room::redis(|all| all, |settings| settings);
    let ids = [(); 3].map(|()| room.login("ada", "phone"));
    let _: u32 = ask(&["DEL", &room.key("principals")]);
    // More than one script ends, and Redis dropped the data of all of them.
    let stale: Vec<String> = (0..1500).flat_map(|n| [n.to_string(), room.key(&format!("gone-{n}"))]).collect();
    let set = room.set();
    let add: Vec<&str> = ["ZADD", &set].into_iter().chain(stale.iter().map(String::as_str)).collect();
    let _: u32 = ask(&add);
    room.login("ada", "laptop");
    assert!(ask::<u32>(&["ZCARD", &set]) < 1504, "a login drops what it finds dead");
    assert_eq!(room.labels("ada").len(), 4);

    let (sessions, (answer, answered)) = (room.sessions.clone(), mpsc::channel());
    thread::spawn(move || answer.send(sessions.end_all("ada").unwrap()));
    assert_eq!(answered.recv_timeout(PATIENCE).expect("it comes to an end"), 4);
    assert!(!ids.iter().any(|id| room.lives(id)));
    assert_eq!(room.keys(), [""; 0]);
}

#[test]
fn the_end_of_everybody_believes_the_sessions_and_not_their_index() {
    const MANY: u32 = 450;
    let room = Room::redis(|all| all, |settings| settings);
    let index = room.key("index");
    let [lags, usual, overdue, evicted] = [(); 4].map(|()| room.login("ada", "phone"));
    let _: u32 = ask(&["ZADD", &index, "1", &room.key(&lags.expose())]);
    // One millisecond less than the data outlives a session.
    let _: u32 = ask(&["PEXPIRE", &room.key(&overdue.expose()), "86399999"]);
    let _: u32 = ask(&["DEL", &room.key(&evicted.expose())]);
    let foreign = room.key(&SessionId::random().expose());
    let _: u32 = ask(&["HSET", &foreign, "somebody", "else's"]);
    let _: u32 = ask(&["ZADD", &index, "inf", &foreign]);
    // More than one script looks at, that stay where they are: as the index has it they are not due.
    for n in 0..MANY {
        let key = room.key(&format!("overdue-{n}"));
        let _: () = ask(&["SET", &key, "payload", "PX", "86399999"]);
        let _: u32 = ask(&["ZADD", &index, "inf", &key]);
    }

    let (sessions, (answer, answered)) = (room.sessions.clone(), mpsc::channel());
    thread::spawn(move || answer.send(sessions.end_everybody().unwrap()));
    assert_eq!(answered.recv_timeout(PATIENCE).expect("it comes to an end"), 2);
    assert!(![&lags, &usual, &overdue, &evicted].into_iter().any(|id| room.lives(id)));
    assert_eq!(room.labels("ada"), [""; 0]);
    assert_eq!(ask::<String>(&["HGET", &foreign, "somebody"]), "else's", "it is no session");
    assert_eq!(ask::<u32>(&["ZCARD", &index]), MANY + 1, "what expired waits for the reaper");
    let _: u32 = ask(&["ZADD", &index, "1", &room.key(&overdue.expose())]);
    let reaped = room.sessions.store().index().unwrap().reap(0, 10, true).unwrap();
    assert_eq!(reaped.sessions.len(), 1, "which tells of it");
    assert_eq!(reaped.sessions[0].handle, room.sessions.store().handle(&overdue));

    // Those that the index does not have are found after a look at all keys.
    let lost = room.login("ada", "phone");
    let _: u32 = ask(&["DEL", &index]);
    let _: String = ask(&["SET", &index, "somebody else's"]);
    assert_eq!(room.sessions.end_everybody().unwrap_err().kind(), ErrorKind::WrongType);
    assert!(room.lives(&lost));
    room.sessions.store().index().unwrap().verify().unwrap();
    assert_eq!(room.sessions.end_everybody().unwrap(), 1);
    assert!(!room.lives(&lost));
}

#[test]
fn without_his_set_a_principal_has_his_session_again_when_it_is_renewed() {
    let room = Room::redis(|all| all, |settings| settings);
    let id = room.login("ada", "phone");
    let _: u32 = ask(&["DEL", &room.set()]);
    let id = room.renew(&id);
    assert_eq!(room.labels("ada"), ["phone"]);
    let _: u32 = ask(&["DEL", &room.set()]);
    room.destroy(&id);
    assert_eq!(room.keys(), [""; 0]);
}

#[test]
fn sessions_that_redis_dropped_count_no_more_and_leave_nothing() {
    let room = Room::redis(|all| all, |settings| settings.max_per_principal(2));
    let dropped = ["a", "b", "c"].map(|label| {
        tick();
        let id = room.login("ada", label);
        let _: u32 = ask(&["DEL", &room.key(&id.expose())]);
        id
    });
    assert_eq!(room.labels("ada"), [""; 0]);
    assert!(!dropped.iter().any(|id| room.lives(id)));
    let lives = room.login("ada", "d");
    tick();
    room.login("ada", "e");
    assert_eq!(room.labels("ada"), ["e", "d"]);
    // The logins found out; what was left of the sessions is gone.
    assert_eq!(ask::<u32>(&["HLEN", &room.key("principals")]), 2);
    assert_eq!(ask::<u32>(&["ZCARD", &room.key("index")]), 2);

    // Without a login the reaper does, when they would have been due.
    let _: u32 = ask(&["DEL", &room.key(&lives.expose())]);
    let _: u32 = ask(&["ZADD", &room.key("index"), "1", &room.key(&lives.expose())]);
    room.reap();
    assert_eq!(ask::<u32>(&["HLEN", &room.key("principals")]), 1);
    assert_eq!(room.sessions.end_all("ada").unwrap(), 1);
    assert_eq!(room.keys(), [""; 0]);
}

#[test]
fn verify_forgets_who_had_what_is_no_session_any_more() {
    let room = Room::redis(|all| all, |settings| settings);
    let index = room.sessions.store().index().unwrap();
    let gone = [(); 20].map(|()| room.login("ada", "gone"));
    for id in &gone {
        let _: u32 = ask(&["DEL", &room.key(&id.expose())]);
    }
    // No reaper will come by for them.
    let _: u32 = ask(&["DEL", &room.key("index")]);
    room.login("ada", "phone");
    index.verify().unwrap();
    assert_eq!(ask::<u32>(&["HLEN", &room.key("principals")]), 1);
    assert_eq!(ask::<u32>(&["ZCARD", &room.set()]), 1);

    let _: u32 = ask(&["DEL", &room.key("principals")]);
    let _: String = ask(&["SET", &room.key("principals"), "somebody else's"]);
    assert_eq!(index.verify().unwrap().displaced, 1);
    let [aside] = &ask::<Vec<String>>(&["KEYS", &room.key("principals:clobbered:*")])[..] else { panic!("it is kept") };
    assert_eq!(ask::<String>(&["GET", aside]), "somebody else's");
    room.login("ada", "laptop");
    assert_eq!(ask::<u32>(&["HLEN", &room.key("principals")]), 1);
    assert_eq!(room.sessions.end_all("ada").unwrap(), 2);
    assert_eq!(room.keys(), [aside.as_str()]);
}

#[test]
fn a_full_redis_refuses_whole_changes_and_ends_sessions_all_the_same() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).expiring().build().unwrap();
    let room = Room::new(store, |settings| settings.max_per_principal(3));
    let full = |full| drop(server.cmd(&["CONFIG", "SET", "maxmemory", if full { "1" } else { "0" }]));
    let everything = || {
        let keys: Vec<String> = redis::from_redis_value(server.cmd(&["KEYS", "*"])).unwrap();
        let dump = |key: String| (server.cmd(&["DUMP", &key]), key);
        let mut all: Vec<_> = keys.into_iter().map(dump).map(|(value, key)| format!("{key} {value:?}")).collect();
        all.sort();
        all
    };
    let ids = ["a", "b", "c"].map(|label| {
        tick();
        room.login("ada", label)
    });
    let before = everything();
    full(true);
    type Change = fn(&mut Session<Fields>);
    let changes: [(&str, Change); 4] = [
        ("rebinding", |session| session.bind("bob", "phone")),
        ("unbinding", |session| session.unbind()),
        ("renewing", |session| session.renew()),
        ("renewing and rebinding", |session| {
            session.renew();
            session.bind("bob", "phone");
        }),
    ];
    for (operation, change) in changes {
        let mut session = room.open(&ids[0]);
        change(&mut session);
        assert_eq!(room.sessions.commit(session).unwrap_err().kind(), ErrorKind::OutOfMemory, "{operation}");
    }
    let mut login = room.sessions.fresh();
    login.bind("ada", "one too many");
    assert_eq!(room.sessions.commit(login).unwrap_err().kind(), ErrorKind::OutOfMemory);
    assert_eq!(everything(), before);
    assert_eq!(room.labels("ada"), ["c", "b", "a"]);

    let mut session = room.open(&ids[0]);
    session.destroy();
    assert_eq!(room.sessions.commit(session).unwrap().outcome(), Outcome::Destroyed);
    assert_eq!(room.labels("ada"), ["c", "b"]);
    assert_eq!(room.sessions.end_others(&room.open(&ids[1])).unwrap(), 1);
    assert_eq!(room.sessions.end_all("ada").unwrap(), 1);
    assert_eq!(everything(), [""; 0]);
    full(false);
}
