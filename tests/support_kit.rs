//! Tests of the test kit. If the kit is wrong, the tests that use it prove nothing.

mod support;

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Connection, RedisResult, Value};
use support::{Fault, Monitor, PATIENCE, Proxy, RedisServer, eventually, shared, unique};

const SOON: Duration = Duration::from_millis(100);

fn connect(url: &str) -> RedisResult<Connection> {
    redis::Client::open(url)?.get_connection()
}

fn get(connection: &mut Connection, key: &str) -> RedisResult<Option<String>> {
    redis::cmd("GET").arg(key).query(connection)
}

fn increment(connection: &mut Connection, key: &str) -> RedisResult<u32> {
    redis::cmd("INCR").arg(key).query(connection)
}

/// The kernel accepts connections even for a stopped server, but for no dead one.
fn alive(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

// The server.

#[test]
fn server_responds_on_tcp_and_unix_socket() {
    let server = shared();
    let key = unique("key");
    assert_eq!(server.cmd(&["SET", &key, "value"]), Value::Okay);
    for url in [server.url(), server.unix_url()] {
        assert_eq!(get(&mut connect(&url).unwrap(), &key).unwrap().as_deref(), Some("value"));
    }
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
}

#[test]
fn servers_are_private_and_take_arguments() {
    let server = RedisServer::with(&["--maxmemory", "2mb", "--maxmemory-policy", "noeviction"]);
    let maxmemory: (String, u64) = redis::from_redis_value(server.cmd(&["CONFIG", "GET", "maxmemory"])).unwrap();
    assert_eq!(maxmemory.1, 2 * 1024 * 1024);
    server.cmd(&["SET", "key", "value"]);
    assert_eq!(RedisServer::start().cmd(&["GET", "key"]), Value::Nil);
}

#[test]
fn server_with_password_becomes_ready() {
    let server = RedisServer::with(&["--requirepass", "secret"]);
    let url = format!("redis://:secret@127.0.0.1:{}", server.port());
    assert_eq!(get(&mut connect(&url).unwrap(), "key").unwrap(), None);
}

#[test]
#[should_panic(expected = "redis-server exited")]
fn failed_server_start_is_reported() {
    RedisServer::with(&["--no-such-option", "1"]);
}

#[test]
#[should_panic(expected = "the server's port is still free")]
fn a_taken_port_is_noticed() {
    let server = RedisServer::start();
    server.kill();
    let _taken = TcpListener::bind(("127.0.0.1", server.port())).unwrap();
    server.restart();
}

#[test]
fn killed_server_restarts_empty_on_same_port() {
    let server = RedisServer::start();
    let (url, pid) = (server.url(), server.pid());
    server.cmd(&["SET", "key", "value"]);
    let mut before = server.connection();
    server.kill();
    assert!(!alive(server.port()));
    assert!(get(&mut before, "key").is_err());
    assert!(connect(&url).is_err());
    server.kill();

    server.restart();
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert_eq!(server.cmd(&["GET", "key"]), Value::Nil);
}

#[test]
fn running_server_restarts_with_persisted_data() {
    let server = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let pid = server.pid();
    server.cmd(&["SET", "key", "value"]);
    let mut before = server.connection();
    server.restart();
    assert_ne!(server.pid(), pid);
    assert!(get(&mut before, "key").is_err());
    assert_eq!(get(&mut server.connection(), "key").unwrap().as_deref(), Some("value"));
}

#[test]
fn server_restarts_after_own_shutdown() {
    let server = RedisServer::start();
    let _ = redis::cmd("SHUTDOWN").arg("NOSAVE").exec(&mut server.connection());
    assert!(eventually(PATIENCE, || !alive(server.port())));
    server.restart();
    server.cmd(&["PING"]);
}

#[test]
fn stopped_server_responds_once_resumed() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    server.stop();
    let asked = thread::spawn(move || get(&mut connection, "key"));
    let client = redis::Client::open(server.url()).unwrap();
    assert!(client.get_connection_with_timeout(SOON).is_err_and(|error| error.is_timeout()));
    assert!(!asked.is_finished());
    server.resume();
    assert_eq!(asked.join().unwrap().unwrap(), None);
}

#[test]
fn dropped_servers_are_gone_even_stopped_ones() {
    for stopped in [false, true] {
        let server = RedisServer::start();
        let (port, dir) = (server.port(), server.dir().to_owned());
        if stopped {
            server.stop();
        }
        assert!(alive(port) && dir.exists());
        drop(server);
        assert!(!alive(port) && !dir.exists());
    }
}

/// The work of the process that the test below starts.
fn hold_servers() {
    let mut lines = io::stdin().lines();
    lines.next();
    let stopped = RedisServer::start();
    stopped.stop();
    for server in [shared(), &stopped] {
        println!("\nserver {} {}", server.port(), server.dir().display());
    }
    lines.next();
}

/// Runs it in a process that lives until `orders` is dropped.
fn holder(binary: Option<&str>) -> (Child, ChildStdin) {
    let mut holder = Command::new(env::current_exe().unwrap())
        .args(["--exact", "servers_end_with_a_killed_test_process", "--nocapture"])
        .env("HOLD_SERVERS", "yes")
        .envs(binary.map(|binary| ("REDIS_SERVER", binary)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = holder.stdin.take().unwrap();
    orders.write_all(b"go\n").unwrap();
    (holder, orders)
}

#[test]
fn servers_end_with_a_killed_test_process() {
    if env::var_os("HOLD_SERVERS").is_some() {
        return hold_servers();
    }
    let (mut holder, _orders) = holder(None);
    let servers: Vec<(u16, String)> = BufReader::new(holder.stdout.take().unwrap())
        .lines()
        .filter_map(|line| {
            let line = line.unwrap();
            let (port, dir) = line.strip_prefix("server ")?.split_once(' ')?;
            Some((port.parse().unwrap(), dir.to_owned()))
        })
        .take(2)
        .collect();
    assert_eq!(servers.len(), 2);
    assert!(servers.iter().all(|&(port, _)| alive(port)));
    holder.kill().unwrap();
    holder.wait().unwrap();
    for (port, dir) in servers {
        assert!(eventually(PATIENCE, || !alive(port) && !Path::new(&dir).exists()));
    }
}

#[test]
fn missing_binary_failure_names_the_remedy() {
    let (holder, _orders) = holder(Some("/no/such/redis-server"));
    let Output { status, stdout, stderr } = holder.wait_with_output().unwrap();
    assert!(!status.success());
    let output = String::from_utf8([stdout, stderr].concat()).unwrap();
    assert!(output.contains("run scripts/test"), "{output}");
}

#[test]
fn unique_names_never_start_with_each_other() {
    let names: Vec<_> = (0..200).map(|_| unique("name")).collect();
    for (at, name) in names.iter().enumerate() {
        assert!(!names.iter().enumerate().any(|(other, n)| other != at && n.starts_with(name)));
    }
}

// The monitor.

#[test]
fn monitor_shows_each_command_once_without_setup() {
    let server = RedisServer::start();
    server.cmd(&["SET", "before", "1"]);
    let monitor = Monitor::start(&server);
    assert!(monitor.commands().is_empty());

    let other = Monitor::start(&server);
    let mut connection = connect(&format!("{}/1", server.url())).unwrap();
    redis::cmd("PING").exec(&mut connection).unwrap();
    redis::cmd("set").arg("key").arg("1").exec(&mut connection).unwrap();
    assert!(get(&mut connect(&server.unix_url()).unwrap(), "key").unwrap().is_none());
    let expected = [vec!["SET", "key", "1"], vec!["GET", "key"]];
    assert_eq!(monitor.commands(), expected);
    assert!(monitor.commands().is_empty());
    assert_eq!(other.commands(), expected);
}

#[test]
fn monitor_omits_calls_of_scripts() {
    let server = RedisServer::start();
    let monitor = Monitor::start(&server);
    let script = "return redis.call('SET', KEYS[1], '[0 lua] x')";
    server.cmd(&["EVAL", script, "1", "key"]);
    server.cmd(&["SET", "text", "[0 lua] \"x\""]);
    let expected = [vec!["EVAL", script, "1", "key"], vec!["SET", "text", "[0 lua] \"x\""]];
    assert_eq!(monitor.commands(), expected);
}

#[test]
fn a_monitor_undoes_the_escapes() {
    let server = RedisServer::start();
    let monitor = Monitor::start(&server);
    let texts = ["", "\"] \" \\ \\n \\x41", "\n\r\t\x07\x08\0\x1b", "größer ☃", " a  b "];
    server.cmd(&[&["RPUSH", "list"], &texts[..]].concat());
    assert_eq!(monitor.commands(), [[&["RPUSH", "list"], &texts[..]].concat()]);

    redis::cmd("GET").arg(&b"\xff\x00"[..]).exec(&mut server.connection()).unwrap();
    assert_eq!(monitor.commands(), [["GET", "\u{fffd}\0"]]);
}

#[test]
fn monitor_counts_commands_of_many_clients() {
    let server = RedisServer::start();
    let monitor = Monitor::start(&server);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = server.connection();
                for _ in 0..250 {
                    increment(&mut connection, "n").unwrap();
                }
            });
        }
    });
    let commands = monitor.commands();
    assert_eq!(commands.len(), 1000);
    assert!(commands.iter().all(|command| command[..] == ["INCR", "n"]));
}

// The proxy. `n` counts on the server what was executed.

fn executed(server: &RedisServer) -> u32 {
    let n: Option<u32> = redis::from_redis_value(server.cmd(&["GET", "n"])).unwrap();
    n.unwrap_or(0)
}

fn proxied() -> (RedisServer, Proxy) {
    let server = RedisServer::start();
    let proxy = Proxy::start(&server);
    (server, proxy)
}

#[test]
fn without_a_fault_the_proxy_is_a_wire() {
    let (server, proxy) = proxied();
    let mut connection = connect(&proxy.url()).unwrap();
    let large = "x".repeat(3_000_000);
    redis::cmd("SET").arg("key").arg(&large).exec(&mut connection).unwrap();
    assert!(get(&mut connection, "key").unwrap().unwrap() == large);
    let values: (u32, Option<u32>, Vec<String>, u32) = redis::pipe()
        .atomic()
        .cmd("INCR")
        .arg("n")
        .cmd("GET")
        .arg("missing")
        .cmd("LRANGE")
        .arg("missing")
        .arg(0)
        .arg(-1)
        .cmd("INCR")
        .arg("n")
        .query(&mut connection)
        .unwrap();
    assert_eq!(values, (1, None, vec![], 2));
    let mut resp3 = connect(&format!("{}/?protocol=resp3", proxy.url())).unwrap();
    assert_eq!(get(&mut resp3, "missing").unwrap(), None);
    let config = redis::cmd("CONFIG").arg("GET").arg("port").query::<Value>(&mut resp3).unwrap();
    assert!(matches!(config, Value::Map(_)));

    server.restart();
    assert!(get(&mut connection, "key").is_err());
    assert_eq!(get(&mut connect(&proxy.url()).unwrap(), "key").unwrap(), None);
    assert_eq!(proxy.fired(), 0);
}

#[test]
fn refuse_cuts_old_and_new_connections() {
    let (_server, proxy) = proxied();
    let mut connection = connect(&proxy.url()).unwrap();
    proxy.set(Fault::Refuse);
    assert!(get(&mut connection, "key").is_err_and(|error| error.is_connection_dropped()));
    assert!(connect(&proxy.url()).is_err());
    assert!(connect(&proxy.url()).is_err());
    assert_eq!(proxy.fired(), 2);

    proxy.set_for(Fault::Refuse, 1);
    assert!(connect(&proxy.url()).is_err());
    assert!(get(&mut connect(&proxy.url()).unwrap(), "key").is_ok());
    assert_eq!(proxy.fired(), 3);
}

#[test]
fn stall_holds_replies_until_released() {
    let (server, proxy) = proxied();
    let mut connection = connect(&proxy.url()).unwrap();
    proxy.set(Fault::Stall);
    let stalled = thread::spawn(move || increment(&mut connection, "n"));
    assert!(eventually(PATIENCE, || executed(&server) == 1));
    let client = redis::Client::open(proxy.url()).unwrap();
    assert!(client.get_connection_with_timeout(SOON).is_err_and(|error| error.is_timeout()));
    assert!(!stalled.is_finished());
    proxy.set(Fault::None);
    assert_eq!(stalled.join().unwrap().unwrap(), 1);
}

#[test]
fn counted_stall_holds_only_its_own_requests() {
    let (server, proxy) = proxied();
    proxy.set_for(Fault::Stall, 1);
    let mut first = connect(&proxy.url()).unwrap();
    first.set_read_timeout(Some(SOON)).unwrap();
    assert!(increment(&mut first, "n").is_err_and(|error| error.is_timeout()));
    assert!(eventually(PATIENCE, || executed(&server) == 1));
    assert_eq!(increment(&mut connect(&proxy.url()).unwrap(), "n").unwrap(), 2);
    assert_eq!(proxy.fired(), 1);
}

#[test]
fn drip_feeds_replies_byte_by_byte() {
    let (server, proxy) = proxied();
    server.cmd(&["SET", "key", "0123456789"]);
    let mut connection = connect(&proxy.url()).unwrap();
    let pause = Duration::from_millis(5);
    proxy.set_for(Fault::Drip(pause), 1);
    let start = Instant::now();
    assert_eq!(get(&mut connection, "key").unwrap().as_deref(), Some("0123456789"));
    assert!(start.elapsed() >= pause * "$10\r\n0123456789\r\n".len() as u32);
    assert_eq!(proxy.fired(), 1);

    proxy.set(Fault::Drip(PATIENCE * 100));
    let dripping = thread::spawn(move || get(&mut connection, "key"));
    assert!(eventually(PATIENCE, || proxy.fired() == 2));
    proxy.set(Fault::None);
    assert_eq!(dripping.join().unwrap().unwrap().as_deref(), Some("0123456789"));
}

#[test]
fn cuts_strike_as_set_but_never_during_setup() {
    for (fault, executes) in [
        (Fault::CutBeforeRequest, false),
        (Fault::CutReplyAt(0), true),
        (Fault::CutReplyAt(2), true),
        (Fault::CutAfterExecuted, true),
    ] {
        let (server, proxy) = proxied();
        proxy.set_for(fault, 2);
        for fired in 1..=2 {
            let mut connection = connect(&proxy.url()).unwrap();
            redis::cmd("PING").exec(&mut connection).unwrap();
            assert_eq!(proxy.fired(), fired - 1);
            let error = increment(&mut connection, "n").unwrap_err();
            assert!(error.is_connection_dropped(), "{fault:?}: {error:?}");
            assert_eq!(proxy.fired(), fired);
            assert_eq!(executed(&server), if executes { fired as u32 } else { 0 }, "{fault:?}");
        }
        let n = increment(&mut connect(&proxy.url()).unwrap(), "n").unwrap();
        assert_eq!(n, if executes { 3 } else { 1 });
        assert_eq!(proxy.fired(), 2);

        proxy.set(fault);
        for _ in 0..3 {
            assert!(increment(&mut connect(&proxy.url()).unwrap(), "n").is_err());
        }
        assert_eq!(proxy.fired(), 5);
    }
}

#[test]
fn a_reply_cut_past_its_end_is_whole() {
    let (_server, proxy) = proxied();
    let mut connection = connect(&proxy.url()).unwrap();
    proxy.set_for(Fault::CutReplyAt(100), 1);
    assert_eq!(increment(&mut connection, "n").unwrap(), 1);
    assert!(increment(&mut connection, "n").is_err());
}

#[test]
fn a_pipeline_is_one_request() {
    let (server, proxy) = proxied();
    let mut connection = connect(&proxy.url()).unwrap();
    proxy.set_for(Fault::CutAfterExecuted, 1);
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("INCR").arg("n").cmd("INCR").arg("n");
    assert!(pipeline.query::<(u32, u32)>(&mut connection).is_err());
    assert_eq!((executed(&server), proxy.fired()), (2, 1));
}

#[test]
fn dropped_proxy_ends_its_connections() {
    let (server, proxy) = proxied();
    let [mut held, mut idle, mut waiting] = [(); 3].map(|()| connect(&proxy.url()).unwrap());
    proxy.set_for(Fault::Stall, 1);
    let held = thread::spawn(move || increment(&mut held, "n"));
    assert!(eventually(PATIENCE, || executed(&server) == 1));
    let waiting = thread::spawn(move || redis::cmd("BLPOP").arg("none").arg(0).query::<Value>(&mut waiting));
    drop(proxy);
    assert!(held.join().unwrap().is_err());
    assert!(waiting.join().unwrap().is_err());
    assert!(get(&mut idle, "key").is_err());
}
