//! The pool without an outage: connections are short, rejected, or unusable, and sessions are never mixed up.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use redis::{ConnectionLike, Value};
use support::{PATIENCE, Proxy, RedisServer, eventually, reply_server};
use threaded_sessions::store::{Created, Found, Touch, Write};
use threaded_sessions::{ErrorKind, RedisSessionStore, SessionId, SessionStore, redis};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(250);

fn open(url: &str, deadline: Duration, connections: u32) -> RedisSessionStore {
    RedisSessionStore::builder().url(url).deadline(deadline).pool_size(connections).build().unwrap()
}

fn read(store: &RedisSessionStore) -> Result<(), ErrorKind> {
    store.read(&SessionId::random(), Touch::No).map(drop).map_err(|error| error.kind())
}

fn serves(store: &RedisSessionStore) -> bool {
    read(store).is_ok()
}

fn create(store: &RedisSessionStore, payload: &[u8]) -> SessionId {
    let id = store.fresh_id(None);
    assert!(matches!(store.create(&id, Write::new(payload, HOUR)), Ok(Created::Stored(_))));
    id
}

#[test]
fn exhausted_pool_is_no_outage() {
    let server = RedisServer::start();
    let store = open(&server.url(), SHORT, 1);
    assert!(eventually(PATIENCE, || serves(&store)));
    let mut held = store.pool().get().unwrap();
    assert!(held.check_connection());
    let start = Instant::now();
    let error = store.read(&SessionId::random(), Touch::No).unwrap_err();
    assert!(start.elapsed() >= SHORT);
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(format!("{error:?}").contains("none of up to 1 connections came free"), "{error:?}");
    assert!(store.health().is_healthy() && store.health().last_error.is_none(), "{:?}", store.health());
    // A waiting caller is served as soon as a connection comes back.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| eventually(PATIENCE, || serves(&store)));
        drop(held);
        assert!(waiting.join().unwrap());
    });
}

#[test]
fn rejected_connections_are_no_outage_while_others_work() {
    let server = RedisServer::start();
    let store = open(&server.url(), PATIENCE, 8);
    let held = store.pool().get().unwrap();
    // The spare one that the pool keeps, at least.
    assert!(eventually(PATIENCE, || store.health().connections_idle > 0));
    server.cmd(&["CONFIG", "SET", "maxclients", "1"]);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..50).try_for_each(|_| read(&store)))).collect();
        threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Ok(())));
    });
    assert!(store.health().is_healthy(), "{:?}", store.health());
    drop(held);
}

#[test]
fn rejected_login_reports_its_reason() {
    let server = RedisServer::with(&["--requirepass", "s3cr3t"]);
    let url = server.url().replace("//", "//:s3cr3t@");
    let first = open(&url, PATIENCE, 1);
    assert!(serves(&first));
    redis::cmd("CONFIG").arg(&["SET", "maxclients", "1"]).exec(&mut first.pool().get().unwrap()).unwrap();
    let second = open(&url, PATIENCE, 1);
    assert_eq!(read(&second), Err(ErrorKind::Unavailable));
    assert!(second.health().last_error.unwrap().contains("max number of clients"));
    drop(first);
    assert!(eventually(PATIENCE, || serves(&second)));
    let wrong = open(&server.url().replace("//", "//:wrong@"), PATIENCE, 1);
    drop(second);
    assert!(eventually(PATIENCE, || read(&wrong) == Err(ErrorKind::Denied)));
}

#[test]
fn user_without_ping_right_is_served() {
    let server = RedisServer::start();
    server.cmd(&["ACL", "SETUSER", "app", "on", ">pw", "~sessions:*", "+get", "+exists"]);
    let store = open(&server.url().replace("//", "//app:pw@"), PATIENCE, 1);
    assert_eq!(read(&store), Ok(()));
    assert_eq!(store.delete(&SessionId::random()).unwrap_err().kind(), ErrorKind::Denied);
}

#[test]
fn half_permitted_renewal_changes_nothing() {
    let server = RedisServer::start();
    for forbidden in ["-set", "-del", "-get", "-pttl", "-pexpiretime", "-zadd"] {
        for expiring in [false, true] {
            let open = |url: String| {
                let builder = RedisSessionStore::builder().url(url).deadline(PATIENCE);
                if expiring { builder.prefix("expiring").expiring() } else { builder }.build().unwrap()
            };
            server.cmd(&["ACL", "SETUSER", "app", "reset", "on", ">pw", "~*", "+@all", forbidden]);
            let (admin, app) = (open(server.url()), open(server.url().replace("//", "//app:pw@")));
            let old = create(&admin, b"before");
            let new = admin.fresh_id(Some(&old));
            let rotated = app.rotate(&old, &new, Write::new(b"after", HOUR), None);
            let found = [&old, &new].map(|id| match admin.read(id, Touch::No).unwrap() {
                Found::Live(stored) => stored.payload.to_vec(),
                _ => Vec::new(),
            });
            if ["-zadd", "-pexpiretime"].contains(&forbidden) || (forbidden == "-pttl" && !expiring) {
                assert!(rotated.is_ok(), "neither the index nor what is not needed fails an operation: {rotated:?}");
                assert_eq!(found, [b"".to_vec(), b"after".to_vec()]);
            } else {
                assert_eq!(rotated.unwrap_err().kind(), ErrorKind::Denied, "{forbidden}");
                assert_eq!(found, [b"before".to_vec(), b"".to_vec()], "{forbidden}");
            }
        }
    }
}

#[test]
fn half_written_command_spoils_no_later_operation() {
    let server = RedisServer::start();
    let store = open(&server.url(), SHORT, 1);
    let id = create(&open(&server.url(), PATIENCE, 1), b"whole");
    assert!(eventually(PATIENCE, || serves(&store)));
    let large = vec![b'x'; 50_000_000];
    server.stop();
    let mut connection = store.pool().get().unwrap();
    let error = redis::cmd("SET").arg("large").arg(&large).exec(&mut connection).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    drop(connection);
    server.resume();
    let is_whole = || match store.read(&id, Touch::No) {
        Ok(Found::Live(stored)) => *stored.payload == *b"whole",
        Ok(found) => panic!("the session is lost: {found:?}"),
        Err(_) => false,
    };
    assert!(eventually(PATIENCE, is_whole));
    assert_eq!(server.cmd(&["EXISTS", "large"]), Value::Int(0));
}

#[test]
fn the_deadline_is_of_the_whole_operation() {
    let deadline = Duration::from_secs(4);
    let server = RedisServer::start();
    let store = open(&server.url(), deadline, 1);
    assert!(eventually(PATIENCE, || serves(&store)));
    let held = store.pool().get().unwrap();
    let took = thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let start = Instant::now();
            assert_eq!(read(&store), Err(ErrorKind::TimedOut));
            start.elapsed()
        });
        thread::sleep(deadline * 3 / 4);
        server.stop();
        drop(held);
        waiting.join().unwrap()
    });
    // The deadline covers waiting and reading together.
    assert!(took >= deadline && took < deadline * 7 / 4, "{took:?}");
    server.resume();
    assert!(eventually(PATIENCE, || serves(&store)));
}

/// Two commands take longer than the deadline, one does not.
#[test]
fn one_deadline_covers_all_commands_of_a_read() {
    let port = reply_server(|request| {
        let has = |name: &str| String::from_utf8_lossy(request).contains(&format!("\r\n{name}\r\n"));
        if has("GET") || has("EXISTS") {
            thread::sleep(SHORT * 3 / 5);
        }
        let reply = if has("GET") {
            "$-1\r\n"
        } else if has("EXISTS") {
            ":0\r\n"
        } else {
            "+OK\r\n"
        };
        reply.to_owned()
    });
    let store = open(&format!("redis://127.0.0.1:{port}"), SHORT, 1);
    let several = [SessionId::random(), SessionId::random()];
    assert!(read(&store).is_err() && store.read_first(&several, Touch::No).1.is_err());
    let patient = open(&format!("redis://127.0.0.1:{port}"), SHORT * 4, 1);
    assert_eq!(read(&patient), Ok(()));
}

#[test]
fn read_only_server_gets_no_connection_per_write() {
    let server = RedisServer::start();
    let store = open(&server.url(), PATIENCE, 2);
    assert!(serves(&store));
    server.demote();
    let connections = || -> u64 {
        let info: String = redis::from_redis_value(server.cmd(&["INFO", "stats"])).unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap();
        line.trim().parse().unwrap()
    };
    let (before, start) = (connections(), Instant::now());
    for _ in 0..500 {
        assert_eq!(store.delete(&SessionId::random()).unwrap_err().kind(), ErrorKind::ReadOnly);
    }
    let opened = connections() - before;
    assert!(opened < 10 + 4 * start.elapsed().as_secs(), "{opened} connections");
}

#[test]
fn changed_address_leads_to_the_new_primary() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = Proxy::start(&old);
    let store = open(&proxy.url(), PATIENCE, 4);
    assert!(serves(&store));
    old.demote();
    proxy.lead_to(&new);
    let id = store.fresh_id(None);
    assert!(eventually(PATIENCE, || matches!(store.create(&id, Write::new(b"v", HOUR)), Ok(Created::Stored(_)))));
    assert_eq!(new.cmd(&["EXISTS", &store.key(&id)]), Value::Int(1));
    assert!(store.health().is_healthy());
}

#[test]
fn refused_database_names_the_cause() {
    let server = RedisServer::start();
    server.cmd(&["ACL", "SETUSER", "app", "on", ">pw", "~sessions:*", "+get", "+exists"]);
    for (login, database, kind) in [("app:pw@", 3, ErrorKind::Denied), ("", 99, ErrorKind::Misconfigured)] {
        let url = format!("{}/{database}", server.url().replace("//", &format!("//{login}")));
        assert_eq!(read(&open(&url, PATIENCE, 1)), Err(kind), "{database}");
    }
}
