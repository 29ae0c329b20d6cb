//! Stored data stays readable: sessions that an earlier version of the crate stored are still opened, listed and ended.
//!
//! Each folder under `tests/fixtures/` has what one version of the crate left in Redis, one file for each shape of a store. If a
//! change adds to what is stored, add a folder, and keep the others: `NEW_FIXTURES=NAME cargo test --all-features --test stored`.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs, iter};

use redis::FromRedisValue;
use serde::{Deserialize, Serialize};
use support::RedisServer;
use threaded_sessions::step::{Encrypted, EncryptionKey, WrittenAt};
use threaded_sessions::store::{Verified, VerifyOptions};
use threaded_sessions::{
    EndReason, Json, MessagePack, Outcome, RedisSessionStore, RedisSessionStoreBuilder, Session, SessionId,
    SessionManager, SessionManagerBuilder, SessionStore, StepStore,
};

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
enum State {
    #[default]
    Open,
    Paid {
        by: String,
    },
    Shipped(u32, i64),
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Cart {
    user: Option<String>,
    items: Vec<(String, u32)>,
    total: f64,
    seen: BTreeMap<u8, bool>,
    states: Vec<State>,
    large: u64,
}

/// A cart as an earlier version of an application stored it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct OldCart {
    names: Vec<String>,
}

fn cart() -> Cart {
    Cart {
        user: Some("Ada Ω \"quoted\"".into()),
        items: vec![("tea".into(), 2), (String::new(), 0)],
        total: 0.1 + 0.2,
        seen: BTreeMap::from([(0, true), (255, false)]),
        states: vec![State::Open, State::Paid { by: "card".into() }, State::Shipped(u32::MAX, i64::MIN)],
        large: u64::MAX,
    }
}

fn migrated(old: OldCart) -> Cart {
    Cart { items: old.names.into_iter().map(|name| (name, 1)).collect(), ..Cart::default() }
}

/// A kind of store and codec. Its file has its name, and so has the prefix of its keys.
struct Shape {
    name: &'static str,
    store: fn(RedisSessionStoreBuilder) -> Arc<dyn SessionStore>,
    is_message_pack: bool,
    /// True if the sessions were stored as `OldCart`.
    is_old: bool,
    is_expiring: bool,
}

const SHAPES: [Shape; 7] = [
    Shape { name: "plain-json", store: open, is_message_pack: false, is_old: false, is_expiring: false },
    Shape { name: "plain-msgpack", store: open, is_message_pack: true, is_old: false, is_expiring: false },
    Shape { name: "plain-migrated", store: open, is_message_pack: false, is_old: true, is_expiring: false },
    Shape {
        name: "expiring-json",
        store: |builder| open(builder.expiring()),
        is_message_pack: false,
        is_old: false,
        is_expiring: true,
    },
    Shape {
        name: "expiring-msgpack-partitioned-hashed",
        store: |builder| open(builder.expiring().partitions(4).hashed_keys()),
        is_message_pack: true,
        is_old: false,
        is_expiring: true,
    },
    Shape {
        name: "expiring-migrated-ends",
        store: |builder| open(builder.expiring().remember_ends(DAY)),
        is_message_pack: true,
        is_old: true,
        is_expiring: true,
    },
    Shape {
        name: "expiring-encrypted",
        store: |builder| {
            let store = builder.expiring().build().unwrap();
            let encrypted = Encrypted::new(EncryptionKey::from_bytes([7; 32]));
            Arc::new(StepStore::builder(store).step(encrypted).step(WrittenAt::new()).build().unwrap())
        },
        is_message_pack: false,
        is_old: false,
        is_expiring: true,
    },
];

fn open(builder: RedisSessionStoreBuilder) -> Arc<dyn SessionStore> {
    let store = builder.build().unwrap();
    // Writes the marker, or compares it: a store of another kind fails.
    store.check().unwrap();
    Arc::new(store)
}

impl Shape {
    fn store(&self, server: &RedisServer) -> Arc<dyn SessionStore> {
        (self.store)(RedisSessionStore::builder().url(server.url()).prefix(self.name))
    }

    fn settings<T: Serialize + for<'de> Deserialize<'de> + 'static>(
        &self,
        server: &RedisServer,
    ) -> SessionManagerBuilder<T> {
        let builder = SessionManager::builder(self.store(server));
        let builder = builder.idle_timeout(30 * DAY).remember_for(90 * DAY).lifetime(36_500 * DAY);
        if self.is_message_pack { builder.codec(MessagePack::new()) } else { builder.codec(Json::new()) }
    }

    fn reader(&self, server: &RedisServer) -> SessionManager<Cart> {
        let builder = self.settings(server);
        let migrate = |old: OldCart| Ok(migrated(old));
        let builder = match (self.is_old, self.is_message_pack) {
            (false, _) => builder,
            (true, false) => builder.codec(Json::new().migrate(migrate)),
            (true, true) => builder.codec(MessagePack::new().migrate(migrate)),
        };
        builder.build().unwrap()
    }

    fn expected(&self) -> Cart {
        if self.is_old { migrated(old_cart()) } else { cart() }
    }
}

fn old_cart() -> OldCart {
    OldCart { names: vec!["tea".into(), "milk".into()] }
}

/// The sessions of a fixture, by name, with the times at which they began, in milliseconds.
type Sessions = BTreeMap<String, (SessionId, u64)>;

/// Stores one session of each sort.
fn leave<T: Clone + Default + 'static>(sessions: &SessionManager<T>, value: &T, is_expiring: bool) -> Sessions {
    let mut left = Sessions::new();
    let mut store = |name: &str, change: &dyn Fn(&mut Session<T>)| {
        let mut session = sessions.fresh();
        *session = value.clone();
        change(&mut session);
        let began = session.created().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let id = *sessions.commit(session).unwrap().id().unwrap();
        left.insert(name.to_owned(), (id, began));
        id
    };
    store("guest", &|_| ());
    store("remembered", &|session| session.remember(true));
    let old = store("renewed", &|_| ());
    if is_expiring {
        store("bound", &|session| session.bind("ada@example.org", "phone, the old one"));
        store("bound-remembered", &|session| {
            session.bind("ada@example.org", "läptop");
            session.remember(true);
        });
        store("other", &|session| session.bind("bob", ""));
    }
    let destroyed = store("destroyed", &|_| ());
    let change = |id: &SessionId, change: fn(&mut Session<T>)| {
        let mut session = sessions.open_id(id).unwrap().unwrap();
        change(&mut session);
        sessions.commit(session).unwrap()
    };
    let _ = change(&destroyed, Session::destroy);
    let new = *change(&old, Session::renew).id().unwrap();
    let began = left["renewed"].1;
    left.insert("renewed-to".to_owned(), (new, began));
    left
}

/// Reads all sessions of a fixture, and uses them.
fn check(shape: &Shape, server: &RedisServer, left: &Sessions) {
    let (sessions, expected) = (shape.reader(server), shape.expected());
    for (name, (id, began)) in left {
        let mut session = sessions.open([&*format!("__Host-session={}", id.expose())]).unwrap();
        let case = format!("{}, {name}", shape.name);
        match name.as_str() {
            "renewed" => assert!(session.is_detached(), "{case}"),
            "destroyed" => {
                let reason = shape.name.ends_with("ends").then_some(EndReason::Destroyed);
                assert_eq!((session.is_new(), session.ended().filter(|_| reason.is_some())), (true, reason), "{case}");
            }
            _ => {
                assert_eq!(*session, expected, "{case}");
                let began = UNIX_EPOCH + Duration::from_millis(*began);
                // A time that is later than now counts as now. So it does if the clock of this machine is behind.
                assert!(session.created() == began || began > SystemTime::now(), "{case}");
                assert_eq!(session.is_remembered(), name.ends_with("remembered"), "{case}");
                assert!(session.expires_in().unwrap() > DAY, "{case}");
                session.items.push(("more".into(), 1));
                assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored, "{case}");
                let changed = sessions.open_id(id).unwrap().unwrap();
                assert_eq!(changed.items.len(), expected.items.len() + 1, "{case}");
            }
        }
    }
    if shape.is_expiring {
        check_principals(shape, &sessions, left);
    }
    let mut session = sessions.open_id(&left["guest"].0).unwrap().unwrap();
    session.renew();
    assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored, "{}", shape.name);
}

fn check_principals(shape: &Shape, sessions: &SessionManager<Cart>, left: &Sessions) {
    let name = shape.name;
    let index = sessions.store().index().unwrap();
    let verified = index.verify(VerifyOptions::new()).unwrap();
    assert_eq!(format!("{verified:?}"), format!("{:?}", Verified::default()), "{name}: nothing is amiss");
    assert_eq!(index.count().unwrap(), left.len() as u64 - 2, "{name}: all but the renewed and the destroyed one");

    let listed = sessions.list("ada@example.org").unwrap();
    let mut labels: Vec<&str> = listed.iter().map(|session| &*session.label).collect();
    labels.sort_unstable();
    assert_eq!(labels, ["läptop", "phone, the old one"], "{name}");
    let handle = |name: &str| sessions.store().handle(&left[name].0);
    assert!(listed.iter().any(|session| session.handle == handle("bound")), "{name}");
    assert_eq!(sessions.end_all("ada@example.org").unwrap(), 2, "{name}");
    assert!(sessions.open_id(&left["bound"].0).unwrap().is_none(), "{name}");
    assert_eq!(sessions.list("bob").unwrap().len(), 1, "{name}: the others live");
}

/// The text of a fixture: the sessions, and the commands that put the keys back. The TTL of a key and the deadline of an entry in an
/// index count from when the fixture is loaded.
fn dump(shape: &Shape, server: &RedisServer, left: &Sessions) -> String {
    let mut lines: Vec<String> =
        left.iter().map(|(name, (id, began))| format!("session {name} {} {began}", id.expose())).collect();
    let mut keys: Vec<Vec<u8>> = ask(server, &[b"KEYS", format!("{}:*", shape.name).as_bytes()]);
    keys.sort();
    for key in keys {
        let kind: String = ask(server, &[b"TYPE", &key]);
        let ttl: i64 = ask(server, &[b"PTTL", &key]);
        let mut words = vec![escape(&key)];
        match &*kind {
            "string" => words.extend([escape(&ask::<Vec<u8>>(server, &[b"GET", &key])), ttl.to_string()]),
            "hash" => words.extend(ask::<Vec<Vec<u8>>>(server, &[b"HGETALL", &key]).iter().map(|word| escape(word))),
            "zset" => {
                let is_index = key.ends_with(b":index");
                let members: Vec<(Vec<u8>, i64)> = ask(server, &[b"ZRANGE", &key, b"0", b"-1", b"WITHSCORES"]);
                for (member, score) in members {
                    words.push(if is_index { format!("+{}", score - now()) } else { score.to_string() });
                    words.push(escape(&member));
                }
            }
            other => panic!("a key of type {other}"),
        }
        lines.push(format!("{kind} {}", words.join(" ")));
    }
    lines.join("\n") + "\n"
}

/// Puts the keys of a fixture into Redis, and returns its sessions.
fn load(server: &RedisServer, text: &str) -> Sessions {
    let mut left = Sessions::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["session", name, id, began] = words[..] {
            left.insert(name.to_owned(), (id.parse().unwrap(), began.parse().unwrap()));
            continue;
        }
        let key = unescape(words[1]);
        let score = |word: &str| match word.strip_prefix('+') {
            Some(left) => (now() + left.parse::<i64>().unwrap()).to_string().into_bytes(),
            None => word.as_bytes().to_vec(),
        };
        let command: Vec<Vec<u8>> = match (words[0], &words[2..]) {
            ("string", [value, "-1"]) => vec![b"SET".to_vec(), key, unescape(value)],
            ("string", [value, ttl]) => {
                vec![b"SET".to_vec(), key, unescape(value), b"PX".to_vec(), ttl.as_bytes().into()]
            }
            ("hash", fields) => {
                [b"HSET".to_vec(), key].into_iter().chain(fields.iter().map(|word| unescape(word))).collect()
            }
            ("zset", members) => {
                let pairs = members.chunks(2).flat_map(|pair| [score(pair[0]), unescape(pair[1])]);
                [b"ZADD".to_vec(), key].into_iter().chain(pairs).collect()
            }
            other => panic!("{other:?}"),
        };
        let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let _: redis::Value = ask(server, &words);
    }
    left
}

fn ask<R: FromRedisValue>(server: &RedisServer, command: &[&[u8]]) -> R {
    let name = std::str::from_utf8(command[0]).unwrap();
    redis::cmd(name).arg(&command[1..]).query(&mut server.connection()).unwrap()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// One word without a space. An empty word is `\-`.
fn escape(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "\\-".to_owned();
    }
    let word = |byte: &u8| match byte {
        b'\\' => "\\x5c".to_owned(),
        byte if byte.is_ascii_graphic() => char::from(*byte).to_string(),
        byte => format!("\\x{byte:02x}"),
    };
    bytes.iter().map(word).collect()
}

fn unescape(word: &str) -> Vec<u8> {
    if word == "\\-" {
        return Vec::new();
    }
    let mut rest = word.as_bytes();
    iter::from_fn(|| {
        let (byte, after) = match rest {
            [b'\\', b'x', high, low, after @ ..] => {
                (u8::from_str_radix(std::str::from_utf8(&[*high, *low]).unwrap(), 16).unwrap(), after)
            }
            [byte, after @ ..] => (*byte, after),
            [] => return None,
        };
        rest = after;
        Some(byte)
    })
    .collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[test]
fn sessions_of_earlier_versions_stay_readable() {
    let server = RedisServer::start();
    let mut versions = 0;
    for version in fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path()) {
        versions += 1;
        for shape in &SHAPES {
            let file = version.join(format!("{}.txt", shape.name));
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            server.cmd(&["FLUSHALL"]);
            check(shape, &server, &load(&server, &text));
        }
    }
    assert!(versions > 0);
}

/// With `NEW_FIXTURES=NAME` it also keeps what it stores, in a new folder of that name.
#[test]
fn sessions_survive_dump_and_load() {
    let server = RedisServer::start();
    let folder = env::var_os("NEW_FIXTURES").map(|name| fixtures().join(name));
    if let Some(folder) = &folder {
        fs::create_dir(folder).expect("a new folder, because fixtures are never replaced");
    }
    for shape in &SHAPES {
        server.cmd(&["FLUSHALL"]);
        let left = if shape.is_old {
            leave(&shape.settings(&server).build().unwrap(), &old_cart(), shape.is_expiring)
        } else {
            leave(&shape.settings(&server).build().unwrap(), &cart(), shape.is_expiring)
        };
        let text = dump(shape, &server, &left);
        if let Some(folder) = &folder {
            fs::write(folder.join(format!("{}.txt", shape.name)), &text).unwrap();
        }
        server.cmd(&["FLUSHALL"]);
        let loaded = load(&server, &text);
        assert_eq!(loaded, left);
        check(shape, &server, &loaded);
    }
}
