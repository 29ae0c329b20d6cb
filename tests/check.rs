//! `check` at the start of a program: it reports every setting or right of Redis that sessions need.

mod support;

use std::error::Error as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

#[cfg(feature = "near-cache")]
use support::heat;
use support::{Cluster, Monitor, PATIENCE, RedisServer, Sentinels, shared, shared_cluster, texts, unique};
#[cfg(feature = "near-cache")]
use threaded_sessions::NearCache;
use threaded_sessions::step::WrittenAt;
use threaded_sessions::store::{Bind, Ending, Touch, Write};
use threaded_sessions::{
    ErrorKind, RedisSessionStore, RedisWarning, SessionManager, SessionStore, StepStore, contract,
};

fn store(server: &RedisServer, prefix: &str, expiring: bool) -> RedisSessionStore {
    let builder = RedisSessionStore::builder().url(server.url()).prefix(prefix);
    if expiring { builder.expiring() } else { builder }.build().unwrap()
}

#[test]
fn suitable_redis_gets_no_warning() {
    for expiring in [false, true] {
        let prefix = unique("check");
        assert_eq!(store(shared(), &prefix, expiring).check().unwrap(), []);
        let left = shared().cmd(&["KEYS", &format!("{prefix}:????????-????-????-????-????????????")]);
        assert_eq!(left, redis::Value::Array(vec![]), "it leaves no session behind");
    }
}

#[test]
fn evicting_policy_gets_a_warning() {
    let server = RedisServer::with(&["--maxmemory-policy", "allkeys-lru"]);
    let warnings = store(&server, "sessions", false).check().unwrap();
    assert_eq!(warnings, [RedisWarning::Evicts("allkeys-lru".into())]);
    assert!(warnings[0].to_string().contains("allkeys-lru"));

    // A manager finds the warnings of its store, also through steps and a shared store.
    let stepped = StepStore::builder(Arc::new(store(&server, "sessions", false))).build().unwrap();
    assert_eq!(SessionManager::<u32>::new(stepped).check().unwrap(), warnings);
}

#[test]
fn manager_check_fails_without_redis() {
    let server = RedisServer::start();
    let sessions = SessionManager::<u32>::new(store(&server, "sessions", false));
    assert_eq!(sessions.check().unwrap(), []);
    drop(server);
    assert_eq!(sessions.check().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(sessions.health().failed, sessions.store().health().failed);
    assert!(!sessions.health().is_healthy());
}

/// Stores that cannot share a prefix with a plain one that has one partition and the default keys.
fn other_kinds(server: &RedisServer) -> Vec<(&'static str, RedisSessionStore)> {
    let builder = || RedisSessionStore::builder().url(server.url());
    vec![
        ("kind=expiring", builder().expiring().build().unwrap()),
        ("partitions=4", builder().partitions(4).build().unwrap()),
        ("keys=hashed", builder().hashed_keys().build().unwrap()),
        ("keys=custom", builder().key_mapper(|id| format!("sessions:{}", id.expose())).build().unwrap()),
    ]
}

#[test]
fn check_refuses_prefix_of_another_kind() {
    let server = RedisServer::start();
    let plain = store(&server, "sessions", false);
    assert_eq!(plain.check().unwrap(), []);
    for (setting, other) in other_kinds(&server) {
        let error = other.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{setting}");
        let why = error.source().unwrap().to_string();
        for part in ["kind=plain partitions=1 keys=plain", setting, "choose another prefix", "\"sessions:store\""] {
            assert!(why.contains(part), "{why}");
        }
        assert_eq!(plain.check().unwrap(), [], "after {setting}");
    }
    // The remedy in the error works.
    server.cmd(&["DEL", "sessions:store"]);
    let (_, expiring) = other_kinds(&server).swap_remove(0);
    assert_eq!(expiring.check().unwrap(), []);
    assert_eq!(plain.check().unwrap_err().kind(), ErrorKind::Misconfigured);
    assert_eq!(store(&server, "other", false).check().unwrap(), []);
}

#[test]
fn lost_index_does_not_stop_a_start() {
    let server = RedisServer::start();
    let expiring = store(&server, "sessions", true);
    for _ in 0..3 {
        let _ = expiring.create(&expiring.fresh_id(None), Write::new(b"v", Duration::from_secs(60))).unwrap();
    }
    for lost in [&["sessions:index"][..], &["sessions:index", "sessions:store"]] {
        assert_eq!(expiring.check().unwrap(), []);
        lost.iter().for_each(|key| drop(server.cmd(&["DEL", key])));
        assert_eq!(expiring.check().unwrap(), [], "without {lost:?}");
    }
}

#[test]
fn foreign_value_under_marker_is_kept() {
    let server = RedisServer::start();
    for command in [&["SET", "sessions:store", "a secret"][..], &["RPUSH", "sessions:store", "a secret"]] {
        server.cmd(&["DEL", "sessions:store"]);
        server.cmd(command);
        let error = store(&server, "sessions", false).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(!texts(&error).contains("secret") && texts(&error).contains("sessions:store"), "{error:?}");
        assert_eq!(server.cmd(&["EXISTS", "sessions:store"]), redis::Value::Int(1));
    }
}

#[test]
fn check_marks_a_cluster_once() {
    let cluster = shared_cluster();
    let prefix = unique("marked");
    let builder = || RedisSessionStore::builder().url(cluster.url()).prefix(&prefix).deadline(PATIENCE);
    assert_eq!(builder().build().unwrap().check().unwrap(), []);
    assert_eq!(cluster.keys(&format!("{prefix}:store")).len(), 1);
    for other in [builder().expiring(), builder().partitions(8), builder().hashed_keys()] {
        assert_eq!(other.build().unwrap().check().unwrap_err().kind(), ErrorKind::Misconfigured);
    }
    assert_eq!(builder().build().unwrap().check().unwrap(), []);
}

#[test]
fn check_sends_one_command_for_the_marker() {
    for expiring in [false, true] {
        let server = RedisServer::start();
        let store = store(&server, "sessions", expiring);
        let monitor = Monitor::start(&server);
        for _ in 0..2 {
            assert_eq!(store.check().unwrap(), []);
            let commands = monitor.commands();
            let names: Vec<&str> = commands.iter().map(|command| command[0].as_str()).collect();
            assert_eq!(names[..2], ["INFO", "SET"], "{names:?}");
            let kind = if expiring { "expiring" } else { "plain" };
            let marker = format!("kind={kind} partitions=1 keys=plain");
            assert_eq!(commands[1], ["SET", "sessions:store", &marker, "NX", "GET"]);
            let of_marker = commands.iter().filter(|command| command.contains(&"sessions:store".to_owned()));
            assert_eq!(of_marker.count(), 1, "{names:?}");
        }
    }
}

#[test]
fn forbidden_marker_write_gets_a_warning() {
    let server = RedisServer::start();
    let ids = "~sessions:*-*-*-*-*";
    server.cmd(&["ACL", "SETUSER", "narrow", "on", ">secret", ids, "+@all"]);
    let url = format!("redis://narrow:secret@127.0.0.1:{}", server.port());
    let warnings = RedisSessionStore::open(&url).unwrap().check().unwrap();
    assert_eq!(warnings, [RedisWarning::Unmarked("sessions:store".into())]);
    assert!(warnings[0].to_string().contains("sessions:store"));
}

#[test]
fn server_without_info_is_a_warning() {
    let renamed = RedisServer::with(&["--rename-command", "INFO", "IN-FO"]);
    assert_eq!(store(&renamed, "sessions", true).check().unwrap(), [RedisWarning::Unknown]);
    let server = RedisServer::start();
    for reply in [
        Some("-ERR unsupported command\r\n"),
        Some("-ERR unknown command `INFO`, with args beginning with: \r\n"),
        Some("-NOPERM this user has no permissions to run the 'info' command\r\n"),
        Some("-ERR unknown subcommand\r\n"),
        Some("-PROXYERR not here\r\n"),
        Some("+OK\r\n"),
        Some("$13\r\nproxy:1.2.3.4\r\n"),
        // Some proxies hang up at a command that they do not know.
        None,
    ] {
        let url = in_front_of(&server, "INFO", reply);
        let store = RedisSessionStore::builder().url(url).deadline(PATIENCE).expiring().build().unwrap();
        assert_eq!(store.check().unwrap(), [RedisWarning::Unknown], "{reply:?}");
        assert!(store.create(&store.fresh_id(None), Write::new(b"v", Duration::from_secs(60))).is_ok(), "{reply:?}");
    }
}

#[test]
fn server_without_ping_serves() {
    let server = RedisServer::start();
    for reply in ["-ERR unknown command 'PING', with args beginning with: \r\n", "-NOPERM no\r\n", "-ERR no\r\n"] {
        let url = in_front_of(&server, "PING", Some(reply));
        assert_eq!(RedisSessionStore::open(&url).unwrap().check().unwrap(), [], "{reply}");
    }
}

#[test]
fn missing_essential_command_is_misconfigured() {
    for command in ["GETEX", "EVALSHA", "SET"] {
        let server = RedisServer::with(&["--rename-command", command, ""]);
        let error = store(&server, "sessions", false).check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{command}: {error:?}");
        assert!(error.source().unwrap().to_string().contains(&format!("unknown command '{command}'")), "{error:?}");
    }
    // Scripts need some commands, too.
    for (command, kind) in [("TYPE", ErrorKind::Misconfigured), ("ZADD", ErrorKind::Denied)] {
        let server = RedisServer::with(&["--rename-command", command, ""]);
        let error = store(&server, "sessions", true).check().unwrap_err();
        assert_eq!(error.kind(), kind, "{command}: {error:?}");
    }
}

#[test]
fn user_without_right_to_the_index_is_denied() {
    let server = RedisServer::start();
    for (right, kind) in [("-zadd", ErrorKind::Denied), ("-zscore", ErrorKind::Denied), ("-type", ErrorKind::Denied)] {
        server.cmd(&["ACL", "SETUSER", "narrow", "reset", "on", ">secret", "~*", "+@all", right]);
        let url = format!("redis://narrow:secret@127.0.0.1:{}", server.port());
        let error = RedisSessionStore::builder().url(url).expiring().build().unwrap().check().unwrap_err();
        assert_eq!(error.kind(), kind, "{right}: {error:?}");
    }
    // Only a warning needs it.
    server.cmd(&["ACL", "SETUSER", "narrow", "reset", "on", ">secret", "~*", "+@all", "-hlen"]);
    let url = format!("redis://narrow:secret@127.0.0.1:{}", server.port());
    let warnings = RedisSessionStore::builder().url(url).expiring().build().unwrap().check();
    assert!(warnings.is_ok(), "{warnings:?}");
}

#[test]
fn refused_database_is_not_temporary() {
    let server = RedisServer::start();
    let mut rules = user_of_the_guide();
    rules.extend(["-select"]);
    server.cmd(&rules);
    let login = server.url().replace("//", &format!("//{}:PASSWORD@", rules[2]));
    let node = &shared_cluster().nodes[0];
    for (url, kind) in [
        (format!("{login}/3"), ErrorKind::Denied),
        (format!("{login}/3?protocol=resp3"), ErrorKind::Denied),
        (format!("{}/3", node.url()), ErrorKind::Misconfigured),
        (format!("{}/99", server.url()), ErrorKind::Misconfigured),
    ] {
        let store = RedisSessionStore::open(&url).unwrap();
        for error in [store.check().unwrap_err(), store.read(&store.fresh_id(None), Touch::No).unwrap_err()] {
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(!error.kind().is_temporary());
        }
    }
}

#[test]
fn unknown_refusal_while_connecting_is_not_temporary() {
    let server = RedisServer::start();
    for (command, path) in [("AUTH", ""), ("HELLO", "?protocol=resp3"), ("SELECT", "/3")] {
        let url = in_front_of(&server, command, Some("-ERR something new\r\n"));
        let url = url.replace("//", if command == "AUTH" { "//:secret@" } else { "//" });
        let error = RedisSessionStore::open(&format!("{url}{path}")).unwrap().check().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Denied | ErrorKind::Misconfigured), "{command}: {error:?}");
    }
}

#[test]
fn wrong_password_is_no_outage() {
    let server = RedisServer::with(&["--requirepass", "secret"]);
    for url in [format!("redis://:wrong@127.0.0.1:{}", server.port()), server.url()] {
        for protocol in ["resp2", "resp3"] {
            let store = RedisSessionStore::open(&format!("{url}?protocol={protocol}")).unwrap();
            let error = store.check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
            assert!(error.source().unwrap().to_string().contains("authentication failed"), "{error:?}");
        }
    }
}

#[test]
fn hang_names_the_deadline() {
    let server = RedisServer::start();
    for warm in [false, true] {
        let store = store(&server, "sessions", false);
        if warm {
            store.check().unwrap();
        }
        server.stop();
        let error = store.read(&store.fresh_id(None), Touch::No).unwrap_err();
        server.resume();
        let texts = texts(&error);
        assert!(!texts.contains("os error 11"), "{texts}");
        assert!(!warm || texts.contains("no reply within 1 s"), "{texts}");
    }
}

#[test]
fn channel_warning_names_the_rights_to_grant() {
    let text = RedisWarning::Unannounced("sessions:ended".to_owned()).to_string();
    let remedy = "grant +publish, +subscribe (in a cluster +spublish, +ssubscribe) and the channel";
    assert!(text.contains("\"sessions:ended\"") && text.ends_with(remedy), "{text}");
}

#[test]
fn foreign_key_in_place_of_index_gets_warning() {
    let server = RedisServer::start();
    let store = store(&server, "sessions", true);
    let write = Write::new(b"v", Duration::from_secs(60));
    let _ = store.create(&store.fresh_id(None), write).unwrap();
    for key in ["sessions:index", "sessions:principals"] {
        server.cmd(&["DEL", key]);
        server.cmd(&["SET", key, "something else"]);
        let warnings = store.check().unwrap();
        assert_eq!(warnings, [RedisWarning::Clobbered(key.into())]);
        let text = warnings[0].to_string();
        assert!(text.contains(key) && text.contains("run verify, which renames the key"), "{text}");
        assert_eq!(store.index().unwrap().verify(Default::default()).unwrap().displaced, 1);
        assert_eq!(store.check().unwrap(), []);
    }
}

#[test]
fn user_without_rights_is_reported_at_start() {
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

/// Runs every operation of a store, as a user who may use only keys that begin with `sessions`.
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
fn user_of_the_guide_has_the_rights() {
    let server = RedisServer::start();
    let rules = user_of_the_guide();
    server.cmd(&rules);
    let url = server.url().replace("//", &format!("//{}:PASSWORD@", rules[2]));
    for (expiring, path) in [(false, ""), (true, ""), (false, "/3"), (true, "/3"), (true, "/3?protocol=resp3")] {
        // Two kinds of stores do not share a prefix, and the user has one.
        server.cmd(&["FLUSHALL"]);
        let builder = RedisSessionStore::builder().url(format!("{url}{path}")).deadline(PATIENCE);
        let store = if expiring { builder.expiring() } else { builder }.build().unwrap();
        does_all(store.clone());
        // The commands of the operator go to database 0.
        if !path.is_empty() {
            continue;
        }
        if let Some(index) = store.index() {
            server.cmd(&["RENAME", "sessions:index", "sessions:principals"]);
            assert_eq!(index.verify(Default::default()).unwrap().displaced, 1);
        }
    }
}

#[test]
#[cfg(feature = "near-cache")]
fn user_of_the_guide_may_track_keys() {
    let server = RedisServer::start();
    let rules = user_of_the_guide();
    server.cmd(&rules);
    let url = server.url().replace("//", &format!("//{}:PASSWORD@", rules[2]));
    let cached = |expiring: bool| {
        let builder = RedisSessionStore::builder().url(&*url).near_cache(NearCache::new()).deadline(PATIENCE);
        if expiring { builder.expiring() } else { builder }.build().unwrap()
    };
    let warnings = cached(true).check().unwrap();
    assert!(matches!(&warnings[..], [RedisWarning::Untracked(_)]), "{warnings:?}");
    let guide = include_str!("../docs/operating.md");
    let blocks = guide.split("```text\n").map(|rest| rest.split("```").next().unwrap());
    let tracks = blocks.filter(|block| block.contains("+client|tracking")).collect::<Vec<_>>();
    assert_eq!(tracks.len(), 1, "{tracks:?}");
    server.cmd(&tracks[0].split_whitespace().collect::<Vec<_>>());
    for expiring in [false, true] {
        server.cmd(&["FLUSHALL"]);
        let store = cached(expiring);
        does_all(store.clone());
        let id = store.fresh_id(None);
        let _ = store.create(&id, Write::new(b"v", Duration::from_secs(60))).unwrap();
        heat(&store, &id);
    }
}

#[test]
fn guide_user_needs_two_more_commands_in_clusters() {
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
fn user_of_the_guide_has_rights_with_sentinels() {
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
fn unreachable_redis_is_reported_at_start() {
    let server = RedisServer::start();
    server.kill();
    let error = store(&server, "sessions", false).check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn outdated_redis_is_reported_at_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        listener.incoming().for_each(|client| drop(thread::spawn(|| pretend_to_be_old(client.unwrap()))))
    });
    let error = RedisSessionStore::open(&url).unwrap().check().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.source().unwrap().to_string().contains("6.2.14"));
}

/// Starts a proxy that replies to one command itself, or closes the connection without a reply, and forwards all others. Returns
/// its URL.
fn in_front_of(server: &RedisServer, command: &'static str, reply: Option<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, port) = (format!("redis://{}", listener.local_addr().unwrap()), server.port());
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, upstream) = (client.unwrap(), TcpStream::connect(("127.0.0.1", port)).unwrap());
            let (mut from, mut to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
            thread::spawn(move || intercept(&client, upstream, command, reply));
        }
    });
    url
}

fn intercept(client: &TcpStream, mut upstream: TcpStream, command: &str, reply: Option<&str>) {
    let (mut requests, mut replies) = (BufReader::new(client.try_clone().unwrap()), client);
    while let Some((raw, words)) = read_command(&mut requests) {
        let sent = match reply {
            _ if !words[0].eq_ignore_ascii_case(command) => upstream.write_all(&raw),
            Some(reply) => replies.write_all(reply.as_bytes()),
            None => break,
        };
        if sent.is_err() {
            break;
        }
    }
    for stream in [client, &upstream] {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Reads a command: its bytes and its words.
fn read_command(requests: &mut impl BufRead) -> Option<(Vec<u8>, Vec<String>)> {
    let number = |raw: &mut Vec<u8>, requests: &mut dyn BufRead| -> Option<usize> {
        let mut line = String::new();
        requests.read_line(&mut line).ok().filter(|read| *read > 0)?;
        raw.extend(line.as_bytes());
        line.trim().get(1..)?.parse().ok()
    };
    let (mut raw, mut words) = (Vec::new(), Vec::new());
    for _ in 0..number(&mut raw, requests)? {
        let mut word = vec![0; number(&mut raw, requests)? + 2];
        requests.read_exact(&mut word).ok()?;
        words.push(String::from_utf8_lossy(&word).trim().to_owned());
        raw.extend(word);
    }
    Some((raw, words))
}

/// Replies to `INFO` as Redis 6.2 does, to `PING` as usual, and with `OK` to all other commands.
fn pretend_to_be_old(client: TcpStream) {
    let mut requests = BufReader::new(client.try_clone().unwrap());
    let mut replies = client;
    while let Some((_, command)) = read_command(&mut requests) {
        let info = "redis_version:6.2.14\r\n";
        let reply = match &*command[0] {
            "INFO" => format!("${}\r\n{info}\r\n", info.len()),
            "PING" => "+PONG\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        };
        if replies.write_all(reply.as_bytes()).is_err() {
            return;
        }
    }
}
