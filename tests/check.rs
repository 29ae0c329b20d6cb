//! What `check` finds out at the start of a program.

mod support;

use std::error::Error as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use support::{Cluster, PATIENCE, RedisServer, Sentinels, shared, unique};
use threaded_sessions::step::WrittenAt;
use threaded_sessions::store::{Bind, Ending, Write};
use threaded_sessions::{
    ErrorKind, RedisSessionStore, RedisWarning, SessionManager, SessionStore, StepStore, contract,
};

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
    assert_eq!(warnings, [RedisWarning::Evicts("allkeys-lru".into())]);
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
        assert_eq!(other, [RedisWarning::SharedPrefix("sessions".into())]);
    }
}

#[test]
fn what_stands_in_the_place_of_an_index_is_a_warning() {
    let server = RedisServer::start();
    let store = store(&server, "sessions", true);
    let write = Write::new(b"v", Duration::from_secs(60));
    let _ = store.create(&store.fresh_id(None), write).unwrap();
    for key in ["sessions:index", "sessions:principals"] {
        server.cmd(&["DEL", key]);
        server.cmd(&["SET", key, "something else"]);
        let warnings = store.check().unwrap();
        assert_eq!(warnings, [RedisWarning::Clobbered(key.into())]);
        assert!(warnings[0].to_string().contains(key));
        assert_eq!(store.index().unwrap().verify(Default::default()).unwrap().displaced, 1);
        assert_eq!(store.check().unwrap(), []);
    }
}

#[test]
fn a_user_without_the_rights_is_told_at_the_start() {
    let server = RedisServer::start();
    server.cmd(&["ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+ping", "+info"]);
    server.cmd(&["ACL", "SETUSER", "nosy", "on", ">secret", "~*", "+@all", "-info"]);
    let url = |user: &str, password: &str| format!("redis://{user}:{password}@127.0.0.1:{}", server.port());
    let check = |url: String| RedisSessionStore::open(&url).unwrap().check();

    assert_eq!(check(url("nosy", "secret")).unwrap(), [RedisWarning::Unknown]);
    for refused in [url("reader", "secret"), url("reader", "wrong")] {
        let error = check(refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error} {error:?} {:?}", error.source()).contains("secret"));
    }
}

/// The `ACL SETUSER` of the guide, word by word.
fn user_of_the_guide() -> Vec<&'static str> {
    let guide = include_str!("../docs/operating.md");
    let (_, rest) = guide.split_once("\nACL SETUSER ").expect("the guide has a user");
    let (user, _) = rest.split_once("```").unwrap();
    ["ACL", "SETUSER"].into_iter().chain(user.split_whitespace()).collect()
}

/// All that a store does, for a user whose keys begin with `sessions`.
fn does_all(store: RedisSessionStore) {
    assert_eq!(store.check().unwrap(), []);
    contract::all(&store, thread::sleep);
    if let Some(index) = store.index() {
        let id = store.fresh_id(None);
        let bind = Bind::To { principal: "ann", cap: Some(3) };
        let _ = store.create(&id, Write::new(b"v", Duration::from_secs(60)).with_bind(bind)).unwrap();
        assert_eq!(index.list_by_principal("ann").unwrap().len(), 1);
        for partition in 0..index.partitions() {
            let _ = index.reap(partition, 1000, true).unwrap();
        }
        assert!(index.count().unwrap() > 0 && !index.page(0, 10).unwrap().is_empty());
        let _ = index.verify(Default::default()).unwrap();
        assert!(index.end("ann", Ending::All).unwrap() == 1 && index.list_by_principal("ann").unwrap().is_empty());
        assert!(index.end_everybody().unwrap() > 0 && index.count().unwrap() == 0);
    }
    let store = StepStore::builder(store).step(WrittenAt::new()).build().unwrap();
    contract::all(&store, thread::sleep);
    let id = store.fresh_id(None);
    let _ = store.create(&id, Write::new(b"v", Duration::from_secs(60))).unwrap();
    assert!(WrittenAt::of(&store, &id).unwrap().is_some());
}

#[test]
fn the_user_of_the_guide_may_do_what_is_needed() {
    let server = RedisServer::start();
    let rules = user_of_the_guide();
    server.cmd(&rules);
    let url = server.url().replace("//", &format!("//{}:PASSWORD@", rules[2]));
    for expiring in [false, true] {
        // Two kinds of stores do not share a prefix, and the user has one.
        server.cmd(&["FLUSHALL"]);
        let builder = RedisSessionStore::builder().url(&*url).deadline(PATIENCE);
        let store = if expiring { builder.expiring() } else { builder }.build().unwrap();
        does_all(store.clone());
        if let Some(index) = store.index() {
            server.cmd(&["RENAME", "sessions:index", "sessions:principals"]);
            assert_eq!(index.verify(Default::default()).unwrap().displaced, 1);
        }
    }
}

#[test]
fn the_user_of_the_guide_may_with_two_more_commands_do_what_is_needed_in_a_cluster() {
    let cluster = Cluster::start();
    let mut rules = user_of_the_guide();
    rules.extend(["+cluster|slots", "+asking"]);
    cluster.nodes.iter().for_each(|node| drop(node.cmd(&rules)));
    let url = cluster.full_url().replace("//", &format!("//{}:PASSWORD@", rules[2]));
    for expiring in [false, true] {
        for node in cluster.nodes.iter().filter(|node| node.text(&["INFO", "replication"]).contains("role:master")) {
            node.cmd(&["FLUSHALL"]);
        }
        let builder = RedisSessionStore::builder().url(&*url).deadline(PATIENCE);
        does_all(if expiring { builder.expiring() } else { builder }.build().unwrap());
    }
}

#[test]
fn the_user_of_the_guide_may_do_what_is_needed_with_sentinels() {
    let all = Sentinels::start();
    let mut rules = user_of_the_guide();
    // Without it a connection is believed to lead to the master.
    for more in [None, Some("+role")] {
        rules.extend(more);
        all.servers.iter().for_each(|server| drop(server.cmd(&rules)));
        let url = all.url().replace("//", &format!("//{}:PASSWORD@", rules[2]));
        all.servers[0].cmd(&["FLUSHALL"]);
        does_all(RedisSessionStore::builder().url(url).deadline(PATIENCE).expiring().build().unwrap());
        let refused: String = all.ask(&all.servers[0], &["INFO", "errorstats"]);
        assert_eq!(more.is_none(), refused.contains("NOPERM"), "{refused}");
        all.servers[0].cmd(&["CONFIG", "RESETSTAT"]);
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
