//! Connections that the application takes from the pool: no command of the application
//! changes the state in which sessions use them.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{PATIENCE, RedisServer, eventually, reply_server};
use threaded_sessions::store::{Created, Found, Touch, Write};
use threaded_sessions::{ErrorKind, RedisSessionStore, SessionId, SessionStore, redis};

const HOUR: Duration = Duration::from_secs(3600);

fn create(store: &RedisSessionStore) -> SessionId {
    let id = store.fresh_id(None);
    assert!(matches!(store.create(&id, Write::new(b"v", HOUR)), Ok(Created::Stored(_))));
    id
}

fn is_live(store: &RedisSessionStore, id: &SessionId) -> bool {
    matches!(store.read(id, Touch::Set(HOUR)), Ok(Found::Live(_)))
}

fn connections(server: &RedisServer) -> u64 {
    let info: String = redis::from_redis_value(server.cmd(&["INFO", "stats"])).unwrap();
    info.lines().find_map(|line| line.strip_prefix("total_connections_received:")).unwrap().trim().parse().unwrap()
}

#[test]
fn connection_changing_command_reaches_no_session() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).pool_size(1).build().unwrap();
    let id = create(&store);
    let changes: &[&[&str]] = &[
        &["SELECT", "5"],
        &["select", "5"],
        &["MULTI"],
        &["WATCH", "key"],
        &["SUBSCRIBE", "channel"],
        &["PSUBSCRIBE", "*"],
        &["SSUBSCRIBE", "channel"],
        &["MONITOR"],
        &["HELLO", "3"],
        &["CLIENT", "TRACKING", "ON", "BCAST"],
        &["CLIENT", "REPLY", "SKIP"],
        &["CLIENT", "NO-TOUCH", "ON"],
        &["AUTH", "default", "any"],
        &["RESET"],
        &["QUIT"],
        &["NO.SUCH.COMMAND"],
    ];
    for change in changes {
        let mut connection = store.pool().get().unwrap();
        let mut command = redis::cmd(change[0]);
        command.arg(&change[1..]);
        // Some of them fail, or get no reply. None of them may matter.
        if *change == ["CLIENT", "REPLY", "SKIP"] {
            let _ = redis::pipe().add_command(command).cmd("PING").exec(&mut connection);
        } else {
            let _ = command.exec(&mut connection);
        }
        drop(connection);
        assert!(eventually(PATIENCE, || is_live(&store, &id)), "{change:?}: {:?}", store.health());
        let new = create(&store);
        assert_eq!(server.cmd(&["EXISTS", &store.key(&new)]), redis::Value::Int(1), "{change:?}: in database 0");
    }
}

#[test]
fn half_a_transaction_reaches_no_session() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).pool_size(1).build().unwrap();
    let id = create(&store);
    let mut connection = store.pool().get().unwrap();
    redis::pipe().cmd("SET").arg("k").arg(1).cmd("MULTI").exec(&mut connection).unwrap();
    drop(connection);
    assert!(eventually(PATIENCE, || is_live(&store, &id)));
    // By hand, in one packed command.
    let mut connection = store.pool().get().unwrap();
    let packed = redis::cmd("SELECT").arg(3).get_packed_command();
    redis::ConnectionLike::req_packed_command(&mut connection, &packed).unwrap();
    drop(connection);
    assert!(eventually(PATIENCE, || is_live(&store, &id)));
}

#[test]
fn commands_on_data_keep_their_connection() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).pool_size(1).build().unwrap();
    let id = create(&store);
    let before = connections(&server);
    let commands = 10;
    for _ in 0..commands {
        let mut connection = store.pool().get().unwrap();
        redis::cmd("INCR").arg("visitors").exec(&mut connection).unwrap();
        redis::cmd("PING").exec(&mut connection).unwrap();
        redis::pipe().atomic().cmd("SET").arg("k").arg("v").cmd("GET").arg("k").exec(&mut connection).unwrap();
        redis::Script::new("return redis.call('GET', KEYS[1])").key("k").invoke::<String>(&mut connection).unwrap();
        drop(connection);
        assert!(is_live(&store, &id));
    }
    // `INFO` itself takes a connection, and `SCRIPT LOAD`, which a script that Redis does not know sends once, costs one.
    assert!(connections(&server) <= before + 2, "{} connections", connections(&server) - before);
}

#[test]
fn timed_out_blocking_command_is_no_outage() {
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).deadline(Duration::from_millis(250)).build().unwrap();
    let id = create(&store);
    let mut connection = store.pool().get().unwrap();
    assert!(redis::cmd("BLPOP").arg("queue").arg(0).exec(&mut connection).unwrap_err().is_timeout());
    assert!(store.health().failing_for.is_none(), "{:?}", store.health());
    assert!(is_live(&store, &id));
}

/// A server whose first connection is in another state: its replies to commands on data are `first`.
fn server(first: &'static str, later: &'static str) -> (u16, Arc<AtomicUsize>) {
    let (odd, used) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, mut own) = (odd.clone(), None);
    let port = reply_server(move |request| {
        let reply = if request.ends_with(b"PING\r\n") {
            "+PONG\r\n"
        } else if *own.get_or_insert_with(|| used.fetch_add(1, Ordering::Relaxed)) == 0 {
            counted.fetch_add(1, Ordering::Relaxed);
            first
        } else {
            later
        };
        reply.to_owned()
    });
    (port, odd)
}

#[test]
fn impossible_reply_spoils_connection() {
    for odd in ["+QUEUED\r\n", ":1\r\n", "+1700000000.1 [0 127.0.0.1:1] \"PING\"\r\n", "*1\r\n$7\r\nmessage\r\n"] {
        let (port, seen) = server(odd, "$1\r\nv\r\n");
        let store = RedisSessionStore::open(&format!("redis://127.0.0.1:{port}")).unwrap();
        for _ in 0..3 {
            assert!(matches!(store.read(&SessionId::random(), Touch::Set(HOUR)), Ok(Found::Live(_))), "{odd:?}");
        }
        assert_eq!((seen.load(Ordering::Relaxed), store.health().repeated), (1, 1), "{odd:?}");
    }
    // A write may have been carried out: the reply that came belongs to another command.
    let (port, _) = server("+QUEUED\r\n", "+QUEUED\r\n");
    let store = RedisSessionStore::open(&format!("redis://127.0.0.1:{port}")).unwrap();
    let error = store.delete(&SessionId::random()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MayHaveHappened, "{error:?}");
}
