//! Damage to the data of owners: keys that Redis lost or has no room for, and foreign keys in their place.

use std::sync::mpsc;
use std::thread;

use sha2::{Digest, Sha256};
use threaded_sessions::store::{Bind, Verified, VerifyOptions, Write};
use threaded_sessions::{ErrorKind, Handle, Outcome, RedisSessionStore, Session, SessionId};

use crate::support::{PATIENCE, RedisServer};
use crate::{Fields, Room, ask, ask_for, tick};

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
fn keys_of_wrong_type_end_no_session() {
    type Name = fn(&Room) -> String;
    let names: [(&str, Name); 3] =
        [("hash", |room| room.key("principals")), ("set", Room::set), ("index", |room| room.key("index"))];
    for (what, name) in names {
        let room = Room::redis(|all| all, |settings| settings.max_per_principal(2));
        let before = room.login("ada", "before");
        let key = name(&room);
        let _: u32 = ask(&["DEL", &key]);
        let _: String = ask(&["SET", &key, "foreign"]);

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
            // The sessions cannot be found, and the calls fail instead of reporting success.
            assert_eq!(room.sessions.list("ada").unwrap_err().kind(), ErrorKind::WrongType);
            assert_eq!(room.sessions.end_all("ada").unwrap_err().kind(), ErrorKind::WrongType);
        } else {
            room.sessions.end_all("ada").unwrap();
            assert!(!room.lives(&id), "{what}");
        }
        room.destroy(&room.login("bob", "phone"));
        assert_eq!(ask::<String>(&["GET", &key]), "foreign", "{what}");
    }
}

/// A cap over several partitions is settled after the login is stored, and does not undo it.
#[test]
fn failing_cap_fails_no_login() {
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
fn sessions_without_owners_hash_still_all_end() {
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
fn end_of_all_follows_sessions_without_an_index() {
    const MANY: u32 = 450;
    let room = Room::redis(|all| all, |settings| settings);
    let index = room.key("index");
    let [lags, usual, overdue, evicted] = [(); 4].map(|()| room.login("ada", "phone"));
    let _: u32 = ask(&["ZADD", &index, "1", &room.key(&lags.expose())]);
    // One millisecond less than the data outlives a session.
    let _: u32 = ask(&["PEXPIRE", &room.key(&overdue.expose()), "86399999"]);
    let _: u32 = ask(&["DEL", &room.key(&evicted.expose())]);
    let foreign = room.key(&SessionId::random().expose());
    let _: u32 = ask(&["HSET", &foreign, "foreign", "value"]);
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
    assert_eq!(ask::<String>(&["HGET", &foreign, "foreign"]), "value", "it is no session");
    assert_eq!(ask::<u32>(&["ZCARD", &index]), MANY + 1, "what expired waits for the reaper");
    let _: u32 = ask(&["ZADD", &index, "1", &room.key(&overdue.expose())]);
    let reaped = room.sessions.store().index().unwrap().reap(0, 10, true).unwrap();
    assert_eq!(reaped.sessions.len(), 1, "the reaper reports it");
    assert_eq!(reaped.sessions[0].handle, room.sessions.store().handle(&overdue));

    // Those that the index does not have are found after a look at all keys.
    let lost = room.login("ada", "phone");
    let _: u32 = ask(&["DEL", &index]);
    let _: String = ask(&["SET", &index, "foreign"]);
    assert_eq!(room.sessions.end_everybody().unwrap_err().kind(), ErrorKind::WrongType);
    assert!(room.lives(&lost));
    room.sessions.store().index().unwrap().verify(Default::default()).unwrap();
    assert_eq!(room.sessions.end_everybody().unwrap(), 1);
    assert!(!room.lives(&lost));
}

#[test]
fn rotation_restores_a_lost_principal_set() {
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
fn evicted_sessions_do_not_count_and_leave_nothing() {
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
fn verify_drops_owners_of_lost_sessions() {
    let room = Room::redis(|all| all, |settings| settings);
    let index = room.sessions.store().index().unwrap();
    let gone = [(); 20].map(|()| room.login("ada", "gone"));
    for id in &gone {
        let _: u32 = ask(&["DEL", &room.key(&id.expose())]);
    }
    // No reaper removes these sessions.
    let _: u32 = ask(&["DEL", &room.key("index")]);
    room.login("ada", "phone");
    index.verify(Default::default()).unwrap();
    assert_eq!(ask::<u32>(&["HLEN", &room.key("principals")]), 1);
    assert_eq!(ask::<u32>(&["ZCARD", &room.set()]), 1);

    let _: u32 = ask(&["DEL", &room.key("principals")]);
    let _: String = ask(&["SET", &room.key("principals"), "foreign"]);
    assert_eq!(index.verify(Default::default()).unwrap().displaced, 1);
    let [aside] = &ask::<Vec<String>>(&["KEYS", &room.key("principals:clobbered:*")])[..] else { panic!("it is kept") };
    assert_eq!(ask::<String>(&["GET", aside]), "foreign");
    assert_eq!(ask::<u32>(&["HLEN", &room.key("principals")]), 1, "the set restores the hash");
    room.login("ada", "laptop");
    assert_eq!(room.sessions.end_all("ada").unwrap(), 2);
    assert_eq!(room.keys(), [aside.as_str()]);
}

#[test]
fn full_redis_rejects_changes_but_ends_sessions() {
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

/// Runs a test in rooms whose keys have no hash tags, have hash tags, and are on several nodes.
fn in_redis_rooms(test: impl Fn(Room)) {
    test(Room::redis(|all| all, |settings| settings.max_per_principal(3)));
    test(Room::redis(|builder| builder.partitions(4).hashed_keys(), |settings| settings.max_per_principal(3)));
    test(Room::cluster(|settings| settings.max_per_principal(3)));
}

impl Room {
    fn run<V: redis::FromRedisValue>(&self, command: &[&str]) -> V {
        ask_for(self, command[1], command)
    }

    /// The keys with this in their names.
    fn keys_with(&self, part: &str) -> Vec<String> {
        self.keys().into_iter().filter(|key| key.contains(part)).collect()
    }

    fn delete_keys_with(&self, part: &str) {
        for key in self.keys_with(part) {
            let _: u32 = self.run(&["DEL", &key]);
        }
    }

    fn verify(&self) -> Verified {
        self.sessions.store().index().unwrap().verify(VerifyOptions::new()).unwrap()
    }

    fn verify_dry(&self) -> Verified {
        let dry_run = VerifyOptions::new().dry_run(true);
        self.sessions.store().index().unwrap().verify(dry_run).unwrap()
    }

    /// All keys with their values and deadlines.
    fn dump(&self) -> Vec<String> {
        let mut dump: Vec<String> = self
            .keys()
            .iter()
            .map(|key| {
                let mut value: Vec<Vec<u8>> = match &*self.run::<String>(&["TYPE", key]) {
                    "hash" => self.run(&["HGETALL", key]),
                    "zset" => self.run(&["ZRANGE", key, "0", "-1", "WITHSCORES"]),
                    _ => vec![self.run(&["DUMP", key])],
                };
                // The order of the fields of a hash follows from when they were set.
                value.sort();
                format!("{key} {} {value:?}", self.run::<i64>(&["PEXPIRETIME", key]))
            })
            .collect();
        dump.sort();
        dump
    }

    fn bind(&self, id: &SessionId, principal: &str) {
        let mut session = self.open(id);
        session.bind(principal, format!("{principal}'s"));
        self.store(session);
    }

    /// Puts a session into the set of another principal, as of the given time.
    fn put_into_set_of(&self, principal: &str, id: &SessionId, since: &str) {
        let handle = self.sessions.store().handle(id);
        let key = self.keys().into_iter().find(|key| Handle::of_key(key.as_bytes()) == handle).expect("it is stored");
        let (base, _) = key.rsplit_once(':').unwrap();
        let set = format!("{base}:principal:{}", owner(principal));
        let _: u32 = self.run(&["ZADD", &set, since, &key]);
    }
}

/// A principal's name in keys.
fn owner(principal: &str) -> String {
    hex::encode(&Sha256::digest(principal)[..16])
}

#[test]
fn rebound_session_leaves_old_owner_despite_lost_hash() {
    in_redis_rooms(|room| {
        let id = room.login("ada", "phone");
        room.delete_keys_with(":principals");
        room.bind(&id, "bob");
        assert_eq!(room.labels("ada"), [""; 0]);
        assert_eq!(room.labels("bob"), ["bob's"]);
        assert_eq!(room.sessions.end_all("ada").unwrap(), 0);
        let handle = room.sessions.store().handle(&id);
        assert!(!room.sessions.end("ada", handle).unwrap());
        assert!(room.lives(&id));
        assert_eq!(room.labels("bob"), ["bob's"]);
        room.destroy(&id);
        assert_eq!(room.keys(), [""; 0]);
    });
}

#[test]
fn session_in_wrong_set_stays_with_owner() {
    type End = fn(&Room, &SessionId, &SessionId);
    let ends: [End; 5] = [
        |room, _, _| assert_eq!(room.sessions.end_all("ada").unwrap(), 1),
        |room, hers, _| assert_eq!(room.sessions.end_others(&room.open(hers)).unwrap(), 0),
        |room, _, bobs| assert!(!room.sessions.end("ada", room.sessions.store().handle(bobs)).unwrap()),
        |room, _, _| (0..3).for_each(|n| _ = room.login("ada", &n.to_string())),
        |room, _, _| assert_eq!(room.verify().owned_dropped, 1),
    ];
    for (number, end) in ends.iter().enumerate() {
        in_redis_rooms(|room| {
            let (hers, bobs) = (room.login("ada", "phone"), room.login("bob", "laptop"));
            for since in ["1", "9000000000000"] {
                room.put_into_set_of("ada", &bobs, since);
                assert_eq!(room.labels("ada"), ["phone"], "{since}");
            }
            end(&room, &hers, &bobs);
            assert!(room.lives(&bobs), "{number}");
            assert_eq!(room.labels("bob"), ["laptop"], "{number}");
            assert!(!room.labels("ada").contains(&"laptop".to_owned()), "{number}");
        });
    }
}

#[test]
fn verify_gives_doubly_owned_session_to_later_owner() {
    for (adas, bobs) in [("1", "2"), ("2", "1")] {
        in_redis_rooms(|room| {
            let id = room.login("carol", "phone");
            room.delete_keys_with(":principal");
            room.put_into_set_of("ada", &id, adas);
            room.put_into_set_of("bob", &id, bobs);
            assert_eq!(room.verify_dry(), Verified::default().with(1, 1));
            assert_eq!(room.verify(), Verified::default().with(1, 1));
            assert_eq!(room.verify(), Verified::default());
            let [winner, loser] = if adas > bobs { ["ada", "bob"] } else { ["bob", "ada"] };
            assert_eq!(room.sessions.end_all(loser).unwrap(), 0);
            assert_eq!(room.labels(winner), ["phone"]);
            assert_eq!(room.sessions.end_all(winner).unwrap(), 1);
            assert_eq!(room.keys(), [""; 0]);
        });
    }
}

/// The repairs of owners that `verify` reports.
trait With {
    fn with(self, owners_restored: u64, owned_dropped: u64) -> Self;
}

impl With for Verified {
    fn with(mut self, owners_restored: u64, owned_dropped: u64) -> Self {
        self.owners_restored = owners_restored;
        self.owned_dropped = owned_dropped;
        self
    }
}

#[test]
fn verify_restores_lost_hash_and_lost_sets() {
    in_redis_rooms(|room| {
        let ids = ["a", "b", "c"].map(|label| {
            tick();
            room.login("ada", label)
        });
        let bobs = room.login("bob", "laptop");
        let before = room.dump();

        room.delete_keys_with(":principals");
        assert_eq!(room.verify_dry().owners_restored, 4);
        assert_eq!(room.verify().owners_restored, 4);
        assert_eq!(room.dump(), before);

        room.delete_keys_with(":principal:");
        assert_eq!(room.labels("ada"), [""; 0]);
        assert_eq!(room.verify_dry().owned_restored, 4);
        assert_eq!(room.verify().owned_restored, 4);
        assert_eq!(room.labels("ada").len(), 3);
        assert_eq!(room.sessions.end_others(&room.open(&ids[0])).unwrap(), 2);
        assert_eq!([&ids[0], &ids[1], &ids[2], &bobs].map(|id| room.lives(id)), [true, false, false, true]);
        assert_eq!(room.verify(), Verified::default());
    });
}

#[test]
fn verify_displaces_sets_of_another_type() {
    in_redis_rooms(|room| {
        let (hers, bobs) = (room.login("ada", "phone"), room.login("bob", "laptop"));
        let sets = room.keys_with(":principal:");
        for set in &sets {
            let _: u32 = room.run(&["DEL", set]);
            let _: u32 = room.run(&["RPUSH", set, "another program's"]);
        }
        let (dry, before) = (room.verify_dry(), room.dump());
        assert_eq!((dry.displaced, dry.owned_restored), (2, 2));
        assert_eq!(room.dump(), before);
        assert_eq!(room.verify(), dry);
        assert_eq!((room.labels("ada"), room.labels("bob")), (vec!["phone".to_owned()], vec!["laptop".to_owned()]));
        let aside = room.keys_with(":clobbered:");
        assert_eq!(aside.len(), 2);
        for key in &aside {
            assert_eq!(room.run::<Vec<String>>(&["LRANGE", key, "0", "-1"]), ["another program's"]);
        }
        let again = room.verify();
        assert_eq!(again.kept_aside, 2);
        assert_eq!((again.displaced, again.owned_restored), (0, 0));
        assert!(room.lives(&hers) && room.lives(&bobs));
    });
}

#[test]
fn renewal_restores_lost_hash_and_set() {
    in_redis_rooms(|room| {
        let id = room.login("ada", "phone");
        room.delete_keys_with(":principal");
        assert_eq!(room.verify(), Verified::default());
        assert_eq!(room.labels("ada"), [""; 0]);
        let id = room.renew(&id);
        assert_eq!(room.labels("ada"), ["phone"]);
        assert!(room.lives(&id));
        assert_eq!(room.sessions.end_all("ada").unwrap(), 1);
        assert_eq!(room.keys(), [""; 0]);
    });
}

#[test]
fn renewal_after_lost_hash_keeps_login_age() {
    let room = Room::redis(|all| all, |settings| settings);
    let oldest = room.login("ada", "oldest");
    tick();
    room.login("ada", "newest");
    room.delete_keys_with(":principals");
    room.renew(&oldest);
    assert_eq!(room.labels("ada"), ["newest", "oldest"]);
    assert_eq!(ask::<u32>(&["ZCARD", &room.set()]), 2, "the old id left the set");
}

#[test]
fn verify_removes_all_traces_of_dropped_sessions() {
    for lost in ["", ":principals", ":principal:", ":index"] {
        in_redis_rooms(|room| {
            for n in 0..30 {
                room.login(&n.to_string(), "phone");
            }
            let structures = |key: &String| key.ends_with(":index") || key.contains(":principal");
            for key in room.keys().iter().filter(|key| !structures(key)) {
                let _: u32 = room.run(&["DEL", key]);
            }
            if !lost.is_empty() {
                room.delete_keys_with(lost);
            }
            let dry = room.verify_dry();
            assert_eq!(room.verify(), dry, "without {lost}");
            assert_eq!(dry.dropped, if lost == ":index" { 0 } else { 30 });
            assert_eq!(dry.owners_dropped, if lost == ":principals" { 0 } else { 30 });
            assert_eq!(dry.owned_dropped, if lost == ":principal:" { 0 } else { 30 });
            assert_eq!(room.keys(), [""; 0], "without {lost}");
        });
    }
}

#[test]
fn verify_drops_entries_outside_the_partition() {
    in_redis_rooms(|room| {
        room.login("ada", "phone");
        let tagged = room.keys()[0].contains('{');
        for key in room.keys().iter().filter(|key| key.contains(":index") || key.contains(":principal")) {
            for foreign in ["", "elsewhere", "sessions:{9999}:x"] {
                if key.ends_with(":principals") {
                    let _: u32 = room.run(&["HSET", key, foreign, &owner("ada")]);
                } else {
                    let _: u32 = room.run(&["ZADD", key, "1", foreign]);
                }
            }
        }
        let dry = room.verify_dry();
        assert_eq!(room.verify(), dry);
        if tagged {
            assert_eq!((dry.dropped, dry.owners_dropped, dry.owned_dropped), (3, 3, 3));
        }
        assert_eq!(room.verify(), Verified::default());
        assert_eq!(room.labels("ada"), ["phone"]);
    });
}
