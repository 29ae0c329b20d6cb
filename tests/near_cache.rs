//! The near cache never serves what it must not, whatever happens elsewhere.
//!
//! Each test of staleness changes a session once and then leaves it, because a lost announcement would heal at the next change.

mod support;

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, RedisServer, alone, eventually, heat, in_child, near, shared, unique};
use threaded_sessions::store::{Bind, Ending, Found, SessionIndex, Touch, Write};
use threaded_sessions::{
    EndReason, ErrorKind, NearCache, RedisSessionStore, RedisSessionStoreBuilder, RedisWarning, SessionId,
    SessionManager, SessionStore, contract, redis,
};

const HOUR: Duration = Duration::from_secs(3600);

/// How much later than the lease a read may still be stale.
const SLACK: Duration = Duration::from_millis(20);

/// How soon an announcement arrives on a busy machine.
const SOON: Duration = Duration::from_millis(250);

fn builder(server: &RedisServer, prefix: &str) -> RedisSessionStoreBuilder {
    RedisSessionStore::builder().url(server.url()).prefix(prefix)
}

fn cached(builder: RedisSessionStoreBuilder, lease: Duration) -> RedisSessionStore {
    builder.near_cache(NearCache::new().lease(lease)).build().unwrap()
}

fn payload(revision: u64) -> Vec<u8> {
    format!("{{\"v\":1,\"rev\":{revision},\"value\":\"{}\"}}", "x".repeat(100)).into_bytes()
}

fn create(store: &impl SessionStore, revision: u64) -> SessionId {
    let id = store.fresh_id(None);
    let _ = store.create(&id, Write::new(&payload(revision), HOUR)).unwrap();
    id
}

fn read(store: &impl SessionStore, id: &SessionId) -> Option<Vec<u8>> {
    match store.read(id, Touch::Set(HOUR)).unwrap() {
        Found::Live(stored) => Some(stored.payload.to_vec()),
        _ => None,
    }
}

/// A relay that can hold back what the server sends to caches. It passes on everything else.
struct Relay {
    address: SocketAddr,
    holds: Arc<AtomicBool>,
}

impl Relay {
    fn start(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, holds, port) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)), server.port());
        let held = holds.clone();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
                let tracks = Arc::new(AtomicBool::new(false));
                for (mut from, mut to, is_request) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap(), true), (server, client, false)]
                {
                    let (tracks, holds) = (tracks.clone(), held.clone());
                    to.set_nodelay(true).unwrap();
                    thread::spawn(move || {
                        let mut buffer = [0; 16 * 1024];
                        while let Ok(length @ 1..) = from.read(&mut buffer) {
                            if is_request && buffer[..length].windows(8).any(|part| part == b"TRACKING") {
                                tracks.store(true, Ordering::SeqCst);
                            }
                            while !is_request && tracks.load(Ordering::SeqCst) && holds.load(Ordering::SeqCst) {
                                sleep(Duration::from_millis(1));
                            }
                            if to.write_all(&buffer[..length]).is_err() {
                                break;
                            }
                        }
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { address, holds }
    }

    fn builder(&self, prefix: &str) -> RedisSessionStoreBuilder {
        RedisSessionStore::builder().url(format!("redis://{}", self.address)).prefix(prefix)
    }

    fn store(&self, prefix: &str, lease: Duration) -> RedisSessionStore {
        cached(self.builder(prefix), lease)
    }
}

/// Returns how often a test repeats what it does. `scripts/proof` sets `PROOF`, and has more time than `scripts/test`.
fn rounds(usual: u64, of_the_proof: u64) -> u64 {
    if env::var_os("PROOF").is_some() { of_the_proof } else { usual }
}

/// Ends a session elsewhere, and returns for how long reads that begin later are stale.
fn staleness(store: &RedisSessionStore, elsewhere: &RedisSessionStore, id: &SessionId, patience: Duration) -> Duration {
    assert!(elsewhere.delete(id).unwrap());
    let (ended, mut stale) = (Instant::now(), Duration::ZERO);
    while ended.elapsed() < patience {
        let begun = ended.elapsed();
        if read(store, id).is_none() {
            break;
        }
        stale = begun;
    }
    stale
}

#[test]
fn blackholed_connection_is_stale_one_lease_at_most() {
    let (server, lease) = (RedisServer::start(), Duration::from_millis(100));
    let relay = Relay::start(&server);
    let elsewhere = builder(&server, "sessions").build().unwrap();
    let short = relay.store("sessions", lease);
    // The control: with a long lease, the same read is stale for longer.
    let long = relay.store("sessions", HOUR);
    let (mut longest, mut control_was_stale) = (Duration::ZERO, false);
    for round in 0..rounds(8, 28) {
        let is_control = round % 4 == 3;
        let store = if is_control { &long } else { &short };
        let id = create(&elsewhere, 100 + round);
        heat(store, &id);
        relay.holds.store(true, Ordering::SeqCst);
        let stale = staleness(store, &elsewhere, &id, lease + 5 * SLACK);
        relay.holds.store(false, Ordering::SeqCst);
        // A cache that happens to lose its connection is not stale for longer, whatever its lease.
        control_was_stale |= is_control && stale > lease + SLACK;
        assert!(is_control || stale <= lease + SLACK, "{stale:?} in round {round}");
        longest = longest.max(if is_control { Duration::ZERO } else { stale });
        let serves = || near(&short).out_of_service_for.is_none() && near(&long).out_of_service_for.is_none();
        assert!(eventually(PATIENCE, serves), "the cache serves again");
    }
    assert!(control_was_stale);
    println!("the longest staleness with a lease of {lease:?} was {longest:?}");
}

#[test]
fn listener_reads_watched_session_past_cache() {
    let server = RedisServer::start();
    let relay = Relay::start(&server);
    let store = cached(relay.builder("sessions").announce_ends(), HOUR);
    // It announces no end.
    let elsewhere = builder(&server, "sessions").build().unwrap();
    let listener = SessionManager::<u32>::new(store.clone()).listener().start().unwrap();
    assert!(eventually(PATIENCE, || listener.is_listening()));
    let (id, never) = (create(&elsewhere, 1), store.fresh_id(None));
    let watch = listener.watch(&id);
    assert!(listener.watch(&never).wait(PATIENCE).is_some(), "the listener has read both sessions once");
    heat(&store, &id);
    relay.holds.store(true, Ordering::SeqCst);
    assert!(elsewhere.delete(&id).unwrap());
    assert!(read(&store, &id).is_some(), "the cache is stale while its connection is held");
    server.cmd(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let ended = watch.wait(PATIENCE);
    relay.holds.store(false, Ordering::SeqCst);
    assert_eq!(ended.map(|ended| ended.reason), Some(EndReason::Unknown));
}

/// Opens the session of a cookie, and returns what is in it.
type Opens = fn(&SessionManager<u32>, &str) -> u32;

/// The ways to open a session, first through the cache, then past it.
const OPENS: &[[Opens; 2]] = &[
    [
        |sessions, cookie| *sessions.open([cookie]).unwrap(),
        |sessions, cookie| *sessions.open_uncached([cookie]).unwrap(),
    ],
    #[cfg(feature = "http")]
    [in_http::usual, in_http::fresh],
    #[cfg(feature = "rouille")]
    [in_rouille::usual, in_rouille::fresh],
    #[cfg(feature = "tiny-http")]
    [in_tiny_http::usual, in_tiny_http::fresh],
];

#[cfg(feature = "http")]
mod in_http {
    use http::{Request, Response};
    use threaded_sessions::http::{session, session_uncached};
    use threaded_sessions::{Session, SessionManager};

    fn request(cookie: &str) -> Request<()> {
        Request::builder().header("Cookie", cookie).body(()).unwrap()
    }

    fn number(session: &mut Session<u32>) -> Response<Vec<u8>> {
        Response::new(vec![**session as u8])
    }

    pub(super) fn usual(sessions: &SessionManager<u32>, cookie: &str) -> u32 {
        session(sessions, &request(cookie), number).body()[0].into()
    }

    pub(super) fn fresh(sessions: &SessionManager<u32>, cookie: &str) -> u32 {
        session_uncached(sessions, &request(cookie), number).body()[0].into()
    }
}

#[cfg(feature = "rouille")]
mod in_rouille {
    use rouille::{Request, Response};
    use threaded_sessions::rouille::{session, session_uncached};
    use threaded_sessions::{Session, SessionManager};

    fn request(cookie: &str) -> Request {
        Request::fake_http("GET", "/", vec![("Cookie".into(), cookie.into())], vec![])
    }

    fn number(session: &mut Session<u32>) -> Response {
        Response::text("").with_status_code(**session as u16)
    }

    pub(super) fn usual(sessions: &SessionManager<u32>, cookie: &str) -> u32 {
        session(sessions, &request(cookie), number).status_code.into()
    }

    pub(super) fn fresh(sessions: &SessionManager<u32>, cookie: &str) -> u32 {
        session_uncached(sessions, &request(cookie), number).status_code.into()
    }
}

#[cfg(feature = "tiny-http")]
mod in_tiny_http {
    use threaded_sessions::tiny_http::{session, session_uncached};
    use threaded_sessions::{Session, SessionManager};
    use tiny_http::{Header, Request, Response, TestRequest};

    fn request(cookie: &str) -> Request {
        TestRequest::new().with_header(Header::from_bytes("Cookie", cookie).unwrap()).into()
    }

    fn number(session: &mut Session<u32>, _: &mut Request) -> Response<std::io::Empty> {
        Response::empty(**session as u16)
    }

    pub(super) fn usual(sessions: &SessionManager<u32>, cookie: &str) -> u32 {
        session(sessions, &mut request(cookie), number).status_code().0.into()
    }

    pub(super) fn fresh(sessions: &SessionManager<u32>, cookie: &str) -> u32 {
        session_uncached(sessions, &mut request(cookie), number).status_code().0.into()
    }
}

#[test]
fn fresh_read_bypasses_the_cache() {
    let server = RedisServer::start();
    let relay = Relay::start(&server);
    let sessions = SessionManager::<u32>::new(relay.store("sessions", HOUR));
    let elsewhere = SessionManager::<u32>::new(builder(&server, "sessions").build().unwrap());
    for [usual, fresh] in OPENS {
        let mut session = elsewhere.fresh();
        *session = 1;
        let committed = elsewhere.commit(session).unwrap();
        let cookie = format!("__Host-session={}", committed.id().unwrap().expose());
        let hits = || sessions.health().near_cache.unwrap().hits;
        let hot = || {
            let before = hits();
            usual(&sessions, &cookie) == 1 && hits() > before
        };
        assert!(eventually(PATIENCE, hot));
        relay.holds.store(true, Ordering::SeqCst);
        let mut session = elsewhere.open([&*cookie]).unwrap();
        *session = 2;
        assert!(elsewhere.commit(session).unwrap().id().is_some());
        assert_eq!(usual(&sessions, &cookie), 1, "the cache is stale while its connection is held");
        assert_eq!(fresh(&sessions, &cookie), 2);
        assert_eq!(usual(&sessions, &cookie), 2, "it is dropped");
        relay.holds.store(false, Ordering::SeqCst);
    }
}

#[test]
fn killed_pool_connections_leave_no_stale_read() {
    let server = RedisServer::start();
    let store = cached(builder(&server, "sessions"), Duration::from_secs(10));
    let elsewhere = builder(&server, "sessions").build().unwrap();
    for revision in 0..3 {
        let id = create(&elsewhere, 10 + revision);
        heat(&store, &id);
        let clients = redis::from_redis_value::<String>(server.cmd(&["CLIENT", "LIST"])).unwrap();
        let of = |line: &str, name: &str| {
            line.split(' ').find_map(|field| field.strip_prefix(name)).unwrap_or_default().to_owned()
        };
        // The flag `t` is that of a client that tracks keys.
        for line in clients.lines().filter(|line| !of(line, "flags=").contains('t')) {
            let _ = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(of(line, "id=")).exec(&mut server.connection());
        }
        assert!(near(&store).out_of_service_for.is_none(), "the cache has its own connection");
        let stale = staleness(&store, &elsewhere, &id, SOON * 4);
        assert!(stale < SOON, "{stale:?}");
    }
}

#[test]
fn own_write_precedes_no_stale_read() {
    let store = &cached(builder(shared(), &unique("near-own")), Duration::from_secs(10));
    let id = &create(store, 1);
    let (over, written) = (&AtomicBool::new(false), &AtomicU64::new(1));
    let revision = |payload: Vec<u8>| {
        let text = String::from_utf8(payload).unwrap();
        text.split([':', ',']).nth(3).unwrap().parse::<u64>().unwrap()
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let at_least = written.load(Ordering::SeqCst);
                    let found = revision(read(store, id).unwrap());
                    assert!(found >= at_least, "{found} after {at_least} was written");
                }
            });
        }
        for next in 2..rounds(2500, 100_002) {
            let _ = store.save(id, Write::new(&payload(next), HOUR), None).unwrap();
            written.store(next, Ordering::SeqCst);
            assert_eq!(revision(read(store, id).unwrap()), next);
            // Some versions are read often enough to be served.
            (0..next % 7).for_each(|_| assert_eq!(revision(read(store, id).unwrap()), next));
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(near(store).hits > 100, "{:?}", near(store));
    println!("{} writes, {:?}", written.load(Ordering::SeqCst), near(store));
}

#[test]
fn hits_send_no_command() {
    let server = RedisServer::start();
    for url in [server.url(), server.unix_url(), format!("{}/3?protocol=resp3", server.url())] {
        for expiring in [false, true] {
            let prefix = unique("hits");
            let mut builder = RedisSessionStore::builder().url(&*url).prefix(&*prefix);
            if expiring {
                builder = builder.expiring();
            }
            let store = cached(builder, Duration::from_secs(1));
            let id = create(&store, 7);
            heat(&store, &id);
            let calls = || {
                let stats = redis::from_redis_value::<String>(server.cmd(&["INFO", "commandstats"])).unwrap();
                // The pool may open one more connection.
                let other = ["_ping:", "_info:", "_hello:", "_client|setinfo:"];
                let counted = stats.lines().filter(|line| !other.iter().any(|name| line.contains(name)));
                counted.filter_map(|line| line.split_once(',')).map(|(calls, _)| calls.to_owned()).collect::<Vec<_>>()
            };
            let before = calls();
            for touch in [Touch::No, Touch::Peek, Touch::Set(HOUR), Touch::Extend(HOUR)] {
                let Found::Live(stored) = store.read(&id, touch).unwrap() else { panic!("it is live") };
                assert_eq!(stored.payload, payload(7));
                let left = stored.expires_in.unwrap();
                assert!(left > HOUR - Duration::from_secs(60) && left <= HOUR + HOUR / 64, "{left:?} for {touch:?}");
            }
            let due = Touch::SetIfDue { ttl: 2 * HOUR, enough: HOUR / 2 };
            assert!(matches!(store.read(&id, due).unwrap(), Found::Live(_)));
            assert_eq!(calls(), before, "{url}");
        }
    }
}

#[test]
fn due_touch_moves_the_deadline() {
    let store = cached(builder(shared(), &unique("near-touch")), Duration::from_secs(1));
    let id = create(&store, 1);
    heat(&store, &id);
    let left = || redis::from_redis_value::<i64>(shared().cmd(&["PTTL", &store.key(&id)])).unwrap() as u64;
    let slack = Duration::from_secs(60);
    for (touch, expected) in [
        (Touch::Set(2 * HOUR), 2 * HOUR),
        (Touch::Extend(HOUR), 2 * HOUR),
        (Touch::Extend(3 * HOUR), 3 * HOUR),
        (Touch::Set(HOUR), HOUR),
        (Touch::SetIfDue { ttl: 4 * HOUR, enough: 2 * HOUR }, 4 * HOUR),
    ] {
        let Found::Live(stored) = store.read(&id, touch).unwrap() else { panic!("it is live") };
        let reported = stored.expires_in.unwrap();
        assert!(reported <= expected + expected / 64 && reported > expected - slack, "{reported:?} after {touch:?}");
        let left = Duration::from_millis(left());
        assert!(left <= expected + expected / 64 && left > expected - slack, "{left:?} after {touch:?}");
    }
}

/// A change by another process.
type Change = fn(&RedisServer, &RedisSessionStore, &SessionId);

#[test]
fn changes_elsewhere_reach_the_cache() {
    let server = RedisServer::start();
    let changes: [(&str, Change); 8] = [
        ("delete", |_, elsewhere, id| assert!(elsewhere.delete(id).unwrap())),
        ("flush", |server, _, _| drop(server.cmd(&["FLUSHALL"]))),
        ("expiry", |server, elsewhere, id| drop(server.cmd(&["PEXPIREAT", &elsewhere.key(id), "1"]))),
        ("shorter TTL", |server, elsewhere, id| {
            let grace = if elsewhere.index().is_some() { 86_400_000 } else { 0 };
            server.cmd(&["PEXPIRE", &elsewhere.key(id), &(grace + 30).to_string()]);
        }),
        ("rotation", |_, elsewhere, id| {
            let new = elsewhere.fresh_id(Some(id));
            let _ = elsewhere.rotate(id, &new, Write::new(&payload(9), HOUR), None).unwrap();
        }),
        ("rename", |server, elsewhere, id| drop(server.cmd(&["RENAME", &elsewhere.key(id), "elsewhere"]))),
        ("script flush", |server, elsewhere, id| {
            server.cmd(&["SCRIPT", "FLUSH"]);
            let new = elsewhere.fresh_id(Some(id));
            let _ = elsewhere.rotate(id, &new, Write::new(&payload(8), HOUR), None).unwrap();
        }),
        ("another type", |server, elsewhere, id| {
            server.cmd(&["DEL", &elsewhere.key(id)]);
            server.cmd(&["HSET", &elsewhere.key(id), "field", "value"]);
        }),
    ];
    for expiring in [false, true] {
        let kind = |builder: RedisSessionStoreBuilder| if expiring { builder.expiring() } else { builder };
        let prefix = if expiring { "expiring" } else { "plain" };
        let store = cached(kind(builder(&server, prefix)), HOUR);
        let elsewhere = kind(builder(&server, prefix)).build().unwrap();
        for (name, change) in &changes {
            let id = create(&elsewhere, 1);
            heat(&store, &id);
            change(&server, &elsewhere, &id);
            // A read without a touch, because a touch could prolong a session that is about to expire.
            let is_gone = || !matches!(store.read(&id, Touch::Peek), Ok(Found::Live(_)));
            assert!(eventually(SOON, is_gone), "{name}, {prefix}");
        }
    }
}

#[test]
fn reaper_and_ends_elsewhere_reach_the_cache() {
    let server = shared();
    let prefix = unique("near-ends");
    let store = cached(builder(server, &prefix).expiring(), HOUR);
    let elsewhere = builder(server, &prefix).expiring().build().unwrap();
    let owned = || {
        let id = elsewhere.fresh_id(None);
        let bind = Bind::To { principal: "ada", cap: None };
        let _ = elsewhere.create(&id, Write::new(&payload(1), HOUR).with_bind(bind)).unwrap();
        heat(&store, &id);
        id
    };
    let is_gone = |id: SessionId| eventually(SOON, || read(&store, &id).is_none());
    let id = owned();
    assert_eq!(elsewhere.end("ada", Ending::All).unwrap(), 1);
    assert!(is_gone(id), "end_all");
    let id = owned();
    assert!(elsewhere.end_everybody().unwrap() >= 1);
    assert!(is_gone(id), "end_everybody");
    let id = owned();
    // Over by the clock of Redis, with its data still there.
    server.cmd(&["PEXPIRE", &elsewhere.key(&id), "86399999"]);
    server.cmd(&["ZADD", &format!("{prefix}:index"), "1", &elsewhere.key(&id)]);
    assert_eq!(elsewhere.reap(0, 10, false).unwrap().removed, 1);
    assert!(is_gone(id), "reaper");
}

#[test]
fn own_ends_leave_no_stale_read() {
    let store = cached(builder(shared(), &unique("near-own-ends")).expiring(), HOUR);
    let owned = |cap| {
        let id = store.fresh_id(None);
        let write = Write::new(b"without a revision", HOUR).with_bind(Bind::To { principal: "ada", cap });
        let _ = store.create(&id, write).unwrap();
        id
    };
    for _ in 0..20 {
        let id = owned(None);
        heat(&store, &id);
        let newest = owned(Some(1));
        assert!(read(&store, &id).is_none(), "the cap ended it");
        heat(&store, &newest);
        assert_eq!(store.end("ada", Ending::All).unwrap(), 1);
        assert!(read(&store, &newest).is_none());
        let id = owned(None);
        heat(&store, &id);
        assert!(store.end_everybody().unwrap() >= 1);
        assert!(read(&store, &id).is_none());
    }
}

#[test]
fn restart_takes_the_cache_out_of_service() {
    let server = RedisServer::start();
    let store = cached(builder(&server, "sessions"), HOUR);
    let id = create(&store, 1);
    heat(&store, &id);
    server.restart();
    let is_gone = || matches!(store.read(&id, Touch::No), Ok(Found::Absent));
    assert!(eventually(PATIENCE, is_gone));
    let id = create(&store, 2);
    heat(&store, &id);
    assert_eq!(near(&store).out_of_service_for, None);
}

/// The variable that makes this binary the process that is suspended: the URL, the prefix and the id.
const SUSPENDED: &str = "NEAR_CACHE_SUSPENDED";

/// Serves a session to its parent: for each line it reads the session once, and prints if it was served.
fn serve_to_parent(orders: &str) {
    let [url, prefix, id] = orders.split(' ').collect::<Vec<_>>()[..] else { panic!("{orders}") };
    let (store, id) = (cached(RedisSessionStore::builder().url(url).prefix(prefix), SUSPENDED_LEASE), id.parse());
    let id = id.unwrap();
    heat(&store, &id);
    println!("\nhot");
    for _ in io::stdin().lines() {
        println!("\n{}", if read(&store, &id).is_some() { "served" } else { "gone" });
    }
}

const SUSPENDED_LEASE: Duration = Duration::from_millis(200);

#[test]
fn suspended_process_serves_no_stale_read() {
    if let Ok(orders) = env::var(SUSPENDED) {
        return serve_to_parent(&orders);
    }
    let (server, prefix) = (shared(), unique("near-suspended"));
    let elsewhere = builder(server, &prefix).build().unwrap();
    let id = create(&elsewhere, 1);
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", "suspended_process_serves_no_stale_read", "--nocapture"])
        .env(SUSPENDED, format!("{} {prefix} {}", server.url(), id.expose()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let mut words = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut next = || words.find(|word| ["hot", "served", "gone"].contains(&&**word));
    assert_eq!(next().as_deref(), Some("hot"));
    writeln!(stdin).unwrap();
    assert_eq!(next().as_deref(), Some("served"));
    let signal = |signal| kill_process(Pid::from_child(&process), signal).unwrap();
    signal(Signal::STOP);
    sleep(SUSPENDED_LEASE + SLACK);
    assert!(elsewhere.delete(&id).unwrap());
    // The read is the first thing that the process does afterwards.
    writeln!(stdin).unwrap();
    signal(Signal::CONT);
    assert_eq!(next().as_deref(), Some("gone"));
    drop(stdin);
    assert!(process.wait().unwrap().success());
}

#[test]
fn evicted_tracking_is_announced() {
    let server = RedisServer::with(&["--tracking-table-max-keys", "1"]);
    let store = cached(builder(&server, "sessions"), HOUR);
    let elsewhere = builder(&server, "sessions").build().unwrap();
    let ids: Vec<SessionId> = (0..20).map(|revision| create(&elsewhere, 10 + revision)).collect();
    ids.iter().for_each(|id| heat(&store, id));
    assert!(near(&store).invalidations > 0);
    ids.iter().for_each(|id| assert!(elsewhere.delete(id).unwrap()));
    assert!(eventually(SOON, || ids.iter().all(|id| read(&store, id).is_none())));
}

#[test]
fn two_caches_hear_of_each_other() {
    let prefix = unique("near-two");
    let stores = [0, 1].map(|_| cached(builder(shared(), &prefix), HOUR));
    for revision in 0..50 {
        let id = create(&stores[0], 100 + revision);
        stores.iter().for_each(|store| heat(store, &id));
        let [one, other] = if revision % 2 == 0 { [&stores[0], &stores[1]] } else { [&stores[1], &stores[0]] };
        let _ = one.save(&id, Write::new(&payload(900 + revision), HOUR), None).unwrap();
        assert!(eventually(SOON, || read(other, &id) == Some(payload(900 + revision))));
        assert!(other.delete(&id).unwrap());
        assert!(eventually(SOON, || read(one, &id).is_none()));
    }
}

#[test]
fn contract_holds_through_the_cache() {
    for lease in [Duration::ZERO, Duration::from_secs(1)] {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut plain = cached(builder(shared(), &unique("near-plain")), lease);
                contract::all(&plain, sleep);
                contract::companions(&mut plain, sleep);
            });
            scope.spawn(|| {
                let expiring = cached(builder(shared(), &unique("near-expiring")).expiring(), lease);
                contract::all(&expiring, sleep);
                contract::everybody(&expiring, sleep);
            });
        });
    }
}

/// A session in the model of two caches: what was stored in it, in order, and when each value but the last was replaced.
struct History {
    id: SessionId,
    values: Vec<Option<Vec<u8>>>,
    replaced: Vec<Instant>,
    /// The position of the newest value that each store has read or written.
    newest: [usize; 2],
}

impl History {
    fn new(store: &impl SessionStore) -> Self {
        Self { id: create(store, 0), values: vec![Some(payload(0))], replaced: Vec::new(), newest: [0; 2] }
    }

    /// Notes an acknowledged write.
    fn write(&mut self, by: usize, value: Option<Vec<u8>>) {
        self.values.push(value);
        self.replaced.push(Instant::now());
        self.newest[by] = self.values.len() - 1;
    }

    /// Checks a read that began at this time.
    fn check(&mut self, by: usize, begun: Instant, found: Option<Vec<u8>>, lease: Duration) {
        let position = self.values.iter().rposition(|value| *value == found).expect("the value was stored once");
        assert!(position >= self.newest[by], "the store returns to a value before {}", self.newest[by]);
        let stale =
            self.replaced.get(position).map_or(Duration::ZERO, |replaced| begun.saturating_duration_since(*replaced));
        assert!(stale <= lease + SLACK, "the read is stale after {stale:?}");
        self.newest[by] = position;
    }
}

/// Delays announcements at random, by up to `longest` each, for this time.
fn delay_announcements(relay: &Relay, longest: Duration, span: Duration) {
    let (begun, mut seed) = (Instant::now(), 7);
    while begun.elapsed() < span {
        relay.holds.store(true, Ordering::SeqCst);
        sleep(longest * (random(&mut seed) % 100) as u32 / 100);
        relay.holds.store(false, Ordering::SeqCst);
        sleep(Duration::from_millis(random(&mut seed) % 5));
    }
}

/// The next of a fixed sequence of numbers.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn delayed_announcements_stay_within_the_lease() {
    let server = RedisServer::start();
    for lease in [Duration::ZERO, Duration::from_secs(1)] {
        let (relay, prefix) = (Relay::start(&server), unique("near-model"));
        let stores = [0, 1].map(|_| relay.store(&prefix, lease));
        let span = lease + Duration::from_millis(rounds(1_000, 20_000));
        thread::scope(|scope| {
            scope.spawn(|| delay_announcements(&relay, lease / 2, span));
            let (begun, mut seed) = (Instant::now(), 1);
            let mut sessions = [0, 1, 2].map(|by| History::new(&stores[by % 2]));
            while begun.elapsed() < span {
                let by = random(&mut seed) as usize % 2;
                let session = &mut sessions[random(&mut seed) as usize % 3];
                let store = &stores[by];
                // Rare writes, because each one ends the staleness of its store.
                let is_settled = session.replaced.last().is_none_or(|replaced| replaced.elapsed() > lease * 2 / 3);
                match random(&mut seed) % 1000 {
                    0 if is_settled => {
                        assert_eq!(store.delete(&session.id).unwrap(), session.values.last().unwrap().is_some());
                        session.write(by, None);
                    }
                    1..10 if is_settled && session.values.last().unwrap().is_some() => {
                        let value = payload(session.values.len() as u64);
                        let _ = store.save(&session.id, Write::new(&value, HOUR), None).unwrap();
                        session.write(by, Some(value));
                    }
                    10 if is_settled => *session = History::new(store),
                    _ => {
                        let begun = Instant::now();
                        session.check(by, begun, read(store, &session.id), lease);
                    }
                }
            }
        });
        let hits: u64 = stores.iter().map(|store| near(store).hits).sum();
        assert_eq!(hits > 0, lease > Duration::ZERO, "{hits} reads without a command");
    }
}

#[test]
fn lease_of_zero_serves_nothing() {
    let store = cached(builder(shared(), &unique("near-zero")), Duration::ZERO);
    let id = create(&store, 1);
    (0..50).for_each(|_| assert!(read(&store, &id).is_some()));
    assert_eq!((near(&store).hits, near(&store).misses), (0, 50));
}

#[test]
fn user_without_the_right_gets_a_warning() {
    let server = RedisServer::start();
    let url = format!("redis://narrow:secret@127.0.0.1:{}", server.port());
    server.cmd(&["ACL", "SETUSER", "narrow", "on", ">secret", "~*", "&*", "+@all", "-client|tracking"]);
    let store = cached(RedisSessionStore::builder().url(url), HOUR);
    let warnings = store.check().unwrap();
    assert!(matches!(&warnings[..], [RedisWarning::Untracked(_)]), "{warnings:?}");
    assert!(warnings[0].to_string().contains("near cache"));
    let id = create(&store, 1);
    (0..10).for_each(|_| assert!(read(&store, &id).is_some()));
    assert_eq!(near(&store).hits, 0);
    assert!(near(&store).out_of_service_for.is_some());
    server.cmd(&["ACL", "SETUSER", "narrow", "+client|tracking"]);
    assert_eq!(store.check().unwrap(), []);
    heat(&store, &id);
}

#[test]
fn unworkable_settings_are_rejected() {
    let near = NearCache::new();
    for (near, url, kind) in [
        (near.lease(2 * HOUR), "redis://127.0.0.1", ErrorKind::Misconfigured),
        (near.max_bytes(0), "redis://127.0.0.1", ErrorKind::Misconfigured),
        (near, "redis-cluster://127.0.0.1:1", ErrorKind::Unsupported),
    ] {
        let error = RedisSessionStore::builder().url(url).near_cache(near).build().unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
    }
}

#[test]
fn cache_keeps_to_its_bytes() {
    let prefix = unique("near-bytes");
    let store = builder(shared(), &prefix).near_cache(NearCache::new().max_bytes(20_000)).build().unwrap();
    heat(&store, &create(&store, 1));
    for revision in 0..100 {
        let id = create(&store, 100 + revision);
        (0..5).for_each(|_| assert!(read(&store, &id).is_some()));
    }
    // An entry takes more than 300 bytes.
    sleep(SOON);
    assert!((1..=70).contains(&near(&store).entries), "{:?}", near(&store));
}

#[test]
fn child_of_fork_is_not_served() {
    let _alone = alone();
    let store = cached(builder(shared(), &unique("near-fork")), HOUR);
    let id = create(&store, 1);
    heat(&store, &id);
    let result = in_child(|| {
        let refused = store.read(&id, Touch::No).is_err_and(|error| error.kind() == ErrorKind::Misconfigured);
        let is_out = near(&store).out_of_service_for.is_some();
        drop(store.clone());
        format!("{refused} {is_out}")
    });
    assert_eq!(result.as_deref(), Some("true true"));
    let before = near(&store).hits;
    assert!(read(&store, &id).is_some());
    assert_eq!(near(&store).hits, before + 1, "the parent is served");
}
