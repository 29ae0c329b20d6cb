//! The commands that each operation sends, and the keys that it leaves in Redis.

#[path = "wire/index.rs"]
mod index;
mod support;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::FromRedisValue;
use serde::{Deserialize, Serialize};
use support::{Fault, Monitor, PATIENCE, Proxy, RedisServer};
use threaded_sessions::{
    Clock, Codec, ErrorKind, Json, OnConflict, Outcome, RedisSessionStore, Session, SessionId, SessionManager,
};

/// The idle timeout unless configured otherwise, in milliseconds.
const WEEK: u64 = 604_800_000;
/// By how much the data outlives a session of the expiring store.
const GRACE: u64 = 86_400_000;
/// How slow a machine may be.
const SLACK: u64 = 600_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Plain,
    Expiring,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Visit {
    count: u32,
    seen: HashMap<String, u32>,
}

/// Runs a test with a separate server for each kind of store, and the default prefix.
fn on_each_kind(test: impl Fn(&RedisServer, &RedisSessionStore, Kind)) {
    for kind in [Kind::Plain, Kind::Expiring] {
        let server = RedisServer::start();
        test(&server, &store(&server, kind), kind);
    }
}

fn store(server: &RedisServer, kind: Kind) -> RedisSessionStore {
    store_at(server.url(), kind)
}

fn store_at(url: String, kind: Kind) -> RedisSessionStore {
    let builder = RedisSessionStore::builder().url(url).deadline(PATIENCE);
    if kind == Kind::Plain { builder.build().unwrap() } else { builder.expiring().build().unwrap() }
}

fn ask<R: FromRedisValue>(server: &RedisServer, command: &[&str]) -> R {
    redis::from_redis_value(server.cmd(command)).unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn cookie(id: &SessionId) -> String {
    format!("__Host-session={}", id.expose())
}

#[track_caller]
fn open(sessions: &SessionManager<Visit>, id: &SessionId) -> Session<Visit> {
    sessions.open([&*cookie(id)]).expect("the store works")
}

/// Commits, and checks that the change is stored.
#[track_caller]
fn store_change(sessions: &SessionManager<Visit>, session: Session<Visit>) -> SessionId {
    let committed = sessions.commit(session).expect("the store works");
    assert_eq!(committed.outcome(), Outcome::Stored);
    *committed.id().expect("it is stored")
}

#[track_caller]
fn create(sessions: &SessionManager<Visit>, count: u32) -> SessionId {
    let mut session = sessions.fresh();
    session.count = count;
    store_change(sessions, session)
}

/// The life of a session, operation by operation: `did` gets the name and the key of each. Every operation succeeds.
fn live(store: &RedisSessionStore, mut did: impl FnMut(&'static str, &str)) {
    let touching = SessionManager::<Visit>::new(store.clone());
    let settings = || SessionManager::<Visit>::builder(store.clone());
    let still = settings().touch_on_read(false).build().unwrap();

    let id = create(&touching, 1);
    let key = store.key(&id);
    did("create", &key);

    assert_eq!(open(&still, &id).count, 1);
    did("read", &key);

    let session = touching.peek([&*cookie(&id)]).unwrap();
    assert!(session.count == 1 && session.expires_in().is_some());
    assert_eq!(touching.commit(session).unwrap().outcome(), Outcome::Unchanged);
    did("peek", &key);

    let mut session = open(&touching, &id);
    assert_eq!(session.count, 1);
    did("touch", &key);

    let sparing = settings().touch_every(Duration::from_secs(3600)).build().unwrap();
    drop(open(&sparing, &id));
    did("touch if due", &key);

    session.count = 2;
    assert_eq!(store_change(&touching, session), id);
    did("save", &key);

    let mut session = open(&touching, &id);
    assert_eq!(session.count, 2);
    did("touch", &key);

    session.count = 3;
    session.on_conflict(OnConflict::LastWriteWins);
    assert_eq!(store_change(&touching, session), id);
    did("overwrite", &key);

    let mut session = open(&touching, &id);
    assert_eq!(session.count, 3);
    did("touch", &key);

    session.renew();
    let renewed = store_change(&touching, session);
    assert_ne!(renewed, id);
    did("renew", &key);

    let key = store.key(&renewed);
    let mut session = open(&touching, &renewed);
    assert_eq!(session.count, 3);
    did("touch", &key);

    session.destroy();
    assert_eq!(touching.commit(session).unwrap().outcome(), Outcome::Destroyed);
    did("destroy", &key);

    assert!(open(&touching, &renewed).is_new());
    did("miss", &key);
}

#[test]
fn every_operation_is_one_round_trip() {
    on_each_kind(|server, store, kind| {
        // From here on the server knows the scripts.
        live(store, |_, _| ());
        let proxy = Proxy::start(server);
        let store = store_at(proxy.url(), kind);
        // Counts requests, and does them no harm.
        proxy.set_for(Fault::Drip(Duration::ZERO), usize::MAX);
        let mut before = 0;
        live(&store, |operation, _| {
            let trips = proxy.fired() - before;
            before = proxy.fired();
            assert_eq!(trips, if operation == "miss" { 2 } else { 1 }, "{kind:?}, {operation}");
        });
    });
}

#[test]
fn operations_take_as_few_commands_as_they_can() {
    on_each_kind(|server, store, kind| {
        live(store, |_, _| ());
        let monitor = Monitor::start(server);
        live(store, |operation, key| {
            let seen: Vec<String> = monitor.commands().iter().map(|command| in_short(command, key)).collect();
            let expected: &[&str] = match (kind, operation) {
                (Kind::Plain, "create") => &["SET KEY VALUE PX 604800000 NX GET"],
                (Kind::Plain, "read") => &["GET KEY"],
                (_, "peek") => &["GET KEY", "PTTL KEY"],
                (Kind::Plain, "touch") => &["GETEX KEY PX 604800000"],
                (_, "touch if due") => &["GET KEY", "EVALSHA KEY"],
                (Kind::Plain, "overwrite") => &["SET KEY VALUE PX 604800000 XX GET"],
                (Kind::Plain, "destroy") => &["DEL KEY"],
                (Kind::Plain, "miss") => &["GETEX KEY PX 604800000", "EXISTS KEY:renewed"],
                (Kind::Expiring, "read") => &["GET KEY", "PTTL KEY"],
                (Kind::Expiring, "touch") => &["GET KEY", "EVALSHA KEY"],
                (Kind::Expiring, "miss") => &["GET KEY", "EVALSHA KEY", "EXISTS KEY:renewed"],
                _ => &["EVALSHA KEY"],
            };
            assert_eq!(seen, expected, "{kind:?}, {operation}");
        });
    });
}

/// A command with what differs from session to session left out; of a script only its first key.
fn in_short(command: &[String], key: &str) -> String {
    let shown = match &*command[0] {
        "EVALSHA" | "EVAL" => vec![&command[0], &command[3]],
        _ => command.iter().collect(),
    };
    let word = |word: &&String| if word.starts_with('{') { "VALUE".to_owned() } else { word.replace(key, "KEY") };
    shown.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Opens a session by several cookies: round trips, commands, and the value if a session was found.
fn open_several(server: &RedisServer, kind: Kind, ids: &[SessionId]) -> (usize, usize, Option<u32>) {
    let proxy = Proxy::start(server);
    let sessions = SessionManager::<Visit>::new(store_at(proxy.url(), kind));
    assert!(sessions.open_id(&SessionId::random()).unwrap().is_none(), "the connection is open");
    proxy.set_for(Fault::Drip(Duration::ZERO), usize::MAX);
    let (before, monitor) = (proxy.fired(), Monitor::start(server));
    let header = ids.iter().map(cookie).collect::<Vec<_>>().join("; ");
    let session = sessions.open([&*header]).unwrap();
    let found = session.id().is_some().then_some(session.count);
    (proxy.fired() - before, monitor.commands().len(), found)
}

#[test]
fn dead_cookies_cost_one_more_round_trip_together() {
    on_each_kind(|server, store, kind| {
        live(store, |_, _| ());
        let sessions = SessionManager::<Visit>::new(store.clone());
        let [one, two] = [1, 2].map(|count| create(&sessions, count));
        let dead = [(); 4].map(|()| SessionId::random());
        let read = if kind == Kind::Plain { 1 } else { 2 };
        for (ids, trips, commands, found) in [
            // Commands for a live first cookie, whatever comes after it.
            (vec![one], 1, read, Some(1)),
            (vec![one, two, dead[0], dead[1]], 1, read, Some(1)),
            (vec![dead[0]], 2, read + 1, None),
            (dead.to_vec(), 2, read + 7, None),
            (vec![dead[0], two], 3, 2 * read + 3, Some(2)),
            (vec![dead[0], dead[1], dead[2], two], 3, 2 * read + 7, Some(2)),
        ] {
            assert_eq!(open_several(server, kind, &ids), (trips, commands, found), "{kind:?}, {ids:?}");
        }
    });
}

#[test]
fn unchanged_sessions_cost_no_command() {
    on_each_kind(|server, store, kind| {
        let sessions = SessionManager::<Visit>::new(store.clone());
        let id = create(&sessions, 1);
        let monitor = Monitor::start(server);
        let text = id.expose();
        let malformed = [
            "",
            ";;=",
            "__Host-session",
            "__Host-session=",
            "__Host-session=index",
            "__Host-session=*",
            &format!("__Host-session={}", text.to_uppercase()),
            &format!("__Host-session={}", text.replace('-', "")),
            &format!("__Host-session={{{text}}}"),
            &format!("__Host-session={text}0"),
            &format!("__Host-session={}", store.key(&id)),
            &format!("session={text}"),
        ];
        let no_cookie = std::iter::once(None);
        for header in no_cookie.chain(malformed.map(Some)) {
            for touched in [false, true] {
                let mut session = sessions.open(header).unwrap();
                assert!(session.is_new());
                if touched {
                    session.seen.clear();
                }
                let committed = sessions.commit(session).unwrap();
                assert_eq!((committed.outcome(), committed.id()), (Outcome::Unchanged, None));
                assert!(committed.headers().all(|(name, _)| name != "Set-Cookie"));
                assert_eq!(monitor.commands(), [[""; 0]; 0], "{kind:?}, {header:?}");
            }
        }
    });
}

#[test]
fn an_untouched_hash_map_is_never_saved() {
    on_each_kind(|server, store, kind| {
        let sessions = SessionManager::<Visit>::new(store.clone());
        let mut session = sessions.fresh();
        session.seen = (0..8).map(|n| (format!("page {n}"), n)).collect();
        let id = store_change(&sessions, session);
        let monitor = Monitor::start(server);
        let read: &[&str] = match kind {
            Kind::Plain => &["GETEX KEY PX 604800000"],
            Kind::Expiring => &["GET KEY", "EVALSHA KEY"],
        };
        drop(open(&sessions, &id));
        let _script_is_known = monitor.commands();
        // Decoded anew each time, the map is encoded in another order nearly each time.
        for _ in 0..20 {
            let mut session = open(&sessions, &id);
            session.seen.retain(|_, _| true);
            assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Unchanged);
            let seen: Vec<String> =
                monitor.commands().iter().map(|command| in_short(command, &store.key(&id))).collect();
            assert_eq!(seen, read, "{kind:?}");
        }
    });
}

#[test]
fn save_does_not_send_the_expected_payload() {
    on_each_kind(|server, store, kind| {
        live(store, |_, _| ());
        let sessions = SessionManager::<Visit>::new(store.clone());
        let mut session = sessions.fresh();
        session.seen = (0..100).map(|number| (format!("/page/{number}"), number)).collect();
        let id = store_change(&sessions, session);
        let mut session = open(&sessions, &id);
        let monitor = Monitor::start(server);
        session.count = 1;
        store_change(&sessions, session);
        let payload: Vec<u8> = ask(server, &["GET", &store.key(&id)]);
        let sent: usize = monitor.commands()[0].iter().map(String::len).sum();
        assert!((payload.len()..payload.len() * 3 / 2).contains(&sent), "{sent} for {} in {kind:?}", payload.len());
    });
}

#[test]
fn lost_scripts_are_sent_again() {
    on_each_kind(|server, store, kind| {
        let forget = || drop(server.cmd(&["SCRIPT", "FLUSH"]));
        forget();
        let monitor = Monitor::start(server);
        let mut sent_whole = 0;
        live(store, |_, _| {
            sent_whole += monitor.commands().iter().filter(|command| command[0] == "EVAL").count();
            forget();
        });
        let scripts = if kind == Kind::Plain { 3 } else { 11 };
        assert_eq!(sent_whole, scripts, "{kind:?}");
    });
}

#[test]
fn session_is_one_json_key_with_idle_ttl() {
    on_each_kind(|server, store, kind| {
        let sessions = SessionManager::<Visit>::new(store.clone());
        let millis = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let before = millis();
        let mut session = sessions.fresh();
        session.count = 7;
        session.seen.insert("/".to_owned(), 1);
        let id = store_change(&sessions, session);
        let after = millis();

        let key = format!("sessions:{}", id.expose());
        let mut keys: Vec<String> = ask(server, &["KEYS", "*"]);
        keys.retain(|key| kind == Kind::Plain || key != "sessions:index");
        assert_eq!(keys, [&*key]);
        assert!(uuid::Uuid::try_parse(&id.expose()).is_ok());

        let value: serde_json::Value = serde_json::from_str(&ask::<String>(server, &["GET", &key])).unwrap();
        let created = value["created"].as_u64().unwrap();
        assert!((before..=after).contains(&created));
        let expected = serde_json::json!({
            "v": 1, "rev": value["rev"].as_u64(), "created": created, "idle": WEEK, "data": {"count": 7, "seen": {"/": 1}},
        });
        assert_eq!(value, expected);
        assert!(value["rev"].is_u64());

        let left: u64 = ask(server, &["PTTL", &key]);
        let whole = if kind == Kind::Plain { WEEK } else { WEEK + GRACE };
        assert!((whole - SLACK..=whole).contains(&left), "{kind:?}: {left}");
    });
}

#[test]
fn with_hashed_keys_redis_holds_no_id() {
    for kind in [Kind::Plain, Kind::Expiring] {
        let server = RedisServer::start();
        let monitor = Monitor::start(&server);
        for hashed in [false, true] {
            let builder = RedisSessionStore::builder().url(server.url()).deadline(PATIENCE);
            let builder = if kind == Kind::Plain { builder } else { builder.expiring() };
            let store = if hashed { builder.hashed_keys() } else { builder }.build().unwrap();
            let sessions = SessionManager::<Visit>::new(store);
            let mut session = sessions.fresh();
            session.count = 1;
            if kind == Kind::Expiring {
                session.bind("ada", "phone");
            }
            let first = store_change(&sessions, session);
            let mut session = open(&sessions, &first);
            session.renew();
            let second = store_change(&sessions, session);
            sessions.update(&second, |visit| visit.count += 1).unwrap().expect("it lives");
            assert!(open(&sessions, &first).is_detached());
            assert!(sessions.open_id(&SessionId::random()).unwrap().is_none());
            assert!(!open(&sessions, &second).is_new());

            // All commands that Redis got.
            let sent = format!("{:?}", monitor.commands());
            let holds = |id: &SessionId| sent.contains(&id.expose()) || sent.contains(&id.expose().replace('-', ""));
            assert_eq!([&first, &second].map(holds), [!hashed; 2], "{kind:?}");
        }
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Everything {
    name: Option<String>,
    nothing: Option<String>,
    empty: Option<String>,
    numbers: (u64, i64, f64, char, bool, ()),
    steps: Vec<Step>,
    tagged: Vec<Tagged>,
    by_name: HashMap<String, BTreeMap<String, Vec<Option<Step>>>>,
    by_number: BTreeMap<u16, Step>,
    deep: Option<Box<Everything>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Step {
    Unit,
    Newtype(String),
    Tuple(i8, Option<u8>),
    Struct { at: Duration, then: Box<Option<Step>> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Tagged {
    Empty,
    Full { n: u32 },
}

/// With keys that collide once everything is a string, as in rrss: "hi" is both a key and a value.
fn everything(depth: u32) -> Everything {
    let last = Step::Struct { at: Duration::from_millis(1500), then: Box::new(Some(Step::Unit)) };
    let steps = vec![Step::Unit, Step::Newtype("größer ☃ \"\\\n\0".to_owned()), Step::Tuple(-1, None), last];
    let lists = BTreeMap::from([("hi".to_owned(), vec![Some(steps[2].clone()), None]), (String::new(), vec![])]);
    Everything {
        name: Some("hi".to_owned()),
        nothing: None,
        empty: Some(String::new()),
        numbers: (u64::MAX, i64::MIN, 0.1, '☃', true, ()),
        tagged: vec![Tagged::Empty, Tagged::Full { n: 1 }],
        by_name: HashMap::from([("hi".to_owned(), lists), ("bye".to_owned(), BTreeMap::new())]),
        by_number: (0..).zip(steps.clone()).collect(),
        steps,
        deep: (depth > 0).then(|| Box::new(everything(depth - 1))),
    }
}

fn comes_back_equal<C: Codec<Everything>>(codec: impl Fn() -> C) {
    on_each_kind(|_, store, kind| {
        let sessions = SessionManager::builder_with_codec(store.clone(), codec()).build().unwrap();
        let mut session = sessions.fresh();
        *session = everything(5);
        let id = *sessions.commit(session).unwrap().id().unwrap();
        assert_eq!(*sessions.open_id(&id).unwrap().unwrap(), everything(5), "{kind:?}");
    });
}

#[test]
fn nested_values_survive_json() {
    comes_back_equal(Json::new);
}

#[cfg(feature = "msgpack")]
#[test]
fn nested_values_survive_message_pack() {
    comes_back_equal(threaded_sessions::MessagePack::new);
}

/// A full Redis ends no session and loses no data.
#[test]
fn full_redis_still_reads_and_touches_sessions() {
    for kind in [Kind::Plain, Kind::Expiring] {
        let server = RedisServer::with(&["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]);
        let store = store(&server, kind);
        let sessions = SessionManager::<Visit>::new(store.clone());
        let ids: Vec<SessionId> = (1..4).map(|count| create(&sessions, count)).collect();
        // The scripts are known: what the server keeps of them takes memory, too.
        live(&store, |_, _| ());
        let full = |result: Result<_, threaded_sessions::Error>| match result {
            Err(error) => assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{kind:?}"),
            Ok::<threaded_sessions::Committed, _>(committed) => panic!("{kind:?}: {committed:?}"),
        };
        let filling = || {
            let mut session = sessions.fresh();
            session.seen.insert("x".repeat(100_000), 1);
            sessions.commit(session)
        };
        let filled = (0..100).map(|_| filling()).find(Result::is_err).expect("4 MB are full by now");
        full(filled);
        // The limit is so far below the used memory that a shrinking buffer makes no room.
        server.cmd(&["CONFIG", "SET", "maxmemory", "2mb"]);

        let keys: u64 = ask(&server, &["DBSIZE"]);
        full(filling());
        for (id, count) in ids.iter().zip(1..) {
            server.cmd(&["PEXPIRE", &store.key(id), &(WEEK / 2 + GRACE).to_string()]);
            let mut session = open(&sessions, id);
            assert_eq!(session.count, count, "{kind:?}");
            let left: u64 = ask(&server, &["PTTL", &store.key(id)]);
            assert!(left > WEEK - SLACK, "{kind:?}: the touch did not count, {left}");
            session.count = 100;
            full(sessions.commit(session));
            let mut session = open(&sessions, id);
            session.renew();
            full(sessions.commit(session));
            assert_eq!(open(&sessions, id).count, count, "{kind:?}");
        }
        assert_eq!(ask::<u64>(&server, &["DBSIZE"]), keys, "{kind:?}");
        // Logging out works, and makes room.
        let mut session = open(&sessions, &ids[0]);
        session.destroy();
        assert_eq!(sessions.commit(session).unwrap().outcome(), Outcome::Destroyed);
        assert!(open(&sessions, &ids[0]).is_new());
    }
}

/// Near the end of its lifetime a session is read once with a second command, which moves the deadline back. Then it is known
/// that its deadline no longer moves.
#[test]
fn reads_near_lifetime_end_are_single_commands() {
    const DAY: Duration = Duration::from_secs(86_400);
    on_each_kind(|server, store, kind| {
        let clock = Clock::manual();
        let builder = SessionManager::<Visit>::builder(store.clone()).clock(clock.clone()).idle_timeout(7 * DAY);
        let sessions = builder.lifetime(30 * DAY).build().unwrap();
        let id = create(&sessions, 1);
        let read = || {
            let monitor = Monitor::start(server);
            assert!(open(&sessions, &id).expires_in().unwrap() <= 7 * DAY);
            monitor.commands().len()
        };
        read(); // the server has the scripts
        let healthy = read();
        clock.advance(25 * DAY);
        assert_eq!(read(), 2 * healthy, "{kind:?}");
        for _ in 0..5 {
            assert!(read() <= healthy, "{kind:?}");
        }
        let end = 5 * 86_400_000 + if kind == Kind::Expiring { GRACE } else { 0 };
        let left: u64 = ask(server, &["PTTL", &store.key(&id)]);
        assert!((end - SLACK..=end).contains(&left), "{kind:?}: {left}");
    });
}

/// Returns the size of the append-only file. The first call turns the file on.
fn appended(server: &RedisServer) -> u64 {
    server.cmd(&["CONFIG", "SET", "appendonly", "yes"]);
    let info = || ask::<String>(server, &["INFO", "persistence"]);
    let is_idle = || ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0"].iter().all(|line| info().contains(line));
    assert!(support::eventually(PATIENCE, is_idle));
    let info = info();
    let size = info.lines().find_map(|line| line.strip_prefix("aof_current_size:")).expect("the file is on");
    size.parse().unwrap()
}

#[test]
fn reads_with_touch_every_write_nothing() {
    const READS: u64 = 1000;
    on_each_kind(|server, store, kind| {
        let touching = SessionManager::<Visit>::new(store.clone());
        let settings = SessionManager::<Visit>::builder(store.clone()).touch_every(Duration::from_secs(3600));
        let sparing = settings.build().unwrap();
        let id = create(&sparing, 1);
        for sessions in [&sparing, &touching, &sparing] {
            drop(open(sessions, &id)); // the server has the scripts
        }
        let before = appended(server);
        let monitor = Monitor::start(server);
        let read_all = |sessions| (0..READS).for_each(|_| drop(open(sessions, &id)));
        read_all(&sparing);
        let seen = monitor.commands();
        assert_eq!(seen.len() as u64, 2 * READS, "{kind:?}");
        assert!(seen.iter().all(|command| ["GET", "EVALSHA"].contains(&&*command[0])), "{kind:?}");
        assert_eq!(appended(server), before, "{kind:?}: a read wrote");
        read_all(&touching);
        let grown = appended(server) - before;
        assert!(grown > 50 * READS, "{kind:?}: {grown} bytes");
    });
}

#[test]
fn read_touches_once_idle_timeout_is_left() {
    const EVERY: u64 = 3_600_000;
    on_each_kind(|server, store, kind| {
        let grace = if kind == Kind::Expiring { GRACE } else { 0 };
        let settings = SessionManager::<Visit>::builder(store.clone()).touch_every(Duration::from_millis(EVERY));
        let sessions = settings.build().unwrap();
        let id = create(&sessions, 1);
        let key = store.key(&id);
        let left = || ask::<u64>(server, &["PTTL", &key]) - grace;
        assert!((WEEK + EVERY - SLACK..=WEEK + EVERY).contains(&left()), "{kind:?}");
        for (before, after) in [
            (WEEK + EVERY / 2, WEEK + EVERY / 2),
            (WEEK + SLACK, WEEK + SLACK),
            (WEEK, WEEK + EVERY),
            (WEEK / 2, WEEK + EVERY),
            (2 * WEEK, WEEK + EVERY),
        ] {
            server.cmd(&["PEXPIRE", &key, &(before + grace).to_string()]);
            let certain = open(&sessions, &id).expires_in().unwrap().as_millis() as u64;
            assert!((after - SLACK..=after).contains(&left()), "{kind:?}: {before} became {}", left());
            assert!((after - EVERY - SLACK..=after - EVERY).contains(&certain), "{kind:?}: {certain}");
        }
    });
}

/// A read does not know the payload before it touches. Once a read has seen that the lifetime bounds the TTL, no further one writes.
#[test]
fn reads_near_the_end_of_lifetime_write_nothing() {
    const HOUR: u64 = 3_600_000;
    on_each_kind(|server, store, kind| {
        let grace = if kind == Kind::Expiring { GRACE } else { 0 };
        let (clock, hours) = (Clock::manual(), |hours| Duration::from_millis(HOUR * hours));
        let builder = SessionManager::<Visit>::builder(store.clone()).clock(clock.clone()).idle_timeout(hours(168));
        let sessions = builder.lifetime(hours(720)).touch_every(hours(24)).build().unwrap();
        let id = create(&sessions, 1);
        drop(open(&sessions, &id)); // the server has the scripts
        let dirty = || {
            let info: String = ask(server, &["INFO", "persistence"]);
            info.lines().find_map(|line| line.strip_prefix("rdb_changes_since_last_save:")).unwrap().to_owned()
        };
        let mut age = 0;
        // The lifetime first bounds the additional time, and then the idle timeout.
        for (left, certain) in [(180, 168), (160, 160), (1, 1)] {
            clock.advance(hours(720 - left - age));
            age = 720 - left;
            server.cmd(&["PEXPIRE", &store.key(&id), &(HOUR * left + grace).to_string()]);
            let before = dirty();
            let expires_in = open(&sessions, &id).expires_in().unwrap();
            assert!(
                (hours(certain) - Duration::from_secs(60)..=hours(certain)).contains(&expires_in),
                "{expires_in:?}"
            );
            assert_eq!(dirty(), before, "{kind:?}, {left} hours before the end");
        }
    });
}
