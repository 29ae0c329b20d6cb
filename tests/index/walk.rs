//! Walking, finding and ending all sessions of a Redis store, with and without an index.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::SystemTime;

use support::Monitor;
use threaded_sessions::step::{Encrypted, EncryptionKey};
use threaded_sessions::store::{Bind, Progress, VerifyOptions};
use threaded_sessions::{
    AllSessions, EndedByHandle, FoundByHandle, Handle, HandlePrefix, MemorySessionStore, MessagePack,
    RedisSessionStoreBuilder, SessionInfo, SessionManager, StepStore,
};

use super::*;

fn run_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Plain and expiring stores of each layout on one server. The prefix has characters that mean something to `SCAN`.
fn stores(server: &RedisServer) -> impl Iterator<Item = RedisSessionStore> + '_ {
    let layouts: [fn(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder; 6] = [
        |builder| builder,
        |builder| builder.hashed_keys(),
        |builder| builder.partitions(3),
        |builder| builder.expiring(),
        |builder| builder.expiring().hashed_keys(),
        |builder| builder.expiring().partitions(3).hashed_keys(),
    ];
    layouts.into_iter().map(move |layout| {
        server.cmd(&["FLUSHALL"]);
        let builder = RedisSessionStore::builder().url(server.url()).prefix("a[b]*c").deadline(PATIENCE);
        layout(builder).build().unwrap()
    })
}

fn walk(store: &dyn SessionStore) -> Vec<SessionInfo> {
    AllSessions::new(store).iter().map(Result::unwrap).collect()
}

/// Creates this many sessions, in one pipeline for each hundred.
fn fill(store: &RedisSessionStore, count: usize) -> Vec<Handle> {
    let create = |_| {
        let id = store.fresh_id(None);
        assert!(matches!(store.create(&id, Write::new(b"v", HOUR)).unwrap(), Created::Stored(_)));
        store.handle(&id)
    };
    (0..count).map(create).collect()
}

#[test]
fn walk_finds_each_of_many_sessions_once() {
    let server = RedisServer::start();
    for store in stores(&server) {
        let mut expected = fill(&store, 1100);
        // Keys of other programs, and of the store that are no sessions.
        let id = store.fresh_id(None);
        let near = store.key(&id);
        server.cmd(&["SET", &format!("{near}:renewed"), "1"]);
        server.cmd(&["SET", &format!("{near}x"), "1"]);
        server.cmd(&["SET", "axb]*c:other", "1"]);
        server.cmd(&["HSET", &near, "a", "1"]);
        let all = AllSessions::new(&store);
        let mut walk = all.iter();
        let mut found: Vec<Handle> = Vec::new();
        let mut progress = vec![walk.progress()];
        while let Some(session) = walk.next() {
            found.push(session.unwrap().handle);
            progress.push(walk.progress());
        }
        progress.push(walk.progress());
        expected.sort();
        found.sort();
        assert!(found == expected, "{store:?}: {} of {}", found.len(), expected.len());
        assert!(progress.is_sorted_by_key(|progress| progress.done), "{store:?}");
        progress.dedup();
        assert!(
            progress.len() > 3 && progress.last().is_some_and(|last| last.done == last.total && last.total >= 1100)
        );
        let counts = all.count_by_partition().unwrap();
        assert_eq!((counts.len() as u32, counts.iter().sum::<u64>()), (store.partition_count(), 1100), "{store:?}");
        assert_eq!(all.count().unwrap(), 1100);
    }
}

#[test]
fn walk_shows_owner_label_and_times() {
    let server = RedisServer::start();
    for store in stores(&server).filter(|store| store.index().is_some()) {
        let json = SessionManager::<u64>::builder(store.clone()).idle_timeout(HOUR).build().unwrap();
        let packed =
            SessionManager::<u64>::builder(store.clone()).codec(MessagePack::new()).idle_timeout(HOUR).build().unwrap();
        let before = SystemTime::now() - Duration::from_secs(2);
        let mut ids = Vec::new();
        for (manager, owner) in [(&json, "ada"), (&packed, "bob")] {
            let mut session = manager.open(None).unwrap();
            *session = 1;
            session.bind(owner, format!("phone of {owner}"));
            ids.push(*manager.commit(session).unwrap().id().unwrap());
        }
        let mut ownerless = json.open(None).unwrap();
        *ownerless = 3;
        ids.push(*json.commit(ownerless).unwrap().id().unwrap());

        let found: BTreeMap<Option<String>, SessionInfo> =
            walk(&store).into_iter().map(|session| (session.owner.clone(), session)).collect();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&None, &Some("ada".into()), &Some("bob".into())]);
        for owner in ["ada", "bob"] {
            let session = &found[&Some(owner.to_owned())];
            assert_eq!((session.label.clone(), &session.unreadable), (Some(format!("phone of {owner}")), &None));
            assert_eq!(session.owner_hash.as_ref().map(String::len), Some(32));
            assert!(session.created.unwrap() >= before);
            assert!(session.last_used.unwrap() >= before && session.last_used.unwrap() <= SystemTime::now());
            assert!(session.expires_in.unwrap().abs_diff(HOUR) < Duration::from_secs(600), "{session:?}");
            assert!(!format!("{session:?}").contains(&format!("\"{owner}\"")), "{session:?}");
        }
        let ownerless = &found[&None];
        assert_eq!((ownerless.owner_hash.clone(), ownerless.label.clone()), (None, None));
        assert!([ownerless.created, ownerless.last_used].iter().all(|time| time.unwrap() >= before));

        // After a touch with another idle timeout, the last use is unknown.
        for id in ids {
            assert!(matches!(store.read(&id, Touch::Set(HOUR * 2)).unwrap(), Found::Live(_)));
        }
        assert!(walk(&store).iter().all(|session| session.last_used.is_none()), "{store:?}");
    }
}

#[test]
fn walk_says_why_a_payload_is_unreadable() {
    let server = RedisServer::start();
    let store = stores(&server).find(|store| store.index().is_some()).unwrap();
    let key = || EncryptionKey::from_bytes([7; 32]);
    let encrypted = StepStore::builder(store.clone()).step(Encrypted::new(key())).build().unwrap();
    let manager = SessionManager::<u64>::new(encrypted);
    let mut session = manager.open(None).unwrap();
    *session = 1;
    session.bind("ada", "phone");
    let _ = manager.commit(session).unwrap();
    let bare = walk(&store).pop().unwrap();
    assert_eq!(bare.unreadable.as_ref().unwrap().to_string(), "the payload is encrypted");
    assert_eq!((bare.owner.clone(), bare.created, bare.last_used), (None, None, None));
    assert!(bare.owner_hash.is_some() && bare.expires_in.is_some());
    // With its steps, or with a manager, the store reads it.
    let all = manager.all();
    let decrypted = all.iter().next().unwrap().unwrap();
    assert_eq!((decrypted.owner.as_deref(), decrypted.unreadable), (Some("ada"), None));
    let json = serde_json::to_value(&bare).unwrap();
    assert_eq!(json["unreadable"], "the payload is encrypted");
    assert_eq!((&json["handle"], json.get("key")), (&bare.handle.to_string().into(), None));

    let other =
        StepStore::builder(store.clone()).step(Encrypted::new(EncryptionKey::from_bytes([8; 32]))).build().unwrap();
    let why = walk(&other).pop().unwrap().unreadable.unwrap().to_string();
    assert!(why.contains("with a key that is not here"), "{why}");
    for (payload, why) in [
        ("", "neither JSON nor MessagePack"),
        ("{\"v\":2,\"rev\":1}", "layout version 2"),
        ("{\"v\":1,\"rev\":1,\"data\":\"secret", "not the form of a session"),
        ("\u{84}", "neither JSON nor MessagePack"),
    ] {
        server.cmd(&["FLUSHALL"]);
        let id = store.fresh_id(None);
        assert!(matches!(store.create(&id, Write::new(payload.as_bytes(), HOUR)).unwrap(), Created::Stored(_)));
        let session = walk(&store).pop().unwrap();
        let text = format!("{session:?} {}", serde_json::to_string(&session).unwrap());
        assert!(text.contains(why) && !text.contains("secret"), "{payload}: {text}");
        assert!(!text.contains(&id.expose()));
    }
}

#[test]
fn walk_only_reads_page_by_page() {
    let server = RedisServer::start();
    for store in stores(&server) {
        fill(&store, 700);
        let monitor = Monitor::start(&server);
        let all = AllSessions::new(&store);
        let mut sessions = all.iter();
        sessions.next().unwrap().unwrap();
        let first = monitor.commands();
        assert!(first.len() < 700, "{} commands before the first session", first.len());
        let rest = sessions.count();
        assert_eq!(rest, 699);
        // By name, the number of arguments: for MGET, the number of keys.
        let names: BTreeMap<String, usize> =
            first.into_iter().chain(monitor.commands()).fold(BTreeMap::new(), |mut names, command| {
                *names.entry(command[0].clone()).or_default() += command.len() - 1;
                names
            });
        let reading = ["SCAN", "ZSCAN", "MGET", "PTTL", "HMGET", "DBSIZE", "ZCOUNT"];
        assert!(names.keys().all(|name| reading.contains(&&**name)), "{store:?}: {names:?}");
        assert_eq!((names["MGET"], names["PTTL"]), (700, 700), "{store:?}");
    }
}

#[test]
fn foreign_values_do_not_stop_a_walk() {
    let server = RedisServer::start();
    let store = stores(&server).find(|store| store.index().is_some()).unwrap();
    let [kept, clobbered] = [(); 2].map(|()| fill(&store, 1)[0]);
    let key = |handle: Handle| {
        let keys: Vec<String> = ask(&server, &["ZRANGE", "a[b]*c:index", "0", "-1"]);
        keys.into_iter().find(|key| Handle::of_key(key.as_bytes()) == handle).unwrap()
    };
    let foreign = key(clobbered);
    server.cmd(&["DEL", &foreign]);
    server.cmd(&["HSET", &foreign, "a", "1"]);
    server.cmd(&["SET", "a[b]*c:principals", "1"]);
    let found: Vec<Handle> = walk(&store).into_iter().map(|session| session.handle).collect();
    assert_eq!(found, [kept]);
    let all = AllSessions::new(&store);
    assert_eq!(all.end_by_handle(clobbered, run_on).unwrap(), EndedByHandle::AlreadyGone(clobbered));
    assert_eq!(ask::<String>(&server, &["TYPE", &foreign]), "hash");
}

#[test]
fn ambiguous_prefix_ends_no_session() {
    let store = MemorySessionStore::new();
    let mut seen = HashMap::<String, SessionId>::new();
    let (one, two) = loop {
        let id = SessionId::random();
        let prefix = store.handle(&id).to_string()[..8].to_owned();
        if let Some(other) = seen.insert(prefix, id) {
            break (id, other);
        }
    };
    for id in [&one, &two] {
        assert!(matches!(store.create(id, Write::new(b"v", HOUR)).unwrap(), Created::Stored(_)));
    }
    let handle = store.handle(&one);
    let prefix: HandlePrefix = handle.to_string()[..8].parse().unwrap();
    let all = AllSessions::new(&store);
    let EndedByHandle::Ambiguous(both) = all.end_by_handle(prefix.clone(), run_on).unwrap() else { panic!() };
    assert_eq!(both.len(), 2);
    assert_eq!(all.count().unwrap(), 2);
    // A dead session does not count.
    store.delete(&two).unwrap();
    assert!(matches!(all.find(prefix.clone(), run_on).unwrap(), FoundByHandle::One(found) if found.handle == handle));
    assert_eq!(all.end_by_handle(prefix, run_on).unwrap(), EndedByHandle::Ended(handle));
}

#[test]
fn interrupted_operation_reports_how_far_it_got() {
    let server = RedisServer::start();
    for store in stores(&server) {
        fill(&store, 1500);
        let all = AllSessions::new(&store);
        let ended = all.end_everybody(|_| ControlFlow::Break(())).unwrap();
        assert!(ended.interrupted && (1..1500).contains(&ended.ended), "{store:?}: {ended:?}");
        assert_eq!(all.count().unwrap(), 1500 - ended.ended);
        let Some(index) = store.index() else { continue };

        server.cmd(&["DEL", "a[b]*c:index"]);
        let stop =
            |_: &_, progress: Progress| if progress.done > 0 { ControlFlow::Break(()) } else { run_on(progress) };
        let verified = index.verify(VerifyOptions::new().on_progress(&stop)).unwrap();
        assert!(verified.interrupted, "{verified:?}");
        let whole = index.verify(VerifyOptions::new()).unwrap();
        assert!(!whole.interrupted);
        assert_eq!(all.count().unwrap(), 1500 - ended.ended, "a second call does the rest");
    }
}

#[test]
fn all_sessions_of_a_plain_store_end() {
    let server = RedisServer::start();
    for mut store in stores(&server).filter(|store| store.index().is_none()) {
        store.keep_companions(&["note".to_owned()]).unwrap();
        let note = [threaded_sessions::store::Companion::new("note", "n")];
        for _ in 0..600 {
            let write = Write::new(b"v", HOUR).with_companions(&note).with_bind(Bind::Keep);
            assert!(matches!(store.create(&store.fresh_id(None), write).unwrap(), Created::Stored(_)));
        }
        server.cmd(&["SET", "other", "1"]);
        let all = AllSessions::new(&store);
        let mut last = Progress::default();
        let ended = all.end_everybody(|progress| {
            last = progress;
            ControlFlow::Continue(())
        });
        assert_eq!((ended.unwrap().ended, last.done), (600, last.total));
        assert_eq!(ask::<Vec<String>>(&server, &["KEYS", "*"]), ["other"], "{store:?}");
    }
}

#[test]
fn plain_store_with_a_key_mapper_cannot_walk() {
    let server = RedisServer::start();
    let builder = RedisSessionStore::builder().url(server.url()).key_mapper(|id| id.expose());
    let error = AllSessions::new(&builder.build().unwrap()).iter().next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(format!("{error:#}").contains("use an expiring store"), "{error:#}");
}

/// A command of an operator must not keep Redis from its clients. Its time depends on the machine, but not how many keys it names
/// or asks for.
#[test]
fn commands_of_operators_are_bounded() {
    let server = RedisServer::start();
    server.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "1000000"]);
    for store in stores(&server) {
        for number in 0..700 {
            let owner = format!("user {}", number % 50);
            let bind = if store.index().is_some() { Bind::To { principal: &owner, cap: None } } else { Bind::Keep };
            let write = Write::new(b"v", HOUR).with_bind(bind);
            assert!(matches!(store.create(&store.fresh_id(None), write).unwrap(), Created::Stored(_)));
        }
        server.cmd(&["SLOWLOG", "RESET"]);
        let all = AllSessions::new(&store);
        assert_eq!((walk(&store).len(), all.count().unwrap()), (700, 700));
        if let Some(index) = store.index() {
            assert!(!index.verify(VerifyOptions::new()).unwrap().interrupted);
        }
        assert_eq!(all.end_everybody(run_on).unwrap().ended, 700);
        let entries: Vec<Vec<redis::Value>> = redis::from_redis_value(server.cmd(&["SLOWLOG", "GET", "-1"])).unwrap();
        assert!(entries.len() > 10);
        for mut entry in entries {
            let command: Vec<String> = redis::from_redis_value(entry.swap_remove(3)).unwrap();
            let more = command.last().and_then(|last| last.strip_prefix("... (")?.split(' ').next()?.parse().ok());
            let arguments = command.len() + more.unwrap_or(0);
            let count = command.iter().position(|word| word == "COUNT");
            let asked = count.map_or(0, |at| command[at + 1].parse().unwrap());
            assert!(
                arguments <= 500 && asked <= 250,
                "{store:?}: {arguments} arguments, COUNT {asked}: {}",
                command[0]
            );
        }
    }
}
