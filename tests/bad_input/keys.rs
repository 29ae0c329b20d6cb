//! Keys that another program wrote, and key mappers or prefixes that collide: no operation changes foreign data.

use std::error::Error as _;
use std::time::Duration;

use threaded_sessions::store::{Created, SessionStore, Touch, Write};
use threaded_sessions::{Error, ErrorKind, RedisSessionStore, RedisSessionStoreBuilder, SessionId, SessionManager};

use super::support::{RedisServer, shared, texts, unique};
use super::{HOUR, payload, plant, redis};

fn both(settings: impl Fn(RedisSessionStoreBuilder) -> RedisSessionStoreBuilder) -> [RedisSessionStore; 2] {
    [settings(redis()), settings(redis()).expiring()].map(|builder| builder.build().unwrap())
}

/// Runs every operation that uses the key of `id`. Returns the name and the error of each.
fn every_operation(store: &RedisSessionStore, id: &SessionId) -> Vec<(&'static str, Option<Error>)> {
    let write = || Write::new(b"mine", HOUR);
    let (own, new) = (plant(store, b"own"), store.fresh_id(Some(id)));
    let version = threaded_sessions::store::Version::new(*b"expected");
    let outcomes = vec![
        ("read", store.read(id, Touch::No).err()),
        ("read, set", store.read(id, Touch::Set(HOUR)).err()),
        ("read, extend", store.read(id, Touch::Extend(HOUR)).err()),
        ("read, set if due", store.read(id, Touch::SetIfDue { ttl: HOUR, enough: HOUR / 2 }).err()),
        ("peek", store.read(id, Touch::Peek).err()),
        ("create", store.create(id, write()).err()),
        ("save", store.save(id, write(), None).err()),
        ("save if unchanged", store.save(id, write(), Some(&version)).err()),
        ("rotate from it", store.rotate(id, &new, write(), None).err()),
        ("rotate from it if unchanged", store.rotate(id, &new, write(), Some(&version)).err()),
        ("rotate onto it", store.rotate(&own, id, write(), None).err()),
        ("rotate onto it if unchanged", store.rotate(&own, id, write(), Some(&version)).err()),
    ];
    assert_eq!(payload(store, &own).as_deref(), Some(&b"own"[..]), "the session that was to move is where it was");
    assert_eq!(payload(store, &new), None);
    outcomes
}

#[test]
fn key_of_wrong_type_is_rejected_and_kept() {
    let foreign: [&[&str]; 5] = [
        &["RPUSH", "KEY", "a", "b"],
        &["HSET", "KEY", "field", "value"],
        &["SADD", "KEY", "member"],
        &["ZADD", "KEY", "1", "member"],
        &["XADD", "KEY", "1-1", "field", "value"],
    ];
    for store in both(|builder| builder).into_iter().chain(both(|builder| builder.hashed_keys())) {
        for command in foreign {
            let id = store.fresh_id(None);
            let key = store.key(&id);
            let command: Vec<&str> = command.iter().map(|&part| if part == "KEY" { &*key } else { part }).collect();
            shared().cmd(&command);
            let state = || [&["DUMP", &*key], &["PTTL", &*key]].map(|command| shared().cmd(command));
            let before = state();

            for (operation, error) in every_operation(&store, &id) {
                let kind = error.map(|error| error.kind());
                assert_eq!(kind, Some(ErrorKind::WrongType), "{operation} of a {} in {store:?}", command[0]);
            }
            let sessions = SessionManager::<u32>::new(store.clone());
            let opened = sessions.open([&*format!("__Host-session={}", id.expose())]);
            assert_eq!(opened.expect_err("never a fresh session").kind(), ErrorKind::WrongType);
            assert_eq!(state(), before, "{} in {store:?}", command[0]);

            // A plain store deletes without looking.
            match store.delete(&id) {
                Ok(deleted) => assert!(deleted && store.index().is_none() && state() != before),
                Err(error) => {
                    assert_eq!((error.kind(), store.index().is_some()), (ErrorKind::WrongType, true));
                    assert_eq!(state(), before);
                }
            }
        }
    }
}

#[test]
fn touch_keeps_ttl_of_foreign_key() {
    const DAY: u64 = 86_400_000;
    for store in both(|builder| builder) {
        for lives in [DAY / 2, 3 * DAY, 30 * DAY] {
            let id = store.fresh_id(None);
            let key = store.key(&id);
            shared().cmd(&["RPUSH", &key, "a", "b"]);
            shared().cmd(&["PEXPIRE", &key, &lives.to_string()]);
            let content = || shared().cmd(&["DUMP", &key]);
            let before = content();
            let (ttl, enough) = (Duration::from_millis(7 * DAY), Duration::from_millis(2 * DAY));
            let if_due = [Touch::SetIfDue { ttl, enough }, Touch::ExtendIfDue { ttl, enough }];
            for touch in [Touch::Set(ttl), Touch::Extend(ttl)].into_iter().chain(if_due) {
                assert_eq!(store.read(&id, touch).unwrap_err().kind(), ErrorKind::WrongType, "{touch:?}");
                assert_eq!(content(), before);
                let left: u64 = redis::from_redis_value(shared().cmd(&["PTTL", &key])).unwrap();
                assert!(left > lives - DAY / 4, "{left} of {lives} after {touch:?} in {store:?}");
            }
        }
    }
}

#[test]
fn prefix_with_braces_works_with_one_partition() {
    for store in both(|builder| builder.prefix(format!("{{{}}}", unique("braces")))) {
        let sessions = SessionManager::<u32>::new(store);
        let mut session = sessions.fresh();
        *session = 1;
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let mut session = sessions.open_id(&id).unwrap().unwrap();
        session.renew();
        let id = *sessions.commit(session).unwrap().id().unwrap();
        assert_eq!(sessions.open_id(&id).unwrap().map(|session| *session), Some(1));
    }
    let refused = redis().prefix("{app}").partitions(2).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Misconfigured);
}

/// The reason why something cannot work as it is configured.
#[track_caller]
fn misconfigured(error: &Error) -> String {
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    error.source().expect("it says why").to_string()
}

#[test]
fn colliding_key_mapper_loses_no_session() {
    let one_key = |builder: RedisSessionStoreBuilder| {
        let key = unique("one-key");
        builder.key_mapper(move |_| key.clone())
    };
    for store in both(one_key) {
        let sessions = SessionManager::<u32>::new(store.clone());
        let commit_new = || {
            let mut session = sessions.fresh();
            *session = 1;
            sessions.commit(session)
        };
        let first = *commit_new().unwrap().id().unwrap();
        let before = payload(&store, &first);

        let second = commit_new().unwrap_err();
        assert!(misconfigured(&second).contains("key mapper"), "{second:?}");
        let mut renewed = sessions.open_id(&first).unwrap().unwrap();
        renewed.renew();
        *renewed = 2;
        let error = sessions.commit(renewed).unwrap_err();
        assert!(misconfigured(&error).contains("key mapper"), "{error:?}");
        assert_eq!(payload(&store, &first), before);
    }
}

#[test]
fn renewal_onto_taken_key_keeps_both_sessions() {
    let [mine, other, new] = [(); 3].map(|()| SessionId::random());
    let prefix = unique("two-ids");
    let mapped = |builder: RedisSessionStoreBuilder| {
        let prefix = unique(&prefix);
        builder.key_mapper(move |id| format!("{prefix}:{}", if *id == new { other } else { *id }.expose()))
    };
    for store in both(mapped) {
        for (id, bytes) in [(mine, b"mine"), (other, b"them")] {
            let created = store.create(&id, Write::new(bytes, HOUR)).unwrap();
            assert!(matches!(created, Created::Stored(_)));
        }
        for expected in [None, Some(threaded_sessions::store::Version::new(*b"mine"))] {
            let error = store.rotate(&mine, &new, Write::new(b"newer", HOUR), expected.as_ref()).unwrap_err();
            assert!(misconfigured(&error).contains("another session"), "{error:?}");
        }
        assert_eq!(payload(&store, &mine).as_deref(), Some(&b"mine"[..]));
        assert_eq!(payload(&store, &other).as_deref(), Some(&b"them"[..]));
    }
}

#[test]
fn renewal_into_other_partition_keeps_the_session() {
    for store in both(|builder| builder.partitions(1000)) {
        let old = plant(&store, b"old");
        let partition = |id: &SessionId| store.key(id).split(':').nth(1).map(str::to_owned);
        let far = || Some(SessionId::random()).filter(|id| partition(id) != partition(&old));
        let far = std::iter::repeat_with(far).flatten().next().unwrap();
        let error = store.rotate(&old, &far, Write::new(b"new", HOUR), None).unwrap_err();
        assert!(misconfigured(&error).contains("partition"), "{error:?}");
        assert_eq!(payload(&store, &old).as_deref(), Some(&b"old"[..]));
    }
}

/// Redis quotes the first arguments of a command it does not know, and the key is one of them.
#[test]
fn errors_omit_arguments_quoted_by_redis() {
    let renamed = |commands: &[&'static str]| {
        let args = commands.iter().flat_map(|command| ["--rename-command", command, ""]);
        RedisServer::with(&args.collect::<Vec<_>>())
    };
    let servers = [
        // Unknown to the server, and unknown within a script.
        (renamed(&["GETEX", "SET", "GET", "DEL", "EVALSHA"]), "unknown command"),
        (renamed(&["GETEX", "SET", "GET", "DEL", "EVALSHA", "PTTL"]), "unknown command"),
        (renamed(&["GETEX", "PTTL"]), ""),
        (renamed(&["GETEX", "SET", "GET", "DEL"]), ""),
    ];
    for (server, words) in &servers {
        let at_server = |builder: RedisSessionStoreBuilder| builder.url(server.url());
        for store in both(at_server) {
            let id = store.fresh_id(None);
            let new = store.fresh_id(None);
            let write = || Write::new(b"secret payload", HOUR);
            let version = threaded_sessions::store::Version::new(*b"secret payload");
            let errors = [
                store.read(&id, Touch::No).err(),
                store.read(&id, Touch::Set(HOUR)).err(),
                store.read(&id, Touch::Extend(HOUR)).err(),
                store.create(&id, write()).err(),
                store.save(&id, write(), None).err(),
                store.save(&id, write(), Some(&version)).err(),
                store.rotate(&id, &new, write(), Some(&version)).err(),
                store.delete(&id).err(),
                SessionManager::<u32>::new(store.clone()).open_id(&id).err(),
                store.check().err(),
            ];
            assert!(errors[8].is_some(), "reading with a touch fails in one store or the other");
            for error in errors.into_iter().flatten() {
                let texts = texts(&error);
                assert!(texts.contains(words), "{texts}");
                for secret in [&id.expose()[..12], &new.expose()[..12], "secret"] {
                    assert!(!texts.contains(secret), "{texts}");
                }
            }
        }
    }
}
