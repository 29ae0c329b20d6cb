//! Lists of the sessions of a principal: their order, their content, and the time of last use.

use std::error::Error as _;
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use threaded_sessions::store::{Bind, Touch, Verified, VerifyOptions, Write};
use threaded_sessions::{
    Clock, ErrorKind, MemorySessionStore, OnConflict, RedisSessionStore, Result, Session, SessionId, SessionManager,
    SessionStore,
};

use crate::support::{Monitor, PATIENCE, RedisServer, eventually, shared, unique};
use crate::{Fields, Room, ask, ask_for, in_each_room, in_each_room_with, tick};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn manager_names_counts_and_verifies_its_sessions() {
    in_each_room(|room| {
        let sessions = &room.sessions;
        let mut session = sessions.fresh();
        assert_eq!(session.handle(), None);
        session.bind("ada", "phone");
        let committed = sessions.commit(session).unwrap();
        let session = room.open(committed.id().unwrap());
        assert!(committed.handle().is_some() && committed.handle() == session.handle());
        assert_eq!(committed.handle(), Some(sessions.list("ada").unwrap()[0].handle));
        assert!(!sessions.list("ada").unwrap()[0].is(&sessions.fresh()));

        let index = sessions.store().index().unwrap();
        assert_eq!((sessions.count().unwrap(), index.count().unwrap()), (1, 1));
        assert_eq!(sessions.verify(VerifyOptions::default()).unwrap(), Verified::default());
        assert_eq!(sessions.health().failing_for, sessions.store().health().failing_for);
        assert_eq!(sessions.check().unwrap(), []);

        let unchanged = sessions.commit(sessions.fresh()).unwrap();
        assert_eq!(unchanged.handle(), None);
    });
}

#[test]
fn manager_without_index_cannot_count_or_verify() {
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("plain")).build().unwrap();
    let sessions = SessionManager::<Fields>::new(store);
    assert_eq!(sessions.count().unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(sessions.verify(VerifyOptions::default()).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(sessions.check().unwrap(), []);
}

#[test]
fn list_is_newest_first_and_safe_to_show() {
    in_each_room(|room| {
        let sessions = &room.sessions;
        let began = SystemTime::now();
        let mut ids: Vec<SessionId> = Vec::new();
        for label in ["phone", "laptop", "tablet"] {
            tick();
            ids.insert(0, room.login("ada", label));
        }
        room.login("bob", "phone");

        let listed = sessions.list("ada").unwrap();
        assert_eq!(room.labels("ada"), ["tablet", "laptop", "phone"]);
        for (shown, id) in listed.iter().zip(&ids) {
            let session = room.open(id);
            assert_eq!(Some(shown.handle), sessions.handle(&session));
            let is_same: Vec<bool> = listed.iter().map(|listed| listed.is(&session)).collect();
            assert_eq!(is_same, ids.iter().map(|other| other == id).collect::<Vec<_>>());
            assert_eq!(shown.created, session.created());
            assert_eq!(Some(&*shown.label), session.label());
            assert!((began - MINUTE..=SystemTime::now() + MINUTE).contains(&shown.last_used.unwrap()));
            assert!(shown.expires_in.unwrap() > 6 * DAY);
            // The text on a page contains no id that would work in a cookie.
            let text = format!("{shown:?} {}", shown.handle);
            assert!(!text.contains(&id.expose()));
            assert!(shown.handle.to_string().parse::<SessionId>().is_err());
        }
        // The handle comes back from a form.
        let handle = listed[0].handle.to_string().parse().unwrap();
        assert!(sessions.end("ada", handle).unwrap());
        assert_eq!(room.labels("ada"), ["laptop", "phone"]);
    });
}

#[test]
fn every_end_removes_session_from_list() {
    type End = fn(&Room, &SessionId);
    let endings: [(&str, End); 9] = [
        ("logout", |room, id| room.destroy(id)),
        ("logout after a renewal", |room, id| room.destroy(&room.renew(id))),
        ("idle", |room, id| room.expire(id)),
        ("idle, and reaped", |room, id| {
            room.expire(id);
            room.reap();
        }),
        ("ended by its handle", |room, id| {
            let handle = room.sessions.handle(&room.open(id)).unwrap();
            assert!(room.sessions.end("ada", handle).unwrap());
        }),
        ("ended by another session", |room, _| {
            let other = room.login("ada", "other");
            assert_eq!(room.sessions.end_others(&room.open(&other)).unwrap(), 1);
            room.destroy(&other);
        }),
        ("all ended", |room, _| assert_eq!(room.sessions.end_all("ada").unwrap(), 1)),
        ("the cap", |room, _| {
            let newer = [(); 2].map(|()| {
                tick();
                room.login("ada", "newer")
            });
            assert_eq!(room.labels("ada"), ["newer", "newer"]);
            newer.iter().for_each(|id| room.destroy(id));
        }),
        ("deleted from the store", |room, id| assert!(room.sessions.store().delete(id).unwrap())),
    ];
    in_each_room_with(
        |settings| settings.max_per_principal(2),
        |room| {
            for (how, end) in endings {
                let id = room.login("ada", "phone");
                assert_eq!(room.labels("ada"), ["phone"], "before: {how}");
                end(&room, &id);
                assert_eq!(room.labels("ada"), [""; 0], "{how}");
                assert!(!room.lives(&id), "{how}");
                // The reaper removes expired sessions. It may run a millisecond before the index has them as due.
                let reaped = || {
                    room.reap();
                    room.keys().is_empty()
                };
                assert!(eventually(PATIENCE, reaped), "{how}: {:?}", room.keys());
            }
        },
    );
}

#[test]
fn bind_moves_session_between_lists() {
    in_each_room(|room| {
        let id = room.login("ada", "phone");
        let change = |act: &dyn Fn(&mut Session<Fields>)| {
            let mut session = room.open(&id);
            act(&mut session);
            room.store(session);
            (room.labels("ada"), room.labels("bob"))
        };
        let lists = |ada: &[&str], bob: &[&str]| {
            let owned = |labels: &[&str]| labels.iter().map(|label| label.to_string()).collect::<Vec<_>>();
            (owned(ada), owned(bob))
        };
        assert_eq!(change(&|session| session.bind("ada", "old phone")), lists(&["old phone"], &[]));
        assert_eq!(change(&|session| session.bind("bob", "phone")), lists(&[], &["phone"]));
        assert_eq!(change(&|session| session.unbind()), lists(&[], &[]));
        assert!(room.lives(&id), "it has no owner, and lives");
        assert_eq!(room.sessions.end_all("bob").unwrap(), 0);
        assert_eq!(change(&|session| session.bind("ada", "phone again")), lists(&["phone again"], &[]));
        room.destroy(&id);
        assert_eq!(room.keys(), [""; 0]);
    });
}

#[test]
fn sessions_in_use_never_slip_out() {
    let policies = [OnConflict::Merge, OnConflict::LastWriteWins, OnConflict::Fail];
    in_each_room(|room| {
        let mut id = room.login("ada", "phone");
        for round in 0..12 {
            // As far from its deadline as it can be, while the index has the old deadline.
            let _ = room.sessions.store().read(&id, Touch::Set(MINUTE * 60)).unwrap();
            for index in room.keys().iter().filter(|key| key.ends_with("index")) {
                let overdue: Vec<String> = ask_for(&room, index, &["ZRANGE", index, "0", "-1"]);
                overdue.iter().for_each(|key| _ = ask_for::<u32>(&room, index, &["ZADD", index, "1", key]));
            }
            let mut session = room.open(&id);
            session.on_conflict(policies[round % 3]);
            session.insert(round.to_string(), 1);
            if round % 4 == 0 {
                session.renew();
            }
            room.reap();
            id = room.store(session);
            assert_eq!(room.labels("ada"), ["phone"], "round {round}");
        }
        assert_eq!(room.sessions.end_all("ada").unwrap(), 1);
        assert!(!room.lives(&id));
    });
}

#[test]
fn last_use_is_last_open_or_store() {
    let last_used = |sessions: &SessionManager<Fields>| sessions.list("ada").unwrap()[0].last_used;
    for (touch, remember) in [(true, false), (false, false), (true, true)] {
        let clock = Clock::manual();
        let settings = SessionManager::<Fields>::builder(MemorySessionStore::new().with_clock(clock.clone()))
            .clock(clock.clone())
            .idle_timeout(DAY)
            .remember_for(remember.then_some(DAY * 64))
            .lifetime(DAY * 365)
            .touch_on_read(touch);
        let sessions = settings.build().unwrap();
        let login = clock.now();
        let mut session = sessions.fresh();
        session.remember(remember);
        session.bind("ada", "phone");
        let id = *sessions.commit(session).unwrap().id().unwrap();
        clock.advance(MINUTE);
        assert_eq!(last_used(&sessions), Some(login));
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        let opened = if touch && !remember { clock.now() } else { login };
        assert_eq!(last_used(&sessions), Some(opened), "touch {touch}, remember {remember}");
        session.insert("a".into(), 1);
        let _ = sessions.commit(session).unwrap();
        assert_eq!(last_used(&sessions), Some(clock.now()), "touch {touch}, remember {remember}");
        assert_eq!(sessions.list("ada").unwrap()[0].created, login);
    }
}

#[test]
fn last_use_is_none_if_unknown() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let settings = || SessionManager::<Fields>::builder(store.clone()).clock(clock.clone()).touch_on_read(false);
    let forever = settings().idle_timeout(None).build().unwrap();
    let mut session = forever.fresh();
    session.bind("ada", "phone");
    let _ = forever.commit(session).unwrap();
    let listed = &forever.list("ada").unwrap()[0];
    assert_eq!((listed.last_used, listed.expires_in), (None, None));

    // Stored when its lifetime ends before the idle timeout would: the deadline does not reveal the last use.
    let sessions = settings().idle_timeout(DAY).lifetime(DAY + MINUTE * 2).build().unwrap();
    let mut session = sessions.fresh();
    session.bind("bob", "phone");
    let id = *sessions.commit(session).unwrap().id().unwrap();
    clock.advance(DAY - MINUTE);
    sessions.update(&id, |fields| fields.insert("a".into(), 1)).unwrap();
    clock.advance(MINUTE);
    let listed = &sessions.list("bob").unwrap()[0];
    assert_eq!((listed.last_used, listed.expires_in), (None, Some(MINUTE * 2)));
}

/// Two managers with different idle timeouts share a store: a server, and a tool that lists.
struct TwoManagers {
    clock: Clock,
    server: SessionManager<Fields>,
    tool: SessionManager<Fields>,
}

fn two_managers(server_idle: Duration, tool_idle: Duration) -> TwoManagers {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let manager = |idle| {
        SessionManager::<Fields>::builder(store.clone()).clock(clock.clone()).idle_timeout(idle).build().unwrap()
    };
    TwoManagers { server: manager(server_idle), tool: manager(tool_idle), clock }
}

impl TwoManagers {
    fn login(&self) -> SessionId {
        let mut session = self.server.fresh();
        session.bind("ada", "laptop");
        *self.server.commit(session).unwrap().id().unwrap()
    }

    fn last_used(&self) -> [Option<SystemTime>; 2] {
        [&self.server, &self.tool].map(|sessions| sessions.list("ada").unwrap()[0].last_used)
    }
}

#[test]
fn last_use_does_not_depend_on_the_reader() {
    for (server, tool) in [(10 * MINUTE, 7 * DAY), (7 * DAY, 10 * MINUTE)] {
        let managers = two_managers(server, tool);
        let id = managers.login();
        for _ in 0..3 {
            managers.clock.advance(MINUTE);
            let used = managers.clock.now();
            assert!(managers.server.open_id(&id).unwrap().is_some());
            managers.clock.advance(MINUTE);
            assert_eq!(managers.last_used(), [Some(used); 2]);
        }
    }
}

#[test]
fn touch_by_other_manager_makes_last_use_unknown() {
    for (server, tool) in [(10 * MINUTE, 7 * DAY), (7 * DAY, 10 * MINUTE)] {
        let managers = two_managers(server, tool);
        let id = managers.login();
        managers.clock.advance(MINUTE);
        let session = managers.tool.open_id(&id).unwrap().unwrap();
        managers.clock.advance(MINUTE);
        assert_eq!(managers.last_used(), [None; 2]);
        // The commit stores the idle timeout of this manager.
        let _ = managers.tool.commit(session).unwrap();
        let used = managers.clock.now();
        managers.clock.advance(MINUTE);
        assert_eq!(managers.last_used(), [Some(used); 2]);
    }
}

#[test]
fn last_use_is_unknown_where_lifetime_bounds_ttl() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let settings = || SessionManager::<Fields>::builder(store.clone()).clock(clock.clone());
    let server = settings().idle_timeout(7 * DAY).lifetime(DAY).build().unwrap();
    let tool = settings().idle_timeout(7 * DAY).build().unwrap();
    let mut session = server.fresh();
    session.bind("ada", "laptop");
    let _ = server.commit(session).unwrap();
    clock.advance(DAY / 2);
    for sessions in [&server, &tool] {
        let listed = &sessions.list("ada").unwrap()[0];
        assert_eq!((listed.last_used, listed.expires_in), (None, Some(DAY / 2)));
    }
}

#[test]
fn session_without_stored_timeout_is_listed() {
    let store = MemorySessionStore::new();
    let sessions = SessionManager::<Fields>::new(store.clone());
    let payload = br#"{"v":1,"rev":7,"created":0,"bound":{"principal":"ada","label":"laptop"},"data":{"a":1}}"#;
    let id = SessionId::random();
    let bind = Bind::To { principal: "ada", cap: None };
    let _ = store.create(&id, Write::new(payload, DAY).with_bind(bind)).unwrap();
    let listed = sessions.list("ada").unwrap();
    assert_eq!((&*listed[0].label, listed[0].last_used), ("laptop", None));
    assert_eq!(sessions.open_id(&id).unwrap().unwrap()["a"], 1);
}

#[test]
fn no_key_names_a_principal() {
    in_each_room(|room| {
        for name in ["zoe@example.org", "", "zoe:*{1}[z]", "index", "principals", "zoe\0\r\n", &"zoe".repeat(9_999)] {
            let id = room.login(name, "phone");
            assert_eq!(room.labels(name), ["phone"]);
            assert!(room.keys().iter().all(|key| key.len() < 120 && !key.contains("zoe")), "{:?}", room.keys());
            room.destroy(&room.renew(&id));
            assert_eq!(room.keys(), [""; 0]);
        }
    });
}

#[test]
fn owned_sessions_cost_no_extra_commands() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).expiring().build().unwrap();
    let sessions = SessionManager::<Fields>::builder(store).max_per_principal(3).build().unwrap();
    // The second time the server knows the scripts.
    for known in [false, true] {
        let monitor = Monitor::start(&server);
        let expect = |operation: &str, names: &[&str]| {
            let sent: Vec<String> = monitor.commands().into_iter().map(|command| command[0].clone()).collect();
            assert!(sent == names || !known, "{operation}: {sent:?}");
        };
        let commit = |session| *sessions.commit(session).unwrap().id().unwrap();
        let mut session = sessions.fresh();
        session.bind("ada", "phone");
        let id = commit(session);
        expect("a login without a session before", &["EVALSHA"]);
        let mut session = sessions.fresh();
        session.insert("a".into(), 1);
        let visitor = commit(session);
        let mut session = sessions.open_id(&visitor).unwrap().unwrap();
        monitor.commands();
        session.renew();
        session.bind("ada", "laptop");
        let laptop = commit(session);
        expect("a login", &["EVALSHA"]);
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        expect("opening", &["GET", "EVALSHA"]);
        session.insert("a".into(), 1);
        commit(session);
        expect("a change", &["EVALSHA"]);
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        monitor.commands();
        session.renew();
        let id = commit(session);
        expect("a renewal", &["EVALSHA"]);
        assert_eq!(sessions.list("ada").unwrap().len(), 2);
        expect("a list", &["EVALSHA"]);
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        monitor.commands();
        session.destroy();
        let _ = sessions.commit(session).unwrap();
        expect("a logout", &["EVALSHA"]);
        assert_eq!(sessions.end_all("ada").unwrap(), 1);
        expect("the end of all", &["EVALSHA"]);
        assert!(sessions.open_id(&laptop).unwrap().is_none());
    }
}

#[test]
fn store_without_index_rejects_principals() {
    let prefix = unique("plain");
    let builder = RedisSessionStore::builder().url(shared().url()).prefix(&prefix).deadline(PATIENCE);
    let sessions = SessionManager::<Fields>::new(builder.build().unwrap());
    let keys = || ask::<Vec<String>>(&["KEYS", &format!("{prefix}*")]);
    fn refused<R: Debug>(result: Result<R>) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let source = error.source().unwrap().to_string();
        assert!(source.contains("expiring"), "it says what would help: {source}");
    }
    let mut session = sessions.fresh();
    session.bind("ada", "phone");
    refused(sessions.end_others(&session));
    refused(sessions.commit(session));
    assert_eq!(keys(), [""; 0]);
    refused(sessions.list("ada"));
    refused(sessions.end_all("ada"));
    assert_eq!(sessions.end_everybody().unwrap(), 0, "the end of all needs no principals");
    refused(sessions.end("ada", sessions.store().handle(&SessionId::random())));

    let mut session = sessions.fresh();
    session.insert("a".into(), 1);
    let id = *sessions.commit(session).unwrap().id().unwrap();
    for renew in [false, true] {
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        session.insert("a".into(), 2);
        session.bind("ada", "phone");
        if renew {
            session.renew();
        }
        refused(sessions.update_in(&mut session, |fields| fields.insert("a".into(), 3)));
        assert_eq!(session["a"], 2);
        refused(sessions.commit(session));
        assert_eq!(sessions.open_id(&id).unwrap().unwrap()["a"], 1);
        assert_eq!(keys().len(), 1);
    }
}
