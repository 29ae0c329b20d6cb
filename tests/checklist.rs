//! The behaviour of rrss (rows 1 to 24), ring-redis-session (25 to 32) and Ring's session middleware (33 to 38), row by row. Each
//! test shows the same behaviour, or the safe one in its place.
//!
//! Other files test these rows:
//! - 2, a session is one key `sessions:ID`: `wire.rs`.
//! - 5, a session lasts a week, its key is in `sessions:index`: `wire.rs` (`index`).
//! - 9 and 10, unknown ids are absent, and no operation writes under them: `contract.rs`, `races.rs`.
//! - 11, deleting an unknown id is no error: `contract.rs`, `races.rs`.
//! - 12 and 30, values of any type and depth: `wire.rs`.
//! - 15 to 20, the reaper, and 22 and 23, steps: with the reaper and the steps. 8 is a bug in a README.
//! - 24, all stores pass one suite: `contract.rs`.
//! - 27, every write sets the time to live, and 28, a read moves it in the same round trip: `wire.rs`.
//! - 32, no session data in logs: `secrets.rs`.
//! - 33, sessions in memory by default: `examples.rs`.
//! - 34, unchanged is not written, destroyed is deleted, and 35, a renewal is one command: `wire.rs`, `races.rs`.

mod support;

use std::time::{Duration, UNIX_EPOCH};

use redis::FromRedisValue;
use support::{PATIENCE, RedisServer, eventually, shared, unique};
use threaded_sessions::codec::Envelope;
use threaded_sessions::store::{Found, Touch};
use threaded_sessions::{
    Attributes, BoxError, Clock, Codec, Committed, ErrorKind, MemorySessionStore, Outcome, RedisConnectionManager,
    RedisPool, RedisSessionStore, RedisSessionStoreBuilder, SameSite, Session, SessionId, SessionManager,
    SessionManagerBuilder, SessionStore, r2d2,
};

const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn redis(prefix: &str) -> RedisSessionStoreBuilder {
    RedisSessionStore::builder().url(shared().url()).deadline(PATIENCE).prefix(prefix)
}

/// A plain and an expiring store, under prefixes of their own.
fn on_both_stores(test: impl Fn(RedisSessionStore, &str)) {
    for expiring in [false, true] {
        let prefix = unique("checklist");
        let builder = redis(&prefix);
        let store = if expiring { builder.expiring().build() } else { builder.build() }.unwrap();
        test(store, &prefix);
    }
}

fn ask<R: FromRedisValue>(command: &[&str]) -> R {
    redis::from_redis_value(shared().cmd(command)).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

type Sessions = SessionManager<Attributes>;

fn sessions(store: impl SessionStore) -> Sessions {
    SessionManager::new(store)
}

/// A session with one attribute.
fn create(sessions: &Sessions, name: &str, value: &str) -> SessionId {
    let mut session = sessions.fresh();
    session.insert(name, value).unwrap();
    *sessions.commit(session).unwrap().id().expect("it is stored")
}

fn open(sessions: &Sessions, id: &SessionId) -> Session<Attributes> {
    sessions.open_id(id).unwrap().expect("it lives")
}

fn set_cookie(committed: &Committed) -> Option<&str> {
    committed.headers().find(|(name, _)| *name == "Set-Cookie").map(|(_, value)| value)
}

#[test]
fn row_01_store_opens_from_url_client_pool() {
    let prefix = unique("opened");
    let by_url = redis(&prefix).build().unwrap();
    let client = redis::Client::open(shared().url()).unwrap();
    let manager = RedisConnectionManager::open(&shared().url()).unwrap().with_deadline(PATIENCE).unwrap();
    let pool = RedisPool::with_settings(manager, r2d2::Pool::builder().max_size(3));
    let by_pool = RedisSessionStore::builder().pool(pool).prefix(&prefix).build().unwrap();
    let shared_pool = RedisSessionStore::builder().pool(by_pool.pool().clone()).prefix(&prefix).build().unwrap();
    let id = create(&sessions(by_url), "user", "ada");
    for store in [redis(&prefix).client(client).build().unwrap(), by_pool.clone(), shared_pool] {
        assert_eq!(open(&sessions(store), &id).get("user").unwrap(), Some("ada".to_owned()));
    }
    assert_eq!(by_pool.health().answered, 2);
    assert_eq!(by_pool.health().connections_max, 3);
}

#[test]
fn row_03_key_mapper_replaces_the_default_key() {
    for expiring in [false, true] {
        let (prefix, mapped) = (unique("default"), unique("mapped"));
        let map = {
            let mapped = mapped.clone();
            move |id: &SessionId| format!("{mapped}/{}", id.expose())
        };
        let builder = redis(&prefix).key_mapper(map);
        let store = if expiring { builder.expiring().build() } else { builder.build() }.unwrap();
        let id = create(&sessions(store.clone()), "user", "ada");
        let key = format!("{mapped}/{}", id.expose());
        assert_eq!(store.key(&id), key);
        assert_eq!(ask::<Vec<String>>(&["KEYS", &format!("{mapped}*")]), [key]);
        assert_eq!(ask::<u64>(&["EXISTS", &format!("{prefix}:{}", id.expose())]), 0);
    }
}

#[test]
fn row_04_without_idle_timeout_nothing_expires() {
    on_both_stores(|store, prefix| {
        let sessions: Sessions = SessionManager::builder(store.clone()).idle_timeout(None).build().unwrap();
        let id = create(&sessions, "user", "ada");
        assert_eq!(open(&sessions, &id).expires_in(), None);
        assert_eq!(ask::<i64>(&["PTTL", &store.key(&id)]), -1);
        let score: Option<String> = ask(&["ZSCORE", &format!("{prefix}:index"), &store.key(&id)]);
        assert_eq!(score, store.index().map(|_| "inf".to_owned()));
    });
}

#[test]
fn row_06_without_touch_on_read_writes_count() {
    on_both_stores(|store, _| {
        let sessions: Sessions = SessionManager::builder(store.clone()).touch_on_read(false).build().unwrap();
        let id = create(&sessions, "user", "ada");
        let key = store.key(&id);
        let whole: u64 = ask(&["PTTL", &key]);
        ask::<u64>(&["PEXPIRE", &key, &(whole - DAY.as_millis() as u64).to_string()]);
        let deadline: u64 = ask(&["PEXPIRETIME", &key]);
        let mut session = open(&sessions, &id);
        assert_eq!(ask::<u64>(&["PEXPIRETIME", &key]), deadline);
        session.insert("user", "bob").unwrap();
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
        assert!(ask::<u64>(&["PEXPIRETIME", &key]) > deadline + DAY.as_millis() as u64 / 2);
    });
}

#[test]
fn row_07_data_ttl_overrules_the_index() {
    let prefix = unique("truth");
    let store = redis(&prefix).expiring().build().unwrap();
    let sessions = sessions(store.clone());
    let (lives, expired) = (create(&sessions, "user", "ada"), create(&sessions, "user", "bob"));
    let index = format!("{prefix}:index");
    ask::<u64>(&["ZADD", &index, "1", &store.key(&lives)]);
    ask::<u64>(&["ZADD", &index, "+inf", &store.key(&expired)]);
    ask::<u64>(&["PEXPIRE", &store.key(&expired), &DAY.as_millis().to_string()]);
    assert_eq!(open(&sessions, &lives).get("user").unwrap(), Some("ada".to_owned()));
    assert!(sessions.open_id(&expired).unwrap().is_none());
}

#[test]
fn row_13_write_drops_removed_fields() {
    on_both_stores(|store, _| {
        let sessions = sessions(store);
        let id = create(&sessions, "user", "ada");
        let mut session = open(&sessions, &id);
        session.insert("cart", ["tea"]).unwrap();
        assert!(session.remove("user"));
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
        assert!(open(&sessions, &id).names().eq(["cart"]));

        let mut session = open(&sessions, &id);
        session.clear();
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Stored);
        assert_eq!(open(&sessions, &id).names().count(), 0);
    });
}

#[test]
fn row_14_session_is_stored_with_first_value() {
    on_both_stores(|store, prefix| {
        let sessions = sessions(store);
        let mut session = sessions.fresh();
        session.insert("user", "ada").unwrap();
        session.remove("user");
        let committed = sessions.commit(session).unwrap();
        assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, None));
        assert_eq!(ask::<Vec<String>>(&["KEYS", &format!("{prefix}*")]), [""; 0]);
        let id = create(&sessions, "user", "ada");
        assert!(open(&sessions, &id).names().eq(["user"]));
    });
}

/// A client can neither read nor change other keys of Redis by naming them in a cookie.
#[test]
fn rows_21_and_31_cookie_names_no_key() {
    on_both_stores(|store, prefix| {
        let lives = create(&sessions(store.clone()), "user", "ada");
        let payload: String = ask(&["GET", &store.key(&lives)]);
        // A payload that a session could be read from, under names that a cookie can hold.
        let foreign = [SessionId::random().expose(), unique("key"), format!("{prefix}:all"), format!("{prefix}:x")];
        for key in &foreign {
            ask::<()>(&["SET", key, &payload]);
        }
        let index = format!("{prefix}:index");
        let named: Vec<&str> = foreign.iter().map(|key| &**key).chain(["all", "index", "x", &index]).collect();
        for name in named {
            for act in [|session: &mut Session<Attributes>| session.clear(), Session::renew, Session::destroy] {
                let sessions = sessions(store.clone());
                let mut session = sessions.open([&*format!("__Host-session={name}")]).unwrap();
                assert!(session.is_new() && session.names().count() == 0, "{name}");
                act(&mut session);
                let committed = sessions.commit(session).unwrap();
                assert!(committed.id().is_none_or(|id| id.expose() != name));
            }
        }
        for key in &foreign {
            assert_eq!(ask::<String>(&["GET", key]), payload, "{key}");
        }
        let score: Option<f64> = ask(&["ZSCORE", &index, &store.key(&lives)]);
        assert_eq!(score.is_some(), store.index().is_some());
    });
}

#[test]
fn row_25_pool_size_credentials_and_one_timeout() {
    let server = RedisServer::with(&["--requirepass", "secret"]);
    let at = |user: &str| format!("redis://{user}@127.0.0.1:{}", server.port());
    let admin = RedisSessionStore::open(&at(":secret")).unwrap();
    let connection = || admin.pool().get();
    assert!(eventually(PATIENCE, || connection().is_ok()));
    let acl = ["ACL", "SETUSER", "web", "on", ">hunter2", "~sessions:*", "+@all"];
    redis::cmd(acl[0]).arg(&acl[1..]).exec(&mut connection().unwrap()).unwrap();

    let builder = |user| RedisSessionStore::builder().url(at(user)).pool_size(3);
    let limited = builder("web:hunter2").deadline(Duration::from_millis(500)).build().unwrap();
    let id = limited.fresh_id(None);
    assert!(eventually(PATIENCE, || matches!(limited.read(&id, Touch::No), Ok(Found::Absent))));
    assert_eq!(limited.health().connections_max, 3);
    server.stop();
    let error = limited.read(&id, Touch::No).unwrap_err();
    assert!(error.kind().is_temporary(), "{error:?}");
    server.resume();

    for wrong in ["web:hunter3", ":hunter2", ""] {
        let store = builder(wrong).deadline(PATIENCE).build().unwrap();
        assert_eq!(store.read(&id, Touch::No).unwrap_err().kind(), ErrorKind::Denied, "{wrong}");
    }
}

#[test]
fn row_26_prefix_is_joined_with_colon() {
    on_both_stores(|store, prefix| {
        let id = create(&sessions(store), "user", "ada");
        assert_eq!(ask::<u64>(&["EXISTS", &format!("{prefix}:{}", id.expose())]), 1);
    });
}

/// A codec for a type without serde: creation time, revision and value, one line each.
struct Lines;

struct Name(String);

impl Default for Name {
    fn default() -> Self {
        Self("nobody".to_owned())
    }
}

impl Codec<Name> for Lines {
    fn encode(&self, envelope: &Envelope<&Name>) -> Result<Vec<u8>, BoxError> {
        let created = envelope.created.duration_since(UNIX_EPOCH)?.as_secs();
        Ok(format!("{created}\n{}\n{}", envelope.revision, envelope.data.0).into_bytes())
    }

    fn decode(&self, payload: &[u8]) -> Result<Envelope<Name>, BoxError> {
        let mut lines = str::from_utf8(payload)?.splitn(3, '\n');
        let mut line = || lines.next().ok_or("a line is missing");
        let (created, revision, name) = (line()?.parse()?, line()?.parse()?, line()?);
        let mut envelope = Envelope::new(Name(name.to_owned()));
        envelope.created = UNIX_EPOCH + Duration::from_secs(created);
        envelope.revision = revision;
        Ok(envelope)
    }
}

#[test]
fn row_29_custom_codec_makes_the_payload() {
    on_both_stores(|store, _| {
        let clock = Clock::manual();
        let sessions = SessionManager::builder_with_codec(store.clone(), Lines).clock(clock.clone()).build().unwrap();
        let mut session = sessions.open(None).unwrap();
        session.0 = "Ada\nLovelace".to_owned();
        let id = *sessions.commit(session).unwrap().id().unwrap();
        let payload: String = ask(&["GET", &store.key(&id)]);
        let created = clock.now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(payload.starts_with(&format!("{created}\n")) && payload.ends_with("\nAda\nLovelace"), "{payload}");
        let session = sessions.open_id(&id).unwrap().unwrap();
        assert_eq!(session.0, "Ada\nLovelace");
        assert_eq!(session.created(), UNIX_EPOCH + Duration::from_secs(created));
    });
}

#[test]
fn row_36_cookie_is_sent_when_changed() {
    let clock = Clock::manual();
    let store = MemorySessionStore::new().with_clock(clock.clone());
    let sessions: Sessions =
        SessionManager::builder(store).clock(clock.clone()).remember_for(WEEK * 4).build().unwrap();
    let mut id = None;
    // Days that pass, what the request does, whether it gets a cookie, and for how many seconds.
    type Act = fn(&mut Session<Attributes>);
    let steps: [(u32, &str, Act, Option<Option<u64>>); 11] = [
        (0, "begin", |session| session.insert("visits", 1).unwrap(), Some(None)),
        (1, "look", |_| (), None),
        (1, "change", |session| session.insert("visits", 2).unwrap(), None),
        (1, "renew", |session| session.renew(), Some(None)),
        (1, "remember", |session| session.remember(true), Some(Some(4 * 604_800))),
        (0, "remember again", |session| session.remember(true), None),
        (13, "change", |session| session.insert("visits", 3).unwrap(), None),
        (2, "look past half its life", |_| (), Some(Some(4 * 604_800))),
        (13, "look", |_| (), None),
        (0, "forget", |session| session.remember(false), Some(None)),
        (1, "look", |_| (), None),
    ];
    for (days, name, act, expected) in steps {
        clock.advance(DAY * days);
        let header = id.map(|id: SessionId| format!("__Host-session={}", id.expose()));
        let mut session = sessions.open(header.as_deref()).unwrap();
        assert_eq!(session.id(), id.as_ref(), "{name}");
        act(&mut session);
        let committed = sessions.commit(session).unwrap();
        let max_age = |cookie: &str| cookie.split("; Max-Age=").nth(1).map(|age| age.parse().unwrap());
        assert_eq!(set_cookie(&committed).map(max_age), expected, "{name}");
        id = committed.id().copied();
    }
}

type Settings = fn(SessionManagerBuilder<Attributes>) -> SessionManagerBuilder<Attributes>;

/// Cookies with the id left out, each with what clears it.
#[test]
fn rows_37_and_38_both_cookies_have_attributes() {
    let cases: [(Settings, &str); 5] = [
        (|secure| secure, "__Host-session=ID; HttpOnly; SameSite=Lax; Secure; Path=/"),
        (
            |ring| ring.cookie_name("ring-session").secure(false).cookie_path("/app"),
            "ring-session=ID; HttpOnly; SameSite=Lax; Path=/app",
        ),
        (|plain| plain.secure(false), "session=ID; HttpOnly; SameSite=Lax; Path=/"),
        (
            |wide| wide.cookie_domain("example.org").same_site(SameSite::Strict),
            "__Secure-session=ID; HttpOnly; SameSite=Strict; Secure; Path=/; Domain=example.org",
        ),
        (|open| open.http_only(false).same_site(SameSite::None), "__Host-session=ID; SameSite=None; Secure; Path=/"),
    ];
    for (settings, expected) in cases {
        let sessions = settings(SessionManager::builder(MemorySessionStore::new())).build().unwrap();
        let mut session = sessions.fresh();
        session.insert("user", "ada").unwrap();
        let committed = sessions.commit(session).unwrap();
        let id = committed.id().unwrap().expose();
        assert_eq!(set_cookie(&committed).unwrap().replace(&id, "ID"), expected);

        let (name, _) = expected.split_once('=').unwrap();
        let mut session = sessions.open([&*format!("{name}={id}")]).unwrap();
        assert!(!session.is_new());
        session.destroy();
        let cleared = sessions.commit(session).unwrap();
        let cleared = set_cookie(&cleared).unwrap();
        let gone = ["Max-Age=0", "Expires="];
        let (gone, same): (Vec<&str>, Vec<&str>) =
            cleared.split("; ").partition(|attribute| gone.iter().any(|gone| attribute.starts_with(gone)));
        assert_eq!(same.join("; "), expected.replace("ID", ""));
        assert!(gone.contains(&"Max-Age=0"), "{cleared}");
    }
}
