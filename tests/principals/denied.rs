//! A Redis user without the right to run some command: a change is applied as a whole, or not at all.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;
use threaded_sessions::store::{Bind, Companion, Ending, Found, SessionIndex, Touch, VerifyOptions, Write};
use threaded_sessions::{ErrorKind, RedisSessionStore, Result, SessionId, SessionStore};

use crate::support::{PATIENCE, RedisServer};

const HOUR: Duration = Duration::from_secs(3600);

/// Every command that a script of the store sends.
const COMMANDS: [&str; 25] = [
    "del",
    "exists",
    "get",
    "getrange",
    "hdel",
    "hget",
    "hmget",
    "hset",
    "mget",
    "persist",
    "pexpire",
    "pexpireat",
    "pexpiretime",
    "pttl",
    "rename",
    "renamenx",
    "set",
    "time",
    "type",
    "zadd",
    "zcount",
    "zrange",
    "zrem",
    "zscore",
    "zscan",
];

fn open(url: String) -> RedisSessionStore {
    let mut store = RedisSessionStore::builder().url(url).deadline(PATIENCE).expiring().build().unwrap();
    store.keep_companions(&["device".to_owned(), "seen".to_owned()]).unwrap();
    store
}

/// Sessions of ada, the oldest first, and one without an owner. The last one has expired.
struct Scene {
    hers: [SessionId; 2],
    free: SessionId,
    expired: SessionId,
}

impl Scene {
    fn make(admin: &RedisSessionStore, server: &RedisServer) -> Self {
        server.cmd(&["FLUSHALL"]);
        let companions = [Companion::new("device", "phone"), Companion::new("seen", "today")];
        let create = |payload: &str, bind| {
            let id = admin.fresh_id(None);
            let write = Write::new(payload.as_bytes(), HOUR).with_companions(&companions).with_bind(bind);
            let _ = admin.create(&id, write).unwrap();
            id
        };
        let ada = Bind::To { principal: "ada", cap: None };
        let hers = ["a", "b"].map(|payload| create(payload, ada));
        let [free, expired] = [create("free", Bind::Keep), create("expired", ada)];
        server.cmd(&["PEXPIRE", &admin.key(&expired), "86399999"]);
        Self { hers, free, expired }
    }
}

/// An operation and its name.
type Operation = (&'static str, fn(&RedisSessionStore, &Scene) -> Result<()>);

fn cap(cap: u32) -> Bind<'static> {
    Bind::To { principal: "ada", cap: Some(cap) }
}

fn changed(bind: Bind<'_>) -> Write<'_> {
    Write::new(b"changed", HOUR).with_bind(bind)
}

const OPERATIONS: [Operation; 13] = [
    ("create", |store, _| store.create(&store.fresh_id(None), changed(Bind::Keep)).map(drop)),
    ("create over the cap", |store, _| store.create(&store.fresh_id(None), changed(cap(1))).map(drop)),
    ("create again", |store, scene| store.create(&scene.expired, changed(cap(9))).map(drop)),
    ("save", |store, scene| store.save(&scene.hers[0], changed(Bind::Keep), None).map(drop)),
    ("bind", |store, scene| store.save(&scene.free, changed(cap(2)), None).map(drop)),
    ("unbind", |store, scene| store.save(&scene.hers[0], changed(Bind::Unbind), None).map(drop)),
    ("rotate", |store, scene| store.rotate(&scene.hers[0], &store.fresh_id(None), changed(Bind::Keep), None).map(drop)),
    ("rotate and bind", |store, scene| store.rotate(&scene.free, &scene.expired, changed(cap(1)), None).map(drop)),
    ("touch", |store, scene| store.read(&scene.hers[0], Touch::Set(HOUR * 2)).map(drop)),
    ("delete", |store, scene| store.delete(&scene.hers[0]).map(drop)),
    ("end one", |store, scene| store.end("ada", Ending::Only(store.handle(&scene.hers[0]))).map(drop)),
    ("end all", |store, _| store.end("ada", Ending::All).map(drop)),
    ("reap", |store, _| store.reap(0, 100, true).map(drop)),
];

/// All keys, with their values and whether they have a TTL.
fn dump(server: &RedisServer) -> BTreeMap<String, (Value, bool)> {
    let keys: Vec<String> = redis::from_redis_value(server.cmd(&["KEYS", "*"])).unwrap();
    keys.into_iter()
        .map(|key| {
            let value = (server.cmd(&["DUMP", &key]), server.cmd(&["PTTL", &key]) != Value::Int(-1));
            (key, value)
        })
        .collect()
}

/// Every session has a payload, its own companions, and one place.
fn assert_whole(server: &RedisServer, admin: &RedisSessionStore, what: &str) {
    for key in dump(server).keys().filter(|key| key.ends_with(":device") || key.ends_with(":seen")) {
        assert_ne!(server.cmd(&["PTTL", key]), Value::Int(-1), "{what}: {key} has no TTL");
    }
    let options = VerifyOptions::new().dry_run(true);
    let found = admin.index().unwrap().verify(options).unwrap();
    assert_eq!((found.displaced, found.tombstones_corrected), (0, 0), "{what}");
}

#[test]
fn denied_command_leaves_no_operation_half_done() {
    let server = RedisServer::start();
    let admin = open(server.url());
    let (mut denied_whole, mut done_whole) = (0, 0);
    for command in COMMANDS {
        server.cmd(&["ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "+@all", &format!("-{command}")]);
        let app = open(server.url().replace("//", "//app:pw@"));
        for (name, operation) in OPERATIONS {
            let what = format!("{name} without {command}");
            let scene = Scene::make(&admin, &server);
            let before = dump(&server);
            match operation(&app, &scene) {
                Ok(()) => {
                    done_whole += 1;
                    assert_whole(&server, &admin, &what);
                }
                Err(error) => {
                    denied_whole += 1;
                    assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error:?}");
                    // A touch reads and moves the deadline by two commands; the second one also runs if the first one fails.
                    assert!(dump(&server) == before || (name, command) == ("touch", "get"), "{what}");
                }
            }
        }
    }
    assert!(denied_whole > 30 && done_whole > 100, "{denied_whole} denied, {done_whole} done");
}

/// It takes one session after the other, so a part may have happened when it fails.
#[test]
fn denied_delete_fails_the_end_of_all() {
    let server = RedisServer::start();
    let admin = open(server.url());
    server.cmd(&["ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "+@all", "-del"]);
    let app = open(server.url().replace("//", "//app:pw@"));
    let scene = Scene::make(&admin, &server);
    assert_eq!(app.end_everybody().unwrap_err().kind(), ErrorKind::Denied);
    for id in scene.hers.iter().chain([&scene.free]) {
        assert!(matches!(admin.read(id, Touch::No).unwrap(), Found::Live(_)));
    }
    assert_eq!(admin.end_everybody().unwrap(), 3);
}

/// The sessions decide, so an operation that succeeded although a command was denied has left the right sessions live.
#[test]
fn denied_bookkeeping_changes_no_session_else() {
    let server = RedisServer::start();
    let admin = open(server.url());
    for command in ["hdel", "hset", "hget", "hmget", "zadd", "zrem", "zrange", "pexpireat", "persist", "pexpiretime"] {
        server.cmd(&["ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "+@all", &format!("-{command}")]);
        let app = open(server.url().replace("//", "//app:pw@"));
        let scene = Scene::make(&admin, &server);
        let (id, new) = (app.fresh_id(None), app.fresh_id(None));
        let _ = app.create(&id, changed(cap(9))).unwrap();
        let _ = app.rotate(&id, &new, changed(Bind::Keep), None).unwrap();
        for (id, is_live) in [(&id, false), (&new, true), (&scene.hers[0], true), (&scene.free, true)] {
            let found = admin.read(id, Touch::No).unwrap();
            assert_eq!(matches!(found, Found::Live(_)), is_live, "without {command}");
        }
        // A user with the rights corrects the lagging index.
        let index = admin.index().unwrap();
        index.verify(VerifyOptions::new()).unwrap();
        let again = index.verify(VerifyOptions::new()).unwrap();
        assert_eq!(again, Default::default(), "without {command}");
    }
}
