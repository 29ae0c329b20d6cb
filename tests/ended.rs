//! Ends of sessions: announcements of all kinds of stores, the listener, and its watches.

mod support;

use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use log::Level;
use support::{
    Cluster, Monitor, PATIENCE, RedisServer, alone, eventually, in_child, keep_logs, logged_by, shared, unique,
};
use threaded_sessions::store::{Bind, Created, Ending, Found, Touch, Write};
use threaded_sessions::{
    Clock, EndReason, Ended, ErrorKind, Handle, Listener, MemorySessionStore, RedisSessionStore,
    RedisSessionStoreBuilder, RedisWarning, SessionId, SessionManager, SessionStore,
};

const HOUR: Duration = Duration::from_secs(3600);

/// The ends that a callback got.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<Ended>>>, Arc<OnceLock<ThreadId>>);

impl Received {
    fn listen(&self, store: impl SessionStore) -> Listener {
        let (received, by) = (self.0.clone(), self.1.clone());
        let sessions = SessionManager::<u32>::new(store);
        let listener = sessions
            .listener()
            .on_ended(move |ended| {
                by.get_or_init(|| thread::current().id());
                received.lock().unwrap().push(ended);
            })
            .start()
            .unwrap();
        assert!(eventually(PATIENCE, || listener.is_listening()), "the listener connects");
        listener
    }

    /// Waits for the end of a session and returns it.
    #[track_caller]
    fn of(&self, handle: Handle) -> Ended {
        let find = || self.0.lock().unwrap().iter().find(|ended| ended.handle == handle).copied();
        assert!(eventually(PATIENCE, || find().is_some()), "the end arrives");
        find().unwrap()
    }

    /// The thread of the first listener, after it has called the callback.
    fn thread(&self) -> ThreadId {
        *self.1.get().unwrap()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn builder(server: &RedisServer, name: &str) -> RedisSessionStoreBuilder {
    RedisSessionStore::builder().url(server.url()).prefix(unique(name)).deadline(PATIENCE / 2).announce_ends()
}

fn create_with(store: &dyn SessionStore, bind: Bind<'_>) -> SessionId {
    let id = store.fresh_id(None);
    let write = Write::new(b"value", HOUR).with_bind(bind);
    assert!(matches!(store.create(&id, write).unwrap(), Created::Stored(_)));
    id
}

fn create(store: &dyn SessionStore) -> SessionId {
    create_with(store, Bind::Keep)
}

fn create_near(store: &dyn SessionStore, near: &SessionId) -> SessionId {
    let id = store.fresh_id(Some(near));
    assert!(matches!(store.create(&id, Write::new(b"value", HOUR)).unwrap(), Created::Stored(_)));
    id
}

/// Ends a session in each way that any store has, and expects the reason.
fn announces_ends_of_any_store(store: &(impl SessionStore + Clone)) {
    let received = Received::default();
    let listener = received.listen(store.clone());
    let (deleted, old) = (create(store), create(store));
    assert!(store.delete(&deleted).unwrap());
    assert_eq!(
        received.of(store.handle(&deleted)),
        Ended::new(store.handle(&deleted), EndReason::Destroyed),
        "{store:?}"
    );
    let new = store.fresh_id(Some(&old));
    let _ = store.rotate(&old, &new, Write::new(b"renewed", HOUR), None).unwrap();
    let renewed = Ended::new(store.handle(&old), EndReason::Renewed).with_successor(store.handle(&new));
    assert_eq!(received.of(store.handle(&old)), renewed, "{store:?}");
    assert!(!store.delete(&deleted).unwrap());
    let walked: Vec<_> = store.walk().unwrap().flat_map(|page| page.unwrap().keys).collect();
    assert_eq!(store.end_keys(&walked).unwrap(), 1);
    assert_eq!(received.of(store.handle(&new)).reason, EndReason::Ended, "{store:?}");
    listener.stop();
    assert_eq!(received.count(), 3, "each end arrives once");
}

/// Ends a session in each way that a store with an index has, and expects the reason. `expire` lets all sessions expire.
fn announces_ends_of_index(store: &(impl SessionStore + Clone), expire: impl Fn(&SessionId)) {
    let (received, index) = (Received::default(), store.index().unwrap());
    let _listener = received.listen(store.clone());
    let reason_of = |id: &SessionId| received.of(store.handle(id)).reason;
    let bind = Bind::To { principal: "ada", cap: Some(1) };
    let first = create_with(store, bind);
    thread::sleep(Duration::from_millis(2));
    let second = create_with(store, bind);
    assert_eq!(reason_of(&first), EndReason::Cap, "{store:?}");
    // A renewal with the owner, whose arguments the script takes from other places.
    let third = store.fresh_id(Some(&second));
    let _ = store.rotate(&second, &third, Write::new(b"renewed", HOUR).with_bind(bind), None).unwrap();
    assert_eq!(received.of(store.handle(&second)).successor, Some(store.handle(&third)));
    assert_eq!(index.list_by_principal("ada").unwrap().len(), 1);
    assert_eq!(index.end("ada", Ending::All).unwrap(), 1);
    assert_eq!(reason_of(&third), EndReason::Ended, "{store:?}");
    let (stays, expires) = (create(store), create(store));
    expire(&expires);
    for partition in 0..index.partitions() {
        let _ = index.reap(partition, 10, false).unwrap();
    }
    assert_eq!(reason_of(&expires), EndReason::Expired, "{store:?}");
    assert_eq!(index.end_everybody().unwrap(), 1);
    assert_eq!(reason_of(&stays), EndReason::Ended, "{store:?}");
    assert_eq!(received.count(), 5, "each end arrives once");
}

/// Lets the session under this key expire, as its index sees it.
fn expire(server: &RedisServer, store: &RedisSessionStore, id: &SessionId) {
    let key = store.key(id);
    let index = format!("{}index", &key[..=key.rfind(':').unwrap()]);
    server.cmd(&["PEXPIRE", &key, "1000000"]);
    server.cmd(&["ZADD", &index, "1", &key]);
}

#[test]
fn every_kind_of_store_announces_ends() {
    let server = shared();
    let clock = Clock::manual();
    let memory = MemorySessionStore::new().with_clock(clock.clone());
    announces_ends_of_any_store(&memory);
    announces_ends_of_index(&memory, |id| {
        let _ = memory.read(id, Touch::Set(Duration::from_secs(1))).unwrap();
        clock.advance(Duration::from_secs(1));
    });
    announces_ends_of_any_store(&builder(server, "plain").build().unwrap());
    announces_ends_of_any_store(&builder(server, "parts").partitions(3).hashed_keys().build().unwrap());
    let resp3 = format!("{}?protocol=resp3", server.url());
    for store in [builder(server, "expiring").url(resp3).hashed_keys(), builder(server, "five").partitions(5)] {
        let store = store.expiring().build().unwrap();
        assert_eq!(store.check().unwrap(), []);
        announces_ends_of_any_store(&store);
        announces_ends_of_index(&store, |id| expire(server, &store, id));
    }
}

/// As the user of the guide, whose rights for a cluster are a few more.
#[test]
fn cluster_announces_ends_also_after_a_failover() {
    let cluster = Cluster::start();
    let rules = [&["ACL", "SETUSER", "shop"], &rights_of_the_guide(true)[..], &["+cluster|slots", "+asking"]].concat();
    cluster.nodes.iter().for_each(|node| drop(node.cmd(&rules)));
    let url = cluster.full_url().replace("//", "//shop:PASSWORD@");
    let builder = || RedisSessionStore::builder().url(&*url).deadline(PATIENCE / 2).announce_ends();
    gives_reasons(&builder().prefix("sessions:why").remember_ends(Duration::from_secs(300)).build().unwrap(), None);
    announces_ends_of_any_store(&builder().prefix("sessions:plain").build().unwrap());
    let store = builder().expiring().build().unwrap();
    assert_eq!(store.check().unwrap(), []);
    announces_ends_of_any_store(&store);
    announces_ends_of_index(&store, |id| expire(cluster.master_of(&store.key(id)), &store, id));

    let received = Received::default();
    let listener = received.listen(store.clone());
    let watched = create(&store);
    let watch = listener.watch(&watched);
    let master = cluster.master_of(&store.key(&watched));
    cluster.settle();
    cluster.replica_of(master).cmd(&["CLUSTER", "FAILOVER"]);
    let is_replica = || master.text(&["INFO", "replication"]).contains("role:slave");
    assert!(eventually(PATIENCE, is_replica), "the failover happens");
    assert!(eventually(PATIENCE, || store.delete(&watched).is_ok()));
    let ended = watch.wait(PATIENCE).expect("no end of a watched session stays unnoticed");
    assert!(matches!(ended.reason, EndReason::Destroyed | EndReason::Unknown), "{ended:?}");
    let arrives = || {
        let id = create_near(&store, &watched);
        store.delete(&id).unwrap();
        let handle = store.handle(&id);
        eventually(Duration::from_millis(200), || received.0.lock().unwrap().iter().any(|ended| ended.handle == handle))
    };
    assert!(eventually(PATIENCE, arrives), "announcements of the new master arrive");
}

#[test]
fn store_without_announcements_has_no_listener() {
    let store = RedisSessionStore::builder().url(shared().url()).prefix(unique("off")).build().unwrap();
    let error = SessionManager::<u32>::new(store).listener().start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(format!("{error:#}").contains("announce_ends()"), "{error:#}");
}

#[test]
fn end_is_one_command_with_announcements() {
    let server = RedisServer::start();
    let store = builder(&server, "wire").build().unwrap();
    store.delete(&create(&store)).unwrap();
    let id = create(&store);
    let monitor = Monitor::start(&server);
    assert!(store.delete(&id).unwrap());
    let commands = monitor.commands();
    assert_eq!(commands.len(), 1, "{commands:?}");
}

#[test]
fn watch_notices_unannounced_ends() {
    keep_logs();
    let server = RedisServer::start();
    let store = builder(&server, "sessions").build().unwrap();
    let received = Received::default();
    let listener = received.listen(store.clone());
    let (gone, lives, never) = (create(&store), create(&store), store.fresh_id(None));
    let (gone_watch, live_watch) = (listener.watch(&gone), listener.watch(&lives));
    // The session was over before the watch began.
    assert_eq!(listener.watch(&never).wait(PATIENCE), Some(Ended::new(store.handle(&never), EndReason::Unknown)));

    // No announcement is made of this end, and the listener loses its connection.
    server.cmd(&["DEL", &store.key(&gone)]);
    server.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let ended = gone_watch.wait(PATIENCE).expect("the session is read again");
    assert_eq!(ended, Ended::new(store.handle(&gone), EndReason::Unknown));
    assert_eq!(gone_watch.ended(), Some(ended));
    assert_eq!(live_watch.ended(), None);

    // A restart loses all sessions.
    server.restart();
    assert!(live_watch.wait(PATIENCE).is_some(), "the session is read again after the restart");
    assert!(eventually(PATIENCE, || listener.is_listening()));
    let id = create(&store);
    store.delete(&id).unwrap();
    assert_eq!(received.of(store.handle(&id)).reason, EndReason::Destroyed);
    assert_eq!(received.count(), 3, "each end arrives once, and none of a session that was over before");
    let logged = logged_by(received.thread());
    let begins = |(level, text): &(Level, String), expected: &str| {
        *level == Level::Warn
            && text.starts_with("listening for ended sessions failed, will retry: ")
            && expected == "failed"
            || *level == Level::Info && text == "listening for ended sessions works again" && expected == "works"
    };
    assert_eq!(logged.len(), 4, "{logged:?}");
    assert!(logged.iter().zip(["failed", "works", "failed", "works"]).all(|(line, expected)| begins(line, expected)));
}

#[test]
fn listener_notices_hanging_server() {
    let server = RedisServer::start();
    let store = builder(&server, "sessions").deadline(Duration::from_millis(300)).build().unwrap();
    let listener = Received::default().listen(store.clone());
    server.stop();
    assert!(eventually(PATIENCE, || !listener.is_listening()), "silence is noticed");
    server.resume();
    assert!(eventually(PATIENCE, || listener.is_listening()), "the listener reconnects");
}

#[test]
fn ten_thousand_ends_arrive() {
    let server = RedisServer::start();
    let store = builder(&server, "sessions").expiring().build().unwrap();
    let received: [Received; 4] = std::array::from_fn(|_| Received::default());
    let _listeners = received.each_ref().map(|received| received.listen(store.clone()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..2500).for_each(|_| _ = create(&store)));
        }
    });
    assert_eq!(store.index().unwrap().end_everybody().unwrap(), 10_000);
    for received in &received {
        assert!(eventually(PATIENCE, || received.count() >= 10_000), "{} arrive", received.count());
        let mut handles: Vec<Handle> = received.0.lock().unwrap().iter().map(|ended| ended.handle).collect();
        handles.sort_unstable();
        handles.dedup();
        assert_eq!(handles.len(), 10_000);
    }
}

#[test]
fn stopped_listener_calls_no_callback() {
    let store = MemorySessionStore::new();
    let received = Received::default();
    let listener = received.listen(store.clone());
    let watch = listener.watch(&create(&store));
    let start = Instant::now();
    listener.stop();
    assert!(start.elapsed() < PATIENCE / 4);
    store.delete(&create(&store)).unwrap();
    assert_eq!(watch.wait(Duration::from_millis(100)), None);
    assert_eq!(received.count(), 0);
}

#[test]
fn watch_in_child_only_waits() {
    let _alone = alone();
    let store = MemorySessionStore::new();
    let received = Received::default();
    let listener = received.listen(store.clone());
    let id = create(&store);
    let watch = listener.watch(&id);
    store.delete(&id).unwrap();
    // The watch gets the end before the callback does.
    let ended = received.of(store.handle(&id));
    let time = Duration::from_millis(30);
    let said = in_child(|| {
        let start = Instant::now();
        let reported = watch.wait(time);
        format!("reported: {}, waited: {}", reported.is_some(), start.elapsed() >= time)
    });
    assert_eq!(said.as_deref(), Some("reported: false, waited: true"));
    assert_eq!(watch.wait(PATIENCE), Some(ended));
}

#[test]
fn panicking_callback_is_called_again() {
    keep_logs();
    let store = MemorySessionStore::new();
    let sessions = SessionManager::<u32>::new(store.clone());
    let calls = Arc::new(Mutex::new(Vec::new()));
    let counted = calls.clone();
    let listener = sessions.listener().on_ended(move |_| {
        counted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(thread::current().id());
        panic!("as a callback may");
    });
    let listener = listener.start().unwrap();
    assert!(eventually(PATIENCE, || listener.is_listening()));
    for _ in 0..2 {
        store.delete(&create(&store)).unwrap();
    }
    let calls = || calls.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
    assert!(eventually(PATIENCE, || calls().len() == 2));
    listener.stop();
    let logged = logged_by(calls()[0]);
    let text = "the callback for ended sessions panicked; it will be called again, and this is not repeated";
    assert_eq!(logged, [(Level::Error, text.to_owned())]);
}

/// The commands of the guide that give a user the rights for announcements.
fn rights_of_the_guide(cluster: bool) -> Vec<&'static str> {
    let guide = include_str!("../docs/operating.md");
    let users = guide.split("\nACL SETUSER ").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let rules: Vec<&str> = users.flat_map(|rules| rules.split_whitespace().skip(1)).collect();
    let only = |rule: &&str| matches!(*rule, "+spublish" | "+ssubscribe");
    rules.into_iter().filter(|rule| cluster || !only(rule)).collect()
}

#[test]
fn user_of_the_guide_may_announce_and_listen() {
    let server = RedisServer::start();
    let rules = rights_of_the_guide(false);
    server.cmd(&[&["ACL", "SETUSER", "shop"], &rules[..]].concat());
    let url = server.url().replace("//", "//shop:PASSWORD@");
    let build =
        || RedisSessionStore::builder().url(&*url).announce_ends().deadline(PATIENCE).expiring().build().unwrap();
    let store = build();
    assert_eq!(store.check().unwrap(), []);
    announces_ends_of_any_store(&store);
    announces_ends_of_index(&store, |id| expire(&server, &store, id));

    // Without the right to the channel, the session ends as well, and the check warns.
    for missing in ["resetchannels", "-publish", "-subscribe"] {
        server.cmd(&[&["ACL", "SETUSER", "shop", "reset"], &rules[..], &[missing]].concat());
        let store = build();
        assert_eq!(store.check().unwrap(), [RedisWarning::Unannounced("sessions:ended".to_owned())], "{missing}");
        let (old, deleted) = (create(&store), create(&store));
        let new = store.fresh_id(Some(&old));
        let _ = store.rotate(&old, &new, Write::new(b"renewed", HOUR), None).unwrap();
        assert!(store.delete(&deleted).unwrap());
        let found = |id| store.read(id, Touch::No).unwrap();
        assert!(matches!(found(&old), Found::Renewed) && matches!(found(&new), Found::Live(_)), "{missing}");
        assert!(matches!(found(&deleted), Found::Absent), "{missing}");
        assert_eq!(store.index().unwrap().count().unwrap(), 1);
        store.index().unwrap().end_everybody().unwrap();
    }
}

/// Opens a session as a request with these ids does, and returns why there is none.
fn reason_for(store: &impl SessionStore, sessions: &SessionManager<u32>, ids: &[&SessionId]) -> Option<EndReason> {
    let name = "__Host-session";
    let cookies: Vec<String> = ids.iter().map(|id| format!("{name}={}", id.expose())).collect();
    let session = sessions.open(cookies.iter().map(String::as_str)).unwrap();
    assert_eq!(session.is_detached(), session.ended() == Some(EndReason::Renewed), "{store:?}");
    session.ended()
}

/// Stores a session of the manager, which is never renewed or changed later.
fn commit(sessions: &SessionManager<u32>, principal: Option<&str>) -> SessionId {
    let mut session = sessions.fresh();
    *session = 1;
    if let Some(principal) = principal {
        session.bind(principal, "");
    }
    *sessions.commit(session).unwrap().id().unwrap()
}

/// Ends sessions in each way that the store has, and expects the reason in the next request.
fn gives_reasons(store: &(impl SessionStore + Clone), expire: Option<&dyn Fn(&SessionId)>) {
    let builder = SessionManager::<u32>::builder(store.clone()).idle_timeout(HOUR);
    let builder = if store.index().is_some() { builder.max_per_principal(1) } else { builder };
    let sessions = builder.build().unwrap();
    let reason = |ids: &[&SessionId]| reason_for(store, &sessions, ids);
    let (live, never) = (commit(&sessions, None), store.fresh_id(None));
    assert_eq!((reason(&[]), reason(&[&live]), reason(&[&never])), (None, None, Some(EndReason::Unknown)), "{store:?}");
    let destroyed = commit(&sessions, None);
    store.delete(&destroyed).unwrap();
    assert_eq!(reason(&[&destroyed]), Some(EndReason::Destroyed), "{store:?}");
    // The reason of any of several ids is found, and a live one hides it.
    assert_eq!(reason(&[&never, &destroyed]), Some(EndReason::Destroyed), "{store:?}");
    assert_eq!(reason(&[&destroyed, &live]), None, "{store:?}");
    let renewed = commit(&sessions, None);
    let new = store.fresh_id(Some(&renewed));
    let _ = store.rotate(&renewed, &new, Write::new(b"renewed", HOUR), None).unwrap();
    assert_eq!(reason(&[&renewed]), Some(EndReason::Renewed), "{store:?}");
    assert_eq!(reason(&[&never, &destroyed, &renewed]), Some(EndReason::Renewed), "{store:?}");
    store.delete(&new).unwrap();
    let ended = commit(&sessions, None);
    let walked: Vec<_> = store.walk().unwrap().flat_map(|page| page.unwrap().keys).collect();
    assert_eq!(store.end_keys(&walked).unwrap(), 2, "{store:?}");
    assert_eq!(reason(&[&ended]), Some(EndReason::Ended), "{store:?}");

    let Some(index) = store.index() else { return };
    let capped = commit(&sessions, Some("ada"));
    thread::sleep(Duration::from_millis(2));
    let kept = commit(&sessions, Some("ada"));
    assert_eq!(reason(&[&capped]), Some(EndReason::Cap), "{store:?}");
    assert_eq!(sessions.end_all("ada").unwrap(), 1);
    assert_eq!(reason(&[&kept]), Some(EndReason::Ended), "{store:?}");
    let expired = commit(&sessions, None);
    expire.unwrap()(&expired);
    for ids in [&[&expired][..], &[&expired, &never], &[&never, &expired]] {
        assert_eq!(reason(ids), Some(EndReason::Expired), "before it is reaped: {store:?}");
    }
    (0..index.partitions()).for_each(|partition| drop(index.reap(partition, 10, false).unwrap()));
    assert_eq!(reason(&[&expired]), Some(EndReason::Expired), "after it is reaped: {store:?}");
    let (overdue, last) = (commit(&sessions, None), commit(&sessions, None));
    expire.unwrap()(&overdue);
    assert_eq!(sessions.end_everybody().unwrap(), 1);
    assert_eq!(reason(&[&last]), Some(EndReason::Ended), "{store:?}");
    for ids in [&[&overdue][..], &[&overdue, &last], &[&overdue, &never]] {
        assert_eq!(reason(ids), Some(EndReason::Expired), "it expired before the end of all: {store:?}");
    }
}

#[test]
fn requests_learn_why_their_session_is_over() {
    let (server, remembered) = (shared(), Duration::from_secs(300));
    let clock = Clock::manual();
    let memory = MemorySessionStore::new().with_clock(clock.clone()).remember_ends(remembered);
    gives_reasons(
        &memory,
        Some(&|id| {
            let _ = memory.read(id, Touch::Set(Duration::from_secs(1))).unwrap();
            clock.advance(Duration::from_secs(1));
        }),
    );
    // Without announcements: the two settings do not need each other.
    let builder = |name| {
        let builder = RedisSessionStore::builder().url(server.url()).prefix(unique(name)).deadline(PATIENCE / 2);
        builder.remember_ends(remembered)
    };
    gives_reasons(&builder("plain").build().unwrap(), None);
    gives_reasons(&builder("both").announce_ends().build().unwrap(), None);
    for builder in [builder("one").hashed_keys(), builder("five").partitions(5).announce_ends()] {
        let store = builder.expiring().build().unwrap();
        assert_eq!(store.check().unwrap(), []);
        let expire = |id: &SessionId| {
            expire(server, &store, id);
            // It expired a minute ago.
            server.cmd(&["PEXPIRE", &store.key(id), &(86_400_000 - 60_000).to_string()]);
        };
        gives_reasons(&store, Some(&expire));
    }
}

#[test]
fn reasons_are_forgotten_and_never_prolonged() {
    let server = RedisServer::start();
    let builder = || RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).expiring();
    for (seconds, allowed) in [(29, false), (30, true), (86_400, true), (86_401, false)] {
        let built = builder().remember_ends(Duration::from_secs(seconds)).build();
        assert_eq!(built.err().map(|error| error.kind()), (!allowed).then_some(ErrorKind::Misconfigured), "{seconds}");
    }
    let store = builder().remember_ends(Duration::from_secs(30)).build().unwrap();
    let (one, expired) = (create(&store), create(&store));
    store.delete(&one).unwrap();
    // It expired before the time for which ends are remembered.
    server.cmd(&["PEXPIRE", &store.key(&expired), "1000000"]);
    assert!(matches!(store.read(&expired, Touch::No).unwrap(), Found::Absent));
    (0..10).for_each(|_| _ = create(&store));
    store.index().unwrap().end_everybody().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*:ended").query(&mut server.connection()).unwrap();
    let reason = format!("{}:ended", store.key(&one));
    assert_eq!(keys.len(), 2, "the end of all leaves one key: {keys:?}");
    for key in ["sessions:ended", &reason] {
        let left: i64 = redis::cmd("PTTL").arg(key).query(&mut server.connection()).unwrap();
        assert!((1..=30_000).contains(&left), "{key}: {left}");
    }
    server.cmd(&["DEL", "sessions:ended", &reason]);
    assert!(matches!(store.read(&one, Touch::No).unwrap(), Found::Absent));
}

#[test]
fn reasons_cost_live_sessions_no_command() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE).expiring();
    let store = store.remember_ends(Duration::from_secs(60)).build().unwrap();
    let (live, dead) = (create(&store), create(&store));
    store.delete(&dead).unwrap();
    let monitor = Monitor::start(&server);
    let names =
        |monitor: &Monitor| monitor.commands().into_iter().map(|command| command[0].clone()).collect::<Vec<_>>();
    let _ = store.read(&live, Touch::No).unwrap();
    assert_eq!(names(&monitor), ["GET", "PTTL"]);
    let _ = store.read(&dead, Touch::No).unwrap();
    assert_eq!(names(&monitor), ["GET", "PTTL", "MGET", "PTTL"]);
}
