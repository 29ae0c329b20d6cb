//! What `check` finds out at the start of a program.

mod support;

use std::error::Error as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use support::{PATIENCE, RedisServer, shared, unique};
use threaded_sessions::step::WrittenAt;
use threaded_sessions::store::Warning;
use threaded_sessions::{ErrorKind, RedisSessionStore, SessionManager, SessionStore, StepStore, contract};

fn store(server: &RedisServer, prefix: &str, expiring: bool) -> RedisSessionStore {
    let builder = RedisSessionStore::builder().url(server.url()).prefix(prefix);
    if expiring { builder.expiring() } else { builder }.build().unwrap()
}

#[test]
fn a_redis_that_can_work_has_nothing_to_warn_of() {
    for expiring in [false, true] {
        let prefix = unique("check");
        assert_eq!(store(shared(), &prefix, expiring).check().unwrap(), []);
        let left = shared().cmd(&["KEYS", &format!("{prefix}:????????-????-????-????-????????????")]);
        assert_eq!(left, redis::Value::Array(vec![]), "it leaves no session behind");
    }
}

#[test]
fn a_policy_that_evicts_is_a_warning() {
    let server = RedisServer::with(&["--maxmemory-policy", "allkeys-lru"]);
    let warnings = store(&server, "sessions", false).check().unwrap();
    assert_eq!(warnings, [Warning::Evicts("allkeys-lru".into())]);
    assert!(warnings[0].to_string().contains("allkeys-lru"));
}

#[test]
fn a_plain_and_an_expiring_store_under_one_prefix_are_a_warning() {
    for plain_first in [true, false] {
        // Of its own: one step of a SCAN has to come across the sessions.
        let server = RedisServer::start();
        let sessions = SessionManager::<u8>::new(store(&server, "sessions", !plain_first));
        let mut session = sessions.fresh();
        *session = 1;
        let _ = sessions.commit(session).unwrap();
        assert_eq!(store(&server, "sessions", !plain_first).check().unwrap(), []);
        let other = store(&server, "sessions", plain_first).check().unwrap();
        assert_eq!(other, [Warning::SharedPrefix("sessions".into())]);
    }
}

#[test]
fn a_user_without_the_rights_is_told_at_the_start() {
    let server = RedisServer::start();
    server.cmd(&["ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+ping", "+info"]);
    server.cmd(&["ACL", "SETUSER", "nosy", "on", ">secret", "~*", "+@all", "-info"]);
    let url = |user: &str, password: &str| format!("redis://{user}:{password}@127.0.0.1:{}", server.port());
    let check = |url: String| RedisSessionStore::open(&url).unwrap().check();

    assert_eq!(check(url("nosy", "secret")).unwrap(), [Warning::Unknown]);
    for refused in [url("reader", "secret"), url("reader", "wrong")] {
        let error = check(refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error} {error:?} {:?}", error.source()).contains("secret"));
    }
}

#[test]
fn the_user_of_the_guide_may_do_what_is_needed() {
    let guide = include_str!("../docs/operating.md");
    let (_, rest) = guide.split_once("\nACL SETUSER ").expect("the guide has a user");
    let (user, _) = rest.split_once("```").unwrap();
    let server = RedisServer::start();
    let rules: Vec<&str> = ["ACL", "SETUSER"].into_iter().chain(user.split_whitespace()).collect();
    server.cmd(&rules);
    let url = server.url().replace("//", &format!("//{}:PASSWORD@", rules[2]));
    for expiring in [false, true] {
        // Two kinds of stores do not share a prefix, and the user has one.
        server.cmd(&["FLUSHALL"]);
        let builder = RedisSessionStore::builder().url(&*url).deadline(PATIENCE);
        let store = if expiring { builder.expiring() } else { builder }.build().unwrap();
        assert_eq!(store.check().unwrap(), []);
        contract::all(&store, thread::sleep);
        if let Some(index) = store.index() {
            let now = index.reap(0, 1000, true).unwrap();
            assert!(now.removed > 0 && index.count().unwrap() > 0 && !index.page(0, 10).unwrap().is_empty());
            server.cmd(&["RENAME", "sessions:index", "sessions:principals"]);
            assert_eq!(index.verify().unwrap().displaced, 1);
        }
        let store = StepStore::builder(store).step(WrittenAt::new()).build().unwrap();
        contract::all(&store, thread::sleep);
        let id = store.fresh_id(None);
        let _ = store.create(&id, threaded_sessions::store::Write::new(b"v", Duration::from_secs(60))).unwrap();
        assert!(WrittenAt::of(&store, &id).unwrap().is_some());
    }
}

#[test]
fn a_redis_that_is_away_is_told_at_the_start() {
    let server = RedisServer::start();
    server.kill();
    let error = store(&server, "sessions", false).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn a_redis_that_is_too_old_is_told_at_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        listener.incoming().for_each(|client| drop(thread::spawn(|| pretend_to_be_old(client.unwrap()))))
    });
    let error = RedisSessionStore::open(&url).unwrap().check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.source().unwrap().to_string().contains("6.2.14"));
}

/// Answers INFO as Redis 6.2 does, PING as all do, and OK to the rest.
fn pretend_to_be_old(client: TcpStream) {
    let mut requests = BufReader::new(client.try_clone().unwrap());
    let mut replies = client;
    let mut line = String::new();
    while requests.read_line(&mut line).is_ok_and(|read| read > 0) {
        let parts: usize = line.trim_start_matches('*').trim().parse().unwrap();
        let mut command = Vec::new();
        for _ in 0..parts {
            line.clear();
            requests.read_line(&mut line).unwrap();
            let mut part = vec![0; line.trim_start_matches('$').trim().parse::<usize>().unwrap() + 2];
            requests.read_exact(&mut part).unwrap();
            command.push(String::from_utf8_lossy(&part).trim().to_owned());
        }
        let info = "redis_version:6.2.14\r\n";
        let reply = match &*command[0] {
            "INFO" => format!("${}\r\n{info}\r\n", info.len()),
            "PING" => "+PONG\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        if replies.write_all(reply.as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}
