//! Measures the commands for operators on a large store: their time next to the same reads by hand, how long Redis is held, and
//! how long a client beside them waits.
//!
//! `cargo bench --all-features --bench operator` uses a million sessions; `-- --short` is a look at whether it runs at all.

#[path = "../tests/support/mod.rs"]
mod support;

use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use redis::Value;
use sha2::{Digest, Sha256};
use support::RedisServer;
use support::tool::Tool;
use threaded_sessions::store::{Found, Touch, Write};
use threaded_sessions::{RedisSessionStore, SessionStore};

/// Adds sessions, ten for each owner. The ids are spread, so that the index and the keyspace have them in different orders.
const LOAD: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    for number = ARGV[1], ARGV[2] - 1 do
        local key = 'sessions:' .. string.format('%08x-0000-4000-8000-000000000000', number * 2654435761 % 4294967296)
        local left = 3600000 - number % 1000
        local owner = 3 + math.floor((number - ARGV[1]) / 10)
        local payload = string.format(
            '{\"v\":1,\"rev\":%d,\"created\":%d,\"bound\":{\"principal\":\"user-%d\",\"label\":\"phone\"},\"idle\":3600000,\"data\":\"%s\"}',
            number, now - 60000, math.floor(number / 10), string.rep('x', 200))
        redis.call('SET', key, payload, 'PX', left + 86400000)
        redis.call('ZADD', 'sessions:index', now + left, key)
        redis.call('HSET', 'sessions:principals', key, ARGV[owner])
        redis.call('ZADD', 'sessions:principal:' .. ARGV[owner], now, key)
    end";

const BATCH: u64 = 1000;
const SLOW_MICROS: u64 = 2000;

/// How long a client reads without anything beside it.
const QUIET: Duration = Duration::from_secs(3);

/// The keys of one pipeline, by hand.
const BY_HAND: usize = 250;

fn main() {
    let sessions = if env::args().any(|arg| arg == "--short") { 20_000 } else { 1_000_000 };
    let server = RedisServer::start();
    let store = RedisSessionStore::builder().url(server.url()).expiring().build().unwrap();
    let _ = store.check().unwrap();
    load(&server, sessions);
    server.cmd(&["CONFIG", "SET", "slowlog-log-slower-than", &SLOW_MICROS.to_string()]);
    server.cmd(&["SLOWLOG", "RESET"]);
    let tool = Tool::new(server.url(), "sessions");
    println!("{sessions} sessions");
    let by_hand = by_hand(&server, sessions);
    let quiet = p99(&store, || thread::sleep(QUIET)).1;
    println!("a client reads a session: p99 {quiet:?}");
    print("GET and PTTL of every key, by hand", by_hand, None);
    for (args, limit) in [
        (&["count"][..], None),
        (&["list", "user-7"], None),
        (&["list"], Some(by_hand)),
        (&["list", "--json"], Some(by_hand)),
        (&["verify"], Some(by_hand)),
    ] {
        let ((first, whole, lines), beside) = p99(&store, || run(tool.command(args)));
        print(&args.join(" "), whole, limit);
        println!("    first line after {:.3} s, {lines} lines", first.as_secs_f64());
        let times = beside.as_secs_f64() / quiet.as_secs_f64();
        println!("    a client beside it: p99 {beside:?}, {times:.1} times the quiet one");
    }
    let Value::Array(slow) = server.cmd(&["SLOWLOG", "GET", "10"]) else { panic!("SLOWLOG returns a list") };
    println!("commands of more than {SLOW_MICROS} µs: {}", slow.len());
    for entry in slow {
        let Value::Array(entry) = entry else { panic!("an entry is a list") };
        let Value::Array(command) = &entry[3] else { panic!("a command is a list") };
        println!("    {:?} of {:?} µs", command[0], entry[2]);
    }
}

fn print(name: &str, took: Duration, compared: Option<Duration>) {
    let took = took.as_secs_f64();
    let times = compared.map(|compared| format!(", {:.2} times by hand", took / compared.as_secs_f64()));
    println!("{name:40} {took:8.3} s{}", times.unwrap_or_default());
}

fn load(server: &RedisServer, sessions: u64) {
    let (mut connection, script) = (server.connection(), redis::Script::new(LOAD));
    for first in (0..sessions).step_by(BATCH as usize) {
        let mut call = script.prepare_invoke();
        call.arg(first).arg(first + BATCH);
        for owner in first / 10..(first + BATCH) / 10 {
            call.arg(hex::encode(&Sha256::digest(format!("user-{owner}"))[..16]));
        }
        call.invoke::<()>(&mut connection).unwrap();
    }
}

fn by_hand(server: &RedisServer, sessions: u64) -> Duration {
    let mut connection = server.connection();
    let key = |number: u64| format!("sessions:{:08x}-0000-4000-8000-000000000000", number * 2_654_435_761 % (1 << 32));
    let mut keys: Vec<String> = (0..sessions).map(key).collect();
    // In the order of their creation, which only this benchmark knows, the keys are next to each other in the memory of Redis.
    keys.sort_unstable();
    let start = Instant::now();
    for keys in keys.chunks(BY_HAND) {
        let mut pipe = redis::pipe();
        for key in keys {
            pipe.cmd("GET").arg(key).cmd("PTTL").arg(key);
        }
        let replies: Vec<Value> = pipe.query(&mut connection).unwrap();
        assert!(replies.iter().all(|reply| *reply != Value::Nil), "each session is there");
    }
    start.elapsed()
}

/// Reads a session every millisecond until `work` is done. Returns the result of `work` and the 99th percentile of the reads.
fn p99<R>(store: &RedisSessionStore, work: impl FnOnce() -> R) -> (R, Duration) {
    let (id, over) = (store.fresh_id(None), AtomicBool::new(false));
    let _ =
        store.create(&id, Write::new(br#"{"v":1,"rev":1,"created":1,"data":"x"}"#, Duration::from_secs(3600))).unwrap();
    thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let mut times = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert!(matches!(store.read(&id, Touch::No), Ok(Found::Live(_))));
                times.push(start.elapsed());
                thread::sleep(Duration::from_millis(1));
            }
            times.sort_unstable();
            times[(times.len() - 1) * 99 / 100]
        });
        let result = work();
        over.store(true, Ordering::Relaxed);
        let p99 = reads.join().unwrap();
        assert!(store.delete(&id).unwrap());
        (result, p99)
    })
}

/// Runs a command to its end. Returns the time to its first line and to its end, and the number of lines.
fn run(mut command: Command) -> (Duration, Duration, usize) {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().map(|_| start.elapsed()).unwrap_or_default();
    let rest = lines.count();
    assert!(child.wait().unwrap().success());
    (first, start.elapsed(), rest + 1)
}
